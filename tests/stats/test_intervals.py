import json
import math

import numpy as np
import pytest

from prefloop.stats import intervals
from prefloop.stats.intervals import (
    Interval,
    bootstrap_means,
    crossed_mean,
    crossed_paired,
    hierarchical_mean,
    hierarchical_paired,
    mean_interval,
    mean_over_seeds,
    paired_difference,
    paired_over_seeds,
    separated,
    small_sample_stretch,
    verdict,
    wilson,
)
from prefloop.stats.student import student_t
from tests.helpers import assert_close


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def width(interval) -> float:
    return interval.high - interval.low


def coverage(draw, truth: float, *, repeats: int = 300) -> float:
    """Share of repeated experiments whose interval holds the truth."""
    found = [draw(repeat) for repeat in range(repeats)]
    return sum(interval.low <= truth <= interval.high for interval in found) / repeats


def test_the_mean_lies_in_its_interval_and_n_is_counted():
    interval = mean_interval([1.0, 2.0, 3.0, 6.0])
    assert_close(interval.mean, 3.0)
    assert interval.low < 3.0 < interval.high
    assert interval.n == 4


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = rng().normal(size=50)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_equal_values_leave_no_width():
    assert mean_interval([2.0] * 9) == Interval(2.0, 2.0, 2.0, 9)


def test_one_value_says_nothing_about_spread():
    interval = mean_interval([5.0])
    assert interval == Interval(5.0, -math.inf, math.inf, 1)
    assert not separated(interval)


def test_no_value_has_no_mean_and_separates_nothing():
    interval = mean_interval([])
    assert math.isnan(interval.mean)
    assert interval.n == 0
    assert verdict(interval) == "not separated"


def test_values_that_are_not_numbers_are_refused_with_their_place():
    with pytest.raises(ValueError, match=r"2 of 4 values are not finite; the first is nan, at index 1"):
        mean_interval([1.0, math.nan, 2.0, math.inf])


def test_a_large_sample_gets_the_normal_interval_of_its_standard_error():
    values = rng().normal(size=4000)
    reach = 1.959964 * values.std(ddof=1) / math.sqrt(4000)
    interval = mean_interval(values, n_boot=4000)
    assert abs(interval.low - (values.mean() - reach)) < 0.1 * reach
    assert abs(interval.high - (values.mean() + reach)) < 0.1 * reach


def test_a_higher_level_gives_a_wider_interval():
    values = rng().normal(size=100)
    assert width(mean_interval(values, level=0.99)) > width(mean_interval(values)) > width(mean_interval(values, level=0.8))


def test_intervals_move_and_scale_with_the_values():
    values = rng().exponential(size=30)
    plain, moved = mean_interval(values), mean_interval(3 * values + 1)
    assert_close([moved.mean, moved.low, moved.high], [3 * plain.mean + 1, 3 * plain.low + 1, 3 * plain.high + 1])


def test_memory_bounds_do_not_show_in_the_length_of_the_result(monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 25)
    draws = bootstrap_means(np.arange(10.0), 7, rng())  # two resamples at a time, one left over
    assert draws.shape == (7,)
    assert ((draws >= 0) & (draws <= 9)).all()


def test_the_stretch_turns_the_bootstrap_of_a_few_values_into_students_interval():
    # the bootstrap's spread of the mean is s sqrt((n - 1) / n) / sqrt(n), with normal tails z; Student's is t s / sqrt(n)
    n, z = 5, 1.959963984540054
    assert_close(small_sample_stretch(n, 0.95) * math.sqrt((n - 1) / n) * z, student_t(0.95, n - 1))
    assert small_sample_stretch(1000, 0.95) < 1.002


@pytest.mark.parametrize("n", [5, 30])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n):
    source = rng(n)
    share = coverage(lambda repeat: mean_interval(source.normal(size=n), n_boot=200, seed=repeat), 0.0)
    assert 0.91 < share < 0.98


def test_without_the_stretch_five_values_would_be_trusted_too_much(monkeypatch):
    monkeypatch.setattr(intervals, "small_sample_stretch", lambda n, level: 1.0)
    source = rng(5)
    assert coverage(lambda repeat: mean_interval(source.normal(size=5), n_boot=200, seed=repeat), 0.0) < 0.88


def test_pairing_removes_what_both_systems_share():
    prompt = rng(1).normal(size=60) * 10
    a, b = prompt + 1.0 + 0.1 * rng(2).normal(size=60), prompt + 0.1 * rng(3).normal(size=60)
    assert verdict(paired_difference(a, b)) == "above"
    assert verdict(paired_difference(b, a)) == "below"
    assert mean_interval(a).low < mean_interval(b).high  # unpaired, the same data say nothing


def test_pairing_of_unequal_prompts_is_refused():
    with pytest.raises(ValueError, match="the same prompts on both sides"):
        paired_difference([1.0, 2.0], [1.0])


def test_separation_is_about_the_value_asked_for():
    won = Interval(0.6, 0.55, 0.65, 100)
    assert separated(won, value=0.5)
    assert verdict(won, value=0.5) == "above"
    assert verdict(won, value=0.6) == "not separated"
    assert verdict(won, value=0.7) == "below"


def test_every_seed_counts_the_same_however_many_prompts_it_has():
    interval = hierarchical_mean([[0.0] * 90, [3.0] * 10])
    assert_close(interval.mean, 1.5)
    assert (interval.n_prompts, interval.n_seeds) == (10, 2)


def test_seeds_that_differ_make_the_interval_wider_than_prompts_alone():
    noise = rng().normal(size=(5, 40))
    apart = noise + np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    assert width(hierarchical_mean(apart)) > 3 * width(mean_interval(apart.ravel()))
    assert width(hierarchical_mean(apart)) > 2 * width(hierarchical_mean(noise))


def test_equal_prompts_inside_seeds_leave_the_interval_over_seed_means():
    means = [0.3, 1.1, -0.4, 0.8, 2.0]
    nested = hierarchical_mean([[mean] * 20 for mean in means], n_boot=20_000)
    flat = mean_interval(means, n_boot=20_000)
    assert abs(nested.low - flat.low) < 0.05
    assert abs(nested.high - flat.high) < 0.05


def test_a_single_seed_falls_back_to_its_prompts_and_says_so():
    values = rng().normal(size=30)
    flat, nested = mean_interval(values), hierarchical_mean([values])
    assert (nested.mean, nested.low, nested.high) == (flat.mean, flat.low, flat.high)
    assert (nested.n_prompts, nested.n_seeds) == (30, 1)


def test_no_seed_at_all_has_no_mean():
    interval = hierarchical_mean([])
    assert math.isnan(interval.mean)
    assert (interval.n_prompts, interval.n_seeds) == (0, 0)


def test_a_seed_without_prompts_is_refused():
    with pytest.raises(ValueError, match=r"every seed needs a prompt.*\[2, 0\]"):
        hierarchical_mean([[1.0, 2.0], []])


def test_paired_seeds_are_the_mean_of_their_differences():
    a, b = rng(1).normal(size=(4, 25)), rng(2).normal(size=(4, 25))
    assert hierarchical_paired(list(a), list(b)) == hierarchical_mean(list(a - b))
    assert crossed_paired(a, b) == crossed_mean(a - b)


def test_pairing_needs_the_same_seeds():
    with pytest.raises(ValueError, match="the same seeds on both sides, got 2 and 1"):
        hierarchical_paired([[1.0], [2.0]], [[1.0]])


def test_intervals_over_seeds_that_differ_cover_about_as_often_as_they_say():
    source = rng(7)

    def experiment(repeat: int):
        seeds = 2.0 * source.normal(size=(5, 1))
        return hierarchical_mean(list(seeds + source.normal(size=(5, 20))), n_boot=200, seed=repeat)

    assert 0.91 < coverage(experiment, 0.0, repeats=250) < 0.985


def test_prompts_shared_by_all_seeds_are_not_made_certain_by_more_seeds():
    table = np.broadcast_to(rng().normal(size=(1, 50)), (40, 50))  # every seed finds the same prompts hard
    assert width(crossed_mean(table)) > 0.9 * width(mean_interval(table[0]))
    assert width(hierarchical_mean(list(table))) < 0.5 * width(crossed_mean(table))


def test_crossed_intervals_cover_at_least_as_often_as_they_say():
    source = rng(8)

    def experiment(repeat: int):
        parts = source.normal(size=(5, 1)) + source.normal(size=(1, 20)) + source.normal(size=(5, 20))
        return crossed_mean(parts, n_boot=200, seed=repeat)

    assert coverage(experiment, 0.0, repeats=250) > 0.93


def test_a_prompt_that_stands_under_two_names_or_twice_under_one_is_told_apart():
    """The same 400 values: of 400 prompts, or of 50 prompts that eight seeds share and find equally hard."""
    rows = [rng(1).normal(size=50)] * 8
    apart, shared = [range(50 * s, 50 * s + 50) for s in range(8)], [range(50)] * 8
    assert mean_over_seeds(rows, apart) == hierarchical_mean(rows)
    assert mean_over_seeds(rows, shared) == crossed_mean(rows)
    assert (mean_over_seeds(rows, apart).n_prompts, mean_over_seeds(rows, shared).n_prompts) == (50, 50)
    assert width(mean_over_seeds(rows, shared)) > 1.3 * width(mean_over_seeds(rows, apart))
    a, b = rng(1).normal(size=(4, 25)), rng(2).normal(size=(4, 25))
    names = [range(s, s + 25) for s in range(4)]  # 28 different ones
    assert paired_over_seeds(a, b, names) == crossed_mean(list(a - b), names)  # type: ignore[arg-type]
    assert paired_over_seeds(a, b, names).n_prompts == 28  # type: ignore[arg-type]


def test_values_of_one_prompt_in_one_seed_are_one_cluster():
    """Eight prompts written down 25 times each are eight prompts, not two hundred."""
    each = rng(4).normal(size=8)
    told = mean_over_seeds([np.repeat(each, 25)], [np.repeat(np.arange(8), 25).tolist()])
    flat = mean_interval(each, n_boot=20_000)
    assert (told.n_prompts, told.n_seeds) == (8, 1)
    assert abs(told.low - flat.low) < 0.1 * width(flat) and abs(told.high - flat.high) < 0.1 * width(flat)


def test_seeds_that_share_some_prompts_cover_about_as_often_as_they_say():
    """Six seeds, each with 12 of 20 prompts, and nothing but the prompts differs: as nested, three in four would be too few."""
    source = rng(9)

    def experiment(repeat: int, *, crossed: bool):
        hard, chosen = source.normal(size=20), [source.permutation(20)[:12] for _ in range(6)]
        rows = [hard[names] for names in chosen]
        return crossed_mean(rows, [n.tolist() for n in chosen], n_boot=200, seed=repeat) if crossed else hierarchical_mean(rows, n_boot=200, seed=repeat)  # fmt: skip

    assert coverage(lambda repeat: experiment(repeat, crossed=True), 0.0, repeats=200) > 0.93
    assert coverage(lambda repeat: experiment(repeat, crossed=False), 0.0, repeats=200) < 0.9


def test_one_shared_prompt_says_nothing_about_others():
    told = crossed_mean([[1.0], [2.0], [3.0]])
    assert (told.mean, told.low, told.high, told.n_prompts, told.n_seeds) == (2.0, -math.inf, math.inf, 1, 3)


def test_every_value_needs_its_prompt():
    with pytest.raises(ValueError, match=r"got \[2, 1\] values of \[2, 2\]"):
        crossed_mean([[1.0, 2.0], [3.0]], [["a", "b"], ["a", "b"]])


def test_a_crossed_mean_needs_a_table_of_numbers():
    with pytest.raises(ValueError, match="table of seeds by prompts"):
        crossed_mean([1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        crossed_mean([[1.0, math.nan], [2.0, 3.0]])


def test_wilson_solves_its_quadratic_at_both_ends():
    interval, z = wilson(30, 40), 1.959963984540054  # |share - p| = z sqrt(p (1 - p) / n) at p = low and p = high
    for bound in (interval.low, interval.high):
        assert_close(abs(0.75 - bound), z * math.sqrt(bound * (1 - bound) / 40))


def test_wilson_doubts_twenty_wins_of_twenty():
    interval = wilson(20, 20)
    assert_close(interval.high, 1.0)
    assert_close(interval.low, 20 / (20 + 1.959963984540054**2))


def test_wilson_of_nothing_is_everything():
    interval = wilson(0, 0)
    assert math.isnan(interval.mean)
    assert (interval.low, interval.high, interval.n) == (0.0, 1.0, 0)


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def test_unbounded_ends_become_null_in_json():
    assert json.dumps(mean_interval([5.0]).as_dict()) == '{"mean": 5.0, "low": null, "high": null, "n": 1}'
    assert hierarchical_mean([]).as_dict() == {"mean": None, "low": None, "high": None, "n_prompts": 0, "n_seeds": 0}
