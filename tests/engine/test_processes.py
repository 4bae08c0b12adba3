import json
from pathlib import Path

import pytest
import torch

from prefloop.engine.processes import buckets, choose_device
from prefloop.errors import ConfigError
from tests.engine.two_processes import OTHER, updates
from tests.helpers import assert_close


@pytest.fixture(scope="module")
def two(children) -> tuple[Path, list[dict]]:
    """What two processes found that shared every update, started with what torchrun sets."""
    assert children.status["two"] == [0, 0], children.said
    return children.folder, [json.loads((children.folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def same_updates(one: dict, other: dict) -> None:
    for mine, theirs in zip(one["weights"], other["weights"], strict=True):
        assert_close(torch.tensor(mine, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64))
    for mine, theirs in zip(one["metrics"], other["metrics"], strict=True):
        assert mine.keys() == theirs.keys()
        assert_close(list(mine.values()), [theirs[name] for name in mine])


def test_two_processes_make_the_updates_of_one(two):
    alone = updates(list(range(7)), [0, 1, 2], micro_batch=0)
    for found in two[1]:
        assert found["processes"] == 2
        same_updates(found["shared"], alone)


def test_a_process_without_rows_follows_and_all_begin_with_the_weights_of_the_first(two):
    alone = updates(list(range(7)), [0, 1, 2], micro_batch=0)
    for found in two[1]:
        same_updates(found["one_has_no_rows"], alone)


def test_a_run_of_two_processes_has_one_writer_and_the_figures_of_all_rows(two):
    out, (first, second) = two
    assert len(first["run"]["history"]) == 4  # a line per step, not one per process
    assert second["run"]["history"] == first["run"]["history"]
    assert json.loads((out / "run" / "summary.json").read_text())["rank"] == 0
    assert len(list((out / "run" / "checkpoints").glob("step-*"))) == 2


def test_what_the_main_process_refuses_is_refused_by_all_in_the_same_words(two):
    first, second = two[1]
    assert first["refused"].startswith("ConfigError: ") and "holds a finished run" in first["refused"]
    assert second["refused"] == first["refused"]


def test_a_bad_row_is_named_with_its_process_on_all_of_them(two):
    for found in two[1]:
        assert "rows to blame: 1 of process 1 (of_text: loss nan)" in found["blamed"]
        assert "the 0 rows given to of_text" in found["no_rows"]


def test_values_are_gathered_in_the_order_of_ranks_and_decided_by_the_first(two):
    for found in two[1]:
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert found["on_main"] == 0


def test_no_bucket_is_over_full_and_types_are_not_mixed():
    tensors = [
        torch.zeros(n, dtype=kind) for n, kind in ((3, torch.float32), (3, torch.float32), (2, torch.float64), (9, torch.float64))
    ]
    sizes = [[(t.numel(), t.dtype) for t in group] for group in buckets(tensors, 5)]
    single, double = torch.float32, torch.float64
    assert sizes == [[(3, single)], [(3, single)], [(2, double)], [(9, double)]]
    assert len(list(buckets(tensors, 100))) == 2


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"this machine has no device 'cuda:99'\n  it has: auto, cpu"):
        choose_device("cuda:99")


def test_the_other_rows_of_the_second_term_are_really_used():
    alone = updates(list(range(7)), [0, 1, 2], micro_batch=0)
    without = updates(list(range(7)), [0, 1], micro_batch=0)
    assert len(OTHER.weight) == 3
    assert alone["metrics"][0]["of_text/loss"] != without["metrics"][0]["of_text/loss"]
