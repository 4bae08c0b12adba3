"""What a finished study tells its page: figures gathered from the summaries and logs of its stages."""

import json
import math
import os
import platform
from pathlib import Path
from typing import Any

from prefloop.report.data import ReportData
from prefloop.study import Done, StudyConfig


def study_data(study: StudyConfig, done: list[Done], summary: dict[str, Any], *, command: str) -> ReportData:
    """Everything the page shows; curves, samples and calibration are of the first seed."""
    first = {d.stage.name: d for d in done if d.stage.seed == study.seeds[0]}
    evaluation = next(d for d in first.values() if d.stage.command == "evaluate")
    content = {
        "title": study.name,
        "subtitle": study.question,
        "seconds": summary["seconds"],
        "command": command,
        "machine": machine(),
        "stages": [{"name": label(d, study), "seconds": d.seconds, "skipped": d.was_skipped} for d in done],
        "rows": [{key: value for key, value in row.items() if key not in ("finished", "fluency")} for row in summary["rows"]],
        "paired": [{key: value for key, value in pair.items() if value is not None} for pair in summary["paired"]],
        "reward_model": trust(first, summary, evaluation),
        "curves": {d.stage.name: curve(d.stage.folder) for d in first.values() if d.stage.command == "ppo"},
        "best_of_n": evaluation.summary["best_of_n"],
        "samples": json.loads((evaluation.stage.folder / "samples.json").read_text(encoding="utf-8")),
        "sft_selection": next((d.summary["epochs"] for d in first.values() if d.stage.command == "select"), []),
        "data_reports": [
            {"name": f"{d.stage.name}: {name}", "lines": report["lines"]}
            for d in first.values()
            for name, report in data_of(d.stage.folder).items()
        ],
        "warnings": [f"{d.stage.label}: {line}" for d in done for line in d.summary.get("warnings", [])],
        "counts": counts(first, evaluation),
        "lineage": [{"name": d.stage.label, "hash": d.stage.key} for d in first.values()],
    }
    return ReportData.model_validate(content)


def data_of(folder: Path) -> dict[str, Any]:
    """The data reports of a run, by name."""
    path = folder / "data.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def label(d: Done, study: StudyConfig) -> str:
    return d.stage.label if len(study.seeds) == 1 else f"{d.stage.label} (seed {d.stage.seed})"


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"


def trust(first: dict[str, Done], summary: dict[str, Any], evaluation: Done) -> dict[str, Any] | None:
    if not summary["reward_model"]:
        return None
    own = first["reward"].summary
    seen = evaluation.summary["proxy_trust"]
    accuracy = seen.get("gold_accuracy")
    return {
        "pair_accuracy": {k: v for k, v in summary["reward_model"]["pair_accuracy"].items() if k != "n_prompts"},
        "bayes_ceiling": summary["reward_model"]["bayes_ceiling"],
        "gold_accuracy": {k: v for k, v in accuracy.items() if k != "n_prompts"} if accuracy and accuracy["n"] else None,
        "length_correlation": finite(seen.get("length_correlation")),
        "calibration": own["calibration"],
        "accuracy_by_gap": [{"gap": b["predicted"], "accuracy": b["observed"], "n": b["n"]} for b in own["accuracy_by_gap"]],
    }


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def curve(folder: Path) -> list[dict[str, Any]]:
    """Proxy and gold of the answers of every round, gold with the interval of a mean of independent answers."""
    points = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answers = row["episode"] / (row["step"] + 1)
        point = {
            "step": row["step"],
            "episodes": row["episode"],
            "proxy": row["objective/scores"],
            "kl": row["objective/kl"],
            "length": row["objective/length"],
        }
        if "measure/gold" in row:
            arm = 1.96 * row["measure/gold_sd"] / math.sqrt(answers)
            point |= {"gold": row["measure/gold"], "gold_low": row["measure/gold"] - arm, "gold_high": row["measure/gold"] + arm}
        points.append(point)
    return points


def counts(first: dict[str, Done], evaluation: Done) -> dict[str, Any]:
    rankings = first["rankings"].summary if "rankings" in first else {}
    answers = first["answers"].summary if "answers" in first else {}
    policy = first["ppo"].summary if "ppo" in first else {}
    k = answers.get("completions", 0) // answers["prompts"] if answers.get("prompts") else None
    return {
        "training_prompts": answers.get("prompts"),
        "answers_per_prompt": k,
        "annotators": 13 if rankings else None,
        "rankings": rankings.get("rankings"),
        "pairs": rankings.get("pairs"),
        "episodes": policy.get("episodes"),
        "evaluation_prompts": evaluation.summary["prompts"],
    }
