"""Simulated annotators: their opinions become answers to any questions, over HTTP."""

import json
from dataclasses import replace

import pytest

from prefloop.collect.answers import checked
from prefloop.collect.schema import read_schema, template, template_names
from prefloop.collect.simulate import Opinion, answered, group_on, simulate
from prefloop.errors import DataError
from prefloop.records import Completion, Group, Prompt, Ranking
from prefloop.world import World
from prefloop.world.annotators import PERFECT, rank
from prefloop.world.stand_ins import stand_ins
from tests.collect.site import Site
from tests.command_line import prefloop

WORLD = World()


def turn(schema, k=2, tags=(), medium="text") -> dict:
    """A screen with ``k`` answers."""
    return {
        "assignment": "x", "project": "p", "schema": schema.model_dump(mode="json"),
        "prompt": {"messages": [{"role": "user", "content": "question"}], "tags": list(tags)},
        "completions": [{"id": letter, "content": {"type": medium, "text": f"answer {letter}"}} for letter in "abcd"[:k]],
    }  # fmt: skip


def opinion(tiers, unusable=(), worth=None) -> Opinion:
    shown = tuple(sorted(letter for tier in (*tiers, unusable) for letter in tier))
    said = Ranking(prompt_id="p", tiers=tuple(map(tuple, tiers)), unusable=tuple(unusable), shown=shown, annotator="sim:0")
    return Opinion(said, worth or dict.fromkeys(shown, 0.0))


def stored(schema, said, k=2, tags=()):
    """What the service would keep; it refuses what does not answer the questions."""
    return checked(schema, said, "ABCD"[:k], tags=tags)


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("tags", [(), ("closed_domain",)])
def test_every_question_of_every_template_is_answered_as_the_service_wants_it(name, tags):
    schema = template(name)
    thinking = opinion([["b"], ["a"]], worth={"a": -3.0, "b": 3.0})
    said = answered(turn(schema, tags=tags), thinking)
    assert stored(schema, said, tags=tags) == stored(schema, json.loads(json.dumps(said)), tags=tags)
    if name == "instructgpt":  # a scale is used from end to end, and a low score is explained by an edit only where one is asked
        assert [said["rate"][letter]["overall"] for letter in "ab"] == [1, 7]


ASKED = """
id: asked
completions: {min: 2, max: 4}
stages:
  - id: each
    per: completion
    questions:
      - {id: n, type: number, min: 0, max: 10, required: true}
      - {id: m, type: number, min: 3, required: true}
      - {id: f, type: flag, required: true}
      - {id: g, type: flag}
      - {id: o, type: single, options: [x, y], required: true}
      - {id: w, type: text, max: 5, required: true}
      - {id: e, type: edit, required: true, show_if: {f: {eq: true}}}
  - id: all
    questions:
      - {id: order, type: rank, ties: TIES, unusable: UNUSABLE}
      - {id: many, type: multi, options: [x, y], required: true}
"""


def test_what_must_be_said_is_said_and_the_rest_is_not():
    schema = read_schema(ASKED.replace("UNUSABLE", "true").replace("TIES", "true"), where="here")
    kept = stored(schema, answered(turn(schema, 3), opinion([["b", "c"]], ["a"])), 3)
    assert kept["each"]["A"] == {"n": 5.0, "m": 3, "f": False, "o": "x", "w": "a sim"}
    assert kept["all"] == {"order": {"tiers": [["B", "C"]], "unusable": ["A"]}, "many": ["x"]}


def test_an_order_takes_the_shape_the_project_allows():
    for ties, unusable, tiers in (("true", "false", [["B", "C"], ["A"]]), ("false", "false", [["B"], ["C"], ["A"]])):
        schema = read_schema(ASKED.replace("UNUSABLE", unusable).replace("TIES", ties), where="here")
        kept = stored(schema, answered(turn(schema, 3), opinion([["b", "c"]], ["a"])), 3)
        assert kept["all"]["order"] == {"tiers": tiers, "unusable": []}


@pytest.mark.parametrize(
    ("tiers", "unusable", "worth", "said"),
    [
        ([["b"], ["a"]], (), (0.0, 0.1), {"choice": "b", "strength": 1}),
        ([["b"], ["a"]], (), (0.0, 1.2), {"choice": "b", "strength": 3}),  # 0.6 of the way on four steps
        ([["a"]], ("b",), (9.0, 0.0), {"choice": "a", "strength": 4}),
        ([["a", "b"]], (), (0.0, 0.0), {"choice": "a", "strength": 1}),  # hh_chat has no tie
    ],
)
def test_of_two_the_better_is_chosen_as_strongly_as_it_is_better(tiers, unusable, worth, said):
    thinking = opinion(tiers, unusable, dict(zip("ab", worth, strict=True)))
    assert answered(turn(template("hh_chat")), thinking) == {"choose": {"better": said}}


def test_a_tie_and_two_bad_answers_are_said_where_they_may_be():
    schema = template("arena")
    assert answered(turn(schema), opinion([["a", "b"]]))["vote"]["better"] == {"choice": "tie"}
    assert answered(turn(schema), opinion([], ["a", "b"]))["vote"]["better"] == {"choice": "both_bad"}


def test_pictures_are_not_for_those_who_can_only_read():
    with pytest.raises(DataError, match="can only read"):
        group_on(turn(template("image_pref"), medium="image"))


# --- the people of the world ------------------------------------------------------------------------------------------------


def a_group(prompt: Prompt, *texts: str) -> Group:
    return Group(prompt=prompt, completions=tuple(Completion(**{**dict(Completion.of(prompt, text)), "id": letter})
                                                  for letter, text in zip("abcd", texts, strict=False)))  # fmt: skip


def test_who_likes_what_is_shown_first_sees_what_the_screen_shows_first():
    prompt = WORLD.prompts(1, split="train", seed=0)[0]
    fond = replace(PERFECT, first_bonus=100.0)
    for texts in (("yes", "no"), ("no", "yes")):
        group = a_group(prompt, *texts)
        judged = [WORLD.judge(prompt, text) for text in texts]
        said = rank(group, judged, who=fond, flip=0.0, key=(0,), screen=("a", "b"))
        assert said.tiers == (("a",), ("b",)) and said.shown == ("a", "b")


def test_a_stand_in_says_the_same_of_the_same_screen_and_another_stand_in_something_else():
    prompts = WORLD.prompts(40, split="train", seed=1)
    screens = [a_group(prompt, "a cat", "thank you, of course .", "no") for prompt in prompts]
    people = stand_ins(WORLD, annotators=2, flip=0.25, seed=3)
    assert list(people) == ["sim:0", "sim:1"]
    first, again, other = ([people[name](one) for one in screens] for name in ("sim:0", "sim:0", "sim:1"))
    assert first == again
    assert [ranking.tiers for ranking, _ in first] != [ranking.tiers for ranking, _ in other]
    assert {ranking.annotator for ranking, _ in other} == {"sim:1"}


# --- over HTTP --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(new_url, tmp_path):
    opened = Site(tmp_path, new_url("sqlite")).start()  # its prompts are "question 0" and so on: of no world
    yield opened
    opened.stop()


def test_a_prompt_from_elsewhere_is_named_and_given_back(site):
    token = site.token("annotator")
    with pytest.raises(DataError, match="not of this world: 'question"):
        simulate(site.address, "main", {"sim:0": token}, stand_ins(WORLD, annotators=1))
    assert site.one("SELECT state FROM assignment") == "released"


def test_at_most_so_many_each(site):
    names = ("annotator", "reviewer")
    as_shown = lambda group: (Ranking(prompt_id=group.prompt.id, tiers=tuple((c.id,) for c in group.completions),  # noqa: E731
                              shown=tuple(c.id for c in group.completions), annotator="sim:0"), dict.fromkeys("ab", 0.0))  # fmt: skip
    told = []
    tokens = {name: site.token(name) for name in names}
    done = simulate(site.address, "main", tokens, dict.fromkeys(names, as_shown), at_most=3, told=told.append)
    assert done == {"annotator": 3, "reviewer": 3}
    assert sorted(told) == sorted([*names] * 3)
    bodies = site.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT body_json, shown_json FROM judgment JOIN assignment ON assignment.id = assignment_id"
        ).all()
    )
    assert [json.loads(body)["rank"]["ranking"]["tiers"] for body, _ in bodies] == [
        [[one] for one in json.loads(shown)] for _, shown in bodies
    ]


def typed(*words) -> str:
    outcome = prefloop(*words)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_a_service_that_does_not_run_is_said_in_one_message(tmp_path):
    data = ("--data", tmp_path)
    assert "there is no service" in prefloop("collect", "simulate", "first", *data).err
    (tmp_path / "answers.jsonl").write_text('{"prompt": "x", "completions": ["a", "b"]}\n')
    typed("collect", "import", "first", tmp_path / "answers.jsonl", "--template", "rank", *data)
    outcome = prefloop("collect", "simulate", "first", "--language", "fr", *data)
    assert outcome.code == 2 and "does not speak 'fr'" in outcome.err
