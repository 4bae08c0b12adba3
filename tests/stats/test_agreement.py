import math

import numpy as np
import pytest

from prefloop.records import Ranking
from prefloop.stats.agreement import (
    Agreement,
    agreement_interval,
    agreement_of,
    annotator_agreement,
    chance_of,
    marks,
    pair_agreement,
    pair_signs,
    ranking_agreement,
    total,
)
from tests.helpers import assert_close


def ranking(order: str, annotator: str, *, prompt: str = "p", unusable: str = "", supersedes: str = "") -> Ranking:
    """``ranking("a bc", "ada")``: a first, then b and c tied."""
    tiers = tuple(tuple(tier) for tier in order.split())
    shown = tuple(sorted(order.replace(" ", "") + unusable))
    return Ranking(
        prompt_id=prompt, tiers=tiers, unusable=tuple(unusable), shown=shown, annotator=annotator, supersedes=supersedes
    )


def test_pairs_are_counted_by_what_both_sides_say():
    # of six pairs: 01 02 03 agreed, 12 tied by the second only, 13 agreed, 23 disagreed
    assert pair_agreement([4, 3, 1, 2], [4, 2, 2, 1]) == Agreement(agreed=4, disagreed=1, tied_by_one=1, tied_by_both=0)
    assert pair_agreement([1, 1, 2], [5, 5, 6]) == Agreement(agreed=2, disagreed=0, tied_by_one=0, tied_by_both=1)


def test_the_two_ways_to_count_ties():
    counts = Agreement(agreed=3, disagreed=1, tied_by_one=2, tied_by_both=2)
    assert_close(counts.of_ordered, 3 / 4)
    assert_close(counts.with_half_ties, (3 + 1 + 2) / 8)


def test_nothing_to_compare_is_not_a_number():
    nothing = total([])
    assert math.isnan(nothing.of_ordered)
    assert math.isnan(nothing.with_half_ties)


def test_counts_of_prompts_add_up():
    assert total([Agreement(1, 2, 3, 4), Agreement(10, 0, 0, 1)]) == Agreement(11, 2, 3, 5)


def test_a_ranking_agrees_with_itself_and_not_with_its_reverse():
    forwards, backwards = ranking("a b c", "ada"), ranking("c b a", "bob")
    assert ranking_agreement(forwards, forwards) == Agreement(3, 0, 0, 0)
    assert ranking_agreement(forwards, backwards) == Agreement(0, 3, 0, 0)


def test_agreement_does_not_depend_on_who_is_asked_first():
    one, other = ranking("a bc d", "ada"), ranking("b a dc", "bob")
    assert ranking_agreement(one, other) == ranking_agreement(other, one)


def test_only_answers_that_both_placed_are_compared():
    assert ranking_agreement(ranking("a b c", "ada"), ranking("c a x", "bob")) == Agreement(0, 1, 0, 0)


def test_unusable_answers_are_a_last_tier_unless_left_out():
    one, other = ranking("a b", "ada", unusable="c"), ranking("a", "bob", unusable="bc")
    assert ranking_agreement(one, other) == Agreement(agreed=2, disagreed=0, tied_by_one=1, tied_by_both=0)
    assert ranking_agreement(one, other, with_unusable=False) == Agreement(0, 0, 0, 0)


def test_rankings_of_different_prompts_are_not_compared():
    with pytest.raises(ValueError, match="different prompts"):
        ranking_agreement(ranking("a b", "ada", prompt="p"), ranking("a b", "bob", prompt="q"))


def test_the_matrix_has_a_cell_for_each_two_people_over_the_prompts_they_share():
    given = [
        ranking("a b", "bob", prompt="p"),
        ranking("a b", "ada", prompt="p"),
        ranking("b a", "ada", prompt="q"),
        ranking("a b", "bob", prompt="q"),
        ranking("b a", "cleo", prompt="q"),
    ]
    assert annotator_agreement(given) == {
        ("ada", "bob"): Agreement(1, 1, 0, 0),
        ("ada", "cleo"): Agreement(1, 0, 0, 0),
        ("bob", "cleo"): Agreement(0, 1, 0, 0),
    }


def test_nobody_is_compared_with_himself():
    twice = [ranking("a b", "ada"), ranking("b a", "ada")]
    assert annotator_agreement(twice) == {}
    assert agreement_interval(twice).n == 0


def test_a_superseded_ranking_is_silent():
    first = ranking("a b", "ada")
    corrected = ranking("b a", "ada", supersedes=first.id)
    assert annotator_agreement([first, corrected]) == {}
    assert annotator_agreement([first, corrected, ranking("b a", "bob")]) == {("ada", "bob"): Agreement(1, 0, 0, 0)}


def test_a_prompt_with_many_pairs_does_not_outvote_one_with_a_single_pair():
    given = [
        ranking("a b c d", "ada", prompt="p"),
        ranking("a b c d", "bob", prompt="p"),
        ranking("a b", "ada", prompt="q"),
        ranking("b a", "bob", prompt="q"),
        ranking("a", "ada", prompt="alone"),
    ]
    interval = agreement_interval(given)
    assert_close(interval.mean, (1 + 0) / 2)
    assert interval.n == 2


def test_annotators_who_err_one_time_in_four_agree_as_often_as_arithmetic_says():
    rng = np.random.default_rng(1)
    given = [
        ranking("a b" if rng.random() < 0.75 else "b a", name, prompt=f"p{i}") for i in range(800) for name in ("ada", "bob")
    ]
    truth = 0.75**2 + 0.25**2
    assert abs(agreement_interval(given, n_boot=100).mean - truth) < 4 * math.sqrt(truth * (1 - truth) / 800)


# --- several people's places ------------------------------------------------------------------------------------------------

TABLES = [  # a judgment a row, an answer a column; 0 is the best place
    [[0, 1, 2], [0, 1, 1], [1, 0, 2]],
    [[0, 1], [0, 0]],
    [[0, math.nan], [1, 0]],  # the first of these did not place the second answer: nothing to compare
]


def test_marks_are_counted_over_pairs_of_answers_and_of_people():
    # first item, pairs 01 02 12: people 1 and 2 agree, agree, tie of one; 1 and 3 differ, agree, agree; 2 and 3 differ, agree, tie
    assert_close(marks(pair_signs(TABLES[0]), "half"), [5 + 0.5 + 0.5, 9])
    assert_close(marks(pair_signs(TABLES[0]), "drop"), [5, 7])
    assert_close(marks(pair_signs(TABLES[0]), "strict"), [5, 9])


def test_an_item_counts_once_or_by_its_pairs():
    assert_close(agreement_of(TABLES, ties="half", mean="items", n_boot=20).value, (6 / 9 + 0.5) / 2)
    assert_close(agreement_of(TABLES, ties="half", mean="pairs", n_boot=20).value, (6 + 0.5) / (9 + 1))
    assert agreement_of(TABLES, ties="drop", n_boot=20).n == 1
    assert "two people" in agreement_of(TABLES[2:], n_boot=20).reason


def test_it_is_the_share_that_rankings_give():
    given = [
        ranking("a b c", "ada"),
        ranking("b a c", "bob"),
        ranking("a b", "ada", prompt="q"),
        ranking("a b", "bob", prompt="q"),
    ]
    tables = [[[0, 1, 2], [1, 0, 2]], [[0, 1], [0, 1]]]
    assert_close(agreement_of(tables, ties="drop", n_boot=20).value, agreement_interval(given, n_boot=20).mean)


def test_coins_agree_as_often_as_chance_says():
    rng = np.random.default_rng(0)
    tables = [rng.integers(0, 3, (4, 2)).astype(float) for _ in range(800)]  # a third of the pairs are ties
    for ties in ("drop", "half", "strict"):
        assert abs(agreement_of(tables, ties=ties, mean="pairs", n_boot=2).value - chance_of(tables, ties)) < 0.03
    assert_close(chance_of([[[0, 0], [0, 1]]], "strict"), 0.5**2 + 0.5**2 / 2)
