import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefloop.stats.ranks import average_ranks, shared_over_ties
from tests.helpers import assert_close


def test_tied_values_share_the_mean_of_their_ranks():
    assert_close(average_ranks(np.array([10.0, 20.0, 20.0, 5.0])), [2.0, 3.5, 3.5, 1.0])


def test_rows_do_not_see_each_other():
    table = np.array([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0], [3.0, 2.0, 1.0]])
    assert_close(average_ranks(table), [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [3.0, 2.0, 1.0]])


def test_values_are_sorted_by_key_and_averaged_where_keys_tie():
    key, value = np.array([[2.0, 1.0, 2.0, 0.0]]), np.array([[10.0, 20.0, 30.0, 40.0]])
    assert_close(shared_over_ties(key, value), [[40.0, 20.0, 20.0, 20.0]])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_rank_counts_the_values_below_and_half_of_the_others_at_its_level(values):
    expected = [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]
    assert_close(average_ranks(np.array(values, dtype=float)), expected)
