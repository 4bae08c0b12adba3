"""Is a rule broken? A logit per (rule, conversation, answer), learned from yes and no (Sparrow, arXiv 2209.14375)."""

from torch import Tensor
from torch.nn.functional import softplus

from prefloop.ops.loss import Loss, loss_of


def violation_loss(logit: Tensor, is_broken: Tensor, weight: Tensor) -> Loss:
    """Cross-entropy of P(broken) = sigmoid(logit): -log sigmoid(logit) where the rule is broken, else -log sigmoid(-logit).

    logit      P  the only argument that carries a gradient
    is_broken  P  True where people said so
    weight     P  share of each row in the update

    Metrics: ``accuracy`` at a chance of one half; ``broken`` and ``predicted``, the shares of broken rules said and predicted.
    """
    cost = softplus(logit.where(~is_broken, -logit))
    predicted = logit.detach() > 0
    return loss_of(
        (weight * cost).sum(),
        accuracy=(weight * (predicted == is_broken)).sum(),
        broken=(weight * is_broken).sum(),
        predicted=(weight * predicted).sum(),
    )
