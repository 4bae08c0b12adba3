"""Both databases, real ones: SQLite with WAL and fsync, PostgreSQL started once for the session."""

from collections.abc import Callable, Iterator
from itertools import count

import psycopg
import pytest

from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import migrate
from tests.collect.postgres import CannotStart, Server

BOTH = ("sqlite", "postgresql")
numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running PostgreSQL; what asks for it is skipped where there can be none."""
    try:
        server = Server()
    except CannotStart as reason:
        pytest.skip(str(reason))
    yield server
    server.remove()


@pytest.fixture(scope="session")
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The address of a new, empty database of a kind."""

    def new(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('collect')}/collect.sqlite"
        server: Server = request.getfixturevalue("postgres")
        name = f"collect{next(numbers)}"
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return server.url(name)

    return new


@pytest.fixture(scope="module", params=BOTH)
def database(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Database]:
    """An open database with all tables; tests keep to projects of their own."""
    yield from opened(new_url(request.param))


@pytest.fixture(scope="module")
def sqlite(new_url: Callable[[str], str]) -> Iterator[Database]:
    """The same, where one kind is enough."""
    yield from opened(new_url("sqlite"))


@pytest.fixture(scope="module")
def postgresql(new_url: Callable[[str], str]) -> Iterator[Database]:
    """The same, for what only PostgreSQL does."""
    yield from opened(new_url("postgresql"))


def opened(url: str) -> Iterator[Database]:
    database = Database(database_url(url))
    migrate(database)
    yield database
    database.close()
