"""Log-probabilities of tokens. The only file that shifts by one: ``logprobs[b, t]`` belongs to token ``t``.

A causal model predicts token ``t`` from the position before it, so column 0 belongs to a token nothing predicts and is 0.

    logits   B T V  what the model says at each position about the next token
    hidden   B T D  what the output head would turn into logits
    tokens   B T
    wanted   B T    True where a log-probability is asked for; a True in column 0 is answered with 0

Over a large vocabulary the logits are the largest thing in an update by far, and most positions (prompts, padding) need
none. So the head sees only positions that predict a wanted token, a chunk of them at a time. Chunks are also faster on a
CPU, where buffers beyond 32 MB are fetched anew from the system at each use; but each chunk adds to the head's whole
gradient once, so they must not be small either. Up to ``KEPT_LOGITS`` the distributions of all chunks wait for the
backward pass; beyond, they are dropped and computed a second time there, which gives the same gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]  # N D -> N V

SMALLEST_CHUNK = 256  # positions; as many distributions over 32,000 words are 32 MB
CHUNK_LOGITS = 2**22  # a chunk of a small vocabulary, 16 MB in float32
KEPT_LOGITS = 2**26  # 256 MB in float32


class LogprobsAndEntropy(NamedTuple):
    logprobs: Tensor  # B T
    entropy: Tensor  # B T  nats, of the distribution the token was drawn from; carries no gradient


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probability of every token given what stands before it: B T V, B T -> B T."""
    following = tokens.roll(-1, 1)  # the last column wraps round and is dropped below
    return at_predicted_token(chosen_logprobs(logits, following, temperature=temperature))


def logprobs_from_hidden(
    head: Head,
    hidden: Tensor,
    tokens: Tensor,
    wanted: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    predictor: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of the wanted tokens, 0 elsewhere: B T. Exact gradients through head and hidden states.

    ``chunk`` is how many positions the head sees at a time; None chooses by the size of the vocabulary. ``predictor`` B T
    is the column each wanted token is predicted from, where that is not the one before it (rows of several completions).
    """
    measure = partial(chosen_logprobs, temperature=temperature)
    return over_wanted(measure, head, hidden, tokens, wanted, chunk=chunk, predictor=predictor)


def logprobs_and_entropy_from_hidden(
    head: Head, hidden: Tensor, tokens: Tensor, wanted: Tensor, *, temperature: float = 1.0, chunk: int | None = None
) -> LogprobsAndEntropy:
    """Like ``logprobs_from_hidden``, with the entropy of each wanted token's distribution beside it."""
    measure = partial(chosen_logprobs_and_entropy, temperature=temperature)
    logprobs, entropy = over_wanted(measure, head, hidden, tokens, wanted, chunk=chunk)
    return LogprobsAndEntropy(logprobs, entropy.detach())


def at_predicted_token(said: Tensor) -> Tensor:
    """From the position that speaks to the token spoken of: column t - 1 moves to t, column 0 becomes 0. B T -> B T.

    For log-probabilities, and for values: V(everything before token t) is read at position t - 1.
    """
    return pad(said[:, :-1], (1, 0))


def length_mask(length: Tensor, width: int) -> Tensor:
    """B -> B width: True for the first ``length[b]`` columns of row b."""
    return torch.arange(width, device=length.device) < length[:, None]


def span_mask(start: Tensor, end: Tensor, width: int) -> Tensor:
    """B, B -> B width: True where start[b] <= t < end[b]."""
    return length_mask(end, width) & ~length_mask(start, width)


def chosen_logprobs(logits: Tensor, chosen: Tensor, *, temperature: float) -> Tensor:
    """log softmax(logits / temperature) at the chosen entries: ... V, ... -> ... ."""
    return tempered_logprobs(logits, temperature).gather(-1, chosen[..., None]).squeeze(-1)


def chosen_logprobs_and_entropy(logits: Tensor, chosen: Tensor, *, temperature: float) -> Tensor:
    """The same with the entropy of softmax(logits / temperature) below it: N V, N -> 2 N."""
    logprobs = tempered_logprobs(logits, temperature)
    entropy = torch.special.entr(logprobs.detach().exp()).sum(-1)  # entr(0) = 0: words ruled out count nothing
    return torch.stack([logprobs.gather(-1, chosen[..., None]).squeeze(-1), entropy])


def tempered_logprobs(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature): ... V. Half-precision logits are widened first: a sum over V needs the digits."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (wide if temperature == 1.0 else wide / temperature).log_softmax(-1)


def over_wanted(
    measure: Callable[[Tensor, Tensor], Tensor],
    head: Head,
    hidden: Tensor,
    tokens: Tensor,
    wanted: Tensor,
    *,
    chunk: int | None,
    predictor: Tensor | None = None,
) -> Tensor:
    """``measure(logits N V, targets N) -> ... N`` where a wanted token is predicted, spread to ... B T with 0 elsewhere."""
    place = pad(wanted[:, 1:], (1, 0)).flatten().nonzero().squeeze(1)  # N, into B * T
    width = wanted.shape[1]
    speaker = place - 1 if predictor is None else place // width * width + predictor.flatten()[place]
    states = hidden.flatten(0, 1).index_select(0, speaker)  # N D
    targets = tokens.flatten()[place]  # N
    n_words = head(states[:0]).shape[-1]

    def measured(states: Tensor, targets: Tensor) -> Tensor:
        return measure(head(states), targets)

    chunk = chunk or positions_at_once(n_words)
    pieces = zip(states.split(chunk), targets.split(chunk), strict=True)
    if len(place) * n_words <= KEPT_LOGITS:
        parts = [measured(*piece) for piece in pieces]
    else:
        parts = [checkpoint(measured, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    return spread(torch.cat(parts, -1), place, wanted)


def positions_at_once(n_words: int) -> int:
    """How many positions the head sees at a time: 16 MB of logits, but never so few that adding up gradients dominates."""
    return max(SMALLEST_CHUNK, CHUNK_LOGITS // n_words)


def spread(flat: Tensor, place: Tensor, wanted: Tensor) -> Tensor:
    """Values at their places in B * T: ... N -> ... B T, 0 elsewhere."""
    empty = flat.new_zeros(*flat.shape[:-1], wanted.numel())
    return empty.index_copy(-1, place, flat).unflatten(-1, wanted.shape)
