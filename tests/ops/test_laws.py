"""Every loss of ops keeps every law, and every law can be broken."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, tensor

import prefloop.ops
from prefloop.ops.bottleneck import bottleneck_loss, contrastive_loss, information_loss
from prefloop.ops.group import clip_higher_loss, grpo_loss, sequence_policy_loss
from prefloop.ops.likelihood import nll
from prefloop.ops.loss import Loss, loss_of
from prefloop.ops.policy import policy_loss, value_loss
from prefloop.ops.preference import dpo_loss, dpo_plackett_luce_loss, ipo_loss, kto_loss, orpo_loss, simpo_loss
from prefloop.ops.ranking import (
    best_of_k_loss,
    plackett_luce_loss,
    ranking_loss,
    ranking_loss_with_label_noise,
    ranking_loss_with_ties,
)
from prefloop.ops.rrhf import rrhf_loss, rrhf_loss_with_summed_imitation
from prefloop.ops.rules import violation_loss
from tests import laws
from tests.laws import LAWS, Example


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rankings() -> dict[str, Tensor]:
    """Four prompts with up to three completions: a full order, a tie, a pair, and a prompt where all are tied."""
    return {
        "score": numbers(0, 4, 3),
        "tier": tensor([[1, 2, 0], [0, 1, 1], [1, 0, 7], [2, 2, 2]]),
        "is_candidate": tensor([[True, True, True], [True, True, True], [True, True, False], [True, True, True]]),
        "weight": tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
    }


def token_weight() -> Tensor:
    """Four rows of five tokens: a prompt before the answer, padding after it."""
    is_answer = tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 1, 1, 1]])
    return is_answer * numbers(1, 4, 5).exp()


def updates() -> dict[str, Tensor]:
    """Ratios from 0.6 to 1.6, so that some tokens are clipped; both signs of advantage."""
    old, change = -numbers(2, 4, 5).abs(), torch.linspace(-0.5, 0.5, 20, dtype=torch.float64)[torch.arange(20).flip(0)]
    return {"logprobs": old + change.view(4, 5), "old_logprobs": old, "advantages": numbers(3, 4, 5), "weight": token_weight()}


def predictions() -> dict[str, Tensor]:
    old = numbers(4, 4, 5)
    return {"values": old + numbers(5, 4, 5), "old_values": old, "returns": numbers(6, 4, 5), "weight": token_weight()}


def answers(*, beside: str) -> dict[str, Tensor]:
    """The rankings above, of answers of 1 to 9 tokens with the policy's log-probabilities and, beside them, one thing more."""
    ranked = rankings()
    length = tensor([[3, 5, 9], [4, 1, 2], [7, 2, 3], [1, 6, 2]])
    logprobs = -(numbers(8, 4, 3).abs() + 0.1) * length
    more = {"length": length, "ref_logprobs": logprobs + numbers(9, 4, 3)}
    return {"logprobs": logprobs, beside: more[beside], **{name: ranked[name] for name in ("tier", "is_candidate", "weight")}}


def judgements() -> dict[str, Tensor]:
    """Good answers and bad, some prompts with fewer than three."""
    logprobs, weight = -5 * numbers(10, 4, 3).abs(), numbers(11, 4, 3).exp()
    weight[1, 2] = weight[3, 1:] = 0.0
    is_desirable = tensor([[True, False, True], [False, True, False], [False, False, True], [True, False, False]])
    return {"logprobs": logprobs, "ref_logprobs": logprobs + numbers(12, 4, 3), "is_desirable": is_desirable, "weight": weight}


def with_reference() -> dict[str, Tensor]:
    update = updates()
    reference = {"ref_logprobs": update["old_logprobs"] + 0.3 * numbers(13, 4, 5)}
    return {name: {**update, **reference}[name] for name in ("logprobs", "old_logprobs", "ref_logprobs", "advantages", "weight")}


def whole_answers() -> dict[str, Tensor]:
    update = updates()
    return {
        "logprobs": update["logprobs"],
        "old_logprobs": update["old_logprobs"],
        "advantages": tensor([-1.3, 0.7, 0.4, -1.1], dtype=torch.float64),
        "is_answer": tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 1, 1, 1]]) > 0,
        "weight": tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
    }


def critic() -> dict[str, Tensor]:
    return {"joint": numbers(14, 4), "product": numbers(15, 4), "weight": tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)}


def views() -> dict[str, Tensor]:
    return {
        "joint": critic()["joint"],
        "product": critic()["product"],
        "distance": numbers(16, 4).exp(),
        "weight": critic()["weight"],
    }


def verdicts() -> dict[str, Tensor]:
    is_broken = tensor([True, False, False, True])
    return {"logit": numbers(18, 4), "is_broken": is_broken, "weight": critic()["weight"]}


def similarities() -> dict[str, Tensor]:
    is_negative = tensor([[True, True, True], [True, True, False], [False, True, False], [False, False, False]])
    return {"joint": numbers(14, 4), "product": numbers(17, 4, 3), "is_negative": is_negative, "weight": critic()["weight"]}


EXAMPLES = [
    Example(ranking_loss, rankings(), ("score",)),
    Example(ranking_loss_with_label_noise, rankings(), ("score",), {"noise": 0.1}),
    Example(ranking_loss_with_ties, rankings(), ("score",), {"noise": 0.1}),
    Example(best_of_k_loss, rankings(), ("score",)),
    Example(nll, {"logprobs": -numbers(7, 4, 5).abs(), "weight": token_weight()}, ("logprobs",)),
    Example(policy_loss, updates(), ("logprobs",), {"clip": 0.2}),
    Example(value_loss, predictions(), ("values",), {"clip": 0.4}),
    Example(plackett_luce_loss, rankings(), ("score",)),
    Example(dpo_loss, answers(beside="ref_logprobs"), ("logprobs",), {"beta": 0.3, "smoothing": 0.1}),
    Example(dpo_plackett_luce_loss, answers(beside="ref_logprobs"), ("logprobs",), {"beta": 0.3}),
    Example(ipo_loss, answers(beside="ref_logprobs"), ("logprobs",), {"beta": 0.3}),
    Example(simpo_loss, answers(beside="length"), ("logprobs",), {"beta": 2.0, "margin": 0.5}),
    Example(orpo_loss, answers(beside="length"), ("logprobs",), {"lam": 0.1}),
    Example(
        kto_loss,
        judgements(),
        ("logprobs",),
        {"distance": 0.4, "beta": 0.3, "desirable": 1.2, "undesirable": 0.9},
    ),
    Example(rrhf_loss, answers(beside="length"), ("logprobs",), {"ranking": 1.0}),
    Example(rrhf_loss_with_summed_imitation, answers(beside="length"), ("logprobs",), {"ranking": 1.0}),
    Example(clip_higher_loss, updates(), ("logprobs",), {"clip_low": 0.2, "clip_high": 0.28}),
    Example(grpo_loss, with_reference(), ("logprobs",), {"clip_low": 0.2, "clip_high": 0.28, "kl": 0.04}),
    Example(sequence_policy_loss, whole_answers(), ("logprobs",), {"clip_low": 0.2, "clip_high": 0.28}),
    Example(information_loss, critic(), ("joint", "product")),
    Example(violation_loss, verdicts(), ("logit",)),
    Example(bottleneck_loss, views(), ("joint", "product", "distance")),
    Example(contrastive_loss, similarities(), ("joint", "product"), {"temperature": 0.5}),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.loss.__name__)
def test_every_loss_keeps_every_law(example: Example, law: Callable):
    law(example)


def is_loss(function: Callable) -> bool:
    """Tensors and settings in, the weight among them, a Loss out."""
    signature = inspect.signature(function)
    tensors = [p.annotation for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return signature.return_annotation is Loss and "weight" in signature.parameters and set(tensors) == {Tensor}


def test_every_loss_of_ops_has_an_example():
    modules = [importlib.import_module(f"prefloop.ops.{module.name}") for module in pkgutil.iter_modules(prefloop.ops.__path__)]
    functions = {value for module in modules for value in vars(module).values() if inspect.isfunction(value)}
    assert {function for function in functions if is_loss(function)} == {example.loss for example in EXAMPLES}


# --------------------------------------------------------------------- a law that nothing can break proves nothing


def example_of(loss: Callable) -> Example:
    return Example(loss, {"logprobs": -numbers(7, 4, 5).abs(), "weight": token_weight()}, ("logprobs",))


def mean_over_rows(logprobs: Tensor, weight: Tensor) -> Loss:
    return loss_of(-(weight * logprobs).sum() / weight.sum())


def mean_over_columns(logprobs: Tensor, weight: Tensor) -> Loss:
    return loss_of(-(weight * logprobs).mean(1).sum())


def later_rows_count_more(logprobs: Tensor, weight: Tensor) -> Loss:
    return loss_of(-((weight * logprobs).sum(1) * torch.arange(len(weight))).sum())


def square_of_the_weight(logprobs: Tensor, weight: Tensor) -> Loss:
    return loss_of(-(weight**2 * logprobs).sum())


def writes_the_same_number(logprobs: Tensor, weight: Tensor) -> Loss:
    return loss_of(-(weight.mul_(1) * logprobs).sum())


def documents_another_shape(logprobs: Tensor, weight: Tensor) -> Loss:
    """A row's weight is one number.

    logprobs  B T
    weight    B
    """
    return nll(logprobs, weight)


def forgets_to_document_one(logprobs: Tensor, weight: Tensor) -> Loss:
    """weight  B T"""
    return nll(logprobs, weight)


def half_the_gradient(logprobs: Tensor, weight: Tensor) -> Loss:
    return nll((logprobs + logprobs.detach()) / 2, weight)


def ignores_the_weight(logprobs: Tensor, weight: Tensor) -> Loss:
    return loss_of(-logprobs.sum())


def keeps_the_graph(logprobs: Tensor, weight: Tensor) -> Loss:
    value = nll(logprobs, weight).value
    return Loss(value, {"loss": value})


def rounds_to_single_precision(logprobs: Tensor, weight: Tensor) -> Loss:
    return nll(logprobs.float(), weight.float())


@pytest.mark.parametrize(
    ("law", "broken"),
    [
        (laws.parts_add_up_to_the_whole_however_the_rows_are_split, mean_over_rows),
        (laws.padding_columns_are_not_read, mean_over_columns),
        (laws.the_order_of_rows_does_not_matter, later_rows_count_more),
        (laws.the_value_scales_with_the_weight, square_of_the_weight),
        (laws.arguments_are_left_as_they_were, writes_the_same_number),
        (laws.the_docstring_gives_the_shape_of_every_argument, documents_another_shape),
        (laws.the_docstring_gives_the_shape_of_every_argument, forgets_to_document_one),
        (laws.a_nudge_moves_the_value_by_the_gradient, half_the_gradient),
        (laws.no_argument_is_dead, ignores_the_weight),
        (laws.metrics_are_detached_scalars_and_hold_the_loss, keeps_the_graph),
        (laws.the_precision_is_that_of_the_arguments, rounds_to_single_precision),
    ],
    ids=lambda value: value.__name__,
)
def test_a_broken_loss_breaks_its_law(law: Callable, broken: Callable):
    law(example_of(nll))
    with pytest.raises(AssertionError):
        law(example_of(broken))


def test_every_law_is_broken_by_something():
    marker = test_a_broken_loss_breaks_its_law.pytestmark[0]
    assert {law for law, _ in marker.args[1]} == set(LAWS)
