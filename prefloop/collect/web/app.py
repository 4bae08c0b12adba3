"""The application: routes, refusals as problem+json (RFC 9457), headers, and limits on what is sent."""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from prefloop import __version__
from prefloop.collect.database import Closed
from prefloop.collect.refusals import Refused
from prefloop.collect.room import NO_ROOM, is_full
from prefloop.collect.web import chat, manage, media, metrics, pages, people, quality, review, transfer, work
from prefloop.collect.web.document import described
from prefloop.collect.web.service import Service, service_of
from prefloop.errors import PrefloopError

Message = MutableMapping[str, Any]
API = "/api/v1"
MAX_BODY = 4 * 2**20  # of a request that is not an import
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; font-src 'self'; "
        "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types prefloop"
    ),
}


def create_app(service: Service) -> FastAPI:
    """The service as an ASGI application."""
    app = FastAPI(title="prefloop collect", version=__version__, openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None)
    app.openapi = partial(described, app)
    app.state.service = service
    app.state.panels = quality.Panels()
    for router in (
        work.router,  # first, as it is asked for most: the routes are tried in order
        people.router,
        manage.router,
        transfer.router,
        quality.router,
        review.router,
        chat.router,
        media.router,
        metrics.router,
        pages.api,
    ):
        app.include_router(router, prefix=API)
    app.include_router(pages.router)
    app.add_api_route("/health/live", live, include_in_schema=False)
    app.add_api_route("/health/ready", ready, include_in_schema=False)
    app.add_exception_handler(PrefloopError, refusal)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(DBAPIError, unavailable)
    app.add_exception_handler(OSError, unavailable)
    app.add_exception_handler(PoolTimeout, unavailable)
    app.add_middleware(Guard)
    return app


def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


def ready(request: Request) -> dict[str, str]:
    """The database answers too."""
    service_of(request).database.read(lambda connection: connection.execute(text("SELECT 1")).one())
    return {"status": "ready", "version": __version__}


# --- refusals ---------------------------------------------------------------------------------------------------------------


def problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    headers = {"Retry-After": str(more["retry_after"])} if "retry_after" in more else {}
    content = {"type": "about:blank", "status": status, "code": code, "detail": detail, **more}
    return JSONResponse(content, status_code=status, headers=headers, media_type="application/problem+json")


def refusal(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Refused):
        return problem(error.status, error.code, str(error), **error.more)
    if isinstance(error, Closed):
        return problem(503, "unavailable", "the server is stopping; try again", retry_after=2)
    return problem(422, "bad_request", str(error))


def invalid(request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    said = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}".removeprefix(": ") for one in found]
    return problem(422, "bad_request", said[0] if said else "the request is malformed", problems=said[:20])


def plain(request: Request, error: Exception) -> JSONResponse:
    status, detail = (error.status_code, str(error.detail)) if isinstance(error, HTTPException) else (500, "")
    return problem(status, {404: "not_found", 405: "method", 413: "too_long"}.get(status, "http"), detail)


def unavailable(request: Request, error: Exception) -> JSONResponse:
    """The database cannot be reached or is busy, cannot hold what was sent, or a disk is full: nothing was written."""
    if is_full(error):
        return problem(503, "disk_full", f"{NO_ROOM}; nothing was changed, try again when there is", retry_after=10)
    if isinstance(error, DataError):  # PostgreSQL has no text with a NUL in it, nor anything of that name
        return problem(422, "bad_request", "a value that the database cannot hold; nothing was changed")
    if isinstance(error, OperationalError | PoolTimeout):
        return problem(503, "unavailable", "the database does not answer; nothing was changed, try again", retry_after=2)
    raise error


# --- every request ----------------------------------------------------------------------------------------------------------


class Guard:
    """Headers on every answer, and an end to bodies that are too long."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_import = scope["path"].endswith(("/items:import", "/assets"))  # which go to a file, with a limit of their own
        n_read = 0

        async def limited() -> Message:
            nonlocal n_read
            message = await receive()
            n_read += len(message.get("body", b""))
            if n_read > MAX_BODY and not is_import:
                raise HTTPException(413, f"a request is at most {MAX_BODY // 2**20} MiB")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["app"].state.service.answered[message["status"] // 100] += 1
                given = {name for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
                if scope["scheme"] == "https":
                    added.append((b"strict-transport-security", b"max-age=31536000"))
                if b"cache-control" not in given:
                    added.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, limited, with_headers)
