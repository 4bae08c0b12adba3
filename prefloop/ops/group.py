"""Policy gradients without a critic: K answers to a prompt are each other's baseline.

    reward        P K  of each answer
    is_candidate  P K  False where a prompt has fewer than K answers; what stands there is never read, and its advantage is 0

    RLOO          r_i - mean of the others                        arXiv 2402.14740; unbiased: E = grad E[r]
    Dr. GRPO      r_i - mean of all                               arXiv 2503.20783; (K - 1) / K of RLOO's
    GRPO          (r_i - mean of all) / (std of all + eps)        arXiv 2402.03300; no multiple of the gradient in general
    REINFORCE++   return to go, whitened over the whole update    arXiv 2501.03262

The rules for prompts that teach nothing are the same everywhere. An answer alone (K = 1) has nothing to be compared with, and
equal rewards say nothing about which answer is better: all of these advantages are exactly 0, decided by comparing rewards
and not by rounding errors divided by a small spread. ``informative`` tells which prompts are left, and counts the others. A
reward that is no number makes its group's advantages none, so that it cannot pass unseen.

How tokens share a row's weight is ``ops/weights.py``: ``sequence_mean`` is GRPO's, ``token_mean`` DAPO's, ``constant`` Dr. GRPO's.
Advantages carry no gradient. The distance to the reference is taken off the reward (``after_distance``: RLOO), or off every
token's reward (``reinforce_plus_plus``), or is a term of the loss (``grpo_loss``).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from prefloop.ops.advantages import returns_to_go, whiten
from prefloop.ops.kl import k1, k3
from prefloop.ops.loss import Loss, loss_of

# --------------------------------------------------------------------------------------------------------- advantages


@torch.no_grad()
def leave_one_out(reward: Tensor, is_candidate: Tensor) -> Tensor:
    """RLOO: each reward less the mean of the others', which is K / (K - 1) (r_i - mean): P K."""
    n = is_candidate.sum(1, keepdim=True)  # P 1
    return centred(reward, is_candidate) * n / (n - 1).clamp(min=1)


@torch.no_grad()
def centred(reward: Tensor, is_candidate: Tensor) -> Tensor:
    """Dr. GRPO: each reward less its group's mean: P K."""
    reward = reward.where(is_candidate, 0)
    mean = reward.sum(1, keepdim=True) / is_candidate.sum(1, keepdim=True).clamp(min=1)
    return (reward - mean).where(is_candidate & ~teaches_nothing(reward, is_candidate), 0)


@torch.no_grad()
def group_normalised(reward: Tensor, is_candidate: Tensor, *, eps: float) -> Tensor:
    """GRPO: each reward less its group's mean, over its group's standard deviation: P K.

    The variance is divided by K - 1, as in TRL, verl and OpenRLHF; the paper says only "std". ``eps`` is added to the
    deviation: 1e-4 in TRL, where it also damps groups whose rewards hardly differ.
    """
    deviation = centred(reward, is_candidate)
    spread = ((deviation**2).sum(1, keepdim=True) / (is_candidate.sum(1, keepdim=True) - 1).clamp(min=1)).sqrt()  # P 1
    return torch.where(deviation == 0, deviation, deviation / (spread + eps))  # 0 / 0 where eps = 0


def teaches_nothing(reward: Tensor, is_candidate: Tensor) -> Tensor:
    """Groups of fewer than two answers, and groups whose rewards are all the same: P 1."""
    highest = reward.where(is_candidate, -torch.inf).amax(1, keepdim=True)
    lowest = reward.where(is_candidate, torch.inf).amin(1, keepdim=True)
    return (highest == lowest) | (is_candidate.sum(1, keepdim=True) < 2)  # a NaN equals nothing and is not hidden


class Informative(NamedTuple):
    """Which prompts of an update have something to learn from."""

    is_kept: Tensor  # P
    n_alone: Tensor  # scalar, prompts with fewer than two answers
    n_equal: Tensor  # scalar, prompts whose answers all got the same reward


def informative(reward: Tensor, is_candidate: Tensor) -> Informative:
    """DAPO's dynamic sampling as a mask and counts: prompts whose rewards are not all the same (arXiv 2503.14476, section 3.2).

    The paper draws other prompts until the update is full. Leaving these out before the weights are set gives the rest
    their share; leaving them in gives them a share and a gradient of 0.
    """
    is_alone = is_candidate.sum(1) < 2
    is_equal = teaches_nothing(reward, is_candidate).squeeze(1) & ~is_alone
    return Informative(~is_alone & ~is_equal, is_alone.sum(), is_equal.sum())


@torch.no_grad()
def after_distance(score: Tensor, logprobs: Tensor, ref_logprobs: Tensor, is_answer: Tensor, *, kl: float) -> Tensor:
    """RLOO's reward: the score less the price of the answer's log-ratio to the reference: B.

    score                   B    of each answer
    logprobs, ref_logprobs  B T  of its tokens when it was drawn
    is_answer               B T
    """
    return score - kl * k1(logprobs, ref_logprobs).where(is_answer, 0).sum(1)


@torch.no_grad()
def reinforce_plus_plus(score: Tensor, logprobs: Tensor, ref_logprobs: Tensor, is_answer: Tensor, *, kl: float) -> Tensor:
    """REINFORCE++: every token pays its distance, the last one earns the score; returns to go, whitened over the update: B T.

    score                   B    of each answer; less its group's mean (``centred``) for the variant "-baseline"
    logprobs, ref_logprobs  B T  of its tokens when it was drawn
    is_answer               B T

    Where all returns are the same, all advantages are 0.
    """
    is_last = is_answer & (is_answer.flip(1).cumsum(1).flip(1) == 1)
    rewards = score[:, None] * is_last - kl * k1(logprobs, ref_logprobs).where(is_answer, 0)
    return whitened(returns_to_go(rewards, is_answer, gamma=1.0), is_answer)


@torch.no_grad()
def whitened(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over all tokens under the mask, and 0 everywhere where they are all the same: B T."""
    kept = x[mask]
    is_flat = len(kept) == 0 or bool(kept.amax() == kept.amin())
    return torch.zeros_like(x) if is_flat else whiten(x, mask)


# ------------------------------------------------------------------------------------------------------------- losses


def clip_higher_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weight: Tensor, *, clip_low: float, clip_high: float
) -> Loss:
    """PPO's clipped surrogate with room of its own upwards (DAPO, arXiv 2503.14476, section 3.1).

    logprobs      B T  of the sampled tokens under the policy; the only argument that carries a gradient
    old_logprobs  B T  of the same tokens when they were sampled
    advantages    B T  an answer's advantage on each of its tokens
    weight        B T  a row's weight times its token's; tokens of weight 0 are never read

    DAPO's are 0.2 and 0.28: unlikely tokens can then still grow. Equal, this is ``policy_loss``. Metrics as there, and
    the clipped share by side under TRL's names.
    """
    is_counted = weight != 0
    log_ratio = (logprobs - old_logprobs).where(is_counted, 0)
    advantages = advantages.where(is_counted, 0)
    ratio = log_ratio.exp()
    free, held = -advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    is_held = held > free
    sides = {"clip_ratio/low_mean": is_held & (ratio < 1), "clip_ratio/high_mean": is_held & (ratio > 1)}
    return loss_of(
        (weight * torch.maximum(free, held)).sum(),
        approxkl=(weight * log_ratio**2).sum() / 2,
        clipfrac=(weight * is_held).sum(),
        ratio=(weight * ratio).sum(),
        ratio_gap=(weight * (ratio - 1).abs()).sum(),
        **{name: (weight * is_clipped).sum() for name, is_clipped in sides.items()},
    )


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    advantages: Tensor,
    weight: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl: float,
) -> Loss:
    """The same with the distance to the reference as a term of the loss (GRPO, arXiv 2402.03300, equations 3 and 4).

    logprobs      B T  of the sampled tokens under the policy; the only argument that carries a gradient
    old_logprobs  B T  of the same tokens when they were sampled
    ref_logprobs  B T  of the same tokens under the frozen reference
    advantages    B T  an answer's advantage on each of its tokens
    weight        B T  a row's weight times its token's; tokens of weight 0 are never read

    The term is ``k3``, as in the paper: its value estimates KL(pi || ref), its gradient is that of KL(ref || pi). Where
    ``kl`` is 0 (TRL's default) use ``clip_higher_loss``, which needs no reference.
    """
    is_counted = weight != 0
    policy = clip_higher_loss(logprobs, old_logprobs, advantages, weight, clip_low=clip_low, clip_high=clip_high)
    distance = (weight * k3(logprobs.where(is_counted, 0), ref_logprobs.where(is_counted, 0))).sum()
    return loss_of(policy.value + kl * distance, **{k: v for k, v in policy.metrics.items() if k != "loss"}, kl=distance)


def sequence_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    is_answer: Tensor,
    weight: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Loss:
    """The clipped surrogate where the whole answer is the action (RLOO, arXiv 2402.14740, section 3).

    logprobs      B T  of the sampled tokens under the policy; the only argument that carries a gradient
    old_logprobs  B T  of the same tokens when they were sampled
    advantages    B    of each answer
    is_answer     B T  True on the answer's tokens, EOS included; what stands elsewhere is never read
    weight        B    share of each answer in the update

    On the answers of the present policy the gradient is REINFORCE's, -A grad log pi(y), a sum over tokens: no length enters.
    The ratio of an answer is the product of its tokens' ratios, so it leaves the clip sooner the longer the answer.
    """
    logprob, old_logprob = (of_tokens.where(is_answer, 0).sum(1) for of_tokens in (logprobs, old_logprobs))  # B
    return clip_higher_loss(logprob, old_logprob, advantages, weight, clip_low=clip_low, clip_high=clip_high)
