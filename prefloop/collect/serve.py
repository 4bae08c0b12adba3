"""Starting the service: its folder, its database, the first owner's link, and uvicorn."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from sqlalchemy import text

from prefloop.collect import accounts, backup
from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import LOCK, is_behind, migrate
from prefloop.collect.web.app import create_app
from prefloop.collect.web.service import Service
from prefloop.errors import RunError

SQLITE_NAME = "collect.sqlite"
LOOPBACK = "127.0.0.1"
KEPT_OPEN = 75  # seconds of a connection that nothing is asked on: longer than people think, or than a proxy keeps its own
LINGERS = 3.0  # seconds in which PostgreSQL hears that a server was killed: whoever is started at once is not refused for it


def open_database(folder: Path, url: str) -> Database:
    """The database of a folder, brought up to date; one of an older version is copied first."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(database_url(url or f"sqlite:///{folder / SQLITE_NAME}"))
    try:
        if is_behind(database):
            backup.write(database, folder / "backups" / f"before-migration-{database.clock()}")
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def only_server(folder: Path, database: Database) -> Iterator[None]:
    """One server works on a database at a time; a second is refused before it opens a port."""
    with locked_file(folder) if database.is_sqlite else locked_postgresql(database) as is_ours:
        if not is_ours:
            raise RunError(
                f"another server works on {database.url.render_as_string()} already\n"
                f"  stop it first, or name another folder with --data or database with --database"
            )
        yield


@contextmanager
def locked_file(folder: Path) -> Iterator[bool]:
    """The kernel lets go of it when the process ends, however it ends."""
    with (folder / "server.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


@contextmanager
def locked_postgresql(database: Database) -> Iterator[bool]:
    """PostgreSQL lets go of it when the connection ends."""
    with database.readers.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # from the pool, which would keep it, and the lock, open
        ends = time.monotonic() + LINGERS
        while not (is_ours := bool(connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK + 1}))):
            if time.monotonic() > ends:
                break
            time.sleep(0.05)
        try:
            yield is_ours
        finally:
            if is_ours:  # the end of a connection is noticed a moment later, and the next server may be quicker
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK + 1})


def first_owner(database: Database, address: str) -> str:
    """The link that makes the first owner; empty where there is one."""
    if database.read(accounts.has_owner):
        return ""
    now = database.clock()
    secret = database.write(lambda connection: accounts.first_invite(connection, now=now))
    return f"{address}/invite#{secret}"


def serve(
    folder: Path,
    *,
    url: str = "",
    host: str = LOOPBACK,
    port: int = 8090,
    proxy: str = "",
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Serve until interrupted. ``proxy`` names the addresses whose X-Forwarded-* headers are believed."""
    database = open_database(folder, url)
    try:
        with only_server(folder, database):
            service = Service(database, folder)
            address = f"http://{host if host != '0.0.0.0' else 'localhost'}:{port}"
            if link := first_owner(database, address):
                say(f"nobody owns this installation yet; this link makes its owner, once, within 7 days:\n  {link}")
            if warning := not_persistent(folder):
                say(warning)
            say(f"serving {address} from {folder}; Ctrl-C stops")
            service.jobs.start()
            uvicorn.run(
                create_app(service), host=host, port=port, log_level="warning", access_log=False, server_header=False,
                proxy_headers=bool(proxy), forwarded_allow_ips=proxy or None, timeout_graceful_shutdown=10,
                timeout_keep_alive=KEPT_OPEN,
            )  # fmt: skip
            service.jobs.stop()
            service.talk.stop()
    finally:
        database.close()


def not_persistent(folder: Path) -> str:
    """A warning where the folder lies in memory: it goes with the machine, or the container."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    here = folder.resolve()
    holding = [mount for mount in mounts if len(mount) > 2 and here.is_relative_to(mount[1])]
    kind = max(holding, key=lambda mount: len(mount[1]))[2] if holding else ""
    return f"{folder} lies in memory ({kind}): everything in it is lost with this machine" if kind in ("tmpfs", "ramfs") else ""
