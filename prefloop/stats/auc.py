"""How well a score tells two kinds of answers apart, where nobody compared two: thumbs, or rules that were broken or kept."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from prefloop.stats.intervals import bounds, times_drawn

Figure = dict[str, float | int | None]


def auc(above: ArrayLike, below: ArrayLike) -> float | None:
    """The chance that one of ``above`` scores more than one of ``below``, ties half; None where there is none of either.  N, M"""
    won = wins(np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64))
    return float(won.mean()) if won.size else None


def wins(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """1, 0 or 1/2 for every pair of one of each.  N, M to N M"""
    return (np.sign(above[:, None] - below) + 1) / 2


def auc_over_prompts(
    scores: ArrayLike, is_good: ArrayLike, prompts: Sequence[Hashable], *, level: float = 0.95, n_boot: int = 1000, seed: int = 0
) -> Figure:
    """The AUC of good over bad answers with a bootstrap over prompts, each with all its answers.  N each

    Pairs are of all prompts together: a score that is high on every answer to an easy prompt gains by that, which thumbs
    cannot tell from being right. Resamples without one of the kinds are left out. ``n`` counts answers. Stretched as every
    interval of ``stats.intervals`` is, within 0 and 1; with fewer than two prompts it is unknown.
    """
    values, good = np.asarray(scores, dtype=np.float64), np.asarray(is_good, dtype=bool)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    names = {name: place for place, name in enumerate(dict.fromkeys(prompts))}
    told: Figure = {
        "mean": auc(values[good], values[~good]),
        "low": None,
        "high": None,
        "n": values.size,
        "n_prompts": len(names),
    }
    if told["mean"] is None or len(names) < 2:
        return told
    at = np.array([names[name] for name in prompts])
    drawn = times_drawn(len(names), n_boot, np.random.default_rng(seed))[:, at]  # B N
    weight = drawn[:, good] @ wins(values[good], values[~good])  # B M
    pairs = drawn[:, good].sum(1) * drawn[:, ~good].sum(1)
    kept = pairs > 0
    draws = (weight * drawn[:, ~good]).sum(1)[kept] / pairs[kept]
    low, high = bounds(draws, float(told["mean"]), len(names), level)
    return told | {"low": max(low, 0.0), "high": min(high, 1.0)}
