"""What is never made: logits of prompts and padding, distributions of all positions at once, a second pass where one will do."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, CohereConfig

from prefloop.engine.learner import Learner, Term
from prefloop.methods import ppo
from prefloop.methods.ppo import PPOConfig, credit, of_both
from prefloop.models.batch import RankedBatch, RolloutBatch
from prefloop.models.critic import load_critic
from prefloop.models.heads import hidden_states, policy_logprobs
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.ops import logprobs as ops_logprobs
from prefloop.ops.logprobs import span_mask
from tests.helpers import assert_close
from tests.methods.test_ppo import two_answers
from tests.models import tiny

ROWS, WIDTH = 16, 48


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that an operation returns while it is watched, the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def rollouts(width: int = WIDTH) -> RolloutBatch:
    """Answers of 4 to 40 tokens to prompts of 8."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 200, (ROWS, width), generator=draw)
    length = torch.linspace(12, width, ROWS).long()
    is_response = span_mask(torch.full((ROWS,), 8), length, width)
    noise = partial(torch.randn, (ROWS, width), generator=draw)
    return RolloutBatch(
        tokens=tokens, length=length, is_response=is_response, old_logprobs=-noise().abs(), old_values=noise(), advantages=noise(),
        returns=noise(), token_weight=is_response / is_response.sum(), weight=torch.ones(ROWS),
    )  # fmt: skip


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("chunk", [32, None])
def test_the_distributions_of_all_positions_are_never_there_together(monkeypatch, architecture, chunk):
    """Forward and backward. In chunks of 32 positions nothing is half as large as B x T x V."""
    model, batch = tiny.policy(architecture), rollouts()
    vocabulary = model.config.vocab_size
    policy_logprobs(model, batch.tokens[:1], batch.is_response[:1], temperature=1.0)  # the head is looked at once
    if chunk:
        monkeypatch.setattr(ops_logprobs, "positions_at_once", lambda n_words: chunk)
    with Largest() as watched:
        policy_logprobs(model, batch.tokens, batch.is_response, temperature=1.0).sum().backward()
    everything = ROWS * WIDTH * vocabulary
    answers = int(batch.is_response.sum()) * vocabulary  # neither prompts nor padding reach the head
    assert watched.numbers <= (everything / 2 if chunk else answers) < everything
    with Largest() as naive:
        model(input_ids=batch.tokens).logits.log_softmax(-1).sum().backward()
    assert naive.numbers >= everything


@pytest.mark.parametrize("width", [3, 40])
def test_nor_where_completions_share_their_prompt(monkeypatch, width):
    """Packed, with a long prompt; and a row for each, with a short one."""
    model, draw = tiny.policy(), torch.Generator().manual_seed(1)
    ranked = RankedBatch(
        prompt=torch.randint(3, 200, (3, width), generator=draw), prompt_length=torch.full((3,), width),
        completion=torch.randint(3, 200, (3, 4, 6), generator=draw), completion_length=torch.full((3, 4), 6),
        tier=torch.zeros(3, 4, dtype=torch.long), is_candidate=torch.ones(3, 4, dtype=torch.bool), weight=torch.ones(3),
    )  # fmt: skip
    completion_logprobs(model, ranked)
    monkeypatch.setattr(ops_logprobs, "positions_at_once", lambda n_words: 8)
    with Largest() as watched:
        completion_logprobs(model, ranked).sum().backward()
    assert watched.numbers < 3 * 4 * 6 * model.config.vocab_size


def test_a_part_is_no_wider_than_its_longest_row(monkeypatch):
    """Sixteen rows of 12 to 48 tokens: with at most 192 at once far fewer are computed than sixteen times the longest."""
    seen = []

    def watched(model, batch):
        seen.append(tuple(batch.tokens.shape))
        return ppo.of_rollouts(model, batch, config=config())

    Learner(tiny.policy(), lr=1e-3, steps=1, micro_tokens=192, device="cpu").step(Term(watched, rollouts()))
    real = int(rollouts().length.sum())
    assert all(rows * width <= 192 for rows, width in seen)
    assert real <= sum(rows * width for rows, width in seen) < 0.8 * ROWS * WIDTH


def config() -> PPOConfig:
    return PPOConfig.of(model="m", reward="r", prompts="p", share="trunk")


def test_policy_and_value_share_a_forward_pass_on_a_shared_trunk():
    shared, batch, passes = load_critic("trunk", tiny.policy(), "", "", seed=0, device="cpu"), rollouts(), []
    torch.nn.init.ones_(shared.value_head.weight)
    hidden_states(shared.policy, batch.tokens)  # the head is looked at once
    policy_logprobs(shared.policy, batch.tokens[:1], batch.is_response[:1], temperature=1.0)
    handle = shared.policy.base_model.register_forward_hook(lambda *given: passes.append(given))
    of_both(shared, batch, config=config())
    assert len(passes) == 1
    handle.remove()


def test_a_trunk_whose_logits_are_not_its_heads_alone_gives_the_models_own_logprobs():
    """Cohere scales its logits."""
    model = scaled()
    shared, batch = load_critic("trunk", model, "", "", seed=0, device="cpu"), rollouts()
    logprobs, _ = shared.logprobs_and_values(batch.tokens, batch.is_response, temperature=0.7)
    assert_close(logprobs, policy_logprobs(model, batch.tokens, batch.is_response, temperature=0.7))


def test_what_the_sampler_said_of_an_answer_is_not_computed_again():
    samples = two_answers()
    nothing = torch.zeros(2, 5)
    assert credit(samples, torch.zeros(2), nothing, nothing, kl=0.1, config=config()).old_logprobs is samples.logprobs


def scaled():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 290}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            CohereConfig(**sizes, logit_scale=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        ).eval()
