"""Before its first update a policy must give its own answers the probabilities they were drawn with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prefloop.errors import RunError

ALLOWED = 1e-4  # distance of the importance ratio from 1


@torch.no_grad()
def refuse_if_off_policy(
    policy: nn.Module, logprobs_at: Callable[[float], Tensor], old_logprobs: Tensor, *, temperature: float
) -> None:
    """RunError, with the likely cause, where the importance ratio of answers just drawn is not 1.

    ``logprobs_at(temperature)`` are the policy's log-probabilities in the shape of ``old_logprobs``, both 0 outside the
    answers.
    """
    gap = largest_gap(logprobs_at(temperature), old_logprobs)
    if gap <= ALLOWED:
        return
    causes = []
    if any(isinstance(m, nn.Dropout) and m.p > 0 and m.training for m in policy.modules()):
        causes.append("dropout is on: the model must be scored with dropout off")
    if temperature != 1.0 and largest_gap(logprobs_at(1.0), old_logprobs) <= ALLOWED:
        causes.append("the sampler ignored the temperature")
    if next(policy.parameters()).dtype != torch.float32:
        causes.append("the weights are not float32: rounding differs between one token at a time and all at once")
    likely = (
        "; ".join(causes) or "positions, padding or a filtered distribution (top-k, top-p) differ between sampler and trainer"
    )
    raise RunError(
        f"the importance ratio of the first minibatch is off by up to {gap:.2g}; it must be 1 within {ALLOWED:g}\n"
        f"  the policy does not give its own answers the probabilities they were drawn with, so it would learn nonsense\n"
        f"  likely cause: {likely}"
    )


def largest_gap(logprobs: Tensor, old_logprobs: Tensor) -> float:
    return float(((logprobs - old_logprobs).exp() - 1).abs().amax())
