"""What a run is going to do, told before it does it (``--dry-run``)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes of a run."""

    steps: int  # optimiser steps
    rows: int  # rows of a step
    tokens: int  # longest row
    models: int = 1  # networks of the base model's size held at once
    trained: int = 1  # how many of them have gradients and an optimiser state

    def memory(self, parameters: int) -> dict[str, int]:
        """Bytes by part, float32: weights, gradients and the two moments of Adam (activations are not known beforehand)."""
        word = 4
        return {
            "weights": word * parameters * self.models,
            "gradients": word * parameters * self.trained,
            "optimiser": 2 * word * parameters * self.trained,
        }
