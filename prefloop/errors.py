"""What can go wrong, by who can mend it. The message is the whole interface: what, where, what was allowed, what next."""

import difflib
from collections.abc import Callable
from pathlib import Path


class PrefloopError(Exception):
    """Any failure prefloop explains itself; shown without a traceback unless --debug."""

    exit_code = 1

    @property
    def is_refusal(self) -> bool:
        """Whether it was told before anything was done, for the user to mend: what it made on the way need not be kept."""
        return self.exit_code == 2


class ConfigError(PrefloopError):
    """A setting is unknown, malformed, or contradicts another."""

    exit_code = 2


class DataError(PrefloopError):
    """A file, folder or record cannot be used as it is."""

    exit_code = 2


class NotInstalled(PrefloopError):
    """An optional package is missing; the message holds the line that installs it."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str):
        self.given = (package, extra, purpose)
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed\n  pip install 'prefloop[{extra}]'")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:  # between processes
        return type(self), self.given


class RunError(PrefloopError):
    """A run started and could not go on (a loss that is not a number, a disk that is full)."""

    exit_code = 1


class Waiting(PrefloopError):
    """Nothing failed; people have to answer before the loop can go on."""

    exit_code = 3


class Interrupted(PrefloopError):
    """Ctrl-C: what was done is saved, the run can be resumed."""

    exit_code = 130


def nearest_path(path: Path, fits: Callable[[Path], bool] = Path.exists) -> Path | None:
    """What somebody may have meant who typed a path that is not there: each missing part as the most alike name beside it.

    ``confgs/five-sedes.yaml`` gives ``configs/five-seeds.yaml``. None where a part is like nothing that is there, or where the
    path so found does not fit; ``fits`` is asked of folders on the way, too.
    """
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if part == ".." or (found / part).exists():
            found = found / part
            continue
        beside = sorted(one.name for one in found.iterdir()) if found.is_dir() else []
        near = [found / name for name in difflib.get_close_matches(part, beside, n=3)]
        if not near:
            return None
        found = next((one for one in near if fits(one)), near[0])
    return found if found != path and fits(found) else None
