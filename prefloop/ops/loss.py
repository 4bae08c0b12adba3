"""The one shape every loss returns."""

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """A weighted sum over rows. Losses of parts of a batch add up to the loss of the whole."""

    value: Tensor  # scalar, already weighted and summed
    metrics: dict[str, Tensor]  # scalars, weighted and summed the same way, detached


def loss_of(value: Tensor, /, **metrics: Tensor) -> Loss:
    """A loss with its own value among its metrics, all of them detached."""
    return Loss(value, {name: metric.detach() for name, metric in {"loss": value, **metrics}.items()})
