import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.errors import DataError
from prefloop.ops.loss import Loss
from prefloop.ops.preference import (
    dpo_loss,
    dpo_plackett_luce_loss,
    ipo_loss,
    kto_loss,
    log1mexp,
    mismatched,
    mismatched_distance,
    orpo_loss,
    per_class,
    per_token,
    simpo_loss,
)
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=20)
DOUBLE = torch.float64
plain_dpo = {"beta": 0.1, "smoothing": 0.0}


def row(*values: float) -> Tensor:
    return tensor([values], dtype=DOUBLE)


def order(*tier: int) -> tuple[Tensor, Tensor, Tensor]:
    """One prompt whose answers have these places: tier, is_candidate, weight."""
    return tensor([tier]), torch.ones(1, len(tier), dtype=torch.bool), torch.ones(1, dtype=DOUBLE)


def slope(loss: Callable[..., Loss], logprobs: Tensor, *rest: Tensor, **settings: float) -> Tensor:
    logprobs = logprobs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logprobs, *rest, **settings).value, logprobs)
    return gradient


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def over_pairs(cost: Callable[[float], float], figure: list[float], tier: list[int]) -> float:
    """The mean of ``cost(figure of winner - figure of loser)`` over the ordered pairs, one by one."""
    costs = [cost(figure[i] - figure[j]) for i, j in permutations(range(len(tier)), 2) if tier[i] < tier[j]]
    return sum(costs) / max(1, len(costs))


negative = st.floats(-40, -0.01)
groups = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.lists(negative, min_size=k, max_size=k),
        st.lists(negative, min_size=k, max_size=k),
        st.lists(st.integers(0, k - 1), min_size=k, max_size=k),
    )
)

# --------------------------------------------------------------------------------------------------------------- DPO


def test_a_policy_that_is_still_its_reference_costs_log_two():
    for smoothing in (0.0, 0.2):
        assert_close(dpo_loss(row(-3, -7), row(-3, -7), *order(0, 1), beta=0.1, smoothing=smoothing).value, math.log(2))


def test_a_log_ratio_difference_of_log_three_over_beta_gives_the_winner_three_chances_in_four():
    beta = 0.1
    loss = dpo_loss(row(-3 + math.log(3) / beta, -7), row(-3, -7), *order(0, 1), **plain_dpo)
    assert_close(loss.value, -math.log(3 / 4))
    assert_close(loss.metrics["rewards/chosen"], math.log(3))
    assert_close(loss.metrics["rewards/rejected"], 0.0)
    assert_close(loss.metrics["rewards/margins"], math.log(3))
    assert_close(loss.metrics["rewards/accuracies"], 1.0)
    assert_close(loss.metrics["logps/chosen"], -3 + math.log(3) / beta)
    assert_close(loss.metrics["logps/rejected"], -7.0)


def test_the_gradient_at_the_reference_is_half_of_beta_up_for_the_winner_and_down_for_the_loser():
    assert_close(slope(dpo_loss, row(-3, -7), row(-3, -7), *order(1, 0), **plain_dpo), [[0.05, -0.05]])


@quick
@given(groups, st.floats(0.05, 2), st.floats(0, 0.5))
def test_dpo_and_ipo_are_means_over_the_ordered_pairs_taken_one_by_one(drawn: tuple, beta: float, smoothing: float):
    policy, reference, tier = drawn
    ratio = [p - q for p, q in zip(policy, reference, strict=True)]

    def smoothed(h: float) -> float:
        return -(1 - smoothing) * math.log(sigmoid(beta * h)) - smoothing * math.log(sigmoid(-beta * h))

    dpo = dpo_loss(row(*policy), row(*reference), *order(*tier), beta=beta, smoothing=smoothing)
    assert_close(dpo.value, over_pairs(smoothed, ratio, tier))
    ipo = ipo_loss(row(*policy), row(*reference), *order(*tier), beta=beta)
    assert_close(ipo.value, over_pairs(lambda h: (h - 1 / (2 * beta)) ** 2, ratio, tier))
    for loss in (dpo, ipo):
        assert_close(loss.metrics["rewards/margins"], over_pairs(lambda h: beta * h, ratio, tier))
        assert_close(loss.metrics["rewards/accuracies"], over_pairs(lambda h: float(h > 0), ratio, tier))


@quick
@given(groups, st.floats(-20, 20))
def test_only_log_ratios_count(drawn: tuple, shift: float):
    """The same change of an answer under policy and reference, and a change of all of a prompt's log-ratios, are not seen."""
    policy, reference, tier = row(*drawn[0]), row(*drawn[1]), order(*drawn[2])
    first = torch.zeros_like(policy)
    first[0, 0] = shift
    for loss, chosen in ((dpo_loss, plain_dpo), (ipo_loss, {"beta": 0.1}), (dpo_plackett_luce_loss, {"beta": 0.1})):
        expected = loss(policy, reference, *tier, **chosen).value
        assert_close(loss(policy + first, reference + first, *tier, **chosen).value, expected)
        assert_close(loss(policy + shift, reference, *tier, **chosen).value, expected)


def test_metrics_of_a_ranking_count_an_answer_as_often_as_it_won_or_lost():
    """Rewards 3, 2, 1 in the order given: winners 3, 3, 2 and losers 2, 1, 1."""
    metrics = dpo_loss(row(30, 20, 10), row(0, 0, 0), *order(0, 1, 2), **plain_dpo).metrics
    assert_close(metrics["rewards/chosen"], (3 + 3 + 2) / 3)
    assert_close(metrics["rewards/rejected"], (2 + 1 + 1) / 3)
    assert_close(metrics["rewards/margins"], (1 + 2 + 1) / 3)
    assert_close(metrics["logps/chosen"], (30 + 30 + 20) / 3)


def losses(k: int) -> list[tuple[Callable[..., Loss], tuple[Tensor, ...], dict[str, float]]]:
    """Every loss over rankings with what it takes beside the policy's log-probabilities, for one prompt of k answers."""
    reference, length = -torch.arange(1, k + 1, dtype=DOUBLE)[None, :], torch.arange(1, k + 1)[None, :]
    return [
        (dpo_loss, (reference,), {"beta": 0.5, "smoothing": 0.1}),
        (dpo_plackett_luce_loss, (reference,), {"beta": 0.5}),
        (ipo_loss, (reference,), {"beta": 0.5}),
        (simpo_loss, (length,), {"beta": 2.0, "margin": 0.5}),
        (orpo_loss, (length,), {"lam": 0.1}),
    ]


def test_ties_teach_nothing():
    for loss, beside, chosen in losses(2):
        found = loss(row(-1, -5), *beside, *order(0, 0), **chosen)
        assert {name: float(metric) for name, metric in found.metrics.items() if metric != 0} == {}, loss.__name__
        assert_close(slope(loss, row(-1, -5), *beside, *order(0, 0), **chosen), [[0.0, 0.0]])


def test_the_order_in_which_answers_are_listed_does_not_matter():
    logprobs, tier = row(-3, -1, -8, -4), [2, 0, 1, 1]
    for loss, (beside,), chosen in losses(4):
        expected = slope(loss, logprobs, beside, *order(*tier), **chosen)
        for listed in map(list, permutations(range(4))):
            found = slope(loss, logprobs[:, listed], beside[:, listed], *order(*[tier[i] for i in listed]), **chosen)
            assert_close(found, expected[:, listed])


def test_for_two_answers_the_choices_of_plackett_luce_are_the_pair():
    pair, choice = (
        loss(row(-2, -5), row(-3, -3), *order(1, 0), **chosen)
        for loss, chosen in ((dpo_loss, plain_dpo), (dpo_plackett_luce_loss, {"beta": 0.1}))
    )
    assert pair.metrics.keys() == choice.metrics.keys()
    for name in pair.metrics:
        assert_close(choice.metrics[name], pair.metrics[name])


def test_implicit_rewards_of_log_four_log_two_and_zero_come_in_that_order_in_eight_cases_of_twenty_one():
    """4 / 7 for the first, then 2 / 3 for the second; the loss is the mean over these two choices."""
    loss = dpo_plackett_luce_loss(row(2 * math.log(4), 2 * math.log(2), 0), row(0, 0, 0), *order(0, 1, 2), beta=0.5)
    assert_close(loss.value, -math.log(8 / 21) / 2)


# ------------------------------------------------------------------------------------------------ where they come to rest


def table(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def every_pair(reward: Tensor) -> tuple[Tensor, Tensor]:
    """All ordered pairs of N answers, and how often Bradley-Terry on ``reward`` prefers the first: R 2, R."""
    pairs = tensor(list(permutations(range(len(reward)), 2)))
    return pairs, torch.sigmoid(reward[pairs[:, 0]] - reward[pairs[:, 1]])


def pull_on(logits: Tensor, loss: Callable[[Tensor], Loss]) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits.log_softmax(-1)).value, logits)[0]


def of_exact_preferences(logprobs: Tensor, reference: Tensor, reward: Tensor, *, beta: float) -> Loss:
    """DPO on every pair of answers, preferred as often as Bradley-Terry on ``reward`` says."""
    pairs, chance = every_pair(reward)
    tier, is_candidate = tensor([[0, 1]]).expand(len(pairs), 2), torch.ones(len(pairs), 2, dtype=torch.bool)
    return dpo_loss(logprobs[pairs], reference[pairs], tier, is_candidate, chance, beta=beta, smoothing=0.0)


@quick
@given(st.integers(0, 10_000), st.floats(0.1, 2))
def test_dpo_with_exact_preferences_rests_at_the_reference_tilted_by_the_reward_and_nowhere_else(seed: int, beta: float):
    reference, reward, elsewhere = table(seed, 3, 6)
    reference = reference.log_softmax(-1)
    optimum = (reference + reward / beta).log_softmax(-1)
    pull = pull_on(optimum, lambda logprobs: of_exact_preferences(logprobs, reference, reward, beta=beta))
    assert_close(pull, torch.zeros(6, dtype=DOUBLE))
    best, other = (of_exact_preferences(at, reference, reward, beta=beta).value for at in (optimum, elsewhere.log_softmax(-1)))
    assert other > best


def test_dpo_with_exact_preferences_gets_to_the_tilted_reference():
    reference, reward = table(1, 6).log_softmax(-1), table(2, 6)
    logits = reference.clone()
    for _ in range(80):
        logits -= 4.0 * pull_on(logits, lambda logprobs: of_exact_preferences(logprobs, reference, reward, beta=0.5))
    distance = (logits.softmax(-1) - (reference + reward / 0.5).softmax(-1)).abs().sum() / 2  # total variation
    assert distance < 0.02
    assert (reference.exp() - (reference + reward / 0.5).softmax(-1)).abs().sum() / 2 > 0.3  # it was not there before


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.3])
def test_with_smoothing_a_preference_that_is_never_contradicted_settles_at_the_log_odds_of_a_wrong_label(smoothing: float):
    beta, settled = 0.1, math.log((1 - smoothing) / smoothing)
    at_rest = (row(settled / beta, 0), row(0, 0), *order(0, 1))
    assert_close(slope(dpo_loss, *at_rest, beta=beta, smoothing=smoothing), [[0.0, 0.0]])
    assert slope(dpo_loss, *at_rest, beta=beta, smoothing=0.0)[0, 0] < 0  # without it, up and up


def test_ipo_begins_at_the_square_of_half_of_one_over_beta():
    for beta in (0.1, 0.5):
        assert_close(ipo_loss(row(-3, -7), row(-3, -7), *order(0, 1), beta=beta).value, (1 / (2 * beta)) ** 2)


@pytest.mark.parametrize("chance", [0.5, 0.8, 1.0])
def test_ipo_settles_at_the_surplus_of_preference_over_beta_even_where_nobody_ever_disagrees(chance: float):
    """h = (p - 1/2) / beta: finite at p = 1, where DPO has no optimum."""
    beta, h = 0.25, (chance - 0.5) / 0.25
    both_ways = tensor([[0, 1], [1, 0]]), torch.ones(2, 2, dtype=torch.bool), tensor([chance, 1 - chance], dtype=DOUBLE)
    pull = slope(ipo_loss, row(h, 0).expand(2, 2), row(0, 0).expand(2, 2), *both_ways, beta=beta)
    assert_close(pull.sum(0), [0.0, 0.0])


def test_ipo_of_means_per_token_is_ipo_of_the_means():
    """Answers of 2 and 4 tokens: log-ratios 4 and 2 in sum, 2 and 1/2 per token."""
    length, policy, reference = tensor([[2, 4]]), row(-2, -6), row(-6, -8)
    loss = ipo_loss(per_token(policy, length), per_token(reference, length), *order(0, 1), beta=0.5)
    assert_close(loss.value, ((2 - 0.5) - 1) ** 2)


# ------------------------------------------------------------------------------------------------------------- SimPO


def test_simpo_at_equal_means_costs_minus_log_sigmoid_of_minus_the_margin():
    for margin in (0.0, 0.5, 1.6):
        loss = simpo_loss(row(-6, -9), tensor([[2, 3]]), *order(0, 1), beta=2.0, margin=margin)
        assert_close(loss.value, -math.log(sigmoid(-margin)))


def test_simpo_by_hand():
    """Means -1 and -2, beta 2: rewards -2 and -4; the margin of 2 less the 0.5 asked for."""
    loss = simpo_loss(row(-3, -4), tensor([[3, 2]]), *order(0, 1), beta=2.0, margin=0.5)
    assert_close(loss.value, -math.log(sigmoid(2 - 0.5)))
    assert_close(loss.metrics["rewards/chosen"], -2.0)
    assert_close(loss.metrics["rewards/margins"], 2.0)
    assert_close(loss.metrics["logps/rejected"], -2.0)


@quick
@given(groups, st.integers(2, 5))
def test_simpo_and_orpo_do_not_see_an_answer_that_says_everything_several_times_over(drawn: tuple, times: int):
    logprobs, _, tier = drawn
    once, again = torch.ones(1, len(tier), dtype=torch.long), torch.full((1, len(tier)), times)
    for loss, chosen in ((simpo_loss, {"beta": 2.0, "margin": 0.5}), (orpo_loss, {"lam": 0.1})):
        expected = loss(row(*logprobs), once, *order(*tier), **chosen).value
        assert_close(loss(times * row(*logprobs), again, *order(*tier), **chosen).value, expected)


# -------------------------------------------------------------------------------------------------------------- ORPO


def test_orpo_at_equal_likelihood_costs_the_imitation_and_log_two():
    loss = orpo_loss(row(-1.2, -2.4), tensor([[2, 4]]), *order(0, 1), lam=0.1)
    assert_close(loss.value, 0.6 + 0.1 * math.log(2))
    assert_close(loss.metrics["nll_loss"], 0.6)
    assert_close(loss.metrics["log_odds_ratio"], -math.log(2))
    assert_close(loss.metrics["log_odds_chosen"], 0.0)


def test_orpo_by_hand():
    """Chances per token 3/4 and 1/3: odds 3 and 1/2, their ratio 6."""
    loss = orpo_loss(row(math.log(3 / 4), 2 * math.log(1 / 3)), tensor([[1, 2]]), *order(0, 1), lam=0.5)
    assert_close(loss.metrics["log_odds_chosen"], math.log(6))
    assert_close(loss.value, -math.log(3 / 4) - 0.5 * math.log(6 / 7))
    assert_close(loss.metrics["rewards/chosen"], 0.5 * math.log(3 / 4))


def test_orpo_of_a_ranking_imitates_the_best_tier_only_each_of_its_answers_alike():
    for tier, imitated in (((0, 0, 1), (1 + 3) / 2), ((0, 1, 2), 1.0), ((2, 0, 1), 3.0)):
        loss = orpo_loss(row(-1, -3, -5), tensor([[1, 1, 1]]), *order(*tier), lam=0.1)
        assert_close(loss.metrics["nll_loss"], imitated)


@pytest.mark.parametrize("p", [1e-30, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-6])
def test_the_log_of_what_is_left_of_one_is_right_at_both_ends(p: float):
    """Against the definition where it still has digits; 1 - p is exact in doubles for these p."""
    assert_close(log1mexp(tensor(math.log(p), dtype=DOUBLE)).float(), math.log1p(-p))


def test_the_log_of_what_is_left_keeps_its_digits_where_one_minus_p_has_none():
    """p = exp(-1e-12): what is left is 1e-12 to twelve digits; 1 - p in doubles has four."""
    assert_close(log1mexp(tensor(-1e-12, dtype=DOUBLE)), math.log(1e-12))
    assert_close(log1mexp(tensor(-50.0, dtype=DOUBLE)) / -math.exp(-50), 1.0)


def test_an_answer_the_policy_is_certain_of_has_finite_odds_and_no_pull_that_is_not_a_number():
    for dtype in (torch.float32, DOUBLE):
        logprobs = tensor([[0.0, -3.0]], dtype=dtype)
        loss = orpo_loss(logprobs, tensor([[4, 3]]), *order(0, 1), lam=0.1)
        assert loss.value.isfinite()
        assert slope(orpo_loss, logprobs, tensor([[4, 3]]), *order(0, 1), lam=0.1).isfinite().all()


# --------------------------------------------------------------------------------------------------------------- KTO

evenly = {"beta": 0.1, "desirable": 1.0, "undesirable": 1.0}


def test_a_policy_that_is_still_its_reference_costs_a_half_for_good_and_bad_alike():
    for is_good in (True, False):
        arguments = row(-5), row(-5), tensor([[is_good]]), row(1)
        assert_close(kto_loss(*arguments, distance=0.0, **evenly).value, 0.5)


def test_kto_by_hand():
    """Log-ratios 4 and -1 at a distance of 2: 1 - sigmoid(0.5 * 2) for the good one, 1 - sigmoid(0.5 * 3) for the bad one."""
    loss = kto_loss(
        row(-1, -6), row(-5, -5), tensor([[True, False]]), row(0.5, 0.5), distance=2.0, beta=0.5, desirable=1.5, undesirable=0.8
    )
    good, bad = 1.5 * (1 - sigmoid(0.5 * (4 - 2))), 0.8 * (1 - sigmoid(0.5 * (2 - -1)))
    assert_close(loss.value, (good + bad) / 2)
    assert_close(loss.metrics["loss/chosen"], good / 2)
    assert_close(loss.metrics["loss/rejected"], bad / 2)
    assert_close(loss.metrics["kl"], 2.0)


def test_good_answers_are_pulled_up_and_bad_ones_pushed_down_hardest_at_the_distance():
    pull = slope(kto_loss, row(-5, -5), row(-5, -5), tensor([[True, False]]), row(1, 1), distance=0.0, **evenly)
    assert_close(pull, [[-0.1 / 4, 0.1 / 4]])
    far = slope(kto_loss, row(95, 95), row(-5, -5), tensor([[True, False]]), row(1, 1), distance=0.0, **evenly)
    assert (far.abs() < pull.abs()).all()


def test_sums_over_a_class_become_means_over_its_answers():
    """Three good answers of rewards 0.1, 0.2, 0.3 and a bad one of -0.4."""
    is_good = tensor([[True, True], [True, False]])
    logprobs, weight = tensor([[1, 2], [3, -4]], dtype=DOUBLE), torch.full((2, 2), 1 / 4, dtype=DOUBLE)
    loss = kto_loss(logprobs, torch.zeros(2, 2, dtype=DOUBLE), is_good, weight, distance=0.0, **evenly)
    means = per_class({name: float(metric) for name, metric in loss.metrics.items()})
    assert_close(means["rewards/chosen"], 0.2)
    assert_close(means["rewards/rejected"], -0.4)
    assert_close(means["rewards/margins"], 0.6)
    assert_close(means["logps/chosen"], 2.0)
    assert_close(means["loss/rejected"], 1 - sigmoid(0.4))
    assert_close(means["count/chosen"], 3 / 4)
    assert_close(means["loss"], loss.value)


def test_a_class_that_is_not_in_the_update_has_no_mean():
    loss = kto_loss(row(-5), row(-5), tensor([[True]]), row(1), distance=0.0, **evenly)
    means = per_class({name: float(metric) for name, metric in loss.metrics.items()})
    assert "rewards/chosen" in means
    assert {"rewards/rejected", "logps/rejected", "loss/rejected", "rewards/margins"} & means.keys() == set()


def test_the_distance_is_the_mean_log_ratio_of_mismatched_answers_never_negative_and_without_a_gradient():
    policy = tensor([-3.0, -5.0], requires_grad=True)
    assert_close(mismatched_distance(policy, tensor([-6.0, -6.0])), (3 + 1) / 2)
    assert_close(mismatched_distance(policy, tensor([-1.0, -1.0])), 0.0)
    assert not mismatched_distance(policy, tensor([-6.0, -6.0])).requires_grad


@quick
@given(st.lists(st.integers(0, 5), min_size=2, max_size=24))
def test_every_answer_is_put_to_a_prompt_it_does_not_answer_each_once_or_none_can_be(prompts: list[int]):
    prompt = tensor(prompts)
    if max(prompts.count(p) for p in prompts) * 2 > len(prompts):
        with pytest.raises(DataError, match=r"belong to one prompt(.|\n)*at most half"):
            mismatched(prompt)
        return
    partner = mismatched(prompt)
    assert (prompt[partner] != prompt).all()
    assert sorted(partner.tolist()) == list(range(len(prompts)))


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_no_loss_has_a_number_that_is_none_however_unlikely_the_answers(scale: float):
    logprobs, tier = scale * row(-30, -0.01, -7, -7), order(2, 1, 0, 2)
    for loss, beside, chosen in losses(4):
        assert all(metric.isfinite() for metric in loss(logprobs, *beside, *tier, **chosen).metrics.values())
        assert slope(loss, logprobs, *beside, *tier, **chosen).isfinite().all()
