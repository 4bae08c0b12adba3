"""``prefloop`` as a person types it, in this process: no seconds of imports, and a failure shows where it came from."""

import os
import traceback
from typing import NamedTuple

from typer.testing import CliRunner

from prefloop.cli import app


class Outcome(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def prefloop(*words: str | os.PathLike[str]) -> Outcome:
    """A traceback that a person would have seen is in ``err``."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    seen = ""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        seen = "".join(traceback.format_exception(done.exception))
    return Outcome(done.exit_code, done.stdout, done.stderr + seen)
