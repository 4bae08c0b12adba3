"""The owner's pages in a real browser: a project from nothing to work, its dashboard, a review, its items. What was done is asked
of the server, never of the page."""

import json
import re
from pathlib import Path
from threading import Event

import pytest
from playwright.sync_api import Page, Route, expect

from prefloop.collect import exports
from prefloop.collect.web.pages import assets
from tests.collect.browser.conftest import LIGHTS, PHONE, Visit, photograph
from tests.collect.browser.owner_example import team
from tests.collect.browser.test_every_page import NAMELESS, TWICE
from tests.collect.site import ROLES, Site

TEXTS = {one: json.loads(assets()[f"texts.{one}.json"].content) for one in ("en", "zh")}
LEAVES = "() => [...document.querySelectorAll('header *, main *')].filter((one) => !one.children.length).map((one) => one.textContent.trim())"
GOOD = [{"prompt": f"Question {n}?", "completions": [f"answer {n} {x}" for x in ("one", "two", "three")]} for n in range(4)]


@pytest.fixture(scope="module")
def filled(site: Site) -> Site:
    team(site)
    return site


def ask(site: Site, path: str, role: str = "manager") -> dict:
    return site.ask(role, "GET", path).json()


def drawn(page: Page) -> Page:
    page.wait_for_selector("[data-state=drawn]")
    return page


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_project_from_nothing_to_work(site: Site, visit: Visit, tmp_path: Path):
    page = visit("/projects", "owner")
    page.get_by_role("button", name="New project").click()
    page.locator("[name=title]").fill("Kettle talk 2")
    assert page.locator("[name=slug]").input_value() == "kettle-talk-2"
    page.locator("[value=rank]").check()
    page.locator("[name=overlap]").fill("2")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/projects/kettle-talk-2/setup")
    assert ask(site, "/projects/kettle-talk-2", "owner")["state"] == "draft"

    torn = tmp_path / "torn.jsonl"
    torn.write_text("\n".join([json.dumps(GOOD[0]), '{"prompt": "torn', json.dumps({"prompt": "x", "completions": ["alone"]})]))
    page.locator("[name=file]").set_input_files(torn)
    problems = page.locator("[data-problems]")
    expect(problems).to_contain_text("torn.jsonl:2")
    expect(problems).to_contain_text("torn.jsonl:3")
    assert ask(site, "/projects/kettle-talk-2/items", "owner")["items"] == []  # a look stores nothing

    whole = tmp_path / "whole.jsonl"
    whole.write_text("\n".join(json.dumps(one) for one in GOOD))
    page.locator("[name=file]").set_input_files(whole)
    page.get_by_role("button", name="Import 4 items").click()
    expect(page.get_by_text("4 items are in the project now.")).to_be_visible()
    assert [one["n_slots"] for one in ask(site, "/projects/kettle-talk-2/items", "owner")["items"]] == [2] * 4
    expect(page.locator("[data-step=preview] .card")).to_have_count(3)

    page.locator("[data-step=people] [name=role]").select_option("reviewer")
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("[name=link]").input_value()
    assert site.http.get(f"/invites/{link.rpartition('#')[2]}").json()["role"] == "reviewer"

    page.locator("[name=overlap_max]").fill("4")
    with page.expect_response("**/quality"):
        page.locator("[data-step=quality]").get_by_role("button", name="Store").click()
    assert ask(site, "/projects/kettle-talk-2/quality", "owner")["overlap_max"] == 4

    page.locator("[data-step=start] [data-state=active]").click()
    drawn(page)
    assert ask(site, "/projects/kettle-talk-2", "owner")["state"] == "active"
    expect(page.locator("[data-tile=progress]")).to_contain_text("0 of 8 judgments")
    expect(page.locator("[data-tile=alpha]")).to_contain_text("too few items judged by two people")


def test_questions_that_cannot_be_asked_are_refused_with_their_place(site: Site, visit: Visit):
    page = visit("/projects/main/setup", "manager")
    page.get_by_text("Change the questions").click()
    page.locator("[name=schema]").fill("id: x\nstages: [{id: s, questions: [{id: q, type: rnak}]}]")
    page.get_by_role("button", name="Store as a new version").click()
    expect(page.locator("[data-step=questions] [role=alert]")).to_contain_text("did you mean 'rank'?")
    assert len(site.ask("manager", "GET", "/projects/main/schemas").json()) == 1


def test_every_chart_has_its_numbers_as_a_table_and_as_a_file(filled: Site, visit: Visit):
    page = drawn(visit("/projects/kettle", "manager"))
    agreement = ask(filled, "/projects/kettle/agreement")
    expect(page.locator("[data-tile=agreement] .value")).to_have_text(
        f"{round(100 * agreement['pairs']['half']['by_items']['value'])}%"
    )
    charts = page.locator("figure.chart")
    assert charts.count() >= 10
    for number in range(charts.count()):
        assert charts.nth(number).locator("table").count() == 1, charts.nth(number).get_attribute("data-chart")
    with page.expect_download() as saved:
        page.locator("[data-chart=annotators]").get_by_role("button", name="CSV").click()
    lines = Path(saved.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("Annotator,Judgments,") and len(lines) == 1 + 4
    rows = ask(filled, "/projects/kettle/annotators")["annotators"]
    assert [int(line.split(",")[1]) for line in lines[1:]] == [row["n"] for row in rows]
    careless = next(row for row in rows if row["too_fast"]["mean"] == 1.0)  # dahlia: one second each, and by chance
    assert careless["with_others"]["high"] < min(row["with_others"]["value"] for row in rows if row is not careless)
    page.locator("[data-box=exports] button").click()
    expect(page.locator("[data-box=exports] a", has_text="kway.jsonl")).to_be_visible()


def test_an_export_that_waits_is_cancelled_on_the_page(filled: Site, visit: Visit, monkeypatch: pytest.MonkeyPatch):
    may_end, write = Event(), exports.export
    monkeypatch.setattr(exports, "export", lambda *given, **more: (may_end.wait(60), write(*given, **more))[1])
    before = ask(filled, "/projects/kettle/jobs")["jobs"]
    page = drawn(visit("/projects/kettle", "manager"))
    export = page.locator("[data-box=exports]").get_by_role("button", name="Export")
    for number in (1, 2):  # one at work, one that waits for it
        export.click()
        expect(page.locator("[data-box=exports] [data-cancel]")).to_have_count(number)
    waits, at_work = (one["id"] for one in ask(filled, "/projects/kettle/jobs")["jobs"][: -len(before) or None])
    page.locator(f"[data-cancel='{waits}']").click()
    expect(page.locator(f"[data-job='{waits}']")).to_contain_text("cancelled before it was done")
    may_end.set()
    expect(page.locator(f"[data-job='{at_work}'] a", has_text="kway.jsonl")).to_be_visible()
    assert filled.ask("manager", "POST", f"/jobs/{at_work}/cancel").status_code == 409


def test_a_viewer_sees_counts_and_no_more(filled: Site, visit: Visit):
    page = drawn(visit("/projects/kettle", "viewer"))
    expect(page.locator("nav.views a")).to_have_count(1)
    expect(page.locator("[data-box=exports]")).to_have_count(0)


def test_a_reviewer_sees_no_names_decides_and_goes_on(filled: Site, visit: Visit):
    waiting = ask(filled, "/projects/kettle/review-queue", "reviewer")["items"]
    page = visit("/projects/kettle/review", "reviewer")
    expect(page.locator(".queue [data-item]")).to_have_count(len(waiting))
    expect(page.locator(".matrix tbody th").first).to_contain_text("Person 1")
    assert "policy:" not in page.locator(".view").inner_text()
    first = waiting[0]["id"]
    page.get_by_role("button", name="Take the consensus").click()
    expect(page.locator(f".queue [data-item='{first}']")).to_have_count(0)
    assert ask(filled, f"/items/{first}/review", "reviewer")["final"]["method"] == "consensus"

    second = waiting[1]["id"]
    expect(page.locator(f".queue .here[data-item='{second}']")).to_have_count(1)
    judgment = ask(filled, f"/items/{second}/review", "reviewer")["judgments"][0]["id"]
    page.locator(f"[data-judgment='{judgment}']").get_by_role("button", name="Reject").click()
    page.locator("dialog").get_by_role("button", name="Reject").click()
    expect(page.locator(f"[data-judgment='{judgment}']")).to_have_count(0)
    assert len(ask(filled, f"/items/{second}/review", "reviewer")["judgments"]) == waiting[1]["n"] - 1

    page.get_by_role("button", name="Decide myself").click()
    page.locator("[name=order]").fill("4 3=2 x1")
    page.locator("dialog textarea").fill("The first one is about something else.")
    page.locator("dialog").get_by_role("button", name="Decide myself").click()
    expect(page.get_by_text("Decided by the reviewer.")).to_be_visible()
    after = ask(filled, f"/items/{second}/review", "reviewer")
    names = [one["id"] for one in after["completions"]]
    ranking = after["final"]["answers"]["rank"]["ranking"]
    assert (ranking["tiers"], ranking["unusable"]) == ([[names[3]], [names[1], names[2]]], [names[0]])
    assert "policy:" in page.locator(".view").inner_text()  # once it is decided


def test_items_are_found_and_held_together(filled: Site, visit: Visit):
    page = visit("/projects/kettle/items", "manager")
    page.locator("[name=q]").fill("hamlet")
    page.locator("[name=kind]").select_option("normal")
    expect(page.locator("tbody tr")).to_have_count(6)
    for number in (0, 1):
        page.locator("tbody input").nth(number).check()
    with page.expect_response("**/items:bulk"):
        page.get_by_role("button", name="Hold").click()
    held = ask(filled, "/projects/kettle/items?status=held")["items"]
    assert len(held) == 2 and all("Hamlet" in one["prompt"] for one in held)
    filled.ask("manager", "POST", "/projects/kettle/items:bulk", json={"ids": [one["id"] for one in held], "status": "active"})


def test_a_list_that_comes_late_does_not_replace_what_was_asked_after_it(filled: Site, visit: Visit):
    page = visit("/projects/kettle/items", "manager")
    expect(page.locator("tbody tr")).to_have_count(len(ask(filled, "/projects/kettle/items")["items"]))
    late: list[Route] = []  # the list without words is asked for again, and kept on its way
    page.route(lambda url: "/items?" in url and "hamlet" not in url, lambda route: late.append(route))
    with page.expect_request("**/items?*"):
        page.get_by_role("button", name="Look").click()
    page.locator("[name=q]").fill("hamlet")
    page.locator("[name=kind]").select_option("normal")
    expect(page.locator("tbody tr")).to_have_count(6)
    with page.expect_response("**/items?*"):
        late.pop().continue_()
    page.locator("tbody input").first.check()
    page.wait_for_timeout(100)  # nothing is to be waited for where nothing is to happen
    expect(page.locator("tbody tr")).to_have_count(6)
    expect(page.locator(".bulk [role=status]")).to_contain_text("1")


def test_what_a_reviewer_sees_is_what_was_chosen_last(filled: Site, visit: Visit):
    first, second = (one["id"] for one in ask(filled, "/projects/kettle/review-queue", "reviewer")["items"][:2])
    page = visit("/projects/kettle/review", "reviewer")
    expect(page.locator(f".queue .here[data-item='{first}']")).to_have_count(1)
    late: list[Route] = []  # the second item's answer is kept on its way until the first one is chosen again
    page.route(f"**/items/{second}/review", lambda route: late.append(route))
    with page.expect_request(f"**/items/{second}/review"):
        page.locator(f".queue [data-item='{second}'] button").click()
    with page.expect_response(f"**/items/{first}/review"):
        page.locator(f".queue [data-item='{first}'] button").click()
    with page.expect_response(f"**/items/{second}/review"):
        late.pop().continue_()
    page.wait_for_timeout(100)
    expect(page.locator(f".queue .here[data-item='{first}']")).to_have_count(1)
    with page.expect_request("**/adjudicate") as sent:
        page.keyboard.press("a")
    assert first in sent.value.url


@pytest.mark.parametrize("path", ["", "/items", "/review", "/setup"])
def test_every_control_has_a_name_in_chinese_and_nothing_is_wider_than_a_phone(filled: Site, visit: Visit, path: str):
    page = visit(f"/projects/kettle{path}", "manager", viewport=PHONE, language="zh")
    page.wait_for_load_state("networkidle")
    assert fits(page)
    assert [page.evaluate(look) for look in (NAMELESS, TWICE)] == [[], []]
    english = {said for said in TEXTS["en"].values() if re.search("[A-Za-z]{3}", said)} - set(TEXTS["zh"].values())
    assert english & set(page.evaluate(LEAVES)) <= set(ROLES)  # which are logins here


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_dashboard_is_photographed_in_both_languages_and_lights(filled: Site, visit: Visit, language: str):
    title = {"en": "Kettles and sonnets", "zh": "水壶与十四行诗"}[language]
    assert filled.ask("owner", "PATCH", "/projects/kettle", json={"title": title}).status_code == 204
    page = drawn(visit("/projects/kettle", "owner", language=language, viewport={"width": 1280, "height": 1480}))
    untold = page.evaluate("document.body.innerText.match(/\\b(dash|why|view|chart|items|state)\\.[a-z_]+/g)")
    assert untold is None
    photograph(page, f"collect-dashboard-{language}", themes=LIGHTS)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert fits(page)
    photograph(page, f"collect-dashboard-phone-{language}")
