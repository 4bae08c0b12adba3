"""What a run says while it works: bars with the time left on a terminal, a few plain lines anywhere else.

Everything goes to standard error, so that standard output stays what a command returns. Only the main process speaks.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

LINE_EVERY = 30.0  # seconds after which a plain line is due
TENTH_EVERY = 2.0  # seconds between the lines at each tenth
SHOWN_METRICS = 3


class Bar(Protocol):
    """What moves a bar: how much more is done, and what to say beside it."""

    def __call__(self, more: int = 1, note: str = "") -> None: ...


class Screen:
    """The one place on the screen where bars live, however deeply they are nested."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.is_quiet = False
        self.n_open = 0
        self.live: Progress | None = None

    @property
    def is_silent(self) -> bool:
        return self.is_quiet or os.environ.get("RANK", "0") != "0"

    def open(self) -> Progress:
        if self.live is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            self.live = Progress(*columns, console=self.console, refresh_per_second=4)
            self.live.start()
        self.n_open += 1
        return self.live

    def close(self) -> None:
        self.n_open -= 1
        if self.n_open == 0 and self.live is not None:
            self.live.stop()
            self.live = None


SCREEN = Screen()


def set_quiet(is_quiet: bool) -> None:
    """Say nothing at all from now on, or speak again."""
    SCREEN.is_quiet = is_quiet


def say(text: str) -> None:
    """A line for the person who started this; above the bars if there are any."""
    if SCREEN.is_silent:
        return
    if SCREEN.console.is_terminal:
        SCREEN.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def track(iterable: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
    """The items of an iterable with a bar; without ``total`` its length is asked for."""
    if total is None:
        total = len(iterable)  # type: ignore[arg-type]
    with bar(description, total) as advance:
        for item in iterable:
            yield item
            advance()


@contextmanager
def bar(description: str, total: int, *, done: int = 0) -> Iterator[Bar]:
    """A bar to be moved by calling what it gives; ``done`` of ``total`` was done before."""
    if SCREEN.is_silent:
        yield lambda more=1, note="": None
    elif SCREEN.console.is_terminal:
        with terminal_bar(description, total, done) as advance:
            yield advance
    else:
        with plain_lines(description, total, done) as advance:
            yield advance


@contextmanager
def terminal_bar(description: str, total: int, done: int) -> Iterator[Bar]:
    live = SCREEN.open()
    is_inner = SCREEN.n_open > 1
    task = live.add_task(description, total=total, completed=done, note="")

    def advance(more: int = 1, note: str = "") -> None:
        live.update(task, advance=more, note=note)

    try:
        yield advance
    finally:
        if is_inner:
            live.remove_task(task)  # an outer bar would otherwise drag a tail of finished inner ones behind it
        SCREEN.close()


@contextmanager
def plain_lines(description: str, total: int, done: int) -> Iterator[Bar]:
    """A line at each tenth or each half minute, and one at the end. Inner bars speak only when they take long."""
    SCREEN.n_open += 1
    is_inner = SCREEN.n_open > 1
    start = last = time.monotonic()
    begun, tenth = done, 10 * done // max(1, total)

    def advance(more: int = 1, note: str = "") -> None:
        nonlocal done, last, tenth
        done += more
        now = time.monotonic()
        is_tenth = not is_inner and 10 * done // max(1, total) > tenth and now - last >= TENTH_EVERY
        if done < total and (is_tenth or now - last >= LINE_EVERY):
            left = (now - start) / max(1, done - begun) * (total - done)
            say(f"{description}: {done}/{total}, {duration(now - start)}, {duration(left)} left{note and f', {note}'}")
            last, tenth = now, 10 * done // max(1, total)

    try:
        yield advance
    finally:
        SCREEN.n_open -= 1
        if not is_inner:
            say(f"{description}: {done}/{total} in {duration(time.monotonic() - start)}")


def duration(seconds: float) -> str:
    """4.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def brief(metrics: dict[str, float]) -> str:
    """The first few metrics, to stand beside a bar."""
    shown = (f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float))
    return ", ".join(islice(shown, SHOWN_METRICS))
