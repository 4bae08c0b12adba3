"""What answers of the world say: the same however it is put, another thing where anything that counts differs."""

import random

import pytest

from prefloop.errors import ConfigError
from prefloop.stats.clusters import bidirectional, clusters
from prefloop.world import World
from prefloop.world.answers import write_answer
from prefloop.world.languages import LANGUAGES
from prefloop.world.meaning import entails, said, same_content
from prefloop.world.prompts import read_request

ENGLISH = LANGUAGES["en"]
MENDED = "We are sorry that the coat was old. We can mend it for you."


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("I am sorry that the coat was old. We will send a new one.", True),  # any word of a remedy is that remedy
        ("Gladly! We are sorry that the coat was old. We can mend it for you. It is our fault. Warmly yours.", True),
        ("We are sorry that the coat was old. The sun was over the hill. We can mend it for", True),
        ("we can mend it for you. we are sorry about the old coat", True),
        ("We are sorry that the coat was old. We will clean it today.", False),
        ("We are sorry that the coat was old.", False),
        ("We are sorry that the bike was old. We can mend it for you.", False),
        ("You are a fool. We are sorry that the coat was old. We can mend it for you.", False),
        ("Three good fruits are apple, pear and plum.", False),
        ("", False),
    ],
)
def test_a_reply_says_its_remedy_its_nouns_and_whether_it_is_rude(other, is_same):
    assert same_content("en")(MENDED, other) == same_content("en")(other, MENDED) == is_same


def test_a_list_says_which_things_and_not_in_which_order():
    same = same_content("en")
    assert same("Three fruits for the feast are apple, pear and plum.", "Three fruits for the feast are plum, apple and pear.")
    assert not same(
        "Three fruits for the feast are apple, pear and plum.", "Three fruits for the feast are apple, pear and lemon."
    )


def test_facts_are_said_by_their_values():
    same = same_content("en")
    assert same("The pim loves songs and it lives in the swamp.", "A pim lives in the swamp and loves songs.")
    assert not same("A pim lives in the swamp and loves songs.", "A pim lives in the swamp and loves rain.")


@pytest.mark.parametrize("language", LANGUAGES)
def test_written_twice_with_other_words_and_manners_an_answer_says_the_same_unless_its_choice_changes(language):
    """Two draws of the grammar for one request differ in templates, warmth and ends; what they choose decides."""
    world = World(language=language)
    same = same_content(language)
    for prompt in world.prompts(60, split="train", seed=0):
        request = read_request(world.language, prompt.text)
        if request.family not in ("reply", "advice"):
            continue  # of the others the grammar itself chooses what it tells: which things, which nouns
        one, two = (write_answer(world.language, request, random.Random(seed), markers=seed % 3) for seed in (1, 2))
        wrong = write_answer(world.language, request, random.Random(3), flaws=["wrong_choice"])
        told = [said(world.language, text) for text in (one, two, wrong)]
        choice = [{pair for pair in found if pair[0] == request.family} for found in told]
        assert choice[0] == choice[1] == {(request.family, request.choice)}, (one, two)
        assert choice[2] != choice[0] and not same(one, wrong), (one, wrong)


def test_an_answer_entails_what_it_says_and_less_so_that_both_ways_is_the_same():
    more = "We are sorry that the coat was old. We can mend it for you. Gladly!"
    less = "We are sorry that it was old. We can mend it."
    assert entails(ENGLISH, more, less) and not entails(ENGLISH, less, more)
    texts = [d.completion.text for d in World().demonstrations(60, seed=0)]
    both_ways = bidirectional(lambda first, second: entails(ENGLISH, first, second))
    assert clusters(texts, both_ways) == clusters(texts, same_content("en"))


def test_a_language_the_world_does_not_speak_is_refused():
    with pytest.raises(ConfigError, match=r"does not speak 'fr'\n  it speaks en, zh"):
        same_content("fr")
