"""From a study to its table, its summary and its page; the demo is the study that comes with prefloop."""

import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from prefloop.config import Options
from prefloop.study import Done, StudyConfig, included, load_study, run_study

SUMMARY = "summary.json"


def main(out: Path, *, seed: int, device: str) -> None:
    """``prefloop demo``: the main job on the embedded world."""
    study = load_study(included("demo", Path())).model_copy(update={"seeds": [seed]})
    run_and_report(study, out, device=device, command=f"prefloop demo --out {out} --seed {seed}")


def run_and_report(study: StudyConfig, out: Path, *, device: str, dry_run: bool = False, command: str = "") -> None:
    """Run a study; with policies compared in it, print the table and write summary.json and report.html."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 140  # a log has no edge to wrap at
    start = time.perf_counter()
    done = run_study(study, Options(out=out, device=device, dry_run=dry_run), announce=console.print)
    if dry_run:
        return
    seconds = time.perf_counter() - start
    print_stages(console, done)
    if not any(stage.stage.command == "evaluate" for stage in done):
        judged = judged_rewards(done)
        write_json(out / SUMMARY, {"study": study.name, "seeds": study.seeds, "seconds": seconds, "rewards": judged})
        print_rewards(console, judged, study)
        console.print(f"{len(done)} stages in {out}, {minutes(seconds)}")
        return
    summary = summarised(study, done, seconds)
    write_json(out / SUMMARY, summary)
    print_table(console, summary)
    print_fluency(console, summary)
    from prefloop.report.pages import write_study
    from prefloop.study_report import study_data

    page = write_study(study_data(study, done, summary, command=command or f"prefloop run {study.name}"), out)
    console.print(f"\n{minutes(seconds)} on {platform.machine()}; the whole story: {page}")


def summarised(study: StudyConfig, done: list[Done], seconds: float) -> dict[str, Any]:
    """The table over every seed: intervals over prompts, and over seeds and prompts where there are several seeds."""
    from prefloop.stats.intervals import hierarchical_mean, hierarchical_paired

    last = [stage for stage in done if stage.stage.command == "evaluate"]
    per_prompt = [json.loads((stage.stage.folder / "per_prompt.json").read_text(encoding="utf-8")) for stage in last]
    rows = []
    for index, row in enumerate(last[0].summary["rows"]):
        name = row["name"]
        mine = [stage.summary["rows"][index] for stage in last]
        rows.append(
            {
                "name": name,
                "gold": with_n(hierarchical_mean([p[name]["gold"] for p in per_prompt]).as_dict()),
                "win_vs_sft": with_n(hierarchical_mean([p[name]["win"] for p in per_prompt]).as_dict()),
                "kl": float(np.mean([r["kl"] for r in mine])),
                "length": float(np.mean([r["length"] for r in mine])),
                "proxy": mean_of([r["proxy"] for r in mine]),
                "skill": {skill: float(np.mean([r["skill"][skill] for r in mine])) for skill in row["skill"]},
                **({"fluency": fluency_of(name, mine, per_prompt)} if row.get("fluency") else {}),
            }
        )
    paired = []
    for pair in last[0].summary["paired"]:
        a, b, figure = pair["a"], pair["b"], pair["metric"]
        sides = [(p[a][figure], p[b][figure]) for p in per_prompt]
        n = min(len(side) for both in sides for side in both)
        interval = hierarchical_paired([x[:n] for x, _ in sides], [y[:n] for _, y in sides]).as_dict()
        paired.append({"a": a, "b": b, "metric": figure, **interval})
    return {
        "study": study.name,
        "seeds": study.seeds,
        "seconds": seconds,
        "rows": rows,
        "paired": paired,
        "reward_model": reward_model(done),
    }


def fluency_of(name: str, rows: list[dict[str, Any]], per_prompt: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of each prompt with intervals; those of all answers together as means over seeds."""
    from prefloop.stats.intervals import hierarchical_mean

    told = {}
    for figure in rows[0]["fluency"]:
        if f"fluency/{figure}" in per_prompt[0][name]:
            told[figure] = with_n(hierarchical_mean([p[name][f"fluency/{figure}"] for p in per_prompt]).as_dict())
        else:
            told[figure] = {"mean": float(np.mean([row["fluency"][figure] for row in rows]))}
    return told


def judged_rewards(done: list[Done]) -> dict[str, Any]:
    """The reward models of a study that compares no policies."""
    from prefloop.evaluate.rewards import read_per_prompt, side_by_side

    runs: dict[str, list[Any]] = {}
    for stage in done:
        if stage.stage.command == "reward" and (per_prompt := read_per_prompt(stage.stage.folder)):
            runs.setdefault(stage.stage.label, []).append(per_prompt)
    return side_by_side(runs)


def mean_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def with_n(interval: dict[str, Any]) -> dict[str, Any]:
    """n is what was averaged: prompts, times seeds where there are several."""
    return {**interval, "n": interval["n_prompts"] * interval["n_seeds"]}


def reward_model(done: list[Done]) -> dict[str, Any]:
    """Held-out accuracy of the stage called reward beside the ceiling of the labels it learned from, means over seeds."""
    rewards = [d.summary for d in done if d.stage.name == "reward" and "pair_accuracy" in d.summary]
    ceilings = [d.summary["bayes_ceiling"] for d in done if d.stage.name == "rankings" and "bayes_ceiling" in d.summary]
    if not rewards:
        return {}
    accuracy = {key: float(np.mean([r["pair_accuracy"][key] for r in rewards])) for key in ("mean", "low", "high")}
    accuracy |= {
        "n": sum(r["pair_accuracy"]["n"] for r in rewards),
        "n_prompts": sum(r["pair_accuracy"]["n_prompts"] for r in rewards),
    }
    return {
        "pair_accuracy": accuracy,
        "per_seed": [r["pair_accuracy"]["mean"] for r in rewards],
        "bayes_ceiling": mean_of(ceilings),
        "ceiling_per_seed": ceilings,
    }


def print_stages(console: Console, done: list[Done]) -> None:
    for stage in done:
        console.print(f"  {stage.stage.label:20} {'there already' if stage.was_skipped else minutes(stage.seconds)}")


def print_table(console: Console, summary: dict[str, Any]) -> None:
    skills = list(summary["rows"][0]["skill"])
    table = Table(title=f"{summary['study']}, seeds {summary['seeds']}: held-out prompts, 95% intervals", title_justify="left")
    for heading in ("policy", "gold", "wins against SFT", "KL to SFT", "tokens", "proxy", *skills):
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in summary["rows"]:
        gold, win = row["gold"], row["win_vs_sft"]
        table.add_row(
            row["name"],
            f"{gold['mean']:.2f} [{gold['low']:.2f}, {gold['high']:.2f}]",
            f"{win['mean']:.0%} [{max(win['low'], 0):.0%}, {min(win['high'], 1):.0%}]",
            f"{'≤ ' if row['name'] == 'best_of_n' else ''}{row['kl']:.2f}",
            f"{row['length']:.1f}",
            "" if row["proxy"] is None else f"{row['proxy']:.2f}",
            *(f"{row['skill'][skill]:.2f}" for skill in skills),
        )
    console.print(table)
    print_pairs(console, summary["paired"])
    if reward := summary["reward_model"]:
        accuracy = reward["pair_accuracy"]
        console.print(
            f"  reward model: {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] of {accuracy['n']} held-out pairs;"
            f" the labels allow {reward['bayes_ceiling']:.3f}"
        )


def print_fluency(console: Console, summary: dict[str, Any]) -> None:
    rows = [row for row in summary["rows"] if row.get("fluency")]
    if not rows:
        return
    figures = list(rows[0]["fluency"])
    table = Table(title="how the answers read", title_justify="left")
    for heading in ("policy", *figures):
        table.add_column(heading.replace("_", " "), justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in rows:
        table.add_row(row["name"], *(with_interval(row["fluency"][figure], 3) for figure in figures))
    console.print(table)


def print_rewards(console: Console, judged: dict[str, Any], study: StudyConfig) -> None:
    if not judged["rows"]:
        return
    table = Table(title=f"{study.name}, seeds {study.seeds}: held-out rankings, 95% intervals", title_justify="left")
    for heading in ("reward model", "accuracy", "log-loss", "prefers the longer", "prefers the shorter", "prompts"):
        table.add_column(heading, justify="left" if heading == "reward model" else "right", no_wrap=True)
    for row in judged["rows"]:
        figures = [with_interval(row[name], 3) for name in ("accuracy", "loss", "prefers_longer", "prefers_shorter")]
        table.add_row(row["name"], *figures, f"{row['accuracy']['n_prompts']}×{row['accuracy']['n_seeds']}")
    console.print(table)
    print_pairs(console, judged["paired"])


def with_interval(figure: dict[str, Any], digits: int) -> str:
    if figure.get("low") is None:
        return f"{figure['mean']:.{digits}f}"
    return f"{figure['mean']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def print_pairs(console: Console, pairs: list[dict[str, Any]]) -> None:
    """Differences with their intervals; one that may be 0 is called not separated."""
    for pair in pairs:
        low, high = (-math.inf if pair["low"] is None else pair["low"]), (math.inf if pair["high"] is None else pair["high"])
        verdict = "" if low > 0 or high < 0 else "  not separated"
        console.print(f"  {pair['metric']:15} {pair['a']} - {pair['b']}: {pair['mean']:+.3f} [{low:+.3f}, {high:+.3f}]{verdict}")


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
