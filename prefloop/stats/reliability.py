"""How far several people agree about the same things, beyond what chance would give: alpha, kappa, AC1, W, ICC.

A unit is what was judged (one completion on one scale, one pair of completions); ``units[u]`` lists the values it was given,
however many there are. ``items[u]`` is what the unit belongs to: intervals are over items. All return a ``Coefficient``.

    krippendorff_alpha   any number of judgments per unit; nominal, ordinal or interval
    fleiss_kappa         nominal, the same number of judgments of every unit
    cohen_kappa          nominal, two people
    gwet_ac1             nominal, where one category is rare and kappa misleads
    kendall_w            orders of the same things, ties included
    icc_2k               points on a scale, the same people throughout
"""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.stats.coefficient import Coefficient, Values, divided, of_sums, summed_by, undefined
from prefloop.stats.ranks import average_ranks

Metric = Literal["nominal", "ordinal", "interval"]
Units = Sequence[Sequence[float]]
Items = Sequence[Hashable] | None

ALONE = "no unit was judged twice"
ONE_VALUE = "everybody gave the same answer everywhere, so agreement cannot be told from chance"


def tally(units: Units) -> tuple[Values, Values]:
    """The values that occur, and how often each unit was given each.  C, U C"""
    given = np.array([value for unit in units for value in unit], dtype=np.float64)
    owner = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    values, which = np.unique(given, return_inverse=True)
    counts = np.bincount(owner * len(values) + which.ravel(), minlength=len(units) * len(values))
    return values, counts.reshape(len(units), len(values)).astype(np.float64)


def of_items(rows: Values, items: Items) -> Values:
    return rows if items is None else summed_by(items, rows)


# --- Krippendorff -----------------------------------------------------------------------------------------------------------


def krippendorff_alpha(
    units: Units, *, metric: Metric, items: Items = None, n_boot: int = 1000, level: float = 0.95, seed: int = 0
) -> Coefficient:
    """1 - observed / expected disagreement (Krippendorff, Computing Krippendorff's alpha-reliability, 2011, section E)."""
    judged = [u for u, unit in enumerate(units) if len(unit) > 1]
    if not judged:
        return undefined(ALONE)
    values, counts = tally([units[u] for u in judged])
    kept = None if items is None else [items[u] for u in judged]
    c = len(values)

    def formula(sums: Values) -> Values:
        return alpha_of(sums.reshape(*sums.shape[:-1], c, c), values, metric)

    rows = of_items(coincidences(counts).reshape(len(judged), c * c), kept)
    return of_sums(rows, formula, reason=ONE_VALUE, n_boot=n_boot, level=level, seed=seed)


def coincidences(counts: Values) -> Values:
    """Ordered pairs of judgments of one unit, each unit weighing as many as it has judgments.  U C to U C C"""
    n = counts.sum(1)[:, None, None]
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs[:, np.arange(counts.shape[1]), np.arange(counts.shape[1])] -= counts  # none with itself
    return pairs / np.maximum(n - 1, 1)


def alpha_of(coincidence: Values, values: Values, metric: Metric) -> Values:
    """... C C to ..."""
    margin = coincidence.sum(-1)  # ... C
    total = margin.sum(-1)
    distance = squared_distance(margin, values, metric)  # ... C C
    observed = (coincidence * distance).sum((-1, -2))
    expected = (margin[..., :, None] * margin[..., None, :] * distance).sum((-1, -2))
    return 1 - divided((total - 1) * observed, expected)


def squared_distance(margin: Values, values: Values, metric: Metric) -> Values:
    """How far two values are apart. Ordinal: by the judgments from one to the other, half of both ends.  ... C C"""
    if metric == "nominal":
        return 1.0 - np.eye(len(values))
    if metric == "interval":
        return (values[:, None] - values[None, :]) ** 2
    middle = np.cumsum(margin, -1) - margin / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


# --- kappas -----------------------------------------------------------------------------------------------------------------


def fleiss_kappa(units: Units, *, items: Items = None, n_boot: int = 1000, level: float = 0.95, seed: int = 0) -> Coefficient:
    """Fleiss, Psychological Bulletin 76, 1971. Undefined where units differ in how often they were judged."""
    times = {len(unit) for unit in units}
    if len(times) != 1:
        return undefined("units were not all judged equally often" if times else ALONE, len(units))
    m = times.pop()
    if m < 2:
        return undefined(ALONE, len(units))
    _, counts = tally(units)
    agreed = ((counts**2).sum(1) - m) / (m * (m - 1))  # U

    def formula(sums: Values) -> Values:
        n = sums[..., 0]
        chance = ((sums[..., 2:] / (n[..., None] * m)) ** 2).sum(-1)
        return divided(sums[..., 1] / n - chance, 1 - chance)

    rows = of_items(np.column_stack([np.ones(len(units)), agreed, counts]), items)
    return of_sums(rows, formula, reason=ONE_VALUE, n_boot=n_boot, level=level, seed=seed)


def cohen_kappa(
    a: ArrayLike, b: ArrayLike, *, items: Items = None, n_boot: int = 1000, level: float = 0.95, seed: int = 0
) -> Coefficient:
    """Two people's answers about the same units (Cohen, Educational and Psychological Measurement 20, 1960)."""
    of_a, of_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if of_a.shape != of_b.shape or of_a.ndim != 1:
        raise ValueError(f"kappa is of two answers about each unit, got shapes {of_a.shape} and {of_b.shape}")
    if len(of_a) == 0:
        return undefined("the two judged nothing in common")
    values = np.unique([of_a, of_b])
    c = len(values)
    table = np.zeros((len(of_a), c * c))
    table[np.arange(len(of_a)), np.searchsorted(values, of_a) * c + np.searchsorted(values, of_b)] = 1.0

    def formula(sums: Values) -> Values:
        square = sums.reshape(*sums.shape[:-1], c, c)
        n = square.sum((-1, -2))
        chance = (square.sum(-1) * square.sum(-2)).sum(-1) / n**2
        return divided(np.trace(square, axis1=-2, axis2=-1) / n - chance, 1 - chance)

    return of_sums(of_items(table, items), formula, reason=ONE_VALUE, n_boot=n_boot, level=level, seed=seed)


def gwet_ac1(
    units: Units,
    *,
    categories: Sequence[float],
    items: Items = None,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Coefficient:
    """Gwet, British Journal of Mathematical and Statistical Psychology 61, 2008, with any number of judgments per unit.

    Chance is how often people would agree who guess where it is hard: defined even where everybody says the same.
    """
    if not any(len(unit) > 1 for unit in units):
        return undefined(ALONE, len(units))
    order = {value: c for c, value in enumerate(categories)}
    counts = np.zeros((len(units), len(order)))
    at = [u * len(order) + order[value] for u, unit in enumerate(units) for value in unit]
    counts += np.bincount(at, minlength=counts.size).reshape(counts.shape)
    n = counts.sum(1)
    is_twice, is_once = n > 1, n > 0
    agreed = (counts * (counts - 1)).sum(1) / np.where(is_twice, n * (n - 1), 1.0)
    share = counts / np.maximum(n, 1)[:, None]

    def formula(sums: Values) -> Values:
        common = divided(sums[..., 3:], sums[..., 1:2])
        chance = (common * (1 - common)).sum(-1) / (len(order) - 1)
        return divided(divided(sums[..., 2], sums[..., 0]) - chance, 1 - chance)

    rows = of_items(np.column_stack([is_twice, is_once, agreed, share]), items)
    return of_sums(rows, formula, reason=ONE_VALUE, n_boot=n_boot, level=level, seed=seed)


# --- orders and points ------------------------------------------------------------------------------------------------------


def concordance(places: ArrayLike) -> float:
    """Kendall's W of one item with correction for ties; NaN where nobody puts anything before anything.  M K"""
    rank = average_ranks(np.asarray(places, dtype=np.float64))
    m, k = rank.shape
    spread = float(((rank.sum(0) - m * (k + 1) / 2) ** 2).sum())
    ties = sum(float((size**3 - size).sum()) for size in (np.unique(row, return_counts=True)[1] for row in rank))
    most = m * m * (k**3 - k) - m * ties
    return 12 * spread / most if most > 0 else float("nan")


def kendall_w(tables: Sequence[ArrayLike], *, n_boot: int = 1000, level: float = 0.95, seed: int = 0) -> Coefficient:
    """The mean over items of Kendall's W (Kendall and Babington Smith, 1939); each table is judgments by completions.  M K"""
    known = [one for table in tables if len(np.asarray(table)) > 1 and not np.isnan(one := concordance(table))]
    if not known:
        return undefined("no item was put in order twice")
    rows = np.column_stack([np.ones(len(known)), known])
    given = {"within": (0.0, 1.0), "n_boot": n_boot, "level": level, "seed": seed}
    return of_sums(rows, lambda sums: sums[..., 1] / sums[..., 0], reason="", **given)


def icc_2k(table: ArrayLike, *, items: Items = None, n_boot: int = 1000, level: float = 0.95, seed: int = 0) -> Coefficient:
    """ICC(2,k): reliability of the mean of k people, a sample of all (Shrout and Fleiss, Psychological Bulletin 86, 1979).  N k"""
    values: NDArray[np.float64] = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        return undefined("no two people judged the same units")
    k = values.shape[1]
    middle = values - values.mean()  # sums of squares lose fewer digits so
    rows = of_items(np.column_stack([np.ones(len(values)), (middle**2).sum(1), middle.sum(1) ** 2 / k, middle]), items)
    reason = "everybody gave everything the same point, or there are fewer than two units"
    return of_sums(rows, lambda sums: icc_of(sums, k), reason=reason, n_boot=n_boot, level=level, seed=seed)


def icc_of(sums: Values, k: int) -> Values:
    """(BMS - EMS) / (BMS + (JMS - EMS) / n) of: units, squares, squares of units' sums / k, people's sums.  ... 3+k"""
    n, squares, of_units, people = sums[..., 0], sums[..., 1], sums[..., 2], sums[..., 3:]
    grand = people.sum(-1) ** 2 / (n * k)
    between, among = of_units - grand, (people**2).sum(-1) / n - grand
    rest = squares - grand - between - among
    freedom = np.maximum(n - 1, 1)
    mean_square, of_people, error = between / freedom, among / (k - 1), rest / (freedom * (k - 1))
    found = divided(mean_square - error, mean_square + (of_people - error) / n)
    return np.where(n > 1, found, np.nan)
