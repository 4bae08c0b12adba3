"""One of two processes that share an update."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from prefloop.config import Options
from prefloop.engine.learner import Learner, Term
from prefloop.engine.processes import barrier, choose_device, gathered, n_processes, on_main, rank
from prefloop.engine.run import open_run
from prefloop.errors import ConfigError, RunError
from prefloop.models.batch import take
from tests.engine.toy import Toy, ToyConfig, of_text, text

SQUARE = partial(of_text, power=2)
ROWS = text([3, 9, 2, 7, 5, 8, 4], weights=[1, 5, 0.5, 2, 3, 1, 0.1])
OTHER = text([6, 3, 4], seed=4)


def share(batch, rows: list[int]):
    return take(batch, torch.tensor(rows, dtype=torch.long))


def updates(rows: list[int], other: list[int], *, micro_batch: int, model_seed: int = 0) -> dict:
    """Three updates from the given shares; the second term's rows may all lie with one process."""
    model = Toy(seed=model_seed)
    held = Learner(model, lr=0.1, steps=5, micro_batch=micro_batch, device="cpu")
    terms = (Term(of_text, share(ROWS, rows)), Term(SQUARE, share(OTHER, other), scale=0.3))
    metrics = [held.step(*terms, norms=True) for _ in range(3)]
    return {"weights": [p.tolist() for p in model.parameters()], "metrics": metrics}


def message(action) -> str:
    try:
        action()
    except (ConfigError, RunError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def run(folder: Path) -> dict:
    """A run of both: one folder, figures of all rows, one writer."""
    with open_run("toy", ToyConfig(), Options(out=folder, device="cpu"), seed=1) as opened:
        held = Learner(Toy(), lr=0.1, steps=4, device=opened.device)
        opened.keep(learner=held)
        for step in opened.steps(4, save_every=2, description="toy"):
            opened.log(step, held.step(Term(of_text, share(ROWS, list(range(opened.rank, 7, opened.processes))))))
        history = opened.history()
        opened.finish({"rank": opened.rank})
    return {"history": [line["loss"] for line in history], "holds_the_lock": opened.rank == 0}


def bad(row: int):
    token_weight = ROWS.token_weight.clone()
    token_weight[row] = torch.nan
    return replace(ROWS, token_weight=token_weight)


def main(out: Path) -> None:
    """Everything test_processes.py asks about, written down by each of the two."""
    choose_device("cpu")
    me = rank()
    spoiled = Learner(Toy(), lr=0.1, steps=1, device="cpu")
    found = {
        "processes": n_processes(),
        "shared": updates([[0, 2, 4], [1, 3, 5, 6]][me], [[0, 1], [2]][me], micro_batch=2),
        "one_has_no_rows": updates([list(range(7)), []][me], [[], [0, 1, 2]][me], micro_batch=0, model_seed=me),
        "run": run(out / "run"),
        "refused": message(lambda: open_run("toy", ToyConfig(), Options(out=out / "run", device="cpu"), seed=1)),
        "blamed": message(lambda: spoiled.step(Term(of_text, share(bad(5), [[0, 1], [4, 5]][me])))),
        "no_rows": message(lambda: spoiled.step(Term(of_text, share(ROWS, [])))),
        "gathered": gathered({"rank": me}),
        "on_main": on_main(lambda: me),
    }
    barrier()
    (out / f"{me}.json").write_text(json.dumps(found))
