"""Figures over many rows without gradients, no more rows and tokens (padding included) at a time than memory is planned for."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from prefloop.models.batch import (
    RankedBatch,
    RolloutBatch,
    TokenBatch,
    move,
    row_lengths,
    row_tokens,
    take,
    trim,
)
from prefloop.models.parts import TOKENS_AT_ONCE, sizes
from prefloop.ops.loss import Loss

Batch = TypeVar("Batch", TokenBatch, RankedBatch, RolloutBatch)


@torch.no_grad()
def mean_loss(
    loss: Callable[[nn.Module, Batch], Loss], model: nn.Module, batch: Batch, *, rows: int = 64, tokens: int = TOKENS_AT_ONCE
) -> float:
    """The loss of the whole batch with weights that sum to one, shortest rows first."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    weighed = replace(batch, weight=batch.weight / batch.weight.sum())
    total = sum(float(loss(model, move(trim(take(weighed, part)), device)).value) for part in parts_of(batch, rows, tokens))
    model.train(was_training)
    return total


def by_rows(
    compute: Callable[[Tensor, Tensor], Tensor],
    tokens: Tensor,
    length: Tensor,
    wanted: Tensor,
    *,
    device: torch.device | str = "cpu",
    rows: int = 64,
    at_once: int = TOKENS_AT_ONCE,
) -> Tensor:
    """``compute(tokens, wanted)`` for B T inputs, rows of like length together, result B T with 0 in the cut columns.

    The inputs and the result are in main memory, what is computed on is on ``device``. ``at_once`` limits a part's tokens.
    """
    out = torch.zeros(tokens.shape)
    order = length.argsort(stable=True)
    for part in order.split(sizes(length[order], rows, at_once)):
        longest = int(length[part].max())
        found = compute(tokens[part, :longest].to(device), wanted[part, :longest].to(device))
        out[part, :longest] = found.to(out)
    return out


def by_prompts(
    compute: Callable[[RankedBatch], Tensor],
    ranked: RankedBatch,
    model: nn.Module,
    *,
    rows: int = 16,
    tokens: int = TOKENS_AT_ONCE,
) -> Tensor:
    """``compute`` on prompts of like length, some at a time on the model's device, put together in main memory: P ... ."""
    device = next(model.parameters()).device
    parts = parts_of(ranked, rows, tokens)
    found = torch.cat([compute(move(trim(take(ranked, part)), device)).cpu() for part in parts])
    return torch.zeros_like(found).index_put((torch.cat(parts),), found)


def parts_of(batch: TokenBatch | RankedBatch | RolloutBatch, rows: int, tokens: int) -> tuple[Tensor, ...]:
    """The rows of each part, rows of like length together, shortest first."""
    order = row_lengths(batch).argsort(stable=True)
    return order.split(sizes(row_tokens(batch)[order], rows, tokens))
