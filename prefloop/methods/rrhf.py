"""RRHF: rank responses by their own likelihood, and imitate the best (Yuan et al. 2023, arXiv 2304.05302, equations 1 to 5).

    p_i  = log P(y_i | x) / |y_i|                          tokens of the answer only, EOS included
    loss = ranking * sum over pairs with r_i < r_j of max(0, p_i - p_j)  -  log-likelihood of the best answer

Candidates may come from anywhere, people included, and scores count by their order alone: a file of rankings is all it takes
(``prefloop sample`` makes candidates of any mix of sources, ``prefloop rank`` orders them by a reward model or a judge). With
``candidates.policy`` the run makes its own, by one of the paper's sampling policies: once (BP, DP, D, P), in rounds from the
model of the round before (IP-n), or anew every k steps (OP-k); they are kept in ``candidates/``, where anyone can read them.

No reference and no value function. Where the paper is silent or odd: the imitation is a mean over the best answer's tokens, so
that both terms are per token (``imitation: sum`` is the equation as printed); answers in the same best place are imitated in
equal parts; answers are compared within their prompt, however many prompts a step has.

A trained policy is a reward model too: p_i is the score it is judged by on held-out prompts (``policy:FOLDER`` as a scorer).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups
from prefloop.data.read import read_groups, read_prompts
from prefloop.data.reward_spec import files_of, names_gold
from prefloop.data.turns import split_key
from prefloop.data.write import write_groups
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import Run, open_run
from prefloop.errors import DataError
from prefloop.models.batch import RankedBatch, flat_rows, row_lengths, row_tokens, take
from prefloop.models.candidates import (
    USUAL,
    WITH_ANSWERS,
    SamplingPolicy,
    draw_candidates,
    ordered,
    read_answers,
    refuse_without_answers,
    sampling_policy,
    scored,
    side_by_side,
)
from prefloop.models.candidates import by_prompt as answers_by_prompt
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder, only_informative
from prefloop.models.evaluation import by_prompts, mean_loss
from prefloop.models.heads import at_rest, without_dropout
from prefloop.models.load import count_parameters, load_tokenizer, policy_to_train, save_model, verify_saved
from prefloop.models.scorer import load_scorer
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.ops.loss import Loss
from prefloop.ops.preference import per_token
from prefloop.ops.ranking import n_pairs
from prefloop.ops.rrhf import rrhf_loss, rrhf_loss_with_summed_imitation
from prefloop.records import Completion, Group, Prompt
from prefloop.stats.pair_accuracy import by_prompt, length_baselines, pair_accuracy


class RRHFOptimiser(Optimiser):
    """Warm-up and a linear fall to nothing, as in the paper."""

    lr: float = Field(2e-4, gt=0, description="peak learning rate; the paper's 2e-5 is for 7 billion parameters")
    schedule: Literal["cosine", "linear", "constant"] = Field("linear", description="how the rate falls after warm-up")
    final: float = Field(0.0, ge=0, le=1, description="last rate as a share of the peak; unused by constant")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")


class CandidatesConfig(Config):
    """Candidates the run makes and orders by itself."""

    policy: str = Field(
        "", description="BP, DP, D, P, IP-n or OP-k, as in table 1 of the paper; empty takes the rankings of data"
    )
    prompts: str = Field("", description="prompts to answer: a file, folder or hub id in any accepted format")
    answers: str = Field("", description="the data set's answers, by people or other models: files in any format, with commas")
    reward: str = Field("", description="the scorer that puts candidates in order, such as a reward model's folder or judge:FILE")
    k: int = Field(4, ge=0, description="candidates the model makes for each prompt")
    decoding: Literal["draw", "beam", "diverse_beam"] = Field("diverse_beam", description="how it makes them")
    diversity: float = Field(1.0, ge=0, description="diverse_beam: what a token costs that another beam takes at the same step")
    temperature: float = Field(0.8, gt=0, description="of the distribution they are searched in or drawn from")
    max_new_tokens: int = Field(64, ge=1, description="longest candidate in tokens; the paper's is 128")

    @model_validator(mode="before")
    @classmethod
    def usual_settings(cls, given: Any) -> Any:
        """What the policy says, where nothing else is stated."""
        named = str(given.get("policy", "")) if isinstance(given, dict) else ""
        return {**USUAL[sampling_policy(named).name], **given} if named else given

    @model_validator(mode="after")
    def everything_it_takes_is_there(self) -> "CandidatesConfig":
        if not self.policy:
            return self
        name = sampling_policy(self.policy).name
        needed = {"prompts": True, "reward": True, "answers": name in WITH_ANSWERS and name not in ("IP", "OP")}
        missing = [key for key, is_needed in needed.items() if is_needed and not getattr(self, key)]
        if missing:
            raise ValueError(f"candidates.policy = {self.policy} needs candidates.{', candidates.'.join(missing)}")
        if names_gold(self.reward):
            raise ValueError(
                f"candidates.reward = {self.reward!r} is the world's gold, which no training may see; order by a reward model"
            )
        return self


class RRHFConfig(Config):
    """Rank and imitate."""

    model: str = Field(description="folder or hub id of the policy to start from, usually the SFT model")
    data: str = Field("", description="rankings of candidates: a file, folder or hub id in any accepted format")
    candidates: CandidatesConfig = CandidatesConfig()
    validation: str = Field("", description="rankings to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    ranking: float = Field(1.0, ge=0, description="weight of the ranking hinge beside imitation; 0 imitates the best and no more")
    imitation: Literal["mean", "sum"] = Field("mean", description="over the best answer's tokens; sum is the paper's equation 4")
    epochs: int = Field(3, ge=1, description="passes over the prompts")
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
    optim: RRHFOptimiser = RRHFOptimiser()

    @model_validator(mode="after")
    def candidates_come_from_one_place(self) -> "RRHFConfig":
        if bool(self.data) == bool(self.candidates.policy):
            raise ValueError(
                "name the rankings with data=, or say with candidates.policy= how the run makes its own; one of them"
            )
        if self.candidates.policy and "held_out" in self.model_fields_set and self.held_out:
            raise ValueError(
                "held_out keeps back a share of data=; with candidates.policy judge on a file of rankings, validation="
            )
        return self

    @property
    def sampling(self) -> SamplingPolicy:
        return sampling_policy(self.candidates.policy) if self.candidates.policy else SamplingPolicy("", 1)

    def steps_per_round(self, n_rows: int) -> int:
        """Steps between candidates and new ones."""
        return self.sampling.number if self.sampling.name == "OP" else self.epochs * steps_per_epoch(n_rows, self.batch)

    def plan(self, n_rows: int) -> Plan:
        """Steps are counted by prompts; candidates of which none is better than another leave theirs without an update."""
        rounds = self.sampling.number if self.sampling.name == "IP" else 1
        steps = rounds * self.epochs * steps_per_epoch(n_rows, self.batch)
        return Plan(steps, self.batch, self.max_prompt + self.max_completion)


def of_candidates(model: nn.Module, batch: RankedBatch, *, config: RRHFConfig) -> Loss:
    """Equation 5 over the candidates of every prompt."""
    loss = rrhf_loss if config.imitation == "mean" else rrhf_loss_with_summed_imitation
    logprobs = completion_logprobs(model, batch).sum(2)  # P K
    return loss(logprobs, batch.completion_length, batch.tier, batch.is_candidate, batch.weight, ranking=config.ranking)


def main(config: RRHFConfig, options: Options) -> dict:
    """Train, judge on held-out prompts, export the policy, return the summary."""
    made = config.candidates
    named = {"model": config.model, "data": config.data, "validation": config.validation}
    named |= {"prompts": made.prompts, "answers": made.answers}
    named |= {f"reward{number or ''}": file for number, file in enumerate(files_of(made.reward))}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("rrhf", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        given: RankedBatch | None = None
        prompts: list[Prompt] = []
        if config.data:
            train, held_out, reading, n_shared = read_split_groups(
                config.data, validation=config.validation, held_out=config.held_out, seed=config.seed
            )
            rankings = encoder.ranked(train, unusable=config.unusable)
            report_data(run, "rankings", reading.report, encoder=encoder, max_dropped=config.max_dropped)
            given = only_informative(rankings, config.data)
        else:
            prompts = prompts_to_answer(config, run, encoder)
            held_out, n_shared = judged_apart(config.validation, prompts)
        n_rows = len(prompts) if given is None else len(given.weight)
        if given is not None:
            work = Work(int(row_tokens(given).max()), min(config.batch, n_rows))
        else:
            work = work_of_candidates(config, encoder, prompts)
        memory = admit(config, work, run.device)
        policy = without_dropout(policy_to_train(config.model, config.adapter, seed=run.seed("adapter"), device=run.device))
        if given is not None:
            refuse_longer_than_context(policy, row_lengths(given), config.data)
        plan = config.plan(n_rows)
        if options.dry_run:
            return forecast(run, plan, n_rows=n_rows, parameters=count_parameters(policy), memory=memory)

        own = OwnCandidates(config, run, encoder, policy, prompts, plan.steps) if given is None else None
        learner = Learner(policy, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        loss = partial(of_candidates, config=config)
        for step in run.steps(plan.steps, save_every=config.save_every, description="rrhf"):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, n_rows, config.batch, run.rng)
            data, figures = own.of_step(step, rows) if own else (take(given, rows), {})
            mine = share(torch.arange(len(data.weight)), run.rank, run.processes)
            metrics = learner.step(Term(loss, take(data, mine))) if len(data.weight) else {}
            run.log(step, {"epoch": epoch + 1, **metrics, **figures})

        policy.eval()
        counts = own.counts() if own else counts_of(given, len(rankings.weight))
        summary: dict[str, Any] = {"steps": plan.steps, **counts, "held_out_shared": n_shared}
        held_out = [group for group in held_out if encoder.fits(group.prompt)]  # as in training
        if held_out:
            judged = encoder.ranked(held_out, unusable=config.unusable)
            if bool((n_pairs(judged.tier, judged.is_candidate) > 0).any()):
                summary["held_out_loss"] = mean_loss(loss, policy, only_informative(judged, config.validation or config.data))
            likelihood = per_token_likelihood(policy, encoder.candidates(held_out)).tolist()
            scores = [row[: len(group.completions)] for row, group in zip(likelihood, held_out, strict=True)]
            summary["pair_accuracy"] = pair_accuracy(held_out, scores, with_unusable=config.unusable)
            summary["baselines"] = length_baselines(held_out, with_unusable=config.unusable)
            per_prompt = by_prompt(held_out, scores, with_unusable=config.unusable)
            run.write_json("per_prompt.json", per_prompt)
        card = {"method": "rrhf", **summary}
        on_main(partial(save_model, policy, tokenizer, run.model_folder, card=card, encoder=encoder))
        some = encoder.text_batch([encoder.prompt_ids(prompt) for prompt in prompts[:4]])[0]
        verify_saved(policy, run.model_folder, some if given is None else flat_rows(take(given, slice(0, 2))).tokens)
        return run.finish(summary)


def per_token_likelihood(policy: nn.Module, candidates: RankedBatch) -> Tensor:
    """Equation 1 for every completion: P K."""
    with at_rest(policy):
        logprobs = by_prompts(lambda part: completion_logprobs(policy, part).sum(2), candidates, policy)
    return per_token(logprobs, candidates.completion_length)


def counts_of(given: RankedBatch, n_rankings: int) -> dict[str, int]:
    """Rankings learned from, their ordered pairs, and the rankings in which all are tied."""
    n = int(n_pairs(given.tier, given.is_candidate).sum())
    return {"rankings": len(given.weight), "pairs": n, "tied_rankings": n_rankings - len(given.weight)}


# ------------------------------------------------------------------------------------------------ candidates of one's own


class OwnCandidates:
    """The candidates of the round a step belongs to: made when the round begins, read again where a run goes on inside it."""

    def __init__(self, config: RRHFConfig, run: Run, encoder: Encoder, policy: nn.Module, prompts: Sequence[Prompt], steps: int):
        self.config, self.run, self.encoder, self.policy = config, run, encoder, policy
        self.prompts, self.steps = prompts, steps
        self.per_round = config.steps_per_round(len(prompts))
        self.answers = read_answers(config.candidates.answers)
        if config.candidates.answers:
            refuse_without_answers(prompts, self.answers, config.candidates.answers)
        self.scorer = load_scorer(config.candidates.reward, device=run.device, template=config.template)
        self.folder = run.folder / "candidates"
        self.round = -1
        self.data: RankedBatch | None = None
        self.row_of: dict[str, int] = {}  # of each prompt with an order

    def of_step(self, step: int, rows: Tensor) -> tuple[RankedBatch, dict[str, float]]:
        """The rankings of the prompts of a step, those without an order left out; figures of the candidates where they are new."""
        round, inside = divmod(step, self.per_round)
        figures: dict[str, float] = {}
        if round != self.round:
            groups, figures = (read_groups(self.file(round)).records, {}) if inside else self.make(round)
            told = [group for group in groups if group.rankings and group.rankings[0].pairs()]
            self.round, self.data = round, self.encoder.ranked(told)
            self.row_of = {group.prompt.id: row for row, group in enumerate(told)}
            refuse_longer_than_context(self.policy, row_lengths(self.data), self.config.candidates.prompts)
        asked = [self.prompts[row].id for row in rows.tolist()]
        there = torch.tensor([self.row_of[name] for name in asked if name in self.row_of], dtype=torch.long)
        return take(self.data, there), {"round": round, **figures}

    def make(self, round: int) -> tuple[list[Group], dict[str, float]]:
        """Draw, put in order, write down."""
        made, first = self.config.candidates, round * self.per_round
        turns = [
            turn(step, len(self.prompts), self.config.batch, self.run.rng).rows
            for step in range(first, min(first + self.per_round, self.steps))
        ]
        prompts = [self.prompts[row] for row in torch.cat(turns).unique().tolist()]
        own: dict[str, list[Completion]] = {}
        if made.k:
            self.policy.eval()
            drawn = draw_candidates(
                self.policy, self.encoder, prompts, decoding=made.decoding, k=made.k, max_new_tokens=made.max_new_tokens,
                seed=self.run.seed("candidates", round), temperature=made.temperature, diversity=made.diversity,
                source=f"policy:{self.run.name}@{first}",
            )  # fmt: skip
            own = answers_by_prompt(drawn.completions)
        groups = side_by_side(prompts, self.answers, own)
        scores = scored(groups, self.scorer)
        ranked = ordered(groups, scores, f"sim:{made.policy}")
        on_main(partial(self.write, ranked, round))
        spread = [np.std(values) for values in scores]
        return ranked, {
            "candidates/score": float(np.mean([value for values in scores for value in values])),
            "candidates/score_sd": float(np.mean(spread)),
            "candidates/best_score": float(np.mean([max(values) for values in scores])),
            "candidates/equal": sum(len(set(values)) == 1 for values in scores),
        }

    def write(self, ranked: list[Group], round: int) -> None:
        self.folder.mkdir(exist_ok=True)
        write_groups(self.file(round), ranked)

    def file(self, round: int) -> Path:
        return self.folder / f"round-{round:04d}.jsonl"

    def counts(self) -> dict[str, int]:
        """What was learned from, over all rounds."""
        n_rounds = -(-self.steps // self.per_round)
        groups = [group for round in range(n_rounds) for group in read_groups(self.file(round)).records]
        n_pairs_of = [len(group.rankings[0].pairs()) for group in groups]
        n_told = sum(n > 0 for n in n_pairs_of)
        return {"rounds": n_rounds, "rankings": n_told, "pairs": sum(n_pairs_of), "tied_rankings": len(groups) - n_told}


def prompts_to_answer(config: RRHFConfig, run: Run, encoder: Encoder) -> list[Prompt]:
    """The prompts candidates are made for, each once."""
    reading = read_prompts(config.candidates.prompts)
    prompts = encoder.that_fit(reading.records)
    report_data(run, "prompts", reading.report, encoder=encoder, max_dropped=config.max_dropped)
    if not prompts:
        raise DataError(
            f"no prompt of {config.candidates.prompts} is short enough to be answered\n  raise max_prompt= ({config.max_prompt})"
        )
    return prompts


def work_of_candidates(config: RRHFConfig, encoder: Encoder, prompts: Sequence[Prompt]) -> Work:
    """What the candidates of a round come to at most: a row is a prompt with all of them, the data set's answers too."""
    made, answers = config.candidates, read_answers(config.candidates.answers)
    longest = [len(encoder.prompt_ids(prompt)) for prompt in prompts]
    given = [
        sum(min(config.max_completion, 1 + len(encoder.text_ids(answer.text))) for answer in answers.get(prompt.id, ()))
        for prompt in prompts
    ]
    row = max(own + said for own, said in zip(longest, given, strict=True)) + made.k * made.max_new_tokens
    new_tokens = made.max_new_tokens if made.k else 0
    return Work(row, min(config.batch, len(prompts)), new_tokens, max(1, made.k) * len(prompts), max(longest))


def judged_apart(validation: str, prompts: Sequence[Prompt]) -> tuple[list[Group], int]:
    """Rankings of prompts that are not practised on, and how many others were left out."""
    if not validation:
        return [], 0
    learned = {key for prompt in prompts for key in (prompt.id, split_key(prompt))}
    judged = read_groups(validation).records
    kept = [group for group in judged if not learned & {group.prompt.id, split_key(group.prompt)}]
    if not kept:
        raise DataError(
            f"every prompt of validation = {validation} is among the prompts that are practised on\n  name rankings of other prompts"
        )
    return kept, len(judged) - len(kept)
