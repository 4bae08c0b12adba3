"""Whether answers win for a reason that is not their worth: where they stood on the screen, how long they are, who made them.

chi_square       does a row of a table depend on its column (place on the screen by tier)
slope            by how much the odds of winning a pair grow with a difference (of log length)
bradley_terry    how strong each of several sources is, ties included (Davidson 1970)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prefloop.stats.coefficient import Coefficient, Values, undefined
from prefloop.stats.intervals import sizes, times_drawn

STEPS = 50
MOST = 20.0  # log odds beyond which a slope is no number but a wall


class ChiSquare(NamedTuple):
    """Pearson's test of independence; ``reason`` says why there is none, or why not to lean on it."""

    statistic: float
    df: int
    p: float
    reason: str = ""


def chi_square(table: ArrayLike) -> ChiSquare:
    """Rows and columns that are empty are left out.  R C"""
    counts = np.asarray(table, dtype=np.float64)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0] if counts.size else counts
    if counts.ndim != 2 or min(counts.shape, default=0) < 2:
        return ChiSquare(math.nan, 0, math.nan, "fewer than two rows or columns hold anything")
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    df = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    reason = "some cells expect fewer than five: read p with care" if expected.min() < 5 else ""
    return ChiSquare(statistic, df, chi_square_tail(statistic, df), reason)


def chi_square_tail(x: float, df: int) -> float:
    """P(chi-square of ``df`` > x): the finite series of Abramowitz and Stegun, 26.4.4 and 26.4.5."""
    if x <= 0:
        return 1.0
    half = x / 2
    terms = [
        math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in np.arange(0.5 * (df % 2), df / 2 - 0.75)
    ]
    return min(1.0, sum(terms) + (math.erfc(math.sqrt(half)) if df % 2 else 0.0))


def slope(
    difference: ArrayLike, won: ArrayLike, items: Sequence[object], *, n_boot: int = 400, level: float = 0.95, seed: int = 0
) -> Coefficient:
    """The b of P(first wins) = 1 / (1 + exp(-b difference)), with an interval over items; no intercept, since which is first says
    nothing. ``won`` is 1, 0, or 1/2 for a tie.  N, N"""
    x, y = np.asarray(difference, dtype=np.float64), np.asarray(won, dtype=np.float64)
    kept = x != 0
    x, y = x[kept], y[kept]
    names = [name for name, is_kept in zip(items, kept, strict=True) if is_kept]
    place: dict[object, int] = {}
    at = np.array([place.setdefault(name, len(place)) for name in names], dtype=np.int64)
    n = len(place)
    if n < 2:
        return undefined("fewer than two items with answers that differ in it", n)
    value = float(fitted(x, y, np.ones((1, len(x))))[0])
    if math.isnan(value):
        return undefined("the difference decides every pair", n)
    rng = np.random.default_rng(seed)
    draws = np.concatenate([fitted(x, y, times_drawn(n, size, rng)[:, at]) for size in sizes(n_boot, max(n, len(x)))])
    known = draws[np.isfinite(draws)]
    if len(known) == 0:
        return Coefficient(value, -math.inf, math.inf, n, "undefined in every resample")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Coefficient(value, float(low), float(high), n)


def fitted(x: Values, y: Values, weight: Values) -> Values:
    """Newton's method for several weightings of the same pairs at once; NaN where no finite slope is best.  N, N, B N to B"""
    b = np.zeros(len(weight))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(b[:, None] * x, -MOST, MOST)))
        gradient = (weight * (y - p) * x).sum(1)
        curve = (weight * p * (1 - p) * x * x).sum(1)
        step = np.clip(gradient / np.maximum(curve, 1e-12), -2.0, 2.0)
        b += step
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    scale = np.abs(x).max(initial=1.0)
    return np.where(np.abs(b) * scale < MOST, b, np.nan)


# --- who is stronger --------------------------------------------------------------------------------------------------------


class Strengths(NamedTuple):
    """Log strengths with mean 0, and Davidson's nu: how readily two equals are called a tie."""

    strength: Values
    tie: float


def bradley_terry(wins: ArrayLike, ties: ArrayLike) -> Strengths:
    """Davidson's model (Journal of the American Statistical Association 65, 1970): i beats j in proportion to p_i, ties in
    proportion to nu sqrt(p_i p_j). ``wins[i, j]`` is how often i won, ``ties`` is symmetric.  K K

    Half a tie of everyone with everyone is added, so that a source that never lost has a finite strength.
    """
    won, tied = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    k = len(won)
    n = won + won.T + tied + 0.5 * (1 - np.eye(k))
    own = won.sum(1) + (tied + 0.5 * (1 - np.eye(k))).sum(1) / 2
    n_ties = (tied + 0.5 * (1 - np.eye(k))).sum() / 2
    strength, nu = np.ones(k), 1.0
    for _ in range(2000):
        root = np.sqrt(strength[:, None] * strength[None, :])
        total = strength[:, None] + strength[None, :] + nu * root
        share = n * (1 + nu / 2 * np.sqrt(strength[None, :] / strength[:, None])) / total
        fresh = own / share.sum(1)
        fresh /= np.exp(np.log(fresh).mean())
        root = np.sqrt(fresh[:, None] * fresh[None, :])
        total = fresh[:, None] + fresh[None, :] + nu * root
        nu_fresh = n_ties / np.triu(n * root / total, k=1).sum()
        moved = max(float(np.abs(np.log(fresh / strength)).max(initial=0.0)), abs(math.log(nu_fresh / nu)))
        strength, nu = fresh, nu_fresh
        if moved < 1e-10:
            break
    return Strengths(np.log(strength), float(nu))
