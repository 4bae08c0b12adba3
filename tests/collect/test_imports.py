"""Files into a project: what is taken, and that a bad file gets one clear message and changes nothing."""

import gzip
import json

import pytest
from sqlalchemy import text

from prefloop.collect import imports
from prefloop.collect.schema import template
from prefloop.data.write import write_groups
from prefloop.errors import DataError
from prefloop.records import Completion, Group, Message, Prompt, Text
from tests.collect.made import made


def lines(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(number: int = 0, k: int = 4) -> dict:
    return {"prompt": f"question {number}", "completions": [f"answer {one} to {number}" for one in range(k)]}


def n_items(project) -> int:
    return project.database.read(lambda c: c.scalar(text("SELECT count(*) FROM item WHERE project_id = :p"), {"p": project.id}))


def kway(prompt: Prompt, *completions: Completion) -> dict:
    return Group(prompt=prompt, completions=completions).model_dump(mode="json")


def a_prompt(identity: str, words: str) -> Prompt:
    return Prompt(id=identity, messages=(Message(role="user", content=words),))


def an_answer(identity: str, words: str, prompt: str = "p") -> Completion:
    return Completion(id=identity, prompt_id=prompt, content=Text(text=words))


PICTURE = {"content": {"type": "image", "uri": "x.png", "sha256": ""}, "id": "i", "prompt_id": "p", "source": ""}
BAD = {
    "wrong columns": ([{"question": "x", "answers": ["a", "b"]}], ["has columns of no known format: question (text)", "mapping.prompt=question mapping.completions=answers"]),
    "a torn line": ([row(0), json.dumps(row(1))[:30]], ["file.jsonl:2, not JSON"]),
    "a torn line in the middle": ([row(0), '{"prompt": ', row(2)], ["file.jsonl:2"]),
    "17 answers": ([row(0), row(1, k=17)], ["file.jsonl:2, 17 answers, where the project takes 2 to 16"]),
    "one answer": ([row(0), row(1, k=1)], ["file.jsonl:2, 1 answers"]),
    "no object": ([row(0), "[1, 2]"], ["file.jsonl:2"]),
    "half a character": ([{**row(0), "prompt": "x"}, '{"prompt": "\\ud800", "completions": ["a", "b"]}'], ["file.jsonl:2"]),
    "a nul": ([row(0), {"prompt": "x\x00", "completions": ["a", "b"]}], ["file.jsonl:2, a character that cannot be stored"]),
    "a book": ([row(0), {"prompt": "x" * 200_001, "completions": ["a", "b"]}], ["file.jsonl:2, a text of 200,001 characters, where 200,000 are allowed"]),
    "a prompt id with other words": (
        [kway(a_prompt("p", "one"), an_answer("a", "x"), an_answer("b", "y")), kway(a_prompt("p", "two"), an_answer("a", "x"), an_answer("b", "y"))],
        ["file.jsonl:2, an id that stands for something else further up: prompt p"],
    ),
    "a completion id with other words": (
        [kway(a_prompt("p", "one"), an_answer("a", "x"), an_answer("b", "y")), kway(a_prompt("p", "one"), an_answer("a", "z"), an_answer("c", "y"))],
        ["file.jsonl:2, an id that stands for something else further up: completion a"],
    ),
    "a picture among texts": (
        [kway(a_prompt("p", "one"), an_answer("a", "x"), an_answer("b", "y")) | {"completions": [PICTURE, an_answer("b", "y").model_dump(mode="json")]}],
        ["file.jsonl:1, image answers"],
    ),
    "another project's record": ([{"format_version": 99, "prompt": {}, "completions": []}], ["newer prefloop"]),
    "nothing": ([], ["is empty"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def database(sqlite):
    """One is enough here; the whole way over HTTP is gone on both."""
    return sqlite


@pytest.fixture(scope="module")
def project(database):
    return made(database)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_clear_message_and_changes_nothing(project, tmp_path, name):
    rows, said = BAD[name]
    before = n_items(project)
    with pytest.raises(DataError) as refusal:
        imports.run(project.database, project.id, lines(tmp_path / "file.jsonl", rows))
    assert all(part in str(refusal.value) for part in said), str(refusal.value)
    assert n_items(project) == before


def test_a_file_of_five_gigabytes_is_refused_before_it_is_read(project, tmp_path):
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(5 * 2**30)  # sparse: takes no room
    with pytest.raises(DataError, match=r"huge\.jsonl is 5\.0 GiB, an import at most 2 GiB\n  split it"):
        imports.look(project.database, project.id, tmp_path / "huge.jsonl")


def test_a_cut_archive_is_refused(project, tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"".join(json.dumps(row(n)).encode() + b"\n" for n in range(99)))[:-20])
    with pytest.raises(DataError, match="is not a whole gzip file"):
        imports.run(project.database, project.id, tmp_path / "cut.jsonl.gz")
    assert n_items(project) == 0


def test_the_dry_run_counts_and_stores_nothing_and_the_run_does_what_it_said(database, tmp_path):
    project = made(database)
    path = lines(tmp_path / "file.jsonl", [row(0), row(1), row(1), row(2)])
    report = imports.look(database, project.id, path)
    assert (report.format, report.rows, report.items, report.known, report.n_problems) == ("unranked", 4, 3, 0, 0)
    assert n_items(project) == 0
    assert imports.run(database, project.id, path).added == 3
    again = imports.run(database, project.id, lines(path, [row(2), row(3)]))
    assert (again.items, again.known, again.added) == (2, 1, 1)
    assert again.lines()[0] == "file.jsonl: unranked, 2 rows, 2 items (1 there already)"


def test_bad_rows_are_left_out_only_where_that_is_asked_for(database, tmp_path):
    project = made(database)
    path = lines(tmp_path / "file.jsonl", [row(0), "{", row(1, k=17), row(2)])
    report = imports.run(database, project.id, path, skip_bad=True)
    assert (report.added, report.n_problems) == (2, 2)
    assert [problem.where for problem in report.problems] == ["file.jsonl:2", "file.jsonl:3"]


def test_an_id_that_means_something_else_in_the_project_is_refused(database, tmp_path):
    project = made(database)
    first = kway(a_prompt("p", "one"), an_answer("a", "x"), an_answer("b", "y"))
    other = kway(a_prompt("q", "two"), an_answer("d", "x", "q"), an_answer("e", "y", "q"))
    imports.run(database, project.id, lines(tmp_path / "file.jsonl", [first]))
    for changed, said in (
        (kway(a_prompt("p", "other"), an_answer("a", "x"), an_answer("b", "y"), an_answer("c", "z")), "prompt p"),
        (kway(a_prompt("p", "one"), an_answer("a", "changed"), an_answer("c", "z")), "completion a"),
    ):
        with pytest.raises(DataError, match=f"stands for something else in this project: {said}"):
            imports.run(database, project.id, lines(tmp_path / "file.jsonl", [other, changed]))
    assert n_items(project) == 1
    more = kway(
        a_prompt("p", "one"), an_answer("a", "x"), an_answer("c", "z")
    )  # the same prompt with another answer: another item
    assert imports.run(database, project.id, lines(tmp_path / "file.jsonl", [more])).added == 1


def test_rankings_in_a_file_are_left_aside_and_said(database, tmp_path):
    project = made(database)
    preference = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    report = imports.run(database, project.id, lines(tmp_path / "pairs.jsonl", [preference]))
    assert report.added == 1
    assert report.remarks == {"rankings in the file, left aside: people answer afresh": 1}
    assert (
        project.database.read(lambda c: c.scalar(text("SELECT count(*) FROM judgment WHERE project_id = :p"), {"p": project.id}))
        == 0
    )


def test_records_keep_their_ids_sources_and_tags(database, tmp_path):
    project = made(database)
    prompt = Prompt.of("question", origin="world", tags=("tree:1",))
    group = Group(prompt=prompt, completions=tuple(Completion.of(prompt, f"a{n}", source="policy:run@3") for n in range(3)))
    write_groups(tmp_path / "groups.jsonl", [group])
    imports.run(database, project.id, tmp_path / "groups.jsonl")
    turn = project.claim()
    assert Prompt.model_validate_json(turn.prompt_json) == prompt
    assert [Completion.model_validate(one) for one in json.loads(turn.completions_json)] == list(group.completions)


def test_a_schema_says_how_many_answers_it_takes(database, tmp_path):
    project = made(database, schema=template("arena"))
    with pytest.raises(DataError, match="4 answers, where the project takes 2 to 2"):
        imports.run(database, project.id, lines(tmp_path / "file.jsonl", [row()]))


def test_a_long_list_of_problems_is_cut_and_counted(database, tmp_path):
    project = made(database)
    with pytest.raises(DataError) as refusal:
        imports.run(database, project.id, lines(tmp_path / "file.jsonl", [row(0), *["{"] * 50]))
    assert str(refusal.value).startswith("50 problems in file.jsonl\n  file.jsonl:2")
    assert "and 30 more" in str(refusal.value)


def test_a_folder_is_read_file_by_file(database, tmp_path):
    project = made(database)
    for name in ("a", "b"):
        lines(tmp_path / f"{name}.jsonl", [row(ord(name))])
    assert imports.run(database, project.id, tmp_path).added == 2
