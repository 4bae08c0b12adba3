"""Projects: made from a schema, started, paused, ended; and their members."""

import re
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, or_, select, update

from prefloop.collect import practice
from prefloop.collect.access import Standing
from prefloop.collect.accounts import Principal, join
from prefloop.collect.identity import as_json, fingerprint, new_id, new_secret
from prefloop.collect.items import MAX_OVERLAP
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import TaskSchema, body_of
from prefloop.collect.tables import event, item, member, project, slot, tally, task_schema

STATES = ("draft", "active", "paused", "done", "archived")
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


def create(
    connection: Connection, *, slug: str, title: str, schema: TaskSchema, overlap: int = 1, user_id: str | None, now: int
) -> str:
    """A project in draft with the first version of its questions; its maker manages it. The id."""
    if not SLUG.fullmatch(slug):
        raise Refused(422, "bad_slug", f"a project is called by lower-case letters, digits and hyphens, not {slug[:60]!r}")
    if not 1 <= overlap <= MAX_OVERLAP:
        raise Refused(422, "bad_overlap", f"judgments wanted of an item: 1 to {MAX_OVERLAP}, got {overlap}")
    if connection.scalar(select(project.c.id).where(project.c.slug == slug)) is not None:
        raise Refused(409, "slug_taken", f"there is a project {slug!r} already")
    identity = new_id(now)
    row = {
        "id": identity, "slug": slug, "title": title.strip()[:200] or slug, "state": "draft", "overlap": overlap,
        "secret": fingerprint(new_secret()), "created_by": user_id, "created": now,
    }  # fmt: skip
    connection.execute(insert(project).values(row))
    add_schema(connection, project_id=identity, schema=schema, user_id=user_id, now=now)
    if user_id is not None:
        join(connection, project_id=identity, user_id=user_id, role="manager", now=now)
    return identity


def add_schema(connection: Connection, *, project_id: str, schema: TaskSchema, user_id: str | None, now: int) -> int:
    """Another version of the questions; judgments keep naming the version they answered. The same again is no new version."""
    connection.execute(select(project.c.id).where(project.c.id == project_id).with_for_update())
    body = body_of(schema)
    here = select(task_schema).where(task_schema.c.project_id == project_id).order_by(task_schema.c.version.desc()).limit(1)
    last = connection.execute(here).first()
    if last is not None and last.sha256 == fingerprint(body):
        return last.version
    version = last.version + 1 if last is not None else 1
    row = {
        "id": new_id(now), "project_id": project_id, "version": version, "body_json": body, "sha256": fingerprint(body),
        "created_by": user_id, "created": now,
    }  # fmt: skip
    connection.execute(insert(task_schema).values(row))
    return version


NAMED = select(project).where(or_(project.c.slug == bindparam("name"), project.c.id == bindparam("name")))
WITH_ROLE = (
    select(project, member.c.role)
    .select_from(project.outerjoin(member, and_(member.c.project_id == project.c.id, member.c.user_id == bindparam("user"))))
    .where(or_(project.c.slug == bindparam("name"), project.c.id == bindparam("name")))
)


def find(connection: Connection, name: str) -> Row[Any]:
    """A project by its slug or id."""
    found = connection.execute(NAMED, {"name": name}).first()
    if found is None:
        raise not_found("project")
    return found


def standing(connection: Connection, name: str, who: Principal) -> tuple[Row[Any], Standing]:
    """A project by its slug or id, and what somebody is in it."""
    found = connection.execute(WITH_ROLE, {"name": name, "user": who.user_id}).first()
    if found is None:
        raise not_found("project")
    return found, Standing("owner" if who.is_owner else found.role or "", who.scopes)


def set_state(connection: Connection, project_id: str, state: str, *, user_id: str | None, now: int) -> None:
    """Only an active project hands out work; submitting works in every state."""
    if state not in STATES:
        raise Refused(422, "bad_state", f"a project is {', '.join(STATES)}, not {state!r}")
    connection.execute(update(project).where(project.c.id == project_id).values(state=state))
    log(connection, project_id=project_id, user_id=user_id, action="state", detail={"state": state}, now=now)


def log(
    connection: Connection, *, project_id: str | None, user_id: str | None, action: str, detail: dict[str, Any], now: int
) -> None:
    """A line of the activity log."""
    row = {
        "id": new_id(now), "project_id": project_id, "user_id": user_id, "action": action, "detail_json": as_json(detail),
        "created": now,
    }  # fmt: skip
    connection.execute(insert(event).values(row))


def progress(connection: Connection, project_id: str) -> dict[str, int]:
    """Items, judgments wanted, and what has been done; planted ones are not counted. Sums over small tables and an index, never over bodies."""
    items = func.count(), func.coalesce(func.sum(item.c.n_slots), 0), func.coalesce(func.sum(item.c.n_done), 0)
    wanted = select(*items, func.coalesce(func.sum(item.c.n_surplus), 0)).where(
        item.c.project_id == project_id, item.c.status != "removed", item.c.kind == "normal"
    )
    n_items, n_wanted, n_done, n_surplus = connection.execute(wanted).one()
    leased = select(func.count()).select_from(slot).where(slot.c.project_id == project_id, slot.c.state == "leased")
    leased = leased.where(slot.c.item_id.not_in(practice.of_project(project_id)))
    skipped = select(func.coalesce(func.sum(tally.c.skipped), 0)).where(tally.c.project_id == project_id)
    return {
        "items": n_items, "wanted": n_wanted, "done": n_done, "surplus": n_surplus,
        "leased": connection.scalar(leased) or 0, "skipped": connection.scalar(skipped) or 0,
    }  # fmt: skip
