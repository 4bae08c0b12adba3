"""Rows of other annotation programs: whom a judgment is by, what is unusable, and rows that say nothing or nonsense."""

import json

import pytest

from prefloop.data.read import read_groups
from prefloop.errors import DataError

GOOD = {"data": {"prompt": "q", "items": [{"id": "x", "body": "a"}, {"id": "y", "body": "b"}]}}
SORTED = {"type": "ranker", "value": {"ranker": {"tier_1": ["x"], "unusable": ["y"]}}}


def read(folder, *rows):
    (folder / "tasks.json").write_text(json.dumps(rows))
    return read_groups(folder / "tasks.json")


def task(*annotations: dict) -> dict:
    return GOOD | {"annotations": list(annotations)}


def test_several_people_are_several_rankings_under_no_name_of_theirs(tmp_path):
    people = [{"email": "ada@example.org", "id": 7}, 8, {"id": 9}, {"email": "human:0123"}, None]
    (group,) = read(tmp_path, task(*({"completed_by": one, "lead_time": 2.5, "result": [SORTED]} for one in people))).records
    names = [ranking.annotator for ranking in group.rankings]
    assert len(set(names)) == 5 and names[3:] == ["human:0123", "dataset:tasks"]
    assert all(name.startswith("human:") and len(name) == 18 for name in names[:3])
    assert "ada" not in group.model_dump_json()
    assert {ranking.seconds for ranking in group.rankings} == {2.5}
    x, y = (completion.id for completion in group.completions)
    assert {(ranking.tiers, ranking.unusable) for ranking in group.rankings} == {(((x,),), (y,))}


def test_what_was_cancelled_or_is_a_draft_or_no_order_is_no_ranking(tmp_path):
    silent = [
        {"was_cancelled": True, "result": [SORTED]},
        {"result": [{"type": "choices", "value": {"choices": ["good"]}}]},
        {"result": [{"type": "ranker", "value": {"ranker": {"relevant": ["x"], "biased": ["y"]}}}]},  # which is better?
        {"result": [{"type": "ranker", "value": {"ranker": {"tier_1": ["x"]}}}]},  # one answer in its place says nothing
    ]
    (group,) = read(tmp_path, task(*silent, {"result": [SORTED]})).records
    assert len(group.rankings) == 1
    fields = {"prompt": "q", "answer_1": "a", "answer_2": "b"}
    order = {"value": [{"value": "answer_1", "rank": 1}, {"value": "answer_2", "rank": 2}]}
    responses = [
        {"user_id": "u", "status": "draft", "values": {"ranking": order}},
        {
            "user_id": "v",
            "status": "submitted",
            "values": {"ranking": order, "labels": {"value": ["good", "short"]}, "n": {"value": 3}},
        },
    ]
    (group,) = read(tmp_path, {"fields": fields, "responses": responses}).records
    assert len(group.rankings) == 1


@pytest.mark.parametrize(
    ("places", "tiers"),
    [
        ([["answer1", "answer3"], ["answer2"]], [["a"], ["b"]]),
        ([["answer1"], ["answer2"], ["answer3"], ["answer4"]], [["b"], ["c"]]),
    ],
)
def test_equal_answers_become_one_which_keeps_a_place_they_share(tmp_path, places, tiers):
    ranker = {f"tier_{number}": keys for number, keys in enumerate(places, 1)}
    data = {"prompt": "q", "answer1": "a", "answer2": "b", "answer3": "a", "answer4": "c"}
    reading = read(tmp_path, {"data": data, "annotations": [{"result": [{"type": "ranker", "value": {"ranker": ranker}}]}]})
    (group,) = reading.records
    text = {completion.id: completion.text for completion in group.completions}
    assert list(text.values()) == ["a", "b", "c"]
    assert [[text[one] for one in tier] for tier in group.rankings[0].tiers] == tiers
    assert list(reading.report.remarks) == ["the same answer twice, taken as one"]


@pytest.mark.parametrize(("winner", "unusable"), [("tie (bothbad)", 2), ("model_a", 0)])
def test_both_bad_in_an_arena_is_unusable(tmp_path, winner, unusable):
    turns = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": text}] for text in "ab"]
    row = {
        "conversation_a": turns[0],
        "conversation_b": turns[1],
        "model_a": "m",
        "model_b": "n",
        "winner": winner,
        "judge": "arena_user_1",
    }
    (group,) = read(tmp_path, row).records
    assert len(group.rankings[0].unusable) == unusable
    assert [completion.source for completion in group.completions] == ["dataset:tasks:m", "dataset:tasks:n"]
    assert group.rankings[0].annotator.startswith("human:")


BAD = {
    "a list where answers are": ({"data": {"prompt": "q", "items": []}}, "no answer"),
    "no prompt": ({"data": {"items": GOOD["data"]["items"]}}, "no prompt"),
    "an answer that is a number": ({"data": {"prompt": "q", "text1": 5, "text2": "b"}}, "data.text1 is a number, wanted text"),
    "a stranger in a ranking": (task({"result": [{"type": "ranker", "value": {"ranker": ["x", "z"]}}]}), "z is none of x, y"),
    "annotations that are words": (GOOD | {"annotations": ["x"]}, "annotations holds text, wanted objects"),
    "a result that is a number": (task({"result": [3]}), "result holds a number"),
    "a bucket that is a number": (task({"result": [{"type": "ranker", "value": {"ranker": {"tier_1": 3}}}]}), "bucket tier_1 is a number"),
    "a response that is a word": ({"fields": {"prompt": "q", "answer_1": "a"}, "responses": ["x"]}, "responses holds text"),
    "a rank that is a word": (
        {"fields": {"prompt": "q", "answer_1": "a"}, "responses": {"r": [{"value": [{"value": "answer_1", "rank": "x"}]}]}},
        "rank is text, wanted a number",
    ),
    "a winner that is a list": ({"conversation_a": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                                 "conversation_b": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
                                 "winner": ["x"]}, "winner is"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_nonsense_is_refused_with_what_is_wrong(tmp_path, what):
    row, said = BAD[what]
    with pytest.raises(DataError, match=said):
        read(tmp_path, row)
