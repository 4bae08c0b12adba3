"""The tables and the picture of docs/methods/relearn.md, from the runs of configs/rlp-study.yaml and configs/rlp-ablations.yaml.

``python -m benchmarks.relearn runs/rlp-study [runs/rlp-ablations]`` puts docs/images/relearn.svg and the page in order.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

PAGE, IMAGE = ROOT / "docs" / "methods" / "relearn.md", ROOT / "docs" / "images" / "relearn.svg"
COLOURS = {"spg_reward": "#2f6f9f", "wrong_reward": "#b5533c"}
NAMED = {"spg_reward": "usual policy", "wrong_reward": "over-optimised policy"}


def within(figure: dict[str, Any] | None, sign: str = "") -> str:
    """A mean with its interval, as a cell."""
    if figure is None or figure["mean"] is None:
        return "–"
    return f"{figure['mean']:{sign}.2f} [{figure['low']:{sign}.2f}, {figure['high']:{sign}.2f}]"


def gold_of_arms(found: dict[str, Any], by: str) -> list[str]:
    """Gold, distance and what a reward says, the arm's own or the first; beside the arm it is compared with."""
    beside: dict[str, list[str]] = {}
    for one in found["paired"]:
        if one["metric"] == "gold" and one["b"] != "sft":
            beside.setdefault(one["a"], []).append(f"{within(one, '+')} to `{one['b']}`")
    said = [f"| policy | gold | wins against SFT | KL to SFT | {by} | gold, difference |", "|---|---|---|---|---|---|"]
    for row in found["rows"]:
        cells = [f"`{row['name']}`", within(row["gold"]), within(row["win_vs_sft"]), within(row["kl_interval"]), within(row["proxy_interval"])]  # fmt: skip
        said.append("| " + " | ".join([*cells, "; ".join(beside.get(row["name"], ["–"]))]) + " |")
    return said


def rewards_on_answers(found: dict[str, Any]) -> list[str]:
    """Each reward model on fresh answers, and what relearning changed."""
    beside = {(one["policy"], one["a"], one["metric"]): one for one in found["fresh"]["paired"]}
    said = [
        "| answers of | reward model | right by gold | log-loss, difference | overconfidence, difference |",
        "|---|---|---|---|---|",
    ]
    for row in found["fresh"]["rows"]:
        key = row["policy"], row["reward"]
        changes = [within(beside.get((*key, figure)), "+") for figure in ("loss", "overconfidence")]
        said.append("| " + " | ".join([f"`{key[0]}`", f"`{key[1]}`", within(row["accuracy"]), *changes]) + " |")
    return said


def pairs_by_confidence(found: dict[str, Any]) -> list[str]:
    said = ["| pairs of | confidence | pairs | right by gold |", "|---|---|---|---|"]
    for row in found["fresh"]["synthetic"]:
        high = f", below {row['high']}" if row["high"] is not None else ""
        where = "learned from" if row["low"] is None else f"{row['low']} and more{high}"
        said.append(f"| `{row['name']}` | {where} | {row['n']:,} | {within(row['accuracy'])} |")
    return said


def draw(found: dict[str, Any], path: Path) -> None:
    """Gold of every arm; whether synthetic pairs are right, by confidence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = {"svg.hashsalt": "prefloop", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    with pyplot.rc_context({**settings, "axes.spines.right": False}):
        picture, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6), layout="constrained", width_ratios=[3, 2])
        rows = found["rows"][::-1]
        middle = [row["gold"]["mean"] for row in rows]
        left.errorbar(middle, range(len(rows)), xerr=reach([row["gold"] for row in rows]), fmt="o", color="#2f6f9f", markersize=4)
        left.set_yticks(range(len(rows)), [row["name"] for row in rows])
        left.set_xlabel(f"gold, 95% interval over {rows[0]['gold']['n_seeds']} seeds and their prompts")
        for name, colour in COLOURS.items():
            bins = [one for one in found["fresh"]["synthetic"] if one["name"] == name and one["low"] is not None and one["n"]]
            at = [(one["low"] + (1.0 if one["high"] is None else one["high"])) / 2 for one in bins]
            shown = [one["accuracy"] for one in bins]
            right.errorbar(
                at, [one["mean"] for one in shown], reach(shown), fmt="o-", color=colour, markersize=4, label=NAMED[name]
            )
        right.axhline(0.5, linestyle=":", color="#777777")
        right.set(xlabel="confidence of the policy", ylabel="share of pairs right by gold", ylim=(0, 1.02))
        right.legend(frameon=False, loc="lower left")
        for place in (left, right):
            place.grid(alpha=0.3)
        picture.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(picture)
    path.write_text("\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()) + "\n", encoding="utf-8")


def reach(figures: list[dict[str, Any]]) -> list[list[float]]:
    """How far the intervals go to either side."""
    return [[one["mean"] - one["low"] for one in figures], [one["high"] - one["mean"] for one in figures]]


def put(name: str, lines: list[str]) -> None:
    """The lines between a pair of marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    marked = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.DOTALL)
    if not marked.search(text):
        raise SystemExit(f"bench: {PAGE.name} has no place for {name}")
    block = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
    PAGE.write_text(marked.sub(lambda _: block, text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("ablations", type=Path, nargs="?")
    asked = parser.parse_args()
    found = json.loads((asked.study / "summary.json").read_text(encoding="utf-8"))
    put("arms", gold_of_arms(found, "its own reward"))
    put("rewards", rewards_on_answers(found))
    put("pairs", pairs_by_confidence(found))
    draw(found, IMAGE)
    if asked.ablations:
        other = json.loads((asked.ablations / "summary.json").read_text(encoding="utf-8"))
        put(
            "ablations",
            [*gold_of_arms(other, "the first reward"), "", *rewards_on_answers(other), "", *pairs_by_confidence(other)],
        )


if __name__ == "__main__":
    main()
