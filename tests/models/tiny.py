"""Tiny random models of three architectures that share one tokenizer, sharp enough that greedy choices are no near-ties."""

from functools import cache

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from prefloop.models.encode import Encoder
from prefloop.models.tokenizer import train_tokenizer
from prefloop.records import Prompt

LINES = [
    "the cat sat on the mat",
    "a dog and a cat sat in the sun",
    "once upon a time there was a small red fox",
    "12 + 34 = 46",
    "the fox saw the cat and the cat saw the fox",
]
ARCHITECTURES = ("llama", "qwen2", "gpt2")
CONTEXT = 64


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(LINES, vocab_size=290)


def config(architecture: str, **settings):
    ids = tokenizer()
    special = {"pad_token_id": ids.pad_token_id, "bos_token_id": ids.bos_token_id, "eos_token_id": ids.eos_token_id}
    shared = {"vocab_size": len(ids), "initializer_range": 0.3, **special, **settings}
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    if architecture == "llama":
        return LlamaConfig(**sizes, max_position_embeddings=CONTEXT, tie_word_embeddings=True, **shared)
    if architecture == "qwen2":
        return Qwen2Config(**sizes, max_position_embeddings=CONTEXT, **shared)
    return GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, **shared)


def policy(architecture: str = "llama", *, seed: int = 0, **settings) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config(architecture, **settings)).eval()


def encoder(**settings) -> Encoder:
    return Encoder(tokenizer(), **settings)


def brief() -> Encoder:
    """An encoder for which every twelfth token ends an answer, so that random models end theirs at many lengths."""
    encode = encoder()
    encode.stops = sorted({*encode.stops, *range(10, len(tokenizer()), 12)})
    return encode


def prompts(n: int = 7) -> list[Prompt]:
    """Prompts of several lengths, two of them equally long."""
    return [Prompt.of(" ".join(["the", "cat", "sat", "and", "the", "fox", "saw"][: 1 + place % 6])) for place in range(n)]
