"""RRHF, and the flaws of the code released with it: each has a test that the released behaviour would fail.

Flaws 1 to 4 are about the loss. 5 and 7 are about text, which the loss never sees: there the rows that every method trains on are
looked at; that a scorer reads text with its own tokenizer and end is held by tests/models/test_scorer.py. 6, a temperature and a flag for
diverse beams that have no effect, is held by tests/methods/test_candidates.py.
"""

import inspect
import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.models.batch import RankedBatch, flat_rows
from prefloop.models.encode import Encoder
from prefloop.ops.ranking import tiers_of
from prefloop.ops.rrhf import length_normalised, rrhf_loss, rrhf_loss_with_summed_imitation
from prefloop.records import Completion, Group, Prompt, Ranking
from tests.helpers import assert_close
from tests.models.test_encode import sentencepiece_like
from tests.models.tiny import encoder

quick = settings(deadline=None, max_examples=25)
DOUBLE = torch.float64
LOSSES = (rrhf_loss, rrhf_loss_with_summed_imitation)


def one_prompt(mean: list[float], length: list[int], tier: list[int]) -> tuple[Tensor, ...]:
    """Answers with these log-probabilities per token, lengths and places."""
    count = tensor([length])
    logprobs = tensor([mean], dtype=DOUBLE) * count
    return logprobs, count, tensor([tier]), torch.ones(1, len(tier), dtype=torch.bool), torch.ones(1, dtype=DOUBLE)


def slope(loss, logprobs: Tensor, *rest: Tensor) -> Tensor:
    logprobs = logprobs.clone().requires_grad_()
    return torch.autograd.grad(loss(logprobs, *rest, ranking=1.0).value, logprobs)[0]


candidates = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(-5, -0.01), min_size=k, max_size=k),
        st.lists(st.integers(1, 9), min_size=k, max_size=k),
        st.lists(st.integers(0, k - 1), min_size=k, max_size=k),
    )
)

# --------------------------------------------------------------------------------------------------------- the paper


def test_three_candidates_by_hand():
    """Places 2, 0, 1 at -1, -2, -4 per token: of the pairs (2nd, 1st), (2nd, 3rd), (3rd, 1st) the first lacks 1, the last 3."""
    prompt = one_prompt([-1.0, -2.0, -4.0], [3, 5, 2], [2, 0, 1])
    loss = rrhf_loss(*prompt, ranking=1.0)
    assert_close(loss.metrics["loss_rank"], 1.0 + 3.0)
    assert_close(loss.metrics["loss_ft"], 2.0)
    assert_close(loss.value, 4.0 + 2.0)
    assert_close(loss.metrics["accuracy"], 1 / 3)
    assert_close(loss.metrics["logps/best"], -2.0)
    summed = rrhf_loss_with_summed_imitation(*prompt, ranking=1.0)
    assert_close(summed.metrics["loss_ft"], 5 * 2.0)
    assert_close(summed.value, 4.0 + 10.0)
    assert_close(summed.metrics["logps/best"], -2.0)


@quick
@given(candidates)
def test_the_ranking_term_is_a_double_loop_over_the_pairs(drawn: tuple):
    mean, length, tier = drawn
    k = len(tier)
    expected = sum(max(0.0, mean[i] - mean[j]) for i in range(k) for j in range(k) if tier[j] < tier[i])  # r_i < r_j
    assert_close(rrhf_loss(*one_prompt(mean, length, tier), ranking=1.0).metrics["loss_rank"], expected)


@quick
@given(candidates)
def test_the_ranking_term_is_zero_where_and_only_where_the_likelihood_agrees_with_the_order(drawn: tuple):
    mean, length, tier = drawn
    k = len(tier)
    agrees = all(mean[i] <= mean[j] for i in range(k) for j in range(k) if tier[j] < tier[i])
    # the margin of a sum divided by a length is exact to rounding only
    assert (float(rrhf_loss(*one_prompt(mean, length, tier), ranking=1.0).metrics["loss_rank"]) < 1e-12) == agrees


def test_a_pair_in_the_wrong_order_is_pushed_apart_and_one_in_the_right_order_left_alone():
    """Per token: the loser of length 2 down by 1 / 2, the winner of length 4 up by 1 / 4, and once more for being imitated."""
    assert_close(slope(rrhf_loss, *one_prompt([-1.0, -2.0], [2, 4], [1, 0])), [[1 / 2, -1 / 4 - 1 / 4]])
    assert_close(slope(rrhf_loss, *one_prompt([-2.0, -1.0], [2, 4], [1, 0])), [[0.0, -1 / 4]])
    assert_close(slope(rrhf_loss_with_summed_imitation, *one_prompt([-2.0, -1.0], [2, 4], [1, 0])), [[0.0, -1.0]])


def test_there_is_no_margin():
    assert_close(rrhf_loss(*one_prompt([-1.0, -1.0], [1, 1], [1, 0]), ranking=1.0).metrics["loss_rank"], 0.0)


def test_scores_count_by_their_order_alone():
    is_candidate = torch.ones(1, 3, dtype=torch.bool)
    near, far = tiers_of(tensor([[0.1, 0.2, 0.15]]), is_candidate), tiers_of(tensor([[-9.0, 1e6, 0.0]]), is_candidate)
    assert near.tolist() == far.tolist() == [[2, 0, 1]]


def test_equal_scores_make_no_pair_and_nothing_to_imitate_where_they_are_all():
    for loss in LOSSES:
        found = loss(*one_prompt([-1.0, -2.0, -3.0], [1, 1, 1], [0, 0, 0]), ranking=1.0)
        assert {float(metric) for metric in found.metrics.values()} == {0.0}
        assert_close(slope(loss, *one_prompt([-1.0, -2.0], [1, 1], [0, 0])), [[0.0, 0.0]])


def test_answers_that_share_the_best_place_are_imitated_in_equal_parts():
    assert_close(rrhf_loss(*one_prompt([-1.0, -3.0, -9.0], [2, 3, 4], [0, 0, 1]), ranking=1.0).metrics["loss_ft"], 2.0)


def test_the_order_in_which_answers_are_listed_does_not_matter():
    mean, length, tier = [-1.0, -2.0, -4.0, -2.5], [3, 5, 2, 1], [2, 0, 1, 1]
    for loss in LOSSES:
        expected = slope(loss, *one_prompt(mean, length, tier))
        for listed in map(list, permutations(range(4))):
            shuffled = ([values[i] for i in listed] for values in (mean, length, tier))
            assert_close(slope(loss, *one_prompt(*shuffled)), expected[:, listed])


# -------------------------------------------------------------------------------- the flaws of the released code, by number


def in_a_batch_as_wide_as(width: int) -> tuple[Tensor, Tensor]:
    """Two answers of 2 and 3 tokens after prompts of 1 and 2, -1 and -2 per token, with padding that holds no numbers."""
    logprobs, is_answer = torch.full((2, width), math.nan, dtype=DOUBLE), torch.zeros(2, width, dtype=torch.bool)
    for b, (start, end, each) in enumerate(((1, 3, -1.0), (2, 5, -2.0))):
        logprobs[b, :start] = -50.0  # the prompt's own tokens
        logprobs[b, start:end] = each
        is_answer[b, start:end] = True
    return logprobs, is_answer


@pytest.mark.parametrize("width", [5, 6, 40])
def test_1_a_length_counts_the_tokens_of_the_answer_however_wide_the_batch(width: int):
    """Released: the mask is taken from labels that were overwritten, so every length is the width of the batch."""
    logprobs, is_answer = in_a_batch_as_wide_as(width)
    assert_close(length_normalised(logprobs, is_answer), [-1.0, -2.0])


def test_1_the_mask_it_is_given_is_left_as_it_was():
    logprobs, is_answer = in_a_batch_as_wide_as(6)
    before = logprobs.clone(), is_answer.clone()
    length_normalised(logprobs, is_answer)
    assert_close(logprobs, before[0])
    assert is_answer.equal(before[1])


def test_1_answers_that_are_as_likely_per_token_are_equally_good_whatever_their_length():
    """Released: by sums, the shorter of two equal ones is always the likelier."""
    loss = rrhf_loss(*one_prompt([-1.0, -1.0], [2, 20], [1, 0]), ranking=1.0)
    assert_close(loss.metrics["loss_rank"], 0.0)


def test_1_an_answer_of_no_tokens_has_a_score_that_is_a_number():
    assert_close(length_normalised(tensor([[-1.0, -1.0]]), tensor([[False, False]])), [0.0])


@pytest.mark.parametrize("others", [1, 30])
def test_2_the_imitation_is_a_mean_over_the_tokens_of_the_best_answer_however_long_the_others_are(others: int):
    """Released: a mean over the width of the batch, prompts and padding counted as zeros."""
    loss = rrhf_loss(*one_prompt([-3.0, -5.0], [4, others], [0, 1]), ranking=1.0)
    assert_close(loss.metrics["loss_ft"], 3.0)


def test_3_prompts_of_an_update_do_not_meet():
    """Released: all rows are compared with all rows, and only one query's scores are read."""
    first, second = one_prompt([-1.0, -2.0, -4.0], [3, 5, 2], [2, 0, 1]), one_prompt([-9.0, -7.0, -8.0], [1, 1, 6], [0, 1, 2])
    both = [torch.cat(parts) for parts in zip(first, second, strict=True)]
    both[-1] = tensor([0.5, 0.5], dtype=DOUBLE)
    for loss in LOSSES:
        alone = [loss(*prompt, ranking=1.0) for prompt in (first, second)]
        together = loss(*both, ranking=1.0)
        for name in together.metrics:
            assert_close(together.metrics[name], (alone[0].metrics[name] + alone[1].metrics[name]) / 2)
        expected = [slope(loss, *prompt) / 2 for prompt in (first, second)]
        assert_close(slope(loss, *both), torch.cat(expected))


def test_4_the_weight_of_the_ranking_is_asked_for_and_one_is_the_sum_of_the_two_terms():
    """Released: 100 unless a script says 1."""
    prompt = one_prompt([-1.0, -2.0, -4.0], [3, 5, 2], [2, 0, 1])
    for loss in LOSSES:
        assert inspect.signature(loss).parameters["ranking"].default is inspect.Parameter.empty
        found = loss(*prompt, ranking=1.0)
        assert_close(found.value, found.metrics["loss_rank"] + found.metrics["loss_ft"])
        heavy = loss(*prompt, ranking=100.0)
        assert_close(heavy.value, 100 * found.metrics["loss_rank"] + found.metrics["loss_ft"])


def two_rankings(prompts: tuple[str, str], encode: Encoder) -> RankedBatch:
    """The same two answers to two prompts."""
    groups = []
    for prompt in map(Prompt.of, prompts):
        completions = tuple(Completion.of(prompt, text, source="test") for text in ("the cat sat on the mat", "a dog"))
        ids = tuple(completion.id for completion in completions)
        ranking = Ranking(prompt_id=prompt.id, tiers=tuple((i,) for i in ids), shown=ids, annotator="ada")
        groups.append(Group(prompt=prompt, completions=completions, rankings=(ranking,)))
    return encode.ranked(groups)


def test_5_between_query_and_response_stands_no_second_beginning_and_no_end():
    """Released: both are tokenised as texts of their own, so a BOS, which is also the EOS, may stand between them."""
    llama = sentencepiece_like()
    rows = flat_rows(two_rankings(("the cat", "the fox"), Encoder(llama, template="plain")))
    for tokens, length in zip(rows.tokens, rows.length, strict=True):
        row = tokens[:length].tolist()
        assert row.count(llama.bos_token_id) == 1 and row[0] == llama.bos_token_id
        assert row.count(llama.eos_token_id) == 1 and row[-1] == llama.eos_token_id


def test_7_a_long_query_leaves_the_response_as_it_is():
    """Released: the response is cut to what the query leaves of 192 tokens."""
    long = "the cat sat on the mat and saw the fox " * 4
    batch = two_rankings(("a cat", long), encoder(max_prompt=200, max_completion=8))
    assert batch.prompt_length[1] > 4 * batch.prompt_length[0]
    assert batch.completion_length[0].tolist() == batch.completion_length[1].tolist()
    assert batch.completion[0].equal(batch.completion[1])


# --------------------------------------------------------------------------------------- which of the two terms leads


def test_the_ranking_moves_likelihood_per_token_from_worse_answers_to_better_ones_and_adds_none():
    """In p the slope of the hinge is, for each answer, its wrong pairs as the worse one less those as the better one: sum 0.

    In log-probabilities it is that over the length, and the imitation is -1 over the length of the best, or -1 as a sum.
    """
    mean, length, tier = [-1.0, -4.0, -2.0, -3.0], [2, 5, 4, 3], [3, 0, 2, 1]  # every pair of the six is in the wrong order
    wrong = [sum(mean[i] > mean[j] for j in range(4) if tier[j] < tier[i]) for i in range(4)]
    missed = [sum(mean[j] > mean[i] for j in range(4) if tier[j] > tier[i]) for i in range(4)]
    assert (wrong, missed) == ([3, 0, 2, 1], [0, 3, 1, 2])
    hinge = [(w - m) / n for w, m, n in zip(wrong, missed, length, strict=True)]
    assert_close(sum(h * n for h, n in zip(hinge, length, strict=True)), 0.0)
    best = [0.0, -1.0, 0.0, 0.0]
    prompt = one_prompt(mean, length, tier)
    assert_close(slope(rrhf_loss, *prompt), [[h + b / 5 for h, b in zip(hinge, best, strict=True)]])
    assert_close(slope(rrhf_loss_with_summed_imitation, *prompt), [[h + b for h, b in zip(hinge, best, strict=True)]])
