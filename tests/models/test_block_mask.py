"""Attention by FlexAttention's blocks beside attention under a mask of all pairs. Gradients are compared where there is a GPU."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention import flex_attention as flex
from torch.nn.functional import max_pool2d, pad
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefloop.models.batch import move
from prefloop.models.block_mask import blocks_of, refusal, why_not_in_blocks
from prefloop.models.heads import output_head, without_dropout
from prefloop.models.shared_prefix import (
    flat_logprobs,
    flat_scores,
    packed_hidden_states,
    packed_logprobs,
    packed_rows,
    packed_scores,
    reads_packed_rows,
    way_of,
)
from tests.helpers import assert_close
from tests.models.test_batch import GROUPS, ranked_of
from tests.models.test_heads import reward_model
from tests.models.test_prefix_attention import LENGTHS, batch_of
from tests.models.test_shared_prefix import in_doubles
from tests.models.tiny import ARCHITECTURES, config, policy

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
LONG = ([40, 33], [[20, 20, 11, 20, 20, 20], [9, 20, 0, 20, 3, 1]])  # 151 columns: two blocks a side
MIXTURES = {**LENGTHS, "more than a block": LONG}


@pytest.fixture
def uncompiled(monkeypatch):
    """The same arithmetic pair by pair, as PyTorch has it for looking at masks: no compiler, no gradient."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(
        "transformers.integrations.flex_attention.compile_friendly_flex_attention",
        lambda query, key, value, training, **given: flex.flex_attention(query, key, value, **given),
    )


# ------------------------------------------------------------------------------------------------ the mask


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_pair_by_pair_it_is_the_mask_of_a_packed_row(groups):
    rows = packed_rows(ranked_of(groups))
    p, width = rows.part.shape
    whole = flex.create_mask(blocks_of(rows.part).mask_mod, p, None, width, width, device="cpu")
    assert torch.equal(whole, rows.sees)


@pytest.mark.parametrize("lengths", MIXTURES)
def test_a_block_is_computed_where_somebody_in_it_sees_somebody(lengths):
    rows = packed_rows(batch_of(*MIXTURES[lengths]))
    more = -rows.part.shape[1] % 4
    expected = max_pool2d(pad(rows.sees.float(), (0, more, 0, more)), 4)
    assert torch.equal(blocks_of(rows.part, block=4).to_dense().float(), expected)


def test_most_blocks_of_many_answers_are_left_out():
    """A prompt of 4 blocks and 9 answers of one each: 4 x 5 / 2 of the prompt, and 9 x 5 of the answers, of 13 x 13."""
    n_computed = blocks_of(packed_rows(batch_of([512], [[128] * 9])).part).to_dense().sum()
    assert int(n_computed) == 4 * 5 // 2 + 9 * 5


# ------------------------------------------------------------------------------------------------ within a model


def mixed(lengths: str):
    """A batch of these lengths with tokens of all kinds."""
    batch = batch_of(*MIXTURES[lengths])
    rng = torch.Generator().manual_seed(0)
    for tokens in (batch.prompt, batch.completion):
        tokens.copy_(torch.randint(3, 200, tokens.shape, generator=rng))
    return batch


@pytest.mark.parametrize("lengths", MIXTURES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_logits_are_those_under_a_mask_of_all_pairs(architecture, lengths, uncompiled):
    for model in (policy(architecture), in_doubles(policy(architecture))):
        rows = packed_rows(mixed(lengths))
        is_real = rows.part <= len(MIXTURES[lengths][1][0])
        by_blocks, masked = (output_head(model)(packed_hidden_states(model, rows, way=way)) for way in ("blocks", "mask"))
        assert by_blocks.dtype == model.dtype
        assert_close(by_blocks[is_real], masked[is_real])


@pytest.mark.parametrize("lengths", MIXTURES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_scores_and_logprobs_are_those_of_rows_of_their_own(architecture, lengths, uncompiled, monkeypatch):
    monkeypatch.setattr("prefloop.models.shared_prefix.way_of", lambda base: "blocks")
    batch, model, speaker = mixed(lengths), reward_model(architecture), policy(architecture)
    assert_close(packed_scores(model, batch, max_rows=32), flat_scores(model, batch, max_rows=32))
    said = (way(speaker, batch, temperature=0.7, max_rows=32) for way in (packed_logprobs, flat_logprobs))
    assert_close(next(said), next(said))


def with_heads_of_16(architecture: str) -> torch.nn.Module:
    """Features of a head that the kernel's products have at the least; and no dropout, which GPT-2 has."""
    shape = config(architecture)
    shape.update({"n_embd": 64} if architecture == "gpt2" else {"hidden_size": 64, "head_dim": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = without_dropout(AutoModelForCausalLM.from_config(shape))
    for name in ("attn_pdrop", "attention_dropout"):
        setattr(model.config, name, 0.0)
    return model


@NEEDS_CUDA
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_on_a_gpu_it_is_taken_and_changes_neither_values_nor_gradients(architecture):
    model = with_heads_of_16(architecture).to("cuda").train()
    assert why_not_in_blocks(model.base_model) == ""
    results = []
    for way in (packed_logprobs, flat_logprobs):
        model.zero_grad()
        table = way(model, move(mixed("more than a block"), "cuda"), temperature=0.7, max_rows=32)
        (table * torch.linspace(1, 2, table.numel(), device="cuda").view(table.shape)).sum().backward()
        results.append([table.detach(), *(p.grad / p.grad.norm() for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) > 4
    for by_blocks, alone in zip(*results, strict=True):
        assert_close(by_blocks, alone)


# ------------------------------------------------------------------------------------------------ where it is closed


def on_gpu(**given) -> SimpleNamespace:
    settings_ = {"model_type": "llama", "attention_dropout": 0.0, "num_attention_heads": 4, "hidden_size": 64, **given}
    return SimpleNamespace(
        device=torch.device("cuda"), dtype=torch.float32, training=True, config=SimpleNamespace(**settings_), modules=list
    )


def test_a_closed_way_says_why(monkeypatch):
    monkeypatch.setattr("prefloop.models.block_mask.refusal", lambda *heads: f"asked for {heads[2:]}")
    assert why_not_in_blocks(policy().base_model) == "FlexAttention has no gradient on cpu"
    assert why_not_in_blocks(on_gpu(model_type="gemma")) == "how gemma attends is not known here"
    assert why_not_in_blocks(on_gpu(attention_dropout=0.1)) == "attention has dropout"
    assert why_not_in_blocks(on_gpu()) == "asked for (4, 4, 16)"
    assert why_not_in_blocks(on_gpu(num_key_value_heads=2, head_dim=32)) == "asked for (4, 2, 32)"


def test_the_kernel_is_asked_whether_it_takes_the_heads_of_a_model(uncompiled):
    assert "backward on CPU" in refusal(torch.device("cpu"), torch.float32, 4, 2, 16)


def test_where_the_kernel_takes_no_such_heads_its_words_are_repeated_and_the_mask_is_used(monkeypatch):
    model = policy("llama")
    monkeypatch.setattr(PreTrainedModel, "device", torch.device("cuda"))
    monkeypatch.setattr("prefloop.models.block_mask.refusal", lambda *heads: "too few features")
    with pytest.warns(UserWarning, match="under a mask of all pairs, which is slower than in blocks: too few features"):
        assert reads_packed_rows(model)
    assert way_of(model.base_model) == "mask"
