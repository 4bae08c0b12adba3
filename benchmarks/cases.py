"""What is measured: ten cases, each with its peer, its size, and what it has to reach.

``shape`` holds every number that both sides need; ``rows`` is how many rows the peer computes at once, the fastest of those
tried (docs/performance.md). Lengths are tokens. No torch here.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

MODEL = {"layers": 6, "width": 256, "heads": 8, "inner": 688, "vocabulary": 4096, "context": 4096}
THREADS = 2

Kind = Literal["reward", "ppo", "group_rl", "sampling", "dpo"]


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    kind: Kind
    peer: str
    environment: str  # of the peer; empty where it lives in prefloop's own
    unit: str  # of work, per second
    must: float  # the ratio that has to be reached
    aim: float
    shape: dict[str, Any]
    ideal: str  # what `work` counts: tokens or bytes


def rankings(k: int, prompts: int, completion: list[int], rows: int) -> dict[str, Any]:
    return {"prompts": prompts, "k": k, "prompt": 256, "completion": completion, "rows": rows}


SKEWED = [16, 128]  # the reciprocal of the length is uniform: most are short, few are long
PPO = {"prompts": 32, "k": 1, "prompt": 64, "new_tokens": 64, "epochs": 4, "rows": 32}
TRL, OLD_TRL = "trl-1.16", "trl-0.24"

CASES = (
    Case("reward_k9", "reward", "TRL 1.16 RewardTrainer", TRL, "pairs", 18, 28, rankings(9, 2, [64, 64], 4), "tokens"),
    Case("reward_k4", "reward", "TRL 1.16 RewardTrainer", TRL, "pairs", 5.5, 7.5, rankings(4, 4, [64, 64], 4), "tokens"),
    Case("pairs", "reward", "TRL 1.16 RewardTrainer", TRL, "pairs", 1.4, 1.7, rankings(2, 16, [64, 64], 4), "tokens"),
    Case("pairs_skewed", "reward", "TRL 1.16 RewardTrainer", TRL, "pairs", 1.6, 2.5, rankings(2, 32, SKEWED, 4), "tokens"),
    Case("ppo_shared", "ppo", "TRL 0.24 PPOTrainer", OLD_TRL, "episodes", 2, 4, {**PPO, "share": "trunk"}, "operations"),
    Case("ppo_separate", "ppo", "TRL 0.24 PPOTrainer", OLD_TRL, "episodes", 1.2, 4, {**PPO, "share": "none"}, "operations"),
    Case(
        "group_rl", "group_rl", "TRL 1.16 GRPOTrainer", TRL, "completions", 3, 6,
        {"prompts": 8, "k": 8, "prompt": 256, "new_tokens": 64, "kl": 0.04, "rows": 64}, "tokens",
    ),
    Case(
        "sampling", "sampling", "transformers 5 generate", "", "tokens", 2, 4,
        {"prompts": 32, "k": 1, "prompt": 64, "new_tokens": 64, "lengths": "full"}, "bytes",
    ),
    Case(
        "sampling_group", "sampling", "transformers 5 generate, num_return_sequences=8", "", "tokens", 4, 8,
        {"prompts": 8, "k": 8, "prompt": 256, "new_tokens": 256, "mean": 48, "lengths": "geometric"}, "tokens",
    ),
    Case("dpo", "dpo", "TRL 1.16 DPOTrainer", TRL, "pairs", 2, 3, rankings(2, 32, SKEWED, 4), "tokens"),
)  # fmt: skip


def tiny(case: Case) -> Case:
    """The same case in miniature, to see whether everything works; its figures mean nothing."""
    small = {"prompt": 16, "new_tokens": 8, "mean": 4, "rows": 2}
    shape = {**case.shape, **{name: value for name, value in small.items() if name in case.shape}}
    shape["prompts"] = 2 if case.kind in ("reward", "dpo") else 4
    if "completion" in shape:
        shape["completion"] = [6, 6] if shape["completion"][0] == shape["completion"][1] else [4, 12]
    if case.kind in ("ppo", "group_rl"):
        shape["rows"] = shape["prompts"] * shape["k"]
    return replace(case, shape=shape)
