from itertools import combinations, product

import numpy as np
import pytest

from prefloop.stats.consensus import borda, consensus
from tests.helpers import assert_close


def weak_orders(k: int) -> set[tuple[int, ...]]:
    """Every weak order of k things, as the place of each."""
    return {tuple(sorted(set(places)).index(place) for place in places) for places in product(range(k), repeat=k)}


def cost(order, judgments) -> float:
    total = 0.0
    for i, j in combinations(range(len(order)), 2):
        here = np.sign(order[i] - order[j])
        for judgment in judgments:
            there = np.sign(judgment[i] - judgment[j])
            if not np.isnan(there) and here != there:
                total += 1.0 if here and there else 0.5
    return total


def places_of(tiers) -> list[int]:
    place = {thing: number for number, tier in enumerate(tiers) for thing in tier}
    return [place[thing] for thing in sorted(place)]


def gap_by_trying(order, judgments) -> float:
    """What the cheapest weak order costs more that turns some pair of this one round."""
    costs = {other: cost(other, judgments) for other in weak_orders(len(order))}

    def is_turned(other, i, j) -> bool:
        here, there = np.sign(order[i] - order[j]), np.sign(other[i] - other[j])
        return there == -here if here else there != 0

    pairs = combinations(range(len(order)), 2)
    return min(min(price for other, price in costs.items() if is_turned(other, i, j)) for i, j in pairs) - cost(order, judgments)


@pytest.mark.parametrize(("k", "trials"), [(2, 10), (3, 20), (4, 8), (5, 2)])
def test_nothing_is_cheaper_than_the_consensus_among_all_weak_orders(k, trials):
    rng = np.random.default_rng(k)
    for _ in range(trials):
        judgments = rng.integers(0, k, (int(rng.integers(1, 6)), k)).astype(float)
        judgments[rng.random(judgments.shape) < 0.1] = np.nan
        found = consensus(judgments)
        order = places_of(found.tiers)
        assert_close(found.cost, cost(order, judgments))
        assert_close(found.cost, min(cost(other, judgments) for other in weak_orders(k)))
        assert_close(found.gap, gap_by_trying(order, judgments))
        assert 0 <= found.confidence <= 1


def test_what_everybody_says_is_the_consensus_and_certain():
    for said in ([0, 1, 2, 3], [2, 0, 0, 1], [0, 0, 0, 0]):
        found = consensus([said] * 3)
        assert places_of(found.tiers) == said
        assert (found.cost, found.confidence) == (0.0, 1.0)


def test_two_who_contradict_each_other_come_to_a_tie_without_confidence():
    found = consensus([[0, 1], [1, 0]])
    assert (found.tiers, found.confidence) == (((0, 1),), 0.0)


def test_a_majority_of_two_in_three_is_worth_one_judgment_in_three():
    found = consensus([[0, 1], [0, 1], [1, 0]])
    assert (found.tiers, found.gap) == (((0,), (1,)), 1.0)
    assert_close(found.confidence, 1 / 3)


def test_a_circle_of_majorities_has_no_confidence():
    assert consensus([[0, 1, 2], [2, 0, 1], [1, 2, 0]]).confidence == 0.0


def test_a_unique_consensus_is_the_same_whatever_the_things_are_called():
    rng = np.random.default_rng(4)
    judgments = np.array([[0, 1, 2, 3, 4], [0, 2, 1, 3, 4], [1, 0, 2, 3, 4]], dtype=float)
    before = consensus(judgments)
    assert before.confidence > 0
    for _ in range(5):
        order = rng.permutation(5)
        after = consensus(judgments[:, order])
        assert [sorted(int(order[i]) for i in tier) for tier in after.tiers] == [sorted(tier) for tier in before.tiers]
        assert_close(after.gap, before.gap)


def test_nine_things_are_exact_and_ten_are_counted_by_borda():
    said = np.array([[*range(9)], [*range(9)], [8, *range(8)]], dtype=float)
    assert (consensus(said).method, consensus(said).tiers[0]) == ("kemeny", (0,))
    many = consensus([list(range(10))] * 2)
    assert (many.method, places_of(many.tiers), many.confidence, many.cost) == ("borda", list(range(10)), 1.0, 0.0)


def test_borda_agrees_with_kemeny_where_all_agree_and_counts_its_own_cost():
    judgments = np.array([[0, 1, 2, 2], [0, 1, 2, 2]], dtype=float)
    assert borda(judgments).tiers == consensus(judgments).tiers
    mixed = np.random.default_rng(1).integers(0, 4, (5, 4)).astype(float)
    found = borda(mixed)
    assert_close(found.cost, cost(places_of(found.tiers), mixed))
    assert found.cost >= consensus(mixed).cost


def test_a_thing_nobody_placed_leaves_no_confidence():
    assert consensus([[0, 1, np.nan]]).confidence == 0.0
    assert borda(np.array([[0, 1, np.nan]])).tiers == ((0,), (2,), (1,))  # in the middle
