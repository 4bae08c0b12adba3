"""What somebody is told who has answered a practice item: how much of it was right, what was expected, and why.

It is in the letters of their own screen, as everything is that goes to an annotator.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from prefloop.collect.places import Said, order_said
from prefloop.collect.planted import gold_score
from prefloop.collect.queue import Turn
from prefloop.collect.rank_string import LETTERS
from prefloop.collect.schema import TaskSchema
from prefloop.collect.tables import judgment, planted

Json = dict[str, Any]


def feedback(connection: Connection, turn: Row[Any], schema: TaskSchema, answers: Json) -> Json | None:
    """{"score": 0 to 1, "expected": as planted.expectation has it, "why": text}; None of an item that is no practice."""
    here = and_(planted.c.item_id == turn.item_id, planted.c.kind == "practice")
    stored = connection.scalar(select(planted.c.expected_json).where(here))
    if stored is None:
        return None
    expected, shown = json.loads(stored), json.loads(turn.shown_json)
    why = expected.pop("why", "")
    order = order_said(schema, Said(answers, shown)) or ([], [])  # who gave no order has nothing right
    return {"score": gold_score(expected, order, shown), "expected": in_letters(expected, shown), "why": why}


def in_letters(expected: Mapping[str, Any], shown: list[str]) -> Json:
    """The completions of an expectation by their letters on a screen."""
    letter = dict(zip(shown, LETTERS, strict=False))

    def named(value: Any) -> Any:
        return letter[value] if isinstance(value, str) else [named(one) for one in value]

    return {key: named(value) for key, value in expected.items()}


def told_before(connection: Connection, turn: Turn) -> Json:
    """The same, of a turn that was submitted, as a part of its screen; nothing of any other."""
    mine = turn.assignment
    if mine.state != "submitted":
        return {}
    here = and_(judgment.c.assignment_id == mine.id, judgment.c.is_superseded.is_(False))
    said = connection.scalar(select(judgment.c.body_json).where(here))
    told = feedback(connection, mine, turn.schema, json.loads(said)) if said is not None else None
    return {} if told is None else {"feedback": told}
