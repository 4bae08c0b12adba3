import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, tensor

from prefloop.ops import logprobs as module
from prefloop.ops.logprobs import (
    CHUNK_LOGITS,
    SMALLEST_CHUNK,
    at_predicted_token,
    length_mask,
    logprobs_and_entropy_from_hidden,
    logprobs_from_hidden,
    positions_at_once,
    span_mask,
    token_logprobs,
)
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=40)
B, T, D, V = 3, 7, 4, 11


def text() -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """Head, hidden states, tokens, and answers at different places of their rows."""
    rng = torch.Generator().manual_seed(0)
    head = nn.Linear(D, V).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    hidden = torch.randn(B, T, D, generator=rng, dtype=torch.float64)
    return head, hidden, torch.randint(V, (B, T), generator=rng), span_mask(tensor([1, 3, 6]), tensor([7, 5, 7]), T)


def one_by_one(logits: Tensor, tokens: Tensor, temperature: float) -> list[list[float]]:
    """log p of token t from the logits at t - 1, in plain Python."""
    rows = []
    for b in range(len(tokens)):
        row = [0.0]
        for t in range(1, tokens.shape[1]):
            said = [float(x) / temperature for x in logits[b, t - 1]]
            row.append(said[int(tokens[b, t])] - math.log(sum(math.exp(x) for x in said)))
        rows.append(row)
    return rows


# -------------------------------------------------------------------------------------------------- from all logits


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_the_logprob_of_a_token_is_read_one_position_before_it(temperature: float):
    head, hidden, tokens, _ = text()
    expected = one_by_one(head(hidden).detach(), tokens, temperature)
    assert_close(token_logprobs(head(hidden), tokens, temperature=temperature), expected)


def test_indifferent_logits_give_every_token_the_same_chance_and_the_first_none():
    assert_close(token_logprobs(torch.zeros(1, 4, 5), tensor([[0, 1, 2, 3]])), [[0.0, *[-math.log(5)] * 3]])


def test_logits_at_the_last_position_and_the_first_token_do_not_matter():
    head, hidden, tokens, _ = text()
    logits, other_tokens = head(hidden), torch.cat([tokens[:, :1] * 0, tokens[:, 1:]], 1)
    other_logits = torch.cat([logits[:, :-1], torch.full_like(logits[:, :1], torch.nan)], 1)
    assert_close(token_logprobs(other_logits, other_tokens), token_logprobs(logits, tokens))


def test_half_precision_logits_are_summed_in_single_precision():
    """Over 4,096 equal words bfloat16 itself could only say a multiple of 1/16."""
    logprobs = token_logprobs(torch.zeros(1, 2, 4096, dtype=torch.bfloat16), tensor([[0, 0]]))
    assert logprobs.dtype == torch.float32
    assert_close(logprobs, [[0.0, -math.log(4096)]])


def test_a_temperature_near_zero_leaves_only_the_most_likely_token():
    logits = tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    assert_close(token_logprobs(logits, tensor([[0, 2]]), temperature=0.01), [[0.0, 0.0]])


# ----------------------------------------------------------------------------------------------- from hidden states


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 3, 100, None])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "recomputed"])
def test_values_and_gradients_are_those_of_all_logits_however_they_are_cut(
    temperature: float, chunk: int | None, is_kept: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "KEPT_LOGITS", 10**9 if is_kept else 0)
    head, hidden, tokens, wanted = text()
    weight = torch.linspace(-1, 2, B * T, dtype=torch.float64).view(B, T)
    leaves = [hidden.requires_grad_(), *head.parameters()]

    expected = token_logprobs(head(hidden), tokens, temperature=temperature) * wanted
    actual = logprobs_from_hidden(head, hidden, tokens, wanted, temperature=temperature, chunk=chunk)
    assert_close(actual, expected)
    slopes = torch.autograd.grad((actual * weight).sum(), leaves)
    for slope, other in zip(slopes, torch.autograd.grad((expected * weight).sum(), leaves), strict=True):
        assert_close(slope, other)


def test_the_head_sees_only_positions_before_wanted_tokens_a_chunk_at_a_time():
    head, hidden, tokens, wanted = text()
    seen = []

    def counted(states: Tensor) -> Tensor:
        seen.append(states)
        return head(states)

    logprobs_from_hidden(counted, hidden, tokens, wanted, chunk=4)
    assert max(len(states) for states in seen) == 4
    before_wanted = wanted.roll(-1, 1)  # no row wants its first token, so nothing wraps round
    assert_close(torch.cat(seen), hidden[before_wanted])


def test_recomputing_applies_the_head_once_more_to_each_chunk_and_not_before_the_backward_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT_LOGITS", 0)
    head, hidden, tokens, wanted = text()
    n_seen = []

    def counted(states: Tensor) -> Tensor:
        n_seen.append(len(states))
        return head(states)

    loss = logprobs_from_hidden(counted, hidden.requires_grad_(), tokens, wanted, chunk=5).sum()
    n_wanted = int(wanted.sum())
    assert sum(n_seen) == n_wanted
    torch.autograd.grad(loss, hidden)
    assert sum(n_seen) == 2 * n_wanted


def test_a_chunk_holds_as_many_logits_in_any_small_vocabulary_and_as_many_positions_in_any_large_one():
    assert {n_words * positions_at_once(n_words) for n_words in (256, 1024, 4096)} == {CHUNK_LOGITS}
    assert {positions_at_once(n_words) for n_words in (16_384, 32_000, 150_000)} == {SMALLEST_CHUNK}


def test_unwanted_positions_are_zero_and_get_no_gradient_whatever_they_hold():
    head, hidden, tokens, wanted = text()
    needed = wanted.roll(-1, 1)
    spoilt = hidden.where(needed[:, :, None], torch.nan).requires_grad_()
    logprobs = logprobs_from_hidden(head, spoilt, tokens, wanted)
    (slope,) = torch.autograd.grad(logprobs.sum(), spoilt)
    assert_close(logprobs[~wanted], torch.zeros(int((~wanted).sum()), dtype=torch.float64))
    assert_close(slope[~needed], torch.zeros(int((~needed).sum()), D, dtype=torch.float64))


def test_the_first_token_of_a_row_has_no_logprob_even_if_wanted():
    head, hidden, tokens, _ = text()
    everything = torch.ones(B, T, dtype=torch.bool)
    assert_close(logprobs_from_hidden(head, hidden, tokens, everything), token_logprobs(head(hidden), tokens))


def test_where_nothing_is_wanted_there_is_nothing_and_its_gradient_is_zero():
    head, hidden, tokens, wanted = text()
    logprobs = logprobs_from_hidden(head, hidden.requires_grad_(), tokens, torch.zeros_like(wanted))
    assert_close(logprobs, torch.zeros(B, T, dtype=torch.float64))
    assert_close(torch.autograd.grad(logprobs.sum(), hidden)[0], torch.zeros_like(hidden))


def test_the_sum_over_an_answer_is_the_logprob_of_the_answer():
    """Two tokens from a chain with chances 1/4 and 1/8."""
    logits = tensor([[1 / 4, 3 / 4], [7 / 8, 1 / 8], [0.5, 0.5]]).log()[None]
    assert_close(token_logprobs(logits, tensor([[0, 0, 1]])).sum(), math.log(1 / 4 * 1 / 8))


# ---------------------------------------------------------------------------------------------------------- entropy


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "recomputed"])
def test_entropy_is_that_of_the_distribution_the_token_was_drawn_from(is_kept: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT_LOGITS", 10**9 if is_kept else 0)
    head, hidden, tokens, wanted = text()
    found = logprobs_and_entropy_from_hidden(head, hidden.requires_grad_(), tokens, wanted, temperature=0.7, chunk=2)
    chances = (head(hidden) / 0.7).softmax(-1)
    entropy = -(chances * chances.log()).sum(-1)  # B T, at the position that speaks
    assert_close(found.entropy, torch.cat([torch.zeros(B, 1), entropy[:, :-1]], 1) * wanted)
    assert_close(found.logprobs, logprobs_from_hidden(head, hidden, tokens, wanted, temperature=0.7))


def test_entropy_carries_no_gradient_and_leaves_that_of_the_logprobs_alone():
    head, hidden, tokens, wanted = text()
    found = logprobs_and_entropy_from_hidden(head, hidden.requires_grad_(), tokens, wanted)
    assert not found.entropy.requires_grad
    alone = logprobs_from_hidden(head, hidden, tokens, wanted)
    assert_close(torch.autograd.grad(found.logprobs.sum(), hidden)[0], torch.autograd.grad(alone.sum(), hidden)[0])


def test_words_that_are_ruled_out_add_nothing_to_the_entropy():
    states = tensor([[[0.0, 0.0, -torch.inf, -torch.inf], [0.0] * 4]])
    found = logprobs_and_entropy_from_hidden(lambda x: x, states, tensor([[0, 1]]), tensor([[False, True]]))
    assert_close(found.entropy, [[0.0, math.log(2)]])


# ------------------------------------------------------------------------------------------------------------ masks


@quick
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4))
def test_masks_say_which_columns_lie_before_the_length_and_inside_the_span(spans: list[tuple[int, int]]):
    start, end = tensor([s for s, _ in spans]), tensor([e for _, e in spans])
    assert length_mask(end, 6).tolist() == [[t < e for t in range(6)] for _, e in spans]
    assert span_mask(start, end, 6).tolist() == [[s <= t < e for t in range(6)] for s, e in spans]


def test_what_a_position_says_moves_to_the_token_it_speaks_of():
    assert at_predicted_token(tensor([[1.0, 2.0, 3.0]])).tolist() == [[0.0, 1.0, 2.0]]
