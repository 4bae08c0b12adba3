"""What can go wrong, by who can mend it. The message is the whole interface: what, where, what was allowed, what next."""


class PrefloopError(Exception):
    """Any failure prefloop explains itself; shown without a traceback unless --debug."""

    exit_code = 1


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
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed\n  pip install 'prefloop[{extra}]'")


class RunError(PrefloopError):
    """A run started and could not go on (a loss that is not a number, a disk that is full)."""

    exit_code = 1


class Waiting(PrefloopError):
    """Nothing failed; people have to answer before the loop can go on."""

    exit_code = 3


class Interrupted(PrefloopError):
    """Ctrl-C: what was done is saved, the run can be resumed."""

    exit_code = 130
