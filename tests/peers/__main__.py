"""python -m tests.peers [pytest arguments]: pytest in the environment that the benchmarks keep for TRL, made where it is missing."""

import os
import subprocess
import sys

from benchmarks.environments import pip, python_of
from benchmarks.machine import ROOT

FOLDER = "tests/peers"
# None of the project's own settings of pytest: its plugins are not there, and the peer's libraries do warn.
PLAIN = ["-c", os.devnull, "--rootdir", FOLDER, "--confcutdir", FOLDER, "-p", "no:cacheprovider", "-q", "-rs"]


def main(arguments: list[str]) -> int:
    python = python_of("trl-1.16")
    if subprocess.run([python, "-c", "import pytest"], capture_output=True).returncode:
        pip(python, "-c", str(ROOT / "constraints.txt"), "pytest")
    given = arguments or [FOLDER]
    return subprocess.run([python, "-m", "pytest", *PLAIN, *given], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
