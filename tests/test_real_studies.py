"""The studies on real data: what can be seen to be wrong with them without running them, and how a study of rewards ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.study import load_study, references
from tests.command_line import prefloop
from tests.report.reading import Page

ROOT = Path(__file__).parent.parent
STUDIES = ("hh-harmless", "oasst-kway", "stories-sentiment")


def stages_of(name: str) -> dict[str, dict[str, Any]]:
    return load_study(ROOT / "configs" / f"{name}.yaml").stages


def leaks(stages: dict[str, dict[str, Any]]) -> list[str]:
    """Reward models whose language model, made from the same data, may have read what they are judged on."""
    found = []
    for name, settings in stages.items():
        trunk = stages.get(next(iter(references(settings.get("model", ""))), ""), {})
        same_split = all(trunk.get(key) == settings.get(key) for key in ("held_out", "seed"))
        if settings["do"] == "reward" and trunk.get("data") == settings["data"] and not same_split:
            found.append(name)
    return found


def test_a_leak_would_be_seen():
    base = {"do": "pretrain", "data": "pairs.jsonl", "held_out": 0.2}
    reward = {"do": "reward", "data": "pairs.jsonl", "held_out": 0.2, "model": "${base}/model"}
    assert leaks({"base": base, "reward": reward}) == []
    assert leaks({"base": base, "reward": {**reward, "held_out": 0.3}}) == ["reward"]
    assert leaks({"base": {**base, "seed": 1}, "reward": reward}) == ["reward"]


@pytest.mark.parametrize("name", STUDIES)
def test_no_language_model_has_read_what_its_reward_model_is_judged_on(name):
    assert leaks(stages_of(name)) == []


def test_the_two_sides_of_the_kway_study_differ_in_pairing_and_batch_alone():
    stages = stages_of("oasst-kway")
    sides = [name.removesuffix("_kway") for name in stages if name.endswith("_kway")]
    assert len(sides) == 4
    for name in sides:
        together, shuffled = stages[f"{name}_kway"], stages[f"{name}_shuffled"]
        assert {key for key in together | shuffled if together.get(key) != shuffled.get(key)} == {"pairing", "batch"}


TINY = """
name: tiny
include: {config}
seeds: [0, 1]
stages:
  base: {{data: {data}, vocabulary: 300, width: 16, layers: 1, heads: 2, context: 64, block: 32, batch: 2, steps: 1}}
  reward: {{data: {data}, held_out: 0.2, epochs: 1, max_prompt: 32, max_completion: 24, optim: {{lr: 1.0e-3}}}}
"""


def test_the_study_of_human_preferences_ends_with_accuracies_intervals_guessers_and_a_page(tmp_path):
    """configs/hh-harmless.yaml as it is, on made-up pairs and with a model of one layer."""
    pairs = [{"prompt": f"Who is {n}?", "chosen": f"{n} is a friend.", "rejected": f"{n} is nobody to me."} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    config = ROOT / "configs" / "hh-harmless.yaml"
    (tmp_path / "tiny.yaml").write_text(TINY.format(config=config, data=tmp_path / "pairs.jsonl"))
    outcome = prefloop("run", tmp_path / "tiny.yaml", "--out", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.err

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rows"], summary["baseline"]) == ([], None)
    (row,) = summary["rewards"]["rows"]
    for figure in ("accuracy", "loss", "prefers_longer", "prefers_shorter"):
        assert row[figure]["low"] <= row[figure]["mean"] <= row[figure]["high"] and row[figure]["n_seeds"] == 2
    assert (row["prefers_longer"]["mean"], row["prefers_shorter"]["mean"]) == (0.0, 1.0)
    assert [(pair["a"], pair["b"]) for pair in summary["rewards"]["paired"]] == [
        ("reward", "prefers_longer"),
        ("reward", "prefers_shorter"),
    ]
    for seed in (0, 1):
        told = json.loads((tmp_path / "out" / f"seed-{seed}" / "reward" / "summary.json").read_text())
        assert told["prompts"] == told["rankings"] == told["pairs"] < 40

    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "reward puts " in page.text and "“prefers the shorter” (" in page.text
    assert "100.0% [100.0, 100.0]" in page.text and "0.0% [0.0, 0.0]" in page.text
    assert "base " in page.text and f"prefloop run {tmp_path / 'tiny.yaml'}" in page.text
    assert str(tmp_path / "out" / "report.html") in outcome.out.splitlines()[-1]
    again = prefloop("report", tmp_path / "out", "--out", tmp_path / "zh.html", "--language", "zh")
    assert again.code == 0 and "各奖励模型对比" in (tmp_path / "zh.html").read_text()
