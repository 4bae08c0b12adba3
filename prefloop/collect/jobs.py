"""Imports and exports that the server does beside its other work: a table of jobs, and one thread that does them in turn.

A job survives its server: what was running when it died is begun again. That is safe, because an import leaves what is there
as it is, and an export writes a folder that appears whole.
"""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from prefloop.collect import apart, exports, imports
from prefloop.collect.database import Database
from prefloop.collect.identity import as_json
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import idempotency, job
from prefloop.config import parse
from prefloop.errors import PrefloopError, RunError

POLL = 5.0  # seconds between looks at the table where nobody rang
TELLING = 0.5  # seconds between two words of how far a job is
KEPT_DAYS = 30  # of receipts; a client that repeats a submit after that gets "already submitted"
CANCELLED = "cancelled before it was done"
log = logging.getLogger("prefloop.collect")


class Cancelled(RunError):
    """Somebody no longer wants a job that was at work."""


def create(
    connection: Connection, *, identity: str, project_id: str, user_id: str | None, kind: str, settings: dict[str, Any], now: int
) -> None:
    """A job that waits for its turn; its files, if it needs any, lie at its place already."""
    row = {
        "id": identity, "project_id": project_id, "user_id": user_id, "kind": kind, "state": "waiting",
        "settings_json": as_json(settings), "created": now,
    }  # fmt: skip
    connection.execute(insert(job).values(row))


def look_at(connection: Connection, identity: str) -> dict[str, Any]:
    """How far a job is, and what came of it."""
    row = connection.execute(select(job).where(job.c.id == identity)).first()
    if row is None:
        raise not_found("job")
    return {
        "id": row.id, "kind": row.kind, "state": row.state, "n_done": row.n_done, "result": json.loads(row.result_json),
        "created": row.created, "finished": row.finished,
    }  # fmt: skip


def cancel(connection: Connection, *, identity: str, now: int) -> bool:
    """End a job that waits; whether it is running instead, which its thread has to be told (``Jobs.no_longer_wanted``), and which
    is written down, for the next server where this one dies first."""
    one = connection.execute(select(job).where(job.c.id == identity).with_for_update()).first()
    if one is None:
        raise not_found("job")
    if one.state == "waiting":
        change = {"state": "cancelled", "result_json": as_json({"error": CANCELLED}), "finished": now}
        connection.execute(update(job).where(job.c.id == identity).values(change))
    elif one.state == "running":
        connection.execute(update(job).where(job.c.id == identity).values(result_json=as_json({"error": CANCELLED})))
    elif one.state != "cancelled":
        raise Refused(409, "job_ended", f"this job has ended: it is {one.state}")
    return one.state == "running"


class Jobs:
    """The thread. ``ring`` says that there is something new."""

    def __init__(self, database: Database, folder: Path):
        self.database, self.folder = database, folder
        self.bell = threading.Event()
        self.is_stopping = False
        self.n_done = 0  # of the job in hand
        self.unwanted: set[str] = set()  # jobs that are to end where they are
        self.thread = threading.Thread(target=self.run, name="prefloop-jobs", daemon=True)

    def start(self) -> None:
        self.database.write(partial(begin_again, now=self.database.clock()))
        wanted = select(job.c.id).where(job.c.state != "cancelled")
        known = set(self.database.read(lambda connection: connection.scalars(wanted).all()))
        for place in (self.folder / "jobs").glob("*"):
            if place.name not in known:  # an upload that was cut off
                self.leave_nothing(place.name)
        self.thread.start()

    def stop(self) -> None:
        """After the job in hand."""
        self.is_stopping = True
        self.bell.set()
        self.thread.join(timeout=30)

    def ring(self) -> None:
        self.bell.set()

    def no_longer_wanted(self, identity: str) -> None:
        """A running job ends at its next step; one that was at its last is done all the same."""
        self.unwanted.add(identity)

    def leave_nothing(self, identity: str) -> None:
        """Remove the files of a job that came to nothing."""
        shutil.rmtree(self.place(identity), ignore_errors=True)

    def place(self, identity: str) -> Path:
        """Where the files of a job lie."""
        return self.folder / "jobs" / identity

    def run(self) -> None:
        while not self.is_stopping:
            self.bell.clear()
            try:
                while not self.is_stopping and (next_one := self.database.write(taken)) is not None:
                    self.do(next_one)
                self.forget_old()
            except Exception:  # the database is away: the thread outlives it
                log.exception("jobs wait: the database does not answer")
            self.bell.wait(POLL)

    def do(self, one: Row[Any]) -> None:
        self.n_done = 0
        works = {"import": self.do_import, "export": self.do_export}
        try:
            result, state = works[one.kind](one, json.loads(one.settings_json)), "done"
        except Cancelled as error:
            result, state = {"error": str(error)}, "cancelled"
        except PrefloopError as error:
            result, state = {"error": str(error)}, "failed"
        except Exception as error:
            log.exception("job %s failed", one.id)
            result, state = {"error": f"{type(error).__name__}: the server's log says where"}, "failed"
        change = {"state": state, "result_json": as_json(result), "finished": self.database.clock(), "n_done": self.n_done}
        self.insist(lambda connection: connection.execute(update(job).where(job.c.id == one.id).values(change)))
        self.unwanted.discard(one.id)

    def insist(self, work: Callable[[Connection], object]) -> None:
        """Write, again and again where the disk is full or the database away: a job that ended must not look as if it ran."""
        while True:
            try:
                self.database.write(work)
                return
            except (OperationalError, PoolTimeout):  # anything else would never come right
                if self.is_stopping:
                    raise
                log.exception("the end of a job waits: it cannot be written")
            self.bell.wait(POLL)
            self.bell.clear()

    def do_import(self, one: Row[Any], settings: dict[str, Any]) -> dict[str, Any]:
        place = self.place(one.id)
        file, looking = place / settings["name"], partial(apart.look_into, check=lambda: self.go_on(one))
        try:
            if settings["dry_run"]:
                report = looking(self.database, one.project_id, file, place / "looked-at")
            else:
                given = {"priority": settings["priority"], "skip_bad": settings["skip_bad"], "looking": looking}
                report = imports.run(self.database, one.project_id, file, progress=self.progress_of(one), **given)
        finally:  # refused or cancelled, a file is sent again; killed, the next server finds it where it is
            shutil.rmtree(place, ignore_errors=True)
        return report.as_dict()

    def do_export(self, one: Row[Any], settings: dict[str, Any]) -> dict[str, Any]:
        config = parse(exports.ExportConfig, settings["settings"], where="the export")
        place = self.place(one.id)
        shutil.rmtree(place, ignore_errors=True)
        given = {"format": settings["format"], "config": config, "progress": self.progress_of(one)}
        return exports.export(self.database, one.project_id, place, **given)

    def go_on(self, one: Row[Any]) -> None:
        """Cancelled where a job is to end here."""
        if one.id in self.unwanted:
            stays = one.kind == "import" and self.n_done
            raise Cancelled(f"{CANCELLED}; the {self.n_done:,} items that were stored stay" if stays else CANCELLED)

    def progress_of(self, one: Row[Any]) -> Callable[[int], None]:
        told = time.monotonic()

        def tell(n: int) -> None:
            nonlocal told
            self.n_done = n
            self.go_on(one)
            if time.monotonic() - told < TELLING:  # each is a transaction that people's work waits for
                return
            told = time.monotonic()
            self.database.write(lambda connection: connection.execute(update(job).where(job.c.id == one.id).values(n_done=n)))

        return tell

    def forget_old(self) -> None:
        before = self.database.clock() - KEPT_DAYS * 86_400_000
        self.database.write(lambda connection: connection.execute(delete(idempotency).where(idempotency.c.created < before)))


def begin_again(connection: Connection, now: int) -> None:
    """What the last server was at when it ended, except what was cancelled."""
    is_running = job.c.state == "running"
    connection.execute(update(job).where(is_running, job.c.result_json != "{}").values(state="cancelled", finished=now))
    connection.execute(update(job).where(is_running).values(state="waiting", n_done=0))


def taken(connection: Connection) -> Row[Any] | None:
    """The job that waits longest, now running."""
    waiting = select(job).where(job.c.state == "waiting").order_by(job.c.id).limit(1).with_for_update(skip_locked=True)
    one = connection.execute(waiting).first()
    if one is not None:
        connection.execute(update(job).where(job.c.id == one.id).values(state="running"))
    return one
