import math

import numpy as np

from prefloop.stats.correlations import spearman
from prefloop.stats.reliability import (
    cohen_kappa,
    concordance,
    fleiss_kappa,
    gwet_ac1,
    icc_2k,
    kendall_w,
    krippendorff_alpha,
)
from tests.helpers import assert_close

GAP = None
KRIPPENDORFF = (  # four observers, twelve units, gaps: the worked example of section E of his paper
    (1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3),
    (GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP),
)
UNITS = [[value for value in unit if value is not GAP] for unit in zip(*KRIPPENDORFF, strict=True)]
FEW = {"n_boot": 50}


def by_pairs(units, distance) -> float:
    """Alpha as it is defined: mean distance inside units over mean distance between any two judgments."""
    judged = [unit for unit in units if len(unit) > 1]
    everything = [value for unit in judged for value in unit]
    n = len(everything)
    inside = sum(
        distance(a, b, everything) / (len(unit) - 1)
        for unit in judged for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j
    )  # fmt: skip
    anywhere = sum(distance(a, b, everything) for i, a in enumerate(everything) for j, b in enumerate(everything) if i != j)
    return 1 - (inside / n) / (anywhere / (n * (n - 1)))


def ordinal(a: float, b: float, everything) -> float:
    low, high = min(a, b), max(a, b)
    between = sum(low <= value <= high for value in everything) - (everything.count(low) + everything.count(high)) / 2
    return (between if a != b else 0.0) ** 2


def test_alpha_of_the_textbooks_example_is_what_its_definition_gives():
    definition = {"nominal": lambda a, b, _: float(a != b), "ordinal": ordinal, "interval": lambda a, b, _: (a - b) ** 2}
    printed = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849}
    for metric, distance in definition.items():
        found = krippendorff_alpha(UNITS, metric=metric, **FEW)
        assert_close(found.value, by_pairs(UNITS, distance))
        assert round(found.value, 3) == printed[metric]
        assert found.n == 11 and found.low <= found.value <= found.high


def test_alpha_does_not_depend_on_who_said_what_or_on_names_of_categories():
    shuffled = [unit[::-1] for unit in reversed(UNITS)]
    for metric in ("nominal", "ordinal", "interval"):
        before = krippendorff_alpha(UNITS, metric=metric, **FEW).value
        assert_close(krippendorff_alpha(shuffled, metric=metric, **FEW).value, before)
        assert_close(krippendorff_alpha([[6 - value for value in unit] for unit in UNITS], metric=metric, **FEW).value, before)


def test_ordinal_alpha_knows_only_the_order_and_nominal_not_even_that():
    stretched = [[value**3 for value in unit] for unit in UNITS]
    assert_close(
        krippendorff_alpha(stretched, metric="ordinal", **FEW).value, krippendorff_alpha(UNITS, metric="ordinal", **FEW).value
    )
    assert abs(krippendorff_alpha(stretched, metric="interval", **FEW).value - 0.849) > 0.01


def test_what_cannot_be_known_has_a_reason():
    assert krippendorff_alpha([[1], [2]], metric="nominal") == krippendorff_alpha([], metric="nominal")
    assert "judged twice" in krippendorff_alpha([[1], [2]], metric="nominal").reason
    assert "same answer" in krippendorff_alpha([[1, 1], [1, 1]], metric="nominal").reason
    assert "equally often" in fleiss_kappa([[1, 2], [1, 2, 2]]).reason
    assert "nothing in common" in cohen_kappa([], []).reason
    assert "put in order" in kendall_w([[[0, 1]]]).reason
    assert "no two people" in icc_2k([[1.0], [2.0]]).reason
    assert "same point" in icc_2k([[1.0, 1.0], [1.0, 1.0]]).reason
    assert gwet_ac1([[1]], categories=(0, 1)).as_dict() == {
        "value": None, "low": None, "high": None, "n": 1, "reason": "no unit was judged twice",
    }  # fmt: skip


def test_cohens_kappa_of_a_table_of_two():
    # both yes 20, first only 5, second only 10, both no 15: agreed 35/50; chance 25/50 * 30/50 + 25/50 * 20/50
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert_close(cohen_kappa(*zip(*pairs, strict=True), **FEW).value, (0.7 - 0.5) / (1 - 0.5))


def test_fleiss_kappa_of_his_kind_of_table():
    counts = ((0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
              (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7))  # fmt: skip
    units = [[category for category, n in enumerate(row) for _ in range(n)] for row in counts]
    agreed = np.mean([sum(n * (n - 1) for n in row) / (14 * 13) for row in counts])
    chance = sum((sum(row[c] for row in counts) / 140) ** 2 for c in range(5))
    found = fleiss_kappa(units, **FEW)
    assert_close(found.value, (agreed - chance) / (1 - chance))
    assert round(found.value, 2) == 0.21


def test_where_nearly_everything_is_a_yes_kappa_collapses_and_ac1_does_not():
    pairs = [(1, 1)] * 118 + [(1, 0)] * 5 + [(0, 1)] * 2
    yes = (123 + 120) / 250
    chance = 2 * yes * (1 - yes)
    assert_close(gwet_ac1(pairs, categories=(0, 1), **FEW).value, (118 / 125 - chance) / (1 - chance))
    assert cohen_kappa(*zip(*pairs, strict=True), **FEW).value < 0
    assert_close(gwet_ac1([(1, 1)] * 4, categories=(0, 1), **FEW).value, 1.0)


def test_w_is_the_mean_correlation_of_ranks_where_nothing_is_level():
    rng = np.random.default_rng(2)
    table = np.array([rng.permutation(6) for _ in range(4)])
    pairs = [spearman(table[i], table[j]) for i in range(4) for j in range(i)]
    assert_close(concordance(table), (np.mean(pairs) * 3 + 1) / 4)


def test_w_is_one_for_the_same_order_ties_included_and_nothing_for_no_order():
    assert_close(concordance([[0, 1, 1, 2]] * 3), 1.0)
    assert_close(concordance([[0, 1, 2], [2, 1, 0]]), 0.0)
    assert math.isnan(concordance([[0, 0], [0, 0]]))
    assert_close(kendall_w([[[0, 1], [0, 1]], [[0, 1], [1, 0]], [[0, 0], [0, 0]]], **FEW).value, 0.5)


def test_icc_of_shrout_and_fleiss():
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)
    mean = table.mean()
    between = 4 * ((table.mean(1) - mean) ** 2).sum() / 5
    among = 6 * ((table.mean(0) - mean) ** 2).sum() / 3
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + mean
    error = (rest**2).sum() / 15
    found = icc_2k(table, **FEW)
    assert_close(found.value, (between - error) / (between + (among - error) / 6))
    assert round(found.value, 2) == 0.62
    assert_close(icc_2k(table + 100, **FEW).value, found.value)


def test_completions_of_one_item_are_drawn_together():
    """An item judged alike in all of its completions is one piece of evidence: the interval over items is the wider one."""
    rng = np.random.default_rng(0)
    units, items = [], []
    for item in range(30):
        agrees = rng.random() < 0.5
        for _ in range(8):
            value = float(rng.integers(2))
            units.append([value, value if agrees else 1 - value])
            items.append(item)
    alone, together = (krippendorff_alpha(units, metric="nominal", items=of) for of in (None, items))
    assert_close(alone.value, together.value)
    assert (alone.n, together.n) == (240, 30)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
