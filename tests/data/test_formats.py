"""Every format in the table: what gives it away, and what is made of it."""

import json
import math
from pathlib import Path

import pytest

from prefloop.data.formats import FORMATS, recognise, taken
from prefloop.data.read import check, read_demonstrations, read_groups, read_prompts, read_text
from prefloop.data.rows import Row
from prefloop.data.turns import NO_PROMPT
from prefloop.errors import DataError
from prefloop.records import Completion, Demonstration, Group, Prompt, Ranking

HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def write(folder, rows, name="set.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    return path


def orders(group: Group) -> list[list[list[str]]]:
    """Every ranking of a group as tiers of words."""
    text = {completion.id: completion.text for completion in group.completions}
    return [[[text[completion] for completion in tier] for tier in ranking.tiers] for ranking in group.rankings]


def turns(prompt: Prompt) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in prompt.messages]


PROMPT = Prompt.of("q")
BETTER, WORSE = Completion.of(PROMPT, "a"), Completion.of(PROMPT, "b")
OWN = Group(
    prompt=PROMPT,
    completions=(BETTER, WORSE),
    rankings=(Ranking(prompt_id=PROMPT.id, tiers=((BETTER.id,), (WORSE.id,)), shown=(BETTER.id, WORSE.id), annotator="ada"),),
)
HH = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: q\n\nAssistant:"
Q = [("user", "q")]
THREE = [("user", "hi"), ("assistant", "hello"), ("user", "q")]
POST = {"deleted": False, "lang": "en"}
TREE = [
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": "q", "rank": None, **POST},
    {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "b", "rank": 1, **POST},
    {"message_id": "3", "parent_id": "1", "role": "assistant", "text": "a", "rank": 0, **POST},
]
NESTED = {"role": "prompter", "text": "q", "replies": [{**TREE[1], "replies": []}, {**TREE[2], "replies": []}]}

RANKED = {
    # what it is: (format, rows of one group, turns of the prompt, tiers)
    "own group": ("kway", [OWN.model_dump()], Q, [["a"], ["b"]]),
    "low ranks are good": ("k-answers", [{"prompt": "q", "completions": ["c", "a", "b"], "ranks": [3, 1, 2]}], Q, [["a"], ["b"], ["c"]]),
    "high scores are good": ("k-answers", [{"prompt": "q", "completions": ["c", "a", "b"], "scores": [-1, 0.5, 0]}], Q, [["a"], ["b"], ["c"]]),
    "equal scores tie": ("k-answers", [{"prompt": "q", "completions": ["a", "b", "c"], "scores": [1, 0.0, -0.0]}], Q, [["a"], ["b", "c"]]),
    "ranks before scores": ("k-answers", [{"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2], "scores": [1, 2]}], Q, [["a"], ["b"]]),
    "an answer without a rank": ("k-answers", [{"prompt": "q", "completions": ["a", "b", "c"], "ranks": [1, None, 2]}], Q, [["a"], ["c"]]),
    "turns as answers": ("k-answers", [{"prompt": [user("q")], "completions": [[said("b")], said("a")], "ranks": [2, 1]}], Q, [["a"], ["b"]]),
    "NeMo-RL": (
        "nemo-rl",
        [{"context": [user("q")], "completions": [{"rank": 1, "completion": [said("b")]}, {"rank": 0, "completion": [said("a")]}]}],
        Q,
        [["a"], ["b"]],
    ),
    "TRL, texts": ("preference", [{"prompt": "q", "chosen": "a", "rejected": "b"}], Q, [["a"], ["b"]]),
    "TRL, turns": ("preference", [{"prompt": [user("q")], "chosen": [said("a")], "rejected": [said("b")]}], Q, [["a"], ["b"]]),
    "UltraFeedback, whole conversations": (
        "preference",
        [{"prompt": "q", "chosen": [user("q"), said("a")], "rejected": [user("q"), said("b")], "score_chosen": 8, "score_rejected": 7}],
        Q,
        [["a"], ["b"]],
    ),
    "UltraFeedback, equal scores tie": (
        "preference",
        [{"prompt": "q", "chosen": "a", "rejected": "b", "metadata": {"score_chosen": 6.0, "score_rejected": 6.0}}],
        Q,
        [["a", "b"]],
    ),
    "a transcript as prompt": ("preference", [{"prompt": HH, "chosen": "a", "rejected": "b"}], THREE, [["a"], ["b"]]),
    "RewardBench": ("reward-bench", [{"prompt": "q", "chosen": "a", "rejected": "b", "subset": "chat"}], Q, [["a"], ["b"]]),
    "RewardBench 2": ("reward-bench", [{"prompt": "q", "chosen": ["a"], "rejected": ["b", "c"], "subset": "chat"}], Q, [["a"], ["b", "c"]]),
    "Anthropic's transcripts": ("implicit-preference", [{"chosen": HH + " a", "rejected": HH + " b"}], THREE, [["a"], ["b"]]),
    "Anthropic's, one answer a beginning of the other": (
        "implicit-preference",
        [{"chosen": HH + " no", "rejected": HH + " not now"}],
        THREE,
        [["no"], ["not now"]],
    ),
    "TRL implicit, turns": (
        "implicit-preference",
        [{"chosen": [user("q"), said("a")], "rejected": [user("q"), said("b")]}],
        Q,
        [["a"], ["b"]],
    ),
    "TRL implicit, texts": (
        "implicit-preference",
        [{"chosen": "The sky is blue.", "rejected": "The sky is black."}],
        [("user", "The sky is")],
        [[" blue."], [" black."]],
    ),
    "selected": ("selected-rejected", [{"prompt": "q", "selected": "a", "rejected": "b"}], Q, [["a"], ["b"]]),
    "ShareGPT pair": (
        "sharegpt-preference",
        [{"conversations": [HUMAN], "chosen": {"from": "gpt", "value": "a"}, "rejected": "b", "system": "s"}],
        [("system", "s"), *Q],
        [["a"], ["b"]],
    ),
    "Alpaca pair": (
        "alpaca-preference",
        [{"instruction": "do", "input": "this", "chosen": "a", "rejected": "b"}],
        [("user", "do\nthis")],
        [["a"], ["b"]],
    ),
    "Alpaca with answers in order": (
        "alpaca-ranked",
        [{"instruction": "q", "input": "", "history": [["hi", "hello"]], "output": ["a", "b", "c"]}],
        THREE,
        [["a"], ["b"], ["c"]],
    ),
    "AlpacaEval": (
        "alpaca-eval",
        [{"instruction": "q", "candidates": [{"model": "m", "output": "b", "preference": 1.0}, {"model": "n", "output": "a", "preference": 1.9}]}],
        Q,
        [["a"], ["b"]],
    ),
    "UltraFeedback": (
        "ultrafeedback",
        [{"instruction": "q", "completions": [{"response": "b", "overall_score": 10, "fine-grained_score": 1.5}, {"response": "a", "overall_score": 7}]}],
        Q,
        [["a"], ["b"]],
    ),
    "texts in order": ("ranked-texts", [{"ranked": ["a", "b", "c"]}], [("user", NO_PROMPT)], [["a"], ["b"], ["c"]]),
    "texts in order under a prompt": ("ranked-texts", [{"prompt": "q", "ranked": ["a", "b"]}], Q, [["a"], ["b"]]),
    "OASST, nested": ("oasst-trees", [{"message_tree_id": "1", "prompt": NESTED}], Q, [["a"], ["b"]]),
    "OASST, cut out": (
        "oasst-groups",
        [{"message_tree_id": "1", "prompt": [{"role": "prompter", "text": "q"}], "replies": [TREE[1], TREE[2]]}],
        Q,
        [["a"], ["b"]],
    ),
    "OASST, flat": ("oasst-messages", TREE, Q, [["a"], ["b"]]),
    "Argilla, from its server": (
        "argilla",
        [{"fields": {"prompt": "q", "answer_1": "b", "answer_2": "a", "answer_3": "c", "answer_4": None},
          "responses": [{"status": "submitted", "values": {"ranking": {"value": [{"value": f"answer_{n}", "rank": rank} for n, rank in ((1, 2), (2, 1), (3, 2))]}}}]}],
        Q,
        [["a"], ["b", "c"]],
    ),
    "Argilla, from its client": (
        "argilla",
        [{"fields": {"instruction": "q", "response-10": "b", "response-9": "a"}, "responses": {"order": [{"value": ["response-9", "response-10"]}]}}],
        Q,
        [["a"], ["b"]],
    ),
    "Label Studio, a list": (
        "label-studio",
        [{"id": 1, "data": {"prompt": "q", "items": [{"id": "x", "body": "b"}, {"id": "y", "title": "a"}]},
          "annotations": [{"result": [{"from_name": "rank", "type": "ranker", "value": {"ranker": {"rank": ["y", "x"]}}}]}]}],
        Q,
        [["a"], ["b"]],
    ),
    "Label Studio, buckets": (
        "label-studio",
        [{"data": {"question": "q", "items": [{"id": n, "body": text} for n, text in enumerate("bacd")]},
          "annotations": [{"result": [{"type": "ranker", "value": {"ranker": {"tier_2": [0, 2], "tier_10": [3], "tier_1": [1], "_": []}}}]}]}],
        Q,
        [["a"], ["b", "c"], ["d"]],
    ),
    "Label Studio, side by side": (
        "label-studio",
        [{"data": {"prompt": "q", "text2": "a", "text1": "b"}, "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}]}],
        Q,
        [["a"], ["b"]],
    ),
    "an arena": (
        "arena",
        [{"conversation_a": [user("q"), said("b")], "conversation_b": [user("q"), said("a")], "winner": "model_b", "model_a": "m", "model_b": "n"}],
        Q,
        [["a"], ["b"]],
    ),
    "an arena, a tie": (
        "arena",
        [{"conversation_a": [user("q"), said("a")], "conversation_b": [user("q"), said("b")], "winner": "tie"}],
        Q,
        [["a", "b"]],
    ),
    "thumbs up and down on one prompt": (
        "unpaired",
        [{"prompt": "q", "completion": "b", "label": False}, {"prompt": "q", "completion": "a", "label": "True"}],
        Q,
        [["a"], ["b"]],
    ),
    "thumbs on conversations": (
        "unpaired-messages",
        [{"messages": [user("q"), said("b")], "label": 0}, {"messages": [user("q"), said("a")], "label": 1}],
        Q,
        [["a"], ["b"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RANKED)
def test_rankings_of_every_format_become_a_group(tmp_path, case):
    format, rows, prompt, tiers = RANKED[case]
    reading = read_groups(write(tmp_path, rows))
    assert reading.report.format == format
    (group,) = reading.records
    assert turns(group.prompt) == prompt
    assert orders(group) == [tiers]
    assert reading.report.n_kept == len(rows)
    if format != "kway":
        assert group.rankings[0].annotator == "dataset:set"
        assert {completion.source.split(":")[1] for completion in group.completions} == {"set"}


@pytest.mark.parametrize("case", RANKED)
def test_the_best_of_a_ranking_is_a_demonstration_and_its_prompt_a_prompt(tmp_path, case):
    _, rows, prompt, tiers = RANKED[case]
    path = write(tmp_path, rows)
    assert [turns(p) for p in read_prompts(path).records] == [prompt]
    if len(tiers) == 1:
        with pytest.raises(DataError, match="no answer that stands above another"):
            read_demonstrations(path)
    else:
        (demonstration,) = read_demonstrations(path).records
        assert (turns(demonstration.prompt), demonstration.completion.text) == (prompt, tiers[0][0])


TOLD = {
    # what it is: (format, row, [(turns of the prompt, answer)])
    "own demonstration": ("demonstration", Demonstration(prompt=PROMPT, completion=BETTER).model_dump(), [(Q, "a")]),
    "TRL, texts": ("prompt-completion", {"prompt": "q", "completion": "a"}, [(Q, "a")]),
    "TRL, turns": ("prompt-completion", {"prompt": [user("q")], "completion": [said("a")]}, [(Q, "a")]),
    "Alpaca": (
        "alpaca",
        {"instruction": "q", "input": "", "output": "a", "system": "s", "history": [["hi", "hello"]]},
        [([("system", "s"), *THREE], "a")],
    ),
    "ShareGPT": ("sharegpt", {"conversations": [HUMAN, GPT], "system": "s"}, [([("system", "s"), *Q], "a")]),
    "every answer of a conversation": (
        "messages",
        {"messages": [user("hi"), said("hello"), user("q"), said("a")]},
        [([("user", "hi")], "hello"), (THREE, "a")],
    ),
    "an assistant that speaks first": (
        "messages",
        {"messages": [said("welcome"), user("q"), said("a")]},
        [([("assistant", "welcome"), *Q], "a")],
    ),
    "content in parts": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, said("a")]},
        [(Q, "a")],
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_demonstrations_of_every_format(tmp_path, case):
    format, row, expected = TOLD[case]
    reading = read_demonstrations(write(tmp_path, [row]))
    assert reading.report.format == format
    assert [(turns(d.prompt), d.completion.text) for d in reading.records] == expected
    assert reading.report.n_kept == reading.report.n_rows == 1


ASKED = {
    "own prompt": ("prompt-record", Prompt.of("q", tags=("topic:x",)).model_dump(), Q),
    "a text": ("prompts", {"prompt": "q"}, Q),
    "turns, with a verifiable answer beside them": ("prompts", {"prompt": [user("q")], "reward_model": {"ground_truth": "1"}}, Q),
    "Alpaca without an answer": ("instructions", {"instruction": "q", "input": ""}, Q),
    "a conversation that waits": ("messages", {"messages": [user("hi"), said("hello"), user("q")]}, [("user", "hi")]),
    "a conversation nobody answered": ("messages", {"messages": [user("q")]}, Q),
    "a line of text": ("text", {"text": "q"}, Q),
}


@pytest.mark.parametrize("case", ASKED)
def test_prompts_of_every_format(tmp_path, case):
    format, row, expected = ASKED[case]
    reading = read_prompts(write(tmp_path, [row]))
    assert reading.report.format == format
    assert [turns(prompt) for prompt in reading.records] == [expected]


def test_text_is_a_column_or_a_line(tmp_path):
    assert read_text(write(tmp_path, [{"text": "a b"}, {"text": "c"}])).records == ["a b", "c"]
    assert read_text(write(tmp_path, [{"text": "a", "prompt": "q"}])).records == ["a"]


def test_answers_nobody_ranked_are_read_where_that_is_asked_for(tmp_path):
    path = write(tmp_path, [{"prompt": "q", "completions": ["a", "b", "a"]}])
    (group,) = read_groups(path, allow_unranked=True).records
    assert [completion.text for completion in group.completions] == ["a", "b"]
    with pytest.raises(DataError, match=r"answers that nobody ranked: 1, e\.g\. set\.jsonl:1 q"):
        read_groups(path)


def test_every_format_in_the_table_has_a_test_and_a_line_in_the_manual():
    tested = {format for format, *_ in [*RANKED.values(), *TOLD.values(), *ASKED.values()]} | {"unranked"}
    assert tested == set(FORMATS)
    manual = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in manual] == []


# --- rows that cannot be used ---------------------------------------------------------------------------------------------

MANY = [str(n) for n in range(17)]
LONELY = "\ud83d"

MALFORMED = {
    # what is wrong: (format, row, reason)
    "a column is gone": ("preference", {"prompt": "q", "chosen": "a"}, "a column is missing"),
    "a number for an answer": ("preference", {"prompt": "q", "chosen": 3, "rejected": "b"}, "a value of the wrong type"),
    "null for an answer": ("preference", {"prompt": "q", "chosen": None, "rejected": "b"}, "a value of the wrong type"),
    "an empty prompt": ("preference", {"prompt": " ", "chosen": "a", "rejected": "b"}, "an empty prompt"),
    "no turn": ("preference", {"prompt": [], "chosen": "a", "rejected": "b"}, "an empty prompt"),
    "half a character": ("preference", {"prompt": "q", "chosen": LONELY, "rejected": "b"}, "a text with half a character"),
    "a tool speaks": ("preference", {"prompt": [{"role": "tool", "content": "x"}], "chosen": "a", "rejected": "b"}, "a role other than system, user or assistant"),
    "a picture": ("preference", {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "a", "rejected": "b"}, "a value of the wrong type"),
    "the same answer twice": ("preference", {"prompt": "q", "chosen": "a", "rejected": "a"}, "answers that are all the same text"),
    "an answer of two turns": ("preference", {"prompt": "q", "chosen": [said("a"), user("b")], "rejected": [said("a"), user("c")]}, "an answer that is not one turn of the assistant"),
    "conversations that part early": ("implicit-preference", {"chosen": [user("q"), said("a"), user("r"), said("s")], "rejected": [user("q"), said("b")]}, "conversations that part before the last answer"),
    "conversations that are one": ("implicit-preference", {"chosen": [user("q"), said("a")], "rejected": [user("q"), said("a")]}, "answers that are all the same text"),
    "transcripts that part early": ("implicit-preference", {"chosen": HH + " a\n\nHuman: x\n\nAssistant: y", "rejected": HH + " b"}, "transcripts that part before the last answer"),
    "transcripts that are one": ("implicit-preference", {"chosen": HH + " a", "rejected": HH + " a"}, "answers that are all the same text"),
    "transcripts with nothing in common": ("implicit-preference", {"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"}, "transcripts that share no turn"),
    "texts with nothing in common": ("implicit-preference", {"chosen": "yes", "rejected": "no"}, "no prompt, and no beginning in common"),
    "one answer": ("k-answers", {"prompt": "q", "completions": ["a"], "ranks": [1]}, "fewer than 2 answers"),
    "seventeen answers": ("k-answers", {"prompt": "q", "completions": MANY, "ranks": list(range(17))}, "more than 16 answers"),
    "too few ranks": ("k-answers", {"prompt": "q", "completions": ["a", "b"], "ranks": [1]}, "as many ranks as answers are wanted"),
    "a score that is not a number": ("k-answers", {"prompt": "q", "completions": ["a", "b"], "scores": [1, math.nan]}, "a rank or score that is not a number"),
    "an endless score": ("k-answers", {"prompt": "q", "completions": ["a", "b"], "scores": [1, math.inf]}, "a rank or score that is not a number"),
    "a score in words": ("k-answers", {"prompt": "q", "completions": ["a", "b"], "scores": [1, "good"]}, "a value of the wrong type"),
    "a truth for a score": ("k-answers", {"prompt": "q", "completions": ["a", "b"], "scores": [1, True]}, "a rank or score that is not a number"),
    "one rank only": ("k-answers", {"prompt": "q", "completions": ["a", "b"], "ranks": [1, None]}, "fewer than 2 answers with a rank or score"),
    "the same answers": ("alpaca-ranked", {"instruction": "q", "output": ["a", "a"]}, "answers that are all the same text"),
    "an output that is text": ("alpaca-ranked", {"instruction": "q", "output": "a"}, "a value of the wrong type"),
    "a candidate that is text": ("alpaca-eval", {"instruction": "q", "candidates": ["a", "b"]}, "a value of the wrong type"),
    "a history of triples": ("alpaca", {"instruction": "q", "output": "a", "history": [["x", "y", "z"]]}, "a value of the wrong type"),
    "an empty instruction": ("alpaca", {"instruction": "", "output": "a"}, "an empty prompt"),
    "an empty answer": ("alpaca", {"instruction": "q", "output": " "}, "an empty answer, which would teach silence"),
    "nobody asks": ("messages", {"messages": [said("a")]}, "a conversation in which nobody asks"),
    "a label of maybe": ("unpaired", {"prompt": "q", "completion": "a", "label": "maybe"}, "a label other than true or false"),
    "a conversation that waits for a thumb": ("unpaired-messages", {"messages": [user("q")], "label": True}, "a conversation that does not end with the assistant"),
    "a tree without text": ("oasst-trees", {"message_tree_id": "1", "prompt": {"role": "prompter", "replies": []}}, "a value of the wrong type"),
    "a group without prompt": ("oasst-groups", {"message_tree_id": "1", "prompt": [], "replies": TREE[1:]}, "an empty prompt"),
    "a message twice": ("oasst-messages", TREE[1], "a message_id that was there before"),
    "a message without parent": ("oasst-messages", {**TREE[1], "message_id": "9", "parent_id": "8"}, "a message cut off from its tree"),
    "a message that is its own parent": ("oasst-messages", {**TREE[1], "message_id": "9", "parent_id": "9"}, "a message cut off from its tree"),
    "an empty text": ("text", {"text": "  "}, "an empty text"),
    "own: unknown field": ("kway", {**OWN.model_dump(), "extra": 1}, "not a record of prefloop"),
    "own: half a character": ("kway", {**OWN.model_dump(), "prompt": {"messages": [user(LONELY)]}}, "not a record of prefloop"),
    "own: an id twice": ("kway", {**OWN.model_dump(), "completions": [BETTER.model_dump()] * 2, "rankings": []}, "two completions with one id"),
    "own: another prompt's answer": ("kway", {**OWN.model_dump(), "completions": [BETTER.model_dump(), {**WORSE.model_dump(), "prompt_id": "x"}]}, "a completion or ranking of another prompt"),
    "own: one ranked answer": ("kway", {**OWN.model_dump(), "completions": [BETTER.model_dump()], "rankings": [{**OWN.rankings[0].model_dump(), "tiers": [[BETTER.id]], "shown": [BETTER.id]}]}, "fewer than 2 answers"),
    "own: placed twice": ("kway", {**OWN.model_dump(), "rankings": [{**OWN.rankings[0].model_dump(), "tiers": [[BETTER.id], [BETTER.id]]}]}, "a ranking that places an answer twice"),
    "own: never shown": ("kway", {**OWN.model_dump(), "rankings": [{**OWN.rankings[0].model_dump(), "shown": [BETTER.id]}]}, "a ranking that places an answer never shown"),
    "own: not on the line": ("kway", {**OWN.model_dump(), "completions": [BETTER.model_dump()]}, "a ranking of answers that are not on the line"),
}  # fmt: skip
GOOD = {format: [row] for format, row, _ in (*ASKED.values(), *TOLD.values())} | {
    format: rows for format, rows, *_ in RANKED.values()
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_row_that_cannot_be_used_is_dropped_with_its_reason_and_the_others_are_kept(tmp_path, case):
    format, row, reason = MALFORMED[case]
    good = GOOD[format]
    report = check(write(tmp_path, [*good, row]))
    assert report.format == format
    assert {why: (finding.n, finding.where) for why, finding in report.dropped.items()} == {
        reason: (1, f"set.jsonl:{len(good) + 1}")
    }
    assert (report.n_rows, report.n_kept) == (len(good) + 1, len(good))


def test_equal_answers_become_one_and_keep_their_place_only_if_they_agree(tmp_path):
    rows = [{"prompt": "q", "completions": ["a", "b", "a", "c", "c"], "ranks": [1, 2, 3, 4, 4]}]
    reading = read_groups(write(tmp_path, rows))
    (group,) = reading.records
    assert [completion.text for completion in group.completions] == ["a", "b", "c"]
    assert orders(group) == [[["b"], ["c"]]]  # a was placed first and third: about a nothing is known
    assert set(reading.report.remarks) == {
        "the same answer twice, taken as one",
        "the same answer twice, ranked differently: which rank holds is not known, so it has none",
    }


def test_a_file_of_a_newer_format_is_refused_as_a_whole(tmp_path):
    with pytest.raises(DataError, match="format_version 2, and this one reads up to 1\n  pip install -U prefloop"):
        check(write(tmp_path, [OWN.model_dump(), {**OWN.model_dump(), "format_version": 2}]))


def test_a_thumb_both_ways_on_one_answer_is_dropped(tmp_path):
    up = {"prompt": "q", "completion": "a", "label": True}
    report = check(write(tmp_path, [up, up, {**up, "label": False}]))
    assert report.dropped["the same answer labelled both ways"].where == "set.jsonl:3"
    assert (report.n_kept, report.completions_per_group) == (2, {1: 1})


def test_thumbs_that_all_agree_are_ratings_without_a_ranking(tmp_path):
    up = {"prompt": "q", "completion": "a", "label": True}
    (group,) = read_groups(write(tmp_path, [up]), allow_unranked=True).records
    assert group.rankings == () and [rating.value for rating in group.ratings] == [1.0]


def test_texts_without_a_prompt_are_comparisons_of_their_own(tmp_path):
    path = write(tmp_path, [{"ranked": ["a", "b"]}, {"ranked": ["c", "d"]}, {"ranked": ["b", "a"]}])
    reading = read_groups(path)
    ids = [group.prompt.id for group in reading.records]
    assert ids[0] != ids[1] and ids[0] == ids[2]  # the same texts, whatever their order, stay on one side of a split
    assert reading.report.n_units == 2


# --- trees ----------------------------------------------------------------------------------------------------------------


def grown() -> list[dict]:
    """A tree of two comparisons: on the question, and on what was asked after its best answer."""
    deeper = [
        {**TREE[0], "message_id": "4", "parent_id": "3", "text": "r"},
        {**TREE[1], "message_id": "5", "parent_id": "4", "text": "c", "rank": 0},
        {**TREE[1], "message_id": "6", "parent_id": "4", "text": "d", "rank": 1},
        {**TREE[1], "message_id": "7", "parent_id": "4", "text": "unranked", "rank": None},
        {**TREE[1], "message_id": "8", "parent_id": "4", "text": "deleted", "rank": 2, "deleted": True},
        {**TREE[0], "message_id": "9", "text": "nobody answered"},
    ]
    return [*TREE, *deeper]


def nested(posts: list[dict], key: str) -> dict:
    post = next(post for post in posts if post["message_id"] == key)
    return {**post, "replies": [nested(posts, p["message_id"]) for p in posts if p["parent_id"] == key]}


def test_flat_and_nested_trees_give_the_same_groups(tmp_path):
    posts = grown()
    flat = read_groups(write(tmp_path, posts), name="set")
    trees = [{"message_tree_id": key, "prompt": nested(posts, key)} for key in ("1", "9")]
    deep = read_groups(write(tmp_path, trees, "trees.jsonl"), name="set")
    assert [(turns(group.prompt), orders(group)) for group in flat.records] == [
        (Q, [[["a"], ["b"]]]),
        ([*Q, ("assistant", "a"), ("user", "r")], [[["c"], ["d"]]]),
    ]
    assert deep.records == flat.records
    assert len({group.prompt.tags for group in flat.records}) == 1


def test_messages_are_kept_when_a_comparison_shows_them_and_set_aside_when_not(tmp_path):
    report = check(write(tmp_path, grown()))
    assert (report.n_rows, report.n_kept, report.n_dropped) == (9, 6, 0)
    assert report.set_aside["a message in no comparison"].n == 3  # unranked, deleted, never answered


def test_the_order_of_the_lines_of_a_flat_tree_does_not_matter(tmp_path):
    forward, backward = (check(write(tmp_path, rows)) for rows in (grown(), grown()[::-1]))
    assert (forward.n_kept, forward.n_records, forward.n_dropped) == (backward.n_kept, backward.n_records, backward.n_dropped)


def test_a_comparison_that_cannot_be_used_takes_only_its_replies_with_it(tmp_path):
    many = [{**TREE[1], "message_id": f"x{n}", "text": str(n), "rank": n, "parent_id": "4"} for n in range(17)]
    posts = [post for post in grown() if post["message_id"] in "12349"] + many
    report = check(write(tmp_path, posts))
    assert report.dropped["more than 16 answers"].n == 17
    assert report.n_kept + report.n_dropped + report.set_aside["a message in no comparison"].n == report.n_rows
    tree = {"message_tree_id": "1", "prompt": nested(posts, "1")}
    assert list(check(write(tmp_path, [tree])).remarks) == ["a branch of a tree left out: more than 16 answers"]


# --- recognition ----------------------------------------------------------------------------------------------------------


def test_of_two_formats_the_one_that_explains_more_columns_wins():
    rows = [Row("x:1", {"prompt": "q", "chosen": "a", "rejected": "b", "messages": [user("q"), said("a")]})]
    assert recognise(rows, want=None, where="x") == "preference"
    rows = [Row("x:1", {"instruction": "q", "output": "a", "text": "### q a"})]
    assert recognise(rows, want=None, where="x") == "alpaca"
    assert recognise(rows, want="text", where="x") == "text"


def test_a_column_that_is_empty_everywhere_gives_nothing_away():
    rows = [Row("x:1", {"prompt": "q", "completion": "a", "chosen": None, "rejected": None})]
    assert recognise(rows, want=None, where="x") == "prompt-completion"


def test_columns_that_fit_two_formats_are_refused_with_both():
    rows = [Row("x:1", {"prompt": "q", "chosen": "a", "rejected": "b", "completions": ["a", "b"], "ranks": [1, 2]})]
    with pytest.raises(
        DataError,
        match=r"2 ways: k-answers, preference\n  k-answers needs .*\n  preference needs .*\n  say which: format=k-answers",
    ):
        recognise(rows, want="groups", where="x")


def test_unknown_columns_are_answered_with_the_nearest_format_and_a_mapping_that_works(tmp_path):
    path = write(tmp_path, [{"question": "q", "response_j": "a", "response_k": "b"}])
    with pytest.raises(DataError) as refused:
        read_groups(path)
    message = str(refused.value)
    assert "question (text), response_j (text), response_k (text)" in message
    assert "nearest is preference" in message and "alpaca-eval" in message
    assert "mapping.prompt=question mapping.chosen=response_j mapping.rejected=response_k" in message
    (group,) = read_groups(path, mapping={"prompt": "question", "chosen": "response_j", "rejected": "response_k"}).records
    assert orders(group) == [[["a"], ["b"]]]


def test_columns_like_no_format_are_listed_without_a_guess(tmp_path):
    with pytest.raises(DataError, match=r"no known format: smiles \(text\)\n  known formats"):
        check(write(tmp_path, [{"smiles": "CC"}]))


MISSPELT = {
    "pairs": ({"prompt": "q", "chosn": "a", "Rejected": "b"}, "preference", ["chosen=chosn", "rejected=Rejected"], "prompts"),
    "pairs without a prompt": (
        {"promt": "q", "chosen": "a", "rejected": "b"},
        "preference",
        ["prompt=promt"],
        "implicit-preference",
    ),
    "ranks": ({"prompt": "q", "completions": ["a", "b"], "rank": [1, 2]}, "k-answers", ["ranks=rank"], "unranked"),
    "demonstrations": ({"prompt": "q", "completoin": "a"}, "prompt-completion", ["completion=completoin"], "prompts"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_misspelt_columns_are_named_with_what_they_would_be(tmp_path, case):
    row, meant, renamed, plain = MISSPELT[case]
    path = write(tmp_path, [row])
    with pytest.raises(DataError) as refused:
        check(path)
    told = str(refused.value)
    assert f"would be {meant}, but for the name" in told and f"needed   {', '.join(FORMATS[meant].needs)[:6]}" in told
    assert all(column in told.partition("found")[2].partition("needed")[0] for column in row)
    assert f"NEW.jsonl {' '.join(f'mapping.{one}' for one in renamed)}\n" in told
    assert all("{} is missing, {} is there".format(*one.split("=")) in told for one in renamed)
    assert told.endswith(f"format={plain}, which gives {FORMATS[plain].gives}")
    assert check(path, format=plain).n_rows == 1  # the way out it names
    assert check(path, mapping=dict(one.split("=") for one in renamed)).format == meant


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "prompt_id": "1", "source": "x"},
        {"prompt": "q", "completion": "a", "choice": "b"},
        {"text": "t", "texts": "u"},
        {"prompt": "q", "chosen": "a", "rejected": "b", "subsets": "x"},  # as reward-bench, which is read alike
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "original": "x"},
    ],
)
def test_a_column_that_only_looks_like_another_is_no_mistake(tmp_path, row):
    assert check(write(tmp_path, [row])).n_rows == 1


def test_where_other_records_are_wanted_the_columns_that_nearly_give_them_are_named(tmp_path):
    path = write(tmp_path, [{"prompt": "q", "chosn": "a", "rejectd": "b"}])
    assert len(read_prompts(path).records) == 1  # prompts were asked for and are there
    with pytest.raises(
        DataError, match=r"nearest is preference, which needs .*\n.*mapping\.chosen=chosn mapping\.rejected=rejectd\n"
    ):
        read_groups(path)


def test_the_same_answer_ranked_twice_is_told_as_that(tmp_path):
    row = {"prompt": "q", "completions": ["x", "y", "x"], "ranks": [1, 2, 3]}
    ((reason, finding),) = check(write(tmp_path, [row])).dropped.items()
    assert reason == "the same answer twice, ranked differently; without it fewer than 2 ranked answers are left"
    assert finding.snippet == "answers 1 and 3 are both 'x'"
    ((reason, finding),) = check(
        write(tmp_path, [{**row, "completions": ["x", "y", "z"], "ranks": [1, None, None]}])
    ).dropped.items()
    assert (reason, finding.snippet) == ("fewer than 2 answers with a rank or score", "1 of 3 answers have one")


def test_the_wrong_kind_of_set_is_refused_with_the_formats_of_the_right_kind(tmp_path):
    path = write(tmp_path, [{"prompt": "q"}])
    with pytest.raises(
        DataError,
        match=r"read as prompts, which gives prompts; rankings, pairs or several answers to a prompt are wanted here\n  its columns: prompt; .*mapping\.OURS=THEIRS\n  formats that give what is wanted: kway, k-answers",
    ):
        read_groups(path)
    with pytest.raises(DataError, match="which gives prompts; rankings, pairs or several answers"):
        read_groups(path, format="prompts")


def test_a_format_given_by_name_must_exist_and_fit(tmp_path):
    path = write(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    assert check(path, format="prompts").n_records == 1
    with pytest.raises(DataError, match="nearest: preference"):
        check(path, format="preferences")
    with pytest.raises(
        DataError,
        match=r"not alpaca: it lacks instruction, output\n  alpaca needs instruction .text., output .text.\n  its columns: prompt",
    ):
        check(path, format="alpaca")


# --- mappings -------------------------------------------------------------------------------------------------------------

PATHS = {
    "a": {"b": 1},
    "a.b": 1,
    "x y": 2,
    "list[].c": [3, None],
    "list[]": [{"c": 3}, {}],
    "dotted.name": 4,
    "a.z": None,
    "z.a": None,
    "a[].b": None,
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_into_nested_values(path):
    assert taken({"a": {"b": 1}, "x y": 2, "list": [{"c": 3}, {}], "dotted.name": 4}, path) == PATHS[path]


def test_a_mapping_reads_columns_items_and_lists_of_columns(tmp_path):
    row = {
        "dialogue": {"text": "q"},
        "responses": [{"say": "b", "mark": 1}, {"say": "a", "mark": 2}],
        "first": "a",
        "second": "b",
    }
    path = write(tmp_path, [row])
    by_items = {"prompt": "dialogue.text", "completions": "responses[].say", "scores": "responses[].mark"}
    assert orders(read_groups(path, mapping=by_items).records[0]) == [[["a"], ["b"]]]
    by_columns = {"prompt": "dialogue.text", "completions": ["first", "second"]}
    (group,) = read_groups(path, mapping=by_columns, allow_unranked=True).records
    assert [completion.text for completion in group.completions] == ["a", "b"]


def test_columns_that_a_mapping_took_do_not_make_the_set_ambiguous(tmp_path):
    path = write(tmp_path, [{"prompt": "q", "selected": "a", "rejected": "b"}])
    assert read_groups(path, mapping={"chosen": "selected"}).report.format == "preference"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"chosn": "a"}, "nearest: chosen"),
        ({"chosen": "anser"}, "leads nowhere in set.jsonl\n  its columns: prompt, answer\n  nearest: answer"),
    ],
)
def test_a_mapping_that_leads_nowhere_is_refused(tmp_path, mapping, message):
    with pytest.raises(DataError) as refused:
        check(write(tmp_path, [{"prompt": "q", "answer": "a"}]), mapping=mapping)
    assert message in str(refused.value)
