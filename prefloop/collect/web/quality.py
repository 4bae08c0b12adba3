"""The dashboard's routes: counts over time, agreement, annotators, bias; and the checks that are planted.

Panels are computed over the last judgments together and kept: until something was submitted since, or, where that takes long,
for a while after. They cost the same for a project of a hundred items and of a million.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, func, select

from prefloop.collect import planted, practice, projects
from prefloop.collect.identity import CROCKFORD
from prefloop.collect.panel_agreement import agreement_panel
from prefloop.collect.panel_annotators import annotators_panel
from prefloop.collect.panel_bias import bias_panel
from prefloop.collect.quality_settings import QualityConfig, quality_of, set_quality
from prefloop.collect.recent import JUDGMENTS, recent
from prefloop.collect.tables import item, judgment, slot, tally
from prefloop.collect.tables import planted as planted_table
from prefloop.collect.web import shapes
from prefloop.collect.web.service import service_of
from prefloop.collect.web.who import Here, in_project, in_project_of

router = APIRouter(tags=["quality"])
Viewer = Annotated[Here, Depends(in_project("view"))]
Reader = Annotated[Here, Depends(in_project("read"))]
Manager = Annotated[Here, Depends(in_project("manage"))]
OfItem = Annotated[Here, Depends(in_project_of("manage", "item"))]
HOUR, DAY = 3_600_000, 86_400_000
SLOW = 0.3  # seconds from which on a panel is kept although something was submitted since,
TIMES = 20  # for so many times what it took


class Kept(NamedTuple):
    """A panel, what had been done when it was computed, when, and how long it took."""

    value: Any
    done: tuple[int, ...]
    at: float
    cost: float


class Panels:
    """Of one server, in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.kept: dict[tuple[str, str], Kept] = {}
        self.lock = Lock()  # one is computed at a time

    def get(self, key: tuple[str, str], done: tuple[int, ...], compute: Callable[[], Any]) -> Any:
        with self.lock:
            found = self.kept.get(key)
            if found is not None and (found.done == done or (found.cost > SLOW and self.clock() - found.at < TIMES * found.cost)):
                return found.value
            began = self.clock()
            value = compute()
            self.kept[key] = Kept(value, done, self.clock(), self.clock() - began)
            return value


def panel(request: Request, here: Here, name: str, compute: Callable[[list[Any], QualityConfig], Any]) -> Any:
    service = service_of(request)
    panels: Panels = request.app.state.panels
    done = service.read(done_so_far, project_id=here.project.id, settings_json=here.project.settings_json)

    def work() -> Any:
        items = service.read(recent, project=here.project)
        computed = compute(items, quality_of(here.project.settings_json))
        return {"of_judgments": JUDGMENTS, "computed": service.database.clock(), **computed}

    return panels.get((here.project.id, name), done, work)


def done_so_far(connection: Connection, *, project_id: str, settings_json: str) -> tuple[int, ...]:
    """What changes when a panel would: submits, what was put aside, planted items, settings."""
    sums = [func.coalesce(func.sum(tally.c[name]), 0) for name in ("submitted", "surplus", "active_ms")]
    row = connection.execute(select(*sums).where(tally.c.project_id == project_id)).one()
    n = connection.scalar(select(func.count()).select_from(planted_table).where(planted_table.c.project_id == project_id))
    return (*map(int, row), int(n or 0), hash(settings_json))


@router.get("/projects/{project}/agreement")
def agreement(request: Request, here: Viewer) -> dict[str, Any]:
    """How far people agree, with intervals over items, and why where it cannot be said."""
    return panel(request, here, "agreement", lambda items, settings: agreement_panel(items))


@router.get("/projects/{project}/annotators")
def annotators(request: Request, here: Viewer) -> dict[str, Any]:
    """A row per annotator, by pseudonym."""
    return panel(request, here, "annotators", lambda items, settings: {"annotators": annotators_panel(items, settings)})


@router.get("/projects/{project}/bias")
def bias(request: Request, here: Viewer) -> dict[str, Any]:
    """What answers win by that is not their worth, and the board of sources."""
    return panel(request, here, "bias", lambda items, settings: bias_panel(items))


# --- counts over time -------------------------------------------------------------------------------------------------------


@router.get("/projects/{project}/timeline")
def timeline(request: Request, here: Viewer, hours: int = 48) -> dict[str, Any]:
    """Judgments by the hour, slots by state, and when it will be done at the pace of the hours in which anybody worked."""
    database = service_of(request).database
    hours = max(1, min(hours, 24 * 14))

    def look(connection: Connection) -> dict[str, Any]:
        now = database.clock()
        counted = by_hour(connection, here.project.id, since=(now // HOUR - hours + 1) * HOUR)
        counting = (slot.c.project_id == here.project.id, slot.c.item_id.not_in(practice.of_project(here.project.id)))
        states = select(slot.c.state, func.count()).where(*counting).group_by(slot.c.state)
        slots = {row[0]: row[1] for row in connection.execute(states)}
        left = projects.progress(connection, here.project.id)
        n_left = max(0, left["wanted"] - left["done"])
        first = now // HOUR - hours + 1
        rows = [{"hour": (first + i) * HOUR, "n": counted.get(first + i, 0)} for i in range(hours)]
        worked = [row["n"] for row in rows if row["n"]]
        pace = sum(worked) / len(worked) if worked else None
        eta = n_left / pace if pace else None
        expired = connection.scalar(select(func.count()).select_from(slot).where(
            *counting, slot.c.state == "leased", slot.c.lease_expires <= now))  # fmt: skip
        return {
            "hours": rows, "slots": {**slots, "expired": int(expired or 0)}, "left": n_left, "per_hour": pace, "hours_left": eta,
        }  # fmt: skip

    return service_of(request).read(look)


def by_hour(connection: Connection, project_id: str, *, since: int) -> dict[int, int]:
    """First revisions by the hour; ids begin with their time, so only what is young enough is read."""
    hour = judgment.c.created // HOUR
    here = (
        judgment.c.id >= oldest_id(since),
        judgment.c.project_id == project_id,
        judgment.c.rev == 1,
        judgment.c.created >= since,
        judgment.c.item_id.not_in(practice.of_project(project_id)),
    )
    rows = connection.execute(select(hour.label("hour"), func.count().label("n")).where(*here).group_by(hour))
    return {int(row.hour): int(row.n) for row in rows}


def oldest_id(ms: int) -> str:
    """The least ULID of a moment."""
    return "".join(CROCKFORD[(ms << 80 >> shift) & 31] for shift in range(125, -1, -5))


# --- settings and planted items ---------------------------------------------------------------------------------------------


@router.get("/projects/{project}/quality")
def get_quality(here: Reader) -> dict[str, Any]:
    """What is done beyond handing out the judgments that are wanted."""
    return quality_of(here.project.settings_json).model_dump()


@router.patch("/projects/{project}/quality")
def change_quality(request: Request, body: shapes.QualityChange, here: Manager) -> dict[str, Any]:
    """Change some of it."""
    given = {"project_id": here.project.id, "change": body.model_dump(exclude_none=True)}
    return service_of(request).write(set_quality, **given).model_dump()


@router.put("/items/{identity}/gold", status_code=204)
def make_gold(request: Request, identity: str, body: shapes.Gold, here: OfItem) -> None:
    """Say what is right about an item; from now on it checks annotators, or is practice, and waits in no queue."""
    service_of(request).write(planted.make_gold, item_id=identity, user_id=here.who.user_id, **body.model_dump())


@router.delete("/items/{identity}/gold", status_code=204)
def unmake_gold(request: Request, identity: str, here: OfItem) -> None:
    """An ordinary item again."""
    service_of(request).write(planted.unmake_gold, item_id=identity)


@router.post("/projects/{project}/checks", status_code=201)
def make_checks(request: Request, body: shapes.Checks, here: Manager) -> dict[str, Any]:
    """Make items that check attention: an answer to another prompt among the others, which must come last."""
    given = {"here": here.project, "n": body.n, "user_id": here.who.user_id}
    return {"made": service_of(request).write(planted.make_checks, **given)}


@router.get("/projects/{project}/planted")
def list_planted(request: Request, here: Manager) -> dict[str, Any]:
    """What checks annotators and what they practise with, by kind, with how often each was answered."""

    def look(connection: Connection) -> dict[str, Any]:
        joined = planted_table.join(item, item.c.id == planted_table.c.item_id)
        wanted = select(planted_table.c.kind, func.count().label("n"), func.sum(item.c.n_done).label("done")).select_from(joined)
        rows = connection.execute(wanted.where(planted_table.c.project_id == here.project.id).group_by(planted_table.c.kind))
        return {row.kind: {"items": row.n, "judgments": int(row.done or 0)} for row in rows}

    return service_of(request).read(look)
