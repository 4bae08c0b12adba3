"""Figures over many rows, computed some at a time, are those of all at once."""

import pytest
import torch

from prefloop.errors import DataError
from prefloop.models.batch import TokenBatch
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import padded
from prefloop.models.evaluation import by_prompts, by_rows, mean_loss
from prefloop.ops.logprobs import length_mask
from prefloop.ops.loss import Loss
from tests.helpers import assert_close
from tests.models.test_prefix_attention import batch_of
from tests.models.tiny import CONTEXT, policy

ROWS = [[5, 1, 2], [7], [4, 4], [1, 2, 3, 4, 5, 6], [9, 9, 9]]


def batch() -> TokenBatch:
    tokens, length = padded(ROWS, 0)
    return TokenBatch(tokens, length, (tokens > 0).float(), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]))


def sum_of_tokens(model, batch: TokenBatch) -> Loss:
    """A loss one can do in the head: the weighted sum of each row's tokens. Also: dropout must be off."""
    assert not model.training
    return Loss((batch.weight * batch.tokens.sum(1)).sum(), {})


LIMITS = [(1, 0), (2, 0), (64, 0), (64, 1), (64, 5), (2, 12)]  # rows, tokens


@pytest.mark.parametrize(("rows", "tokens"), LIMITS)
def test_a_mean_loss_is_the_weighted_mean_over_rows_however_they_are_cut(rows, tokens):
    model = torch.nn.Linear(1, 1).train()
    expected = sum(w * sum(row) for w, row in zip(batch().weight.tolist(), ROWS, strict=True)) / float(batch().weight.sum())
    assert_close(mean_loss(sum_of_tokens, model, batch(), rows=rows, tokens=tokens), expected)
    assert model.training


@pytest.mark.parametrize(("rows", "at_once"), LIMITS)
def test_rows_come_back_in_their_order_with_zeros_in_the_columns_that_were_cut(rows, at_once):
    tokens, length = padded(ROWS, 8)
    shapes: list[tuple[int, ...]] = []

    def squares(tokens, wanted):
        shapes.append(tokens.shape)
        return tokens**2 * wanted

    wanted = length_mask(length, tokens.shape[1])
    assert_close(by_rows(squares, tokens, length, wanted, rows=rows, at_once=at_once), tokens**2 * wanted)
    assert [width for _, width in shapes] == sorted(width for _, width in shapes), "rows of like length go together"
    assert all(n <= rows and (n == 1 or at_once == 0 or n * width <= at_once) for n, width in shapes)


@pytest.mark.parametrize(("rows", "tokens"), LIMITS)
def test_prompts_come_back_in_their_order_and_a_prompt_counts_once(rows, tokens):
    """Prompts of 1 to 4 tokens with two completions of as many each: 3 tokens a row for each token of the prompt."""
    lengths = torch.tensor([3, 1, 4, 2])
    ranked = batch_of(lengths.tolist(), [[n, n] for n in lengths.tolist()])
    sizes_: list[tuple[int, int]] = []

    def counted(part):
        sizes_.append((len(part.weight), 3 * part.prompt.shape[1]))
        return part.prompt_length[:, None] * torch.tensor([1.0, 10.0])

    found = by_prompts(counted, ranked, torch.nn.Linear(1, 1), rows=rows, tokens=tokens)
    assert_close(found, lengths[:, None] * torch.tensor([1.0, 10.0]))
    assert all(n <= rows and (n == 1 or tokens == 0 or n * width <= tokens) for n, width in sizes_)


def test_rows_beyond_the_context_are_named_with_their_number_and_the_way_out():
    refuse_longer_than_context(policy(), torch.tensor([3, CONTEXT]), "rankings")
    refuse_longer_than_context(policy(), torch.tensor([], dtype=torch.long), "rankings")
    with pytest.raises(
        DataError, match=rf"1 of 2 rows of rankings .* the longest has {CONTEXT + 1} tokens, the model reads {CONTEXT}"
    ):
        refuse_longer_than_context(policy(), torch.tensor([3, CONTEXT + 1]), "rankings")
