"""From a model to log-probabilities and rewards, for any Hugging Face causal architecture.

No attention mask is passed anywhere. Rows are right-padded and the models are causal, so no real token can see the padding,
positions start at 0 in every row, and the fast attention kernels stay usable. What a model puts on padding is never read.

    tokens  B T   prompt, answer, padding
    wanted  B T   True where a log-probability is asked for (never column 0: nothing predicts the first token)
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from prefloop.models.batch import RankedBatch, flat_rows, take, trim
from prefloop.models.packed import packed_rows, packing_pays
from prefloop.ops.logprobs import (
    LogprobsAndEntropy,
    at_predicted_token,
    chosen_logprobs_and_entropy,
    logprobs_and_entropy_from_hidden,
    logprobs_from_hidden,
    token_logprobs,
)


def unwrapped(model: Any) -> Any:
    """The Hugging Face model inside an adapter, which acts inside the model's layers and stays active."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def hidden_states(model: nn.Module, tokens: Tensor) -> Tensor:
    """The last layer's normalised output at every position: B T -> B T D."""
    return unwrapped(model).base_model(input_ids=tokens, use_cache=False).last_hidden_state


def output_head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The map from hidden states to logits."""
    return unwrapped(model).get_output_embeddings()


# ------------------------------------------------------------------------------------------------ policies


def policy_logprobs(model: nn.Module, tokens: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """Log-probabilities of the wanted tokens, zero elsewhere: B T. The head sees only positions that predict one."""
    if head_is_plain(model):
        return logprobs_from_hidden(output_head(model), hidden_states(model, tokens), tokens, wanted, temperature=temperature)
    return token_logprobs(all_logits(model, tokens), tokens, temperature=temperature) * wanted


def policy_logprobs_and_entropy(model: nn.Module, tokens: Tensor, wanted: Tensor, *, temperature: float) -> LogprobsAndEntropy:
    """The same with the entropy of the distribution each wanted token was drawn from (detached)."""
    if head_is_plain(model):
        hidden = hidden_states(model, tokens)
        return logprobs_and_entropy_from_hidden(output_head(model), hidden, tokens, wanted, temperature=temperature)
    both = chosen_logprobs_and_entropy(all_logits(model, tokens), tokens.roll(-1, 1), temperature=temperature)
    logprobs, entropy = at_predicted_token(both[0]) * wanted, at_predicted_token(both[1]) * wanted
    return LogprobsAndEntropy(logprobs, entropy.detach())


def all_logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """B T V, with whatever the architecture does after its head (caps, scales)."""
    return unwrapped(model)(input_ids=tokens, use_cache=False).logits


_plain_heads: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def head_is_plain(model: nn.Module) -> bool:
    """Whether the logits are the output head's and nothing else; some architectures scale or cap them. Probed once a model."""
    inner = unwrapped(model)
    if inner not in _plain_heads:
        _plain_heads[inner] = probe_head(inner)
    return _plain_heads[inner]


def probe_head(model: Any) -> bool:
    """Head of the hidden states against the model's own logits, on four tokens."""
    tokens = torch.arange(4, device=next(model.parameters()).device)[None, :]
    with at_rest(model):
        said, logits = output_head(model)(hidden_states(model, tokens)), all_logits(model, tokens)
    return said.shape == logits.shape and bool(((said - logits).abs() <= 1e-3 * (1 + logits.abs())).all())


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside; every module's mode as it was afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


# ------------------------------------------------------------------------------------------------ reward models


def sequence_rewards(model: nn.Module, tokens: Tensor, length: Tensor) -> Tensor:
    """The score read at the last real token of each row, unshifted: R T, R -> R.

    The same token transformers' classifiers read: the last one that is not padding (padding is never EOS here).
    """
    hidden = hidden_states(model, tokens)
    last = hidden[torch.arange(len(length), device=hidden.device), length - 1]  # R D
    return unwrapped(model).score(last).squeeze(-1)


SIDE_BY_SIDE = 32  # completions of like length computed together: less padding, and buffers that stay in the cache


def scores(model: nn.Module, ranked: RankedBatch, *, max_rows: int = SIDE_BY_SIDE) -> Tensor:
    """The score of every completion, 0 where there is none: P K. About ``max_rows`` are computed at a time, shortest first.

    Where it is less work, and the architecture allows it, a prompt is computed once for all its completions.
    """
    width = unwrapped(model).config.get_text_config().hidden_size
    if packing_pays(ranked, width) and shares_prompts(model):
        return packed_scores(model, ranked, max_rows=max_rows)
    return flat_scores(model, ranked, max_rows=max_rows)


def flat_scores(model: nn.Module, ranked: RankedBatch, *, max_rows: int) -> Tensor:
    """Each completion in a row of its own, behind its prompt: P K."""
    rows = flat_rows(ranked)
    order = rows.length.argsort(stable=True)
    parts = order.split(max_rows)
    reward = torch.cat(
        [sequence_rewards(model, rows.tokens[part][:, : int(rows.length[part].max())], rows.length[part]) for part in parts]
    )
    return reward.new_zeros(ranked.tier.shape).index_put((rows.place[0][order], rows.place[1][order]), reward)


def packed_scores(model: nn.Module, ranked: RankedBatch, *, max_rows: int) -> Tensor:
    """All completions of a prompt in one row behind it: P K."""
    order = (ranked.prompt_length + ranked.completion_length.sum(1)).argsort(stable=True)
    parts = order.split(max(1, max_rows // ranked.tier.shape[1]))
    reward = torch.cat([packed_part(model, trim(take(ranked, part))) for part in parts])
    there = (ranked.completion_length > 0)[order]
    return reward.new_zeros(ranked.tier.shape).index_put((order,), torch.where(there, reward, torch.zeros_like(reward)))


def packed_part(model: nn.Module, ranked: RankedBatch) -> Tensor:
    """P K, meaningless where there is no completion."""
    rows = packed_rows(ranked)
    base = unwrapped(model).base_model
    out = base(input_ids=rows.tokens, position_ids=rows.position, attention_mask=rows.sees, use_cache=False)
    hidden = out.last_hidden_state  # P L D
    last = hidden.gather(1, rows.last[:, :, None].expand(-1, -1, hidden.shape[-1]))  # P K D
    return unwrapped(model).score(last).squeeze(-1)


_sharing: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def shares_prompts(model: nn.Module) -> bool:
    """Whether the architecture takes a mask and positions as they are given, so that packed rows are exact. Probed once."""
    inner = unwrapped(model)
    if inner not in _sharing:
        _sharing[inner] = probe_sharing(inner)
    return _sharing[inner]


def probe_sharing(model: Any) -> bool:
    """Packed against separate rows on a small example. Windows that a short text does not show are ruled out by the config."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    has_window = getattr(config, "sliding_window", None) is not None or kinds != {"full_attention"}
    if has_window or "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return False
    device = next(model.parameters()).device
    tokens = (torch.arange(30, device=device) * 7 + 3) % config.vocab_size
    example = RankedBatch(
        prompt=tokens[:6].view(2, 3),
        prompt_length=torch.tensor([3, 2], device=device),
        completion=tokens[6:].view(2, 3, 4),
        completion_length=torch.tensor([[4, 2, 1], [3, 0, 4]], device=device),
        tier=torch.zeros(2, 3, device=device),
        is_candidate=torch.ones(2, 3, dtype=torch.bool, device=device),
        weight=torch.ones(2, device=device),
    )
    with at_rest(model):
        gap = (packed_scores(model, example, max_rows=6) - flat_scores(model, example, max_rows=6)).abs().max()
    head = model.score.weight.detach()
    return float(gap) <= 64 * torch.finfo(head.dtype).eps * float(head.abs().sum() + 1)


# ------------------------------------------------------------------------------------------------ dropout


def without_dropout(model: nn.Module) -> nn.Module:
    """The model itself with every dropout probability at 0, so that scoring in train() mode equals sampling in eval() mode."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or (name == "p" and isinstance(module, nn.Dropout))):
                setattr(module, name, 0.0)  # attention often holds a number instead of a Dropout module
    return model
