"""Real shapes where CUDA is: a Llama of 1.2 billion parameters, bf16, random weights. ``make bench-gpu``.

    reward    K = 9 rankings, prompt 512, completions 128: one update of all weights
    ppo       a policy update with LoRA adapters, rank 16, on rows of 256 + 128 tokens
    sampling  64 to 512 rows, prompt 256, 128 new tokens

Training is shown as tokens/s and as a share of the matrix products this GPU does in bf16; decoding as tokens/s and as a share
of its copy bandwidth; both ceilings are measured first. No peer runs here. Aims: 50% of the one, 40% of the other.
Operations of training: 2 a weight and token forward, twice that backward (with adapters half of it: frozen weights need no
gradient of their own), and attention. Bytes of decoding: weights once a step, and the keys and values of every row.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from benchmarks.inputs import text, word_tokenizer
from benchmarks.machine import ROOT, commit
from prefloop.engine.learner import Learner, Term
from prefloop.methods.ppo import PPOConfig, of_rollouts
from prefloop.methods.reward import of_rankings
from prefloop.models.adapters import with_adapter
from prefloop.models.batch import RankedBatch, RolloutBatch
from prefloop.models.encode import Encoder
from prefloop.models.sampling import sample
from prefloop.ops.weights import token_mean
from prefloop.records import Prompt

LARGE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = {**LARGE, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip
LARGE_SHAPES = {
    "reward": {"prompts": 8, "k": 9, "prompt": 512, "completion": 128},
    "ppo": {"rows": 64, "prompt": 256, "new": 128},
    "sampling": {"rows": (64, 128, 256, 512), "prompt": 256, "new": 128},
}
SMALL_SHAPES = {
    "reward": {"prompts": 2, "k": 3, "prompt": 8, "completion": 4},
    "ppo": {"rows": 2, "prompt": 8, "new": 4},
    "sampling": {"rows": (2, 3), "prompt": 8, "new": 4},
}
REPEATS = 5


class Machine:
    """A device, its precision and its two ceilings."""

    def __init__(self, device: str, dtype: torch.dtype, *, side: int):
        self.device, self.dtype = device, dtype
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        self.flops = 2 * side**3 / self.seconds(lambda: a @ b)
        self.bandwidth = 2 * a.numel() * a.element_size() / self.seconds(a.clone)

    def seconds(self, work: Callable[[], Any], repeats: int = REPEATS) -> float:
        """The median of some runs after one that warms up."""
        taken = []
        for _ in range(1 + repeats):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            taken.append(time.perf_counter() - began)
        return sorted(taken[1:])[repeats // 2]

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def forget_peak(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 1e9 if self.device == "cuda" else None


def model_of(cls: type, config: LlamaConfig, machine: Machine) -> Any:
    """Random weights, drawn where they will live."""
    torch.manual_seed(0)
    with torch.device(machine.device):
        return cls(config).to(machine.dtype)


def weights_of(config: LlamaConfig, *, head: bool) -> int:
    """Weights a token is multiplied with."""
    width, heads = config.hidden_size, config.num_attention_heads
    own = 2 * width**2 + 2 * width**2 * config.num_key_value_heads // heads + 3 * width * config.intermediate_size
    return config.num_hidden_layers * own + (width * config.vocab_size if head else 0)


def attention_of(config: LlamaConfig, rows: list[int]) -> int:
    """Multiplications of causal attention over rows of these lengths, forward: scores and weighted values."""
    return sum(config.num_hidden_layers * 2 * config.hidden_size * length**2 // 2 for length in rows)


def reward(machine: Machine, config: LlamaConfig, shape: dict[str, Any]) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randint(4, config.vocab_size, size, generator=rng)  # noqa: E731
    prompts, k, prompt, completion = (shape[name] for name in ("prompts", "k", "prompt", "completion"))
    batch = RankedBatch(
        prompt=draw(prompts, prompt),
        prompt_length=torch.full((prompts,), prompt),
        completion=draw(prompts, k, completion),
        completion_length=torch.full((prompts, k), completion),
        tier=torch.arange(k).repeat(prompts, 1),
        is_candidate=torch.ones(prompts, k, dtype=torch.bool),
        weight=torch.ones(prompts),
    )
    model = model_of(LlamaForSequenceClassification, config, machine)
    learner = Learner(model, lr=1e-6, steps=10**6, micro_batch=1, device=machine.device)
    machine.forget_peak()
    seconds = machine.seconds(lambda: learner.step(Term(of_rankings, batch)))
    tokens = prompts * (prompt + k * completion)
    seen = prompts * k * [prompt + completion]  # an upper bound: the prompt's own part is shared
    operations = 3 * (2 * weights_of(config, head=False) * tokens + 2 * attention_of(config, seen))
    return {
        "pairs/s": prompts * k * (k - 1) / 2 / seconds, "tokens/s": tokens / seconds,
        "share_of_matmul": operations / seconds / machine.flops, "peak_gb": machine.peak_gb(),
    }  # fmt: skip


def ppo(machine: Machine, config: LlamaConfig, shape: dict[str, Any]) -> dict[str, Any]:
    rows, prompt, new = shape["rows"], shape["prompt"], shape["new"]
    length = prompt + new
    tokens = torch.randint(4, config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    is_response = (torch.arange(length) >= prompt).expand(rows, -1)
    nothing = torch.zeros(rows, length)
    weights = token_mean(is_response)
    batch = RolloutBatch(
        tokens, torch.full((rows,), length), is_response, nothing, nothing, nothing + 1, nothing, weights.token, weights.row
    )
    model = with_adapter(model_of(LlamaForCausalLM, config, machine), rank=16, alpha=16, seed=0).to(machine.device)
    learner = Learner(model, lr=1e-6, steps=10**6, micro_batch=max(1, rows // 8), device=machine.device)
    settings = PPOConfig(model="none", reward="none", prompts="none")
    machine.forget_peak()
    seconds = machine.seconds(lambda: learner.step(Term(lambda m, b: of_rollouts(m, b, config=settings), batch)))
    matrices = 2 * (weights_of(config, head=False) * rows * length + config.hidden_size * config.vocab_size * rows * new)
    operations = 2 * matrices + 3 * 2 * attention_of(config, rows * [length])
    return {
        "episodes/s": rows / seconds, "tokens/s": rows * length / seconds,
        "share_of_matmul": operations / seconds / machine.flops, "peak_gb": machine.peak_gb(),
    }  # fmt: skip


def sampling(machine: Machine, config: LlamaConfig, shape: dict[str, Any]) -> dict[str, Any]:
    rng, words = random.Random(0), [f"w{n}" for n in range(config.vocab_size - 4)]
    encoder = Encoder(word_tokenizer(config.vocab_size), template="plain")
    model = model_of(LlamaForCausalLM, config, machine).eval()
    size, prompt, new = torch.finfo(machine.dtype).bits // 8, shape["prompt"], shape["new"]
    column = 2 * config.num_hidden_layers * config.hidden_size * config.num_key_value_heads // config.num_attention_heads
    found = {}
    for rows in shape["rows"]:
        prompts = [Prompt.of(text(rng, words, prompt)) for _ in range(rows)]
        machine.forget_peak()
        draw = partial(sample, model, encoder, prompts, k=1, seed=0, batch_rows=rows)
        whole = machine.seconds(partial(draw, max_new_tokens=new), 3)
        first = machine.seconds(partial(draw, max_new_tokens=1), 3)  # reading the prompts, nearly
        moved = size * sum(weights_of(config, head=True) + rows * (prompt + n) * column for n in range(1, new))
        found[str(rows)] = {
            "tokens/s": rows * new / whole, "share_of_bandwidth": moved / (whole - first) / machine.bandwidth,
            "prefill_seconds": first, "peak_gb": machine.peak_gb(),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="in miniature and on the CPU, to see whether it works")
    asked = parser.parse_args()
    if not (asked.tiny or torch.cuda.is_available()):
        print("bench-gpu: this machine has no CUDA, so there is nothing to measure here; make bench runs on the CPU")
        return
    if asked.tiny:
        machine, settings, shapes = Machine("cpu", torch.float32, side=256), SMALL, SMALL_SHAPES
    else:
        machine, settings, shapes = Machine("cuda", torch.bfloat16, side=8192), LARGE, LARGE_SHAPES
    config = LlamaConfig(**settings, pad_token_id=0, bos_token_id=1, eos_token_id=2, num_labels=1)
    found: dict[str, Any] = {
        "device": "cpu" if asked.tiny else torch.cuda.get_device_name(),
        "matmul_tflops": machine.flops / 1e12,
        "copy_gb_s": machine.bandwidth / 1e9,
        "commit": commit(),
    }
    for name, part in {"reward": reward, "ppo": ppo, "sampling": sampling}.items():
        found[name] = part(machine, config, shapes[name])
        print(json.dumps({name: found[name]}, indent=1), flush=True)
        if machine.device == "cuda":
            torch.cuda.empty_cache()
    if not asked.tiny:
        (ROOT / "benchmarks" / "results" / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
