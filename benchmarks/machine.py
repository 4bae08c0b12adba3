"""What it was measured on, how fast that is, and how much of it others were using. Linux only."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


def machine() -> str:
    """Processor and number of cores; nothing that names the machine."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = " ".join(found[1].split()) if found else platform.machine()
    instructions = "AVX-512" if re.search(r"\bavx512f\b", Path("/proc/cpuinfo").read_text()) else "AVX2"
    return f"{processor} ({instructions}), {os.cpu_count()} cores"


def commit() -> str:
    """The commit measured; with a plus where what runs differed from it. Results of the benchmark before do not run."""
    said = subprocess.run(["git", "describe", "--always", "--exclude=*"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = ["git", "diff", "--quiet", "HEAD", "--", "prefloop", "benchmarks", "constraints.txt", ":!benchmarks/results"]
    return f"{said}{'+' if subprocess.run(changed, cwd=ROOT).returncode else ''}" if said else "unknown"


class Clock(NamedTuple):
    """Seconds of processor time since the machine started: spent by anybody, and gone by on all cores together."""

    busy: float
    total: float


def clock() -> Clock:
    line = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]  # user nice system idle iowait irq softirq steal
    ticks = [int(value) / os.sysconf("SC_CLK_TCK") for value in line]
    return Clock(sum(ticks) - ticks[3] - ticks[4], sum(ticks))


def others(before: Clock, after: Clock, own: float) -> float:
    """Share of the machine that was busy with anything but us between two readings."""
    return max(0.0, round((after.busy - before.busy - own) / max(1e-9, after.total - before.total), 3))


def memory(pid: int | str = "self", field: str = "VmHWM") -> float:
    """A process's memory in MB: its peak, or with VmRSS what it holds now."""
    found = re.search(rf"^{field}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


class Rates(NamedTuple):
    """The best of some tries: what nothing on this machine can beat."""

    flops: float  # operations a second of a large float32 matrix product
    bandwidth: float  # bytes a second read and written by a large copy


def rates(threads: int) -> Rates:
    """A second of measuring."""
    import torch  # the rest of this file is for processes that have to see their memory before torch is in it

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    side, size = 1024, 64 * 2**20
    a, b, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)
    source, target = torch.ones(size // 4), torch.empty(size // 4)
    found = Rates(2 * side**3 / quickest(lambda: torch.mm(a, b, out=out)), 2 * size / quickest(lambda: target.copy_(source)))
    torch.set_num_threads(before)
    return found


def quickest(work: Callable[[], object], tries: int = 12) -> float:
    seconds = []
    for _ in range(tries):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
