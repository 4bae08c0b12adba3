"""Two workers that take turns: A B A B ..., so that whatever else the machine does falls on both."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.environments import python_of, versions
from benchmarks.machine import ROOT, Rates, clock, commit, machine, others, rates
from benchmarks.work import floor, work

TURN_SECONDS = 4.0  # a turn has as many steps as this takes: short steps would measure the clock


class Turn(NamedTuple):
    """What a worker says of a turn."""

    seconds: float
    cpu: float
    units: float
    peak_mb: float
    bare_mb: float

    @property
    def rate(self) -> float:
        return self.units / self.seconds


class Side(Protocol):
    """Whoever can be asked for a turn of some steps."""

    def turn(self, steps: int) -> Turn: ...


class Worker:
    """A side in a process of its own. ``start`` is its first turn: imports, loading, preparing the data, one step."""

    def __init__(self, side: str, spec_file: Path, python: str, threads: int):
        quiet = {
            "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
            "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        self.name, self.log = side, spec_file.with_name(f"{side}.log")
        self.began = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", side, str(spec_file)],
                cwd=ROOT, env=os.environ | quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.start = self.hear()
        self.start_seconds = time.perf_counter() - self.began

    def hear(self) -> Turn:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return Turn(**json.loads(line))
        last = "\n".join(self.log.read_text().splitlines()[-25:])
        raise SystemExit(f"bench: {self.name} stopped (exit code {self.process.wait()}); the end of {self.log}:\n{last}")

    def turn(self, steps: int) -> Turn:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"steps": steps}) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Turns(NamedTuple):
    ours: list[Turn]
    theirs: list[Turn]
    others: list[float]  # share of the machine busy with something else, of each pair
    steps: tuple[int, int]  # that a turn has, ours and theirs


def take_turns(ours: Side, theirs: Side, *, pairs: int, warmup: int) -> Turns:
    """Warm-up, then pairs of turns; how many steps a side's turn has is settled by its warm-up."""
    steps = [1, 1]
    for _ in range(max(1, warmup)):
        for place, side in enumerate((ours, theirs)):
            seen = side.turn(steps[place])
            steps[place] = max(1, round(TURN_SECONDS / max(1e-9, seen.seconds / steps[place])))
    taken = Turns([], [], [], (steps[0], steps[1]))
    for _ in range(pairs):
        before = clock()
        taken.ours.append(ours.turn(steps[0]))
        taken.theirs.append(theirs.turn(steps[1]))
        taken.others.append(others(before, clock(), taken.ours[-1].cpu + taken.theirs[-1].cpu))
    return taken


def measure(spec_file: Path, *, pairs: int, warmup: int) -> dict[str, Any]:
    """A case, both sides; what goes into results/NAME.json."""
    spec = json.loads(spec_file.read_text())
    peer_python = python_of(spec["environment"])
    found = {"ours": versions(sys.executable), "theirs": versions(peer_python)}
    if found["ours"]["torch"] != found["theirs"]["torch"]:
        raise SystemExit(
            f"bench: {spec['name']} would compare two builds of torch: {found}\n  remove {peer_python} and try again"
        )
    speed = rates(spec["threads"])
    workers: list[Worker] = []
    try:
        workers.append(Worker("ours", spec_file, sys.executable, spec["threads"]))
        workers.append(Worker("theirs", spec_file, peer_python, spec["threads"]))
        taken = take_turns(*workers, pairs=pairs, warmup=warmup)
        started = {side.name: round(side.start_seconds, 1) for side in workers}
    finally:
        for worker in workers:
            worker.close()
    return result(spec, taken, started, found, speed)


def result(
    spec: dict[str, Any], taken: Turns, started: dict[str, float], found: dict[str, dict[str, str]], speed: Rates
) -> dict[str, Any]:
    """The figures of a case, rounded to what they are worth."""
    wall = [a.rate / b.rate for a, b in zip(taken.ours, taken.theirs, strict=True)]
    processor = [(a.units / a.cpu) / (b.units / b.cpu) for a, b in zip(taken.ours, taken.theirs, strict=True)]
    count = work(spec)
    step_units = statistics.median(turn.units for turn in taken.ours) / taken.steps[0]
    unit = f"{spec['unit']}/s"
    return {
        "name": spec["name"],
        "peer": spec["peer"],
        "ours": spread([turn.rate for turn in taken.ours]) | {"unit": unit},
        "theirs": spread([turn.rate for turn in taken.theirs]) | {"unit": unit},
        "ratio": spread(wall),
        "memory_mb": {"ours": round(taken.ours[-1].peak_mb), "theirs": round(taken.theirs[-1].peak_mb)},
        "machine": machine(),
        "commit": commit(),
        "ratio_of_processor_time": spread(processor),
        "ideal": {"ratio": figure(count.ratio), "of": count.unit, "ours": figure(count.ours), "theirs": figure(count.theirs)},
        "share_of_ideal": figure(statistics.median(wall) / count.ratio),
        "floor": {
            "rate": figure(step_units / floor(spec, **speed._asdict())),
            "gflops": figure(speed.flops / 1e9),
            "gb_a_second": figure(speed.bandwidth / 1e9),
        },
        "must": spec["must"],
        "aim": spec["aim"],
        "memory_above_torch_mb": {
            "ours": round(taken.ours[-1].peak_mb - taken.ours[-1].bare_mb),
            "theirs": round(taken.theirs[-1].peak_mb - taken.theirs[-1].bare_mb),
        },
        "start_seconds": started,
        "pairs": len(wall),
        "units_a_step": figure(step_units),
        "steps_a_turn": dict(zip(("ours", "theirs"), taken.steps, strict=True)),
        "others": {"median": statistics.median(taken.others), "max": max(taken.others)},
        "threads": spec["threads"],
        "shape": spec["shape"],
        "model": spec["model_shape"],
        "versions": found,
        "date": time.strftime("%Y-%m-%d"),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": figure(statistics.median(values)), "min": figure(min(values)), "max": figure(max(values))}


def figure(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
