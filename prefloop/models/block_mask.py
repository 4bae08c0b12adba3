"""Attention in rows of a prompt and several completions on a GPU, without the blocks of pairs that do not see each other.

FlexAttention (Dong et al., arXiv 2412.05496) takes a mask as blocks of 128 x 128 pairs: where nobody sees anybody a block is
not computed, forward or backward; where all see all it is computed without a mask; in the others the mask is asked pair by
pair. So completions do not pay for each other but at the edges of blocks, and the mask of a row exists in blocks only.

    part  P L  whose token stands in a column: 0 the prompt's, k + 1 completion k's, K + 1 nobody's

PyTorch computes its gradients on GPUs alone, so ``prefix_attention.py`` is what a processor uses. Whether the kernel takes a
model's heads is asked of the kernel itself, once, and where it does not, ``why_not_in_blocks`` has its words.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward

from prefloop.models.folder import first_line
from prefloop.models.last_layer import is_called_again
from prefloop.models.prefix_attention import FAMILIES, attending_by, has_dropout

NAME = "prefloop_blocks"
BLOCK = 128  # pairs a side, as the kernel has it


def blocks_of(part: Tensor, *, block: int = BLOCK) -> BlockMask:
    """P L -> the mask of every row: a token sees the prompt and its own part, up to itself.

    Pairs are looked at once for all layers and heads, as P L L truth values that are let go again.
    """

    def sees(p: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        is_own = (part[p, j] == 0) | (part[p, i] == part[p, j])
        return is_own & (j <= i)

    return create_block_mask(sees, len(part), None, part.shape[1], part.shape[1], device=part.device, BLOCK_SIZE=block)


# ------------------------------------------------------------------------------------------------ within a model

_blocks: list[BlockMask] = []  # of the rows that are being read


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **rest: Any
) -> tuple[Tensor, Tensor | None]:
    """As transformers calls it: P H L C -> P L H C. GPT-2 takes no mask of blocks, so it does not come by way of the model."""
    return flex_attention_forward(module, query, key, value, _blocks[-1], **rest)


AttentionInterface.register(NAME, attend)


@contextmanager
def attending_in_blocks(model: Any, part: Tensor) -> Iterator[None]:
    """Inside, the model's layers attend by ``attend``, to rows of these parts."""
    _blocks.append(blocks_of(part))
    try:
        with attending_by(model, NAME):
            yield
    finally:
        _blocks.pop()


def why_not_in_blocks(model: Any) -> str:
    """Why this way is closed to a model; nothing where it is open."""
    config = model.config
    if model.device.type != "cuda":
        return f"FlexAttention has no gradient on {model.device.type}"
    if config.model_type not in FAMILIES:
        return f"how {config.model_type} attends is not known here"
    if has_dropout(model):
        return "attention has dropout"
    if is_called_again(model):
        return "gradient checkpointing calls layers again, when the mask is gone"
    n_query = config.num_attention_heads
    n_key = getattr(config, "num_key_value_heads", None) or n_query
    return refusal(model.device, model.dtype, n_query, n_key, getattr(config, "head_dim", None) or config.hidden_size // n_query)


@cache
def refusal(device: torch.device, dtype: torch.dtype, n_query: int, n_key: int, size: int) -> str:
    """The kernel's words where it does not take such heads, tried forward and backward; nothing where it does."""
    part = torch.tensor([[0] * BLOCK + [1] * 9 + [2] * 9], device=device)
    query, key, value = (
        torch.ones(1, heads, part.shape[1], size, device=device, dtype=dtype, requires_grad=True)
        for heads in (n_query, n_key, n_key)
    )
    try:
        with torch.enable_grad():
            said, _ = flex_attention_forward(nn.Module(), query, key, value, blocks_of(part), scaling=1.0)
            torch.autograd.grad(said.sum(), (query, key, value))
    except (RuntimeError, ValueError) as error:  # of the kernel, of its compiler, or that there is none
        return first_line(error)
    return ""
