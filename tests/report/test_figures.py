import math

import pytest

from prefloop.report.data import Figure
from prefloop.report.figures import duration, number, percent, signed, significant, with_interval


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.5, "1.50"),
        (-1.5, "−1.50"),
        (-0.001, "0.00"),
        (12345.678, "12,345.68"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
    ],
)
def test_a_number_has_a_true_minus_and_no_negative_zero(value: float, written: str):
    assert number(value) == written


def test_a_difference_shows_its_sign():
    assert [signed(value) for value in (1.5, -1.5, 0.0)] == ["+1.50", "−1.50", "+0.00"]


def test_a_share_is_a_percentage_and_its_interval_is_in_the_same_unit():
    assert percent(0.675) == "67.5%"
    assert with_interval(Figure(mean=0.675, low=0.65, high=0.7), as_percent=True) == "67.5% [65.0,\u00a070.0]"
    assert with_interval(Figure(mean=2.0)) == "2.00"
    assert with_interval(Figure(mean=2.0, low=-math.inf, high=math.inf)) == "2.00"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "60 s"), (318.4, "5 min 18 s"), (3600.0, "60 min 00 s"), (9000.0, "2 h 30 min")],
)
def test_a_duration_is_told_in_the_unit_people_use(seconds: float, written: str):
    assert duration(seconds) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.05, "0.05"),
        (2.41234, "2.412"),
        (38400.0, "38,400"),
        (-0.00052, "−0.00052"),
        (5e-7, "5.000e−07"),
        (math.nan, "NaN"),
    ],
)
def test_a_metric_keeps_four_digits_that_count(value: float, written: str):
    assert significant(value) == written
