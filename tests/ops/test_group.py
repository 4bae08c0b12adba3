import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.ops.group import (
    after_distance,
    centred,
    clip_higher_loss,
    group_normalised,
    grpo_loss,
    informative,
    leave_one_out,
    reinforce_plus_plus,
    sequence_policy_loss,
    whitened,
)
from prefloop.ops.kl import k3
from prefloop.ops.loss import Loss
from prefloop.ops.policy import policy_loss
from prefloop.ops.weights import constant, sequence_mean
from tests.helpers import assert_close
from tests.ops.test_policy import every_answer, token_logprobs_of

quick = settings(deadline=None, max_examples=25)
DOUBLE = torch.float64
ADVANTAGES = {
    "leave_one_out": leave_one_out,
    "centred": centred,
    "group_normalised": lambda r, c: group_normalised(r, c, eps=1e-4),
}
every_kind = pytest.mark.parametrize("advantages", ADVANTAGES.values(), ids=ADVANTAGES.keys())
rewards = st.integers(2, 6).flatmap(lambda k: st.lists(st.floats(-5, 5, width=16), min_size=k, max_size=k))


def group(*reward: float) -> tuple[Tensor, Tensor]:
    return tensor([reward], dtype=DOUBLE), torch.ones(1, len(reward), dtype=torch.bool)


def slope(loss: Loss, at: Tensor) -> Tensor:
    return torch.autograd.grad(loss.value, at)[0]


# ------------------------------------------------------------------------------------------------------- advantages


@quick
@given(rewards)
def test_rloo_takes_off_the_mean_of_the_others_which_is_a_multiple_of_taking_off_the_mean_of_all(reward: list[float]):
    k = len(reward)
    by_loop = [r - sum(reward[:i] + reward[i + 1 :]) / (k - 1) for i, r in enumerate(reward)]
    assert_close(leave_one_out(*group(*reward)), [by_loop])
    assert_close(centred(*group(*reward)), [[(k - 1) / k * a for a in by_loop]])


def test_grpo_divides_by_the_deviation_of_the_group():
    """0, 2, 4: mean 2, squared deviations 4, 0, 4, variance 8 / 2."""
    assert_close(group_normalised(*group(0, 2, 4), eps=0.0), [[-1.0, 0.0, 1.0]])
    assert_close(group_normalised(*group(0, 2, 4), eps=2.0), [[-0.5, 0.0, 0.5]])


@quick
@given(rewards, st.floats(-100, 100), st.floats(0.1, 10))
def test_advantages_sum_to_zero_and_do_not_see_a_shift_and_those_of_grpo_no_scale_either(
    reward: list[float], shift: float, scale: float
):
    moved = group(*[scale * r + shift for r in reward])
    for advantages in (leave_one_out, centred):
        before = advantages(*group(*reward))
        assert_close(before.sum(), 0.0)
        assert_close(advantages(*moved).float(), (scale * before).float())
    before = group_normalised(*group(*reward), eps=0.0)
    assert_close(before.sum().float(), tensor(0.0))
    if max(reward) - min(reward) > 1e-2:  # nearer ones round to other numbers, or to equal ones, far from zero
        assert_close(group_normalised(*moved, eps=0.0).float(), before.float())


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_equal_rewards_say_nothing_not_even_by_rounding(advantages: Callable, dtype: torch.dtype):
    """The mean of seven times 0.9 is not 0.9 in either precision, and a tiny spread would make ones of such errors."""
    reward, is_candidate = torch.full((1, 7), 0.9, dtype=dtype), torch.ones(1, 7, dtype=torch.bool)
    assert reward.sum() / 7 != reward[0, 0]
    assert (advantages(reward, is_candidate) == 0).all()
    assert (group_normalised(reward, is_candidate, eps=0.0) == 0).all()


@every_kind
def test_an_answer_alone_has_nothing_to_be_compared_with(advantages: Callable):
    assert_close(advantages(*group(3.0)), [[0.0]])
    one_of_three = tensor([[math.nan, 3.0, math.inf]]), tensor([[False, True, False]])
    assert_close(advantages(*one_of_three), [[0.0, 0.0, 0.0]])


@every_kind
def test_what_is_no_candidate_is_not_read(advantages: Callable):
    reward = tensor([[1.0, math.nan, 4.0, -9.0]], dtype=DOUBLE)
    found = advantages(reward, tensor([[True, False, True, False]]))
    assert_close(found[:, [0, 2]], advantages(*group(1.0, 4.0)))
    assert_close(found[:, [1, 3]], torch.zeros(1, 2, dtype=DOUBLE))


@every_kind
def test_a_reward_that_is_no_number_cannot_pass_unseen(advantages: Callable):
    reward, is_candidate = tensor([[1.0, math.nan, 1.0], [0.0, 1.0, 2.0]]), torch.ones(2, 3, dtype=torch.bool)
    found = advantages(reward, is_candidate)
    assert found[0].isnan().all() and found[1].isfinite().all()
    assert informative(reward, is_candidate).is_kept.tolist() == [True, True]


@every_kind
def test_advantages_carry_no_gradient_and_groups_do_not_meet(advantages: Callable):
    reward = tensor([[1.0, 2.0, 4.0], [-3.0, 0.0, 1.0]], dtype=DOUBLE, requires_grad=True)
    both = advantages(reward, torch.ones(2, 3, dtype=torch.bool))
    assert not both.requires_grad
    assert_close(both[:1], advantages(*group(1.0, 2.0, 4.0)))
    assert_close(both[1:], advantages(*group(-3.0, 0.0, 1.0)))


def test_prompts_that_teach_nothing_are_told_apart_and_counted():
    reward = tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [2.0, 5.0, 7.0], [1.0, 1.0, 9.0], [0.0, 0.0, 0.0]])
    is_candidate = tensor([[True] * 3, [True] * 3, [True, False, False], [True, True, False], [False] * 3])
    found = informative(reward, is_candidate)
    assert found.is_kept.tolist() == [False, True, False, False, False]
    assert (int(found.n_alone), int(found.n_equal)) == (2, 2)


# ------------------------------------------------------------------------------------------- the gradient, by enumeration


def expected_pull(logits: Tensor, reward: Tensor, advantages: Callable, k: int) -> Tensor:
    """The mean gradient of the loss over all groups of k answers the policy may draw, each with its chance."""
    logits = logits.clone().requires_grad_()
    groups = tensor(list(product(range(len(reward)), repeat=k)))  # G K
    logprobs = logits.log_softmax(-1)[groups]
    old = logprobs.detach()
    weight = (old.sum(1).exp() / k)[:, None].expand_as(old)
    earned = advantages(reward[groups], torch.ones_like(groups, dtype=torch.bool))
    return slope(clip_higher_loss(logprobs, old, earned, weight, clip_low=0.2, clip_high=0.28), logits)


def uphill(logits: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a function of the policy's probabilities."""
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(worth(logits.softmax(-1)), logits)[0]


few = st.lists(st.floats(-2, 2), min_size=4, max_size=4).map(lambda row: tensor(row, dtype=DOUBLE))


@quick
@given(few, few, st.integers(2, 4))
def test_on_average_rloo_climbs_the_expected_reward_and_dr_grpo_its_k_minus_first_share(logits: Tensor, reward: Tensor, k: int):
    gradient = uphill(logits, lambda chance: (chance * reward).sum())
    assert_close(expected_pull(logits, reward, leave_one_out, k), -gradient)
    assert_close(expected_pull(logits, reward, centred, k), -(k - 1) / k * gradient)


def in_grpo(reward: Tensor, is_candidate: Tensor) -> Tensor:
    return group_normalised(reward, is_candidate, eps=0.0)


@quick
@given(few, st.permutations([0.0, 0.0, 0.5, 2.0]).map(lambda row: tensor(row, dtype=DOUBLE)))
def test_of_two_answers_grpo_climbs_the_chance_to_win_and_not_the_expected_reward(logits: Tensor, reward: Tensor):
    """Two rewards lie one deviation of sqrt(2) half a gap apart: advantages are +-1 / sqrt(2), whatever the gap."""
    won = (reward[:, None] - reward[None, :]).sign()
    rival = logits.softmax(-1)  # drawn from the policy as it is, without a gradient
    expected = uphill(logits, lambda chance: chance @ won @ rival) / math.sqrt(2)
    assert_close(expected_pull(logits, reward, in_grpo, 2), -expected)
    tenfold = torch.where(reward == reward.max(), 10 * reward.abs().max() + 1, reward)
    assert_close(expected_pull(logits, tenfold, in_grpo, 2), -expected)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_where_answers_are_right_or_wrong_grpo_climbs_in_the_right_direction_at_a_pace_of_its_own(k: int):
    """The mean advantage of a right answer less that of a wrong one, over the binomial number of right ones beside it."""
    logits, reward = tensor([0.3, -1.0, 0.8], dtype=DOUBLE), tensor([1.0, 0.0, 0.0], dtype=DOUBLE)
    p = float(logits.softmax(-1)[0])

    def advantage(own: int, n_right: int) -> float:
        spread = math.sqrt(n_right * (k - n_right) / (k * (k - 1)))  # n (1 - n/k) squared deviations over k - 1
        return (own - n_right / k) / spread if 0 < n_right < k else 0.0

    beside = [math.comb(k - 1, m) * p**m * (1 - p) ** (k - 1 - m) for m in range(k)]
    pace = sum(chance * (advantage(1, m + 1) - advantage(0, m)) for m, chance in enumerate(beside))
    gradient = uphill(logits, lambda chance: (chance * reward).sum())
    assert_close(expected_pull(logits, reward, in_grpo, k), -pace * gradient)


def over_groups_of_answers(
    policy: Tensor, reference: Tensor, score: Tensor, loss_of_groups: Callable[..., Loss]
) -> tuple[Tensor, Tensor]:
    """All groups of two answers of up to three words: the mean gradient, and that of E[score] - 0.3 KL over all answers.

    ``loss_of_groups(logprobs, old, after, is_answer, chance)``: rows are the answers of all groups, two by two.
    """
    answers, beta = every_answer(), 0.3
    policy = policy.clone().requires_grad_()
    logprobs, ref_logprobs = token_logprobs_of(policy, answers), token_logprobs_of(reference, answers)
    logprob = logprobs.sum(1)
    objective = (logprob.exp() * (score - beta * (logprob - ref_logprobs.sum(1)))).sum()
    uphill_now = torch.autograd.grad(objective, policy, retain_graph=True)[0]

    old = logprobs.detach()
    after = after_distance(score, old, ref_logprobs, answers.is_response, kl=beta)
    groups = tensor(list(product(range(len(score)), repeat=2)))  # G 2
    chance = old.sum(1).exp()[groups].prod(1)  # G
    assert_close(chance.sum(), 1.0)
    rows = groups.flatten()
    loss = loss_of_groups(logprobs[rows], old[rows], after[groups], answers.is_response[rows], chance)
    return slope(loss, policy), uphill_now


def policy_reference_and_score() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    policy, reference, score = (torch.randn(*shape, generator=rng, dtype=DOUBLE) for shape in ((7, 3), (7, 3), (15,)))
    return policy, reference, score


def test_rloo_on_answers_of_several_words_climbs_the_reward_less_the_distance():
    def rloo(logprobs: Tensor, old: Tensor, after: Tensor, is_answer: Tensor, chance: Tensor) -> Loss:
        advantages = leave_one_out(after, torch.ones_like(after, dtype=torch.bool)).flatten()
        weight = (chance / 2).repeat_interleave(2)
        return sequence_policy_loss(logprobs, old, advantages, is_answer, weight, clip_low=0.2, clip_high=0.2)

    pull, gradient = over_groups_of_answers(*policy_reference_and_score(), rloo)
    assert_close(pull, -gradient)


def token_level(weights: Callable) -> Callable[..., Loss]:
    def loss(logprobs: Tensor, old: Tensor, after: Tensor, is_answer: Tensor, chance: Tensor) -> Loss:
        advantages = centred(after, torch.ones_like(after, dtype=torch.bool)).flatten()[:, None].expand_as(old)
        share = weights(is_answer)
        weight = (chance / 2).repeat_interleave(2)[:, None] * share.row[:, None] * share.token
        return clip_higher_loss(logprobs, old, advantages, weight, clip_low=0.2, clip_high=0.2)

    return loss


def test_with_a_constant_divisor_dr_grpo_climbs_a_constant_share_of_it():
    """(K - 1) / K for the mean that holds the answer itself, 1 / length for the divisor."""
    pull, gradient = over_groups_of_answers(*policy_reference_and_score(), token_level(lambda m: constant(m, length=10)))
    assert_close(pull, -gradient / 2 / 10)


def test_with_a_mean_over_each_answers_tokens_the_direction_is_another():
    pull, gradient = over_groups_of_answers(*policy_reference_and_score(), token_level(sequence_mean))
    cosine = -(pull * gradient).sum() / pull.norm() / gradient.norm()
    assert 0.5 < cosine < 0.99


# ------------------------------------------------------------------------------------------------------------- losses

ONE = torch.ones(1, 1, dtype=DOUBLE)
rows_of_four = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(lambda row: tensor([row], dtype=DOUBLE))


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "low", "high"),
    [
        (1.0, 1.25, -1.25, 0.0, 0.0),  # beyond 1.2 and within 1.28: not held
        (1.0, 1.5, -1.28, 0.0, 1.0),  # good and already much likelier: held
        (1.0, 0.5, -0.5, 0.0, 0.0),  # good but less likely: pulled back in full
        (-1.0, 0.75, 0.8, 1.0, 0.0),  # bad and already less likely: held at the lower clip
        (-1.0, 1.5, 1.5, 0.0, 0.0),  # bad but likelier: pushed down in full
    ],
)
def test_there_is_more_room_upwards_than_downwards(advantage: float, ratio: float, value: float, low: float, high: float):
    loss = clip_higher_loss(math.log(ratio) * ONE, 0 * ONE, advantage * ONE, ONE, clip_low=0.2, clip_high=0.28)
    assert_close(loss.value, value)
    assert_close(loss.metrics["clip_ratio/low_mean"], low)
    assert_close(loss.metrics["clip_ratio/high_mean"], high)
    assert_close(loss.metrics["clipfrac"], low + high)


@quick
@given(rows_of_four, rows_of_four, rows_of_four)
def test_with_equal_room_both_ways_it_is_ppos_loss(logprobs: Tensor, old: Tensor, advantages: Tensor):
    weight = tensor([[0.4, 0.3, 0.2, 0.1]], dtype=DOUBLE)
    ppo = policy_loss(logprobs, old, advantages, weight, clip=0.2)
    higher = clip_higher_loss(logprobs, old, advantages, weight, clip_low=0.2, clip_high=0.2)
    for name in ppo.metrics:
        assert_close(higher.metrics[name], ppo.metrics[name])


@quick
@given(rows_of_four, rows_of_four, rows_of_four, rows_of_four, st.floats(0, 1))
def test_grpo_adds_the_estimated_distance_to_the_reference(
    logprobs: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, kl: float
):
    weight = tensor([[0.4, 0.3, 0.2, 0.1]], dtype=DOUBLE)
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    loss = grpo_loss(logprobs, old, reference, advantages, weight, **clips, kl=kl)
    distance = (weight * k3(logprobs, reference)).sum()
    assert_close(loss.metrics["kl"], distance)
    assert_close(loss.value, clip_higher_loss(logprobs, old, advantages, weight, **clips).value + kl * distance)


def test_the_ratio_of_an_answer_is_the_product_of_its_tokens_ratios():
    """1.1 on each of three tokens, and something on the padding: 1.331, beyond the clip though no token is."""
    logprobs = (math.log(1.1) * torch.ones(1, 4, dtype=DOUBLE)).requires_grad_()
    is_answer, one = tensor([[True, True, True, False]]), torch.ones(1, dtype=DOUBLE)
    loss = sequence_policy_loss(logprobs, 0 * logprobs.detach(), one, is_answer, one, clip_low=0.2, clip_high=0.2)
    assert_close(loss.value, -1.2)
    assert_close(loss.metrics["ratio"], 1.1**3)
    assert_close(slope(loss, logprobs), torch.zeros(1, 4, dtype=DOUBLE))


def test_at_the_old_policy_every_token_of_an_answer_is_pulled_by_its_advantage_however_long_it_is():
    logprobs = torch.full((2, 4), -1.0, dtype=DOUBLE, requires_grad=True)
    is_answer = tensor([[True, True, True, True], [False, True, False, False]])
    weight, advantages = tensor([0.5, 0.5], dtype=DOUBLE), tensor([2.0, -3.0], dtype=DOUBLE)
    loss = sequence_policy_loss(logprobs, logprobs.detach(), advantages, is_answer, weight, clip_low=0.2, clip_high=0.2)
    assert_close(slope(loss, logprobs), [[-1.0] * 4, [0.0, 1.5, 0.0, 0.0]])


def test_a_reward_pays_for_the_distance_of_the_whole_answer():
    """Log-ratios 1, 2 and, where no answer is, not a number."""
    logprobs, reference = tensor([[-1.0, -1.0, math.nan]]), tensor([[-2.0, -3.0, -1.0]])
    paid = after_distance(tensor([5.0]), logprobs, reference, tensor([[True, True, False]]), kl=0.1)
    assert_close(paid, [5.0 - 0.1 * 3])


# --------------------------------------------------------------------------------------------------------- REINFORCE++


def test_reinforce_plus_plus_whitens_what_is_still_to_come_over_the_whole_update():
    """Row 1: penalties 1 and 2 at a price of 0.5, score 4 at the end: 4 - 1 - 0.5, then 4 - 1. Row 2: score 0, no distance."""
    logprobs = tensor([[-9.0, -1.0, -1.0], [-1.0, -9.0, -9.0]], dtype=DOUBLE)
    reference = tensor([[-5.0, -2.0, -3.0], [-1.0, -5.0, -5.0]], dtype=DOUBLE)
    is_answer = tensor([[False, True, True], [True, False, False]])
    to_come = tensor([2.5, 3.0, 0.0], dtype=DOUBLE)
    mean = 5.5 / 3
    spread = math.sqrt(sum((float(g) - mean) ** 2 for g in to_come) / 3)
    found = reinforce_plus_plus(tensor([4.0, 0.0], dtype=DOUBLE), logprobs, reference, is_answer, kl=0.5)
    expected = [[0.0, (2.5 - mean) / spread, (3.0 - mean) / spread], [(0.0 - mean) / spread, 0.0, 0.0]]
    assert_close(found.float(), tensor(expected))


def test_with_the_groups_mean_taken_off_first_an_easy_prompt_no_longer_looks_good():
    """Prompts worth 10 and 0 with answers one above and one below: globally the worse answer of the easy prompt looks good."""
    score, is_candidate = tensor([[11.0, 9.0], [1.0, -1.0]], dtype=DOUBLE), torch.ones(2, 2, dtype=torch.bool)
    nothing, is_answer = torch.zeros(4, 1, dtype=DOUBLE), torch.ones(4, 1, dtype=torch.bool)
    plain = reinforce_plus_plus(score.flatten(), nothing, nothing, is_answer, kl=0.0)
    baseline = reinforce_plus_plus(centred(score, is_candidate).flatten(), nothing, nothing, is_answer, kl=0.0)
    assert plain[1] > 0
    assert_close(baseline.flatten().float(), tensor([1.0, -1.0, 1.0, -1.0]))


@pytest.mark.parametrize("n_tokens", [0, 1, 7])
def test_where_all_returns_are_the_same_every_advantage_is_zero_not_even_a_rounding_error(n_tokens: int):
    mask = torch.arange(9)[None, :] < n_tokens
    assert (whitened(torch.full((1, 9), 0.9), mask) == 0).all()


def test_the_score_is_earned_by_the_last_token_of_an_answer_even_where_it_has_gaps():
    """A tool's words between the policy's own: one score, not one for each stretch."""
    is_answer = tensor([[True, False, True, False], [True, True, True, False]])
    zeros = torch.zeros(2, 4, dtype=DOUBLE)
    found = reinforce_plus_plus(tensor([1.0, -1.0], dtype=DOUBLE), zeros, zeros, is_answer, kl=0.0)
    assert_close(found[0, 0], found[0, 2])
