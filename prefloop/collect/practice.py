"""Practice: items whose right answer is known, and told as soon as somebody has answered.

Whoever is new in a project has its practice items first, each once, in the order in which they were made. Nobody else gets
them, and what is said of them counts nowhere: in no export, no progress, no agreement, no figure about anybody.

A project's settings say whether it has any: a claim has read those anyway, and asks no more where they say no. A submit goes by
what kind of item it is about.
A slot of a practice item is somebody's or it is not there, so that it waits for nobody.
"""

import json
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, bindparam, case, exists, func, or_, select, text, update

from prefloop.collect.identity import as_json
from prefloop.collect.tables import assignment, item, planted, project

Json = dict[str, Any]
MOST_WORDS = 2000  # of why it is right


class Due(NamedTuple):
    """A practice item, and the turn at it that ran out, where there was one."""

    item_id: str
    again: str | None


@lru_cache(maxsize=256)
def has_practice(settings_json: str) -> bool:
    """Whether a project has practice items, by its settings."""
    return bool(json.loads(settings_json).get("practice"))


def of_project(project_id: Any) -> Select[Any]:
    """The ids of its practice items, to be left out of what is counted."""
    return select(planted.c.item_id).where(planted.c.project_id == project_id, planted.c.kind == "practice")


def is_practice(connection: Connection, item_id: str) -> bool:
    found = select(planted.c.item_id).where(planted.c.item_id == item_id, planted.c.kind == "practice")
    return connection.execute(found).first() is not None


# --- who gets which ---------------------------------------------------------------------------------------------------------

other, theirs = assignment.alias("other"), planted.alias("theirs")
HAS_BEGUN = exists().where(  # a turn at anything that is no practice
    other.c.user_id == bindparam("user"), other.c.project_id == bindparam("project"),
    ~exists().where(theirs.c.item_id == other.c.item_id, theirs.c.kind == "practice"),
)  # fmt: skip
WITH_MINE = planted.join(item, item.c.id == planted.c.item_id).outerjoin(
    assignment, and_(assignment.c.item_id == planted.c.item_id, assignment.c.user_id == bindparam("user"))
)
THERE = and_(
    planted.c.project_id == bindparam("project"), planted.c.kind == "practice", item.c.status == "active", ~HAS_BEGUN
)  # fmt: skip
IS_AHEAD = or_(assignment.c.id.is_(None), assignment.c.state == "expired")  # not what was skipped, reported or given back
NEXT = (
    select(planted.c.item_id, assignment.c.id)
    .select_from(WITH_MINE)
    .where(THERE, IS_AHEAD)
    .order_by(planted.c.created, planted.c.item_id)
    .limit(1)
)
N_AHEAD = func.sum(case((or_(IS_AHEAD, assignment.c.state == "leased"), 1), else_=0))
LEFT = select(func.count(), func.coalesce(N_AHEAD, 0)).select_from(WITH_MINE).where(THERE)


def next_for(connection: Connection, project_id: str, user_id: str) -> Due | None:
    """The next practice item of somebody who has done nothing else here yet."""
    row = connection.execute(NEXT, {"project": project_id, "user": user_id}).first()
    return None if row is None else Due(*row)


def ahead_of(connection: Connection, project_id: str, user_id: str) -> tuple[int, int]:
    """How many practice items somebody has before them, and of how many; none once they have begun with the rest."""
    n, left = connection.execute(LEFT, {"project": project_id, "user": user_id}).one()
    return int(left), int(n)


# --- an item becomes practice, or is it no more -----------------------------------------------------------------------------

TALLIED = text("""INSERT INTO tally (project_id, user_id, day, submitted, surplus, skipped, active_ms)
SELECT project_id, user_id, created / 86400000, :sign * count(*), :sign * sum(CASE WHEN is_surplus THEN 1 ELSE 0 END), 0,
       :sign * coalesce(sum(active_ms), 0)
FROM judgment WHERE item_id = :item AND rev = 1 GROUP BY project_id, user_id, created / 86400000
ON CONFLICT (project_id, user_id, day) DO UPDATE SET submitted = tally.submitted + excluded.submitted,
       surplus = tally.surplus + excluded.surplus, active_ms = tally.active_ms + excluded.active_ms""")


def changed(connection: Connection, project_id: str, item_id: str, *, was: bool, is_now: bool) -> None:
    """What follows: the item's judgments are no more among what people did, or are again; and the settings say how it is."""
    if was != is_now:
        connection.execute(TALLIED, {"item": item_id, "sign": -1 if is_now else 1})
    settings = json.loads(str(connection.scalar(select(project.c.settings_json).where(project.c.id == project_id))))
    has_any = connection.execute(of_project(project_id).limit(1)).first() is not None
    if has_any != bool(settings.pop("practice", False)):
        said = as_json({**settings, **({"practice": True} if has_any else {})})
        connection.execute(update(project).where(project.c.id == project_id).values(settings_json=said))


def moment_for(connection: Connection, project_id: str, now: int) -> int:
    """When another one is made: after all the others, which come before it."""
    here = and_(planted.c.project_id == project_id, planted.c.kind == "practice")
    last = connection.scalar(select(func.max(planted.c.created)).where(here))
    return max(now, (last or 0) + 1)
