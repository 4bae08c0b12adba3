"""The routes: who may do what, what is told to whom, and that the server believes nobody. A real server, a real client."""

import http.client
import json
import re
import time

import pytest

from prefloop.collect import accounts, jobs, planted, projects, turns
from prefloop.collect.client import connect
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import TEMPLATES, template
from prefloop.collect.web.app import MAX_BODY
from prefloop.collect.web.metrics import family
from prefloop.collect.web.service import Limiter
from prefloop.data.read import read_groups
from prefloop.errors import DataError, RunError, Waiting
from prefloop.records import Completion, Group, Prompt, content_id
from tests.collect.made import made
from tests.collect.pictures import a_png
from tests.collect.site import EVERYBODY, PASSWORD, RANKED, Site


@pytest.fixture(scope="module")
def site(new_url, tmp_path_factory):
    opened = Site(tmp_path_factory.mktemp("site"), new_url("sqlite")).start()
    yield opened
    opened.stop()


# --- who may do what --------------------------------------------------------------------------------------------------------

ALL = set(EVERYBODY)
KNOWN = ALL - {"nobody"}  # whoever is logged in
MEMBERS = {"viewer", "annotator", "reviewer", "manager", "owner"}
WORKERS = {"annotator", "reviewer", "manager"}  # the owner is no member: everything but working
VIEWERS = {"viewer", "reviewer", "manager", "owner"}
READERS = {"reviewer", "manager", "owner"}
MANAGERS = {"manager", "owner"}
OWNER = {"owner"}
OWN = {"annotator"}  # the turn of the annotator: nobody else's, whatever their role

MATRIX = {  # route: who may; everybody else hears 401, 403 or 404
    "POST /auth/login": ALL,
    "POST /auth/logout": KNOWN,
    "GET /me": KNOWN,
    "PATCH /me": KNOWN,
    "POST /me/password": KNOWN,
    "GET /me/sessions": KNOWN,
    "DELETE /me/sessions/{identity}": KNOWN,
    "GET /me/history": KNOWN,
    "POST /tokens": KNOWN,
    "GET /tokens": KNOWN,
    "DELETE /tokens/{identity}": KNOWN,
    "POST /projects/{project}/invites": MANAGERS,
    "POST /invites": OWNER,
    "GET /invites/{secret}": ALL,
    "POST /invites/{secret}/accept": ALL,
    "GET /users": OWNER,
    "POST /users": OWNER,
    "PATCH /users/{identity}": OWNER,
    "DELETE /users/{identity}": OWNER,
    "GET /projects": KNOWN,
    "POST /projects": OWNER,
    "GET /projects/{project}": MEMBERS,
    "PATCH /projects/{project}": MANAGERS,
    "POST /projects/{project}/state": MANAGERS,
    "GET /projects/{project}/members": MANAGERS,
    "PUT /projects/{project}/members/{identity}": OWNER,  # of somebody who is no member yet
    "DELETE /projects/{project}/members/{identity}": MANAGERS,
    "GET /templates": KNOWN,
    "GET /templates/{name}": KNOWN,
    "POST /schemas/validate": KNOWN,
    "GET /projects/{project}/schemas": READERS,
    "POST /projects/{project}/schemas": MANAGERS,
    "GET /projects/{project}/items": READERS,
    "POST /projects/{project}/items:bulk": MANAGERS,
    "GET /items/{identity}": READERS,
    "GET /items/{identity}/judgments": READERS,
    "PATCH /items/{identity}": MANAGERS,
    "GET /projects/{project}/reports": READERS,
    "PATCH /reports/{identity}": MANAGERS,
    "GET /projects/{project}/stats": VIEWERS,
    "GET /projects/{project}/events": MANAGERS,
    "GET /projects/{project}/agreement": VIEWERS,
    "GET /projects/{project}/annotators": VIEWERS,
    "GET /projects/{project}/bias": VIEWERS,
    "GET /projects/{project}/timeline": VIEWERS,
    "GET /projects/{project}/quality": READERS,
    "PATCH /projects/{project}/quality": MANAGERS,
    "GET /projects/{project}/planted": MANAGERS,
    "POST /projects/{project}/checks": MANAGERS,
    "PUT /items/{identity}/gold": MANAGERS,
    "DELETE /items/{identity}/gold": MANAGERS,
    "GET /projects/{project}/review-queue": READERS,
    "GET /items/{identity}/review": READERS,
    "POST /judgments/{identity}/review": READERS,
    "POST /items/{identity}/adjudicate": READERS,
    "POST /projects/{project}/next": WORKERS,
    "GET /projects/{project}/why-empty": WORKERS | OWNER,
    "POST /projects/{project}/consent": WORKERS | OWNER,
    "GET /assignments/{identity}": OWN,
    "PUT /assignments/{identity}/draft": OWN,
    "POST /assignments/{identity}/heartbeat": OWN,
    "POST /assignments/{identity}/submit": OWN,
    "POST /assignments/{identity}/skip": OWN,
    "POST /assignments/{identity}/report": OWN,
    "POST /assignments/{identity}/release": OWN,
    "POST /assignments/{identity}/recall": OWN,
    "POST /projects/{project}/items:import": MANAGERS,
    "GET /projects/{project}/chat": MANAGERS,
    "PATCH /projects/{project}/chat": MANAGERS,
    "POST /projects/{project}/chat/try": MANAGERS,
    "POST /projects/{project}/chats": WORKERS,
    "GET /projects/{project}/chats": WORKERS | OWNER,  # one's own; the owner has none
    "GET /chats/{identity}": OWN,
    "POST /chats/{identity}/turns": OWN,
    "POST /chats/{identity}/regenerate": OWN,
    "POST /chats/{identity}/choose": OWN,
    "POST /chats/{identity}/close": OWN,
    "POST /projects/{project}/assets": MANAGERS,
    "GET /media/{token}": OWN,  # an address is one person's
    "POST /render": KNOWN,
    "GET /me/today": KNOWN,
    "POST /projects/{project}/exports": MANAGERS,
    "GET /metrics": OWNER,
    "GET /events": OWNER,
    "GET /projects/{project}/jobs": MANAGERS,
    "GET /jobs/{identity}": MANAGERS,
    "GET /jobs/{identity}/files/{name}": MANAGERS,
    "POST /jobs/{identity}/cancel": MANAGERS,
}
BODIES = {
    "POST /auth/login": {},
    "PATCH /me": {"locale": "zh"},
    "POST /chats/{identity}/turns": {"text": "hello"},
    "POST /chats/{identity}/choose": {"answers": {"choose": {"better": {"choice": "a", "strength": 1}}}},
    "PATCH /projects/{project}/chat": {"k": 2},
    "POST /projects/{project}/consent": {"words": content_id({})},  # of a project that asks for none
    "POST /projects/{project}/chat/try": {"backend": "own"},
    "POST /render": {"texts": ["*hello*"]},
    "POST /me/password": {"old": PASSWORD, "new": PASSWORD},
    "POST /tokens": {"name": "x", "scopes": ["annotate"]},
    "POST /projects/{project}/invites": {"role": "viewer"},
    "PATCH /users/{identity}": {"state": "active"},
    "PATCH /projects/{project}": {"title": "another"},
    "POST /projects/{project}/state": {"state": "active"},
    "PUT /projects/{project}/members/{identity}": {"role": "viewer"},
    "POST /schemas/validate": {"yaml": "id: x\nstages: [{id: s, questions: [{id: q, type: rank}]}]"},
    "POST /projects/{project}/schemas": {"yaml": (TEMPLATES / "rank.yaml").read_text()},
    "PATCH /items/{identity}": {"priority": 0},
    "POST /projects/{project}/items:bulk": {"ids": ["x"], "priority": 0},
    "PATCH /reports/{identity}": {"state": "dismissed"},
    "PATCH /projects/{project}/quality": {"seconds": 3},
    "POST /projects/{project}/checks": {"n": 1},
    "POST /judgments/{identity}/review": {"verdict": "accept"},
    "POST /items/{identity}/adjudicate": {"method": "all"},
    "PUT /assignments/{identity}/draft": {"body": {}},
    "POST /assignments/{identity}/submit": {"answers": RANKED},
    "POST /assignments/{identity}/skip": {"reason": "x"},
    "POST /assignments/{identity}/report": {"reason": "x"},
    "POST /projects/{project}/exports": {"format": "kway"},
}
FRESH = ("POST /auth/logout", "POST /me/password")  # which end sessions


def routes_of(site: Site) -> set[str]:
    document = site.http.get("/openapi.json").json()
    return {
        f"{method.upper()} {path.removeprefix('/api/v1')}" for path, methods in document["paths"].items() for method in methods
    }


def test_every_route_has_its_row_in_the_matrix(site):
    assert routes_of(site) == set(MATRIX)


def a_request(site: Site, route: str, role: str, number: int) -> dict:
    """A request that succeeds for those who may make it."""
    method, path = route.split(" ")
    given: dict = {"json": BODIES.get(route, {})} if method in ("POST", "PUT", "PATCH") else {}
    if "/assignments/" in path:
        identity = site.a_turn()
        if path.endswith("recall") and role == "annotator":
            site.main.do(
                turns.submit, assignment_id=identity, user_id=site.users["annotator"], key=identity, said=turns.Said(RANKED)
            )
        given["headers"] = {"If-Match": "0", "Idempotency-Key": f"{number}"}
    elif path.endswith("/assets"):
        identity, given = "", {"content": a_png()}
    elif path.endswith("/cancel"):
        identity = site.a_job(is_at_work=True)
    elif path.startswith("/media/"):
        identity = site.an_address()
    elif "/chat" in path:
        identity, given["headers"] = site.a_chat(route), {"Idempotency-Key": f"chat {number}"}
    elif path.startswith("/me/sessions/"):
        identity = site.ask(role, "GET", "/me/sessions", is_fresh=True).json()[0]["id"] if role != "nobody" else "0" * 16
    elif path.startswith("/tokens/"):
        identity = site.ask(role, "POST", "/tokens", json=BODIES["POST /tokens"]).json()["id"] if role != "nobody" else "x"
    else:
        identity = {"/items": site.item, "/jobs/": site.job, "/repor": site.report}.get(path[:6], site.users["spare"])
    if path.endswith("accept"):
        given["json"] = {"login": f"new{number}", "password": PASSWORD}
    if route == "POST /users":
        given["json"] = {"login": f"made{number}", "speaks_as": "sim:1"}
    if route == "POST /projects":
        given["json"] = {"slug": f"made{number}", "template": "rank"}
    if path.startswith("/judgments/"):
        identity = site.judgment
    if path.endswith("/gold"):
        identity = site.one("SELECT id FROM item WHERE kind IN ('normal', 'gold') ORDER BY id DESC")
        listed = site.ask("owner", "GET", f"/items/{identity}").json()["completions"]
        expected = {"best": listed[0]["id"]}
        if method == "PUT":
            given["json"] = {"expected": expected}
        else:
            site.main.do(planted.make_gold, item_id=identity, expected=expected, user_id=site.users["owner"])
    if path.endswith("items:import"):
        given = {"content": b'{"prompt": "a question of its own", "completions": ["a", "b"]}\n'}
    secret = (
        site.main.do(accounts.create_invite, project_id=site.main.id, role="viewer", created_by=None)
        if "{secret}" in path
        else ""
    )
    name = "rank" if "templates" in path else "kway.jsonl"
    return {
        "method": method,
        "path": path.format(
            project=site.talk.slug if "/chat" in path else "main", identity=identity, token=identity, secret=secret, name=name
        ),
        **given,
    }


def fill(site: Site) -> Site:
    """Something of everything that a route may be about."""
    site.report, site.job = site.a_report(), site.a_job()
    site.item = site.one("SELECT id FROM item ORDER BY id")
    site.main.submit(site.main.claim(site.users["annotator"]), site.users["annotator"])
    site.judgment = site.one("SELECT id FROM judgment ORDER BY id")
    return site


@pytest.fixture(scope="module")
def filled(site):
    return fill(site)


@pytest.mark.parametrize("route", MATRIX)
def test_a_route_is_open_to_its_roles_and_to_nobody_else(filled, route):
    if route not in routes_of(filled):
        pytest.fail("no such route")
    wrong = {}
    for number, role in enumerate(EVERYBODY):
        if route == "POST /me/password":
            filled.sessions.pop(role) if role != "nobody" else None  # it ends the others
        request = a_request(filled, route, role, number + 10 * list(MATRIX).index(route))
        answer = filled.ask(
            role, request.pop("method"), request.pop("path"), is_fresh=route in FRESH and role != "nobody", **request
        )
        is_open = answer.status_code not in (401, 403, 404)
        if (
            is_open != (role in MATRIX[route])
            or answer.status_code >= 500
            or (is_open and answer.status_code not in (200, 201, 202, 204, 422))
        ):
            wrong[role] = (answer.status_code, answer.text[:200])
        if answer.status_code == 422 and route != "POST /auth/login":
            wrong[role] = (422, answer.text[:200])
    assert not wrong
    if "/members/" in route or route.startswith("DELETE /users"):
        filled.database.write(lambda c: accounts.set_state(c, filled.users["spare"], "active"))
        filled.database.write(lambda c: accounts.leave(c, project_id=filled.main.id, user_id=filled.users["spare"]))


def test_a_token_does_only_what_its_scopes_say(site):
    annotate, view = ({"Authorization": f"Bearer {site.token('manager', scope)}"} for scope in ("annotate", "view"))
    assert site.http.get("/projects/main/stats", headers=view).status_code == 200
    assert site.http.get("/projects/main/stats", headers=annotate).status_code == 403
    assert site.http.post("/projects/main/next", headers=annotate).status_code == 200
    assert site.http.post("/projects/main/next", headers=view).status_code == 403
    assert site.http.get("/me/history", headers=view).json()["code"] == "scope"
    for path in ("/tokens", "/me/sessions"):  # a token cannot make itself another, or look at sessions
        assert site.http.get(path, headers=annotate).json()["code"] == "session_needed"
    assert site.http.get("/me", headers={"Authorization": "Bearer prefloop_wrong"}).status_code == 401
    assert site.http.get("/me", headers={"Authorization": f"Basic {annotate['Authorization'][7:]}"}).status_code == 401


def test_a_job_that_is_cancelled_while_it_waits_leaves_no_file(site, monkeypatch):
    monkeypatch.setattr(jobs, "taken", lambda connection: None)
    sent = site.ask("manager", "POST", "/projects/main/items:import", content=b"{}").json()["job"]
    assert site.service.jobs.place(sent).exists()
    assert site.ask("manager", "POST", f"/jobs/{sent}/cancel").json()["state"] == "cancelled"
    assert not site.service.jobs.place(sent).exists()


# --- browsers ---------------------------------------------------------------------------------------------------------------

CROSS = [
    {"X-CSRF-Token": ""},
    {"X-CSRF-Token": "wrong"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_no_other_site_can_make_a_change(site, headers):
    answer = site.ask("annotator", "PATCH", "/me", json={"locale": "en"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf")


def test_our_own_pages_can(site):
    same = {"Origin": site.address, "Sec-Fetch-Site": "same-origin"}
    assert site.ask("annotator", "PATCH", "/me", json={"locale": "en"}, headers=same).status_code == 204


def test_logging_in_gives_a_new_cookie_that_scripts_cannot_read(site):
    body = {"login": "Viewer", "password": PASSWORD}
    first, second = (site.http.post("/auth/login", json=body) for _ in range(2))
    site.http.cookies.clear()
    cookies = [answer.headers["set-cookie"] for answer in (first, second)]
    assert all(
        re.fullmatch(r"prefloop_session=[\w-]{43}; HttpOnly; Max-Age=604800; Path=/; SameSite=lax", cookie) for cookie in cookies
    )
    assert cookies[0] != cookies[1]
    assert site.http.post("/auth/login", json=body, headers={"Origin": "https://evil.example"}).status_code == 403
    forged = site.http.get("/me", headers={"Cookie": "prefloop_session=" + "a" * 43})
    assert forged.status_code == 401


def test_wrong_passwords_and_unknown_logins_sound_alike_and_are_locked_out(site, monkeypatch):
    now = site.database.clock()
    monkeypatch.setattr(site.database, "clock", lambda: now)  # the first wait is a second, and a busy machine may take longer

    def attempt(login: str) -> tuple[int, dict]:
        answer = site.http.post("/auth/login", json={"login": login, "password": "wrong password"})
        return answer.status_code, answer.json()

    assert attempt("reviewer") == attempt("nobody-at-all")
    codes = [attempt("brute")[0] for _ in range(7)]
    assert codes == [401] * 6 + [429]
    locked = site.http.post("/auth/login", json={"login": "BRUTE ", "password": "x"})
    assert locked.status_code == 429 and int(locked.headers["retry-after"]) >= 1


def test_every_answer_has_its_headers(site):
    for answer in (site.http.get("/me"), site.http.get("/nowhere"), site.http.get("/openapi.json")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("DELETE", "/projects", {}, 405, "method"),
        ("POST", "/projects/main/next", {"json": {"besides": []}}, 422, "bad_request"),
        ("POST", "/projects/main/next", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "bad_request"),
        (
            "POST",
            "/projects/main/next",
            {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
            400,
            "http",
        ),
        ("PATCH", "/me", {"json": {"display": "\x00"}}, 422, "bad_request"),
        ("PATCH", "/me", {"content": b" " * (MAX_BODY + 1), "headers": {"Content-Type": "application/json"}}, 413, "too_long"),
    ],
)
def test_a_request_that_cannot_be_done_gets_a_problem(site, method, path, given, status, code):
    answer = site.ask("annotator", method, path, **given)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_monitor_reads_how_far_every_project_is_with_a_token_that_only_looks(filled):
    said = filled.http.get("/metrics", headers={"Authorization": f"Bearer {filled.token('owner', 'view')}"})
    assert said.headers["content-type"].startswith("text/plain")
    lines = said.text.splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    expected = filled.database.read(lambda c: projects.progress(c, filled.main.id))
    assert {name: int(told[f'prefloop_project_{name}{{project="main"}}']) for name in expected} == expected
    assert int(told['prefloop_requests_total{status="2xx"}']) > 0 and int(told["prefloop_database_bytes"]) > 4096
    assert int(told['prefloop_jobs{state="done"}']) >= 1
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) and {name.partition("{")[0] for name in told} <= set(families)
    for role, scope in (("owner", "annotate"), ("manager", "view")):
        headers = {"Authorization": f"Bearer {filled.token(role, scope)}"}
        assert filled.http.get("/metrics", headers=headers).status_code == 403


def test_a_label_ends_where_its_value_ends():
    said = list(family("x", "gauge", "y", [({"a": 'b"\\\n'}, 3), ({}, 4)]))
    assert said[2:] == ['prefloop_x{a="b\\"\\\\\\n"} 3', "prefloop_x 4"]


def test_too_many_requests_are_slowed_down():
    time_now = [0.0]
    limiter = Limiter(rate=2.0, burst=3.0, clock=lambda: time_now[0])
    for _ in range(3):
        limiter.spend("ada")
    limiter.spend("bob")
    with pytest.raises(Refused) as refusal:
        limiter.spend("ada")
    assert (refusal.value.status, refusal.value.more) == (429, {"retry_after": 1})
    time_now[0] = 0.5  # one more has come in
    limiter.spend("ada")


# --- the annotator ----------------------------------------------------------------------------------------------------------


def keys_in(value) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for one in value.values() for key in keys_in(one)}
    return {key for one in value for key in keys_in(one)} if isinstance(value, list) else set()


def test_an_annotator_sees_nothing_of_where_answers_come_from(site):
    prompt = Prompt.of("who wrote this?", origin="secret-origin", tags=("gold:yes",))
    group = Group(
        prompt=prompt, completions=tuple(Completion.of(prompt, f"text {n}", source=f"policy:secret-{n}") for n in range(3))
    )
    with connect(site.address, site.token("manager", "import", "annotate")) as server:
        server.project("main").push([group], priority=99)
    answer = site.ask("annotator", "POST", "/projects/main/next", json={"beside": [site.a_turn()]})
    turn = answer.json()
    assert [one["id"] for one in turn["completions"]] == ["a", "b", "c"]
    assert set(turn) == {
        "assignment",
        "project",
        "state",
        "lease_expires",
        "schema_version",
        "schema",
        "prompt",
        "completions",
        "draft",
        "answers",
        "returned",
    }
    hidden = ["secret", "policy", "gold:yes", prompt.id, *(completion.id for completion in group.completions)]
    assert not any(word in answer.text for word in hidden)
    assert keys_in(turn["completions"]) == {"id", "content", "type", "text"}


def test_what_was_right_is_told_of_practice_and_of_nothing_else(site, monkeypatch):
    monkeypatch.setattr(planted, "drawn", lambda *given: (0.0, 0))  # gold is always due
    project = made(site.database, users=0, n=3, overlap=2)
    for role in ("annotator", "manager"):
        project.do(accounts.join, project_id=project.id, user_id=site.users[role], role=role)
    path = f"/projects/{project.slug}"
    practice, gold, _ = (one["id"] for one in site.ask("manager", "GET", f"{path}/items").json()["items"])
    for identity, more in ((practice, {"practice": True, "why": "because"}), (gold, {})):
        best = site.ask("manager", "GET", f"/items/{identity}").json()["completions"][0]["id"]
        body = {"expected": {"best": best}, **more}
        assert site.ask("annotator", "PUT", f"/items/{identity}/gold", json=body).status_code == 403
        assert site.ask("manager", "PUT", f"/items/{identity}/gold", json={**body, "why": "x" * 2001}).status_code == 422
        assert site.ask("manager", "PUT", f"/items/{identity}/gold", json=body).status_code == 204
    assert site.ask("manager", "PATCH", f"{path}/quality", json={"gold_rate": 0.5}).status_code == 200
    assert site.ask("annotator", "GET", path).json()["practice"] == {"left": 1, "of": 1}
    told, screens = [], []
    while (answer := site.ask("annotator", "POST", f"{path}/next")).status_code == 200:
        turn = answer.json()
        given = {"json": {"answers": RANKED}, "headers": {"Idempotency-Key": turn["assignment"]}}
        first, again = (site.ask("annotator", "POST", f"/assignments/{turn['assignment']}/submit", **given) for _ in range(2))
        looked = site.ask("annotator", "GET", f"/assignments/{turn['assignment']}").json()
        assert first.json() == again.json() and first.json().get("feedback") == looked.pop("feedback", None)
        told.append(first.json())
        screens.append([set(turn), set(looked), keys_in(turn["completions"]), "because" in answer.text])
    assert len(told) == 3 and [set(one) - {"judgment", "rev", "surplus"} for one in told] == [{"feedback"}, set(), set()]
    best = told[0]["feedback"]["expected"]["best"]
    assert told[0]["feedback"] == {"score": float(best == "a"), "expected": {"best": best}, "why": "because"}
    assert screens[0] == screens[1] == screens[2] and not screens[0][-1]  # until then it looks like any other
    assert site.ask("annotator", "GET", path).json()["practice"] == {"left": 0, "of": 0}
    slots = site.ask("manager", "GET", f"{path}/timeline").json()["slots"]
    assert slots == {"done": 2, "open": 1, "expired": 0}  # of the gold item, and of the ordinary one
    listed = site.ask("manager", "GET", f"{path}/items", params={"kind": "practice"}).json()["items"]
    assert [one["id"] for one in listed] == [practice]
    assert site.ask("manager", "GET", f"{path}/planted").json()["practice"] == {"items": 1, "judgments": 1}


def test_the_whole_way_over_http_from_a_file_to_rankings(site, tmp_path):
    the_whole_way(site, tmp_path)


def test_the_whole_way_is_the_same_on_postgresql(new_url, tmp_path):
    opened = Site(tmp_path / "site", new_url("postgresql")).start()
    try:
        the_whole_way(opened, tmp_path)
    finally:
        opened.stop()


def the_whole_way(site: Site, tmp_path) -> None:
    """A project, items, a stand-in at work, an export that is read back."""
    for path in ("/projects/%00", "/items/%00", "/projects/main/items?q=%00"):  # of which PostgreSQL can hold none
        assert site.ask("owner", "GET", path).status_code in (200, 404, 422)
    scopes = ("annotate", "view", "import", "export", "manage", "own")
    with connect(site.address, site.token("owner", *scopes)) as server:
        project = server.create("loop", overlap=1)
        report = project.push(some_groups(4))
        assert (report["added"], report["n_problems"]) == (4, 0)
        last = server.ask("GET", f"{project.path}/jobs").json()["jobs"][0]
        assert (last["state"], last["n_done"]) == ("done", 4)  # all of them, though it is told only now and then
        with pytest.raises(DataError, match=r"groups\.jsonl:2, 1 answers"):
            project.push([*some_groups(1, start=9), *some_groups(1, start=8, k=1)])
        with pytest.raises(Waiting, match="0 judgments of 4"):
            project.wait_for(4, timeout=0)
        annotator = server.ask("POST", "/users", json={"login": "sim:7", "speaks_as": "sim:7"}).json()
        server.ask("PUT", f"/projects/loop/members/{annotator['user']}", json={"role": "annotator"})
        with connect(site.address, annotator["token"]) as other:
            work_through(other.project("loop"))
        assert project.wait_for(4) == 4
        manifest = project.pull(tmp_path / "out", format="kway")
        assert manifest["judgments"] == 4
        with pytest.raises(RunError, match="there is a project 'loop' already"):
            server.create("loop")
    groups = read_groups(tmp_path / "out" / "kway.jsonl").records
    assert {ranking.annotator for group in groups for ranking in group.rankings} == {"sim:7"}
    assert {group.completions[0].source for group in groups} == {"policy:x"}


def some_groups(n: int, *, start: int = 0, k: int = 3) -> list[Group]:
    prompts = [Prompt.of(f"over http {number}") for number in range(start, start + n)]
    return [
        Group(prompt=one, completions=tuple(Completion.of(one, f"a{i}", source="policy:x") for i in range(k))) for one in prompts
    ]


def work_through(project) -> None:
    """With a draft, a bad answer, a repetition, a correction and a skip on the way."""
    for number, turn in enumerate(project.turns()):
        path = f"/assignments/{turn['assignment']}"
        ask = project.server.ask
        saved = ask("PUT", f"{path}/draft", json={"body": {"typed": number}}, headers={"If-Match": "0"})
        assert saved.headers["etag"] == '"1"'
        assert project.next()["draft"] == {"rev": 1, "body": {"typed": number}}
        with pytest.raises(RunError, match=r"412, the draft was saved elsewhere"):
            ask("PUT", f"{path}/draft", json={"body": {}}, headers={"If-Match": '"0"'})
        with pytest.raises(RunError, match=r"rank\.ranking: leaves out b, c"):
            project.submit(turn, {"rank": {"ranking": "a"}})
        answers = {"rank": {"ranking": "c > a = b"}}
        receipt = project.submit(turn, answers)
        assert project.submit(turn, answers) == receipt
        if number == 0:
            recalled = ask("POST", f"{path}/recall").json()
            assert recalled["answers"]["rank"]["ranking"] == {"tiers": [["c"], ["a", "b"]], "unusable": []}
            assert project.submit(turn, {"rank": {"ranking": "a > b > c"}})["rev"] == 2
    past = project.server.ask("GET", "/me/history").json()["turns"]
    assert {one["state"] for one in past} == {"submitted"} and len(past) == 4


def test_who_is_logged_in_joins_another_project_by_its_link(site):
    project = made(site.database, users=0)
    secret = project.do(accounts.create_invite, project_id=project.id, role="reviewer", created_by=None)
    path, mine = f"/invites/{secret}/accept", {"login": "", "password": ""}
    with connect(site.address, site.token("outsider")) as server, pytest.raises(RunError, match="403"):
        server.ask("POST", path, json=mine)  # a token joins nothing
    assert site.ask("nobody", "POST", path, json=mine).json()["code"] == "not_logged_in"
    assert site.ask("outsider", "POST", path, json=mine).json()["user"] == site.users["outsider"]
    assert site.ask("outsider", "GET", f"/projects/{project.slug}").json()["role"] == "reviewer"
    assert site.ask("annotator", "POST", path, json=mine).status_code == 410  # it was for one


def test_changes_are_limited_for_each_person_and_looks_are_not(site, monkeypatch):
    monkeypatch.setattr(site.service, "changes", Limiter(rate=0.001, burst=2.0))
    codes = [site.ask("annotator", "POST", "/projects/main/next").status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert site.ask("annotator", "PATCH", "/me", json={"locale": "en"}).status_code == 429
    assert site.ask("annotator", "GET", "/me").status_code == 200
    assert site.ask("manager", "PATCH", "/me", json={"locale": "en"}).status_code == 204


def test_a_replayed_submit_says_so_and_a_reused_key_is_refused(site):
    turn = site.a_turn()
    headers = {"Idempotency-Key": "mine"}
    path = f"/assignments/{turn}/submit"
    assert site.ask("annotator", "POST", path, json={"answers": RANKED}).json()["code"] == "key_needed"
    first = site.ask("annotator", "POST", path, json={"answers": RANKED}, headers=headers)
    again = site.ask("annotator", "POST", path, json={"answers": RANKED}, headers=headers)
    assert first.json() == again.json() and again.headers["idempotency-replayed"] == "true"
    other = site.ask("annotator", "POST", path, json={"answers": {"rank": {"ranking": "b>a"}}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")


def test_nobody_begins_before_they_agree_and_other_words_are_agreed_to_anew(site):
    asked = {"en": "Answers are kept **for research**.", "zh": "回答将用于研究。"}
    project = made(site.database, users=0, schema=template("rank").model_copy(update={"consent": asked}), n=2)
    for role in ("annotator", "manager"):
        project.do(accounts.join, project_id=project.id, user_id=site.users[role], role=role)
    path = f"/projects/{project.slug}"
    refused = site.ask("annotator", "POST", f"{path}/next")
    assert (refused.status_code, refused.json()["code"], refused.json()["consent"]) == (403, "consent_needed", asked)
    assert site.ask("annotator", "POST", f"{path}/consent", json={"words": "x"}).json()["code"] == "consent_changed"
    assert site.ask("annotator", "POST", f"{path}/consent", json={"words": refused.json()["words"]}).status_code == 204
    turn = site.ask("annotator", "POST", f"{path}/next").json()["assignment"]
    assert site.ask("manager", "POST", f"{path}/next").status_code == 403  # everybody for themselves
    leased = "SELECT count(*) FROM slot WHERE project_id = '%s' AND state = 'leased'"
    assert site.one(leased % project.id) == 1  # and who does not agree holds nothing
    logged = site.ask("manager", "GET", f"{path}/events").json()["events"]
    agreed = [(one["user"], one["detail"]) for one in logged if one["action"] == "consent"]
    assert agreed == [(site.users["annotator"], {"words": asked})]
    other = template("rank").model_copy(update={"consent": {"en": "Answers are published."}})
    project.do(projects.add_schema, project_id=project.id, schema=other, user_id=None)
    assert site.ask("annotator", "POST", f"{path}/next").json()["consent"] == other.consent
    given = {"json": {"answers": RANKED}, "headers": {"Idempotency-Key": turn}}
    assert site.ask("annotator", "POST", f"/assignments/{turn}/submit", **given).status_code == 200  # begun under the old words


def test_where_there_is_nothing_the_reason_is_told(site):
    answer = site.ask("outsider", "POST", "/projects/other/next")
    assert (answer.status_code, answer.headers["prefloop-reason"]) == (204, "empty")
    assert site.ask("outsider", "GET", "/projects/other/why-empty").json() == {"reason": "empty", "until": None}


def test_items_are_found_by_their_words_and_changed_together(site):
    found = site.ask("manager", "GET", "/projects/main/items", params={"q": "QUESTION 1", "kind": "normal"}).json()["items"]
    assert {one["prompt"] for one in found} <= {f"question {n}" for n in (1, *range(10, 20))} and len(found) >= 10
    ids = [one["id"] for one in found[:2]]
    other = site.one("SELECT i.id FROM item i JOIN project p ON p.id = i.project_id WHERE p.slug <> 'main'")
    body = {"ids": [*ids, *([other] if other else [])], "priority": 7}
    assert site.ask("manager", "POST", "/projects/main/items:bulk", json=body).json() == {"changed": 2}
    after = site.ask("manager", "GET", "/projects/main/items", params={"q": "question 1"}).json()["items"]
    assert sorted(one["id"] for one in after if one["priority"] == 7) == sorted(ids)
    assert site.ask("manager", "GET", "/projects/main/items", params={"q": "100%_"}).json()["items"] == []
    site.ask("manager", "POST", "/projects/main/items:bulk", json={"ids": ids, "priority": 0})


# --- files ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x.jsonl", "x", "x.exe", ".jsonl", "a/b.jsonl", "x" * 90 + ".jsonl"])
def test_an_upload_is_never_called_what_it_likes(site, name):
    answer = site.ask("manager", "POST", "/projects/main/items:import", params={"name": name}, content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_name")


def test_an_upload_that_says_it_is_five_gigabytes_is_refused_at_once(site):
    session = site.session("manager")
    cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    headers = {**session.headers, "Cookie": cookies, "Content-Length": str(5 * 2**30)}
    connection.putrequest("POST", "/api/v1/projects/main/items:import")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()  # and not one byte of the body
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "too_long")
    connection.close()


@pytest.mark.parametrize("name", ["..%2f..%2fcollect.sqlite", "%2e%2e", "collect.sqlite", "kway.jsonl%00"])
def test_only_the_files_of_the_manifest_can_be_fetched(filled, name):
    assert filled.ask("manager", "GET", f"/jobs/{filled.job}/files/{name}").status_code == 404


def test_a_download_can_be_gone_on_with(filled):
    path = f"/jobs/{filled.job}/files/manifest.json"
    whole = filled.ask("manager", "GET", path)
    rest = filled.ask("manager", "GET", path, headers={"Range": "bytes=10-"})
    assert rest.status_code == 206 and rest.content == whole.content[10:]
    assert whole.headers["content-disposition"].startswith("attachment")


def test_a_job_that_was_running_when_the_server_died_is_done_by_the_next(filled):
    identity = filled.a_job()
    before = filled.ask("manager", "GET", f"/jobs/{identity}").json()
    filled.database.write(
        lambda c: c.exec_driver_sql(f"UPDATE job SET state = 'running', result_json = '{{}}' WHERE id = '{identity}'")
    )
    filled.service.jobs.stop()
    filled.service.jobs = type(filled.service.jobs)(filled.database, filled.service.folder)
    filled.service.jobs.start()
    ends = time.monotonic() + 60
    while (after := filled.ask("manager", "GET", f"/jobs/{identity}").json())["state"] != "done" and time.monotonic() < ends:
        time.sleep(0.05)
    assert json.dumps(after["result"]["files"]) == json.dumps(before["result"]["files"])
