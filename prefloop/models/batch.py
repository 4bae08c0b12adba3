"""Batches: one frozen dataclass per stage, every field required, a named function between stages.

Axes: B sequences, P prompts, K completions of a prompt, T tokens, V vocabulary. Rows are right-padded, so a causal model
needs no attention mask: no real token can see the padding. One time axis: ``logprobs[b, t]`` belongs to token ``t``.
The first axis of every field is the row; ``weight`` is what a row weighs (the learner makes it sum to one).
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from prefloop.records import Completion, Prompt


@dataclass(frozen=True)
class TokenBatch:
    """Text to imitate: SFT, pretraining, the pretraining term of PPO-ptx."""

    tokens: Tensor  # B T
    length: Tensor  # B    real tokens of a row
    token_weight: Tensor  # B T  how a row's weight is spread over the tokens to predict; 0 on prompt and padding
    weight: Tensor  # B


@dataclass(frozen=True)
class RankedBatch:
    """Prompts with their completions and the places an annotator gave them: reward models, RRHF, DPO (K = 2).

    A prompt is kept once, apart from its completions, so that its computation can be shared.
    """

    prompt: Tensor  # P S
    prompt_length: Tensor  # P
    completion: Tensor  # P K T  ends with EOS
    completion_length: Tensor  # P K  0 where a prompt has fewer than K completions
    tier: Tensor  # P K  0 is best
    is_candidate: Tensor  # P K  placed by the annotator
    weight: Tensor  # P


@dataclass(frozen=True)
class Samples:
    """What a sampler returns. Rows of one prompt are adjacent; row b answers ``prompts[b]``."""

    prompts: tuple[Prompt, ...]  # B
    completions: tuple[Completion, ...]  # B  the decoded answers
    tokens: Tensor  # B T  prompt, answer, padding
    prompt_length: Tensor  # B
    length: Tensor  # B  prompt and answer, EOS included
    logprobs: Tensor  # B T  of the answer's tokens under the distribution they were drawn from; 0 elsewhere
    is_finished: Tensor  # B  ended with EOS


@dataclass(frozen=True)
class RolloutBatch:
    """Answers with everything a policy update needs, all of it constant during the update."""

    tokens: Tensor  # B T
    length: Tensor  # B
    is_response: Tensor  # B T  answer tokens up to and including EOS
    old_logprobs: Tensor  # B T  when the answer was drawn
    old_values: Tensor  # B T  V(everything before token t)
    advantages: Tensor  # B T
    returns: Tensor  # B T
    token_weight: Tensor  # B T
    weight: Tensor  # B


Batch = TypeVar("Batch", bound=TokenBatch | RankedBatch | RolloutBatch)


def take(batch: Batch, rows: Tensor | slice) -> Batch:
    """The given rows of a batch, in the given order."""
    return replace(batch, **{field.name: getattr(batch, field.name)[rows] for field in fields(batch)})


def move(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on another device."""
    return replace(batch, **{field.name: getattr(batch, field.name).to(device) for field in fields(batch)})


def row_lengths(batch: TokenBatch | RankedBatch | RolloutBatch) -> Tensor:
    """The longest sequence of a row, B or P: what micro-batches are sorted by."""
    if isinstance(batch, RankedBatch):
        return batch.prompt_length + batch.completion_length.amax(1)
    return batch.length


def row_tokens(batch: TokenBatch | RankedBatch | RolloutBatch) -> Tensor:
    """Tokens a row costs, B or P; a prompt counts once for all its completions."""
    return batch.prompt_length + batch.completion_length.sum(1) if isinstance(batch, RankedBatch) else batch.length


def trim(batch: Batch) -> Batch:
    """Cut the columns that are padding in every row."""
    if isinstance(batch, RankedBatch):
        longest = int(batch.completion_length.max())
        answers = {f.name: getattr(batch, f.name)[:, :, :longest] for f in fields(batch) if getattr(batch, f.name).dim() == 3}
        return replace(batch, prompt=batch.prompt[:, : max(1, int(batch.prompt_length.max()))], **answers)
    longest = int(batch.length.max())
    two_dimensional = {f.name: getattr(batch, f.name) for f in fields(batch) if getattr(batch, f.name).dim() == 2}
    return replace(batch, **{name: value[:, :longest] for name, value in two_dimensional.items()})


@dataclass(frozen=True)
class FlatRows:
    """The completions of a RankedBatch as plain sequences: each prompt repeated before each of its completions."""

    tokens: Tensor  # R T  right-padded
    length: Tensor  # R
    start: Tensor  # R    first token of the completion
    place: tuple[Tensor, Tensor]  # (R, R)  the row's p and k, to scatter scores back into P K


def flat_rows(batch: RankedBatch) -> FlatRows:
    """One sequence per completion that exists (placed or not), prompt first."""
    p, k = (batch.completion_length > 0).nonzero(as_tuple=True)
    start, answer = batch.prompt_length[p], batch.completion_length[p, k]
    length = start + answer
    width = int(length.max())
    position = torch.arange(width, device=length.device)[None, :]  # 1 T
    in_prompt = position < start[:, None]
    prompt = batch.prompt[p].gather(1, position.clamp(max=batch.prompt.shape[1] - 1).expand(len(p), -1))
    offset = (position - start[:, None]).clamp(0, batch.completion.shape[2] - 1)
    completion = batch.completion[p, k].gather(1, offset)
    tokens = torch.where(in_prompt, prompt, completion)
    tokens = torch.where(position < length[:, None], tokens, torch.zeros_like(tokens))
    return FlatRows(tokens, length, start, (p, k))
