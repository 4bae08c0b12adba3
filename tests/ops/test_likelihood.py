import math

import torch
from torch import tensor

from prefloop.ops.likelihood import nll
from prefloop.ops.weights import token_mean
from tests.helpers import assert_close


def test_two_tokens_with_chances_one_half_and_one_eighth_cost_two_bits_on_average():
    logprobs = tensor([[0.0, math.log(1 / 2), math.log(1 / 8)]])
    row, token = token_mean(tensor([[False, True, True]]))
    assert_close(nll(logprobs, (row / row.sum())[:, None] * token).value, 2 * math.log(2))


def test_token_mean_over_rows_of_unequal_length_is_the_mean_over_their_tokens():
    logprobs = tensor([[-1.0, -2.0, -3.0], [-7.0, 0.0, 0.0]])
    row, token = token_mean(tensor([[True, True, True], [True, False, False]]))
    assert_close(nll(logprobs, (row / row.sum())[:, None] * token).value, (1 + 2 + 3 + 7) / 4)


def test_the_gradient_is_minus_the_weight():
    logprobs, weight = tensor([[-1.0, -2.0]], requires_grad=True), tensor([[0.25, 0.75]])
    (gradient,) = torch.autograd.grad(nll(logprobs, weight).value, logprobs)
    assert_close(gradient, -weight)


def test_a_token_without_weight_costs_nothing_even_where_it_is_impossible():
    assert_close(nll(tensor([[-1.0, -math.inf]]), tensor([[1.0, 0.0]])).value, 1.0)


def test_an_impossible_token_with_weight_costs_without_bound():
    assert_close(nll(tensor([[-1.0, -math.inf]]), tensor([[0.5, 0.5]])).value, math.inf)
