import math
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.ops.advantages import gae, whiten
from prefloop.ops.kl import k1
from prefloop.ops.loss import Loss
from prefloop.ops.policy import policy_loss, value_loss
from prefloop.ops.weights import token_mean
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=40)
DOUBLE = torch.float64
ONE = torch.ones(1, 1, dtype=DOUBLE)
rows_of_four = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(lambda row: tensor([row], dtype=DOUBLE))


def slope(loss: Loss, at: Tensor) -> Tensor:
    return torch.autograd.grad(loss.value, at)[0]


# ------------------------------------------------------------------------------------------------- the clipped policy


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "pull", "clipped"),
    [
        (1.0, 1.1, -1.1, -1.1, 0.0),  # inside: minus A rho, whose slope in log rho is itself
        (1.0, 1.5, -1.2, 0.0, 1.0),  # good and already much likelier: held at 1.2, no pull
        (1.0, 0.5, -0.5, -0.5, 0.0),  # good but less likely: pulled back in full
        (-1.0, 0.5, 0.8, 0.0, 1.0),  # bad and already much less likely: held at 0.8, no pull
        (-1.0, 1.5, 1.5, 1.5, 0.0),  # bad but likelier: pushed down in full
    ],
)
def test_the_clip_holds_only_what_has_gone_far_enough_the_right_way(
    advantage: float, ratio: float, value: float, pull: float, clipped: float
):
    logprobs = (math.log(ratio) * ONE).requires_grad_()
    loss = policy_loss(logprobs, 0 * ONE, advantage * ONE, ONE, clip=0.2)
    assert_close(loss.value, value)
    assert_close(slope(loss, logprobs), [[pull]])
    assert_close(loss.metrics["clipfrac"], clipped)


@quick
@given(rows_of_four, rows_of_four)
def test_at_the_old_policy_the_loss_is_minus_the_weighted_advantage_and_nothing_is_clipped(logprobs: Tensor, advantages: Tensor):
    weight = tensor([[0.4, 0.3, 0.2, 0.1]], dtype=DOUBLE)
    loss = policy_loss(logprobs, logprobs.clone(), advantages, weight, clip=0.2)
    assert_close(loss.value, -(0.4 * advantages[0, 0] + 0.3 * advantages[0, 1] + 0.2 * advantages[0, 2] + 0.1 * advantages[0, 3]))
    for name, expected in {"ratio": 1.0, "ratio_gap": 0.0, "approxkl": 0.0, "clipfrac": 0.0}.items():
        assert_close(loss.metrics[name], expected)


def test_at_the_old_policy_whitened_advantages_make_a_loss_of_zero():
    is_response = tensor([[False, True, True, True], [False, True, False, False]])
    advantages = whiten(tensor([[9.0, 1.0, -2.0, 4.0], [9.0, 0.5, 9.0, 9.0]], dtype=DOUBLE), is_response)
    row, token = token_mean(is_response)
    weight = (row / row.sum())[:, None] * token
    logprobs = torch.full((2, 4), -1.0, dtype=DOUBLE)
    assert_close(policy_loss(logprobs, logprobs, advantages, weight, clip=0.2).value.float(), tensor(0.0))


def test_metrics_are_weighted_means_over_the_tokens():
    """Ratios 2 and 1/4 with weights 1/4 and 3/4."""
    logprobs, weight = tensor([[math.log(2), math.log(1 / 4)]], dtype=DOUBLE), tensor([[1 / 4, 3 / 4]], dtype=DOUBLE)
    metrics = policy_loss(logprobs, torch.zeros(1, 2), tensor([[1.0, 1.0]]), weight, clip=0.2).metrics
    assert_close(metrics["ratio"], 2 / 4 + 3 / 16)
    assert_close(metrics["ratio_gap"], 1 / 4 * 1 + 3 / 4 * 3 / 4)
    assert_close(metrics["approxkl"], (1 / 4 * math.log(2) ** 2 + 3 / 4 * math.log(4) ** 2) / 2)
    assert_close(metrics["clipfrac"], 1 / 4)


# --------------------------------------------------------------------------------- the gradient, by enumeration


@quick
@given(st.lists(st.floats(-2, 2), min_size=5, max_size=5), st.lists(st.floats(-2, 2), min_size=5, max_size=5), st.floats(-2, 2))
def test_at_the_old_policy_the_gradient_is_that_of_the_expected_reward_whatever_the_baseline(
    logits: list[float], reward: list[float], baseline: float
):
    policy, earned = tensor(logits, dtype=DOUBLE, requires_grad=True), tensor(reward, dtype=DOUBLE)
    logprobs = policy.log_softmax(-1)
    loss = policy_loss(
        logprobs[:, None], logprobs.detach()[:, None], (earned - baseline)[:, None], logprobs.detach().exp()[:, None], clip=0.2
    )
    expected = torch.autograd.grad((policy.softmax(-1) * earned).sum(), policy)[0]
    assert_close(slope(loss, policy), -expected)


class Answers(NamedTuple):
    """Every answer of up to three words from {end, a, b}; an answer ends with "end" or at three words."""

    tokens: Tensor  # B T
    prefix: Tensor  # B T  number of the text before each token
    is_response: Tensor  # B T


def every_answer() -> Answers:
    answers = [a for n in (1, 2, 3) for a in product(range(3), repeat=n) if 0 not in a[:-1] and (n == 3 or a[-1] == 0)]
    numbers: dict[tuple[int, ...], int] = {}
    prefix = [[numbers.setdefault(a[:t], len(numbers)) if t < len(a) else 0 for t in range(3)] for a in answers]
    tokens = [list(a) + [0] * (3 - len(a)) for a in answers]
    return Answers(tensor(tokens), tensor(prefix), tensor([[t < len(a) for t in range(3)] for a in answers]))


def token_logprobs_of(policy: Tensor, answers: Answers) -> Tensor:
    """A table of logits, prefix by word -> B T."""
    return policy.log_softmax(-1)[answers.prefix, answers.tokens] * answers.is_response


def mean_by_prefix(figure: Tensor, chance: Tensor, answers: Answers) -> Tensor:
    """What the figure is on average over the answers that begin with the text before each token: B T, exactly."""
    values = torch.zeros_like(figure)
    for number in answers.prefix[answers.is_response].unique():
        here = (answers.prefix == number) & answers.is_response
        weight = chance[:, None] * here
        values = values.where(~here, (weight * figure).sum() / weight.sum())
    return values


@pytest.mark.parametrize(("lam", "has_right_values"), [(1.0, False), (1.0, True), (0.95, True), (0.0, True)])
def test_penalty_gae_and_clipped_loss_together_climb_the_reward_minus_the_distance(lam: float, has_right_values: bool):
    """The gradient of J = E[r] - beta KL(pi || ref) over all answers. With lambda below 1 only right values leave it unbiased."""
    answers, beta, rng = every_answer(), 0.3, torch.Generator().manual_seed(3)
    assert len(answers.tokens) == 1 + 2 + 4 * 3  # "end"; a word and "end"; two words and any
    policy, reference, earned, anything = (torch.randn(*s, generator=rng, dtype=DOUBLE) for s in ((7, 3), (7, 3), (15,), (7,)))
    policy.requires_grad_()
    logprobs, ref_logprobs = token_logprobs_of(policy, answers), token_logprobs_of(reference, answers)
    old, chance = logprobs.detach(), logprobs.detach().sum(1).exp()
    assert_close(chance.sum(), 1.0)

    is_last = answers.is_response & ~torch.cat([answers.is_response[:, 1:], torch.zeros(15, 1, dtype=torch.bool)], 1)
    rewards = earned[:, None] * is_last - beta * k1(old, ref_logprobs)
    to_come = (rewards * answers.is_response).flip(1).cumsum(1).flip(1)
    values = mean_by_prefix(to_come, chance, answers) if has_right_values else anything[answers.prefix]
    advantages = gae(rewards, values, answers.is_response, gamma=1.0, lam=lam).advantages
    loss = policy_loss(logprobs, old, advantages, chance[:, None] * answers.is_response, clip=0.2)

    logprob = token_logprobs_of(policy, answers).sum(1)
    objective = (logprob.exp() * (earned - beta * (logprob - ref_logprobs.sum(1)))).sum()
    assert_close(slope(loss, policy), -torch.autograd.grad(objective, policy)[0])


# -------------------------------------------------------------------------------------------------- the clipped value


@pytest.mark.parametrize(
    ("value", "loss", "pull", "clipped"),
    [
        (0.1, 0.5 * 0.9**2, -0.9, 0.0),  # inside the clip: plain regression to 1 from 0
        (0.5, 0.5 * 0.8**2, 0.0, 1.0),  # moved towards the return further than the clip: judged at 0.2, no pull
        (-0.5, 0.5 * 1.5**2, -1.5, 0.0),  # moved away: pulled back in full
        (3.0, 0.5 * 2.0**2, 2.0, 0.0),  # beyond the return by more than it was short of it: pulled back in full
    ],
)
def test_a_value_that_was_zero_with_a_return_of_one_is_held_within_a_fifth(
    value: float, loss: float, pull: float, clipped: float
):
    values = (value * ONE).requires_grad_()
    found = value_loss(values, 0 * ONE, ONE, ONE, clip=0.2)
    assert_close(found.value, loss)
    assert_close(slope(found, values), [[pull]])
    assert_close(found.metrics["clipfrac"], clipped)
    assert_close(found.metrics["error"], (value - 1) ** 2)
    assert_close(found.metrics["value"], value)


@quick
@given(rows_of_four, rows_of_four, rows_of_four)
def test_without_a_clip_the_value_loss_is_half_the_mean_squared_error(values: Tensor, old_values: Tensor, returns: Tensor):
    loss = value_loss(values, old_values, returns, torch.full((1, 4), 1 / 4, dtype=DOUBLE), clip=math.inf)
    assert_close(loss.value, sum((float(v) - float(g)) ** 2 for v, g in zip(values[0], returns[0], strict=True)) / 8)
    assert_close(loss.metrics["clipfrac"], 0.0)


@quick
@given(rows_of_four, rows_of_four, rows_of_four, st.floats(0.01, 2))
def test_a_clip_never_makes_the_value_loss_smaller(values: Tensor, old_values: Tensor, returns: Tensor, clip: float):
    weight = torch.full((1, 4), 1 / 4, dtype=DOUBLE)
    held = value_loss(values, old_values, returns, weight, clip=clip).value
    assert held >= value_loss(values, old_values, returns, weight, clip=math.inf).value
