"""How far two opinions about the same answers agree, pair by pair.

A pair of answers on which both have an order is agreed or disagreed on. Where one or both call it a tie there are two ways
to count, and both are offered because papers differ: over ordered pairs only (a tie is no answer), or with half marks (a
tie that only one of the two sees is worth 1/2, one that both see is worth 1, as in AlpacaFarm, arXiv 2305.14387).
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from prefloop.records import Ranking
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
