"""Which epoch of SFT to go on with: the one whose answers the reward model likes best (InstructGPT, C.1).

Validation loss is shown beside it because the two disagree: more epochs over-fit the loss and still please people more.
"""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from prefloop.config import Config, Options
from prefloop.data.read import read_prompts
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import open_run, read_summary
from prefloop.errors import DataError
from prefloop.models.encode import Encoder
from prefloop.models.load import load_policy, load_tokenizer
from prefloop.models.sampling import sample
from prefloop.models.scorer import load_scorer
from prefloop.stats.intervals import mean_interval


class SelectConfig(Config):
    """Choose among the epochs of an SFT run by reward."""

    run: str = Field(description="folder of a finished SFT run")
    reward: str = Field(description="the reward model (or other scorer) to choose by")
    prompts: str = Field(description="validation prompts, which no training has seen")
    n: int = Field(200, ge=1, description="use at most the first n prompts")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the answers")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    seed: int = 0

    @model_validator(mode="after")
    def gold_is_for_measuring(self) -> "SelectConfig":
        if self.reward.startswith("world:"):
            raise ValueError(
                f"reward = {self.reward!r} is the world's gold, which no choice between models may see; choose by a reward model, "
                f"and measure the chosen one by gold with prefloop evaluate"
            )
        return self


def main(config: SelectConfig, options: Options) -> dict:
    """Score every epoch, copy the best one to ``model/``; returns the table."""
    with open_run(
        "select", config, options, parents={"run": Path(config.run), "prompts": Path(config.prompts)}, seed=config.seed
    ) as run:
        if run.finished:
            return run.finished
        folders = sorted(
            Path(config.run, "epochs").glob("*"), key=lambda folder: int(folder.name) if folder.name.isdigit() else -1
        )
        folders = [folder for folder in folders if folder.name.isdigit()]
        if not folders:
            raise DataError(
                f"{config.run} holds no epochs/ folder with models; run= must be the folder of a finished prefloop sft"
            )
        losses = {row["epoch"]: row for row in read_summary(Path(config.run)).get("epochs", [])}
        prompts = read_prompts(config.prompts).records[: config.n]
        if options.dry_run:
            return forecast(
                run, Plan(steps=0, rows=len(prompts), tokens=config.max_new_tokens), n_rows=len(prompts), parameters=0
            )
        scorer = load_scorer(config.reward, device=run.device, template=config.template)
        table = []
        for folder in run.track(folders, description="select"):
            encoder = Encoder(load_tokenizer(str(folder)), template=config.template)
            samples = sample(
                load_policy(str(folder), device=run.device), encoder, prompts, k=1, max_new_tokens=config.max_new_tokens,
                temperature=config.temperature, seed=run.seed("sample"),
            )  # fmt: skip
            reward = mean_interval(np.asarray(scorer(samples.prompts, samples.completions)))
            known = losses.get(int(folder.name), {})
            table.append(
                {
                    "epoch": int(folder.name),
                    "train_loss": known.get("train_loss"),
                    "validation_loss": known.get("validation_loss"),
                    "reward": reward.as_dict(),
                }
            )
        best = max(table, key=lambda row: row["reward"]["mean"])
        for row in table:
            row["chosen"] = row is best
        shutil.rmtree(run.model_folder, ignore_errors=True)  # what an interrupted choice has left
        shutil.copytree(Path(config.run, "epochs", str(best["epoch"])), run.model_folder)
        return run.finish({"chosen_epoch": best["epoch"], "epochs": table})
