"""Runs that die at fault points and are resumed, each in a process of its own: called by test_resume.py, prints JSON.

A program, because forking is fast (torch is imported once) and safe only before anything has started threads.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # the first optimiser imports it: here once, not in every child

from prefloop.config import Options
from prefloop.engine import checkpoint
from tests.engine.toy import ToyConfig, main

KILLED = 86
FAULTS = {  # at which of its occasions a point kills; there are checkpoints after steps 3, 6, 9 and 10
    "metrics logged": 6,
    "step done": 8,
    "checkpoint begun": 1,
    "checkpoint parts written": 2,
    "checkpoint complete": 3,
    "checkpoint in place": 4,
}


def in_child(work: Callable[[], object]) -> int:
    """The exit status of a forked process that does the work."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(folder: Path, point: str, occasion: int) -> None:
    """A run that ends without a word at the given occasion."""
    left = occasion

    def reach(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if left == 0:
            os._exit(KILLED)

    checkpoint.reach = reach
    main(ToyConfig(), Options(out=folder, device="cpu"))


def resumed(folder: Path) -> None:
    main(ToyConfig(), Options(out=folder, resume=True, device="cpu"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    status = {"whole": [in_child(lambda: main(ToyConfig(), Options(out=out / "whole", device="cpu")))]}
    for point, occasion in FAULTS.items():
        folder = out / point
        status[point] = [in_child(lambda: killed(folder, point, occasion)), in_child(lambda: resumed(folder))]  # noqa: B023
    sys.stdout.write(json.dumps(status))
