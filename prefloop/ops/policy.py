"""PPO's two clipped losses (Schulman et al. 2017, arXiv 1707.06347, equation 7; the value loss as in lm-human-preferences).

A weight is a row's weight times its token's. Tokens of weight 0 (prompt, padding) are never read.
"""

import torch
from torch import Tensor

from prefloop.ops.loss import Loss, loss_of


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weight: Tensor, *, clip: float) -> Loss:
    """The clipped surrogate: max(-A rho, -A clip(rho, 1 - clip, 1 + clip)) with rho = pi / pi_old.

    logprobs      B T  of the sampled tokens under the policy; the only argument that carries a gradient
    old_logprobs  B T  of the same tokens when they were sampled
    advantages    B T
    weight        B T

    Where the policy is the old one, the gradient is REINFORCE's. Metrics: ``ratio`` is rho, ``ratio_gap`` its distance
    from 1 (0 before the first update), ``approxkl`` the estimator k2 against the old policy, ``clipfrac`` the share of
    tokens whose gradient the clip has cut off.
    """
    is_counted = weight != 0
    log_ratio = (logprobs - old_logprobs).where(is_counted, 0)
    advantages = advantages.where(is_counted, 0)
    ratio = log_ratio.exp()
    free, held = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return loss_of(
        (weight * torch.maximum(free, held)).sum(),
        approxkl=(weight * log_ratio**2).sum() / 2,
        clipfrac=(weight * (held > free)).sum(),
        ratio=(weight * ratio).sum(),
        ratio_gap=(weight * (ratio - 1).abs()).sum(),
    )


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, weight: Tensor, *, clip: float) -> Loss:
    """Half the squared error of the values, or of the values held within ``clip`` of the old ones, whichever is larger.

    values      B T  V(everything before the token); the only argument that carries a gradient
    old_values  B T  when the answers were sampled
    returns     B T  what the values should have been
    weight      B T

    ``clip = math.inf`` is plain regression. Metrics: ``error`` is the squared error without clip, ``clipfrac`` the share
    of tokens whose gradient the clip has cut off, ``value`` the mean value.
    """
    is_counted = weight != 0
    values = values.where(is_counted, 0)
    old_values, returns = old_values.where(is_counted, 0), returns.where(is_counted, 0)
    free = (values - returns) ** 2
    held = (values.clamp(old_values - clip, old_values + clip) - returns) ** 2
    return loss_of(
        0.5 * (weight * torch.maximum(free, held)).sum(),
        error=(weight * free).sum(),
        clipfrac=(weight * (held > free)).sum(),
        value=(weight * values).sum(),
    )
