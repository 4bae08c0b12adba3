"""The dry run of a large file in a process of its own.

Reading a hundred thousand rows takes tens of seconds of the interpreter, and a thread that holds it makes the requests of
everybody else wait: beside such a thread one claim in twenty of 200 people at work took 7.5 s (docs/collect.md, under load).
"""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from prefloop.collect import imports
from prefloop.collect.database import Database, database_url
from prefloop.collect.imports import Report
from prefloop.collect.schema import TaskSchema
from prefloop.errors import RunError

LARGE = 4 * 2**20  # bytes of a file: a smaller one is read sooner than a process is started
NICENESS = 10  # of the process: who waits for a page comes first


def look_into(database: Database, project_id: str, file: Path, waiting: Path, *, schema: TaskSchema | None = None) -> Report:
    """``imports.look_into``; RunError where the process was ended by somebody else."""
    if file.stat().st_size < LARGE:
        return imports.look_into(database, project_id, file, waiting, schema=schema)
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of the threads that are at work
    given = (database.url.render_as_string(hide_password=False), project_id, file, waiting, schema)
    with ProcessPoolExecutor(1, mp_context=context, initializer=stand_back) as pool:
        try:
            return pool.submit(look_there, *given).result()
        except BrokenProcessPool:
            raise RunError(f"reading {file.name} was ended from outside, perhaps for want of memory; import it again") from None


def stand_back() -> None:
    """Behind whoever waits for a page. Ctrl-C ends the server, which waits for this."""
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def look_there(address: str, project_id: str, file: Path, waiting: Path, schema: TaskSchema | None) -> Report:
    """In the other process: a database of its own, open for reading."""
    database = Database(database_url(address), writes=False)
    try:
        return imports.look_into(database, project_id, file, waiting, schema=schema)
    finally:
        database.close()
