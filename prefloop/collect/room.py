"""What a full disk looks like from here: in a file that is written, in SQLite, in PostgreSQL."""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_POSTGRESQL = "53100"
NO_ROOM = "there is no room left on the disk of the service"


def is_full(error: BaseException) -> bool:
    """Whether something could not be done for want of room on a disk."""
    if isinstance(error, OSError):
        return error.errno in FULL
    if isinstance(error, DBAPIError):
        cause = error.orig
        code = getattr(cause, "sqlite_errorcode", None)
        return (code is not None and code & 0xFF == sqlite3.SQLITE_FULL) or getattr(cause, "sqlstate", None) == FULL_POSTGRESQL
    return False
