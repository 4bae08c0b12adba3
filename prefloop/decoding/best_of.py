"""Best-of-n: of n answers to a prompt return the one with the highest score."""

import numpy as np
from numpy.typing import ArrayLike

from prefloop.errors import RunError


def best_of(scores: ArrayLike) -> np.ndarray:
    """Which of its n answers each prompt keeps, the first where several share the highest score: P N -> P."""
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise RunError(
            f"best-of-n takes a table of scores, prompts by answers with at least one answer each; got shape {scores.shape}"
        )
    is_bad = np.isnan(scores)
    if is_bad.any():
        p, n = np.argwhere(is_bad)[0]
        raise RunError(
            f"answer {n} of prompt {p} was scored {scores[p, n]}, which is not a number, so no best answer can be named "
            f"({is_bad.sum()} of {scores.size} scores are like it)\n"
            f"Score that answer alone to see where the model behind the score breaks."
        )
    return scores.argmax(1)
