"""A simulated benchmark from what each run found on each prompt: one run gives intervals over its prompts, several over seeds and prompts."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from prefloop.stats.best_of_n import best_of_n_kl
from prefloop.stats.correlations import row_pearson, spearman, spearman_interval
from prefloop.stats.intervals import mean_over_seeds, paired_over_seeds, verdict
from prefloop.stats.overoptimisation import NEAREST, fit_bon
from prefloop.stats.ranks import average_ranks

PerPrompt = dict[
    str, Any
]  # {"prompts": ids, "answers": {labels: {method: {figure: values}}}, "judges": {figure: values}, "best_of_n": {reward: {"n", "proxy", "gold"}}}
BASELINE = "baseline"
LABELS = ("simulated", "real")
FIGURES = ("gold", "win_gold", "win_pool")
BOTH_HALVES = (0, 1)

# What is put in order, by which labels it was trained and by whom it is judged, and beside what.
ORDERS = {
    "benchmark": (("simulated", "win_pool"), ("real", "win_gold")),  # AlpacaFarm's: everything simulated, beside everything true
    "judge": (("simulated", "win_pool"), ("simulated", "win_gold")),  # the same policies, judged by the pool and by the truth
    "labels": (("simulated", "win_gold"), ("real", "win_gold")),  # the truth judges; only the labels they learned from differ
}


def over_runs(runs: Sequence[PerPrompt]) -> dict[str, list[dict]]:
    """The table, the orders side by side, and best-of-n over n: of one run or of several seeds."""
    prompts = [run["prompts"] for run in runs]
    rows = [
        {
            "labels": labels,
            "method": method,
            **{f: interval([run["answers"][labels][method][f] for run in runs], prompts) for f in FIGURES},
        }
        for labels, methods in runs[0]["answers"].items()
        for method in methods
    ]
    has_methods = len(runs[0]["answers"]["simulated"]) > 1
    orders = [
        {"order": name, **agreement(*(tables(runs, *side) for side in sides))} for name, sides in ORDERS.items() if has_methods
    ]
    curves, bends = [], []
    for reward in runs[0]["best_of_n"]:
        found = [run["best_of_n"][reward] for run in runs]
        curves += [{"reward": reward, **point} for point in curve(found, prompts)]
        bends.append({"reward": reward, **bend(found, prompts)})
    falls = {reward: falls_of([run["best_of_n"][reward] for run in runs]) for reward in runs[0]["best_of_n"]}
    paired = [{"a": a, "b": b, "metric": "fall", **compared(falls[a], falls[b], prompts)} for a, b in combinations(falls, 2)]
    golds = {
        labels: {m: [run["answers"][labels][m]["gold"] for run in runs] for m in runs[0]["answers"][labels]} for labels in LABELS
    }
    paired += [
        {"a": f"real/{m}", "b": f"simulated/{m}", "metric": "gold", **compared(golds["real"][m], golds["simulated"][m], prompts)}
        for m in golds["real"]
        if m != BASELINE
    ]
    judges = {name: interval([run["judges"][name] for run in runs], prompts) for name in runs[0]["judges"]}
    return {"rows": rows, "orders": orders, "judges": judges, "best_of_n": curves, "bends": bends, "paired": paired}


def compared(a: Sequence[Any], b: Sequence[Any], prompts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """a - b, paired by prompt."""
    return paired_over_seeds(a, b, prompts).as_dict()


def interval(values: Sequence[Sequence[float]], prompts: Sequence[Sequence[str]]) -> dict[str, Any]:
    return mean_over_seeds(values, prompts).as_dict()


# --- orders ------------------------------------------------------------------------------------------------------------------


def tables(runs: Sequence[PerPrompt], labels: str, figure: str) -> list[np.ndarray]:
    """One table of methods by prompts for each run; the methods in one order for both kinds of labels.  M P"""
    methods = sorted(set(runs[0]["answers"]["simulated"]) & set(runs[0]["answers"]["real"]))
    return [np.array([run["answers"][labels][method][figure] for method in methods]) for run in runs]


def agreement(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], *, n_boot: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Spearman's correlation of two orders of the same methods, by their means over seeds and prompts; tables M P, one a seed.

    Two intervals, for two doubts. ``low`` and ``high``: percentiles over resampled seeds and the prompts of each, both orders
    from the same resample, which is how far these methods' order is known. ``over_methods``: a bootstrap over methods, which
    is what the correlation may be for others; of eight it is wide, and where the orders are the same it is unknown, since
    every resample agrees too.
    """
    means = [np.mean([table.mean(1) for table in side], axis=0) for side in (a, b)]
    rng = np.random.default_rng(seed)
    draws = np.empty((2, n_boot, len(means[0])))
    for index in range(n_boot):
        chosen = rng.integers(len(a), size=len(a))
        picked = [rng.integers(a[s].shape[1], size=a[s].shape[1]) for s in chosen]
        for which, side in enumerate((a, b)):
            draws[which, index] = np.mean([side[s][:, p].mean(1) for s, p in zip(chosen, picked, strict=True)], axis=0)
    known = row_pearson(*(average_ranks(side) for side in draws))
    known = known[np.isfinite(known)]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if len(known) else (math.nan, math.nan)
    others = spearman_interval(*means, level=level, seed=seed)
    is_known = abs(others.mean) < 1
    told = {"spearman": spearman(*means), "low": float(low), "high": float(high)}
    return {
        **{name: value if math.isfinite(value) else None for name, value in told.items()},
        "over_methods": {"low": others.low, "high": others.high} if is_known else {"low": None, "high": None},
        "methods": len(means[0]),
        "seeds": len(a),
    }


# --- best of n ---------------------------------------------------------------------------------------------------------------


def curve(found: Sequence[Mapping[str, Any]], prompts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Proxy and gold of the answer chosen among n, for every n."""
    return [
        {
            "n": n,
            "kl": best_of_n_kl(n),
            **{f: interval([np.asarray(one[f])[:, i] for one in found], prompts) for f in ("proxy", "gold")},
        }
        for i, n in enumerate(found[0]["n"])
    ]


def bend(found: Sequence[Mapping[str, Any]], prompts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Whether gold falls again while the proxy rises: the inverted U.

    The highest of several noisy points lies too high, so a fall from it would be found in noise. Each half of the prompts is
    therefore measured from the n that was best in the other half: ``fall`` is gold at the largest n less gold there, on average
    0 or more where gold never falls. It is an inverted U where the interval lies below 0.
    """
    golds = [np.asarray(one["gold"]) for one in found]  # P M each
    told = mean_over_seeds(falls_of(found), prompts)
    mean = np.mean([gold.mean(0) for gold in golds], axis=0)  # M
    distance = np.sqrt([best_of_n_kl(n) for n in found[0]["n"]])
    fit = fit_bon(distance, mean - mean[0]) if (distance > NEAREST).sum() > 1 else None
    return {
        "best_n": found[0]["n"][int(np.argmax(mean))],
        "fall": told.as_dict(),
        "inverted_u": verdict(told) == "below",
        "a": fit.a if fit else None,
        "b": fit.b if fit else None,
        "peak": {"distance": fit.peak.distance, "height": fit.peak.height, "measured": fit.is_peak_measured}
        if fit and fit.peak
        else None,
    }


def falls_of(found: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    """Of each run gold at the largest n, less gold at the n that was best in the other half of the prompts of all runs.  P each"""
    golds = [np.asarray(one["gold"]) for one in found]  # P M each
    best = [int(np.argmax(np.mean([gold[1 - half :: 2].mean(0) for gold in golds], axis=0))) for half in BOTH_HALVES]
    falls = []
    for gold in golds:
        fall = np.empty(len(gold))
        for half in BOTH_HALVES:
            fall[half::2] = gold[half::2, -1] - gold[half::2, best[half]]
        falls.append(fall)
    return falls
