"""How far reward models can be trusted on fresh answers of given policies, and which synthetic preferences were right.

Every policy answers every prompt ``k`` times. The different answers to a prompt are put in the order of ``gold``, and every
reward model orders the same answers. Per prompt, over the pairs that gold can order:

    accuracy         share the model orders as gold does
    loss             -log of the chance the model gave to gold's order, in nats; log 2 is what a coin pays
    overconfidence   mean chance the model gives its own favourite, minus how often the favourite is the better one

A reward model meets other answers after PPO than those it learned from; this is where that shows. Of ``prefloop relearn``
runs it is also asked how often the winner of a synthetic pair is the better answer, by the confidence of the policy: where
that does not rise with confidence, the policy is surely wrong, and its confidence is no evidence.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from prefloop.config import Config, Options
from prefloop.data.read import read_prompts
from prefloop.data.reward_spec import files_of
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import Run, open_run
from prefloop.errors import DataError
from prefloop.evaluate.trust_over_seeds import PerPrompt, over_runs
from prefloop.models.encode import Encoder
from prefloop.models.load import load_policy, load_tokenizer
from prefloop.models.sampling import sample
from prefloop.models.scorer import Scorer, load_scorer
from prefloop.records import Completion, Group, Prompt, Ranking
from prefloop.stats.pair_accuracy import by_prompt, calibration, hits, of_prompts, signed_gaps

ROUNDING = 9  # decimals of gold that count; sums of the same terms may differ beyond them


class TrustConfig(Config):
    """Reward models on fresh answers, beside a truth."""

    rewards: dict[str, str] = Field(
        min_length=1, description="reward models (or other scorers) by name, in the order of the table"
    )
    policies: dict[str, str] = Field(min_length=1, description="whose fresh answers, model folders by name")
    prompts: str = Field(description="prompts no training has seen")
    gold: str = Field(description="the score that counts, which no training has seen")
    baseline: str = Field("", description="the reward model the others are compared with; empty = the first")
    synthetic: dict[str, str] = Field(
        default={}, description="folders of relearn runs by name, whose synthetic pairs are compared with gold"
    )
    n: int = Field(300, ge=1, description="use at most the first n prompts")
    k: int = Field(4, ge=2, description="answers of each policy to each prompt; the same answer twice counts once")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the answers")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    seed: int = 0

    @model_validator(mode="after")
    def the_baseline_is_a_reward(self) -> "TrustConfig":
        if self.baseline and self.baseline not in self.rewards:
            raise ValueError(f"the baseline {self.baseline!r} is not among the rewards: {', '.join(self.rewards)}")
        return self


def main(config: TrustConfig, options: Options) -> dict:
    """Write ``per_prompt.json``; returns the table, its paired differences, and accuracy of synthetic pairs by confidence."""
    with open_run("trust", config, options, parents=parents_of(config), seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_prompts(config.prompts)
        report_data(run, "prompts", reading.report)
        prompts = reading.records[: config.n]
        if options.dry_run:
            plan = Plan(steps=0, rows=len(prompts) * config.k, tokens=config.max_new_tokens)
            return forecast(run, plan, n_rows=len(prompts), parameters=0)
        load = partial(load_scorer, device=run.device, template=config.template)
        gold = load(config.gold)
        scorers = {name: load(spec) for name, spec in config.rewards.items()}
        per_prompt: PerPrompt = {"answers": {}, "synthetic": {}}
        bins: dict[tuple[str, str], list] = {}
        for policy, folder in run.track(list(config.policies.items()), description="trust"):
            judged = in_gold_order(fresh_answers(folder, prompts, config, run), gold)
            if not any(group.rankings for group in judged):
                raise DataError(
                    f"gold orders no two answers of {policy} to any of {len(prompts)} prompts, so nothing can be judged\n"
                    f"  draw more answers (k={config.k}), or look at what {folder} says with prefloop sample"
                )
            per_prompt["answers"][policy] = {}
            for name, scorer in scorers.items():
                scored = scores_of(scorer, judged)
                per_prompt["answers"][policy][name] = trusted(judged, scored)
                bins[policy, name] = calibration(judged, scored)
        for name, folder in config.synthetic.items():
            per_prompt["synthetic"][name] = synthetic_pairs(Path(folder), gold)
        run.write_json("per_prompt.json", per_prompt)
        found = over_runs([per_prompt], baseline=config.baseline)
        for row in found["rows"]:
            row["calibration"] = bins[row["policy"], row["reward"]]
        return run.finish({**found, "prompts": len(prompts), "k": config.k})


def parents_of(config: TrustConfig) -> dict[str, Path]:
    """What the run reads, by name."""
    scored = {f"reward/{name}": next(iter(files_of(spec)), spec) for name, spec in config.rewards.items()}
    others = {"policy": config.policies, "synthetic": config.synthetic, "prompts": {"": config.prompts}}
    named = {f"{kind}/{name}".rstrip("/"): folder for kind, folders in others.items() for name, folder in folders.items()}
    return {name: Path(place) for name, place in (scored | named).items()}


def fresh_answers(folder: str, prompts: Sequence[Prompt], config: TrustConfig, run: Run) -> list[Group]:
    """The different answers of a policy to each prompt."""
    samples = sample(
        load_policy(folder, device=run.device), Encoder(load_tokenizer(folder), template=config.template), prompts,
        k=config.k, max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=run.seed("sample"),
    )  # fmt: skip
    answers: dict[str, dict[str, Completion]] = {prompt.id: {} for prompt in prompts}
    for completion in samples.completions:
        answers[completion.prompt_id].setdefault(completion.text, completion)
    return [Group(prompt=prompt, completions=tuple(answers[prompt.id].values())) for prompt in prompts]


def in_gold_order(answered: Sequence[Group], gold: Scorer) -> list[Group]:
    """Each group with the ranking that gold makes of it; none where gold is equal throughout."""
    ranked = []
    for group, worth in zip(answered, scores_of(gold, answered), strict=True):
        places = {c.id: round(value, ROUNDING) for c, value in zip(group.completions, worth, strict=True)}
        tiers = tuple(tuple(c for c in places if places[c] == value) for value in sorted(set(places.values()), reverse=True))
        ranking = Ranking(prompt_id=group.prompt.id, tiers=tiers, shown=tuple(places), annotator="gold")
        ranked.append(group.model_copy(update={"rankings": (ranking,) if len(tiers) > 1 else ()}))
    return ranked


def scores_of(scorer: Scorer, answered: Sequence[Group]) -> list[list[float]]:
    """The score of every completion of every group."""
    prompts = [group.prompt for group in answered for _ in group.completions]
    flat = iter(scorer(prompts, [completion for group in answered for completion in group.completions]))
    return [[next(flat) for _ in group.completions] for group in answered]


def trusted(judged: Sequence[Group], scored: Sequence[Sequence[float]]) -> dict[str, list]:
    """One value of each figure for each prompt that has an ordered pair."""
    told = by_prompt(judged, scored)
    gaps = of_prompts(judged, signed_gaps(judged, scored))
    stated = {prompt: 1 / (1 + np.exp(-np.abs(gap).clip(max=50))) for prompt, gap in gaps.items()}
    sure = [float((stated[prompt] - hits(gaps[prompt])).mean()) for prompt in told["prompt"]]
    return {**{name: told[name] for name in ("prompt", "pairs", "accuracy", "loss")}, "overconfidence": sure}


def synthetic_pairs(folder: Path, gold: Scorer) -> dict[str, list]:
    """Every pair of a relearn run, learned from or not, beside gold: who was right, by how much, how sure."""
    path = folder / "pairs.jsonl"
    if not path.is_file():
        raise DataError(f"{path} is not there\n  synthetic names folders of prefloop relearn runs that made pairs (pairs=spg)")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["winner"] is not None]
    prompts = [Prompt.of(line["prompt"]) for line in lines]
    won, lost = (
        np.round(gold(prompts, [Completion.of(p, line[side]) for p, line in zip(prompts, lines, strict=True)]), ROUNDING)
        for side in ("winner", "loser")
    )
    return {
        "prompt": [line["prompt_id"] for line in lines],
        "confidence": [line["confidence"] for line in lines],
        "learned": [not line["reason"] for line in lines],
        "accuracy": hits(won - lost).tolist(),
        "gap": (won - lost).tolist(),
    }
