"""Figures over many rows without gradients."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from prefloop.models.batch import RankedBatch, RolloutBatch, TokenBatch, move, row_lengths, take, trim
from prefloop.ops.loss import Loss

Batch = TypeVar("Batch", TokenBatch, RankedBatch, RolloutBatch)


@torch.no_grad()
def mean_loss(loss: Callable[[nn.Module, Batch], Loss], model: nn.Module, batch: Batch, *, rows: int = 64) -> float:
    """The loss of the whole batch with weights that sum to one, computed ``rows`` rows at a time, shortest first."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    order = row_lengths(batch).argsort(stable=True)
    weighed = replace(batch, weight=batch.weight / batch.weight.sum())
    total = sum(float(loss(model, move(trim(take(weighed, part)), device)).value) for part in order.split(rows))
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
) -> Tensor:
    """``compute(tokens, wanted)`` for B T inputs, rows of like length together, result B T with 0 in the cut columns.

    The inputs and the result are in main memory, what is computed on is on ``device``.
    """
    out = torch.zeros(tokens.shape)
    for part in length.argsort(stable=True).split(rows):
        longest = int(length[part].max())
        found = compute(tokens[part, :longest].to(device), wanted[part, :longest].to(device))
        out[part, :longest] = found.to(out)
    return out


def by_prompts(compute: Callable[[RankedBatch], Tensor], ranked: RankedBatch, model: nn.Module, *, rows: int = 16) -> Tensor:
    """``compute`` on prompts of like length, ``rows`` at a time on the model's device, put together in main memory: P ... ."""
    device = next(model.parameters()).device
    order = row_lengths(ranked).argsort(stable=True)
    found = torch.cat([compute(move(trim(take(ranked, part)), device)).cpu() for part in order.split(rows)])
    return torch.zeros_like(found).index_put((order,), found)
