"""Which answers to a prompt mean the same: what a config may name, all behind one callable.

    words                    equal but for case, punctuation and spaces
    world:LANGUAGE           they say the same under the grammar of the embedded world: exact (``world/meaning.py``)
    embedding:MODEL          cosine of two embeddings at least ``threshold``; an embedding is the mean of the last hidden states
    nli:MODEL                each entails the other, as a classifier says that was trained on natural language inference
    uncontradicted:MODEL     looser: it calls neither way a contradiction
    python:MODULE:FUNCTION   FUNCTION(first, second) -> bool

A ``Meaning`` is given a prompt and the different answers to it and returns a relation of two of them, which
``stats/clusters.py`` clusters by. So a model sees all pairs of a prompt in batches, and may read the prompt before each
answer: "Yes." and "It does." mean the same only after some questions (Kuhn et al. 2023, arXiv 2302.09664, section 3.2).
"""

import pkgutil
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prefloop.errors import ConfigError, DataError
from prefloop.models.folder import UNREADABLE, first_line, kind_of, quiet, refuse_without_tokenizer, where_from
from prefloop.models.load import context_length, ready
from prefloop.records import Prompt
from prefloop.stats.clusters import Equivalence, bidirectional, looked_up, nearer_than, same_words, uncontradicted
from prefloop.world.meaning import same_content

Meaning = Callable[[Prompt, Sequence[str]], Equivalence]

KINDS = "words, world:LANGUAGE, embedding:MODEL, nli:MODEL, uncontradicted:MODEL or python:MODULE:FUNCTION"


def load_meaning(
    spec: str,
    *,
    threshold: float = 0.9,
    with_prompt: bool = True,
    device: torch.device | str = "cpu",
    batch_rows: int = 64,
) -> Meaning:
    """The relation a config names. ``threshold`` is of embeddings; ``with_prompt`` of embeddings and of entailment."""
    if spec == "words":
        return lambda prompt, texts: same_words
    kind, _, name = spec.partition(":")
    if kind == "python":
        function = named_function(name)
        return lambda prompt, texts: function
    if kind == "world":
        same = same_content(name)
        return lambda prompt, texts: same
    if kind == "embedding" and name:
        return by_embedding(name, threshold, with_prompt, device, batch_rows)
    if kind in ("nli", "uncontradicted") and name:
        return by_entailment(name, kind, with_prompt, device, batch_rows)
    raise ConfigError(f"same = {spec!r} is no equivalence of two texts\n  use {KINDS}")


def named_function(name: str) -> Equivalence:
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"same = 'python:{name}' names nothing that can be imported: {error}\n  write python:MODULE:FUNCTION"
        ) from None


def read_by(prompt: Prompt, texts: Sequence[str], with_prompt: bool) -> list[str]:
    """What a model is given to read for each text."""
    return [f"{prompt.text} {text}" for text in texts] if with_prompt else list(texts)


# ------------------------------------------------------------------------------------------------ entailment


def by_entailment(source: str, kind: str, with_prompt: bool, device: torch.device | str, batch_rows: int) -> Meaning:
    """Both directions of every pair of a prompt's answers, labelled by a classifier of pairs of texts."""
    model, tokenizer = loaded(AutoModelForSequenceClassification, source, device)
    labels = [str(model.config.id2label[i]).lower() for i in range(model.config.num_labels)]
    wanted = "entailment" if kind == "nli" else "contradiction"
    meant = [i for i, label in enumerate(labels) if wanted in label and not label.startswith(("not", "non"))]
    if len(meant) != 1:
        raise DataError(
            f"{source} labels pairs of texts {', '.join(labels)}; same = {kind} needs one label that is called {wanted}\n"
            f"  name a model of natural language inference, or write what its labels mean into id2label of its config.json"
        )

    def relation(prompt: Prompt, texts: Sequence[str]) -> Equivalence:
        read = read_by(prompt, texts, with_prompt)
        pairs = list(permutations(range(len(texts)), 2))
        chosen = label_of_pairs(model, tokenizer, [(read[i], read[j]) for i, j in pairs], batch_rows)
        table = np.eye(len(texts), dtype=bool) if kind == "nli" else np.zeros((len(texts), len(texts)), dtype=bool)
        for (i, j), label in zip(pairs, chosen, strict=True):
            table[i, j] = label == meant[0]
        says = looked_up(texts, table)
        if kind == "nli":
            return bidirectional(says)
        return uncontradicted(lambda first, second: "contradiction" if says(first, second) else "")

    return relation


@torch.no_grad()
def label_of_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], batch_rows: int
) -> list[int]:
    """The likeliest label of each pair: premise first, then hypothesis."""
    found: list[int] = []
    for start in range(0, len(pairs), batch_rows):
        part = pairs[start : start + batch_rows]
        found += model(**encoded(model, tokenizer, *map(list, zip(*part, strict=True)))).logits.argmax(-1).tolist()
    return found


# ------------------------------------------------------------------------------------------------ embeddings


def by_embedding(source: str, threshold: float, with_prompt: bool, device: torch.device | str, batch_rows: int) -> Meaning:
    """Mean-pooled hidden states; any model folder has some, one trained for similarity has good ones."""
    model, tokenizer = loaded(AutoModel, source, device)

    def relation(prompt: Prompt, texts: Sequence[str]) -> Equivalence:
        vectors = embeddings(model, tokenizer, read_by(prompt, texts, with_prompt), batch_rows)
        return nearer_than(dict(zip(texts, vectors.double().numpy(), strict=True)), threshold)

    return relation


@torch.no_grad()
def embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_rows: int) -> Tensor:
    """The mean of the last hidden states over the tokens of each text: B D."""
    parts = []
    for start in range(0, len(texts), batch_rows):
        batch = encoded(model, tokenizer, list(texts[start : start + batch_rows]))
        is_token = batch["attention_mask"][:, :, None]  # B T 1
        parts.append((model(**batch).last_hidden_state * is_token).sum(1) / is_token.sum(1))
    return torch.cat(parts).cpu()


# ------------------------------------------------------------------------------------------------ both


def loaded(cls: Any, source: str, device: torch.device | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that reads, and its tokenizer. Weights nobody made are refused, those of a pooler aside, which is not asked."""
    kind_of(source)
    refuse_without_tokenizer(source)
    quiet()
    try:
        with torch.random.fork_rng(devices=[]):  # weights that a folder lacks are drawn before we see that they are missing
            model, report = cls.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except UNREADABLE as error:
        raise DataError(f"the model {source} cannot be read\n  {first_line(error)}\n  {where_from(source)}") from None
    if lacking := sorted(key for key in report["missing_keys"] if not (cls is AutoModel and "pooler" in key)):
        raise DataError(
            f"{source} lacks weights that are needed here: {', '.join(lacking[:4])}\n  name a model that was trained for this"
        )
    if tokenizer.pad_token_id is None:
        raise DataError(f"the tokenizer of {source} has no padding token\n  set pad_token in tokenizer_config.json")
    return ready(model, device), tokenizer


def encoded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *texts: list[str]) -> dict[str, Tensor]:
    """Token rows on the model's device; one list of texts, or two of pairs. Nothing is cut in silence."""
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    longest, context = int(batch["attention_mask"].sum(1).max()), context_length(model)
    if context is not None and longest > context:
        raise DataError(
            f"two answers together are {longest} tokens long, and {model.config.name_or_path} reads {context}\n"
            f"  leave the prompt out (with_prompt=false), draw shorter answers, or name a model with a longer context"
        )
    return {name: rows.to(model.device) for name, rows in batch.items()}
