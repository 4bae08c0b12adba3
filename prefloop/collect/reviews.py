"""Looking over what was said: which items need a look, verdicts on judgments, and what an item comes to.

    accept   a judgment is fine
    return   it goes back to its annotator with a comment, for another revision; what was said stands until then
    reject   it counts no more: it leaves exports and statistics, and somebody else is asked instead; nothing is deleted

An item is decided by one of four methods: all its judgments stand, one of them does, their consensus does, or the reviewer's
own answers. Deciding takes it out of the queue of reviews; deciding again replaces the decision.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, insert, or_, select, update

from prefloop.collect import media, practice, queue
from prefloop.collect.answers import checked
from prefloop.collect.asked import current_schema
from prefloop.collect.identity import as_json, new_id, now_ms
from prefloop.collect.planted import gold_score
from prefloop.collect.quality import confidence_of
from prefloop.collect.quality_settings import QualityConfig, floor_ms, quality_of
from prefloop.collect.recent import Opined, opined
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import TaskSchema, completion_ids
from prefloop.collect.tables import assignment, final, item, item_body, judgment, project, report, review, slot, tally
from prefloop.stats.agreement import marks, pair_signs
from prefloop.stats.consensus import consensus

Json = dict[str, Any]
PAGE = 40
LOOKED_AT = 400  # items one page of the queue looks at
RETURN_DAYS = 14  # for which a returned turn waits for its annotator
DAY = 86_400_000
REASONS = ("reported", "disagreement", "low_confidence", "gold_fail", "too_fast")
VERDICTS = ("accept", "return", "reject")

# --- the queue --------------------------------------------------------------------------------------------------------------


def waiting(connection: Connection, here: Row[Any], *, reason: str = "", cursor: str = "") -> Json:
    """Items with a reason to be looked at, that nobody has decided; a cursor goes on where this page stopped looking."""
    if reason and reason not in REASONS:
        raise Refused(422, "bad_filter", f"reasons: {', '.join(REASONS)}")
    settings = quality_of(here.settings_json)
    found: list[Json] = []
    n_looked = 0
    while len(found) < PAGE and n_looked < LOOKED_AT:
        ids = undecided(connection, here.id, cursor)
        if not ids:
            return {"items": found, "cursor": None}
        reported = reports_of(connection, ids)
        for one in opined(connection, here, ids):
            n_looked, cursor = n_looked + 1, one.item_id
            row = looked_at(one, settings, reported.get(one.item_id, []))
            if row["reasons"] and (not reason or reason in row["reasons"]):
                found.append(row)
            if len(found) == PAGE:
                break
    return {"items": found, "cursor": cursor}


def undecided(connection: Connection, project_id: str, cursor: str) -> list[str]:
    is_decided = exists().where(final.c.item_id == item.c.id)
    is_reported = exists().where(report.c.item_id == item.c.id, report.c.state == "open")
    here = and_(item.c.project_id == project_id, item.c.id > cursor, item.c.status != "removed", ~is_decided)
    is_judged = and_(item.c.n_done + item.c.n_surplus > 0, item.c.kind != "practice")
    here = and_(here, item.c.kind != "repeat", or_(is_judged, is_reported))
    return list(connection.scalars(select(item.c.id).where(here).order_by(item.c.id).limit(100)))


def reports_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[Json]]:
    wanted = select(report).where(report.c.item_id.in_(ids), report.c.state == "open").order_by(report.c.id)
    found: dict[str, list[Json]] = {}
    for row in connection.execute(wanted):
        found.setdefault(row.item_id, []).append({"id": row.id, "reason": row.reason, "text": row.text, "created": row.created})
    return found


def looked_at(one: Opined, settings: QualityConfig, reported: list[Json]) -> Json:
    """A row of the queue."""
    agreement, confidence = agreement_in(one), confidence_in(one)
    is_several = len(one.opinions) > 1
    is_fast = any(
        opinion.active_ms is not None and opinion.active_ms < floor_ms(settings, one.n_characters) for opinion in one.opinions
    )
    holds = {
        "reported": bool(reported),
        "disagreement": agreement is not None and agreement < 0.5,
        "low_confidence": is_several and confidence is not None and confidence < settings.review_below,
        "gold_fail": any(score < settings.gold_pass - 1e-9 for score in gold_scores(one)),
        "too_fast": is_fast,
    }
    if one.kind == "practice":  # what is said of it is nobody's concern, only that something may be wrong with it
        holds = {name: holds[name] and name == "reported" for name in REASONS}
    return {
        "id": one.item_id, "kind": one.kind, "prompt": one.prompt["messages"][-1]["content"][:200], "n": len(one.opinions),
        "agreement": agreement, "confidence": confidence, "reasons": [name for name in REASONS if holds[name]],
    }  # fmt: skip


def agreement_in(one: Opined) -> float | None:
    orders = [opinion.places for opinion in one.orders]
    mark, n = marks(pair_signs(orders), "half") if len(orders) > 1 else (0.0, 0.0)
    return float(mark / n) if n else None


def confidence_in(one: Opined) -> float | None:
    if not one.opinions:
        return None
    newest = max(one.opinions, key=lambda opinion: opinion.version)
    said = [opinion.said for opinion in one.opinions if opinion.version == newest.version]
    return confidence_of(newest.schema, said, one.names)


def gold_scores(one: Opined) -> list[float]:
    if one.kind not in ("gold", "check") or one.planted is None:
        return []
    orders = [order_again(opinion.places, one.names) for opinion in one.orders]
    return [gold_score(one.planted["expected"], (tiers, []), one.names) for tiers in orders]


def order_again(places: Sequence[float] | None, names: Sequence[str]) -> list[list[str]]:
    """Tiers from places; what is unusable is the last of them."""
    known = [place for place in places or () if place == place]
    return [[name for name, place in zip(names, places or (), strict=True) if place == value] for value in sorted(set(known))]


# --- one item, whole --------------------------------------------------------------------------------------------------------


def whole(connection: Connection, here: Row[Any], item_id: str, user_id: str) -> Json:
    """What a reviewer decides on. Who said what, and where answers come from, is told once it is decided."""
    shown = partial(media.on_screen, secret=here.secret, user_id=user_id, now=now_ms())
    (one,) = opined(connection, here, [item_id])
    decided = connection.execute(select(final).where(final.c.item_id == item_id)).first()
    verdicts = {
        row.judgment_id: row
        for row in connection.execute(select(review).where(review.c.item_id == item_id).order_by(review.c.id))
    }
    row = looked_at(one, quality_of(here.settings_json), reports_of(connection, [item_id]).get(item_id, []))
    completions = [
        {
            "id": completion["id"],
            "content": shown(completion["content"]),
            **({"source": completion.get("source", "")} if decided else {}),
        }
        for completion in one.completions
    ]
    judgments = [
        {
            "id": opinion.id, "answers": opinion.said.answers, "shown": list(opinion.said.shown), "places": of_json(opinion.places),
            "active_ms": opinion.active_ms, "created": opinion.created, "is_surplus": opinion.is_surplus, "version": opinion.version,
            "verdict": verdicts[opinion.id].verdict if opinion.id in verdicts else None,
            **({"annotator": opinion.annotator} if decided else {}),
        }
        for opinion in one.opinions
    ]  # fmt: skip
    schema = newest_schema(connection, here.id)[1] if not one.opinions else max(one.opinions, key=lambda x: x.version).schema
    return {
        **row, "status": one.status, "project": here.slug, "prompt": one.prompt, "completions": completions, "judgments": judgments,
        "schema": schema.model_dump(mode="json"), "consensus": consensus_of(one), "expected": (one.planted or {}).get("expected"),
        "reports": reports_of(connection, [item_id]).get(item_id, []), "final": decided_json(decided),
    }  # fmt: skip


def of_json(places: Sequence[float] | None) -> list[float | None] | None:
    return None if places is None else [place if place == place else None for place in places]


def consensus_of(one: Opined) -> Json | None:
    orders = [opinion.places for opinion in one.orders if opinion.places is not None]
    if not orders:
        return None
    found = consensus(orders)
    tiers = [[one.names[i] for i in tier] for tier in found.tiers]
    return {"tiers": tiers, "confidence": found.confidence, "gap": found.gap, "method": found.method}


def decided_json(row: Row[Any] | None) -> Json | None:
    if row is None:
        return None
    return {
        "method": row.method, "answers": json.loads(row.body_json), "judgment": row.judgment_id, "comment": row.comment,
        "created": row.created,
    }  # fmt: skip


def newest_schema(connection: Connection, project_id: str) -> tuple[str, TaskSchema, int]:
    return current_schema(connection, project_id)


# --- verdicts ---------------------------------------------------------------------------------------------------------------


def judge(connection: Connection, *, judgment_id: str, user_id: str, verdict: str, comment: str, now: int) -> None:
    """A verdict on one judgment that stands."""
    if verdict not in VERDICTS:
        raise Refused(422, "bad_verdict", f"a verdict is {', '.join(VERDICTS)}")
    if verdict == "return" and not comment.strip():
        raise Refused(422, "comment_needed", "say what is to be done differently: returning needs a comment")
    turn_id = connection.scalar(select(judgment.c.assignment_id).where(judgment.c.id == judgment_id))
    turn = connection.execute(select(assignment).where(assignment.c.id == turn_id).with_for_update()).first()
    one = connection.execute(select(judgment).where(judgment.c.id == judgment_id)).first()
    if one is None or turn is None:
        raise not_found("judgment")
    if one.is_superseded:
        raise Refused(409, "superseded", "this judgment was corrected since; look at the newer one")
    if is_rejected(connection, judgment_id):
        raise Refused(409, "rejected", "this judgment was rejected already")
    if turn.user_id == user_id:
        raise Refused(403, "own_judgment", "one's own judgment is for somebody else to review")
    row = {
        "id": new_id(now), "project_id": one.project_id, "item_id": one.item_id, "judgment_id": judgment_id, "user_id": user_id,
        "verdict": verdict, "comment": comment, "created": now,
    }  # fmt: skip
    connection.execute(insert(review).values(row))
    if verdict == "return":
        change = {"state": "recalled", "lease_expires": now + RETURN_DAYS * DAY}
        connection.execute(update(assignment).where(assignment.c.id == turn.id).values(change))
    elif verdict == "reject":
        withdraw(connection, turn, one)


def is_rejected(connection: Connection, judgment_id: str) -> bool:
    here = and_(review.c.judgment_id == judgment_id, review.c.verdict == "reject")
    return connection.execute(select(review.c.id).where(here)).first() is not None


def withdraw(connection: Connection, turn: Row[Any], one: Row[Any]) -> None:
    """Count a judgment as one beyond the number wanted, and open its place for somebody else."""
    closed = {"state": "submitted"} if turn.state == "recalled" else {}
    if closed:
        connection.execute(update(assignment).where(assignment.c.id == turn.id).values(closed))
    if one.is_surplus:
        return
    connection.execute(update(judgment).where(judgment.c.assignment_id == turn.id).values(is_surplus=True))
    counts = {"n_done": item.c.n_done - 1, "n_surplus": item.c.n_surplus + 1}
    connection.execute(update(item).where(item.c.id == turn.item_id).values(counts))
    first = select(judgment.c.created).where(judgment.c.assignment_id == turn.id, judgment.c.rev == 1)
    day = int(connection.scalar(first) or 0) // DAY
    of_day = and_(tally.c.project_id == turn.project_id, tally.c.user_id == turn.user_id, tally.c.day == day)
    if not practice.is_practice(connection, turn.item_id):
        connection.execute(update(tally).where(of_day).values(surplus=tally.c.surplus + 1))
    held = and_(slot.c.item_id == turn.item_id, slot.c.assignment_id == turn.id, slot.c.state == "done")
    number = connection.scalar(select(slot.c.slot_no).where(held).with_for_update())
    if number is not None:
        queue.reopen(connection, turn.project_id, [(turn.item_id, number)])


def returned(connection: Connection, assignment_id: str) -> str | None:
    """What a reviewer wrote when a turn came back, as long as it has not been answered."""
    joined = review.join(judgment, judgment.c.id == review.c.judgment_id)
    here = and_(judgment.c.assignment_id == assignment_id, judgment.c.is_superseded.is_(False), review.c.verdict == "return")
    wanted = select(review.c.comment).select_from(joined).where(here).order_by(review.c.id.desc()).limit(1)
    return connection.scalar(wanted)


# --- deciding ---------------------------------------------------------------------------------------------------------------


def decide(
    connection: Connection, *, item_id: str, user_id: str, method: str, judgment_id: str, answers: Mapping[str, Any] | None,
    comment: str, now: int,
) -> None:  # fmt: skip
    """What an item comes to. ``answers`` are under letters, in the order in which the item lists its completions."""
    one = connection.execute(select(item).where(item.c.id == item_id).with_for_update()).first()
    if one is None:
        raise not_found("item")
    here = connection.execute(select(project).where(project.c.id == one.project_id)).one()
    schema_id, body = decision(connection, here, item_id, method, judgment_id, answers)
    connection.execute(delete(final).where(final.c.item_id == item_id))
    row = {
        "item_id": item_id, "project_id": one.project_id, "schema_id": schema_id, "method": method, "body_json": as_json(body),
        "judgment_id": judgment_id or None, "user_id": user_id, "comment": comment, "created": now,
    }  # fmt: skip
    connection.execute(insert(final).values(row))
    connection.execute(update(report).where(report.c.item_id == item_id, report.c.state == "open").values(state="fixed"))


def decision(
    connection: Connection, here: Row[Any], item_id: str, method: str, judgment_id: str, answers: Mapping[str, Any] | None
) -> tuple[str, Json]:
    """The version of the questions that is answered, and the answers."""
    schema_id, schema, _ = newest_schema(connection, here.id)
    if method == "all":
        return schema_id, {}
    if method == "judgment":
        given = and_(judgment.c.id == judgment_id, judgment.c.item_id == item_id)
        chosen = connection.execute(select(judgment).where(given)).first()
        if chosen is None:
            raise not_found("judgment of this item")
        return chosen.schema_id, json.loads(chosen.body_json)
    if method == "consensus":
        (one,) = opined(connection, here, [item_id])
        found, asked = consensus_of(one), schema.of_type("rank")
        if found is None or not asked:
            raise Refused(409, "no_consensus", "there is no order that several people gave; decide another way")
        stage, question = asked[0]
        return schema_id, {stage.id: {question.id: {"tiers": found["tiers"], "unusable": []}}}
    if method == "answers":
        body = connection.execute(select(item_body).where(item_body.c.item_id == item_id)).one()
        tags = json.loads(body.prompt_json).get("tags", ())
        return schema_id, checked(schema, answers, completion_ids(body.completions_json), tags=tags)
    raise Refused(422, "bad_method", "an item is decided by all, judgment, consensus or answers")
