"""Losses that move a policy by preferences, without a reward model in between.

    logprobs      P K  log-probability of each answer, summed over its tokens; the only argument that carries a gradient
    ref_logprobs  P K  the same under the frozen reference
    length        P K  tokens of each answer, EOS included
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers, or the annotator did not place one
    weight        P    share of each prompt in the update

    DPO     -log sigmoid(beta h)                                   h: by how much more the log-ratio to the reference rose
    cDPO    (1 - e) that of h, plus e that of -h                      for the winner than for the loser
    IPO     (h - 1 / (2 beta))^2
    SimPO   -log sigmoid(beta (m_w - m_l) - margin)                m: log-probability per token; no reference
    ORPO    -m_w - lam log sigmoid(log odds(m_w) - log odds(m_l))  odds p / (1 - p) of p = exp(m); no reference
    KTO     1 - sigmoid(+-beta (log-ratio - distance))             single answers, called good or bad; no pairs

All of them are about a winner and a loser. A ranking of K answers is taken as its ordered pairs, whose mean is the prompt's
loss: for K = 2 that is the paper's, and nine answers do not outvote four. DPO has a second reading of K answers, the
Plackett-Luce model of its appendix A.3. A prompt without any ordered pair teaches nothing: leave it out, and count it,
before the weights are set.

Metrics have TRL's names. ``rewards/...`` is the reward the loss implies (beta times log-ratio, beta times log-probability per
token where there is no reference), ``logps/...`` the log-probabilities as the loss sees them; chosen and rejected are means over
pairs, so an answer counts as often as it won or lost.
"""

import math

import torch
from torch import Tensor

from prefloop.errors import DataError
from prefloop.ops.loss import Loss, loss_of
from prefloop.ops.ranking import Pairs, log_sigmoid, paired, plackett_luce_loss


def dpo_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    tier: Tensor,
    is_candidate: Tensor,
    weight: Tensor,
    *,
    beta: float,
    smoothing: float,
) -> Loss:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7), cDPO with ``smoothing`` above 0.

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    ref_logprobs  P K  the same under the frozen reference
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

    ``smoothing`` is the share of pairs believed to be labelled the wrong way round (Mitchell 2023, "A note on DPO with noisy
    preferences"): the margin then settles at log((1 - e) / e) instead of growing without end. Both log-probabilities of a
    pair may fall while the margin grows: watch ``logps/chosen``.
    """
    log_ratio = beta * (logprobs - ref_logprobs)
    pairs = paired(log_ratio, tier, is_candidate)
    nll = -(1 - smoothing) * log_sigmoid(pairs.margin) - smoothing * log_sigmoid(-pairs.margin)
    return over_preferences(nll, pairs, weight, reward=log_ratio, logprobs=logprobs)


def dpo_plackett_luce_loss(
    logprobs: Tensor, ref_logprobs: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, beta: float
) -> Loss:
    """DPO where a ranking of K answers is K - 1 choices, not C(K, 2) pairs (arXiv 2305.18290, appendix A.3).

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    ref_logprobs  P K  the same under the frozen reference
    tier          P K  place given by the annotator, 0 is best; equal places are not compared
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

    The mean over the choices, with the rule for ties of ``plackett_luce_loss``; the paper sums. For K = 2 this is ``dpo_loss``.
    """
    log_ratio = beta * (logprobs - ref_logprobs)
    pairs = paired(log_ratio, tier, is_candidate)
    choices = plackett_luce_loss(log_ratio, tier, is_candidate, weight)
    metrics = over_preferences(pairs.margin, pairs, weight, reward=log_ratio, logprobs=logprobs).metrics
    return Loss(choices.value, {**metrics, "loss": choices.metrics["loss"]})


def ipo_loss(logprobs: Tensor, ref_logprobs: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, beta: float) -> Loss:
    """Identity preference optimisation: regression of the log-ratio difference to 1 / (2 beta) (arXiv 2310.12036, equation 17).

    logprobs      P K  of each answer; the only argument that carries a gradient
    ref_logprobs  P K  the same under the frozen reference
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

    The paper writes log-probabilities of whole answers: pass sums. TRL 1.16 takes means over an answer's tokens, and says that
    the authors meant those: for that reading pass ``per_token`` of both. Per token the same margin is asked of a number that
    is smaller by the length of the answer, so ``beta`` is another one.
    """
    log_ratio = logprobs - ref_logprobs
    pairs = paired(log_ratio, tier, is_candidate)
    error = (pairs.margin - 1 / (2 * beta)) ** 2
    return over_preferences(error, pairs, weight, reward=beta * log_ratio, logprobs=logprobs)


def simpo_loss(
    logprobs: Tensor,
    length: Tensor,
    tier: Tensor,
    is_candidate: Tensor,
    weight: Tensor,
    *,
    beta: float,
    margin: float,
) -> Loss:
    """Simple preference optimisation: log-probability per token as reward, a target margin, no reference (arXiv 2405.14734, eq. 6).

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    length        P K  tokens of each answer
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

    ``margin`` is the paper's gamma, in units of the reward; its README gives gamma / beta. TRL calls it ``simpo_gamma``.
    """
    mean = per_token(logprobs, length)
    pairs = paired(beta * mean, tier, is_candidate)
    return over_preferences(-log_sigmoid(pairs.margin - margin), pairs, weight, reward=beta * mean, logprobs=mean)


def orpo_loss(logprobs: Tensor, length: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, lam: float) -> Loss:
    """Odds ratio preference optimisation: imitation of the best and a penalty on the odds of the rest (arXiv 2403.07691, eq. 6).

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    length        P K  tokens of each answer
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

    With K answers the odds ratio is taken over every ordered pair, and the best tier is imitated, each of its answers alike.
    Two differences from TRL 1.16: the imitated text is the answer (there prompt and answer), and its cost is a mean over the
    answer's tokens and then over prompts (there over all tokens of the batch, so that long answers weigh more).
    """
    mean = per_token(logprobs, length).where(is_candidate, -1.0)
    pairs = paired(mean - log1mexp(mean), tier, is_candidate)
    best = unbeaten(pairs)  # P K
    imitation = -(mean * best).sum(1) / best.sum(1).clamp(min=1)  # P
    odds = over_preferences(-log_sigmoid(pairs.margin), pairs, weight, reward=lam * mean, logprobs=mean)
    nll = (weight * imitation).sum()
    named = {"nll_loss": nll, "log_odds_ratio": -odds.value, "log_odds_chosen": mean_over(pairs.margin, pairs, weight)}
    return loss_of(nll + lam * odds.value, **{k: v for k, v in odds.metrics.items() if k != "loss"}, **named)


def kto_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    is_desirable: Tensor,
    weight: Tensor,
    *,
    distance: float,
    beta: float,
    desirable: float,
    undesirable: float,
) -> Loss:
    """Kahneman-Tversky optimisation: single answers, each called good or bad (arXiv 2402.01306, section 4.1).

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    ref_logprobs  P K  the same under the frozen reference
    is_desirable  P K  True where the answer was called good
    weight        P K  share of each answer in the update; 0 where a prompt has fewer than K answers

    ``distance`` is the paper's z_0: how far the policy is from the reference on answers that belong to other prompts, never
    below 0 and without a gradient. It is a constant of the whole update: take it before the rows are cut, by
    ``mismatched`` and ``mismatched_distance``. (TRL takes it from each micro-batch, so memory settings move its gradient.)
    Answers of one prompt share a row for speed only; K = 1 is the paper's case. Where good and bad answers are not equally
    many, keep desirable n_good / (undesirable n_bad) between 1 and 4/3.

    A mean over the good answers alone is no weighted sum over rows. The metrics are the sums and the shares ``count/...``;
    ``per_class`` divides them.
    """
    is_counted = weight != 0
    log_ratio = (logprobs - ref_logprobs).where(is_counted, 0)
    sign = 2 * is_desirable.long() - 1
    share = log_ratio.new_tensor((undesirable, desirable))[is_desirable.long()]  # P K
    cost = weight * share * (1 - torch.sigmoid(beta * (log_ratio - distance) * sign))
    figures = {
        "loss": cost,
        "rewards": weight * beta * log_ratio,
        "logps": weight * logprobs.where(is_counted, 0),
        "count": weight,
    }
    classes = {"chosen": is_desirable, "rejected": ~is_desirable}
    sums = {f"{name}/{of}": (figure * members).sum() for name, figure in figures.items() for of, members in classes.items()}
    return loss_of(cost.sum(), kl=distance * weight.sum(), **sums)


def per_class(metrics: dict[str, float]) -> dict[str, float]:
    """KTO's sums as means over the good answers and over the bad; a class that is not in the update has no entry."""
    means = {}
    for name, value in metrics.items():
        group, _, of = name.partition("/")
        if of not in ("chosen", "rejected") or group == "count":
            means[name] = value
        elif metrics[f"count/{of}"] > 0:
            means[name] = value / metrics[f"count/{of}"]
    if {"rewards/chosen", "rewards/rejected"} <= means.keys():
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    return means


@torch.no_grad()
def mismatched_distance(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """KTO's z_0 from answers put to prompts they do not answer: B, B -> scalar, 0 where the estimate is negative."""
    return (logprobs - ref_logprobs).mean().clamp(min=0)


def mismatched(prompt: Tensor) -> Tensor:
    """For each row another row that answers another prompt, every row used once: B -> B, indices.

    ``prompt`` says which prompt a row answers. Rows sorted by prompt and turned by the size of the largest group meet nobody
    of their own group, unless one prompt has more than half of the rows: then no such assignment exists.
    """
    order = prompt.argsort(stable=True)
    largest = int(prompt.unique(return_counts=True)[1].max())
    if 2 * largest > len(prompt):
        raise DataError(
            f"{largest} of {len(prompt)} answers belong to one prompt, and each needs a partner that answers another one\n"
            f"  allowed: at most half of them\n"
            f"Give more prompts, or fewer answers to that one."
        )
    partner = torch.empty_like(order)
    partner[order] = order.roll(largest)
    return partner


# ------------------------------------------------------------------------------------------------------------ pieces


def per_token(logprobs: Tensor, length: Tensor) -> Tensor:
    """Log-probability per token of an answer, from its sum and its length: any shape. An answer of no tokens has 0."""
    return logprobs / length.clamp(min=1)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, exact at both ends: near 0 by expm1, far below by log1p (Maechler 2012).

    What is nearer to 0 than the precision's epsilon counts as that far: a probability of 1 has finite odds and no slope.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x > -math.log(2), (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def unbeaten(pairs: Pairs) -> Tensor:
    """The answers in the best place of each prompt that has an ordered pair: P K."""
    return pairs.is_won.any(2) & ~pairs.is_won.any(1)


def mean_over(figure: Tensor, pairs: Pairs, weight: Tensor) -> Tensor:
    """The mean of ``figure`` P K K over a prompt's ordered pairs, summed with the prompts' weights: scalar."""
    n = pairs.is_won.sum((1, 2)).clamp(min=1)
    return (weight * (figure * pairs.is_won).sum((1, 2)) / n).sum()


def over_preferences(cost: Tensor, pairs: Pairs, weight: Tensor, *, reward: Tensor, logprobs: Tensor) -> Loss:
    """The mean of ``cost`` P K K over a prompt's ordered pairs, with TRL's metrics of ``reward`` and ``logprobs`` P K."""
    placed = pairs.is_won.any(2) | pairs.is_won.any(1)  # P K, the others may hold no number
    reward, logprobs = reward.detach().where(placed, 0), logprobs.detach().where(placed, 0)
    metrics = {
        "rewards/chosen": mean_over(reward[:, :, None], pairs, weight),
        "rewards/rejected": mean_over(reward[:, None, :], pairs, weight),
        "rewards/margins": mean_over(reward[:, :, None] - reward[:, None, :], pairs, weight),
        "rewards/accuracies": mean_over(pairs.margin > 0, pairs, weight),
        "logps/chosen": mean_over(logprobs[:, :, None], pairs, weight),
        "logps/rejected": mean_over(logprobs[:, None, :], pairs, weight),
    }
    return loss_of(mean_over(cost, pairs, weight), **metrics)
