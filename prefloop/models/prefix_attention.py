"""Attention in rows of a prompt and several completions, without the pairs of tokens that do not see each other.

Under a mask, a row of a prompt of S tokens and K completions of T pays for (S + K T)^2 pairs, of which S^2 / 2 + K T (S + T / 2)
are seen: 3.4 times as many as there are at S = 256, K = 9, T = 64. Here the prompt attends to itself, the completions together to
the prompt and each one to itself, and the last two are put together by their sums of exponentials (Dao et al., arXiv 2205.14135,
section 3.1):

    out = exp(z1 - z) out1 + exp(z2 - z) out2,    z = log(exp z1 + exp z2)

The gradient of a part needs only the whole's output and z, so every part is PyTorch's own kernel, forward and backward.

    q, k, v  P H L C     P prompts, H heads, L columns (prompt, completions, padding), C features
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from prefloop.models.last_layer import is_called_again

KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
NAME = "prefloop_prefix"
FAMILIES = {"llama", "qwen2", "mistral", "gpt2"}  # that attend as transformers' interface is given it, and nothing beside


@dataclass(frozen=True)
class Layout:
    """Where the tokens of P prompts with K completions each stand, in rows of L columns."""

    n_prompt: int  # S: columns that hold a prompt in some row
    shape: tuple[int, int, int]  # P K T
    gather: Tensor  # P K T  the place in P L of each completion's tokens; any place on padding
    is_token: Tensor  # P K T
    scatter: Tensor  # P L  the place of each column's token in (P S, P K T, nothing) one after the other
    is_prompt: Tensor  # P S
    bias: Tensor | None  # P 1 1 S  -inf where a shorter prompt has ended; None where all are equally long


def layout_of(prompt_length: Tensor, completion_length: Tensor, width: int) -> Layout:
    """P, P K -> where everything stands in rows of ``width`` columns."""
    p, k = completion_length.shape
    s, t = int(prompt_length.max()), max(1, int(completion_length.max()))
    device = prompt_length.device
    begins = prompt_length[:, None] + completion_length.cumsum(1) - completion_length  # P K
    step = torch.arange(t, device=device)
    is_token = step < completion_length[:, :, None]  # P K T
    row = torch.arange(p, device=device)[:, None, None] * width
    gather = torch.where(is_token, row + begins[:, :, None] + step, row)
    column = torch.arange(s, device=device)
    is_prompt = column < prompt_length[:, None]  # P S
    scatter = torch.full((p * width,), p * (s + k * t), device=device)
    scatter[gather[is_token]] = p * s + torch.arange(p * k * t, device=device).view(p, k, t)[is_token]
    scatter = scatter.view(p, width)
    scatter[:, :s][is_prompt] = torch.arange(p * s, device=device).view(p, s)[is_prompt]
    bias = (
        None
        if bool(is_prompt.all())
        else torch.zeros(p, 1, 1, s, device=device).masked_fill_(~is_prompt[:, None, None], -torch.inf)
    )
    return Layout(s, (p, k, t), gather, is_token, scatter, is_prompt, bias)


class PrefixAttention(torch.autograd.Function):
    """q, k, v (P H L C) -> what each token saw (P L H C). Padding sees nothing of sense and is seen by nobody."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Tensor:
        prompt = [x[:, :, : layout.n_prompt] for x in (q, k, v)]
        own = [of_completions(x, layout) for x in (q, k, v)]  # P K T H C
        out_prompt, z_prompt = KERNEL(*prompt, 0.0, True, scale=scale)
        bias = None if layout.bias is None else layout.bias.to(q.dtype)
        together = beside(own[0])
        out_before, z_before = KERNEL(together, *prompt[1:], 0.0, False, attn_mask=bias_of(bias, together), scale=scale)
        out_own, z_own = KERNEL(*map(alone, own), 0.0, True, scale=scale)
        out, z = merged(out_before, z_before, out_own, z_own, layout)
        ctx.save_for_backward(*prompt, *own, out_prompt, z_prompt, out, z)
        ctx.layout, ctx.scale, ctx.bias = layout, scale, bias
        return into_rows(out_prompt.transpose(1, 2), out, layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout, scale = ctx.layout, ctx.scale
        q_prompt, k_prompt, v_prompt, q_own, k_own, v_own, out_prompt, z_prompt, out, z = ctx.saved_tensors
        grad_prompt = (grad[:, : layout.n_prompt] * layout.is_prompt[:, :, None, None]).transpose(1, 2)
        grad_own = grad.flatten(0, 1)[layout.gather] * layout.is_token[..., None, None]
        of_prompt = BACKWARD(grad_prompt, q_prompt, k_prompt, v_prompt, out_prompt, z_prompt, 0.0, True, scale=scale)
        q_beside = beside(q_own)
        of_before = BACKWARD(
            beside(grad_own), q_beside, k_prompt, v_prompt, beside(out), z_beside(z), 0.0, False,
            attn_mask=bias_of(ctx.bias, q_beside), scale=scale,
        )  # fmt: skip
        of_own = BACKWARD(
            alone(grad_own), alone(q_own), alone(k_own), alone(v_own), alone(out), z_alone(z), 0.0, True, scale=scale
        )
        p, k, t = layout.shape
        grads = []
        for place in range(3):
            before, own = of_before[place].transpose(1, 2), of_own[place].transpose(1, 2).unflatten(0, (p, k))
            if place == 0:
                grads.append(into_rows(of_prompt[0].transpose(1, 2), own + before.unflatten(1, (k, t)), layout))
            else:
                grads.append(into_rows(of_prompt[place].transpose(1, 2) + before, own, layout))
        return (*(g.transpose(1, 2) for g in grads), None, None)


def of_completions(x: Tensor, layout: Layout) -> Tensor:
    """P H L C -> P K T H C."""
    return x.transpose(1, 2).flatten(0, 1)[layout.gather]


def beside(x: Tensor) -> Tensor:
    """All completions of a prompt as one text: P K T H C -> P H (K T) C."""
    return x.flatten(1, 2).transpose(1, 2)


def alone(x: Tensor) -> Tensor:
    """Every completion a text of its own: P K T H C -> (P K) H T C."""
    return x.flatten(0, 1).transpose(1, 2)


def z_beside(z: Tensor) -> Tensor:
    """P K T H -> P H (K T), with the strides the kernel gives it."""
    return z.flatten(1, 2).transpose(1, 2)


def z_alone(z: Tensor) -> Tensor:
    return z.flatten(0, 1).transpose(1, 2)


def bias_of(bias: Tensor | None, queries: Tensor) -> Tensor | None:
    """P 1 1 S for every query."""
    return None if bias is None else bias.expand(-1, -1, queries.shape[2], -1)


def merged(out_before: Tensor, z_before: Tensor, out_own: Tensor, z_own: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """What the completions saw in both places: P K T H C, and P K T H the logarithm of its sum of exponentials."""
    p, k, t = layout.shape
    before, own = out_before.transpose(1, 2).unflatten(1, (k, t)), out_own.transpose(1, 2).unflatten(0, (p, k))
    z1, z2 = z_before.transpose(1, 2).unflatten(1, (k, t)), z_own.transpose(1, 2).unflatten(0, (p, k))
    z = torch.logaddexp(z1, z2)
    return torch.lerp(before, own, (z2 - z).exp()[..., None]).contiguous(), z.contiguous()


def into_rows(prompt: Tensor, own: Tensor, layout: Layout) -> Tensor:
    """P S H C and P K T H C -> P L H C, 0 on padding."""
    nothing = own.new_zeros(1, *own.shape[3:])
    return torch.cat([prompt.flatten(0, 1), own.flatten(0, 2), nothing])[layout.scatter]


# ------------------------------------------------------------------------------------------------ within a model

_layout: list[Layout] = []  # of the rows that are being read


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *, scaling: float, **rest: Any
) -> tuple[Tensor, None]:
    """As transformers calls it: P H L C -> P L H C."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    return PrefixAttention.apply(query, key, value, _layout[-1], scaling), None


AttentionInterface.register(NAME, attend)


def attends_in_parts(model: Any) -> bool:
    """Whether this way is open: on the processor, without dropout, and not where layers are called again later."""
    return (
        model.config.model_type in FAMILIES
        and model.device.type == "cpu"
        and model.dtype in (torch.float32, torch.float64)
        and not is_called_again(model)
        and not has_dropout(model)
    )


def has_dropout(model: Any) -> bool:
    """Whether attention drops something now."""
    config = model.config
    return model.training and bool(getattr(config, "attention_dropout", 0.0) or getattr(config, "attn_pdrop", 0.0))


@contextmanager
def attending_in_parts(model: Any, layout: Layout) -> Iterator[None]:
    """Inside, the model's layers attend by ``attend``, to rows of this layout."""
    _layout.append(layout)
    try:
        with attending_by(model, NAME):
            yield
    finally:
        _layout.pop()


@contextmanager
def attending_by(model: Any, name: str) -> Iterator[None]:
    """Inside, the model's layers attend by what is registered under this name."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before
