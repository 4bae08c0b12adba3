"""How a row's tokens share the row's weight, and what a row weighs: four ways to average a loss over tokens.

A loss multiplies by ``row * token`` weights and sums. The learner divides the row weights by their sum over every row of
every process *before* micro-batches are cut, so that neither memory settings nor process counts move a gradient.

    is_target  B T  True where a token counts
    row        B    what a row weighs against the others (any positive scale; the learner makes it sum to one)
    token      B T  how the row's weight is spread over its tokens
"""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    row: Tensor  # B
    token: Tensor  # B T


def token_mean(is_target: Tensor) -> Weights:
    """Every token of the batch counts the same; long rows weigh more."""
    length = is_target.sum(1)
    return Weights(length.float(), is_target / length.clamp(min=1)[:, None])


def sequence_mean(is_target: Tensor) -> Weights:
    """Every row counts the same, and so does every token inside it."""
    length = is_target.sum(1)
    return Weights((length > 0).float(), is_target / length.clamp(min=1)[:, None])


def prompt_mean(is_target: Tensor, prompt: Tensor) -> Weights:
    """Every prompt counts the same, then every one of its rows. ``prompt`` B: which prompt a row answers."""
    row, token = sequence_mean(is_target)
    siblings = ((prompt[:, None] == prompt) * row).sum(1)  # B, rows with a target; an empty one takes no share
    return Weights(row / siblings.clamp(min=1), token)


def constant(is_target: Tensor, *, length: int) -> Weights:
    """A sum over tokens divided by a constant: length no longer changes what a token is worth (Dr. GRPO)."""
    return Weights(is_target.any(1).float(), is_target / length)
