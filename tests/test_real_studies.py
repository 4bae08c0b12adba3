"""The studies on real data: what can be seen to be wrong with them without running them."""

from pathlib import Path
from typing import Any

import pytest

from prefloop.study import load_study, references

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
