import math

import numpy as np

from prefloop.stats.lopsided import bradley_terry, chi_square, chi_square_tail, slope
from tests.helpers import assert_close


def test_chi_square_of_a_table_of_two():
    # every cell expects 15 and is 5 off; with one degree of freedom the tail is that of a squared normal
    found = chi_square([[10, 20], [20, 10]])
    assert_close(found.statistic, 4 * 5**2 / 15)
    assert_close(found.p, math.erfc(math.sqrt(found.statistic / 2)))
    assert (found.df, found.reason) == (1, "")


def test_the_tail_is_the_integral_of_the_density():
    for df in range(1, 9):
        x = np.linspace(3.0, 120.0, 200_001)
        density = x ** (df / 2 - 1) * np.exp(-x / 2) / (2 ** (df / 2) * math.gamma(df / 2))
        assert abs(chi_square_tail(3.0, df) - float(((density[1:] + density[:-1]) / 2 * np.diff(x)).sum())) < 1e-7
    assert chi_square_tail(0.0, 3) == 1.0


def test_independent_rows_and_columns_have_nothing_to_show_and_empty_ones_do_not_count():
    found = chi_square([[10, 20, 0], [20, 40, 0], [0, 0, 0]])
    assert_close(found.statistic, 0.0)
    assert (found.df, found.p) == (1, 1.0)
    assert "fewer than two" in chi_square([[1, 2]]).reason
    assert "fewer than five" in chi_square([[1, 2], [3, 1]]).reason


def test_odds_of_three_for_a_difference_of_one_are_a_slope_of_log_three():
    difference = [1.0] * 4 + [-1.0] * 4
    won = [1, 1, 1, 0, 0, 0, 0, 1]
    found = slope(difference, won, range(8))
    assert_close(found.value, math.log(3))
    assert found.low < found.value < found.high and found.n == 8


def test_which_of_a_pair_is_first_does_not_matter_and_half_a_win_is_a_tie():
    rng = np.random.default_rng(0)
    difference, won = rng.normal(size=60), rng.integers(0, 3, 60) / 2
    items = [i // 3 for i in range(60)]
    assert_close(slope(difference, won, items).value, slope(-difference, 1 - won, items).value)
    assert_close(slope([1.0, -2.0, 0.5], [0.5] * 3, range(3)).value, 0.0)


def test_a_slope_nobody_can_know_has_a_reason():
    assert "decides every pair" in slope([1.0, 2.0], [1, 1], range(2)).reason
    assert "fewer than two" in slope([0.0, 1.0], [1, 0], range(2)).reason


def test_strengths_and_ties_are_found_again_from_the_shares_they_give():
    strength, nu, n = np.array([1.0, 2.0, 4.0]), 0.5, 1e8
    root = np.sqrt(strength[:, None] * strength)
    total = strength[:, None] + strength + nu * root
    off = 1 - np.eye(3)
    found = bradley_terry(n * strength[:, None] / total * off, n * nu * root / total * off)
    assert np.abs(np.exp(found.strength - found.strength[0]) - strength).max() < 1e-5
    assert abs(found.tie - nu) < 1e-5


def test_a_source_that_never_lost_is_strong_but_not_infinitely():
    found = bradley_terry([[0, 9], [0, 0]], np.zeros((2, 2)))
    assert 1 < found.strength[0] - found.strength[1] < 20
    assert_close(found.strength.sum(), 0.0)
