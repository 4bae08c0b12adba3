"""Candidates: several answers to each prompt from any mix of sources, and their order by a scorer (RRHF, arXiv 2304.05302, table 1).

    draw            K answers drawn from the policy
    beam            the K of a beam search
    diverse_beam    the K of a diverse beam search with K groups
    server          K answers of somebody else's model (models/server.py)
    answers         what people or other models said, from files

The paper's sampling policies by name:

    BP    4 by beam search, and the data set's answers
    DP    4 by diverse beam search (4 groups, penalty 1, temperature 0.8), and the data set's answers
    D     the 4 of DP alone
    P     the data set's answers alone
    IP-n  n rounds, each with DP's candidates from the model the round before has made; IP-1 is DP
    OP-k  DP's candidates from the model in training, anew every k steps
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from torch import nn

from prefloop.data.read import read_groups
from prefloop.errors import ConfigError, DataError
from prefloop.models.beam import beam_search
from prefloop.models.encode import Encoder
from prefloop.models.sampling import sample
from prefloop.models.scorer import Scorer
from prefloop.records import Completion, Group, Prompt, Ranking

Decoding = Literal["draw", "beam", "diverse_beam"]

DIVERSE = {"decoding": "diverse_beam", "k": 4, "diversity": 1.0, "temperature": 0.8}
USUAL: dict[str, dict[str, Any]] = {
    "BP": {"decoding": "beam", "k": 4, "temperature": 1.0},
    "DP": DIVERSE,
    "D": DIVERSE,
    "P": {"k": 0},
    "IP": DIVERSE,
    "OP": DIVERSE,
}
WITH_ANSWERS = ("BP", "DP", "P", "IP", "OP")


class SamplingPolicy(NamedTuple):
    """A name of table 1, taken apart."""

    name: str
    number: int  # rounds of IP, steps of OP, else 1


def sampling_policy(written: str) -> SamplingPolicy:
    """BP, DP, D, P, IP-3 or OP-32."""
    found = re.fullmatch(r"(BP|DP|D|P)|(IP|OP)-([1-9]\d*)", written)
    if found is None:
        raise ConfigError(
            f"there is no sampling policy {written!r}\n  known: BP, DP, D, P, IP-n (n rounds) and OP-k (anew every k steps)"
        )
    return SamplingPolicy(found[1] or found[2], int(found[3] or 1))


class Drawn(NamedTuple):
    """Answers with what is known of each."""

    completions: tuple[Completion, ...]  # of one prompt adjacent
    n_tokens: tuple[int, ...]
    is_finished: tuple[bool, ...]


def draw_candidates(
    model: nn.Module,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    *,
    decoding: Decoding,
    k: int,
    max_new_tokens: int,
    seed: int,
    temperature: float,
    diversity: float,
    top_k: int = 0,
    top_p: float = 1.0,
    batch_rows: int = 256,
    source: str = "",
    progress: Callable[[list[Sequence[int]]], Iterable[Sequence[int]]] | None = None,
    compile: bool = False,
) -> Drawn:
    """K answers of a policy to every prompt; ``top_k``, ``top_p`` and ``compile`` are for drawing."""
    shared = {"max_new_tokens": max_new_tokens, "temperature": temperature, "batch_rows": batch_rows, "source": source}
    if decoding == "draw":
        own = {"k": k, "seed": seed, "top_k": top_k, "top_p": top_p, "compile": compile}
        samples = sample(model, encoder, prompts, progress=progress, **own, **shared)
        n_tokens = (samples.length - samples.prompt_length).tolist()
        return Drawn(samples.completions, tuple(n_tokens), tuple(samples.is_finished.tolist()))
    groups = k if decoding == "diverse_beam" else 1
    penalty = diversity if decoding == "diverse_beam" else 0.0
    found = beam_search(model, encoder, prompts, beams=k, groups=groups, diversity=penalty, progress=progress, **shared)
    return Drawn(found.completions, found.n_tokens, found.is_finished)


def read_answers(files: str) -> dict[str, list[Completion]]:
    """What people and other models said to each prompt, by its id; several files with commas."""
    found: dict[str, list[Completion]] = {}
    for file in filter(None, (name.strip() for name in files.split(","))):
        for group in read_groups(file, allow_unranked=True).records:
            found.setdefault(group.prompt.id, []).extend(group.completions)
    return found


def side_by_side(prompts: Sequence[Prompt], *sources: dict[str, list[Completion]], repeats: bool = False) -> list[Group]:
    """The answers of all sources to each prompt, source after source; a prompt nobody answered has no group.

    The very same text is kept once, because nobody can rank it against itself. With ``repeats`` it is kept as often as it was
    said, told apart by its source: "...#2" is the second.
    """
    groups = []
    for prompt in prompts:
        kept: list[Completion] = []
        for completion in (completion for source in sources for completion in source.get(prompt.id, ())):
            before = sum(other.text == completion.text for other in kept)
            if before and not repeats:
                continue
            kept.append(
                completion if not before else Completion.of(prompt, completion.text, source=f"{completion.source}#{before + 1}")
            )
        if kept:
            groups.append(Group(prompt=prompt, completions=tuple(kept)))
    return groups


def by_prompt(completions: Sequence[Completion]) -> dict[str, list[Completion]]:
    found: dict[str, list[Completion]] = {}
    for completion in completions:
        found.setdefault(completion.prompt_id, []).append(completion)
    return found


def refuse_without_answers(prompts: Sequence[Prompt], answers: dict[str, list[Completion]], files: str) -> None:
    """DataError where the files answer none of the prompts."""
    if answers and any(prompt.id in answers for prompt in prompts):
        return
    raise DataError(
        f"answers = {files} answers none of the {len(prompts)} prompts\n"
        f"  prompts are the same where every turn is; name the file the prompts come from, or leave answers out"
    )


def ordered(groups: Sequence[Group], scores: Sequence[Sequence[float]], annotator: str) -> list[Group]:
    """Each group with one ranking, best score first, equal scores in one place."""
    ranked = []
    for group, values in zip(groups, scores, strict=True):
        score = dict(zip((completion.id for completion in group.completions), values, strict=True))
        tiers = tuple(tuple(c for c in score if score[c] == mark) for mark in sorted(set(score.values()), reverse=True))
        ranking = Ranking(prompt_id=group.prompt.id, tiers=tiers, shown=tuple(score), annotator=annotator)
        ranked.append(group.model_copy(update={"rankings": (ranking,)}))
    return ranked


def scored(groups: Sequence[Group], scorer: Scorer) -> list[list[float]]:
    """The scorer's score of every completion of every group."""
    prompts = [group.prompt for group in groups for _ in group.completions]
    flat = iter(scorer(prompts, [completion for group in groups for completion in group.completions]))
    return [[next(flat) for _ in group.completions] for group in groups]
