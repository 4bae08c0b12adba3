"""The log of a project for those who look after it: what was done when, under the pseudonyms that people have in exports."""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, select

from prefloop.collect.identity import pseudonym
from prefloop.collect.judged import moment
from prefloop.collect.tables import app_user, event

BATCH = 1000  # events read at once


def events_of(connection: Connection, project: Row[Any], *, since: int | None, until: int | None) -> Iterator[dict[str, Any]]:
    """Every event, the oldest first. Whoever did it, or had it done to them, is called as in every other export."""
    names = {
        row.id: row.speaks_as or pseudonym(project.secret, row.id)
        for row in connection.execute(select(app_user.c.id, app_user.c.speaks_as))
    }
    wanted = select(event).where(event.c.project_id == project.id).order_by(event.c.id).limit(BATCH)
    if since is not None:
        wanted = wanted.where(event.c.created >= since)
    if until is not None:
        wanted = wanted.where(event.c.created < until)
    last = ""
    while rows := connection.execute(wanted.where(event.c.id > last)).all():
        last = rows[-1].id
        for row in rows:
            yield {
                "event": row.id, "at": moment(row.created), "who": named(row.user_id or "", names), "action": row.action,
                "object": named(row.object_id, names), "detail": named(json.loads(row.detail_json), names),
            }  # fmt: skip


def named(value: Any, names: dict[str, str]) -> Any:
    """A value in which every account's id is what the account is called."""
    if isinstance(value, dict):
        return {key: named(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [named(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value
