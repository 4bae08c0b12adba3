"""Scorers for tests, named in configs as python:tests.evaluate.scorers:NAME."""

from collections.abc import Sequence

from prefloop.records import Completion, Prompt


def constant(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    return [1.0] * len(completions)


def words(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """How many words an answer has."""
    return [float(len(completion.text.split())) for completion in completions]


def fewer_words(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    return [-value for value in words(prompts, completions)]


def nothing(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    """What a model answers whose weights are no numbers."""
    return [float("nan")] * len(completions)


def fails(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
    raise LookupError("no such word")
