import math
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from prefloop.report.data import Figure, ReportData, Row
from prefloop.report.figures import sample_of
from prefloop.report.texts import words_of
from tests.report.example import content, study

EN = words_of("en")


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int


def test_a_bare_number_is_a_mean_without_an_interval():
    figure = Row(name="sft", kl=0).kl  # type: ignore[arg-type]
    assert figure == Figure(mean=0.0) and not figure.has_interval


def test_an_interval_of_the_statistics_is_taken_as_it_is():
    figure = Row(name="sft", gold=Interval(1.0, 0.5, 1.5, 300)).gold  # type: ignore[arg-type]
    assert figure == Figure(mean=1.0, low=0.5, high=1.5, n=300) and figure.has_interval


def test_a_mean_of_nothing_is_not_measured():
    for nothing in (
        None,
        math.nan,
        {"mean": None, "low": None, "high": None, "n": 0},
        Interval(math.nan, -math.inf, math.inf, 0),
    ):
        assert Row.model_validate({"name": "sft", "gold": nothing, "skill": {"sums": nothing}}) == Row(
            name="sft", skill={"sums": None}
        )


def test_an_interval_without_bounds_is_no_interval():
    assert not Figure(mean=1.0, low=-math.inf, high=math.inf, n=1).has_interval


def test_half_an_interval_or_one_upside_down_is_refused():
    with pytest.raises(ValidationError, match="an interval has two ends"):
        Figure(mean=1.0, low=0.5)
    with pytest.raises(ValidationError, match="runs from low to high"):
        Figure(mean=1.0, low=2.0, high=0.5)


def test_the_sample_says_prompts_and_training_runs():
    samples = {
        "n\u00a01,500": Figure(mean=0.0, n=1500),
        "300\u00a0prompts,\u00a05\u00a0seeds": Figure(mean=0.0, n=1500, n_prompts=300, n_seeds=5),
        "n\u00a0300": Figure(mean=0.0, n_prompts=300, n_seeds=1),
        "": Figure(mean=0.0),
    }
    assert [sample_of(figure, EN) for figure in samples.values()] == list(samples)


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValidationError, match="curve"):
        ReportData.model_validate({"title": "T", "curve": {}})


def test_the_data_survive_being_written_and_read():
    data = study(paired=[{"a": "ppo", "b": "sft", "metric": "gold", "mean": 1.0, "low": None, "high": None, "n_prompts": 1}])
    assert ReportData.model_validate_json(data.model_dump_json()) == data
    of_one_kind_of_study = {"fresh", "fresh_pairs", "synthetic"}  # test_fresh.py
    assert set(content()) == set(ReportData.model_fields) - of_one_kind_of_study  # the example leaves nothing else out
