"""One writer to a run folder at a time."""

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
    """Hold ``folder/lock`` until it is released or the process ends, however it ends: what a dead process left does not block.

    The folder is made where there is none.
    """
    with as_a_refusal(folder):
        folder.mkdir(parents=True, exist_ok=True)
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
    if not is_at(folder / "lock", file):  # whoever held it has just removed the folder: this file is in nobody's way
        file.close()
        return take_lock(folder)
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    file.flush()
    HELD.add(file)
    return file


def release_lock(file: IO[str]) -> None:
    """The next writer may begin."""
    HELD.discard(file)
    file.close()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """The lock of a folder for as long as the block runs."""
    file = take_lock(folder)
    try:
        yield
    finally:
        release_lock(file)


def remove_folder(folder: Path) -> None:
    """Remove a folder that nobody is writing. It has another name before its lock goes, so nobody can begin in what is left."""
    with only_writer(folder), as_a_refusal(folder):
        going = folder.with_name(f".{folder.name[:60]}.removed")  # a name may have 255 bytes
        shutil.rmtree(going, ignore_errors=True)
        folder.rename(going)
        shutil.rmtree(going)


def not_there(folder: Path) -> list[Path]:
    """A folder and those above it that are yet to be made, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def remove_what_was_made(folder: Path, names: Iterable[str], made: list[Path]) -> None:
    """Take back a beginning: the files of these names, and then the folders made for it that are empty."""
    with suppress(OSError):  # whatever cannot be removed stays; the refusal is what has to be told
        for name in (*names, "lock"):
            (folder / name).unlink(missing_ok=True)
        for one in made:
            one.rmdir()


def is_at(path: Path, file: IO[str]) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def as_a_refusal(folder: Path) -> Iterator[None]:
    """What the system says of a folder that cannot be had, in one message; a full disk is another matter."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{folder} cannot be written to: {error.strerror or error}\n  choose another --out, or mend this one"
        ) from None


def described(content: str) -> str:
    """Who holds a lock, from what it wrote there."""
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not yet said who it is
        return "another process"
