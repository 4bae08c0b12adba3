"""Policy gradients without a critic: RLOO, GRPO, Dr. GRPO, DAPO and REINFORCE++.

K answers to a prompt are each other's baseline (``ops/group.py`` has the advantages and the rules for K = 1 and equal rewards):

    rloo         A = r - mean of the others; r = score - kl log(pi/ref)     the whole answer is the action   arXiv 2402.14740
    grpo         A = (score - mean) / std; + kl k3(pi, ref) in the loss     every answer weighs the same     arXiv 2402.03300
    dr_grpo      A = score - mean; sum over tokens / max_new_tokens         no std, no length bias           arXiv 2503.20783
    dapo         as grpo, clip 0.2 down and 0.28 up, every token weighs     prompts with equal scores are    arXiv 2503.14476
                 the same, no KL                                            left out (not drawn anew)
    reinforce++  per-token kl, returns to go whitened over the round        ``baseline`` subtracts the       arXiv 2501.03262
                                                                            group's mean first

Each name sets the defaults of ``kl``, ``clip``, ``clip_high``, ``weights`` and ``only_informative``; what the configuration
states wins, and config.yaml shows the numbers in use. The prompt is computed once for its K answers. Rewards are any
``Scorer``s: several with weights are ``reward: {help: 1.0, ...}``'s sum. Exported are the weights of the last round, or their
moving average when ``ema`` > 0.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.read import read_prompts
from prefloop.data.reward_spec import names_gold
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.batch import RankedBatch, Samples, move, take
from prefloop.models.encode import Encoder
from prefloop.models.evaluation import by_prompts
from prefloop.models.heads import at_rest
from prefloop.models.load import count_parameters, load_tokenizer, save_model, verify_saved
from prefloop.models.on_policy import refuse_if_off_policy
from prefloop.models.roles import load_roles_without_critic
from prefloop.models.sampling import sample
from prefloop.models.scorer import load_scorer
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.ops.group import (
    after_distance,
    centred,
    clip_higher_loss,
    group_normalised,
    grpo_loss,
    informative,
    leave_one_out,
    reinforce_plus_plus,
    sequence_policy_loss,
)
from prefloop.ops.kl import k1, k3
from prefloop.ops.logprobs import length_mask
from prefloop.ops.loss import Loss
from prefloop.ops.weights import constant, sequence_mean, token_mean

Method = Literal["rloo", "grpo", "dr_grpo", "dapo", "reinforce++"]

USUAL: dict[str, dict[str, Any]] = {
    "rloo": {"kl": 0.03, "clip": 0.2, "clip_high": 0.2, "weights": "sequence_mean", "only_informative": False},
    "grpo": {"kl": 0.04, "clip": 0.2, "clip_high": 0.2, "weights": "sequence_mean", "only_informative": False},
    "dr_grpo": {"kl": 0.0, "clip": 0.2, "clip_high": 0.2, "weights": "constant", "only_informative": False},
    "dapo": {"kl": 0.0, "clip": 0.2, "clip_high": 0.28, "weights": "token_mean", "only_informative": True},
    "reinforce++": {"kl": 0.01, "clip": 0.2, "clip_high": 0.2, "weights": "token_mean", "only_informative": False},
}


@dataclass(frozen=True)
class GroupRollouts(RankedBatch):
    """K answers to each prompt with what a critic-free update needs, all of it constant: RLOO, GRPO, REINFORCE++."""

    old_logprobs: Tensor  # P K T  when the answers were drawn
    ref_logprobs: Tensor  # P K T  under the frozen reference
    advantages: Tensor  # P K T
    token_weight: Tensor  # P K T  how a prompt's weight is spread over its answers' tokens


class ReinforceOptimiser(Optimiser):
    """A constant rate after a warm-up."""

    lr: float = Field(5e-4, gt=0, description="peak learning rate; 1e-6 for models of billions of parameters")
    schedule: Literal["cosine", "linear", "constant"] = Field("constant", description="how the rate falls after warm-up")
    warmup: int = Field(8, ge=0, description="steps of linear warm-up")


class ReinforceConfig(Config):
    """How K answers to a prompt become an update."""

    model: str = Field(description="folder or hub id of the policy to start from, usually the SFT model")
    reference: str = Field("", description="the policy distance is measured from; empty = the model it starts from")
    reward: str | dict[str, float] = Field(
        description="a reward model folder, lexicon:FILE or python:MODULE:FUNCTION; several with weights as {spec: weight}"
    )
    prompts: str = Field(description="prompts to practise on: a file, folder or hub id in any accepted format")
    measure: dict[str, str] = Field(default={}, description="scores to follow but never train on, by name, e.g. gold: world:en")

    method: Method = Field("rloo", description="which update, see above")
    rounds: int = Field(8, ge=1, description="times answers are drawn")
    prompts_per_round: int = Field(64, ge=1, description="prompts of a round")
    k: int = Field(4, ge=1, description="answers to each prompt, each other's baseline")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the policy while it is trained: in drawing, reference and update alike")

    epochs: int = Field(1, ge=1, description="passes over the answers of a round")
    minibatch: int = Field(64, ge=1, description="answers of an update, whole prompts at a time")
    kl: float = Field(-1.0, ge=-1, description="price per nat of distance from the reference; -1 takes the method's usual one")
    clip: float = Field(0.2, gt=0, lt=1, description="largest fall of a probability ratio")
    clip_high: float = Field(0.2, gt=0, description="largest rise of a probability ratio")
    weights: Literal["token_mean", "sequence_mean", "constant"] = Field(
        "sequence_mean", description="how tokens share the loss; rloo knows whole answers only"
    )
    only_informative: bool = Field(False, description="leave out prompts whose answers all have the same score, and count them")
    baseline: bool = Field(False, description="reinforce++: subtract the mean score of the prompt's answers first")
    missing_eos: Literal["keep", "replace", "subtract"] = Field("keep", description="rule for answers that do not end")
    missing_eos_score: float = Field(1.0, ge=0, description="minus this replaces their score, or is subtracted from it")

    ema: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of weights that is exported; 0 exports the last")
    adapter: Adapter = Adapter()
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of prompts lost before the run refuses")
    sample_rows: int = Field(256, ge=1, description="answers drawn side by side; changes memory, not results")
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    shown: int = Field(4, ge=0, description="answers of each round kept in samples.jsonl")
    seed: int = 0
    save_every: int = Field(4, ge=1, description="rounds between checkpoints")
    optim: ReinforceOptimiser = ReinforceOptimiser()

    @model_validator(mode="before")
    @classmethod
    def usual_settings(cls, given: Any) -> Any:
        """The resolved configuration shows the numbers that are used."""
        if not isinstance(given, dict):
            return given
        usual = USUAL.get(str(given.get("method", "rloo")), {})
        stated = {key: value for key, value in given.items() if not (key == "kl" and value == -1)}
        return {**usual, **stated}

    @model_validator(mode="after")
    def settings_belong_to_the_method(self) -> "ReinforceConfig":
        if self.baseline and self.method != "reinforce++":
            raise ValueError(f"baseline belongs to reinforce++; {self.method} compares the answers of a prompt by itself")
        if self.method == "rloo" and self.weights != "sequence_mean":
            raise ValueError(f"weights = {self.weights} does nothing in rloo, where a whole answer is one action; leave it out")
        if self.k == 1 and (self.method != "reinforce++" or self.baseline):
            raise ValueError(
                f"k = 1: one answer has nothing to be compared with, {self.method} would learn nothing; use k = 2 or more"
            )
        if self.minibatch < self.k:
            raise ValueError(f"minibatch = {self.minibatch} is smaller than k = {self.k}; the answers of a prompt stay together")
        return self

    @model_validator(mode="after")
    def gold_is_for_measuring(self) -> "ReinforceConfig":
        for spec in [self.reward] if isinstance(self.reward, str) else self.reward:
            if names_gold(spec):
                raise ValueError(
                    f"reward = {spec!r} is the world's gold, which no training may see; "
                    f"train on a reward model, and follow gold with measure.gold={spec}"
                )
        return self

    @property
    def prompts_per_update(self) -> int:
        return self.minibatch // self.k

    def asked_in(self, round: int, n_prompts: int) -> int:
        """Prompts of a round: the last one of a pass has fewer where they do not come out even."""
        first = round % steps_per_epoch(n_prompts, self.prompts_per_round) * self.prompts_per_round
        return min(self.prompts_per_round, n_prompts - first)

    def plan(self, n_prompts: int) -> Plan:
        """Updates are counted as if every prompt were informative; with ``only_informative`` there may be fewer."""
        asked = [self.asked_in(round, n_prompts) for round in range(self.rounds)]
        updates = sum(self.epochs * -(-n // self.prompts_per_update) for n in asked)
        return Plan(updates, self.minibatch, self.max_prompt + self.max_new_tokens, models=2)


def of_answers(model: nn.Module, batch: GroupRollouts, *, config: ReinforceConfig) -> Loss:
    """The clipped surrogate of the chosen method; one row per token, or per answer in RLOO."""
    logprobs = completion_logprobs(model, batch, temperature=config.temperature)  # P K T
    clips = {"clip_low": config.clip, "clip_high": config.clip_high}
    old, advantages = batch.old_logprobs, batch.advantages
    weight = batch.weight[:, None, None] * batch.token_weight  # P K T
    if config.method == "rloo":
        is_answer = length_mask(batch.completion_length.flatten(), logprobs.shape[2])  # B T
        rows = (logprobs.flatten(0, 1), old.flatten(0, 1), advantages[:, :, 0].flatten(), is_answer)
        loss = sequence_policy_loss(*rows, weight.sum(2).flatten(), **clips)
    elif config.method == "reinforce++" or config.kl == 0:
        loss = clip_higher_loss(logprobs, old, advantages, weight, **clips)
    else:
        loss = grpo_loss(logprobs, old, batch.ref_logprobs, advantages, weight, kl=config.kl, **clips)
    return Loss(loss.value, {**loss.metrics, "counted": weight.sum().detach()})


def credit(
    ranked: RankedBatch, score: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, config: ReinforceConfig
) -> GroupRollouts:
    """Who earned it, and how much each token counts.

    score                       P K    of each answer
    old_logprobs, ref_logprobs  P K T  of its tokens when it was drawn, and under the reference
    """
    n_prompts, k, width = ranked.completion.shape
    is_answer = length_mask(ranked.completion_length.flatten(), width)  # B T
    drawn, under = old_logprobs.flatten(0, 1), ref_logprobs.flatten(0, 1)
    match config.method:
        case "rloo":
            earned = after_distance(score.flatten(), drawn, under, is_answer, kl=config.kl).view(n_prompts, k)
            advantages = leave_one_out(earned, ranked.is_candidate)
        case "dr_grpo":
            advantages = centred(score, ranked.is_candidate)
        case "grpo" | "dapo":
            advantages = group_normalised(score, ranked.is_candidate, eps=1e-4)
        case "reinforce++":
            earned = centred(score, ranked.is_candidate) if config.baseline else score
            advantages = reinforce_plus_plus(earned.flatten(), drawn, under, is_answer, kl=config.kl)
    if config.method != "reinforce++":
        advantages = advantages.flatten()[:, None] * is_answer
    row, token = shares(is_answer.view(n_prompts, k, width), config)
    return GroupRollouts(
        **{**vars(ranked), "weight": row},
        old_logprobs=old_logprobs,
        ref_logprobs=ref_logprobs,
        advantages=advantages.view(n_prompts, k, width),
        token_weight=token,
    )


def shares(is_answer: Tensor, config: ReinforceConfig) -> tuple[Tensor, Tensor]:
    """What a prompt weighs (P), and how its answers' tokens share that (P K T)."""
    if config.weights == "token_mean":
        row, token = token_mean(is_answer.flatten(1))
        return row, token.view(is_answer.shape)
    per_answer = sequence_mean if config.weights == "sequence_mean" else partial(constant, length=config.max_new_tokens)
    token = per_answer(is_answer.flatten(0, 1)).token.view(is_answer.shape)
    return torch.ones(len(is_answer)), token / is_answer.shape[1]


def main(config: ReinforceConfig, options: Options) -> dict:
    """Train, export the policy, return the summary."""
    rewards = {config.reward: 1.0} if isinstance(config.reward, str) else config.reward
    named = {"model": config.model, "reference": config.reference, "prompts": config.prompts}
    named |= {f"reward{number or ''}": spec for number, spec in enumerate(rewards)}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("reinforce", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_prompts(config.prompts)
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_new_tokens)
        prompts = encoder.that_fit(reading.records)
        report_data(run, "prompts", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        if not prompts:
            raise DataError(
                f"no prompt of {config.prompts} is short enough to practise on\n  raise max_prompt= ({config.max_prompt})"
            )
        longest = max(len(encoder.prompt_ids(prompt)) for prompt in prompts)
        answers = config.k * config.asked_in(0, len(prompts))
        row = longest + config.k * config.max_new_tokens
        work = Work(row, min(config.prompts_per_update, answers // config.k), config.max_new_tokens, answers, longest)
        memory = admit(config, work, run.device)
        policy, reference, scorers = load_roles_without_critic(
            model=config.model, reference=config.reference, rewards=list(rewards), adapter=config.adapter, seed=run.seed,
            device=run.device, template=config.template,
        )  # fmt: skip
        measured = {name: load_scorer(spec, device=run.device, template=config.template) for name, spec in config.measure.items()}
        plan = config.plan(len(prompts))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(prompts), parameters=count_parameters(policy), memory=memory)

        learner = Learner(policy, steps=plan.steps, ema=config.ema, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        loss = partial(of_answers, config=config)
        is_checked = False
        for round in run.steps(config.rounds, save_every=config.save_every, description=config.method):
            run.seed_everything("round", round)
            policy.eval()
            asked = [prompts[i] for i in turn(round, len(prompts), config.prompts_per_round, run.rng).rows]
            samples = sample(
                policy, encoder, asked, k=config.k, max_new_tokens=config.max_new_tokens, temperature=config.temperature,
                seed=run.seed("sample", round), batch_rows=config.sample_rows, source=f"policy:{run.name}@{round}",
            )  # fmt: skip
            raw = {spec: torch.tensor(scorer(samples.prompts, samples.completions)) for spec, scorer in scorers.items()}
            total = torch.stack([rewards[spec] * score for spec, score in raw.items()]).sum(0)
            score = after_missing_eos(total, samples.is_finished, config)
            ranked, old_logprobs = grouped(samples, config.k)
            with at_rest(reference):
                width = ranked.completion.shape[2]
                ref_logprobs = by_prompts(partial(logprobs_of, reference, config=config, width=width), ranked, reference)
            by_group = score.view(-1, config.k)
            rollouts = credit(ranked, by_group, old_logprobs, ref_logprobs, config)
            kept = informative(by_group, ranked.is_candidate)
            if config.only_informative:
                rollouts = take(rollouts, kept.is_kept.nonzero()[:, 0])

            updates = []
            for epoch in range(config.epochs if len(rollouts.weight) else 0):
                order = torch.randperm(len(rollouts.weight), generator=run.rng("minibatches", round, epoch))
                for rows in order.split(config.prompts_per_update):
                    if not is_checked:
                        first = move(take(rollouts, rows), run.device)
                        refuse_if_off_policy(
                            policy, partial(logprobs_at, policy, first), first.old_logprobs, temperature=config.temperature
                        )
                        is_checked = True
                    updates.append(learner.step(Term(loss, take(rollouts, share(rows, run.rank, run.processes)))))

            figures = objective(samples, total, score, old_logprobs, ref_logprobs)
            figures |= {"objective/advantage_sd": spread_of(rollouts)} if len(rollouts.weight) else {}
            figures |= {f"rewards/{spec}": float(score.mean()) for spec, score in raw.items()} if len(raw) > 1 else {}
            figures |= {"groups/equal": int(kept.n_equal), "groups/informative": int(kept.is_kept.sum())}
            for name, scorer in measured.items():
                seen = np.asarray(scorer(samples.prompts, samples.completions))
                figures |= {f"measure/{name}": float(seen.mean()), f"measure/{name}_sd": float(seen.std())}
            drawn = config.k * sum(config.asked_in(earlier, len(prompts)) for earlier in range(round + 1))
            run.log(round, {"episode": drawn, **figures, **averaged(updates)})
            run.samples(round, shown(samples, total, config.shown))

        policy.eval()
        last = run.history()[-1]
        summary = {
            "method": config.method,
            "episodes": last["episode"],
            "weights": "exponential moving average" if config.ema else "last round",
            "figures": "of the last round's answers, drawn before its updates",
            **{name: last[name] for name in last if name.startswith(("objective/", "measure/", "groups/"))},
        }
        with learner.ema_weights():
            on_main(partial(save_model, policy, tokenizer, run.model_folder, card=summary, encoder=encoder))
            verify_saved(policy, run.model_folder, encoder.text_batch([encoder.prompt_ids(prompt) for prompt in prompts[:4]])[0])
        return run.finish(summary)


def after_missing_eos(score: Tensor, is_finished: Tensor, config: ReinforceConfig) -> Tensor:
    """The rule for answers that do not end: B."""
    if config.missing_eos == "replace":
        return torch.where(is_finished, score, -config.missing_eos_score)
    if config.missing_eos == "subtract":
        return score - config.missing_eos_score * ~is_finished
    return score


def grouped(samples: Samples, k: int) -> tuple[RankedBatch, Tensor]:
    """Answers side by side behind their prompt, unranked, with the log-probabilities they were drawn with: P K T."""
    n = samples.length - samples.prompt_length  # B
    place = samples.prompt_length[:, None] + torch.arange(int(n.max()))  # B T
    inside = length_mask(n, place.shape[1])
    place = place.clamp(max=samples.tokens.shape[1] - 1)
    shape = (len(n) // k, k)
    prompt_length = samples.prompt_length.view(shape)[:, 0]
    ranked = RankedBatch(
        prompt=samples.tokens[::k, : int(prompt_length.max())],
        prompt_length=prompt_length,
        completion=samples.tokens.gather(1, place).where(inside, 0).view(*shape, -1),
        completion_length=n.view(shape),
        tier=torch.zeros(shape, dtype=torch.long),
        is_candidate=torch.ones(shape, dtype=torch.bool),
        weight=torch.ones(shape[0]),
    )
    return ranked, samples.logprobs.gather(1, place).where(inside, 0).view(*shape, -1)


def logprobs_of(model: nn.Module, part: RankedBatch, *, config: ReinforceConfig, width: int) -> Tensor:
    """P K width: ``completion_logprobs`` as wide as the whole round's answers."""
    found = completion_logprobs(model, part, temperature=config.temperature)
    return torch.nn.functional.pad(found, (0, width - found.shape[2]))


def logprobs_at(model: nn.Module, batch: RankedBatch, temperature: float) -> Tensor:
    return completion_logprobs(model, batch, temperature=temperature)


def objective(samples: Samples, raw: Tensor, score: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor) -> dict[str, float]:
    """Where the policy stands, per answer; names as in TRL. Log-probabilities are 0 outside the answers."""
    drawn, under = old_logprobs.flatten(0, 1), ref_logprobs.flatten(0, 1)
    by_prompt = score.view(*old_logprobs.shape[:2])  # P K
    length = (samples.length - samples.prompt_length).double()
    return {
        "objective/scores": float(raw.mean()),
        "objective/scores_sd": float(raw.std(correction=0)),
        "objective/group_sd": float(by_prompt.std(1, correction=0).mean()),
        "objective/kl": float(k1(drawn, under).sum(1).mean()),
        "objective/kl_k3": float(k3(drawn, under).sum(1).mean()),
        "objective/entropy": float(-drawn.sum(1).mean()),
        "objective/length": float(length.mean()),
        **lengths_by_sign(length.view(by_prompt.shape), by_prompt),
        "val/num_eos_tokens": float(samples.is_finished.float().mean()),
    }


def spread_of(rollouts: GroupRollouts) -> float:
    """Standard deviation of the advantages over the tokens of all answers; their mean says nothing where groups are centred."""
    width = rollouts.completion.shape[2]
    is_answer = length_mask(rollouts.completion_length.flatten(), width).view(rollouts.advantages.shape)
    return float(rollouts.advantages[is_answer].double().std(correction=0))


def lengths_by_sign(length: Tensor, score: Tensor) -> dict[str, float]:
    """Mean length of the answers above their prompt's mean score, and of those below: is it length that is rewarded?  P K, P K

    Nothing is said where all answers to every prompt score the same.
    """
    is_equal = score.amax(1, keepdim=True) == score.amin(
        1, keepdim=True
    )  # of equal scores the mean may differ by a rounding error
    gap = torch.where(is_equal, 0.0, score - score.mean(1, keepdim=True))
    sides = {"objective/length_of_better": gap > 0, "objective/length_of_worse": gap < 0}
    return {name: float(length[side].mean()) for name, side in sides.items() if side.any()}


def averaged(updates: list[dict[str, float]]) -> dict[str, float]:
    """The round's mean of every figure of its updates; nothing where no prompt had anything to learn from.

    Figures of tokens are sums with the tokens' weights, which do not sum to one where the divisor is a constant.
    """
    known = {
        "loss": "loss/policy_avg",
        "approxkl": "policy/approxkl_avg",
        "clipfrac": "policy/clipfrac_avg",
        "ratio": "val/ratio",
    }
    of_tokens = ("approxkl", "clipfrac", "ratio", "ratio_gap", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean")
    means = {}
    for name in (updates or [{}])[0]:
        if name != "counted":
            divisors = [update["counted"] if name in of_tokens else 1.0 for update in updates]
            means[known.get(name, name)] = float(np.mean([u[name] / d for u, d in zip(updates, divisors, strict=True)]))
    return means


def shown(samples: Samples, raw: Tensor, n: int) -> list[dict[str, Any]]:
    """The first answers of a round, to be read."""
    return [
        {"prompt": prompt.text, "answer": completion.text, "score": float(score)}
        for prompt, completion, score in list(zip(samples.prompts, samples.completions, raw, strict=True))[:n]
    ]
