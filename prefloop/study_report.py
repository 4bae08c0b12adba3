"""What a finished study tells: its summary.json, and the figures of its page, gathered from the summaries and logs of its stages."""

import json
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from prefloop.config import parse
from prefloop.data.read import read_prompts
from prefloop.evaluate.benchmark_over_seeds import over_runs as benchmark_over_runs
from prefloop.evaluate.over_seeds import FLUENCY, difference, row
from prefloop.evaluate.rewards import pooled_accuracy, read_per_prompt, side_by_side
from prefloop.evaluate.trust_over_seeds import over_runs
from prefloop.report.data import ReportData, row_of
from prefloop.study import Done, StudyConfig, config_class, known

# --- summary.json --------------------------------------------------------------------------------------------------------


def summarised(study: StudyConfig, done: list[Done], seconds: float) -> dict[str, Any]:
    """Policies, reward models and their differences over every seed; what the study did not measure is empty."""
    return {
        "study": study.name,
        "seeds": study.seeds,
        "seconds": seconds,
        **compared(done),
        "reward_model": reward_model(done),
        "rewards": judged_rewards(done),
        "fresh": fresh_answers(done),
        "benchmarks": benchmarks(done),
    }


def compared(done: list[Done]) -> dict[str, Any]:
    """The policies side by side. Where there are several evaluations (of a sweep), what differs between them carries its point."""
    evaluations: dict[str, list[Done]] = {}
    for one in done:
        if one.stage.command == "evaluate":
            evaluations.setdefault(one.stage.label, []).append(one)
    if not evaluations:
        return {"baseline": None, "rows": [], "paired": []}
    first = settings_of(next(iter(evaluations.values()))[0])
    rows: dict[str, dict[str, Any]] = {}
    paired: dict[tuple[str, str, str], dict[str, Any]] = {}
    for stages in evaluations.values():
        config, runs, prompts = settings_of(stages[0]), [per_prompt(stage) for stage in stages], prompts_of(stages)
        names = {name: shown(name, stages[0], first) for name in runs[0]}
        for told in stages[0].summary["rows"]:
            name = told["name"]
            made = row(name, runs, baseline=config.baseline, is_bound=name == chooser(config), prompts=prompts)
            made["fluency"] |= of_all_answers(name, stages)
            rows.setdefault(names[name], made | {"name": names[name]})
        for pair in stages[0].summary["paired"]:
            made = difference(pair["a"], pair["b"], pair["metric"], runs, prompts)
            made |= {"a": names[pair["a"]], "b": names[pair["b"]]}
            paired.setdefault((made["a"], made["b"], made["metric"]), made)
    return {"baseline": first.baseline, "rows": list(rows.values()), "paired": list(paired.values())}


def settings_of(one: Done) -> Any:
    """The settings of a stage with their defaults."""
    return parse(config_class(one.stage.command)[0], known(one.stage), where=f"stage {one.stage.name}")


def per_prompt(evaluation: Done) -> dict[str, Any]:
    return json.loads((evaluation.stage.folder / "per_prompt.json").read_text(encoding="utf-8"))


def prompts_of(evaluations: list[Done]) -> list[list[str]] | None:
    """The ids of the prompts of each evaluation; None where one can no longer be told."""
    found = [asked_of(one) for one in evaluations]
    return [ids for ids in found if ids is not None] if None not in found else None


def asked_of(one: Done) -> list[str] | None:
    """The ids of the prompts of an evaluation; those of its file where it is from before they were written down."""
    written, config = one.stage.folder / "prompts.json", settings_of(one)
    if written.is_file():
        return json.loads(written.read_text(encoding="utf-8"))
    return [p.id for p in read_prompts(config.prompts).records[: config.n]] if Path(config.prompts).is_file() else None


def chooser(config: Any) -> str:
    """The row of best-of-n; empty where there is none."""
    return config.best_of.name if config.best_of else ""


def shown(name: str, evaluation: Done, first: Any) -> str:
    """A row's name: with the point of the sweep where it is not the same policy, judged the same way, as in the first evaluation."""
    config = settings_of(evaluation)
    what = [(c.policies.get(name), c.model_dump(exclude={"policies", "proxies", "seed"})) for c in (config, first)]
    point = evaluation.stage.label.partition("@")[2] or evaluation.stage.label
    return name if what[0] == what[1] and (name != chooser(config) or same_source(config, first)) else f"{name}@{point}"


def same_source(one: Any, other: Any) -> bool:
    """Whether best-of-n draws from the same policy."""
    return one.policies[one.best_of.policy] == other.policies[other.best_of.policy]


def of_all_answers(name: str, stages: list[Done]) -> dict[str, Any]:
    """Figures of how all answers of a row read together: means over seeds, without an interval."""
    told = [next(row["fluency"] for row in stage.summary["rows"] if row["name"] == name) for stage in stages]
    measured = per_prompt(stages[0])[name]
    return {
        figure: {"mean": float(np.mean([mean_of(one[figure]) for one in told]))}
        for figure in told[0]
        if FLUENCY + figure not in measured
    }


def mean_of(figure: float | dict[str, Any]) -> float:
    return figure["mean"] if isinstance(figure, dict) else figure


def judged_rewards(done: list[Done]) -> dict[str, Any]:
    """Every reward model that was judged on held-out rankings, beside the rules of length, and beside each other.

    A policy of RRHF is one too: its log-probability per token is what it ranks by.
    """
    runs: dict[str, list[Any]] = {}
    for one in done:
        if one.stage.command in ("reward", "relearn", "rrhf") and (found := read_per_prompt(one.stage.folder)):
            runs.setdefault(one.stage.label, []).append(found)
    return side_by_side(runs)


def fresh_answers(done: list[Done]) -> dict[str, Any]:
    """Reward models on fresh answers of policies, and synthetic pairs beside gold, over the seeds of each ``trust`` stage.

    Where there are several (of a sweep), the names of reward models and runs carry the point. Calibration is of the first seed.
    """
    stages: dict[str, list[Done]] = {}
    for one in done:
        if one.stage.command == "trust":
            stages.setdefault(one.stage.label, []).append(one)
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "paired": [], "synthetic": []}
    for label, of_label in stages.items():
        told = over_runs([per_prompt(one) for one in of_label], baseline=settings_of(of_label[0]).baseline)
        point = label.partition("@")[1] + label.partition("@")[2]
        bins = {(one["policy"], one["reward"]): one["calibration"] for one in of_label[0].summary["rows"]}
        for one in told["rows"]:
            found["rows"].append({**one, "calibration": bins[one["policy"], one["reward"]], "reward": one["reward"] + point})
        found["paired"] += [{**pair, "a": pair["a"] + point, "b": pair["b"] + point} for pair in told["paired"]]
        found["synthetic"] += [{**pairs, "name": pairs["name"] + point} for pairs in told["synthetic"]]
    return found


def benchmarks(done: list[Done]) -> dict[str, Any]:
    """Every ``benchmark`` stage by its label, over the seeds."""
    labels = dict.fromkeys(one.stage.label for one in done if one.stage.command == "benchmark")
    return {label: benchmark_over_runs([per_prompt(one) for one in done if one.stage.label == label]) for label in labels}


def main_reward(done: list[Done]) -> list[Done]:
    """A reward model over its seeds: the one policies are judged beside, else the one called reward, else the first."""
    rewards = [one for one in done if one.stage.command == "reward" and "pair_accuracy" in one.summary]
    asked = [one.stage.settings.get("reward", "") for one in done if one.stage.command == "evaluate"]
    used = [one for one in rewards if any(holds(one, spec) for spec in asked)]
    named = [one for one in rewards if one.stage.name == "reward"]
    label = next((one.stage.label for one in [*used, *named, *rewards]), None)
    return [one for one in rewards if one.stage.label == label]


def holds(one: Done, spec: str) -> bool:
    """Whether a path of ``spec`` (several with commas) lies in the folder of a stage."""
    return any(one.stage.folder in (path := Path(part), *path.parents) for part in spec.split(",") if part)


def maker(spec: str, done: Iterable[Done]) -> Done | None:
    """The stage whose output ``spec`` names."""
    return next((one for one in done if holds(one, spec)), None)


def reward_model(done: list[Done]) -> dict[str, Any]:
    """Held-out accuracy of the main reward model beside the ceiling of the labels it learned from, where that is known."""
    rewards = main_reward(done)
    if not rewards:
        return {}
    makers = [maker(one.stage.settings.get("data", ""), done) for one in rewards]
    ceilings = [one.summary["bayes_ceiling"] for one in makers if one and one.summary.get("bayes_ceiling") is not None]
    runs = [read_per_prompt(one.stage.folder) for one in rewards]
    own = rewards[0].summary["pair_accuracy"]
    return {
        "name": rewards[0].stage.label,
        "pair_accuracy": own if len(rewards) == 1 else pooled_accuracy([run for run in runs if run]),
        "per_seed": [one.summary["pair_accuracy"]["mean"] for one in rewards],
        "bayes_ceiling": float(np.mean(ceilings)) if ceilings else None,
        "ceiling_per_seed": ceilings,
    }


# --- the page --------------------------------------------------------------------------------------------------------------


def study_data(study: StudyConfig, done: list[Done], summary: dict[str, Any], *, command: str) -> ReportData:
    """Everything the page shows; curves, samples and calibration are of the first seed."""
    first = [one for one in done if one.stage.seed == study.seeds[0]]
    evaluation = next((one for one in first if one.stage.command == "evaluate"), None)
    content = {
        "title": study.name,
        "subtitle": study.question,
        "seconds": summary["seconds"],
        "command": command,
        "machine": machine(),
        "baseline": summary["baseline"] or "",
        "chooser": chooser(settings_of(evaluation)) if evaluation else "",
        "stages": [{"name": label(one, study), "seconds": one.seconds, "skipped": one.was_skipped} for one in done],
        "rows": [row_of(told) for told in summary["rows"]],
        "paired": summary["paired"],
        "reward_model": trust(first, summary, evaluation),
        "rewards": [told | {"trust": own_trust(told["name"], first)} for told in summary["rewards"]["rows"]],
        "reward_pairs": summary["rewards"]["paired"],
        "fresh": summary["fresh"]["rows"],
        "fresh_pairs": summary["fresh"]["paired"],
        "synthetic": summary["fresh"]["synthetic"],
        "curves": {policy_of(one, evaluation): points for one in first if (points := curve(one))},
        "best_of_n": evaluation.summary["best_of_n"] if evaluation else [],
        "samples": json.loads((evaluation.stage.folder / "samples.json").read_text(encoding="utf-8")) if evaluation else [],
        "sft_selection": next((one.summary["epochs"] for one in first if one.stage.command == "select"), []),
        "data_reports": [
            {"name": f"{one.stage.label}: {name}", "lines": report["lines"]}
            for one in first
            for name, report in data_of(one.stage.folder).items()
        ],
        "warnings": [f"{one.stage.label}: {line}" for one in done for line in one.summary.get("warnings", [])]
        + trained_on_gold(first, evaluation),
        "counts": counts(first, evaluation),
        "lineage": [{"name": one.stage.label, "hash": one.stage.key, "parents": one.stage.parents} for one in first],
    }
    return ReportData.model_validate(content)


def data_of(folder: Path) -> dict[str, Any]:
    """The data reports of a run, by name."""
    path = folder / "data.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def label(one: Done, study: StudyConfig) -> str:
    return one.stage.label if len(study.seeds) == 1 else f"{one.stage.label} (seed {one.stage.seed})"


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"


def policy_of(trained: Done, evaluation: Done | None) -> str:
    """What the table calls the policy of a training stage; the stage's own label where the table has it not."""
    policies = evaluation.stage.settings["policies"] if evaluation else {}
    return next((name for name, folder in policies.items() if holds(trained, folder)), trained.stage.label)


def trust(first: list[Done], summary: dict[str, Any], evaluation: Done | None) -> dict[str, Any] | None:
    """The main reward model, with what the evaluation saw of its order of answers."""
    main = next(iter(main_reward(first)), None)
    if main is None:
        return None
    seen = evaluation.summary["proxy_trust"] if evaluation else {}
    return {
        "pair_accuracy": summary["reward_model"]["pair_accuracy"],
        "bayes_ceiling": summary["reward_model"]["bayes_ceiling"],
        "gold_accuracy": seen.get("gold_accuracy"),
        "length_correlation": finite(seen.get("length_correlation")),
        **bins(main),
    }


def own_trust(name: str, first: list[Done]) -> dict[str, Any] | None:
    """How a reward model's chances came true on the held-out pairs of the first seed; a policy that ranks states none."""
    own = next((one for one in first if one.stage.label == name and "calibration" in one.summary), None)
    return {"pair_accuracy": own.summary["pair_accuracy"], **bins(own)} if own else None


def bins(own: Done) -> dict[str, Any]:
    """Empty for what states no chances: a log-probability per token has an order and no more."""
    gaps = own.summary.get("accuracy_by_gap", [])
    by_gap = [{"gap": b["predicted"], "accuracy": b["observed"], "n": b["n"]} for b in gaps]
    return {"calibration": own.summary.get("calibration", []), "accuracy_by_gap": by_gap}


def trained_on_gold(first: list[Done], evaluation: Done | None) -> list[str]:
    """What the page warns of where the score that judges is one that training pleased."""
    gold = evaluation.stage.settings.get("gold") if evaluation else None
    return [
        f"{policy_of(one, evaluation)} was trained on the score that is called gold here: for it, gold is no independent judge"
        for one in first
        if gold and one.stage.command not in ("evaluate", "rank") and one.stage.settings.get("reward") == gold
    ]


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def curve(one: Done) -> list[dict[str, Any]]:
    """Proxy and gold of the answers of every round, gold with an interval as if each prompt had one answer.

    The log has the spread of all answers of a round, not of the means of its prompts. The k answers to one prompt are not
    independent, so their number is no sample size; with that of the prompts, answers / k, the interval is right where all
    answers to a prompt are worth the same, and too wide otherwise.
    Empty where a stage trained no policy on answers of its own.
    """
    log = one.stage.folder / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    points, before = [], 0
    for told in map(json.loads, lines):
        if "objective/scores" not in told or "episode" not in told:
            return []
        answers, before = told["episode"] - before, told["episode"]
        point = {
            "step": told["step"],
            "episodes": told["episode"],
            "proxy": told["objective/scores"],
            "kl": told.get("objective/kl"),
            "length": told.get("objective/length"),
        }
        if "measure/gold" in told:
            prompts = answers / getattr(settings_of(one), "k", 1)
            arm = 1.96 * told["measure/gold_sd"] / math.sqrt(prompts)
            gold = told["measure/gold"]
            point |= {"gold": gold, "gold_low": gold - arm, "gold_high": gold + arm}
        points.append(point)
    return points


def counts(first: list[Done], evaluation: Done | None) -> dict[str, Any]:
    """How much went round the loop: from the rankings of the main reward model back to the answers and prompts behind them."""
    reward = next(iter(main_reward(first)), None)
    rankings = maker(reward.stage.settings.get("data", ""), first) if reward else None
    answers = maker(rankings.stage.settings.get("data", ""), first) if rankings else None
    told = answers.summary if answers else {}
    learned = rankings.summary if rankings else reward.summary if reward else {}
    return {
        "training_prompts": told.get("prompts") or (reward.summary.get("prompts") if reward else None),
        "answers_per_prompt": getattr(settings_of(answers), "k", None) if answers else None,
        "annotators": getattr(settings_of(rankings), "annotators", None) if rankings else None,
        "rankings": learned.get("rankings"),
        "pairs": learned.get("pairs"),
        "episodes": next((one.summary["episodes"] for one in first if "episodes" in one.summary), None),
        "evaluation_prompts": evaluation.summary["prompts"] if evaluation else None,
    }
