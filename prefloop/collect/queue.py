"""Who works on what next. A slot is a row, so that an item cannot be given to more people than judgments are wanted of it.

A claim is one transaction: return the turn a person already holds, else take the next open slot of an item this person has
not had. People walk down the queue of a priority (in ``shuffle_key`` order, so that items are finished early), each with a
cursor, because passing over what one has done already is what makes the plain query slow for those who have done much. At the
end of the queue they look once more at all of it; from then on only at slots that were opened again since.

Expiry is part of every claim: a lease that has run out is an open slot, whatever the sweeping has come to.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, and_, bindparam, exists, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from prefloop.collect import consent, planted
from prefloop.collect.asked import no_schema
from prefloop.collect.identity import as_json, new_id
from prefloop.collect.order import shown
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import TaskSchema, completion_ids, schema_of
from prefloop.collect.tables import (
    assignment,
    claim_cursor,
    draft,
    item,
    item_body,
    member,
    project,
    slot,
    task_schema,
)
from prefloop.collect.together import Change, at_once

# Word for word the conditions of the partial indexes: a bound value would hide from SQLite that they apply.
IS_OPEN, IS_LEASED = text("slot.state = 'open'"), text("slot.state = 'leased'")
IS_LIVE = text("assignment.state IN ('leased', 'expired', 'recalled')")

MINUTE = 60_000
SWEPT = 50  # leases reopened in one go
TRIED = 8  # turns let go of that a claim tries to get back
LAST = 2**63 - 1


class Nothing(NamedTuple):
    """Why there is nothing to do: paused, empty, done, yours_done, leased (until), held_enough; or busy: ask again at once."""

    reason: str
    until: int | None = None


class Draft(NamedTuple):
    """What is typed so far."""

    rev: int
    body_json: str


class Turn(NamedTuple):
    """An assignment with everything its screen needs."""

    assignment: Row[Any]
    prompt_json: str
    completions_json: str
    schema: TaskSchema
    schema_version: int
    draft: Draft | None
    project: str  # its slug
    secret: str  # of the project: signs addresses of files


class Queue(NamedTuple):
    """One person before one project's queue."""

    connection: Connection
    project: Row[Any]
    user_id: str
    now: int
    schema_id: str
    schema: TaskSchema
    expired: list[str]  # turns whose lease ran out, at items that still want a judgment
    places: list[Change]  # in the queue, to be remembered with the turn
    locked: list[int]  # priorities at which something was passed over because another claim had its hands on it


VERSIONS = task_schema.alias("versions")
NEWEST = select(func.max(VERSIONS.c.version)).where(VERSIONS.c.project_id == project.c.id).correlate(project).scalar_subquery()
LAPSES = select(func.min(slot.c.lease_expires)).where(IS_LEASED).scalar_subquery()
MEMBERSHIP = (  # locked, so that one person claims once at a time
    select(
        project,
        member.c.role,
        task_schema.c.id.label("schema_id"),
        task_schema.c.body_json.label("schema_json"),
        LAPSES.label("lapses"),
    )
    .select_from(
        member.join(project, project.c.id == member.c.project_id).outerjoin(
            task_schema, and_(task_schema.c.project_id == project.c.id, task_schema.c.version == NEWEST)
        )
    )
    .where(member.c.project_id == bindparam("project"), member.c.user_id == bindparam("user"))
    .with_for_update(of=member)
)
IS_WANTED = exists().where(slot.c.item_id == assignment.c.item_id, text("slot.state = 'open'"))
HELD = (
    select(assignment.c.id, assignment.c.state)
    .where(assignment.c.user_id == bindparam("user"), assignment.c.project_id == bindparam("project"), IS_LIVE)
    .where(
        or_(
            and_(text("assignment.state <> 'expired'"), assignment.c.lease_expires > bindparam("now")),
            and_(text("assignment.state = 'expired'"), IS_WANTED),
        )
    )
    .order_by(assignment.c.leased_at, assignment.c.id)
)
WHOLE = (
    select(
        assignment,
        item_body.c.prompt_json,
        item_body.c.completions_json,
        task_schema.c.body_json.label("schema_json"),
        task_schema.c.version,
        draft.c.rev,
        draft.c.body_json.label("draft_json"),
        project.c.slug,
        project.c.secret,
    )
    .select_from(
        assignment.join(item_body, item_body.c.item_id == assignment.c.item_id)
        .join(task_schema, task_schema.c.id == assignment.c.schema_id)
        .join(project, project.c.id == assignment.c.project_id)
        .outerjoin(draft, draft.c.assignment_id == assignment.c.id)
    )
    .where(assignment.c.id == bindparam("turn"))
)

# Statements are made once: to make one takes several times as long as SQLite takes to run it.
LISTED = select(item_body.c.completions_json).where(item_body.c.item_id == bindparam("item"))
NEW_TURN = insert(assignment)
OCCUPIED = update(slot).where(
    slot.c.item_id == bindparam("item"), slot.c.slot_no == bindparam("number"), text("slot.state IN ('open', 'hold')")
)
LAPSED = (  # with their turns, which others lock first: whoever has one in hand now is not waited for
    select(slot.c.item_id, slot.c.slot_no, slot.c.assignment_id, slot.c.project_id)
    .select_from(slot.join(assignment, assignment.c.id == slot.c.assignment_id))
    .where(IS_LEASED, slot.c.lease_expires <= bindparam("now"))
    .order_by(slot.c.lease_expires)
    .limit(SWEPT)
    .with_for_update(of=[slot, assignment], skip_locked=True)
)
RELEASED = (
    select(assignment.c.id)
    .where(assignment.c.user_id == bindparam("user"), assignment.c.project_id == bindparam("project"))
    .where(assignment.c.state == "released", IS_WANTED)
    .order_by(assignment.c.leased_at)
    .limit(TRIED)
)


def claim(connection: Connection, *, project_id: str, user_id: str, now: int, beside: Sequence[str] = ()) -> Turn | Nothing:
    """The turn a person holds, or a new one. ``beside`` names turns already on the client: the next is to be another."""
    whose = {"project": project_id, "user": user_id}
    current = connection.execute(MEMBERSHIP, whose).first()
    if current is not None and current.lapses is not None and current.lapses <= now:
        sweep(connection, now)
        current = connection.execute(MEMBERSHIP, whose).first()  # whose count of reopened slots says where to look again
    if current is None:
        raise Refused(403, "not_a_member", "only members of a project can work in it")
    if current.schema_id is None:
        raise no_schema()
    schema = schema_of(current.schema_json)
    consent.refuse_without(connection, project_id=project_id, user_id=user_id, schema=schema)
    found = connection.execute(HELD, {**whose, "now": now}).all()
    held = [one.id for one in found if one.state != "expired"]
    for one in held:
        if one not in beside:
            return turn_of(connection, one)
    if current.state != "active":
        return Nothing("paused")
    if len(held) > schema.lease.prefetch:
        return Nothing("held_enough")
    expired = [one.id for one in found if one.state == "expired"]
    queue = Queue(connection, current, user_id, now, current.schema_id, schema, expired, [], [])
    mine = regained(queue, queue.expired) or planted_turn(queue) or taken_from_queue(queue) or regained(queue, released(queue))
    if mine is not None:
        return turn_of(connection, mine)
    return Nothing("busy") if queue.locked else why_empty(connection, project_id, now)


def turn_of(connection: Connection, assignment_id: str) -> Turn:
    """An assignment with its item, questions and draft."""
    row = connection.execute(WHOLE, {"turn": assignment_id}).one()
    typed = Draft(row.rev, row.draft_json) if row.rev is not None else None
    return Turn(row, row.prompt_json, row.completions_json, schema_of(row.schema_json), row.version, typed, row.slug, row.secret)


# --- the queue --------------------------------------------------------------------------------------------------------------

OPEN = """SELECT s.item_id, s.slot_no, s.shuffle_key,
(SELECT b.completions_json FROM item_body AS b WHERE b.item_id = s.item_id) AS completions_json FROM slot AS s {index}
WHERE s.project_id = :project AND s.priority = :priority AND s.state = 'open' AND {range}
AND NOT EXISTS (SELECT 1 FROM assignment AS a WHERE a.item_id = s.item_id AND a.user_id = :user AND a.role = 'annotate')
ORDER BY {order} LIMIT 1 {lock}"""
FORWARD = "s.shuffle_key > :after AND s.shuffle_key <= :until"
AGAIN = "s.opened > :after AND s.opened <= :until AND s.opened > 0"


def taken_from_queue(queue: Queue) -> str | None:
    """The next slot down the queue, highest priority first."""
    for place in open_priorities(queue):
        found = next_open(queue, place)
        if found is not None:
            return leased(queue, found.item_id, found.slot_no, found.completions_json)
    return None


def planted_turn(queue: Queue) -> str | None:
    """A turn at an item that checks on this person, or that they practise with, where one is due."""
    due = planted.due(queue.connection, queue.project, queue.user_id, queue.now)
    if due is None:
        return None
    if isinstance(due, str):
        again = locked_turn(queue.connection, due)
        return due if regain(queue.connection, again, queue.schema.lease.minutes, queue.now) else None
    return leased(queue, *due, str(queue.connection.scalar(LISTED, {"item": due[0]})))


def open_priorities(queue: Queue) -> Iterator[Row[Any]]:
    """Priorities with open slots, highest first, each with the place of this person in its queue; by as many short looks at the
    index as priorities are wanted."""
    highest = highest_open(is_sqlite(queue.connection))
    given = {"project": queue.project.id, "user": queue.user_id, "now_at": queue.project.epoch}
    last = 2**31 - 1
    while (place := queue.connection.execute(highest, {**given, "below": last}).one()).priority is not None:
        yield place
        last = place.priority


@cache
def highest_open(sqlite: bool) -> Any:
    """The query for both databases."""
    index = "INDEXED BY slot_queue" if sqlite else ""
    highest = (
        f"SELECT max(priority) AS priority FROM slot {index} WHERE project_id = :project AND state = 'open' AND priority < :below"
    )
    return text(
        f"SELECT p.priority, c.shuffle_key, c.seen FROM ({highest}) AS p LEFT JOIN claim_cursor AS c "
        "ON c.project_id = :project AND c.user_id = :user AND c.priority = p.priority AND c.epoch = :now_at"
    )


def next_open(queue: Queue, place: Row[Any]) -> Row[Any] | None:
    """The next slot of one priority for this person, and where to look from the next time."""
    reopened, priority = queue.project.reopened, place.priority
    if place.seen is not None:
        if place.seen == reopened:
            return None
        found = first(queue, priority, AGAIN, "s.opened", place.seen, LAST)
        if found is None and not is_any_locked(queue, priority, AGAIN, place.seen, LAST):
            at_once(queue.connection, [place_at(queue, priority, place.shuffle_key, seen=reopened)])
        return found
    after = place.shuffle_key if place.shuffle_key is not None else -1
    found = first(queue, priority, FORWARD, "s.shuffle_key, s.slot_no", after, LAST)
    if found is None and after >= 0:
        found = first(queue, priority, FORWARD, "s.shuffle_key, s.slot_no", -1, after)
    if found is not None:
        queue.places.append(place_at(queue, priority, found.shuffle_key, seen=None))
    elif not is_any_locked(queue, priority, FORWARD, -1, LAST):
        at_once(queue.connection, [place_at(queue, priority, after, seen=reopened)])
    return found


def first(queue: Queue, priority: int, range: str, order: str, after: int, until: int) -> Row[Any] | None:
    """One open slot of an item this person has not had."""
    statement = open_statement(range, order, sqlite=is_sqlite(queue.connection), lock=True)
    given = {"project": queue.project.id, "priority": priority, "user": queue.user_id, "after": after, "until": until}
    return queue.connection.execute(statement, given).first()


@cache
def open_statement(range: str, order: str, *, sqlite: bool, lock: bool) -> Any:
    """The query for both databases. SQLite is told which index to take: its planner's guess is a thousand times slower."""
    index = f"INDEXED BY {'slot_queue' if range == FORWARD else 'slot_reopened'}" if sqlite else ""
    locking = "FOR UPDATE OF s SKIP LOCKED" if lock and not sqlite else ""
    return text(OPEN.format(index=index, range=range, order=order, lock=locking))


def is_any_locked(queue: Queue, priority: int, range: str, after: int, until: int) -> bool:
    """Whether a slot was passed over only because another transaction has its hands on it."""
    if is_sqlite(queue.connection):
        return False
    statement = open_statement(range, "s.shuffle_key", sqlite=False, lock=False)
    given = {"project": queue.project.id, "priority": priority, "user": queue.user_id, "after": after, "until": until}
    is_locked = queue.connection.execute(statement, given).first() is not None
    queue.locked.extend([priority] if is_locked else [])
    return is_locked


def place_at(queue: Queue, priority: int, shuffle_key: int, *, seen: int | None) -> Change:
    """Where somebody is in the queue of a priority, as it is written down."""
    row = {"project_id": queue.project.id, "user_id": queue.user_id, "priority": priority, "shuffle_key": shuffle_key}
    written = upsert(claim_cursor, ("shuffle_key", "epoch", "seen"), False, is_sqlite(queue.connection))
    return written, {**row, "epoch": queue.project.epoch, "seen": seen}


def leased(queue: Queue, item_id: str, slot_no: int, completions_json: str) -> str:
    """A new turn at an open slot that nobody else can take: on PostgreSQL it is locked, on SQLite nobody else writes."""
    mine = new_id(queue.now)
    expires = queue.now + queue.schema.lease.minutes * MINUTE
    order = shown(
        completion_ids(completions_json), secret=queue.project.secret, item_id=item_id, slot_no=slot_no, order=queue.schema.order
    )
    row = {
        "id": mine,
        "project_id": queue.project.id,
        "item_id": item_id,
        "user_id": queue.user_id,
        "slot_no": slot_no,
        "state": "leased",
        "schema_id": queue.schema_id,
        "shown_json": as_json(order),
        "leased_at": queue.now,
        "lease_expires": expires,
    }
    taken = occupied(item_id, slot_no, user_id=queue.user_id, assignment_id=mine, expires=expires)
    at_once(queue.connection, [*queue.places, taken, (NEW_TURN, row)])
    return mine


def occupy(connection: Connection, item_id: str, slot_no: int, *, user_id: str, assignment_id: str, expires: int | None) -> bool:
    """Make an open slot somebody's: leased where there is an expiry, else done. Whether it was open."""
    statement, given = occupied(item_id, slot_no, user_id=user_id, assignment_id=assignment_id, expires=expires)
    return connection.execute(statement, given).rowcount == 1


def occupied(item_id: str, slot_no: int, *, user_id: str, assignment_id: str, expires: int | None) -> Change:
    state = "leased" if expires is not None else "done"
    change = {"state": state, "user_id": user_id, "assignment_id": assignment_id, "lease_expires": expires}
    return OCCUPIED, {"item": item_id, "number": slot_no, **change}


# --- leases -----------------------------------------------------------------------------------------------------------------


def regained(queue: Queue, let_go: Sequence[str]) -> str | None:
    """A turn this person let go of, where its item still wants a judgment: what was typed is in its draft."""
    for identity in let_go[:TRIED]:
        again = locked_turn(queue.connection, identity)
        if regain(queue.connection, again, queue.schema.lease.minutes, queue.now):
            return identity
    return None


def released(queue: Queue) -> list[str]:
    """Turns this person gave back, at items that still want a judgment."""
    return list(queue.connection.scalars(RELEASED, {"user": queue.user_id, "project": queue.project.id}))


def locked_turn(connection: Connection, assignment_id: str) -> Row[Any]:
    """An assignment, locked against everybody else until this transaction ends."""
    return connection.execute(select(assignment).where(assignment.c.id == assignment_id).with_for_update()).one()


def regain(connection: Connection, mine: Row[Any], minutes: int, now: int) -> bool:
    """Another lease for a turn that lost its own, at the same slot or at any that is open."""
    if mine.state not in ("expired", "released"):  # submitted or skipped while this waited to lock it
        return False
    opened = select(slot.c.slot_no).where(slot.c.item_id == mine.item_id, slot.c.state == "open").order_by(slot.c.slot_no)
    number = connection.scalar(opened.limit(1).with_for_update(skip_locked=True))
    if number is None:
        number = planted.slot_again(connection, mine.item_id)
    expires = now + minutes * MINUTE
    if number is None or not occupy(
        connection, mine.item_id, number, user_id=mine.user_id, assignment_id=mine.id, expires=expires
    ):
        return False
    change = {"state": "leased", "slot_no": number, "leased_at": now, "lease_expires": expires, "closed_at": None}
    connection.execute(update(assignment).where(assignment.c.id == mine.id).values(change))
    return True


def sweep(connection: Connection, now: int) -> int:
    """Open the slots whose leases have run out; how many."""
    rows = connection.execute(LAPSED, {"now": now}).all()
    for project_id in sorted({row.project_id for row in rows}):
        gone = [row for row in rows if row.project_id == project_id]
        reopen(connection, project_id, [(row.item_id, row.slot_no) for row in gone])
        ids = [row.assignment_id for row in gone]
        connection.execute(update(assignment).where(assignment.c.id.in_(ids)).values(state="expired"))
    return len(rows)


def reopen(connection: Connection, project_id: str, slots: Sequence[tuple[str, int]]) -> None:
    """Slots that are nobody's any more; those of a held item are held, those of practice go. Whoever holds an item meanwhile is
    waited for, or waits: else a slot of it would be left open."""
    opened = bumped(connection, project_id)
    of_item = select(item.c.status, item.c.kind).with_for_update(read=True)
    for item_id, slot_no in slots:
        one = connection.execute(of_item.where(item.c.id == item_id)).one()
        if one.kind == "practice":
            planted.drop_slot(connection, item_id, slot_no)
            continue
        change = {
            "state": "open" if one.status == "active" else "hold",
            "user_id": None,
            "assignment_id": None,
            "lease_expires": None,
            "opened": opened,
        }
        connection.execute(update(slot).where(slot.c.item_id == item_id, slot.c.slot_no == slot_no).values(change))


def bumped(connection: Connection, project_id: str) -> int:
    """A new number for slots that open now, by which those at the end of the queue find them."""
    bump = update(project).where(project.c.id == project_id).values(reopened=project.c.reopened + 1)
    return connection.execute(bump.returning(project.c.reopened)).scalar_one()


# --- why there is nothing ---------------------------------------------------------------------------------------------------


def why_empty(connection: Connection, project_id: str, now: int) -> Nothing:
    """What somebody is told for whom nothing was found."""
    here = slot.c.project_id == project_id
    leases = select(func.min(slot.c.lease_expires)).where(here, IS_LEASED)
    is_open = connection.execute(select(slot.c.item_id).where(here, IS_OPEN).limit(1)).first() is not None
    until = connection.scalar(leases)
    if until is not None:
        return Nothing("leased", max(until, now))
    if is_open:
        return Nothing("yours_done")
    has_items = connection.execute(select(item.c.id).where(item.c.project_id == project_id).limit(1)).first() is not None
    return Nothing("done" if has_items else "empty")


# --- both databases ---------------------------------------------------------------------------------------------------------


def is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def put(connection: Connection, table: Table, row: dict[str, Any], changed: Iterable[str]) -> None:
    """Insert a row, or give the one that has its primary key these columns of it."""
    connection.execute(upsert(table, tuple(changed), False, is_sqlite(connection)), row)


@cache
def upsert(table: Table, changed: tuple[str, ...], is_added: bool, sqlite: bool) -> Any:
    """``put`` as a statement; where ``is_added``, the columns are added to those of the row that is there."""
    inserted = (sqlite_insert if sqlite else postgresql_insert)(table)
    new = {name: table.c[name] + inserted.excluded[name] if is_added else inserted.excluded[name] for name in changed}
    return inserted.on_conflict_do_update(index_elements=[column.name for column in table.primary_key], set_=new)
