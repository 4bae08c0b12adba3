"""Reward models side by side: held-out accuracy and log-loss over seeds, and paired differences where they judged the same prompts.

Figures are means over prompts, each prompt the mean over its own ordered pairs, as in the loss; intervals are over seeds and
their prompts; a prompt that several seeds held out is one prompt, however often it was judged. Log-loss is in nats a pair: log 2 = 0.693 is what a coin pays, and more than that is worse than silence.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from prefloop.stats.intervals import mean_over_seeds, paired_over_seeds

PerPrompt = Mapping[str, list[Any]]  # per_prompt.json of a reward run, see stats.pair_accuracy.by_prompt
FIGURES = ("accuracy", "loss", "prefers_longer", "prefers_shorter")
BASELINES = FIGURES[2:]


def read_per_prompt(folder: Path) -> PerPrompt | None:
    """What a reward run found on each held-out prompt; None where nothing was held out."""
    path = folder / "per_prompt.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def side_by_side(runs: Mapping[str, Sequence[PerPrompt]]) -> dict[str, list[dict]]:
    """A row for each name, whose runs are one per seed, and the differences between them and to their length baselines."""
    rows = [{"name": name, **{figure: over_seeds(of_name, figure) for figure in FIGURES}} for name, of_name in runs.items()]
    paired = [against_length(name, of_name, baseline) for name, of_name in runs.items() for baseline in BASELINES]
    for (a, of_a), (b, of_b) in combinations(runs.items(), 2):
        if prompts_of(of_a) == prompts_of(of_b):
            paired += [difference(a, of_a, b, of_b, figure) for figure in ("accuracy", "loss")]
    return {"rows": rows, "paired": paired}


def pooled_accuracy(runs: Sequence[PerPrompt]) -> dict:
    """Share of all held-out pairs in the right order, the mean over seeds of each seed's share, with its interval.

    A share of pairs is a ratio of two sums over prompts, so each prompt stands for what it adds to that ratio: the share
    plus its own hits beyond the share, over the mean number of pairs. Their mean is the share, and they can be resampled.
    """
    told = mean_over_seeds([linearised(run) for run in runs], prompts_of(runs))
    return told.as_dict() | {"n": sum(sum(pairs_of(run)) for run in runs)}


def linearised(run: PerPrompt) -> np.ndarray:
    pairs = np.asarray(pairs_of(run), dtype=float)
    hits = pairs * np.asarray(run["accuracy"])
    share = hits.sum() / pairs.sum()
    return share + (hits - share * pairs) / pairs.mean()


def pairs_of(run: PerPrompt) -> list[int]:
    """Ordered pairs of each prompt; a run from before they were written down counts every prompt once."""
    return run.get("pairs") or [1] * len(run["prompt"])


def prompts_of(runs: Sequence[PerPrompt]) -> list[list[str]]:
    return [run["prompt"] for run in runs]


def over_seeds(runs: Sequence[PerPrompt], figure: str) -> dict:
    return mean_over_seeds([run[figure] for run in runs], prompts_of(runs)).as_dict()


def against_length(name: str, runs: Sequence[PerPrompt], baseline: str) -> dict:
    interval = paired_over_seeds([run["accuracy"] for run in runs], [run[baseline] for run in runs], prompts_of(runs))
    return {"a": name, "b": baseline, "metric": "accuracy", **interval.as_dict()}


def difference(a: str, of_a: Sequence[PerPrompt], b: str, of_b: Sequence[PerPrompt], figure: str) -> dict:
    interval = paired_over_seeds([run[figure] for run in of_a], [run[figure] for run in of_b], prompts_of(of_a))
    return {"a": a, "b": b, "metric": figure, **interval.as_dict()}
