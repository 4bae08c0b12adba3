"""A real server in a thread of the test's process: uvicorn on a free port, a database on disk, people of every role."""

import hashlib
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvicorn
from sqlalchemy import update

from prefloop.collect import accounts, chat, jobs, media, projects, turns
from prefloop.collect.backends import ChatConfig
from prefloop.collect.database import Database, database_url
from prefloop.collect.identity import new_id
from prefloop.collect.migrate import migrate
from prefloop.collect.schema import template
from prefloop.collect.tables import job
from prefloop.collect.web.app import create_app
from prefloop.collect.web.service import Service
from tests.collect.made import RANKED, Made, add, made
from tests.collect.pictures import a_png
from tests.ports import taken_port

ROLES = ("manager", "reviewer", "annotator", "viewer")
EVERYBODY = ("nobody", "outsider", "viewer", "annotator", "reviewer", "manager", "owner")
PASSWORD = "a long enough password"


def echo(messages: list[dict[str, str]]) -> str:
    """A back-end of live chats."""
    return messages[-1]["content"]


class Session(NamedTuple):
    """A browser that is logged in."""

    cookies: dict[str, str]
    headers: dict[str, str]


class Site:
    """A server, a project ``main`` with one person of each role, and one of another project."""

    def __init__(self, folder: Path, url: str):
        self.database = Database(database_url(url))
        migrate(self.database)
        self.service = Service(self.database, folder, rate=1e6, burst=1e6)
        self.service.logins.rate = self.service.logins.burst = 1e6
        listening = taken_port()
        self.port = listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(uvicorn.Config(create_app(self.service), port=self.port, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.http = httpx.Client(base_url=f"{self.address}/api/v1", trust_env=False, timeout=120)
        self.users: dict[str, str] = {}
        self.sessions: dict[str, Session] = {"nobody": Session({}, {})}
        self.talk: Made | None = None

    def start(self) -> "Site":
        self.service.jobs.start()
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.people()
        return self

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)
        self.service.jobs.stop()
        self.database.close()

    def people(self) -> None:
        now, password = self.database.clock(), accounts.hashed(PASSWORD)

        def make(connection) -> str:
            for role in (*ROLES, "owner", "outsider", "spare"):
                given = {"login": role, "is_owner": role == "owner", "password": password}
                self.users[role] = accounts.create_user(connection, **given, now=now)
            main, other = (
                projects.create(connection, slug=slug, title=slug, schema=template("rank"), overlap=3, user_id=None, now=now)
                for slug in ("main", "other")
            )
            for role in ROLES:
                accounts.join(connection, project_id=main, user_id=self.users[role], role=role, now=now)
            accounts.join(connection, project_id=other, user_id=self.users["outsider"], role="manager", now=now)
            for project_id in (main, other):
                projects.set_state(connection, project_id, "active", user_id=None, now=now)
            return main

        self.main = Made(self.database, self.database.write(make), "main", tuple(self.users[role] for role in ROLES))
        add(self.main, range(60))

    def session(self, role: str, *, is_fresh: bool = False) -> Session:
        """The cookie and the token of a role's browser."""
        if role not in self.sessions or is_fresh:
            now = self.database.clock()
            given = {"agent": "test", "now": now}
            secret, csrf = self.database.write(lambda c: accounts.open_session(c, self.users[role], **given))
            opened = Session({"prefloop_session": secret}, {"X-CSRF-Token": csrf})
            if is_fresh:
                return opened
            self.sessions[role] = opened
        return self.sessions[role]

    def ask(self, role: str, method: str, path: str, *, is_fresh: bool = False, **given: Any) -> httpx.Response:
        """A request of a role's browser."""
        session = self.session(role, is_fresh=is_fresh)
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in session.cookies.items())} if session.cookies else {}
        answer = self.http.request(method, path, headers={**cookie, **session.headers, **given.pop("headers", {})}, **given)
        self.http.cookies.clear()  # the next request may be somebody else's
        return answer

    def token(self, role: str, *scopes: str) -> str:
        now = self.database.clock()
        given = {"user_id": self.users[role], "name": "x", "scopes": scopes or ("annotate",), "now": now}
        return self.database.write(lambda c: accounts.create_token(c, **given))[1]

    def a_turn(self, role: str = "annotator") -> str:
        """An assignment a role is at."""
        return self.main.claim(self.users[role]).assignment.id

    def a_chat(self, route: str) -> str:
        """A conversation of the annotator's in the live project ``talk``, as far as a route needs it; its back-end is ``echo``."""
        backend = {"name": "own", "python": "tests.collect.site:echo"}
        self.service.talk.config = config = ChatConfig.of(backends=[backend])
        if self.talk is None:
            people = {role: self.users[role] for role in ROLES}
            self.talk = made(self.database, users=0, schema=template("hh_chat"))
            for role, user in people.items():
                self.talk.do(accounts.join, project_id=self.talk.id, user_id=user, role=role)
        mine = {"user_id": self.users["annotator"]}
        identity = self.talk.do(chat.start, project_id=self.talk.id, is_red_team=False, **mine)
        if route.endswith(("choose", "regenerate")):
            begun = self.talk.do(chat.say, chat_id=identity, words="hello", config=config, **mine)
            error = "no GPU" if route.endswith("regenerate") else ""
            for one in begun.replies:
                self.talk.do(chat.keep_reply, reply_id=one.id, text="an answer", error=error, ms=1)
        return identity

    def an_address(self) -> str:
        """Where the annotator finds a picture of the project ``main``."""
        sha256, now = hashlib.sha256(a_png()).hexdigest(), self.database.clock()
        place = media.place(self.service.folder, sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(a_png())
        kind = media.kind_of(place)
        self.main.do(media.add, project_id=self.main.id, sha256=sha256, kind=kind, n_bytes=len(a_png()), user_id=None)
        secret = self.database.read(lambda c: projects.find(c, "main").secret)
        return media.token(secret, sha256=sha256, user_id=self.users["annotator"], now=now)

    def a_report(self) -> str:
        turn = self.main.claim(self.users["reviewer"])
        given = {"assignment_id": turn.assignment.id, "user_id": self.users["reviewer"]}
        self.main.do(turns.report_item, **given, reason="x", words="")
        return self.one("SELECT id FROM report")

    def a_job(self, *, is_at_work: bool = False) -> str:
        """An export that is done; or one that is at work for ever."""
        identity, settings = new_id(), {"format": "kway", "settings": {}}
        given = {"identity": identity, "project_id": self.main.id, "user_id": None, "kind": "export", "settings": settings}

        def make(connection) -> None:
            jobs.create(connection, **given, now=self.database.clock())
            if is_at_work:
                connection.execute(update(job).where(job.c.id == identity).values(state="running"))

        self.database.write(make)
        if is_at_work:
            return identity
        self.service.jobs.ring()
        while self.database.read(lambda c: jobs.look_at(c, identity))["state"] not in ("done", "failed"):
            time.sleep(0.02)
        return identity

    def one(self, query: str) -> str:
        return self.database.read(lambda c: c.exec_driver_sql(query).scalars().first())


__all__ = ["EVERYBODY", "PASSWORD", "RANKED", "Site"]
