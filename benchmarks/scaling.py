"""How the cost of a training step grows: completions of a prompt, length of the prompt, length of the completions.

Two ways over the same rankings take turns: each prompt once with its completions, as prefloop does by itself where that is
less work, and every completion in a row behind its prompt. Beside each its floor: the operations it cannot do without, at the
rate of a large matrix product on the same machine. Tokens at once are what a run takes by itself (``optim.micro_tokens``).

``python -m benchmarks.scaling [AXIS ...]`` puts results/scaling.json, docs/images/cost.svg and the table of
docs/performance.md in order; axes that are not named keep what was measured before.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from math import ceil, floor, log2
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import MODEL, THREADS
from benchmarks.duel import figure, spread
from benchmarks.inputs import TINY_MODEL, save_models
from benchmarks.machine import ROOT, clock, commit, machine, others, rates
from benchmarks.turns import cpu
from benchmarks.work import forward, visible
from prefloop.config import Optimiser
from prefloop.engine.learner import Learner, Term
from prefloop.engine.memory import keep_memory
from prefloop.models.batch import RankedBatch
from prefloop.models.load import new_reward
from prefloop.models.shared_prefix import SIDE_BY_SIDE, flat_scores, packed_scores
from prefloop.ops.loss import Loss
from prefloop.ops.ranking import ranking_loss

USUAL = {"k": 4, "prompt": 256, "completion": 64}
AXES = {
    "k": (2, 3, 4, 6, 9, 12, 16),
    "prompt": (32, 64, 128, 256, 512, 1024, 2048),
    "completion": (16, 32, 64, 128, 256, 512),
}
LABELS = {
    "k": "completions of a prompt (prompt 256, completions 64)",
    "prompt": "tokens of the prompt (4 completions of 64)",
    "completion": "tokens of a completion (prompt 256, 4 of them)",
}
PROMPTS = 4
ONCE, EACH = "prompt once", "row for each"
WAYS = {ONCE: packed_scores, EACH: flat_scores}
IMAGE, RESULT = ROOT / "docs" / "images" / "cost.svg", ROOT / "benchmarks" / "results" / "scaling.json"
PAGE, MARKED = ROOT / "docs" / "performance.md", re.compile(r"(?<=<!-- scaling -->\n).*?(?=<!-- /scaling -->)", re.DOTALL)


# ------------------------------------------------------------------------------------------------ measuring


def rankings(k: int, prompt: int, completion: int, vocabulary: int) -> RankedBatch:
    """Random tokens in a strict order, all completions equally long."""
    rng = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randint(4, vocabulary, size, generator=rng)  # noqa: E731
    return RankedBatch(
        prompt=draw(PROMPTS, prompt),
        prompt_length=torch.full((PROMPTS,), prompt),
        completion=draw(PROMPTS, k, completion),
        completion_length=torch.full((PROMPTS, k), completion),
        tier=torch.arange(k).repeat(PROMPTS, 1),
        is_candidate=torch.ones(PROMPTS, k, dtype=torch.bool),
        weight=torch.ones(PROMPTS),
    )


def loss_by(scores: Callable[..., torch.Tensor]) -> Callable[[nn.Module, RankedBatch], Loss]:
    def loss(model: nn.Module, batch: RankedBatch) -> Loss:
        score = scores(model, batch, max_rows=SIDE_BY_SIDE)
        return ranking_loss(score, batch.tier, batch.is_candidate, batch.weight)

    return loss


def operations(way: str, model: dict[str, int], *, k: int, prompt: int, completion: int) -> float:
    """Of a step: forward, and twice that backward, of every token and of every pair of tokens of which one sees the other."""
    if way == ONCE:
        tokens, seen = prompt + k * completion, visible(prompt, [completion] * k)
    else:
        tokens, seen = k * (prompt + completion), k * visible(prompt + completion, [])
    return 3 * PROMPTS * forward(model, tokens=tokens, said=0, seen=seen)


def point(learner: Learner, batch: RankedBatch, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds a step of each way, over ``repeats`` turns after one that warms up."""
    terms = {way: Term(loss_by(scores), batch) for way, scores in WAYS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in terms}
    for _ in range(1 + repeats):
        for way, term in terms.items():
            began = time.perf_counter()
            learner.step(term)
            seconds[way].append(time.perf_counter() - began)
    return {way: spread(taken[1:]) for way, taken in seconds.items()}


def measured(model_shape: dict[str, int], axis: str, values: Sequence[int], repeats: int) -> dict[str, Any]:
    """One axis: seconds of both ways at each value, and their floors."""
    speed = rates(THREADS)
    before, own = clock(), cpu()
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder), model_shape, seed=0)
        model = new_reward(Path(folder) / "model", seed=0)
    at_once = Optimiser().micro_tokens
    learner = Learner(model, lr=1e-5, steps=10**6, micro_tokens=at_once, device="cpu")
    model.train()
    points = []
    for value in values:
        sizes = {**USUAL, axis: value}
        seconds = point(learner, rankings(**sizes, vocabulary=model_shape["vocabulary"]), repeats)
        floors = {way: figure(operations(way, model_shape, **sizes) / speed.flops) for way in WAYS}
        points.append({"at": value, "seconds": seconds, "floor": floors})
    return {
        "points": points,
        "repeats": repeats,
        "prompts": PROMPTS,
        "micro_tokens": at_once,
        "gflops": figure(speed.flops / 1e9),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "others": others(before, clock(), cpu() - own),
        "model": model_shape,
        "date": time.strftime("%Y-%m-%d"),
    }


# ------------------------------------------------------------------------------------------------ showing


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel an axis, both ways and their floors in each; the same figures give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = {"svg.hashsalt": "prefloop", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    with pyplot.rc_context({**settings, "axes.spines.right": False}):
        panels, places = pyplot.subplots(1, len(found), figsize=(11, 3.4), layout="constrained", sharey=True)
        for place, (axis, one) in zip(places if len(found) > 1 else [places], found.items(), strict=True):
            at = [p["at"] for p in one["points"]]
            for way, colour, mark in ((EACH, "#b5533c", "s"), (ONCE, "#2f6f9f", "o")):
                seconds = [p["seconds"][way] for p in one["points"]]
                middle = [s["median"] for s in seconds]
                reach = [[s["median"] - s["min"] for s in seconds], [s["max"] - s["median"] for s in seconds]]
                place.errorbar(at, middle, reach, color=colour, marker=mark, markersize=4, label=way)
                place.plot(at, [p["floor"][way] for p in one["points"]], ":", color=colour, label=f"{way}, floor")
            place.set(xscale="log", yscale="log", xlabel=LABELS[axis])
            place.set_xticks(at, [str(value) for value in at])
            place.minorticks_off()
            place.grid(alpha=0.3)
        first = panels.axes[0]
        low, high = (log2(end) for end in first.get_ylim())
        ticks = [2.0**n for n in range(ceil(low), floor(high) + 1)]
        first.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        first.set_ylabel(f"seconds a step of {PROMPTS} prompts")
        first.legend(frameon=False)
        panels.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(panels)
    path.write_text("\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()) + "\n", encoding="utf-8")


def lines(found: dict[str, Any]) -> str:
    """The two ends of each axis: both ways, how many times as fast the one is, and what share of its floor's rate it reaches."""
    said = [
        "| | seconds, prompt once | row for each | times as fast | floor of prompt once | share of it |",
        "|---|---|---|---|---|---|",
    ]
    for axis, one in found.items():
        for p in (one["points"][0], one["points"][-1]):
            once, each = (p["seconds"][way] for way in (ONCE, EACH))
            cells = [
                f"{axis} {p['at']}",
                f"{once['median']:g} ({once['min']:g} to {once['max']:g})",
                f"{each['median']:g} ({each['min']:g} to {each['max']:g})",
                f"**{figure(each['median'] / once['median']):g}**",
                f"{p['floor'][ONCE]:g}",
                f"{100 * p['floor'][ONCE] / once['median']:.0f}%",
            ]
            said.append(f"| {' | '.join(cells)} |")
    one = next(iter(found.values()))
    busy = max(axis["others"] for axis in found.values())
    said.append("")
    said.append(
        f"Medians (smallest to largest) of {one['repeats']} turns, {one['prompts']} prompts a step, {one['micro_tokens']:,} tokens at once, "
        f"{one['machine']}, {one['threads']} threads; others used at most {100 * busy:.0f}% of the machine ({one['commit']})."
    )
    return "\n".join(said) + "\n"


def page(found: dict[str, Any]) -> str:
    """docs/performance.md with the table of what was measured."""
    return MARKED.sub(lambda _: lines(found), PAGE.read_text(encoding="utf-8"))


def show(found: dict[str, Any]) -> None:
    draw(found, IMAGE)
    PAGE.write_text(page(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"of {', '.join(AXES)}; none = all")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way at each point (default 3)")
    parser.add_argument("--tiny", action="store_true", help="in miniature, to see whether it works; writes nothing")
    parser.add_argument("--draw", action="store_true", help="only show what was measured")
    asked = parser.parse_args()
    if unknown := [axis for axis in asked.axes if axis not in AXES]:
        parser.error(f"there is no axis {', '.join(unknown)}; there are {', '.join(AXES)}")
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    if asked.draw:
        show(before)
        return
    torch.set_num_threads(THREADS)
    for axis in asked.axes or AXES:
        values, model_shape = (AXES[axis][:2], TINY_MODEL) if asked.tiny else (AXES[axis], MODEL)
        one = measured(model_shape, axis, values, asked.repeats)
        print(json.dumps({axis: one}, indent=1), flush=True)
        if not asked.tiny:
            before = {name: {**before, axis: one}[name] for name in AXES if name in {**before, axis: one}}
            RESULT.write_text(json.dumps(before, indent=1) + "\n", encoding="utf-8")
            show(before)


if __name__ == "__main__":
    main()
