"""What would go wrong where the service is to run: the database, the disk, the clock. Each with what mends it."""

import os
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from prefloop.collect.serve import SQLITE_NAME, not_persistent

OLDEST_SQLITE = (3, 35, 0)  # RETURNING
ROOM = 2**30  # bytes: some hundred thousand judgments
SLOW_MS, SYNCS = 20.0, 16
LONG_AGO = 1_735_689_600  # 2025: before anything this could be installed from
APART = 2.0  # seconds between the clock of the machine and that of its files
FAR_AWAY = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs")


class Finding(NamedTuple):
    """One thing that was looked at."""

    ok: bool
    name: str
    found: str
    mend: str = ""
    is_needed: bool = True  # False: it works, and worse


def main(folder: Path, url: str, say: Callable[[str], object]) -> int:
    """Every finding as a line; 0 if a service can run here, else 1."""
    findings = examine(folder, url)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok" if finding.ok else ("BAD" if finding.is_needed else "note")
        say(f"{mark:6}{finding.name:{width}}  {finding.found}")
        if not finding.ok and finding.mend:
            say(f"{'':6}{'':{width}}  -> {finding.mend}")
    broken = [finding.name for finding in findings if finding.is_needed and not finding.ok]
    say(f"a service cannot run in {folder}: mend {', '.join(broken)}" if broken else f"a service can run in {folder}")
    return 1 if broken else 0


def examine(folder: Path, url: str) -> list[Finding]:
    """Everything there is to know of a folder, which need not be there yet, and of the database at an address."""
    place = folder if folder.is_dir() else nearest_folder(folder)
    if not os.access(place, os.W_OK):
        return [Finding(False, "folder", f"{place} cannot be written", "name another folder with --data")]
    probe = place / f".doctor-{os.getpid()}"
    probe.mkdir()
    try:
        found = [Finding(True, "folder", f"{folder}{'' if folder.is_dir() else ', which is not there yet'}")]
        found += [sqlite(probe, folder)] if not url else [postgresql()]
        return [*found, disk(place), syncs(probe), clock(probe), persistence(place), distance(place)]
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(one for one in path.resolve().parents if one.is_dir())


def sqlite(probe: Path, folder: Path) -> Finding:
    """Whether this SQLite can do what is asked of it in this folder, and whether the database there is whole."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return Finding(
            False, "sqlite", f"{sqlite3.sqlite_version} is too old", f"Python with SQLite {'.'.join(map(str, OLDEST_SQLITE))}"
        )
    try:
        with sqlite3.connect(probe / "probe.sqlite") as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.close()
        if mode != "wal":
            return Finding(
                False, "sqlite", f"no write-ahead log can be kept here ({mode})", "a local disk, or --database postgresql://…"
            )
        if (folder / SQLITE_NAME).is_file():
            whole = sqlite3.connect(f"file:{folder / SQLITE_NAME}?mode=ro", uri=True)
            said = whole.execute("PRAGMA quick_check(1)").fetchone()[0]
            whole.close()
            if said != "ok":
                return Finding(False, "sqlite", f"{SQLITE_NAME} is damaged: {said}", "prefloop collect restore COPY.sqlite")
    except sqlite3.Error as error:
        return Finding(False, "sqlite", str(error), "a local disk, or prefloop collect restore COPY.sqlite")
    return Finding(True, "sqlite", f"{sqlite3.sqlite_version}, with a write-ahead log")


def postgresql() -> Finding:
    is_there = find_spec("psycopg") is not None
    return Finding(
        is_there, "postgresql", "psycopg is there" if is_there else "psycopg is missing", "pip install 'prefloop[postgres]'"
    )


def disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    return Finding(
        free > ROOM, "room", f"{free / 2**30:.1f} GiB free", "make room: a full disk refuses what people submit", False
    )


def syncs(probe: Path) -> Finding:
    """How long it takes until something is on the disk, which everybody who submits waits for."""
    took = []
    with (probe / "sync").open("wb") as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    middle = statistics.median(took)
    return Finding(middle < SLOW_MS, "fsync", f"{middle:.1f} ms, at worst {max(took):.1f}", "a disk of one's own", False)


def clock(probe: Path) -> Finding:
    (probe / "now").touch()
    now, apart = time.time(), abs(time.time() - (probe / "now").stat().st_mtime)
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if apart > APART:
        return Finding(False, "clock", f"{said}, and {apart:.0f} s from that of the disk", "set both by NTP", False)
    return Finding(now > LONG_AGO, "clock", said, "set it: leases and sessions end by it")


def persistence(place: Path) -> Finding:
    warning = not_persistent(place)
    return Finding(not warning, "kept", warning or "the folder does not lie in memory", "a volume, or a folder on a disk", False)


def distance(place: Path) -> Finding:
    """Locks on a network file system are no locks, so that two servers could write at once."""
    kind = mounted_as(place, mounts())
    return Finding(
        kind not in FAR_AWAY, "near", f"a {kind or 'nameless'} file system", "a local disk, or --database postgresql://…"
    )


def mounts() -> str:
    try:
        return Path("/proc/mounts").read_text()
    except OSError:
        return ""


def mounted_as(place: Path, table: str) -> str:
    """The kind of file system a folder lies on, by the longest mount point above it."""
    listed = [line.split() for line in table.splitlines()]
    above = [mount for mount in listed if len(mount) > 2 and place.resolve().is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2] if above else ""
