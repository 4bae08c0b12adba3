"""How the cost of a training step grows: completions of a prompt, length of the prompt, length of the completions.

Two ways over the same rankings take turns: each prompt once with its completions, as prefloop does by itself where that is
less work, and every completion in a row behind its prompt. ``python -m benchmarks.scaling`` writes results/scaling.json and
docs/images/cost.svg.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cases import MODEL, THREADS
from benchmarks.duel import figure
from benchmarks.inputs import TINY_MODEL, save_models
from benchmarks.machine import ROOT, clock, commit, machine, others
from benchmarks.turns import cpu
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
WAYS = {"prompt once": packed_scores, "row for each": flat_scores}
IMAGE, RESULT = ROOT / "docs" / "images" / "cost.svg", ROOT / "benchmarks" / "results" / "scaling.json"


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


def point(learner: Learner, batch: RankedBatch, repeats: int) -> dict[str, float]:
    """Seconds a step of each way, medians of ``repeats`` turns after one that warms up."""
    terms = {way: Term(loss_by(scores), batch) for way, scores in WAYS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in terms}
    for _ in range(1 + repeats):
        for way, term in terms.items():
            began = time.perf_counter()
            learner.step(term)
            seconds[way].append(time.perf_counter() - began)
    return {way: figure(statistics.median(taken[1:])) for way, taken in seconds.items()}


def measured(model_shape: dict[str, int], axes: dict[str, tuple[int, ...]], repeats: int) -> dict[str, Any]:
    before, own = clock(), cpu()
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder), model_shape, seed=0)
        model = new_reward(Path(folder) / "model", seed=0)
    learner = Learner(model, lr=1e-5, steps=10**6, device="cpu")
    model.train()
    curves = {
        axis: [
            {axis: value} | point(learner, rankings(**{**USUAL, axis: value}, vocabulary=model_shape["vocabulary"]), repeats)
            for value in values
        ]
        for axis, values in axes.items()
    }
    return {
        "what": f"seconds a training step of {PROMPTS} prompts takes",
        "curves": curves,
        "repeats": repeats,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "others": others(before, clock(), cpu() - own),
        "model": model_shape,
        "date": time.strftime("%Y-%m-%d"),
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """One panel an axis, both ways in each; the same figures give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "prefloop", "svg.fonttype": "none", "font.size": 9}):
        panels, axes = pyplot.subplots(1, len(found["curves"]), figsize=(11, 3.2), layout="constrained")
        for place, (axis, points) in zip(axes, found["curves"].items(), strict=True):
            for way, style in zip(WAYS, ("o-", "s--"), strict=True):
                place.plot([p[axis] for p in points], [p[way] for p in points], style, label=way, markersize=4)
            place.set(xscale="log", yscale="log", xlabel=LABELS[axis])
            place.set_xticks([p[axis] for p in points], [str(p[axis]) for p in points])
            place.minorticks_off()
            place.grid(alpha=0.3)
        axes[0].set_ylabel(f"seconds a step of {PROMPTS} prompts")
        axes[0].legend(frameon=False)
        panels.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(panels)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way at each point (default 3)")
    parser.add_argument("--tiny", action="store_true", help="in miniature, to see whether it works; writes nothing")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured")
    asked = parser.parse_args()
    if asked.draw:
        draw(json.loads(RESULT.read_text(encoding="utf-8")), IMAGE)
        return
    torch.set_num_threads(THREADS)
    axes = {axis: values[:2] for axis, values in AXES.items()} if asked.tiny else AXES
    found = measured(TINY_MODEL if asked.tiny else MODEL, axes, asked.repeats)
    print(json.dumps(found["curves"], indent=1))
    if not asked.tiny:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(found, IMAGE)


if __name__ == "__main__":
    main()
