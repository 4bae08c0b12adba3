"""How far two opinions about the same answers agree, pair by pair.

A pair of answers on which both have an order is agreed or disagreed on. Where one or both call it a tie there are two ways
to count, and both are offered because papers differ: over ordered pairs only (a tie is no answer), or with half marks (a
tie that only one of the two sees is worth 1/2, one that both see is worth 1, as in AlpacaFarm, arXiv 2305.14387).
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.records import Ranking
from prefloop.stats.coefficient import Coefficient, Values, divided, of_sums
from prefloop.stats.correlations import two_rows
from prefloop.stats.intervals import Interval, mean_interval


class Agreement(NamedTuple):
    """Pairs of answers, by what two opinions say of them. Counts add up over prompts."""

    agreed: int
    disagreed: int
    tied_by_one: int
    tied_by_both: int

    @property
    def of_ordered(self) -> float:
        """Share agreed among the pairs that both put in order; NaN where there are none."""
        ordered = self.agreed + self.disagreed
        return self.agreed / ordered if ordered else float("nan")

    @property
    def with_half_ties(self) -> float:
        """Marks per pair, ties included; NaN where there are no pairs."""
        marks = self.agreed + self.tied_by_one / 2 + self.tied_by_both
        return marks / sum(self) if sum(self) else float("nan")


def total(parts: Sequence[Agreement]) -> Agreement:
    """Counts of several prompts together: a prompt with more pairs weighs more."""
    return Agreement(*(sum(column) for column in zip(*parts, strict=True))) if parts else Agreement(0, 0, 0, 0)


def pair_agreement(a: ArrayLike, b: ArrayLike) -> Agreement:
    """Two scores (or two places) of the same answers, both with the same end up.  K"""
    of_a, of_b = two_rows(a, b)
    first, second = np.triu_indices(len(of_a), k=1)
    sign_a, sign_b = (np.sign(side[first] - side[second]) for side in (of_a, of_b))
    product = sign_a * sign_b
    ties = (sign_a == 0).astype(int) + (sign_b == 0)
    return Agreement(*(int(part.sum()) for part in (product > 0, product < 0, ties == 1, ties == 2)))


def ranking_agreement(a: Ranking, b: Ranking, *, with_unusable: bool = True) -> Agreement:
    """Two rankings of one prompt, over the answers that both placed."""
    if a.prompt_id != b.prompt_id:
        raise ValueError(f"rankings of different prompts cannot agree: {a.prompt_id} and {b.prompt_id}")
    place_a, place_b = a.places(with_unusable=with_unusable), b.places(with_unusable=with_unusable)
    both = [completion for completion in place_a if completion in place_b]
    return pair_agreement([place_a[completion] for completion in both], [place_b[completion] for completion in both])


def annotator_agreement(rankings: Sequence[Ranking], *, with_unusable: bool = True) -> dict[tuple[str, str], Agreement]:
    """The agreement matrix: counts for each pair of annotators, names in order, over the prompts they share."""
    cells: dict[tuple[str, str], list[Agreement]] = defaultdict(list)
    for group in by_prompt(rankings).values():
        for a, b in between_annotators(group):
            names = (min(a.annotator, b.annotator), max(a.annotator, b.annotator))
            cells[names].append(ranking_agreement(a, b, with_unusable=with_unusable))
    return {names: total(parts) for names, parts in sorted(cells.items())}


def agreement_interval(
    rankings: Sequence[Ranking], *, with_unusable: bool = True, level: float = 0.95, n_boot: int = 2000, seed: int = 0
) -> Interval:
    """Share of ordered pairs agreed on between annotators, with an interval over prompts.

    Every prompt counts the same; ``n`` is the prompts on which two annotators ordered the same pair. Two rankings by the same
    annotator are not compared, and a ranking that another supersedes says nothing.
    """
    shares = []
    for group in by_prompt(rankings).values():
        parts = [ranking_agreement(a, b, with_unusable=with_unusable) for a, b in between_annotators(group)]
        shares.append(total(parts).of_ordered)
    return mean_interval(known(shares), level=level, n_boot=n_boot, seed=seed)


def by_prompt(rankings: Sequence[Ranking]) -> dict[str, list[Ranking]]:
    """Rankings that stand, by the prompt they are about."""
    superseded = {ranking.supersedes for ranking in rankings if ranking.supersedes}
    groups: dict[str, list[Ranking]] = defaultdict(list)
    for ranking in rankings:
        if ranking.id not in superseded:
            groups[ranking.prompt_id].append(ranking)
    return groups


def between_annotators(group: Sequence[Ranking]) -> list[tuple[Ranking, Ranking]]:
    return [(a, b) for a, b in combinations(group, 2) if a.annotator != b.annotator]


def known(shares: Sequence[float]) -> list[float]:
    """Without the prompts on which nothing could be compared."""
    return [share for share in shares if not np.isnan(share)]


# --- several people's places of the same answers ----------------------------------------------------------------------------

Ties = Literal["drop", "half", "strict"]
Mean = Literal["pairs", "items"]


@cache
def pairs_of(k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every i < j below k: found once, since items are many and their sizes few."""
    return np.triu_indices(k, k=1)


def pair_signs(places: ArrayLike) -> Values:
    """For each judgment and each pair of answers i < j: 1 where i is placed before j, -1 after, 0 level, NaN unless both are
    placed. Unusable answers are a last tier of their own.  M K to M K(K-1)/2"""
    table = np.asarray(places, dtype=np.float64)
    first, second = pairs_of(table.shape[1])
    return np.sign(table[:, second] - table[:, first])


def marks(signs: Values, ties: Ties) -> Values:
    """Marks and comparisons of one item, over pairs of answers and pairs of judgments.  M N to 2

    drop: only where both put the pair in order; half: 1/2 where one of the two calls it a tie; strict: 0 there.
    """
    first, second = pairs_of(len(signs))
    a, b = signs[first], signs[second]
    is_counted = ~np.isnan(a) & ~np.isnan(b)
    if ties == "drop":
        is_counted &= (a != 0) & (b != 0)
    mark = (a == b).astype(float)
    if ties == "half":
        mark += 0.5 * ((a == 0) != (b == 0))
    return np.array([mark[is_counted].sum(), is_counted.sum()])


def agreement_of(
    tables: Sequence[ArrayLike],
    *,
    ties: Ties = "half",
    mean: Mean = "items",
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Coefficient:
    """How often two people agree on a pair of answers, over items; each table is one item's judgments by answers.  M K

    ``mean`` says what counts the same: every pair, or every item whatever its number of pairs.
    """
    rows = [marks(pair_signs(table), ties) for table in tables]
    known = np.array([row for row in rows if row[1]]).reshape(-1, 2)
    if mean == "items":
        known = np.column_stack([known[:, 0] / known[:, 1], np.ones(len(known))])
    given = {"within": (0.0, 1.0), "n_boot": n_boot, "level": level, "seed": seed}
    return of_sums(known, lambda sums: divided(sums[..., 0], sums[..., 1]), reason="no pair was ordered by two people", **given)


def chance_of(tables: Sequence[ArrayLike], ties: Ties) -> float:
    """What ``agreement_of`` would be if everybody called as many pairs ties as they do and ordered the others by a coin."""
    signs = [pair_signs(table).ravel() for table in tables]
    given = np.concatenate(signs)[~np.isnan(np.concatenate(signs))] if signs else np.empty(0)
    if ties == "drop":
        return 0.5
    if len(given) == 0:
        return float("nan")
    tie = float((given == 0).mean())
    return tie**2 + (1 - tie) ** 2 / 2 + (tie * (1 - tie) if ties == "half" else 0.0)
