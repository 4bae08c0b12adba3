"""Scorers: text in, one number per answer out. Reward models, policies, rules, word lists, judges, functions, and sums of them.

A scorer sees text, never tokens, so the reward model may have another tokenizer than the policy: each renders and encodes
the conversation itself, the way it was trained to.
"""

import csv
import gzip
import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefloop.data.reward_spec import terms_of
from prefloop.data.rules import RULES_FILE, chance, penalty, read_rules, under
from prefloop.errors import ConfigError, DataError, PrefloopError, RunError
from prefloop.models.encode import Encoder, Template
from prefloop.models.evaluation import by_prompts
from prefloop.models.heads import at_rest, sequence_rewards, unwrapped
from prefloop.models.judge import JudgeScorer
from prefloop.models.load import context_length, load_policy, load_reward
from prefloop.models.parts import TOKENS_AT_ONCE, sizes
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.models.tokenizer import load_tokenizer, refuse_foreign_tokenizer
from prefloop.ops.preference import per_token
from prefloop.records import Completion, Group, Prompt

Scorer = Callable[[Sequence[Prompt], Sequence[Completion]], list[float]]

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # letters of any script, with apostrophes inside
WANTED = "a scorer gives one finite number per completion, in their order"
SPLIT = 0.5  # of the context for the prompt, where a reward model does not say what it was trained with


def load_scorer(
    spec: str,
    *,
    device: torch.device | str = "cpu",
    template: Template = "auto",
    batch_rows: int = 64,
    load: Callable[..., Any] | None = None,
) -> Scorer:
    """The scorer a config names. ``load(folder, device=...)`` reads a reward model's folder, ``load_reward`` where none is given.

    FOLDER[,FOLDER...]        a reward model, or several: their mean
    policy:FOLDER             a policy as a reward model: its log-probability per token of the answer (RRHF, equation 1)
    rules:FOLDER              minus the weighted chances that an answer breaks a rule (Sparrow), by a model of prefloop rules
    lexicon:FILE.csv[.gz]     the mean valence of the answer's words (columns token, mean); words it does not know count 0
    judge:FILE.yaml           marks of a language model behind an OpenAI-compatible server (models/judge.py)
    python:MODULE:FUNCTION    FUNCTION(prompts, completions) -> one number each
    world:LANGUAGE            the gold reward of the embedded world (en, zh): for measuring, never for training

    WEIGHT*SCORER + WEIGHT*SCORER is a weighted sum of any of them (``data/reward_spec.py``).

    Whatever it is, its scores are finite numbers, one for each completion, or RunError says which is not.
    """
    settings: dict[str, Any] = {"device": device, "template": template, "batch_rows": batch_rows}
    terms = terms_of(spec)
    scorers = [one_scorer(term.scorer, load or load_reward, **settings) for term in terms]
    return scorers[0] if terms[0].weight == 1 and len(terms) == 1 else weighted(scorers, [term.weight for term in terms])


def one_scorer(spec: str, load: Callable[..., Any], **settings: Any) -> Scorer:
    """One term of a spec."""
    kind, separator, name = spec.partition(":")
    plain = {"lexicon": lexicon_scorer, "python": python_scorer, "world": world_scorer, "judge": JudgeScorer}
    if separator and kind in plain:
        return checked(spec, plain[kind](name))
    if separator and kind == "policy":
        return policy_scorer(name, **settings)
    if separator and kind == "rules":
        return rules_scorer(name, **settings)
    folders = [folder.strip() for folder in spec.split(",")]
    if not all(folders):
        raise ConfigError(
            f"the reward {spec!r} names no model folder\n  give a folder, several joined by commas, policy:FOLDER, rules:FOLDER, lexicon:FILE, "
            f"judge:FILE, python:MODULE:FUNCTION or world:LANGUAGE"
        )
    return mean_of([folder_scorer(folder, load=load, **settings) for folder in folders])


def weighted(scorers: Sequence[Scorer], weights: Sequence[float]) -> Scorer:
    """The weighted sum."""

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        parts = [scorer(prompts, completions) for scorer in scorers]
        return [math.fsum(w * x for w, x in zip(weights, values, strict=True)) for values in zip(*parts, strict=True)]

    return score


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

    if isinstance(scorer, JudgeScorer):
        score.counts = scorer.counts  # type: ignore[attr-defined]
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


def folder_scorer(
    folder: str, *, device: torch.device | str, template: Template, batch_rows: int, load: Callable[..., Any]
) -> Scorer:
    """A reward model with its own tokenizer, template and limits."""
    model = load(folder, device=device)
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
    result = torch.zeros(len(rows), dtype=torch.double)
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    order = lengths.argsort(stable=True)
    with at_rest(model):
        for part in order.split(sizes(lengths[order], batch_rows, TOKENS_AT_ONCE)):
            tokens, length = encoder.text_batch([rows[i] for i in part.tolist()])
            result[part] = sequence_rewards(model, tokens.to(device), length.to(device)).cpu().double() - shift
    return result.tolist()


def mean_of(scorers: Sequence[Scorer]) -> Scorer:
    """The mean over an ensemble."""
    if len(scorers) == 1:
        return scorers[0]

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        members = [scorer(prompts, completions) for scorer in scorers]
        return [math.fsum(values) / len(values) for values in zip(*members, strict=True)]

    return score


# ------------------------------------------------------------------------------------------------ other models


def policy_scorer(folder: str, *, device: torch.device | str, template: Template, batch_rows: int) -> Scorer:
    """The log-probability per token of an answer, its end included, under a policy: what RRHF makes a reward of."""
    model = load_policy(folder, device=device).requires_grad_(False)
    encoder = encoder_of(model, folder, template)
    refuse_foreign_tokenizer(unwrapped(model), encoder.tokenizer)
    context = context_length(model)

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        if not completions:
            return []
        refuse_too_long(encoder.conversations(prompts, [completion.text for completion in completions]), prompts, context)
        pairs = groupby(zip(prompts, completions, strict=True), key=lambda pair: pair[0].id)  # answers of a prompt are neighbours
        groups = [list(pairs_of_one) for _, pairs_of_one in pairs]
        rows = [Group(prompt=of_one[0][0], completions=tuple(c for _, c in of_one)) for of_one in groups]
        candidates = encoder.candidates(rows)
        with at_rest(model):
            logprobs = by_prompts(lambda part: completion_logprobs(model, part).sum(2), candidates, model, rows=batch_rows)
        mean = per_token(logprobs.double(), candidates.completion_length)  # P K
        return mean[candidates.completion_length > 0].tolist()

    return checked(f"the policy {folder}", score)


def rules_scorer(folder: str, *, device: torch.device | str, template: Template, batch_rows: int) -> Scorer:
    """Minus the weighted chances that an answer breaks a rule (Sparrow, arXiv 2209.14375): 0 where it surely keeps them all."""
    model = load_reward(folder, device=device)
    rules = read_rules(Path(folder) / RULES_FILE)
    encoder = encoder_of(model, folder, template)
    name = f"the rule model {folder}"
    logit = {rule.id: one_model(model, encoder, batch_rows, name=name) for rule in rules}

    def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
        logits = [logit[rule.id]([under(rule, prompt) for prompt in prompts], completions) for rule in rules]
        return [-penalty([chance(x) for x in of_one], rules) for of_one in zip(*logits, strict=True)] if completions else []

    return checked(name, score)


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
