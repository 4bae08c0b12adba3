import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from prefloop.ops.kl import adapted, full_kl, k1, k2, k3
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=40)
DOUBLE = torch.float64
logits = st.lists(st.floats(-3, 3), min_size=5, max_size=5).map(lambda row: tensor(row, dtype=DOUBLE))


def kl(first: Tensor, second: Tensor) -> Tensor:
    """KL of two softmaxes, from the definition."""
    p, q = first.softmax(-1), second.softmax(-1)
    return (p * (p / q).log()).sum()


def slope(value: Tensor, at: Tensor) -> Tensor:
    return torch.autograd.grad(value, at)[0]


# ------------------------------------------------------------------------------------------------------- estimators


def test_a_token_twice_as_likely_as_under_the_reference():
    """log pi - log ref = log 2, ref / pi = 1/2."""
    policy, reference = tensor(math.log(0.5), dtype=DOUBLE), tensor(math.log(0.25), dtype=DOUBLE)
    assert_close(k1(policy, reference), math.log(2))
    assert_close(k2(policy, reference), math.log(2) ** 2 / 2)
    assert_close(k3(policy, reference), 0.5 - 1 + math.log(2))


@quick
@given(logits, logits)
def test_k1_and_k3_are_the_distance_on_average_and_k2_and_k3_are_never_negative(policy: Tensor, reference: Tensor):
    chances, p, q = policy.softmax(-1), policy.log_softmax(-1), reference.log_softmax(-1)
    assert_close((chances * k1(p, q)).sum(), kl(policy, reference))
    assert_close((chances * k3(p, q)).sum(), kl(policy, reference))
    assert (k2(p, q) >= 0).all()
    assert (k3(p, q) >= 0).all()


@quick
@given(logits, logits)
def test_descending_k1_goes_nowhere_k2_goes_down_the_distance_and_k3_down_its_mirror(policy: Tensor, reference: Tensor):
    """On samples of the policy: every token, weighted by its chance of being drawn, which carries no gradient."""
    policy.requires_grad_()
    drawn, q = policy.softmax(-1).detach(), reference.log_softmax(-1)
    nowhere = torch.zeros(5, dtype=DOUBLE)
    for estimator, goal in (
        (k1, nowhere),
        (k2, slope(kl(policy, reference), policy)),
        (k3, slope(kl(reference, policy), policy)),
    ):
        assert_close(slope((drawn * estimator(policy.log_softmax(-1), q)).sum(), policy), goal)


def test_k3_keeps_its_digits_where_the_policies_nearly_agree():
    """x^2 / 2 to first order; exp(x) - 1 - x in float32 would be rounding noise."""
    x = 1e-3
    assert abs(float(k3(tensor(0.0), tensor(x))) / (x**2 / 2) - 1) < 1e-2


def test_the_sum_of_k1_over_an_answer_is_the_log_ratio_of_the_answer():
    policy, reference = tensor([0.5, 0.25, 0.8]).log(), tensor([0.25, 0.5, 0.1]).log()
    assert_close(k1(policy, reference).sum(), math.log((0.5 * 0.25 * 0.8) / (0.25 * 0.5 * 0.1)))


# --------------------------------------------------------------------------------------------------- whole vocabulary


@quick
@given(logits, logits)
def test_over_the_whole_vocabulary_the_distance_is_its_definition_and_so_is_its_gradient(policy: Tensor, reference: Tensor):
    policy.requires_grad_()
    assert_close(full_kl(policy, reference), kl(policy, reference))
    assert_close(slope(full_kl(policy, reference), policy), slope(kl(policy, reference), policy))


def test_a_coin_against_a_loaded_coin_at_every_position():
    fair, loaded = torch.zeros(2, 3, 2), tensor([0.25, 0.75]).log().expand(2, 3, 2)
    assert_close(full_kl(fair, loaded), torch.full((2, 3), 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)))


def test_words_both_policies_rule_out_add_nothing_to_distance_or_gradient():
    open_logits, ruled_out = tensor([0.3, -0.2], dtype=DOUBLE), tensor([-math.inf], dtype=DOUBLE)
    policy = torch.cat([open_logits, ruled_out]).requires_grad_()
    reference = tensor([0.0, 0.0, -math.inf], dtype=DOUBLE)
    assert_close(full_kl(policy, reference), full_kl(open_logits, reference[:2]))
    assert slope(full_kl(policy, reference), policy).isfinite().all()


def test_a_word_only_the_reference_rules_out_is_infinitely_far():
    assert_close(full_kl(tensor([0.0, 0.0]), tensor([0.0, -math.inf])), math.inf)


# --------------------------------------------------------------------------------------------------- adaptive price


def test_on_target_the_price_stays():
    assert_close(adapted(0.15, 6.0, target=6.0, horizon=10_000, n=512), 0.15)


def test_ten_per_cent_too_far_raises_the_price_by_ten_per_cent_in_a_horizon():
    assert_close(adapted(0.2, 6.6, target=6.0, horizon=10_000, n=10_000), 0.2 * 1.1)


@pytest.mark.parametrize(("distance", "factor"), [(60.0, 1.2), (7.3, 1.2), (0.0, 0.8), (-3.0, 0.8)])
def test_however_far_off_the_price_moves_by_a_fifth_in_a_horizon(distance: float, factor: float):
    assert_close(adapted(0.2, distance, target=6.0, horizon=1_000, n=1_000), 0.2 * factor)


def test_a_trace_of_prices_far_then_near_then_on_target():
    """512 answers at a time over 10,000: factors 1 + 0.2 s, 1 - 0.1 s and 1, with s = 0.0512."""
    price, trace = 0.15, []
    for distance in (12.0, 12.0, 5.4, 6.0):
        price = adapted(price, distance, target=6.0, horizon=10_000, n=512)
        trace.append(price)
    s = 512 / 10_000
    expected = [0.15 * (1 + 0.2 * s), 0.15 * (1 + 0.2 * s) ** 2]
    expected += [expected[1] * (1 - 0.1 * s)] * 2
    assert_close(trace, expected)
