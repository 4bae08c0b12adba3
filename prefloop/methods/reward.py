"""A reward model from K-way rankings (InstructGPT, arXiv 2203.02155, equation 1 and C.2).

For a prompt with completions y_1..y_K and its strictly ordered pairs (w above l):

    loss = - mean over the prompt's pairs of log sigmoid( r(x, y_w) - r(x, y_l) )

One forward per completion, all pairs of a prompt in one row, so a prompt with nine completions weighs as much as one with
four. Where the paper is silent: the divisor is the number of *ordered* pairs (``divisor: all`` is C(K, 2)), ties form no
pair (``ties: half`` makes them evidence), and the scalar is read at the last token, EOS. Two other losses read the same
orders: the best of K chosen from all, and the order as a sequence of choices. ``noise`` is the label model of Christiano
et al. 2017 (section 2.2.3), P' = (1 - noise) P + noise/2. ``members`` > 1 trains an ensemble on resampled prompts (same
section). After training a constant is subtracted from each member so that demonstrations score 0 on average; it does not
change the optimum, it centres the returns PPO sees. Scales are left as they were learned.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups, refuse_without_order
from prefloop.data.read import read_demonstrations
from prefloop.data.write import as_pairs
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import open_run
from prefloop.models.batch import RankedBatch, flat_rows, row_lengths, row_tokens, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder, only_informative
from prefloop.models.evaluation import mean_loss
from prefloop.models.load import count_parameters, load_tokenizer, rewards_to_train, save_model, verify_saved
from prefloop.models.scorer import reward_scorer
from prefloop.models.shared_prefix import scores
from prefloop.ops.loss import Loss
from prefloop.ops.ranking import (
    best_of_k_loss,
    n_comparisons,
    n_pairs,
    plackett_luce_loss,
    ranking_loss,
    ranking_loss_with_label_noise,
    ranking_loss_with_ties,
)
from prefloop.records import Group
from prefloop.stats.pair_accuracy import accuracy_by_gap, by_prompt, calibration, length_baselines, pair_accuracy


class RewardConfig(Config):
    """Learn a reward from rankings of K answers per prompt."""

    model: str = Field(description="folder or hub id of the language model to start from, usually the SFT model")
    data: str = Field(description="rankings: a file, folder or hub id in any accepted format; pairs are K = 2")
    demonstrations: str = Field("", description="demonstrations that shall score 0 on average; empty leaves the scores unshifted")
    validation: str = Field("", description="rankings to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    epochs: int = Field(1, ge=1, description="passes over the prompts; reward models over-fit after one")
    batch: int = Field(16, ge=1, description="prompts of a step")
    pairing: Literal["prompt", "shuffled"] = Field(
        "prompt", description="all pairs of a prompt in one row, or every pair a row of its own somewhere in the epoch"
    )
    loss: Literal["pairs", "best_of_k", "plackett_luce"] = Field(
        "pairs", description="an order as its pairs, as the choice of its best, or as one choice after the other"
    )
    ties: Literal["drop", "half"] = Field("drop", description="answers in one place: no pair, or half a win for each side")
    divisor: Literal["ordered", "all"] = Field(
        "ordered", description="a prompt's pairs are averaged over the ordered ones, or summed over C(K, 2), ties included"
    )
    noise: float = Field(0.0, ge=0, lt=1, description="share of labels believed to be coin flips")
    members: int = Field(1, ge=1, le=16, description="reward models of an ensemble, each on resampled prompts")
    unusable: bool = Field(True, description="answers called unusable form a last tier; false leaves them out")
    adapter: Adapter = Adapter()
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: Optimiser = Optimiser()

    @model_validator(mode="after")
    def settings_are_about_pairs(self) -> "RewardConfig":
        if self.loss != "pairs" and (self.ties, self.divisor, self.noise) != ("drop", "ordered", 0.0):
            raise ValueError(f"ties, divisor and noise are about pairs; loss = {self.loss} would ignore them")
        if self.ties == "half" and self.divisor == "all":
            raise ValueError("ties = half counts every pair already, so divisor = all has nothing to add; leave it out")
        if self.pairing == "shuffled" and (self.loss, self.ties, self.divisor) != ("pairs", "drop", "ordered"):
            raise ValueError("pairing = shuffled makes a row of every ordered pair; loss, ties and divisor need whole rankings")
        return self

    def plan(self, n_prompts: int) -> Plan:
        steps = self.epochs * steps_per_epoch(n_prompts, self.batch)
        return Plan(steps, self.batch, self.max_prompt + self.max_completion, models=self.members, trained=self.members)


def of_rankings(model: nn.Module, batch: RankedBatch) -> Loss:
    """Bradley-Terry over every ordered pair of every prompt; one forward per completion."""
    return ranking_loss(scores(model, batch), batch.tier, batch.is_candidate, batch.weight)


def of_rankings_as_read(model: nn.Module, batch: RankedBatch, *, config: RewardConfig) -> Loss:
    """What the rankings are said to mean; one forward per completion."""
    ranked = (scores(model, batch), batch.tier, batch.is_candidate)  # P K each
    if config.loss == "best_of_k":
        return best_of_k_loss(*ranked, batch.weight)
    if config.loss == "plackett_luce":
        return plackett_luce_loss(*ranked, batch.weight)
    if config.ties == "half":
        return ranking_loss_with_ties(*ranked, batch.weight, noise=config.noise)
    loss = partial(ranking_loss_with_label_noise, noise=config.noise) if config.noise > 0 else ranking_loss
    if config.divisor == "ordered":
        return loss(*ranked, batch.weight)
    share = n_pairs(batch.tier, batch.is_candidate) / n_comparisons(batch.is_candidate)  # P
    value = loss(*ranked, batch.weight * share).value
    return Loss(value, {**loss(*ranked, batch.weight).metrics, "loss": value.detach()})


def resampled(n: int, member: int, rng: torch.Generator) -> Tensor:
    """The prompts a member learns from: all of them for the first, drawn with replacement for the others."""
    return torch.arange(n) if member == 0 else torch.randint(n, (n,), generator=rng)


def main(config: RewardConfig, options: Options) -> dict:
    """Train, shift, judge on held-out prompts, save; returns the summary."""
    named = {"model": config.model, "data": config.data, "demonstrations": config.demonstrations, "validation": config.validation}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("reward", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        train, held_out, reading, n_shared = read_split_groups(
            config.data, validation=config.validation, held_out=config.held_out, seed=config.seed
        )
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        data = encoder.ranked(train, unusable=config.unusable, tied=config.ties == "half")
        report_data(run, "rankings", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        n_rankings = len(data.weight)
        if config.pairing == "shuffled":  # encoded after the report, in which an answer counts once
            data = encoder.ranked(as_pairs(train), unusable=config.unusable)
        ordered = only_informative(data, config.data)
        data = ordered if config.ties == "drop" else data
        held_out = [group for group in held_out if encoder.fits(group.prompt)]  # as in training
        if held_out or config.validation:
            refuse_without_order(held_out, config.validation or config.data, unusable=config.unusable)
        memory = admit(config, Work(int(row_tokens(data).max()), min(config.batch, len(data.weight))), run.device)
        seeds = [run.seed("head", m) for m in range(config.members)]
        models = rewards_to_train(config.model, config.adapter, seeds=seeds, device=run.device)
        refuse_longer_than_context(models[0], row_lengths(data), config.data)
        plan = config.plan(len(data.weight))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(data.weight), parameters=count_parameters(models[0]), memory=memory)

        loss = partial(of_rankings_as_read, config=config)
        members = [resampled(len(data.weight), m, run.rng("member", m)) for m in range(config.members)]
        learners = [Learner(model, steps=plan.steps, device=run.device, **config.optim.model_dump()) for model in models]
        run.keep(**{f"learner{m}": learner for m, learner in enumerate(learners)})
        for model in models:
            model.train()
        for step in run.steps(plan.steps, save_every=config.save_every, description="reward"):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, len(data.weight), config.batch, run.rng)
            rows = share(rows, run.rank, run.processes)
            metrics = [
                learner.step(Term(loss, take(data, member[rows]))) for learner, member in zip(learners, members, strict=True)
            ]
            run.log(step, {"epoch": epoch + 1, **{name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}})

        for model in models:
            model.eval()
            if config.demonstrations:
                model.config.prefloop_reward_shift = mean_score(model, encoder, config.demonstrations)
        shifts = [model.config.prefloop_reward_shift for model in models]
        summary = {
            "steps": plan.steps,
            "prompts": n_prompts(data),
            "rankings": n_rankings,
            "pairs": int(n_pairs(data.tier, data.is_candidate).sum()),
            "shift": float(np.mean(shifts)),
            "held_out_shared": n_shared,
        }
        if held_out:
            judged = only_informative(encoder.ranked(held_out, unusable=config.unusable), config.validation or config.data)
            summary["held_out_loss"] = float(np.mean([mean_loss(of_rankings, model, judged) for model in models]))
            scored = scores_of(models, encoder, held_out)
            summary |= trust(held_out, scored, unusable=config.unusable)
            run.write_json("per_prompt.json", by_prompt(held_out, scored, with_unusable=config.unusable))
        folders = [run.model_folder] if config.members == 1 else [run.folder / f"model-{m}" for m in range(config.members)]
        for model, folder, shift in zip(models, folders, shifts, strict=True):
            card = {"method": "reward", **summary, "shift": shift}
            on_main(partial(save_model, model, tokenizer, folder, card=card, encoder=encoder))
            verify_saved(model, folder, flat_rows(take(data, slice(0, 2))).tokens)
        summary["models"] = [str(folder.relative_to(run.folder)) for folder in folders]
        return run.finish(summary)


def mean_score(model: nn.Module, encoder: Encoder, demonstrations: str) -> float:
    """What the demonstrations score on average, before any shift."""
    shown = read_demonstrations(demonstrations).records
    return float(np.mean(reward_scorer(model, encoder)([d.prompt for d in shown], [d.completion for d in shown])))


def scores_of(models: Sequence[nn.Module], encoder: Encoder, groups: list[Group]) -> list[list[float]]:
    """The score of every completion of every group."""
    prompts = [group.prompt for group in groups for _ in group.completions]
    completions = [completion for group in groups for completion in group.completions]
    score = iter(reward_scorer(models, encoder)(prompts, completions))
    return [[next(score) for _ in group.completions] for group in groups]


def n_prompts(data: RankedBatch) -> int:
    """Prompts learned from, each once however many rankings it has; equal tokens are one prompt."""
    return len({tuple(ids[:n]) for ids, n in zip(data.prompt.tolist(), data.prompt_length.tolist(), strict=True)})


def trust(held_out: list[Group], scored: list[list[float]], *, unusable: bool) -> dict:
    """Accuracy on held-out pairs with intervals over prompts, beside the two length baselines, and calibration."""
    return {
        "pair_accuracy": pair_accuracy(held_out, scored, with_unusable=unusable),
        "baselines": length_baselines(held_out, with_unusable=unusable),
        "calibration": calibration(held_out, scored, with_unusable=unusable),
        "accuracy_by_gap": accuracy_by_gap(held_out, scored, with_unusable=unusable),
        "mean_score": float(np.mean([score for scores in scored for score in scores])),
    }
