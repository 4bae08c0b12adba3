"""The memory a run is said to need, beside the memory it came to hold: a study, for it runs a model of 7 million parameters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefloop.engine.memory import keep_memory

ROOT = Path(__file__).parents[1]
FACTOR = 1.5  # by which the two may differ, either way
RUNS = {
    "ppo, networks of their own": ("ppo", {}),
    "ppo, a shared trunk": ("ppo", {"share": "trunk"}),
    "ppo, one base": ("ppo", {"share": "adapters", "critic": "policy"}),
    "ppo, everything at once": ("ppo", {"share": "trunk", "optim": {"micro_tokens": 0}}),
    "reward, K = 4": ("reward", {}),
    "dpo": ("dpo", {}),
    "dpo, everything at once": ("dpo", {"optim": {"micro_tokens": 0}}),
    "kto": ("kto", {}),
    "rrhf": ("rrhf", {}),
    "grpo, K = 2": ("reinforce", {}),
}


def run(method: str, own: dict, folder: Path) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "tests.memory_of_a_run", method, json.dumps(own), str(folder)]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not keep_memory(), reason="how much a process holds is read where Linux and glibc say it")
@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_is_said_to_need_is_what_it_comes_to_hold(tmp_path_factory, name):
    found = run(*RUNS[name], tmp_path_factory.mktemp("memory"))
    assert found["measured"] / FACTOR <= found["reckoned"] <= found["measured"] * FACTOR, found
