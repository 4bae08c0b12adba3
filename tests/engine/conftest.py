import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of a hundred numbers are no work to share, and sharing it costs a great deal on a machine with other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
