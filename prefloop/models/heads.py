"""From a model to log-probabilities and rewards, for any Hugging Face causal architecture.

No attention mask is passed anywhere. Rows are right-padded and the models are causal, so no real token can see the padding,
positions start at 0 in every row, and the fast attention kernels stay usable. What a model puts on padding is never read.

    tokens  B T   prompt, answer, padding
    wanted  B T   True where a log-probability is asked for (never column 0: nothing predicts the first token)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from prefloop.models.last_layer import reading_only
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


def hidden_states(model: nn.Module, tokens: Tensor, read: Tensor | None = None) -> Tensor:
    """The last layer's normalised output at every position, or at the True ones of ``read`` (B T) alone: B T -> B T D."""
    base = unwrapped(model).base_model
    with reading_only(base, read):
        return base(input_ids=tokens, use_cache=False).last_hidden_state


def predictors(wanted: Tensor) -> Tensor:
    """Where a token that is wanted is predicted from, the place before it: B T."""
    return wanted.roll(-1, 1)


def output_head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The map from hidden states to logits."""
    return unwrapped(model).get_output_embeddings()


# ------------------------------------------------------------------------------------------------ policies


def policy_logprobs(model: nn.Module, tokens: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """Log-probabilities of the wanted tokens, zero elsewhere: B T. The head sees only positions that predict one."""
    if head_is_plain(model):
        hidden = hidden_states(model, tokens, predictors(wanted))
        return logprobs_from_hidden(output_head(model), hidden, tokens, wanted, temperature=temperature)
    return token_logprobs(all_logits(model, tokens), tokens, temperature=temperature) * wanted


def policy_logprobs_and_entropy(model: nn.Module, tokens: Tensor, wanted: Tensor, *, temperature: float) -> LogprobsAndEntropy:
    """The same with the entropy of the distribution each wanted token was drawn from (detached)."""
    if head_is_plain(model):
        hidden = hidden_states(model, tokens, predictors(wanted))
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
    return unwrapped(model).score(last_hidden(model, tokens, length)).squeeze(-1)


def last_hidden(model: nn.Module, tokens: Tensor, length: Tensor) -> Tensor:
    """The hidden state of the last real token of each row: R T, R -> R D."""
    row = torch.arange(len(length), device=tokens.device)
    read = torch.zeros_like(tokens, dtype=torch.bool).index_put((row, length - 1), torch.ones_like(length, dtype=torch.bool))
    return hidden_states(model, tokens, read)[row, length - 1]


# ------------------------------------------------------------------------------------------------ dropout


def without_dropout(model: nn.Module) -> nn.Module:
    """The model itself with every dropout probability at 0, so that scoring in train() mode equals sampling in eval() mode."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or (name == "p" and isinstance(module, nn.Dropout))):
                setattr(module, name, 0.0)  # attention often holds a number instead of a Dropout module
    return model
