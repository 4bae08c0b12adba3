"""Routes of live chats. A turn is answered with 202 at once; its page asks for the chat until the replies are there."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import AfterValidator, Field

from prefloop.collect import chat, consent, turns
from prefloop.collect.refusals import Refused
from prefloop.collect.web.service import Service, service_of
from prefloop.collect.web.shapes import Body, Submission, storable
from prefloop.collect.web.who import Here, in_project
from prefloop.collect.web.work import AtWork, Worker

router = APIRouter(tags=["chat"])
Manager = Annotated[Here, Depends(in_project("manage"))]


class NewChat(Body):
    red_team: bool = False


class Words(Body):
    text: Annotated[str, Field(max_length=chat.MAX_WORDS), AfterValidator(storable)]


class Choice(Submission):
    go_on_with: str = Field("", max_length=1)


class Trial(Body):
    backend: str = Field(max_length=60)
    text: Annotated[str, Field(min_length=1, max_length=chat.MAX_WORDS), AfterValidator(storable)] = "Say hello."


class ChatChange(Body):
    backends: dict[str, float] | None = None
    k: int | None = None
    system: str | None = None


@router.get("/projects/{project}/chat")
def get_settings(request: Request, here: Manager) -> dict[str, Any]:
    """What answers the chats of a project, and what could."""
    listed = service_of(request).talk.config.backends
    known = [{"name": one.name, "model": one.model or one.python, "weight": one.weight} for one in listed]
    return {"known": known, **chat.settings_of(here.project.settings_json).model_dump()}


@router.patch("/projects/{project}/chat")
def set_settings(request: Request, body: ChatChange, here: Manager) -> dict[str, Any]:
    """Which back-ends answer, how many replies a turn gets, what is said before every conversation."""
    service = service_of(request)
    given = {"project_id": here.project.id, "change": body.model_dump(exclude_none=True), "config": service.talk.config}
    return service.write(chat.set_settings, **given).model_dump()


@router.post("/projects/{project}/chat/try")
def try_backend(request: Request, body: Trial, here: Manager) -> dict[str, Any]:
    """Ask one back-end something, before anybody is let in: what it says, or why it says nothing, and how long that took."""
    service, settings = service_of(request), chat.settings_of(here.project.settings_json)
    named = [one for one in service.talk.config.backends if one.name == body.backend]
    if not named:
        raise Refused(422, "bad_chat", f"no back-end is called {body.backend!r}")
    said = [{"role": "system", "content": settings.system}] if settings.system else []
    return service.talk.trial(named[0], [*said, {"role": "user", "content": body.text}])


@router.post("/projects/{project}/chats", status_code=201)
def new_chat(request: Request, body: NewChat, here: AtWork) -> dict[str, Any]:
    """Begin a conversation."""
    given = {"project_id": here.project.id, "user_id": here.who.user_id, "is_red_team": body.red_team}
    service = service_of(request)
    service.read(consent.refuse_without, project_id=here.project.id, user_id=here.who.user_id)
    return shown(service, service.write(chat.start, **given), here.who.user_id)


@router.get("/projects/{project}/chats")
def list_chats(request: Request, here: AtWork) -> list[dict[str, Any]]:
    """One's own, the latest first."""
    return service_of(request).read(chat.listed, project_id=here.project.id, user_id=here.who.user_id)


@router.get("/chats/{identity}")
def get_chat(request: Request, identity: str, who: Worker) -> dict[str, Any]:
    """A conversation of one's own as it stands."""
    return shown(service_of(request), identity, who.user_id)


def shown(service: Service, identity: str, user_id: str) -> dict[str, Any]:
    """As it stands now: a turn whose time is up is settled first."""
    seen = service.read(chat.view, chat_id=identity, user_id=user_id)
    late = service.read(chat.is_due, chat_id=identity, now=service.database.clock())
    if not late:
        return seen
    service.write(chat.settle, turn_id=late)
    return service.read(chat.view, chat_id=identity, user_id=user_id)


@router.post("/chats/{identity}/turns", status_code=202)
def say(request: Request, identity: str, body: Words, who: Worker) -> dict[str, Any]:
    """Write the next turn; the replies are shown together, once they are there."""
    service = service_of(request)
    given = {"chat_id": identity, "user_id": who.user_id, "words": body.text, "config": service.talk.config}
    service.talk.begin(service.write(chat.say, **given))
    return shown(service, identity, who.user_id)


@router.post("/chats/{identity}/regenerate", status_code=202)
def regenerate(request: Request, identity: str, who: Worker) -> dict[str, Any]:
    """Ask again, where too few replies came."""
    service = service_of(request)
    given = {"chat_id": identity, "user_id": who.user_id, "config": service.talk.config}
    service.talk.begin(service.write(chat.regenerate, **given))
    return shown(service, identity, who.user_id)


@router.post("/chats/{identity}/choose")
def choose(
    request: Request, identity: str, body: Choice, who: Worker, idempotency_key: Annotated[str, Header(max_length=200)] = ""
) -> dict[str, Any]:
    """Judge the replies, and go on with one of them. Safe to repeat with its key."""
    if not idempotency_key or not idempotency_key.isprintable():
        raise Refused(400, "key_needed", "Idempotency-Key: any text of your own, the same whenever this is sent again")
    service = service_of(request)
    said = turns.Said(body.answers, body.active_ms, body.input)
    given = {"chat_id": identity, "user_id": who.user_id, "key": idempotency_key, "said": said, "go_on_with": body.go_on_with}
    service.write(chat.choose, **given)
    return shown(service, identity, who.user_id)


@router.post("/chats/{identity}/close", status_code=204)
def close(request: Request, identity: str, who: Worker) -> None:
    """End it."""
    service_of(request).write(chat.close, chat_id=identity, user_id=who.user_id)
