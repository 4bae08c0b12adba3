"""A coefficient of agreement beside its interval, how much it rests on, and why it is undefined where it is.

Most coefficients are functions of sums over items (of coincidences, of marks, of squares). So each item is reduced to one row
of numbers, and a bootstrap over items is a product of two matrices: how often each item was drawn, times its row. Whatever
belongs to an item (its completions, its pairs, everyone's judgments) is drawn together with it.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.stats.intervals import bounds, sizes, times_drawn

Values = NDArray[np.float64]
Formula = Callable[[Values], Values]  # sums ... M to coefficients ...; NaN where undefined

N_BOOT = 1000


class Coefficient(NamedTuple):
    """A value from n items; ``reason`` says why there is none, or why it has no interval."""

    value: float
    low: float
    high: float
    n: int
    reason: str = ""

    def as_dict(self) -> dict[str, float | int | str | None]:
        """The fields by name, for JSON; null where undefined."""
        finite = {name: one if math.isfinite(one) else None for name, one in zip(("value", "low", "high"), self, strict=False)}
        return {**finite, "n": self.n, "reason": self.reason}


def undefined(reason: str, n: int = 0) -> Coefficient:
    return Coefficient(math.nan, math.nan, math.nan, n, reason)


def of_sums(
    rows: ArrayLike,
    formula: Formula,
    *,
    reason: str,
    within: tuple[float, float] = (-1.0, 1.0),
    level: float = 0.95,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Coefficient:
    """``formula`` of the summed rows, with a percentile bootstrap over rows; ``reason`` is said where it is undefined.  N M

    Resamples in which it is undefined are left out; with none left, or with one row, there is no interval.
    """
    table = np.asarray(rows, dtype=np.float64)
    n = len(table)
    value = float(formula(table.sum(0))) if n else math.nan
    if math.isnan(value):
        return undefined(reason, n)
    if n == 1:
        return Coefficient(value, *within, n, "one item says nothing about spread")
    rng = np.random.default_rng(seed)
    draws = np.concatenate([formula(times_drawn(n, size, rng) @ table) for size in sizes(n_boot, n)])
    known = draws[np.isfinite(draws)]
    if len(known) == 0:
        return Coefficient(value, *within, n, "undefined in every resample")
    low, high = bounds(known, value, n, level)
    return Coefficient(value, max(within[0], low), min(within[1], high), n)


def summed_by(groups: Sequence[Hashable], rows: Values) -> Values:
    """Rows of the same group added up, groups in order of first appearance: an item's completions are drawn together.  N M"""
    place: dict[Hashable, int] = {}
    at = [place.setdefault(group, len(place)) for group in groups]
    if len(at) != len(rows):
        raise ValueError(f"every row belongs to a group, got {len(rows)} rows and {len(at)} groups")
    total = np.zeros((len(place), rows.shape[1]))
    np.add.at(total, at, rows)
    return total


def divided(top: Values, bottom: Values) -> Values:
    """top / bottom; NaN where the bottom is 0 or less, rounding included."""
    shape = np.broadcast_shapes(np.shape(top), np.shape(bottom))
    return np.divide(top, bottom, out=np.full(shape, np.nan), where=bottom > 1e-12)
