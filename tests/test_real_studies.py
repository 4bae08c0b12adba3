"""The studies on real data: what can be seen to be wrong with them without running them, and how a study of rewards ends."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from prefloop.config import Options
from prefloop.models.load import save_model
from prefloop.models.tokenizer import new_llama, train_tokenizer
from prefloop.study import config_class, load_study, references
from tests.command_line import prefloop
from tests.report.reading import Page

ROOT = Path(__file__).parent.parent
STUDIES = ("hh-harmless", "oasst-kway", "stories-sentiment", "real-preferences")
LEARNS = ("reward", "dpo", "kto", "rrhf")  # and judges on rankings or thumbs it holds out


def stages_of(name: str) -> dict[str, dict[str, Any]]:
    return load_study(ROOT / "configs" / f"{name}.yaml").stages


def leaks(stages: dict[str, dict[str, Any]]) -> list[str]:
    """What is judged on held-out choices although its language model, made from the same data, may have read them."""
    found = []
    for name, settings in stages.items():
        trunk = stages.get(next(iter(references(settings.get("model", ""))), ""), {})
        same_split = all(trunk.get(key) == settings.get(key) for key in ("held_out", "seed"))
        if settings["do"] in LEARNS and trunk.get("data") == settings["data"] and not same_split:
            found.append(name)
    return found


def test_a_leak_would_be_seen():
    base = {"do": "pretrain", "data": "pairs.jsonl", "held_out": 0.2}
    reward = {"do": "reward", "data": "pairs.jsonl", "held_out": 0.2, "model": "${base}/model"}
    assert leaks({"base": base, "reward": reward}) == []
    assert leaks({"base": base, "reward": {**reward, "held_out": 0.3}}) == ["reward"]
    assert leaks({"base": {**base, "seed": 1}, "reward": reward}) == ["reward"]
    assert leaks({"base": base, "dpo": {**reward, "do": "dpo", "held_out": 0.3}}) == ["dpo"]


@pytest.mark.parametrize("name", STUDIES)
def test_no_language_model_has_read_what_is_judged_on_it(name):
    assert leaks(stages_of(name)) == []


def test_the_two_sides_of_the_kway_study_differ_in_pairing_and_batch_alone():
    stages = stages_of("oasst-kway")
    sides = [name.removesuffix("_kway") for name in stages if name.endswith("_kway")]
    assert len(sides) == 4
    for name in sides:
        together, shuffled = stages[f"{name}_kway"], stages[f"{name}_shuffled"]
        assert {key for key in together | shuffled if together.get(key) != shuffled.get(key)} == {"pairing", "batch"}


def test_every_method_sees_the_same_rows_of_a_set_and_is_judged_on_the_same_prompts():
    stages = stages_of("real-preferences")
    sets = {name.rpartition("_")[0] for name in stages if name.endswith("_rrhf")}
    assert len(sets) == 4
    for name in sets:
        sides = [stages[f"{name}_{method}"] for method in LEARNS]
        for key in ("data", "held_out", "max_prompt", "max_completion", "batch", "epochs", "model"):
            assert len({str(side.get(key)) for side in sides}) == 1, (name, key)


# ------------------------------------------------------------------------------------------------ the sets themselves

SETS = {
    "hh_rlhf_harmless/pairs.jsonl.gz": LEARNS,
    "ultrafeedback_pairs/train_clean.jsonl.gz": LEARNS,
    "pku_saferlhf_pairs/pairs.jsonl.gz": LEARNS,
    "oasst1_en_validation/ranked_groups.jsonl.gz": LEARNS,
    "oasst2_filtered_trees/ranked_groups.jsonl.gz": LEARNS,
    "dpo_demo_en_zh/kto_en.jsonl.gz": ("kto",),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_the_commands_learn_from_a_real_set_as_it_was_published(data, tmp_path, name):
    """Its first rows, unchanged, and a model of one layer: every command trains a step and judges what it held out."""
    lines = gzip.decompress((data / name).read_bytes()).decode().splitlines()[:24]
    rows = tmp_path / Path(name).name.removesuffix(".gz")
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer([line[:2000] for line in lines], vocab_size=400)
    model = new_llama(tokenizer, width=16, layers=1, heads=2, kv_heads=1, context=768, seed=0)
    save_model(model, tokenizer, tmp_path / "model", card={})
    sizes = {"max_prompt": 704, "max_completion": 32, "max_dropped": 1.0, "held_out": 0.5, "epochs": 1, "batch": 32}
    for command in SETS[name]:
        cls, main = config_class(command)
        given = {"model": str(tmp_path / "model"), "data": str(rows), "template": "dialogue", **sizes}
        summary = main(cls.of(**given), Options(out=tmp_path / command, device="cpu"))
        told = [summary.get("pair_accuracy"), summary.get("auc")][command == "kto"]
        assert summary["steps"] == 1 and told["n_prompts"] > 1
        assert 0 <= told["low"] <= told["mean"] <= told["high"] <= 1


# ------------------------------------------------------------------------------------------------ a study, at a size a test can hold

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
