"""The learning rate as a function of the step number, so that a resumed run needs no state for it."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def scheduled(step: int, *, steps: int, warmup: int, schedule: Schedule, final: float) -> float:
    """The share of the peak rate at step 0, 1, ..., ``steps - 1``.

    Rises in a line to 1 over the first ``warmup`` steps (1/warmup at step 0), then falls towards ``final``, which it would
    reach at step ``steps``; ``constant`` stays at 1. After the last planned step it stays where it is.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule == "linear":
        return 1 - (1 - final) * progress
    if schedule == "cosine":
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
    return 1.0
