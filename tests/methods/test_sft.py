"""SFT: masked cross-entropy, a folder per epoch, a validation loss beside the training loss."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from prefloop.data.read import read_demonstrations
from prefloop.data.write import split_by_prompt
from prefloop.errors import DataError
from prefloop.methods.sft import of_demonstrations
from prefloop.models.load import load_policy
from tests.helpers import assert_close
from tests.methods.toy import WORLD, history, run_sft, saved, toy, toy_encoder

SPLIT = {"held_out": 0.4, "seed": 1}  # of the eight prompts of the world, some on each side


def by_hand(folder, demonstrations) -> list[list[float]]:
    """The negative log-likelihood of each token of each answer, its end included, from transformers alone."""
    model, encoder = AutoModelForCausalLM.from_pretrained(folder), toy_encoder()
    costs = []
    for shown in demonstrations:
        prompt, answer = encoder.prompt_ids(shown.prompt), encoder.completion_ids(shown.completion.text)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].double()
        logprobs = logits.log_softmax(-1)
        costs.append([-float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(answer)])
    return costs


def test_the_first_loss_of_a_run_is_the_masked_cross_entropy_computed_by_hand(tmp_path):
    run_sft(tmp_path, batch=400)
    costs = by_hand(toy() / "base", read_demonstrations(toy() / "demonstrations.jsonl").records)
    assert len(costs) == 400
    assert_close(torch.tensor(history(tmp_path)[0]["loss"]), sum(map(sum, costs)) / sum(map(len, costs)))


def test_a_mean_over_answers_lets_short_answers_weigh_as_much_as_long_ones(tmp_path):
    run_sft(tmp_path, batch=400, weights="sequence_mean")
    costs = by_hand(toy() / "base", read_demonstrations(toy() / "demonstrations.jsonl").records)
    assert len({len(cost) for cost in costs}) > 2
    assert_close(torch.tensor(history(tmp_path)[0]["loss"]), sum(sum(cost) / len(cost) for cost in costs) / len(costs))


class Deaf(nn.Module):
    """A language model that hears nothing: its logits depend on the place alone, so the tokens of a batch are labels only."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.hidden = nn.Parameter(torch.randn(32, 8, generator=draw))
        self.head = nn.Linear(8, 7, bias=False)
        self.base_model = lambda input_ids, use_cache: SimpleNamespace(last_hidden_state=self.places(input_ids))

    def places(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.hidden[: tokens.shape[1]].expand(len(tokens), -1, -1)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.places(input_ids)))


def loss_and_gradient(model: nn.Module, batch):
    loss = of_demonstrations(model, batch).value
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


def test_the_tokens_of_a_prompt_are_no_labels():
    model, encoder = Deaf(), toy_encoder()
    batch = encoder.demonstrations(WORLD.demonstrations(6, seed=3))
    start = len(encoder.prompt_ids(WORLD.prompts[0]))
    other_prompt, other_answer = batch.tokens.clone(), batch.tokens.clone()
    other_prompt[:, :start] = (other_prompt[:, :start] + 1) % 7
    other_answer[:, start] = (other_answer[:, start] + 1) % 7

    value, gradient = loss_and_gradient(model, batch)
    same_value, same_gradient = loss_and_gradient(model, replace(batch, tokens=other_prompt))
    assert torch.equal(value, same_value)
    assert all(torch.equal(own, other) for own, other in zip(gradient, same_gradient, strict=True))
    assert loss_and_gradient(model, replace(batch, tokens=other_answer))[0] != value  # the answer's are


def test_with_learn_prompt_they_are():
    encoder = toy_encoder()
    batch = encoder.demonstrations(WORLD.demonstrations(6, seed=3), learn_prompt=True)
    other = batch.tokens.clone()
    other[:, 1] = (other[:, 1] + 1) % 7  # the first token is predicted by nothing
    assert loss_and_gradient(Deaf(), batch)[0] != loss_and_gradient(Deaf(), replace(batch, tokens=other))[0]


def test_padding_changes_neither_loss_nor_gradient():
    model = load_policy(toy() / "base")
    batch = toy_encoder().demonstrations(WORLD.demonstrations(12, seed=5))
    assert len(set(batch.length.tolist())) > 1  # some rows are padded already
    noise = torch.randint(0, 7, (len(batch.length), 5), generator=torch.Generator().manual_seed(1))
    filled = torch.where(torch.arange(batch.tokens.shape[1]) < batch.length[:, None], batch.tokens, 3)
    wider = replace(
        batch, tokens=torch.cat([filled, noise], 1), token_weight=torch.cat([batch.token_weight, torch.zeros(len(noise), 5)], 1)
    )
    value, gradient = loss_and_gradient(model, batch)
    same_value, same_gradient = loss_and_gradient(model, wider)
    assert_close(same_value, value)
    for own, other in zip(gradient, same_gradient, strict=True):
        assert_close(other, own)


def test_every_epoch_leaves_a_model_and_the_last_one_is_the_result(tmp_path):
    constant = {"optim": {"schedule": "constant"}, "batch": 64}
    run_sft(tmp_path / "two", epochs=2, **constant)
    run_sft(tmp_path / "one", epochs=1, **constant)
    assert sorted(folder.name for folder in (tmp_path / "two" / "epochs").iterdir()) == ["1", "2"]
    assert saved(tmp_path / "two", "epochs/1") == saved(tmp_path / "one")
    assert saved(tmp_path / "two", "epochs/2") == saved(tmp_path / "two")
    assert saved(tmp_path / "two", "epochs/1") != saved(tmp_path / "two", "epochs/2")


def test_the_summary_has_both_curves_and_the_validation_loss_is_that_of_the_saved_epoch(tmp_path):
    summary = run_sft(tmp_path, epochs=2, batch=64, **SPLIT)
    records = read_demonstrations(toy() / "demonstrations.jsonl").records
    train, held_out = split_by_prompt(records, **SPLIT)
    assert not {shown.prompt.id for shown in train} & {shown.prompt.id for shown in held_out}
    assert summary["demonstrations"] == len(train)
    for line in summary["epochs"]:
        costs = by_hand(tmp_path / "epochs" / str(line["epoch"]), held_out)
        assert_close(torch.tensor(line["validation_loss"]), sum(map(sum, costs)) / sum(map(len, costs)))
        of_epoch = [row["loss"] for row in history(tmp_path) if row["epoch"] == line["epoch"]]
        assert_close(line["train_loss"], sum(of_epoch) / len(of_epoch))
    assert [line["epoch"] for line in summary["epochs"]] == [1, 2]


def test_too_few_prompts_to_hold_any_out_is_said(tmp_path, capsys):
    summary = run_sft(tmp_path, held_out=0.001, batch=400)
    assert "too few prompts to hold out 0% of them: there will be no validation loss" in capsys.readouterr().err
    assert summary["epochs"][0]["validation_loss"] is None


def test_rows_the_model_cannot_read_whole_are_refused_before_training(tmp_path):
    (tmp_path / "long.jsonl").write_text('{"prompt": "a b", "completion": "' + "a " * 40 + '"}\n')
    with pytest.raises(DataError, match=r"1 of 1 rows of .*long\.jsonl are longer than the model can read: the longest has 43"):
        run_sft(tmp_path / "run", data=tmp_path / "long.jsonl")
