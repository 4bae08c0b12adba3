"""Processes that the tests need: runs that die and are resumed, and two that share their updates. Prints how each ended.

A program of its own, because torch is then imported once and forked, which is safe only before anything started threads.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # the first optimiser imports it: here once, not in every child

from prefloop.config import Options
from prefloop.engine import checkpoint
from prefloop.engine.lock import release_lock, take_lock
from prefloop.errors import ConfigError
from tests.engine import two_processes
from tests.engine.toy import ToyConfig, main
from tests.ports import free_port

KILLED = 86
FAULTS = {  # at which of its occasions a point kills; there are checkpoints after steps 3, 6, 9 and 10
    "metrics logged": 6,
    "step done": 8,
    "checkpoint begun": 1,
    "checkpoint parts written": 2,
    "checkpoint complete": 3,
    "checkpoint in place": 4,
}


def child(work: Callable[[], object]) -> int:
    """The id of a forked process that does the work."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return process


def ended(process: int) -> int:
    """Its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


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


def a_lock_is_free_again_while_a_child_of_its_holder_lives(folder: Path) -> int:
    """0 if so. The child tells through a pipe that it has begun, and waits for nothing."""
    folder.mkdir()
    file = take_lock(folder)
    hears, tells = os.pipe()
    sleeper = child(lambda: (os.write(tells, b"!"), time.sleep(600)))
    os.read(hears, 1)
    release_lock(file)
    try:
        release_lock(take_lock(folder))
        return 0
    except ConfigError:
        return 1
    finally:
        os.kill(sleeper, signal.SIGKILL)
        ended(sleeper)


def one_of_two(out: Path, rank: int, port: int) -> None:
    """What torchrun sets for each process, then the process."""
    launched = {
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "RANK": rank,
        "LOCAL_RANK": rank,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in launched.items()})
    two_processes.main(out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, port = Path(sys.argv[1]), free_port()
    pair = [child(partial(one_of_two, out, rank, port)) for rank in (0, 1)]
    status = {"two": [ended(process) for process in pair]}
    status["whole"] = [ended(child(lambda: main(ToyConfig(), Options(out=out / "whole", device="cpu"))))]
    for point, occasion in FAULTS.items():
        folder = out / point
        status[point] = [ended(child(partial(killed, folder, point, occasion))), ended(child(partial(resumed, folder)))]
    status["lock"] = [a_lock_is_free_again_while_a_child_of_its_holder_lives(out / "lock")]
    sys.stdout.write(json.dumps(status))
