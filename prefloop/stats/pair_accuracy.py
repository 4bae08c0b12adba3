"""How often a score agrees with the people who ranked: pooled over pairs, with intervals over prompts."""

from collections.abc import Callable, Sequence

import numpy as np

from prefloop.records import Group
from prefloop.stats.intervals import bounds

Figure = dict[str, float | int | None]
PER_PROMPT = ("prompt", "pairs", "accuracy", "loss", "prefers_longer", "prefers_shorter")


def signed_gaps(groups: Sequence[Group], scores: Sequence[Sequence[float]], *, with_unusable: bool = True) -> list[np.ndarray]:
    """For each group the score of the better minus the worse answer of every ordered pair of every ranking nobody corrected.

    ``with_unusable``: answers called unusable stand below the others, as in a training with ``unusable=true``; otherwise
    they are in no pair.
    """
    gaps = []
    for group, values in zip(groups, scores, strict=True):
        score = dict(zip((c.id for c in group.completions), values, strict=True))
        corrected = {ranking.supersedes for ranking in group.rankings}
        in_force = [ranking for ranking in group.rankings if ranking.id not in corrected]
        pairs = [pair for ranking in in_force for pair in ranking.pairs(with_unusable=with_unusable)]
        gaps.append(np.array([score[better] - score[worse] for better, worse in pairs], dtype=float))
    return gaps


def of_prompts(groups: Sequence[Group], gaps: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The gaps of each prompt, of all its groups together: they are not independent evidence."""
    found: dict[str, list[np.ndarray]] = {}
    for group, gap in zip(groups, gaps, strict=True):
        found.setdefault(group.prompt.id, []).append(gap)
    return {prompt: np.concatenate(parts) for prompt, parts in found.items()}


def hits(gap: np.ndarray) -> np.ndarray:
    """1 where the score orders a pair as people did, 0 where it does not, 1/2 where it cannot tell."""
    return np.where(gap == 0, 0.5, gap > 0)


def pair_accuracy(groups: Sequence[Group], scores: Sequence[Sequence[float]], *, with_unusable: bool = True) -> Figure:
    """Share of ordered pairs the scores order the same way (an equal score counts half)."""
    gaps = of_prompts(groups, signed_gaps(groups, scores, with_unusable=with_unusable))
    return clustered_share([hits(gap) for gap in gaps.values()])


def clustered_share(per_prompt: Sequence[np.ndarray], *, n_boot: int = 2000, seed: int = 0) -> Figure:
    """The mean of all values (0 to 1) with a 95% bootstrap interval over prompts, whose pairs are not independent.

    Stretched for few prompts as every interval of ``stats.intervals`` is, within 0 and 1; of one prompt it is unknown.
    """
    kept = [values for values in per_prompt if len(values)]
    if not kept:
        return {"mean": None, "low": None, "high": None, "n": 0, "n_prompts": 0}
    total, count = np.array([v.sum() for v in kept]), np.array([len(v) for v in kept])
    mean = float(total.sum() / count.sum())
    told: Figure = {"mean": mean, "low": None, "high": None, "n": int(count.sum()), "n_prompts": len(kept)}
    if len(kept) > 1:
        draw = np.random.default_rng(seed).integers(len(kept), size=(n_boot, len(kept)))
        low, high = bounds(total[draw].sum(1) / count[draw].sum(1), mean, len(kept), 0.95)
        told |= {"low": max(low, 0.0), "high": min(high, 1.0)}
    return told


def length_baselines(groups: Sequence[Group], *, with_unusable: bool = True) -> dict[str, Figure]:
    """What 'prefers the longer' and 'prefers the shorter' would score, lengths in characters."""
    longer = [[float(len(c.text)) for c in group.completions] for group in groups]
    shorter = [[-length for length in lengths] for lengths in longer]
    return {
        "prefers_longer": pair_accuracy(groups, longer, with_unusable=with_unusable),
        "prefers_shorter": pair_accuracy(groups, shorter, with_unusable=with_unusable),
    }


def by_prompt(groups: Sequence[Group], scores: Sequence[Sequence[float]], *, with_unusable: bool = True) -> dict[str, list]:
    """Of each prompt that has ordered pairs: how many, and the means over them of accuracy, log-loss and both length baselines."""
    longer = [[float(len(c.text)) for c in group.completions] for group in groups]
    gaps, lengths = (of_prompts(groups, signed_gaps(groups, of, with_unusable=with_unusable)) for of in (scores, longer))
    rows = []
    for prompt, gap in gaps.items():
        if len(gap):
            share = float(hits(lengths[prompt]).mean())
            rows.append(
                {
                    "prompt": prompt,
                    "pairs": len(gap),
                    "accuracy": float(hits(gap).mean()),
                    "loss": float(np.logaddexp(0.0, -gap).mean()),
                    "prefers_longer": share,
                    "prefers_shorter": 1 - share,
                }
            )
    return {name: [row[name] for row in rows] for name in PER_PROMPT}


def calibration(
    groups: Sequence[Group], scores: Sequence[Sequence[float]], *, bins: int = 8, with_unusable: bool = True
) -> list[Figure]:
    """Predicted against observed share of agreement, in bins of the predicted probability of the scored favourite."""
    gaps = np.concatenate([np.zeros(0), *signed_gaps(groups, scores, with_unusable=with_unusable)])
    predicted = 1 / (1 + np.exp(-np.abs(gaps).clip(max=50)))
    return binned(predicted, hits(gaps), np.linspace(0.5, 1.0, bins + 1), lambda values: float(values.mean()))


def accuracy_by_gap(
    groups: Sequence[Group], scores: Sequence[Sequence[float]], *, bins: int = 5, with_unusable: bool = True
) -> list[Figure]:
    """Accuracy in equally filled bins of the score gap: a trustworthy score is right more often where it is surer."""
    gaps = np.concatenate([np.zeros(0), *signed_gaps(groups, scores, with_unusable=with_unusable)])
    if len(gaps) == 0:
        return []
    edges = np.quantile(np.abs(gaps), np.linspace(0, 1, bins + 1))
    return binned(np.abs(gaps), hits(gaps), edges, lambda values: float(values.mean()))


def binned(x: np.ndarray, hit: np.ndarray, edges: np.ndarray, centre: Callable[[np.ndarray], float]) -> list[Figure]:
    """Mean of ``hit`` within each bin of ``x``; empty bins are left out."""
    index = np.digitize(x, edges[1:-1])
    rows: list[Figure] = []
    for b in range(len(edges) - 1):
        inside = index == b
        if inside.any():
            rows.append({"predicted": centre(x[inside]), "observed": float(hit[inside].mean()), "n": int(inside.sum())})
    return rows
