"""Weights as a learner keeps them: groups for decay, equal on all processes at the start, checked against a checkpoint."""

from typing import Any

import torch
from torch import Tensor, nn

from prefloop.engine.processes import is_main, sum_in_place
from prefloop.errors import RunError


def decayed_and_not(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices shrink by weight decay; gains and biases do not."""
    groups = (([p for p in parameters if p.dim() >= 2], weight_decay), ([p for p in parameters if p.dim() < 2], 0.0))
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


@torch.no_grad()
def start_alike(parameters: list[nn.Parameter]) -> None:
    """Every process begins with the main one's weights."""
    if not is_main():
        for parameter in parameters:
            parameter.zero_()
    sum_in_place(parameters)


def saved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """State of the model that is not trained but changes, such as running means."""
    persistent = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in persistent}


def refuse_another_model(what: str, own: dict[str, torch.Size], saved: dict[str, torch.Size]) -> None:
    if own == saved:
        return
    differing = sorted(name for name in own.keys() | saved.keys() if own.get(name) != saved.get(name))
    name = differing[0]
    raise RunError(
        f"the checkpoint holds {what} of another model: {len(differing)} differ, first {name} with shape "
        f"{list(saved.get(name, [])) or 'none'} saved and {list(own.get(name, [])) or 'none'} here\n"
        f"  resume with the model and settings the run was started with"
    )
