"""One person's turn at an item: what is typed is kept, what is submitted counts once, nothing is thrown away.

A submit is safe to repeat for ever: it carries a key, and the same key with the same words gets the same receipt. It is
accepted whatever became of the lease: the judgment fills a slot that is still open, or else is kept as surplus, beside the
number that was wanted. A correction is a new revision; the old one stays, superseded.
"""

import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, select, text, update

from prefloop.collect import practice, quality
from prefloop.collect.answers import Answers, checked, is_storable
from prefloop.collect.feedback import feedback
from prefloop.collect.identity import as_json, fingerprint, new_id
from prefloop.collect.queue import MINUTE, is_sqlite, occupy, put, regain, reopen, upsert
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import TaskSchema, schema_of
from prefloop.collect.tables import (
    assignment,
    draft,
    event,
    idempotency,
    item,
    item_body,
    judgment,
    project,
    report,
    slot,
    tally,
    task_schema,
)
from prefloop.collect.together import Change, at_once

DAY = 86_400_000
RECALL_MS = 15 * MINUTE  # a submitted turn may be taken back for so long,
RECALL_LAST = 20  # and the last of them for ever
HELD_AFTER_SKIPS = 3
DRAFT_BYTES = 2_000_000


class Receipt(NamedTuple):
    """What a submit is answered with, now and whenever it is repeated."""

    judgment_id: str
    rev: int
    is_surplus: bool
    is_replay: bool
    feedback: dict[str, Any] | None = None  # of practice


class Draft(NamedTuple):
    """A saved draft, and whether the item is still this person's."""

    rev: int
    lease_expires: int
    is_held: bool


class Said(NamedTuple):
    """A submission beside its answers."""

    answers: Any
    active_ms: int | None = None
    input: str = ""


MINE = select(assignment).where(assignment.c.id == bindparam("turn")).with_for_update()
ASKED = (  # a turn with what does not change while it waits to be locked
    select(assignment, task_schema.c.body_json.label("schema_json"), item_body.c.prompt_json, project.c.settings_json)
    .select_from(
        assignment.join(task_schema, task_schema.c.id == assignment.c.schema_id)
        .join(item_body, item_body.c.item_id == assignment.c.item_id)
        .join(project, project.c.id == assignment.c.project_id)
    )
    .where(assignment.c.id == bindparam("turn"))
    .with_for_update(of=assignment)
)


def mine(connection: Connection, assignment_id: str, user_id: str, statement: Any = MINE) -> Row[Any]:
    """Somebody's own turn, locked until the transaction ends; anybody else's does not exist."""
    row = connection.execute(statement, {"turn": assignment_id}).first()
    if row is None or row.user_id != user_id:
        raise not_found("assignment")
    return row


def schema_by_id(connection: Connection, schema_id: str) -> TaskSchema:
    return schema_of(str(connection.scalar(select(task_schema.c.body_json).where(task_schema.c.id == schema_id))))


# --- while typing -----------------------------------------------------------------------------------------------------------


def save_draft(connection: Connection, *, assignment_id: str, user_id: str, rev: int, body: Any, now: int) -> Draft:
    """Keep what was typed so far. ``rev`` is the draft it continues; another one is not overwritten (412, with both)."""
    turn = mine(connection, assignment_id, user_id)
    stored = as_json(body)
    if not is_storable(stored) or len(stored) > DRAFT_BYTES:
        raise Refused(422, "bad_draft", f"a draft is at most {DRAFT_BYTES:,} characters of whole Unicode text")
    there = connection.execute(select(draft).where(draft.c.assignment_id == assignment_id)).first()
    current = there.rev if there else 0
    if there is not None and rev + 1 == current and there.body_json == stored:  # the same again: its answer was lost
        return Draft(current, *extended(connection, turn, now))
    if rev != current:
        raise Refused(
            412, "draft_conflict", f"the draft was saved elsewhere: it is at revision {current}, this one continues {rev}",
            rev=current, body=json.loads(there.body_json) if there else None,
        )  # fmt: skip
    change = {"rev": rev + 1, "body_json": stored, "updated": now}
    put(connection, draft, {"assignment_id": assignment_id, **change}, change)
    expires, is_held = extended(connection, turn, now)
    return Draft(rev + 1, expires, is_held)


def heartbeat(connection: Connection, *, assignment_id: str, user_id: str, now: int) -> Draft:
    """Somebody is still at it."""
    turn = mine(connection, assignment_id, user_id)
    expires, is_held = extended(connection, turn, now)
    rev = connection.scalar(select(draft.c.rev).where(draft.c.assignment_id == assignment_id))
    return Draft(rev or 0, expires, is_held)


def extended(connection: Connection, turn: Row[Any], now: int) -> tuple[int, bool]:
    """When the lease of a turn now runs out, and whether the item is this person's: a lapsed one is renewed if it can be."""
    if turn.state not in ("leased", "expired", "recalled"):
        return turn.lease_expires, False
    lease = schema_by_id(connection, turn.schema_id).lease
    expires = max(turn.lease_expires, min(now + lease.minutes * MINUTE, turn.leased_at + lease.max_minutes * MINUTE))
    if turn.state == "leased" and expires <= now:
        return turn.lease_expires, False
    if turn.state == "leased":
        connection.execute(update(slot).where(is_slot_of(turn)).values(lease_expires=expires))
    elif turn.state == "expired":
        is_back = regain(connection, turn, lease.minutes, now)
        return (now + lease.minutes * MINUTE if is_back else turn.lease_expires), is_back
    connection.execute(update(assignment).where(assignment.c.id == turn.id).values(lease_expires=expires))
    return expires, True


def is_slot_of(turn: Row[Any]) -> Any:
    return and_(slot.c.item_id == turn.item_id, slot.c.slot_no == turn.slot_no, slot.c.assignment_id == turn.id)


# --- submitting -------------------------------------------------------------------------------------------------------------


# made once, as those of queue.py
SUBMITTED = update(assignment).where(assignment.c.id == bindparam("turn"))
LAST_SAID = (
    select(judgment.c.assignment_id, judgment.c.rev, judgment.c.is_surplus)
    .where(judgment.c.assignment_id == bindparam("turn"))
    .order_by(judgment.c.rev.desc())
    .limit(1)
    .subquery()
)
SENT = and_(idempotency.c.user_id == bindparam("user"), idempotency.c.key == bindparam("given"))
BEFORE = (  # once the turn is locked, which making its item practice waits for: what kind it is, what was said in it so far, and
    # the receipt of this submission if it was sent before
    select(item.c.kind, idempotency.c.body_sha256, idempotency.c.response_json, LAST_SAID.c.rev, LAST_SAID.c.is_surplus)
    .select_from(
        assignment.join(item, item.c.id == assignment.c.item_id)
        .outerjoin(LAST_SAID, LAST_SAID.c.assignment_id == assignment.c.id)
        .outerjoin(idempotency, SENT)
    )
    .where(assignment.c.id == bindparam("turn"))
)
KEPT = insert(idempotency)
JUDGED = insert(judgment)
COUNTED = {
    name: update(item).where(item.c.id == bindparam("counted")).values({name: item.c[name] + 1})
    for name in ("n_done", "n_surplus")
}
OWN_SLOT = update(slot).where(
    slot.c.item_id == bindparam("item"), slot.c.slot_no == bindparam("number"), slot.c.assignment_id == bindparam("turn"),
    slot.c.state == "leased",
)  # fmt: skip


def submit(connection: Connection, *, assignment_id: str, user_id: str, key: str, said: Said, now: int) -> Receipt:
    """Store a judgment. Repeating it with the same ``key`` changes nothing and returns the same receipt."""
    turn = mine(connection, assignment_id, user_id, ASKED)
    digest = fingerprint(as_json([assignment_id, said.answers]).encode(errors="surrogatepass"))
    before = connection.execute(BEFORE, {"turn": assignment_id, "user": user_id, "given": key}).one()
    if before.response_json is not None:
        return replayed(before, digest)
    if turn.state == "submitted":
        raise Refused(409, "already_submitted", "this was submitted already; recall it to change it")
    schema, tags = schema_of(turn.schema_json), json.loads(turn.prompt_json).get("tags", ())
    answers = checked(schema, said.answers, json.loads(turn.shown_json), tags=tags)
    rev, is_surplus = placed(connection, turn, user_id, before)
    told = feedback(connection, turn, schema, answers) if before.kind == "practice" else None
    receipt = Receipt(new_id(now), rev, is_surplus, is_replay=False, feedback=told)
    kept = {"user_id": user_id, "key": key, "body_sha256": digest, "response_json": as_json(receipt._asdict()), "created": now}
    changes: list[Change] = [
        (JUDGED, new_judgment(turn, receipt, answers, said, now)),
        (SUBMITTED, {"turn": turn.id, "state": "submitted", "closed_at": now}),
        (KEPT, kept),
    ]
    if rev == 1:
        changes.append((COUNTED["n_surplus" if is_surplus else "n_done"], {"counted": turn.item_id}))
    if rev == 1 and told is None:
        done = {"submitted": 1, "surplus": int(is_surplus), "active_ms": active(turn, said, now) or 0}
        changes.append(counted(connection, turn, now, **done))
    at_once(connection, changes)
    if rev == 1 and told is None:
        quality.after_submit(connection, turn.item_id, turn.settings_json)
    return receipt


def replayed(before: Row[Any], digest: str) -> Receipt:
    """The receipt a key was answered with before."""
    if before.body_sha256 != digest:
        raise Refused(422, "key_reused", "this Idempotency-Key was used for another submission; a new one needs a new key")
    return Receipt(**json.loads(before.response_json))._replace(is_replay=True)


def placed(connection: Connection, turn: Row[Any], user_id: str, before: Row[Any]) -> tuple[int, bool]:
    """The revision a judgment is, and whether it is beyond the number wanted. Fills a slot where there is one."""
    if before.rev is not None:
        superseded = update(judgment).where(judgment.c.assignment_id == turn.id).values(is_superseded=True)
        connection.execute(superseded)
        return before.rev + 1, before.is_surplus
    return 1, not fill(connection, turn, user_id)


def fill(connection: Connection, turn: Row[Any], user_id: str) -> bool:
    """The turn's own slot done; or, where the lease was lost, any that nobody has."""
    own = {"item": turn.item_id, "number": turn.slot_no, "turn": turn.id}
    done = {"state": "done", "user_id": user_id, "lease_expires": None}
    if connection.execute(OWN_SLOT, {**own, **done}).rowcount == 1:
        return True
    free = select(slot.c.slot_no).where(slot.c.item_id == turn.item_id, slot.c.state.in_(("open", "hold")))
    number = connection.scalar(free.order_by(slot.c.slot_no).limit(1).with_for_update())
    if number is None:
        return False
    connection.execute(update(assignment).where(assignment.c.id == turn.id).values(slot_no=number))
    return occupy(connection, turn.item_id, number, user_id=user_id, assignment_id=turn.id, expires=None)


def new_judgment(turn: Row[Any], receipt: Receipt, answers: Answers, said: Said, now: int) -> dict[str, Any]:
    return {
        "id": receipt.judgment_id,
        "assignment_id": turn.id,
        "item_id": turn.item_id,
        "project_id": turn.project_id,
        "user_id": turn.user_id,
        "schema_id": turn.schema_id,
        "rev": receipt.rev,
        "body_json": as_json(answers),
        "is_surplus": receipt.is_surplus,
        "active_ms": active(turn, said, now),
        "wall_ms": max(0, now - turn.leased_at),
        "input": said.input,
        "created": now,
    }


def active(turn: Row[Any], said: Said, now: int) -> int | None:
    """Time at work, as the page measured it; never more than passed on the clock."""
    return None if said.active_ms is None else max(0, min(said.active_ms, now - turn.leased_at))


# --- not submitting ---------------------------------------------------------------------------------------------------------


def skip(connection: Connection, *, assignment_id: str, user_id: str, reason: str, now: int) -> None:
    """Leave an item to others. Where several people have skipped it, it is held and reported."""
    turn = mine(connection, assignment_id, user_id)
    if turn.state == "skipped":
        return
    let_go(connection, turn, "skipped", now)
    if not practice.is_practice(connection, turn.item_id):
        count(connection, turn, now, skipped=1)
    note(connection, turn, "skip", {"reason": reason}, now)
    skipped = and_(assignment.c.item_id == turn.item_id, assignment.c.state == "skipped")
    n = connection.scalar(select(func.count()).select_from(assignment).where(skipped)) or 0
    if n == HELD_AFTER_SKIPS:
        hold(connection, turn.item_id)
        insert_report(connection, turn, None, "skipped_often", f"skipped by {n} people, last because: {reason}", now)


def report_item(connection: Connection, *, assignment_id: str, user_id: str, reason: str, words: str, now: int) -> None:
    """Something is wrong with an item: nobody gets it until a manager has looked."""
    turn = mine(connection, assignment_id, user_id)
    if turn.state == "reported":
        return
    let_go(connection, turn, "reported", now)
    hold(connection, turn.item_id)
    insert_report(connection, turn, user_id, reason, words, now)


def release(connection: Connection, *, assignment_id: str, user_id: str, now: int) -> None:
    """Give an item back, perhaps to get it again later; the draft stays."""
    turn = mine(connection, assignment_id, user_id)
    if turn.state != "released":
        let_go(connection, turn, "released", now)


def let_go(connection: Connection, turn: Row[Any], state: str, now: int) -> None:
    if turn.state in ("submitted", "recalled"):
        raise Refused(409, "already_submitted", "this was submitted already")
    change = {"state": state, "closed_at": now}
    connection.execute(update(assignment).where(assignment.c.id == turn.id).values(change))
    held = select(slot.c.slot_no).where(is_slot_of(turn), slot.c.state == "leased").with_for_update()
    if connection.execute(held).first() is not None:
        reopen(connection, turn.project_id, [(turn.item_id, turn.slot_no)])


def hold(connection: Connection, item_id: str) -> None:
    """Keep an item from the queue; who works on it already may finish."""
    connection.execute(update(item).where(item.c.id == item_id, item.c.status == "active").values(status="held"))
    connection.execute(update(slot).where(slot.c.item_id == item_id, text("slot.state = 'open'")).values(state="hold"))


def insert_report(connection: Connection, turn: Row[Any], user_id: str | None, reason: str, words: str, now: int) -> None:
    row = {
        "id": new_id(now), "project_id": turn.project_id, "item_id": turn.item_id, "user_id": user_id,
        "reason": reason, "text": words, "state": "open", "created": now,
    }  # fmt: skip
    connection.execute(insert(report).values(row))


def recall(connection: Connection, *, assignment_id: str, user_id: str, now: int) -> None:
    """Open a submitted turn again. What was said stands until something else is submitted."""
    turn = mine(connection, assignment_id, user_id)
    if turn.state == "recalled":
        return
    if turn.state != "submitted":
        raise Refused(409, "not_submitted", "only what was submitted can be recalled")
    if now - turn.closed_at > RECALL_MS and assignment_id not in last_submitted(connection, turn):
        raise Refused(409, "too_late", f"recalling is for {RECALL_MS // MINUTE} minutes, or one's last {RECALL_LAST}")
    lease = schema_by_id(connection, turn.schema_id).lease
    change = {"state": "recalled", "lease_expires": now + lease.minutes * MINUTE}
    connection.execute(update(assignment).where(assignment.c.id == turn.id).values(change))
    note(connection, turn, "recall", {}, now)


def last_submitted(connection: Connection, turn: Row[Any]) -> set[str]:
    same = and_(
        assignment.c.user_id == turn.user_id, assignment.c.project_id == turn.project_id, assignment.c.state == "submitted"
    )
    rows = connection.execute(select(assignment.c.id).where(same).order_by(assignment.c.closed_at.desc()).limit(RECALL_LAST))
    return {row.id for row in rows}


# --- counting ---------------------------------------------------------------------------------------------------------------


def count(connection: Connection, turn: Row[Any], now: int, **more: int) -> None:
    """Add to what this person did today."""
    at_once(connection, [counted(connection, turn, now, **more)])


def counted(connection: Connection, turn: Row[Any], now: int, **more: int) -> Change:
    key = {"project_id": turn.project_id, "user_id": turn.user_id, "day": now // DAY}
    return upsert(tally, tuple(more), True, is_sqlite(connection)), {**key, **more}


def note(connection: Connection, turn: Row[Any], action: str, detail: dict[str, Any], now: int) -> None:
    row = {
        "id": new_id(now), "project_id": turn.project_id, "user_id": turn.user_id, "action": action,
        "object_id": turn.id, "detail_json": as_json(detail), "created": now,
    }  # fmt: skip
    connection.execute(insert(event).values(row))
