"""A program that runs one method and prints what its memory was reckoned to be and what it became, in MiB.

    python -m tests.memory_of_a_run ppo '{"share": "adapters"}' FOLDER

The model is the benchmarks' (6 layers, width 256, vocabulary 4,096): large enough for its memory to stand out from the rest.
"""

import json
import resource
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, MODEL
from benchmarks.inputs import prepare
from prefloop.config import Options
from prefloop.engine.needs import needs_of
from prefloop.study import config_class

MIB = 2**20
CASE = {"reward": "reward_k4", "dpo": "dpo", "kto": "dpo", "rrhf": "dpo", "ppo": "ppo_shared", "reinforce": "ppo_shared"}
PLAIN = {"template": "plain", "save_every": 10**6}


def settings(method: str, folder: Path) -> dict[str, Any]:
    """Two steps of the benchmark's own case."""
    model = {"model": str(folder / "model"), **PLAIN}
    if CASE[method] != "ppo_shared":
        return {**model, "data": str(folder / "rankings.jsonl"), "held_out": 0.0, "epochs": 2, "batch": 10**4}
    prompts = {**model, "prompts": str(folder / "prompts.jsonl"), "rounds": 2, "prompts_per_round": 32, "max_new_tokens": 64}
    if method == "reinforce":
        return {**prompts, "reward": "python:benchmarks.ours:different_words", "method": "grpo", "k": 2, "minibatch": 64}
    return {**prompts, "reward": str(folder / "reward"), "epochs": 1, "minibatch": 32}


def resident() -> float:
    """What the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / MIB


def measured(method: str, own: dict[str, Any], folder: Path) -> dict[str, float]:
    inputs = folder / CASE[method]
    if not (inputs / "spec.json").is_file():
        prepare(next(case for case in CASES if case.name == CASE[method]), inputs, model_shape=MODEL)
    module, noted = import_module(f"prefloop.methods.{method}"), {}
    admit = module.admit

    def noting(config: Any, work: Any, device: Any) -> dict[str, int]:
        noted.update(reckoned=needs_of(config, work).total / MIB, before=resident())
        return admit(config, work, device)

    module.admit = noting  # type: ignore[attr-defined]
    cls, main = config_class(method)
    main(cls.of(**{**settings(method, inputs), **own}), Options(out=folder / f"run-{method}-{len(own)}", device="cpu"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"reckoned": round(noted["reckoned"]), "measured": round(peak - noted["before"])}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measured(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))) + "\n")
