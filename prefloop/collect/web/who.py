"""Who asks, and whether they may: what every route depends on.

A browser proves itself with a cookie; then every change also needs the session's own token in a header and must come from our
own pages (Sec-Fetch-Site, Origin), so that no other site can make it. A program proves itself with a token and sends no
cookie. Somebody who may not know of a project hears that there is none.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import Connection, Row, select

from prefloop.collect import accounts, projects
from prefloop.collect.access import Standing
from prefloop.collect.accounts import Principal
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import item, job, judgment, report
from prefloop.collect.web.service import service_of

SAFE = ("GET", "HEAD", "OPTIONS")
COOKIE, SECURE_COOKIE = "prefloop_session", "__Host-prefloop_session"


class Here(NamedTuple):
    """Somebody in a project, with the right the route asks for."""

    who: Principal
    project: Row[Any]
    standing: Standing


def cookie_name(request: Request) -> str:
    return SECURE_COOKIE if request.url.scheme == "https" else COOKIE


def principal(request: Request) -> Principal:
    """Whoever makes a request; 401 where nobody does."""
    service = service_of(request)
    given = request.headers.get("authorization", "")
    now = service.database.clock()
    if given:
        kind, _, secret = given.partition(" ")
        who = service.read(accounts.by_token, secret=secret.strip(), now=now) if kind.lower() == "bearer" else None
    else:
        who = by_cookie(request, now)
    if who is None:
        raise Refused(401, "not_logged_in", "log in, or send a token: Authorization: Bearer …")
    if request.method not in SAFE:
        service.changes.spend(who.user_id)
    return who


def by_cookie(request: Request, now: int) -> Principal | None:
    secret = request.cookies.get(cookie_name(request), "")
    service = service_of(request)
    found = service.read(accounts.by_session, secret=secret, now=now) if secret else None
    if found is None:
        return None
    who, is_due = found
    if request.method not in SAFE:
        refuse_other_sites(request)
        if request.headers.get("x-csrf-token", "") != who.csrf:
            raise Refused(403, "csrf", "this change did not come from a page of this session; load the page again")
    if is_due:
        service.write(lambda connection, now: accounts.touch(connection, who.session, now))
    return who


def refuse_other_sites(request: Request) -> None:
    """A change that another site's page asked for."""
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or is_foreign:
        raise Refused(403, "csrf", "this change was asked for by a page of another site")


Anyone = Annotated[Principal, Depends(principal)]


def scoped(right: str) -> Callable[[Principal], Principal]:
    """For routes about one's own things: a session may, a token needs the scope."""

    def check(who: Anyone) -> Principal:
        if right not in who.scopes:
            raise Refused(403, "scope", f"this token has no scope {right!r}")
        return who

    return check


def session_only(who: Anyone) -> Principal:
    """What no token may do: change the account it belongs to."""
    if not who.session:
        raise Refused(403, "session_needed", "this needs a person who is logged in, not a token")
    return who


def owner(who: Anyone) -> Principal:
    """The owner of the installation."""
    if not who.is_owner or "own" not in who.scopes:
        raise Refused(403, "not_allowed", "only the owner of this installation can do this")
    return who


def in_project(right: str) -> Callable[..., Here]:
    """For routes below /projects/{project}."""

    def check(request: Request, project: str, who: Anyone) -> Here:
        return service_of(request).read(stands, name=project, who=who, right=right)

    return check


def in_project_of(right: str, kind: str) -> Callable[..., Here]:
    """For routes about an item, a judgment, a job or a report: the project is the one it belongs to."""
    table = {"item": item, "job": job, "report": report, "judgment": judgment}[kind]

    def check(request: Request, identity: str, who: Anyone) -> Here:
        def look(connection: Connection) -> Here:
            project_id = connection.scalar(select(table.c.project_id).where(table.c.id == identity))
            if project_id is None:
                raise not_found(kind)
            return stands(connection, name=project_id, who=who, right=right)

        return service_of(request).read(look)

    return check


def stands(connection: Connection, *, name: str, who: Principal, right: str) -> Here:
    found = projects.find(connection, name)
    standing = projects.standing(connection, found.id, who)
    if not standing.role:
        raise not_found("project")
    if not standing.may(right):
        raise Refused(403, "not_allowed", f"this needs the right {right!r}; you are {standing.role} here")
    return Here(who, found, standing)
