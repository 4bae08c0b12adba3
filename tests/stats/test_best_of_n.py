import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.stats.best_of_n import (
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_pmf,
    exact_best_of_n_kl,
    picked_by_best_of_n,
    rank_weights,
    win_rate_bound,
)
from tests.helpers import assert_close


def mean_over_subsets(proxy, value, n: int) -> float:
    """What best-of-n picks, averaged over every subset of n samples, ties picked at random."""
    picked = []
    for subset in combinations(range(len(proxy)), n):
        highest = max(proxy[i] for i in subset)
        picked.append(np.mean([value[i] for i in subset if proxy[i] == highest]))
    return float(np.mean(picked))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), min_size=1, max_size=7))
def test_the_estimator_is_the_mean_over_all_subsets_ties_included(samples):
    proxy, gold = (np.array(side, dtype=float) for side in zip(*samples, strict=True))
    for point in best_of_n_curve(proxy[None], gold[None], range(1, len(samples) + 1)):
        assert_close(point.proxy, [mean_over_subsets(proxy, proxy, point.n)])
        assert_close(point.gold, [mean_over_subsets(proxy, gold, point.n)])


def test_prompts_are_estimated_side_by_side():
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(2, 5, 8))
    for point in best_of_n_curve(proxy, gold, [2, 5]):
        assert_close(point.gold, [mean_over_subsets(proxy[p], gold[p], point.n) for p in range(5)])


def test_best_of_one_is_the_mean_and_best_of_all_is_the_maximum():
    proxy = np.array([[3.0, 1.0, 2.0]])
    assert_close(picked_by_best_of_n(proxy, proxy, [1, 3]), [[2.0], [3.0]])


def test_the_order_of_tied_samples_decides_nothing():
    proxy, gold = np.array([[1.0, 1.0, 0.0]]), np.array([[10.0, 20.0, 0.0]])
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        assert_close(picked_by_best_of_n(proxy[:, order], gold[:, order], [3]), [[15.0]])


def test_weights_are_ratios_of_binomial_coefficients():
    n_samples, ns = 12, [1, 3, 12]
    expected = [[math.comb(i - 1, n - 1) / math.comb(n_samples, n) for i in range(1, n_samples + 1)] for n in ns]
    assert_close(rank_weights(n_samples, ns), expected)


def test_weights_of_thousands_of_samples_still_sum_to_one():
    assert_close(rank_weights(4096, [1, 2, 64, 2048, 4096]).sum(1), np.ones(5))


def test_the_estimator_is_unbiased_for_fresh_draws():
    rng = np.random.default_rng(0)
    proxy = rng.random(size=(4000, 6))  # the best of n uniform draws has mean n / (n + 1)
    for point in best_of_n_curve(proxy, proxy, [1, 2, 4]):
        standard_error = point.proxy.std() / math.sqrt(4000)
        assert abs(point.proxy.mean() - point.n / (point.n + 1)) < 4 * standard_error


def test_n_outside_the_samples_is_refused():
    for ns in ([0], [4], []):
        with pytest.raises(ValueError, match="between 1 and the 3 samples"):
            picked_by_best_of_n(np.zeros((1, 3)), np.zeros((1, 3)), ns)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="1 of the 2 entries of proxy"):
        best_of_n_curve([[math.nan, 1.0]], [[1.0, 1.0]], [1])


def test_the_pmf_is_the_frequency_over_all_draws_ties_in_proportion():
    probability, reward, n = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 2.0, 0.0], 3
    expected = np.zeros(4)
    for draw in product(range(4), repeat=n):
        chance = math.prod(probability[i] for i in draw)
        best = [i for i in draw if reward[i] == max(reward[j] for j in draw)]
        for i in best:
            expected[i] += chance / len(best)
    assert_close(best_of_n_pmf(probability, reward, n), expected)


def test_one_draw_leaves_the_base_and_an_impossible_answer_stays_impossible():
    base = np.array([0.5, 0.0, 0.5])
    assert_close(best_of_n_pmf(base, [1.0, 9.0, 2.0], 1), base)
    assert_close(best_of_n_pmf(base, [1.0, 9.0, 2.0], 2), [0.25, 0.0, 0.75])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=8), st.integers(1, 40))
def test_the_exact_distance_never_exceeds_the_bound(answers, n):
    weight, reward = (np.array(side, dtype=float) for side in zip(*answers, strict=True))
    distance = exact_best_of_n_kl(weight / weight.sum(), reward, n)
    assert -1e-12 < distance <= best_of_n_kl(n) + 1e-12


def test_the_bound_is_reached_by_many_answers_without_ties():
    for n in (2, 16):
        m = 20_000
        gap = best_of_n_kl(n) - exact_best_of_n_kl(np.full(m, 1 / m), np.arange(m), n)
        assert 0 <= gap < 1e-5
        assert gap < best_of_n_kl(n) - exact_best_of_n_kl(np.full(m // 4, 4 / m), np.arange(m // 4), n)


def test_two_answers_are_at_most_log_two_away_however_large_the_bound():
    assert_close(exact_best_of_n_kl([0.5, 0.5], [0.0, 1.0], 64), math.log(2))
    assert best_of_n_kl(64) > 3


def test_equal_rewards_move_nothing():
    assert_close(exact_best_of_n_kl([0.2, 0.3, 0.5], [1.0, 1.0, 1.0], 9), 0.0)


def test_the_win_rate_bound_is_the_chance_that_the_best_of_n_plus_one_is_among_the_n():
    rng = np.random.default_rng(0)
    for n in (1, 4):
        wins = rng.random((20_000, n)).max(1) > rng.random(20_000)
        assert abs(wins.mean() - win_rate_bound(n)) < 4 * math.sqrt(0.25 / 20_000)
