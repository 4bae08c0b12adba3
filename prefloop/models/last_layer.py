"""What nobody reads is not computed: behind the last layer's attention, only the places whose states are asked for.

A reward model reads one token of a text, a policy's loss the answer's tokens. Attention needs the keys and values of every
token, but what the last layer does with what its attention saw, the projection and the two or three products of its
feed-forward part, concerns each token alone. In a model of L layers that is about 2 / (3 L) of all work.

Elsewhere the states are what entered the last layer, and mean nothing.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WORTH = 0.9  # the share of places up to which gathering and putting back pays


def behind_attention(base: Any) -> list[nn.Module]:
    """The modules of the last layer that treat each token alone; none where the architecture is not known here."""
    kind = getattr(getattr(base, "config", None), "model_type", None)
    if kind in ("llama", "qwen2", "mistral"):
        return [base.layers[-1].self_attn.o_proj, base.layers[-1].mlp]
    if kind == "gpt2":
        return [base.h[-1].attn.c_proj, base.h[-1].mlp]
    return []


def is_called_again(model: nn.Module) -> bool:
    """Whether layers are called a second time, in the backward pass: gradient checkpointing, while it trains."""
    return any(module.training and getattr(module, "gradient_checkpointing", False) for module in model.modules())


@contextmanager
def reading_only(base: Any, read: Tensor | None) -> Iterator[None]:
    """Inside, ``base`` gives its last hidden states at the True places of ``read`` (B T), and no sense elsewhere.

    With gradient checkpointing, which calls a layer again when all this is over, everything is computed.
    """
    parts = [] if read is None else behind_attention(base)
    if parts and (is_called_again(base) or float(read.double().mean()) > WORTH):
        parts = []
    with ExitStack() as stack:
        for module in parts:
            place = read.flatten().nonzero()[:, 0]
            stack.enter_context(module.register_forward_pre_hook(gather_with(place)))
            stack.enter_context(module.register_forward_hook(put_back_with(place, read.shape)))
        yield


def gather_with(place: Tensor) -> Any:
    """Of what a module is given (B T D), the places that are read: N D."""
    return lambda module, given: (given[0].flatten(0, 1).index_select(0, place), *given[1:])


def put_back_with(place: Tensor, shape: torch.Size) -> Any:
    """What it said of them (N D), where it belongs among zeros: B T D."""

    def put_back(module: nn.Module, given: Any, said: Tensor) -> Tensor:
        return said.new_zeros(shape.numel(), said.shape[-1]).index_copy(0, place, said).unflatten(0, shape)

    return put_back
