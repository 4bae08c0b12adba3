import math

import pytest

from prefloop.engine.schedule import scheduled
from tests.helpers import assert_close


def rates(schedule: str, *, steps: int = 10, warmup: int = 0, final: float = 0.1) -> list[float]:
    return [scheduled(step, steps=steps, warmup=warmup, schedule=schedule, final=final) for step in range(steps + 3)]


def test_the_rate_rises_in_equal_parts_to_its_peak():
    for schedule in ("cosine", "linear", "constant"):
        assert_close(rates(schedule, warmup=4)[:5], [0.25, 0.5, 0.75, 1.0, 1.0])


def test_a_line_falls_by_the_same_amount_every_step_and_then_stays():
    assert_close(rates("linear", steps=4, final=0.2), [1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])


def test_a_line_to_nothing_has_its_last_update_at_one_share_of_the_peak():
    assert_close(rates("linear", steps=5, final=0.0)[4], 1 / 5)


def test_a_cosine_is_half_way_down_at_half_time_and_a_quarter_of_the_circle_gives_its_root():
    got = rates("cosine", steps=8, final=0.0)
    assert_close([got[0], got[2], got[4], got[6], got[8]], [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0])


def test_the_fall_begins_after_the_rise():
    assert_close(rates("linear", steps=6, warmup=2, final=0.0)[2:6], [1.0, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_after_the_last_planned_step_the_rate_stays_at_its_end(schedule):
    assert_close(rates(schedule)[10:], [0.1, 0.1, 0.1])


def test_a_constant_rate_is_constant():
    assert rates("constant") == [1.0] * 13
