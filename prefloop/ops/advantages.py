"""Who earned it: from rewards per token to advantages and returns.

Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, equation 16):

    delta_t = R_t + gamma V_{t+1} - V_t          V = 0 after the last token of the answer
    A_t = delta_t + gamma lam A_{t+1}            G_t = A_t + V_t

    rewards  B T
    values   B T  values[b, t] = V(everything before token t)
    mask     B T  True on the answer's tokens, EOS included; the successor of a token is the next True one of its row

What stands outside the mask is never read, not even a number that is none; results are 0 there. Nothing here carries a
gradient: an advantage is a constant of the update.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    advantages: Tensor  # B T
    returns: Tensor  # B T  what the critic is to predict


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> Advantages:
    """Advantages and returns of every token: B T each. lam = 1 is return minus value, lam = 0 one step ahead."""
    next_value = next_advantage = torch.zeros_like(values[:, 0])  # B
    columns = []
    for reward, value, is_token in reversed(list(zip(rewards.unbind(1), values.unbind(1), mask.unbind(1), strict=True))):
        advantage = reward + gamma * next_value - value + gamma * lam * next_advantage
        next_advantage = advantage.where(is_token, next_advantage)
        next_value = value.where(is_token, next_value)
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], 1).where(mask, 0)
    return Advantages(advantages, (advantages + values).where(mask, 0))


def returns_to_go(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """The discounted sum of the rewards from each token on: B T."""
    return gae(rewards, torch.zeros_like(rewards), mask, gamma=gamma, lam=1.0).returns


@torch.no_grad()
def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Variance 1, and mean 0 unless ``shift_mean`` is False (for rewards, whose sign means something): B T, 0 outside the mask.

    The variance is the biased one, divided by the number of tokens.
    """
    n = mask.sum().clamp(min=1)
    mean = x.where(mask, 0).sum() / n
    centred = (x - mean).where(mask, 0)
    scaled = centred / ((centred**2).sum() / n + eps).sqrt()
    return scaled if shift_mean else (scaled + mean).where(mask, 0)


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share of the returns' variance that the values foresaw: 1 is all, 0 is no better than a constant. Scalar."""
    missed, spread = (returns - values)[mask], returns[mask]
    return 1 - missed.var(correction=0) / spread.var(correction=0).clamp(min=1e-8)
