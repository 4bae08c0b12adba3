"""Intervals for means: what every reported number stands beside.

Percentile bootstrap, every resample a row of one array, the same seed the same interval. A bootstrap of n values is too
narrow when n is small (it divides by n, and uses normal tails), so both arms are stretched by ``sqrt(n / (n - 1)) t / z``:
2.7 at three values, 1.6 at five, 1.01 at two hundred. That gives the coverage of Student's interval and keeps the skew of
the data. The correction is Hesterberg's (The American Statistician 69, 2015; arXiv 1411.5279), who makes it on the
percentiles; those cannot leave the range of the data, and so cover a median at most 3 times in 4 with three seeds.

Which of these a comparison needs:

    mean_interval        one run: over prompts, which are a sample of the prompts there could be
    paired_difference    two systems on the same prompts: always this, never two overlapping intervals
    hierarchical_paired  several seeds, each with prompts of its own: resamples seeds, then prompts inside each
    crossed_paired       several seeds on the same prompts: resamples seeds and prompts, each for all of the other
    paired_over_seeds    several seeds whose prompts are known by name: nested where no two share one, crossed where they do

Rules for little data: no value gives mean NaN and an unbounded interval; one value gives an unbounded interval, since it
says nothing about spread, and so do fewer than six that are all the same: that many differences of one sign come up by
chance more than once in twenty times (2 / 2^5). Several seeds of which there is one give the interval over its prompts, with ``n_seeds`` 1.
NaN and infinity are refused. Outcomes that are won or lost go to ``wilson``: resampling 20 wins of 20 finds no doubt at all.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.stats.student import student_t

Values = NDArray[np.float64]

ENOUGH_ALIKE = 6  # values without any spread that still allow a conclusion
DRAWS_AT_ONCE = 200_000  # values resampled in one array: what a processor's cache holds


@dataclass(frozen=True)
class Interval:
    """A mean of n values, and where the mean of all there could be is expected."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The fields by name, for JSON; null where unbounded or undefined, since JSON has no infinity."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SeedInterval:
    """The same over seeds and prompts. ``n_prompts`` is of one seed (the fewest, where seeds differ) if each has its own; of
    seeds that share prompts it is the different prompts of all of them."""

    mean: float
    low: float
    high: float
    n_prompts: int
    n_seeds: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The fields by name, for JSON; null where unbounded or undefined."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def separated(interval: Interval | SeedInterval, *, value: float = 0.0) -> bool:
    """Whether the interval excludes ``value``. An ordering may be claimed of a difference only then."""
    return not interval.low <= value <= interval.high


def verdict(interval: Interval | SeedInterval, *, value: float = 0.0) -> Literal["above", "below", "not separated"]:
    """What may be said of a difference."""
    if not separated(interval, value=value):
        return "not separated"
    return "above" if interval.low > value else "below"


def mean_interval(values: ArrayLike, *, level: float = 0.95, n_boot: int = 2000, seed: int = 0) -> Interval:
    """Mean of one value per prompt, with a bootstrap interval over prompts."""
    known = finite(values)
    n = len(known)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(known.mean())
    if n < ENOUGH_ALIKE and np.ptp(known) == 0:
        return Interval(mean, -math.inf, math.inf, n)
    draws = bootstrap_means(known, n_boot, np.random.default_rng(seed))
    return Interval(mean, *bounds(draws, mean, n, level), n)


def paired_difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, n_boot: int = 2000, seed: int = 0) -> Interval:
    """Mean of a - b over the same prompts in the same order."""
    return mean_interval(difference(a, b), level=level, n_boot=n_boot, seed=seed)


def hierarchical_mean(values: Sequence[ArrayLike], *, level: float = 0.95, n_boot: int = 2000, seed: int = 0) -> SeedInterval:
    """Mean over seeds of the mean over prompts; ``values[s]`` holds one value per prompt of seed s.

    Every seed counts the same, however many prompts it has. What prompts add to the spread of the seeds' means is resampled
    twice, so the interval is up to half wider than it need be where seeds do not differ, and right where they do.
    """
    rows = [finite(row) for row in values]
    n_seeds, n_prompts = len(rows), min((len(row) for row in rows), default=0)
    if n_seeds <= 1 or n_prompts == 0:
        return of_one_seed(rows, level=level, n_boot=n_boot, seed=seed)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(n_seeds, size=(n_boot, n_seeds))  # which seed stands at each place of each resample
    means = np.empty((n_boot, n_seeds))
    for index, row in enumerate(rows):
        means[chosen == index] = bootstrap_means(row, int((chosen == index).sum()), rng)
    mean = float(np.mean([row.mean() for row in rows]))
    return SeedInterval(mean, *bounds(means.mean(1), mean, n_seeds, level), n_prompts, n_seeds)


def hierarchical_paired(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], *, level: float = 0.95, n_boot: int = 2000, seed: int = 0
) -> SeedInterval:
    """Mean of a - b over seeds, then over the prompts of each; ``a[s]`` and ``b[s]`` answer the same prompts."""
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same seeds on both sides, got {len(a)} and {len(b)}")
    rows = [difference(of_a, of_b) for of_a, of_b in zip(a, b, strict=True)]
    return hierarchical_mean(rows, level=level, n_boot=n_boot, seed=seed)


def crossed_mean(
    values: Sequence[ArrayLike] | Values,
    prompts: Sequence[Sequence[Hashable]] | None = None,
    *,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> SeedInterval:
    """Mean over seeds of the mean over prompts, where seeds answered the same prompts, all of them or some.

    ``values[s]`` holds the values of seed s and ``prompts[s]`` what each of them is about; without ``prompts`` the values are
    a table of seeds by prompts. A seed may lack a prompt, or hold several values of one.

    An easy prompt is easy under every seed, so more seeds do not make prompts more certain. Seeds and prompts are resampled
    independently (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007, section 3, where cells may be empty):
    a value counts as often as its seed times as often as its prompt was drawn. That errs on the wide side.
    """
    if prompts is None:
        table = np.asarray(values, dtype=np.float64)
        if table.ndim != 2:
            raise ValueError(f"a crossed mean needs a table of seeds by prompts, got shape {table.shape}")
        prompts = [range(table.shape[1])] * len(table)
    rows = [finite(row) for row in values]
    if [len(row) for row in rows] != [len(names) for names in prompts]:
        raise ValueError(f"every value needs its prompt, got {[len(r) for r in rows]} values of {[len(n) for n in prompts]}")
    if not rows or not all(len(row) for row in rows):
        return of_one_seed(rows, level=level, n_boot=n_boot, seed=seed)
    total, count = cells(rows, prompts)
    n_seeds, n_prompts = total.shape
    mean = float(np.mean([row.mean() for row in rows]))
    if n_prompts == 1:
        return SeedInterval(mean, -math.inf, math.inf, 1, n_seeds)
    rng = np.random.default_rng(seed)
    draws = np.concatenate([crossed_means(total, count, size, rng) for size in sizes(n_boot, n_prompts)])
    n = n_prompts if n_seeds == 1 else min(n_seeds, n_prompts)
    return SeedInterval(mean, *bounds(draws[np.isfinite(draws)], mean, n, level), n_prompts, n_seeds)


def crossed_paired(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, n_boot: int = 2000, seed: int = 0) -> SeedInterval:
    """Mean of a - b, both tables of seeds by prompts, where every seed answered the same prompts."""
    return crossed_mean(difference(a, b), level=level, n_boot=n_boot, seed=seed)


def mean_over_seeds(
    values: Sequence[ArrayLike], prompts: Sequence[Sequence[Hashable]], *, level: float = 0.95, n_boot: int = 2000, seed: int = 0
) -> SeedInterval:
    """Mean over seeds of the mean over prompts, by what ``prompts`` says: crossed where a prompt stands twice, nested otherwise."""
    settings: Any = {"level": level, "n_boot": n_boot, "seed": seed}
    names = [name for row in prompts for name in row]
    is_nested = len(set(names)) == len(names)
    return hierarchical_mean(values, **settings) if is_nested else crossed_mean(values, prompts, **settings)


def paired_over_seeds(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    prompts: Sequence[Sequence[Hashable]],
    *,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> SeedInterval:
    """Mean of a - b over seeds and prompts; ``a[s]`` and ``b[s]`` are both about ``prompts[s]``."""
    rows = [difference(of_a, of_b) for of_a, of_b in zip(a, b, strict=True)]
    return mean_over_seeds(rows, prompts, level=level, n_boot=n_boot, seed=seed)


def wilson(successes: float, n: int, *, level: float = 0.95) -> Interval:
    """Share of successes with Wilson's score interval. A tie may count as half a success: the interval is then too wide."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n, got {successes} of {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    share, z = successes / n, NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach), n)


def finite(values: ArrayLike) -> Values:
    """One row of numbers, or an error that says which of them is none."""
    known = np.asarray(values, dtype=np.float64)
    if known.ndim != 1:
        raise ValueError(f"expected one row of values, got shape {known.shape}")
    if not np.isfinite(known).all():
        wrong = np.flatnonzero(~np.isfinite(known))
        raise ValueError(
            f"{len(wrong)} of {len(known)} values are not finite; the first is {known[wrong[0]]}, at index {wrong[0]}\n"
            f"Leave them out if they mean 'not measured', or mend what computed them."
        )
    return known


def difference(a: ArrayLike, b: ArrayLike) -> Values:
    """a - b, of equal shapes only: pairing that broadcasts is no pairing."""
    of_a, of_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if of_a.shape != of_b.shape:
        raise ValueError(f"a paired comparison needs the same prompts on both sides, got shapes {of_a.shape} and {of_b.shape}")
    return of_a - of_b


def bootstrap_means(values: Values, n_boot: int, rng: np.random.Generator) -> Values:
    """Means of ``n_boot`` samples of n values, drawn from n values with replacement."""
    n = len(values)
    parts = [values.take(indices(n, size, n, rng)).mean(1) for size in sizes(n_boot, n)]
    return np.concatenate(parts) if parts else np.empty(0)


def cells(rows: Sequence[Values], prompts: Sequence[Sequence[Hashable]]) -> tuple[Values, Values]:
    """Sum and number of the values of every seed about every prompt, prompts in the order of their first appearance.  S P, S P"""
    column: dict[Hashable, int] = {}
    for names in prompts:
        for name in names:
            column.setdefault(name, len(column))
    total, count = np.zeros((len(rows), len(column))), np.zeros((len(rows), len(column)))
    for s, (row, names) in enumerate(zip(rows, prompts, strict=True)):
        at = [column[name] for name in names]
        np.add.at(total[s], at, row)
        np.add.at(count[s], at, 1.0)
    return total, count


def crossed_means(total: Values, count: Values, size: int, rng: np.random.Generator) -> Values:
    """``size`` means over drawn seeds of the mean over drawn prompts; a seed none of whose prompts was drawn is left out.

    NaN where that leaves no seed. ``total`` and ``count`` are seeds by prompts.
    """
    n_seeds, n_prompts = total.shape
    seeds = times_drawn(n_seeds, size, rng) if n_seeds > 1 else np.ones((size, 1))
    prompts = times_drawn(n_prompts, size, rng)
    held = prompts @ count.T  # size, n_seeds
    means = np.divide(prompts @ total.T, held, out=np.zeros_like(held), where=held > 0)
    weight = seeds * (held > 0)
    left = weight.sum(1)
    return np.divide((weight * means).sum(1), left, out=np.full(size, np.nan), where=left > 0)


def times_drawn(n: int, rows: int, rng: np.random.Generator) -> Values:
    """How often each of n things is among n draws with replacement.  rows, n"""
    drawn = indices(n, rows, n, rng) + np.arange(rows, dtype=np.int64)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def indices(n: int, rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.int32]:
    return rng.integers(n, size=(rows, columns), dtype=np.int32)


def sizes(n_boot: int, n: int) -> list[int]:
    """How many resamples of n values to hold at once."""
    at_once = max(1, DRAWS_AT_ONCE // n)
    return [min(at_once, n_boot - start) for start in range(0, n_boot, at_once)]


def bounds(draws: Values, mean: float, n: int, level: float) -> tuple[float, float]:
    """Percentiles of the resampled means, stretched about the mean by what a bootstrap of n values lacks."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    stretch = small_sample_stretch(n, level)
    return mean - stretch * (mean - float(low)), mean + stretch * (float(high) - mean)


def small_sample_stretch(n: int, level: float) -> float:
    """Student's half-width over the bootstrap's, for the mean of n normal values."""
    return math.sqrt(n / (n - 1)) * student_t(level, n - 1) / NormalDist().inv_cdf((1 + level) / 2)


def of_one_seed(rows: list[Values], **settings: Any) -> SeedInterval:
    """The rule for at most one seed, or no prompts: the interval over the prompts there are."""
    if len(rows) > 1:
        raise ValueError(f"every seed needs a prompt, got {[len(row) for row in rows]}")
    single = mean_interval(rows[0] if rows else [], **settings)
    return SeedInterval(single.mean, single.low, single.high, single.n, len(rows))
