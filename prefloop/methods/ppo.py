"""PPO and PPO-ptx from a learned reward (InstructGPT, arXiv 2203.02155, section 3.5, equation 2 and C.4).

A bandit seen as a game over tokens: the policy writes an answer y to a prompt x, every token pays the price of leaving the
reference, the last one also earns the score:

    R_t = -beta (log pi_old(y_t) - log pi_ref(y_t)) + [t is last] r(x, y)

    A_t by GAE(gamma, lambda);   rho_t = pi(y_t) / pi_old(y_t)
    loss = mean_t max(-A_t rho_t, -A_t clip(rho_t, 1 - eps, 1 + eps))
         + c_v 0.5 mean_t max((V_t - G_t)^2, (clip(V_t, V_old - eps_v, V_old + eps_v) - G_t)^2)
         + ptx * mean token cross-entropy of pretraining text                                      (PPO-ptx)

Where the paper is silent or hard to read off: lambda 0.95 (as in Gao et al. 2022 and lm-human-preferences); losses are
means over tokens, so that ``ptx`` compares two numbers of the same kind (27.8 of the paper belongs to another
normalisation; ``grad_norm/ptx_over_ppo`` is logged to tune on); the score sits on the last token itself, not one after it.
``ptx = 0`` is PPO to the last bit: the term is then not built at all.

Exported and evaluated are the weights of the last round, or their exponential moving average when ``ema`` > 0.
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
from prefloop.data.read import read_prompts, read_text
from prefloop.data.reward_spec import files_of, names_gold
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.run import Run, open_run
from prefloop.errors import DataError
from prefloop.models.batch import RolloutBatch, Samples, TokenBatch, move, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.critic import Critic
from prefloop.models.encode import Encoder
from prefloop.models.evaluation import by_rows
from prefloop.models.heads import policy_logprobs
from prefloop.models.load import count_parameters, load_tokenizer, save_model, verify_saved
from prefloop.models.on_policy import refuse_if_off_policy
from prefloop.models.roles import Share, load_roles
from prefloop.models.sampling import sample
from prefloop.models.scorer import load_scorer
from prefloop.ops.advantages import explained_variance, gae, whiten
from prefloop.ops.kl import adapted, k1, k3
from prefloop.ops.likelihood import nll
from prefloop.ops.logprobs import span_mask
from prefloop.ops.loss import Loss
from prefloop.ops.policy import policy_loss, value_loss
from prefloop.ops.weights import constant, sequence_mean, token_mean


class PPOOptimiser(Optimiser):
    """A constant rate after a warm-up, as in the paper; Adam's epsilon as in its predecessor."""

    lr: float = Field(default=5e-4, gt=0, description="learning rate of the policy")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="constant", description="how the rate falls after warm-up")
    warmup: int = Field(default=8, ge=0, description="steps of linear warm-up")
    eps: float = Field(default=1e-5, gt=0, description="added to the root of the second moment")


class CriticOptimiser(PPOOptimiser):
    """The critic learns a regression and may go faster."""

    lr: float = Field(default=1e-3, gt=0, description="learning rate of the critic")


class PPOConfig(Config):
    """How far one round may move the policy, and what holds it back."""

    model: str = Field(description="folder or hub id of the policy to start from, usually the SFT model")
    reference: str = Field("", description="the policy distance is measured from; empty = the model it starts from")
    reward: str = Field(
        description="a reward model folder (several, with commas: their mean), lexicon:FILE or python:MODULE:FUNCTION"
    )
    prompts: str = Field(description="prompts to practise on: a file, folder or hub id in any accepted format")
    measure: dict[str, str] = Field(default={}, description="scores to follow but never train on, by name, e.g. gold: world:en")

    rounds: int = Field(8, ge=1, description="times answers are drawn")
    prompts_per_round: int = Field(256, ge=1, description="prompts of a round")
    k: int = Field(1, ge=1, description="answers to each prompt")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the policy while it is trained: in rollout, reference and update alike")

    epochs: int = Field(2, ge=1, description="passes over the answers of a round")
    minibatch: int = Field(64, ge=1, description="answers of an update")
    clip: float = Field(0.2, gt=0, lt=1, description="largest change of a token's probability ratio, either way")
    kl: float = Field(0.05, ge=0, description="price per nat of distance from the reference policy")
    kl_target: float = Field(0.0, ge=0, description="distance in nats per answer to steer the price to; 0 keeps the price")
    kl_horizon: float = Field(10_000.0, gt=0, description="answers over which the price adapts")
    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of GAE")
    whiten: bool = Field(True, description="advantages to mean 0 and variance 1 over the round's tokens")
    weights: Literal["token_mean", "sequence_mean", "constant"] = Field("token_mean", description="how tokens share the loss")
    normalise: bool = Field(True, description="scores to mean 0 and variance 1 on the first round's answers, then kept")
    missing_eos: Literal["keep", "replace", "subtract"] = Field("replace", description="rule for answers that do not end")
    missing_eos_score: float = Field(1.0, ge=0, description="minus this replaces the normalised score, or is subtracted from it")

    share: Share = Field(
        "none",
        description="policy, critic, reference: networks of their own, a critic on the policy's trunk, adapters on one base",
    )
    critic: Literal["reward", "policy"] = Field("reward", description="where the critic begins; with share = trunk the policy")
    adapter: Adapter = Field(Adapter(rank=8), description="what is learned with share = adapters")
    value_clip: float = Field(0.2, gt=0, description="largest change of a value in a round")
    value_weight: float = Field(0.1, gt=0, description="weight of the value loss where the trunk is shared")

    ptx: float = Field(0.0, ge=0, description="weight of the pretraining term; above 0 this is PPO-ptx")
    text: str = Field("", description="pretraining text; needed by ptx")
    control_tokens: bool = Field(False, description="that text marks turns with the tokenizer's own control tokens")
    ptx_rows: int = Field(16, ge=1, description="rows of pretraining text for each update")
    ptx_block: int = Field(64, ge=8, description="tokens of such a row")

    ema: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of weights that is exported; 0 exports the last")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of prompts lost before the run refuses")
    sample_rows: int = Field(256, ge=1, description="answers drawn side by side; changes memory, not results")
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    shown: int = Field(4, ge=0, description="answers of each round kept in samples.jsonl")
    seed: int = 0
    save_every: int = Field(4, ge=1, description="rounds between checkpoints")
    optim: PPOOptimiser = PPOOptimiser()
    critic_optim: CriticOptimiser = CriticOptimiser()

    @model_validator(mode="before")
    @classmethod
    def a_shared_trunk_is_the_policys(cls, given: Any) -> Any:
        """``critic: trunk`` was the name of ``share: trunk``."""
        if isinstance(given, dict) and given.get("critic") == "trunk":
            given = {"share": "trunk", **given, "critic": "policy"}
        return {"critic": "policy", **given} if isinstance(given, dict) and given.get("share") == "trunk" else given

    @model_validator(mode="after")
    def settings_belong_to_the_share(self) -> "PPOConfig":
        if self.share == "trunk" and self.critic != "policy":
            raise ValueError("share = trunk makes the critic a head on the policy's trunk; leave critic out, or share otherwise")
        if self.share == "adapters" and self.adapter.rank == 0:
            raise ValueError("share = adapters needs adapter.rank of at least 1, e.g. 8")
        if self.share != "adapters" and self.adapter != type(self).model_fields["adapter"].default:
            raise ValueError(
                f"adapter belongs to share = adapters; share = {self.share} trains whole networks and would ignore it"
            )
        return self

    @model_validator(mode="after")
    def ptx_and_text_go_together(self) -> "PPOConfig":
        if (self.ptx > 0) != bool(self.text):
            raise ValueError(f"ptx and text go together, got ptx = {self.ptx} and text = {self.text!r}")
        return self

    @model_validator(mode="after")
    def gold_is_for_measuring(self) -> "PPOConfig":
        if names_gold(self.reward):
            raise ValueError(
                f"reward = {self.reward!r} is the world's gold, which no training may see; "
                f"train on a reward model, and follow gold with measure.gold={self.reward}"
            )
        return self

    def answers_of(self, round: int, n_prompts: int) -> int:
        """Answers drawn in a round: the last one of a pass over the prompts has fewer where they do not come out even."""
        first = round % steps_per_epoch(n_prompts, self.prompts_per_round) * self.prompts_per_round
        return self.k * min(self.prompts_per_round, n_prompts - first)

    def plan(self, n_prompts: int) -> Plan:
        updates = sum(self.epochs * -(-self.answers_of(round, n_prompts) // self.minibatch) for round in range(self.rounds))
        separate = self.share != "trunk"
        return Plan(
            updates,
            self.minibatch,
            self.max_prompt + self.max_new_tokens,
            models=4 if separate else 3,
            trained=2 if separate else 1,
        )


def of_rollouts(model: nn.Module, batch: RolloutBatch, *, config: PPOConfig) -> Loss:
    """The clipped policy loss."""
    logprobs = policy_logprobs(model, batch.tokens, batch.is_response, temperature=config.temperature)
    weight = batch.weight[:, None] * batch.token_weight
    loss = policy_loss(logprobs, batch.old_logprobs, batch.advantages, weight, clip=config.clip)
    return Loss(loss.value, {**loss.metrics, "counted": weight.sum()})


def of_returns(critic: nn.Module, batch: RolloutBatch, *, config: PPOConfig) -> Loss:
    """The clipped value loss of a critic of its own."""
    weight = batch.weight[:, None] * batch.token_weight
    return value_loss(critic(batch.tokens, batch.is_response), batch.old_values, batch.returns, weight, clip=config.value_clip)


def of_both(shared: Critic, batch: RolloutBatch, *, config: PPOConfig) -> Loss:
    """Policy and value from one pass over the shared trunk."""
    weight = batch.weight[:, None] * batch.token_weight
    logprobs, values = shared.logprobs_and_values(batch.tokens, batch.is_response, temperature=config.temperature)
    policy = policy_loss(logprobs, batch.old_logprobs, batch.advantages, weight, clip=config.clip)
    value = value_loss(values, batch.old_values, batch.returns, weight, clip=config.value_clip)
    of_value = {f"critic/{name}": figure for name, figure in value.metrics.items()}
    metrics = {**policy.metrics, **of_value, "counted": weight.sum()}
    return Loss(policy.value + config.value_weight * value.value, metrics)


def of_text(model: nn.Module, batch: TokenBatch) -> Loss:
    """Cross-entropy of pretraining text, the second term of equation 2."""
    logprobs = policy_logprobs(getattr(model, "policy", model), batch.tokens, batch.token_weight > 0, temperature=1.0)
    return nll(logprobs, batch.weight[:, None] * batch.token_weight)


@dataclass
class Controls:
    """What PPO carries from round to round beside weights: the price of distance, and the scale of the score."""

    kl: float
    gain: float = 1.0
    bias: float = 0.0
    is_scaled: bool = False

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def scale_to(self, score: Tensor) -> None:
        """Mean 0 and variance 1 on these scores, from now on (lm-human-preferences; g = 1/std, b = -g mean)."""
        spread = float(score.std(correction=0))
        self.gain = 1.0 / spread if spread > 1e-6 else 1.0
        self.bias = -self.gain * float(score.mean())
        self.is_scaled = True


def earned(score: Tensor, is_finished: Tensor, controls: Controls, config: PPOConfig) -> Tensor:
    """The score PPO sees: scaled, then the rule for answers without an end."""
    score = controls.gain * score + controls.bias
    if config.missing_eos == "replace":
        return torch.where(is_finished, score, -config.missing_eos_score)
    if config.missing_eos == "subtract":
        return score - config.missing_eos_score * ~is_finished
    return score


def credit(
    samples: Samples, score: Tensor, ref_logprobs: Tensor, values: Tensor, *, kl: float, config: PPOConfig
) -> RolloutBatch:
    """Who earned it: KL penalty per token, score on the last one, GAE, whitening.

    score         B    already scaled
    ref_logprobs  B T  of the answer's tokens under the reference
    values        B T  V(everything before token t), 0 outside the answer
    """
    is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])
    is_last = torch.arange(samples.tokens.shape[1])[None, :] == samples.length[:, None] - 1  # B T
    penalty = kl * k1(samples.logprobs, ref_logprobs) * is_response
    advantages, returns = gae(score[:, None] * is_last - penalty, values, is_response, gamma=config.gamma, lam=config.lam)
    if config.whiten:
        advantages = whiten(advantages, is_response)
    weights = {
        "token_mean": token_mean,
        "sequence_mean": sequence_mean,
        "constant": partial(constant, length=config.max_new_tokens),
    }[config.weights](is_response)
    return RolloutBatch(
        tokens=samples.tokens,
        length=samples.length,
        is_response=is_response,
        old_logprobs=samples.logprobs,
        old_values=values,
        advantages=advantages,
        returns=returns,
        token_weight=weights.token,
        weight=weights.row,
    )


def main(config: PPOConfig, options: Options) -> dict:
    """Train, export the policy, return the summary."""
    named = {"model": config.model, "reference": config.reference, "prompts": config.prompts, "text": config.text}
    named |= {f"reward{number or ''}": folder for number, folder in enumerate(files_of(config.reward) or [config.reward])}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("ppo", config, options, parents=parents, seed=config.seed) as run:
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
        longest = config.max_new_tokens + max(len(encoder.prompt_ids(prompt)) for prompt in prompts)
        answers = config.answers_of(0, len(prompts))
        work = Work(longest, min(config.minibatch, answers), config.max_new_tokens, answers, longest - config.max_new_tokens)
        memory = admit(config, work, run.device)
        policy, reference, critic, scorer = load_roles(
            config.share, model=config.model, reference=config.reference, reward=config.reward, critic=config.critic,
            adapter=config.adapter, seed=run.seed, device=run.device, template=config.template,
        )  # fmt: skip
        measured = {name: load_scorer(spec, device=run.device, template=config.template) for name, spec in config.measure.items()}
        text = pretraining_rows(run, policy, encoder, config) if config.ptx > 0 else None
        plan = config.plan(len(prompts))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(prompts), parameters=count_parameters(policy), memory=memory)

        controls = Controls(kl=config.kl)
        learner = Learner(
            critic if critic.is_shared else policy,
            steps=plan.steps,
            ema=config.ema,
            device=run.device,
            **config.optim.model_dump(),
        )
        run.keep(learner=learner, controls=controls)
        if not critic.is_shared:
            critic_learner = Learner(critic, steps=plan.steps, device=run.device, **config.critic_optim.model_dump())
            run.keep(critic=critic_learner)

        is_checked = False
        for round in run.steps(config.rounds, save_every=config.save_every, description="ppo-ptx" if config.ptx else "ppo"):
            run.seed_everything("round", round)
            policy.eval()
            asked = [prompts[i] for i in turn(round, len(prompts), config.prompts_per_round, run.rng).rows]
            samples = draw(policy, encoder, asked, run, round, config)
            raw = torch.tensor(scorer(samples.prompts, samples.completions))
            if config.normalise and not controls.is_scaled:
                controls.scale_to(raw)
                if config.critic == "reward":  # which knows scores as they were; others begin at 0, the mean of the new scale
                    critic.rescale(controls.gain, controls.bias)
            score = earned(raw, samples.is_finished, controls, config)
            is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])
            with torch.no_grad():
                ref_logprobs = by_rows(
                    lambda tokens, wanted: policy_logprobs(reference, tokens, wanted, temperature=config.temperature),
                    samples.tokens, samples.length, is_response, device=run.device,
                )  # fmt: skip
                values = by_rows(critic, samples.tokens, samples.length, is_response, device=run.device)
            rollouts = credit(samples, score, ref_logprobs, values, kl=controls.kl, config=config)

            updates, n = [], 0
            for epoch in range(config.epochs):
                order = torch.randperm(len(rollouts.weight), generator=run.rng("minibatches", round, epoch))
                for rows in order.split(config.minibatch):
                    if not is_checked:
                        first = move(take(rollouts, rows), run.device)
                        refuse_if_off_policy(
                            policy, partial(logprobs_at, policy, first), first.old_logprobs, temperature=config.temperature
                        )
                        is_checked = True
                    minibatch = take(rollouts, share(rows, run.rank, run.processes))
                    terms = [Term(partial(of_both if critic.is_shared else of_rollouts, config=config), minibatch)]
                    if text is not None:
                        chosen = torch.randint(len(text.weight), (config.ptx_rows,), generator=run.rng("text", round, n))
                        terms.append(
                            Term(of_text, take(text, share(chosen, run.rank, run.processes)), scale=config.ptx)
                        )  # PPO-ptx
                    update = learner.step(*terms, norms=text is not None and n == 0)
                    if not critic.is_shared:
                        value = critic_learner.step(Term(partial(of_returns, config=config), minibatch))
                        update |= {f"critic/{name}": figure for name, figure in value.items()}
                    updates.append(update)
                    n += 1

            figures = objective(samples, raw, score, ref_logprobs, is_response, controls)
            if config.kl_target > 0:
                controls.kl = adapted(
                    controls.kl, figures["objective/kl"], target=config.kl_target, horizon=config.kl_horizon, n=len(raw)
                )
            for name, scorer_ in measured.items():
                seen = np.asarray(scorer_(samples.prompts, samples.completions))
                figures |= {f"measure/{name}": float(seen.mean()), f"measure/{name}_sd": float(seen.std())}
            drawn = sum(config.answers_of(earlier, len(prompts)) for earlier in range(round + 1))
            run.log(round, {"episode": drawn, **figures, **averaged(updates), **fit(rollouts)})
            run.samples(round, shown(samples, raw, config.shown))

        policy.eval()
        last = run.history()[-1]
        summary = {
            "episodes": last["episode"],
            "weights": "exponential moving average" if config.ema else "last round",
            "figures": "of the last round's answers, drawn before its updates",
            **{name: last[name] for name in last if name.startswith(("objective/", "measure/"))},
        }
        with learner.ema_weights():
            card = {"method": "ppo-ptx" if config.ptx else "ppo", **summary}
            on_main(partial(save_model, policy, tokenizer, run.model_folder, card=card, encoder=encoder))
            verify_saved(policy, run.model_folder, encoder.text_batch([encoder.prompt_ids(prompt) for prompt in prompts[:4]])[0])
        return run.finish(summary)


def pretraining_rows(run: Run, policy: nn.Module, encoder: Encoder, config: PPOConfig) -> TokenBatch:
    """The pretraining text as rows to draw from."""
    reading = read_text(config.text)
    report_data(run, "text", reading.report, max_dropped=config.max_dropped)
    rows = encoder.packed_text(reading.records, config.ptx_block, control_tokens=config.control_tokens)
    refuse_longer_than_context(policy, rows.length, f"{config.text} (ptx_block = {config.ptx_block})")
    return rows


def draw(policy: nn.Module, encoder: Encoder, asked: list, run: Run, round: int, config: PPOConfig) -> Samples:
    """Answers of the present policy. Every process draws all of them: a row's draw depends on its number alone."""
    return sample(
        policy, encoder, asked, k=config.k, max_new_tokens=config.max_new_tokens, temperature=config.temperature,
        seed=run.seed("sample", round), batch_rows=config.sample_rows, source=f"policy:{run.name}@{round}",
    )  # fmt: skip


def logprobs_at(policy: nn.Module, batch: RolloutBatch, temperature: float) -> Tensor:
    """Of the answers' tokens under the present policy: B T."""
    return policy_logprobs(policy, batch.tokens, batch.is_response, temperature=temperature)


def objective(
    samples: Samples, raw: Tensor, score: Tensor, ref_logprobs: Tensor, is_response: Tensor, controls: Controls
) -> dict[str, float]:
    """Where the policy stands, per answer; names as in TRL."""
    drawn, under = samples.logprobs * is_response, ref_logprobs * is_response
    distance = k1(drawn, under).sum(1)
    return {
        "objective/scores": float(raw.mean()),
        "objective/scores_sd": float(raw.std(correction=0)),
        "objective/kl": float(distance.mean()),
        "objective/kl_k3": float((k3(drawn, under) * is_response).sum(1).mean()),
        "objective/non_score_reward": float(-controls.kl * distance.mean()),
        "objective/rlhf_reward": float((score - controls.kl * distance).mean()),
        "objective/entropy": float(-drawn.sum(1).mean()),
        "objective/length": float(is_response.sum(1).float().mean()),
        "val/num_eos_tokens": float(samples.is_finished.float().mean()),
        "kl_price": controls.kl,
    }


def averaged(updates: list[dict[str, float]]) -> dict[str, float]:
    """The round's mean of every figure of its updates.

    Figures of tokens are sums with the tokens' weights, which do not sum to one where the divisor is a constant.
    """
    names = {name: name for update in updates for name in update if name != "counted"}
    known = {
        "loss": "loss/policy_avg",
        "approxkl": "policy/approxkl_avg",
        "clipfrac": "policy/clipfrac_avg",
        "ratio": "val/ratio",
    }
    known |= {"critic/loss": "loss/value_avg", "critic/clipfrac": "val/clipfrac_avg"}
    of_tokens = ("approxkl", "clipfrac", "ratio", "ratio_gap", "critic/error", "critic/clipfrac", "critic/value")
    means = {
        name: float(np.mean([u[name] / (u["counted"] if name in of_tokens else 1.0) for u in updates if name in u]))
        for name in names
    }
    if means.get("grad_norm/0"):
        means["grad_norm/ptx_over_ppo"] = means["grad_norm/1"] / means["grad_norm/0"]
    return {known.get(name, name): value for name, value in means.items()}


def fit(rollouts: RolloutBatch) -> dict[str, float]:
    """How much of the variance of the returns the critic foresaw."""
    share_foreseen = explained_variance(rollouts.old_values, rollouts.returns, rollouts.is_response)
    return {"val/explained_variance": float(share_foreseen)}


def shown(samples: Samples, raw: Tensor, n: int) -> list[dict[str, Any]]:
    """The first answers of a round, to be read."""
    return [
        {"prompt": prompt.text, "answer": completion.text, "score": float(score)}
        for prompt, completion, score in list(zip(samples.prompts, samples.completions, raw, strict=True))[:n]
    ]
