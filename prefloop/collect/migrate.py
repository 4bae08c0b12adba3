"""Bringing a database to the version this code was written for, and refusing one that is newer.

The scripts in ``migrations/versions`` are Alembic's; they are run without its configuration file, because the database that
is migrated is the one that was just opened.
"""

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from prefloop.collect.database import Database
from prefloop.errors import DataError

LOCK = 7_208_201  # PostgreSQL's advisory lock: two servers that start together migrate once


def scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations"))


def newest() -> str:
    """The version this code was written for."""
    return str(scripts().get_current_head())


def version_of(connection: Connection) -> str:
    """The version of a database; empty where it has no tables yet."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def is_behind(database: Database) -> bool:
    """Whether there are tables, of an older version: what is worth a backup."""
    return database.read(version_of) not in ("", newest())


def migrate(database: Database) -> None:
    """All versions up to the newest, in one transaction: it is done or it is not."""
    database.write(migrate_in)


def migrate_in(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    here, wanted, directory = version_of(connection), newest(), scripts()
    try:
        steps = directory._upgrade_revs(wanted, here or "base") if here != wanted else []
    except CommandError:
        raise DataError(
            f"the database is of version {here}, which this prefloop does not know (it knows up to {wanted})\n"
            f"  it was written by a newer prefloop: install that one"
        ) from None
    context = MigrationContext.configure(connection, opts={"fn": lambda revision, context: steps})
    with Operations.context(context):
        context.run_migrations()
