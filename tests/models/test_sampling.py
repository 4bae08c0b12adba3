"""The sampler against full forward passes, against exact probabilities, and against itself in other batches."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.errors import ConfigError, DataError
from prefloop.models import decoder_group, sampling
from prefloop.models.adapters import with_adapter
from prefloop.models.encode import Encoder
from prefloop.models.heads import policy_logprobs, unwrapped
from prefloop.models.sampling import Choice, GroupReading, OwnReading, choose, filtered, invert, sample, uniforms
from prefloop.ops.logprobs import span_mask
from prefloop.records import Prompt
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, CONTEXT, brief, encoder, policy, prompts


@pytest.fixture(params=["groups", "own"])
def reader(request, monkeypatch) -> str:
    """Both ways of reading: by the decoder, and by the model itself."""
    if request.param == "own":
        monkeypatch.setattr(sampling, "decoder_of", lambda model, n_positions: None)
    return request.param


def written_out(model, ids: list[int], stops: list[int], n: int) -> list[int]:
    """The likeliest next token again and again, each from a full forward pass over everything so far."""
    answer: list[int] = []
    with torch.no_grad():
        while len(answer) < n and (not answer or answer[-1] not in stops):
            answer.append(int(model(torch.tensor([ids + answer])).logits[0, -1].argmax()))
    return answer


def answers(samples) -> list[list[int]]:
    rows = zip(samples.tokens.tolist(), samples.prompt_length.tolist(), samples.length.tolist(), strict=True)
    return [tokens[start:end] for tokens, start, end in rows]


def answer_mask(samples):
    return span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_full_forward_passes_token_for_token(architecture, reader):
    model, encode, asked = policy(architecture), brief(), prompts(5)
    expected = [written_out(model, encode.prompt_ids(prompt), encode.stops, 12) for prompt in asked]
    assert len(set(map(len, expected))) > 1, "rows must end at different steps for this to say anything"
    for k, batch_rows in ((1, 3), (2, 256)):
        samples = sample(model, encode, asked, k=k, max_new_tokens=12, seed=0, greedy=True, batch_rows=batch_rows)
        assert answers(samples) == [answer for answer in expected for _ in range(k)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_generate_token_for_token(architecture, reader):
    model, encode, asked = policy(architecture, seed=1), brief(), prompts(5)
    ids = [encode.prompt_ids(prompt) for prompt in asked]
    width = max(map(len, ids))
    tokens = torch.tensor([[encode.pad] * (width - len(row)) + row for row in ids])
    said = model.generate(
        tokens, attention_mask=(tokens != encode.pad).long(), do_sample=False, max_new_tokens=12, eos_token_id=encode.stops,
        pad_token_id=encode.pad,
    )[:, width:]  # fmt: skip
    samples = sample(model, encode, asked, k=1, max_new_tokens=12, seed=0, greedy=True)
    assert answers(samples) == [row[:n] for row, n in zip(said.tolist(), map(len, answers(samples)), strict=True)]
    assert all(set(row[n:]) <= {encode.pad} for row, n in zip(said.tolist(), map(len, answers(samples)), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_the_policy_gives_the_finished_texts(architecture, temperature, reader):
    model, encode = policy(architecture), brief()
    samples = sample(model, encode, prompts(), k=4, max_new_tokens=16, seed=1, temperature=temperature)
    with torch.no_grad():
        again = policy_logprobs(model, samples.tokens, answer_mask(samples), temperature=temperature)
    assert_close(samples.logprobs, again)


def test_batches_order_and_retirement_move_no_draw(monkeypatch, reader):
    model, encode, asked = policy(seed=2), brief(), prompts(6)
    draw = lambda asked, **more: sample(model, encode, asked, k=3, max_new_tokens=20, seed=5, **more)  # noqa: E731
    whole = draw(asked)
    assert len(set(map(len, answers(whole)))) > 3, "rows must end at different steps for this to say anything"
    assert answers(draw(asked, batch_rows=2)) == answers(whole)
    assert answers(draw(asked, batch_rows=7)) == answers(whole)
    halves = [draw(asked[:2]), draw(asked[2:], first_prompt=2)]
    assert answers(halves[0]) + answers(halves[1]) == answers(whole)
    for crowded in (0.0, 1.0):  # never, and whenever a row ends
        monkeypatch.setattr(sampling, "CROWDED", crowded)
        monkeypatch.setattr(decoder_group, "SMALLER", crowded)
        assert answers(draw(asked)) == answers(whole)


def test_another_seed_draws_other_answers_and_the_same_seed_the_same():
    model, encode = policy(), encoder()
    draw = lambda seed: answers(sample(model, encode, prompts(), k=2, max_new_tokens=8, seed=seed))  # noqa: E731
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_more_steps_only_lengthen_answers():
    model, encode = policy(), encoder()
    draw = lambda n: answers(sample(model, encode, prompts(), k=2, max_new_tokens=n, seed=3))  # noqa: E731
    assert [long[:5] for long in draw(11)] == draw(5)


def test_frequencies_of_first_tokens_fit_the_exact_distribution():
    """Pearson's statistic over 4,000 draws stays below its mean plus five standard deviations."""
    model, encode, prompt, n, temperature = policy(seed=4), encoder(), Prompt.of("the cat"), 4000, 1.3
    samples = sample(model, encode, [prompt], k=n, max_new_tokens=1, seed=7, temperature=temperature)
    with torch.no_grad():
        logits = model(torch.tensor([encode.prompt_ids(prompt)])).logits[0, -1].double()
    probability = (logits / temperature).softmax(-1).numpy()
    seen = np.bincount([row[0] for row in answers(samples)], minlength=len(probability))
    common = n * probability >= 5
    observed = np.append(seen[common], seen[~common].sum())
    expected = n * np.append(probability[common], probability[~common].sum())
    statistic, freedom = ((observed - expected) ** 2 / expected).sum(), common.sum()
    assert freedom > 10
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_frequencies_of_whole_answers_fit_products_of_exact_conditionals():
    """Two steps, so that the cache, the position and the second distribution count too."""
    model, encode, prompt, n = policy(seed=4), encoder(), Prompt.of("a"), 4000
    samples = sample(model, encode, [prompt], k=n, max_new_tokens=2, seed=11)
    counts = Counter(tuple(row) for row in answers(samples))
    ids = encode.prompt_ids(prompt)
    gaps = []
    for answer, count in counts.most_common(12):
        tokens = torch.tensor([ids + list(answer)])
        wanted = torch.zeros_like(tokens, dtype=torch.bool)
        wanted[:, len(ids) :] = True
        with torch.no_grad():
            p = float(policy_logprobs(model, tokens, wanted, temperature=1.0).sum().exp())
        gaps.append((count - n * p) / math.sqrt(n * p * (1 - p)))
    assert max(map(abs, gaps)) < 5


def test_an_answer_ends_with_eos_or_at_the_limit_and_eos_counts():
    model, encode = policy(seed=2), brief()
    samples = sample(model, encode, prompts(), k=6, max_new_tokens=20, seed=0)
    assert 0 < int(samples.is_finished.sum()) < len(samples.is_finished)
    for row, finished in zip(answers(samples), samples.is_finished.tolist(), strict=True):
        assert (row[-1] in encode.stops) == finished
        assert not set(row[:-1]) & set(encode.stops)
        assert finished or len(row) == 20
    assert bool((samples.logprobs.gather(1, samples.length[:, None] - 1) < 0).all())  # the end has a price like any token
    assert bool((samples.logprobs[~answer_mask(samples)] == 0).all())
    assert bool((samples.tokens[torch.arange(samples.tokens.shape[1])[None, :] >= samples.length[:, None]] == encode.pad).all())


def test_completions_are_the_decoded_answers_of_the_right_prompts():
    model, encode, asked = policy(), encoder(), prompts(4)
    samples = sample(model, encode, asked, k=2, max_new_tokens=6, seed=0, source="policy:test@0")
    for row, (prompt, completion, ids) in enumerate(zip(samples.prompts, samples.completions, answers(samples), strict=True)):
        assert prompt == asked[row // 2]
        assert (completion.prompt_id, completion.source) == (prompt.id, "policy:test@0")
        assert completion.text == encode.decode(ids)


def test_sampling_leaves_the_model_in_the_mode_it_was_in_and_draws_with_dropout_off():
    model, encode = policy("gpt2"), encoder()  # GPT-2 has dropout everywhere by default
    quiet = answers(sample(model, encode, prompts(), k=1, max_new_tokens=6, seed=0))
    model.train()
    assert answers(sample(model, encode, prompts(), k=1, max_new_tokens=6, seed=0)) == quiet
    assert all(module.training for module in model.modules())


def test_a_model_that_reads_for_itself_reads_a_prompt_once_and_drops_rows_that_ended(monkeypatch):
    monkeypatch.setattr(sampling, "decoder_of", lambda model, n_positions: None)
    model, encode, asked = policy(seed=2), brief(), prompts(3)
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    sample(model, encode, asked, k=8, max_new_tokens=30, seed=0)
    hook.remove()
    assert shapes[0] == (3, max(len(encode.prompt_ids(prompt)) for prompt in asked))
    rows = [rows for rows, width in shapes[1:]]
    assert rows[0] <= 24
    assert rows[-1] < 12
    assert all(earlier >= later for earlier, later in pairwise(rows))


def test_a_model_that_reads_for_itself_needs_no_mask_for_rows_of_equal_length(monkeypatch):
    monkeypatch.setattr(sampling, "decoder_of", lambda model, n_positions: None)
    model, encode = policy(), encoder()
    masks: list[bool] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append("attention_mask" in kwargs), with_kwargs=True
    )
    sample(model, encode, [Prompt.of("the cat"), Prompt.of("the fox")], k=2, max_new_tokens=3, seed=0)
    assert not any(masks)
    masks.clear()
    sample(model, encode, [Prompt.of("the cat"), Prompt.of("the fox saw")], k=2, max_new_tokens=3, seed=0)
    hook.remove()
    assert all(masks)


def watched(monkeypatch, kind: type) -> tuple[list[int], list[int]]:
    """How many rows are begun at a time, and how many go on at every step."""
    begun: list[int] = []
    going: list[int] = []
    begin, read_tokens = kind.begin, kind.read_tokens

    def begin_watched(self, prompt_ids):
        begun.append(len(prompt_ids))
        return begin(self, prompt_ids)

    def read_watched(self, tokens, position):
        going.append(len(tokens))
        return read_tokens(self, tokens, position)

    monkeypatch.setattr(kind, "begin", begin_watched)
    monkeypatch.setattr(kind, "read_tokens", read_watched)
    return begun, going


def test_rows_that_wait_take_the_place_of_rows_that_ended(monkeypatch):
    model, encode, asked = policy(seed=2), brief(), prompts(12)
    begun, going = watched(monkeypatch, GroupReading)
    samples = sample(model, encode, asked, k=2, max_new_tokens=30, seed=0, batch_rows=8)
    assert begun == [4] * 6
    assert max(going) == 8
    assert any(earlier < later for earlier, later in pairwise(going))
    assert sum(going) == sum(len(answer) - 1 for answer in answers(samples))  # the first token follows from the prompt
    own_begun, own_going = watched(monkeypatch, OwnReading)
    monkeypatch.setattr(sampling, "decoder_of", lambda model, n_positions: None)
    again = sample(model, encode, asked, k=2, max_new_tokens=30, seed=0, batch_rows=8)
    assert answers(again) == answers(samples)
    assert own_begun == [8] * 3
    assert len(going) < len(own_going)  # fewer steps than batches one after the other


def test_answers_of_many_ages_end_up_in_their_rows(reader):
    model, encode, asked = policy(seed=2), brief(), prompts(12)
    samples = sample(model, encode, asked, k=2, max_new_tokens=24, seed=0, batch_rows=4)
    with torch.no_grad():
        again = policy_logprobs(model, samples.tokens, answer_mask(samples), temperature=1.0)
    assert_close(samples.logprobs, again)


def test_a_row_ends_at_its_limit_with_eos_and_is_what_it_was_before(reader):
    model, encode, asked = policy(seed=2), brief(), prompts(4)
    draw = lambda **more: sample(model, encode, asked, k=3, max_new_tokens=12, seed=5, **more)  # noqa: E731
    limits = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    free, limited = draw(), draw(length_limits=limits)
    assert any(len(row) > limit for row, limit in zip(answers(free), limits, strict=True))
    for row, (free_row, limit) in enumerate(zip(answers(free), limits, strict=True)):
        expected = free_row if len(free_row) < limit else [*free_row[: limit - 1], encode.end]
        assert answers(limited)[row] == expected
        if len(free_row) >= limit:
            assert bool(limited.is_finished[row])
            assert float(limited.logprobs[row, limited.length[row] - 1]) == 0.0


def test_an_adapter_is_part_of_the_policy_that_is_sampled():
    model, encode = policy(), encoder()
    bare = answers(sample(model, encode, prompts(), k=1, max_new_tokens=8, seed=0, greedy=True))
    adapted = with_adapter(model, rank=2, alpha=4, seed=0)
    assert answers(sample(adapted, encode, prompts(), k=1, max_new_tokens=8, seed=0, greedy=True)) == bare  # B starts at zero
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    samples = sample(adapted, encode, prompts(), k=1, max_new_tokens=8, seed=0, greedy=True)
    assert answers(samples) != bare
    merged = unwrapped(adapted.merge_and_unload())
    assert answers(samples) == [written_out(merged, encode.prompt_ids(p), encode.stops, 8) for p in prompts()]


def test_progress_sees_every_batch():
    seen: list[int] = []

    def count(batches):
        for batch in batches:
            yield batch
            seen.append(len(batch))

    sample(policy(), encoder(), prompts(5), k=2, max_new_tokens=2, seed=0, batch_rows=4, progress=count)
    assert seen == [2] * 5  # half of what goes on at a time, so that rows can take the places of others
    seen.clear()
    sample(policy(), encoder(), prompts(5), k=2, max_new_tokens=2, seed=0, progress=count)
    assert seen == [10]


# ------------------------------------------------------------------------------------------------ one token


PROBABILITY = torch.tensor([[0.1, 0.4, 0.0, 0.3, 0.2]])


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 0), (0.0999, 0), (0.1001, 1), (0.4999, 1), (0.5001, 3), (0.7999, 3), (0.8001, 4), (1 - 2**-53, 4)],
)
def test_a_uniform_number_lands_in_the_stretch_of_its_token(uniform, token):
    chosen, logprob = choose(PROBABILITY.log(), torch.tensor([uniform], dtype=torch.float64), Choice(1.0, 0, 1.0, greedy=False))
    assert chosen.tolist() == [token]
    assert_close(logprob, [math.log(PROBABILITY[0, token])])


def test_an_even_grid_of_uniform_numbers_gives_back_the_distribution():
    n = 1000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    logits = PROBABILITY.log().clamp(min=-100).expand(n, -1)
    chosen, _ = choose(logits, grid, Choice(1.0, 0, 1.0, greedy=False))
    assert_close(chosen.bincount(minlength=5) / n, PROBABILITY[0])


@pytest.mark.parametrize("n_words", [1, 63, 64, 65, 1000, 4096])
def test_a_token_is_the_one_at_which_the_whole_sum_passes_the_uniform_number(n_words):
    rng = np.random.default_rng(n_words)
    probability = torch.from_numpy(rng.dirichlet(np.full(n_words, 0.05), size=400).astype(np.float32))
    uniform = rng.random(400)
    total = probability.double().cumsum(-1).numpy()
    target = uniform * total[:, -1]
    expected = [np.searchsorted(row, value, side="right") for row, value in zip(total, target, strict=True)]
    is_clear = np.abs(total - target[:, None]).min(1) > 1e-6  # nearer to a border it is a matter of rounding
    chosen = invert(probability, torch.from_numpy(uniform)).numpy()
    assert is_clear.mean() > 0.5
    assert (chosen == expected)[is_clear].all()
    assert (probability.numpy()[np.arange(400), chosen] > 0).all()


@pytest.mark.parametrize("only", [0, 63, 64, 150, 199])
def test_impossible_tokens_are_not_drawn_at_either_end(only):
    probability = torch.zeros(3, 200)
    probability[:, only] = 0.7
    assert invert(probability, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist() == [only] * 3


def test_temperature_divides_the_logits():
    grid = (torch.arange(900, dtype=torch.float64) + 0.5) / 900
    logits = torch.tensor([[0.0, math.log(8.0)]]).expand(900, -1)
    chosen, logprob = choose(logits, grid, Choice(3.0, 0, 1.0, greedy=False))  # 8 ** (1/3) = 2, so a third and two thirds
    assert_close(chosen.bincount() / 900, [1 / 3, 2 / 3])
    assert_close(logprob.exp().unique(), [1 / 3, 2 / 3])


def test_top_k_keeps_the_k_likeliest_and_normalises_them():
    assert_close(filtered(PROBABILITY.log(), top_k=2, top_p=1.0).exp(), [[0, 4 / 7, 0, 3 / 7, 0]])
    assert_close(filtered(PROBABILITY.log(), top_k=9, top_p=1.0).exp(), PROBABILITY)


def test_top_p_keeps_the_fewest_likeliest_that_reach_p():
    assert_close(filtered(PROBABILITY.log(), top_k=0, top_p=0.39).exp(), [[0, 1, 0, 0, 0]])
    assert_close(filtered(PROBABILITY.log(), top_k=0, top_p=0.65).exp(), [[0, 4 / 7, 0, 3 / 7, 0]])
    assert_close(filtered(PROBABILITY.log(), top_k=0, top_p=0.75).exp(), [[0, 4 / 9, 0, 3 / 9, 2 / 9]])


def test_filtered_samples_carry_the_filtered_logprobs():
    model, encode = policy(seed=4), encoder()
    samples = sample(model, encode, prompts(3), k=5, max_new_tokens=4, seed=0, top_k=1)
    assert_close(samples.logprobs, torch.zeros_like(samples.logprobs))  # one token left, probability 1
    greedy = sample(model, encode, prompts(3), k=5, max_new_tokens=4, seed=0, greedy=True)
    assert answers(samples) == answers(greedy)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63), rows=st.lists(st.integers(0, 2000), min_size=1, max_size=8), steps=st.integers(1, 6))
def test_a_uniform_number_belongs_to_its_seed_row_and_step_alone(seed, rows, steps):
    alone = [float(uniforms(seed, np.array([row]), steps)[0, steps - 1]) for row in rows]
    together = uniforms(seed, np.array(rows), steps + 3)
    assert together[:, steps - 1].tolist() == alone
    assert bool(((together >= 0) & (together < 1)).all())


def test_uniform_numbers_of_neighbours_are_unrelated():
    numbers = uniforms(3, np.arange(2000), 40)
    assert abs(float(numbers.mean()) - 0.5) < 5 / math.sqrt(12 * numbers.numel())
    for a, b in [(numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1]), (numbers, uniforms(4, np.arange(2000), 40))]:
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 5 / math.sqrt(a.numel())


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": 0.0}, "greedy=True"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"k": 0}, "k = 0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_an_impossible_setting_is_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        sample(policy(), encoder(), prompts(1), **{"k": 1, "max_new_tokens": 2, "seed": 0, **settings})


@pytest.mark.parametrize(
    ("limits", "named"), [([2], "1 lengths for 2 answers"), ([0, 1], "length_limits holds 0"), ([1, 3], "length_limits holds 3")]
)
def test_impossible_limits_are_named(limits, named):
    with pytest.raises(ConfigError, match=named):
        sample(policy(), encoder(), prompts(1), k=2, max_new_tokens=2, seed=0, length_limits=limits)


def test_a_prompt_that_leaves_no_room_for_the_answer_is_refused_with_its_length():
    long = Prompt.of("cat " * CONTEXT)
    with pytest.raises(DataError, match=rf"1 of 2 prompts are too long: the model reads {CONTEXT} tokens") as refusal:
        sample(policy(), encoder(), [Prompt.of("a"), long], k=1, max_new_tokens=8, seed=0)
    assert long.id in str(refusal.value)
    assert f"max_prompt={CONTEXT - 8}" in str(refusal.value)


def test_a_prompt_that_just_fits_is_answered():
    encode = encoder()
    room = CONTEXT - len(encode.prompt_ids(Prompt.of("cat")))
    samples = sample(policy(), encode, [Prompt.of("cat")], k=1, max_new_tokens=room, seed=0)
    assert int(samples.length[0]) <= CONTEXT


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    with pytest.raises(DataError, match="do not belong together"):
        sample(policy(vocab_size=100), encoder(), prompts(1), k=1, max_new_tokens=2, seed=0)


def test_no_prompts_give_no_samples():
    samples = sample(policy(), encoder(), [], k=2, max_new_tokens=2, seed=0)
    assert samples.prompts == ()
    assert len(samples.tokens) == 0


def test_an_empty_prompt_begins_from_the_end_of_text():
    plain = Encoder(encoder().tokenizer, template="plain")
    samples = sample(policy(), plain, [Prompt.of("")], k=1, max_new_tokens=3, seed=0)
    assert samples.tokens[0, 0] == plain.tokenizer.eos_token_id
    assert int(samples.prompt_length[0]) == 1
