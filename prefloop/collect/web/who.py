"""Who asks, and whether they may: what every route depends on.

A browser proves itself with a cookie; then every change also needs the session's own token in a header and must come from our
own pages (Sec-Fetch-Site, Origin), so that no other site can make it. A program proves itself with a token and sends no
cookie. Somebody who may not know of a project hears that there is none.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import Connection, Row, select

from prefloop.collect import accounts, projects
from prefloop.collect.access import Standing
from prefloop.collect.accounts import Principal
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import item, job, judgment, report
from prefloop.collect.web.service import service_of

T = TypeVar("T")
SAFE = ("GET", "HEAD", "OPTIONS")
COOKIE, SECURE_COOKIE = "prefloop_session", "__Host-prefloop_session"


class Here(NamedTuple):
    """Somebody in a project, with the right the route asks for."""

    who: Principal
    project: Row[Any]
    standing: Standing


def cookie_name(request: Request) -> str:
    return SECURE_COOKIE if request.url.scheme == "https" else COOKIE


def asked_by(request: Request, look: Callable[[Connection, Principal], T]) -> T:
    """What a look at the database finds for whoever makes a request, over the one connection that also says who that is."""
    service = service_of(request)
    with service.database.reading() as connection:
        who, is_due = identified(request, connection, service.database.clock())
        if request.method not in SAFE:
            service.changes.spend(who.user_id)
        found = look(connection, who)
    if is_due:
        service.write(lambda connection, now: accounts.touch(connection, who.session, now))
    return found


def identified(request: Request, connection: Connection, now: int) -> tuple[Principal, bool]:
    """Whoever makes a request, and whether the use of their cookie is worth writing down; 401 where nobody does."""
    given = request.headers.get("authorization", "")
    if given:
        kind, _, secret = given.partition(" ")
        who = accounts.by_token(connection, secret.strip(), now) if kind.lower() == "bearer" else None
        found = (who, False) if who else None
    else:
        found = by_cookie(request, connection, now)
    if found is None:
        raise Refused(401, "not_logged_in", "log in, or send a token: Authorization: Bearer …")
    return found


def by_cookie(request: Request, connection: Connection, now: int) -> tuple[Principal, bool] | None:
    secret = request.cookies.get(cookie_name(request), "")
    found = accounts.by_session(connection, secret, now) if secret else None
    if found is not None and request.method not in SAFE:
        refuse_other_sites(request)
        if request.headers.get("x-csrf-token", "") != found[0].csrf:
            raise Refused(403, "csrf", "this change did not come from a page of this session; load the page again")
    return found


def principal(request: Request) -> Principal:
    """Whoever makes a request."""
    return asked_by(request, lambda connection, who: who)


def refuse_other_sites(request: Request) -> None:
    """A change that another site's page asked for."""
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or is_foreign:
        raise Refused(403, "csrf", "this change was asked for by a page of another site")


Anyone = Annotated[Principal, Depends(principal)]


def scoped(right: str) -> Callable[[Principal], Awaitable[Principal]]:
    """For routes about one's own things: a session may, a token needs the scope."""

    async def check(who: Anyone) -> Principal:  # async, as it waits for nothing: no thread has to take it
        if right not in who.scopes:
            raise Refused(403, "scope", f"this token has no scope {right!r}")
        return who

    return check


async def session_only(who: Anyone) -> Principal:
    """What no token may do: change the account it belongs to."""
    return of_session(who)


def of_session(who: Principal) -> Principal:
    if not who.session:
        raise Refused(403, "session_needed", "this needs a person who is logged in, not a token")
    return who


async def owner(who: Anyone) -> Principal:
    """The owner of the installation."""
    if not who.is_owner or "own" not in who.scopes:
        raise Refused(403, "not_allowed", "only the owner of this installation can do this")
    return who


def in_project(right: str) -> Callable[..., Here]:
    """For routes below /projects/{project}."""

    def check(request: Request, project: str) -> Here:
        return asked_by(request, lambda connection, who: stands(connection, name=project, who=who, right=right))

    return check


def in_project_of(right: str, kind: str) -> Callable[..., Here]:
    """For routes about an item, a judgment, a job or a report: the project is the one it belongs to."""
    table = {"item": item, "job": job, "report": report, "judgment": judgment}[kind]

    def check(request: Request, identity: str) -> Here:
        def look(connection: Connection, who: Principal) -> Here:
            project_id = connection.scalar(select(table.c.project_id).where(table.c.id == identity))
            if project_id is None:
                raise not_found(kind)
            return stands(connection, name=project_id, who=who, right=right)

        return asked_by(request, look)

    return check


def stands(connection: Connection, *, name: str, who: Principal, right: str) -> Here:
    found, standing = projects.standing(connection, name, who)
    if not standing.role:
        raise not_found("project")
    if not standing.may(right):
        raise Refused(403, "not_allowed", f"this needs the right {right!r}; you are {standing.role} here")
    return Here(who, found, standing)
