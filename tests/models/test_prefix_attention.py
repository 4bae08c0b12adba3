"""Attention in parts beside attention under a mask, value by value and gradient by gradient, in double precision."""

import pytest
import torch

from prefloop.models.batch import RankedBatch
from prefloop.models.prefix_attention import PrefixAttention, attends_in_parts, layout_of
from prefloop.models.shared_prefix import packed_rows
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, policy

LENGTHS = {
    "all alike": ([5, 5], [[3, 3, 3], [3, 3, 3]]),
    "all unlike": ([7, 2, 4], [[1, 6, 3], [5, 2, 2], [4, 4, 1]]),
    "some completions missing": ([4, 6], [[2, 0, 3], [0, 0, 1]]),
    "a whole text shorter than another's prompt": ([9, 1], [[1, 2], [1, 1]]),
    "one completion": ([3], [[4]]),
    "one token each": ([1, 1], [[1, 1], [1, 1]]),
}


def batch_of(prompts: list[int], completions: list[list[int]]) -> RankedBatch:
    p, k = len(prompts), len(completions[0])
    width = max(map(max, completions))
    return RankedBatch(
        prompt=torch.ones(p, max(prompts), dtype=torch.long),
        prompt_length=torch.tensor(prompts),
        completion=torch.ones(p, k, width, dtype=torch.long),
        completion_length=torch.tensor(completions),
        tier=torch.zeros(p, k),
        is_candidate=torch.ones(p, k, dtype=torch.bool),
        weight=torch.ones(p),
    )


@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_token_sees_what_the_mask_lets_it_see_and_every_gradient_is_the_same(lengths):
    prompts, completions = LENGTHS[lengths]
    rows = packed_rows(batch_of(prompts, completions))
    p, width = rows.tokens.shape
    layout = layout_of(torch.tensor(prompts), torch.tensor(completions), width)
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(p, 2, width, 4, dtype=torch.float64, generator=rng).requires_grad_() for _ in range(3))
    is_token = (rows.is_completion | (torch.arange(width) < torch.tensor(prompts)[:, None]))[:, :, None, None]
    weight = torch.randn(p, width, 2, 4, dtype=torch.float64, generator=rng) * is_token

    score = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~rows.sees, -torch.inf)
    expected = (score.softmax(-1) @ v).transpose(1, 2)
    actual = PrefixAttention.apply(q, k, v, layout, 0.3)
    assert_close(actual * is_token, expected * is_token)
    derived = torch.autograd.grad((expected * weight).sum(), (q, k, v))
    for one, other in zip(torch.autograd.grad((actual * weight).sum(), (q, k, v)), derived, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_and_other_precisions_are_left_to_the_model(architecture):
    model = policy(architecture).base_model
    assert attends_in_parts(model.eval())
    assert not attends_in_parts(policy(architecture).base_model.bfloat16())
    name = "attn_pdrop" if architecture == "gpt2" else "attention_dropout"
    setattr(model.config, name, 0.1)
    assert attends_in_parts(model.eval())
    assert not attends_in_parts(model.train())
