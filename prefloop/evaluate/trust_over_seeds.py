"""Reward models on fresh answers, and synthetic preferences beside gold, from what each run found on each prompt.

One run gives intervals over its prompts, several give intervals over seeds and prompts; a prompt that seeds share counts once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefloop.evaluate.rewards import difference, over_seeds
from prefloop.stats.intervals import mean_over_seeds

PerPrompt = dict[str, Any]  # {"answers": {policy: {reward: {figure: values}}}, "synthetic": {name: {figure: values}}}
FIGURES = ("accuracy", "loss", "overconfidence")
EDGES = (0.0, 0.5, 0.7, 0.9)  # of confidence: below the paper's gamma, and three ranges above it


def over_runs(runs: Sequence[PerPrompt], *, baseline: str = "") -> dict[str, list[dict]]:
    """The table of one run or of several seeds: rows, differences to the baseline, synthetic pairs by confidence."""
    rows, paired = [], []
    for policy, rewards in runs[0]["answers"].items():
        first = baseline or next(iter(rewards))
        of = {name: [run["answers"][policy][name] for run in runs] for name in rewards}
        rows += [{"policy": policy, "reward": name, **{f: over_seeds(of[name], f) for f in FIGURES}} for name in rewards]
        paired += [
            {"policy": policy, **difference(name, of[name], first, of[first], figure)}
            for name in rewards
            if name != first
            for figure in FIGURES
        ]
    return {"rows": rows, "paired": paired, "synthetic": by_confidence(runs)}


def by_confidence(runs: Sequence[PerPrompt]) -> list[dict]:
    """Of each relearn run the pairs it learned from, then all it could have, by confidence."""
    found = []
    for name in runs[0]["synthetic"]:
        of = [run["synthetic"][name] for run in runs]
        found.append(
            {"name": name, "low": None, "high": None, **right(of, [np.asarray(one["learned"], dtype=bool) for one in of])}
        )
        if any(c is None for one in of for c in one["confidence"]):
            continue  # pairs that were not made by clusters
        for low, high in zip(EDGES, (*EDGES[1:], None), strict=True):
            inside = [in_bin(np.asarray(one["confidence"], dtype=float), low, high) for one in of]
            found.append({"name": name, "low": low, "high": high, **right(of, inside)})
    return found


def in_bin(confidence: np.ndarray, low: float, high: float | None) -> np.ndarray:
    """Which of them lie in [low, high), beyond rounding."""
    above = confidence > low - 1e-9
    return above if high is None else above & (confidence < high - 1e-9)


def right(of: Sequence[Mapping[str, Sequence]], inside: Sequence[np.ndarray]) -> dict[str, Any]:
    """How many pairs lie inside, how often gold agrees with them and by how much; a seed without any does not count."""
    kept = [(one, mask) for one, mask in zip(of, inside, strict=True) if mask.any()]
    n = int(sum(mask.sum() for _, mask in kept))
    if not kept:
        return {"n": 0, "accuracy": None, "gap": None}
    prompts = [[p for p, is_in in zip(one["prompt"], mask, strict=True) if is_in] for one, mask in kept]
    means = {f: mean_over_seeds([np.asarray(one[f])[mask] for one, mask in kept], prompts).as_dict() for f in ("accuracy", "gap")}
    return {"n": n, **means}
