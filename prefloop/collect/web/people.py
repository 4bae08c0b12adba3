"""Logging in and out, one's own account, tokens, invitations, and the owner's list of accounts."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Connection, delete, select, update

from prefloop.collect import accounts, projects
from prefloop.collect.accounts import Principal
from prefloop.collect.identity import as_json
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import api_token, app_user, member, project, session
from prefloop.collect.web import shapes
from prefloop.collect.web.service import service_of
from prefloop.collect.web.who import (
    Anyone,
    Here,
    cookie_name,
    in_project,
    of_session,
    owner,
    principal,
    refuse_other_sites,
    session_only,
)

router = APIRouter(tags=["people"])
Owner = Annotated[Principal, Depends(owner)]
Self = Annotated[Principal, Depends(session_only)]
DAY = 86_400_000


@router.post("/auth/login")
def login(request: Request, response: Response, body: shapes.Login) -> dict[str, Any]:
    """A cookie, and the token that goes into X-CSRF-Token with every change."""
    service = service_of(request)
    refuse_other_sites(request)
    address = request.client.host if request.client else ""
    service.logins.spend(address)
    keys = [f"login:{body.login.strip().casefold()}"]
    now = service.database.clock()
    service.read(accounts.refuse_if_locked, keys=keys, now=now)
    found = service.read(accounts.by_login, login=body.login)
    is_right = accounts.verifies(found.password if found else "", body.password)
    if found is None or not is_right or found.state != "active":
        service.write(accounts.failed, keys=keys)
        raise Refused(401, "wrong_password", "this login and password do not belong together")
    if accounts.needs_rehash(found.password):
        renewed = accounts.hashed(body.password)
        service.database.write(lambda connection: connection.execute(
            update(app_user).where(app_user.c.id == found.id).values(password=renewed)
        ))  # fmt: skip
    return logged_in(request, response, found.id, keys)


def logged_in(request: Request, response: Response, user_id: str, keys: list[str]) -> dict[str, Any]:
    agent = request.headers.get("user-agent", "").encode("ascii", "replace").decode()
    secret, csrf = service_of(request).write(accounts.open_session, user_id=user_id, agent=agent, keys=keys)
    is_secure = request.url.scheme == "https"
    response.set_cookie(
        cookie_name(request),
        secret,
        max_age=accounts.SESSION_ALL // 1000,
        httponly=True,
        secure=is_secure,
        samesite="lax",
        path="/",
    )
    return {"user": user_id, "csrf": csrf}


@router.post("/auth/logout", status_code=204)
def logout(request: Request, response: Response, who: Self) -> None:
    """Ends this session; the lease of what one was at runs on until it lapses."""
    service_of(request).database.write(lambda connection: accounts.close_session(connection, who.session))
    response.delete_cookie(cookie_name(request), path="/", secure=request.url.scheme == "https", httponly=True, samesite="lax")


@router.get("/me")
def me(request: Request, who: Anyone) -> dict[str, Any]:
    """Oneself, one's projects, and what one may do."""

    def look(connection: Connection) -> dict[str, Any]:
        mine = connection.execute(select(app_user).where(app_user.c.id == who.user_id)).one()
        joined = member.join(project, project.c.id == member.c.project_id)
        rows = connection.execute(
            select(project.c.slug, project.c.title, project.c.state, member.c.role)
            .select_from(joined)
            .where(member.c.user_id == who.user_id)
            .order_by(project.c.slug)
        )
        return {
            "user": mine.id, "login": mine.login, "display": mine.display, "is_owner": mine.is_owner, "locale": mine.locale,
            "preferences": json.loads(mine.preferences_json), "csrf": who.csrf, "scopes": sorted(who.scopes),
            "projects": [row._asdict() for row in rows],
        }  # fmt: skip

    return service_of(request).read(look)


@router.patch("/me", status_code=204)
def change_me(request: Request, body: shapes.Me, who: Self) -> None:
    """One's name, language, or the page's own settings."""
    change: dict[str, Any] = {name: value for name in ("display", "locale") if (value := getattr(body, name)) is not None}
    if body.preferences is not None:
        change["preferences_json"] = as_json(body.preferences)
        if len(change["preferences_json"]) > 20_000:
            raise Refused(422, "too_long", "preferences are at most 20,000 characters")
    if change:
        here = update(app_user).where(app_user.c.id == who.user_id).values(change)
        service_of(request).database.write(lambda connection: connection.execute(here))


@router.post("/me/password", status_code=204)
def change_password(request: Request, body: shapes.NewPassword, who: Self) -> None:
    """A new password; every other session ends."""
    service = service_of(request)
    service.logins.spend(who.user_id)
    stored = service.read(lambda connection: connection.scalar(select(app_user.c.password).where(app_user.c.id == who.user_id)))
    if not accounts.verifies(stored or "", body.old):
        raise Refused(403, "wrong_password", "the old password is another one")
    renewed = accounts.hashed(body.new)
    service.database.write(lambda connection: accounts.set_password(connection, who.user_id, renewed, keep=who.session))


@router.get("/me/sessions")
def my_sessions(request: Request, who: Self) -> list[dict[str, Any]]:
    """Where one is logged in."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        rows = connection.execute(select(session).where(session.c.user_id == who.user_id).order_by(session.c.last_used.desc()))
        return [
            {"id": row.sha256[:16], "is_this": row.sha256 == who.session, "agent": row.agent, "created": row.created,
             "last_used": row.last_used} for row in rows
        ]  # fmt: skip

    return service_of(request).read(look)


@router.delete("/me/sessions/{identity}", status_code=204)
def end_session(request: Request, identity: str, who: Self) -> None:
    """Log out elsewhere."""
    if len(identity) != 16 or not identity.isalnum():
        raise not_found("session")
    gone = delete(session).where(session.c.user_id == who.user_id, session.c.sha256.like(f"{identity}%"))
    if service_of(request).database.write(lambda connection: connection.execute(gone).rowcount) != 1:
        raise not_found("session")


# --- tokens -----------------------------------------------------------------------------------------------------------------


@router.post("/tokens", status_code=201)
def new_token(request: Request, body: shapes.NewToken, who: Self) -> dict[str, Any]:
    """A token that acts for oneself within some scopes; shown this once."""
    service = service_of(request)
    expires = service.database.clock() + body.days * DAY if body.days else None
    given = {"user_id": who.user_id, "name": body.name, "scopes": body.scopes, "expires": expires}
    identity, secret = service.write(accounts.create_token, **given)
    return {"id": identity, "token": secret}


@router.get("/tokens")
def my_tokens(request: Request, who: Self) -> list[dict[str, Any]]:
    """One's tokens, without their values."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        rows = connection.execute(select(api_token).where(api_token.c.user_id == who.user_id).order_by(api_token.c.id))
        return [{"id": row.id, "name": row.name, "scopes": json.loads(row.scopes_json), "expires": row.expires} for row in rows]

    return service_of(request).read(look)


@router.delete("/tokens/{identity}", status_code=204)
def delete_token(request: Request, identity: str, who: Self) -> None:
    """A token that works no more."""
    gone = delete(api_token).where(api_token.c.user_id == who.user_id, api_token.c.id == identity)
    if service_of(request).database.write(lambda connection: connection.execute(gone).rowcount) != 1:
        raise not_found("token")


# --- invitations ------------------------------------------------------------------------------------------------------------


@router.post("/projects/{project}/invites", status_code=201)
def invite(request: Request, body: shapes.Invitation, here: Annotated[Here, Depends(in_project("manage"))]) -> dict[str, Any]:
    """A link's secret: whoever opens it first joins the project with a role."""
    given = {"project_id": here.project.id, "role": body.role, "created_by": here.who.user_id}
    return {"invite": service_of(request).write(accounts.create_invite, **given)}


@router.post("/invites", status_code=201)
def invite_owner(request: Request, who: Owner) -> dict[str, Any]:
    """A link's secret for another owner of the installation."""
    given = {"project_id": None, "role": "owner", "created_by": who.user_id}
    return {"invite": service_of(request).write(accounts.create_invite, **given)}


@router.get("/invites/{secret}")
def look_at_invite(request: Request, secret: str) -> dict[str, Any]:
    """What one is invited to; whoever has the link may see it."""
    service = service_of(request)
    found = service.read(accounts.open_invite, secret=secret, now=service.database.clock())
    return {"role": found.role, "project": found.slug, "title": found.title, "expires": found.expires}


@router.post("/invites/{secret}/accept")
def accept_invite(request: Request, response: Response, secret: str, body: shapes.Acceptance) -> dict[str, Any]:
    """Join with a new account; or, logged in and with an empty body, with one's own."""
    service = service_of(request)
    refuse_other_sites(request)
    service.logins.spend(request.client.host if request.client else "")
    service.read(accounts.open_invite, secret=secret, now=service.database.clock())
    if not body.login:
        who = of_session(principal(request))
        service.write(accounts.accept, secret=secret, user_id=who.user_id)
        return {"user": who.user_id, "csrf": who.csrf}
    password = accounts.hashed(body.password)

    def join(connection: Connection, now: int) -> str:
        user_id = accounts.create_user(connection, login=body.login, display=body.display, password=password, now=now)
        accounts.accept(connection, secret, user_id=user_id, now=now)
        return user_id

    return logged_in(request, response, service.write(join), [])


# --- the owner --------------------------------------------------------------------------------------------------------------


@router.get("/users")
def users(request: Request, who: Owner, cursor: str = "") -> dict[str, Any]:
    """Every account, in pages."""

    def look(connection: Connection) -> dict[str, Any]:
        columns = (
            app_user.c.id,
            app_user.c.login,
            app_user.c.display,
            app_user.c.is_owner,
            app_user.c.state,
            app_user.c.speaks_as,
        )
        rows = connection.execute(select(*columns).where(app_user.c.id > cursor).order_by(app_user.c.id).limit(100)).all()
        return {"users": [row._asdict() for row in rows], "cursor": rows[-1].id if len(rows) == 100 else None}

    return service_of(request).read(look)


@router.post("/users", status_code=201)
def new_user(request: Request, body: shapes.NewUser, who: Owner) -> dict[str, Any]:
    """An account; one without a password gets a token to work with."""
    password = accounts.hashed(body.password) if body.password else ""

    def make(connection: Connection, now: int) -> dict[str, Any]:
        user_id = accounts.create_user(
            connection, login=body.login, display=body.display, password=password, speaks_as=body.speaks_as, now=now
        )
        projects.log(connection, project_id=None, user_id=who.user_id, action="user", detail={"user": user_id}, now=now)
        if password:
            return {"user": user_id, "token": None}
        _, secret = accounts.create_token(connection, user_id=user_id, name="first", scopes=["annotate"], now=now)
        return {"user": user_id, "token": secret}

    return service_of(request).write(make)


@router.patch("/users/{identity}", status_code=204)
def change_user(request: Request, identity: str, body: shapes.UserState, who: Owner) -> None:
    """Close an account, or open it again; its work stays."""
    refuse_oneself(who, identity)
    service_of(request).database.write(lambda connection: accounts.set_state(connection, identity, body.state))


@router.delete("/users/{identity}", status_code=204)
def erase_user(request: Request, identity: str, who: Owner) -> None:
    """Forget who somebody was; what they judged stays under a pseudonym."""
    refuse_oneself(who, identity)
    service_of(request).database.write(lambda connection: accounts.erase(connection, identity))


def refuse_oneself(who: Principal, identity: str) -> None:
    if who.user_id == identity:
        raise Refused(409, "oneself", "an owner cannot close or erase the own account; another owner can")
