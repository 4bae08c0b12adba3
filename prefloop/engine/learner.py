"""One update of a model's weights: the only place that calls ``backward()`` and holds an optimiser.

A loss is a weighted sum over rows (``ops/loss.py``). The learner makes the weights of a term sum to one over every row of
every process *before* it cuts micro-batches, so the gradient of an update is the sum of the gradients of its parts: how
much is computed at once, and by how many processes, changes memory and time and nothing else. For the same reason the
model is not wrapped for data parallelism, which would average gradients; they are summed after the last part.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from prefloop.engine.figures import joined, norm_of_all, numbers
from prefloop.engine.micro_batches import Portions, is_out_of_memory, micro_batches
from prefloop.engine.parameters import decayed_and_not, refuse_another_model, saved_buffers, start_alike
from prefloop.engine.processes import choose_device, gathered, on_main, rank, sum_in_place
from prefloop.engine.schedule import Schedule, scheduled
from prefloop.errors import RunError
from prefloop.models.batch import move, take
from prefloop.ops.loss import Loss


@dataclass(frozen=True)
class Term:
    """One summand of an update. ``batch`` holds this process's share of the rows, whose weights may have any positive sum."""

    loss: Callable[[nn.Module, Any], Loss]
    batch: Any  # TokenBatch, RankedBatch or RolloutBatch
    scale: float = 1.0
    name: str = ""  # goes before the names of its metrics; without one, terms after the first show their loss's name


class Learner:
    """A model with its optimiser, schedule and moving average; held by a method, never subclassed.

    ``step`` is the interface. A run that keeps a learner saves it whole: trained weights, moments, average, step number.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        steps: int,
        warmup: int = 0,
        schedule: Schedule = "cosine",
        final: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_clip: float = 1.0,
        micro_batch: int = 0,
        micro_tokens: int = 0,
        ema: float = 0.0,
        device: torch.device | str = "auto",
    ):
        self.device = choose_device(device) if isinstance(device, str) else device
        self.model = model.to(self.device)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}  # shared weights appear once
        self.share_of_peak = partial(scheduled, steps=steps, warmup=warmup, schedule=schedule, final=final)
        self.lr, self.grad_clip, self.ema = lr, grad_clip, ema
        self.portions = Portions(micro_batch, micro_tokens)
        self.n_steps = 0
        self.on_nan: Callable[[list[dict[str, Any]]], Path | None] = lambda rows: None  # set by the run that keeps the learner
        start_alike(list(self.trained.values()))
        groups = decayed_and_not(list(self.trained.values()), weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)  # 3 times foreach's speed on a CPU
        self.average = {name: p.detach().clone() for name, p in self.trained.items()} if ema > 0 else {}
        self.shows_average = False

    def step(self, *terms: Term, norms: bool = False) -> dict[str, float]:
        """One update down the gradient of the sum of ``scale * loss`` over the terms.

        Returns each loss's metrics over all rows of all processes, ``lr``, and ``grad_norm`` before clipping. ``norms``
        adds the norm of each term's own gradient (``grad_norm/0``, ...) and does not change the update.
        """
        if self.shows_average:
            raise RuntimeError("step() inside ema_weights(): the average is there to be looked at, not to be trained")
        totals = [self.total_weight(term) for term in terms]
        try:
            sums, added = self.accumulate_what_fits(terms, totals, apart=norms)
            own_norms = {f"grad_norm/{index}": norm_of_all(gradient) for index, gradient in enumerate(added)}
            del added
            gradients = self.gradients_of_all()
            norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
            metrics = {**numbers(sums), "grad_norm": float(norm), **own_norms}
            values = [metrics.pop(value_of(index)) for index in range(len(terms))]
            if not all(map(math.isfinite, [*values, metrics["grad_norm"]])):
                self.stop_and_blame(terms, totals, values, metrics["grad_norm"])
            if self.grad_clip > 0:
                torch.nn.utils.clip_grads_with_norm_(self.trained.values(), self.grad_clip, norm, foreach=True)
            metrics["lr"] = self.update()
        finally:
            self.optimiser.zero_grad(set_to_none=True)
        return metrics

    def total_weight(self, term: Term) -> float:
        """What the rows of all processes weigh together."""
        shares = gathered((float(term.batch.weight.double().sum()), len(term.batch.weight)))
        total, n_rows = sum(weight for weight, _ in shares), sum(n for _, n in shares)
        if total > 0 and math.isfinite(total):
            return total
        raise RunError(
            f"no row teaches anything in step {self.n_steps}: the {n_rows} rows given to {name_of(term)} weigh {total} "
            f"together, which must be more than 0\n"
            f"  a row weighs nothing when all its answers are tied, or when no token of it is to be predicted\n"
            f"  leave such rows out before batches are made; prefloop data check counts them"
        )

    def accumulate_what_fits(
        self, terms: Sequence[Term], totals: Sequence[float], *, apart: bool
    ) -> tuple[dict[str, Tensor], list[list[Tensor]]]:
        """Add up the gradients of all terms; where memory runs out, from the beginning again in smaller parts.

        Returns values and metrics over the rows of this process, and with ``apart`` the gradient of each term alone.
        """
        while True:
            sums: dict[str, Tensor] = {}
            added: list[list[Tensor]] = []
            try:
                for index, (term, total) in enumerate(zip(terms, totals, strict=True)):
                    before = [None if p.grad is None else p.grad.clone() for p in self.trained.values()] if apart else []
                    sums = joined(sums, self.accumulate(term, total, index))
                    if apart:
                        added.append(self.added_since(before))
                return sums, added
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error).partition("\n")[0]
            del sums, added  # with the error, which holds what was being computed
            self.optimiser.zero_grad(set_to_none=True)
            self.portions.halve(self.n_steps, self.device, said)

    def accumulate(self, term: Term, total: float, index: int) -> dict[str, Tensor]:
        """Add a term's gradient, part by part; returns its value and metrics over the rows of this process."""
        prefix = f"{name_of(term)}/" if index or term.name else ""
        sums: dict[str, Tensor] = {}
        for part in self.portions.of(term.batch, total):
            loss = term.loss(self.model, move(part, self.device))
            (term.scale * loss.value).backward()
            found = {value_of(index): loss.value.detach(), **{prefix + name: value for name, value in loss.metrics.items()}}
            sums = {name: sums[name] + value for name, value in found.items()} if sums else found
        return sums

    def gradients_of_all(self) -> list[Tensor]:
        """The gradient summed over processes. A weight that no process's loss touched keeps none, and is left alone."""
        trained = list(self.trained.values())
        touched = [any(flags) for flags in zip(*gathered([p.grad is not None for p in trained]), strict=True)]
        for parameter, is_touched in zip(trained, touched, strict=True):
            if is_touched and parameter.grad is None:  # this process had no row for it, another had
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in trained if p.grad is not None]
        sum_in_place(gradients)
        return gradients

    def added_since(self, before: list[Tensor | None]) -> list[Tensor]:
        """What this process added to the gradient since ``before``."""
        added = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.trained.values()]
        for new, old in zip(added, before, strict=True):
            if old is not None:
                new -= old
        return added

    def update(self) -> float:
        """Move the weights and their average; returns the rate they were moved at."""
        lr = self.lr * self.share_of_peak(self.n_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        if self.ema > 0:
            for name, average in self.average.items():
                average.lerp_(self.trained[name].detach(), 1 - self.ema)
        self.n_steps += 1
        return lr

    def stop_and_blame(self, terms: tuple[Term, ...], totals: list[float], values: list[float], norm: float) -> NoReturn:
        """Name the rows that made the step not a number, write them down, and stop before the weights are touched."""
        losses = ", ".join(f"{name_of(term)} = {value}" for term, value in zip(terms, values, strict=True))
        found = f"step {self.n_steps} is not a finite number: {losses}, norm of the gradient = {norm}"
        if not all(bool(p.isfinite().all()) for p in self.trained.values()):
            raise RunError(
                f"{found}\n  the weights were not finite before this step, so no row is to blame\n"
                f"  resume from the last checkpoint with a lower lr or a longer warmup"
            )
        own = [row for term, total in zip(terms, totals, strict=True) for row in self.bad_rows(term, total)]
        rows = [row for share in gathered(own) for row in share]
        file = on_main(lambda: self.on_nan(rows) if rows else None)
        raise RunError(
            f"{found}\n  {blame(rows, file)}\n"
            f"  the weights are as they were before this step: mend the rows or lower lr, and start again"
        )

    def bad_rows(self, term: Term, total: float) -> list[dict[str, Any]]:
        """This process's rows whose loss or gradient is not finite, computed one at a time."""
        bad = []
        for row in range(len(term.batch.weight)):
            for part in micro_batches(take(term.batch, slice(row, row + 1)), total, 1):
                value = term.loss(self.model, move(part, self.device)).value
                gradient = torch.autograd.grad(value, list(self.trained.values()), allow_unused=True)
                is_finite = all(bool(g.isfinite().all()) for g in gradient if g is not None)
                if math.isfinite(loss := float(value.detach())) and is_finite:
                    continue
                found = "gradient not finite" if math.isfinite(loss) else f"loss {loss}"
                tensors = {field.name: getattr(part, field.name)[0].tolist() for field in fields(part)}
                where = {"step": self.n_steps, "term": name_of(term), "process": rank(), "row": row, "found": found}
                bad.append({**where, **tensors})
        return bad

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Inside, the model has its averaged weights, or its own where ``ema`` is 0: those that are evaluated and exported."""
        self.swap_average()
        try:
            yield
        finally:
            self.swap_average()

    def swap_average(self) -> None:
        for name, average in self.average.items():
            self.trained[name].data, average.data = average.data, self.trained[name].data
        self.shows_average = bool(self.average) and not self.shows_average

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs; frozen weights are not in it, they come from where the model came from."""
        if self.shows_average:
            raise RuntimeError("state_dict() inside ema_weights() would take the average for the weights")
        return {
            "n_steps": self.n_steps,
            "weights": {name: p.detach() for name, p in self.trained.items()},
            "buffers": saved_buffers(self.model),
            "optimiser": self.optimiser.state_dict(),
            "average": dict(self.average),
            "micro_tokens": self.portions.tokens,  # memory may have lowered it, and parts decide the last digits
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state of the same model."""
        for what, own in (("weights", self.trained), ("buffers", saved_buffers(self.model)), ("average", self.average)):
            refuse_another_model(what, {n: t.shape for n, t in own.items()}, {n: t.shape for n, t in state[what].items()})
            for name, tensor in own.items():
                tensor.copy_(state[what][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.n_steps, self.portions.tokens = state["n_steps"], state.get("micro_tokens", self.portions.tokens)


def value_of(index: int) -> str:
    """Where the value of a term travels among the metrics."""
    return f"value of term {index}"


def name_of(term: Term) -> str:
    """What a term is called in messages: its name, or that of its loss, also behind functools.partial."""
    loss = term.loss
    while isinstance(loss, partial):
        loss = loss.func
    return term.name or getattr(loss, "__name__", type(loss).__name__)


def blame(rows: list[dict[str, Any]], file: Path | None) -> str:
    """The rows that spoiled a step, in a line or two."""
    if not rows:
        return "every row alone is finite, their sum is not: it is too large for its type"
    shown = ", ".join(f"{row['row']} of process {row['process']} ({row['term']}: {row['found']})" for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"rows to blame: {shown}{more}" + (f"\n  all of them, with their tokens, are in {file}" if file else "")
