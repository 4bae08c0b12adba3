"""Schemas and what is answered to them."""

import re

import pytest

from prefloop.collect.answers import checked, on_screen
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import body_of, read_schema, schema_of, template, template_names
from prefloop.errors import ConfigError

SHOWN = ("c3", "c1", "c2")  # a, b and c on this screen


def schema_with(*questions: str, per: str = "item"):
    lines = "\n".join(f"      - {{{question}}}" for question in questions)
    return read_schema(f"id: t\nstages:\n  - id: s\n    per: {per}\n    questions:\n{lines}\n", where="t.yaml")


@pytest.mark.parametrize("name", template_names())
def test_every_template_is_a_schema_that_is_stored_and_read_back_whole(name):
    schema = template(name)
    assert schema_of(body_of(schema)) == schema
    questions = [question for stage in schema.stages for question in stage.questions]
    options = [option for question in questions for option in getattr(question, "options", [])]
    anchors = [words for question in questions for words in getattr(question, "anchors", {}).values()]
    read = [schema.title, schema.guidelines, *(one.label for one in (*questions, *options)), *anchors]
    assert all(set(words) == {"en", "zh"} and "" not in words.values() for words in read)
    assert all(re.search("[\u4e00-\u9fff]", words["zh"]) for words in read)


def test_the_templates_named_in_the_documents_are_there():
    named = {"instructgpt", "hh_chat", "arena", "image_pref", "audio_mos", "video_pref", "moore_basic", "kto_thumbs", "rank"}
    assert named == set(template_names())


def test_instructgpt_asks_what_its_table_3_lists():
    questions = template("instructgpt").stages[0].questions
    assert (questions[0].type, questions[0].min, questions[0].max) == ("likert", 1, 7)
    assert sum(question.type == "flag" for question in questions) == 11


BAD_SCHEMAS = {
    "id: t\nstages: [{id: s, questions: [{id: q, type: likrt}]}]": r"stage 1, question 1 has the type 'likrt'; did you mean 'likert'",
    "id: t\nstages: [{id: s, questions: [{id: q, type: likert, mx: 5}]}]": "unknown key 'mx'; did you mean 'max'",
    "id: t\nstages: [{id: s, questions: [{id: q, type: likert, min: 5, max: 5}]}]": "2 to 21 points",
    "id: t\nstages: [{id: s, questions: [{id: q, type: flag}, {id: q, type: flag}]}]": "asks q twice",
    "id: t\nstages: [{id: s, per: completion, questions: [{id: q, type: rank}]}]": "asked per item",
    "id: t\nstages: [{id: s, questions: [{id: q, type: edit}]}]": "asked per completion",
    "id: t\nstages: [{id: s, questions: [{id: q, type: flag, show_if: {z: {eq: true}}}]}]": "depends on 'z'",
    "id: t\nstages: [{id: s, questions: [{id: q, type: pair}]}]": "completions must be {min: 2, max: 2}",
    "id: t\ncompletions: {min: 1}\nstages: [{id: s, questions: [{id: q, type: rank}]}]": "needs two answers",
    "id: t\ncompletions: {min: 9, max: 4}\nstages: [{id: s, questions: [{id: q, type: flag}]}]": "is above",
    "id: t\ncompletions: {max: 17}\nstages: [{id: s, questions: [{id: q, type: flag}]}]": "less than or equal to 16",
    "id: t\nstages: [{id: s, questions: [{id: q, type: rank}]}, {id: z, questions: [{id: q, type: rank}]}]": "one order",
    "id: t\nstages: [{id: s, questions: [{id: q, type: single, options: [x]}]}]": "at least 2 items",
    "id: t\nstages: [{id: S, questions: [{id: q, type: flag}]}]": "match pattern",
    "id: t\nformat_version: 2\nstages: [{id: s, questions: [{id: q, type: flag}]}]": "input should be 1",
    "id: t\nstages: {}": "stages must be a list",
    "[1": "not valid YAML",
    "7": "must hold key: value lines",
}


@pytest.mark.parametrize("text", BAD_SCHEMAS)
def test_a_schema_that_cannot_be_asked_is_refused_with_its_place(text):
    with pytest.raises(ConfigError, match=BAD_SCHEMAS[text]):
        read_schema(text, where="t.yaml")


def test_an_unknown_template_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'arena'"):
        template("arean")


# --- answers ----------------------------------------------------------------------------------------------------------------


def test_answers_are_stored_under_the_completions_own_ids_and_come_back_in_letters():
    schema = template("instructgpt")
    rates = {"a": {"overall": 2, "edit": "mended", "violent": True}, "b": {"overall": 6}, "c": {"overall": 6}}
    answers = {"rate": rates, "rank": {"ranking": "b = c > a", "why": ""}}
    stored = checked(schema, answers, SHOWN)
    assert stored["rate"]["c3"] == {"overall": 2, "violent": True, "edit": "mended"}
    assert stored["rank"] == {"ranking": {"tiers": [["c1", "c2"], ["c3"]], "unusable": []}}
    assert on_screen(schema, stored, SHOWN)["rank"]["ranking"] == {"tiers": [["b", "c"], ["a"]], "unusable": []}
    assert on_screen(schema, stored, SHOWN)["rate"]["a"]["edit"] == "mended"


def test_what_is_not_asked_under_a_condition_is_not_kept():
    schema = template("instructgpt")
    rates = {letter: {"overall": 7, "edit": "typed before the rating went up", "hallucination": True} for letter in "abc"}
    stored = checked(schema, {"rate": rates, "rank": {"ranking": "a b c"}}, SHOWN)
    assert stored["rate"]["c3"] == {"overall": 7}
    tagged = checked(schema, {"rate": rates, "rank": {"ranking": "a b c"}}, SHOWN, tags=("closed_domain",))
    assert tagged["rate"]["c3"] == {"overall": 7, "hallucination": True}


def test_a_reason_is_needed_only_where_something_is_unusable():
    schema = template("instructgpt")
    rates = {letter: {"overall": 7} for letter in "abc"}
    with pytest.raises(Refused, match=r"rank\.why: needs an answer"):
        checked(schema, {"rate": rates, "rank": {"ranking": {"tiers": [["a"], ["b"]], "unusable": ["c"]}}}, SHOWN)
    assert checked(schema, {"rate": rates, "rank": {"ranking": "a b | c", "why": "insults"}}, SHOWN)["rank"]["why"] == "insults"


RANK = "id: q, type: rank"
BAD_ANSWERS = [
    (RANK, {"q": "a > b"}, "leaves out c"),
    (RANK, {"q": "a > b > c > d"}, "places d; on the screen are a, b, c"),
    (RANK, {"q": {"tiers": [["a"], ["a", "b", "c"]]}}, "places a twice"),
    (RANK, {"q": {"tiers": ["abc"]}}, "lists of letters"),
    (RANK, {"q": {"tiers": [["a", "b", "c"]], "x": 1}}, "must be {tiers"),
    (RANK, {"q": 3}, "must be {tiers"),
    (RANK, {}, "needs an answer"),
    (f"{RANK}, ties: false", {"q": "a = b > c"}, "has a tie"),
    (f"{RANK}, unusable: false", {"q": "a > b | c"}, "calls an answer unusable"),
    (f"{RANK}, complete: false", {"q": {"tiers": [], "unusable": []}}, "places nothing"),
    ("id: q, type: likert", {"q": 8}, "whole number from 1 to 7"),
    ("id: q, type: likert", {"q": True}, "whole number"),
    ("id: q, type: likert", {"q": 2.5}, "whole number"),
    ("id: q, type: number, min: 0, max: 1", {"q": 1.5}, "a number from 0.0 to 1.0"),
    ("id: q, type: number", {"q": float("inf")}, "a number from"),
    ("id: q, type: number", {"q": float("nan")}, "a number from"),
    ("id: q, type: flag", {"q": 1}, "true or false"),
    ("id: q, type: single, options: [x, y]", {"q": "z"}, "one of x, y"),
    ("id: q, type: single, options: [x, y]", {"q": ["x"]}, "one of x, y"),
    ("id: q, type: multi, options: [x, y]", {"q": ["x", "z"]}, "one of x, y"),
    ("id: q, type: multi, options: [x, y]", {"q": "x"}, "must be a list"),
    ("id: q, type: text, max: 3", {"q": "four"}, "4 characters long; allowed are 3"),
    ("id: q, type: text", {"q": "\ud800"}, "lone surrogate"),
    ("id: q, type: text", {"z": "x"}, "not asked; asked is q"),
]


@pytest.mark.parametrize(("question", "given", "said"), BAD_ANSWERS)
def test_an_answer_that_does_not_fit_its_question_is_refused_and_says_why(question, given, said):
    with pytest.raises(Refused, match=said) as refusal:
        checked(schema_with(question), {"s": given}, SHOWN)
    assert (refusal.value.status, refusal.value.code) == (422, "bad_answers")


@pytest.mark.parametrize("answers", [[], {"z": {}}, {"s": [1]}, {"s": {"d": {"q": True}}}, {"s": {"a": 1}}])
def test_answers_of_another_shape_are_refused(answers):
    with pytest.raises(Refused):
        checked(schema_with("id: q, type: flag, required: false", per="completion"), answers, SHOWN)


def test_a_choice_of_two_holds_its_strength():
    schema = template("hh_chat")
    stored = checked(schema, {"choose": {"better": {"choice": "b", "strength": 3}}}, ("x", "y"))
    assert stored == {"choose": {"better": {"choice": "y", "strength": 3}}}
    for value in ({"choice": "b"}, {"choice": "b", "strength": 5}, {"choice": "tie"}, {"choice": "c", "strength": 1}, "b"):
        with pytest.raises(Refused):
            checked(schema, {"choose": {"better": value}}, ("x", "y"))


def test_letters_are_stored_in_one_order_whatever_was_typed():
    schema = schema_with("id: q, type: multi, options: [x, y, z]", RANK.replace("q", "r"))
    one = checked(schema, {"s": {"q": ["z", "x", "z"], "r": "c=a > b"}}, SHOWN)
    assert one == checked(schema, {"s": {"q": ["x", "z"], "r": {"tiers": [["a", "c"], ["b"]]}}}, SHOWN)
