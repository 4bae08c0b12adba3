"""Log-probabilities and rewards beside what transformers itself computes, with padding, in any batch."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Gemma2Config, GraniteConfig

from prefloop.models.heads import (
    at_rest,
    head_is_plain,
    hidden_states,
    output_head,
    policy_logprobs,
    policy_logprobs_and_entropy,
    sequence_rewards,
    without_dropout,
)
from prefloop.ops.logprobs import length_mask
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, config, policy, tokenizer

LENGTH = torch.tensor([9, 5, 12, 1])


def rows(*, padding: int, width: int = 12) -> torch.Tensor:
    """Random tokens of the lengths above, and what stands behind them."""
    tokens = torch.randint(3, len(tokenizer()), (len(LENGTH), width), generator=torch.Generator().manual_seed(0))
    return torch.where(length_mask(LENGTH, width), tokens, torch.full_like(tokens, padding))


def reward_model(architecture: str, *, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config(architecture, num_labels=1)).eval()


def wanted_in(tokens: torch.Tensor) -> torch.Tensor:
    wanted = length_mask(LENGTH, tokens.shape[1])
    wanted[:, 0] = False
    return wanted


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_logprobs_are_those_of_transformers_with_an_attention_mask(architecture):
    model, tokens = policy(architecture), rows(padding=0)
    logits = model(tokens, attention_mask=length_mask(LENGTH, 12).long()).logits / 0.7
    expected = torch.zeros(tokens.shape)
    expected[:, 1:] = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    wanted = wanted_in(tokens)
    assert_close(policy_logprobs(model, tokens, wanted, temperature=0.7), expected * wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_what_stands_in_the_padding_changes_nothing(architecture):
    model, critic = policy(architecture), reward_model(architecture)
    said = [policy_logprobs(model, rows(padding=p), wanted_in(rows(padding=p)), temperature=1.0) for p in (0, 2, 77)]
    judged = [sequence_rewards(critic, rows(padding=p), LENGTH) for p in (0, 2, 77)]
    for other in (1, 2):
        assert torch.equal(said[0], said[other])
        assert torch.equal(judged[0], judged[other])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_row_says_the_same_alone_and_among_others(architecture):
    model, critic, tokens = policy(architecture), reward_model(architecture), rows(padding=0)
    wanted = wanted_in(tokens)
    together, judged = policy_logprobs(model, tokens, wanted, temperature=1.0), sequence_rewards(critic, tokens, LENGTH)
    for row, n in enumerate(LENGTH.tolist()):
        alone = policy_logprobs(model, tokens[row : row + 1, :n], wanted[row : row + 1, :n], temperature=1.0)
        assert_close(together[row, :n], alone[0])
        assert_close(judged[row], sequence_rewards(critic, tokens[row : row + 1, :n], LENGTH[row : row + 1])[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_plain_transformers_reads_the_same_reward(architecture):
    critic, tokens = reward_model(architecture), rows(padding=tokenizer().pad_token_id)
    tokens[torch.arange(4), LENGTH - 1] = tokenizer().eos_token_id
    theirs = critic(tokens, attention_mask=length_mask(LENGTH, 12).long()).logits[:, 0]
    assert_close(sequence_rewards(critic, tokens, LENGTH), theirs)


def test_entropy_is_that_of_the_tempered_distribution_and_carries_no_gradient():
    model, tokens = policy(), rows(padding=0)
    wanted = wanted_in(tokens)
    both = policy_logprobs_and_entropy(model, tokens, wanted, temperature=2.0)
    with torch.no_grad():
        probability = (model(tokens).logits / 2.0).softmax(-1)
    expected = torch.zeros(tokens.shape)
    expected[:, 1:] = -(probability * probability.log()).sum(-1)[:, :-1]
    assert_close(both.entropy, expected * wanted)
    assert not both.entropy.requires_grad
    assert torch.equal(both.logprobs, policy_logprobs(model, tokens, wanted, temperature=2.0))


def test_the_gradient_is_that_of_the_full_logits():
    model, tokens = policy(seed=3).double(), rows(padding=0)
    wanted = wanted_in(tokens)
    policy_logprobs(model, tokens, wanted, temperature=1.0).sum().backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    logprobs = model(tokens).logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    (logprobs * wanted[:, 1:]).sum().backward()
    for name, parameter in model.named_parameters():
        assert_close(ours[name], parameter.grad)


SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
UNUSUAL = {
    "capped": Gemma2Config(**SIZES, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, initializer_range=1.0),
    "scaled": GraniteConfig(**SIZES, num_key_value_heads=1, logits_scaling=4.0, initializer_range=1.0),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@torch.no_grad()
def test_models_that_cap_or_scale_their_logits_are_noticed_and_scored_right(kind):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(UNUSUAL[kind]).eval()
    tokens = torch.randint(0, 40, (2, 6), generator=torch.Generator().manual_seed(1))
    wanted = torch.ones_like(tokens, dtype=torch.bool)
    wanted[:, 0] = False
    assert not head_is_plain(model)
    expected = model(tokens).logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    assert_close(policy_logprobs(model, tokens, wanted, temperature=1.0)[:, 1:], expected)
    both = policy_logprobs_and_entropy(model, tokens, wanted, temperature=1.0)
    assert_close(both.logprobs[:, 1:], expected)
    probability = model(tokens).logits[:, :-1].softmax(-1)
    assert_close(both.entropy[:, 1:], -(probability * probability.log()).sum(-1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ordinary_models_are_their_head_of_their_hidden_states(architecture):
    model, tokens = policy(architecture), rows(padding=0)
    assert head_is_plain(model)
    with torch.no_grad():
        assert_close(output_head(model)(hidden_states(model, tokens)), model(tokens).logits)


# ------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_without_dropout_training_mode_scores_as_evaluation_mode_does(architecture):
    dropout = {"attn_pdrop": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3} if architecture == "gpt2" else {"attention_dropout": 0.3}
    model, tokens = policy(architecture, **dropout), rows(padding=0)
    wanted = wanted_in(tokens)
    rested = policy_logprobs(model, tokens, wanted, temperature=1.0)
    model.train()
    assert not torch.equal(policy_logprobs(model, tokens, wanted, temperature=1.0), rested), "dropout must matter here"
    assert without_dropout(model) is model
    assert_close(policy_logprobs(model, tokens, wanted, temperature=1.0), rested)
    assert model.training


def test_at_rest_gives_every_module_its_mode_back_even_after_an_error():
    model = policy("gpt2").train()
    model.transformer.h[0].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), at_rest(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()
