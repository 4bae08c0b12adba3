"""Changes of which none needs what another one returns: one after the other on SQLite, which is a function call away, and in one
statement on PostgreSQL, where each would be a way there and back."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

Change = tuple[Any, dict[str, Any]]  # an insert or update that is made once, and what it is given
GIVEN = re.compile(r"%\((\w+)\)s")
DIALECT = postgresql.psycopg.dialect()


def at_once(connection: Connection, changes: Sequence[Change]) -> None:
    """All of them, in the transaction that is open. They do not see each other, and no two may touch the same row."""
    if connection.dialect.name == "sqlite":
        for statement, given in changes:
            connection.execute(statement, given)
        return
    parts: list[str] = []
    params: dict[str, Any] = {}
    for number, (statement, given) in enumerate(changes):
        part, fixed = written(statement, tuple(given), number)
        parts.append(part)
        params |= {f"c{number}_{name}": value for name, value in {**fixed, **given}.items()}
    before = ", ".join(f"c{number} AS ({part})" for number, part in enumerate(parts[:-1]))
    connection.exec_driver_sql(f"WITH {before} {parts[-1]}" if before else parts[-1], params)


@lru_cache(maxsize=256)
def written(statement: Any, names: tuple[str, ...], number: int) -> tuple[str, dict[str, Any]]:
    """A statement for PostgreSQL with names of its own for what it is given, and the values it brings itself."""
    made = statement.compile(dialect=DIALECT, column_keys=list(names))
    fixed = {name: value for name, value in made.params.items() if name not in names}
    return GIVEN.sub(rf"%(c{number}_\1)s", str(made)), fixed
