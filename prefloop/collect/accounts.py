"""People, and how they prove who they are: passwords, sessions, tokens, invitations.

There is no open registration and no default account: the first owner comes through a link printed when the server starts, all
others through invitations. Secrets are stored as hashes only. Hashing a password takes tens of milliseconds on purpose, so it
never happens inside a transaction.
"""

import json
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from prefloop.collect.access import ROLES, SCOPES
from prefloop.collect.answers import is_storable
from prefloop.collect.identity import as_json, fingerprint, new_id, new_secret
from prefloop.collect.queue import put
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import api_token, app_user, invite, login_attempt, member, project, session

HOUR = 3_600_000
SESSION_IDLE, SESSION_ALL = 12 * HOUR, 7 * 24 * HOUR
INVITE_LASTS = 7 * 24 * HOUR
TOUCH_EVERY = 60_000  # a session's last use is written this often at most
FREE_ATTEMPTS = 5  # wrong passwords before waiting begins,
LONGEST_WAIT = 15 * 60_000  # which doubles from a second up to this
MAX_SESSIONS, MAX_TOKENS = 20, 50

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)  # argon2id; OWASP's minimum
HASHING = threading.BoundedSemaphore(2)  # so that people logging in cannot starve those at work
NOBODY = HASHER.hash(new_secret())  # verified for unknown logins, which then take as long as known ones
COMMON = frozenset(
    [
        "1234567890",
        "12345678910",
        "0123456789",
        "1111111111",
        "0000000000",
        "9876543210",
        "password12",
        "password123",
        "password1234",
        "passwordpassword",
        "qwertyuiop",
        "qwerty12345",
        "qwerty123456",
        "1q2w3e4r5t",
        "1qaz2wsx3edc",
        "iloveyou12",
        "administrator",
        "changeme123",
        "letmein123",
        "welcome123",
        "abcdefghij",
        "abcdefghijk",
        "abc1234567",
        "abcd123456",
        "a123456789",
        "woaini1314",
        "woaini520520",
        "5201314520",
        "prefloop12",
        "prefloop123",
    ]
)


class Principal(NamedTuple):
    """Who makes a request. A token acts for its user within its scopes; a session has all of them."""

    user_id: str
    is_owner: bool
    display: str
    scopes: frozenset[str]
    csrf: str = ""  # of a session; requests by token need none, because no browser adds tokens by itself
    session: str = ""  # fingerprint


# --- passwords --------------------------------------------------------------------------------------------------------------


def hashed(password: str) -> str:
    """A password as it is stored, or why it cannot be one."""
    if not 10 <= len(password) <= 128 or not is_storable(password):
        raise Refused(422, "bad_password", f"a password has 10 to 128 characters, this one {len(password)}")
    if password.casefold() in COMMON or len(set(password)) < 4:
        raise Refused(422, "common_password", "this is one of the passwords that are tried first; take another")
    with HASHING:
        return HASHER.hash(password)


def verifies(stored: str, password: str) -> bool:
    """Whether a password is the one that was hashed; takes as long where there is none."""
    with HASHING:
        try:
            return HASHER.verify(stored or NOBODY, password[:128].encode(errors="replace")) and bool(stored)
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(stored: str) -> bool:
    return HASHER.check_needs_rehash(stored)


# --- users ------------------------------------------------------------------------------------------------------------------


def login_name(text: str) -> str:
    """A login as it is compared: without case or surrounding space."""
    name = text.strip().casefold()
    if not 1 <= len(name) <= 80 or not name.isprintable() or any(letter.isspace() for letter in name):
        raise Refused(422, "bad_login", "a login has 1 to 80 visible characters and no space")
    return name


def create_user(
    connection: Connection,
    *,
    login: str,
    display: str = "",
    password: str = "",
    is_owner: bool = False,
    speaks_as: str = "",
    now: int,
) -> str:
    """A new account; ``password`` is hashed already, or empty for accounts that only have tokens. The id."""
    name = login_name(login)
    if connection.scalar(select(app_user.c.id).where(app_user.c.login == name)) is not None:
        raise Refused(409, "login_taken", f"somebody is called {name!r} already")
    identity = new_id(now)
    row = {
        "id": identity, "login": name, "display": display.strip()[:80] or name, "password": password, "is_owner": is_owner,
        "speaks_as": speaks_as, "created": now,
    }  # fmt: skip
    connection.execute(insert(app_user).values(row))
    return identity


def has_owner(connection: Connection) -> bool:
    """Whether anybody owns this installation: until then there is nothing to log in to."""
    owners = select(app_user.c.id).where(app_user.c.is_owner, app_user.c.state == "active").limit(1)
    return connection.execute(owners).first() is not None


def by_login(connection: Connection, login: str) -> Row[Any] | None:
    return connection.execute(select(app_user).where(app_user.c.login == login.strip().casefold())).first()


def set_password(connection: Connection, user_id: str, password: str, *, keep: str = "") -> None:
    """A new password, hashed already; every other session of the account ends."""
    connection.execute(update(app_user).where(app_user.c.id == user_id).values(password=password))
    connection.execute(delete(session).where(session.c.user_id == user_id, session.c.sha256 != keep))


def set_state(connection: Connection, user_id: str, state: str) -> None:
    """active or closed; a closed account keeps its work and cannot be used."""
    connection.execute(update(app_user).where(app_user.c.id == user_id).values(state=state))
    if state != "active":
        close_doors(connection, user_id)


def erase(connection: Connection, user_id: str) -> None:
    """Forget who somebody was; what they judged stays, under the pseudonym it always had outside."""
    gone = {
        "login": f"erased-{user_id.lower()}",
        "display": "erased",
        "password": "",
        "preferences_json": "{}",
        "state": "erased",
    }
    if connection.execute(update(app_user).where(app_user.c.id == user_id).values(gone)).rowcount != 1:
        raise not_found("user")
    close_doors(connection, user_id)


def close_doors(connection: Connection, user_id: str) -> None:
    connection.execute(delete(session).where(session.c.user_id == user_id))
    connection.execute(delete(api_token).where(api_token.c.user_id == user_id))


# --- logging in -------------------------------------------------------------------------------------------------------------


def refuse_if_locked(connection: Connection, keys: Sequence[str], now: int) -> None:
    """Too many wrong passwords for this login, or from this address."""
    until = connection.scalar(select(func.max(login_attempt.c.until)).where(login_attempt.c.key.in_(keys)))
    if until is not None and until > now:
        seconds = -(-(until - now) // 1000)
        raise Refused(429, "locked", f"too many attempts; try again in {seconds} s", retry_after=seconds)


def failed(connection: Connection, keys: Sequence[str], now: int) -> None:
    """Count a wrong password; from the sixth on each doubles the wait."""
    for key in keys:
        before = connection.execute(select(login_attempt).where(login_attempt.c.key == key).with_for_update()).first()
        is_old = before is not None and now - before.until > SESSION_IDLE
        n = 1 if before is None or is_old else before.n + 1
        wait = 0 if n <= FREE_ATTEMPTS else min(LONGEST_WAIT, 1000 * 2 ** min(n - FREE_ATTEMPTS - 1, 20))
        change = {"n": n, "until": now + wait}
        put(connection, login_attempt, {"key": key, **change}, change)


def open_session(connection: Connection, user_id: str, *, agent: str, keys: Sequence[str] = (), now: int) -> tuple[str, str]:
    """The cookie's value and the token that must come with every change made through it. Always a new one."""
    secret, csrf = new_secret(), new_secret()
    connection.execute(delete(login_attempt).where(login_attempt.c.key.in_(keys)))
    row = {
        "sha256": fingerprint(secret),
        "user_id": user_id,
        "csrf": csrf,
        "created": now,
        "last_used": now,
        "agent": agent[:200],
    }
    connection.execute(insert(session).values(row))
    old = select(session.c.sha256).where(session.c.user_id == user_id).order_by(session.c.last_used.desc()).offset(MAX_SESSIONS)
    connection.execute(delete(session).where(session.c.sha256.in_(list(connection.scalars(old)))))
    return secret, csrf


def close_session(connection: Connection, sha256: str) -> None:
    connection.execute(delete(session).where(session.c.sha256 == sha256))


OF_SESSION = (  # made once: to make a statement takes longer than to run it, and every request of a page runs this one
    select(session, app_user.c.is_owner, app_user.c.display, app_user.c.state)
    .select_from(session.join(app_user, app_user.c.id == session.c.user_id))
    .where(session.c.sha256 == bindparam("secret"))
)


def by_session(connection: Connection, secret: str, now: int) -> tuple[Principal, bool] | None:
    """Who holds a cookie, and whether its use is worth writing down."""
    found = connection.execute(OF_SESSION, {"secret": fingerprint(secret)}).first()
    if found is None or found.state != "active":
        return None
    if now - found.last_used > SESSION_IDLE or now - found.created > SESSION_ALL:
        return None
    who = Principal(found.user_id, found.is_owner, found.display, SCOPES, found.csrf, found.sha256)
    return who, now - found.last_used > TOUCH_EVERY


def touch(connection: Connection, sha256: str, now: int) -> None:
    connection.execute(update(session).where(session.c.sha256 == sha256).values(last_used=now))


# --- tokens -----------------------------------------------------------------------------------------------------------------


def create_token(
    connection: Connection, *, user_id: str, name: str, scopes: Sequence[str], expires: int | None = None, now: int
) -> tuple[str, str]:
    """A token for programs: its id, and its value, which is shown this once."""
    if unknown := sorted(set(scopes) - SCOPES) or (not scopes and ["none given"]):
        raise Refused(422, "bad_scope", f"unknown scopes: {', '.join(unknown)}; known: {', '.join(sorted(SCOPES))}")
    n = connection.scalar(select(func.count()).select_from(api_token).where(api_token.c.user_id == user_id)) or 0
    if n >= MAX_TOKENS:
        raise Refused(409, "too_many_tokens", f"an account has at most {MAX_TOKENS} tokens; delete one")
    identity, secret = new_id(now), f"prefloop_{new_secret()}"
    row = {
        "id": identity, "user_id": user_id, "name": name.strip()[:80], "sha256": fingerprint(secret),
        "scopes_json": as_json(sorted(set(scopes))), "expires": expires, "created": now,
    }  # fmt: skip
    connection.execute(insert(api_token).values(row))
    return identity, secret


OF_TOKEN = (  # made once, as OF_SESSION
    select(api_token, app_user.c.is_owner, app_user.c.display, app_user.c.state)
    .select_from(api_token.join(app_user, app_user.c.id == api_token.c.user_id))
    .where(api_token.c.sha256 == bindparam("sha256"))
)


def by_token(connection: Connection, secret: str, now: int) -> Principal | None:
    found = connection.execute(OF_TOKEN, {"sha256": fingerprint(secret)}).first()
    if found is None or found.state != "active" or (found.expires is not None and found.expires <= now):
        return None
    return Principal(found.user_id, found.is_owner, found.display, frozenset(json.loads(found.scopes_json)))


# --- invitations ------------------------------------------------------------------------------------------------------------


def create_invite(
    connection: Connection, *, project_id: str | None, role: str, created_by: str | None, now: int, lasts: int = INVITE_LASTS
) -> str:
    """A link's secret: whoever opens it first joins with this role. Without a project it makes an owner."""
    allowed = ROLES if project_id else ("owner",)
    if role not in allowed:
        raise Refused(422, "bad_role", f"one is invited as {', '.join(allowed)}, not as {role!r}")
    secret = new_secret()
    row = {
        "sha256": fingerprint(secret), "project_id": project_id, "role": role, "created_by": created_by,
        "expires": now + lasts, "created": now,
    }  # fmt: skip
    connection.execute(insert(invite).values(row))
    return secret


def first_invite(connection: Connection, *, now: int) -> str:
    """The invitation of the first owner; the one that an earlier start printed no longer works."""
    connection.execute(
        delete(invite).where(invite.c.project_id.is_(None), invite.c.created_by.is_(None), invite.c.used_by.is_(None))
    )
    return create_invite(connection, project_id=None, role="owner", created_by=None, now=now)


def open_invite(connection: Connection, secret: str, now: int) -> Row[Any]:
    """An invitation that can still be accepted, with the title of its project."""
    joined = invite.outerjoin(project, project.c.id == invite.c.project_id)
    columns = (invite, project.c.title, project.c.slug)
    wanted = select(*columns).select_from(joined).where(invite.c.sha256 == fingerprint(secret))
    found = connection.execute(wanted).first()
    if found is None or found.used_by is not None or found.expires <= now:
        raise Refused(410, "invite_gone", "this invitation was used, has run out, or never was")
    return found


def accept(connection: Connection, secret: str, *, user_id: str, now: int) -> None:
    """Use an invitation, once."""
    found = open_invite(connection, secret, now)
    unused = update(invite).where(invite.c.sha256 == found.sha256, invite.c.used_by.is_(None)).values(used_by=user_id)
    if connection.execute(unused).rowcount != 1:
        raise Refused(410, "invite_gone", "this invitation was used already")
    if found.project_id is None:
        connection.execute(update(app_user).where(app_user.c.id == user_id).values(is_owner=True))
    else:
        join(connection, project_id=found.project_id, user_id=user_id, role=found.role, now=now)


def join(connection: Connection, *, project_id: str, user_id: str, role: str, now: int) -> None:
    """Give somebody a role in a project, whatever it was before."""
    if role not in ROLES:
        raise Refused(422, "bad_role", f"a role is one of {', '.join(ROLES)}, not {role!r}")
    put(connection, member, {"project_id": project_id, "user_id": user_id, "role": role, "created": now}, {"role": role})


def leave(connection: Connection, *, project_id: str, user_id: str) -> None:
    connection.execute(delete(member).where(member.c.project_id == project_id, member.c.user_id == user_id))
