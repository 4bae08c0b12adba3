"""What leaves: every format says what people said, the same bytes every time, and kway is read back by prefloop."""

import csv
import hashlib
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from prefloop.collect import accounts, audit, files, items, projects, queue, turns
from prefloop.collect.exports import FORMATS, ExportConfig, export, steps_of
from prefloop.collect.files import harmless
from prefloop.collect.identity import pseudonym
from prefloop.collect.schema import read_schema, template
from prefloop.data.read import read_demonstrations, read_groups
from prefloop.errors import ConfigError, DataError
from prefloop.records import Completion, Group, Message, Prompt, Ranking, Rating, Text
from prefloop.stats.agreement import agreement_interval
from tests.collect.made import Made, made
from tests.helpers import assert_close

K = 3
WRITABLE = [name for name in FORMATS if name != "parquet" or find_spec("pyarrow")]
SAYINGS = {  # annotator: what each answer gets (by its own text), tiers and unusable in these texts
    0: ({"x": 6, "y": 4, "z": 2}, [["x"], ["y"]], ["z"]),
    1: ({"x": 5, "y": 5, "z": 1}, [["x", "y"], ["z"]], []),
}


@pytest.fixture(scope="module")
def database(sqlite):
    """One is enough here; the whole way over HTTP is gone on both."""
    return sqlite


@pytest.fixture(scope="module")
def judged(database) -> Made:
    """One prompt with answers x, y and z, judged by two people; another that nobody has judged."""
    project = made(database, users=2, overlap=2, schema=template("instructgpt"))
    prompt = Prompt.of("question", origin="world", tags=("topic:one",))
    groups = [items.new_item(prompt, [Completion.of(prompt, text, source=f"policy:{text}") for text in "xyz"])]
    now = database.clock()
    database.write(partial(items.add, project_id=project.id, items=groups, now=now))
    for user, (rates, tiers, unusable) in SAYINGS.items():
        turn = project.claim(user)
        text_of = {one["id"]: one["content"]["text"] for one in json.loads(turn.completions_json)}
        letter = {text_of[name]: "abc"[place] for place, name in enumerate(json.loads(turn.assignment.shown_json))}
        answers = {
            "rate": {letter[text]: {"overall": point, "violent": False} for text, point in rates.items()},
            "rank": {
                "ranking": {
                    "tiers": [[letter[text] for text in tier] for tier in tiers],
                    "unusable": [letter[text] for text in unusable],
                },
                "why": "=cmd() write to ada@example.org",
            },
        }
        answers["rate"][letter["z"]]["edit"] = f"mended by {user}"
        said = turns.Said(answers, active_ms=0)
        project.do(turns.submit, assignment_id=turn.assignment.id, user_id=project.users[user], key="k", said=said)
    other = Prompt.of("never judged")
    unjudged = [items.new_item(other, [Completion.of(other, text) for text in "xyz"])]
    database.write(partial(items.add, project_id=project.id, items=unjudged, now=now))
    return project


def written(project: Made, folder: Path, format: str, **settings) -> list[dict]:
    """The lines of an export."""
    manifest = export(project.database, project.slug, folder, format=format, config=ExportConfig.of(**settings))
    (name,) = [name for name, told in manifest["files"].items() if "lines" in told]
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    assert len(lines) == manifest["files"][name]["lines"]
    return lines


def names_of(project: Made) -> list[str]:
    secret = project.database.read(
        lambda c: c.exec_driver_sql("SELECT secret FROM project WHERE id = '" + project.id + "'").scalar_one()
    )
    return [pseudonym(secret, user) for user in project.users]


def test_kway_is_read_back_with_everything_that_was_said(judged, tmp_path):
    export(judged.database, judged.slug, tmp_path / "out")
    reading = read_groups(tmp_path / "out" / "kway.jsonl")
    assert (reading.report.n_kept, reading.report.dropped) == (1, {})
    (group,) = reading.records
    text = {completion.id: completion.text for completion in group.completions}
    orders = {ranking.annotator: ranking for ranking in group.rankings}
    assert [one.source for one in group.completions] == ["policy:x", "policy:y", "policy:z"]
    assert (group.prompt.origin, group.prompt.tags) == ("world", ("topic:one",))
    for name, (rates, tiers, unusable) in zip(names_of(judged), SAYINGS.values(), strict=True):
        ranking = orders[name]
        assert [{text[one] for one in tier} for tier in ranking.tiers] == [set(tier) for tier in tiers]
        assert [text[one] for one in ranking.unusable] == unusable
        assert (ranking.seconds, len(ranking.shown)) == (0.0, K)
        points = {
            text[one.completion_id]: one.value for one in group.ratings if (one.annotator, one.question) == (name, "overall")
        }
        assert points == rates
    flags = [one for one in group.ratings if one.question == "violent"]
    assert {(one.scale, one.value) for one in flags} == {((0.0, 1.0), 0.0)} and len(flags) == 2 * K


def test_the_ids_of_exported_records_are_those_their_content_gives(judged, tmp_path):
    (line,) = written(judged, tmp_path / "out", "kway")
    group = Group.model_validate(line)
    for kind, records in ((Ranking, group.rankings), (Rating, group.ratings)):
        assert records and all(kind.model_validate(one.model_dump(exclude={"id"})).id == one.id for one in records)


def test_no_export_knows_who_people_are(judged, tmp_path):
    for format in WRITABLE:
        export(judged.database, judged.slug, tmp_path / format, format=format)
        data = b"".join(path.read_bytes() for path in (tmp_path / format).iterdir())  # a short column of Parquet is as it is
        assert not any(user.encode() in data for user in judged.users)


def test_equal_exports_are_equal_bytes_and_the_manifest_has_their_hashes(judged, tmp_path):
    for format in WRITABLE:
        first, second = (export(judged.database, judged.slug, tmp_path / f"{format}{n}", format=format) for n in (1, 2))
        assert first == second
        assert (first["items"], first["judgments"], first["annotators"]) == (1, 2, 2)
        for name, told in first["files"].items():
            data = (tmp_path / f"{format}1" / name).read_bytes()
            assert told["sha256"] == hashlib.sha256(data).hexdigest()
            assert told["bytes"] == len(data)
            assert data == (tmp_path / f"{format}2" / name).read_bytes()


def pair(line: dict) -> tuple[str, str]:
    return line["chosen"][0]["content"], line["rejected"][0]["content"]


def test_trl_preferences_are_every_ordered_pair_with_the_tiers_between_as_margin(judged, tmp_path):
    lines = written(judged, tmp_path / "out", "trl_preference")
    first, second = ([line for line in lines if line["annotator"] == name] for name in names_of(judged))
    assert {pair(line): line["margin"] for line in first} == {("x", "y"): 1, ("x", "z"): 2, ("y", "z"): 1}
    assert {pair(line): line["margin"] for line in second} == {("x", "z"): 1, ("y", "z"): 1}
    assert all(line["prompt"] == [{"role": "user", "content": "question"}] for line in lines)
    assert_close([sum(line["weight"] for line in part) for part in (first, second)], [1.0, 1.0])
    assert len({line["group_id"] for line in lines}) == 1
    assert read_groups(tmp_path / "out" / "trl_preference.jsonl").report.format == "preference"


def test_the_prompt_of_trl_preferences_can_be_the_beginning_of_both(judged, tmp_path):
    explicit = read_groups_of(judged, tmp_path / "explicit")
    implicit = read_groups_of(judged, tmp_path / "implicit", implicit=True)
    assert implicit == explicit and len(explicit) == 5
    lines = (tmp_path / "implicit/trl_preference.jsonl").read_text().splitlines()
    assert all("prompt" not in json.loads(line) for line in lines)


def read_groups_of(project: Made, folder: Path, **settings) -> list[tuple[str, list[str]]]:
    export(project.database, project.slug, folder, format="trl_preference", config=ExportConfig.of(**settings))
    return [
        (one.prompt.text, [answer.text for answer in one.completions])
        for one in read_groups(folder / "trl_preference.jsonl").records
    ]


def test_openrlhf_gets_its_four_columns(judged, tmp_path):
    lines = written(judged, tmp_path / "out", "openrlhf", implicit=True)  # which is of another format
    assert {tuple(line) for line in lines} == {("prompt", "chosen", "rejected", "margin")}
    assert len(lines) == 5


def test_a_reward_model_gets_all_pairs_of_a_prompt_on_one_line(judged, tmp_path):
    (line,) = written(judged, tmp_path / "out", "rm_group")
    assert line["completions"] == ["x", "y", "z"] and line["prompt"] == [{"role": "user", "content": "question"}]
    said = [
        {(one["better"], one["worse"]): (one["margin"], one["weight"]) for one in line["pairs"] if one["annotator"] == name}
        for name in names_of(judged)
    ]
    assert said[0] == {(0, 1): (1, 1 / 3), (0, 2): (2, 1 / 3), (1, 2): (1, 1 / 3)}
    assert said[1] == {(0, 2): (1, 1 / 2), (1, 2): (1, 1 / 2)}  # x and y tie


def test_a_prompt_whose_answers_all_tie_has_no_line_of_pairs(database, tmp_path):
    project = made(database, users=1, n=1)
    project.submit(project.claim(), answers={"rank": {"ranking": "a = b"}})
    assert written(project, tmp_path / "out", "rm_group") == []


STEPS = """
id: steps
stages: [{id: read, per: completion, questions: [{id: first_bad_step, type: number, min: 0}, {id: note, type: number}]}]
"""


@pytest.mark.parametrize(
    ("first", "labels"), [(0, [True, True, True]), (1, [False]), (3, [True, True, False]), (4, None), (1.5, None), (None, None)]
)
def test_steps_are_labelled_up_to_the_first_wrong_one(database, tmp_path, first, labels):
    project = made(database, users=1, schema=read_schema(STEPS, where="here"))
    prompt = Prompt(messages=(Message(role="user", content="2 + 2 * 3?"), Message(role="user", content="Step by step.")))
    answers = ("2 * 3 is 6.\n\n2 + 6\nis 8.\n\nSo 8.", "2 + 2 is 4.\n4 * 3 is 12.")
    new = items.new_item(prompt, [Completion.of(prompt, text) for text in answers])
    project.do(items.add, project_id=project.id, items=[new])
    turn = project.claim()
    shown = json.loads(turn.assignment.shown_json)
    text_of = {one["id"]: one["content"]["text"] for one in json.loads(turn.completions_json)}
    long, short = (next("ab"[place] for place, name in enumerate(shown) if text_of[name] == text) for text in answers)
    given = {long: {} if first is None else {"first_bad_step": first}, short: {"note": 1}}
    project.submit(turn, answers={"read": given})
    lines = written(project, tmp_path / "out", "stepwise")
    steps = ["2 * 3 is 6.", "2 + 6\nis 8.", "So 8."]
    assert [(line["prompt"], line["completions"], line["labels"]) for line in lines] == (
        [] if labels is None else [("2 + 2 * 3?\n\nStep by step.", steps[: len(labels)], labels)]
    )


def test_an_answer_of_one_paragraph_has_its_lines_as_steps():
    assert steps_of("2 + 2 is 4.\n4 * 3 is 12.\n") == ["2 + 2 is 4.", "4 * 3 is 12."]


def test_kto_labels_come_from_the_scale_and_say_nothing_of_its_middle(judged, tmp_path):
    lines = written(judged, tmp_path / "out", "kto")
    labels = sorted((line["completion"][0]["content"], line["label"]) for line in lines)
    assert labels == [("x", True), ("x", True), ("y", True), ("z", False), ("z", False)]  # 4 of 1 to 7 is the middle
    strict = written(judged, tmp_path / "strict", "kto", threshold=6)
    assert sum(line["label"] for line in strict) == 1 and len(strict) == 6
    assert read_groups(tmp_path / "out" / "kto.jsonl").report.format == "unpaired"


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("a > b > c", {"a": True, "c": False}),  # b is the middle
        ("a > b = c", {"a": True, "b": False, "c": False}),
        ("a = b = c", {}),
        ("a > b | c", {"a": True, "c": False}),
        ("a = b | c", {"a": True, "b": True, "c": False}),
        ("| a b c", {"a": False, "b": False, "c": False}),
    ],
)
def test_kto_labels_of_a_mere_order_are_its_halves(database, tmp_path, ranking, expected):
    project = made(database, users=1, n=1, k=3)
    turn = project.claim()
    project.submit(turn, answers={"rank": {"ranking": ranking}})
    text_of = {one["id"]: one["content"]["text"] for one in json.loads(turn.completions_json)}
    letter = {text_of[name]: "abc"[place] for place, name in enumerate(json.loads(turn.assignment.shown_json))}
    lines = written(project, tmp_path / "out", "kto")
    assert {letter[line["completion"][0]["content"]]: line["label"] for line in lines} == expected


def test_thumbs_are_labels(database, tmp_path):
    project = made(database, users=1, n=1, schema=template("kto_thumbs"))
    project.submit(project.claim(), answers={"thumbs": {"a": {"thumb": "up"}, "b": {"thumb": "down"}}})
    assert sorted(line["label"] for line in written(project, tmp_path / "out", "kto")) == [False, True]


def test_a_choice_of_two_keeps_its_strength_as_margin_and_as_rating(database, tmp_path):
    project = made(database, users=1, n=1, schema=template("hh_chat"))
    project.submit(project.claim(), answers={"choose": {"better": {"choice": "b", "strength": 3}}})
    (line,) = written(project, tmp_path / "trl", "trl_preference")
    assert line["margin"] == 3
    (group,) = written(project, tmp_path / "kway", "kway")
    (rating,) = group["ratings"]
    assert (rating["question"], rating["scale"], rating["value"]) == ("better.strength", [1, 4], 3)
    assert group["rankings"][0]["tiers"][0] == [rating["completion_id"]]


@pytest.mark.parametrize(("choice", "tiers", "unusable"), [("tie", [2], 0), ("both_bad", [], 2), ("a", [1, 1], 0)])
def test_a_choice_of_two_is_a_ranking(database, tmp_path, choice, tiers, unusable):
    project = made(database, users=1, n=1, schema=template("arena"))
    project.submit(project.claim(), answers={"vote": {"better": {"choice": choice}}})
    (group,) = written(project, tmp_path / "out", "kway")
    (ranking,) = group["rankings"]
    assert ([len(tier) for tier in ranking["tiers"]], len(ranking["unusable"])) == (tiers, unusable)


def test_sft_is_what_people_wrote_or_put_first(judged, tmp_path):
    lines = written(judged, tmp_path / "out", "sft")
    assert sorted(line["completion"][0]["content"] for line in lines) == ["mended by 0", "mended by 1"]
    best = written(judged, tmp_path / "best", "sft", sft_from="best")
    assert [line["completion"][0]["content"] for line in best] == ["x"]  # first twice, y once
    (demonstration,) = read_demonstrations(tmp_path / "best" / "sft.jsonl").records
    assert (demonstration.prompt.text, demonstration.completion.text) == ("question", "x")


def test_argilla_gets_ranks_with_ties(judged, tmp_path):
    (record,) = written(judged, tmp_path / "out", "argilla")
    assert record["fields"] == {"prompt": "question", "answer_1": "x", "answer_2": "y", "answer_3": "z"}
    ranks = [{one["value"]: one["rank"] for one in response["values"]["ranking"]["value"]} for response in record["responses"]]
    assert ranks == [{"answer_1": 1, "answer_2": 2, "answer_3": 3}, {"answer_1": 1, "answer_2": 1, "answer_3": 2}]


def test_label_studio_gets_tiers_as_buckets_and_a_config_that_has_them(judged, tmp_path):
    (task,) = written(judged, tmp_path / "out", "labelstudio")
    text = {one["id"]: one["body"] for one in task["data"]["answers"]}
    rankers = [annotation["result"][0]["value"]["ranker"] for annotation in task["annotations"]]
    said = [{name: {text[one] for one in bucket} for name, bucket in ranker.items()} for ranker in rankers]
    assert said == [
        {"tier_1": {"x"}, "tier_2": {"y"}, "unusable": {"z"}},
        {"tier_1": {"x", "y"}, "tier_2": {"z"}, "unusable": set()},
    ]
    config = (tmp_path / "out" / "label_config.xml").read_text()
    assert all(f'<Bucket name="{name}"' in config for name in said[0])


def test_answers_hold_everything_and_csv_a_row_each_that_no_spreadsheet_runs(judged, tmp_path):
    lines = written(judged, tmp_path / "out", "answers")
    assert all(line["answers"]["rank"]["why"].startswith("=cmd()") for line in lines)
    export(judged.database, judged.slug, tmp_path / "csv", format="csv")
    with (tmp_path / "csv" / "csv.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (3 * 2 + 1 + 2)  # a point and a flag for each answer, an edit of one, an order and a reason
    assert {row["value"] for row in rows if row["question"] == "why"} == {"'=cmd() write to ada@example.org"}
    assert {row["value"] for row in rows if row["question"] == "edit"} == {"mended by 0", "mended by 1"}


def test_parquet_holds_the_rows_of_csv_and_numbers_as_numbers(judged, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    manifest = export(judged.database, judged.slug, tmp_path / "out", format="parquet")
    rows = parquet.read_table(tmp_path / "out" / "parquet.parquet").to_pylist()
    export(judged.database, judged.slug, tmp_path / "csv", format="csv")
    with (tmp_path / "csv" / "csv.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert {row["annotator"] for row in rows} == set(names_of(judged))
    assert manifest["files"]["parquet.parquet"]["lines"] == len(rows) == len(expected)
    assert [
        row | {"value": harmless(row["value"]), "seconds": str(row["seconds"]), "schema_version": "1"} for row in rows
    ] == expected
    assert {type(row["seconds"]) for row in rows} == {float} and {row["schema_version"] for row in rows} == {1}
    assert {row["value"] for row in rows if row["question"] == "why"} == {"=cmd() write to ada@example.org"}  # no spreadsheet


def test_parquet_is_written_in_parts(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(files, "BATCH", 2)
    with files.Columns(tmp_path / "x.parquet", ("a", "n"), {"n": "int64"}) as out:
        for n in range(5):
            out.write({"a": str(n), "n": n})
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == [{"a": str(n), "n": n} for n in range(5)]
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3
    assert out.hash.hexdigest() == hashlib.sha256((tmp_path / "x.parquet").read_bytes()).hexdigest()


def test_the_log_of_a_project_says_who_by_the_names_of_exports(database, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "BATCH", 2)
    project = made(database, users=2, n=2)
    turn = project.claim(0)
    project.do(turns.skip, assignment_id=turn.assignment.id, user_id=project.users[0], reason="not mine")
    detail = {"user": project.users[1], "of": [project.users[0], "x"]}
    project.do(projects.log, project_id=project.id, user_id=None, action="member", detail=detail)
    lines = written(project, tmp_path / "out", "audit")
    first, second = names_of(project)
    assert [(line["action"], line["who"], line["detail"]) for line in lines] == [
        ("state", "", {"state": "active"}),
        ("skip", first, {"reason": "not mine"}),
        ("member", "", {"user": second, "of": [first, "x"]}),
    ]
    assert lines[1]["object"] == turn.assignment.id
    assert written(project, tmp_path / "past", "audit", until="2020-01-01") == []
    assert written(project, tmp_path / "future", "audit", since="2100-01-01") == []
    with pytest.raises(ConfigError, match="leave held_out out"):
        written(project, tmp_path / "split", "audit", held_out=0.5)


def test_the_datasheet_has_agreement_counts_and_warnings(judged, tmp_path):
    export(judged.database, judged.slug, tmp_path / "out")
    page = (tmp_path / "out" / "DATASHEET.md").read_text()
    (group,) = read_groups(tmp_path / "out" / "kway.jsonl").records
    interval = agreement_interval(group.rankings)
    assert_close(interval.mean, 1.0)  # x over z and y over z, for both
    assert f"frequency {interval.mean:.3f}" in page and "over 1 items" in page
    assert "Ties: 1 of 6 (16.7%)" in page
    assert "2 free texts look as if they held an e-mail address" in page
    assert "> Read the prompt, then every answer." in page
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["personal_data_suspected"] == {"an e-mail address": 2}


# --- what is chosen ---------------------------------------------------------------------------------------------------------


def test_a_corrected_judgment_is_exported_once_as_it_was_last(database, tmp_path):
    project = made(database, users=1, n=1)
    turn = project.claim()
    project.submit(turn, answers={"rank": {"ranking": "a > b"}})
    project.do(turns.recall, assignment_id=turn.assignment.id, user_id=project.users[0])
    project.submit(turn, key="again", answers={"rank": {"ranking": "b > a"}})
    (group,) = written(project, tmp_path / "out", "kway")
    (ranking,) = group["rankings"]
    assert ranking["tiers"] == [[ranking["shown"][1]], [ranking["shown"][0]]]


def test_a_choice_of_judgments_is_exact(judged, tmp_path):
    (name, _) = names_of(judged)
    assert len(written(judged, tmp_path / "one", "answers", annotators=[name])) == 1
    assert written(judged, tmp_path / "two", "answers", versions=[2]) == []
    assert written(judged, tmp_path / "three", "answers", least=3) == []
    assert written(judged, tmp_path / "past", "answers", until="2020-01-01") == []
    assert len(written(judged, tmp_path / "since", "answers", since="2020-01-01")) == 2
    with pytest.raises(ConfigError, match="a day is written 2026-01-31"):
        written(judged, tmp_path / "bad", "answers", since="yesterday")


@pytest.mark.parametrize(
    ("orders", "share"),
    [(("a > b > c", "a > b > c"), 1.0), (("a > b > c", "b > a > c"), 2 / 3), (("a > b > c", "c > b > a"), 0.0), (("a > b > c", "a = b = c"), None), (("a > b > c",), None)],
)  # fmt: skip
def test_only_what_people_agree_about_can_be_exported(database, tmp_path, orders, share):
    project = made(database, users=2, n=1, k=3, overlap=2)
    letters = {}
    for user, order in enumerate(orders):
        turn = project.claim(user)
        letters[user] = dict(zip("abc", json.loads(turn.assignment.shown_json), strict=True))
        same = {letter: next(mine for mine, name in letters[user].items() if name == letters[0][letter]) for letter in "abc"}
        project.submit(turn, user, answers={"rank": {"ranking": "".join(same.get(letter, letter) for letter in order)}})
    for number, least in enumerate((0.0, 0.01, 0.6, 0.7, 1.0)):
        expected = 1 if least == 0 else int(share is not None and share >= least)
        assert len(written(project, tmp_path / f"{number}", "kway", least_agreement=least)) == expected, least


def test_removed_items_stay_behind(database, tmp_path):
    project = made(database, users=1, n=2)
    turn = project.claim()
    project.submit(turn)
    project.submit(project.claim())
    database.write(partial(items.set_status, item_id=turn.assignment.item_id, status="removed"))
    assert len(written(project, tmp_path / "out", "answers")) == 1


def test_a_split_keeps_everything_with_one_first_turn_on_one_side(database, tmp_path):
    project = made(database, users=1)
    now, groups = database.clock(), []
    for number in range(20):
        for last in ("more", "again"):
            turn = (
                Message(role="user", content=f"first {number}"),
                Message(role="assistant", content="well"),
                Message(role="user", content=last),
            )
            prompt = Prompt(messages=turn)
            groups.append(items.new_item(prompt, [Completion(prompt_id=prompt.id, content=Text(text=text)) for text in "xy"]))

    def judge_all(connection) -> None:
        items.add(connection, project.id, groups, now=now)
        while isinstance(turn := queue.claim(connection, project_id=project.id, user_id=project.users[0], now=now), queue.Turn):
            said = turns.Said({"rank": {"ranking": "a > b"}})
            turns.submit(
                connection, assignment_id=turn.assignment.id, user_id=project.users[0], key=turn.assignment.id, said=said, now=now
            )

    database.write(judge_all)
    manifest = export(database, project.slug, tmp_path / "out", config=ExportConfig.of(held_out=0.4, seed=3))
    train, test = (read_groups(tmp_path / "out" / f"{side}.jsonl").records for side in ("train", "test"))
    firsts = [{group.prompt.messages[0].content for group in side} for side in (train, test)]
    assert not firsts[0] & firsts[1] and len(firsts[0] | firsts[1]) == 20
    assert len(train) + len(test) == 40 == manifest["items"] and 0 < len(firsts[1]) < 18


def test_an_export_replaces_nothing_and_leaves_nothing_half_done(judged, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(DataError, match="is there already and not empty"):
        export(judged.database, judged.slug, tmp_path / "full")
    with pytest.raises(ConfigError, match="formats: kway, trl_preference"):
        export(judged.database, judged.slug, tmp_path / "out", format="xml")
    monkeypatch.setitem(FORMATS, "kway", lambda judged, config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(judged.database, judged.slug, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_a_stand_in_is_named_as_what_it_is(database, tmp_path):
    project = made(database, users=1, n=1)
    now = database.clock()
    sim = database.write(lambda c: accounts.create_user(c, login="sim:3", speaks_as="sim:3", now=now))
    database.write(lambda c: accounts.join(c, project_id=project.id, user_id=sim, role="annotator", now=now))
    project.submit(project.claim(sim), sim)
    (line,) = written(project, tmp_path / "out", "answers")
    assert line["annotator"] == "sim:3"
