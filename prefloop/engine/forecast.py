"""What ``--dry-run`` prints: data, memory by part, steps, time; nothing is trained and nothing is left behind."""

import time
from typing import Any

import torch

from prefloop.engine.plan import Plan
from prefloop.engine.progress import duration, say
from prefloop.engine.run import Run


def forecast(run: Run, plan: Plan, *, n_rows: int, parameters: int, memory: dict[str, int] | None = None) -> dict[str, Any]:
    """The plan of a run in numbers; ``memory`` is what ``needs.admit`` found, else weights, gradients and moments alone.

    The time is an estimate from the measured speed of matrix products on this device.
    """
    is_whole, memory = bool(memory), memory or plan.memory(parameters)
    operations = (
        6 * parameters * plan.trained * plan.rows * plan.tokens * plan.steps
    )  # 2 forward, 4 backward; rows at their longest
    seconds = operations / matmul_rate(run.device) if operations else 0.0
    say(
        f"{run.method}: {n_rows} rows, {parameters:,} parameters, {plan.steps} steps of {plan.rows} rows of at most {plan.tokens} tokens"
    )
    for part, size in memory.items():
        say(f"  {part:17} {size / 2**20:10.1f} MiB")
    say(f"  {'together':17} {sum(memory.values()) / 2**20:10.1f} MiB{'' if is_whole else ', and activations'}")
    say(f"  at most about {duration(seconds)} of arithmetic at this device's speed; nothing was trained (--dry-run)")
    return {"rows": n_rows, "parameters": parameters, "steps": plan.steps, "memory_bytes": memory, "seconds_at_most": seconds}


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second of a float32 matrix product of middling size."""
    a, b = torch.randn(512, 512, device=device), torch.randn(512, 512, device=device)
    (a @ b).sum().item()  # warm
    start = time.perf_counter()
    for _ in range(8):
        a = (a @ b) * 0.04
    a.sum().item()
    return 8 * 2 * 512**3 / (time.perf_counter() - start)
