"""DPO and its relatives: the first step, the reference, adapters, what is refused. The optimum is in test_dpo_optimum.py."""

import json
import math

import numpy as np
import pytest

from prefloop.data.read import read_groups
from prefloop.data.write import write_groups
from prefloop.errors import ConfigError, DataError
from prefloop.methods.dpo import DPOConfig
from prefloop.records import Ranking
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, run_dpo, shorter_than_the_last_step, table, toy


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"loss": "dpo"}, math.log(2)),
        ({"loss": "dpo", "smoothing": 0.2}, math.log(2)),
        ({"loss": "plackett_luce"}, None),
        ({"loss": "ipo", "beta": 0.25}, (1 / (2 * 0.25)) ** 2),
    ],
)
def test_before_the_first_update_policy_and_reference_agree(tmp_path, settings, expected):
    run_dpo(tmp_path, **settings)
    first = history(tmp_path)[0]
    assert_close(np.array([first["rewards/chosen"], first["rewards/margins"]]), np.zeros(2))
    if expected is not None:
        assert_close(np.float32(first["loss"]), expected)


@pytest.mark.parametrize("loss", ["dpo", "plackett_luce", "ipo", "simpo", "orpo"])
def test_every_loss_learns_to_prefer_what_was_preferred(tmp_path, loss):
    summary = run_dpo(tmp_path, loss=loss, epochs=4, held_out=0.3, optim={"lr": 3e-3})
    steps = history(tmp_path)
    accuracy = [step["rewards/accuracies"] for step in steps]
    assert np.mean(accuracy[-4:]) > np.mean(accuracy[:4]) + 0.02
    assert summary["pair_accuracy"]["mean"] > 0.55
    assert summary["pair_accuracy"]["n_prompts"] > 0 and summary["steps"] == len(steps)


def test_a_reference_of_its_own_is_the_one_distance_is_measured_from(tmp_path):
    """From the untrained base, distance measured from the SFT model: the first margin is the difference of the two."""
    group = shorter_than_the_last_step(read_groups(toy() / "rankings.jsonl").records)
    write_groups(tmp_path / "few.jsonl", group)
    run = tmp_path / "run"
    run_dpo(run, model=toy() / "base", reference=toy() / "sft" / "model", data=tmp_path / "few.jsonl", batch=1000)
    base, reference = table(toy() / "base"), table(toy() / "sft" / "model")
    margins = []
    for one in group:
        place = {c.id: (WORLD.prompts.index(one.prompt), WORLD.texts.index(c.text)) for c in one.completions}
        for ranking in one.rankings:
            pairs = [0.1 * ((base - reference)[place[a]] - (base - reference)[place[b]]) for a, b in ranking.pairs()]
            if pairs:
                margins.append(np.mean(pairs))
    assert_close(np.float32(history(run)[0]["rewards/margins"]), np.mean(margins))


def test_with_an_adapter_only_the_adapter_learns_and_the_folder_holds_it_alone(tmp_path):
    run_dpo(tmp_path, epochs=2, adapter={"rank": 2}, optim={"lr": 1e-2})
    model = tmp_path / "model"
    assert (model / "adapter_model.safetensors").is_file() and not (model / "model.safetensors").exists()
    start, learned = table(toy() / "sft" / "model"), table(model)
    assert np.abs(start - learned).max() > 0.05
    assert json.loads((model / "adapter_config.json").read_text())["base_model_name_or_path"] == str(toy() / "sft" / "model")


def test_the_usual_beta_depends_on_the_loss_and_is_written_down(tmp_path):
    assert [DPOConfig.of(model="m", data="d", loss=loss).beta for loss in ("dpo", "ipo", "simpo")] == [0.1, 0.1, 2.0]
    assert DPOConfig.of(model="m", data="d", loss="simpo", beta=3).beta == 3
    run_dpo(tmp_path, loss="simpo")
    assert "beta: 2.0" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    "settings",
    [{"loss": "ipo", "smoothing": 0.1}, {"margin": 0.5}, {"loss": "simpo", "reference": "there"}, {"loss": "dpo", "lam": 0.3}],
)
def test_a_setting_that_the_loss_would_ignore_is_refused(settings):
    with pytest.raises(ConfigError, match="which would ignore it"):
        DPOConfig.of(model="m", data="d", **settings)


def test_rankings_that_order_nothing_are_refused(tmp_path):
    two = WORLD.groups(WORLD.demonstration_logprobs, 1, k=2, seed=0)[0]
    ids = tuple(c.id for c in two.completions)
    tied = Ranking(prompt_id=two.prompt.id, tiers=(ids,), shown=ids, annotator="ada")
    write_groups(tmp_path / "tied.jsonl", [two.model_copy(update={"rankings": (tied,)})])
    with pytest.raises(DataError, match=r"no prompt of .* has two answers in different places"):
        run_dpo(tmp_path / "run", data=str(tmp_path / "tied.jsonl"))
