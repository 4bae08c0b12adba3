"""Losses and advantages equal TRL 1.16's to 1e-5 on the same tensors, gradients too; where we differ, by what.

TRL's batch is pairs: chosen rows, then rejected rows. Ours is a prompt with two answers, the first one above the second.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, tensor

from prefloop.ops.group import (
    after_distance,
    centred,
    clip_higher_loss,
    group_normalised,
    grpo_loss,
    leave_one_out,
    sequence_policy_loss,
)
from prefloop.ops.loss import Loss
from prefloop.ops.preference import (
    dpo_loss,
    ipo_loss,
    kto_loss,
    mismatched_distance,
    orpo_loss,
    per_class,
    per_token,
    simpo_loss,
)
from prefloop.ops.ranking import ranking_loss
from prefloop.ops.weights import constant, sequence_mean, token_mean
from tests.helpers import assert_close
from tests.peers import bare

if bare.why_not():
    pytest.skip(bare.why_not(), allow_module_level=True)

PAIRS, WIDTH = 5, 9
LENGTHS = tensor([3, 5, 1, 8, 4, 2, 2, 6, 7, 1])  # of the chosen answers, then of the rejected ones


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logprobs_of_answers(seed: int, is_answer: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, 0 outside the answers, and the leaf they are made from: B T each."""
    leaf = -numbers(seed, *is_answer.shape).abs().requires_grad_()
    return leaf * is_answer, leaf


def frozen_logprobs_of_answers(seed: int, is_answer: Tensor) -> Tensor:
    return logprobs_of_answers(seed, is_answer)[0].detach()


def answers(lengths: Tensor = LENGTHS, width: int = WIDTH) -> Tensor:
    """True on an answer's tokens, which begin behind a prompt of one token: B T."""
    return (torch.arange(width) >= 1) & (torch.arange(width) <= lengths[:, None])


def paired(rows: Tensor) -> Tensor:
    """Chosen rows, then rejected rows -> P 2."""
    return torch.stack(rows.chunk(2), 1)


def first_above_second(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """tier, is_candidate and weight of n pairs."""
    return tensor([[0, 1]]).expand(n, 2), torch.ones(n, 2, dtype=torch.bool), torch.full((n,), 1 / n)


def assert_same(ours: Loss, theirs: tuple[Tensor, dict], leaf: Tensor, *names: str) -> None:
    """The value, its gradient on what both were made from, and the metrics of these names."""
    value, metrics = theirs
    assert_close(ours.value, value)
    (slope,) = torch.autograd.grad(ours.value, leaf, retain_graph=True)
    assert slope.abs().max() > 0
    assert_close(slope, torch.autograd.grad(value, leaf, retain_graph=True)[0])
    for name in names:
        assert_close(ours.metrics[name], metrics[name])


REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
LOGPS = ("logps/chosen", "logps/rejected")

# -------------------------------------------------------------------------------------------------------- preferences


def test_reward():
    scores = numbers(0, 2 * PAIRS).requires_grad_()
    ours = ranking_loss(paired(scores), *first_above_second(PAIRS))
    assert_same(ours, bare.reward(scores=scores), scores, "accuracy", "margin")


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo(beta: float):
    is_answer = answers()
    (policy, leaf), reference = logprobs_of_answers(1, is_answer), frozen_logprobs_of_answers(2, is_answer)
    theirs = bare.dpo(beta=beta, loss="sigmoid", logprobs=policy, ref_logprobs=reference, is_answer=is_answer)
    sums = paired(policy.sum(1)), paired(reference.sum(1))
    ours = dpo_loss(*sums, *first_above_second(PAIRS), beta=beta, smoothing=0.0)
    assert_same(ours, theirs, leaf, *REWARDS, *LOGPS)


def test_cdpo_where_trl_has_it_in_the_loss_of_cpo():
    """DPOTrainer 1.16 has no conservative loss under that name; CPO's, which is DPO without a reference, still has."""
    both = numbers(3, PAIRS, 2).requires_grad_()
    from trl.experimental.cpo import CPOTrainer

    trainer = bare.bare(CPOTrainer, beta=0.3, alpha=0.0, loss_type="sigmoid", label_smoothing=0.1)
    theirs = trainer.cpo_loss(*both.unbind(1))[0].mean()
    ours = dpo_loss(both, torch.zeros_like(both), *first_above_second(PAIRS), beta=0.3, smoothing=0.1)
    assert_same(ours, (theirs, {}), both)


def test_ipo_of_means_per_token():
    is_answer = answers()
    (policy, leaf), reference = logprobs_of_answers(4, is_answer), frozen_logprobs_of_answers(5, is_answer)
    theirs = bare.dpo(beta=0.2, loss="ipo", logprobs=policy, ref_logprobs=reference, is_answer=is_answer)
    means = (paired(per_token(rows.sum(1), LENGTHS)) for rows in (policy, reference))
    ours = ipo_loss(*means, *first_above_second(PAIRS), beta=0.2)
    assert_same(ours, theirs, leaf)


def test_ipo_of_sums_is_another_loss_than_trls():
    is_answer = answers()
    policy, reference = frozen_logprobs_of_answers(4, is_answer), frozen_logprobs_of_answers(5, is_answer)
    theirs, _ = bare.dpo(beta=0.2, loss="ipo", logprobs=policy, ref_logprobs=reference, is_answer=is_answer)
    ours = ipo_loss(paired(policy.sum(1)), paired(reference.sum(1)), *first_above_second(PAIRS), beta=0.2)
    assert abs(ours.value - theirs) > 0.1


def test_simpo():
    policy, leaf = logprobs_of_answers(6, answers())
    sums = policy.sum(1)
    losses, chosen, rejected = bare.cpo(beta=2.0, loss="simpo", margin=0.7, **sides(per_token(sums, LENGTHS)))
    theirs = losses.mean(), {"rewards/chosen": chosen.mean(), "rewards/rejected": rejected.mean()}
    ours = simpo_loss(paired(sums), paired(LENGTHS), *first_above_second(PAIRS), beta=2.0, margin=0.7)
    assert_same(ours, theirs, leaf, "rewards/chosen", "rewards/rejected")


def test_cpo_is_dpo_without_a_reference():
    policy, leaf = logprobs_of_answers(7, answers())
    sums = policy.sum(1)
    losses, chosen, rejected = bare.cpo(beta=0.1, loss="sigmoid", margin=0.0, **sides(sums))
    theirs = losses.mean(), {"rewards/chosen": chosen.mean(), "rewards/rejected": rejected.mean()}
    ours = dpo_loss(paired(sums), torch.zeros(PAIRS, 2), *first_above_second(PAIRS), beta=0.1, smoothing=0.0)
    assert_same(ours, theirs, leaf, "rewards/chosen", "rewards/rejected")


def sides(rows: Tensor) -> dict[str, Tensor]:
    chosen, rejected = rows.chunk(2)
    return {"chosen": chosen, "rejected": rejected}


def orpo_both_ways(lengths: Tensor, prompt: int) -> tuple[Loss, tuple[Tensor, dict], Tensor, Tensor]:
    """Answers of these lengths behind prompts of ``prompt`` tokens: ours, TRL's, the logits, and their tokens' log-probabilities."""
    n, width = len(lengths), prompt + int(lengths.max())
    logits = numbers(8, n, width, 11).requires_grad_()
    tokens = torch.randint(1, 11, (n, width), generator=torch.Generator().manual_seed(9))
    place = torch.arange(width)
    is_answer, is_text = (place >= prompt) & (place < prompt + lengths[:, None]), place < prompt + lengths[:, None]
    rows = {"input_ids": tokens, "attention_mask": is_text.long(), "labels": tokens.where(is_answer, -100)}
    split = [dict(zip(rows, side, strict=True)) for side in zip(*(value.chunk(2) for value in rows.values()), strict=True)]
    theirs = bare.orpo(beta=0.1, logits=logits, chosen=split[0], rejected=split[1])
    said = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)  # of tokens 1 to the last
    sums = (said * is_answer[:, 1:]).sum(1)
    ours = orpo_loss(paired(sums), paired(lengths), *first_above_second(n // 2), lam=0.1)
    return ours, theirs, logits, said


def test_orpo_where_nothing_but_the_answer_can_be_imitated_and_the_imitated_are_equally_long():
    ours, theirs, logits, _ = orpo_both_ways(tensor([4, 4, 4, 2, 6, 1]), prompt=1)
    assert_same(ours, theirs, logits, *REWARDS, *LOGPS, "nll_loss", "log_odds_ratio", "log_odds_chosen")


def test_orpo_elsewhere_differs_by_what_is_imitated_and_by_nothing_else():
    """TRL: all tokens of the chosen texts, prompts too, each alike. Ours: the mean over each chosen answer, then over prompts."""
    lengths, prompt = tensor([4, 2, 7, 2, 6, 1]), 3
    ours, theirs, _, said = orpo_both_ways(lengths, prompt)
    for name in (*REWARDS, *LOGPS, "log_odds_ratio", "log_odds_chosen"):
        assert_close(ours.metrics[name], theirs[1][name])
    texts = [said[row, : prompt + int(lengths[row]) - 1] for row in range(3)]
    assert_close(-torch.cat(texts).mean(), theirs[1]["nll_loss"])
    assert_close(-torch.stack([text[prompt - 1 :].mean() for text in texts]).mean(), ours.metrics["nll_loss"])
    assert_close(ours.value - ours.metrics["nll_loss"], theirs[0] - theirs[1]["nll_loss"])


@pytest.mark.parametrize(("shift", "is_clamped"), [(0.5, False), (-0.5, True)])
def test_kto(shift: float, is_clamped: bool):
    """With the policy more and less likely than the reference on mismatched pairs: a distance above 0, and one held at 0."""
    is_answer, n = answers(), 2 * PAIRS
    (policy, leaf), reference = logprobs_of_answers(10, is_answer), frozen_logprobs_of_answers(11, is_answer)
    other = frozen_logprobs_of_answers(12, is_answer)
    other_reference = (other - shift) * is_answer
    is_desirable = tensor([True, False, True, True, False, True, False, False, True, True])
    settings = {"beta": 0.1, "desirable": 1.2, "undesirable": 0.7}
    theirs = bare.kto(
        **settings,
        logprobs=policy,
        ref_logprobs=reference,
        other_logprobs=other,
        other_ref_logprobs=other_reference,
        is_answer=is_answer,
        is_desirable=is_desirable,
    )
    distance = float(mismatched_distance(other.sum(1), other_reference.sum(1)))
    assert (distance == 0) == is_clamped
    column = (policy.sum(1)[:, None], reference.sum(1)[:, None], is_desirable[:, None], torch.full((n, 1), 1 / n))
    ours = kto_loss(*column, distance=distance, **settings)
    assert_same(ours, theirs, leaf, "kl")
    means = per_class({name: float(metric) for name, metric in ours.metrics.items()})
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
        assert_close(tensor(means[name]), theirs[1][name])


# ---------------------------------------------------------------------------------------------------- policy gradients

UPDATE = {"clip_low": 0.2, "clip_high": 0.28}


def update() -> dict[str, Tensor]:
    is_answer = answers()
    old = frozen_logprobs_of_answers(13, is_answer)
    logprobs = (old + 0.3 * numbers(14, *is_answer.shape) * is_answer).requires_grad_()
    return {"logprobs": logprobs, "old_logprobs": old, "advantages": numbers(15, 2 * PAIRS), "is_answer": is_answer}


GRPO_WEIGHTS: dict[str, Callable] = {
    "grpo": sequence_mean,
    "dapo": token_mean,
    "bnpo": token_mean,
    "dr_grpo": lambda is_answer: constant(is_answer, length=20),
}


@pytest.mark.parametrize("kl", [0.0, 0.04])
@pytest.mark.parametrize("loss", GRPO_WEIGHTS)
def test_grpo_and_its_normalisations(loss: str, kl: float):
    batch = update()
    reference = (batch["old_logprobs"] + 0.2 * numbers(16, *batch["is_answer"].shape)).detach()
    theirs = bare.policy_update("GRPOTrainer", **batch, **UPDATE, loss=loss, kl=kl, ref_logprobs=reference, length=20)
    row, token = GRPO_WEIGHTS[loss](batch["is_answer"])
    weight = (row / row.sum())[:, None] * token
    advantages = batch["advantages"][:, None].expand_as(weight)
    if kl:
        ours = grpo_loss(batch["logprobs"], batch["old_logprobs"], reference, advantages, weight, **UPDATE, kl=kl)
    else:
        ours = clip_higher_loss(batch["logprobs"], batch["old_logprobs"], advantages, weight, **UPDATE)
    # TRL's logged shares are over tokens whatever the loss is normalised by
    names = ("clip_ratio/low_mean", "clip_ratio/high_mean", *(["kl"] if kl else [])) if loss in ("dapo", "bnpo") else ()
    assert_same(ours, theirs, batch["logprobs"], *names)
    if names:
        assert_close(ours.metrics["clipfrac"], theirs[1]["clip_ratio/region_mean"])


def test_rloo():
    batch = update()
    theirs = bare.policy_update("RLOOTrainer", **batch, **UPDATE)
    weight = torch.full((2 * PAIRS,), 1 / (2 * PAIRS))
    ours = sequence_policy_loss(*batch.values(), weight, **UPDATE)
    assert_same(ours, theirs, batch["logprobs"], "clip_ratio/low_mean", "clip_ratio/high_mean")


def scored() -> tuple[Tensor, list[int], Tensor, Tensor, Tensor]:
    """Three prompts of four answers, the last one's rewards all the same: rewards P K, lengths, log-probabilities twice, mask."""
    rewards = torch.cat([numbers(17, 2, 4), torch.full((1, 4), 0.9)])
    lengths = [3, 5, 1, 8, 4, 2, 2, 6, 7, 1, 3, 3]
    is_answer = torch.arange(8) < tensor(lengths)[:, None]
    return rewards, lengths, -numbers(18, 12, 8).abs(), -numbers(19, 12, 8).abs(), is_answer


@pytest.mark.parametrize(("scale", "kind"), [("group", "normalised"), ("none", "centred")])
def test_advantages_of_grpo(scale: str, kind: str):
    rewards, lengths, old, reference, _ = scored()
    theirs = bare.advantages(
        "GRPOTrainer", rewards=rewards, lengths=lengths, old_logprobs=old, ref_logprobs=reference, kl=0.0, scale=scale
    )
    everyone = torch.ones_like(rewards, dtype=torch.bool)
    ours = group_normalised(rewards, everyone, eps=1e-4) if kind == "normalised" else centred(rewards, everyone)
    # where all rewards are the same, TRL is left with rounding errors over 1e-4: here we are at 0, it is near it
    assert_close(ours[:2], theirs[:2])
    assert (ours[2] == 0).all() and theirs[2].abs().max() < 1e-2


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_advantages_of_rloo(kl: float):
    rewards, lengths, old, reference, is_answer = scored()
    theirs = bare.advantages("RLOOTrainer", rewards=rewards, lengths=lengths, old_logprobs=old, ref_logprobs=reference, kl=kl)
    after = after_distance(rewards.flatten(), old, reference, is_answer, kl=kl).view_as(rewards)
    assert_close(leave_one_out(after, torch.ones_like(after, dtype=torch.bool)), theirs)


@pytest.mark.parametrize("kind", ["GRPOTrainer", "RLOOTrainer"])
def test_an_answer_without_a_reward_is_no_candidate(kind: str):
    """TRL marks it by NaN and leaves it out; here the caller does, and a NaN that nobody marked stays one."""
    rewards, lengths, old, reference, _ = scored()
    rewards[0, 1] = math.nan
    theirs = bare.advantages(kind, rewards=rewards, lengths=lengths, old_logprobs=old, ref_logprobs=reference, kl=0.0)
    is_candidate = ~rewards.isnan()
    ours = group_normalised(rewards, is_candidate, eps=1e-4) if kind == "GRPOTrainer" else leave_one_out(rewards, is_candidate)
    assert_close(ours[:2], theirs[:2])
