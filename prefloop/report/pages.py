"""From folders to a page on disk: the command ``prefloop report``, and what a study calls when it is done."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefloop.errors import DataError, RunError
from prefloop.report.data import ReportData, row_of
from prefloop.report.page import render
from prefloop.report.run_page import read_run, render_runs

DATA = "report.json"  # what the page of a study was made from; it can be made again, in the other language too
PAGE = "report.html"


def write_study(data: ReportData, folder: Path, *, language: str = "en") -> Path:
    """The page of a study and the figures it shows, both in its folder; returns the page."""
    write(folder / DATA, data.model_dump_json(indent=1))
    return write(folder / PAGE, render(data, lang=language))


def write_page(folders: Sequence[Path], out: Path, *, language: str = "en") -> Path:
    """One page for a study folder, or for one or more run folders."""
    for folder in folders:
        refuse_unfinished(folder)
    studies = [folder for folder in folders if is_study(folder)]
    if studies and len(folders) > 1:
        raise DataError(
            f"a page holds one study or any number of runs, got {len(folders)} folders of which {studies[0]} is a study\n"
            f"  give the study alone, or the runs inside it"
        )
    page = (
        render(read_study(studies[0]), lang=language) if studies else render_runs([read_run(f) for f in folders], lang=language)
    )
    return write(out, page)


def refuse_unfinished(folder: Path) -> None:
    """A study that has begun and has no figures yet says which of its stages are missing, and how it is finished."""
    marked = sorted(folder.glob("seed-*/*/stage.json"))
    if is_study(folder) or (folder / "meta.json").is_file() or not ((folder / "study.json").is_file() or marked):
        return
    plan = read_plan(folder)
    planned = [folder / stage["folder"] for stage in plan.get("stages", [])] or [marker.parent for marker in marked]
    states = {one: state_of(one) for one in planned}
    lines = [
        f"  {word:<10} {', '.join(str(one.relative_to(folder)) for one, state in states.items() if state == key)}"
        for key, word in (("done", "done"), ("begun", "broken off"), ("missing", "missing"))
        if key in states.values()
    ]
    done = [one for one, state in states.items() if state == "done"]
    more = "" if plan.get("stages") else ", as far as can be told"
    raise DataError(
        f"{folder} is a study that is not finished: {len(done)} of {len(states)} stages are done{more}\n"
        + "\n".join(lines)
        + f"\n  finish it: {plan.get('command') or f'prefloop run STUDY.yaml --out {folder}'}"
        + (f"\n  the page of one stage: prefloop report {done[-1]}" if done else "")
    )


def read_plan(folder: Path) -> dict[str, Any]:
    """What a study wrote down when it began; empty where there is nothing that can be read."""
    try:
        found = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def state_of(stage: Path) -> str:
    """done, begun or missing."""
    try:
        marker = json.loads((stage / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "missing"
    return "done" if isinstance(marker, dict) and marker.get("done") else "begun"


def is_study(folder: Path) -> bool:
    return (folder / DATA).is_file() or bool({"rows", "rewards"} & summary_of(folder).keys())


def summary_of(folder: Path) -> dict[str, Any]:
    """summary.json where it can be read; the page of a run says what is wrong with one that cannot."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and not (folder / "meta.json").is_file() else {}


def read_study(folder: Path) -> ReportData:
    """The figures of a study: all of them from report.json, else those that summary.json holds."""
    path = folder / DATA if (folder / DATA).is_file() else folder / "summary.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return ReportData.model_validate(content if path.name == DATA else from_summary(content, folder))
    except ValidationError as error:
        why = "\n  ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
    except (OSError, ValueError) as error:
        why = str(error)
    raise DataError(f"{path} does not hold the figures of a study\n  {why}\n  run the study again to write it anew")


def from_summary(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The parts of a page that summary.json has; the others are not measured."""
    model, rewards, fresh = summary.get("reward_model") or None, summary.get("rewards") or {}, summary.get("fresh") or {}
    pairs = ("a", "b", "metric", "mean", "low", "high", "n_prompts", "n_seeds")
    return {
        "title": summary.get("study") or folder.resolve().name,
        "seconds": summary.get("seconds"),
        "baseline": summary.get("baseline") or "sft",
        "rows": [row_of(row) for row in summary.get("rows", [])],
        "paired": [known(pair, pairs) for pair in summary.get("paired", [])],
        "reward_model": known(model, ("pair_accuracy", "bayes_ceiling", "gold_accuracy", "length_correlation"))
        if model
        else None,
        "rewards": rewards.get("rows", []),
        "reward_pairs": [known(pair, pairs) for pair in rewards.get("paired", [])],
        "fresh": fresh.get("rows", []),
        "fresh_pairs": [known(pair, ("policy", *pairs)) for pair in fresh.get("paired", [])],
        "synthetic": fresh.get("synthetic", []),
    }


def known(content: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def write(path: Path, text: str) -> Path:
    """All of the file or none of it."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise RunError(f"the page could not be written to {path}: {error}\n  give another place with --out") from None
    return path
