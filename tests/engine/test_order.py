from functools import partial

import pytest
import torch

from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.randomness import generator

RNG = partial(generator, 7)


@pytest.mark.parametrize(("n_rows", "batch"), [(10, 3), (9, 3), (2, 5)])
def test_every_pass_visits_every_row_once_and_says_where_it_ends(n_rows, batch):
    per_epoch = steps_per_epoch(n_rows, batch)
    for epoch in range(2):
        turns = [turn(epoch * per_epoch + index, n_rows, batch, RNG) for index in range(per_epoch)]
        assert sorted(torch.cat([t.rows for t in turns]).tolist()) == list(range(n_rows))
        assert [t.epoch for t in turns] == [epoch] * per_epoch
        assert [t.ends_epoch for t in turns] == [False] * (per_epoch - 1) + [True]


def test_passes_differ_in_order_and_a_step_asked_for_again_is_the_same():
    first, second = (torch.cat([turn(e * 4 + i, 20, 5, RNG).rows for i in range(4)]) for e in (0, 1))
    assert first.tolist() != second.tolist()
    assert turn(5, 20, 5, RNG).rows.tolist() == second[5:10].tolist()


def test_the_shares_of_the_processes_are_all_rows_once_even_with_fewer_rows_than_processes():
    for rows in (torch.arange(7), torch.arange(2)):
        shares = [share(rows, rank, 3) for rank in range(3)]
        assert sorted(torch.cat(shares).tolist()) == rows.tolist()
