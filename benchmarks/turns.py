"""A worker's side of the talk with the driver: one JSON line each way for every turn.

    driver -> worker   {"steps": 3}
    worker -> driver   {"seconds": 4.2, "cpu": 8.1, "units": 432, "peak_mb": 812.0}

Standard output belongs to the talk, so whatever the libraries print goes to standard error, which is the worker's log.
"""

import json
import os
import resource
import sys
import time
from typing import NoReturn

from benchmarks.machine import memory


class Turns:
    """Waits for a turn, counts its steps, answers. A side calls ``done`` at the end of every step."""

    def __init__(self) -> None:
        self.said = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.started, self.steps_left, self.units = time.perf_counter(), 1, 0.0  # the first step belongs to the start
        self.cpu_before = cpu()
        self.bare_mb = 0.0

    def imported_torch(self) -> None:
        """Memory from here on is what the side costs above a bare import of torch."""
        self.bare_mb = memory(field="VmRSS")

    def done(self, units: float) -> None:
        """A step is over: count it, and when the turn is over answer and wait for the next."""
        self.units += units
        self.steps_left -= 1
        if self.steps_left > 0:
            return
        seconds, spent = time.perf_counter() - self.started, cpu() - self.cpu_before
        answer = {"seconds": seconds, "cpu": spent, "units": self.units, "peak_mb": memory(), "bare_mb": self.bare_mb}
        self.said.write(json.dumps(answer) + "\n")
        asked = sys.stdin.readline()
        if not asked:
            leave()
        self.steps_left, self.units = json.loads(asked)["steps"], 0.0
        self.started, self.cpu_before = time.perf_counter(), cpu()


def cpu() -> float:
    """Processor seconds of this process, all its threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def leave() -> NoReturn:
    """At once: a trainer in the middle of its loop has nothing to tidy up that matters."""
    sys.stderr.flush()
    os._exit(0)
