"""A rule model: one classifier of (rule, conversation, answer), the chance that the answer breaks the rule (Sparrow, arXiv 2209.14375).

    loss = -log sigmoid(z) where the rule is broken, -log sigmoid(-z) where it is kept      z = z(rule, x, y)

The rule's text stands before the conversation, so one network judges every rule, and may be asked about one it has never seen.
Data are kway lines whose ratings name rules (``data/rules.py``). ``rules:FOLDER`` is the reward that comes of it: minus the
weighted chances, to be added to a preference reward: ``runs/reward/model + rules:runs/rules/model``.

With ``balance`` broken and kept weigh the same within each rule: rare violations are learned sooner, and chances then are
those of a world in which each rule is broken half of the time. Without it, they are those of the data.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml
from pydantic import Field
from torch import nn

from prefloop.config import Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups
from prefloop.data.rules import RULES_FILE, Rule, read_rules, under
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.batch import RankedBatch, flat_rows, row_lengths, row_tokens, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder, ranked_batch
from prefloop.models.evaluation import by_prompts
from prefloop.models.heads import at_rest
from prefloop.models.load import count_parameters, load_tokenizer, new_reward, save_model, verify_saved
from prefloop.models.shared_prefix import scores
from prefloop.ops.loss import Loss
from prefloop.ops.rules import violation_loss
from prefloop.records import Completion, Group, Prompt
from prefloop.stats.auc import auc

KEPT, BROKEN = 0, 1  # the place of an answer


class RulesConfig(Config):
    """Learn which answers break which rules."""

    model: str = Field(description="folder or hub id of the language model to start from, usually the SFT model")
    rules: str = Field(description="YAML of rules: name: {text: what it says, weight: what breaking it costs}")
    data: str = Field(description="kway lines with ratings whose question is a rule's name; 1 of 0 to 1 is broken")
    validation: str = Field("", description="such lines to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    balance: bool = Field(False, description="broken and kept weigh the same within each rule, however rare the former")
    epochs: int = Field(3, ge=1, description="passes over the ratings")
    batch: int = Field(32, ge=1, description="ratings of a step")
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest rule and prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: Optimiser = Optimiser()

    def plan(self, n_ratings: int) -> Plan:
        return Plan(self.epochs * steps_per_epoch(n_ratings, self.batch), self.batch, self.max_prompt + self.max_completion)


class Verdict(NamedTuple):
    """What somebody said of an answer under a rule."""

    rule: Rule
    prompt: Prompt
    completion: Completion
    is_broken: bool


def of_verdicts(model: nn.Module, batch: RankedBatch) -> Loss:
    """One row per verdict."""
    return violation_loss(scores(model, batch)[:, 0], batch.tier[:, 0] == BROKEN, batch.weight)


def main(config: RulesConfig, options: Options) -> dict:
    """Train, judge each rule on held-out prompts, save; returns the summary."""
    named = {"model": config.model, "rules": config.rules, "data": config.data, "validation": config.validation}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("rules", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        rules = read_rules(config.rules)
        train, held_out, reading, n_shared = read_split_groups(
            config.data, validation=config.validation, held_out=config.held_out, seed=config.seed, allow_unranked=True
        )
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        said = [one for one in verdicts(train, rules) if encoder.fits(under(one.rule, one.prompt))]
        data = encoded(encoder, said, balance=config.balance)
        report_data(run, "verdicts", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        refuse_one_sided(said, config)
        memory = admit(config, Work(int(row_tokens(data).max()), min(config.batch, len(data.weight))), run.device)
        model = new_reward(config.model, seed=run.seed("head"), device=run.device)
        refuse_longer_than_context(model, row_lengths(data), config.data)
        plan = config.plan(len(data.weight))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(data.weight), parameters=count_parameters(model), memory=memory)

        learner = Learner(model, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        model.train()
        for step in run.steps(plan.steps, save_every=config.save_every, description="rules"):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, len(data.weight), config.batch, run.rng)
            metrics = learner.step(Term(of_verdicts, take(data, share(rows, run.rank, run.processes))))
            run.log(step, {"epoch": epoch + 1, **metrics})

        model.eval()
        summary: dict[str, Any] = {"steps": plan.steps, "ratings": len(said), "broken": sum(one.is_broken for one in said)}
        summary["held_out_shared"] = n_shared
        judged = [one for one in verdicts(held_out, rules) if encoder.fits(under(one.rule, one.prompt))]
        if judged:
            batch = encoded(encoder, judged, balance=False)
            with at_rest(model):
                logit = by_prompts(lambda part: scores(model, part), batch, model)[:, 0].double().numpy()
            summary["rules"] = by_rule(judged, logit)
        card = {"method": "rules", **summary}
        on_main(partial(save_model, model, tokenizer, run.model_folder, card=card, encoder=encoder))
        on_main(partial(write_rules, rules, run.model_folder / RULES_FILE))
        verify_saved(model, run.model_folder, flat_rows(take(data, slice(0, 2))).tokens)
        return run.finish(summary)


# ------------------------------------------------------------------------------------------------------------ verdicts


def verdicts(groups: Sequence[Group], rules: Sequence[Rule]) -> list[Verdict]:
    """Every rating of a rule nobody corrected; above the middle of its scale the rule is broken, on it nothing is said."""
    by_id = {rule.id: rule for rule in rules}
    found = []
    for group in groups:
        completions = {completion.id: completion for completion in group.completions}
        corrected = {rating.supersedes for rating in group.ratings}
        for rating in group.ratings:
            middle = sum(rating.scale) / 2
            if rating.question in by_id and rating.id not in corrected and rating.value != middle:
                answer = completions[rating.completion_id]
                found.append(Verdict(by_id[rating.question], group.prompt, answer, rating.value > middle))
    return found


def refuse_one_sided(said: Sequence[Verdict], config: RulesConfig) -> None:
    n_broken = sum(one.is_broken for one in said)
    if 0 < n_broken < len(said):
        return
    raise DataError(
        f"{config.data} rates the rules of {config.rules} {len(said)} times, {n_broken} of them as broken: both sides are needed\n"
        f"  a rating's question is the name of a rule, its scale 0 to 1, its value 1 where the answer breaks the rule"
    )


def encoded(encoder: Encoder, said: Sequence[Verdict], *, balance: bool) -> RankedBatch:
    """A row per verdict."""
    n = Counter((one.rule.id, one.is_broken) for one in said)
    rows = []
    for one in said:
        weight = 1 / n[one.rule.id, one.is_broken] if balance else 1.0
        answer = encoder.completion_ids(one.completion.text)
        rows.append((encoder.prompt_ids(under(one.rule, one.prompt)), [answer], [BROKEN if one.is_broken else KEPT], weight))
    return ranked_batch(rows, encoder.pad)


def by_rule(said: Sequence[Verdict], logit: np.ndarray) -> dict[str, dict[str, float | int | None]]:
    """Of each rule on held-out answers: how often it was broken, how well that is told, and the log-loss in nats."""
    found = {}
    for name in dict.fromkeys(one.rule.id for one in said):
        mine = np.array([one.rule.id == name for one in said])
        is_broken, z = np.array([one.is_broken for one in said])[mine], logit[mine]
        alarm = z > 0
        found[name] = {
            "n": int(mine.sum()),
            "broken": float(is_broken.mean()),
            "auc": auc(z[is_broken], z[~is_broken]),
            "precision": float(is_broken[alarm].mean()) if alarm.any() else None,
            "recall": float(alarm[is_broken].mean()) if is_broken.any() else None,
            "log_loss": float(np.logaddexp(0.0, np.where(is_broken, -z, z)).mean()),
        }
    return found


def write_rules(rules: Sequence[Rule], path: Path) -> None:
    written = {rule.id: {"text": rule.text, "weight": rule.weight} for rule in rules}
    path.write_text(yaml.safe_dump(written, allow_unicode=True, sort_keys=False), encoding="utf-8")
