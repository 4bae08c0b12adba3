"""SFT, reward and PPO runs that die at fault points and are resumed, each in a process of its own: called by test_resume.py,
prints JSON.

A program, because forking is fast (torch and transformers are imported once) and safe only before anything has started threads.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimiser imports it: here once, not in every child

from prefloop.engine import checkpoint
from tests.engine.killed_runs import KILLED, in_child
from tests.methods.toy import run_ppo, run_reward, run_sft, train_toy

RUNS: dict[str, Callable[..., Any]] = {"sft": run_sft, "reward": run_reward, "ppo": run_ppo}


def settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Everything that has a state: moments, warm-up, two members, a moving average, an adaptive price, a critic, text."""
    return {
        "sft": {"epochs": 2, "batch": 100, "held_out": 0.4, "seed": 1, "save_every": 2, "optim": {"warmup": 3}},
        "reward": {"epochs": 2, "batch": 50, "members": 2, "save_every": 3, "optim": {"warmup": 2}},
        "ppo": {
            "rounds": 4,
            "save_every": 2,
            "kl_target": 0.02,
            "kl_horizon": 60.0,
            "ema": 0.9,
            "ptx": 0.2,
            "text": folder / "corpus.txt",
            "ptx_rows": 4,
            "ptx_block": 8,
            "optim": {"schedule": "linear", "warmup": 2},
        },
    }


FAULTS = {  # method: where it dies, and at which occasion; always at least once after the last checkpoint
    "sft": (("metrics logged", 4), ("checkpoint parts written", 2), ("checkpoint in place", 3)),
    "reward": (("step done", 5), ("checkpoint begun", 2), ("checkpoint in place", 3)),
    "ppo": (("metrics logged", 3), ("checkpoint complete", 2), ("checkpoint in place", 2)),
}


def killed(method: str, out: Path, own: dict[str, Any], point: str, occasion: int) -> None:
    """A run that ends without a word at the given occasion."""
    left = occasion

    def reach(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if left == 0:
            os._exit(KILLED)

    checkpoint.reach = reach
    RUNS[method](out, **own)


def name_of(method: str, point: str) -> str:
    return f"{method}, {point}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    toy, own = out / "toy", settings(out / "toy")
    status = {"toy": [in_child(lambda: train_toy(toy))]}
    for method, faults in FAULTS.items():
        status[method] = [in_child(lambda: RUNS[method](out / method, folder=toy, **own[method]))]  # noqa: B023
        for point, occasion in faults:
            folder = out / name_of(method, point)
            status[folder.name] = [
                in_child(lambda: killed(method, folder, {"folder": toy, **own[method]}, point, occasion)),  # noqa: B023
                in_child(lambda: RUNS[method](folder, folder=toy, resume=True, **own[method])),  # noqa: B023
            ]
    sys.stdout.write(json.dumps(status))
