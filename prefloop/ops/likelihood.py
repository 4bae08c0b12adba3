"""Imitation: make given tokens more likely. SFT, pretraining, the second term of PPO-ptx."""

from torch import Tensor

from prefloop.ops.loss import Loss, loss_of


def nll(logprobs: Tensor, weight: Tensor) -> Loss:
    """Negative log-likelihood of the weighted tokens.

    logprobs  B T  of each token given what stands before it; the only argument that carries a gradient
    weight    B T  a row's weight times its tokens'; 0 on tokens that are not to be imitated
    """
    return loss_of(-(weight * logprobs.where(weight != 0, 0)).sum())
