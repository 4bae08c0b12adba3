"""What may not change a result, through the commands a person types: how much is computed at once, and by how many processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.children import words
from tests.command_line import prefloop
from tests.helpers import assert_close
from tests.methods.toy import (
    history,
    ppo_settings,
    preference_settings,
    reinforce_settings,
    reward_settings,
    rules_settings,
    sft_settings,
    toy,
)

ROOT = Path(__file__).parents[1]


def run(method: str, out: Path, settings: dict[str, Any]) -> Path:
    outcome = prefloop(*words(method, settings, out))
    assert outcome.code == 0, outcome.err
    return out


def assert_same_run(one: Path, other: Path, *, model: str = "model") -> None:
    """The same figures and the same weights, within what rounding in another order may do to float32."""
    mine, theirs = history(one), history(other)
    assert [line.keys() for line in mine] == [line.keys() for line in theirs]
    for own, their in zip(mine, theirs, strict=True):
        assert_close(torch.tensor(list(own.values())), torch.tensor(list(their.values())))
    weights, expected = (load_file(folder / model / "model.safetensors") for folder in (one, other))
    for name in expected:
        assert_close(weights[name], expected[name])


FEW = {
    "sft": lambda folder: sft_settings(folder, epochs=2, batch=50, held_out=0.4, seed=1),
    "reward": lambda folder: reward_settings(folder, batch=25, epochs=1),
    "ppo": lambda folder: ppo_settings(
        folder, rounds=2, minibatch=8, critic="trunk", ptx=0.2, text=folder / "corpus.txt", ptx_rows=5, ptx_block=8
    ),
    "dpo": lambda folder: preference_settings(folder, batch=25, reference=folder / "base"),  # else the first margins are ties
    "kto": lambda folder: preference_settings(folder, batch=25, reference=folder / "base", desirable=1.2),
    "rrhf": lambda folder: preference_settings(folder, batch=25, epochs=1),
    "rules": lambda folder: rules_settings(folder, batch=300, epochs=1, balance=True),
    "reinforce": lambda folder: reinforce_settings(folder, method="dapo", rounds=2),
}


@pytest.mark.parametrize("method", FEW)
def test_rows_computed_at_once_change_nothing(tmp_path, method):
    own = FEW[method](toy())
    at_once = run(method, tmp_path / "all", own)
    for size in (1, 8):
        assert_same_run(run(method, tmp_path / str(size), {**own, "optim": {"micro_batch": size}}), at_once)


def test_this_comparison_sees_a_change(tmp_path):
    own = FEW["sft"](toy())
    one, other = run("sft", tmp_path / "one", own), run("sft", tmp_path / "other", {**own, "batch": 49})
    with pytest.raises(AssertionError):
        assert_same_run(one, other)


def test_answers_drawn_side_by_side_change_nothing(tmp_path):
    own = ppo_settings(toy(), rounds=2, k=3)
    at_once = run("ppo", tmp_path / "all", own)
    for rows in (1, 5):
        assert_same_run(run("ppo", tmp_path / str(rows), {**own, "sample_rows": rows}), at_once)
    for rows in (1, 7, 256):
        drawn = {"model": own["model"], "prompts": own["prompts"], "template": "plain", "max_new_tokens": 4, "sample_rows": rows}
        run("sample", tmp_path / f"sample-{rows}", drawn)
    drawn_texts = [answers_in((tmp_path / f"sample-{rows}" / "completions.jsonl").read_text()) for rows in (1, 7, 256)]
    assert len(drawn_texts[0]) == 8
    assert drawn_texts[0] == drawn_texts[1] == drawn_texts[2]


def answers_in(lines: str) -> tuple[tuple[str, ...], ...]:
    """The texts of the answers to each prompt."""
    groups = [json.loads(line) for line in lines.splitlines()]
    return tuple(tuple(completion["content"]["text"] for completion in group["completions"]) for group in groups)


# ------------------------------------------------------------------------------------------------------ processes


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory) -> Path:
    """SFT and a reward model by one process, and by two that share every step, as torchrun would start them."""
    out = tmp_path_factory.mktemp("two")
    program = [sys.executable, "-m", "tests.children", "two", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"toy": [0], "one": [0], "two": [0, 0]}, done.stderr
    return out


@pytest.mark.parametrize("method", ["sft", "reward"])
def test_two_processes_make_the_run_of_one(one_and_two, method):
    assert_same_run(one_and_two / "two" / method, one_and_two / "one" / method)
    meta = {name: json.loads((one_and_two / name / method / "meta.json").read_text()) for name in ("one", "two")}
    assert [meta[name]["machine"]["processes"] for name in ("one", "two")] == [1, 2]


def test_two_processes_save_every_epoch_once(one_and_two):
    for epoch in ("1", "2"):
        assert_same_run(one_and_two / "two" / "sft", one_and_two / "one" / "sft", model=f"epochs/{epoch}")
    left = sorted(path.name for path in (one_and_two / "two" / "sft" / "epochs").iterdir())
    assert left == ["1", "2"]  # nothing half written stays behind


def test_and_judge_the_held_out_rows_alike(one_and_two):
    for method in ("sft", "reward"):
        one, two = (json.loads((one_and_two / name / method / "summary.json").read_text()) for name in ("one", "two"))
        assert one.keys() == two.keys()
    losses = [
        [line["validation_loss"] for line in json.loads((one_and_two / name / "sft" / "summary.json").read_text())["epochs"]]
        for name in ("one", "two")
    ]
    assert_close(torch.tensor(losses[1]), losses[0])
