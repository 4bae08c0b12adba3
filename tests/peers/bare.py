"""TRL's trainers without models, data or files: their own loss code, fed with tensors.

A trainer is made without its constructor and given the attributes its loss reads. What it would compute with a model (the
log-probabilities of tokens, the answers, the rewards) is handed to it instead. TRL is imported inside: only its own environment has it.
"""

from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

WANTED = "1.16"
NO_GRADIENT_CHECKPOINTING = {"is_gradient_checkpointing": False}


def why_not() -> str:
    """What is missing for a comparison; empty where nothing is."""
    try:
        found = version("trl")
    except PackageNotFoundError:
        return "TRL is not installed here: make test-peers"
    is_wanted = found.startswith(f"{WANTED}.")
    return "" if is_wanted else f"these numbers are compared with TRL {WANTED}, here is {found}: make test-peers"


class OneProcess:
    """What the trainers ask of accelerate, for a single process."""

    device = torch.device("cpu")
    num_processes, process_index, is_main_process, sync_gradients = 1, 0, True, True

    def gather(self, value: Any) -> Any:
        return value

    gather_for_metrics = gather

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        return value


def bare(kind: type, **attributes: Any) -> Any:
    """A trainer of this kind that has these attributes and those every trainer's loss reads."""
    trainer = object.__new__(kind)
    model = SimpleNamespace(training=True, **NO_GRADIENT_CHECKPOINTING)
    args = SimpleNamespace(gradient_checkpointing_kwargs=None, **attributes.pop("args", {}))
    always = {
        "model": model,
        "args": args,
        "accelerator": OneProcess(),
        "aux_loss_enabled": False,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    vars(trainer).update({**always, **attributes})
    return trainer


def metrics_of(trainer: Any) -> dict[str, float]:
    return {name: values[-1] for name, values in trainer._metrics["train"].items()}


class Outputs(SimpleNamespace):
    """What TRL's models return with ``fused_lm_head``: only ``log_probs`` enters the losses, the rest is for logs."""

    def __init__(self, logprobs: Tensor):
        """``logprobs`` B T, of each token; the first column belongs to a token nothing predicts."""
        nothing = torch.zeros_like(logprobs[:, 1:].detach())
        super().__init__(log_probs=logprobs[:, 1:], entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def says(*answers: tuple[int, Tensor]) -> Callable[..., Outputs]:
    """A model that knows rows by their first token: (first token, log-probabilities B T of those rows)."""
    known = dict(answers)
    return lambda **inputs: Outputs(known[int(inputs["input_ids"][0, 0])])


def dpo(*, beta: float, loss: str, logprobs: Tensor, ref_logprobs: Tensor, is_answer: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Rows are the chosen answers, then the rejected ones: B T each."""
    from trl import DPOTrainer

    trainer = bare(
        DPOTrainer,
        beta=beta,
        loss_types=[loss],
        loss_weights=[1.0],
        label_smoothing=0.0,
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
        precompute_ref_logps=False,
        ref_model=says((1, ref_logprobs)),
    )
    tokens = torch.ones_like(is_answer, dtype=torch.long)
    inputs = {"input_ids": tokens, "attention_mask": tokens, "completion_mask": is_answer.long()}
    value = trainer._compute_loss(says((1, logprobs)), inputs, False)
    return value, metrics_of(trainer)


def kto(
    *,
    beta: float,
    desirable: float,
    undesirable: float,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    other_logprobs: Tensor,
    other_ref_logprobs: Tensor,
    is_answer: Tensor,
    is_desirable: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """The log-probabilities of answers, and of the same answers put to other prompts (``other``): B T each."""
    from trl import KTOTrainer

    trainer = bare(
        KTOTrainer,
        beta=beta,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
        loss_type="kto",
        calculate_KL=True,
        precompute_ref_logps=False,
        ref_model=says((1, ref_logprobs), (2, other_ref_logprobs)),
    )
    tokens = torch.ones_like(is_answer, dtype=torch.long)
    inputs = {"input_ids": tokens, "attention_mask": tokens, "completion_mask": is_answer.long(), "label": is_desirable}
    inputs |= {"KL_input_ids": 2 * tokens, "KL_attention_mask": tokens, "KL_completion_mask": is_answer.long()}
    value = trainer._compute_loss(says((1, logprobs), (2, other_logprobs)), inputs, False)
    return value, metrics_of(trainer)


def orpo(
    *, beta: float, logits: Tensor, chosen: dict[str, Tensor], rejected: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """``logits`` B T V of the chosen rows, then of the rejected ones; each side is input_ids, attention_mask and labels."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = bare(ORPOTrainer, beta=beta, is_encoder_decoder=False, padding_value=0)
    batch = {
        f"{side}_{name}": value for side, rows in (("chosen", chosen), ("rejected", rejected)) for name, value in rows.items()
    }
    return trainer.get_batch_loss_metrics(lambda *inputs, **named: SimpleNamespace(logits=logits), batch)


def cpo(*, beta: float, loss: str, margin: float, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, rewards of the chosen and rewards of the rejected from log-probabilities of answers: B each."""
    from trl.experimental.cpo import CPOTrainer

    trainer = bare(CPOTrainer, beta=beta, alpha=0.0, loss_type=loss, simpo_gamma=margin, label_smoothing=0.0)
    return trainer.cpo_loss(chosen, rejected)


def reward(*, scores: Tensor) -> tuple[Tensor, dict[str, float]]:
    """``scores`` of the chosen answers, then of the rejected ones: B."""
    from trl import RewardTrainer

    trainer = bare(RewardTrainer, args={"center_rewards_coefficient": None})
    inputs = {"attention_mask": torch.ones_like(scores)}
    value = trainer.compute_loss(lambda **inputs: SimpleNamespace(logits=scores[:, None]), inputs)
    return value, metrics_of(trainer)


def policy_update(
    kind: str,
    *,
    logprobs: Tensor,
    advantages: Tensor,
    is_answer: Tensor,
    old_logprobs: Tensor,
    clip_low: float,
    clip_high: float,
    **more: Any,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of GRPOTrainer or RLOOTrainer on answers: B T, with an advantage each: B."""
    import trl

    grpo_only = {
        "beta": more.get("kl", 0.0),
        "loss_type": more.get("loss"),
        "max_completion_length": more.get("length"),
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "use_vllm": False,
        "_entropy_bonus_enabled": False,
        "current_gradient_accumulation_steps": 1,
    }
    trainer = bare(
        getattr(trl, kind),
        args={"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1},
        epsilon_low=clip_low,
        epsilon_high=clip_high,
        _get_per_token_logps_and_entropies=lambda *inputs, **named: (logprobs, torch.zeros_like(logprobs.detach()), None),
        **grpo_only,
    )
    tokens = torch.ones_like(is_answer, dtype=torch.long)
    inputs = {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": tokens[:, :1],
        "completion_ids": tokens,
        "completion_mask": is_answer.long(),
        "advantages": advantages,
        "old_per_token_logps": old_logprobs,
        "old_logps": (old_logprobs * is_answer).sum(1),
        "ref_per_token_logps": more.get("ref_logprobs"),
        "num_items_in_batch": is_answer.sum(),
    }
    return trainer._compute_loss(trainer.model, inputs), metrics_of(trainer)


def advantages(
    kind: str, *, rewards: Tensor, lengths: list[int], old_logprobs: Tensor, ref_logprobs: Tensor, kl: float, scale: str = "group"
) -> Tensor:
    """What GRPOTrainer or RLOOTrainer makes of the rewards P K of answers of these lengths: P K."""
    import trl

    n, k = rewards.numel(), rewards.shape[1]
    texts, prompt_ids, answer_ids = ["an answer"] * n, [[1]] * n, [[1] * length for length in lengths]
    generated = {
        "GRPOTrainer": (prompt_ids, answer_ids, None, texts, None, {}, None, None),
        "RLOOTrainer": (prompt_ids, answer_ids, texts),
    }
    reference = SimpleNamespace(**NO_GRADIENT_CHECKPOINTING)
    trainer = bare(
        getattr(trl, kind),
        args={"per_device_train_batch_size": n, "gradient_accumulation_steps": 1, "steps_per_generation": 1},
        beta=kl,
        ref_model=reference,
        reward_weights=torch.ones(1),
        reward_funcs=[None],
        reward_func_names=["reward"],
        reward_clip_range=None,
        num_generations=k,
        num_iterations=1,
        normalize_advantages=False,
        scale_rewards=scale,
        multi_objective_aggregation="sum_then_normalize",
        environment_factories=None,
        environments=None,
        tools=None,
        use_vllm=False,
        mask_truncated_completions=False,
        pad_to_multiple_of=None,
        log_multimodal=False,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _pending_extra_logs={},
        _pending_metrics={},
        _logs={
            "rewards": defaultdict(list),
            "extra": defaultdict(list),
            **{name: [] for name in ("prompt", "completion", "advantages")},
        },
        _generate=lambda prompts: generated[kind],
        _calculate_rewards=lambda *inputs: rewards.reshape(n, 1),
        _get_per_token_logps_and_entropies=lambda model, *inputs, **named: (
            ref_logprobs if model is reference else old_logprobs,
            None,
            None,
        ),
    )
    return trainer._generate_and_score_completions([{"prompt": "a prompt"}] * n)["advantages"].view_as(rewards)
