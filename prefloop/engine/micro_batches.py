"""How much of a batch is computed at once: rows of like length, as many as memory holds.

A part costs its rows times its longest row, for padding is computed too. The longest rows come first: if memory is short it
shows at once, and what has been set aside for the first part serves all others. Where memory runs out, half as much is
computed at once from then on; the gradient does not depend on it beyond rounding (``learner.py``).
"""

import gc
from collections.abc import Iterator
from dataclasses import replace

import torch

from prefloop.engine.progress import say
from prefloop.errors import RunError
from prefloop.models.batch import Batch, row_lengths, row_tokens, take, trim
from prefloop.models.parts import sizes


class Portions:
    """Limits of a part, which memory may lower: ``rows`` and ``tokens`` (padding included); 0 is no limit."""

    def __init__(self, rows: int = 0, tokens: int = 0):
        self.rows, self.tokens = rows, tokens
        self.n_rows, self.n_tokens = 0, 0  # of the part being computed

    def of(self, batch: Batch, total: float) -> Iterator[Batch]:
        """The parts of a batch, weights as shares of ``total``."""
        for part in micro_batches(batch, total, self.rows, self.tokens):
            self.n_rows = len(part.weight)
            self.n_tokens = self.n_rows * int(row_tokens(part).max())
            yield part

    def halve(self, step: int, device: torch.device, said: str) -> None:
        """Half as much at once as what has just not fitted; RunError where that was a single row."""
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if self.n_rows <= 1:
            raise RunError(
                f"memory ran out in step {step} on a single row of {self.n_tokens} tokens, and less than a row cannot be computed\n"
                f"  {said}\n"
                f"  lower max_prompt= or the longest answer, hold fewer or smaller networks (share=adapters), or use a larger device"
            )
        largest = self.n_tokens // self.n_rows
        rows, self.tokens = self.n_rows, max(largest, self.n_tokens // 2)
        say(
            f"memory ran out in step {step} with {rows} rows of up to {largest} tokens at once; the step is computed again with at "
            f"most {self.tokens} tokens at once, which changes nothing but time (optim.micro_tokens={self.tokens} begins like this)"
        )


def micro_batches(batch: Batch, total: float, rows: int = 0, tokens: int = 0) -> Iterator[Batch]:
    """The rows that weigh something, longest first, no more than ``rows`` and ``tokens`` at a time (0: no limit, at least one
    row), trimmed to their longest; weights as shares of ``total``."""
    order = row_lengths(batch).argsort(descending=True, stable=True)
    order = order[batch.weight[order] != 0]
    shares = replace(batch, weight=batch.weight / total)
    for chosen in order.split(sizes(row_tokens(batch)[order], rows, tokens)):
        yield trim(take(shares, chosen))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator had nothing left: of CUDA, of Metal, of the C library."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )
