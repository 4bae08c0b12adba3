import torch
from torch import Tensor, tensor

from prefloop.ops.weights import Weights, constant, prompt_mean, sequence_mean, token_mean
from tests.helpers import assert_close

LENGTHS = (4, 1, 3, 0)
IS_TARGET = tensor([[t < length for t in range(5)] for length in LENGTHS])


def shares(weights: Weights) -> Tensor:
    """What each row weighs in the end, all its tokens together, once the learner has made the rows sum to one."""
    return (weights.row / weights.row.sum())[:, None] * weights.token


def test_under_token_mean_each_of_eight_tokens_weighs_an_eighth():
    assert_close(shares(token_mean(IS_TARGET)), IS_TARGET / 8)


def test_under_sequence_mean_each_row_with_a_token_weighs_a_third_whatever_its_length():
    assert_close(shares(sequence_mean(IS_TARGET)).sum(1), [1 / 3, 1 / 3, 1 / 3, 0])


def test_under_sequence_mean_the_tokens_of_a_row_weigh_the_same():
    assert_close(sequence_mean(IS_TARGET).token[0], [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0])


def test_under_prompt_mean_a_prompt_with_two_answers_weighs_as_much_as_a_prompt_with_one():
    assert_close(shares(prompt_mean(IS_TARGET, tensor([7, 3, 7, 3]))).sum(1), [1 / 4, 1 / 2, 1 / 4, 0])


def test_under_prompt_mean_the_numbering_of_prompts_does_not_matter():
    first, second = prompt_mean(IS_TARGET, tensor([0, 1, 0, 2])), prompt_mean(IS_TARGET, tensor([90, 4, 90, 6]))
    assert_close(first.row, second.row)


def test_under_a_constant_every_token_weighs_the_same_however_long_its_row_or_the_others():
    assert_close(constant(IS_TARGET, length=10).token, IS_TARGET / 10)
    assert_close(constant(IS_TARGET, length=10).row, [1, 1, 1, 0])


def test_a_row_without_a_target_weighs_nothing_and_divides_by_nothing():
    empty = torch.zeros(2, 3, dtype=torch.bool)
    for row, token in (token_mean(empty), sequence_mean(empty), prompt_mean(empty, tensor([0, 0])), constant(empty, length=3)):
        assert_close(row, [0, 0])
        assert_close(token, torch.zeros(2, 3))


def test_a_target_after_a_gap_counts_like_any_other():
    assert_close(token_mean(tensor([[True, False, True]])).token, [[1 / 2, 0, 1 / 2]])
