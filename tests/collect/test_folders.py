"""A folder of pictures as items: what is read of it, that nothing is stored of a bad one, and three ways in."""

import json

import pytest
from sqlalchemy import text

from prefloop.collect import folders, imports, media
from prefloop.collect.folders import media_folder
from prefloop.collect.schema import template
from prefloop.collect.serve import open_database
from prefloop.errors import DataError
from prefloop.records import Completion
from tests.collect.made import made
from tests.collect.pictures import a_png, a_wav
from tests.command_line import prefloop


@pytest.fixture
def pictures(tmp_path):
    """Two prompts, one called by its folder, one by a prompt.txt; and what desktops leave lying about."""
    root = tmp_path / "pictures"
    for place, folder in enumerate(("a red square", "long/1")):
        (root / folder).mkdir(parents=True)
        for name, shade in (("large@900.png", 10), ("small.png", 90)):
            (root / folder / name).write_bytes(a_png(colour=(200, shade, 100 * place)))
    (root / "long/1/prompt.txt").write_text("A blue square,\nand nothing else.\n", encoding="utf-8")
    for left in (".DS_Store", "a red square/Thumbs.db", "long/.small.png.swp"):
        (root / left).write_bytes(b"x")
    return root


def test_a_folder_is_a_prompt_and_its_files_are_the_answers(pictures):
    found = media_folder(pictures)
    first, second = found.whole()
    assert [first.prompt.text, second.prompt.text] == ["a red square", "A blue square,\nand nothing else."]
    assert [one.source for one in first.completions] == ["policy:large@900", "policy:small"]
    assert [one.content.uri for one in second.completions] == ["pictures/long/1/large@900.png", "pictures/long/1/small.png"]
    assert {one.content.sha256 for group in (first, second) for one in group.completions} == set(found.files)
    assert len(found.files) == 4


def test_a_folder_of_rows_or_of_nothing_is_no_folder_of_files(pictures, tmp_path):
    (tmp_path / "empty/prompts").mkdir(parents=True)
    (pictures / "more.jsonl").write_text("{}")
    assert [media_folder(path) for path in (pictures, tmp_path / "empty", tmp_path / "nowhere")] == [None] * 3


def spoiled(root, name, data) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(data)


BAD = {
    "a picture that is cut off": ("a red square/third.png", a_png()[:-6], r"a red square/third\.png.*cut off or damaged"),
    "a page called a picture": ("a red square/third.png", b"<svg onload=alert(1)>", r"third\.png.*none of the files that are taken"),
    "a file in no folder": ("alone.png", a_png(), r"pictures/alone\.png, a file in no folder"),
    "a sound among pictures": ("a red square/third.wav", a_wav(), "audio, image answers|audio answers, where the project asks about image"),
    "one answer": ("another/only.png", a_png(), "1 answers, where the project takes 2 to 9"),
    "no words": ("a red square/prompt.txt", b" \n", r"a red square, its prompt\.txt is empty"),
    "words of no encoding": ("a red square/prompt.txt", b"\xff\xfe\xff", r"prompt\.txt cannot be read"),
}  # fmt: skip


@pytest.fixture(scope="module")
def project(sqlite):
    return made(sqlite, users=0, schema=template("image_pref"))


@pytest.mark.parametrize("what", BAD)
def test_one_bad_file_is_named_and_nothing_is_stored(project, pictures, tmp_path, what):
    name, data, said = BAD[what]
    spoiled(pictures, name, data)
    found = media_folder(pictures)
    with pytest.raises(DataError, match=said) as refusal:
        imports.run(
            project.database, project.id, found, before=lambda identity: stored(project, tmp_path / "service", found) or identity
        )
    assert "nothing was imported" in str(refusal.value)
    assert not (tmp_path / "service").exists() and count(project, "item") == count(project, "asset") == 0


def stored(project, folder, found) -> None:
    folders.store(project.database, folder, project.id, found)


def count(project, table: str) -> int:
    return project.database.read(
        lambda c: c.scalar(text(f"SELECT count(*) FROM {table} WHERE project_id = :p"), {"p": project.id})
    )


def test_a_file_that_changes_between_the_look_and_the_copy_is_refused(project, pictures, tmp_path):
    found = media_folder(pictures)
    found.whole()
    (pictures / "a red square/small.png").write_bytes(a_png(colour=(1, 1, 1)))
    with pytest.raises(DataError, match=r"small\.png changed while it was imported"):
        stored(project, tmp_path / "service", found)
    assert not any(path.is_file() and path.name.startswith("upload-") for path in (tmp_path / "service").rglob("*"))


def typed(data, *words):
    return prefloop("collect", *words, "--data", data)


def test_from_a_folder_of_pictures_to_items_by_one_command(pictures, tmp_path):
    data = tmp_path / "service"
    looked = typed(data, "import", "sun", pictures, "--template", "image_pref", "--dry-run")
    assert looked.out.splitlines() == [
        "pictures: a folder of files, 2 rows, 2 items (0 there already)",
        "nothing was stored (--dry-run)",
    ]
    spoiled(pictures, "a red square/third.png", b"<html>")
    refused = typed(data, "import", "sun", pictures, "--template", "image_pref")
    assert refused.code == 2 and "pictures/a red square/third.png, this is none of the files that are taken" in refused.err
    (pictures / "a red square/third.png").unlink()
    taken = typed(data, "import", "sun", pictures, "--template", "image_pref")  # by the same words: no project was made before
    assert taken.out.splitlines()[-1] == "2 items are now in sun"
    assert typed(data, "import", "sun", pictures).out.splitlines()[-1] == "0 items are now in sun"
    database = open_database(data, "")
    bodies = database.read(lambda c: c.exec_driver_sql("SELECT completions_json FROM item_body").scalars().all())
    database.close()
    shown = [Completion.model_validate(one).content for body in bodies for one in json.loads(body)]
    kept = {media.place(data, one.sha256).read_bytes() for one in shown}
    assert kept == {path.read_bytes() for path in pictures.rglob("*.png")}


def test_a_folder_of_pictures_is_refused_by_questions_about_words(pictures, tmp_path):
    outcome = typed(tmp_path / "service", "import", "sun", pictures, "--template", "rank")
    assert outcome.code == 2 and "image answers, where the project asks about text" in outcome.err
