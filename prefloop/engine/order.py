"""Which rows a step trains on: a function of the seed and the step alone, so that resuming needs no saved position."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Turn(NamedTuple):
    """A step's place in the data."""

    epoch: int  # 0 is the first pass
    rows: Tensor  # row numbers of this step's batch
    ends_epoch: bool


def steps_per_epoch(n_rows: int, batch: int) -> int:
    """Batches in one pass; the last may be smaller, no row is left out."""
    return -(-n_rows // batch)


def turn(step: int, n_rows: int, batch: int, rng: Callable[..., torch.Generator]) -> Turn:
    """The rows of a step: every pass visits every row once, in an order drawn for that pass."""
    per_epoch = steps_per_epoch(n_rows, batch)
    epoch, index = divmod(step, per_epoch)
    order = torch.randperm(n_rows, generator=rng("order", epoch))
    return Turn(epoch, order[index * batch : (index + 1) * batch], index == per_epoch - 1)


def share(rows: Tensor, rank: int, processes: int) -> Tensor:
    """The rows one process computes; together the processes compute each row once."""
    return rows[rank::processes]
