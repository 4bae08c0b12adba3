"""K completions of a prompt give the same scores, log-probabilities and gradients whether the prompt is computed once or K times."""

from functools import partial
from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from transformers import AutoModelForSequenceClassification, BloomConfig

from prefloop.models.adapters import with_adapter
from prefloop.models.batch import RankedBatch
from prefloop.models.heads import policy_logprobs, sequence_rewards
from prefloop.models.shared_prefix import (
    Way,
    completion_logprobs,
    flat_logprobs,
    flat_scores,
    packed_logprobs,
    packed_rows,
    packed_scores,
    packing_pays,
    reads_packed_rows,
    scores,
    shares_prompts,
)
from tests.helpers import assert_close
from tests.models.test_batch import GROUPS, ranked_of
from tests.models.test_heads import reward_model
from tests.models.tiny import ARCHITECTURES, config, policy

# ------------------------------------------------------------------------------------------------ rows


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_what_a_completions_last_token_sees_is_its_prompt_and_its_own_completion_in_order(groups):
    rows = packed_rows(ranked_of(groups))
    for p, (prompt, answers) in enumerate(groups):
        for k, answer in enumerate(answers):
            last = int(rows.last[p, k])
            seen = rows.sees[p, 0, last].nonzero()[:, 0]
            assert rows.tokens[p, seen].tolist() == prompt + answer
            assert rows.position[p, seen].tolist() == list(range(len(prompt + answer)))


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_every_token_sees_what_it_would_see_in_a_row_of_its_own(groups):
    rows = packed_rows(ranked_of(groups))
    for p, (prompt, answers) in enumerate(groups):
        column = len(prompt)
        for text in [prompt, *answers]:
            start = 0 if text is prompt else column
            for offset in range(len(text)):
                seen = rows.tokens[p, rows.sees[p, 0, start + offset]].tolist()
                assert seen == (prompt[: offset + 1] if text is prompt else prompt + text[: offset + 1])
            column += 0 if text is prompt else len(text)
        assert rows.tokens.shape[1] >= column
        assert not rows.sees[p, 0, :column, column:].any(), "nothing real sees padding"
        assert rows.sees[p, 0].any(1).all(), "a row that sees nothing has no softmax"


def batch_of(prompt: int, answer: int, k: int) -> RankedBatch:
    return ranked_of([([1] * prompt, [[2] * answer] * k)])


def test_it_pays_for_long_prompts_and_many_short_answers_and_not_the_other_way_round():
    for way in get_args(Way):
        assert packing_pays(batch_of(256, 64, 9), 128, way=way)
        assert packing_pays(batch_of(15, 20, 4), 128, way=way)
        assert not packing_pays(batch_of(10, 10, 1), 128, way=way), "with one answer there is nothing to share"
    assert not packing_pays(batch_of(40, 120, 8), 128, way="mask"), "most pairs do not see each other"
    assert packing_pays(batch_of(40, 120, 8), 128, way="parts")
    assert not packing_pays(batch_of(8, 64, 2), 128, way="parts"), "moving tokens about costs more than is saved"


def test_missing_completions_take_no_columns():
    rows = packed_rows(ranked_of([([1, 2], [[3], [4]]), ([5], [[6]])]))
    assert rows.tokens.tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert rows.position.tolist() == [[0, 1, 2, 2], [0, 1, 0, 0]]
    assert rows.last[0].tolist() == [2, 3]
    assert torch.equal(rows.last[1, :1], torch.tensor([1]))


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_every_completion_token_is_predicted_where_it_would_be_in_a_row_of_its_own(groups):
    rows = packed_rows(ranked_of(groups))
    for p, (_, answers) in enumerate(groups):
        columns = rows.is_completion[p].nonzero()[:, 0]
        tokens = [(k, t, token) for k, answer in enumerate(answers) for t, token in enumerate(answer)]
        assert len(columns) == len(tokens)
        for column, (k, t, token) in zip(columns.tolist(), tokens, strict=True):
            assert (int(rows.part[p, column]) - 1, int(rows.offset[p, column]), int(rows.tokens[p, column])) == (k, t, token)
            speaker = int(rows.predictor[p, column])
            assert int(rows.position[p, speaker]) == int(rows.position[p, column]) - 1
            assert rows.sees[p, 0, column, speaker], "it is predicted from what stands before it"


# ------------------------------------------------------------------------------------------------ what comes out


def ranked() -> RankedBatch:
    """Two prompts, three and two completions."""
    rng = torch.Generator().manual_seed(0)
    return RankedBatch(
        prompt=torch.randint(3, 200, (2, 5), generator=rng),
        prompt_length=torch.tensor([5, 2]),
        completion=torch.randint(3, 200, (2, 3, 4), generator=rng),
        completion_length=torch.tensor([[4, 1, 3], [2, 4, 0]]),
        tier=torch.tensor([[0, 1, 2], [0, 1, 0]]),
        is_candidate=torch.tensor([[True, True, True], [True, True, False]]),
        weight=torch.ones(2),
    )


def alone(batch: RankedBatch, p: int, k: int) -> torch.Tensor:
    """1 T: a prompt and one of its completions."""
    n = int(batch.completion_length[p, k])
    return torch.cat([batch.prompt[p, : batch.prompt_length[p]], batch.completion[p, k, :n]])[None]


SCORES = {"rows of their own": flat_scores, "the prompt once": packed_scores}
LOGPROBS = {"rows of their own": flat_logprobs, "the prompt once": packed_logprobs}


@pytest.mark.parametrize("way", SCORES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_every_completion_is_scored_after_its_own_prompt_and_missing_ones_are_zero(architecture, way):
    model, batch = reward_model(architecture), ranked()
    table = SCORES[way](model, batch, max_rows=32)
    for p, k in product(range(2), range(3)):
        text = alone(batch, p, k)
        is_there = bool(batch.completion_length[p, k])
        assert_close(
            table[p, k], sequence_rewards(model, text, torch.tensor([text.shape[1]]))[0] if is_there else torch.tensor(0.0)
        )


@pytest.mark.parametrize("way", LOGPROBS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_every_token_of_a_completion_has_the_logprob_it_has_after_its_own_prompt(architecture, way):
    model, batch = policy(architecture), ranked()
    table = LOGPROBS[way](model, batch, temperature=0.7, max_rows=4)
    expected = torch.zeros(table.shape)
    for p, k in product(range(2), range(3)):
        text, start = alone(batch, p, k), int(batch.prompt_length[p])
        wanted = torch.arange(text.shape[1])[None] >= start
        expected[p, k, : text.shape[1] - start] = policy_logprobs(model, text, wanted, temperature=0.7)[0, start:]
    assert_close(table, expected)


@pytest.mark.parametrize("limit", [1, 7, 16])
def test_without_a_gradient_no_more_tokens_than_a_limit_are_read_at_once_and_nothing_changes(limit, monkeypatch):
    batch, model, speaker = ranked(), reward_model("llama"), policy("llama")
    ways = {
        **{way: (model, partial(way, max_rows=32)) for way in (flat_scores, packed_scores)},
        **{way: (speaker, partial(way, max_rows=32, temperature=0.7)) for way in (flat_logprobs, packed_logprobs)},
    }
    with torch.no_grad():
        expected = {way: compute(read, batch) for way, (read, compute) in ways.items()}
    read: list[torch.Size] = []
    for reader in (model, speaker):
        reader.base_model.register_forward_pre_hook(
            lambda module, given, named: read.append(named["input_ids"].shape), with_kwargs=True
        )
    monkeypatch.setattr("prefloop.models.shared_prefix.TOKENS_AT_ONCE", limit)
    with torch.no_grad():
        for way, (reader, compute) in ways.items():
            assert_close(compute(reader, batch), expected[way])
    assert read and all(rows == 1 or rows * width <= limit for rows, width in read)
    n_limited = len(read)
    packed_scores(model, batch, max_rows=32)
    assert read[n_limited:] == [(2, 13)], "with one, all that the learner gave"


def in_doubles(model: torch.nn.Module) -> torch.nn.Module:
    """float64 throughout: transformers' RMSNorm computes in float32 whatever it is given."""
    for module in model.double().modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = lambda x, m=module: m.weight * x / (x.square().mean(-1, keepdim=True) + m.variance_epsilon).sqrt()
    return model


def adapted(model: torch.nn.Module) -> torch.nn.Module:
    model = with_adapter(model, rank=2, alpha=4, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


def checkpointed(model: torch.nn.Module) -> torch.nn.Module:
    name = "activation_checkpointing_enable"  # as transformers calls it from 5.20 on
    getattr(model, name, getattr(model, "gradient_checkpointing_enable", None))({"use_reentrant": False})
    return model.train()


VARIANTS = {"plain": lambda model: model, "adapter": adapted, "gradient checkpointing": checkpointed}
KINDS = {
    "scores": (reward_model, [flat_scores, packed_scores], {}),
    "logprobs": (policy, [flat_logprobs, packed_logprobs], {"temperature": 0.7}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sharing_prompts_and_working_in_parts_change_neither_values_nor_gradients(architecture, kind, variant):
    """In float64 to 1e-9: what is left in float32 is rounding."""
    make, ways, settings_ = KINDS[kind]
    no_dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0} if architecture == "gpt2" else {}
    model, batch = make(architecture), ranked()
    for name, value in no_dropout.items():
        setattr(model.config, name, value)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = VARIANTS[variant](in_doubles(model))
    results = []
    for way, max_rows in product(ways, (32, 2)):
        model.zero_grad()
        table = way(model, batch, max_rows=max_rows, **settings_)
        (table * torch.arange(1.0, table.numel() + 1).view(table.shape)).sum().backward()
        results.append([table.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) > 4
    for other in results[1:]:
        for theirs, first in zip(other, results[0], strict=True):
            assert theirs.dtype == torch.double
            assert_close(theirs, first)


# ------------------------------------------------------------------------------------------------ which way


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ordinary_architectures_share_prompts(architecture):
    assert reads_packed_rows(reward_model(architecture))
    assert reads_packed_rows(policy(architecture))


def test_architectures_with_windows_or_without_positions_do_not_share_prompts():
    window = config(
        "qwen2", num_labels=1, layer_types=["full_attention", "sliding_attention"], use_sliding_window=True, sliding_window=4
    )
    assert not reads_packed_rows(AutoModelForSequenceClassification.from_config(window))
    bloom = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2, num_labels=1)
    assert not reads_packed_rows(AutoModelForSequenceClassification.from_config(bloom))


@pytest.mark.parametrize("lost", ["attention_mask", "position_ids"])
def test_an_architecture_that_reads_masks_or_positions_its_own_way_is_noticed(monkeypatch, lost):
    model = reward_model("llama")
    forward = model.base_model.forward

    def careless(input_ids, position_ids=None, attention_mask=None, **rest):
        given = {"position_ids": position_ids, "attention_mask": attention_mask}
        return forward(input_ids=input_ids, **{**given, lost: None}, **rest)

    monkeypatch.setattr(model.base_model, "forward", careless)
    assert not reads_packed_rows(model)


@torch.no_grad()
def test_the_cheaper_way_is_taken_and_says_the_same():
    batch, model, speaker = ranked(), reward_model("llama"), policy("llama")
    assert packing_pays(batch, 32, way="parts") and shares_prompts(model, batch) and shares_prompts(speaker, batch)
    assert_close(scores(model, batch), flat_scores(model, batch, max_rows=32))
    assert_close(completion_logprobs(speaker, batch), flat_logprobs(speaker, batch, temperature=1.0, max_rows=32))


def test_a_long_answer_to_a_short_prompt_gets_a_row_of_its_own(monkeypatch):
    model, batch = reward_model("llama"), ranked_of([([1], [[2] * 40, [3] * 40])])
    assert not shares_prompts(model, batch)
    monkeypatch.setattr("prefloop.models.shared_prefix.packed_scores", None)
    with torch.no_grad():
        assert scores(model, batch).shape == (1, 2)
