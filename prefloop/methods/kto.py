"""KTO: learn from single answers that were called good or bad, without pairs (Ethayarajh et al. 2024, arXiv 2402.01306, section 4.1).

    h    = log pi(y|x) - log ref(y|x)
    z_0  = max(0, mean of h over prompts with answers to other prompts)       a constant of the update, no gradient
    loss = mean of  desirable   (1 - sigmoid(beta (h - z_0)))   over good answers
                    undesirable (1 - sigmoid(beta (z_0 - h)))   over bad ones

Data are thumbs (``{"prompt", "completion", "label"}``), or rankings and pairs turned into labels by a stated rule
(``data/labels.py``). Every labelled answer counts the same. The partner of each answer, which answers another prompt, is drawn
once for the whole data set, so what the reference says of it is computed once, as everything the reference says is; what the
policy says of the partners is computed before every update, over all its rows, so memory settings and the number of
processes do not move z_0. The answers of a prompt share a row, and the prompt is computed once for them.

Judged on held-out prompts by the reward the loss implies, beta h.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from prefloop.config import Adapter, Config, Optimiser, Options
from prefloop.data.held_out import read_split_groups
from prefloop.data.labels import labels_of
from prefloop.engine.data_report import report_data
from prefloop.engine.forecast import forecast
from prefloop.engine.learner import Learner, Term
from prefloop.engine.needs import Work, admit
from prefloop.engine.order import share, steps_per_epoch, turn
from prefloop.engine.plan import Plan
from prefloop.engine.processes import gathered, on_main
from prefloop.engine.progress import say
from prefloop.engine.run import open_run
from prefloop.errors import DataError
from prefloop.models.batch import RankedBatch, flat_rows, row_lengths, row_tokens, take
from prefloop.models.context import refuse_longer_than_context
from prefloop.models.encode import Encoder, ranked_batch
from prefloop.models.evaluation import by_prompts, mean_loss
from prefloop.models.heads import at_rest, without_dropout
from prefloop.models.load import count_parameters, load_policy, load_tokenizer, policy_to_train, save_model, verify_saved
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.models.tokenizer import refuse_other_tokenizer
from prefloop.ops.loss import Loss
from prefloop.ops.preference import kto_loss, mismatched, mismatched_distance, per_class
from prefloop.records import Group
from prefloop.stats.auc import auc_over_prompts
from prefloop.stats.pair_accuracy import clustered_share, hits, length_baselines, pair_accuracy

GOOD, BAD = 0, 1  # the place of an answer
USUAL_BALANCE = (1.0, 4 / 3)  # of desirable * n_good / (undesirable * n_bad): section 4.2


@dataclass(frozen=True)
class ReferredAnswers(RankedBatch):
    """Labelled answers, ``tier`` 0 good and 1 bad, with what a frozen reference says of each, computed once."""

    ref_logprobs: Tensor  # P K  summed over an answer's tokens, 0 where there is none


class KTOOptimiser(Optimiser):
    """Small steps, as for every loss on log-ratios."""

    lr: float = Field(1e-4, gt=0, description="peak learning rate; 5e-7 to 5e-6 for models of billions of parameters")
    schedule: Literal["cosine", "linear", "constant"] = Field("linear", description="how the rate falls after warm-up")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")


class KTOConfig(Config):
    """Learn from thumbs."""

    model: str = Field(description="folder or hub id of the policy to start from, usually the SFT model")
    reference: str = Field("", description="the policy distance is measured from; empty = the model it starts from")
    data: str = Field(description="thumbs, rankings or pairs: a file, folder or hub id in any accepted format")
    validation: str = Field("", description="labelled answers to judge on; empty holds out a share of the data by prompt")
    held_out: float = Field(0.1, ge=0, lt=0.9, description="share of the prompts kept for judging")
    labels: Literal["halves", "best"] = Field(
        "halves", description="of a ranking: answers above more than below them are good, or those in the best place alone"
    )
    beta: float = Field(0.1, gt=0, description="price of leaving the reference")
    desirable: float = Field(1.0, gt=0, description="weight of good answers")
    undesirable: float = Field(1.0, gt=0, description="weight of bad answers")
    epochs: int = Field(1, ge=1, description="passes over the prompts")
    batch: int = Field(32, ge=1, description="prompts of a step, each with its labelled answers")
    unusable: bool = Field(True, description="answers called unusable are bad; false leaves them out")
    adapter: Adapter = Adapter()
    memory: float = Field(0.0, ge=0, description="GiB the run may need; 0 = what the device has free")
    template: Literal["auto", "chat", "dialogue", "plain"] = Field("auto", description="how a conversation becomes text")
    max_prompt: int = Field(512, ge=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_completion: int = Field(512, ge=1, description="longest answer in tokens; longer ones are cut and counted")
    max_dropped: float = Field(0.05, ge=0, le=1, description="largest share of rows lost or cut before the run refuses")
    seed: int = 0
    save_every: int = Field(200, ge=1, description="steps between checkpoints")
    optim: KTOOptimiser = KTOOptimiser()

    def plan(self, n_prompts: int) -> Plan:
        return Plan(self.epochs * steps_per_epoch(n_prompts, self.batch), self.batch, self.max_prompt + self.max_completion)


def of_labels(model: nn.Module, batch: ReferredAnswers, *, distance: float, config: KTOConfig) -> Loss:
    """The loss over every labelled answer, each of the same weight."""
    logprobs = completion_logprobs(model, batch).sum(2)  # P K
    n_answers = batch.is_candidate.sum(1, keepdim=True).clamp(min=1)
    weight = batch.weight[:, None] * batch.is_candidate / n_answers  # P K
    weights = {"desirable": config.desirable, "undesirable": config.undesirable}
    return kto_loss(logprobs, batch.ref_logprobs, batch.tier == GOOD, weight, distance=distance, beta=config.beta, **weights)


def main(config: KTOConfig, options: Options) -> dict:
    """Train, judge on held-out prompts, export the policy, return the summary."""
    named = {"model": config.model, "reference": config.reference, "data": config.data, "validation": config.validation}
    parents = {name: Path(path) for name, path in named.items() if path}
    with open_run("kto", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        train, held_out, reading, n_shared = read_split_groups(
            config.data, validation=config.validation, held_out=config.held_out, seed=config.seed, allow_unranked=True
        )
        tokenizer = load_tokenizer(config.model)
        encoder = Encoder(tokenizer, template=config.template, max_prompt=config.max_prompt, max_completion=config.max_completion)
        answers, prompt_of = labelled(encoder, train, config)
        report_data(run, "labels", reading.report, encoder=encoder, max_dropped=config.max_dropped)
        counts = class_counts(answers)
        refuse_one_class(counts, config)
        memory = admit(config, Work(int(row_tokens(answers).max()), min(config.batch, len(answers.weight))), run.device)
        policy = without_dropout(policy_to_train(config.model, config.adapter, seed=run.seed("adapter"), device=run.device))
        others = with_partners(answers, prompt_of, run.rng("partners"))
        for rows in (answers, others):
            refuse_longer_than_context(policy, row_lengths(rows), config.data)
        plan = config.plan(len(answers.weight))
        if options.dry_run:
            return forecast(run, plan, n_rows=len(answers.weight), parameters=count_parameters(policy), memory=memory)

        reference = policy  # a new adapter changes nothing yet
        if config.reference:
            refuse_other_tokenizer(config.reference, config.model, "reference=")
            reference = load_policy(config.reference, device=run.device)
        data, partners = referred(answers, reference), referred(others, reference)
        judged, judged_prompt_of = labelled(encoder, held_out, config)
        judged_data, judged_partners = (
            referred(judged, reference),
            None,
        )  # where one prompt has most answers, z_0 is that of training
        if has_partners(judged, judged_prompt_of):
            judged_partners = referred(with_partners(judged, judged_prompt_of, run.rng("judged")), reference)
        held_out = [group for group in held_out if encoder.fits(group.prompt)]  # as in training
        before = referred(encoder.candidates(held_out), reference)
        del reference

        balance = config.desirable * counts["good"] / (config.undesirable * counts["bad"])
        warn_of_imbalance(balance, counts, config)
        learner = Learner(policy, steps=plan.steps, device=run.device, **config.optim.model_dump())
        run.keep(learner=learner)
        for step in run.steps(plan.steps, save_every=config.save_every, description="kto"):
            run.seed_everything("step", step)
            epoch, rows, _ = turn(step, len(data.weight), config.batch, run.rng)
            mine = share(rows, run.rank, run.processes)
            loss = partial(of_labels, distance=distance_of(policy, take(partners, mine)), config=config)
            run.log(step, {"epoch": epoch + 1, **per_class(learner.step(Term(loss, take(data, mine))))})

        policy.eval()
        summary: dict[str, Any] = {
            "steps": plan.steps,
            "prompts": len(data.weight),
            **counts,
            "balance": balance,
            "beta": config.beta,
            "held_out_shared": n_shared,
        }
        if len(judged.weight):
            distance = distance_of(policy, judged_partners or partners)
            summary["held_out_loss"] = mean_loss(partial(of_labels, distance=distance, config=config), policy, judged_data)
            summary["label_accuracy"] = label_accuracy(policy, judged_data, judged_prompt_of, distance)
            summary["auc"] = auc_of_labels(
                logprobs_of(policy, judged_data) - judged_data.ref_logprobs, judged_data, judged_prompt_of
            )
            summary["auc_of_length"] = auc_of_labels(judged_data.completion_length, judged_data, judged_prompt_of)
        if any(ranking.pairs(with_unusable=config.unusable) for group in held_out for ranking in group.rankings):
            implied = config.beta * (logprobs_of(policy, before) - before.ref_logprobs)
            scored = [row[: len(group.completions)] for row, group in zip(implied.tolist(), held_out, strict=True)]
            summary["pair_accuracy"] = pair_accuracy(held_out, scored, with_unusable=config.unusable)
            summary["baselines"] = length_baselines(held_out, with_unusable=config.unusable)
        card = {"method": "kto", **summary}
        on_main(partial(save_model, policy, tokenizer, run.model_folder, card=card, encoder=encoder))
        verify_saved(policy, run.model_folder, flat_rows(take(data, slice(0, 2))).tokens)
        return run.finish(summary)


# ------------------------------------------------------------------------------------------------------------ answers


def labelled(encoder: Encoder, groups: Sequence[Group], config: KTOConfig) -> tuple[RankedBatch, list[str]]:
    """A row per group that has labelled answers and a prompt that is not too long, and the id of each row's prompt."""
    rows, prompts = [], []
    for group in groups:
        label = labels_of(group, rule=config.labels, unusable=config.unusable)
        prompt = encoder.prompt_ids(group.prompt)
        if not label or not encoder.is_short(prompt):
            continue
        said = [completion for completion in group.completions if completion.id in label]
        places = [GOOD if label[completion.id] else BAD for completion in said]
        rows.append((prompt, [encoder.completion_ids(completion.text) for completion in said], places, float(len(said))))
        prompts.append(group.prompt.id)
    return ranked_batch(rows, encoder.pad), prompts


def class_counts(answers: RankedBatch) -> dict[str, int]:
    """How many answers are good, and how many bad."""
    return {name: int((answers.is_candidate & (answers.tier == place)).sum()) for name, place in (("good", GOOD), ("bad", BAD))}


def refuse_one_class(counts: dict[str, int], config: KTOConfig) -> None:
    if all(counts.values()):
        return
    raise DataError(
        f"{config.data} gives {counts['good']} good and {counts['bad']} bad answers, and needs both\n"
        f"  labels are thumbs, or come from rankings by labels={config.labels}; a tie of all answers says nothing\n"
        f"  to imitate good answers alone use prefloop sft; see prefloop data check {config.data}"
    )


def warn_of_imbalance(balance: float, counts: dict[str, int], config: KTOConfig) -> None:
    low, high = USUAL_BALANCE
    if low <= balance <= high:
        return
    wanted = config.undesirable * counts["bad"] / counts["good"]
    say(
        f"kto: {counts['good']} good and {counts['bad']} bad answers weigh {balance:.2f} to 1 together; "
        f"the paper keeps this between 1 and 4/3: desirable={low * wanted:.3g} to {high * wanted:.3g}"
    )


def has_partners(answers: RankedBatch, prompt_of: Sequence[str]) -> bool:
    """Whether no prompt has more than half of the answers, so that each can be put to another prompt."""
    n = Counter[str]()
    for name, n_answers in zip(prompt_of, answers.is_candidate.sum(1).tolist(), strict=True):
        n[name] += n_answers
    return 0 < 2 * max(n.values(), default=0) <= n.total()


def with_partners(answers: RankedBatch, prompt_of: Sequence[str], rng: torch.Generator) -> RankedBatch:
    """Each answer replaced by one to another prompt; every answer is the partner of one other."""
    row, place = answers.is_candidate.nonzero(as_tuple=True)  # N
    names = {name: number for number, name in enumerate(dict.fromkeys(prompt_of))}
    number = torch.randperm(len(names), generator=rng)[torch.tensor([names[name] for name in prompt_of])][row]
    order = torch.randperm(len(row), generator=rng)
    partner = torch.empty_like(order)
    partner[order] = order[mismatched(number[order])]
    completion, length = answers.completion.clone(), answers.completion_length.clone()
    completion[row, place] = answers.completion[row[partner], place[partner]]
    length[row, place] = answers.completion_length[row[partner], place[partner]]
    return replace(answers, completion=completion, completion_length=length)


# ------------------------------------------------------------------------------------------------------------ models


def logprobs_of(model: nn.Module, answers: RankedBatch) -> Tensor:
    """Of whole answers, without a gradient: P K."""
    with at_rest(model):
        return by_prompts(lambda part: completion_logprobs(model, part).sum(2), answers, model)


def referred(answers: RankedBatch, reference: nn.Module) -> ReferredAnswers:
    """With the reference's log-probabilities."""
    found = logprobs_of(reference, answers) if len(answers.weight) else torch.zeros(answers.completion_length.shape)
    return ReferredAnswers(**vars(answers), ref_logprobs=found)


def distance_of(policy: nn.Module, partners: ReferredAnswers) -> float:
    """z_0 over the partners that all processes hold."""
    own = logprobs_of(policy, partners) if len(partners.weight) else partners.ref_logprobs
    is_there = partners.is_candidate
    parts = gathered((own[is_there], partners.ref_logprobs[is_there]))
    return float(mismatched_distance(*(torch.cat(side) for side in zip(*parts, strict=True))))


def label_accuracy(policy: nn.Module, judged: ReferredAnswers, prompt_of: Sequence[str], distance: float) -> dict:
    """Share of answers on the right side of z_0: good ones above, bad ones below; with its interval over prompts."""
    side = torch.where(judged.tier == GOOD, 1.0, -1.0)
    gap = side * (logprobs_of(policy, judged) - judged.ref_logprobs - distance)  # P K
    found: dict[str, list[np.ndarray]] = {}
    for name, row, is_there in zip(prompt_of, gap, judged.is_candidate, strict=True):
        found.setdefault(name, []).append(hits(row[is_there].double().numpy()))
    return clustered_share([np.concatenate(parts) for parts in found.values()])


def auc_of_labels(score: Tensor, judged: RankedBatch, prompt_of: Sequence[str]) -> dict:
    """The chance that a good answer scores above a bad one, of any two of all prompts, with its interval over prompts."""
    is_there = judged.is_candidate
    names = [name for name, n in zip(prompt_of, is_there.sum(1).tolist(), strict=True) for _ in range(n)]
    return auc_over_prompts(score[is_there].double().numpy(), (judged.tier == GOOD)[is_there].numpy(), names)
