"""From a study to its table, its summary and its page; the demo is the study that comes with prefloop."""

import json
import math
import platform
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prefloop.config import Options
from prefloop.evaluate.over_seeds import wins_of
from prefloop.study import Done, StudyConfig, included, load_study, minutes, run_study

SUMMARY = "summary.json"


def main(out: Path, *, seed: int, device: str, every: bool = False) -> None:
    """``prefloop demo``: the main job on the embedded world; with ``every``, further methods as more rows of the same table."""
    study = load_study(included("demo-all" if every else "demo", Path())).model_copy(update={"seeds": [seed]})
    command = f"prefloop demo{' --all' if every else ''} --out {out} --seed {seed}"
    run_and_report(study, out, device=device, command=command)


def run_and_report(study: StudyConfig, out: Path, *, device: str, dry_run: bool = False, command: str = "") -> None:
    """Run a study, print its tables, and write summary.json and report.html."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 140  # a log has no edge to wrap at
    start = time.perf_counter()

    def report(done: list[Done]) -> None:
        write_report(study, done, time.perf_counter() - start, out, console, command or f"prefloop run {study.name}")

    options = Options(out=out, device=device, dry_run=dry_run)
    run_study(study, options, announce=console.print, report=report, command=command or f"prefloop run {study.name}")


def write_report(study: StudyConfig, done: list[Done], seconds: float, out: Path, console: Console, command: str) -> None:
    """Tables on the console; summary.json and report.html in the study's folder."""
    from prefloop.report.pages import write_study
    from prefloop.study_report import study_data, summarised

    print_stages(console, done)
    seconds = max(seconds, sum(stage.seconds for stage in done))  # with what earlier starts took
    summary = summarised(study, done, seconds)
    write_json(out / SUMMARY, summary)
    if summary["rows"]:
        print_table(console, summary)
        print_fluency(console, summary)
    else:
        print_rewards(console, summary)
    print_fresh(console, summary["fresh"])
    page = write_study(study_data(study, done, summary, command=command), out)
    console.print(f"\n{minutes(seconds)} on {platform.machine()}; the whole story: {page}")


def print_stages(console: Console, done: list[Done]) -> None:
    for stage in done:
        console.print(f"  {stage.stage.label:20} {minutes(stage.seconds)}{', there already' if stage.was_skipped else ''}")


def print_table(console: Console, summary: dict[str, Any]) -> None:
    baseline = "SFT" if summary["baseline"] == "sft" else summary["baseline"]
    skills = list(summary["rows"][0]["skill"])
    table = Table(title=f"{summary['study']}, seeds {summary['seeds']}: held-out prompts, 95% intervals", title_justify="left")
    for heading in ("policy", "gold", f"wins against {baseline}", f"KL to {baseline}", "tokens", "proxy", *skills):
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in summary["rows"]:
        is_bound = row["kl"] is not None and row["kl_interval"] is None
        table.add_row(
            row["name"],
            with_interval(row["gold"], 2),
            share(wins_of(row)),
            ("≤ " if is_bound else "") + number(row["kl"], 2),
            number(row["length"], 1),
            number(row["proxy"], 2),
            *(number(row["skill"].get(skill), 2) for skill in skills),
        )
    console.print(table)
    print_pairs(console, summary["paired"])
    if reward := summary["reward_model"]:
        accuracy, ceiling = reward["pair_accuracy"], reward["bayes_ceiling"]
        allowed = "" if ceiling is None else f"; the labels allow {ceiling:.3f}"
        console.print(f"  reward model: {with_interval(accuracy, 3)} of {accuracy['n']} held-out pairs{allowed}")


def share(figure: dict[str, Any] | None) -> str:
    """A share of a hundred; an interval cannot leave 0 to 100."""
    if figure is None or figure["low"] is None:
        return "" if figure is None else f"{figure['mean']:.0%}"
    return f"{figure['mean']:.0%} [{max(figure['low'], 0):.0%}, {min(figure['high'], 1):.0%}]"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


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


def print_rewards(console: Console, summary: dict[str, Any]) -> None:
    judged = summary["rewards"]
    if not judged["rows"]:
        return
    table = Table(title=f"{summary['study']}, seeds {summary['seeds']}: held-out rankings, 95% intervals", title_justify="left")
    for heading in ("reward model", "accuracy", "log-loss", "prefers the longer", "prefers the shorter", "prompts"):
        table.add_column(heading, justify="left" if heading == "reward model" else "right", no_wrap=True)
    for row in judged["rows"]:
        figures = [with_interval(row[name], 3) for name in ("accuracy", "loss", "prefers_longer", "prefers_shorter")]
        table.add_row(row["name"], *figures, prompts_of(row["accuracy"]))
    console.print(table)
    print_pairs(console, judged["paired"])


def print_fresh(console: Console, fresh: dict[str, Any]) -> None:
    """Reward models on fresh answers, and how often gold agrees with synthetic preferences."""
    if fresh["rows"]:
        table = Table(title="reward models on fresh answers, against gold", title_justify="left")
        for heading in ("answers of", "reward model", "accuracy", "log-loss", "overconfidence", "prompts"):
            table.add_column(heading, justify="left" if heading in ("answers of", "reward model") else "right", no_wrap=True)
        for row in fresh["rows"]:
            figures = [with_interval(row[name], 3) for name in ("accuracy", "loss", "overconfidence")]
            table.add_row(row["policy"], row["reward"], *figures, prompts_of(row["accuracy"]))
        console.print(table)
    for policy in dict.fromkeys(pair["policy"] for pair in fresh["paired"]):
        console.print(f"  on answers of {policy}:")
        print_pairs(console, [pair for pair in fresh["paired"] if pair["policy"] == policy])
    if fresh["synthetic"]:
        table = Table(title="synthetic preferences, by the confidence of the policy", title_justify="left")
        for heading in ("made by", "confidence", "pairs", "right by gold", "gold of winner - loser"):
            table.add_column(heading, justify="left" if heading == "made by" else "right", no_wrap=True)
        for row in fresh["synthetic"]:
            share = "learned from" if row["low"] is None else f"{row['low']:.1f} and more" + below(row["high"])
            table.add_row(row["name"], share, f"{row['n']:,}", with_interval(row["accuracy"], 3), with_interval(row["gap"], 2))
        console.print(table)


def below(high: float | None) -> str:
    return "" if high is None else f", below {high:.1f}"


def with_interval(figure: dict[str, Any] | None, digits: int) -> str:
    if figure is None or figure["mean"] is None:
        return ""
    if figure.get("low") is None:
        return f"{figure['mean']:.{digits}f}"
    return f"{figure['mean']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def prompts_of(figure: dict[str, Any]) -> str:
    """How many prompts a figure is a mean over, and how many training runs answered them."""
    return f"{figure['n_prompts']:,}" + (f", {figure['n_seeds']} seeds" if figure["n_seeds"] > 1 else "")


def print_pairs(console: Console, pairs: list[dict[str, Any]]) -> None:
    """Differences with their intervals; one that may be 0 is called not separated."""
    for pair in pairs:
        low, high = (-math.inf if pair["low"] is None else pair["low"]), (math.inf if pair["high"] is None else pair["high"])
        verdict = "" if low > 0 or high < 0 else "  not separated"
        console.print(f"  {pair['metric']:15} {pair['a']} - {pair['b']}: {pair['mean']:+.3f} [{low:+.3f}, {high:+.3f}]{verdict}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
