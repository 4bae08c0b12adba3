"""One writer to a run folder at a time."""

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO

from prefloop.errors import ConfigError

HELD: set[IO[str]] = set()


def let_go_in_children() -> None:
    """A forked worker inherits open files, and with them the lock; it must not keep it when its parent dies."""
    for file in HELD:
        file.close()
    HELD.clear()


os.register_at_fork(after_in_child=let_go_in_children)


def take_lock(folder: Path) -> IO[str]:
    """Hold ``folder/lock`` until it is released or the process ends, however it ends: what a dead process left does not block."""
    file = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = described(file.read())
        file.close()
        raise ConfigError(
            f"{folder} is being written by {holder}; two would mix their lines\n  wait for it, stop it, or choose another --out"
        ) from None
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    file.flush()
    HELD.add(file)
    return file


def release_lock(file: IO[str]) -> None:
    """The next writer may begin."""
    HELD.discard(file)
    file.close()


def described(content: str) -> str:
    """Who holds a lock, from what it wrote there."""
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not yet said who it is
        return "another process"
