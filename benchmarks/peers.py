"""The peers' side: each one's own trainer with its own preparation of the data, set up as somebody would who wants it fast.

Gradient checkpointing, which TRL turns on by default, is off: it saves memory and costs time. Logs, reports, checkpoints and
progress bars are off. A step ends where the trainer calls ``on_step_end``, so fetching and padding a batch is part of it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LogitsProcessor,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from benchmarks.turns import Turns

FOREVER = 10**6


class AtStepEnd(TrainerCallback):
    """Hands over to the driver when a step is done."""

    def __init__(self, turns: Turns, units: float):
        self.turns, self.units = turns, units

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.turns.done(self.units)


def fast(spec: dict[str, Any], rows: int) -> dict[str, Any]:
    """Settings of every trainer: float32 on the CPU, nothing written, nothing reported."""
    return {
        "output_dir": f"{spec['folder']}/peer", "report_to": [], "save_strategy": "no", "disable_tqdm": True,
        "logging_strategy": "no", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "dataloader_num_workers": 0, "per_device_train_batch_size": rows,
    }  # fmt: skip


def tokenizer_of(folder: str) -> PreTrainedTokenizerFast:
    """By its class: older releases of transformers do not know the name under which the present one saves it."""
    return PreTrainedTokenizerFast.from_pretrained(f"{folder}/model", padding_side="left")


def pairs_of(spec: dict[str, Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([json.loads(line) for line in Path(spec["folder"], "pairs.jsonl").read_text().splitlines()])


def reward(spec: dict[str, Any], turns: Turns) -> None:
    """All pairs in one optimiser step, every step, ``rows`` of them computed at once."""
    from trl import RewardConfig, RewardTrainer

    pairs, rows = pairs_of(spec), spec["shape"]["rows"]
    settings = fast(spec, rows) | {"gradient_accumulation_steps": len(pairs) // rows, "max_steps": FOREVER, "max_length": None}
    trainer = RewardTrainer(
        model=f"{spec['folder']}/model",
        args=RewardConfig(learning_rate=1e-5, **settings),
        train_dataset=pairs,
        callbacks=[AtStepEnd(turns, len(pairs))],
    )
    trainer.train()


def dpo(spec: dict[str, Any], turns: Turns) -> None:
    """The same with a policy; the reference is computed before the first step, as on our side."""
    from trl import DPOConfig, DPOTrainer

    pairs, rows = pairs_of(spec), spec["shape"]["rows"]
    settings = fast(spec, rows) | {"gradient_accumulation_steps": len(pairs) // rows, "max_steps": FOREVER, "max_length": None}
    trainer = DPOTrainer(
        model=f"{spec['folder']}/model",
        args=DPOConfig(learning_rate=1e-6, beta=0.1, precompute_ref_log_probs=True, **settings),
        train_dataset=pairs,
        callbacks=[AtStepEnd(turns, len(pairs))],
    )
    trainer.train()


def group_rl(spec: dict[str, Any], turns: Turns) -> None:
    """K answers to each prompt, a reward that costs nothing, one update."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    shape, prompts = spec["shape"], json.loads(Path(spec["folder"], "prompts.json").read_text())
    drawn = shape["prompts"] * shape["k"]
    settings = fast(spec, shape["rows"]) | {"gradient_accumulation_steps": drawn // shape["rows"], "max_steps": FOREVER}
    trainer = GRPOTrainer(
        model=f"{spec['folder']}/model",
        reward_funcs=lambda completions, **rest: [float(len(set(text.split()))) for text in completions],
        args=GRPOConfig(
            learning_rate=1e-6,
            beta=shape["kl"],
            loss_type="grpo",
            num_generations=shape["k"],
            max_completion_length=shape["new_tokens"],
            **settings,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        callbacks=[AtStepEnd(turns, drawn)],
    )
    trainer.train()


def ppo(spec: dict[str, Any], turns: Turns) -> None:
    """Four networks: policy, reference, value, reward. Prompts come as tokens, which is how this trainer wants them."""
    from datasets import Dataset
    from trl import PPOConfig, PPOTrainer

    shape, folder = spec["shape"], spec["folder"]
    tokenizer = tokenizer_of(folder)
    prompts = Dataset.from_dict({"input_ids": tokenizer(json.loads(Path(folder, "prompts.json").read_text()))["input_ids"]})
    language = [AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32) for _ in range(2)]
    scalar = [AutoModelForSequenceClassification.from_pretrained(f"{folder}/reward", dtype=torch.float32) for _ in range(2)]
    drawn, rows = shape["prompts"], shape["rows"]
    trainer = PPOTrainer(
        args=PPOConfig(
            **fast(spec, rows) | {"gradient_accumulation_steps": drawn // rows},
            learning_rate=1e-6,
            num_ppo_epochs=shape["epochs"],
            num_mini_batches=1,
            local_rollout_forward_batch_size=drawn,
            response_length=shape["new_tokens"],
            temperature=1.0,
            total_episodes=FOREVER,
            num_sample_generations=0,
        ),
        processing_class=tokenizer,
        model=language[0],
        ref_model=language[1],
        reward_model=scalar[0],
        value_model=scalar[1],
        train_dataset=prompts,
        eval_dataset=prompts.select(range(1)),
        callbacks=[AtStepEnd(turns, drawn)],
    )
    trainer.train()


class EndsAt(LogitsProcessor):
    """Each row ends at its own length and not before."""

    def __init__(self, limits: list[int], prompt: int, eos: int):
        self.limits, self.prompt, self.eos = torch.tensor(limits), prompt, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ends = self.limits == input_ids.shape[1] - self.prompt + 1
        scores[:, self.eos] = -torch.inf
        scores[ends] = -torch.inf
        scores[ends, self.eos] = 0.0
        return scores


def sampling(spec: dict[str, Any], turns: Turns) -> None:
    """``generate``, from text to text; the tokens of the answers are counted up to their end."""
    shape, folder = spec["shape"], spec["folder"]
    tokenizer = tokenizer_of(folder)
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32).eval()
    prompts = json.loads(Path(folder, "prompts.json").read_text())
    limits, eos = spec["drawn"]["limits"], tokenizer.eos_token_id
    forced = [] if shape["lengths"] == "full" else [EndsAt(limits, shape["prompt"], eos)]
    while True:
        asked = tokenizer(prompts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            said = model.generate(
                **asked,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                num_return_sequences=shape["k"],
                max_new_tokens=shape["new_tokens"],
                logits_processor=forced,
            )[:, asked["input_ids"].shape[1] :]
        tokenizer.batch_decode(said, skip_special_tokens=True)
        ended = (said == eos).int().cumsum(1) - (said == eos).int()  # 0 up to and including the first EOS
        turns.done(int((ended == 0).sum()))


SIDES: dict[str, Callable[[dict[str, Any], Turns], None]] = {
    "reward": reward,
    "dpo": dpo,
    "group_rl": group_rl,
    "ppo": ppo,
    "sampling": sampling,
}
