"""Reward learning on policy: the reward is learned again, on the policy's own answers (RLP, arXiv 2403.19279, section 4).

A reward model learned from answers of the SFT model is asked, after PPO, about answers it has never seen the like of. RLP
retrains it from the SFT model on people's rankings D and on what the new policy says, without asking anybody again:

    L = - E over D and D' of log sigmoid(r(x, y_w) - r(x, y_l))  +  lam L_M                                    equation 1

    SPG   D', synthetic preferences: n answers of the policy to a prompt are clustered by meaning; where the largest cluster holds
          a share of at least ``confidence``, its best answer by the old reward is placed above a random one outside of it
    UML   L_M, a bottleneck on the representation: what two answers to one prompt share is kept, what only one tells is
          squeezed out (``ops/bottleneck.py``)

PPO is then run again, from the SFT model. The paper reports SPG and UML apart and writes their sum down; here any mixture runs.
There is no released implementation. Where the paper is silent: z has 64 dimensions and heads and critic three layers; a view
is the hidden state of an answer's last token; one pair for each prompt; a prompt whose answers all mean the same makes no
pair, and ties between largest clusters go to the one whose text is most frequent (``stats/clusters.py``; which answers mean
the same is ``models/meaning.py``). Synthetic preferences are rankings whose annotator is the policy's run; they are written
to ``synthetic.jsonl``, and to ``pairs.jsonl`` what every prompt gave or would have given, and how sure the policy was.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from prefloop.config import Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups
from prefloop.data.read import read_demonstrations, read_groups
from prefloop.data.reward_spec import files_of
from prefloop.data.write import write_groups
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import on_main
from prefloop.engine.progress import say
from prefloop.engine.run import Run, open_run
from prefloop.errors import DataError
from prefloop.models.batch import RankedBatch, flat_rows, row_lengths, row_tokens, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder, only_informative
from prefloop.models.heads import last_hidden
from prefloop.models.load import count_parameters, load_tokenizer, new_reward, save_model, verify_saved
from prefloop.models.meaning import Meaning, load_meaning
from prefloop.models.scorer import load_scorer, reward_scorer
from prefloop.models.shared_prefix import scores
from prefloop.ops.bottleneck import (
    bottleneck_loss,
    contrastive_loss,
    cosine,
    information_loss,
    positive,
    reparameterised,
    symmetric_kl,
)
from prefloop.ops.loss import Loss
from prefloop.ops.ranking import n_pairs, ranking_loss
from prefloop.records import Group, Ranking
from prefloop.stats.clusters import Equivalence, clusters, mistaken
from prefloop.stats.pair_accuracy import accuracy_by_gap, by_prompt, calibration, length_baselines, pair_accuracy

CODE, HIDDEN = 64, 256  # of the Gaussian heads and the critic


class RelearnConfig(Config):
    """What the reward learns again, and from what."""

    model: str = Field(description="folder or hub id of the language model to start from: the SFT model, as the first reward did")
    data: str = Field(description="people's rankings, those the first reward learned from")
    samples: str = Field(description="several answers of the policy to each prompt: completions.jsonl of prefloop sample, k = 10")
    reward: str = Field(description="the first reward model, which chooses inside the largest cluster")
    demonstrations: str = Field("", description="demonstrations that shall score 0 on average; empty leaves the scores unshifted")

    pairs: Literal["spg", "reward", "rlaif", "none"] = Field(
        "spg",
        description="synthetic preferences: by clusters; between two random answers by the first reward, or by judge; or none",
    )
    judge: str = Field(
        "",
        description="rlaif: who labels, by a score of both answers; a reward model folder, policy:FOLDER, judge:FILE.yaml or python:MODULE:FUNCTION",
    )
    same: str = Field(
        "words",
        description="when two answers mean the same: words, nli:MODEL (each entails the other), uncontradicted:MODEL, embedding:MODEL, world:LANGUAGE or python:MODULE:FUNCTION of two texts",
    )
    threshold: float = Field(0.9, gt=-1, le=1, description="embedding: least cosine of two answers that mean the same")
    with_prompt: bool = Field(True, description="nli, uncontradicted, embedding: the model reads the prompt before each answer")
    noise: float = Field(
        0.0, ge=0, lt=0.5, description="share of pairs of texts about whose meaning the relation is made to err; a control"
    )
    confidence: float = Field(0.5, ge=0, le=1, description="least share of the largest cluster; 0 selects all (gamma)")
    least_pairs: int = Field(
        1,
        ge=0,
        description="fewer synthetic preferences than this are refused; 0 goes on with people's rankings alone, and says so",
    )
    winner: Literal["best", "random"] = Field("best", description="which of the largest cluster wins; random is a control")
    length_matched: bool = Field(False, description="the loser is the outside answer nearest in length to the winner; a control")

    representation: Literal["none", "mib", "mvi", "infomax", "contrastive"] = Field(
        "none", description="L_M: the paper's bottleneck, or one of the losses it is compared with in table 4"
    )
    lam: float = Field(0.5, gt=0, description="weight of L_M")
    negatives: int = Field(
        1, ge=1, le=32, description="answers to other prompts each row of L_M is compared with; contrastive wants more"
    )
    views_batch: int = Field(16, ge=2, description="prompts of a step of L_M")

    validation: str = Field("", description="rankings to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    epochs: int = Field(1, ge=1, description="passes over people's and synthetic rankings together")
    batch: int = Field(16, ge=1, description="rankings of a step")
    unusable: bool = Field(True, description="answers called unusable form a last tier; false leaves them out")
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: Optimiser = Optimiser()

    @model_validator(mode="after")
    def something_new_is_learned(self) -> "RelearnConfig":
        if self.pairs == "none" and self.representation == "none":
            raise ValueError(
                "pairs = none and representation = none: that is prefloop reward on the same rankings; choose one of the two"
            )
        if (self.pairs == "rlaif") != bool(self.judge):
            raise ValueError(f"pairs = rlaif and judge go together, got pairs = {self.pairs} and judge = {self.judge!r}")
        return self

    def plan(self, n_rankings: int) -> Plan:
        steps = self.epochs * steps_per_epoch(n_rankings, self.batch)
        return Plan(steps, self.batch, self.max_prompt + self.max_completion)


# ------------------------------------------------------------------------------------------------ synthetic preferences


class Found(NamedTuple):
    """What the answers to one prompt give: places of a winner and a loser where there are some, and why they do not count."""

    winner: int | None = None
    loser: int | None = None
    confidence: float | None = None  # share of the largest cluster
    reason: str = ""  # empty where the pair is learned from


class Synthetic(NamedTuple):
    """One group with a ranking of two answers for each prompt that gave one; how many did not, by reason; and all prompts'."""

    groups: list[Group]
    counts: dict[str, int]
    found: list[Found]


def synthetic_preferences(
    groups: Sequence[Group],
    scored: Sequence[Sequence[float]],
    config: RelearnConfig,
    *,
    annotator: str,
    rng: np.random.Generator,
    meaning: Meaning | None = None,
) -> Synthetic:
    """A ranking of two answers for every prompt whose answers allow one. ``scored`` are the first reward's, or the judge's."""
    meaning = meaning or load_meaning(config.same)
    found = [pair_of(group, score, config, rng, meaning) for group, score in zip(groups, scored, strict=True)]
    counts = Counter({"prompts": len(groups)}) + Counter(one.reason for one in found if one.reason)
    made = []
    for group, one in zip(groups, found, strict=True):
        if one.reason or one.winner is None or one.loser is None:
            continue
        winner, loser = group.completions[one.winner], group.completions[one.loser]
        ranking = Ranking(
            prompt_id=group.prompt.id, tiers=((winner.id,), (loser.id,)), shown=(winner.id, loser.id), annotator=annotator
        )
        made.append(group.model_copy(update={"completions": (winner, loser), "rankings": (ranking,), "ratings": ()}))
    return Synthetic(made, {**counts, "pairs": len(made)}, found)


def pair_of(group: Group, score: Sequence[float], config: RelearnConfig, rng: np.random.Generator, meaning: Meaning) -> Found:
    """The pair of one prompt."""
    if len(group.completions) < 2:
        return Found(reason="one answer")
    if config.pairs != "spg":
        return by_score(score, rng)
    are_same = meaning(group.prompt, sorted({completion.text for completion in group.completions}))
    return by_clusters(group, score, mistaken(are_same, config.noise, seed=config.seed), config, rng)


def by_clusters(
    group: Group, score: Sequence[float], are_same: Equivalence, config: RelearnConfig, rng: np.random.Generator
) -> Found:
    """Winner and loser by section 4.2. Answers drawn more than once count that often."""
    found = clusters([completion.text for completion in group.completions], are_same)
    if not found.outside:
        return Found(confidence=1.0, reason="all mean the same")
    inside = list(found.largest)
    winner = max(inside, key=lambda i: score[i]) if config.winner == "best" else inside[int(rng.integers(len(inside)))]
    loser = found.outside[int(rng.integers(len(found.outside)))]
    if config.length_matched:
        size = len(group.completions[winner].text)
        loser = min(found.outside, key=lambda i: (abs(len(group.completions[i].text) - size), i))
    return Found(winner, loser, found.confidence, "" if found.confidence >= config.confidence else "not confident")


def by_score(score: Sequence[float], rng: np.random.Generator) -> Found:
    """Two random answers in the order of a score: the controls without clusters (table 5, Reward and RLAIF)."""
    a, b = rng.choice(len(score), size=2, replace=False).tolist()
    if score[a] == score[b]:
        return Found(a, b, reason="equal scores")
    return Found(a, b) if score[a] > score[b] else Found(b, a)


def told(group: Group, one: Found) -> dict[str, Any]:
    """A line of pairs.jsonl."""
    texts = [None if place is None else group.completions[place].text for place in (one.winner, one.loser)]
    line = {"prompt_id": group.prompt.id, "prompt": group.prompt.text, "answers": len(group.completions)}
    return {**line, "confidence": one.confidence, "winner": texts[0], "loser": texts[1], "reason": one.reason}


# ------------------------------------------------------------------------------------------------ representation


@dataclass(frozen=True)
class Views(RankedBatch):
    """Two answers of the policy to a prompt, and answers to other prompts, each whole with its prompt; nothing is shared.

    A row brings its own negatives, so that memory settings cannot move the gradient: P 2+N.
    """

    noise: Tensor  # P (2+N)Z  standard normal, of each view's code


def draw_views(sampled: RankedBatch, rows: Tensor, negatives: int, rng: torch.Generator) -> Views:
    """Two different answers of each of the given prompts, and answers of random other prompts."""
    n_prompts = len(sampled.weight)
    n_answers = sampled.is_candidate.sum(1)
    first = (torch.rand(len(rows), generator=rng) * n_answers[rows]).long()
    second = (first + 1 + (torch.rand(len(rows), generator=rng) * (n_answers[rows] - 1)).long()) % n_answers[rows]
    shift = 1 + torch.randint(n_prompts - 1, (len(rows), negatives), generator=rng)
    others = (rows[:, None] + shift) % n_prompts  # never the prompt itself
    chosen = (torch.rand(others.shape, generator=rng) * n_answers[others]).long()
    p = torch.cat([rows[:, None], rows[:, None], others], 1)  # P 2+N
    k = torch.cat([first[:, None], second[:, None], chosen], 1)
    whole = flat_rows(sampled)
    place = torch.zeros(sampled.tier.shape, dtype=torch.long).index_put(whole.place, torch.arange(len(whole.length)))
    index = place[p, k]
    return Views(
        prompt=torch.zeros(len(rows), 1, dtype=torch.long),  # not read: its length is 0
        prompt_length=torch.zeros(len(rows), dtype=torch.long),
        completion=whole.tokens[index],
        completion_length=whole.length[index],
        tier=torch.zeros(p.shape, dtype=torch.long),
        is_candidate=torch.ones(p.shape, dtype=torch.bool),
        weight=torch.ones(len(rows)),
        noise=torch.randn(len(rows), p.shape[1] * CODE, generator=rng),
    )


class Relearner(nn.Module):
    """A reward model with Gaussian heads on its last hidden state and a critic of two codes."""

    def __init__(self, reward: Any, *, seed: int):
        super().__init__()
        self.reward = reward
        width = reward.score.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mean, self.raw_std = layers(width, CODE), layers(width, CODE)
            self.critic = layers(2 * CODE, 1)
            self.hidden_critic = layers(width + CODE, 1)

    def encode(self, views: Views) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hidden states, means, standard deviations and codes of every view: P V D, P V Z, P V Z, P V Z."""
        rows = flat_rows(views)
        hidden = last_hidden(self.reward, rows.tokens, rows.length).view(*views.tier.shape, -1)
        mean, std = self.mean(hidden), positive(self.raw_std(hidden))
        return hidden, mean, std, reparameterised(mean, std, views.noise.view(mean.shape))


def layers(width_in: int, width_out: int) -> nn.Sequential:
    """Three layers, as in section 5.3; their width is ours."""
    return nn.Sequential(
        nn.Linear(width_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width_out)
    )


def of_rankings(model: Relearner, batch: RankedBatch) -> Loss:
    """Bradley-Terry over people's and synthetic rankings alike."""
    return ranking_loss(scores(model.reward, batch), batch.tier, batch.is_candidate, batch.weight)


def of_views(model: Relearner, views: Views, *, representation: str) -> Loss:
    """L_M; of several negatives the mean."""
    hidden, mean, std, code = model.encode(views)
    first, second, others = code[:, 0], code[:, 1], code[:, 2:]  # P Z, P Z, P N Z
    if representation == "contrastive":
        own = nn.functional.cosine_similarity(first, second, dim=-1)
        product = torch.stack([cosine(a[None], b)[0] for a, b in zip(first, others, strict=True)])
        return contrastive_loss(own, product, torch.ones_like(product, dtype=torch.bool), views.weight, temperature=0.1)
    if representation == "infomax":
        joint = model.hidden_critic(torch.cat([hidden[:, 0], first], -1)).squeeze(-1)
        strangers = [model.hidden_critic(torch.cat([hidden[:, 2 + n], first], -1)).squeeze(-1) for n in range(others.shape[1])]
        return averaged([information_loss(joint, product, views.weight) for product in strangers])
    joint = model.critic(torch.cat([first, second], -1)).squeeze(-1)
    strangers = [model.critic(torch.cat([others[:, n], second], -1)).squeeze(-1) for n in range(others.shape[1])]
    if representation == "mvi":
        return averaged([information_loss(joint, product, views.weight) for product in strangers])
    distance = symmetric_kl(mean[:, 0], std[:, 0], mean[:, 1], std[:, 1])
    return averaged([bottleneck_loss(joint, product, distance, views.weight) for product in strangers])


def averaged(losses: list[Loss]) -> Loss:
    n = len(losses)
    value = torch.stack([loss.value for loss in losses]).sum() / n
    return Loss(value, {name: torch.stack([loss.metrics[name] for loss in losses]).sum() / n for name in losses[0].metrics})


# ------------------------------------------------------------------------------------------------ the run


def main(config: RelearnConfig, options: Options) -> dict:
    """Make synthetic preferences, train anew, shift, judge on held-out human rankings, save; returns the summary."""
    named = {"model": config.model, "data": config.data, "samples": config.samples, "reward": config.reward}
    named |= {"demonstrations": config.demonstrations, "validation": config.validation}
    named |= {"judge": next(iter(files_of(config.judge)), "")} if config.judge else {}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("relearn", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        train, held_out, reading, n_shared = read_split_groups(
            config.data, validation=config.validation, held_out=config.held_out, seed=config.seed
        )
        drawn = read_groups(config.samples, allow_unranked=True)
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        people = encoder.ranked(train, unusable=config.unusable)
        report_data(run, "rankings", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        report_data(run, "samples", drawn.report)
        answered = [group for group in drawn.records if encoder.fits(group.prompt)]
        sampled = encoder.candidates([group for group in answered if len(group.completions) > 1])
        memory = admit(config, work_of(config, people, sampled), run.device)
        synthetic, counts = synthesise(run, answered, config) if config.pairs != "none" else ([], {})
        both = only_informative(encoder.ranked([*train, *synthetic], unusable=config.unusable), config.data)
        reward = new_reward(config.model, seed=run.seed("head"), device=run.device)
        refuse_longer_than_context(reward, row_lengths(both), config.data)
        plan = config.plan(len(both.weight))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(both.weight), parameters=count_parameters(reward), memory=memory)

        if config.representation != "none" and len(sampled.weight) < 2:
            raise DataError(
                f"{config.samples} has {len(sampled.weight)} prompts with two answers, and views need at least two prompts"
            )
        model = Relearner(reward, seed=run.seed("heads")).to(run.device)
        learner = Learner(model, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        model.train()
        for step in run.steps(plan.steps, save_every=config.save_every, description="relearn"):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, len(both.weight), config.batch, run.rng)
            terms = [Term(of_rankings, take(both, share(rows, run.rank, run.processes)))]
            if config.representation != "none":
                asked = turn(step, len(sampled.weight), config.views_batch, partial(run.rng, "views")).rows
                views = draw_views(sampled, asked, config.negatives, run.rng("noise", step))
                loss = partial(of_views, representation=config.representation)
                terms.append(Term(loss, take(views, share(torch.arange(len(asked)), run.rank, run.processes)), scale=config.lam))
            run.log(step, {"epoch": epoch + 1, **learner.step(*terms)})

        reward.eval()
        reward.config.prefloop_reward_shift = mean_score(reward, encoder, config.demonstrations) if config.demonstrations else 0.0
        summary: dict[str, Any] = {
            "steps": plan.steps,
            "rankings": len(people.weight),
            "synthetic": counts,
            "held_out_shared": n_shared,
            "pairs": int(n_pairs(both.tier, both.is_candidate).sum()),
            "shift": reward.config.prefloop_reward_shift,
        }
        judged = [group for group in held_out if encoder.fits(group.prompt)]
        if judged:
            scored = scores_of(reward_scorer(reward, encoder), judged)
            for figure in (pair_accuracy, calibration, accuracy_by_gap):
                summary[figure.__name__] = figure(judged, scored, with_unusable=config.unusable)
            summary["baselines"] = length_baselines(judged, with_unusable=config.unusable)
            run.write_json("per_prompt.json", by_prompt(judged, scored, with_unusable=config.unusable))
        card = {"method": "relearn", **summary}
        on_main(partial(save_model, reward, tokenizer, run.model_folder, card=card, encoder=encoder))
        verify_saved(reward, run.model_folder, flat_rows(take(both, slice(0, 2))).tokens)
        return run.finish(summary)


def work_of(config: RelearnConfig, people: RankedBatch, sampled: RankedBatch) -> Work:
    """The largest update there may be, before a synthetic preference is made: two answers to a prompt, and in L_M whole rows."""
    longest = [int(row_tokens(people).max())] if len(people.weight) else []
    if len(sampled.weight):
        answer = sampled.completion_length.max(1).values
        longest += [int((sampled.prompt_length + 2 * answer).max())] if config.pairs != "none" else []
        views = (2 + config.negatives) * int((sampled.prompt_length + answer).max())
        longest += [views] if config.representation != "none" else []
    rows = max(config.batch, config.views_batch if config.representation != "none" else 0)
    return Work(max(longest, default=1), min(rows, len(people.weight) + len(sampled.weight)))


def synthesise(run: Run, answered: list[Group], config: RelearnConfig) -> tuple[list[Group], dict[str, Any]]:
    """The synthetic preferences, written down to be read, and what is to be said of them."""
    scorer = load_scorer(config.judge or config.reward, device=run.device, template=config.template)
    meaning = load_meaning(config.same, threshold=config.threshold, with_prompt=config.with_prompt, device=run.device)
    sources = {completion.source for group in answered for completion in group.completions if completion.source}
    policy = sorted(sources)[0] if len(sources) == 1 else f"policy:{Path(config.samples).parent.name}"
    made, counts, found = synthetic_preferences(
        answered,
        scores_of(scorer, answered),
        config,
        annotator="judge" if config.judge else policy,
        rng=np.random.default_rng(run.seed("synthetic")),
        meaning=meaning,
    )
    if len(made) < max(config.least_pairs, 1):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in counts.items() if reason not in ("prompts", "pairs") and n)
        some = f"{len(made)} of {counts['prompts']} prompts of {config.samples} give a synthetic preference"
        found_few = some if made else f"no prompt of {config.samples} gives a synthetic preference ({reasons})"
        if config.least_pairs:
            raise DataError(
                f"{found_few}\n  lower confidence= ({config.confidence}), draw more answers to each prompt, "
                f"lower least_pairs= ({config.least_pairs}), or use pairs=none with a representation"
            )
        say(f"{found_few}; learning from people's rankings alone (least_pairs=0)")
    lines = [json.dumps(told(group, one), ensure_ascii=False) for group, one in zip(answered, found, strict=True)]
    on_main(partial(write_groups, run.folder / "synthetic.jsonl", made))
    on_main(partial((run.folder / "pairs.jsonl").write_text, "\n".join(lines) + "\n", encoding="utf-8"))
    return made, {**counts, **(lengths(made) if made else {}), "confidence": histogram(found)}


def histogram(found: Sequence[Found]) -> dict[str, int]:
    """Prompts by confidence, in tenths."""
    return {f"{tenth / 10:.1f}": n for tenth, n in sorted(Counter(round(10 * c) for _, _, c, _ in found if c).items())}


def lengths(made: Sequence[Group]) -> dict[str, float]:
    """Mean characters of winners and losers: where they differ, length is learned too (section 5.7 prints 510 and 449)."""
    sides = {"winner_characters": 0, "loser_characters": 1}
    return {name: float(np.mean([len(group.completions[side].text) for group in made])) for name, side in sides.items()}


def scores_of(scorer: Callable[..., list[float]], groups: Sequence[Group]) -> list[list[float]]:
    """The score of every completion of every group."""
    prompts = [group.prompt for group in groups for _ in group.completions]
    flat = iter(scorer(prompts, [completion for group in groups for completion in group.completions]))
    return [[next(flat) for _ in group.completions] for group in groups]


def mean_score(reward: nn.Module, encoder: Encoder, demonstrations: str) -> float:
    """What the demonstrations score on average."""
    shown = read_demonstrations(demonstrations).records
    return float(np.mean(reward_scorer(reward, encoder)([d.prompt for d in shown], [d.completion for d in shown])))
