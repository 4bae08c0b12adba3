"""Prefloop's side. A method runs as a user runs it, from its config to its run folder; it is stopped at the end of each step
by way of the line it writes to its log. Sampling is called as it is."""

import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.turns import Turns
from prefloop.config import Options
from prefloop.engine.run import Run
from prefloop.records import Completion, Prompt

FOREVER = 10**6


def run_method(method: str, config: str, settings: dict[str, Any], *, units: float, turns: Turns) -> None:
    """A method's ``main``, pausing each time a step is logged."""
    log = Run.log

    def log_and_wait(run: Run, step: int, figures: dict[str, Any]) -> None:
        log(run, step, figures)
        turns.done(units)

    Run.log = log_and_wait  # type: ignore[method-assign]
    module = import_module(f"prefloop.methods.{method}")
    with tempfile.TemporaryDirectory() as folder:
        module.main(getattr(module, config).of(**settings), Options(out=Path(folder) / "run", device="cpu"))


def reward(spec: dict[str, Any], turns: Turns) -> None:
    """All prompts in one step, every step."""
    shape, folder = spec["shape"], spec["folder"]
    settings = {
        "model": f"{folder}/model", "data": f"{folder}/rankings.jsonl", "template": "plain", "held_out": 0.0,
        "batch": shape["prompts"], "epochs": FOREVER, "save_every": FOREVER, "optim": {"lr": 1e-5, **at_once(shape)},
    }  # fmt: skip
    run_method("reward", "RewardConfig", settings, units=shape["prompts"] * n_pairs(shape["k"]), turns=turns)


def ppo(spec: dict[str, Any], turns: Turns) -> None:
    """A round: answers, rewards, and four passes over them in one minibatch."""
    shape, folder = spec["shape"], spec["folder"]
    rows = shape["prompts"] * shape["k"]
    settings = {
        "model": f"{folder}/model", "reward": f"{folder}/reward", "prompts": f"{folder}/prompts.jsonl", "template": "plain",
        "prompts_per_round": shape["prompts"], "k": shape["k"], "max_new_tokens": shape["new_tokens"],
        "epochs": shape["epochs"], "minibatch": rows, "rounds": FOREVER, "save_every": FOREVER,
        "share": shape["share"], "critic": "reward" if shape["share"] == "none" else "policy", "optim": {"lr": 1e-6, **at_once(shape)},
    }  # fmt: skip
    run_method("ppo", "PPOConfig", settings, units=rows, turns=turns)


def dpo(spec: dict[str, Any], turns: Turns) -> None:
    """All pairs in one step, every step; the reference was computed before the first."""
    shape, folder = spec["shape"], spec["folder"]
    settings = {
        "model": f"{folder}/model", "data": f"{folder}/rankings.jsonl", "template": "plain", "held_out": 0.0, "beta": 0.1,
        "batch": shape["prompts"], "epochs": FOREVER, "save_every": FOREVER, "optim": {"lr": 1e-6, **at_once(shape)},
    }  # fmt: skip
    run_method("dpo", "DPOConfig", settings, units=shape["prompts"] * n_pairs(shape["k"]), turns=turns)


def group_rl(spec: dict[str, Any], turns: Turns) -> None:
    """K answers to each prompt, a reward that costs nothing, one update."""
    shape, folder = spec["shape"], spec["folder"]
    rows = shape["prompts"] * shape["k"]
    settings = {
        "model": f"{folder}/model", "reward": "python:benchmarks.ours:different_words", "prompts": f"{folder}/prompts.jsonl",
        "template": "plain", "method": "grpo", "kl": shape["kl"], "prompts_per_round": shape["prompts"], "k": shape["k"],
        "max_new_tokens": shape["new_tokens"], "epochs": 1, "minibatch": rows, "rounds": FOREVER, "save_every": FOREVER,
        "optim": {"lr": 1e-6, **at_once(shape)},
    }  # fmt: skip
    run_method("reinforce", "ReinforceConfig", settings, units=rows, turns=turns)


def different_words(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """A reward that costs nothing."""
    return [float(len(set(completion.text.split()))) for completion in completions]


def sampling(spec: dict[str, Any], turns: Turns) -> None:
    """Prompts as text to answers as text; the tokens of the answers are counted."""
    from prefloop.data.read import read_prompts
    from prefloop.engine.memory import keep_memory
    from prefloop.models.encode import Encoder
    from prefloop.models.load import load_policy, load_tokenizer
    from prefloop.models.sampling import sample

    shape, folder = spec["shape"], spec["folder"]
    keep_memory()  # as every command does
    model = load_policy(f"{folder}/model")
    prompts = read_prompts(f"{folder}/prompts.jsonl").records
    encoder = Encoder(load_tokenizer(f"{folder}/model"), template="plain")
    limits = {} if shape["lengths"] == "full" else {"length_limits": spec["drawn"]["limits"]}
    for seed in range(FOREVER):
        drawn = sample(model, encoder, prompts, k=shape["k"], max_new_tokens=shape["new_tokens"], seed=seed, **limits)
        turns.done(int((drawn.length - drawn.prompt_length).sum()))


def at_once(shape: dict[str, Any]) -> dict[str, int]:
    """Tokens computed at once, where ``--shape micro_tokens=`` tries others than a run takes by itself."""
    return {"micro_tokens": shape["micro_tokens"]} if "micro_tokens" in shape else {}


def n_pairs(k: int) -> int:
    return k * (k - 1) // 2


SIDES: dict[str, Callable[[dict[str, Any], Turns], None]] = {
    "reward": reward,
    "dpo": dpo,
    "group_rl": group_rl,
    "ppo": ppo,
    "sampling": sampling,
}
