"""DPO against the optimum that can be written down: under exact preferences it is the reference tilted by gold (equation 4)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from prefloop.engine.learner import Learner, Term
from prefloop.models.batch import RankedBatch
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.ops.loss import Loss
from prefloop.ops.preference import dpo_loss
from prefloop.world.toy import ToyWorld, optimum
from tests.methods.toy import toy_encoder, toy_policy

WORLD = ToyWorld(n_steps=3)  # 43 answers to each of 8 prompts
BETA = 0.7


@dataclass(frozen=True)
class Everything(RankedBatch):
    """Every answer to every prompt."""

    ref_logprobs: Tensor  # P N


def everything() -> RankedBatch:
    """Prompts with all answers there are, unranked."""
    encoder = toy_encoder()
    prompts = torch.tensor([encoder.prompt_ids(prompt) for prompt in WORLD.prompts])
    answers = torch.tensor(WORLD.answers).expand(len(prompts), -1, -1)
    shape = answers.shape[:2]
    return RankedBatch(
        prompt=prompts,
        prompt_length=torch.full((len(prompts),), prompts.shape[1]),
        completion=answers,
        completion_length=torch.tensor(WORLD.lengths).expand(shape),
        tier=torch.zeros(shape, dtype=torch.long),
        is_candidate=torch.ones(shape, dtype=torch.bool),
        weight=torch.ones(len(prompts)),
    )


def answer_logprobs(model: nn.Module, batch: RankedBatch) -> Tensor:
    """P N: of whole answers; the last step can only be the end and is no choice."""
    return (completion_logprobs(model, batch) * torch.tensor(WORLD.is_free)).sum(2)


FIRST, SECOND = torch.combinations(torch.arange(len(WORLD.answers))).T  # every pair of answers
GOLD = torch.tensor(WORLD.rewards, dtype=torch.float32)


def over_exact_preferences(model: nn.Module, batch: Everything) -> Loss:
    """``dpo_loss`` over every pair in both orders, each as often as Bradley-Terry annotators with gold would give it."""
    logprobs = answer_logprobs(model, batch)
    rows = torch.cat([torch.stack([FIRST, SECOND], 1), torch.stack([SECOND, FIRST], 1)])  # R 2, winner first
    gold = GOLD[: len(logprobs)]
    share = torch.sigmoid(gold[:, rows[:, 0]] - gold[:, rows[:, 1]]) / len(FIRST)  # P R, both orders of a pair make one
    weight = (batch.weight[:, None] * share).flatten()
    pairs = [table[:, rows].flatten(0, 1) for table in (logprobs, batch.ref_logprobs)]
    tier = torch.tensor([0, 1]).expand(len(weight), 2)
    return dpo_loss(*pairs, tier, torch.ones_like(tier, dtype=torch.bool), weight, beta=BETA, smoothing=0.0)


def test_under_exact_preferences_dpo_ends_at_the_tilted_reference():
    policy, batch = toy_policy(seed=1), everything()
    with torch.no_grad():
        reference = answer_logprobs(policy, batch)
    assert (reference.exp().sum(1) - 1).abs().max() < 1e-4  # these are all the answers there are
    best = torch.from_numpy(np.exp(optimum(reference.double().numpy(), WORLD.rewards, BETA)))
    referred = Everything(**vars(replace(batch)), ref_logprobs=reference)

    learner = Learner(policy, lr=1e-2, steps=200, warmup=10, schedule="cosine", final=0.01, device="cpu")
    for _ in range(200):
        learner.step(Term(over_exact_preferences, referred))
    with torch.no_grad():
        learned = answer_logprobs(policy, batch).double().exp()
    before = 0.5 * (reference.double().exp() - best).abs().sum(1)
    after = 0.5 * (learned - best).abs().sum(1)
    assert before.min() > 0.2, "there is a way to go for every prompt"
    assert after.max() < 0.02, f"total variation by prompt {after.tolist()}"
