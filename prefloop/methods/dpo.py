"""Preferences without a reward model: DPO, cDPO, IPO, SimPO and ORPO, on rankings of K answers.

    h = [log pi(y_w) - log ref(y_w)] - [log pi(y_l) - log ref(y_l)]        y_w above y_l in the ranking

    dpo             -log sigmoid(beta h), with ``smoothing`` cDPO          Rafailov et al. 2023, arXiv 2305.18290, equation 7
    plackett_luce   a ranking as K - 1 choices instead of its pairs        the same, appendix A.3
    ipo             (h - 1 / (2 beta))^2                                   arXiv 2310.12036, equation 17
    simpo           -log sigmoid(beta (m_w - m_l) - margin)                arXiv 2405.14734, equation 6; m per token, no reference
    orpo            imitation of the best + lam * log odds ratio           arXiv 2403.07691, equation 6; no reference

The mean over a prompt's ordered pairs is its loss, so nine answers do not outvote two; K = 2 is the papers' case. What the
reference says of an answer never changes, so it is computed once, before the first step, and by the policy itself where
that is where the policy starts: no second model is held. The prompt is computed once for its K answers
(``models/shared_prefix.py``).

Judged on held-out prompts by the reward the loss implies: beta log(pi / ref), or beta times the log-probability per token.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups
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
from prefloop.models.evaluation import by_prompts, mean_loss
from prefloop.models.heads import at_rest, without_dropout
from prefloop.models.load import count_parameters, load_policy, load_tokenizer, policy_to_train, save_model, verify_saved
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.models.tokenizer import refuse_other_tokenizer
from prefloop.ops.loss import Loss
from prefloop.ops.preference import dpo_loss, dpo_plackett_luce_loss, ipo_loss, orpo_loss, per_token, simpo_loss
from prefloop.ops.ranking import n_pairs
from prefloop.stats.pair_accuracy import length_baselines, pair_accuracy

USUAL_BETA = {"dpo": 0.1, "plackett_luce": 0.1, "ipo": 0.1, "simpo": 2.0, "orpo": 1.0}
REFERRED = ("dpo", "plackett_luce", "ipo")  # losses that ask a reference


@dataclass(frozen=True)
class ReferredBatch(RankedBatch):
    """With what a frozen reference says of each completion, computed once for the whole run: DPO and IPO."""

    ref_logprobs: Tensor  # P K  summed over a completion's tokens, 0 where there is none


class DPOOptimiser(Optimiser):
    """Small steps: the loss moves whole distributions, and both log-probabilities of a pair may fall."""

    lr: float = Field(1e-4, gt=0, description="peak learning rate; 5e-7 to 5e-6 for models of billions of parameters")
    schedule: Literal["cosine", "linear", "constant"] = Field("linear", description="how the rate falls after warm-up")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")


class DPOConfig(Config):
    """Learn from preferences directly."""

    model: str = Field(description="folder or hub id of the policy to start from, usually the SFT model")
    reference: str = Field("", description="the policy distance is measured from; empty = the model it starts from")
    data: str = Field(description="rankings: a file, folder or hub id in any accepted format; pairs are K = 2")
    validation: str = Field("", description="rankings to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    loss: Literal["dpo", "plackett_luce", "ipo", "simpo", "orpo"] = Field("dpo", description="what a ranking costs, see above")
    beta: float = Field(
        0.0,
        ge=0,
        description="price of leaving the reference (scale of the reward in simpo); 0 takes the usual one: 0.1, simpo 2",
    )
    smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="dpo: share of pairs believed to be labelled the wrong way round (cDPO)"
    )
    margin: float = Field(1.0, ge=0, description="simpo: by how much the winner's reward shall exceed the loser's (gamma)")
    lam: float = Field(0.1, gt=0, description="orpo: weight of the odds ratio beside imitation")
    epochs: int = Field(1, ge=1, description="passes over the prompts")
    batch: int = Field(16, ge=1, description="rankings of a step")
    unusable: bool = Field(True, description="answers called unusable form a last tier; false leaves them out")
    adapter: Adapter = Adapter()
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: DPOOptimiser = DPOOptimiser()

    @model_validator(mode="before")
    @classmethod
    def usual_beta(cls, given: Any) -> Any:
        """The resolved configuration shows the number that is used."""
        if isinstance(given, dict) and not given.get("beta"):
            return {**given, "beta": USUAL_BETA.get(str(given.get("loss", "dpo")), 0.1)}
        return given

    @model_validator(mode="after")
    def settings_belong_to_the_loss(self) -> "DPOConfig":
        asked = self.model_fields_set
        owners = {"smoothing": ("dpo",), "margin": ("simpo",), "lam": ("orpo",), "reference": REFERRED}
        for key, losses in owners.items():
            if key in asked and getattr(self, key) != type(self).model_fields[key].default and self.loss not in losses:
                raise ValueError(f"{key} belongs to {', '.join(losses)}; the loss is {self.loss}, which would ignore it")
        return self

    def plan(self, n_rankings: int) -> Plan:
        return Plan(self.epochs * steps_per_epoch(n_rankings, self.batch), self.batch, self.max_prompt + self.max_completion)


def of_preferences(model: nn.Module, batch: ReferredBatch, *, config: DPOConfig) -> Loss:
    """The chosen loss over the ordered pairs of every ranking."""
    logprobs = completion_logprobs(model, batch).sum(2)  # P K
    places = (batch.tier, batch.is_candidate, batch.weight)
    match config.loss:
        case "dpo":
            return dpo_loss(logprobs, batch.ref_logprobs, *places, beta=config.beta, smoothing=config.smoothing)
        case "plackett_luce":
            return dpo_plackett_luce_loss(logprobs, batch.ref_logprobs, *places, beta=config.beta)
        case "ipo":
            return ipo_loss(logprobs, batch.ref_logprobs, *places, beta=config.beta)
        case "simpo":
            return simpo_loss(logprobs, batch.completion_length, *places, beta=config.beta, margin=config.margin)
        case "orpo":
            return orpo_loss(logprobs, batch.completion_length, *places, lam=config.lam)


def main(config: DPOConfig, options: Options) -> dict:
    """Train, judge on held-out prompts, export the policy, return the summary."""
    named = {"model": config.model, "reference": config.reference, "data": config.data, "validation": config.validation}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("dpo", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        train, held_out, reading, n_shared = read_split_groups(
            config.data, validation=config.validation, held_out=config.held_out, seed=config.seed
        )
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        rankings = encoder.ranked(train, unusable=config.unusable)
        report_data(run, "rankings", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        rankings = only_informative(rankings, config.data)
        memory = admit(config, Work(int(row_tokens(rankings).max()), min(config.batch, len(rankings.weight))), run.device)
        policy = without_dropout(policy_to_train(config.model, config.adapter, seed=run.seed("adapter"), device=run.device))
        refuse_longer_than_context(policy, row_lengths(rankings), config.data)
        plan = config.plan(len(rankings.weight))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(rankings.weight), parameters=count_parameters(policy), memory=memory)

        held_out = [group for group in held_out if encoder.fits(group.prompt)]  # as in training
        reference = reference_of(config, policy, device=run.device)
        data = referred(rankings, reference)
        judged = referred(encoder.ranked(held_out, unusable=config.unusable), reference)
        candidates = encoder.candidates(held_out)
        before = referred(candidates, reference).ref_logprobs
        del reference

        learner = Learner(policy, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        loss = partial(of_preferences, config=config)
        for step in run.steps(plan.steps, save_every=config.save_every, description=config.loss):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, len(data.weight), config.batch, run.rng)
            metrics = learner.step(Term(loss, take(data, share(rows, run.rank, run.processes))))
            run.log(step, {"epoch": epoch + 1, **metrics})

        policy.eval()
        summary: dict[str, Any] = {
            "steps": plan.steps,
            "rankings": len(data.weight),
            "pairs": int(n_pairs(data.tier, data.is_candidate).sum()),
            "loss": config.loss,
            "beta": config.beta,
            "held_out_shared": n_shared,
        }
        if held_out:
            if bool((n_pairs(judged.tier, judged.is_candidate) > 0).any()):
                summary["held_out_loss"] = mean_loss(loss, policy, only_informative(judged, config.data))
            implied = implied_rewards(policy, candidates, before, config)
            scored = [row[: len(group.completions)] for row, group in zip(implied.tolist(), held_out, strict=True)]
            summary["pair_accuracy"] = pair_accuracy(held_out, scored, with_unusable=config.unusable)
            summary["baselines"] = length_baselines(held_out, with_unusable=config.unusable)
        card = {"method": config.loss, **summary}
        on_main(partial(save_model, policy, tokenizer, run.model_folder, card=card, encoder=encoder))
        verify_saved(policy, run.model_folder, flat_rows(take(data, slice(0, 2))).tokens)
        return run.finish(summary)


def reference_of(config: DPOConfig, policy: nn.Module, *, device: torch.device) -> nn.Module | None:
    """The reference, before the policy has moved: often the policy itself, and nobody where the loss asks none."""
    if config.loss not in REFERRED:
        return None
    if not config.reference:
        return policy  # a new adapter changes nothing yet
    refuse_other_tokenizer(config.reference, config.model, "reference=")
    return load_policy(config.reference, device=device)


def referred(ranked: RankedBatch, reference: nn.Module | None) -> ReferredBatch:
    """With the reference's log-probabilities; zeros where there is no reference."""
    found = torch.zeros(ranked.completion_length.shape)
    if reference is not None and len(ranked.weight):
        with at_rest(reference):
            found = by_prompts(lambda part: completion_logprobs(reference, part).sum(2), ranked, reference)
    return ReferredBatch(**vars(replace(ranked)), ref_logprobs=found)


def implied_rewards(policy: nn.Module, candidates: RankedBatch, before: Tensor, config: DPOConfig) -> Tensor:
    """The reward the loss implies, of every completion: P K."""
    with at_rest(policy):
        logprobs = by_prompts(lambda part: completion_logprobs(policy, part).sum(2), candidates, policy)
    if config.loss in REFERRED:
        return config.beta * (logprobs - before)
    return config.beta * per_token(logprobs, candidates.completion_length)
