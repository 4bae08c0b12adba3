"""K completions of a prompt: their scores and log-probabilities, the prompt computed once where that is less work.

    | prompt | completion 1 | completion 2 | ... | padding |          a row of this kind instead of K rows

A token sees its own prompt and what stands before it in its own completion, at the position it would have in a row of its
own. So every hidden state is the one of K separate rows, and so is every gradient; only the work on the prompt is shared.
Where sharing would be more work (short prompts, long completions), or the architecture would not read such a row exactly
(windows, positions of its own making), each completion gets a row of its own.
"""

import inspect
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from prefloop.models.batch import RankedBatch, flat_rows, row_tokens, take, trim
from prefloop.models.block_mask import attending_in_blocks, why_not_in_blocks
from prefloop.models.heads import at_rest, head_is_plain, output_head, policy_logprobs, sequence_rewards, unwrapped
from prefloop.models.last_layer import reading_only
from prefloop.models.parts import TOKENS_AT_ONCE, sizes
from prefloop.models.prefix_attention import Layout, attending_in_parts, attends_in_parts, layout_of
from prefloop.ops.logprobs import logprobs_from_hidden, span_mask

Way = Literal["mask", "parts", "blocks"]  # how a packed row attends: all pairs, or those that are seen, on a processor or a GPU

NO_MASK = torch.ones(1, 1, 1, 1, dtype=torch.bool)  # a mask of four dimensions is passed on as it is; nobody reads this one
MOVING = 1.15  # what a packed row costs beside its work; at less than 1.15 times the work a row for each is as fast (measured)
SIDE_BY_SIDE = 32  # completions of like length computed together: less padding, and buffers that stay in the cache


def scores(model: nn.Module, ranked: RankedBatch, *, max_rows: int = SIDE_BY_SIDE) -> Tensor:
    """The score of every completion, 0 where there is none: P K. About ``max_rows`` are computed at a time, shortest first."""
    if shares_prompts(model, ranked):
        return packed_scores(model, ranked, max_rows=max_rows)
    return flat_scores(model, ranked, max_rows=max_rows)


def completion_logprobs(
    model: nn.Module, ranked: RankedBatch, *, temperature: float = 1.0, max_rows: int = SIDE_BY_SIDE
) -> Tensor:
    """The log-probability of every token of every completion, 0 on padding: P K T."""
    if head_is_plain(model) and shares_prompts(model, ranked):
        return packed_logprobs(model, ranked, temperature=temperature, max_rows=max_rows)
    return flat_logprobs(model, ranked, temperature=temperature, max_rows=max_rows)


# ------------------------------------------------------------------------------------------------ a row for each completion


def flat_scores(model: nn.Module, ranked: RankedBatch, *, max_rows: int) -> Tensor:
    """Each completion in a row of its own, behind its prompt: P K."""
    rows = flat_rows(ranked)
    order, parts = parts_of(rows.length, max_rows)
    reward = torch.cat(
        [sequence_rewards(model, rows.tokens[part, : int(rows.length[part].max())], rows.length[part]) for part in parts]
    )
    return reward.new_zeros(ranked.tier.shape).index_put((rows.place[0][order], rows.place[1][order]), reward)


def flat_logprobs(model: nn.Module, ranked: RankedBatch, *, temperature: float, max_rows: int) -> Tensor:
    """The same for log-probabilities: P K T."""
    rows = flat_rows(ranked)
    order, parts = parts_of(rows.length, max_rows)
    found = [flat_part(model, rows.tokens[part], rows.start[part], rows.length[part], temperature) for part in parts]
    column = torch.cat([where for where, _ in found])
    counts = (rows.length - rows.start)[order]
    row = torch.arange(len(order), device=order.device).repeat_interleave(counts)
    place = (rows.place[0][order][row], rows.place[1][order][row], column)
    values = torch.cat([value for _, value in found])
    return values.new_zeros(ranked.completion.shape).index_put(place, values)


def flat_part(model: nn.Module, tokens: Tensor, start: Tensor, length: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of the completions' tokens, row after row: the place in the completion, and the log-probability."""
    tokens = tokens[:, : int(length.max())]
    wanted = span_mask(start, length, tokens.shape[1])
    row, column = wanted.nonzero(as_tuple=True)
    return column - start[row], policy_logprobs(model, tokens, wanted, temperature=temperature)[wanted]


# ------------------------------------------------------------------------------------------------ a row for each prompt


def packed_scores(model: nn.Module, ranked: RankedBatch, *, max_rows: int) -> Tensor:
    """All completions of a prompt in one row behind it: P K."""
    return in_parts(packed_scores_part, model, ranked, max_rows).masked_fill(ranked.completion_length == 0, 0)


def packed_scores_part(model: nn.Module, ranked: RankedBatch) -> Tensor:
    """P K, meaningless where there is no completion."""
    rows = packed_rows(ranked)
    read = torch.zeros_like(rows.is_completion).scatter(1, rows.last, True)
    hidden = packed_hidden_states(model, rows, read)
    last = hidden.gather(1, rows.last[:, :, None].expand(-1, -1, hidden.shape[-1]))  # P K D
    return unwrapped(model).score(last).squeeze(-1)


def packed_logprobs(model: nn.Module, ranked: RankedBatch, *, temperature: float, max_rows: int) -> Tensor:
    """The same for log-probabilities: P K T."""

    def part_of(model: nn.Module, part: RankedBatch) -> Tensor:
        rows = packed_rows(part)
        predicts = torch.zeros_like(rows.is_completion).index_put(
            (rows.is_completion.nonzero()[:, 0], rows.predictor[rows.is_completion]), rows.is_completion.new_ones(())
        )
        said = logprobs_from_hidden(
            output_head(model),
            packed_hidden_states(model, rows, predicts),
            rows.tokens,
            rows.is_completion,
            temperature=temperature,
            predictor=rows.predictor,
        )
        p = rows.is_completion.nonzero()[:, 0]
        place = (p, rows.part[rows.is_completion] - 1, rows.offset[rows.is_completion])
        return said.new_zeros(len(part.weight), *ranked.completion.shape[1:]).index_put(place, said[rows.is_completion])

    return in_parts(part_of, model, ranked, max_rows)


def in_parts(compute: Callable[[nn.Module, RankedBatch], Tensor], model: nn.Module, ranked: RankedBatch, max_rows: int) -> Tensor:
    """``compute`` on prompts of like length, a few at a time, the results in the order of the batch: P ... ."""
    order, parts = parts_of(row_tokens(ranked), max(1, max_rows // ranked.tier.shape[1]))
    values = torch.cat([compute(model, trim(take(ranked, part))) for part in parts])
    return torch.zeros_like(values).index_put((order,), values)


def parts_of(cost: Tensor, max_rows: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Rows of like length together, shortest first: N -> all in order, and cut into parts.

    Tokens are limited where no gradient is wanted. Where one is, nothing is let go of between parts, and the learner has
    limited the batch.
    """
    order = cost.argsort(stable=True)
    return order, order.split(sizes(cost[order], max_rows, 0 if torch.is_grad_enabled() else TOKENS_AT_ONCE))


@dataclass(frozen=True)
class PackedRows:
    """Prompts with their completions in a row each."""

    tokens: Tensor  # P L
    position: Tensor  # P L  as in a row of prompt and completion alone
    last: Tensor  # P K  column of each completion's last token; meaningless where there is no completion
    is_completion: Tensor  # P L
    part: Tensor  # P L  whose token it is: 0 the prompt's, k + 1 completion k's, K + 1 nobody's
    offset: Tensor  # P L  and its place in it
    predictor: Tensor  # P L  the column that predicts it: the one before, or the end of the prompt
    lengths: tuple[Tensor, Tensor]  # P, P K  of prompts and completions

    @property
    def sees(self) -> Tensor:
        """[.., i, j]: token i sees token j, as a mask says it: P 1 L L."""
        column = torch.arange(self.part.shape[1], device=self.part.device)
        is_own = (self.part == 0)[:, None, :] | (self.part[:, None, :] == self.part[:, :, None])
        return (is_own & (column <= column[:, None]))[:, None]

    @property
    def layout(self) -> Layout:
        """Where the parts stand that see each other."""
        return layout_of(*self.lengths, self.part.shape[1])


def packed_rows(batch: RankedBatch) -> PackedRows:
    """The completions of each prompt one after the other behind it."""
    n_prompts, k, width = batch.completion.shape
    ends = batch.prompt_length[:, None] + batch.completion_length.cumsum(1)  # P K
    edges = torch.cat([batch.prompt_length[:, None], ends], 1).contiguous()  # P K+1
    column = torch.arange(int(ends[:, -1].max()), device=ends.device).expand(n_prompts, -1).contiguous()  # P L
    part = torch.searchsorted(edges, column, right=True)  # P L  0 is the prompt, k + 1 padding
    begins = torch.cat([torch.zeros_like(edges[:, :1]), edges], 1).gather(1, part)
    offset = column - begins  # P L  within the part
    is_prompt, is_padding = part == 0, part == k + 1

    prompt = batch.prompt.gather(1, column.clamp(max=batch.prompt.shape[1] - 1))
    place = (part - 1).clamp(0, k - 1) * width + offset.clamp(0, width - 1)
    answer = batch.completion.flatten(1).gather(1, place)
    tokens = torch.where(is_prompt, prompt, answer).masked_fill(is_padding, 0)
    position = torch.where(is_prompt, column, batch.prompt_length[:, None] + offset).masked_fill(is_padding, 0)

    return PackedRows(
        tokens=tokens,
        position=position,
        last=(ends - 1).clamp(min=0),
        is_completion=~(is_prompt | is_padding),
        part=part,
        offset=offset,
        predictor=torch.where(offset == 0, batch.prompt_length[:, None] - 1, column - 1),
        lengths=(batch.prompt_length, batch.completion_length),
    )


def packed_hidden_states(model: nn.Module, rows: PackedRows, read: Tensor | None = None, *, way: Way | None = None) -> Tensor:
    """P L D, on every real token, or on those of ``read`` (P L) alone, what a row of its own would give.

    Attention is under a mask of all pairs, or without pairs that do not see each other; None takes what is open to the model.
    """
    base = unwrapped(model).base_model
    way = way or way_of(base)
    mask = rows.sees if way == "mask" else NO_MASK.to(rows.tokens.device)
    with reading_only(base, read), attending(base, rows, way):
        out = base(input_ids=rows.tokens, position_ids=rows.position, attention_mask=mask, use_cache=False)
    return out.last_hidden_state


def attending(base: Any, rows: PackedRows, way: Way) -> AbstractContextManager[None]:
    """Inside, layers attend this way."""
    if way == "mask":
        return nullcontext()
    return attending_in_parts(base, rows.layout) if way == "parts" else attending_in_blocks(base, rows.part)


def way_of(base: Any) -> Way:
    """The way without unseen pairs that is open to a model, else all pairs under a mask."""
    if attends_in_parts(base):
        return "parts"
    return "mask" if why_not_in_blocks(base) else "blocks"


# ------------------------------------------------------------------------------------------------ which of the two


def shares_prompts(model: nn.Module, ranked: RankedBatch) -> bool:
    """Whether one row per prompt is less work, and read exactly."""
    inner = unwrapped(model)
    width = inner.config.get_text_config().hidden_size
    return packing_pays(ranked, width, way=way_of(inner.base_model)) and reads_packed_rows(model)


def packing_pays(batch: RankedBatch, width: int, *, way: Way) -> bool:
    """Whether one row per prompt is less work than one per completion, for a model of hidden size ``width``.

    The work is counted in tokens. A pair of tokens in attention is worth about 1 / (8 width) of one (fitted to timings).
    Under a mask a packed row pays for all its pairs, seen or not; in parts for those that are seen, and for moving its tokens
    about, which the saving has to outweigh. In blocks the edges take the place of moving: for want of timings as much.
    """
    is_masked = way == "mask"
    there = batch.completion_length > 0
    own = ((batch.prompt_length[:, None] + batch.completion_length) * there).double()  # P K
    before, said = batch.prompt_length.double(), batch.completion_length.double()  # P, P K
    together = before + said.sum(1)
    pairs = together**2 if is_masked else before**2 + (said * (2 * before[:, None] + said)).sum(1)
    packed, flat = together.sum() + pairs.sum() / (8 * width), own.sum() + (own**2).sum() / (8 * width)
    return bool(packed * (1.0 if is_masked else MOVING) < flat)


_reading: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def reads_packed_rows(model: nn.Module) -> bool:
    """Whether the architecture takes a mask and positions as they are given, so that packed rows are exact. Probed once."""
    inner = unwrapped(model)
    if inner not in _reading:
        _reading[inner] = probe(inner)
    return _reading[inner]


def probe(model: Any) -> bool:
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
    rows, alone = packed_rows(example), flat_rows(example)
    if model.device.type == "cuda" and (reason := why_not_in_blocks(model.base_model)):
        warnings.warn(f"prompts are shared under a mask of all pairs, which is slower than in blocks: {reason}", stacklevel=2)
    ways: set[Way] = {"mask", way_of(model.base_model)}
    with at_rest(model):
        found = [packed_hidden_states(model, rows, way=way)[rows.is_completion] for way in ways]  # N D, in their order
        apart = model.base_model(input_ids=alone.tokens, use_cache=False).last_hidden_state
        apart = apart[span_mask(alone.start, alone.length, alone.tokens.shape[1])]
    allowed = 32 * torch.finfo(apart.dtype).eps * float(1 + apart.abs().max())
    return all(float((together - apart).abs().max()) <= allowed for together in found)
