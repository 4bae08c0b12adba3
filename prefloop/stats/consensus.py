"""The order that disagrees least with what several people said: Kemeny's, exactly, for up to nine things; Borda's beyond.

An order is tiers, best first. It costs, for each pair of things and each judgment that placed both: 1 where the judgment says
the opposite, 1/2 where one of the two calls it a tie and the other does not (Kemeny's distance between weak orders; Fagin et
al., Comparing and aggregating rankings with ties, PODS 2004, p = 1/2). The cheapest of all weak orders is found by dynamic
programming over sets: the best way to arrange a set on top of the rest does not depend on how the rest is arranged.

``gap`` is what the cheapest order costs more that turns some pair round (or orders a pair that is level here), in judgments, for
the pair where that is least. ``confidence`` is the same over what it would be if everybody agreed on the pair: 1 where all say
the same, 0 where another order is as good.
"""

from functools import lru_cache
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.stats.ranks import average_ranks

Values = NDArray[np.float64]
EXACT = 9  # things: 3^9 ways to put one set on top of another
ROUNDING = 1e-9


class Consensus(NamedTuple):
    """Tiers of the positions 0 .. K - 1, best first; ``gap`` is in judgments."""

    tiers: tuple[tuple[int, ...], ...]
    cost: float
    gap: float
    confidence: float
    method: Literal["kemeny", "borda"]


class Votes(NamedTuple):
    """How many judgments put i before j, and how many put them level.  K K"""

    before: Values
    level: Values


def consensus(places: ArrayLike) -> Consensus:
    """What several orders come to. ``places`` is judgments by things, 0 the best, NaN where a judgment leaves one out.  M K"""
    table = np.asarray(places, dtype=np.float64)
    return kemeny(table) if table.shape[1] <= EXACT else borda(table)


def votes(places: Values) -> Votes:
    """Pairs counted over judgments.  M K"""
    first, second = places[:, :, None], places[:, None, :]
    return Votes((first < second).sum(0).astype(float), (first == second).sum(0).astype(float))  # NaN is neither


# --- Kemeny -----------------------------------------------------------------------------------------------------------------


def kemeny(places: Values) -> Consensus:
    """The cheapest weak order; of equally cheap ones the one with the fewest tiers, then the least on top, by position."""
    k = places.shape[1]
    vote = votes(places)
    best, last = arranged(vote)
    tiers = traced(last, k)
    after, _ = arranged(Votes(vote.before.T, vote.level))  # the same from the other end
    full = (1 << k) - 1
    gap, confidence = margin(tiers, vote, best + after[full - np.arange(1 << k)] + across(vote), float(best[full]))
    return Consensus(tiers, float(best[full]), gap, confidence, "kemeny")


def arranged(vote: Votes) -> tuple[Values, NDArray[np.int64]]:
    """For every set: the cost of its best arrangement, and the set of its last tier.  2^K, 2^K"""
    k = len(vote.before)
    bits = members(k)
    above = bits @ (vote.before.T + vote.level / 2)  # [S, j]: cost of putting all of S before j
    inside = np.einsum("ti,ij,tj->t", bits, vote.before, bits) / 2  # a tier: half for every judgment that orders a pair
    best, last = np.full(1 << k, np.inf), np.zeros(1 << k, dtype=np.int64)
    n_tiers = np.zeros(1 << k, dtype=np.int64)
    best[0] = 0.0
    masks = np.arange(1 << k)
    for top in range((1 << k) - 1):  # a set comes after all of its subsets
        tier = masks[(masks & top == 0) & (masks > 0)]
        cost = best[top] + bits[tier] @ above[top] + inside[tier]
        whole = top | tier
        is_better = cost < best[whole] - ROUNDING
        is_as_good = (np.abs(cost - best[whole]) <= ROUNDING) & (n_tiers[top] + 1 < n_tiers[whole])
        chosen = is_better | is_as_good
        best[whole[chosen]] = cost[chosen]
        last[whole[chosen]], n_tiers[whole[chosen]] = tier[chosen], n_tiers[top] + 1
    return best, last


@lru_cache(maxsize=EXACT + 1)
def members(k: int) -> Values:
    """Which of k things each set holds.  2^K K"""
    return ((np.arange(1 << k)[:, None] >> np.arange(k)) & 1).astype(np.float64)


def across(vote: Votes) -> Values:
    """What it costs to put a set before everything else.  2^K"""
    bits = members(len(vote.before))
    return np.einsum("si,ij,sj->s", bits, vote.before.T + vote.level / 2, 1 - bits)


def traced(last: NDArray[np.int64], k: int) -> tuple[tuple[int, ...], ...]:
    tiers, left = [], (1 << k) - 1
    while left:
        tiers.append(tuple(i for i in range(k) if last[left] >> i & 1))
        left &= ~int(last[left])
    return tuple(reversed(tiers))


def margin(tiers: tuple[tuple[int, ...], ...], vote: Votes, through: Values, cost: float) -> tuple[float, float]:
    """The smallest price of turning a pair round, and the smallest share of what that could be.

    ``through[S]`` is the cost of the cheapest order in which S stands before everything else.
    """
    k = len(vote.before)
    holds = members(k).astype(bool)
    place = {thing: number for number, tier in enumerate(tiers) for thing in tier}
    gaps, shares = [], []
    for i, j in combinations(range(k), 2):
        n = float(vote.before[i, j] + vote.before[j, i] + vote.level[i, j])
        is_level = place[i] == place[j]
        turned = [(j, i)] if place[i] < place[j] else [(i, j)] if place[i] > place[j] else [(i, j), (j, i)]
        other = min(float(through[holds[:, upper] & ~holds[:, lower]].min()) for upper, lower in turned) - cost
        most = n / 2 if is_level else n
        gaps.append(max(0.0, other))
        shares.append(min(1.0, max(0.0, other) / most) if most else 0.0)
    return min(gaps, default=0.0), min(shares, default=1.0)


# --- Borda ------------------------------------------------------------------------------------------------------------------


def borda(places: Values) -> Consensus:
    """By mean rank over the judgments that placed a thing; equal means are a tier. Confidence: the narrowest net majority
    between neighbouring tiers, over the judgments that placed both."""
    vote = votes(places)
    mean = mean_ranks(places)
    values = sorted({round(float(value), 9) for value in mean})
    tiers = tuple(tuple(int(i) for i in np.flatnonzero(np.abs(mean - value) < 1e-8)) for value in values)
    gaps, shares = [], []
    for upper, lower in pairwise(tiers):
        for i in upper:
            for j in lower:
                n = vote.before[i, j] + vote.before[j, i] + vote.level[i, j]
                net = max(0.0, float(vote.before[i, j] - vote.before[j, i]))
                gaps.append(net)
                shares.append(net / n if n else 0.0)
    return Consensus(tiers, cost_of(tiers, vote), min(gaps, default=0.0), min(shares, default=0.0), "borda")


def mean_ranks(places: Values) -> Values:
    """The mean rank of each thing; what nobody placed stands in the middle.  M K to K"""
    total, times = np.zeros(places.shape[1]), np.zeros(places.shape[1])
    for row in places:
        known = np.flatnonzero(~np.isnan(row))
        total[known] += (average_ranks(row[known]) - 0.5) / max(len(known), 1)  # a share, so that short lists weigh no less
        times[known] += 1
    return np.where(times > 0, total / np.maximum(times, 1), 0.5)


def cost_of(tiers: tuple[tuple[int, ...], ...], vote: Votes) -> float:
    """What an order costs."""
    place = np.empty(len(vote.before))
    for number, tier in enumerate(tiers):
        place[list(tier)] = number
    first, second = place[:, None], place[None, :]
    upper = (first < second) * (vote.before.T + vote.level / 2)
    equal = np.triu(first == second, k=1) * (vote.before + vote.before.T) / 2
    return float(upper.sum() + equal.sum())
