"""Best-of-n: what n samples and a reward model give, for every n, from N samples a prompt.

The estimator averages over all C(N, n) subsets of N samples at once (Nakano et al., WebGPT, arXiv 2112.09332, appendix I, as
used by Gao et al., arXiv 2210.10760). Sorted by the proxy, the sample of rank i is the best of C(i - 1, n - 1) subsets:

    E[best of n] = sum over i = n..N of C(i - 1, n - 1) / C(N, n) * r_(i)

The gold score of the same curve puts the gold of the sample with the i-th proxy in place of r_(i). Samples the proxy cannot
tell apart are equally likely to be picked, so each of them carries the mean of their golds; sorting alone would let the
order of the input decide. Axes: P prompts, N samples of a prompt, M values of n.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.stats.ranks import shared_over_ties

Values = NDArray[np.float64]


class BestOfN(NamedTuple):
    """One n of the curve, with a value per prompt so that intervals over prompts and paired differences can follow."""

    n: int
    kl: float  # an upper bound, exact for continuous rewards
    proxy: Values  # P
    gold: Values  # P


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike, ns: Sequence[int]) -> list[BestOfN]:
    """Expected proxy and gold of the sample that the proxy picks among n, for each n. ``proxy`` and ``gold`` are P N."""
    by_proxy, by_gold = picked_by_best_of_n(proxy, proxy, ns), picked_by_best_of_n(proxy, gold, ns)
    return [BestOfN(n, best_of_n_kl(n), by_proxy[i], by_gold[i]) for i, n in enumerate(ns)]


def picked_by_best_of_n(proxy: ArrayLike, value: ArrayLike, ns: Sequence[int]) -> Values:
    """Expected value (gold, length, anything a sample has) of the sample that the proxy picks among n.  M P"""
    chooser, carried = np.asarray(proxy, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if chooser.ndim != 2 or chooser.shape != carried.shape:
        raise ValueError(f"expected two tables of prompts by samples, got shapes {chooser.shape} and {carried.shape}")
    for name, table in (("proxy", chooser), ("value", carried)):
        if not np.isfinite(table).all():
            raise ValueError(f"{int((~np.isfinite(table)).sum())} of the {table.size} entries of {name} are not finite")
    return rank_weights(chooser.shape[1], ns) @ shared_over_ties(chooser, carried).T


def rank_weights(n_samples: int, ns: Sequence[int]) -> Values:
    """C(i - 1, n - 1) / C(N, n) for ranks i = 1..N: how often rank i is the best of n.  M N

    Downwards from n / N at the top, by C(i - 2, n - 1) = C(i - 1, n - 1) * (i - n) / (i - 1): no factorial is formed.
    """
    n = np.asarray(ns, dtype=np.float64)[:, None]
    if n.size == 0 or n.min() < 1 or n.max() > n_samples:
        raise ValueError(f"n must lie between 1 and the {n_samples} samples of a prompt, got {list(ns)}")
    rank = np.arange(n_samples, 1, -1.0)  # the N - 1 steps down, from rank N to rank 1
    shrink = np.maximum(rank - n, 0) / (rank - 1)
    downwards = np.concatenate([n / n_samples, n / n_samples * np.cumprod(shrink, axis=1)], axis=1)
    return downwards[:, ::-1]


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: an upper bound on KL(best of n || base), exact where no two rewards tie (arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n


def win_rate_bound(n: int) -> float:
    """n / (n + 1): the most that best-of-n wins against one sample of its base, ties counted as half."""
    return n / (n + 1)


def best_of_n_pmf(probability: ArrayLike, reward: ArrayLike, n: int) -> Values:
    """Exact distribution of the best of n draws, where tied rewards are picked in proportion to the base.

    P(y) = (F(r_y)^n - F(r_y-)^n) * p(y) / p(all y' with r_y' = r_y), F the distribution of the reward under p. One row of N.
    """
    base, score = np.asarray(probability, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if base.ndim != 1 or base.shape != score.shape:
        raise ValueError(f"expected one row of probabilities and one of rewards, got shapes {base.shape} and {score.shape}")
    _, level = np.unique(score, return_inverse=True)
    mass = np.bincount(level, weights=base)
    up_to = np.minimum(np.cumsum(mass), 1.0)
    picked = np.diff(up_to**n, prepend=0.0)
    share = np.divide(picked, mass, out=np.zeros_like(mass), where=mass > 0)
    return base * share[level]


def exact_best_of_n_kl(probability: ArrayLike, reward: ArrayLike, n: int) -> float:
    """KL(best of n || base) in nats, below ``best_of_n_kl(n)`` wherever rewards tie or answers are few."""
    base, best = np.asarray(probability, dtype=np.float64), best_of_n_pmf(probability, reward, n)
    likely = best > 0
    return float((best[likely] * np.log(best[likely] / base[likely])).sum())
