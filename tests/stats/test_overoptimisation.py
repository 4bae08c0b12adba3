import numpy as np
import pytest

from prefloop.stats.overoptimisation import extrapolated, fit_bon, fit_rl, predicted
from tests.helpers import assert_close

D = np.linspace(0.3, 4.0, 30)


def bon(d, a: float, b: float):
    return d * (a - b * d)


def rl(d, a: float, b: float):
    return d * (a - b * np.log(d))


@pytest.mark.parametrize(("fit", "curve"), [(fit_bon, bon), (fit_rl, rl)])
def test_known_coefficients_come_back_from_exact_points(fit, curve):
    found = fit(D, curve(D, 1.3, 0.4))
    assert_close([found.a, found.b], [1.3, 0.4])
    assert_close(found.residuals, np.zeros(len(D)))
    assert_close(predicted(found, D), curve(D, 1.3, 0.4))


@pytest.mark.parametrize(("fit", "curve"), [(fit_bon, bon), (fit_rl, rl)])
def test_known_coefficients_come_back_from_noisy_points_without_bias(fit, curve):
    rng = np.random.default_rng(0)
    found = [fit(D, curve(D, 1.3, 0.4) + 0.05 * rng.normal(size=len(D))) for _ in range(200)]
    for name, truth in (("a", 1.3), ("b", 0.4)):
        values = np.array([getattr(one, name) for one in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(200)
    assert abs(np.mean([one.rms for one in found]) - 0.05) < 0.005


@pytest.mark.parametrize(("fit", "curve"), [(fit_bon, bon), (fit_rl, rl)])
def test_the_peak_is_the_highest_point_of_the_curve(fit, curve):
    found = fit(D, curve(D, 1.3, 0.4))
    fine = np.linspace(0.01, 10, 1_000_000)
    heights = curve(fine, 1.3, 0.4)
    assert abs(found.peak.distance - fine[heights.argmax()]) < 1e-4
    assert abs(found.peak.height - heights.max()) < 1e-8
    assert found.is_peak_measured == (found.peak.distance <= 4.0)


def test_a_peak_beyond_the_points_is_an_extrapolation():
    assert fit_bon(D, bon(D, 1.0, 0.4)).is_peak_measured  # at 1.25
    assert not fit_bon(D, bon(D, 1.0, 0.1)).is_peak_measured  # at 5


def test_a_curve_that_only_rises_or_only_falls_has_no_peak():
    assert fit_bon(D, D).peak is None
    assert fit_rl(D, D).peak is None
    assert fit_bon(D, bon(D, -1.0, 0.2)).peak is None
    assert fit_rl(D, rl(D, 500.0, 1.0)).peak is None  # at e^499, in no run's reach


def test_points_next_to_the_origin_are_left_out():
    with_origin = fit_rl(np.append(D, [0.0, 0.1]), np.append(rl(D, 1.3, 0.4), [50.0, -50.0]))
    assert_close([with_origin.a, with_origin.b], [1.3, 0.4])
    assert len(with_origin.d) == len(D)


def test_the_order_of_the_points_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(len(D))
    gold = bon(D, 1.3, 0.4) + np.sin(7 * D)
    one, other = fit_bon(D, gold), fit_bon(D[shuffled], gold[shuffled])
    assert_close([one.a, one.b], [other.a, other.b])


def test_the_first_two_thirds_foretell_the_last_of_a_true_curve():
    held_out = extrapolated(fit_bon, D, bon(D, 1.3, 0.4))
    assert_close(held_out.d, D[20:])
    assert_close(held_out.residuals, np.zeros(10))


def test_a_curve_that_bends_late_shows_in_the_held_out_third_alone():
    gold = bon(D, 1.3, 0.1) - np.where(D > 3, 1.0, 0.0)
    held_out = extrapolated(fit_bon, D, gold)
    assert_close(held_out.fit.residuals, np.zeros(20))
    assert_close(held_out.residuals, np.where(D[20:] > 3, -1.0, 0.0))


def test_the_held_out_third_is_never_empty():
    for n in (4, 5, 6):
        held_out = extrapolated(fit_bon, D[:n], D[:n])
        assert len(held_out.d) == 2


def test_too_few_distances_are_refused():
    with pytest.raises(ValueError, match=r"two distances above 0.2, got \[1.0\]"):
        fit_bon([0.1, 1.0, 1.0], [0.0, 1.0, 2.0])


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        fit_rl([1.0, 2.0], [1.0, np.nan])
