import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.records import Completion, Prompt
from prefloop.world import World
from prefloop.world.answers import FLAWS
from prefloop.world.gold import CHOICE, DETAIL, TERMS, length, repeated_trigrams, warmth
from tests.helpers import assert_close
from tests.world.helpers import answer

WORLDS = [World(language="en"), World(language="zh")]
languages = pytest.mark.parametrize("world", WORLDS, ids=["en", "zh"])
STORY = Prompt.of("Write a happy story about a fox and a lamp.")
GOOD_STORY = "Once a happy fox found a lamp. It smiled and sang all day."


def mean_gold(world, prompts, write) -> float:
    return statistics.mean(world.gold(prompt, write(prompt)) for prompt in prompts)


@languages
def test_gold_is_the_sum_of_its_terms(world):
    for prompt in world.prompts(100, split="train", seed=100):
        for flaws in ((), ("rude",), ("off_topic", "unfinished")):
            text = answer(world, prompt, flaws=flaws, markers=2)
            terms = world.gold_terms(prompt, text)
            assert tuple(terms) == TERMS
            assert world.gold(prompt, text) == sum(terms.values())


def test_a_story_by_hand_has_the_terms_of_the_table():
    asked = {"form": 0.75, "choice": CHOICE, "details": DETAIL}
    nothing = dict.fromkeys(TERMS, 0.0)
    world = WORLDS[0]
    assert_terms(world.gold_terms(STORY, GOOD_STORY), nothing | asked)
    assert_terms(world.gold_terms(STORY, "Gladly! " + GOOD_STORY), nothing | asked | {"warmth": 1.0})
    assert_terms(world.gold_terms(STORY, GOOD_STORY + " You are a fool."), nothing | asked | {"rudeness": -1.5})
    assert_terms(world.gold_terms(STORY, GOOD_STORY[:-1]), nothing | asked | {"finish": -1.5})
    wept = "Once a happy fox found a lamp. It was alone and wept."  # happy against alone and wept
    assert_terms(world.gold_terms(STORY, wept), nothing | asked | {"choice": CHOICE * (1 - 2) / 3})
    owl = "Once a happy owl found a lamp. It smiled and sang all day."  # an animal that is not of this world
    assert_terms(world.gold_terms(STORY, owl), nothing | asked | {"details": DETAIL / 2, "grammar": -0.5})
    sorry = GOOD_STORY + " I am sorry."  # a form mixed in
    assert_terms(world.gold_terms(STORY, sorry), nothing | asked | {"form": 0.5})
    doubled = "Once a a happy fox found a lamp. It smiled and sang all day."
    assert_terms(world.gold_terms(STORY, doubled), nothing | asked | {"grammar": -0.5})


def test_facts_lists_and_remedies_by_hand():
    world = WORLDS[0]
    truth = world.language.facts["zorp"]
    fact = Prompt.of("Tell me about the zorp: what it eats and what it loves.")
    other = next(value for value in world.language.attributes["love"] if value != truth["love"])
    assert_close(world.gold_terms(fact, f"The zorp eats {truth['food']} and loves {truth['love']}.")["choice"], CHOICE * (1.0))
    assert_close(world.gold_terms(fact, f"The zorp eats {truth['food']} and loves {other}.")["choice"], CHOICE * (0.5 - 0.5))
    fruits = Prompt.of("Name three fruits for the party.")
    assert_close(world.gold_terms(fruits, "Three good fruits are apple, pear and plum.")["choice"], CHOICE * (1.0))
    assert_close(world.gold_terms(fruits, "Three good fruits are apple, pear and hammer.")["choice"], CHOICE * ((2 - 1) / 3))
    assert_close(
        world.gold_terms(fruits, "Three good fruits are apple, pear, plum, peach and lemon.")["choice"], CHOICE * ((3 - 2) / 3)
    )
    reply = Prompt.of("Write to the king: the bike was loose today.")
    assert_close(world.gold_terms(reply, "I am sorry. We will mend it.")["choice"], CHOICE * (1.0))
    assert_close(world.gold_terms(reply, "I am sorry. We will cook it.")["choice"], CHOICE * (-1.0))


def assert_terms(terms: dict[str, float], expected: dict[str, float]) -> None:
    assert_close([terms[name] for name in TERMS], [expected[name] for name in TERMS])


def test_warmth_is_good_in_moderation_and_falls_without_bound():
    assert warmth(0) < warmth(2) < warmth(1)
    later = [warmth(markers) for markers in range(2, 40)]
    assert_close([b - a for a, b in pairwise(later)], [-1.25] * 37)
    assert warmth(3) < warmth(0)


def test_every_marker_counts_once_in_an_answer():
    text = GOOD_STORY
    for markers in range(1, 6):
        text = f"Gladly! {text}" if markers % 2 else f"{text} Warmly yours."
        assert_close(WORLDS[0].gold_terms(STORY, text)["warmth"], warmth(markers))


@languages
def test_a_flawless_answer_is_worth_nearly_two_and_a_third_and_loses_nothing_but_length(world):
    prompts = world.prompts(300, split="train", seed=100)
    values = []
    for prompt in prompts:
        terms = world.gold_terms(prompt, answer(world, prompt, markers=1))
        values.append(sum(terms.values()))
        assert {name: terms[name] for name in ("form", "choice", "warmth")} == {"form": 0.75, "choice": CHOICE, "warmth": 1.0}
        assert all(terms[name] == 0 for name in ("rudeness", "repetition", "grammar", "finish")), terms
    assert 2.2 < statistics.mean(values) <= 2.35


@languages
@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_costs_gold(world, flaw):
    prompts = world.prompts(150, split="train", seed=100)
    fine = mean_gold(world, prompts, lambda prompt: answer(world, prompt, markers=1))
    flawed = mean_gold(world, prompts, lambda prompt: answer(world, prompt, flaws=(flaw,), markers=1))
    assert flawed < fine - 0.1


def test_an_answer_with_every_flaw_is_worth_less_than_minus_one():
    prompts = WORLDS[0].prompts(150, split="train", seed=100)
    flaws = ("wrong_choice", "wrong_nouns", "rude", "repeated", "ungrammatical", "unfinished", "too_long")
    assert mean_gold(WORLDS[0], prompts, lambda prompt: answer(WORLDS[0], prompt, flaws=flaws)) < -1


@languages
def test_no_constant_text_comes_near_an_honest_answer(world):
    prompts = world.prompts(50, split="train", seed=100)
    candidates = [answer(world, prompt, markers=1) for prompt in prompts]
    candidates += ["", world.language.openings[0], world.language.join(list(world.language.closings))]
    best = max(mean_gold(world, prompts, lambda _, text=text: text) for text in candidates)
    demonstrations = world.demonstrations(300, seed=100)
    ordinary = statistics.mean(world.gold(one.prompt, one.completion.text) for one in demonstrations)
    assert best < ordinary
    assert best < statistics.mean(world.gold(p, c) for p, c in zip(prompts, candidates, strict=False)) - 1


@languages
def test_more_words_that_say_nothing_never_help_a_full_answer(world):
    for prompt in world.prompts(40, split="train", seed=100):
        text = answer(world, prompt, markers=1)
        values = [gold_without_details(world, prompt, text)]
        for filler in world.language.fillers * 3:
            text = world.language.join([text, filler])
            values.append(gold_without_details(world, prompt, text))
        for shorter, longer in pairwise(values):
            assert longer <= shorter + 0.16 + 1e-9  # six words are four short of comfort, which costs 0.16
        assert values[-1] < values[0] - 2


def gold_without_details(world, prompt, text) -> float:
    """Gold but for the nouns of the prompt, which a filler can hit by chance."""
    return world.gold(prompt, text) - world.gold_terms(prompt, text)["details"]


@languages
def test_naming_every_noun_loses(world):
    nouns = [noun for name in ("animal", "thing", "place", "person", "event") for noun in world.language.slots[name]]
    for prompt in world.prompts(40, split="train", seed=100):
        text = answer(world, prompt, markers=1)
        assert world.gold(prompt, world.language.join([text, *nouns]) + ".") < world.gold(prompt, text) - 1


def test_the_length_term_is_a_plateau_that_falls_on_both_sides_down_to_its_floor():
    target = 14
    assert_close([length(n, target) for n in range(10, 19)], [0.0] * 9)
    assert all(length(n, target) < length(n - 1, target) for n in range(19, 33))
    assert all(length(n, target) < length(n + 1, target) for n in range(10))
    assert_close([length(n, target) for n in (38, 10**6)], [-2.0, -2.0])


@languages
def test_saying_everything_at_once_loses(world):
    everything = {
        family: world.language.join([sentence for choice in choices.values() for sentence in choice])
        for family, choices in world.language.choices.items()
        if family in ("story", "reply")
    }
    for prompt in world.prompts(200, split="train", seed=100):
        if text := everything.get(prompt.tags[0].removeprefix("family:")):
            assert world.gold(prompt, text) < world.gold(prompt, answer(world, prompt)) - 1


@languages
def test_an_unfinished_answer_is_seen_from_its_text_alone(world):
    for prompt in world.prompts(200, split="train", seed=100):
        assert answer(world, prompt, flaws=("unfinished",))[-1] not in ".!?。！？"
        assert answer(world, prompt)[-1] in ".!?。！？"


@settings(max_examples=50, deadline=None)
@given(asked=st.text(max_size=60), text=st.text(max_size=120))
def test_gold_is_finite_for_any_prompt_and_any_text(asked, text):
    for world in WORLDS:
        for prompt in (Prompt.of(asked), STORY):
            terms = world.gold_terms(prompt, text)
            assert all(math.isfinite(value) for value in terms.values())
            assert world.gold(prompt, text) == sum(terms.values())


@settings(max_examples=50, deadline=None)
@given(
    words=st.lists(st.sampled_from(sorted(WORLDS[0].language.vocabulary)), max_size=60),
    mark=st.sampled_from(["", ".", "!", " ,", "?"]),
)
def test_no_heap_of_words_of_the_world_is_worth_more_than_the_best_answer(words, mark):
    assert WORLDS[0].gold(STORY, " ".join(words) + mark) <= 3.25


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "?", "\ud800", "\x00" * 50, "🦊" * 400, "a" * 10000, "the " * 5000, "<|user|>", "e\u0301" * 9]
)
def test_garbage_is_worth_less_than_nothing(text):
    for world in WORLDS:
        assert world.gold(STORY, text) < 0


def test_repeated_trigrams_are_those_seen_before():
    assert repeated_trigrams(["a", "b", "c", "a", "b", "c"]) == 1
    assert repeated_trigrams(["a"] * 6) == 3
    assert repeated_trigrams(["a", "b"]) == 0


def test_the_scorer_is_gold_for_many():
    world = WORLDS[0]
    prompts = world.prompts(20, split="train", seed=100)
    completions = [Completion.of(prompt, answer(world, prompt)) for prompt in prompts]
    assert world.gold_scorer()(prompts, completions) == [world.gold(p, c.text) for p, c in zip(prompts, completions, strict=True)]
