"""Distance between two policies, KL(pi || ref) in nats.

Estimators from one sampled token, with r = ref / pi (Schulman, "Approximating KL Divergence"):

    k1 = -log r           unbiased, noisy, negative at times; on average negative only if sampler and scorer disagree
    k2 = (log r)^2 / 2    biased, never negative
    k3 = r - 1 - log r    unbiased, never negative; heavy tail where pi is far below ref

As a loss on samples of pi they do something else than they measure: the expected gradient of k1 is zero, of k2 that of
KL(pi || ref), of k3 that of KL(ref || pi). So k1 belongs into the reward, and k2 is the one to descend.
"""

import torch
from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log pi - log ref of sampled tokens: any shape, same shape."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(log pi - log ref)^2 / 2 of sampled tokens: any shape, same shape."""
    return (logprobs - ref_logprobs) ** 2 / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """ref / pi - 1 - log(ref / pi) of sampled tokens: any shape, same shape."""
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio  # expm1 keeps the digits where the policies agree


def full_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL over the whole vocabulary, exact: ... V -> ... . An entry the policy rules out (logit -inf) counts 0."""
    logprobs, ref_logprobs = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    gap = (logprobs - ref_logprobs).where(logprobs > -torch.inf, 0)
    return (logprobs.exp() * gap).sum(-1)


def adapted(beta: float, kl: float, target: float, horizon: float, n: int) -> float:
    """The price of distance after ``n`` answers at ``kl`` nats each, steered towards ``target``.

    It moves by at most a fifth in ``horizon`` answers, however far off the distance is (Ziegler et al. 2019, arXiv
    1909.08593, section 2.2).
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * n / horizon)
