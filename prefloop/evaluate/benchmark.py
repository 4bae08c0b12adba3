"""A simulated benchmark: methods under simulated labels, beside the same methods under labels of the truth.

The protocol is AlpacaFarm's (Dubois et al. 2023, arXiv 2305.14387), on the embedded world, where the truth is a formula: a pool
of thirteen annotators who differ in taste and attention, a quarter of whose labels are flipped, teaches and judges every
method; does the order it finds hold under labels of the truth, judged by the truth? And is the better answer by a learned reward
still the better answer where it is the best of many?

    win by the pool    share of pairs of independent answers, ties half, that the pool prefers to the baseline's, without flips and
                       in closed form (``pair_probabilities`` of prefloop.world.annotators), so that no draw of an annotator adds noise
    win by gold        the same by the gold reward
    best of n          from draws of the baseline, expected for every n without bias (prefloop.stats.best_of_n)
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from prefloop.config import Config, Options
from prefloop.data.read import read_groups, read_prompts
from prefloop.data.reward_spec import files_of
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.plan import Plan
from prefloop.engine.run import Run, open_run
from prefloop.errors import DataError
from prefloop.evaluate.benchmark_over_seeds import BASELINE, PerPrompt, over_runs
from prefloop.models.encode import Encoder
from prefloop.models.load import load_policy, load_tokenizer
from prefloop.models.sampling import sample
from prefloop.models.scorer import Scorer, load_scorer
from prefloop.records import Completion, Group, Prompt
from prefloop.stats.best_of_n import picked_by_best_of_n
from prefloop.world import World
from prefloop.world.annotators import Annotator, base_utility, placed_above, pool
from prefloop.world.gold import Judged, total
from prefloop.world.stages import refuse_foreign

ROUNDING = 9  # decimals of gold that count


class Choosers(Config):
    """Best-of-n as one of the methods: which of ``rewards`` chooses."""

    n: int = Field(16, ge=2, description="answers chosen among")
    simulated: str = Field(description="name of the reward learned from simulated labels")
    real: str = Field(description="name of the reward learned from labels of the truth")


class BenchmarkConfig(Config):
    """Methods under simulated labels, beside the truth."""

    baseline: str = Field(description="model folder everything is compared with, usually the SFT model")
    simulated: dict[str, str] = Field(default={}, description="policies by method, trained on labels of the simulated annotators")
    real: dict[str, str] = Field(default={}, description="the same methods, trained on labels of the truth")
    prompts: str = Field(description="prompts of the world that no training has seen")
    draws: str = Field("", description="what best-of-n chooses from: completions of the baseline (sample with repeats=true)")
    rewards: dict[str, str] = Field(default={}, description="scorers whose best-of-n is followed over n, by name")
    best_of: Choosers | None = None
    n: int = Field(120, ge=1, description="use at most the first n prompts")
    k: int = Field(2, ge=1, description="answers of each policy to each prompt")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")
    temperature: float = Field(1.0, gt=0, description="of the answers")
    annotators: int = Field(13, ge=1, le=13, description="size of the pool that judges")
    version: int = Field(1, ge=1, description="version of the world")
    language: Literal["en", "zh"] = Field("en", description="language of prompts and answers")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    seed: int = 0

    @model_validator(mode="after")
    def what_belongs_together_is_there(self) -> "BenchmarkConfig":
        if set(self.simulated) != set(self.real):
            odd = ", ".join(sorted(set(self.simulated) ^ set(self.real)))
            raise ValueError(f"simulated and real are the same methods under two kinds of labels; in one of them alone: {odd}")
        if bool(self.rewards) != bool(self.draws):
            raise ValueError("draws and rewards belong together: best-of-n chooses from the draws by a reward")
        if not self.rewards and not self.simulated:
            raise ValueError("there is nothing to compare: name methods (simulated, real), or draws and rewards")
        wanted = {self.best_of.simulated, self.best_of.real} if self.best_of else set()
        if wanted - set(self.rewards):
            raise ValueError(
                f"best_of names {', '.join(sorted(wanted - set(self.rewards)))}; rewards has {', '.join(self.rewards) or 'none'}"
            )
        if BASELINE in self.simulated or (self.best_of and name_of(self.best_of) in self.simulated):
            raise ValueError(f"{BASELINE} and best_of_n are rows of their own; give that method another name")
        return self


def name_of(best_of: Choosers) -> str:
    return f"best_of_{best_of.n}"


def main(config: BenchmarkConfig, options: Options) -> dict:
    """Write ``per_prompt.json``; returns the table, the agreement of orders, and best-of-n over n."""
    with open_run("benchmark", config, options, parents=parents_of(config), seed=config.seed) as run:
        if run.finished:
            return run.finished
        reading = read_prompts(config.prompts)
        report_data(run, "prompts", reading.report)
        prompts = reading.records[: config.n]
        world, people = World(version=config.version, language=config.language), pool(config.annotators)
        refuse_foreign(world, [Group(prompt=prompt, completions=()) for prompt in prompts], config.prompts)
        if options.dry_run:
            plan = Plan(steps=0, rows=len(prompts) * config.k, tokens=config.max_new_tokens)
            return forecast(run, plan, n_rows=len(prompts), parameters=0)
        drawn = read_draws(config, prompts)
        rivals = judged_answers(world, config.baseline, prompts, config, run, seed="rivals")
        own = [{"gold": float(np.mean(golds(row)))} for row in rivals]
        told = [one | {"win_gold": 0.5, "win_pool": 0.5} for one in own]
        per_prompt: PerPrompt = {
            "prompts": [prompt.id for prompt in prompts],
            "answers": {"simulated": {BASELINE: columns(told)}, "real": {BASELINE: columns(told)}},
            "best_of_n": {},
            "judges": columns([judges(row[:1], row[1:], people) for row in rivals]) if config.k > 1 else {},
        }
        todo = [(side, name, folder) for side in ("simulated", "real") for name, folder in getattr(config, side).items()]
        for side, name, folder in run.track(todo, description="benchmark"):
            answers = judged_answers(world, folder, prompts, config, run, seed="answers")
            per_prompt["answers"][side][name] = columns([against(a, b, people) for a, b in zip(answers, rivals, strict=True)])
        if drawn:
            add_best_of_n(per_prompt, drawn, rivals, world, people, config, run)
        run.write_json("per_prompt.json", per_prompt)
        return run.finish({**over_runs([per_prompt]), "prompts": len(prompts), "k": config.k})


def add_best_of_n(
    per_prompt: PerPrompt,
    drawn: Sequence[Group],
    rivals: Sequence[Sequence[Judged]],
    world: World,
    people: Sequence[Annotator],
    config: BenchmarkConfig,
    run: Run,
) -> None:
    """Every reward chooses among the same draws: its curves over n, and best-of-n as one of the methods."""
    judged = [[world.judge(group.prompt, c.text) for c in group.completions] for group in drawn]
    gold = np.array([golds(row) for row in judged])  # P N
    load = partial(load_scorer, device=run.device, template=config.template)
    proxies = {name: scores_of(load(spec), drawn) for name, spec in config.rewards.items()}  # P N each
    sizes = powers_of_two(gold.shape[1])
    for name, proxy in proxies.items():
        by_proxy, by_gold = (picked_by_best_of_n(proxy, side, sizes) for side in (proxy, gold))  # M P
        per_prompt["best_of_n"][name] = {"n": sizes, "proxy": by_proxy.T.tolist(), "gold": by_gold.T.tolist()}
    if config.best_of:
        figures = {"gold": gold, **dict(zip(("win_pool", "win_gold"), won(judged, rivals, people), strict=True))}
        for side in ("simulated", "real"):
            proxy = proxies[getattr(config.best_of, side)]
            picked = {name: picked_by_best_of_n(proxy, of, [config.best_of.n])[0].tolist() for name, of in figures.items()}
            per_prompt["answers"][side][name_of(config.best_of)] = picked


def parents_of(config: BenchmarkConfig) -> dict[str, Path]:
    """What the run reads, by name."""
    policies = {f"{side}/{name}": folder for side in ("simulated", "real") for name, folder in getattr(config, side).items()}
    rewards = {f"reward/{name}": next(iter(files_of(spec)), spec) for name, spec in config.rewards.items()}
    named = {"baseline": config.baseline, "prompts": config.prompts, "draws": config.draws, **policies, **rewards}
    return {name: Path(place) for name, place in named.items() if place}


# ------------------------------------------------------------------------------------------------ answers


def judged_answers(
    world: World, folder: str, prompts: Sequence[Prompt], config: BenchmarkConfig, run: Run, *, seed: str
) -> list[list[Judged]]:
    """Fresh answers of a policy as the world sees them, ``k`` to each prompt; those of the baseline have random numbers of their own."""
    samples = sample(
        load_policy(folder, device=run.device), Encoder(load_tokenizer(folder), template=config.template), prompts,
        k=config.k, max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=run.seed(seed),
    )  # fmt: skip
    judged = [world.judge(prompt, c.text) for prompt, c in zip(samples.prompts, samples.completions, strict=True)]
    return [judged[i : i + config.k] for i in range(0, len(judged), config.k)]


def read_draws(config: BenchmarkConfig, prompts: Sequence[Prompt]) -> list[Group]:
    """The draws of every prompt, as many of each."""
    if not config.draws:
        return []
    found = {group.prompt.id: group for group in read_groups(config.draws, allow_unranked=True).records}
    without = [prompt.text for prompt in prompts if prompt.id not in found]
    if without:
        raise DataError(
            f"{config.draws} has no answers to {len(without)} of {len(prompts)} prompts, e.g. {without[0][:60]!r}\n"
            f"  draw them from the same prompts (prefloop sample prompts={config.prompts} repeats=true)"
        )
    drawn = [found[prompt.id] for prompt in prompts]
    sizes = sorted({len(group.completions) for group in drawn})
    if len(sizes) > 1:
        raise DataError(
            f"{config.draws} has between {sizes[0]} and {sizes[-1]} answers to a prompt, and best-of-n needs as many of each\n"
            f"  an answer drawn twice counts twice here: sample with repeats=true"
        )
    if config.best_of and config.best_of.n > sizes[0]:
        raise DataError(
            f"best_of.n = {config.best_of.n}, and {config.draws} has {sizes[0]} answers to a prompt\n  draw more, or choose a smaller n"
        )
    return drawn


def scores_of(scorer: Scorer, drawn: Sequence[Group]) -> np.ndarray:
    """The score of every draw; an answer drawn several times is scored once.  P N"""
    asked: dict[tuple[str, str], tuple[Prompt, Completion]] = {
        (group.prompt.id, completion.text): (group.prompt, completion) for group in drawn for completion in group.completions
    }
    prompts, completions = zip(*asked.values(), strict=True)
    score = dict(zip(asked, scorer(prompts, completions), strict=True))
    return np.array([[score[group.prompt.id, c.text] for c in group.completions] for group in drawn], dtype=float)


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... and n."""
    return sorted({2**power for power in range(n.bit_length()) if 2**power < n} | {n})


# ------------------------------------------------------------------------------------------------ judgments


def golds(judged: Sequence[Judged]) -> list[float]:
    return [round(total(one.terms), ROUNDING) for one in judged]


def against(ours: Sequence[Judged], theirs: Sequence[Judged], people: Sequence[Annotator]) -> dict[str, float]:
    """The figures of one policy on one prompt: its worth, and wins over all pairs of one of its answers and one of the rival's."""
    gold = golds(ours)
    by_pool, by_gold = preferred(ours, theirs, people), share_above(gold, golds(theirs))
    return {"gold": float(np.mean(gold)), "win_pool": float(by_pool.mean()), "win_gold": float(by_gold.mean())}


def won(
    drawn: Sequence[Sequence[Judged]], rivals: Sequence[Sequence[Judged]], people: Sequence[Annotator]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each draw the share of the rival's answers it beats, by the pool and by gold.  P N each"""
    both = [
        (preferred(a, b, people).mean(1), share_above(golds(a), golds(b)).mean(1)) for a, b in zip(drawn, rivals, strict=True)
    ]
    by_pool, by_gold = zip(*both, strict=True)
    return np.array(by_pool), np.array(by_gold)


def share_above(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    """1 where ours is more, 1/2 where equal.  K, L to K L"""
    return (np.sign(np.subtract.outer(ours, theirs)) + 1) / 2


def preferred(ours: Sequence[Judged], theirs: Sequence[Judged], people: Sequence[Annotator]) -> np.ndarray:
    """How likely somebody of the pool prefers each of ours to each of theirs, shown as two in random order, a tie half.  K, L to K L"""
    shown = [chances(ours, theirs, people, first=sign) for sign in (1, -1)]
    return np.mean([above + tied / 2 for above, tied, _ in shown], axis=0).mean(0)


def judges(ours: Sequence[Judged], theirs: Sequence[Judged], people: Sequence[Annotator]) -> dict[str, float]:
    """How far the pool can be relied on, over all pairs of one answer of each side: expected marks, 1/2 where one of two ties.

    gold     an annotator agrees with gold
    others   two annotators agree, both shown the pair in the same order
    swapped  an annotator agrees with itself when it is asked again with the two in the other order
    """
    gold = np.sign(np.subtract.outer(golds(ours), golds(theirs)))  # K L
    first, second = (chances(ours, theirs, people, first=sign) for sign in (1, -1))  # above, tied, below: each A K L
    truth = tuple(np.broadcast_to((gold == sign).astype(float), first[0].shape) for sign in (1, 0, -1))
    n = len(people)
    other = [marked(first[:, [a]], first[:, [b]]).mean() for a in range(n) for b in range(a)]
    return {
        "gold": float(marked(first, truth).mean() + marked(second, truth).mean()) / 2,
        "others": float(np.mean(other)) if other else 1.0,
        "swapped": float(marked(first, second).mean()),
    }


def chances(ours: Sequence[Judged], theirs: Sequence[Judged], people: Sequence[Annotator], *, first: int) -> np.ndarray:
    """How likely each annotator is to place ours above, level with and below theirs; ``first`` 1 shows ours first, -1 theirs.  3 A K L"""
    mine, other = (np.array([[base_utility(who, one) for one in side] for who in people]) for side in (ours, theirs))  # A K, A L
    temperature, band, bonus = (
        np.array([getattr(who, name) for who in people])[:, None, None] for name in ("temperature", "tie_band", "first_bonus")
    )
    margin = mine[:, :, None] - other[:, None, :] + first * bonus
    above, below = placed_above(margin, temperature, band), placed_above(-margin, temperature, band)
    return np.stack([above, 1 - above - below, below])


def marked(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Expected marks of two independent judgments: 1 where they say the same, 1/2 where one of them ties.  3 ..., 3 ... to ..."""
    same = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return same + (a[1] * (1 - b[1]) + b[1] * (1 - a[1])) / 2


def columns(told: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """One dict a prompt to one list a figure."""
    return {name: [one[name] for one in told] for name in told[0]}
