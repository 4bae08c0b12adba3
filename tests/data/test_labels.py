"""Which answers are called good, and which bad: thumbs as they are, rankings by two rules, corrections and unusable answers."""

import pytest

from prefloop.data.labels import labels_of
from prefloop.records import Completion, Group, Prompt, Ranking, Rating

PROMPT = Prompt.of("which?")
SAID = {name: Completion.of(PROMPT, name) for name in "abcde"}
ID = {name: completion.id for name, completion in SAID.items()}


def ranked(*tiers: str, unusable: str = "", annotator: str = "ada", supersedes: str = "") -> Ranking:
    """ranked("a", "bc") is a above b and c, which are tied."""
    placed = "".join(tiers) + unusable
    return Ranking(
        prompt_id=PROMPT.id,
        tiers=tuple(tuple(ID[name] for name in tier) for tier in tiers),
        unusable=tuple(ID[name] for name in unusable),
        shown=tuple(ID[name] for name in placed),
        annotator=annotator,
        supersedes=supersedes,
    )


def thumb(name: str, value: float, *, annotator: str = "ada", scale=(0.0, 1.0), supersedes: str = "", question="good?") -> Rating:
    return Rating(completion_id=ID[name], question=question, scale=scale, value=value, annotator=annotator, supersedes=supersedes)


def called(*rankings: Ranking, ratings=(), **how) -> tuple[str, str]:
    """The good ones and the bad ones."""
    group = Group(prompt=PROMPT, completions=tuple(SAID.values()), rankings=rankings, ratings=tuple(ratings))
    label = labels_of(group, **how)
    return tuple("".join(name for name in SAID if label.get(ID[name]) is wanted) for wanted in (True, False))


@pytest.mark.parametrize("rule", ["halves", "best"])
def test_of_a_pair_the_chosen_is_good_and_the_rejected_bad(rule):
    assert called(ranked("b", "a"), rule=rule) == ("b", "a")


@pytest.mark.parametrize(
    ("tiers", "halves", "best"),
    [
        (("a", "b", "c", "d"), ("ab", "cd"), ("a", "bcd")),
        (("a", "b", "c"), ("a", "c"), ("a", "bc")),
        (("a", "bcd"), ("a", "bcd"), ("a", "bcd")),
        (("abc", "d"), ("abc", "d"), ("abc", "d")),
        (("abcd",), ("", ""), ("", "")),
        (("a", "bc", "de"), ("abc", "de"), ("a", "bcde")),
    ],
)
def test_of_a_ranking_both_halves_or_the_best_place(tiers, halves, best):
    assert called(ranked(*tiers)) == halves
    assert called(ranked(*tiers), rule="best") == best


@pytest.mark.parametrize("rule", ["halves", "best"])
def test_what_was_called_unusable_is_bad_whatever_stands_beside_it(rule):
    assert called(ranked("a", unusable="b"), rule=rule) == ("a", "b")
    assert called(ranked(unusable="ab"), rule=rule) == ("", "ab")
    assert called(ranked("a", unusable="b"), rule=rule, unusable=False) == ("", "")


def test_several_people_are_summed_and_an_even_vote_says_nothing():
    assert called(ranked("a", "b"), ranked("b", "a", annotator="bob")) == ("", "")
    assert called(ranked("a", "b"), ranked("b", "a", annotator="bob"), ranked("a", "b", annotator="eve")) == ("a", "b")


def test_a_corrected_ranking_or_thumb_no_longer_counts():
    first = ranked("a", "b")
    assert called(first, ranked("b", "a", supersedes=first.id)) == ("b", "a")
    down = thumb("a", 0.0)
    assert called(ratings=[down, thumb("a", 1.0, supersedes=down.id)]) == ("a", "")


def test_thumbs_go_before_rankings_answer_by_answer():
    assert called(ranked("a", "b", "c"), ratings=[thumb("a", 0.0)]) == ("", "ac")
    assert called(ranked("a", "b"), ratings=[thumb("a", 0.5)]) == ("", "b")  # an undecided thumb is one


def test_thumbs_of_any_scale_are_read_from_its_middle_and_averaged():
    assert called(ratings=[thumb("a", 4.0, scale=(1.0, 5.0)), thumb("b", 2.0, scale=(1.0, 5.0))]) == ("a", "b")
    assert called(ratings=[thumb("a", 1.0), thumb("a", 0.0, annotator="bob"), thumb("a", 0.0, annotator="eve")]) == ("", "a")
    assert called(ratings=[thumb("a", 1.0, question="polite?")]) == ("", "")
