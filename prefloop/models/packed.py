"""A prompt and all its completions in one row, so that the prompt is computed once.

    | prompt | completion 1 | completion 2 | ... | padding |

A token sees its own prompt and what stands before it in its own completion, at the position it would have in a row of its
own. So every hidden state is the one of K separate rows, and so is every gradient; only the work on the prompt is shared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prefloop.models.batch import RankedBatch


@dataclass(frozen=True)
class PackedRows:
    """Prompts with their completions in a row each."""

    tokens: Tensor  # P L
    position: Tensor  # P L  as in a row of prompt and completion alone
    sees: Tensor  # P 1 L L  [.., i, j]: token i sees token j
    last: Tensor  # P K  column of each completion's last token; meaningless where there is no completion


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

    is_before = column[:, None, :] <= column[:, :, None]  # P L L
    is_own = is_prompt[:, None, :] | (part[:, None, :] == part[:, :, None])
    return PackedRows(tokens, position, (is_before & is_own)[:, None], (ends - 1).clamp(min=0))


def packing_pays(batch: RankedBatch, width: int) -> bool:
    """Whether one row per prompt is less work than one per completion, for a model of hidden size ``width``.

    The work is counted in tokens. A pair of tokens in attention is worth about 1 / (8 width) of one (fitted to timings);
    a packed row pays for all its pairs, seen or not.
    """
    there = batch.completion_length > 0
    own = ((batch.prompt_length[:, None] + batch.completion_length) * there).double()  # P K
    together = (batch.prompt_length + batch.completion_length.sum(1)).double()  # P
    return work(together, width) < work(own, width)


def work(length: Tensor, width: int) -> float:
    return float(length.sum() + (length**2).sum() / (8 * width))
