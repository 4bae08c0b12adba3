"""A whole study with made-up figures, every field filled; tests take it apart or replace what they are about."""

from typing import Any

from prefloop.report.data import ReportData

NO_PLOTS: dict[str, Any] = {
    "curves": {},
    "best_of_n": [],
    "reward_model": None,
    "sft_selection": [],
}  # a page without matplotlib, quick


def figure(mean: float, arm: float = 0.1, n: int = 300) -> dict[str, Any]:
    return {"mean": mean, "low": mean - arm, "high": mean + arm, "n": n}


def row(name: str, gold: float, kl: float, length: float) -> dict[str, Any]:
    return {
        "name": name,
        "gold": figure(gold),
        "win": figure(0.625, 0.0625),
        "kl": {"mean": kl, "low": kl - 0.5, "high": kl + 0.5, "n": 300},
        "length": length,
        "skill": {"sums": 0.4375, "spelling": figure(0.875, 0.03125, 100)},
        "fluency": {"nll": figure(1.25, 0.0625), "distinct_1_of_all": 0.5},
        "proxy": 0.25,
    }


def reward_row(name: str, accuracy: float, arm: float = 0.0625) -> dict[str, Any]:
    share = {"low": None, "high": None, "n_prompts": 300, "n_seeds": 5}
    return {
        "name": name,
        "accuracy": {**share, "mean": accuracy, "low": accuracy - arm, "high": accuracy + arm},
        "loss": {**share, "mean": 0.6875, "low": 0.65625, "high": 0.71875},
        "prefers_longer": {**share, "mean": 0.4375},
        "prefers_shorter": {**share, "mean": 0.5625},
        "trust": {
            "pair_accuracy": figure(accuracy, arm),
            "calibration": [{"predicted": 0.65, "observed": 0.61, "n": 403}],
            "accuracy_by_gap": [{"gap": 0.25, "accuracy": 0.69, "n": 503}],
        },
    }


def reward_pair(a: str, b: str, mean: float, arm: float = 0.0625, metric: str = "accuracy") -> dict[str, Any]:
    return pair(a, b, mean, arm, metric, seeds=5)


def pair(a: str, b: str, mean: float, arm: float = 0.25, metric: str = "gold", seeds: int = 1) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "metric": metric,
        "mean": mean,
        "low": mean - arm,
        "high": mean + arm,
        "n_prompts": 300,
        "n_seeds": seeds,
    }


def points(gold: list[float], proxy: list[float], arm: float = 0.1) -> list[dict[str, Any]]:
    return [
        {
            "step": i,
            "episodes": 64 * i,
            "proxy": p,
            "gold": g,
            "gold_low": g - arm,
            "gold_high": g + arm,
            "kl": 1.0 * i,
            "length": 20.0,
        }
        for i, (g, p) in enumerate(zip(gold, proxy, strict=True))
    ]


RULES = ("prefers_longer", "prefers_shorter")
RISING = [0.0, 1.0, 2.0, 3.0]
PEAKED = [0.0, 1.0, 0.5, -1.0]


def content() -> dict[str, Any]:
    """Everything ``ReportData`` takes."""
    return {
        "title": "A small study",
        "subtitle": "Does it learn?",
        "seconds": 318.0,
        "stages": [
            {"name": "pretrain-stage", "seconds": 0.0, "skipped": True},
            {"name": "sft-stage", "seconds": 61.0},
            {"name": "ppo-stage", "seconds": 257.0},
        ],
        "machine": "two cores",
        "command": "prefloop demo --seed 0",
        "counts": {
            "training_prompts": 2001,
            "answers_per_prompt": 4,
            "annotators": 13,
            "rankings": 2002,
            "pairs": 2003,
            "episodes": 2004,
            "evaluation_prompts": 2005,
        },
        "rows": [
            row("base", -0.84, 1.31, 22.1),
            row("sft", 0.21, 0.0, 21.2),
            row("best_of_n", 1.83, 1.84, 20.3),
            row("ppo", 1.87, 2.51, 20.4),
            row("ppo_ptx", 1.62, 1.92, 19.5),
            row("ppo_overoptimised", -1.11, 22.73, 22.6),
        ],
        "paired": [
            pair("ppo", "sft", 1.66),
            pair("ppo_ptx", "sft", 1.41),
            pair("best_of_n", "sft", 1.62),
            pair("ppo", "best_of_n", 0.04),
            pair("ppo", "ppo_ptx", -0.25, 0.0625, "skill/sums"),
        ],
        "reward_model": {
            "pair_accuracy": figure(0.6875, 0.03125, 1800),
            "bayes_ceiling": 0.75,
            "gold_accuracy": figure(0.8125, 0.03125, 1801),
            "calibration": [{"predicted": 0.55, "observed": 0.51, "n": 401}, {"predicted": 0.85, "observed": 0.73, "n": 402}],
            "accuracy_by_gap": [{"gap": 0.15, "accuracy": 0.59, "n": 501}, {"gap": 1.25, "accuracy": 0.91, "n": 502}],
            "length_correlation": 0.08,
        },
        "curves": {
            "ppo": points(RISING, RISING),
            "ppo_ptx": points(RISING, RISING),
            "ppo_overoptimised": points(PEAKED, RISING),
        },
        "best_of_n": [
            {"n": 1, "kl": 0.0, "proxy": 0.0, "gold": 0.2, "low": 0.1, "high": 0.3},
            {"n": 4, "kl": 0.64, "proxy": 0.5, "gold": 1.0, "low": 0.9, "high": 1.1},
            {"n": 16, "kl": 1.84, "proxy": 1.0, "gold": 1.8, "low": 1.7, "high": 1.9},
        ],
        "samples": [
            {
                "prompt": "Tell me about a fox.",
                "answers": [
                    {"policy": "ppo", "text": "A fox found a lantern.", "gold": 1.23, "proxy": 0.97},
                    {"policy": "sft", "text": "The fox was sad.", "gold": -0.42, "proxy": 0.11},
                ],
            }
        ],
        "sft_selection": [
            {"epoch": 1, "train_loss": 1.21, "validation_loss": 0.97, "reward": figure(-0.04), "chosen": False},
            {"epoch": 2, "train_loss": 0.83, "validation_loss": 0.985, "reward": figure(0.01), "chosen": True},
        ],
        "data_reports": [{"name": "rankings.jsonl", "lines": ["kept 996", "dropped 4: every answer tied"]}],
        "baseline": "sft",
        "chooser": "best_of_n",
        "rewards": [reward_row("reward", 0.625), reward_row("few_reward", 0.5)],
        "reward_pairs": [
            reward_pair(name, rule, mean) for name, mean in (("reward", 0.125), ("few_reward", 0.0)) for rule in RULES
        ],
        "warnings": ["four rankings taught nothing"],
        "lineage": [{"name": "sft", "hash": "77a1ce02d9b8f013", "parents": ["base-hash"]}],
    }


def study(**changes: Any) -> ReportData:
    """The example with some fields replaced."""
    return ReportData.model_validate({**content(), **changes})


def study_of_rewards(*models: tuple[str, float], **changes: Any) -> ReportData:
    """A study without policies: reward models with their accuracy, each 0.125 above or below both rules, or on them."""
    beyond = {name: (accuracy > 0.5625) - (accuracy < 0.4375) for name, accuracy in models}
    return study(
        rows=[], paired=[], curves={}, best_of_n=[], samples=[], sft_selection=[], baseline="", chooser="", counts={},
        rewards=[reward_row(name, accuracy) for name, accuracy in models],
        reward_pairs=[reward_pair(name, rule, 0.125 * sign) for name, sign in beyond.items() for rule in RULES],
    ).model_copy(update=changes)  # fmt: skip
