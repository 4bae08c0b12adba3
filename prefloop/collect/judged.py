"""Judgments as records, in a stream: one item after the other with everything said about it, in one snapshot of the database.

What is yielded is the JSON of records rather than records, because checking three hundred thousand of them anew takes longer
than writing them; a test reads the files back through the checks.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, exists, select

from prefloop.collect.identity import pseudonym
from prefloop.collect.schema import TaskSchema, schema_of
from prefloop.collect.tables import app_user, assignment, final, item, item_body, judgment, review, task_schema
from prefloop.records import content_id

CHUNK = 500  # items held at once
IS_DATA = item.c.kind.in_(("normal", "gold"))  # what was made to check annotators is none
Json = dict[str, Any]


class Judgment(NamedTuple):
    """One person's answers about one item."""

    id: str
    annotator: str
    answers: Json
    schema: TaskSchema
    version: int
    rev: int
    is_surplus: bool
    shown: tuple[str, ...]
    seconds: float | None
    at: str


class Judged(NamedTuple):
    """An item with what was said about it."""

    item_id: str
    group_id: str
    prompt: Json
    completions: list[Json]
    judgments: list[Judgment]

    def text(self, completion_id: str) -> str:
        """The words of an answer."""
        content = next(one["content"] for one in self.completions if one["id"] == completion_id)
        return content.get("text", "")


class Wanted(NamedTuple):
    """Which judgments; times are milliseconds."""

    project: Row[Any]
    since: int | None = None
    until: int | None = None
    annotators: frozenset[str] = frozenset()
    versions: frozenset[int] = frozenset()
    surplus: bool = True
    least: int = 1  # judgments an item must have
    final: bool = False  # what a reviewer decided in place of the judgments


def judged_items(connection: Connection, wanted: Wanted) -> Iterator[Judged]:
    """Every item of a project with its judgments, in the order in which they were added."""
    people = {row.id: row.speaks_as for row in connection.execute(select(app_user.c.id, app_user.c.speaks_as))}
    of_project = task_schema.c.project_id == wanted.project.id
    asked = {row.id: (schema_of(row.body_json), row.version) for row in connection.execute(select(task_schema).where(of_project))}
    last = ""
    joined = item.join(item_body, item_body.c.item_id == item.c.id)
    columns = (item.c.id, item.c.ext_id, item_body.c.prompt_json, item_body.c.completions_json)
    while True:
        here = and_(item.c.project_id == wanted.project.id, item.c.id > last, item.c.status != "removed", IS_DATA)
        rows = connection.execute(select(*columns).select_from(joined).where(here).order_by(item.c.id).limit(CHUNK)).all()
        if not rows:
            return
        first, last = rows[0].id, rows[-1].id
        said = said_about(connection, wanted, first, last)
        decided = decisions(connection, wanted, first, last) if wanted.final else {}
        for row in rows:
            judgments = [judgment_of(one, wanted, people, asked) for one in said.get(row.id, ())]
            kept = [one for one in judgments if is_wanted(one, wanted)]
            if len(kept) >= max(1, wanted.least):
                completions = json.loads(row.completions_json)
                if row.id in decided:
                    kept = [decision_of(decided[row.id], wanted, asked, tuple(one["id"] for one in completions))]
                yield Judged(row.id, row.ext_id, json.loads(row.prompt_json), completions, kept)


def decisions(connection: Connection, wanted: Wanted, first: str, last: str) -> dict[str, Row[Any]]:
    """What reviewers decided, of the items between two ids; where all judgments stand there is nothing to put in their place."""
    here = and_(final.c.project_id == wanted.project.id, final.c.item_id.between(first, last), final.c.method != "all")
    return {row.item_id: row for row in connection.execute(select(final).where(here))}


def decision_of(
    row: Row[Any], wanted: Wanted, asked: dict[str, tuple[TaskSchema, int]], completions: tuple[str, ...]
) -> Judgment:
    """A decision as a judgment: by the reviewer, of answers in the item's own order."""
    schema, version = asked[row.schema_id]
    return Judgment(
        id=row.item_id,
        annotator=pseudonym(wanted.project.secret, row.user_id),
        answers=json.loads(row.body_json),
        schema=schema,
        version=version,
        rev=1,
        is_surplus=False,
        shown=completions,
        seconds=None,
        at=moment(row.created),
    )


def moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def said_about(connection: Connection, wanted: Wanted, first: str, last: str) -> dict[str, list[Row[Any]]]:
    """The judgments that stand, of the items between two ids."""
    joined = judgment.join(assignment, assignment.c.id == judgment.c.assignment_id)
    between = judgment.c.item_id.between(first, last)
    here = and_(judgment.c.project_id == wanted.project.id, between, judgment.c.is_superseded.is_(False))
    here = and_(here, ~exists().where(review.c.judgment_id == judgment.c.id, review.c.verdict == "reject"))
    if not wanted.surplus:
        here = and_(here, judgment.c.is_surplus.is_(False))
    if wanted.since is not None:
        here = and_(here, judgment.c.created >= wanted.since)
    if wanted.until is not None:
        here = and_(here, judgment.c.created < wanted.until)
    rows = connection.execute(
        select(judgment, assignment.c.shown_json).select_from(joined).where(here).order_by(judgment.c.item_id, judgment.c.id)
    )
    return {item_id: list(group) for item_id, group in groupby(rows, key=lambda row: row.item_id)}


def judgment_of(row: Row[Any], wanted: Wanted, people: dict[str, str], asked: dict[str, tuple[TaskSchema, int]]) -> Judgment:
    schema, version = asked[row.schema_id]
    return Judgment(
        id=row.id,
        annotator=people.get(row.user_id) or pseudonym(wanted.project.secret, row.user_id),
        answers=json.loads(row.body_json),
        schema=schema,
        version=version,
        rev=row.rev,
        is_surplus=bool(row.is_surplus),
        shown=tuple(json.loads(row.shown_json)),
        seconds=None if row.active_ms is None else row.active_ms / 1000,
        at=moment(row.created),
    )


def is_wanted(one: Judgment, wanted: Wanted) -> bool:
    is_by = not wanted.annotators or one.annotator in wanted.annotators
    return is_by and (not wanted.versions or one.version in wanted.versions)


# --- records ----------------------------------------------------------------------------------------------------------------


def group_of(judged: Judged) -> Json:
    """A line of kway JSONL: the JSON of a ``records.Group``."""
    return {
        "format_version": 1,
        "prompt": judged.prompt,
        "completions": judged.completions,
        "rankings": [ranking for one in judged.judgments if (ranking := ranking_of(judged, one))],
        "ratings": [rating for one in judged.judgments for rating in ratings_of(one)],
    }


def order_in(one: Judgment) -> tuple[list[list[str]], list[str]] | None:
    """The tiers and the unusable of a judgment, whether all were ranked or one of two chosen; None where neither was asked."""
    for stage, question in one.schema.of_type("rank", "pair"):
        value = one.answers.get(stage.id, {}).get(question.id)
        if value is None:
            return None
        return (value["tiers"], value["unusable"]) if question.type == "rank" else order_of_choice(value["choice"], one.shown)
    return None


def order_of_choice(choice: str, shown: tuple[str, ...]) -> tuple[list[list[str]], list[str]]:
    if choice == "tie":
        return [list(shown)], []
    if choice == "both_bad":
        return [], list(shown)
    return [[choice], [other for other in shown if other != choice]], []


def ranking_of(judged: Judged, one: Judgment) -> Json | None:
    """The JSON of a ``records.Ranking``."""
    order = order_in(one)
    if order is None:
        return None
    tiers, unusable = order
    said = {
        "prompt_id": judged.prompt["id"], "tiers": tiers, "unusable": unusable, "shown": list(one.shown),
        "annotator": one.annotator, "seconds": one.seconds, "at": one.at, "supersedes": "",
    }  # fmt: skip
    return {"id": content_id(said), **said}


def ratings_of(one: Judgment) -> Iterator[Json]:
    """The JSON of a ``records.Rating`` for each point, number with two ends, flag, and strength of a choice."""
    for stage in one.schema.stages:
        given = one.answers.get(stage.id, {})
        for question in stage.questions:
            scale = scale_of(question)
            if scale is None:
                continue
            if question.type == "pair":
                yield from strengths(one, question, given.get(question.id), scale)
            elif stage.per == "completion":
                values = ((completion, given.get(completion, {}).get(question.id)) for completion in one.shown)
                yield from (
                    rating(one, completion, question.id, scale, value) for completion, value in values if value is not None
                )


def scale_of(question: Any) -> tuple[float, float] | None:
    """The ends of what a question is answered on."""
    if question.type == "likert" or (question.type == "number" and None not in (question.min, question.max)):
        return float(question.min), float(question.max)
    if question.type == "flag":
        return 0.0, 1.0
    return (1.0, float(question.strength)) if question.type == "pair" and question.strength else None


def strengths(one: Judgment, question: Any, value: Json | None, scale: tuple[float, float]) -> Iterator[Json]:
    if value and "strength" in value:
        yield rating(one, value["choice"], f"{question.id}.strength", scale, value["strength"])


def rating(one: Judgment, completion: str, question: str, scale: tuple[float, float], value: float) -> Json:
    said = {
        "completion_id": completion, "question": question, "scale": list(scale), "value": float(value),
        "annotator": one.annotator, "at": one.at, "supersedes": "",
    }  # fmt: skip
    return {"id": content_id(said), **said}
