"""Keys and values of answers begun together, and the attention of their next token.

A group holds P prompts and up to G answers to each, in a grid of P x G cells. The keys of a prompt lie there once, so the
queries of its answers meet them in one product (G queries at a time instead of one each); the keys of what was said lie
behind, a row for each answer. All answers of a group are equally long, so nothing of theirs has to be masked.

Where each prompt has one answer, prompt and answer lie in one buffer and one product sees both.

    prefix  2 P Hkv S C      keys and values of the prompts
    own     2 P Hkv G T C    keys and values of the answers, room for T of which ``filled`` count

Cells whose answer has ended are computed along until a grid of the remaining ones is so much smaller that moving pays.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROOM = 64  # columns for new tokens that a group begins with; doubled when they are full
SMALLER = 0.9  # a grid is left for one with no more than this share of its cells


class Heads(NamedTuple):
    n_query: int
    n_key: int
    size: int


class AnswerGroup:
    """Answers to the given prompts, one for each row; those that still go on, in their order."""

    def __init__(self, rows: Sequence[Sequence[int]], heads: Heads, n_layers: int, n_new: int, like: Tensor):
        number = {ids: place for place, ids in enumerate(dict.fromkeys(map(tuple, rows)))}
        self.prompts = list(number)
        self.asked = [number[tuple(ids)] for ids in rows]  # R  the prompt of each row
        self.heads, self.like = heads, like
        self.n_prompts, self.n_answers = len(self.prompts), max(Counter(self.asked).values())
        self.is_shared = self.n_answers > 1
        self.n_before = max(map(len, self.prompts))  # S
        self.filled = 0 if self.is_shared else self.n_before
        self.most = self.filled + n_new
        self.length = torch.tensor([len(ids) for ids in self.prompts], device=like.device)  # P
        self.bias = padding_bias(self.length, like)  # P 1 S, or None where no prompt is padded
        self.prefix = [self.taken(self.n_before) for _ in range(n_layers if self.is_shared else 0)]
        self.own = [self.taken(self.n_answers, self.filled + min(n_new, ROOM)) for _ in range(n_layers)]
        self.set_cells(cells_of(self.asked, self.n_answers))

    def taken(self, *sizes: int) -> Tensor:
        """Memory for a layer's keys and values. Padding is multiplied by zero, so it must be a number."""
        new = self.like.new_empty if self.bias is None else self.like.new_zeros
        return new(2, self.n_prompts, self.heads.n_key, *sizes, self.heads.size)

    def set_cells(self, cells: list[int]) -> None:
        """``cells``: where in the grid each row is."""
        self.cells, self.n_rows = cells, len(cells)
        is_full = cells == list(range(self.n_prompts * self.n_answers))
        row = dict(zip(cells, range(len(cells)), strict=True))
        fill = [row.get(cell, 0) for cell in range(self.n_prompts * self.n_answers)]
        device = self.like.device
        self.to_grid = None if is_full else torch.tensor(fill, device=device)  # P G  a row for each cell
        self.to_rows = None if is_full else torch.tensor(cells, device=device)  # R
        order = sorted(range(len(cells)), key=cells.__getitem__)  # rows of a prompt behind each other
        prompt = [cells[row] // self.n_answers for row in order]
        runs = [place for place in range(len(order)) if place == 0 or prompt[place] != prompt[place - 1]]
        self.tables = tuple(torch.tensor(table) for table in (cells, order, [*runs, len(order)]))  # as step.c wants them

    def keep_prompts(self, layer: int, start: int, keys_and_values: Tensor) -> None:
        """Of prompts from number ``start`` on: 2 p Hkv s C."""
        kept = self.prefix[layer] if self.is_shared else self.own[layer].select(3, 0)
        _, n, _, width, _ = keys_and_values.shape
        kept[:, start : start + n, :, :width] = keys_and_values

    def attend(self, layer: int, mixed: Tensor) -> Tensor:
        """The next token's queries, keys and values (R (Hq + 2 Hkv) C): what each head saw, R (Hq C). Keeps keys and values."""
        p, g, (n_query, n_key, size) = self.n_prompts, self.n_answers, self.heads
        if self.to_grid is not None:
            mixed = mixed.index_select(0, self.to_grid)
        parts = mixed.view(p, g, -1, size).transpose(1, 2)  # P H G C
        new = parts.narrow(1, n_query, 2 * n_key).view(p, 2, n_key, g, size).transpose(0, 1)
        query = parts.narrow(1, 0, n_query).view(p, n_key, -1, g, size).transpose(2, 3)  # P Hkv G q C
        own = self.own[layer]
        own.select(4, self.filled).copy_(new)
        keys, values = own.view(2, -1, *own.shape[4:]).narrow(2, 0, self.filled + 1).unbind()  # (P Hkv G) t C
        seen = self.seen(layer, query.contiguous().view(len(keys), -1, size), keys, values)  # (P Hkv G) q C
        seen = seen.view(p, n_key, g, -1).transpose(1, 2).reshape(p * g, -1)
        return seen if self.to_rows is None else seen.index_select(0, self.to_rows)

    def seen(self, layer: int, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention to the prompt and to what was said: (P Hkv G) q C."""
        score = torch.bmm(query, keys.transpose(1, 2))  # (P Hkv G) q t
        if not self.is_shared:
            if self.bias is not None:
                score.view(self.n_prompts, -1, score.shape[2]).narrow(2, 0, self.n_before).add_(self.bias)
            return torch.bmm(score.softmax(-1), values)
        n, q, size = query.shape
        keys_before, values_before = self.prefix[layer].flatten(1, 2).unbind()  # (P Hkv) S C
        before = torch.bmm(query.view(len(keys_before), -1, size), keys_before.transpose(1, 2))  # (P Hkv) (G q) S
        if self.bias is not None:
            before.view(self.n_prompts, -1, self.n_before).add_(self.bias)
        weight = torch.cat([before.view(n, q, -1), score], 2).softmax(-1)
        seen = torch.bmm(weight.view(*before.shape[:2], -1).narrow(2, 0, self.n_before), values_before)
        return seen.view(n, q, size).baddbmm_(weight.narrow(2, self.n_before, score.shape[2]), values)

    def make_room(self) -> None:
        """For one more token."""
        if self.filled == self.own[0].shape[4]:
            self.own = [self.widened(kept) for kept in self.own]

    def widened(self, kept: Tensor) -> Tensor:
        new = kept.new_empty(*kept.shape[:4], min(2 * self.filled, self.most), kept.shape[5])
        new.narrow(4, 0, self.filled).copy_(kept)
        return new

    def grow_older(self) -> None:
        self.filled += 1

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        cells = [self.cells[row] for row in rows]
        answers = Counter(cell // self.n_answers for cell in cells)
        fewer = max(answers.values(), default=0)
        if 0 < len(answers) * fewer <= SMALLER * self.n_prompts * self.n_answers:
            self.move(cells, sorted(answers), fewer)
        else:
            self.set_cells(cells)

    def move(self, cells: list[int], prompts: list[int], n_answers: int) -> None:
        """To a grid of these prompts with ``n_answers`` cells each."""
        new_cells = cells_of([prompts.index(cell // self.n_answers) for cell in cells], n_answers)
        source = [prompt * self.n_answers for prompt in prompts for _ in range(n_answers)]  # for a cell nobody is in, any
        for old, new in zip(cells, new_cells, strict=True):
            source[new] = old
        at = torch.tensor(source, device=self.like.device).view(len(prompts), 1, n_answers)
        head = torch.arange(self.heads.n_key, device=at.device)[:, None]
        flat = (at // self.n_answers * self.heads.n_key + head) * self.n_answers + at % self.n_answers  # P Hkv G
        self.own = [self.moved(kept, flat) for kept in self.own]
        if len(prompts) < self.n_prompts:
            left = torch.tensor(prompts, device=at.device)
            self.prefix = [kept.index_select(1, left) for kept in self.prefix]
            self.length = self.length[left]
            self.bias = None if self.bias is None else self.bias[left]
        self.n_prompts, self.n_answers = len(prompts), n_answers
        self.set_cells(new_cells)

    def moved(self, kept: Tensor, cells: Tensor) -> Tensor:
        new = kept.new_empty(2, *cells.shape, *kept.shape[4:])
        filled = kept.flatten(1, 3).narrow(2, 0, self.filled)
        new.flatten(1, 3).narrow(2, 0, self.filled).copy_(filled.index_select(1, cells.flatten()))
        return new


def cells_of(asked: Sequence[int], n_answers: int) -> list[int]:
    """A cell for each row: the next free one of its prompt."""
    taken: Counter[int] = Counter()
    cells = []
    for prompt in asked:
        cells.append(prompt * n_answers + taken[prompt])
        taken[prompt] += 1
    return cells


def padding_bias(length: Tensor, like: Tensor) -> Tensor | None:
    """-inf where a prompt has no token any more: P 1 S; None where all are equally long."""
    width = int(length.max())
    if int(length.min()) == width:
        return None
    is_padding = torch.arange(width, device=like.device) >= length[:, None]
    return like.new_zeros(len(length), 1, width).masked_fill_(is_padding[:, None], -torch.inf)
