"""RRHF: rank responses by their own likelihood, and imitate the best (Yuan et al. 2023, arXiv 2304.05302, equations 1 to 5).

    p_i  = log P(y_i | x) / |y_i|                          tokens of the answer only, EOS included
    loss = ranking * sum over pairs with r_i < r_j of max(0, p_i - p_j)  -  log-likelihood of the best answer

Candidates may come from anywhere, people included, and scores count by their order alone: a file of rankings is all it takes
(``prefloop sample`` draws answers, ``prefloop rank`` orders them by a reward model). No reference and no value function; the
loop of drawing, ranking and training again is a study. Where the paper is silent or odd: the imitation is a mean over the
best answer's tokens, so that both terms are per token (``imitation: sum`` is the equation as printed); answers in the same
best place are imitated in equal parts; answers are compared within their prompt, however many prompts a step has.

A trained policy is a reward model too: p_i is the score it is judged by on held-out prompts.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import open_run
from prefloop.models.batch import RankedBatch, flat_rows, row_lengths, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder, only_informative
from prefloop.models.evaluation import by_prompts, mean_loss
from prefloop.models.heads import at_rest, without_dropout
from prefloop.models.load import count_parameters, load_tokenizer, policy_to_train, save_model, verify_saved
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.ops.loss import Loss
from prefloop.ops.preference import per_token
from prefloop.ops.ranking import n_pairs
from prefloop.ops.rrhf import rrhf_loss, rrhf_loss_with_summed_imitation
from prefloop.stats.pair_accuracy import length_baselines, pair_accuracy


class RRHFOptimiser(Optimiser):
    """Warm-up and a linear fall to nothing, as in the paper."""

    lr: float = Field(2e-4, gt=0, description="peak learning rate; the paper's 2e-5 is for 7 billion parameters")
    schedule: Literal["cosine", "linear", "constant"] = Field("linear", description="how the rate falls after warm-up")
    final: float = Field(0.0, ge=0, le=1, description="last rate as a share of the peak; unused by constant")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")


class RRHFConfig(Config):
    """Rank and imitate."""

    model: str = Field(description="folder or hub id of the policy to start from, usually the SFT model")
    data: str = Field(description="rankings of candidates: a file, folder or hub id in any accepted format")
    validation: str = Field("", description="rankings to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    ranking: float = Field(1.0, ge=0, description="weight of the ranking hinge beside imitation; 0 imitates the best and no more")
    imitation: Literal["mean", "sum"] = Field("mean", description="over the best answer's tokens; sum is the paper's equation 4")
    epochs: int = Field(3, ge=1, description="passes over the prompts")
    batch: int = Field(16, ge=1, description="rankings of a step")
    unusable: bool = Field(True, description="answers called unusable form a last tier; false leaves them out")
    adapter: Adapter = Adapter()
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: RRHFOptimiser = RRHFOptimiser()

    def plan(self, n_rankings: int) -> Plan:
        return Plan(self.epochs * steps_per_epoch(n_rankings, self.batch), self.batch, self.max_prompt + self.max_completion)


def of_candidates(model: nn.Module, batch: RankedBatch, *, config: RRHFConfig) -> Loss:
    """Equation 5 over the candidates of every prompt."""
    loss = rrhf_loss if config.imitation == "mean" else rrhf_loss_with_summed_imitation
    logprobs = completion_logprobs(model, batch).sum(2)  # P K
    return loss(logprobs, batch.completion_length, batch.tier, batch.is_candidate, batch.weight, ranking=config.ranking)


def main(config: RRHFConfig, options: Options) -> dict:
    """Train, judge on held-out prompts, export the policy, return the summary."""
    named = {"model": config.model, "data": config.data, "validation": config.validation}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("rrhf", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        train, held_out, reading, n_shared = read_split_groups(
            config.data, validation=config.validation, held_out=config.held_out, seed=config.seed
        )
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        rankings = encoder.ranked(train, unusable=config.unusable)
        report_data(run, "rankings", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        data = only_informative(rankings, config.data)
        policy = without_dropout(policy_to_train(config.model, config.adapter, seed=run.seed("adapter"), device=run.device))
        refuse_longer_than_context(policy, row_lengths(data), config.data)
        plan = config.plan(len(data.weight))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(data.weight), parameters=count_parameters(policy))

        learner = Learner(policy, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        loss = partial(of_candidates, config=config)
        for step in run.steps(plan.steps, save_every=config.save_every, description="rrhf"):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, len(data.weight), config.batch, run.rng)
            metrics = learner.step(Term(loss, take(data, share(rows, run.rank, run.processes))))
            run.log(step, {"epoch": epoch + 1, **metrics})

        policy.eval()
        summary: dict[str, Any] = {
            "steps": plan.steps,
            "rankings": len(data.weight),
            "pairs": int(n_pairs(data.tier, data.is_candidate).sum()),
            "tied_rankings": len(rankings.weight) - len(data.weight),
            "held_out_shared": n_shared,
        }
        held_out = [group for group in held_out if encoder.fits(group.prompt)]  # as in training
        if held_out:
            judged = encoder.ranked(held_out, unusable=config.unusable)
            if bool((n_pairs(judged.tier, judged.is_candidate) > 0).any()):
                summary["held_out_loss"] = mean_loss(loss, policy, only_informative(judged, config.data))
            likelihood = per_token_likelihood(policy, encoder.candidates(held_out)).tolist()
            scored = [row[: len(group.completions)] for row, group in zip(likelihood, held_out, strict=True)]
            summary["pair_accuracy"] = pair_accuracy(held_out, scored, with_unusable=config.unusable)
            summary["baselines"] = length_baselines(held_out, with_unusable=config.unusable)
        card = {"method": "rrhf", **summary}
        on_main(partial(save_model, policy, tokenizer, run.model_folder, card=card, encoder=encoder))
        verify_saved(policy, run.model_folder, flat_rows(take(data, slice(0, 2))).tokens)
        return run.finish(summary)


def per_token_likelihood(policy: nn.Module, candidates: RankedBatch) -> Tensor:
    """Equation 1 for every completion: P K."""
    with at_rest(policy):
        logprobs = by_prompts(lambda part: completion_logprobs(policy, part).sum(2), candidates, policy)
    return per_token(logprobs, candidates.completion_length)
