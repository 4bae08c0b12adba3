"""What left in a format other programs read comes back as the same items: by the same ids where the format has room for them."""

from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from prefloop.collect import imports, items
from prefloop.collect.exports import export
from prefloop.collect.tables import item
from prefloop.data.read import read_groups
from prefloop.records import Completion, Group, Message, Prompt
from tests.collect.made import Made, made

RANKINGS = ("a > b = c", "b > a | c", "| a b c", "a = b = c")


@pytest.fixture(scope="module")
def database(sqlite):
    """One is enough here."""
    return sqlite


@pytest.fixture(scope="module")
def judged(database) -> Made:
    """A question and a conversation, ids of their own making, judged by two people each."""
    project = made(database, users=2, overlap=2)
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="hi"),
        Message(role="assistant", content="hello"),
        Message(role="user", content="and?\n\nHuman: no turn"),
    )
    prompts = [Prompt(id="question-1", messages=(Message(role="user", content="q"),), tags=("topic:x",)), Prompt(messages=turns)]
    new = [
        items.new_item(
            one, [Completion(prompt_id=one.id, content={"type": "text", "text": text}, source=f"policy:{text}") for text in "xyz"]
        )
        for one in prompts
    ]
    database.write(partial(items.add, project_id=project.id, items=new, now=database.clock()))
    for number, ranking in enumerate(RANKINGS):
        project.submit(project.claim(number % 2), number % 2, answers={"rank": {"ranking": ranking}})
    return project


def ids_of(project: Made) -> set[str]:
    return set(project.database.read(lambda c: c.scalars(select(item.c.ext_id).where(item.c.project_id == project.id)).all()))


def exported(project: Made, folder: Path, format: str) -> Path:
    export(project.database, project.slug, folder, format=format)
    return folder / f"{format}.jsonl"


def orders(groups: list[Group], *, has_unusable: bool = True) -> dict[tuple[str, str], list]:
    """What each person said of each prompt, in the words of answers; the unusable are a last tier where a format knows no other."""
    said = {}
    for group in groups:
        text = {one.id: one.text for one in group.completions}
        for ranking in group.rankings:
            tiers = [sorted(text[one] for one in tier) for tier in ranking.tiers]
            bad = sorted(text[one] for one in ranking.unusable)
            said[group.prompt.text.split("\n\n")[-1], ranking.annotator] = (
                [tiers, bad] if has_unusable else [*tiers, *([bad] if bad else [])]
            )
    return said


@pytest.mark.parametrize("format", ["kway", "labelstudio"])
def test_an_export_comes_back_as_the_same_items(judged, tmp_path, format):
    path = exported(judged, tmp_path / "out", format)
    assert (imports.look(judged.database, judged.id, path).items, imports.look(judged.database, judged.id, path).known) == (2, 2)
    again = made(judged.database)
    assert imports.run(judged.database, again.id, path).added == 2
    assert ids_of(again) == ids_of(judged)


def test_an_argilla_export_keeps_the_ids_of_questions_and_makes_one_turn_of_conversations(judged, tmp_path):
    path = exported(judged, tmp_path / "out", "argilla")
    again = made(judged.database)
    report = imports.run(judged.database, again.id, path)
    assert (report.added, report.problems) == (2, [])
    assert len(ids_of(again) & ids_of(judged)) == 1
    groups = {len(group.prompt.messages): group for group in read_groups(path).records}
    assert set(groups) == {1} and {group.prompt.id for group in read_groups(path).records} >= {"question-1"}
    long = next(group for group in read_groups(path).records if group.prompt.id != "question-1")
    assert long.prompt.text == "Be brief.\n\nhi\n\nhello\n\nand?\n\nHuman: no turn"


@pytest.mark.parametrize("format", ["labelstudio", "argilla"])
def test_judgments_come_back_as_they_were_given(judged, tmp_path, format):
    given = read_groups(exported(judged, tmp_path / "kway", "kway")).records
    back = read_groups(exported(judged, tmp_path / format, format)).records
    has_unusable = format == "labelstudio"
    assert orders(back, has_unusable=has_unusable) == orders(given, has_unusable=has_unusable) and len(orders(given)) == 4
    seconds, before = ([ranking.seconds for group in groups for ranking in group.rankings] for groups in (back, given))
    assert seconds == (before if has_unusable else [None] * 4)


@pytest.mark.parametrize("format", ["trl_preference", "openrlhf", "rm_group"])
def test_what_training_reads_can_be_judged_again(judged, tmp_path, format):
    again = made(judged.database)
    assert imports.run(judged.database, again.id, exported(judged, tmp_path / "out", format)).added > 0
