"""The table of policies from what each of them did on each prompt, in one run or over several seeds.

One run gives intervals over its prompts; several give intervals over seeds and the prompts of each. Skills are over items.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefloop.stats.intervals import hierarchical_mean, hierarchical_paired

PerPrompt = Mapping[str, Mapping[str, Sequence[float]]]  # row -> figure -> one value per prompt (or per item of a skill)
SKILL, FLUENCY = "skill/", "fluency/"


def win_key(baseline: str) -> str:
    """What a row calls its share of wins: ``win_vs_sft`` where everything is compared with ``sft``."""
    return f"win_vs_{baseline}"


def wins_of(row: Mapping[str, Any]) -> Any:
    """The share of wins of a row, whatever it was measured against."""
    return next((value for key, value in row.items() if key.startswith(win_key(""))), None)


def row(name: str, runs: Sequence[PerPrompt], *, baseline: str, is_bound: bool = False) -> dict[str, Any]:
    """A line of the table; what was not measured is None. ``is_bound``: its KL is a formula's, so there is no interval.

    ``kl``, ``length``, ``proxy`` and skills are numbers, each with its interval in a neighbour called ``..._interval``.
    """
    figures = list(runs[0][name])
    found = {figure: interval(name, figure, runs) for figure in figures}
    skills = [figure.removeprefix(SKILL) for figure in figures if figure.startswith(SKILL)]
    numbers = {figure: found[figure]["mean"] if figure in found else None for figure in ("kl", "length", "proxy")}
    return {
        "name": name,
        "gold": found.get("gold"),
        win_key(baseline): found.get("win"),
        **{
            key: part
            for figure, mean in numbers.items()
            for key, part in ((figure, mean), (f"{figure}_interval", found.get(figure)))
        },
        **({"kl_interval": None} if is_bound else {}),
        "finished": found["finished"]["mean"],
        "skill": {skill: found[SKILL + skill]["mean"] for skill in skills},
        "skill_interval": {skill: found[SKILL + skill] for skill in skills},
        "fluency": {figure.removeprefix(FLUENCY): found[figure] for figure in figures if figure.startswith(FLUENCY)},
    }


def interval(name: str, figure: str, runs: Sequence[PerPrompt]) -> dict[str, Any]:
    """Mean, ends and sample; n is what was averaged: prompts, times seeds where there are several."""
    told = hierarchical_mean([run[name][figure] for run in runs])
    return {**told.as_dict(), "n": told.n_prompts * told.n_seeds}


def difference(a: str, b: str, metric: str, runs: Sequence[PerPrompt]) -> dict[str, Any]:
    """a - b on the same prompts of each run. Best-of-n may have answered only the first of them."""
    sides = [(np.asarray(run[a][metric]), np.asarray(run[b][metric])) for run in runs]
    n = min(len(side) for both in sides for side in both)
    told = hierarchical_paired([of_a[:n] for of_a, _ in sides], [of_b[:n] for _, of_b in sides])
    return {"a": a, "b": b, "metric": metric, **told.as_dict()}
