"""The smallest method there is: a network that continues text one token at a time, enough to see every part of the engine move."""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prefloop.config import Config, Options
from prefloop.engine.learner import Learner, Term
from prefloop.engine.run import open_run
from prefloop.models.batch import TokenBatch, take
from prefloop.ops.loss import Loss, loss_of

VOCABULARY = 11


class Toy(nn.Module):
    """Each token predicts the next. Shapes of weights: two matrices, one vector."""

    def __init__(self, *, dropout: float = 0.0, seed: int = 0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, 6, generator=draw, dtype=torch.float64))
        self.head = nn.Parameter(torch.randn(6, VOCABULARY, generator=draw, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(VOCABULARY, generator=draw, dtype=torch.float64))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.embedding[tokens])) @ self.head + self.bias  # B T V


def of_text(model: nn.Module, batch: TokenBatch, *, power: int = 1) -> Loss:
    """Cross-entropy of each next token; ``power`` makes a second loss of another shape."""
    logprobs = model(batch.tokens).log_softmax(-1)[:, :-1].gather(2, batch.tokens[:, 1:, None])[..., 0]  # B T-1
    per_row = ((-logprobs) ** power * batch.token_weight[:, 1:]).sum(1)
    return loss_of((batch.weight * per_row).sum(), surprise=(batch.weight * per_row).sum() * 2)


def text(lengths: list[int], *, weights: list[float] | None = None, seed: int = 0) -> TokenBatch:
    """Rows of random tokens of the given lengths, weighing as given (1 each)."""
    draw = torch.Generator().manual_seed(seed)
    length = torch.tensor(lengths, dtype=torch.long)
    width = max(lengths, default=1)
    tokens = torch.randint(1, VOCABULARY, (len(lengths), width), generator=draw)
    is_real = torch.arange(width)[None, :] < length[:, None]
    token_weight = is_real.double() / length[:, None]
    token_weight[:, 0] = 0
    weight = torch.tensor(weights if weights is not None else [1.0] * len(lengths), dtype=torch.float64)
    return TokenBatch(tokens * is_real, length, token_weight, weight)


class ToyConfig(Config):
    """Settings of the toy method."""

    steps: int = 10
    save_every: int = 3
    lr: float = 0.05
    dropout: float = 0.3
    seed: int = 3
    broken_row: int = -1


class Counter:
    """A part with state of its own kind."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def state_dict(self) -> dict:
        return {"drawn": list(self.drawn)}

    def load_state_dict(self, state: dict) -> None:
        self.drawn = list(state["drawn"])


def main(config: ToyConfig, options: Options, parents: dict[str, Path] | None = None) -> dict:
    """Train the toy. Draws from every global generator, so that a resumed run shows whether they were restored."""
    with open_run("toy", config, options, parents=parents, seed=config.seed) as run:
        if run.finished:
            return run.finished
        model = Toy(dropout=config.dropout)
        rows = text([3, 9, 5, 7, 2, 8, 6, 4], seed=1)
        if config.broken_row >= 0:
            weights = rows.token_weight.clone()
            weights[config.broken_row] = torch.nan
            rows = replace(rows, token_weight=weights)
        learner, counter = Learner(model, lr=config.lr, steps=config.steps, micro_batch=3, ema=0.9, device=run.device), Counter()
        run.keep(learner=learner, counter=counter)
        run.log(0, {"before": 1.0})
        run.seed_everything("start")
        for step in run.steps(config.steps, save_every=config.save_every, description="toy"):
            chosen = torch.randperm(8, generator=run.rng("rows", step))[:6]
            metrics = learner.step(
                Term(of_text, take(rows, chosen)), Term(partial(of_text, power=2), rows, scale=0.5, name="square")
            )
            counter.drawn.append(random.random())
            drawn = {"python": counter.drawn[-1], "numpy": float(np.random.rand()), "torch": float(torch.rand(()))}  # noqa: NPY002
            run.log(step, {**metrics, **drawn, "sum": sum(counter.drawn)})
            run.samples(step, [{"text": "x" * step}])
        run.log(config.steps, {"after": 2.0})
        with learner.ema_weights():
            weights = [p.detach().sum() for p in model.parameters()]
        return run.finish({"weights": weights, "drawn": counter.drawn})
