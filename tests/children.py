"""Processes that the tests need: runs of methods that die at fault points and are resumed, and two that share their updates.

A program of its own (``killed FOLDER`` or ``two FOLDER``, prints how each process ended), because torch is then imported once
and forked, which is safe only before anything has started threads: so the toy, too, is trained in a child.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from prefloop.cli import app
from prefloop.engine import checkpoint
from tests.engine.children import KILLED, child, ended
from tests.methods.toy import (
    reward_settings,
    run_dpo,
    run_kto,
    run_ppo,
    run_reinforce,
    run_relearn,
    run_reward,
    run_rrhf,
    run_rules,
    run_sft,
    sft_settings,
    train_toy,
)
from tests.ports import free_port

RUNS: dict[str, Callable[..., Any]] = {
    "sft": run_sft,
    "reward": run_reward,
    "ppo": run_ppo,
    "ppo on one base": run_ppo,
    "dpo": run_dpo,
    "kto": run_kto,
    "rrhf": run_rrhf,
    "rules": run_rules,
    "reinforce": run_reinforce,
    "relearn": run_relearn,
}
FAULTS = {  # method: where it dies, and at which occasion; one of them always after the last checkpoint
    "sft": (("metrics logged", 4), ("checkpoint parts written", 2), ("checkpoint in place", 5)),
    "reward": (("step done", 5), ("checkpoint begun", 2), ("checkpoint in place", 3)),
    "ppo": (("metrics logged", 3), ("checkpoint complete", 2), ("checkpoint in place", 2)),
    "ppo on one base": (("metrics logged", 3), ("checkpoint in place", 2)),
    "dpo": (("step done", 5), ("checkpoint in place", 3)),
    "kto": (("step done", 5), ("checkpoint in place", 3)),
    "rrhf": (("step done", 5), ("checkpoint in place", 3)),
    "rules": (("step done", 5), ("checkpoint in place", 2)),
    "reinforce": (("metrics logged", 3), ("checkpoint in place", 2)),
    "relearn": (("step done", 5), ("checkpoint in place", 2)),
}


def settings(toy: Path) -> dict[str, dict[str, Any]]:
    """Everything that has a state: moments, warm-up, two members, a moving average, an adaptive price, a critic, text."""
    ptx = {"ptx": 0.2, "text": toy / "corpus.txt", "ptx_rows": 4, "ptx_block": 8}
    sizes = {"rounds": 4, "save_every": 2, "optim": {"schedule": "linear", "warmup": 2}}
    return {
        "sft": {"epochs": 2, "batch": 30, "held_out": 0.4, "seed": 1, "save_every": 2, "optim": {"warmup": 3}},
        "reward": {"epochs": 2, "batch": 50, "members": 2, "save_every": 3, "optim": {"warmup": 2}},
        "ppo": {**sizes, **ptx, "kl_target": 0.02, "kl_horizon": 60.0, "ema": 0.9},
        "ppo on one base": {**sizes, "share": "adapters", "critic": "policy", "ema": 0.9},
        "dpo": {"epochs": 2, "batch": 50, "save_every": 3, "optim": {"warmup": 2}, "adapter": {"rank": 2}},
        "kto": {"epochs": 2, "batch": 50, "save_every": 3, "optim": {"warmup": 2}},
        "rrhf": {"epochs": 2, "batch": 50, "save_every": 3, "optim": {"warmup": 2}},
        "rules": {"epochs": 1, "batch": 200, "save_every": 2, "optim": {"warmup": 2}},
        "reinforce": {**sizes, "epochs": 2, "ema": 0.9},
        "relearn": {"batch": 30, "save_every": 3, "representation": "mib", "views_batch": 4, "optim": {"warmup": 2}},
    }


def name_of(method: str, point: str) -> str:
    return f"{method}, {point}"


def killed(run: Callable[[], Any], point: str, occasion: int) -> None:
    """A run that ends without a word at the given occasion."""
    left = occasion

    def reach(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if left == 0:
            os._exit(KILLED)

    checkpoint.reach = reach
    run()


def killed_and_resumed(out: Path) -> dict[str, list[int]]:
    toy = out / "toy"
    status = {"toy": [ended(child(partial(train_toy, toy)))]}
    for method, faults in FAULTS.items():
        run = partial(RUNS[method], folder=toy, **settings(toy)[method])
        status[method] = [ended(child(partial(run, out / method)))]
        for point, occasion in faults:
            folder = out / name_of(method, point)
            dies = ended(child(partial(killed, partial(run, folder), point, occasion)))
            status[folder.name] = [dies, ended(child(partial(run, folder, resume=True)))]
    return status


# ------------------------------------------------------------------------------------------------------ two processes


def words(method: str, own: dict[str, Any], out: Path) -> list[str]:
    """What a person would type after ``prefloop``."""
    return [method, *(f"{key}={json.dumps(value)}" for key, value in own.items()), "--out", str(out), "--device", "cpu"]


def few_steps(toy: Path) -> dict[str, dict[str, Any]]:
    """An odd number of rows, so that the processes have shares of different sizes; two epochs of SFT, of which each is saved."""
    optim = {"optim": {"lr": 1e-3}}
    return {
        "sft": sft_settings(toy, epochs=2, batch=57, held_out=0.4, seed=1, **optim),
        "reward": reward_settings(toy, batch=33, **optim),
    }


def through_the_command_line(toy: Path, out: Path) -> None:
    for method, own in few_steps(toy).items():
        outcome = CliRunner().invoke(app, words(method, own, out / method))
        if outcome.exit_code:
            raise RuntimeError(outcome.output)


def one_of_two(toy: Path, out: Path, rank: int, port: int) -> None:
    """What torchrun sets for each process, then the commands."""
    launched = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()} | {"MASTER_ADDR": "127.0.0.1"})
    through_the_command_line(toy, out)


def one_and_two(out: Path) -> dict[str, list[int]]:
    toy, port = out / "toy", free_port()
    status = {"toy": [ended(child(partial(train_toy, toy)))]}
    status["one"] = [ended(child(partial(through_the_command_line, toy, out / "one")))]
    pair = [child(partial(one_of_two, toy, out / "two", rank, port)) for rank in (0, 1)]
    return status | {"two": [ended(process) for process in pair]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = {"killed": killed_and_resumed, "two": one_and_two}[sys.argv[1]]
    sys.stdout.write(json.dumps(work(Path(sys.argv[2]))))
