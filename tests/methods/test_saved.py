"""What every method owes its data and its folder: each row once a pass, dropout while it learns, and a model that comes back."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefloop.config import Options
from prefloop.engine.learner import Learner
from prefloop.errors import RunError
from prefloop.methods import ppo, pretrain, reward, sft
from prefloop.models.load import save_model
from tests.methods.toy import run_ppo, run_reward, run_sft, toy

SMALL = {"vocabulary": 300, "width": 16, "heads": 2, "layers": 1, "steps": 3, "batch": 2, "block": 16, "context": 32}


def run_pretrain(out, **settings):
    own = pretrain.PretrainConfig.of(text=str(toy() / "corpus.txt"), **{**SMALL, **settings})
    return pretrain.main(own, Options(out=out, device="cpu"))


QUICK = {
    "sft": (sft, partial(run_sft, batch=400)),
    "reward": (reward, partial(run_reward, batch=200)),
    "ppo": (ppo, partial(run_ppo, rounds=1)),
    "pretrain": (pretrain, run_pretrain),
}


def damaged(model, tokenizer, folder, **settings) -> None:
    """Saved, and then one number of every tensor is another."""
    save_model(model, tokenizer, folder, **settings)
    file = folder / "model.safetensors"
    weights = load_file(file)
    for weight in weights.values():
        weight.view(-1)[0] += 1.0
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("module", "run"), QUICK.values(), ids=QUICK)
def test_a_model_that_does_not_come_back_as_it_was_is_no_finished_run(tmp_path, monkeypatch, module, run):
    monkeypatch.setattr(module, "save_model", damaged)
    with pytest.raises(RunError, match="has other weights than the one in memory"):
        run(tmp_path)
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("method", ["sft", "reward", "pretrain"])
def test_updates_are_made_in_training_mode_so_that_dropout_is_on(tmp_path, monkeypatch, method):
    modes = []

    def watched(learner, *terms, plain=Learner.step, **settings):
        modes.append(learner.model.training)
        return plain(learner, *terms, **settings)

    monkeypatch.setattr(Learner, "step", watched)
    QUICK[method][1](tmp_path)
    assert modes and all(modes)


@pytest.mark.parametrize(
    ("module", "run", "n_steps"),
    [
        (sft, partial(run_sft, batch=90, epochs=2), 2 * 5),
        (reward, partial(run_reward, batch=60, epochs=2), None),
        (pretrain, partial(run_pretrain, batch=16, steps=40), 40),
    ],
    ids=["sft", "reward", "pretrain"],
)
def test_a_pass_sees_every_row_once_and_the_next_in_another_order(tmp_path, monkeypatch, module, run, n_steps):
    seen: list[int] = []
    sizes, plain = [], module.take

    def watched(batch, rows):
        if isinstance(rows, torch.Tensor):
            seen.extend(rows.tolist())
            sizes.append(len(batch.weight))
        return plain(batch, rows)

    monkeypatch.setattr(module, "take", watched)
    run(tmp_path)
    assert len(set(sizes)) == 1 and n_steps in (None, len(sizes))
    n = sizes[0]
    first, second = seen[:n], seen[n : 2 * n]
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second
