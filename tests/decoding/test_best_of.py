import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.decoding.best_of import best_of
from prefloop.errors import RunError
from tests.helpers import assert_close

tables = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=1, max_size=4)
)


@settings(deadline=None)
@given(tables)
def test_no_answer_scores_higher_and_none_before_it_as_high(table: list[list[int]]):
    for row, best in zip(table, best_of(table), strict=True):
        assert row[best] == max(row)
        assert row[best] not in row[:best]


def test_scores_may_be_lists_arrays_or_tensors():
    for scores in ([[0.0, 2.0, 1.0]], np.array([[0.0, 2.0, 1.0]]), torch.tensor([[0.0, 2.0, 1.0]])):
        assert best_of(scores).tolist() == [1]


def test_an_answer_scored_minus_infinity_is_kept_only_where_there_is_no_other():
    assert best_of([[-math.inf, -1e9], [-math.inf, -math.inf]]).tolist() == [1, 0]


def test_of_two_coins_the_better_is_heads_three_times_in_four():
    """By enumeration: n = 2 draws of a fair coin, heads scores higher."""
    draws = list(product((0.0, 1.0), repeat=2))
    kept = [draw[best] for draw, best in zip(draws, best_of(draws), strict=True)]
    assert_close(float(np.mean(kept)), 1 - 0.5**2)


def test_a_score_that_is_not_a_number_is_refused_and_named():
    with pytest.raises(RunError, match="answer 2 of prompt 1 was scored nan"):
        best_of([[0.0, 1.0, 2.0], [0.0, 1.0, math.nan]])


@pytest.mark.parametrize("scores", [[1.0, 2.0], [[], []], 3.0])
def test_scores_that_are_no_table_of_prompts_by_answers_are_refused(scores):
    with pytest.raises(RunError, match="prompts by answers"):
        best_of(scores)
