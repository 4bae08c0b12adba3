import math
from statistics import NormalDist

from prefloop.stats.student import LARGE, central_mass, student_t, student_t_expansion
from tests.helpers import assert_close


def test_one_degree_of_freedom_is_the_cauchy_distribution():
    for level in (0.5, 0.9, 0.95):
        assert_close(student_t(level, 1), math.tan(math.pi * level / 2))


def test_two_degrees_of_freedom_have_a_closed_form():
    for level in (0.5, 0.9, 0.95):  # P(|T| < t) = t / sqrt(2 + t^2)
        assert_close(student_t(level, 2), level * math.sqrt(2 / (1 - level**2)))


def test_the_series_is_the_integral_of_the_density():
    for df in (3, 4, 9, 30):
        norm = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
        width, steps = 2.0, 20_000
        heights = [norm * (1 + ((i + 0.5) * width / steps) ** 2 / df) ** (-(df + 1) / 2) for i in range(steps)]
        assert_close(central_mass(math.atan(width / math.sqrt(df)), df), 2 * sum(heights) * width / steps)


def test_series_and_expansion_meet_where_one_takes_over_from_the_other():
    assert_close(student_t_expansion(0.95, LARGE - 1), student_t(0.95, LARGE - 1))


def test_many_degrees_of_freedom_are_normal():
    assert_close(student_t(0.95, 10**12), NormalDist().inv_cdf(0.975))
