import pytest

from prefloop.errors import DataError
from prefloop.world import World
from prefloop.world.language import FAMILIES
from prefloop.world.prompts import SPLITS, read_request, split_of

WORLDS = [World(language="en"), World(language="zh")]
languages = pytest.mark.parametrize("world", WORLDS, ids=["en", "zh"])


@languages
def test_splits_share_no_prompt_whatever_the_seeds(world):
    by_split = {
        split: {prompt.text for seed in (0, 1, 102) for prompt in world.prompts(200, split=split, seed=seed)} for split in SPLITS
    }
    for split, texts in by_split.items():
        for other, others in by_split.items():
            assert split == other or not texts & others
        assert {split_of(text) for text in texts} == {split}


@languages
def test_prompts_are_distinct_and_a_longer_draw_begins_with_the_shorter_one(world):
    long = world.prompts(800, split="train", seed=100)
    assert len({prompt.id for prompt in long}) == 800
    assert world.prompts(50, split="train", seed=100) == long[:50]


@languages
def test_another_seed_asks_other_prompts(world):
    first, second = ({prompt.text for prompt in world.prompts(100, split="train", seed=seed)} for seed in (100, 101))
    assert len(first & second) < 30


@languages
def test_every_prompt_is_read_back_as_the_family_in_its_tag(world):
    prompts = world.prompts(600, split="train", seed=100)
    for prompt in prompts:
        request = read_request(world.language, prompt.text)
        assert prompt.tags == (f"family:{request.family}",)
        assert all(value in prompt.text for value in request.slots.values())
        assert request.choice or request.family == "fact"
    assert {prompt.tags[0].removeprefix("family:") for prompt in prompts} == set(FAMILIES)


def test_the_english_world_has_six_thousand_training_prompts_in_equal_shares():
    families = [prompt.tags[0] for prompt in World().prompts(6000, split="train", seed=100)]
    for family in FAMILIES:
        expected, deviation = 6000 / 5, (6000 * 0.2 * 0.8) ** 0.5
        assert abs(families.count(f"family:{family}") - expected) < 4 * deviation


def test_a_draw_beyond_what_there_is_says_so():
    with pytest.raises(DataError, match=r"run out of prompts[\s\S]*wanted: 30000[\s\S]*Ask for fewer"):
        World(language="zh").prompts(30000, split="held_out", seed=100)


def test_an_unknown_split_is_refused_with_the_ones_there_are():
    with pytest.raises(DataError, match="train, validation, held_out"):
        World().prompts(1, split="test", seed=0)  # type: ignore[arg-type]


def test_a_prompt_of_another_world_belongs_to_no_family():
    assert read_request(World().language, "What is the capital of France?").family == "other"
