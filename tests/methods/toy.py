"""ToyWorld on disk: a tokenizer, a small policy as a Hugging Face folder, and the exact table of its log-probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefloop.data.write import write_demonstrations, write_groups, write_prompts
from prefloop.models.heads import policy_logprobs
from prefloop.models.load import load_policy, save_model
from prefloop.models.tokenizer import new_llama
from prefloop.records import Completion, Prompt
from prefloop.world.toy import TOKENS, ToyAnnotator, ToyWorld

WORLD = ToyWorld()


def gold(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """What ``python:tests.methods.toy:gold`` names in a config."""
    return [WORLD.gold(prompt, completion.text) for prompt, completion in zip(prompts, completions, strict=True)]


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the world, separated by spaces."""
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(TOKENS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>", clean_up_tokenization_spaces=False
    )


def write_toy(folder: Path, *, seed: int = 0, n: int = 400) -> Path:
    """base/ (a random policy), prompts, demonstrations, corpus and annotated rankings."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = toy_tokenizer()
    policy = new_llama(tokenizer, width=32, layers=2, heads=2, kv_heads=2, context=32, seed=seed)
    save_model(policy, tokenizer, folder / "base", card={})
    write_prompts(folder / "prompts.jsonl", WORLD.prompts)
    write_demonstrations(folder / "demonstrations.jsonl", WORLD.demonstrations(n, seed=seed))
    (folder / "corpus.txt").write_text("\n".join(WORLD.corpus(n, seed=seed)) + "\n")
    groups = WORLD.groups(WORLD.demonstration_logprobs, n // 2, k=4, seed=seed)
    write_groups(folder / "rankings.jsonl", WORLD.annotated(groups, [ToyAnnotator()], seed=seed))
    return folder


@torch.no_grad()
def table(folder: Path | str) -> np.ndarray:
    """P N: the policy's exact log-probability of every answer to every prompt."""
    policy = load_policy(str(folder), device="cpu")
    n_prompt = WORLD.sequences(0)[0].shape[1] - WORLD.n_steps
    free = torch.from_numpy(np.pad(WORLD.is_free, ((0, 0), (n_prompt, 0))))  # N S+T, the last step can only be EOS
    rows = [
        policy_logprobs(policy, torch.from_numpy(WORLD.sequences(p)[0]), free, temperature=1.0) for p in range(len(WORLD.prompts))
    ]
    return torch.stack([row.double().sum(1) for row in rows]).numpy()
