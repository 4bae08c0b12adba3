"""Figures over many rows, computed some at a time, are those of all at once."""

import pytest
import torch

from prefloop.errors import DataError
from prefloop.models.batch import TokenBatch
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import padded
from prefloop.models.evaluation import by_rows, mean_loss
from prefloop.ops.logprobs import length_mask
from prefloop.ops.loss import Loss
from tests.helpers import assert_close
from tests.models.tiny import CONTEXT, policy

ROWS = [[5, 1, 2], [7], [4, 4], [1, 2, 3, 4, 5, 6], [9, 9, 9]]


def batch() -> TokenBatch:
    tokens, length = padded(ROWS, 0)
    return TokenBatch(tokens, length, (tokens > 0).float(), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]))


def sum_of_tokens(model, batch: TokenBatch) -> Loss:
    """A loss one can do in the head: the weighted sum of each row's tokens. Also: dropout must be off."""
    assert not model.training
    return Loss((batch.weight * batch.tokens.sum(1)).sum(), {})


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_a_mean_loss_is_the_weighted_mean_over_rows_however_they_are_cut(rows):
    model = torch.nn.Linear(1, 1).train()
    expected = sum(w * sum(row) for w, row in zip(batch().weight.tolist(), ROWS, strict=True)) / float(batch().weight.sum())
    assert_close(mean_loss(sum_of_tokens, model, batch(), rows=rows), expected)
    assert model.training


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_rows_come_back_in_their_order_with_zeros_in_the_columns_that_were_cut(rows):
    tokens, length = padded(ROWS, 8)
    widths: list[int] = []

    def squares(tokens, wanted):
        widths.append(tokens.shape[1])
        return tokens**2 * wanted

    wanted = length_mask(length, tokens.shape[1])
    assert_close(by_rows(squares, tokens, length, wanted, rows=rows), tokens**2 * wanted)
    assert widths == sorted(widths), "rows of like length go together, shortest first"


def test_rows_beyond_the_context_are_named_with_their_number_and_the_way_out():
    refuse_longer_than_context(policy(), torch.tensor([3, CONTEXT]), "rankings")
    refuse_longer_than_context(policy(), torch.tensor([], dtype=torch.long), "rankings")
    with pytest.raises(
        DataError, match=rf"1 of 2 rows of rankings .* the longest has {CONTEXT + 1} tokens, the model reads {CONTEXT}"
    ):
        refuse_longer_than_context(policy(), torch.tensor([3, CONTEXT + 1]), "rankings")
