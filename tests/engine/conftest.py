import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Children(NamedTuple):
    """What the processes of children.py left behind, and how each of them ended."""

    folder: Path
    status: dict[str, list[int]]
    said: str


@pytest.fixture(scope="session")
def children(tmp_path_factory) -> Children:
    folder = tmp_path_factory.mktemp("children")
    command = [sys.executable, "-m", "tests.engine.children", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Children(folder, json.loads(done.stdout), done.stderr)
