"""How many processes work on this run, which of them this is, and on which device: the only file that knows accelerate.

One process without a launcher is the normal case, and then every function here costs nothing. Under ``torchrun`` or
``accelerate launch`` (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) the processes share the rows of a step; each
must make the same calls in the same order.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor

from prefloop.errors import ConfigError

T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """``auto`` (the accelerator if there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; joins the other processes."""
    if name != "auto":
        refuse_a_device_that_is_not_there(name)
    has_accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    state = PartialState(cpu=name == "cpu" or not has_accelerator)
    if name == "auto" or state.num_processes > 1:  # a launcher gives each process a device of its own
        return torch.device(state.device or "cpu")
    return torch.device(name)


def refuse_a_device_that_is_not_there(name: str) -> None:
    """A name this machine has no device for, before anything is loaded."""
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name not in there:
        raise ConfigError(f"this machine has no device {name!r}\n  it has: auto, {', '.join(there)}\n  prefloop doctor says more")


def rank() -> int:
    """Which process this is; 0 is the main one, the only one that writes."""
    return PartialState().process_index


def n_processes() -> int:
    return PartialState().num_processes


def is_main() -> bool:
    return rank() == 0


def barrier() -> None:
    """Go on when every process has come this far."""
    if n_processes() > 1:
        PartialState().wait_for_everyone()


def gathered(value: T) -> list[T]:
    """The value of every process, in the order of their ranks, on every process."""
    return gather_object([value]) if n_processes() > 1 else [value]


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes, a new tensor on every process."""
    return reduce(tensor, reduction="sum") if n_processes() > 1 else tensor  # pyright: ignore[reportReturnType]


def from_main(value: T) -> T:
    """The main process's value, on every process."""
    return broadcast_object_list([value])[0] if n_processes() > 1 else value


def on_main(action: Callable[[], T]) -> T:
    """Do it on the main process; every process gets the result, or the same exception."""
    if n_processes() == 1:
        return action()
    outcome: tuple[Any, Exception | None] = (None, None)
    if is_main():
        try:
            outcome = (action(), None)
        except Exception as error:  # whatever it was, the others must hear of it or they wait for ever
            outcome = (None, error)
    result, error = from_main(outcome)
    if error is not None:
        raise error
    return result  # pyright: ignore[reportReturnType]


def sum_in_place(tensors: Sequence[Tensor], *, bucket: int = 8 * 2**20) -> None:
    """Each tensor becomes its sum over processes; ``bucket`` numbers travel in one message."""
    if n_processes() == 1:
        return
    for group in buckets(tensors, bucket):
        flat = summed(torch.cat([tensor.reshape(-1) for tensor in group]))
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def buckets(tensors: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together at most ``size`` numbers (or one tensor that is larger)."""
    group: list[Tensor] = []
    for tensor in tensors:
        is_full = group and (tensor.dtype != group[0].dtype or sum(t.numel() for t in group) + tensor.numel() > size)
        if is_full:
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group
