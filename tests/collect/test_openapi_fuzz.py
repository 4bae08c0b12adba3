"""Whatever is sent, by whomever, is answered as the OpenAPI document says, and never with 5xx: Schemathesis, a real server.

A request begins as one that succeeds for whoever may make it (the row of the matrix in test_http.py). Of its address, its
headers and its body any may then be exchanged for what Schemathesis makes of the document, valid or not, and a body may also
be spoilt in one place: so what is sent gets past the first check, and not all of it does.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import count, cycle
from typing import Any, NamedTuple

import hypothesis.core
import pytest
import requests
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.strategies._internal import collections
from sqlalchemy import text

from prefloop.collect import accounts
from prefloop.collect.web.app import API, create_app
from tests.collect import test_http
from tests.collect.made import add
from tests.collect.site import EVERYBODY, PASSWORD, ROLES, Session, Site

DOCUMENT = create_app(None).openapi()  # type: ignore[arg-type]  # the routes alone
ROUTES = [f"{method.upper()} {path.removeprefix(API)}" for path, methods in DOCUMENT["paths"].items() for method in methods]
RIGHTS = ("annotate", "view", "read", "import", "export", "manage", "own")
OF_A_SESSION = ("/auth", "/me", "/tokens", "/invites/{secret}/accept")  # what no token may do
N_SHORT, N_LONG = 2, 140  # requests drawn for a route, without and with --long
NASTY = (None, True, -1, 2**70, 1e300, "", "\x00", "\ud800", "𝒳" * 300, "%", "' OR 1=1 --", "../../x", [], {}, [[]], {"": None}, ["a"] * 300)  # fmt: skip
NOWHERE = (2**70, "\x00\ud800")  # what no column holds
DIGITS = ("²", "9" * 30, "\x00")  # what is digits and no number, or one that no column holds


class Fuzz(NamedTuple):
    """A server with something of everything in it, and what Schemathesis knows of it."""

    site: Site
    http: requests.Session
    schema: Any
    modes: list[Any]
    checks: list[Callable[..., Any]]
    failure: type[BaseException]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def fuzz(request, new_url, tmp_path_factory) -> Iterator[Fuzz]:
    site = Site(tmp_path_factory.mktemp("fuzz"), new_url(request.param)).start()
    add(site.main, range(60, 600))
    test_http.fill(site)
    with pytest.MonkeyPatch.context() as patch, requests.Session() as http:
        # Schemathesis exchanges parts of Hypothesis for its own when it is imported: the other property tests get them back
        for module, name in (
            (hypothesis.core, "RepresentationPrinter"), (hypothesis.core, "BUFFER_SIZE"), (engine, "BUFFER_SIZE"), (collections, "BUFFER_SIZE"),
        ):  # fmt: skip
            if hasattr(module, name):
                patch.setattr(module, name, getattr(module, name))
        import schemathesis
        from schemathesis.checks import not_a_server_error
        from schemathesis.core.failures import FailureGroup
        from schemathesis.specs.openapi import checks

        http.trust_env = False
        yield Fuzz(
            site, http, schemathesis.openapi.from_dict(site.http.get("/openapi.json").json()), list(schemathesis.GenerationMode),
            [not_a_server_error, checks.status_code_conformance, checks.content_type_conformance, checks.response_headers_conformance,
             checks.response_schema_conformance], FailureGroup,
        )  # fmt: skip
    site.stop()


def spoilt(body: Any) -> st.SearchStrategy[Any]:
    """A body with one of its values exchanged, left out or added."""
    if not isinstance(body, dict):
        return st.sampled_from(NASTY)
    inside = [st.builds(lambda value, name=name: {**body, name: value}, spoilt(body[name])) for name in body]
    without = [st.just({name: body[name] for name in body if name != left_out}) for left_out in body]
    return st.one_of(st.sampled_from(NASTY), st.just({**body, "unknown": 1}), *inside, *without)


def a_request(site: Site, route: str, role: str, number: int) -> dict[str, Any]:
    """The right one of a role, as ``requests`` takes it, with what proves who asks."""
    made = test_http.a_request(site, route, role, number)
    if route == "POST /auth/login":
        made["json"] = {"login": role, "password": PASSWORD}
    headers, path = made.pop("headers", {}), route.split(" ")[1]
    if role != "nobody" and path.startswith(OF_A_SESSION):
        session = site.session(role, is_fresh=route in test_http.FRESH)
        headers |= session.headers | {"Cookie": "; ".join(f"{name}={value}" for name, value in session.cookies.items())}
    elif role != "nobody":
        headers["Authorization"] = f"Bearer {token(site, role)}"
    body = {"data": made["content"]} if "content" in made else {"json": made["json"]} if "json" in made else {}
    return {"method": made["method"], "url": site.address + API + made["path"], "headers": headers, **body}


@cache
def token(site: Site, role: str) -> str:
    return site.token(role, *RIGHTS)


@cache
def password() -> str:
    return accounts.hashed(PASSWORD)


def one_by_one(operation: dict[str, Any], right: dict[str, Any], is_long: bool) -> Iterator[dict[str, Any]]:
    """The right request with each thing the document names, in turn, as something that cannot be stored or read."""
    turn = count()

    def some(values: Sequence[Any]) -> Sequence[Any]:
        """All of them, or the next one."""
        return values if is_long else [values[next(turn) % len(values)]]

    sent = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for shape in [sent, *sent.get("anyOf", [])]:
        fields = DOCUMENT["components"]["schemas"].get(shape.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
        yield from ({**right, "json": {**right["json"], field: value}} for field in fields for value in some(NOWHERE))
    for parameter in operation.get("parameters", []):
        place = {"query": "params", "header": "headers"}.get(parameter["in"])
        values = [value.encode("latin-1") if place == "headers" else value for value in DIGITS[: 2 if place == "headers" else 3]]
        yield from ({**right, place: {**right.get(place, {}), parameter["name"]: value}} for value in some(values) if place)


def mend(site: Site) -> None:
    """Whoever was locked out, closed, taken out or called otherwise is back, and the projects hand out work."""

    def work(connection: Any) -> None:
        for words in ("UPDATE project SET state = 'active'", "DELETE FROM login_attempt"):
            connection.execute(text(words))
        connection.execute(text("UPDATE app_user SET state = 'active', password = :p"), {"p": password()})
        now = site.database.clock()
        for role in ROLES:
            for project in [site.main.id, *([site.talk.id] if site.talk else [])]:
                accounts.join(connection, project_id=project, user_id=site.users[role], role=role, now=now)

    site.database.write(work)
    site.sessions = {"nobody": Session({}, {})}  # a new password ends them


def a_case(fuzz: Fuzz, route: str) -> Any:
    """What a response is held against; nothing of it is sent."""
    method, path = route.split(" ")
    return fuzz.schema[API + path][method].Case(path_parameters=dict.fromkeys(re.findall(r"{(\w+)}", path), "x"))


def sent(fuzz: Fuzz, asked: dict[str, Any], case: Any) -> tuple[requests.Response, list[str]]:
    """The answer, and where it is not what the document says."""
    answer = fuzz.http.request(**asked, timeout=60)
    fuzz.http.cookies.clear()
    try:
        case.validate_response(answer, checks=fuzz.checks)
    except fuzz.failure as failure:
        return answer, [f"{failure}\n{asked}"]
    return answer, []


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_as_the_document_says_whatever_it_is_sent(fuzz, route, request):
    method, path = route.split(" ")
    operation, site, wrong = fuzz.schema[API + path][method], fuzz.site, []
    numbers = count(10**6 * (1 + ROUTES.index(route)))
    mend(site)

    def ask(asked: dict[str, Any], case: Any) -> int:
        answer, failure = sent(fuzz, asked, case)
        wrong.extend(failure)  # not raised here: what was sent may be answered otherwise when it is sent again
        return answer.status_code

    whole = a_case(fuzz, route)
    who = next(role for role in ("annotator", "manager", "owner") if role in test_http.MATRIX[route])  # the least who may
    assert ask(a_request(site, route, who, next(numbers)), whole) < 300  # so what is spoilt below was right but for that
    is_long = request.config.getoption("--long")
    for asked in one_by_one(DOCUMENT["paths"][API + path][method.lower()], a_request(site, route, who, next(numbers)), is_long):
        ask(asked, whole)
    place = ROUTES.index(route)  # each route begins with another role, so that all come to all kinds of routes
    roles = cycle([*EVERYBODY[place % len(EVERYBODY) :], *EVERYBODY[: place % len(EVERYBODY)]])

    @settings(max_examples=N_LONG if is_long else N_SHORT, phases=[Phase.generate])
    @given(
        case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in fuzz.modes]),
        kept=st.sets(st.sampled_from(["address", "headers", "body"])),
        more=st.data(),
    )
    def spoil(case, kept, more):
        right = a_request(site, route, next(roles), next(numbers))
        drawn = case.as_transport_kwargs(base_url=site.address)
        for part, names in (("address", ("url", "params")), ("body", ("json", "data", "files"))):
            if part in kept:
                drawn = {name: value for name, value in drawn.items() if name not in names} | {
                    name: right[name] for name in names if name in right
                }
        if "json" in right and "body" in kept:
            drawn["json"] = more.draw(spoilt(right["json"]))
        proof = {name: value for name, value in right["headers"].items() if name in ("Authorization", "Cookie", "X-CSRF-Token")}
        drawn["headers"] = {**drawn.get("headers", {}), **(right["headers"] if "headers" in kept else proof)}
        ask(drawn, case)

    spoil()
    assert not wrong, wrong[0]


def test_what_only_certain_circumstances_are_answered_with_is_in_the_document(fuzz):
    """Nothing to do, a judgment beyond the number wanted, a part of a file."""
    site = fuzz.site
    mend(site)
    empty = a_request(site, "POST /projects/{project}/next", "outsider", 1)
    empty["url"] = empty["url"].replace("/main/", "/other/")
    surplus = a_request(site, "POST /assignments/{identity}/submit", "manager", 10**9)
    surplus["url"] = f"{site.address}{API}/assignments/{site.a_turn('manager')}/submit"
    site.database.write(lambda c: c.execute(text("UPDATE slot SET state = 'done', user_id = NULL, assignment_id = NULL")))
    part = a_request(site, "GET /media/{token}", "annotator", 2)
    part["headers"]["Range"] = "bytes=0-3"
    for route, asked, status in (
        ("POST /projects/{project}/next", empty, 204),
        ("POST /assignments/{identity}/submit", surplus, 202),
        ("GET /media/{token}", part, 206),
    ):
        answer, wrong = sent(fuzz, asked, a_case(fuzz, route))
        assert (answer.status_code, wrong) == (status, [])
