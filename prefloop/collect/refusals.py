"""What the service says no with: a status, a code the page translates, and a sentence for everyone else."""

from typing import Any

from prefloop.errors import PrefloopError


class Refused(PrefloopError):
    """A request that is understood and not done. Nothing was changed by it."""

    exit_code = 2

    def __init__(self, status: int, code: str, message: str, **more: Any):
        super().__init__(message)
        self.status, self.code, self.more = status, code, more


def not_found(what: str) -> Refused:
    """Also what somebody hears who may not know that it exists."""
    return Refused(404, "not_found", f"there is no such {what}")
