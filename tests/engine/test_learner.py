import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prefloop.engine.learner import Learner, Term
from prefloop.engine.micro_batches import micro_batches
from prefloop.errors import RunError
from prefloop.models.batch import RankedBatch, take
from prefloop.ops.loss import loss_of
from tests.engine.toy import Toy, of_text, text
from tests.helpers import assert_close

SQUARE = partial(of_text, power=2)


def learner(model: nn.Module, **settings) -> Learner:
    return Learner(model, **{"lr": 0.1, "steps": 10, "schedule": "constant", "device": "cpu", **settings})


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def gradient(loss, batch, *, seed: int = 0) -> torch.Tensor:
    """The gradient of a loss over the whole batch, weights made to sum to one by hand."""
    model = Toy(seed=seed)
    whole = replace(batch, weight=batch.weight / batch.weight.sum())
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(model, whole).value, list(model.parameters()))])


def trained(batch, *, steps: int = 3, **settings) -> tuple[torch.Tensor, list[dict[str, float]]]:
    model = Toy()
    held = learner(model, **settings)
    metrics = [held.step(Term(of_text, batch), Term(SQUARE, batch, scale=0.3)) for _ in range(steps)]
    return weights(model), metrics


def test_micro_batches_of_one_and_three_and_all_rows_make_the_same_update():
    batch = text([3, 9, 2, 7, 5, 8, 4, 6], weights=[1, 5, 0.5, 2, 3, 1, 0.1, 4])
    whole, whole_metrics = trained(batch, micro_batch=0)
    for rows in (1, 3, 8):
        parts, metrics = trained(batch, micro_batch=rows)
        assert_close(parts, whole)
        for one, other in zip(metrics, whole_metrics, strict=True):
            assert one.keys() == other.keys()
            assert_close(list(one.values()), list(other.values()))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 9), st.floats(0.1, 10)), min_size=1, max_size=7), st.integers(0, 4), st.randoms())
def test_no_cut_and_no_order_of_rows_moves_a_gradient(rows, size, shuffler):
    batch = text([length for length, _ in rows], weights=[weight for _, weight in rows])
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    model = Toy()
    metrics = learner(model, micro_batch=size).step(Term(of_text, take(batch, torch.tensor(order))))
    assert_close(metrics["grad_norm"], float(gradient(of_text, batch).norm()))


def test_only_the_proportions_of_weights_matter():
    batch = text([3, 4, 5], weights=[1, 2, 3])
    assert_close(trained(replace(batch, weight=batch.weight * 70))[0], trained(batch)[0])


def test_terms_add_up_each_with_its_own_scale():
    batch, other = text([3, 4, 5]), text([6, 2], seed=1)
    metrics = learner(Toy()).step(Term(of_text, batch), Term(SQUARE, other, scale=0.25))
    assert_close(metrics["grad_norm"], float((gradient(of_text, batch) + 0.25 * gradient(SQUARE, other)).norm()))


def test_norms_tell_the_gradient_of_each_term_and_leave_the_update_alone():
    batch, other = text([3, 4, 5]), text([6, 2], seed=1)
    terms = (Term(of_text, batch), Term(SQUARE, other, scale=0.25))
    told, silent = Toy(), Toy()
    metrics = learner(told, micro_batch=2).step(*terms, norms=True)
    learner(silent, micro_batch=2).step(*terms)
    assert_close(metrics["grad_norm/0"], float(gradient(of_text, batch).norm()))
    assert_close(metrics["grad_norm/1"], float(0.25 * gradient(SQUARE, other).norm()))
    assert torch.equal(weights(told), weights(silent))


def test_the_first_step_is_adams_after_the_gradient_was_cut_to_its_norm():
    batch, model = text([3, 4, 5]), Toy()
    before, g = weights(model), gradient(of_text, batch)
    learner(model, lr=0.2, grad_clip=0.01, eps=0.5).step(Term(of_text, batch))
    cut = g * 0.01 / (g.norm() + 1e-6)  # torch keeps this much away from a division by zero
    # after one step both moments, freed of their bias, are the gradient and its square
    assert_close(weights(model), before - 0.2 * cut / (cut.abs() + 0.5))


def test_decay_shrinks_matrices_and_spares_vectors():
    batch, model = text([3, 4]), Toy()

    def flat(model, batch):
        return loss_of(sum(0 * p.sum() for p in model.parameters()) * batch.weight.sum())

    before = [p.detach().clone() for p in model.parameters()]
    learner(model, lr=0.1, weight_decay=0.5).step(Term(flat, batch))
    for old, new in zip(before, model.parameters(), strict=True):
        assert_close(new, old * (1 - 0.1 * 0.5) if old.dim() == 2 else old)


def test_a_weight_that_no_term_touches_stays_as_it_is_whatever_decays():
    model = Toy()
    before = model.head.detach().clone()

    def of_embedding(model, batch):
        return loss_of((batch.weight * model.embedding[batch.tokens[:, 0]].sum(1)).sum())

    learner(model, weight_decay=0.5).step(Term(of_embedding, text([3, 4])))
    assert torch.equal(model.head, before)


def test_rows_come_longest_first_without_padding_and_without_rows_that_weigh_nothing():
    batch = text([3, 9, 2, 7, 5], weights=[1, 1, 1, 0, 1])
    parts = list(micro_batches(batch, 4.0, 2))
    assert [part.tokens.shape for part in parts] == [(2, 9), (2, 3)]
    assert [part.length.tolist() for part in parts] == [[9, 5], [3, 2]]
    assert_close(torch.cat([part.weight for part in parts]), [0.25] * 4)


def test_prompts_with_their_completions_are_cut_like_rows():
    batch = RankedBatch(
        prompt=torch.ones(3, 4, dtype=torch.long),
        prompt_length=torch.tensor([1, 4, 2]),
        completion=torch.ones(3, 2, 5, dtype=torch.long),
        completion_length=torch.tensor([[5, 1], [1, 1], [2, 3]]),
        tier=torch.zeros(3, 2, dtype=torch.long),
        is_candidate=torch.ones(3, 2, dtype=torch.bool),
        weight=torch.ones(3),
    )
    parts = list(micro_batches(batch, 3.0, 1))
    assert [(part.prompt.shape[1], part.completion.shape[2]) for part in parts] == [(1, 5), (4, 1), (2, 3)]


def test_a_batch_in_which_no_row_weighs_anything_is_refused_in_words():
    with pytest.raises(RunError, match=r"no row teaches anything in step 0: the 2 rows given to of_text weigh 0\.0 together"):
        learner(Toy()).step(Term(SQUARE, text([3, 4], weights=[0, 0])))
    with pytest.raises(RunError, match="the 0 rows given to of_text"):
        learner(Toy()).step(Term(of_text, text([])))


def spoiled(rows: list[int], value: float):
    batch = text([3, 4, 5, 6])
    token_weight = batch.token_weight.clone()
    token_weight[rows, 1] = value
    return replace(batch, token_weight=token_weight)


def test_a_loss_that_is_not_a_number_names_its_rows_and_leaves_the_weights_alone():
    model, found = Toy(), []
    held = learner(model, micro_batch=3)
    held.on_nan = lambda rows: found.extend(rows)
    held.step(Term(of_text, text([3, 4])))
    before = weights(model)
    with pytest.raises(RunError) as stop:
        held.step(Term(of_text, text([3, 4])), Term(SQUARE, spoiled([1, 3], math.nan), name="second"))
    assert torch.equal(weights(model), before)
    assert all(p.grad is None for p in model.parameters())
    assert [(row["step"], row["term"], row["row"], row["found"]) for row in found] == [
        (1, "second", 1, "loss nan"),
        (1, "second", 3, "loss nan"),
    ]
    assert found[0]["tokens"] == spoiled([], 0).tokens[1, :4].tolist()
    assert "step 1 is not a finite number: of_text = " in str(stop.value)
    assert "1 of process 0 (second: loss nan), 3 of process 0 (second: loss nan)" in str(stop.value)


def test_an_infinite_gradient_of_a_finite_loss_is_found_too():
    def edge(model, batch):  # the root of 0 is 0, its slope is not finite
        per_row = (model.bias - model.bias.detach())[batch.tokens[:, 0]].abs() ** 2
        return loss_of((batch.weight * torch.where(batch.length == 5, per_row.sqrt(), per_row)).sum())

    found = []
    held = learner(Toy())
    held.on_nan = lambda rows: found.extend(rows)
    with pytest.raises(RunError, match="norm of the gradient = nan"):
        held.step(Term(edge, take(text([3, 4, 5, 6]), torch.tensor([2]))))
    assert [(row["row"], row["found"]) for row in found] == [(0, "gradient not finite")]


def test_weights_that_were_broken_before_are_not_blamed_on_rows():
    model = Toy()
    held = learner(model)
    with torch.no_grad():
        model.head[0, 0] = math.inf
    with pytest.raises(RunError, match="the weights were not finite before this step, so no row is to blame"):
        held.step(Term(of_text, text([3, 4])))


def test_a_sum_that_overflows_is_told_from_bad_rows():
    def large(model, batch):  # each of four rows gives 0.25 * 1e308 * 4; together they are more than float64 holds
        return loss_of((batch.weight * 1e308 * 4 * (1 + 0 * model.bias.sum())).sum())

    with pytest.raises(RunError, match="every row alone is finite, their sum is not"):
        learner(Toy()).step(Term(large, text([3] * 4)))


def test_metrics_of_a_second_term_go_by_its_name():
    batch = text([3, 4])
    unnamed = learner(Toy()).step(Term(of_text, batch), Term(SQUARE, batch))
    named = learner(Toy()).step(Term(of_text, batch), Term(SQUARE, batch, name="ptx"))
    assert list(unnamed) == ["loss", "surprise", "of_text/loss", "of_text/surprise", "grad_norm", "lr"]
    assert list(named) == ["loss", "surprise", "ptx/loss", "ptx/surprise", "grad_norm", "lr"]
    with pytest.raises(ValueError, match="two terms of an update report of_text/loss"):
        learner(Toy()).step(Term(of_text, batch), Term(SQUARE, batch), Term(SQUARE, batch))


def test_the_average_is_the_weighted_sum_of_all_weights_there_were():
    batch, model, decay = text([3, 4, 5]), Toy(), 0.7
    held = learner(model, ema=decay)
    past = [weights(model)]
    for _ in range(4):
        held.step(Term(of_text, batch))
        past.append(weights(model))
    expected = decay**4 * past[0] + sum((1 - decay) * decay ** (4 - n) * past[n] for n in range(1, 5))
    last = weights(model)
    with held.ema_weights():
        assert_close(weights(model), expected)
        with pytest.raises(RuntimeError, match="there to be looked at"):
            held.step(Term(of_text, batch))
        with pytest.raises(RuntimeError, match="would take the average for the weights"):
            held.state_dict()
    assert torch.equal(weights(model), last)


def test_without_an_average_the_weights_themselves_are_shown():
    model = Toy()
    held = learner(model)
    held.step(Term(of_text, text([3, 4])))
    last = weights(model)
    with held.ema_weights():
        assert torch.equal(weights(model), last)


def test_a_learner_loaded_from_a_state_goes_on_as_if_nothing_had_happened():
    batch = text([3, 4, 5])
    whole, broken = Toy(), Toy()
    one, two = (learner(m, schedule="cosine", warmup=2, steps=6, ema=0.5, weight_decay=0.1) for m in (whole, broken))
    for _ in range(3):
        one.step(Term(of_text, batch))
        two.step(Term(of_text, batch))
    state = two.state_dict()
    fresh = Toy(seed=9)
    three = learner(fresh, schedule="cosine", warmup=2, steps=6, ema=0.5, weight_decay=0.1)
    three.load_state_dict(state)
    for _ in range(3):
        assert one.step(Term(of_text, batch)) == three.step(Term(of_text, batch))
    assert torch.equal(weights(whole), weights(fresh))
    with one.ema_weights(), three.ema_weights():
        assert torch.equal(weights(whole), weights(fresh))


def test_frozen_weights_are_neither_trained_nor_saved_and_moving_statistics_are_saved():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    state = learner(model).state_dict()
    assert sorted(state["weights"]) == ["1.bias", "1.weight", "2.bias", "2.weight"]
    assert sorted(state["buffers"]) == ["1.num_batches_tracked", "1.running_mean", "1.running_var"]


def test_the_state_of_another_model_is_refused():
    other = nn.Linear(2, 2)
    with pytest.raises(RunError, match="the checkpoint holds weights of another model: 4 differ, first bias with shape"):
        learner(Toy()).load_state_dict(learner(other).state_dict())


def test_the_loss_sees_a_model_on_the_chosen_device_and_a_batch_of_the_same():
    seen = []

    def watched(model, batch):
        seen.append((next(model.parameters()).device.type, batch.tokens.device.type))
        return of_text(model, batch)

    learner(Toy()).step(Term(watched, text([3, 4])))
    assert seen == [("cpu", "cpu")]
    assert json.dumps(seen)
