"""How answers read: how much they surprise a reference model, and how much they repeat themselves.

    nll         nats a token costs the reference, at temperature 1; exp(nll) is the perplexity. High where no reference would
                say it, and far below what the reference's own answers cost where an answer goes round in circles
    distinct_1  different words as a share of the words of an answer, distinct_2 the same of pairs of neighbours (Li et al.
                2016, arXiv 1510.03055, who take all answers together: ``distinct`` does either)

All three depend on length, so they are compared between answers of like length, and length is reported beside them.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from prefloop.models.batch import Samples
from prefloop.models.evaluation import by_rows
from prefloop.models.heads import policy_logprobs
from prefloop.ops.logprobs import span_mask

WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")  # where a script has no spaces, a character is a word


def fluency(reference: nn.Module, samples: Samples, n_prompts: int) -> dict[str, list[float]]:
    """The figures above by name, one value per prompt: means over its answers."""
    texts = [completion.text for completion in samples.completions]
    figures = {"nll": surprise(reference, samples)}
    figures |= {f"distinct_{n}": [distinct([text], n) for text in texts] for n in (1, 2)}
    return {name: np.reshape(values, (n_prompts, -1)).mean(1).tolist() for name, values in figures.items()}


@torch.no_grad()
def surprise(reference: nn.Module, samples: Samples) -> list[float]:
    """Mean negative log-likelihood of the tokens of each answer, its end included."""
    is_response = span_mask(samples.prompt_length, samples.length, samples.tokens.shape[1])
    logprobs = by_rows(
        lambda tokens, wanted: policy_logprobs(reference, tokens, wanted, temperature=1.0),
        samples.tokens, samples.length, is_response,
    )  # fmt: skip
    return (-logprobs.sum(1) / is_response.sum(1).clamp(min=1)).tolist()


def distinct(texts: Sequence[str], n: int) -> float:
    """Different runs of ``n`` words as a share of all there are in the texts; 1 where there are none, so nothing is repeated."""
    runs = [run for text in texts for run in runs_of(text, n)]
    return len(set(runs)) / len(runs) if runs else 1.0


def runs_of(text: str, n: int) -> list[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
