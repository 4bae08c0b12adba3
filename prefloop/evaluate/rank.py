"""Completions to rankings by a scorer: simulated annotators of any taste, for studies in which the truth is a formula.

Each annotator puts the answers to a prompt in the order of score / temperature + Gumbel noise. That order is Plackett-Luce, so
every pair is Bradley-Terry: P(a above b) = sigmoid((s_a - s_b) / temperature). The temperature is given as ``noise``, in
standard deviations of the scores of answers to one prompt, so that one setting suits any scorer.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from prefloop.config import Config, Options
from prefloop.data.read import read_groups
from prefloop.data.reward_spec import files_of, terms_of
from prefloop.data.write import write_groups
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.scorer import load_scorer
from prefloop.records import Group, Ranking
from prefloop.world.draws import uniform


class RankConfig(Config):
    """Rank completions as simulated people would whose taste is a scorer."""

    reward: str = Field(
        description="the taste: a reward model folder (several, with commas: their mean), lexicon:FILE or python:MODULE:FUNCTION"
    )
    data: str = Field(description="kway lines, such as completions.jsonl of a sample run; rankings they have are left behind")
    noise: float = Field(
        0.5, ge=0, description="temperature of Bradley-Terry in standard deviations of the scores; 0 ranks by the score itself"
    )
    annotators: int = Field(1, ge=1, le=100, description="independent rankings of each prompt's answers")
    n: int = Field(0, ge=0, description="use only the first n groups; 0 = all")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    seed: int = 0


def main(config: RankConfig, options: Options) -> dict:
    """Write ``rankings.jsonl``; returns the summary with the accuracy that nobody can exceed on such noisy labels."""
    parents = {"reward": Path(next(iter(files_of(config.reward)), config.reward)), "data": Path(config.data)}
    with open_run("rank", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_groups(config.data, allow_unranked=True)
        report_data(run, "completions", reading.report)
        groups = [group for group in reading.records[: config.n or None] if len(group.completions) > 1]
        if not groups:
            raise DataError(
                f"no prompt of {config.data} has two different answers, so there is nothing to put in order\n"
                f"  draw more than one to each (prefloop sample k=4), at a temperature that makes them differ"
            )
        rows = [(group.prompt, completion) for group in groups for completion in group.completions]
        if options.dry_run:
            return forecast(run, Plan(steps=0, rows=len(rows), tokens=0), n_rows=len(rows), parameters=0)
        scorer = load_scorer(config.reward, device=run.device, template=config.template)
        flat = iter(scorer([prompt for prompt, _ in rows], [completion for _, completion in rows]))
        scores = [[float(next(flat)) for _ in group.completions] for group in groups]
        temperature = config.noise * spread(scores)
        names = [f"sim:{name_of(config.reward)}" + (f":{a}" if a else "") for a in range(config.annotators)]
        ranked = [
            group.model_copy(update={"rankings": tuple(rank(group, s, temperature, name, config.seed) for name in names)})
            for group, s in zip(groups, scores, strict=True)
        ]
        write_groups(run.folder / "rankings.jsonl", ranked)
        return run.finish(
            {
                "groups": len(ranked),
                "rankings": len(ranked) * config.annotators,
                "pairs": sum(len(ranking.pairs()) for group in ranked for ranking in group.rankings),
                "score_mean": float(np.mean([x for s in scores for x in s])),
                "score_sd_within_prompt": spread(scores),
                "temperature": temperature,
                **ceilings(ranked, scores, temperature),
                **({"judge": dict(scorer.counts)} if hasattr(scorer, "counts") else {}),  # how many answers it marked
            }
        )


def name_of(spec: str) -> str:
    """A scorer's name without folders, which are nobody's business in a record: lexicon:vader.csv."""
    terms = [
        ",".join(":".join(Path(part).name for part in one.split(":")) for one in t.scorer.split(",")) for t in terms_of(spec)
    ]
    return "+".join(name if t.weight == 1 else f"{t.weight:g}*{name}" for t, name in zip(terms_of(spec), terms, strict=True))


def spread(scores: Sequence[Sequence[float]]) -> float:
    """Standard deviation of the scores around their prompt's mean."""
    return math.sqrt(float(np.mean([x for s in scores for x in (np.asarray(s) - np.mean(s)) ** 2]))) if scores else 0.0


def rank(group: Group, scores: Sequence[float], temperature: float, annotator: str, seed: int) -> Ranking:
    """One order. The noise belongs to annotator and text, so it does not depend on the order or the number of the answers."""
    worth = {}
    for completion, score in zip(group.completions, scores, strict=True):
        chance = uniform("rank", seed, annotator, group.prompt.text, completion.text)
        worth[completion.id] = score / temperature - math.log(-math.log(chance)) if temperature else score
    places = sorted(set(worth.values()), reverse=True)
    tiers = tuple(tuple(c for c in worth if worth[c] == place) for place in places)
    return Ranking(prompt_id=group.prompt.id, tiers=tiers, shown=tuple(worth), annotator=annotator)


def ceilings(groups: Sequence[Group], scores: Sequence[Sequence[float]], temperature: float) -> dict[str, float | None]:
    """Of the ordered pairs: how often the score itself agrees with the labels, and how often it is expected to."""
    gaps = []
    for group, values in zip(groups, scores, strict=True):
        score = dict(zip((c.id for c in group.completions), values, strict=True))
        gaps += [score[better] - score[worse] for ranking in group.rankings for better, worse in ranking.pairs()]
    gap = np.array(gaps)
    if len(gap) == 0:
        return {"bayes_ceiling": None, "oracle_accuracy": None}
    likelier = 1 / (1 + np.exp(-np.abs(gap) / temperature)) if temperature else np.ones(len(gap))
    return {"bayes_ceiling": float(likelier.mean()), "oracle_accuracy": float(np.where(gap == 0, 0.5, gap > 0).mean())}
