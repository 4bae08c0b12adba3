"""Rows, columns and the way from prompts with completions to plain sequences."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.models.batch import FlatRows, RankedBatch, RolloutBatch, TokenBatch, flat_rows, move, row_lengths, take, trim
from prefloop.models.encode import padded

TOKENS = st.lists(st.integers(1, 99), min_size=1, max_size=6)
GROUPS = st.lists(st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=4)), min_size=1, max_size=4)


def ranked_of(groups: list[tuple[list[int], list[list[int]]]]) -> RankedBatch:
    """Prompts with their completions; padding is -1, which no real token is."""
    k = max(len(answers) for _, answers in groups)
    prompt, prompt_length = padded([prompt for prompt, _ in groups], -1)
    flat, length = padded([answer for _, answers in groups for answer in answers + [[]] * (k - len(answers))], -1)
    shape = (len(groups), k)
    return RankedBatch(
        prompt,
        prompt_length,
        flat.view(*shape, -1),
        length.view(shape),
        torch.zeros(shape),
        length.view(shape) > 0,
        torch.ones(len(groups)),
    )


def text_rows(rows: FlatRows) -> list[list[int]]:
    return [tokens[:n] for tokens, n in zip(rows.tokens.tolist(), rows.length.tolist(), strict=True)]


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_flat_rows_are_each_prompt_followed_by_each_of_its_completions(groups):
    rows = flat_rows(ranked_of(groups))
    assert text_rows(rows) == [prompt + answer for prompt, answers in groups for answer in answers]
    assert rows.start.tolist() == [len(prompt) for prompt, answers in groups for _ in answers]
    places = [(p, k) for p, (_, answers) in enumerate(groups) for k in range(len(answers))]
    assert list(zip(*(axis.tolist() for axis in rows.place), strict=True)) == places
    assert (rows.tokens >= 0).all(), "behind the text stands 0, not what the batch was padded with"


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_trimming_cuts_columns_of_padding_and_nothing_else(groups):
    batch = ranked_of(groups)
    wide = RankedBatch(
        **{
            **vars(batch),
            "prompt": torch.nn.functional.pad(batch.prompt, (0, 3), value=-1),
            "completion": torch.nn.functional.pad(batch.completion, (0, 2), value=-1),
        }
    )
    for name, value in vars(trim(wide)).items():
        assert torch.equal(value, vars(batch)[name])


def token_batch() -> TokenBatch:
    tokens, length = padded([[1, 2, 3], [4], [5, 6]], 0)
    return TokenBatch(tokens, length, tokens.float(), torch.tensor([1.0, 2.0, 3.0]))


def test_taking_rows_takes_them_from_every_field_in_the_order_asked():
    taken = take(token_batch(), torch.tensor([2, 0]))
    assert taken.tokens.tolist() == [[5, 6, 0], [1, 2, 3]]
    assert taken.weight.tolist() == [3.0, 1.0]
    assert trim(take(token_batch(), slice(1, 2))).tokens.tolist() == [[4]]


def test_a_row_costs_its_tokens_and_a_ranking_its_longest_answer():
    assert row_lengths(token_batch()).tolist() == [3, 1, 2]
    assert row_lengths(ranked_of([([1, 2], [[3], [4, 5, 6]]), ([7], [[8]])])).tolist() == [5, 2]


@pytest.mark.parametrize("batch", [token_batch(), ranked_of([([1], [[2], [3, 4]])])], ids=["tokens", "ranked"])
def test_moving_keeps_every_field(batch):
    moved = move(batch, torch.device("meta"))
    assert type(moved) is type(batch)
    assert all(getattr(moved, field.name).device.type == "meta" for field in fields(batch))


def test_a_rollout_is_trimmed_in_every_column_at_once():
    tokens, length = padded([[1, 2, 3], [4]], 0)
    wide = {name: tokens.float() for name in ("old_logprobs", "old_values", "advantages", "returns", "token_weight")}
    batch = RolloutBatch(tokens=tokens, length=length, is_response=tokens > 0, weight=torch.ones(2), **wide)
    short = trim(take(batch, slice(1, 2)))
    assert {tuple(getattr(short, field.name).shape) for field in fields(short)} == {(1, 1), (1,)}
