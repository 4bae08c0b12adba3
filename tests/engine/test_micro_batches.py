"""How much is computed at once is a matter of memory: rows of like length together, half of it where memory runs out."""

import weakref
from functools import partial

import pytest
import torch

from prefloop.engine.learner import Learner, Term
from prefloop.engine.micro_batches import is_out_of_memory, micro_batches
from prefloop.errors import RunError
from prefloop.models.batch import RankedBatch, row_tokens
from prefloop.models.parts import sizes
from tests.engine.toy import Toy, of_text, text
from tests.helpers import assert_close

LENGTHS = [3, 9, 2, 7, 5, 8, 4, 6]
SQUARE = partial(of_text, power=2)
CPU = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


def learner(model, **settings) -> Learner:
    return Learner(model, **{"lr": 0.1, "steps": 10, "schedule": "constant", "device": "cpu", **settings})


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def of_what_fits(model, batch, *, most: int, error: Exception, power: int = 2):
    """A loss on a machine with room for ``most`` tokens, padding included."""
    if batch.tokens.numel() > most:
        raise error
    return of_text(model, batch, power=power)


def test_a_part_is_as_many_rows_as_the_limits_let_pass_and_at_least_one():
    rows = torch.tensor([9, 8, 7, 6, 5, 4, 3, 2])
    assert sizes(rows, 0, 0) == [8]
    assert sizes(rows, 3, 0) == [3, 3, 2]
    assert sizes(rows, 0, 18) == [2, 2, 3, 1]  # 2 x 9, 2 x 7, 3 x 5, 1 x 2
    assert sizes(rows, 2, 18) == [2, 2, 2, 2]
    assert sizes(rows, 0, 1) == [1] * 8
    assert sizes(torch.tensor([2, 9, 2]), 0, 18) == [2, 1]  # the second row makes the first one as long
    assert sizes(rows[:0], 0, 18) == []


def test_no_part_holds_more_tokens_than_asked_and_padding_is_less_than_all_at_once():
    batch = text(LENGTHS)
    parts = list(micro_batches(batch, 8.0, tokens=18))
    assert [tuple(part.tokens.shape) for part in parts] == [(2, 9), (2, 7), (3, 5), (1, 2)]
    assert sum(part.tokens.numel() for part in parts) == 49 < batch.tokens.numel() == 72
    assert_close(torch.cat([part.weight for part in parts]), [1 / 8] * 8)


def test_the_prompt_of_several_completions_counts_once():
    batch = RankedBatch(
        prompt=torch.ones(2, 4, dtype=torch.long),
        prompt_length=torch.tensor([4, 2]),
        completion=torch.ones(2, 2, 5, dtype=torch.long),
        completion_length=torch.tensor([[5, 1], [3, 0]]),
        tier=torch.zeros(2, 2, dtype=torch.long),
        is_candidate=torch.ones(2, 2, dtype=torch.bool),
        weight=torch.ones(2),
    )
    assert row_tokens(batch).tolist() == [10, 5]
    assert [len(part.weight) for part in micro_batches(batch, 2.0, tokens=19)] == [1, 1]
    assert [len(part.weight) for part in micro_batches(batch, 2.0, tokens=20)] == [2]


@pytest.mark.parametrize("limit", [1, 18, 40, 1000])
def test_tokens_at_once_do_not_move_an_update(limit):
    batch, whole, parts = text(LENGTHS, weights=[1, 5, 0.5, 2, 3, 1, 0.1, 4]), Toy(), Toy()
    for model, settings in ((whole, {}), (parts, {"micro_tokens": limit})):
        held = learner(model, **settings)
        for _ in range(3):
            held.step(Term(of_text, batch), Term(SQUARE, batch, scale=0.3))
    assert_close(weights(parts), weights(whole))


@pytest.mark.parametrize(
    "error", [RuntimeError(CPU), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()]
)
@pytest.mark.parametrize("most", [36, 18, 9])
def test_where_memory_runs_out_the_step_is_computed_in_smaller_parts_to_the_same_end(capsys, most, error):
    """The second term runs out, when the gradient of the first is there already; norms of both are asked for."""
    batch, told, silent = text(LENGTHS, weights=[1, 5, 0.5, 2, 3, 1, 0.1, 4]), Toy(), Toy()
    small, large = learner(told), learner(silent)
    for _ in range(2):
        found = small.step(
            Term(of_text, batch), Term(partial(of_what_fits, most=most, error=error), batch, name="second", scale=0.3), norms=True
        )
        expected = large.step(Term(of_text, batch), Term(SQUARE, batch, name="second", scale=0.3), norms=True)
        assert found.keys() == expected.keys()
        assert_close(list(found.values()), list(expected.values()))
    assert_close(weights(told), weights(silent))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("memory ran out in step 0") == {36: 1, 18: 2, 9: 3}[most]  # 72 tokens, then half of it at a time
    assert "memory ran out in step 1" not in said  # what was learned stays learned
    assert f"optim.micro_tokens={most} " in said
    assert small.state_dict()["micro_tokens"] == most


def test_what_memory_taught_is_gone_on_with():
    first = learner(Toy())
    first.step(Term(partial(of_what_fits, most=36, error=RuntimeError(CPU)), text(LENGTHS)))
    second = learner(Toy(seed=2))
    second.load_state_dict(first.state_dict())
    assert second.portions.tokens == 36
    of_older_version = {name: value for name, value in first.state_dict().items() if name != "micro_tokens"}
    third = learner(Toy(), micro_tokens=50)
    third.load_state_dict(of_older_version)
    assert third.portions.tokens == 50


def test_a_single_row_that_does_not_fit_ends_with_one_message_and_untouched_weights():
    model = Toy()
    held, before = learner(model), weights(model)
    with pytest.raises(RunError, match=r"memory ran out in step 0 on a single row of 9 tokens(.|\n)*lower max_prompt=") as stop:
        held.step(Term(of_text, text(LENGTHS)), Term(partial(of_what_fits, most=8, error=RuntimeError(CPU)), text(LENGTHS)))
    assert stop.value.exit_code == 1 and "can't allocate memory" in str(stop.value)
    assert stop.value.__cause__ is None
    assert torch.equal(weights(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("shapes do not fit")) and not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        learner(Toy()).step(Term(partial(of_what_fits, most=1, error=RuntimeError("shapes do not fit")), text(LENGTHS)))


def test_what_was_being_computed_is_let_go_before_it_is_tried_again():
    """Otherwise the second try has even less room."""
    alive = []

    def counted(model, batch):
        held = torch.zeros(batch.tokens.numel())
        if batch.tokens.numel() > 36:
            alive.append(weakref.ref(held))
            raise RuntimeError(CPU)
        assert all(reference() is None for reference in alive)
        return of_text(model, batch)

    learner(Toy()).step(Term(counted, text(LENGTHS)))
    assert len(alive) == 1
