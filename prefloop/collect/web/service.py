"""What the routes share: the database, the folder beside it, and how often somebody may ask."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import Request

from prefloop.collect.backends import config_in
from prefloop.collect.database import Database
from prefloop.collect.jobs import Jobs
from prefloop.collect.refusals import Refused
from prefloop.collect.talk import Talk

RATE, BURST = 20.0, 60.0  # changes a person may make: a second, and at once
LOGIN_RATE, LOGIN_BURST = 0.5, 20.0  # attempts to log in from one address
MOST_KEYS = 100_000


class Limiter:
    """Token buckets by key, in memory: they need not outlive the server."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.clock = rate, burst, clock
        self.level: dict[str, tuple[float, float]] = {}
        self.lock = Lock()

    def spend(self, key: str) -> None:
        """One more; Refused with when to come back where there were too many."""
        with self.lock:
            now = self.clock()
            if len(self.level) > MOST_KEYS:
                self.level.clear()
            level, since = self.level.get(key, (self.burst, now))
            level = min(self.burst, level + (now - since) * self.rate)
            if level < 1:
                wait = -(-(1 - level) // self.rate)
                raise Refused(429, "too_fast", f"slow down; try again in {wait:.0f} s", retry_after=max(1, int(wait)))
            self.level[key] = (level - 1, now)


class Service:
    """One server."""

    def __init__(self, database: Database, folder: Path, *, rate: float = RATE, burst: float = BURST):
        self.database = database
        self.folder = folder
        self.jobs = Jobs(database, folder)
        self.talk = Talk(database, config_in(folder))
        self.changes = Limiter(rate, burst)
        self.logins = Limiter(LOGIN_RATE, LOGIN_BURST)
        self.answered: Counter[int] = Counter()  # requests, by the hundreds of their status; only the event loop adds to it

    def write(self, work: Callable[..., Any], **given: Any) -> Any:
        """A function of (connection, now, …) in a transaction that is on disk when this returns."""
        return self.database.write(lambda connection: work(connection, **given, now=self.database.clock()))

    def read(self, work: Callable[..., Any], **given: Any) -> Any:
        """A function of (connection, …) that changes nothing."""
        return self.database.read(lambda connection: work(connection, **given))


def service_of(request: Request) -> Service:
    return request.app.state.service
