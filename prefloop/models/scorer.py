"""Scorers: text in, one number per answer out. A reward model, an ensemble, a word list, any Python function.

A scorer sees text, never tokens, so the reward model may have another tokenizer than the policy: each renders and encodes
the conversation itself, the way it was trained to.
"""

import csv
import gzip
import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefloop.errors import ConfigError, DataError, PrefloopError, RunError
from prefloop.models.encode import Encoder, Template
from prefloop.models.heads import at_rest, sequence_rewards, unwrapped
from prefloop.models.load import context_length, load_reward
from prefloop.models.tokenizer import load_tokenizer, refuse_foreign_tokenizer
from prefloop.records import Completion, Prompt

Scorer = Callable[[Sequence[Prompt], Sequence[Completion]], list[float]]

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # letters of any script, with apostrophes inside
WANTED = "a scorer gives one finite number per completion, in their order"
SPLIT = 0.5  # of the context for the prompt, where a reward model does not say what it was trained with


def load_scorer(spec: str, *, device: torch.device | str = "cpu", template: Template = "auto", batch_rows: int = 64) -> Scorer:
    """The scorer a config names.

    FOLDER[,FOLDER...]        a reward model, or several: their mean
    lexicon:FILE.csv[.gz]     the mean valence of the answer's words (columns token, mean); words it does not know count 0
    python:MODULE:FUNCTION    FUNCTION(prompts, completions) -> one number each
    world:LANGUAGE            the gold reward of the embedded world (en, zh): for measuring, never for training

    Whatever it is, its scores are finite numbers, one for each completion, or RunError says which is not.
    """
    kind, separator, name = spec.partition(":")
    makers = {"lexicon": lexicon_scorer, "python": python_scorer, "world": world_scorer}
    if separator and kind in makers:
        return checked(spec, makers[kind](name))
    folders = [folder.strip() for folder in spec.split(",")]
    if not all(folders):
        raise ConfigError(
            f"the reward {spec!r} names no model folder\n  give a folder, several joined by commas, lexicon:FILE, python:MODULE:FUNCTION or world:LANGUAGE"
        )
    settings: dict[str, Any] = {"device": device, "template": template, "batch_rows": batch_rows}
    return mean_of([folder_scorer(folder, **settings) for folder in folders])


def checked(name: str, scorer: Callable[[Sequence[Prompt], Sequence[Completion]], Any]) -> Scorer:
    """The scorer, with its scores looked at before anybody relies on them."""

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        given = scorer(prompts, completions)
        if isinstance(given, str | bytes | dict | set) or not hasattr(given, "__iter__"):
            raise RunError(f"{name} returned a {type(given).__name__}\n  {WANTED}")
        scores = list(given)
        if len(scores) != len(completions):
            raise RunError(f"{name} returned {len(scores)} scores for {len(completions)} completions\n  {WANTED}")
        numbers = [finite(value) for value in scores]
        if None in numbers:
            first = numbers.index(None)
            prompt, answer = prompts[first], completions[first]
            raise RunError(
                f"{name} gave {numbers.count(None)} of {len(scores)} completions no finite number, the first of them {scores[first]!r:.60}\n"
                f"  prompt {prompt.id} begins {prompt.messages[0].content[:60]!r}, its answer {answer.text[:60]!r}\n"
                f"  {WANTED}; a model that does not was damaged, or broke while it was trained"
            )
        return [number for number in numbers if number is not None]

    return score


def finite(value: Any) -> float | None:
    """A score as a float, from Python or from a tensor or an array; None where it is no number one can reckon with."""
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# ------------------------------------------------------------------------------------------------ reward models


def folder_scorer(folder: str, *, device: torch.device | str, template: Template, batch_rows: int) -> Scorer:
    """A reward model with its own tokenizer, template and limits."""
    model = load_reward(folder, device=device)
    return one_model(model, encoder_of(model, folder, template), batch_rows, name=f"the reward model {folder}")


def encoder_of(model: nn.Module, folder: str, template: Template) -> Encoder:
    """The encoding a model was trained with; ``template`` other than auto must agree with what the model remembers."""
    tokenizer = load_tokenizer(folder)
    trained = getattr(unwrapped(model).config, "prefloop_encoding", None)
    if not trained:
        context = context_length(model) or 2048
        max_prompt = int(SPLIT * context)
        return Encoder(tokenizer, template=template, max_prompt=max_prompt, max_completion=context - max_prompt)
    if template not in ("auto", trained["template"]):
        raise ConfigError(
            f"template={template}, but the reward model {folder} was trained on text rendered with template {trained['template']!r}\n"
            f"  leave template=auto: every model then reads text as it was trained on"
        )
    return Encoder(tokenizer, **trained)


def reward_scorer(
    models: nn.Module | Sequence[nn.Module] | str | Path, encoder: Encoder | None = None, *, batch_rows: int = 64
) -> Scorer:
    """Scores of a reward model, minus its shift; of several models that share ``encoder``, the mean. A folder is loaded first.

    Rows of like length are computed together. A score does not depend on which rows those are, beyond rounding. Of an answer
    longer than the encoder's ``max_completion`` the beginning is scored, as in training; ``encoder.counts`` tells how many.
    """
    if isinstance(models, str | Path):
        model = load_reward(models)
        return reward_scorer(model, encoder or encoder_of(model, str(models), "auto"), batch_rows=batch_rows)
    if isinstance(models, nn.Module):
        return one_model(models, encoder, batch_rows)
    return mean_of([one_model(model, encoder, batch_rows) for model in models])


def one_model(model: nn.Module, encoder: Encoder | None, batch_rows: int, *, name: str = "the reward model") -> Scorer:
    if encoder is None:
        raise ConfigError("a reward model in memory needs the encoder it was trained with: reward_scorer(model, encoder)")
    refuse_foreign_tokenizer(unwrapped(model), encoder.tokenizer)
    context = context_length(model)

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        rows = encoder.conversations(prompts, [completion.text for completion in completions])
        refuse_too_long(rows, prompts, context)
        return rewards(model, encoder, rows, batch_rows)

    return checked(name, score)


def refuse_too_long(rows: Sequence[Sequence[int]], prompts: Sequence[Prompt], context: int | None) -> None:
    """A text the reward model cannot read whole is not scored on a part of it."""
    if context is None or not rows or max(map(len, rows)) <= context:
        return
    worst = max(range(len(rows)), key=lambda i: len(rows[i]))
    raise DataError(
        f"prompt {prompts[worst].id} with its answer is {len(rows[worst])} tokens long for the reward model, which reads {context}\n"
        f"  it begins: {prompts[worst].messages[0].content[:60]!r}\n"
        f"  leave such prompts out (max_prompt=), shorten the answers, or use a reward model with a longer context"
    )


def rewards(model: nn.Module, encoder: Encoder, rows: Sequence[Sequence[int]], batch_rows: int) -> list[float]:
    """The shifted scores of token rows, in their order, dropout off."""
    device = next(model.parameters()).device
    shift = float(getattr(unwrapped(model).config, "prefloop_reward_shift", 0.0))
    result = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with at_rest(model):
        for first in range(0, len(order), batch_rows):
            part = order[first : first + batch_rows]
            tokens, length = encoder.text_batch([rows[i] for i in part])
            score = sequence_rewards(model, tokens.to(device), length.to(device)).double() - shift
            for i, value in zip(part, score.tolist(), strict=True):
                result[i] = value
    return result


def mean_of(scorers: Sequence[Scorer]) -> Scorer:
    """The mean over an ensemble."""
    if len(scorers) == 1:
        return scorers[0]

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        members = [scorer(prompts, completions) for scorer in scorers]
        return [math.fsum(values) / len(values) for values in zip(*members, strict=True)]

    return score


# ------------------------------------------------------------------------------------------------ other scores


def lexicon_scorer(file: str) -> Scorer:
    """The mean valence of the answer's words by a table with columns token and mean (VADER's layout).

    Words are runs of letters, compared in lower case. Words the table does not know count 0, so length alone changes
    nothing, and an answer without words scores 0.
    """
    valence = read_lexicon(Path(file))

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        texts = [WORD.findall(completion.text.lower().replace("’", "'")) for completion in completions]
        return [math.fsum(valence.get(word, 0.0) for word in words) / max(1, len(words)) for words in texts]

    return score


def read_lexicon(path: Path) -> dict[str, float]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as file
        ):
            rows = list(csv.DictReader(file))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the lexicon {path} cannot be read: {error}\n  expected CSV (or .csv.gz) with the columns token and mean"
        ) from None
    if not rows or not {"token", "mean"} <= set(rows[0]):
        raise DataError(
            f"the lexicon {path} has the columns {', '.join(rows[0]) if rows else 'of an empty file'}\n  expected token and mean"
        )
    try:
        return {row["token"].lower(): float(row["mean"]) for row in rows}
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the lexicon {path} has a mean that is no number: {error}\n  every row needs a token and a number"
        ) from None


def python_scorer(name: str) -> Callable[[Sequence[Prompt], Sequence[Completion]], Any]:
    """A function of one's own: MODULE:FUNCTION, called with prompts and completions, one number each back."""
    try:
        found: Any = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"python:{name} cannot be found: {error}\n  write python:MODULE:FUNCTION; MODULE must be importable from here (PYTHONPATH)"
        ) from None
    except Exception as error:  # a module of somebody's own may fail in any way while it is read
        raise ConfigError(
            f"python:{name} cannot be imported, {type(error).__name__}: {error}\n  mend the module; --debug shows where it happened"
        ) from error
    if ":" not in name or not callable(found):
        raise ConfigError(f"python:{name} is {found!r}, no function\n  write python:MODULE:FUNCTION")
    function: Callable[..., Any] = found

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Any:
        try:
            given = function(prompts, completions)
            return list(given) if isinstance(given, Iterator) else given
        except PrefloopError:
            raise
        except Exception as error:  # a function of somebody's own may fail in any way
            raise RunError(
                f"python:{name} failed on {len(completions)} completions, {type(error).__name__}: {error}\n"
                f"  mend the function; --debug shows where it happened"
            ) from error

    return score


def world_scorer(language: str) -> Scorer:
    """The gold reward of the embedded world."""
    from prefloop.world import World

    return World(language=language or "en").gold_scorer()
