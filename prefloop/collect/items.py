"""Items and the number of judgments wanted of each: adding them, wanting more or fewer, holding them back."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Connection,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    union_all,
    update,
)

from prefloop.collect.identity import as_json, keyed, new_id
from prefloop.collect.queue import IS_OPEN, bumped, is_sqlite
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import item, item_body, project, slot
from prefloop.records import Completion, Prompt, content_id

MAX_OVERLAP = 50
LOOKED_UP = 500  # ids in one question to the database


NUMBERS = union_all(*(select(literal(number, literal_execute=True).label("number")) for number in range(MAX_OVERLAP))).subquery()
HERE = select(project.c.secret, project.c.overlap).where(project.c.id == bindparam("project"))


def among(column: Any, name: str, sqlite: bool) -> Any:
    """Whether a column is one of some values: a list of marks for SQLite, one array for PostgreSQL."""
    if sqlite:
        return column.in_(bindparam(name, expanding=True))
    return column == any_(bindparam(name, type_=ARRAY(Text)))


@cache
def new_slots(sqlite: bool) -> Any:
    """The database makes the slots of an item sooner than they are handed to it."""
    return insert(slot).from_select(
        ["item_id", "slot_no", "project_id", "priority", "shuffle_key", "state", "opened"],
        select(item.c.id, NUMBERS.c.number, item.c.project_id, item.c.priority, item.c.shuffle_key, text("'open'"), text("0"))
        .select_from(item.join(NUMBERS, NUMBERS.c.number < bindparam("overlap")))
        .where(among(item.c.id, "items", sqlite)),
    )


@cache
def of_prompts(sqlite: bool) -> Any:
    return (
        select(item.c.prompt_id, item.c.ext_id, item_body.c.prompt_json, item_body.c.completions_json)
        .select_from(item.join(item_body, item_body.c.item_id == item.c.id))
        .where(item.c.project_id == bindparam("project"), among(item.c.prompt_id, "prompts", sqlite))
    )


class NewItem(NamedTuple):
    """A prompt with its completions, as they are stored."""

    ext_id: str
    prompt_id: str
    prompt_json: str
    completions_json: str


class Place(NamedTuple):
    """Of an item, in the database and in the queue."""

    id: str
    shuffle_key: int


class There(NamedTuple):
    """What a project holds of some items already."""

    clashing: dict[str, str]  # the ext_id of each that says under an id what is said otherwise there, and which id
    known: set[str]  # the ext_ids of those that are there, word for word


class Added(NamedTuple):
    """What became of some items."""

    added: int
    known: int  # there already, word for word


def new_item(prompt: Prompt, completions: Sequence[Completion]) -> NewItem:
    """An item is known by its prompt and completions: the same again is the same item, one answer more is another."""
    ext_id = content_id([prompt.id, [completion.id for completion in completions]])
    listed = [completion.model_dump() for completion in completions]  # strings all through: there is nothing to convert
    return NewItem(ext_id, prompt.id, as_json(prompt.model_dump()), as_json(listed))


def there(connection: Connection, project_id: str, items: Sequence[NewItem]) -> There:
    """What a project says of the prompts of some items: one question, as the same item has the same prompt."""
    bodies: dict[str, list[tuple[str, str]]] = {}
    ids = set()
    prompts = sorted({one.prompt_id for one in items})
    for start in range(0, len(prompts), LOOKED_UP):
        part = {"project": project_id, "prompts": prompts[start : start + LOOKED_UP]}
        for row in connection.execute(of_prompts(is_sqlite(connection)), part):
            bodies.setdefault(row.prompt_id, []).append((row.prompt_json, row.completions_json))
            ids.add(row.ext_id)
    found = {}
    for one in items if bodies else ():
        for prompt_json, completions_json in bodies.get(one.prompt_id, ()):
            if (clash := contradicted(one, prompt_json, completions_json)) is not None:
                found[one.ext_id] = clash
    return There(found, {one.ext_id for one in items} & ids - found.keys())


def contradicted(one: NewItem, prompt_json: str, completions_json: str) -> str | None:
    """The id under which two items of the same prompt say different things."""
    if json.loads(one.prompt_json)["messages"] != json.loads(prompt_json)["messages"]:
        return f"prompt {one.prompt_id}"
    if one.completions_json == completions_json:
        return None
    there = {completion["id"]: completion["content"] for completion in json.loads(completions_json)}
    for completion in json.loads(one.completions_json):
        if there.get(completion["id"], completion["content"]) != completion["content"]:
            return f"completion {completion['id']}"
    return None


def secret_of(connection: Connection, project_id: str) -> str:
    """What places in the queue are derived from."""
    return connection.execute(HERE, {"project": project_id}).one().secret


def places(secret: str, items: Iterable[NewItem], now: int) -> list[Place]:
    """Ids that go up, so that exports keep the order of the file, and places in the queue that do not follow that order."""
    return [Place(new_id(now), int.from_bytes(keyed(secret, "queue", one.ext_id)[:8]) >> 1) for one in items]


def add(
    connection: Connection,
    project_id: str,
    items: Sequence[NewItem],
    *,
    priority: int = 0,
    now: int,
    given: Sequence[Place] | None = None,
    known: set[str] | None = None,
) -> Added:
    """Store items with their slots. What is there already stays as it is. Their ``places`` may be ``given``: to make them
    takes as long as to store the items, and need not be done while others wait to write. So may what is ``known``, where it
    was found ``there`` in the same transaction."""
    here = connection.execute(HERE, {"project": project_id}).one()
    if known is None:
        known = there(connection, project_id, items).known
    at = places(here.secret, items, now) if given is None else given
    fresh = {one.ext_id: (one, place) for one, place in zip(items, at, strict=True) if one.ext_id not in known}
    rows, bodies = [], []
    for one, (identity, shuffle_key) in fresh.values():
        rows.append((identity, project_id, one.ext_id, one.prompt_id, priority, shuffle_key, here.overlap, now))
        bodies.append((identity, one.prompt_json, one.completions_json))
    if rows:
        names = ("id", "project_id", "ext_id", "prompt_id", "priority", "shuffle_key", "n_slots", "created")
        insert_many(connection, item, names, rows)
        insert_many(connection, item_body, ("item_id", "prompt_json", "completions_json"), bodies)
        for start in range(0, len(rows), LOOKED_UP):
            identities = [identity for identity, *_ in rows[start : start + LOOKED_UP]]
            connection.execute(new_slots(is_sqlite(connection)), {"overlap": here.overlap, "items": identities})
    return Added(len(rows), len(items) - len(rows))


def insert_many(connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """As ``insert(table)`` would, in one statement: between any two, another thread may take the interpreter for 5 ms. To
    PostgreSQL go whole columns, and %b: its driver takes ten times as long to write them as text."""
    into = f"INSERT INTO {table.name} ({', '.join(names)})"
    for start in range(0, len(rows), LOOKED_UP):
        part = rows[start : start + LOOKED_UP]
        if is_sqlite(connection):
            marks = ", ".join([f"({', '.join('?' * len(names))})"] * len(part))
            connection.exec_driver_sql(f"{into} VALUES {marks}", tuple(value for row in part for value in row))
        else:
            kinds = ", ".join(f"%b::{table.c[name].type.compile(connection.dialect)}[]" for name in names)
            connection.exec_driver_sql(f"{into} SELECT * FROM unnest({kinds})", tuple(map(list, zip(*part, strict=True))))


def slot_row(item_id: str, number: int, project_id: str, priority: int, shuffle_key: int, opened: int = 0) -> dict[str, Any]:
    return {
        "item_id": item_id, "slot_no": number, "project_id": project_id, "priority": priority, "shuffle_key": shuffle_key,
        "state": "open", "opened": opened,
    }  # fmt: skip


def taken_stock_of(connection: Connection) -> None:
    """PostgreSQL counts what is in its tables now and then; until it has, it plans for the few rows that were there before."""
    if not is_sqlite(connection):
        connection.exec_driver_sql("ANALYZE item, item_body, slot")


def added_all(connection: Connection, project_id: str) -> None:
    """After the last of an import: whoever had come to the end of the queue begins again at its beginning."""
    connection.execute(update(project).where(project.c.id == project_id).values(epoch=project.c.epoch + 1))


# --- wanting more or fewer judgments ----------------------------------------------------------------------------------------


def set_overlap(connection: Connection, item_id: str, n: int) -> int:
    """Want ``n`` judgments of an item. Slots are added, or taken away while they are open; how many there are now."""
    if not 1 <= n <= MAX_OVERLAP:
        raise Refused(422, "bad_overlap", f"judgments wanted of an item: 1 to {MAX_OVERLAP}, got {n}")
    one = connection.execute(select(item).where(item.c.id == item_id).with_for_update()).first()
    if one is None:
        raise not_found("item")
    if one.kind == "practice":
        return one.n_slots  # everybody new gets it, and nobody waits for it
    here = slot.c.item_id == item_id
    numbers = list(connection.scalars(select(slot.c.slot_no).where(here).order_by(slot.c.slot_no)))
    if n > len(numbers):
        add_slots(connection, one, range(max(numbers, default=-1) + 1, max(numbers, default=-1) + 1 + n - len(numbers)))
    elif n < len(numbers):
        free = select(slot.c.slot_no).where(here, slot.c.state.in_(("open", "hold"))).order_by(slot.c.slot_no.desc())
        gone = list(connection.scalars(free.limit(len(numbers) - n).with_for_update()))
        connection.execute(delete(slot).where(here, slot.c.slot_no.in_(gone), slot.c.state.in_(("open", "hold"))))
    n_slots = connection.scalar(select(func.count()).select_from(slot).where(here)) or 0
    connection.execute(update(item).where(item.c.id == item_id).values(n_slots=n_slots))
    return n_slots


def add_slots(connection: Connection, one: Any, numbers: range) -> None:
    opened = bumped(connection, one.project_id)
    rows = [slot_row(one.id, number, one.project_id, one.priority, one.shuffle_key, opened) for number in numbers]
    if one.status != "active":
        rows = [{**row, "state": "hold"} for row in rows]
    connection.execute(insert(slot), rows)


def set_status(connection: Connection, item_id: str, status: str) -> None:
    """active: in the queue; held: not; removed: not, and left out of exports."""
    one = connection.execute(select(item).where(item.c.id == item_id).with_for_update()).first()
    if one is None:
        raise not_found("item")
    if status not in ("active", "held", "removed"):
        raise Refused(422, "bad_status", f"an item is active, held or removed, not {status!r}")
    connection.execute(update(item).where(item.c.id == item_id).values(status=status))
    if status == "active":
        change = {"state": "open", "opened": bumped(connection, one.project_id)}
        connection.execute(update(slot).where(slot.c.item_id == item_id, slot.c.state == "hold").values(change))
    else:
        connection.execute(update(slot).where(slot.c.item_id == item_id, IS_OPEN).values(state="hold"))


def set_priority(connection: Connection, item_id: str, priority: int) -> None:
    """Items of higher priority come first."""
    if not -1_000_000 <= priority <= 1_000_000:
        raise Refused(422, "bad_priority", f"a priority is between -1,000,000 and 1,000,000, got {priority}")
    project_id = connection.scalar(select(item.c.project_id).where(item.c.id == item_id))
    if project_id is None:
        raise not_found("item")
    opened = bumped(connection, project_id)
    connection.execute(update(item).where(item.c.id == item_id).values(priority=priority))
    connection.execute(update(slot).where(slot.c.item_id == item_id).values(priority=priority))
    connection.execute(update(slot).where(and_(slot.c.item_id == item_id, text("slot.state = 'open'"))).values(opened=opened))
