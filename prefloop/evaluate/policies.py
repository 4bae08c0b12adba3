"""Policies side by side on the same held-out prompts: gold, win rate against a baseline, distance, length, skills.

Every policy answers every prompt ``k`` times; figures are means per prompt with intervals over prompts, and differences are
paired by prompt (core rule: an ordering is claimed only where the paired interval excludes zero). The distance to the
baseline is the mean over sampled answers of the sum over tokens of the exact KL between the two next-token
distributions, which has the same expectation as the log-ratio of the answer and less variance.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from prefloop.config import Config, Options
from prefloop.data.read import read_prompts
from prefloop.decoding.best_of import best_of
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import Run, open_run
from prefloop.evaluate.fluency import distinct, fluency
from prefloop.evaluate.over_seeds import FLUENCY, SKILL, difference, row
from prefloop.evaluate.skills import skill_hits
from prefloop.models.batch import Samples
from prefloop.models.encode import Encoder
from prefloop.models.evaluation import by_rows
from prefloop.models.heads import all_logits, head_is_plain, hidden_states, output_head
from prefloop.models.load import load_policy, load_tokenizer
from prefloop.models.sampling import sample
from prefloop.models.scorer import Scorer, load_scorer
from prefloop.models.tokenizer import refuse_other_tokenizer
from prefloop.ops.kl import full_kl
from prefloop.ops.logprobs import span_mask
from prefloop.records import Prompt
from prefloop.stats.best_of_n import best_of_n_curve, best_of_n_kl
from prefloop.stats.correlations import within_prompt_correlation
from prefloop.stats.intervals import mean_interval
from prefloop.stats.pair_accuracy import clustered_share
from prefloop.world import World


class BestOf(Config):
    """Best-of-n from one of the policies."""

    policy: str = Field("sft", description="whose answers")
    n: int = Field(16, ge=2, description="answers drawn to each prompt")
    name: str = Field("best_of_n", description="name of the row")
    prompts: int = Field(0, ge=0, description="use only the first so many prompts; 0 = all")


class PoliciesConfig(Config):
    """Compare policies on held-out prompts."""

    policies: dict[str, str] = Field(description="model folders by name, in the order of the table")
    baseline: str = Field("sft", description="the policy wins and distances are measured against")
    prompts: str = Field(description="prompts no training has seen")
    n: int = Field(300, ge=1, description="use at most the first n prompts")
    k: int = Field(2, ge=1, description="answers to each prompt")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the answers")
    gold: str = Field("", description="the score that counts, which no training has seen; empty leaves gold and wins unmeasured")
    reward: str = Field("", description="the learned score, shown beside it and used by best-of-n")
    proxies: dict[str, str] = Field(default={}, description="policies that were trained on another learned score")
    best_of: BestOf | None = None
    fluency: bool = Field(False, description="also how answers read: their surprise to the baseline, and repetition")
    skills: list[str] = Field(default=[], description="world skills to test, by name")
    skill_items: int = Field(100, ge=1, description="items of each skill")
    language: str = Field("en", description="language of the world the skills come from")
    pairs: list[tuple[str, str]] = Field(
        default=[], description="rows to compare, better one first; empty compares all with the baseline"
    )
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    shown: int = Field(6, ge=0, description="prompts whose answers are kept to be read")
    seed: int = 0

    @model_validator(mode="after")
    def names_are_known(self) -> "PoliciesConfig":
        if self.baseline not in self.policies:
            raise ValueError(f"the baseline {self.baseline!r} is not among the policies: {', '.join(self.policies)}")
        if self.best_of and self.best_of.policy not in self.policies:
            raise ValueError(f"best_of.policy {self.best_of.policy!r} is not among the policies: {', '.join(self.policies)}")
        if self.best_of and not self.reward:
            raise ValueError("best_of chooses by the learned score: give reward")
        if self.best_of and self.best_of.name in self.policies:
            raise ValueError(f"best_of.name {self.best_of.name!r} is the name of a policy; give the row a name of its own")
        strangers = {name for pair in self.pairs for name in pair} - set(
            ordered(self)
        ) | self.proxies.keys() - self.policies.keys()
        if strangers:
            raise ValueError(f"pairs or proxies name {', '.join(sorted(strangers))}; the rows are {', '.join(ordered(self))}")
        if unknown := sorted(set(self.skills) - set(World.SKILLS)):
            raise ValueError(f"the world has no skill {', '.join(unknown)}; it has {', '.join(World.SKILLS)}")
        return self


Figures = dict[str, list[float]]
Table = dict[str, Figures]  # row -> figure -> one value per prompt (or per skill item)


def main(config: PoliciesConfig, options: Options) -> dict:
    """Write ``per_prompt.json`` and the summary table."""
    parents = {name: Path(folder) for name, folder in config.policies.items()} | {"prompts": Path(config.prompts)}
    with open_run("evaluate", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_prompts(config.prompts)
        report_data(run, "prompts", reading.report)
        prompts = reading.records[: config.n]
        if options.dry_run:
            return forecast(
                run, Plan(steps=0, rows=len(prompts), tokens=config.max_new_tokens), n_rows=len(prompts), parameters=0
            )
        gold = load_scorer(config.gold, device=run.device, template=config.template) if config.gold else None
        baseline = load_policy(config.policies[config.baseline], device=run.device)
        per_prompt: Table = {}
        answers: dict[str, Samples] = {}
        bon: list[dict] = []
        proxy_trust: dict = {}
        for folder in config.policies.values():
            refuse_other_tokenizer(folder, config.policies[config.baseline], "the distance to the baseline")
        for name, folder in run.track(list(config.policies.items()), description="evaluate"):
            encoder = Encoder(load_tokenizer(folder), template=config.template)
            model = load_policy(folder, device=run.device)
            samples = drawn(model, encoder, prompts, config, k=config.k, seed=run.seed("sample"))
            answers[name] = samples
            per_prompt[name] = figures(samples, len(prompts), gold) | {"kl": distances(model, baseline, samples, config)}
            if spec := config.proxies.get(name, config.reward):
                per_prompt[name]["proxy"] = learned_score(spec, samples, len(prompts), config, run)
            if config.fluency:
                per_prompt[name] |= named(fluency(baseline, samples, len(prompts)))
            for skill in config.skills:
                per_prompt[name][f"skill/{skill}"] = skill_hits(
                    model, encoder, skill, n=config.skill_items, language=config.language
                )
            if config.best_of and config.best_of.policy == name:
                chosen, bon, proxy_trust = best(model, encoder, prompts, gold, config, run)
                answers[config.best_of.name] = chosen
                asked = len(chosen.prompts)
                per_prompt[config.best_of.name] = figures(chosen, asked, gold) | {
                    "proxy": learned_score(config.reward, chosen, asked, config, run),
                    **{figure: values for figure, values in per_prompt[name].items() if figure.startswith(SKILL)},
                }
                if name == config.baseline:  # the bound is on the distance from the policy that drew the answers
                    per_prompt[config.best_of.name]["kl"] = [float(best_of_n_kl(config.best_of.n))] * asked
                if config.fluency:
                    per_prompt[config.best_of.name] |= named(fluency(baseline, chosen, asked))
        if gold:
            rivals = answers[config.baseline]
            if config.k == 1:  # with one answer each there is no pair of independent draws among them
                encoder = Encoder(load_tokenizer(config.policies[config.baseline]), template=config.template)
                rivals = drawn(baseline, encoder, prompts, config, k=1, seed=run.seed("rivals"))
            wins(per_prompt, answers, rivals, gold, config)
        run.write_json("per_prompt.json", per_prompt)
        run.write_json("prompts.json", [prompt.id for prompt in prompts])
        run.write_json("samples.json", read_aloud(prompts, answers, gold, config))
        chooser = config.best_of.name if config.best_of else ""
        rows = [row(name, [per_prompt], baseline=config.baseline, is_bound=name == chooser) for name in ordered(config)]
        if config.fluency:
            rows = [told | {"fluency": told["fluency"] | variety(answers[told["name"]])} for told in rows]
        paired = [
            difference(a, b, metric, [per_prompt])
            for a, b in comparisons(config)
            for metric in compared(per_prompt[a], per_prompt[b], config)
            if chooser not in (a, b) or not metric.startswith(SKILL)  # it has its policy's skills: nothing to compare
        ]
        return run.finish(
            {
                "baseline": config.baseline,
                "rows": rows,
                "paired": paired,
                "best_of_n": bon,
                "proxy_trust": proxy_trust,
                "prompts": len(prompts),
                "k": config.k,
            }
        )


def drawn(model: nn.Module, encoder: Encoder, prompts: list[Prompt], config: PoliciesConfig, *, k: int, seed: int) -> Samples:
    return sample(model, encoder, prompts, k=k, max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=seed)


def means(values, n_prompts: int) -> list[float]:
    """One mean per prompt from values of adjacent rows."""
    return np.asarray(values, dtype=float).reshape(n_prompts, -1).mean(1).tolist()


def named(figures: dict[str, list[float]]) -> dict[str, list[float]]:
    return {f"fluency/{name}": values for name, values in figures.items()}


def variety(samples: Samples) -> dict[str, float]:
    """Distinct words and pairs of words of the first answers to all prompts together: low where each gets the same answer."""
    first = {completion.prompt_id: completion.text for completion in reversed(samples.completions)}
    texts = list(first.values())
    return {f"distinct_{n}_of_all": distinct(texts, n) for n in (1, 2)}


def learned_score(spec: str, samples: Samples, n_prompts: int, config: PoliciesConfig, run: Run) -> list[float]:
    """What a reward model thinks of the answers, a mean per prompt."""
    scorer = load_scorer(spec, device=run.device, template=config.template)
    return means(scorer(samples.prompts, samples.completions), n_prompts)


def figures(samples: Samples, n_prompts: int, gold: Scorer | None) -> dict[str, list[float]]:
    return {
        **({"gold": means(gold(samples.prompts, samples.completions), n_prompts)} if gold else {}),
        "length": means((samples.length - samples.prompt_length).float(), n_prompts),
        "finished": means(samples.is_finished.float(), n_prompts),
    }


@torch.no_grad()
def distances(model: nn.Module, baseline: nn.Module, samples: Samples, config: PoliciesConfig) -> list[float]:
    """KL to the baseline in nats per answer, per prompt."""
    is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])

    def token_kl(tokens: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        predicts = wanted[:, 1:]  # B T-1, position t predicts token t + 1
        logits, under = (logits_at(side, tokens, predicts) / config.temperature for side in (model, baseline))
        kl = torch.zeros(tokens.shape, device=tokens.device)
        kl[:, 1:][predicts] = full_kl(logits, under)
        return kl

    device = next(model.parameters()).device
    per_token = by_rows(token_kl, samples.tokens, samples.length, is_response, device=device)
    return means(per_token.sum(1), len(samples.prompts) // config.k)


def logits_at(model: nn.Module, tokens: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
    """The logits at the positions where a token is predicted: B T, B T-1 -> R V."""
    if head_is_plain(model):
        return output_head(model)(hidden_states(model, tokens)[:, :-1][predicts])
    return all_logits(model, tokens)[:, :-1][predicts]


def best(
    model: nn.Module, encoder: Encoder, prompts: list[Prompt], gold: Scorer | None, config: PoliciesConfig, run: Run
) -> tuple[Samples, list[dict], dict]:
    """The answers best-of-n returns, its curve over n (unbiased for every n from the same draws), and how the proxy orders them.

    Without gold there is the proxy's side of it alone.
    """
    if config.best_of is None:
        raise ValueError("best() needs config.best_of")
    n = config.best_of.n
    asked = prompts[: config.best_of.prompts or None]
    samples = drawn(model, encoder, asked, config, k=n, seed=run.seed("best_of_n"))
    proxy = np.asarray(
        load_scorer(config.reward, device=run.device, template=config.template)(samples.prompts, samples.completions)
    ).reshape(-1, n)
    truth = np.asarray(gold(samples.prompts, samples.completions)).reshape(-1, n) if gold else None
    rows = torch.from_numpy(np.arange(len(asked)) * n + np.asarray(best_of(proxy)))
    chosen = Samples(
        prompts=tuple(samples.prompts[i] for i in rows),
        completions=tuple(samples.completions[i] for i in rows),
        **{f: getattr(samples, f)[rows] for f in ("tokens", "prompt_length", "length", "logprobs", "is_finished")},
    )
    sizes = sorted({m for m in (1, 2, 4, 8, 16, 32, 64, 128, 256) if m < n} | {n})
    points = []
    for point in best_of_n_curve(proxy, proxy if truth is None else truth, sizes):
        gold_of_n = mean_interval(point.gold).as_dict() if truth is not None else dict.fromkeys(("mean", "low", "high"))
        points.append(
            {"n": point.n, "kl": point.kl, "proxy": float(np.mean(point.proxy)), "gold": gold_of_n["mean"]} | ends(gold_of_n)
        )
    length = (samples.length - samples.prompt_length).numpy().reshape(-1, n)
    trust: dict = {"length_correlation": within_prompt_correlation(proxy, length)}
    if truth is not None:
        trust["gold_accuracy"] = order_agreement(proxy, truth)
    return chosen, points, trust


def ends(interval: dict) -> dict:
    return {end: interval[end] for end in ("low", "high")}


def order_agreement(proxy: np.ndarray, truth: np.ndarray) -> dict:
    """Share of pairs of answers to one prompt that the proxy orders as gold does; pairs gold cannot order are left out.  P N"""
    first, second = np.triu_indices(proxy.shape[1], 1)
    by_gold, by_proxy = truth[:, first] - truth[:, second], proxy[:, first] - proxy[:, second]
    agrees = np.where(by_proxy == 0, 0.5, np.sign(by_proxy) == np.sign(by_gold))
    return clustered_share([hits[is_ordered] for hits, is_ordered in zip(agrees, by_gold != 0, strict=True)])


def wins(per_prompt: Table, answers: dict[str, Samples], rivals: Samples, gold: Scorer, config: PoliciesConfig) -> None:
    """Adds the share of pairs of independent answers in which a row beats the baseline by gold, ties counting half.

    The i-th answers of all policies come of the same random numbers (models/sampling.py), so that of two policies that
    agree they are the same answer and a tie. A pair is therefore answer i of the one and answer j of the other with j not i.
    ``rivals`` are the baseline's own answers, or with k = 1 others, drawn with random numbers of their own; so are those of
    best-of-n. The baseline wins half against itself.
    """
    base = np.asarray(gold(rivals.prompts, rivals.completions)).reshape(-1, config.k)
    for name, samples in answers.items():
        theirs = np.asarray(gold(samples.prompts, samples.completions)).reshape(len(per_prompt[name]["gold"]), -1)
        shares_numbers = config.k > 1 and name in config.policies
        share = share_won(theirs, base[: len(theirs)], without_diagonal=shares_numbers)
        per_prompt[name]["win"] = share.tolist() if name != config.baseline else [0.5] * len(share)


def share_won(a: np.ndarray, b: np.ndarray, *, without_diagonal: bool) -> np.ndarray:
    """Per prompt the share of pairs of a value of ``a`` and one of ``b`` in which a is more, ties half.  P K, P L -> P"""
    gap = a[:, :, None] - b[:, None, :]
    is_pair = ~np.eye(*gap.shape[1:], dtype=bool) if without_diagonal else np.ones(gap.shape[1:], dtype=bool)
    return ((gap > 0) + 0.5 * (gap == 0))[:, is_pair].mean(1)


def ordered(config: PoliciesConfig) -> list[str]:
    """Row names: best-of-n stands right after the policy it draws from."""
    names = []
    for name in config.policies:
        names.append(name)
        if config.best_of and config.best_of.policy == name:
            names.append(config.best_of.name)
    return names


def comparisons(config: PoliciesConfig) -> list[tuple[str, str]]:
    return config.pairs or [(name, config.baseline) for name in ordered(config) if name != config.baseline]


def compared(a: Figures, b: Figures, config: PoliciesConfig) -> list[str]:
    """What two rows are compared in: gold, every skill, how answers read; and without gold what one reward model thinks of both."""
    one_proxy = not config.gold and not config.proxies
    wanted = [f for f in a if f == "gold" or (f == "proxy" and one_proxy) or f.startswith((SKILL, FLUENCY))]
    return [figure for figure in wanted if figure in b]


def read_aloud(prompts: list[Prompt], answers: dict[str, Samples], gold: Scorer | None, config: PoliciesConfig) -> list[dict]:
    """The first answers to the first prompts, side by side."""
    table = [{"prompt": prompt.text, "answers": []} for prompt in prompts[: config.shown]]
    for name in ordered(config):
        samples = answers[name]
        per_prompt = len(samples.prompts) // len({prompt.id for prompt in samples.prompts})
        for index, line in enumerate(table):
            i = index * per_prompt
            if i < len(samples.prompts):
                text = samples.completions[i]
                worth = {"gold": float(gold([samples.prompts[i]], [text])[0])} if gold else {}
                line["answers"].append({"policy": name, "text": text.text, **worth})
    return json.loads(json.dumps(table))
