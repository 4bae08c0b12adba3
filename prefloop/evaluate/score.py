"""Completions to rewards: scores of any scorer written beside the records they judge."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from prefloop.config import Config, Options
from prefloop.data.read import read_groups
from prefloop.data.reward_spec import files_of
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import open_run
from prefloop.models.scorer import load_scorer
from prefloop.stats.pair_accuracy import pair_accuracy


class ScoreConfig(Config):
    """Score completions."""

    reward: str = Field(
        description="a reward model folder (several, with commas: their mean), lexicon:FILE or python:MODULE:FUNCTION"
    )
    data: str = Field(description="completions, ranked or not: a file, folder or hub id in any accepted format")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    seed: int = 0


def main(config: ScoreConfig, options: Options) -> dict:
    """Write ``scores.jsonl``, one completion a line; with rankings in the data, also how often the scores agree with them."""
    with open_run(
        "score",
        config,
        options,
        parents={"reward": Path(next(iter(files_of(config.reward)), config.reward)), "data": Path(config.data)},
        seed=config.seed,
    ) as run:
        if run.finished:
            return run.finished
        reading = read_groups(config.data, allow_unranked=True)
        report_data(run, "completions", reading.report)
        rows = [(group, completion) for group in reading.records for completion in group.completions]
        if options.dry_run:
            return forecast(run, Plan(steps=0, rows=len(rows), tokens=0), n_rows=len(rows), parameters=0)
        scorer = load_scorer(config.reward, device=run.device, template=config.template)
        scores = [float(s) for s in scorer([group.prompt for group, _ in rows], [completion for _, completion in rows])]
        with (run.folder / "scores.jsonl").open("w", encoding="utf-8") as file:
            for (group, completion), score in zip(rows, scores, strict=True):
                line = {"prompt_id": group.prompt.id, "completion_id": completion.id, "score": score, "text": completion.text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        summary: dict = {"completions": len(scores), "mean": float(np.mean(scores)), "sd": float(np.std(scores))}
        if hasattr(scorer, "counts"):
            summary["judge"] = dict(scorer.counts)
        if any(group.rankings for group in reading.records):
            flat = iter(scores)
            summary["pair_accuracy"] = pair_accuracy(
                reading.records, [[next(flat) for _ in g.completions] for g in reading.records]
            )
        return run.finish(summary)
