"""Beam search against everything there is: an enumerable model, whose likeliest answers are known; diversity by its definition."""

from itertools import product

import pytest
import torch

from prefloop.errors import ConfigError, DataError
from prefloop.models.beam import beam_search, extended
from prefloop.models.sampling import sample
from prefloop.records import Prompt
from tests.helpers import assert_close
from tests.methods.toy import WORLD, toy_encoder, toy_policy

N = 3  # tokens of an answer
PROMPTS = [WORLD.prompts[0], WORLD.prompts[3], Prompt.of("a b c d")]  # of unlike length


@torch.no_grad()
def every_answer(policy, prompt: Prompt, temperature: float) -> list[tuple[float, tuple[int, ...]]]:
    """All answers of up to N tokens with their log-probabilities, likeliest first, by one pass each."""
    encode, n_words = toy_encoder(), policy.config.vocab_size
    ids, found = encode.prompt_ids(prompt), {}
    for tail in product(range(n_words), repeat=N):
        end = next((i + 1 for i, token in enumerate(tail) if token in encode.stops), N)
        found.setdefault(tail[:end], None)
    rows = torch.tensor([ids + list(tail) + [0] * (N - len(tail)) for tail in found])
    said = (policy(input_ids=rows).logits / temperature).double().log_softmax(-1)
    worth = [sum(float(said[row, len(ids) + t - 1, token]) for t, token in enumerate(tail)) for row, tail in enumerate(found)]
    return sorted(zip(worth, found, strict=True), reverse=True)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_with_room_for_every_beginning_it_finds_the_likeliest_answers_there_are(temperature):
    policy = toy_policy(seed=2)
    beams = policy.config.vocab_size**2
    found = beam_search(policy, toy_encoder(), PROMPTS, beams=beams, max_new_tokens=N, temperature=temperature)
    for p, prompt in enumerate(PROMPTS):
        best = every_answer(policy, prompt, temperature)[:beams]
        mine = slice(p * beams, (p + 1) * beams)
        assert_close(torch.tensor(found.logprob[mine]).float(), torch.tensor([worth for worth, _ in best]).float())
        assert [c.text for c in found.completions[mine]][:5] == [toy_encoder().decode(tail) for _, tail in best[:5]]
        assert list(found.n_tokens[mine])[:5] == [len(tail) for _, tail in best[:5]]


def test_one_beam_takes_the_likeliest_token_at_every_step():
    policy = toy_policy(seed=2)
    found = beam_search(policy, toy_encoder(), PROMPTS, beams=1, max_new_tokens=4)
    greedy = sample(policy, toy_encoder(), PROMPTS, k=1, max_new_tokens=4, seed=0, greedy=True)
    assert [c.text for c in found.completions] == [c.text for c in greedy.completions]
    assert list(found.is_finished) == greedy.is_finished.tolist()
    assert_close(torch.tensor(found.logprob).float(), greedy.logprobs.sum(1))


def test_prompts_searched_side_by_side_change_nothing():
    policy = toy_policy(seed=2)
    ways = [beam_search(policy, toy_encoder(), PROMPTS, beams=4, max_new_tokens=4, batch_rows=rows) for rows in (4, 64)]
    assert [c.text for c in ways[0].completions] == [c.text for c in ways[1].completions]
    backwards = beam_search(policy, toy_encoder(), PROMPTS[::-1], beams=4, max_new_tokens=4)
    assert [c.text for c in backwards.completions[:4]] == [c.text for c in ways[0].completions[-4:]]


def test_groups_without_a_penalty_find_the_same_and_with_a_heavy_one_begin_differently():
    policy, encode = toy_policy(seed=2), toy_encoder()
    how = {"beams": 4, "groups": 4, "max_new_tokens": 4}
    same = beam_search(policy, encode, PROMPTS, **how, diversity=0.0)
    assert len({c.text for c in same.completions[:4]}) == 1
    apart = beam_search(policy, encode, PROMPTS, **how, diversity=1e3)
    begun = beam_search(policy, encode, PROMPTS, **{**how, "max_new_tokens": 1}, diversity=1e3)
    for p in range(len(PROMPTS)):
        assert len(set(begun.logprob[4 * p : 4 * p + 4])) == 4  # four first tokens
    first = beam_search(policy, encode, PROMPTS, beams=1, max_new_tokens=4)
    assert [c.text for c in apart.completions[::4]] == [c.text for c in first.completions]  # the first group pays nothing


def test_the_penalty_counts_in_choosing_and_not_in_what_a_beam_is_worth():
    """Two groups of one beam, log-probabilities -1, -1.5, -4: with a penalty of 1 the second takes the second token."""
    said = torch.tensor([[[-1.0, -1.5, -4.0]] * 2]).double()
    worth, is_open = torch.zeros(1, 2).double(), torch.ones(1, 2, dtype=torch.bool)
    token, parent, value = extended(said, worth, is_open, 2, 1.0)
    assert token.tolist() == [[0, 1]] and parent.tolist() == [[0, 1]]
    assert_close(value, torch.tensor([[-1.0, -1.5]], dtype=torch.float64))
    token, _, value = extended(said, worth, is_open, 2, 0.4)  # 1.4 is still cheaper than 1.5
    assert token.tolist() == [[0, 0]]
    assert_close(value, torch.tensor([[-1.0, -1.0]], dtype=torch.float64))


def test_a_beam_that_has_ended_stays_until_something_likelier_comes_and_pays_no_penalty():
    said = torch.tensor([[[-0.1, -9.0, -9.0]] * 2]).double()
    ended = torch.tensor([[True, False]])
    token, parent, value = extended(said, torch.tensor([[-3.0, -1.0]], dtype=torch.float64), ended, 1, 0.0)
    assert parent.tolist() == [[1, 0]]
    assert_close(value, torch.tensor([[-1.0, -3.1]], dtype=torch.float64))
    assert token[0, 1] == 0
    _, parent, value = extended(said, torch.tensor([[-3.0, -1.0]], dtype=torch.float64), torch.tensor([[False, False]]), 2, 5.0)
    assert parent.tolist() == [[0, 1]]
    assert_close(value, torch.tensor([[-3.0, -1.0]], dtype=torch.float64))


def test_what_cannot_be_searched_is_refused():
    policy, encode = toy_policy(), toy_encoder()
    with pytest.raises(ConfigError, match="4 beams do not divide into 3 groups"):
        beam_search(policy, encode, PROMPTS, beams=4, groups=3, max_new_tokens=2)
    with pytest.raises(DataError, match="prompts are too long"):
        beam_search(policy, encode, PROMPTS, beams=2, max_new_tokens=30)
    assert beam_search(policy, encode, [], beams=2, max_new_tokens=2).completions == ()
