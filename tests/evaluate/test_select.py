"""The epoch to go on with is chosen by reward, whatever the validation loss says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from prefloop.engine.randomness import derived_seed
from prefloop.errors import ConfigError, DataError, RunError
from prefloop.evaluate.select import SelectConfig, main
from prefloop.models.load import load_policy
from prefloop.models.sampling import sample
from tests.evaluate.scorers import words
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, options, plain, run_sft, saved, toy, toy_encoder

LONG, SHORT = "python:tests.evaluate.scorers:words", "python:tests.evaluate.scorers:fewer_words"


def selected(out: Path, **own) -> dict:
    settings = {"run": toy() / "sft", "prompts": toy() / "prompts.jsonl", "max_new_tokens": WORLD.n_steps - 1, **own}
    return main(SelectConfig.of(**plain(settings)), options(out))


@pytest.fixture
def disagreement(tmp_path) -> Path:
    """An SFT run whose last epoch has by far the highest validation loss."""
    run = tmp_path / "sft"
    shutil.copytree(toy() / "sft", run)
    summary = json.loads((run / "summary.json").read_text())
    for line, loss in zip(summary["epochs"], (0.1, 0.5, 9.0), strict=True):
        line["validation_loss"] = loss
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def test_the_epoch_with_the_highest_reward_is_chosen_even_where_its_validation_loss_is_the_highest(tmp_path, disagreement):
    by_gold = selected(tmp_path / "gold", run=disagreement, reward="python:tests.methods.toy:gold")
    assert [line["epoch"] for line in by_gold["epochs"]] == [1, 2, 3]
    rewards = [line["reward"]["mean"] for line in by_gold["epochs"]]
    assert by_gold["chosen_epoch"] == 1 + int(np.argmax(rewards)) != 1 + int(np.argmin([0.1, 0.5, 9.0]))
    assert [line["chosen"] for line in by_gold["epochs"]] == [value == max(rewards) for value in rewards]
    assert saved(tmp_path / "gold") == saved(disagreement, f"epochs/{by_gold['chosen_epoch']}")
    assert [line["validation_loss"] for line in by_gold["epochs"]] == [0.1, 0.5, 9.0]  # it stands beside

    against = selected(tmp_path / "against", run=disagreement, reward="python:tests.methods.toy:against_gold")
    assert against["chosen_epoch"] == 1 + int(np.argmin(rewards)) != by_gold["chosen_epoch"]
    assert saved(tmp_path / "against") == saved(disagreement, f"epochs/{against['chosen_epoch']}")


def test_the_reward_of_an_epoch_is_the_mean_over_its_answers_all_drawn_from_the_same_seed(tmp_path):
    table = selected(tmp_path, reward=LONG)["epochs"]
    assert {line["reward"]["n"] for line in table} == {len(WORLD.prompts)}
    for line in table:
        policy = load_policy(toy() / "sft" / "epochs" / str(line["epoch"]))
        samples = sample(
            policy, toy_encoder(), WORLD.prompts, k=1, max_new_tokens=WORLD.n_steps - 1, seed=derived_seed(0, "sample")
        )
        assert_close(line["reward"]["mean"], np.mean(words(samples.prompts, samples.completions)))


def test_of_equals_the_earliest_is_taken(tmp_path):
    assert selected(tmp_path, reward="python:tests.evaluate.scorers:constant")["chosen_epoch"] == 1


def test_the_tenth_epoch_comes_after_the_ninth(tmp_path):
    run_sft(tmp_path / "sft", epochs=11, batch=400)
    table = selected(tmp_path / "out", run=tmp_path / "sft", reward=SHORT)["epochs"]
    assert [line["epoch"] for line in table] == list(range(1, 12))
    assert [line["train_loss"] for line in table] == [line["loss"] for line in history(tmp_path / "sft")]


def test_what_is_no_finished_sft_run_is_refused(tmp_path, disagreement):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match="holds no epochs/ folder with models; run= must be the folder of a finished prefloop sft"
    ):
        selected(tmp_path / "a", run=tmp_path / "empty", reward=LONG)
    (disagreement / "summary.json").unlink()
    with pytest.raises(ConfigError, match="is not finished; go on with --resume"):
        selected(tmp_path / "b", run=disagreement, reward=LONG)


def test_a_reward_that_is_no_number_chooses_nothing(tmp_path):
    with pytest.raises(RunError, match="completions no finite number"):
        selected(tmp_path, reward="python:tests.evaluate.scorers:nothing")
    assert not (tmp_path / "model").exists() and not (tmp_path / "summary.json").exists()


def test_gold_does_not_choose(tmp_path):
    with pytest.raises(ConfigError, match="reward = 'world:en' is the world's gold, which no choice between models may see"):
        selected(tmp_path, reward="world:en")


def test_what_an_interrupted_choice_has_left_is_not_mixed_with_the_next(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model-00002-of-00002.safetensors").touch()
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    again = SelectConfig.of(
        **plain({"run": toy() / "sft", "prompts": toy() / "prompts.jsonl", "max_new_tokens": 2, "reward": LONG})
    )
    chosen = main(again, options(tmp_path, resume=True))["chosen_epoch"]
    names = {path.name for path in (toy() / "sft" / "epochs" / str(chosen)).iterdir()}
    assert {path.name for path in (tmp_path / "model").iterdir()} == names
