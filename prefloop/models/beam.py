"""Likely answers instead of drawn ones: beam search, and diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424).

    beam      the ``beams`` answers found by extending, token after token, the ``beams`` likeliest beginnings
    diverse   ``groups`` of beams, extended one after the other; a token costs a group ``diversity`` for every beam of an earlier
              group that takes it at this step (Hamming diversity). The cost counts in choosing, not in what an answer is worth

An answer's worth is the sum of its tokens' log-probabilities, at the given temperature; an answer that has ended keeps its place
for as long as nothing likelier comes along. Nothing is drawn, so there is no seed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prefloop.errors import ConfigError
from prefloop.models.encode import Encoder
from prefloop.models.heads import at_rest, unwrapped
from prefloop.models.load import context_length
from prefloop.models.sampling import OwnReading, refuse_long
from prefloop.models.tokenizer import refuse_foreign_tokenizer
from prefloop.ops.logprobs import tempered_logprobs
from prefloop.records import Completion, Prompt


class Beams(NamedTuple):
    """Answers of every prompt, those of one prompt adjacent, group after group, likeliest first within a group."""

    completions: tuple[Completion, ...]
    logprob: tuple[float, ...]  # of the whole answer
    n_tokens: tuple[int, ...]
    is_finished: tuple[bool, ...]


def beam_search(
    model: nn.Module,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    *,
    beams: int,
    max_new_tokens: int,
    groups: int = 1,
    diversity: float = 0.0,
    temperature: float = 1.0,
    batch_rows: int = 64,
    source: str = "",
    progress: Callable[[list[Sequence[int]]], Iterable[Sequence[int]]] | None = None,
) -> Beams:
    """``beams`` answers to every prompt; fewer where the model knows no more."""
    if beams % groups:
        raise ConfigError(
            f"{beams} beams do not divide into {groups} groups\n  groups have to be as many as beams, or a divisor of that"
        )
    inner = unwrapped(model)
    refuse_foreign_tokenizer(inner, encoder.tokenizer)
    prompt_ids = [encoder.prompt_ids(prompt) for prompt in prompts]
    refuse_long(prompts, prompt_ids, max_new_tokens, context_length(inner))
    order = sorted(range(len(prompts)), key=lambda p: len(prompt_ids[p]))
    size = max(1, batch_rows // beams)
    batches: list[Sequence[int]] = [order[first : first + size] for first in range(0, len(order), size)]
    found: list[list[tuple[Completion, float, int, bool]]] = [[] for _ in prompts]
    with at_rest(model):
        for batch in progress(batches) if progress else batches:
            reading = OwnReading(inner, encoder.pad, max_new_tokens)
            ids = [prompt_ids[p] for p in batch]
            tokens, worth = searched(reading, encoder, ids, beams, groups, max_new_tokens, diversity, temperature)
            for p, rows, values in zip(batch, tokens.tolist(), worth.tolist(), strict=True):
                found[p] = [
                    told(encoder, prompts[p], row, v, source) for row, v in zip(rows, values, strict=True) if v > -torch.inf
                ]
    completions, logprob, n_tokens, is_finished = (
        zip(*(one for of_one in found for one in of_one), strict=True) if prompts else ((),) * 4
    )
    return Beams(completions, logprob, n_tokens, is_finished)


def searched(
    reading: OwnReading,
    encoder: Encoder,
    prompt_ids: Sequence[list[int]],
    beams: int,
    groups: int,
    max_new_tokens: int,
    diversity: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """The tokens of the beams of a batch of prompts, padded with -1 (P B T), and the log-probability of each (P B)."""
    n, device = len(prompt_ids), reading.device
    stops = torch.tensor(encoder.stops, device=device)
    start = torch.tensor([len(ids) for ids in prompt_ids], device=device).repeat_interleave(beams)  # R
    logits = reading.begin([ids for ids in prompt_ids for _ in range(beams)])  # R V, row p * B + b
    worth = torch.full((n, beams), -torch.inf, dtype=torch.float64, device=device)
    worth[:, :: beams // groups] = 0.0  # a group begins as one beam: equal ones would stay equal
    is_open = torch.ones(n, beams, dtype=torch.bool, device=device)
    tokens = torch.full((n, beams, 0), -1, dtype=torch.long, device=device)
    for step in range(max_new_tokens):
        said = tempered_logprobs(logits, temperature).double().view(n, beams, -1)  # P B V
        chosen, parent, worth = extended(said, worth, is_open, groups, diversity)
        was_open = is_open.gather(1, parent)
        chosen = chosen.where(was_open, -1)
        tokens = torch.cat([tokens.gather(1, parent[:, :, None].expand(-1, -1, step)), chosen[:, :, None]], 2)
        is_open = was_open & ~torch.isin(chosen, stops)
        if not is_open.any() or step == max_new_tokens - 1:
            break
        reading.cache.reorder_cache((torch.arange(n, device=device)[:, None] * beams + parent).flatten())
        logits = reading.read_tokens(chosen.clamp(min=0).flatten(), start + step)
    return tokens, worth


def extended(said: Tensor, worth: Tensor, is_open: Tensor, groups: int, diversity: float) -> tuple[Tensor, Tensor, Tensor]:
    """One more token of every beam: the token, the beam it goes on from, and the worth of the result, P B each.

    said     P B V  log-probabilities of the next token
    worth    P B    of the beams so far
    is_open  P B    False for beams that have ended; they stay as they are, in the place of token 0
    """
    n, beams, n_words = said.shape
    size = beams // groups
    total = worth[:, :, None] + said.masked_fill(~is_open[:, :, None], -torch.inf)  # P B V
    total[:, :, 0] = torch.where(is_open, total[:, :, 0], worth)
    taken = torch.zeros(n, n_words, dtype=total.dtype, device=total.device)  # by earlier groups, at this step
    parts = []
    for first in range(0, beams, size):
        own = total[:, first : first + size]  # P S V
        cost = diversity * taken[:, None] * is_open[:, first : first + size, None]
        place = (own - cost).flatten(1).topk(size).indices  # P S
        token, parent = place % n_words, place // n_words + first
        parts.append((token, parent, own.flatten(1).gather(1, place)))
        taken.scatter_add_(1, token, is_open.gather(1, parent).to(taken))
    token, parent, value = (torch.cat(columns, 1) for columns in zip(*parts, strict=True))
    return token, parent, value


def told(encoder: Encoder, prompt: Prompt, row: list[int], worth: float, source: str) -> tuple[Completion, float, int, bool]:
    ids = [token for token in row if token >= 0]
    return Completion.of(prompt, encoder.decode(ids), source=source), worth, len(ids), ids[-1] in encoder.stops
