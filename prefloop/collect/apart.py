"""The dry run of a large file in a process of its own.

Reading a hundred thousand rows takes tens of seconds of the interpreter, and a thread that holds it makes the requests of
everybody else wait: beside such a thread one claim in twenty of 200 people at work took 7.5 s (docs/collect.md, under load).
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path

from prefloop.collect import imports
from prefloop.collect.database import Database, database_url
from prefloop.collect.imports import Report
from prefloop.collect.schema import TaskSchema
from prefloop.errors import RunError

LARGE = 4 * 2**20  # bytes of a file: a smaller one is read sooner than a process is started
NICENESS = 10  # of the process: who waits for a page comes first
CHECKED = 0.25  # seconds between looks whether the process is still wanted
over: Event | None = None  # in the process: set once nobody waits for it


def look_into(
    database: Database,
    project_id: str,
    file: Path,
    waiting: Path,
    *,
    schema: TaskSchema | None = None,
    check: Callable[[], object] = lambda: None,
) -> Report:
    """``imports.look_into``; RunError where the process was ended by somebody else."""
    if file.stat().st_size < LARGE:
        return imports.look_into(database, project_id, file, waiting, schema=schema, check=check)
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of the threads that are at work
    given = (database.url.render_as_string(hide_password=False), project_id, file, waiting, schema)
    is_over = context.Event()
    with ProcessPoolExecutor(1, mp_context=context, initializer=stand_back, initargs=(is_over,)) as pool:
        looked = pool.submit(look_there, *given)
        try:
            while not wait([looked], timeout=CHECKED).done:
                check()
            return looked.result()
        except BrokenProcessPool:
            raise RunError(f"reading {file.name} was ended from outside, perhaps for want of memory; import it again") from None
        finally:
            is_over.set()  # so that leaving the pool, which waits for the process, does not take until the end of the file


def stand_back(is_over: Event) -> None:
    """Behind whoever waits for a page. Ctrl-C ends the server, which waits for this."""
    global over
    over = is_over
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def look_there(address: str, project_id: str, file: Path, waiting: Path, schema: TaskSchema | None) -> Report:
    """In the other process: a database of its own, open for reading."""
    database = Database(database_url(address), writes=False)
    try:
        return imports.look_into(database, project_id, file, waiting, schema=schema, check=still_wanted)
    finally:
        database.close()


def still_wanted() -> None:
    """Whoever waited for this process has gone; what it raises is heard by nobody."""
    if over is not None and over.is_set():
        raise RunError("nobody waits for this any more")
