"""Answers drawn from a policy, with the log-probability of every token under the distribution it was drawn from.

A token is drawn by inverting the distribution's sum at a uniform number that belongs to (seed, row, step) alone. So an
answer depends on neither the other rows beside it, nor their order, nor when they finish; what is left is the rounding of
matrix products, which can move a choice only where the uniform number falls within it of the border between two tokens.

Each prompt is read once for its K answers. Rows that have ended leave, and rows that wait take their place: answers of
unlike age go on side by side where the architecture's arithmetic is known (``decoder.py``). Other models read for
themselves, a batch at a time.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from prefloop.errors import ConfigError, DataError
from prefloop.models.batch import Samples
from prefloop.models.cache import new_cache
from prefloop.models.decoder import Decoder, decoder_of, fused_decoder_of
from prefloop.models.decoder_group import AnswerGroup
from prefloop.models.encode import Encoder, padded
from prefloop.models.heads import at_rest, unwrapped
from prefloop.models.load import context_length
from prefloop.models.tokenizer import refuse_foreign_tokenizer
from prefloop.ops.logprobs import length_mask, tempered_logprobs
from prefloop.records import Completion, Prompt

STREAM_ROWS = 256  # rows that share a stream of uniform numbers; making a stream costs more than drawing from it
CROWDED = 0.8  # a model that reads for itself drops ended rows when no more than this share of its rows still goes on
BLOCK = 64  # tokens whose probabilities are summed before one among them is looked for

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


class Reading(Protocol):
    """Rows in the middle of being read. Row order is the order in which they were begun."""

    device: torch.device

    def begin(self, prompt_ids: Sequence[list[int]]) -> Tensor:
        """More rows; the logits after the prompt of each: R V."""
        ...

    def read_tokens(self, tokens: Tensor, position: Tensor) -> Tensor:
        """One more token of every row (R) at its position (R); the logits after it: R V."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        ...


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
    length_limits: Sequence[int] | None = None,
    compile: bool = False,
) -> Samples:
    """K answers to every prompt; rows of one prompt are adjacent, row p * k + j is the j-th answer to prompt p.

    With ``top_k`` or ``top_p`` the log-probabilities are those of the filtered distribution: such samples are not the
    policy's own, and training on them would be off-policy. With ``greedy`` they are those of the unfiltered one.
    ``batch_rows`` is how many rows are in work at a time. ``first_prompt`` is the number of the first prompt where
    processes share a list between them. ``progress`` wraps the list of batches, as a progress bar does; a batch counts as
    done when the next is begun. ``length_limits`` gives every row a length at which EOS is put instead of drawn (at
    log-probability 0, for it was no choice). ``compile`` has the step compiled by torch.compile instead of in C (``step.c``),
    which on a processor takes longer to begin and longer to run; on a GPU it is replayed as CUDA graphs.
    """
    choice = Choice(temperature, top_k, top_p, greedy)
    refuse_choice(choice, k, max_new_tokens)
    inner = unwrapped(model)
    refuse_foreign_tokenizer(inner, encoder.tokenizer)
    prompt_ids = [encoder.prompt_ids(prompt) for prompt in prompts]
    refuse_long(prompts, prompt_ids, max_new_tokens, context_length(inner))
    rows = np.arange(len(prompts) * k)
    refuse_limits(length_limits, len(rows), max_new_tokens)

    with at_rest(model):
        n_positions = max(map(len, prompt_ids), default=0) + max_new_tokens
        decoder = fused_decoder_of(inner, n_positions) if compile else decoder_of(inner, n_positions)
        at_once = batch_rows if decoder is None or len(rows) <= batch_rows else max(min(k, batch_rows), batch_rows // 2)
        batches = batches_of(prompt_ids, k, at_once)
        answers = draw(
            OwnReading(inner, encoder.pad, max_new_tokens) if decoder is None else GroupReading(decoder, max_new_tokens),
            [prompt_ids[row // k] for row in rows],
            iter(progress(batches) if progress else batches),
            uniforms(seed, rows + first_prompt * k, max_new_tokens),
            choice,
            encoder,
            length_limits,
            beside=0 if decoder is None else batch_rows,
        )
    return behind_prompts(encoder, prompts, prompt_ids, k, answers, source)


def behind_prompts(
    encoder: Encoder, prompts: Sequence[Prompt], prompt_ids: Sequence[list[int]], k: int, answers: Answers, source: str
) -> Samples:
    """The answers, in the order of their rows, each behind its prompt."""
    prompt, prompt_length = (part.repeat_interleave(k, 0) for part in padded(prompt_ids, encoder.pad))
    length = prompt_length + answers.length
    width = max([1, *length.tolist()])
    tokens, logprobs = torch.full((len(length), width), encoder.pad), torch.zeros(len(length), width)
    tokens[:, : prompt.shape[1]] = prompt
    row, step = length_mask(answers.length, answers.tokens.shape[1]).nonzero(as_tuple=True)
    place = (row, prompt_length[row] + step)
    tokens[place], logprobs[place] = answers.tokens[row, step], answers.logprobs[row, step]
    asked = tuple(prompt for prompt in prompts for _ in range(k))
    said = zip(asked, tokens.tolist(), prompt_length.tolist(), length.tolist(), strict=True)
    completions = tuple(Completion.of(prompt, encoder.decode(ids[start:end]), source=source) for prompt, ids, start, end in said)
    return Samples(asked, completions, tokens, prompt_length, length, logprobs, answers.is_finished)


# ------------------------------------------------------------------------------------------------ all rows


def draw(
    reading: Reading,
    prompt_ids: Sequence[list[int]],
    batches: Iterator[Sequence[int]],
    uniform: Tensor,
    choice: Choice,
    encoder: Encoder,
    limits: Sequence[int] | None,
    *,
    beside: int,
) -> Answers:
    """An answer to each row's prompt. A batch is begun when no row goes on, or when with it no more than ``beside`` do."""
    device = reading.device
    n_rows, n_new = uniform.shape
    stops, uniform = torch.tensor(encoder.stops, device=device), uniform.to(device)
    tokens = torch.full((n_rows, n_new), encoder.pad, device=device)
    logprobs = torch.zeros(n_rows, n_new, device=device)
    length = torch.zeros(n_rows, dtype=torch.long, device=device)
    start = torch.tensor([len(ids) for ids in prompt_ids], dtype=torch.long, device=device)
    limit = None if limits is None else torch.tensor(limits, device=device)

    rows = age = chosen = torch.zeros(0, dtype=torch.long, device=device)  # of the answers that go on; tokens they have
    waiting = next(batches, None)
    while len(rows) or waiting is not None:
        said = [reading.read_tokens(chosen, start[rows] + age - 1)] if len(rows) else []
        while waiting is not None and (len(rows) == 0 or len(rows) + len(waiting) <= beside):
            said.append(reading.begin([prompt_ids[row] for row in waiting]))
            rows = torch.cat([rows, torch.tensor(waiting, device=device)])
            age = torch.cat([age, age.new_zeros(len(waiting))])
            waiting = next(batches, None)
        chosen, logprob = choose(said[0] if len(said) == 1 else torch.cat(said), uniform[rows, age], choice)
        if limit is not None:
            is_forced = age + 1 == limit[rows]
            chosen, logprob = chosen.masked_fill(is_forced, encoder.end), logprob.masked_fill(is_forced, 0.0)
        tokens[rows, age], logprobs[rows, age] = chosen, logprob.float()
        age = age + 1
        goes_on = ((age < n_new) & ~torch.isin(chosen, stops)).tolist()
        if not all(goes_on):
            left = [place for place, go in enumerate(goes_on) if go]
            length[rows] = age
            reading.keep(left)
            rows, age, chosen = rows[left], age[left], chosen[left]
    is_finished = torch.isin(tokens.gather(1, length[:, None] - 1)[:, 0], stops)
    return Answers(tokens.cpu(), logprobs.cpu(), length.cpu(), is_finished.cpu())


class GroupReading:
    """Rows of any age side by side, each batch a group of its own that shares its prompts."""

    def __init__(self, decoder: Decoder, max_new_tokens: int):
        self.decoder, self.max_new_tokens = decoder, max_new_tokens
        self.device = decoder.embedding.device
        self.groups: list[AnswerGroup] = []

    def begin(self, prompt_ids: Sequence[list[int]]) -> Tensor:
        group, logits = self.decoder.read_prompts(prompt_ids, self.max_new_tokens)
        self.groups.append(group)
        return logits

    def read_tokens(self, tokens: Tensor, position: Tensor) -> Tensor:
        return self.decoder.read_tokens(self.groups, tokens, position)

    def keep(self, rows: Sequence[int]) -> None:
        first = 0
        for group in self.groups:
            behind = first + group.n_rows
            mine = [row - first for row in rows if first <= row < behind]
            if len(mine) < group.n_rows:
                group.keep(mine)
            first = behind
        self.groups = [group for group in self.groups if group.n_rows]


class OwnReading:
    """A model that reads for itself, a batch at a time: its cache, and for rows of unlike length where each begins.

    Prompts are padded on the left, so that all rows write to the same column. Where they are equally long there is no
    padding, no mask, and nothing an architecture could get wrong.
    """

    def __init__(self, model: Any, pad: int, max_new_tokens: int):
        self.model, self.pad, self.max_new_tokens = model, pad, max_new_tokens
        self.device = next(model.parameters()).device
        accepted = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.keeps_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.cache: Any = None
        self.mask: Tensor | None = None  # B T  True on real tokens
        self.n_in_batch = 0  # B
        self.live = torch.zeros(0, dtype=torch.long, device=self.device)  # R  which rows of the batch go on

    def begin(self, prompt_ids: Sequence[list[int]]) -> Tensor:
        """Every distinct prompt once; the logits after it, for every row: R V."""
        number = {ids: place for place, ids in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
        asked = torch.tensor([number[tuple(ids)] for ids in prompt_ids], device=self.device)  # R
        flipped, length = padded([ids[::-1] for ids in number], self.pad)
        tokens, width = flipped.flip(1).to(self.device), flipped.shape[1]  # P S, padded on the left
        self.cache, self.mask = new_cache(self.model, width + self.max_new_tokens), None
        self.live, self.n_in_batch = torch.arange(len(asked), device=self.device), len(asked)
        extra: dict[str, Any] = {}
        if int(length.min()) < width:
            place = torch.arange(width, device=self.device)[None, :] - (width - length.to(self.device))[:, None]  # P S
            self.mask = (place >= 0)[asked]
            extra["attention_mask"] = (place >= 0).long()
            if self.takes_positions:
                extra["position_ids"] = place.clamp(min=0)
        out = self.model(input_ids=tokens, past_key_values=self.cache, use_cache=True, **self.keeps_last, **extra)
        self.cache = out.past_key_values
        if len(number) < len(asked):
            self.cache.reorder_cache(asked)
        return out.logits[:, -1][asked]

    def read_tokens(self, tokens: Tensor, position: Tensor) -> Tensor:
        extra: dict[str, Any] = {}
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
            extra["attention_mask"] = self.mask.long()
            if self.takes_positions:
                extra["position_ids"] = self.in_batch(position)[:, None]
        tokens = self.in_batch(tokens)[:, None]
        out = self.model(input_ids=tokens, past_key_values=self.cache, use_cache=True, **extra)
        return out.logits[self.live, -1]

    def in_batch(self, value: Tensor) -> Tensor:
        """A value of every row that goes on at its place in the batch: R -> B."""
        return value.new_zeros(self.n_in_batch).index_copy_(0, self.live, value)

    def keep(self, rows: Sequence[int]) -> None:
        """Ended rows are computed along until enough have gathered: to leave them out, the cache is copied."""
        self.live = self.live[list(rows)]
        if 0 < len(rows) <= CROWDED * self.n_in_batch:
            self.cache.reorder_cache(self.live)
            self.mask = None if self.mask is None else self.mask[self.live]
            self.live = torch.arange(len(rows), device=self.device)
            self.n_in_batch = len(rows)


# ------------------------------------------------------------------------------------------------ one token


def choose(logits: Tensor, uniform: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """A token of each row and its log-probability: R V, R -> R, R."""
    if not choice.greedy and (choice.top_k or choice.top_p < 1.0):
        logprobs = filtered(tempered_logprobs(logits, choice.temperature), top_k=choice.top_k, top_p=choice.top_p)
        chosen = invert(logprobs.exp(), uniform)
        return chosen, logprobs.gather(-1, chosen[:, None])[:, 0]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    probability = (wide if choice.temperature == 1.0 else wide / choice.temperature).softmax(-1)
    chosen = logits.argmax(-1) if choice.greedy else invert(probability, uniform)
    return chosen, probability.gather(-1, chosen[:, None])[:, 0].log()


def invert(probability: Tensor, uniform: Tensor) -> Tensor:
    """The token whose stretch of the cumulative sum holds the uniform number: R V, R -> R. Impossible tokens have none.

    First the block of tokens it falls into is found, then the token: most probabilities are only ever summed.
    """
    wide = torch.float32 if probability.device.type == "mps" else torch.float64  # no doubles on Apple's GPUs
    n_words = probability.shape[1]
    whole = n_words // BLOCK * BLOCK
    mass = probability[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)  # R V/BLOCK
    if whole < n_words:
        mass = torch.cat([mass, probability[:, whole:].sum(-1, keepdim=True)], 1)
    block, rest = stretch(mass, uniform.to(wide)[:, None])
    column = block * BLOCK + torch.arange(BLOCK, device=block.device)  # R BLOCK
    inside = probability.gather(1, column.clamp(max=n_words - 1)).masked_fill_(column >= n_words, 0.0)
    return (block * BLOCK + stretch(inside, rest)[0])[:, 0]


def stretch(mass: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Which entry's stretch of the sum a share of it falls into, and which share of the stretch lies before: R N, R 1 -> R 1, R 1."""
    mass = mass.to(uniform.dtype)
    total = mass.cumsum(-1)
    target = uniform.clamp(0.0, 1 - torch.finfo(uniform.dtype).eps) * total[:, -1:]  # never the end itself, where nothing is
    found = torch.searchsorted(total, target, right=True)
    own = mass.gather(1, found)
    return found, 1 - (total.gather(1, found) - target) / own


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


def refuse_limits(limits: Sequence[int] | None, n_rows: int, max_new_tokens: int) -> None:
    if limits is None:
        return
    if len(limits) != n_rows:
        raise ConfigError(f"length_limits gives {len(limits)} lengths for {n_rows} answers\n  give one for each answer")
    wrong = [limit for limit in limits if not 1 <= limit <= max_new_tokens]
    if wrong:
        raise ConfigError(f"length_limits holds {wrong[0]}\n  lengths must be 1 to max_new_tokens ({max_new_tokens})")


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
