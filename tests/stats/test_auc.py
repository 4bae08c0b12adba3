"""The area under the curve: by a double loop, what the interval covers, and what it does where there is little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.stats.auc import auc, auc_over_prompts
from tests.helpers import assert_close

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=6)


@given(SCORES, SCORES)
def test_it_is_the_share_of_pairs_of_one_of_each_in_which_the_good_one_scores_more_ties_half(good, bad):
    pairs = [1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad]
    assert_close(auc(good, bad), sum(pairs) / len(pairs))
    assert_close(auc(bad, good), 1 - sum(pairs) / len(pairs))


def test_of_one_kind_alone_there_is_none():
    assert auc([], [1.0]) is None and auc([1.0], []) is None
    assert auc_over_prompts([1.0, 2.0], [True, True], "ab")["mean"] is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Normal scores one apart: P(good above bad) = Phi(1 / sqrt 2) = 0.760."""
    rng = np.random.default_rng(0)
    hit = 0
    for seed in range(200):
        good = rng.random(60) < 0.4
        told = auc_over_prompts(rng.normal(size=60) + good, good, range(60), n_boot=200, seed=seed)
        hit += told["low"] <= 0.7602 <= told["high"]
    assert hit / 200 > 0.95 - 4 * (0.95 * 0.05 / 200) ** 0.5  # four standard errors


def test_answers_of_one_prompt_are_no_independent_evidence():
    """The same ten answers ten times over: as prompts of their own they look like ten times the evidence."""
    rng = np.random.default_rng(1)
    score, good = np.tile(rng.normal(size=10), 10), np.tile(np.arange(10) % 2 == 0, 10)
    shared = auc_over_prompts(score, good, np.tile(np.arange(10), 10).tolist())
    apart = auc_over_prompts(score, good, range(100))
    assert shared["mean"] == apart["mean"] and (shared["n"], shared["n_prompts"], apart["n_prompts"]) == (100, 10, 100)
    assert shared["high"] - shared["low"] > 2 * (apart["high"] - apart["low"])


def test_the_interval_is_widened_for_few_prompts_not_for_few_answers(monkeypatch):
    seen = []
    monkeypatch.setattr("prefloop.stats.auc.bounds", lambda draws, mean, n, level: seen.append(n) or (0.0, 1.0))
    auc_over_prompts(range(40), [i % 2 == 0 for i in range(40)], [i % 4 for i in range(40)])
    assert seen == [4]


def test_of_one_prompt_the_interval_is_unknown_and_a_score_that_is_no_number_is_refused():
    told = auc_over_prompts([1.0, 0.0], [True, False], "aa")
    assert (told["mean"], told["low"], told["high"]) == (1.0, None, None)
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        auc_over_prompts([1.0, float("nan")], [True, False], "ab")
