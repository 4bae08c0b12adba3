"""The model and the data of a case: random, a function of the seed, written once and read by both sides.

A word is a token, so that lengths are exact: ``w0 w17 w9`` are three tokens to every tokenizer built here, prefloop's and
the peers' alike. Answers end with EOS, which each side adds itself and which is counted in their length.
"""

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from math import log1p
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from benchmarks.cases import MODEL, THREADS, Case
from prefloop.data.write import write_groups, write_prompts
from prefloop.records import Completion, Group, Prompt, Ranking

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
TINY_MODEL = {**MODEL, "layers": 2, "width": 64, "heads": 4, "inner": 96, "vocabulary": 512}


def prepare(case: Case, folder: Path, *, model_shape: dict[str, int], threads: int = THREADS, seed: int = 0) -> Path:
    """Everything both sides read, in a folder made anew; returns the file that tells a worker all of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_models(folder, model_shape, seed)
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(model_shape["vocabulary"] - len(SPECIAL))]
    prompts = [Prompt.of(text(rng, words, case.shape["prompt"])) for _ in range(case.shape["prompts"])]
    write_prompts(folder / "prompts.jsonl", prompts)
    (folder / "prompts.json").write_text(json.dumps([prompt.text for prompt in prompts]))
    drawn: dict[str, object] = {}
    if case.kind in ("reward", "dpo"):
        lengths = completion_lengths(rng, case)
        drawn["completion_lengths"] = lengths
        groups = [ranked(rng, words, prompt, own) for prompt, own in zip(prompts, lengths, strict=True)]
        write_groups(folder / "rankings.jsonl", groups)
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for group in groups for pair in pairs(group)))
    if case.kind == "sampling":
        drawn["limits"] = answer_lengths(rng, case)
    spec = {**asdict(case), "folder": str(folder), "model_shape": model_shape, "threads": threads, "drawn": drawn}
    (folder / "spec.json").write_text(json.dumps(spec, indent=1))
    return folder / "spec.json"


def save_models(folder: Path, shape: dict[str, int], seed: int) -> None:
    """A random language model and a random reward model with their tokenizer, as plain Hugging Face folders."""
    disable_progress_bar()
    tokenizer = word_tokenizer(shape["vocabulary"])
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=shape["context"],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    shared = {name: value for name, value in config.to_dict().items() if name not in ("id2label", "label2id", "architectures")}
    reward_config = LlamaConfig(**shared, num_labels=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = {"model": LlamaForCausalLM(config), "reward": LlamaForSequenceClassification(reward_config)}
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """``size`` tokens: four special ones and the words w0, w1, ..."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(size - len(SPECIAL)))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def text(rng: random.Random, words: Sequence[str], length: int) -> str:
    return " ".join(rng.choices(words, k=length))


def completion_lengths(rng: random.Random, case: Case) -> list[list[int]]:
    """Tokens of every completion of every prompt, EOS included. Skewed: the reciprocal is uniform between the two ends."""
    low, high = case.shape["completion"]
    drawn = lambda: low if low == high else round(1 / rng.uniform(1 / high, 1 / low))  # noqa: E731
    return [[drawn() for _ in range(case.shape["k"])] for _ in range(case.shape["prompts"])]


def answer_lengths(rng: random.Random, case: Case) -> list[int]:
    """Tokens at which each sampled row ends, EOS included: all of them, or geometric with the given mean."""
    rows, longest = case.shape["prompts"] * case.shape["k"], case.shape["new_tokens"]
    if case.shape["lengths"] == "full":
        return [longest] * rows
    return [min(longest, 1 + int(rng.expovariate(1) / -log_survival(case.shape["mean"]))) for _ in range(rows)]


def log_survival(mean: float) -> float:
    """ln(1 - 1/mean): what a geometric length with that mean loses in each step."""
    return log1p(-1 / mean)


def ranked(rng: random.Random, words: Sequence[str], prompt: Prompt, lengths: Sequence[int]) -> Group:
    """A prompt with its completions in a random strict order."""
    completions = [Completion.of(prompt, text(rng, words, length - 1)) for length in lengths]
    order = rng.sample([completion.id for completion in completions], len(completions))
    tiers = tuple((completion,) for completion in order)
    ranking = Ranking(prompt_id=prompt.id, tiers=tiers, shown=tuple(order), annotator="sim:0")
    return Group(prompt=prompt, completions=tuple(completions), rankings=(ranking,))


def pairs(group: Group) -> list[dict[str, str]]:
    """Every ordered pair as peers want it; the space keeps the last word of the prompt and the first of the answer apart."""
    said = {completion.id: " " + completion.text for completion in group.completions}
    return [
        {"prompt": group.prompt.text, "chosen": said[better], "rejected": said[worse]}
        for better, worse in group.rankings[0].pairs()
    ]
