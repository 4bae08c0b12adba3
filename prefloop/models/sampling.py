"""Answers drawn from a policy, with the log-probability of every token under the distribution it was drawn from.

A token is drawn by inverting the distribution's sum at a uniform number that belongs to (seed, row, step) alone. So an
answer depends on neither the other rows beside it, nor their order, nor when they finish; what is left is the rounding of
matrix products, which can move a choice only where the uniform number falls within it of the border between two tokens.

Each prompt is read once for its K answers. Rows that have ended leave the batch, so late steps are cheap.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prefloop.errors import ConfigError, DataError
from prefloop.models.batch import Samples
from prefloop.models.cache import new_cache
from prefloop.models.encode import Encoder, padded
from prefloop.models.heads import at_rest, unwrapped
from prefloop.models.load import context_length
from prefloop.models.tokenizer import refuse_foreign_tokenizer
from prefloop.ops.logprobs import length_mask, tempered_logprobs
from prefloop.records import Completion, Prompt

STREAM_ROWS = 256  # rows that share a stream of uniform numbers; making a stream costs more than drawing from it
CROWDED = 0.8  # ended rows are dropped when no more than this share of the rows still goes on

Batches = Sequence[Sequence[int]]


class Choice(NamedTuple):
    """How a token is chosen from a distribution."""

    temperature: float
    top_k: int  # 0 = all tokens
    top_p: float  # 1.0 = all tokens
    greedy: bool


class Answers(NamedTuple):
    """Answers of a batch of rows, N new tokens at the most."""

    tokens: Tensor  # R N
    logprobs: Tensor  # R N
    length: Tensor  # R
    is_finished: Tensor  # R


def sample(
    model: nn.Module,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    *,
    k: int,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    greedy: bool = False,
    batch_rows: int = 256,
    first_prompt: int = 0,
    source: str = "",
    progress: Callable[[list[Sequence[int]]], Iterable[Sequence[int]]] | None = None,
) -> Samples:
    """K answers to every prompt; rows of one prompt are adjacent, row p * k + j is the j-th answer to prompt p.

    With ``top_k`` or ``top_p`` the log-probabilities are those of the filtered distribution: such samples are not the
    policy's own, and training on them would be off-policy. With ``greedy`` they are those of the unfiltered one.
    ``first_prompt`` is the number of the first prompt where processes share a list between them. ``progress`` wraps the
    list of batches, as a progress bar does.
    """
    choice = Choice(temperature, top_k, top_p, greedy)
    refuse_choice(choice, k, max_new_tokens)
    inner = unwrapped(model)
    refuse_foreign_tokenizer(inner, encoder.tokenizer)
    prompt_ids = [encoder.prompt_ids(prompt) for prompt in prompts]
    refuse_long(prompts, prompt_ids, max_new_tokens, context_length(inner))

    batches = batches_of(prompt_ids, k, batch_rows)
    drawn: list[tuple[Tensor, Answers]] = []
    with at_rest(model):
        for rows in progress(batches) if progress else batches:
            uniform = uniforms(seed, np.asarray(rows) + first_prompt * k, max_new_tokens)
            answers = answer(inner, [prompt_ids[row // k] for row in rows], uniform, encoder, choice, max_new_tokens)
            drawn.append((torch.tensor(rows), answers))
    return in_order(encoder, prompts, prompt_ids, k, drawn, source)


def in_order(
    encoder: Encoder,
    prompts: Sequence[Prompt],
    prompt_ids: Sequence[list[int]],
    k: int,
    drawn: Sequence[tuple[Tensor, Answers]],
    source: str,
) -> Samples:
    """The answers of all batches behind their prompts, every row in its place."""
    n_rows = len(prompts) * k
    prompt, prompt_length = (part.repeat_interleave(k, 0) for part in padded(prompt_ids, encoder.pad))
    answer_length, is_finished = torch.zeros(n_rows, dtype=torch.long), torch.zeros(n_rows, dtype=torch.bool)
    for rows, answers in drawn:
        answer_length[rows], is_finished[rows] = answers.length, answers.is_finished
    length = prompt_length + answer_length
    width = max([1, *length.tolist()])
    tokens, logprobs = torch.full((n_rows, width), encoder.pad), torch.zeros(n_rows, width)
    tokens[:, : prompt.shape[1]] = prompt
    for rows, answers in drawn:
        is_said = length_mask(answers.length, answers.tokens.shape[1])  # R N
        row, step = is_said.nonzero(as_tuple=True)
        place = (rows[row], prompt_length[rows[row]] + step)
        tokens[place], logprobs[place] = answers.tokens[is_said], answers.logprobs[is_said]
    asked = tuple(prompt for prompt in prompts for _ in range(k))
    said = zip(asked, tokens.tolist(), prompt_length.tolist(), length.tolist(), strict=True)
    completions = tuple(Completion.of(prompt, encoder.decode(ids[start:end]), source=source) for prompt, ids, start, end in said)
    return Samples(asked, completions, tokens, prompt_length, length, logprobs, is_finished)


# ------------------------------------------------------------------------------------------------ one batch


def answer(
    model: Any, prompt_ids: Sequence[list[int]], uniform: Tensor, encoder: Encoder, choice: Choice, max_new_tokens: int
) -> Answers:
    """One answer to each row's prompt. Rows with the very same prompt share its reading."""
    device = next(model.parameters()).device
    stops = torch.tensor(encoder.stops, device=device)
    uniform = uniform.to(device)
    n_rows = len(prompt_ids)
    tokens = torch.full((n_rows, max_new_tokens), encoder.pad, device=device)
    logprobs = torch.zeros(n_rows, max_new_tokens, device=device)
    length = torch.full((n_rows,), max_new_tokens, device=device)

    reader = Reader(model, prompt_ids, encoder.pad, max_new_tokens)
    logits = reader.read_prompts()  # R V
    rows = torch.arange(n_rows, device=device)  # which answers the rows of the batch belong to
    is_live = torch.ones(n_rows, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        chosen, logprob = choose(logits, uniform[rows, step], choice)
        live = rows[is_live]
        tokens[live, step], logprobs[live, step] = chosen[is_live], logprob[is_live]
        ends = is_live & torch.isin(chosen, stops)
        length[rows[ends]] = step + 1
        is_live = is_live & ~ends
        n_live = int(is_live.sum())
        if n_live == 0 or step == max_new_tokens - 1:
            break
        if n_live <= CROWDED * len(rows):
            keep = is_live.nonzero()[:, 0]
            reader.keep(keep)
            rows, chosen, is_live = rows[keep], chosen[keep], is_live[keep]
        logits = reader.read_token(chosen)
    is_finished = torch.isin(tokens.gather(1, length[:, None] - 1)[:, 0], stops)
    return Answers(tokens.cpu(), logprobs.float().cpu(), length.cpu(), is_finished.cpu())


class Reader:
    """A model in the middle of reading: its cache, and for rows of unlike length where each begins.

    Prompts are padded on the left, so that all rows write to the same column. Where they are equally long there is no
    padding, no mask, and nothing an architecture could get wrong.
    """

    def __init__(self, model: Any, prompt_ids: Sequence[list[int]], pad: int, max_new_tokens: int):
        self.model = model
        device = next(model.parameters()).device
        distinct = {tuple(ids): place for place, ids in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
        self.prompts = list(distinct)
        self.belongs = torch.tensor([distinct[tuple(ids)] for ids in prompt_ids], device=device)  # R
        self.width = max(map(len, self.prompts))
        self.pad = pad
        self.cache: Any = new_cache(model, self.width + max_new_tokens)
        accepted = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.keeps_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.mask: Tensor | None = None  # R T  True on real tokens
        self.position = torch.tensor([len(ids) for ids in prompt_ids], device=device)  # R  of the next token

    def read_prompts(self) -> Tensor:
        """Every distinct prompt once; the logits after it, for every row: R V."""
        device = self.position.device
        flipped, length = padded([ids[::-1] for ids in self.prompts], self.pad)
        tokens = flipped.flip(1).to(device)  # P S, padded on the left
        extra: dict[str, Any] = {}
        if int(length.min()) < self.width:
            place = torch.arange(self.width, device=device)[None, :] - (self.width - length.to(device))[:, None]  # P S
            self.mask = (place >= 0)[self.belongs]
            extra["attention_mask"] = (place >= 0).long()
            if self.takes_positions:
                extra["position_ids"] = place.clamp(min=0)
        out = self.model(input_ids=tokens, past_key_values=self.cache, use_cache=True, **self.keeps_last, **extra)
        self.cache = out.past_key_values
        if len(self.prompts) < len(self.belongs):
            self.cache.reorder_cache(self.belongs)
        return out.logits[:, -1][self.belongs]

    def read_token(self, chosen: Tensor) -> Tensor:
        """One more token of every row; the logits after it: R V."""
        extra: dict[str, Any] = {}
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
            extra["attention_mask"] = self.mask.long()
            if self.takes_positions:
                extra["position_ids"] = self.position[:, None]
        out = self.model(input_ids=chosen[:, None], past_key_values=self.cache, use_cache=True, **extra)
        self.position = self.position + 1
        return out.logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.cache.reorder_cache(rows)
        self.position = self.position[rows]
        self.mask = None if self.mask is None else self.mask[rows]


# ------------------------------------------------------------------------------------------------ one token


def choose(logits: Tensor, uniform: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """A token of each row and its log-probability: R V, R -> R, R."""
    logprobs = tempered_logprobs(logits, choice.temperature)
    if choice.greedy:
        chosen = logprobs.argmax(-1)
    else:
        logprobs = filtered(logprobs, top_k=choice.top_k, top_p=choice.top_p)
        chosen = invert(logprobs.exp(), uniform)
    return chosen, logprobs.gather(-1, chosen[:, None])[:, 0]


def invert(probability: Tensor, uniform: Tensor) -> Tensor:
    """The token whose stretch of the cumulative sum holds the uniform number: R V, R -> R. Impossible tokens have none."""
    wide = torch.float32 if probability.device.type == "mps" else torch.float64  # no doubles on Apple's GPUs
    cumulative = probability.cumsum(-1, dtype=wide)
    target = uniform.to(wide)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=probability.shape[1] - 1)


def filtered(logprobs: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Without the unlikely tokens, normalised anew: R V. Tokens exactly as likely as the last one kept stay."""
    if 0 < top_k < logprobs.shape[-1]:
        least = logprobs.topk(top_k, -1).values[:, -1:]
        logprobs = logprobs.masked_fill(logprobs < least, -torch.inf).log_softmax(-1)
    if top_p < 1.0:
        ordered = logprobs.sort(-1, descending=True).values
        before = ordered.exp().cumsum(-1) - ordered.exp()  # probability of all likelier tokens
        least = ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
        logprobs = logprobs.masked_fill(logprobs < least, -torch.inf).log_softmax(-1)
    return logprobs


def uniforms(seed: int, rows: np.ndarray, steps: int) -> Tensor:
    """Uniform numbers in [0, 1) of each row and step, R steps; each depends on (seed, row, step) and nothing else."""
    result = np.empty((len(rows), steps))
    streams, offset = np.divmod(rows, STREAM_ROWS)
    for stream in np.unique(streams):
        key = np.array([seed % 2**64, stream], dtype=np.uint64)
        numbers = np.random.Generator(np.random.Philox(key=key)).random(
            (steps, STREAM_ROWS)
        )  # step by step: more steps change none
        result[streams == stream] = numbers[:, offset[streams == stream]].T
    return torch.from_numpy(result)


# ------------------------------------------------------------------------------------------------ before anything is drawn


def batches_of(prompt_ids: Sequence[list[int]], k: int, batch_rows: int) -> list[Sequence[int]]:
    """Rows in batches: prompts of like length together, all answers to a prompt in one batch where they fit."""
    order = sorted(range(len(prompt_ids)), key=lambda p: len(prompt_ids[p]))
    rows = [p * k + j for p in order for j in range(k)]
    size = max(1, batch_rows // k) * k if k <= batch_rows else batch_rows
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def refuse_choice(choice: Choice, k: int, max_new_tokens: int) -> None:
    allowed = {
        "temperature": (
            choice.temperature,
            choice.temperature > 0,
            "above 0; for the likeliest token at every step use greedy=True",
        ),
        "top_k": (choice.top_k, choice.top_k >= 0, "0 (all tokens) or more"),
        "top_p": (choice.top_p, 0 < choice.top_p <= 1, "above 0 and at most 1 (all tokens)"),
        "k": (k, k >= 1, "1 or more answers to a prompt"),
        "max_new_tokens": (max_new_tokens, max_new_tokens >= 1, "1 or more"),
    }
    for name, (value, is_allowed, rule) in allowed.items():
        if not is_allowed:
            raise ConfigError(f"cannot sample with {name} = {value}\n  {name} must be {rule}")


def refuse_long(prompts: Sequence[Prompt], prompt_ids: Sequence[list[int]], max_new_tokens: int, context: int | None) -> None:
    if context is None:
        return
    long = [place for place, ids in enumerate(prompt_ids) if len(ids) + max_new_tokens > context]
    if long:
        worst = max(long, key=lambda place: len(prompt_ids[place]))
        raise DataError(
            f"{len(long)} of {len(prompts)} prompts are too long: the model reads {context} tokens, {max_new_tokens} of them for the answer\n"
            f"  longest: prompt {prompts[worst].id}, {len(prompt_ids[worst])} tokens, beginning {prompts[worst].messages[0].content[:60]!r}\n"
            f"  leave long prompts out (max_prompt={context - max_new_tokens} or less), or ask for shorter answers (max_new_tokens)"
        )
