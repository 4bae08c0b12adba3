"""The annotator's routes: the next item, drafts, submits, and giving back.

What goes out holds nothing of where an answer came from, what others said, or what an answer is called anywhere else: a screen
has letters.
"""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection, and_, or_, select

from prefloop.collect import answers, consent, media, queue, reviews, turns
from prefloop.collect.accounts import Principal
from prefloop.collect.database import Work
from prefloop.collect.feedback import told_before
from prefloop.collect.identity import now_ms
from prefloop.collect.rank_string import LETTERS
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import TaskSchema, schema_of
from prefloop.collect.tables import assignment, item_body, judgment, project, task_schema
from prefloop.collect.web.service import service_of
from prefloop.collect.web.shapes import Agreement, DraftBody, Next, Reason, Submission
from prefloop.collect.web.who import Here, in_project, scoped

router = APIRouter(tags=["work"])
Worker = Annotated[Principal, Depends(scoped("annotate"))]
AtWork = Annotated[Here, Depends(in_project("annotate"))]
PAGE = 50


@router.post("/projects/{project}/next", responses={204: {"description": "Nothing to do; Prefloop-Reason says why"}})
def next_turn(request: Request, here: AtWork, body: Next | None = None) -> Any:
    """The item one is at, or the next; 204 with a reason where there is none."""
    service = service_of(request)
    beside = body.beside if body else []
    found = service.write(queue.claim, project_id=here.project.id, user_id=here.who.user_id, beside=beside)
    if isinstance(found, queue.Turn):
        return JSONResponse(screen(service.database.read, found))  # nothing in it is to be converted
    headers = {"Prefloop-Reason": found.reason}
    if found.until is not None:
        headers["Prefloop-Until"] = str(found.until)
    return Response(status_code=204, headers=headers)


@router.post("/projects/{project}/consent", status_code=204)
def give_consent(request: Request, body: Agreement, here: AtWork) -> None:
    """Agree to what the project asks for; ``words`` is what the refusal called them by."""
    given = {"project_id": here.project.id, "user_id": here.who.user_id, "words": body.words}
    service_of(request).write(consent.give, **given)


@router.get("/projects/{project}/why-empty")
def why_empty(request: Request, here: AtWork) -> dict[str, Any]:
    """Why there may be nothing for one to do."""
    service = service_of(request)
    if here.project.state != "active":
        return {"reason": "paused", "until": None}
    return service.read(queue.why_empty, project_id=here.project.id, now=service.database.clock())._asdict()


@router.get("/assignments/{identity}")
def get_assignment(request: Request, identity: str, who: Worker) -> dict[str, Any]:
    """A turn of one's own, as its screen showed it."""

    def look(connection: Connection) -> dict[str, Any]:
        owner = connection.scalar(select(assignment.c.user_id).where(assignment.c.id == identity))
        if owner != who.user_id:
            raise not_found("assignment")
        turn = queue.turn_of(connection, identity)
        return {**screen(lambda work: work(connection), turn), **told_before(connection, turn)}

    return service_of(request).read(look)


def screen(read: Callable[[Work[Any]], Any], turn: queue.Turn) -> dict[str, Any]:
    """What the page needs to draw a turn, and nothing else; of a new one everything is known without another look."""
    mine = turn.assignment
    schema, asked_about = on_screens(mine.schema_json)
    order = json.loads(mine.shown_json)
    content = {completion["id"]: completion["content"] for completion in json.loads(turn.completions_json)}
    prompt = json.loads(turn.prompt_json)
    shown = partial(media.on_screen, secret=turn.secret, user_id=mine.user_id, now=now_ms())
    return {
        "assignment": mine.id,
        "project": turn.project,
        "state": mine.state,
        "lease_expires": mine.lease_expires,
        "schema_version": turn.schema_version,
        "schema": schema,
        "prompt": {"messages": prompt["messages"], "tags": sorted(asked_about & set(prompt["tags"]))},
        "completions": [
            {"id": letter, "content": shown(content[completion])} for letter, completion in zip(LETTERS, order, strict=False)
        ],
        "draft": {"rev": turn.draft.rev, "body": json.loads(turn.draft.body_json)} if turn.draft else None,
        "answers": read(partial(said_before, turn=turn, order=order)) if mine.state in ("submitted", "recalled") else None,
        "returned": read(partial(reviews.returned, assignment_id=mine.id)) if mine.state == "recalled" else None,
    }


@lru_cache(maxsize=256)
def on_screens(body_json: str) -> tuple[dict[str, Any], set[str]]:
    """What every screen of a schema says of it, made once: the schema, and the tags it asks about."""
    schema = schema_of(body_json)
    return schema.model_dump(mode="json"), asked_tags(schema)


def asked_tags(schema: TaskSchema) -> set[str]:
    """The tags of prompts that decide what is asked; all others stay here."""
    conditions = [
        one for stage in schema.stages for question in stage.questions for one in (question.show_if, question.required_if)
    ]
    return {str(condition["prompt_tag"]) for condition in conditions if "prompt_tag" in condition}


def said_before(connection: Connection, turn: queue.Turn, order: list[str]) -> dict[str, Any] | None:
    """What this person submitted, in the letters of this screen."""
    here = and_(judgment.c.assignment_id == turn.assignment.id, judgment.c.is_superseded.is_(False))
    stored = connection.scalar(select(judgment.c.body_json).where(here))
    return answers.on_screen(turn.schema, json.loads(stored), order) if stored else None


@router.put("/assignments/{identity}/draft")
def put_draft(
    request: Request, response: Response, identity: str, body: DraftBody, who: Worker, if_match: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    """Save what is typed. If-Match names the revision it continues, 0 for the first; 412 where it is another one."""
    rev = if_match.strip().strip('"')
    if not rev.isascii() or not rev.isdigit() or len(rev) > 9:
        raise Refused(428, "if_match_needed", "If-Match: the revision this draft continues, 0 for the first")
    given = {"assignment_id": identity, "user_id": who.user_id}
    saved = service_of(request).write(turns.save_draft, rev=int(rev), body=body.body, **given)
    response.headers["ETag"] = f'"{saved.rev}"'
    return saved._asdict()


@router.post("/assignments/{identity}/heartbeat")
def heartbeat(request: Request, identity: str, who: Worker) -> dict[str, Any]:
    """Still at it."""
    return service_of(request).write(turns.heartbeat, assignment_id=identity, user_id=who.user_id)._asdict()


@router.post("/assignments/{identity}/submit", responses={202: {"description": "Kept, beyond the number wanted"}})
def submit(
    request: Request,
    response: Response,
    identity: str,
    body: Submission,
    who: Worker,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
) -> dict[str, Any]:
    """Store a judgment: 200 once it is on disk, 202 where it is beyond the number wanted. Safe to repeat with its key.

    Of practice, and of nothing else, the answer holds ``feedback``: ``score`` from 0 to 1, what was ``expected`` in the letters
    of the screen, and ``why``.
    """
    if not idempotency_key or not idempotency_key.isprintable():
        raise Refused(400, "key_needed", "Idempotency-Key: any text of your own, the same whenever this submission is sent again")
    said = turns.Said(body.answers, body.active_ms, body.input)
    given = {"assignment_id": identity, "user_id": who.user_id, "key": idempotency_key}
    receipt = service_of(request).write(turns.submit, said=said, **given)
    if receipt.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    elif receipt.is_surplus:
        response.status_code = 202
    told = {} if receipt.feedback is None else {"feedback": receipt.feedback}
    return {"judgment": receipt.judgment_id, "rev": receipt.rev, "surplus": receipt.is_surplus, **told}


@router.post("/assignments/{identity}/skip", status_code=204)
def skip(request: Request, identity: str, body: Reason, who: Worker) -> None:
    """Leave it to others."""
    service_of(request).write(turns.skip, assignment_id=identity, user_id=who.user_id, reason=body.reason)


@router.post("/assignments/{identity}/report", status_code=204)
def report(request: Request, identity: str, body: Reason, who: Worker) -> None:
    """Something is wrong with it."""
    given = {"assignment_id": identity, "user_id": who.user_id, "reason": body.reason, "words": body.text}
    service_of(request).write(turns.report_item, **given)


@router.post("/assignments/{identity}/release", status_code=204)
def release(request: Request, identity: str, who: Worker) -> None:
    """Give it back."""
    service_of(request).write(turns.release, assignment_id=identity, user_id=who.user_id)


@router.post("/assignments/{identity}/recall")
def recall(request: Request, identity: str, who: Worker) -> dict[str, Any]:
    """Open a submitted turn again."""
    service = service_of(request)
    service.write(turns.recall, assignment_id=identity, user_id=who.user_id)
    return screen(service.database.read, service.read(queue.turn_of, assignment_id=identity))


@router.get("/me/history")
def history(request: Request, who: Worker, project_name: str = "", cursor: str = "") -> dict[str, Any]:
    """One's own turns, the latest first."""

    def look(connection: Connection) -> dict[str, Any]:
        joined = (
            assignment.join(item_body, item_body.c.item_id == assignment.c.item_id)
            .join(project, project.c.id == assignment.c.project_id)
            .join(task_schema, task_schema.c.id == assignment.c.schema_id)
        )
        wanted = select(assignment, item_body.c.prompt_json, project.c.slug, task_schema.c.body_json).select_from(joined)
        wanted = wanted.where(assignment.c.user_id == who.user_id).order_by(assignment.c.id.desc()).limit(PAGE)
        if project_name:
            wanted = wanted.where(or_(project.c.slug == project_name, project.c.id == project_name))
        if cursor:
            wanted = wanted.where(assignment.c.id < cursor)
        rows = connection.execute(wanted).all()
        return {"turns": [past(row) for row in rows], "cursor": rows[-1].id if len(rows) == PAGE else None}

    return service_of(request).read(look)


def past(row: Any) -> dict[str, Any]:
    prompt = json.loads(row.prompt_json)["messages"][-1]["content"]
    title = schema_of(row.body_json).title
    times = {"leased_at": row.leased_at, "closed_at": row.closed_at}
    return {"assignment": row.id, "project": row.slug, "title": title, "state": row.state, "prompt": prompt[:200], **times}
