"""A run of any method, killed anywhere and gone on with, is the run that nobody disturbed: figures and weights, to the last bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.children import FAULTS, name_of, settings, words
from tests.engine.children import KILLED
from tests.methods.toy import history, ppo_settings, reward_settings, sft_settings, toy

ROOT = Path(__file__).parents[1]
EVERY_FAULT = [(method, point) for method, faults in FAULTS.items() for point, _ in faults]


def story(run: Path) -> tuple[list[dict], str, dict, dict[str, bytes]]:
    """Everything a run leaves behind, without what tells the time."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    untimed = {name: value for name, value in summary.items() if not name.startswith("time/")}
    models = {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("*model.safetensors"))}
    return history(run), (run / "samples.jsonl").read_text(encoding="utf-8"), untimed, models


@pytest.fixture(scope="module")
def killed_runs(tmp_path_factory) -> tuple[Path, dict[str, list[int]], str]:
    out = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "tests.children", "killed", str(out)]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(("method", "point"), EVERY_FAULT)
def test_killed_at_a_fault_point_and_resumed_a_run_leaves_the_same_behind(killed_runs, method, point):
    out, status, said = killed_runs
    assert status[method] == [0], said
    assert status[name_of(method, point)] == [KILLED, 0], said  # it did die there, and it did get to the end afterwards
    figures, samples, summary, models = story(out / name_of(method, point))
    expected_figures, expected_samples, expected_summary, expected_models = story(out / method)
    assert figures == expected_figures
    assert samples == expected_samples
    assert models.keys() == expected_models.keys() and models  # compared one by one: a difference of megabytes says nothing
    assert [name for name in models if models[name] != expected_models[name]] == []
    assert summary == expected_summary


def test_the_runs_that_are_compared_have_a_state_worth_restoring(killed_runs):
    """Otherwise starting afresh at the checkpoint would look the same."""
    lines = {method: history(killed_runs[0] / method) for method in FAULTS}
    assert len({line["lr"] for line in lines["sft"]}) > 3
    assert len({line["lr"] for line in lines["reward"]}) > 3
    assert len({line["kl_price"] for line in lines["ppo"]}) == 4
    assert all("of_text/loss" in line for line in lines["ppo"])
    assert [line["step"] for line in lines["ppo"]] == [0, 1, 2, 3]


# ------------------------------------------------------------------------------------------------------ the long runs


def started(method: str, own: dict, out: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    typed = [sys.executable, "-m", "prefloop.cli", *words(method, own, out), "--resume"]
    return subprocess.Popen(typed, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("method", "kills"), [("sft", 3), ("reward", 3), ("ppo", 4)])
def test_killed_at_random_moments_by_the_system_a_command_resumed_leaves_the_same_behind(tmp_path, method, kills):
    longer = {"sft": {"epochs": 12}, "reward": {"epochs": 12}, "ppo": {"rounds": 16}}[method]
    fill = {"sft": sft_settings, "reward": reward_settings, "ppo": ppo_settings}[method]
    own = fill(toy(), **{**settings(toy())[method], **longer})
    whole = started(method, own, tmp_path / "whole")
    begin = time.monotonic()
    _, said = whole.communicate()
    assert whole.returncode == 0, said
    duration = time.monotonic() - begin

    chance, n_killed, n_finished = random.Random(f"{method} {time.time()}"), 0, 0
    while n_killed < kills or n_finished == 0:
        folder = tmp_path / f"killed-{n_finished}"
        process = started(method, own, folder)
        try:
            patience = chance.uniform(0.2, 1.0) * duration if n_killed < kills else None
            _, said = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_killed += 1
            continue
        assert process.returncode == 0, said
        assert story(folder) == story(tmp_path / "whole")
        n_finished += 1
    assert n_killed == kills
