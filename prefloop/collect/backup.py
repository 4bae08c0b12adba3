"""Copies of a database while it is in use, and putting one back.

SQLite is copied by its own online backup into one file. PostgreSQL has tools of its own for that (pg_dump, pg_restore), which
know it better; this writes the line to type.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import func, select, text

from prefloop.collect.database import Database, database_url
from prefloop.collect.tables import metadata
from prefloop.errors import DataError, RunError


def write(database: Database, target: Path) -> Path:
    """A copy of a SQLite database as one file; its path."""
    if not database.is_sqlite:
        raise RunError(
            "a PostgreSQL database is backed up with its own tools\n"
            f"  pg_dump --format=custom --file={target}.dump '{database.url.set(drivername='postgresql').render_as_string()}'"
        )
    target = target if target.suffix == ".sqlite" else target.with_name(f"{target.name}.sqlite")
    if target.exists():
        raise DataError(f"{target} is there already\n  name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with closing(sqlite3.connect(str(database.url.database))) as source, closing(sqlite3.connect(beside)) as copy:
            source.backup(copy, pages=1000, sleep=0.01)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, whole
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.chmod(0o600)
        beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def verify(file: Path) -> dict[str, int]:
    """The number of rows in each table of a backup that is sound; DataError where it is not."""
    if not file.is_file():
        raise DataError(f"there is no backup {file}")
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
            version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise DataError(f"{file} is no backup of prefloop collect: {error}") from None
    if said != ["ok"] or broken or version is None:
        raise DataError(f"{file} is damaged: {said[0]}, {len(broken)} rows that point nowhere\n  take an older backup")
    return counted(file)


def counted(file: Path) -> dict[str, int]:
    database = Database(database_url(str(file)))
    try:
        with database.snapshot() as connection:
            there = {row[0] for row in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'"))}
            tables = [table for table in metadata.sorted_tables if table.name in there]
            return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}
    finally:
        database.close()


def restore(file: Path, target: Path) -> dict[str, int]:
    """Put a backup in place of a database that no server has open; the old one is kept beside it."""
    rows = verify(file)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, beside)
    with beside.open("rb") as copied:
        os.fsync(copied.fileno())
    if target.exists():
        kept = target.with_name(f"{target.name}.before-restore")
        for ending in ("", "-wal", "-shm"):
            if (old := Path(f"{target}{ending}")).exists():
                old.replace(f"{kept}{ending}")
    beside.replace(target)
    return rows
