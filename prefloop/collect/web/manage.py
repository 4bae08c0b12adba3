"""The manager's routes: projects, members, questions, items, reports, counts."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, func, select, update

from prefloop.collect import accounts, items, practice, projects
from prefloop.collect.accounts import Principal
from prefloop.collect.asked import current_schema
from prefloop.collect.identity import as_json, pseudonym
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import TaskSchema, read_schema, template, template_names
from prefloop.collect.tables import app_user, event, item, item_body, judgment, member, project, report, slot, tally, task_schema
from prefloop.collect.web import shapes
from prefloop.collect.web.service import service_of
from prefloop.collect.web.who import Anyone, Here, in_project, in_project_of, owner
from prefloop.errors import ConfigError

router = APIRouter(tags=["manage"])
Manager = Annotated[Here, Depends(in_project("manage"))]
Viewer = Annotated[Here, Depends(in_project("view"))]
Reader = Annotated[Here, Depends(in_project("read"))]
Owner = Annotated[Principal, Depends(owner)]
PAGE = 100


# --- projects ---------------------------------------------------------------------------------------------------------------


@router.get("/projects")
def list_projects(request: Request, who: Anyone) -> list[dict[str, Any]]:
    """The projects one belongs to; an owner sees all."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        columns = (project.c.id, project.c.slug, project.c.title, project.c.state, project.c.overlap)
        wanted = select(*columns).order_by(project.c.slug)
        if not who.is_owner:
            wanted = wanted.join(member, member.c.project_id == project.c.id).where(member.c.user_id == who.user_id)
        return [{**row._asdict(), "live": is_live(connection, row.id)} for row in connection.execute(wanted)]

    return service_of(request).read(look)


def is_live(connection: Connection, project_id: str) -> bool:
    """Whether its people chat, instead of judging what was imported."""
    return current_schema(connection, project_id)[1].live


@router.post("/projects", status_code=201)
def new_project(request: Request, body: shapes.NewProject, who: Owner) -> dict[str, Any]:
    """A project in draft, from a template or a schema of one's own."""
    if bool(body.template) == bool(body.schema_yaml):
        raise Refused(422, "bad_schema", "give either template or schema_yaml")
    schema = template(body.template) if body.template else read(body.schema_yaml)
    given = {"slug": body.slug, "title": body.title, "schema": schema, "overlap": body.overlap, "user_id": who.user_id}
    identity = service_of(request).write(projects.create, **given)
    return {"id": identity, "slug": body.slug}


def read(yaml: str) -> TaskSchema:
    try:
        return read_schema(yaml, where="the schema")
    except ConfigError as error:
        raise Refused(422, "bad_schema", str(error)) from None


@router.get("/projects/{project}")
def get_project(request: Request, here: Annotated[Here, Depends(in_project("see"))]) -> dict[str, Any]:
    """What somebody who works in it needs to know; ``practice``: how many such items they have before them, and of how many."""
    found, left, n = here.project, 0, 0
    if practice.has_practice(found.settings_json):
        given = {"project_id": found.id, "user_id": here.who.user_id}
        left, n = service_of(request).read(practice.ahead_of, **given)
    return {
        "id": found.id, "slug": found.slug, "title": found.title, "state": found.state, "overlap": found.overlap,
        "role": here.standing.role, "practice": {"left": left, "of": n},
    }  # fmt: skip


@router.patch("/projects/{project}", status_code=204)
def change_project(request: Request, body: shapes.ProjectChange, here: Manager) -> None:
    """Its title, or the judgments wanted of items that are still to come; those of an item are changed at the item."""
    change: dict[str, Any] = {name: value for name in ("title", "overlap") if (value := getattr(body, name)) is not None}
    if "overlap" in change and not 1 <= change["overlap"] <= items.MAX_OVERLAP:
        raise Refused(422, "bad_overlap", f"judgments wanted of an item: 1 to {items.MAX_OVERLAP}")
    if change:
        here_is = update(project).where(project.c.id == here.project.id).values(change)
        service_of(request).database.write(lambda connection: connection.execute(here_is))


@router.post("/projects/{project}/state", status_code=204)
def set_state(request: Request, body: shapes.ProjectState, here: Manager) -> None:
    """draft, active, paused, done or archived; only an active one hands out work."""
    given = {"project_id": here.project.id, "state": body.state, "user_id": here.who.user_id}
    service_of(request).write(projects.set_state, **given)


@router.get("/projects/{project}/members")
def members(request: Request, here: Manager) -> list[dict[str, Any]]:
    """Who is in it."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        joined = member.join(app_user, app_user.c.id == member.c.user_id)
        columns = (member.c.user_id, app_user.c.login, app_user.c.display, app_user.c.state, member.c.role)
        wanted = select(*columns).select_from(joined).where(member.c.project_id == here.project.id).order_by(app_user.c.login)
        return [row._asdict() for row in connection.execute(wanted)]

    return service_of(request).read(look)


@router.put("/projects/{project}/members/{identity}", status_code=204)
def set_member(request: Request, identity: str, body: shapes.Membership, here: Manager) -> None:
    """Give somebody who has an account a role; managers do so for members, owners for anybody."""

    def change(connection: Connection, now: int) -> None:
        known = select(member.c.user_id).where(member.c.project_id == here.project.id, member.c.user_id == identity)
        is_account = connection.scalar(select(app_user.c.id).where(app_user.c.id == identity)) is not None
        if not is_account or (here.standing.role != "owner" and connection.scalar(known) is None):
            raise not_found("member")
        accounts.join(connection, project_id=here.project.id, user_id=identity, role=body.role, now=now)
        detail = {"user": identity, "role": body.role}
        projects.log(connection, project_id=here.project.id, user_id=here.who.user_id, action="member", detail=detail, now=now)

    service_of(request).write(change)


@router.delete("/projects/{project}/members/{identity}", status_code=204)
def remove_member(request: Request, identity: str, here: Manager) -> None:
    """Take somebody out; what they judged stays."""
    given = {"project_id": here.project.id, "user_id": identity}
    service_of(request).database.write(lambda connection: accounts.leave(connection, **given))


# --- questions --------------------------------------------------------------------------------------------------------------


@router.get("/templates")
def templates(request: Request, who: Anyone) -> list[dict[str, Any]]:
    """The schemas that come with prefloop."""
    return [
        {"name": name, "title": (one := template(name)).title, "medium": one.medium, "live": one.live}
        for name in template_names()
    ]


@router.get("/templates/{name}")
def get_template(request: Request, name: str, who: Anyone) -> dict[str, Any]:
    """One of them."""
    if name not in template_names():
        raise not_found("template")
    return template(name).model_dump(mode="json")


@router.post("/schemas/validate")
def validate(request: Request, body: shapes.Yaml, who: Anyone) -> dict[str, Any]:
    """A schema as it would be stored, or what is wrong with it and where."""
    return read(body.yaml).model_dump(mode="json")


@router.get("/projects/{project}/schemas")
def schemas(request: Request, here: Reader) -> list[dict[str, Any]]:
    """Every version of a project's questions."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        wanted = select(task_schema).where(task_schema.c.project_id == here.project.id).order_by(task_schema.c.version)
        return [
            {"version": row.version, "schema": json.loads(row.body_json), "created": row.created}
            for row in connection.execute(wanted)
        ]

    return service_of(request).read(look)


@router.post("/projects/{project}/schemas", status_code=201)
def new_schema(request: Request, body: shapes.Yaml, here: Manager) -> dict[str, Any]:
    """Another version; turns that have begun are finished with the one they began with."""
    given = {"project_id": here.project.id, "schema": read(body.yaml), "user_id": here.who.user_id}
    return {"version": service_of(request).write(projects.add_schema, **given)}


# --- items ------------------------------------------------------------------------------------------------------------------


@router.get("/projects/{project}/items")
def list_items(request: Request, here: Reader, cursor: str = "", status: str = "", kind: str = "", q: str = "") -> dict[str, Any]:
    """Items in pages with the beginning of their prompts; ``q`` is looked for in prompts, word for word."""

    def look(connection: Connection) -> dict[str, Any]:
        columns = (
            item.c.id,
            item.c.ext_id,
            item.c.prompt_id,
            item.c.kind,
            item.c.status,
            item.c.priority,
            item.c.n_slots,
            item.c.n_done,
            item.c.n_surplus,
        )
        joined = item.join(item_body, item_body.c.item_id == item.c.id)
        wanted = select(*columns, item_body.c.prompt_json).select_from(joined).order_by(item.c.id).limit(PAGE)
        wanted = wanted.where(item.c.project_id == here.project.id, item.c.id > cursor)
        for column, value in ((item.c.status, status), (item.c.kind, kind)):
            wanted = wanted.where(column == value) if value else wanted
        if q:
            wanted = wanted.where(item_body.c.prompt_json.icontains(as_json(q)[1:-1], autoescape=True))
        rows = connection.execute(wanted).all()
        return {"items": [listed(row) for row in rows], "cursor": rows[-1].id if len(rows) == PAGE else None}

    return service_of(request).read(look)


def listed(row: Any) -> dict[str, Any]:
    found = row._asdict()
    found["prompt"] = json.loads(found.pop("prompt_json"))["messages"][-1]["content"][:200]
    return found


@router.post("/projects/{project}/items:bulk")
def change_items(request: Request, body: shapes.ItemsChange, here: Manager) -> dict[str, Any]:
    """The same change to several items; how many were changed. Ids of other projects are passed over."""

    def change(connection: Connection) -> int:
        known = select(item.c.id).where(item.c.project_id == here.project.id, item.c.id.in_(body.ids)).order_by(item.c.id)
        ids = list(connection.scalars(known))
        for identity in ids:
            change_one(connection, identity, body)
        return len(ids)

    return {"changed": service_of(request).database.write(change)}


@router.get("/items/{identity}")
def get_item(request: Request, identity: str, here: Annotated[Here, Depends(in_project_of("read", "item"))]) -> dict[str, Any]:
    """An item whole, sources included."""

    def look(connection: Connection) -> dict[str, Any]:
        one = connection.execute(select(item).where(item.c.id == identity)).one()
        body = connection.execute(select(item_body).where(item_body.c.item_id == identity)).one()
        slots = connection.execute(select(slot.c.state, func.count()).where(slot.c.item_id == identity).group_by(slot.c.state))
        return {
            "id": one.id, "project": here.project.slug, "status": one.status, "priority": one.priority,
            "prompt": json.loads(body.prompt_json), "completions": json.loads(body.completions_json),
            "slots": {row[0]: row[1] for row in slots},
        }  # fmt: skip

    return service_of(request).read(look)


@router.get("/items/{identity}/judgments")
def judgments(
    request: Request, identity: str, here: Annotated[Here, Depends(in_project_of("read", "item"))]
) -> list[dict[str, Any]]:
    """What was said of an item, by pseudonym, every revision."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        wanted = select(judgment).where(judgment.c.project_id == here.project.id, judgment.c.item_id == identity)
        return [
            {"judgment": row.id, "annotator": pseudonym(here.project.secret, row.user_id), "rev": row.rev,
             "answers": json.loads(row.body_json), "is_surplus": row.is_surplus, "is_superseded": row.is_superseded,
             "active_ms": row.active_ms, "created": row.created}
            for row in connection.execute(wanted.order_by(judgment.c.id))
        ]  # fmt: skip

    return service_of(request).read(look)


@router.patch("/items/{identity}", status_code=204)
def change_item(
    request: Request, identity: str, body: shapes.ItemChange, here: Annotated[Here, Depends(in_project_of("manage", "item"))]
) -> None:
    """Hold or free an item, put it first, want more or fewer judgments of it."""

    service_of(request).database.write(lambda connection: change_one(connection, identity, body))


def change_one(connection: Connection, identity: str, body: shapes.ItemChange) -> None:
    if body.overlap is not None:
        items.set_overlap(connection, identity, body.overlap)
    if body.priority is not None:
        items.set_priority(connection, identity, body.priority)
    if body.status is not None:
        items.set_status(connection, identity, body.status)


# --- reports, counts, what happened -----------------------------------------------------------------------------------------


@router.get("/projects/{project}/reports")
def reports(request: Request, here: Reader, cursor: str = "") -> dict[str, Any]:
    """Items that somebody found something wrong with, the latest first."""

    def look(connection: Connection) -> dict[str, Any]:
        wanted = select(report).where(report.c.project_id == here.project.id).order_by(report.c.id.desc()).limit(PAGE)
        rows = connection.execute(wanted.where(report.c.id < cursor) if cursor else wanted).all()
        listed = [
            {"id": row.id, "item": row.item_id, "reason": row.reason, "text": row.text, "state": row.state, "created": row.created,
             "annotator": pseudonym(here.project.secret, row.user_id) if row.user_id else None} for row in rows
        ]  # fmt: skip
        return {"reports": listed, "cursor": rows[-1].id if len(rows) == PAGE else None}

    return service_of(request).read(look)


@router.patch("/reports/{identity}", status_code=204)
def change_report(
    request: Request, identity: str, body: shapes.ReportChange, here: Annotated[Here, Depends(in_project_of("manage", "report"))]
) -> None:
    """What was done about one; the item itself is freed at the item."""
    change = update(report).where(report.c.id == identity).values(state=body.state)
    service_of(request).database.write(lambda connection: connection.execute(change))


@router.get("/projects/{project}/stats")
def stats(request: Request, here: Viewer) -> dict[str, Any]:
    """How far it is, and how much each annotator has done, by pseudonym."""

    def look(connection: Connection) -> dict[str, Any]:
        totals = [func.sum(tally.c[name]).label(name) for name in ("submitted", "surplus", "skipped", "active_ms")]
        by_user = select(tally.c.user_id, *totals).where(tally.c.project_id == here.project.id).group_by(tally.c.user_id)
        by_day = select(tally.c.day, func.sum(tally.c.submitted).label("submitted")).where(tally.c.project_id == here.project.id)
        annotators = [
            {"annotator": pseudonym(here.project.secret, row.user_id), "submitted": int(row.submitted), "surplus": int(row.surplus),
             "skipped": int(row.skipped), "active_ms": int(row.active_ms)} for row in connection.execute(by_user)
        ]  # fmt: skip
        days = connection.execute(by_day.group_by(tally.c.day).order_by(tally.c.day))
        return {
            "progress": projects.progress(connection, here.project.id),
            "annotators": sorted(annotators, key=lambda one: -one["submitted"]),
            "days": [{"day": row.day, "submitted": int(row.submitted)} for row in days],
        }

    return service_of(request).read(look)


@router.get("/projects/{project}/events")
def events(request: Request, here: Manager, cursor: str = "") -> dict[str, Any]:
    """What was done to a project, the latest first."""

    return service_of(request).read(happened, wanted=select(event).where(event.c.project_id == here.project.id), cursor=cursor)


@router.get("/events")
def all_events(request: Request, who: Owner, cursor: str = "") -> dict[str, Any]:
    """What was done to any project or account, the latest first."""
    return service_of(request).read(happened, wanted=select(event), cursor=cursor)


def happened(connection: Connection, *, wanted: Any, cursor: str) -> dict[str, Any]:
    """A page of events."""
    latest = wanted.order_by(event.c.id.desc()).limit(PAGE)
    rows = connection.execute(latest.where(event.c.id < cursor) if cursor else latest).all()
    listed = [
        {"id": row.id, "project": row.project_id, "user": row.user_id, "action": row.action, "object": row.object_id,
         "detail": json.loads(row.detail_json), "created": row.created} for row in rows
    ]  # fmt: skip
    return {"events": listed, "cursor": rows[-1].id if len(rows) == PAGE else None}
