import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.stats.correlations import kendall_tau_b, pearson, spearman, spearman_interval, within_prompt_correlation
from tests.helpers import assert_close


def test_a_straight_line_correlates_fully_and_its_mirror_image_negatively():
    x = np.array([1.0, 4.0, 2.0, 8.0])
    assert_close(pearson(x, 3 * x + 1), 1.0)
    assert_close(pearson(x, -x), -1.0)


def test_spearman_sees_any_rising_curve_as_a_line():
    x = np.array([1.0, 4.0, 2.0, 8.0])
    assert_close(spearman(x, np.exp(x)), 1.0)
    assert pearson(x, np.exp(x)) < 0.93


def test_spearman_without_ties_is_the_textbook_formula():
    a, b = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]  # four ranks off by one: 1 - 6 * 4 / (5 * 24)
    assert_close(spearman(a, b), 1 - 24 / 120)


def test_a_constant_correlates_with_nothing():
    for correlation in (pearson, spearman, kendall_tau_b):
        assert math.isnan(correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


def test_kendall_counts_pairs():
    assert_close(kendall_tau_b([1, 2, 3], [1, 3, 2]), (2 - 1) / 3)


def test_kendall_leaves_tied_pairs_out_of_each_side():
    # pairs: (1,2) and (1,3) concordant, (2,3) tied in b only: 2 / sqrt(3 * 2)
    assert_close(kendall_tau_b([1, 2, 3], [1, 2, 2]), 2 / math.sqrt(6))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9))
def test_kendall_agrees_with_a_double_loop(pairs):
    concordant = discordant = untied_a = untied_b = 0
    for i in range(len(pairs)):
        for j in range(i):
            gap_a, gap_b = pairs[i][0] - pairs[j][0], pairs[i][1] - pairs[j][1]
            concordant += gap_a * gap_b > 0
            discordant += gap_a * gap_b < 0
            untied_a += gap_a != 0
            untied_b += gap_b != 0
    a, b = zip(*pairs, strict=True)
    if untied_a and untied_b:
        assert_close(kendall_tau_b(a, b), (concordant - discordant) / math.sqrt(untied_a * untied_b))
    else:
        assert math.isnan(kendall_tau_b(a, b))


def test_the_interval_of_a_spearman_holds_it_and_narrows_with_more_pairs():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=400), rng.normal(size=400)
    few, many = spearman_interval(x[:20], (x + noise)[:20]), spearman_interval(x, x + noise)
    assert_close(many.mean, spearman(x, x + noise))
    assert -1 <= few.low < few.mean < few.high <= 1
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_the_interval_of_a_spearman_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 6 / math.pi * math.asin(0.5 / 2)  # of a normal pair with Pearson correlation 1/2
    hits = 0
    for repeat in range(150):
        x, noise = rng.normal(size=(2, 40))
        interval = spearman_interval(x, 0.5 * x + math.sqrt(0.75) * noise, n_boot=200, seed=repeat)
        hits += interval.low <= truth <= interval.high
    assert 0.89 < hits / 150 < 0.99


def test_too_few_pairs_leave_every_correlation_possible():
    interval = spearman_interval([1.0, 2.0], [1.0, 2.0])
    assert (interval.mean, interval.low, interval.high, interval.n) == (1.0, -1.0, 1.0, 2)
    assert math.isnan(spearman_interval([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).mean)


def test_within_prompts_a_difference_between_prompts_does_not_count():
    length = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    reward = np.array([[3.0, 2.0, 1.0], [13.0, 12.0, 11.0]])  # long prompts score high, long answers score low
    assert pearson(length.ravel(), reward.ravel()) > 0.9
    assert_close(within_prompt_correlation(length, reward), -1.0)


def test_rounding_inside_constant_prompts_is_no_correlation():
    assert math.isnan(within_prompt_correlation([[0.1] * 3, [0.5] * 3], [[1.0, 2.0, 3.0], [1.0, 5.0, 3.0]]))


def test_unequal_sides_are_refused():
    with pytest.raises(ValueError, match="a correlation needs pairs, got 2 and 1 values"):
        pearson([1.0, 2.0], [1.0])
