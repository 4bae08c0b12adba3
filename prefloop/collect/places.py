"""Judgments of one item as rows of numbers, which is what statistics work on."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from prefloop.collect.judged import order_of_choice
from prefloop.collect.schema import TaskSchema

Json = dict[str, Any]


class Said(NamedTuple):
    """One judgment's answers, and the order of the screen they were given on."""

    answers: Json
    shown: Sequence[str]


def order_said(schema: TaskSchema, said: Said) -> tuple[list[list[str]], list[str]] | None:
    """Tiers and unusable; None where no order is asked or given."""
    for stage, question in schema.of_type("rank", "pair"):
        value = said.answers.get(stage.id, {}).get(question.id)
        if value is None:
            return None
        if question.type == "rank":
            return value["tiers"], value["unusable"]
        return order_of_choice(value["choice"], tuple(said.shown))
    return None


def places(order: tuple[list[list[str]], list[str]], completions: Sequence[str]) -> list[float]:
    """The place of each completion, 0 the best; unusable ones share the last, NaN is not placed.  K"""
    tiers, unusable = order
    place = {one: float(number) for number, tier in enumerate([*tiers, unusable]) for one in tier}
    return [place.get(completion, math.nan) for completion in completions]


def answers_about(said: Said, stage: str, thing: str) -> Json:
    """What is said of one completion, or of the item as a whole (an empty name)."""
    given = said.answers.get(stage, {})
    return given.get(thing, {}) if thing else given
