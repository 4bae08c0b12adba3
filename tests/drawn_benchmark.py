"""The picture of docs/methods/benchmark.md from the summary of a study: gold of best-of-n over n, and both orders of the methods.

python -m tests.drawn_benchmark runs/simulated-benchmark/summary.json docs/images/simulated-benchmark.svg
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "benchmark", "font.size": 9, "svg.fonttype": "path"})

import matplotlib.pyplot as plt  # noqa: E402  the backend is chosen before

INKS = ("#1b6ca8", "#7a7a7a", "#1f8a4c", "#c2571a", "#8a5fb5")


def draw(told: dict[str, Any], out: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for name, ink in zip(dict.fromkeys(point["reward"] for point in told["best_of_n"]), INKS, strict=False):
        points = [point for point in told["best_of_n"] if point["reward"] == name]
        n, gold = [point["n"] for point in points], [point["gold"] for point in points]
        left.plot(n, [g["mean"] for g in gold], color=ink, marker="o", markersize=3, label=name)
        left.fill_between(n, [g["low"] for g in gold], [g["high"] for g in gold], color=ink, alpha=0.12, linewidth=0)
    left.set_xscale("log", base=2)
    left.set_xlabel("n of best-of-n")
    left.set_title("gold, by the reward that chooses", loc="left", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    rows = {(row["labels"], row["method"]): row for row in told["rows"]}
    for _, method in [key for key in rows if key[0] == "simulated"]:
        x, y = rows["simulated", method]["win_pool"], rows["real", method]["win_gold"]
        arms = [[[v["mean"] - v["low"]], [v["high"] - v["mean"]]] for v in (x, y)]
        right.errorbar(x["mean"], y["mean"], xerr=arms[0], yerr=arms[1], fmt="o", color=INKS[0], markersize=4, elinewidth=0.8)
        right.annotate(method, (x["mean"], y["mean"]), textcoords="offset points", xytext=(4, 4), fontsize=8)
    right.set_xlabel("wins by the pool, trained on its labels")
    right.set_title("wins by gold, trained on labels of the truth", loc="left", fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    figure.tight_layout()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    (benchmark,) = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["benchmarks"].values()
    draw(benchmark, Path(sys.argv[2]))
