"""The table of policies from what each of them did on each prompt, in one run or over several seeds.

One run gives intervals over its prompts; several give intervals over seeds and prompts. Skills are over items, which are the
same in every run: more seeds do not make them more. Whether runs share prompts too is told by ``prompts``, the ids of each
run's; without it every run has prompts of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefloop.stats.intervals import mean_over_seeds, paired_over_seeds, wilson

Prompts = Sequence[Sequence[str]]  # the ids of each run's prompts, as prompts.json of an evaluation has them
PerPrompt = Mapping[str, Mapping[str, Sequence[float]]]  # row -> figure -> one value per prompt (or per item of a skill)
SKILL, FLUENCY = "skill/", "fluency/"


def win_key(baseline: str) -> str:
    """What a row calls its share of wins: ``win_vs_sft`` where everything is compared with ``sft``."""
    return f"win_vs_{baseline}"


def wins_of(row: Mapping[str, Any]) -> Any:
    """The share of wins of a row, whatever it was measured against."""
    return next((value for key, value in row.items() if key.startswith(win_key(""))), None)


def row(
    name: str, runs: Sequence[PerPrompt], *, baseline: str, is_bound: bool = False, prompts: Prompts | None = None
) -> dict[str, Any]:
    """A line of the table; what was not measured is None. ``is_bound``: its KL is a formula's, so there is no interval.

    ``kl``, ``length``, ``proxy`` and skills are numbers, each with its interval in a neighbour called ``..._interval``.
    """
    figures = list(runs[0][name])
    found = {figure: interval(name, figure, runs, prompts) for figure in figures}
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


def interval(name: str, figure: str, runs: Sequence[PerPrompt], prompts: Prompts | None = None) -> dict[str, Any]:
    """Mean, ends and sample; n is what was averaged, over all seeds.

    Items of a skill are solved or not, and resampling none of 26 finds no doubt at all: one run has Wilson's interval.
    """
    values = [run[name][figure] for run in runs]
    sizes = [len(row) for row in values]
    if figure.startswith(SKILL) and len(runs) == 1:
        return {**wilson(sum(values[0]), sizes[0]).as_dict(), "n_prompts": sizes[0], "n_seeds": 1}
    return {**mean_over_seeds(values, asked(figure, sizes, prompts)).as_dict(), "n": sum(sizes)}


def difference(a: str, b: str, metric: str, runs: Sequence[PerPrompt], prompts: Prompts | None = None) -> dict[str, Any]:
    """a - b on the same prompts of each run. Best-of-n may have answered only the first of them."""
    sides = [(np.asarray(run[a][metric]), np.asarray(run[b][metric])) for run in runs]
    n = min(len(side) for both in sides for side in both)
    of_a, of_b = ([side[i][:n] for side in sides] for i in (0, 1))
    told = paired_over_seeds(of_a, of_b, asked(metric, [n] * len(runs), prompts))
    return {"a": a, "b": b, "metric": metric, **told.as_dict()}


def asked(figure: str, sizes: Sequence[int], prompts: Prompts | None) -> list[list[Any]]:
    """What each value of each run is about, of the first so many: items in their order, prompts by id or as nobody else's."""
    if figure.startswith(SKILL):
        return [list(range(size)) for size in sizes]
    if prompts is None:
        return [[(run, i) for i in range(size)] for run, size in enumerate(sizes)]
    return [list(ids[:size]) for ids, size in zip(prompts, sizes, strict=True)]
