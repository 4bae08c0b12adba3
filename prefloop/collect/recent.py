"""The items judged last, whole, as statistics take them: a bounded number, so that a panel costs the same for any project."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, exists, select

from prefloop.collect import practice
from prefloop.collect.identity import pseudonym
from prefloop.collect.places import Said, order_said, places
from prefloop.collect.schema import TaskSchema, schema_of
from prefloop.collect.tables import app_user, assignment, item, item_body, judgment, planted, review, task_schema

JUDGMENTS = 6000  # of how many of the last ones the items are taken
LOOKED_UP = 400  # ids in one question to the database
Json = dict[str, Any]


class Opinion(NamedTuple):
    """What one person said of an item. ``places`` is in the item's own order of completions; none where no order was given."""

    id: str
    annotator: str
    said: Said
    schema: TaskSchema
    version: int
    places: list[float] | None
    active_ms: int | None
    created: int
    is_surplus: bool


class Opined(NamedTuple):
    """An item with everything that stands of what was said of it."""

    item_id: str
    kind: str
    status: str
    prompt: Json
    completions: list[Json]
    opinions: list[Opinion]
    planted: Json | None  # what is expected, and of what it is a copy

    @property
    def names(self) -> list[str]:
        return [one["id"] for one in self.completions]

    @property
    def texts(self) -> list[str]:
        return [one["content"].get("text", "") for one in self.completions]

    @property
    def n_characters(self) -> int:
        """What there is to read."""
        return sum(map(len, self.texts)) + sum(len(message["content"]) for message in self.prompt["messages"])

    @property
    def orders(self) -> list[Opinion]:
        return [one for one in self.opinions if one.places is not None]


def recent(connection: Connection, project: Row[Any], *, n_judgments: int = JUDGMENTS) -> list[Opined]:
    """The items of the last judgments, those that check annotators included, practice not, each with all of its judgments."""
    here = and_(judgment.c.project_id == project.id, judgment.c.item_id.not_in(practice.of_project(project.id)))
    last = select(judgment.c.item_id).where(here).order_by(judgment.c.id.desc()).limit(n_judgments)
    return opined(connection, project, sorted(set(connection.scalars(last))))


def opined(connection: Connection, project: Row[Any], item_ids: Sequence[str]) -> list[Opined]:
    """Some items, by their ids."""
    people = {row.id: row.speaks_as for row in connection.execute(select(app_user.c.id, app_user.c.speaks_as))}
    of_project = task_schema.c.project_id == project.id
    asked = {row.id: (schema_of(row.body_json), row.version) for row in connection.execute(select(task_schema).where(of_project))}
    found = []
    for start in range(0, len(item_ids), LOOKED_UP):
        found += part(connection, project, item_ids[start : start + LOOKED_UP], people, asked)
    return found


def part(
    connection: Connection,
    project: Row[Any],
    ids: Sequence[str],
    people: dict[str, str],
    asked: dict[str, tuple[TaskSchema, int]],
) -> list[Opined]:
    joined = item.join(item_body, item_body.c.item_id == item.c.id).outerjoin(planted, planted.c.item_id == item.c.id)
    columns = (item.c.id, item.c.kind, item.c.status, item_body.c.prompt_json, item_body.c.completions_json)
    more = (planted.c.expected_json, planted.c.copy_of)
    here = and_(item.c.project_id == project.id, item.c.id.in_(ids))
    rows = connection.execute(select(*columns, *more).select_from(joined).where(here).order_by(item.c.id)).all()
    said = said_of(connection, project.id, ids)
    found = []
    for row in rows:
        completions = json.loads(row.completions_json)
        names = [one["id"] for one in completions]
        opinions = [opinion(one, project.secret, people, asked, names) for one in said.get(row.id, ())]
        check = None if row.expected_json is None else {"expected": json.loads(row.expected_json), "copy_of": row.copy_of}
        found.append(Opined(row.id, row.kind, row.status, json.loads(row.prompt_json), completions, opinions, check))
    return found


def said_of(connection: Connection, project_id: str, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """Judgments that stand: not corrected since, not rejected."""
    joined = judgment.join(assignment, assignment.c.id == judgment.c.assignment_id)
    is_rejected = exists().where(review.c.judgment_id == judgment.c.id, review.c.verdict == "reject")
    here = and_(
        judgment.c.project_id == project_id, judgment.c.item_id.in_(ids), judgment.c.is_superseded.is_(False), ~is_rejected
    )
    wanted = select(judgment, assignment.c.shown_json).select_from(joined).where(here)
    rows = connection.execute(wanted.order_by(judgment.c.item_id, judgment.c.id))
    return {item_id: list(group) for item_id, group in groupby(rows, key=lambda row: row.item_id)}


def opinion(
    row: Row[Any], secret: str, people: dict[str, str], asked: dict[str, tuple[TaskSchema, int]], names: list[str]
) -> Opinion:
    schema, version = asked[row.schema_id]
    said = Said(json.loads(row.body_json), json.loads(row.shown_json))
    order = order_said(schema, said)
    annotator = people.get(row.user_id) or pseudonym(secret, row.user_id)
    given = places(order, names) if order is not None else None
    return Opinion(row.id, annotator, said, schema, version, given, row.active_ms, row.created, bool(row.is_surplus))
