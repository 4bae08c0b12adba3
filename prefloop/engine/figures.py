"""Figures of an update: those of several terms joined, summed over processes, as numbers."""

import torch
from torch import Tensor

from prefloop.engine.processes import gathered, sum_in_place


def joined(known: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Figures of several terms; two of one name would hide each other."""
    if twice := sorted(known.keys() & new.keys()):
        raise ValueError(f"two terms of an update report {', '.join(twice)}; give one of them another Term.name")
    return known | new


def numbers(sums: dict[str, Tensor]) -> dict[str, float]:
    """Figures as numbers, summed over processes; where a step waits for the device."""
    mine: dict[str, float] = {}
    if sums:
        widest = torch.float32 if next(iter(sums.values())).device.type == "mps" else torch.float64
        stacked = torch.stack([value.detach().to(widest) for value in sums.values()])
        mine = dict(zip(sums, stacked.tolist(), strict=True))
    everyone = gathered(mine)
    names = dict.fromkeys(name for one in everyone for name in one)  # a process without rows has no names to offer
    return {name: sum(one[name] for one in everyone if name in one) for name in names}


def norm_of_all(gradient: list[Tensor]) -> float:
    """The norm of a gradient to which every process holds a summand."""
    sum_in_place(gradient)
    return float(torch.nn.utils.get_total_norm(gradient, foreach=True))
