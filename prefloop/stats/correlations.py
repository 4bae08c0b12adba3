"""Correlations: does reward go with length, do two scorers put answers in the same order."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.stats.intervals import Interval, bounds, finite, indices
from prefloop.stats.ranks import average_ranks

Values = NDArray[np.float64]


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Linear correlation; NaN where either side is constant."""
    return float(row_pearson(*two_rows(a, b)))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank; NaN where either side is constant."""
    of_a, of_b = two_rows(a, b)
    return float(row_pearson(average_ranks(of_a), average_ranks(of_b)))


def spearman_interval(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, n_boot: int = 2000, seed: int = 0) -> Interval:
    """Spearman's correlation with a bootstrap over the pairs, kept inside -1 and 1.

    A resample in which one side is constant has no correlation and is left out. With fewer than three pairs, or none of
    the resamples left, the interval is everything a correlation can be.
    """
    of_a, of_b = two_rows(a, b)
    n = len(of_a)
    rho = spearman(of_a, of_b) if n > 1 else math.nan
    if n < 3 or math.isnan(rho):
        return Interval(rho, -1.0, 1.0, n)
    drawn = indices(n, n_boot, n, np.random.default_rng(seed))
    draws = row_pearson(average_ranks(of_a[drawn]), average_ranks(of_b[drawn]))
    known = draws[np.isfinite(draws)]
    if len(known) == 0:
        return Interval(rho, -1.0, 1.0, n)
    low, high = bounds(known, rho, n, level)
    return Interval(rho, max(-1.0, low), min(1.0, high), n)


def kendall_tau_b(a: ArrayLike, b: ArrayLike) -> float:
    """(concordant - discordant) / sqrt(pairs untied in a * pairs untied in b); NaN where either side is constant."""
    of_a, of_b = two_rows(a, b)
    sign_a, sign_b = (np.sign(side[:, None] - side[None, :]) for side in (of_a, of_b))
    untied = float(np.abs(sign_a).sum()) * float(np.abs(sign_b).sum())
    return float((sign_a * sign_b).sum()) / math.sqrt(untied) if untied else math.nan


def within_prompt_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's correlation inside prompts: each row of P K loses its mean first.

    Reward against length, say: over all answers it also measures which prompts call for long answers; this does not.
    """
    of_a, of_b = (np.asarray(side, dtype=np.float64) for side in (a, b))
    if of_a.ndim != 2 or of_a.shape != of_b.shape:
        raise ValueError(f"expected two tables of prompts by answers, got shapes {of_a.shape} and {of_b.shape}")
    return pearson(centred(of_a).ravel(), centred(of_b).ravel())


def row_pearson(a: Values, b: Values) -> Values:
    """Pearson's correlation along the last axis; NaN where either side is constant.  ... N"""
    of_a, of_b = (side - side.mean(-1, keepdims=True) for side in (a, b))
    scale = np.sqrt((of_a**2).sum(-1) * (of_b**2).sum(-1))
    is_constant = (np.ptp(a, -1) == 0) | (np.ptp(b, -1) == 0)
    known = np.where(is_constant, 1.0, scale)
    return np.where(is_constant, np.nan, (of_a * of_b).sum(-1) / known)


def centred(table: Values) -> Values:
    """Each row less its mean, and exactly 0 where it is constant: rounding must not correlate with anything.  P K"""
    return np.where(np.ptp(table, axis=1, keepdims=True) == 0, 0.0, table - table.mean(1, keepdims=True))


def two_rows(a: ArrayLike, b: ArrayLike) -> tuple[Values, Values]:
    of_a, of_b = finite(a), finite(b)
    if len(of_a) != len(of_b):
        raise ValueError(f"a correlation needs pairs, got {len(of_a)} and {len(of_b)} values")
    return of_a, of_b
