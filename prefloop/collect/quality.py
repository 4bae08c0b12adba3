"""How sure an item is, and what follows from it: more people are asked where those asked so far do not agree.

``after_submit`` runs in the transaction of a submit: once every judgment wanted of an item is in, it looks at how confident
their consensus is, and wants one more where that is too little (dynamic overlap, as in Toloka), up to ``overlap_max``.
"""

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from prefloop.collect import items
from prefloop.collect.places import Said, answers_about, order_said, places
from prefloop.collect.quality_settings import quality_of
from prefloop.collect.schema import TaskSchema, completion_ids, schema_of
from prefloop.collect.tables import assignment, item, item_body, judgment, slot, task_schema
from prefloop.stats.consensus import consensus

Json = dict[str, Any]


def confidence_of(schema: TaskSchema, said: Sequence[Said], completions: Sequence[str]) -> float:
    """From 0 to 1, how sure several judgments of one item are together: of their order, or else of their points and choices."""
    orders = [order for one in said if (order := order_said(schema, one)) is not None]
    if orders:
        return consensus([places(order, completions) for order in orders]).confidence
    return min(agreements(schema, said), default=1.0)


def agreements(schema: TaskSchema, said: Sequence[Said]) -> list[float]:
    """For each thing everybody is asked: how alike the answers are, pair by pair of people."""
    found = []
    for stage, question in schema.of_type("likert", "single", "flag", "number"):
        things = sorted({thing for one in said for thing in one.answers.get(stage.id, {})}) if stage.per == "completion" else [""]
        for thing in things:
            given = [answers_about(one, stage.id, thing).get(question.id) for one in said]
            if question.type == "flag":
                given = [bool(one) for one in given]
            pairs = list(combinations([one for one in given if one is not None], 2))
            if pairs:
                found.append(sum(alike(question, a, b) for a, b in pairs) / len(pairs))
    return found


def alike(question: Any, a: Any, b: Any) -> float:
    """1 for the same answer; on a scale with two ends, less by how far apart they are."""
    ends = (getattr(question, "min", None), getattr(question, "max", None))
    if question.type in ("likert", "number") and None not in ends and ends[0] < ends[1]:
        return 1 - abs(a - b) / (ends[1] - ends[0])
    return float(a == b)


# --- dynamic overlap --------------------------------------------------------------------------------------------------------


def after_submit(connection: Connection, item_id: str, settings_json: str) -> bool:
    """Want one more judgment of an item whose judgments do not agree; whether one was added."""
    if settings_json == "{}" or not (settings := quality_of(settings_json)).overlap_max:
        return False
    one = connection.execute(select(item).where(item.c.id == item_id)).one()
    if one.kind != "normal" or one.n_done < one.n_slots or one.n_slots >= settings.overlap_max:
        return False
    if confidence_in(connection, one.project_id, item_id) >= settings.confidence:
        return False
    last = connection.scalar(select(func.max(slot.c.slot_no)).where(slot.c.item_id == item_id)) or 0
    items.add_slots(connection, one, range(last + 1, last + 2))
    connection.execute(update(item).where(item.c.id == item_id).values(n_slots=item.c.n_slots + 1))
    return True


def confidence_in(connection: Connection, project_id: str, item_id: str) -> float:
    """How sure the judgments of an item that stand are, as the newest questions among them ask."""
    joined = judgment.join(assignment, assignment.c.id == judgment.c.assignment_id).join(
        task_schema, task_schema.c.id == judgment.c.schema_id
    )
    columns = (judgment.c.body_json, assignment.c.shown_json, task_schema.c.body_json.label("schema_json"), task_schema.c.version)
    here = and_(judgment.c.project_id == project_id, judgment.c.item_id == item_id, judgment.c.is_superseded.is_(False))
    rows = connection.execute(select(*columns).select_from(joined).where(here)).all()
    if not rows:
        return 0.0
    newest = max(rows, key=lambda row: row.version)
    said = [Said(json.loads(row.body_json), json.loads(row.shown_json)) for row in rows if row.version == newest.version]
    listed = str(connection.scalar(select(item_body.c.completions_json).where(item_body.c.item_id == item_id)))
    return confidence_of(schema_of(newest.schema_json), said, completion_ids(listed))
