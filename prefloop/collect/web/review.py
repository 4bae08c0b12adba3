"""The reviewer's routes: what waits for a look, one item with everything said of it, verdicts and decisions."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from prefloop.collect import reviews
from prefloop.collect.web import shapes
from prefloop.collect.web.service import service_of
from prefloop.collect.web.who import Here, in_project, in_project_of

router = APIRouter(tags=["review"])
Reviewer = Annotated[Here, Depends(in_project("read"))]
OfItem = Annotated[Here, Depends(in_project_of("read", "item"))]
OfJudgment = Annotated[Here, Depends(in_project_of("read", "judgment"))]


@router.get("/projects/{project}/review-queue")
def review_queue(request: Request, here: Reviewer, reason: str = "", cursor: str = "") -> dict[str, Any]:
    """Undecided items that were reported, on which people disagree, that failed as gold or were judged too fast."""
    return service_of(request).read(reviews.waiting, here=here.project, reason=reason, cursor=cursor)


@router.get("/items/{identity}/review")
def review_item(request: Request, identity: str, here: OfItem) -> dict[str, Any]:
    """One item with its judgments; names and sources only once it is decided."""
    return service_of(request).read(reviews.whole, here=here.project, item_id=identity, user_id=here.who.user_id)


@router.post("/judgments/{identity}/review", status_code=204)
def review_judgment(request: Request, identity: str, body: shapes.Verdict, here: OfJudgment) -> None:
    """accept, return (with a comment, to its annotator), or reject (it counts no more, and somebody else is asked)."""
    given = {"judgment_id": identity, "user_id": here.who.user_id, "verdict": body.verdict, "comment": body.comment}
    service_of(request).write(reviews.judge, **given)


@router.post("/items/{identity}/adjudicate", status_code=204)
def adjudicate(request: Request, identity: str, body: shapes.Decision, here: OfItem) -> None:
    """What an item comes to: all its judgments, one of them, their consensus, or the reviewer's own answers."""
    given = {"item_id": identity, "user_id": here.who.user_id, "judgment_id": body.judgment, "answers": body.answers}
    service_of(request).write(reviews.decide, method=body.method, comment=body.comment, **given)
