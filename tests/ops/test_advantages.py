import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.ops.advantages import explained_variance, gae, returns_to_go, whiten
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=60)
DOUBLE = torch.float64


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and any mask at all: several rows, gaps, rows without a token."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 8))

    def table(cell: st.SearchStrategy) -> list:
        return draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=rows, max_size=rows))

    number = st.floats(-3, 3)
    return tensor(table(number), dtype=DOUBLE), tensor(table(number), dtype=DOUBLE), tensor(table(st.booleans()))


def by_definition(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, every sum from scratch."""
    values = [*values, 0.0]
    deltas = [reward + gamma * values[t + 1] - values[t] for t, reward in enumerate(rewards)]
    return [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]


# -------------------------------------------------------------------------------------------------------------- GAE


def test_a_worked_answer_of_three_tokens():
    """delta = (-0.1 + 0.1 - 0.3, -0.2 + 0.9 - 0.1, 1.5 - 0.9) = (-0.3, 0.6, 0.6); A_t = delta_t + 0.95 A_{t+1}."""
    rewards, values = tensor([[-0.1, -0.2, 1.5]], dtype=DOUBLE), tensor([[0.3, 0.1, 0.9]], dtype=DOUBLE)
    advantages, returns = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=0.95)
    assert_close(advantages, [[-0.3 + 0.95 * 1.17, 0.6 + 0.95 * 0.6, 0.6]])
    assert_close(returns, [[-0.3 + 0.95 * 1.17 + 0.3, 1.17 + 0.1, 1.5]])
    assert [round(float(a), 2) for a in advantages[0]] == [0.81, 1.17, 0.6]


@quick
@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_its_definition_summed_from_scratch_at_every_token(episode: tuple, gamma: float, lam: float):
    rewards, values, mask = episode
    found = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for b in range(len(mask)):
        expected = by_definition(rewards[b, mask[b]].tolist(), values[b, mask[b]].tolist(), gamma, lam)
        assert_close(found.advantages[b, mask[b]], tensor(expected, dtype=DOUBLE))
    assert_close(found.returns, (found.advantages + values).where(mask, 0))
    assert_close(found.advantages[~mask], torch.zeros(int((~mask).sum()), dtype=DOUBLE))


@quick
@given(episodes())
def test_with_lambda_and_gamma_one_the_advantage_is_what_is_still_to_come_minus_the_value(episode: tuple):
    rewards, values, mask = episode
    to_come = (rewards * mask).flip(1).cumsum(1).flip(1) * mask
    assert_close(gae(rewards, values, mask, gamma=1.0, lam=1.0).advantages, to_come - values * mask)
    assert_close(returns_to_go(rewards, mask, gamma=1.0), to_come)


@quick
@given(episodes(), st.floats(0, 1))
def test_with_lambda_zero_the_advantage_looks_one_token_ahead(episode: tuple, gamma: float):
    rewards, values, _ = episode
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    everywhere = torch.ones_like(values, dtype=torch.bool)
    assert_close(gae(rewards, values, everywhere, gamma=gamma, lam=0.0).advantages, rewards + gamma * following - values)


@quick
@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_what_stands_outside_the_mask_cannot_change_a_result(episode: tuple, gamma: float, lam: float):
    """Values after EOS, rewards on the prompt: even numbers that are none."""
    rewards, values, mask = episode
    clean = gae(rewards, values, mask, gamma=gamma, lam=lam)
    spoilt = gae(rewards.where(mask, torch.nan), values.where(mask, torch.nan), mask, gamma=gamma, lam=lam)
    assert_close(spoilt.advantages, clean.advantages)
    assert_close(spoilt.returns, clean.returns)


@quick
@given(episodes(), st.floats(0, 1))
def test_values_that_are_right_leave_no_advantage(episode: tuple, lam: float):
    rewards, _, mask = episode
    right = returns_to_go(rewards, mask, gamma=0.9)
    assert_close(gae(rewards, right, mask, gamma=0.9, lam=lam).advantages, torch.zeros_like(rewards))


def test_a_discount_of_a_half_halves_a_reward_with_every_token_before_it():
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    assert_close(returns_to_go(tensor([[0.0, 0.0, 0.0, 8.0]]), everywhere, gamma=0.5), [[1.0, 2.0, 4.0, 8.0]])


def test_advantages_are_constants_of_the_update():
    values = torch.zeros(1, 2, requires_grad=True)
    found = gae(torch.ones(1, 2), values, torch.ones(1, 2, dtype=torch.bool), gamma=1.0, lam=0.95)
    assert not found.advantages.requires_grad
    assert not found.returns.requires_grad


# -------------------------------------------------------------------------------------------------------- whitening


def test_whitening_four_numbers_takes_mean_five_and_deviation_two_away():
    """Of 3, 7, 3, 7 the mean is 5, and every number is 2 away from it."""
    x, mask = tensor([[3.0, 7.0, 99.0], [3.0, 7.0, 99.0]], dtype=DOUBLE), tensor([[True, True, False]] * 2)
    assert_close(whiten(x, mask, eps=0.0), [[-1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    assert_close(whiten(x, mask, shift_mean=False, eps=0.0), [[-1.0 + 5, 1.0 + 5, 0.0], [-1.0 + 5, 1.0 + 5, 0.0]])


@quick
@given(episodes(), st.floats(0.1, 10), st.floats(-10, 10))
def test_whitened_numbers_do_not_remember_their_scale_or_origin(episode: tuple, scale: float, origin: float):
    x, _, mask = episode
    if mask.sum() < 2 or x[mask].std() < 0.01:
        return
    assert_close(whiten(scale * x + origin, mask, eps=0.0), whiten(x, mask, eps=0.0))
    assert_close(whiten(x, mask)[mask].mean(), 0.0)
    assert_close(whiten(x, mask, eps=0.0)[mask].var(correction=0), 1.0)


def test_what_stands_outside_the_mask_is_not_whitened_and_does_not_count():
    x, mask = tensor([[1.0, 2.0, 4.0, math.nan]]), tensor([[True, True, True, False]])
    assert_close(whiten(x, mask), torch.cat([whiten(x[:, :3], mask[:, :3]), torch.zeros(1, 1)], 1))


def test_equal_numbers_and_no_numbers_whiten_to_zero():
    assert_close(whiten(tensor([[4.0, 4.0]]), tensor([[True, True]])), [[0.0, 0.0]])
    assert_close(whiten(tensor([[4.0, 4.0]]), tensor([[False, False]])), [[0.0, 0.0]])


# ---------------------------------------------------------------------------------------------- explained variance


def test_perfect_values_explain_everything_and_a_constant_explains_nothing():
    returns, mask = tensor([[1.0, 5.0, 7.0]]), tensor([[True, True, False]])
    assert_close(explained_variance(returns, returns, mask), 1.0)
    assert_close(explained_variance(torch.full((1, 3), 3.0), returns, mask), 0.0)


def test_values_half_as_far_from_the_mean_as_the_returns_explain_three_quarters():
    returns, mask = tensor([[-2.0, 2.0]]), tensor([[True, True]])
    assert_close(explained_variance(returns / 2, returns, mask), 1 - 0.5**2)
