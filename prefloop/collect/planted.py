"""Items that check those who judge them, and look like any other on the screen.

    gold     an item of which is known what is right: whole orders, pairs that must stand so, the best, the worst
    practice the same, for those who are new: they are told what was right (practice.py)
    check    made from another item by giving it an answer to a different prompt, which must come last
    repeat   an item a person has judged before, to see whether they say the same again

None of them waits in the queue. Whether a person's next turn is one is drawn from the project's secret, the person and how
much they have done; a slot is made for them there and then. So a check is due to nobody, holds up nothing, and everything else
about a turn (leases, drafts, submits) is as always. Expected answers never leave with a screen.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, select, update

from prefloop.collect import practice as practising
from prefloop.collect.identity import as_json, keyed, new_id
from prefloop.collect.places import places
from prefloop.collect.quality_settings import quality_of
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import completion_ids
from prefloop.collect.tables import assignment, item, item_body, planted, project, slot, tally
from prefloop.records import Completion, Prompt, content_id
from prefloop.stats.agreement import marks, pair_signs

Json = dict[str, Any]
BETWEEN = 10  # turns between an item and its repeat at least
LOOKED_BACK = 100  # turns among which the item to repeat is found
CANDIDATES = 200  # gold items among which one is drawn

# --- when one is due --------------------------------------------------------------------------------------------------------


def due(connection: Connection, here: Row[Any], user_id: str, now: int) -> tuple[str, int] | str | None:
    """The item and the new slot of what is due to somebody, or the turn at it that had run out; None: an ordinary turn."""
    if here.settings_json == "{}":
        return None
    if practising.has_practice(here.settings_json) and (one := practising.next_for(connection, here.id, user_id)):
        return one.again or (one.item_id, slot_for(connection, one.item_id))
    settings = quality_of(here.settings_json)
    if not settings.gold_rate and not settings.repeat_rate:
        return None
    chance, chosen = drawn(connection, here, user_id)
    if chance < settings.gold_rate:
        found = unseen_gold(connection, here.id, user_id, chosen)
    elif chance < settings.gold_rate + settings.repeat_rate:
        found = repeat_of(connection, here, user_id, chosen, now)
    else:
        found = None
    return None if found is None else (found, slot_for(connection, found))


def drawn(connection: Connection, here: Row[Any], user_id: str) -> tuple[float, int]:
    """A number from 0 to 1 and another to choose by; the same until the person has done something."""
    n = func.coalesce(func.sum(tally.c.submitted + tally.c.skipped), 0)
    done = connection.scalar(select(n).where(tally.c.project_id == here.id, tally.c.user_id == user_id))
    bits = keyed(here.secret, "planted", user_id, int(done or 0))
    return int.from_bytes(bits[:8]) / 2**64, int.from_bytes(bits[8:16])


def unseen_gold(connection: Connection, project_id: str, user_id: str, chosen: int) -> str | None:
    had = exists().where(assignment.c.item_id == planted.c.item_id, assignment.c.user_id == user_id)
    joined = planted.join(item, item.c.id == planted.c.item_id)
    here = and_(planted.c.project_id == project_id, planted.c.kind.in_(("gold", "check")), item.c.status == "active", ~had)
    wanted = select(planted.c.item_id).select_from(joined).where(here).order_by(planted.c.item_id).limit(CANDIDATES)
    found = list(connection.scalars(wanted))
    return found[chosen % len(found)] if found else None


def repeat_of(connection: Connection, here: Row[Any], user_id: str, chosen: int, now: int) -> str | None:
    """The copy of an item this person judged a while ago, made when it is first needed."""
    mine = and_(assignment.c.user_id == user_id, assignment.c.project_id == here.id, assignment.c.state == "submitted")
    joined = assignment.join(item, and_(item.c.id == assignment.c.item_id, item.c.kind == "normal", item.c.status == "active"))
    past = select(item.c.id).select_from(joined).where(mine).order_by(assignment.c.closed_at.desc(), assignment.c.id.desc())
    found = list(connection.scalars(past.limit(LOOKED_BACK).offset(BETWEEN)))
    if not found:
        return None
    copy = copy_of(connection, here, found[chosen % len(found)], now)
    is_had = select(assignment.c.id).where(assignment.c.item_id == copy, assignment.c.user_id == user_id)
    return copy if connection.execute(is_had).first() is None else None


def copy_of(connection: Connection, here: Row[Any], item_id: str, now: int) -> str:
    found = connection.scalar(select(planted.c.item_id).where(planted.c.copy_of == item_id))
    if found is not None:
        return found
    source = connection.execute(select(item).where(item.c.id == item_id).with_for_update()).one()
    found = connection.scalar(select(planted.c.item_id).where(planted.c.copy_of == item_id))  # made while we waited
    if found is not None:
        return found
    body = connection.execute(select(item_body).where(item_body.c.item_id == item_id)).one()
    given = {"prompt_id": source.prompt_id, "prompt_json": body.prompt_json, "completions_json": body.completions_json}
    ext_id = content_id(["repeat", source.ext_id])
    return insert_planted(
        connection, here, kind="repeat", ext_id=ext_id, expected={}, user_id=None, now=now, copy=item_id, **given
    )


def slot_for(connection: Connection, item_id: str) -> int:
    """One more slot of a planted item, open, for whoever it is being claimed by."""
    one = connection.execute(select(item).where(item.c.id == item_id).with_for_update()).one()
    last = connection.scalar(select(func.max(slot.c.slot_no)).where(slot.c.item_id == item_id))
    number = 0 if last is None else last + 1
    row = {
        "item_id": item_id, "slot_no": number, "project_id": one.project_id, "priority": one.priority,
        "shuffle_key": one.shuffle_key, "state": "open", "opened": 0,
    }  # fmt: skip
    connection.execute(insert(slot).values(row))
    connection.execute(update(item).where(item.c.id == item_id).values(n_slots=item.c.n_slots + 1))
    return number


def slot_again(connection: Connection, item_id: str) -> int | None:
    """A slot for somebody who comes back to a practice item, of which none is ever open; None where that may not be."""
    one = connection.execute(select(item.c.kind, item.c.status).where(item.c.id == item_id)).one()
    return slot_for(connection, item_id) if (one.kind, one.status) == ("practice", "active") else None


def drop_slot(connection: Connection, item_id: str, slot_no: int) -> None:
    """Of a practice item, whose slot is nobody's any more: it waits for nobody else."""
    connection.execute(delete(slot).where(slot.c.item_id == item_id, slot.c.slot_no == slot_no))
    connection.execute(update(item).where(item.c.id == item_id).values(n_slots=item.c.n_slots - 1))


def insert_planted(
    connection: Connection, here: Row[Any], *, kind: str, ext_id: str, prompt_id: str, prompt_json: str, completions_json: str,
    expected: Mapping[str, Any], user_id: str | None, now: int, copy: str | None = None,
) -> str:  # fmt: skip
    identity = new_id(now)
    row = {
        "id": identity, "project_id": here.id, "ext_id": ext_id, "prompt_id": prompt_id, "kind": kind, "priority": 0,
        "shuffle_key": int.from_bytes(keyed(here.secret, "queue", ext_id)[:8]) >> 1, "n_slots": 0, "created": now,
    }  # fmt: skip
    connection.execute(insert(item).values(row))
    body = {"item_id": identity, "prompt_json": prompt_json, "completions_json": completions_json}
    connection.execute(insert(item_body).values(body))
    note_planted(connection, identity, here.id, kind, expected, user_id, now, copy)
    return identity


def note_planted(
    connection: Connection, item_id: str, project_id: str, kind: str, expected: Mapping[str, Any], user_id: str | None, now: int,
    copy: str | None = None,
) -> None:  # fmt: skip
    row = {
        "item_id": item_id, "project_id": project_id, "kind": kind, "expected_json": as_json(expected), "copy_of": copy,
        "created_by": user_id, "created": now,
    }  # fmt: skip
    connection.execute(insert(planted).values(row))


# --- planting ---------------------------------------------------------------------------------------------------------------


def make_gold(
    connection: Connection, *, item_id: str, expected: Json, user_id: str, now: int, practice: bool = False, why: str = ""
) -> None:
    """Make an item gold, or practice, or say anew what is expected of it. What waits of it in the queue is taken out."""
    one = locked(connection, item_id)
    if one is None:
        raise not_found("item")
    if one.kind in ("repeat", "check"):
        raise Refused(409, "planted_already", f"this item is a {one.kind} and stays one")
    if why and (not practice or len(why) > practising.MOST_WORDS):
        raise Refused(
            422, "bad_gold", f"why something is right is told of practice, in at most {practising.MOST_WORDS:,} characters"
        )
    listed = str(connection.scalar(select(item_body.c.completions_json).where(item_body.c.item_id == item_id)))
    checked = {**expectation(expected, completion_ids(listed)), **({"why": why} if why else {})}
    is_again = practice and one.kind == "practice"
    made = connection.scalar(select(planted.c.created).where(planted.c.item_id == item_id)) if is_again else None
    connection.execute(delete(planted).where(planted.c.item_id == item_id))
    kind = "practice" if practice else "gold"
    if practice:
        now = made or practising.moment_for(connection, one.project_id, now)
    note_planted(connection, item_id, one.project_id, kind, checked, user_id, now)
    connection.execute(delete(slot).where(slot.c.item_id == item_id, slot.c.state.in_(("open", "hold"))))
    n_slots = connection.scalar(select(func.count()).select_from(slot).where(slot.c.item_id == item_id)) or 0
    connection.execute(update(item).where(item.c.id == item_id).values(kind=kind, n_slots=n_slots))
    practising.changed(connection, one.project_id, item_id, was=one.kind == "practice", is_now=practice)


def unmake_gold(connection: Connection, *, item_id: str, now: int) -> None:
    """An ordinary item again, with the judgments it has."""
    one = locked(connection, item_id)
    if one is None or one.kind not in ("gold", "practice"):
        raise not_found("gold item")
    connection.execute(delete(planted).where(planted.c.item_id == item_id))
    connection.execute(update(item).where(item.c.id == item_id).values(kind="normal"))
    practising.changed(connection, one.project_id, item_id, was=one.kind == "practice", is_now=False)


def locked(connection: Connection, item_id: str) -> Row[Any] | None:
    """An item, and its project before it, as whoever gives a slot back locks them; not against rows that refer to it. Before both
    its turns: a submit counts by what the item is, and is waited for, or waits."""
    connection.execute(select(assignment.c.id).where(assignment.c.item_id == item_id).order_by(assignment.c.id).with_for_update())
    project_id = connection.scalar(select(item.c.project_id).where(item.c.id == item_id))
    connection.execute(select(project.c.id).where(project.c.id == project_id).with_for_update(key_share=True))
    return connection.execute(select(item).where(item.c.id == item_id).with_for_update()).first()


def make_checks(connection: Connection, *, here: Row[Any], n: int, user_id: str, now: int) -> int:
    """Up to ``n`` items with one answer exchanged for an answer to another prompt, which must then be the worst."""
    there = select(func.count()).select_from(planted).where(planted.c.project_id == here.id, planted.c.kind == "check")
    n_read = n + int(connection.scalar(there) or 0) + 1
    joined = item.join(item_body, item_body.c.item_id == item.c.id)
    ordinary = and_(item.c.project_id == here.id, item.c.kind == "normal", item.c.status == "active")
    columns = (item.c.ext_id, item_body.c.prompt_json, item_body.c.completions_json)
    rows = connection.execute(
        select(*columns).select_from(joined).where(ordinary).order_by(item.c.shuffle_key).limit(n_read)
    ).all()
    made = 0
    for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True):
        if made == n or row.ext_id == other.ext_id:
            break
        prompt = Prompt.model_validate(json.loads(row.prompt_json))
        listed = json.loads(row.completions_json)
        stranger = json.loads(other.completions_json)[0]
        ext_id = content_id(["check", row.ext_id])
        is_known = connection.scalar(select(item.c.id).where(item.c.project_id == here.id, item.c.ext_id == ext_id)) is not None
        if is_known or len(listed) < 2 or stranger["content"].get("type") != "text":
            continue
        wrong = Completion.of(prompt, stranger["content"]["text"], source="check")
        kept = [*listed[:-1], wrong.model_dump(mode="json")]
        given = {"prompt_id": prompt.id, "prompt_json": row.prompt_json, "completions_json": as_json(kept)}
        expected = {"worst": wrong.id}
        insert_planted(connection, here, kind="check", ext_id=ext_id, expected=expected, user_id=user_id, now=now, **given)
        made += 1
    return made


# --- what is expected -------------------------------------------------------------------------------------------------------


def expectation(given: Any, completions: Sequence[str]) -> Json:
    """{"tiers": [whole orders, any of which will do], "before": [[better, worse]], "best": id, "worst": id}, checked."""
    if not isinstance(given, dict) or not given or not set(given) <= {"tiers", "before", "best", "worst"}:
        raise Refused(422, "bad_gold", "expected holds one or more of tiers, before, best and worst")
    known = set(completions)

    def is_order(order: Any) -> bool:
        return (
            isinstance(order, list)
            and all(is_names(tier) for tier in order)
            and sorted(x for t in order for x in t) == sorted(known)
        )

    def is_names(names: Any) -> bool:
        return isinstance(names, list) and all(isinstance(name, str) and name in known for name in names)

    orders, pairs = given.get("tiers", []), given.get("before", [])
    if not isinstance(orders, list) or not all(map(is_order, orders)):
        raise Refused(422, "bad_gold", "tiers is a list of orders, each a list of tiers that place every completion once, by id")
    if not isinstance(pairs, list) or not all(is_names(pair) and len(set(pair)) == 2 and len(pair) == 2 for pair in pairs):
        raise Refused(422, "bad_gold", "before is a list of pairs of completions, the better one first, by id")
    for name in ("best", "worst"):
        if name in given and not (isinstance(given[name], str) and given[name] in known):
            raise Refused(422, "bad_gold", f"{name} is the id of a completion; the item has {', '.join(completions)}")
    if not orders and not pairs and "best" not in given and "worst" not in given:
        raise Refused(422, "bad_gold", "nothing is expected")
    return {key: value for key, value in given.items() if value}


def gold_score(expected: Mapping[str, Any], order: tuple[list[list[str]], list[str]], completions: Sequence[str]) -> float:
    """The share of what is expected that an order satisfies, from 0 to 1: a mean over what is expected."""
    place = dict(zip(completions, places(order, completions), strict=True))
    parts = [float(place[better] < place[worse]) for better, worse in expected.get("before", [])]
    low, high = min(place.values()), max(place.values())  # which are equal where nothing is said
    if "best" in expected:
        parts.append(float(place[expected["best"]] == low < high))
    if "worst" in expected:
        parts.append(float(place[expected["worst"]] == high > low))
    if expected.get("tiers"):
        parts.append(max(likeness(tiers, order, completions) for tiers in expected["tiers"]))
    return sum(parts) / len(parts)


def likeness(tiers: list[list[str]], order: tuple[list[list[str]], list[str]], completions: Sequence[str]) -> float:
    """Marks per pair of two orders, half where one of them calls it a tie."""
    mark, n = marks(pair_signs([places((tiers, []), completions), places(order, completions)]), "half")
    return float(mark / n) if n else 0.0
