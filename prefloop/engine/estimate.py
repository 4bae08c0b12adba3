"""What a run would cost, told before it starts (``--dry-run``)."""

import time
from typing import Any

import torch

from prefloop.engine.plan import Plan
from prefloop.engine.progress import duration


def told(plan: Plan, *, n_rows: int, parameters: int, device: torch.device) -> dict[str, Any]:
    """The sizes of a run, its memory by part in bytes, and the least time its steps can take."""
    return {
        "rows": n_rows,
        "steps": plan.steps,
        "rows_per_step": plan.rows,
        "tokens_per_row_at_most": plan.tokens,
        "parameters": parameters,
        "memory": plan.memory(parameters),
        "time/seconds_of_training_at_most_length": 6.0 * parameters * plan.rows * plan.tokens * plan.steps / speed(device),
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as a person reads them."""
    memory = figures["memory"]
    parts = ", ".join(f"{part} {mebibytes(size)}" for part, size in memory.items())
    seconds = figures["time/seconds_of_training_at_most_length"]
    steps = f"{figures['steps']:,} steps of {figures['rows_per_step']:,} rows" if figures["steps"] else "no training"
    told = [
        f"{figures['rows']:,} rows, {steps}, rows of at most {figures['tokens_per_row_at_most']:,} tokens",
        f"{figures['parameters']:,} parameters; memory {mebibytes(sum(memory.values()))} ({parts}), and activations",
    ]
    if figures["steps"]:
        told.append(
            f"training takes about {duration(seconds)} if every row has that length and products run as fast as one timed now"
        )
    return [*told, "a dry run: nothing was trained, nothing was written"]


def speed(device: torch.device, *, size: int = 512, seconds: float = 0.2) -> float:
    """Multiplications and additions per second of a matrix product, timed now."""
    matrix = torch.ones(size, size, device=device)
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        n += 1
    return n * 2.0 * size**3 / (time.perf_counter() - start)


def mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
