import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.distributions import Normal, kl_divergence

from prefloop.errors import DataError
from prefloop.ops.bottleneck import (
    bottleneck_loss,
    contrastive_loss,
    cosine,
    critic_says,
    information_loss,
    positive,
    reparameterised,
    symmetric_kl,
)
from prefloop.ops.ranking import best_of_k_loss
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=25)
DOUBLE = torch.float64
codes = st.lists(st.tuples(st.floats(-3, 3), st.floats(0.1, 3)), min_size=4, max_size=4)


def gaussian(drawn: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """Two rows of two dimensions: mean and std, P Z each."""
    mean, std = zip(*drawn, strict=True)
    return tensor(mean, dtype=DOUBLE).view(2, 2), tensor(std, dtype=DOUBLE).view(2, 2)


def row(*values: float) -> Tensor:
    return tensor(values, dtype=DOUBLE)


# ------------------------------------------------------------------------------------------------------------ Gaussians


def test_unit_gaussians_two_apart_are_two_nats_apart_both_ways():
    """KL of unit Gaussians is half the squared gap."""
    assert_close(symmetric_kl(tensor([[0.0]]), tensor([[1.0]]), tensor([[2.0]]), tensor([[1.0]])), [2.0])


def test_a_gaussian_twice_as_wide():
    """log 2 + 1/8 - 1/2 there and -log 2 + 2 - 1/2 back: half their sum is 9/16."""
    assert_close(symmetric_kl(tensor([[5.0]]), tensor([[1.0]]), tensor([[5.0]]), tensor([[2.0]])), [9 / 16])


@quick
@given(codes, codes)
def test_the_closed_form_is_the_mean_of_both_directions_symmetric_and_zero_only_for_equals(first: list, second: list):
    p, q = gaussian(first), gaussian(second)
    both = kl_divergence(Normal(*p), Normal(*q)).sum(1) + kl_divergence(Normal(*q), Normal(*p)).sum(1)
    assert_close(symmetric_kl(*p, *q), both / 2)
    assert_close(symmetric_kl(*q, *p), symmetric_kl(*p, *q))
    assert_close(symmetric_kl(*p, *p), [0.0, 0.0])
    for i in range(2):
        if (p[0][i] - q[0][i]).abs().max() > 1e-3 or (p[1][i] - q[1][i]).abs().max() > 1e-3:
            assert symmetric_kl(*p, *q)[i] > 0


def test_the_closed_form_is_what_draws_estimate():
    """log p - log q on draws of p and the reverse on draws of q, within three standard errors of 20,000 draws."""
    p, q = (
        gaussian([(0.3, 0.5), (-1.0, 1.2), (0.0, 1.0), (2.0, 0.4)]),
        gaussian([(0.1, 0.7), (-0.5, 1.0), (0.5, 1.1), (1.5, 0.6)]),
    )
    noise = torch.randn(2, 20_000, 2, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    of_p, of_q = reparameterised(*p, noise[0]), reparameterised(*q, noise[1])
    there = (Normal(*p).log_prob(of_p) - Normal(*q).log_prob(of_p)).sum(-1)
    back = (Normal(*q).log_prob(of_q) - Normal(*p).log_prob(of_q)).sum(-1)
    draws = (there + back) / 2  # n P
    assert ((draws.mean(0) - symmetric_kl(*p, *q)).abs() < 3 * draws.std(0) / math.sqrt(20_000)).all()


def test_a_draw_moves_with_its_mean_and_stretches_with_its_deviation():
    mean, std = tensor([[1.0, -2.0]], requires_grad=True), tensor([[0.5, 3.0]], requires_grad=True)
    noise = tensor([[2.0, -1.0]])
    drawn = reparameterised(mean, std, noise)
    assert_close(drawn, [[2.0, -5.0]])
    of_mean, of_std = torch.autograd.grad(drawn.sum(), [mean, std])
    assert_close(of_mean, [[1.0, 1.0]])
    assert_close(of_std, noise)


def test_a_deviation_is_positive_whatever_the_head_says():
    said = tensor([-200.0, 0.0, 50.0])
    assert (positive(said) > 0).all()
    assert_close(positive(said)[1:], [math.log(2), 50.0])


# ---------------------------------------------------------------------------------------------------------- information


def test_a_critic_that_says_nothing_gives_minus_two_log_two_and_no_nats():
    loss = information_loss(row(0, 0), row(0, 0), row(0.5, 0.5))
    assert_close(loss.metrics["information/js"], -2 * math.log(2))
    assert_close(loss.metrics["information/nats"], 0.0)
    assert_close(loss.value, 2 * math.log(2))


def test_a_critic_that_is_always_right_and_sure_loses_nothing():
    assert_close(information_loss(row(50), row(-50), row(1)).value, 0.0)


def correlated(rho: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the joint and of the product of two standard normals of correlation rho, with common weights: N 2, N 2, N."""
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    x, e = (tensor(grid.flatten()) for grid in np.meshgrid(node, node))
    both = tensor(np.outer(weight, weight).flatten() / (2 * math.pi))
    return torch.stack([x, rho * x + math.sqrt(1 - rho**2) * e], 1), torch.stack([x, e], 1), both


def log_density_ratio(points: Tensor, rho: float) -> Tensor:
    x, y = points.unbind(1)
    return -(rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2)) - math.log(1 - rho**2) / 2


@pytest.mark.parametrize("rho", [0.3, 0.8, -0.6])
def test_the_best_critic_of_two_gaussians_logs_their_mutual_information(rho: float):
    joint, product, weight = correlated(rho)
    loss = information_loss(log_density_ratio(joint, rho), log_density_ratio(product, rho), weight)
    assert_close(loss.metrics["information/nats"].float(), tensor(-math.log(1 - rho**2) / 2))


def test_the_estimate_is_highest_at_the_log_density_ratio_and_is_not_the_information():
    joint, product, weight = correlated(0.8)

    def estimate(scale: float, shift: float) -> float:
        said = [scale * log_density_ratio(points, 0.8) + shift for points in (joint, product)]
        return float(information_loss(*said, weight).metrics["information/js"])

    best = estimate(1, 0)
    assert all(estimate(scale, shift) < best for scale, shift in [(0.8, 0), (1.2, 0), (1, 0.3), (1, -0.3), (0, 0)])
    assert abs(best - -1.12) < 0.005  # the information is 0.51 nats


def product_critic(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(1)


def test_negatives_are_the_second_codes_with_first_codes_of_other_rows():
    first, second = tensor([[1.0], [10.0], [100.0]]), tensor([[1.0], [2.0], [3.0]])
    said = critic_says(product_critic, first, second, tensor([2, 0, 1]))
    assert_close(said.joint, [1.0, 20.0, 300.0])
    assert_close(said.product, [100.0, 2.0, 30.0])


def test_a_negative_pulls_on_both_of_its_codes():
    """Of the product of codes, each is the other's slope: the first codes are pulled by the second ones of where they went."""
    first, second = tensor([[1.0], [10.0], [100.0]], requires_grad=True), tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    of_first, of_second = torch.autograd.grad(
        critic_says(product_critic, first, second, tensor([2, 0, 1])).product.sum(), [first, second]
    )
    assert_close(of_first, [[2.0], [3.0], [1.0]])
    assert_close(of_second, [[100.0], [1.0], [10.0]])


@pytest.mark.parametrize(("permutation", "n_kept"), [([0, 2, 1], 1), ([0], 1), ([0, 1], 2)])
def test_a_permutation_that_leaves_a_row_in_place_is_refused(permutation: list[int], n_kept: int):
    code = torch.ones(len(permutation), 1)
    with pytest.raises(DataError, match=f"leaves {n_kept} of {len(permutation)} rows"):
        critic_says(product_critic, code, code, tensor(permutation))


# ----------------------------------------------------------------------------------------------------------- the losses


def test_the_bottleneck_is_the_distance_less_the_information():
    joint, product, distance, weight = row(1, -2), row(0.5, 3), row(0.25, 0.75), row(0.4, 0.6)
    loss = bottleneck_loss(joint, product, distance, weight)
    information = information_loss(joint, product, weight)
    assert_close(loss.metrics["skl"], 0.4 * 0.25 + 0.6 * 0.75)
    assert_close(loss.value, information.value + loss.metrics["skl"])
    assert_close(loss.metrics["information/js"], information.metrics["information/js"])


@pytest.mark.parametrize("dead", ["joint", "product", "distance", ""])
def test_each_part_of_the_bottleneck_moves_the_backbone(dead: str):
    """Two answers to each of three prompts through one linear backbone; a part is switched off by detaching the others."""
    rng = torch.Generator().manual_seed(1)
    backbone, mean_head, std_head = (torch.randn(3, 3, generator=rng, dtype=DOUBLE, requires_grad=True) for _ in range(3))
    answers, noise = torch.randn(2, 3, 3, generator=rng, dtype=DOUBLE), torch.randn(2, 3, 3, generator=rng, dtype=DOUBLE)
    heads = [(answer @ backbone @ mean_head, positive(answer @ backbone @ std_head)) for answer in answers]
    first, second = (reparameterised(*head, drawn) for head, drawn in zip(heads, noise, strict=True))
    said = critic_says(product_critic, first, second, torch.arange(3).roll(1))
    parts = {"joint": said.joint, "product": said.product, "distance": symmetric_kl(*heads[0], *heads[1])}
    parts = {name: part if name == dead or not dead else part.detach() for name, part in parts.items()}
    pull = torch.autograd.grad(bottleneck_loss(**parts, weight=row(1, 1, 1)).value, backbone)[0]
    assert pull.abs().min() > 1e-6


def test_equal_similarities_leave_one_chance_in_all_of_them():
    loss = contrastive_loss(row(0.3), row(0.3, 0.3, 0.3)[None], torch.ones(1, 3, dtype=torch.bool), row(1), temperature=0.1)
    assert_close(loss.value, math.log(4))
    assert_close(loss.metrics["accuracy"], 0.0)


@quick
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(0.05, 2))
def test_telling_the_own_answer_from_others_is_the_choice_of_the_best_of_k(similarity: list[float], temperature: float):
    k = len(similarity)
    own, others = row(similarity[0]), row(*similarity[1:])[None]
    loss = contrastive_loss(own, others, torch.ones(1, k - 1, dtype=torch.bool), row(1), temperature=temperature)
    tier = tensor([[0] + [1] * (k - 1)])
    choice = best_of_k_loss(row(*similarity)[None] / temperature, tier, torch.ones(1, k, dtype=torch.bool), row(1))
    assert_close(loss.value, choice.value)
    assert_close(loss.metrics["accuracy"], choice.metrics["accuracy"])


def test_a_row_without_negatives_teaches_nothing():
    own = row(0.3).requires_grad_()
    loss = contrastive_loss(own, row(0.9)[None], tensor([[False]]), row(1), temperature=0.1)
    assert_close(loss.value, 0.0)
    assert_close(torch.autograd.grad(loss.value, own)[0], [0.0])


def test_a_cosine_sees_directions_only():
    found = cosine(tensor([[3.0, 0.0], [1.0, 1.0]]), tensor([[0.5, 0.0], [0.0, -7.0], [-2.0, 0.0]]))
    half = math.sqrt(1 / 2)
    assert_close(found, [[1.0, 0.0, -1.0], [half, -half, -half]])
