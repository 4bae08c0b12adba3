"""One way to write and one to read, whatever is underneath: ``database.write(work)`` returns once it is safe on disk.

``work`` is a function of a connection; it runs in a transaction, and may run again, so it must do nothing but database work.

SQLite has a single writer, one thread with one connection, so that "database is locked" cannot happen inside a server; what
waits in its queue is committed together, which shares the cost of an fsync among everyone waiting. PostgreSQL has a pool, and
runs a transaction again that it had to break off.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError

from prefloop.collect.identity import now_ms
from prefloop.errors import ConfigError, NotInstalled, RunError

T = TypeVar("T")
Work = Callable[[Connection], T]

BATCH = 32  # works committed together at most
BATCH_SECONDS = 0.004  # and for no longer than this
PATIENCE = 8  # transactions that a long work lets go before it
ATTEMPTS = 8  # at a transaction that PostgreSQL breaks off
BROKEN_OFF = ("40001", "40P01", "23505")  # serialization failure, deadlock; a row that another stored meanwhile: now it is seen
READERS = 4
IDLE = 1.0  # seconds after which a connection to PostgreSQL is asked whether it still is one
BUSY_MS = 5000  # how long SQLite waits for another process, such as a backup or an import from the command line
CACHE_KIB = 128 * 1024  # of the writer, taken as it is used: new slots go to all places of an index, which 2 MB do not hold
CHECKPOINT = 4096  # pages of the write-ahead log before they are copied into the file, which those who write meanwhile wait for
PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": "ON",
    "temp_store": "MEMORY",
    "busy_timeout": BUSY_MS,
    "cache_size": -CACHE_KIB,
    "wal_autocheckpoint": CHECKPOINT,
}


class Closed(RunError):
    """The database was closed while something waited to be written; it was not written."""


class Task(NamedTuple):
    """A piece of work on its way to the writer."""

    work: Work[Any]
    future: "Future[Any]"
    is_long: bool = False
    passed: int = 0  # how often others went before it


class Database:
    """A database that is open, perhaps only for reading. ``clock`` is the time everything in it goes by."""

    def __init__(self, url: URL, *, clock: Callable[[], int] = now_ms, writes: bool = True):
        self.url = url
        self.clock = clock
        self.writes = writes
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.readers = reading_engine(url) if self.is_sqlite else postgresql_engine(url)
        # a look is no transaction where it need not be one: two ways to the database and back less
        self.lookers = self.readers if self.is_sqlite else self.readers.execution_options(isolation_level="AUTOCOMMIT")
        self.writer = SQLiteWriter(url) if self.is_sqlite and writes else None

    def write(self, work: Work[T], *, is_long: bool = False) -> T:
        """Its result, once the transaction is on disk; or what it raised, and nothing was changed. ``is_long``: it takes so
        many milliseconds that people would notice, who go before it."""
        if not self.writes:
            raise Closed("the database was opened for reading; nothing was written")
        return self.writer.submit(work, is_long).result() if self.writer else with_retries(self.readers, work)

    def read(self, work: Work[T]) -> T:
        """The result of a work that changes nothing."""
        with self.reading() as connection:
            return work(connection)

    def reading(self) -> Connection:
        """A connection for looking, to be used with ``with``."""
        return self.lookers.connect()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees one moment for as long as it is held."""
        with self.readers.connect() as connection:
            if not self.is_sqlite:  # whose WAL gives a reader one moment as it is
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def close(self) -> None:
        """What waits is written first."""
        if self.writer:
            self.writer.close()
        self.readers.dispose()


def database_url(text: str) -> URL:
    """sqlite:///FILE, a path, or postgresql://…"""
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except Exception as error:
        raise ConfigError(f"{text!r} is no database address: {error}\n  sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError("a database in memory would forget everything; name a file: sqlite:///FILE")
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise ConfigError(f"{url.get_backend_name()} is not supported\n  sqlite:///FILE or postgresql://USER@HOST/NAME")
    return url


# --- engines ----------------------------------------------------------------------------------------------------------------


def sqlite_engine(url: URL, *, pool_size: int, pragmas: dict[str, Any], begin: str) -> Engine:
    """Transactions are begun by us: the driver's own way begins them at the first write, and then may not get the lock."""
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, connect_args={"check_same_thread": False, "timeout": 0})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None
        for name, value in pragmas.items():
            connection.execute(f"PRAGMA {name}={value}")

    @event.listens_for(engine, "begin")
    def begin_ourselves(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def reading_engine(url: URL) -> Engine:
    return sqlite_engine(url, pool_size=READERS, pragmas={"busy_timeout": BUSY_MS, "query_only": "ON"}, begin="BEGIN")


def writing_engine(url: URL) -> Engine:
    return sqlite_engine(url, pool_size=1, pragmas=PRAGMAS, begin="BEGIN IMMEDIATE")


def postgresql_engine(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        raise NotInstalled("psycopg", "postgres", "a PostgreSQL database") from None
    engine = create_engine(url, pool_size=2 * READERS, max_overflow=12, connect_args={"application_name": "prefloop"})

    @event.listens_for(engine, "checkin")
    def remember(connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask_first(connection: Any, record: Any, proxy: object) -> None:
        """As the pool's own pre-ping, but not of a connection that answered a moment ago: that would be every second message."""
        if time.monotonic() - record.info.get("used", 0.0) > IDLE:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError from error  # the pool opens another

    return engine


def with_retries(engine: Engine, work: Work[T]) -> T:
    for attempt in range(ATTEMPTS):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in BROKEN_OFF or attempt == ATTEMPTS - 1:
                raise
        time.sleep(random.uniform(0, 0.01 * 2**attempt))
    raise AssertionError("the last attempt returns or raises")


# --- the single writer of SQLite --------------------------------------------------------------------------------------------


class SQLiteWriter:
    """A thread that alone writes; what waits together is committed together, each work after the first in a savepoint."""

    def __init__(self, url: URL):
        self.engine = writing_engine(url)
        self.waiting: SimpleQueue[Task | None] = SimpleQueue()
        self.is_closed = False
        self.lock = threading.Lock()  # between a last task and the closing
        with self.engine.connect():
            pass  # what is wrong with the file is said here, not in the thread
        self.thread = threading.Thread(target=self.run, name="prefloop-writer", daemon=True)
        self.thread.start()

    def submit(self, work: Work[T], is_long: bool = False) -> "Future[T]":
        future: Future[T] = Future()
        with self.lock:
            if self.is_closed:
                raise Closed("the database is closed; nothing was written")
            self.waiting.put(Task(work, future, is_long))
        return future

    def close(self) -> None:
        with self.lock:
            if not self.is_closed:
                self.is_closed = True
                self.waiting.put(None)
        self.thread.join()
        self.engine.dispose()

    def run(self) -> None:
        with self.engine.connect() as connection:
            while (first := self.waiting.get()) is not None:
                self.write_together(connection, first)
            while not self.waiting.empty():  # a long work that had let others go before it, past the end
                self.write_together(connection, self.waiting.get())

    def write_together(self, connection: Connection, first: Task) -> None:
        """One transaction with everything that waits, within reason; nobody hears of success before it is committed."""
        outcomes: list[tuple[Task, Any, BaseException | None]] = []
        try:
            with connection.begin():
                outcomes.append((first, None, None))  # so that whatever happens, everyone is answered
                outcomes[-1] = (first, first.work(connection), None)  # alone so far: what it raises undoes all there is
                for task in self.batch():
                    outcomes.append((task, None, None))
                    outcomes[-1] = (task, *tried(connection, task.work))
        except BaseException as error:
            undo(connection)
            for task, _, own in outcomes or [(first, None, None)]:
                task.future.set_exception(own or error)
            return
        for task, result, error in outcomes:
            if error is None:
                task.future.set_result(result)
            else:
                task.future.set_exception(error)

    def batch(self) -> Iterator[Task]:
        """What else waits."""
        ends = time.monotonic() + BATCH_SECONDS
        for _ in range(BATCH - 1):
            if time.monotonic() >= ends:
                return
            try:
                task = self.waiting.get_nowait()
            except Empty:
                return
            if task is None:
                self.waiting.put(None)  # for run, which ends by it
                return
            if task.is_long and task.passed < PATIENCE:  # whoever is in this transaction waits for the end of all of it
                self.waiting.put(task._replace(passed=task.passed + 1))
                return
            yield task


def undo(connection: Connection) -> None:
    """After a commit that failed SQLite may still be in the transaction, and would refuse the next one."""
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:
        driver.rollback()


def tried(connection: Connection, work: Work[Any]) -> tuple[Any, BaseException | None]:
    """The result of a work, or what it raised; then its changes are undone, and only its own."""
    savepoint = connection.begin_nested()
    try:
        result = work(connection)
    except Exception as error:
        if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
            raise  # a full disk ends the whole transaction: no one in it was written
        savepoint.rollback()
        return None, error
    savepoint.commit()
    return result, None
