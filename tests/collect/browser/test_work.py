"""Judging answers in a real browser: by mouse, keyboard, finger and line; and that what was typed is never lost.

What was stored is always asked of the server, never read off the page: a browser restores forms by itself.
"""

import re
import time
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.collect.browser import example
from tests.collect.browser.conftest import PATIENCE, PHONE
from tests.collect.site import PASSWORD, Site

numbers = count()


@pytest.fixture
def slug(site: Site) -> str:
    """A project of its own: four answers about a kettle, twice."""
    return a_project(site)


def a_project(site: Site, template_name: str = "rank", **more: Any) -> str:
    slug = f"w{next(numbers)}"
    groups = more.pop("groups", [example.group("en"), example.group("zh")])
    example.project(site, slug, title="Household tips", template_name=template_name, groups=groups, **more)
    return slug


def past(site: Site, slug: str, role: str = "annotator") -> list[dict[str, Any]]:
    """The turns somebody had, the latest first."""
    return site.ask(role, "GET", "/me/history", params={"project_name": slug}).json()["turns"]


def said(site: Site, slug: str, role: str = "annotator") -> Any:
    """What somebody submitted first in a project, in the letters of the screen."""
    turns = [turn for turn in past(site, slug, role) if turn["state"] == "submitted"]
    return site.ask(role, "GET", f"/assignments/{turns[-1]['assignment']}").json()["answers"]


def drafted(site: Site, slug: str) -> Any:
    """The answers of the draft that the server has of the turn somebody is at."""
    turn = [turn for turn in past(site, slug) if turn["state"] in ("leased", "recalled")][-1]
    draft = site.ask("annotator", "GET", f"/assignments/{turn['assignment']}").json()["draft"]
    return draft["body"]["answers"] if draft else None


def saved(page: Page) -> None:
    expect(page.locator(".state")).to_have_text(re.compile("saved|已保存"))


def submitted(page: Page) -> None:
    expect(page.locator(".toast").last).to_contain_text(re.compile("Submitted|已提交"))


def has_the_next(page: Page) -> None:
    """Until the page holds the turn after this one ready: it has asked for two, and heard."""
    heard = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/next')).length"
    ends = time.monotonic() + PATIENCE / 1000
    while page.evaluate(heard) < 2 and time.monotonic() < ends:
        page.wait_for_timeout(50)


def chip(page: Page, letter: str) -> Any:
    return page.locator(f"[data-chip={letter}]")


def drag(page: Page, source: Any, target: Any, *, at: tuple[float, float] = (0.5, 0.5)) -> None:
    """With the mouse, in steps, from the middle of one thing to a part of another."""
    start, end = source.bounding_box(), target.bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] * at[0], end["y"] + end["height"] * at[1], steps=4)
    page.mouse.up()


def order_of(page: Page) -> str:
    return page.locator(".line").input_value()


# --- four ways to rank ------------------------------------------------------------------------------------------------------


def test_answers_are_ranked_by_mouse(visit, site, slug):
    page = visit(f"/work/{slug}")
    submit = page.get_by_role("button", name="Submit")
    expect(submit).to_have_attribute("aria-disabled", "true")
    expect(page.locator(".why-not")).to_have_text("Put the answers in order")
    submit.click(force=True)  # the order they are shown in is no answer
    assert past(site, slug)[0]["state"] == "leased"
    drag(page, chip(page, "c"), page.locator(".hint"))
    assert order_of(page) == "c"
    drag(page, chip(page, "a"), page.locator(".gap").last)
    drag(page, chip(page, "b"), page.locator("[data-drop='tier:1']"))
    assert order_of(page) == "c > a = b"
    expect(page.locator(".why-not")).to_have_text("1 answer has no place yet")
    drag(page, page.locator(".card[data-id=d] .grip"), page.locator(".card[data-id=c]"), at=(0.5, 0.1))  # above c
    assert order_of(page) == "d > c > a = b"
    drag(page, chip(page, "d"), page.locator(".bin"))
    drag(page, chip(page, "b"), page.locator("[data-drop='gap:0']"))
    assert order_of(page) == "b > c > a | d"
    page.get_by_role("textbox", name="Why").fill("d sells something")
    submit.click()
    submitted(page)
    assert said(site, slug) == {
        "rank": {"ranking": {"tiers": [["b"], ["c"], ["a"]], "unusable": ["d"]}, "why": "d sells something"}
    }


def test_a_drag_that_is_cancelled_or_dropped_nowhere_changes_nothing(visit, slug):
    page = visit(f"/work/{slug}")
    box = chip(page, "a").bounding_box()
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(600, 780, steps=3)
    expect(page.locator(".ghost")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".ghost")).to_have_count(0)
    page.mouse.up()
    assert order_of(page) == ""
    drag(page, chip(page, "a"), page.locator(".conversation"))
    assert order_of(page) == ""


def test_answers_are_ranked_by_keyboard_alone(visit, site, slug):
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    status = page.get_by_role("status").first
    for keys in ("2", "ArrowDown", "4", "ArrowDown", "1", "k"):  # b last, d last, a to the top
        page.keyboard.press(keys)
    expect(status).to_have_text("Answer A, place 1 of 3")
    for keys in ("3", "=", "ArrowUp", "x", "x", "j", "="):
        page.keyboard.press(keys)
    expect(status).to_have_text("Answer C, place 3 of 3, tied with D")
    assert order_of(page) == "a > b > c = d"
    page.keyboard.press("-")
    assert order_of(page) == "a > b > d > c"
    for keys in ("Space", "ArrowUp", "ArrowUp"):  # picked up, moved, put back
        page.keyboard.press(keys)
    assert order_of(page) == "a > c > b > d"
    page.keyboard.press("Escape")
    assert order_of(page) == "a > b > d > c"
    page.keyboard.press("Control+z")
    assert order_of(page) == "a > c > b > d"
    page.keyboard.press("Control+Shift+z")
    assert order_of(page) == "a > b > d > c"
    page.keyboard.press("x")
    page.keyboard.press("Control+Enter")
    submitted(page)
    assert said(site, slug)["rank"]["ranking"] == {"tiers": [["a"], ["b"], ["d"]], "unusable": ["c"]}


def test_answers_are_ranked_by_taps_on_a_phone(visit, site, slug):
    page = visit(f"/work/{slug}", viewport=PHONE, has_touch=True, is_mobile=True)
    page.locator(".card[data-id=a] .rank-chip").tap()
    for letter in ("c", "b"):
        chip(page, letter).tap()
    expect(page.locator(".card[data-id=b] .rank-chip")).to_have_text("3rd")
    chip(page, "b").tap()
    page.get_by_role("menuitem", name="Tie with the one above").tap()
    chip(page, "d").tap()
    chip(page, "d").tap()
    page.get_by_role("menuitem", name="Unusable").tap()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]  # nothing sticks out
    for control in page.locator("button:visible:not(.dot, .why-not, .state)").all():
        assert control.bounding_box()["height"] >= 34
    page.get_by_role("button", name="Submit").tap()
    submitted(page)
    assert said(site, slug)["rank"]["ranking"] == {"tiers": [["a"], ["b", "c"]], "unusable": ["d"]}


def test_an_order_is_typed_as_a_line(visit, site, slug):
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    wrong = {"2 2": "B stands there twice", "7": "There is no answer G", "2 ?": "Not an order: write it like 2 1=3 x4"}
    for line, problem in wrong.items():
        page.keyboard.press("r")
        page.locator(".line").fill(line)
        page.keyboard.press("Enter")
        expect(page.locator(".line-problem")).to_have_text(problem)
        page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.keyboard.type("2 1=3 x4")
    page.keyboard.press("Enter")
    assert order_of(page) == "b > a = c | d"
    page.keyboard.press("r")
    page.keyboard.type("d > b = a | c")
    page.keyboard.press("Control+Enter")  # submits what is typed, too
    submitted(page)
    assert said(site, slug)["rank"]["ranking"] == {"tiers": [["d"], ["a", "b"]], "unusable": ["c"]}
    expect(page.locator(".conversation")).to_contain_text("水壶")
    assert order_of(page) == "" and drafted(site, slug) is None  # the next begins without an order


# --- everything else that is asked ------------------------------------------------------------------------------------------


def test_answers_are_rated_flagged_and_edited_by_keyboard(visit, site):
    slug = a_project(site, "instructgpt")
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    expect(page.locator(".why-not")).to_have_text(re.compile("A: “Overall quality” needs an answer"))
    for place, rating in ((1, 6), (2, 2), (3, 7), (4, 1)):
        page.keyboard.press(str(place))
        page.keyboard.press(f"Shift+{rating}")
    page.keyboard.press("f")
    page.keyboard.press("b")  # of the fourth answer: the second flag
    page.keyboard.press("2")
    page.keyboard.press("e")
    edited = page.get_by_role("dialog").get_by_role("textbox")
    edited.fill("Vinegar. Boil some in it, wait an hour, rinse.")
    expect(page.locator("dialog ins")).to_have_text(" an hour")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.keyboard.type("3 1 2 x4")
    page.keyboard.press("Enter")
    expect(page.locator(".why-not")).to_have_text("“Why” needs an answer")  # because one is unusable
    page.get_by_role("textbox", name="Why").fill("an advertisement")
    page.keyboard.press("Control+Enter")
    submitted(page)
    answers = said(site, slug)
    assert answers["rank"]["ranking"] == {"tiers": [["c"], ["a"], ["b"]], "unusable": ["d"]}
    assert {letter: one["overall"] for letter, one in answers["rate"].items()} == {"a": 6, "b": 2, "c": 7, "d": 1}
    assert answers["rate"]["d"]["inappropriate"] is True and "inappropriate" not in answers["rate"]["a"]
    assert answers["rate"]["b"]["edit"] == "Vinegar. Boil some in it, wait an hour, rinse."


def test_one_of_two_is_chosen_with_the_arrows(visit, site):
    slug = a_project(site, "arena", groups=[example.conversation()])
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    for keys in ("ArrowLeft", "0", "ArrowDown"):
        page.keyboard.press(keys)
    expect(page.get_by_role("button", name="Equally good")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+Enter")
    submitted(page)
    assert said(site, slug) == {"vote": {"better": {"choice": "b"}}}
    expect(page.locator("h1")).to_have_text("All done")


def test_questions_of_every_other_type_are_answered(visit, site):
    slug = a_project(site, "moore_basic", groups=[example.conversation()])
    page = visit(f"/work/{slug}")
    first, second = page.locator(".card").first, page.locator(".card").last
    first.locator(".pill").first.click()
    second.get_by_text("Bad", exact=True).click()
    first.get_by_role("spinbutton").fill("11")
    expect(page.locator(".why-not")).to_have_text(re.compile("A: “Score” is out of range"))
    first.get_by_role("spinbutton").fill("7.5")
    second.get_by_text("unclear").click()
    second.get_by_text("wrong").click()
    second.get_by_role("textbox", name="Comment").fill("一句话")
    page.keyboard.press("Control+Enter")
    submitted(page)
    assert said(site, slug) == {
        "judge": {
            "a": {"verdict": "good", "score": 7.5},
            "b": {"verdict": "bad", "problems": ["wrong", "unclear"], "comment": "一句话"},
        }
    }


def test_a_composing_input_method_does_not_trigger_shortcuts(visit, slug):
    page = visit(f"/work/{slug}")
    page.locator(".card").first.focus()
    composing = "new KeyboardEvent('keydown', {key: %r, code: %r, keyCode: %d, isComposing: %s, bubbles: true})"
    for key, code, number, is_composing in (
        ("s", "KeyS", 83, "true"),
        ("Process", "KeyS", 229, "false"),
        ("ArrowDown", "ArrowDown", 40, "true"),
    ):
        page.evaluate(f"document.activeElement.dispatchEvent({composing % (key, code, number, is_composing)})")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert order_of(page) == ""
    page.get_by_role("textbox", name="Why").type("skip this, guess 1 2 3")  # nor does typing
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert order_of(page) == ""


def test_what_has_to_be_agreed_to_is_read_first(visit, site):
    asked = {"en": "Answers are kept **for research**.", "zh": "回答将用于**研究**。"}
    slug = a_project(site, changed={"consent": asked})
    page = visit(f"/work/{slug}", language="zh")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("strong")).to_have_text("研究")
    assert page.locator(".card").count() == 0
    dialog.get_by_role("button", name="我不同意").click()
    page.wait_for_url(f"{site.address}/")
    page.goto(f"/work/{slug}")
    dialog.get_by_role("button", name="我同意").click()
    expect(page.locator(".card")).to_have_count(4)
    page.goto("/")
    page.goto(f"/work/{slug}")
    expect(page.locator(".card")).to_have_count(4)  # once


# --- nothing typed is lost --------------------------------------------------------------------------------------------------


def test_a_draft_survives_a_reload_and_comes_from_the_server_on_another_device(visit, site, slug):
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    page.get_by_role("textbox", name="Why").type("typed, ")
    page.keyboard.press("Control+s")
    saved(page)
    page.route("**/draft", lambda route: route.abort())  # the last words are only on this device
    page.get_by_role("textbox", name="Why").type("and not yet sent")
    expect(page.locator(".state")).to_have_text("kept on this device")
    page.reload()
    page.unroute("**/draft")
    expect(page.get_by_role("textbox", name="Why")).to_have_value("typed, and not yet sent")
    saved(page)
    assert drafted(site, slug) == {"rank": {"why": "typed, and not yet sent"}}
    other = visit(f"/work/{slug}")
    expect(other.get_by_role("textbox", name="Why")).to_have_value("typed, and not yet sent")


def test_of_two_tabs_neither_overwrites_the_other_unasked(visit, site, slug):
    one, two = visit(f"/work/{slug}"), visit(f"/work/{slug}")
    two.locator(".card").first.wait_for()
    one.get_by_role("textbox", name="Why").type("of one")
    saved(one)
    two.get_by_role("textbox", name="Why").type("of two")
    expect(two.get_by_role("dialog")).to_contain_text("changed elsewhere")
    assert drafted(site, slug) == {"rank": {"why": "of one"}}
    two.get_by_role("button", name="The other ones").click()
    expect(two.get_by_role("textbox", name="Why")).to_have_value("of one")
    two.locator(".card").first.focus()
    two.keyboard.press("Control+z")  # even then one's own words are one step away
    expect(two.get_by_role("textbox", name="Why")).to_have_value("of two")
    saved(two)
    assert drafted(site, slug) == {"rank": {"why": "of two"}}


def test_a_submission_made_offline_is_sent_once_when_the_server_is_back(visit, site, slug):
    page = visit(f"/work/{slug}")
    has_the_next(page)
    page.context.set_offline(True)
    page.keyboard.press("r")
    page.keyboard.type("1 2 3 4")
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_have_text("kept on this device")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".state")).to_have_text("1 unsent")
    expect(page.locator(".conversation")).to_contain_text("水壶")  # and work goes on
    assert [turn["state"] for turn in past(site, slug)] == ["leased", "leased"]
    page.context.set_offline(False)
    expect(page.locator(".state")).not_to_have_text("1 unsent")
    assert said(site, slug)["rank"]["ranking"]["tiers"] == [["a"], ["b"], ["c"], ["d"]]
    judgments = "SELECT count(*) FROM judgment j JOIN project p ON p.id = j.project_id WHERE p.slug = '%s'"
    assert site.one(judgments % slug) == 1


def test_who_is_quicker_than_the_fetching_of_what_comes_next_is_not_held_up(visit, site, slug):
    page = visit(f"/work/{slug}")
    has_the_next(page)
    held: list[Any] = []
    page.route("**/next", lambda route: held.append(route))
    for _ in range(2):
        expect(page.locator(".line")).to_have_value("")
        page.locator(".line").fill("1 2 3 4")
        page.keyboard.press("Control+Enter")
        submitted(page)
        page.locator(".toast").evaluate_all("all => all.map((one) => one.remove())")
    assert [turn["state"] for turn in past(site, slug)] == ["submitted", "submitted"]
    for route in held:
        route.continue_()
    expect(page.locator("h1")).to_have_text("All done")


def test_what_is_typed_survives_a_lease_that_ran_out_though_somebody_else_was_quicker(visit, site, monkeypatch):
    slug = a_project(site, groups=[example.group("en")], overlap=1)
    page = visit(f"/work/{slug}")
    why = page.get_by_role("textbox", name="Why")
    why.type("before, ")
    saved(page)
    real = site.database.clock
    monkeypatch.setattr(site.database, "clock", lambda: real() + 5 * 3_600_000)  # a lease lasts four hours at most
    other = site.ask("reviewer", "POST", f"/projects/{slug}/next").json()["assignment"]
    given = {"json": {"answers": {"rank": {"ranking": "a > b > c > d"}}}, "headers": {"Idempotency-Key": other}}
    assert site.ask("reviewer", "POST", f"/assignments/{other}/submit", **given).status_code == 200
    why.type("and after")
    page.locator(".line").fill("4 3 2 1")
    page.keyboard.press("Control+Enter")
    submitted(page)
    assert said(site, slug)["rank"] == {
        "ranking": {"tiers": [["d"], ["c"], ["b"], ["a"]], "unusable": []},
        "why": "before, and after",
    }
    kept = "SELECT sum(j.is_surplus) FROM judgment j JOIN project p ON p.id = j.project_id WHERE p.slug = '%s'"
    assert site.one(kept % slug) == 1  # beside the one that was wanted


def test_a_session_that_ends_asks_for_the_password_and_goes_on(visit, site, slug):
    page = visit(f"/work/{slug}")
    has_the_next(page)
    site.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM session"))
    site.sessions = {"nobody": site.sessions["nobody"]}
    page.locator(".line").fill("4 3 2 1")
    page.locator(".line").blur()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Nothing you typed is lost")
    dialog.get_by_role("textbox").fill("not the password")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("This login and password do not belong together.")
    dialog.get_by_role("textbox").fill(PASSWORD)
    page.keyboard.press("Enter")
    saved(page)
    assert drafted(site, slug)["rank"]["ranking"]["tiers"] == [["d"], ["c"], ["b"], ["a"]]


# --- back, aside, away ------------------------------------------------------------------------------------------------------


def test_what_was_submitted_is_looked_at_recalled_and_changed(visit, site, slug):
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    page.keyboard.press("r")
    page.keyboard.type("1 2 3 4")
    page.keyboard.press("Control+Enter")
    submitted(page)
    expect(page.locator(".conversation")).to_contain_text("水壶")
    page.keyboard.press("[")
    expect(page.locator(".note")).to_contain_text("This is how it was: submitted.")
    expect(page.locator(".conversation")).to_contain_text("kettle")
    page.keyboard.press("1")
    page.keyboard.press("ArrowDown")  # nothing can be changed here
    assert order_of(page) == "a > b > c > d"
    page.keyboard.press("]")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    page.keyboard.press("u")
    expect(page.locator(".note")).to_contain_text("it stands until you submit again")
    assert order_of(page) == "a > b > c > d"
    page.keyboard.press("r")
    page.keyboard.type("4 3 2 1")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    assert said(site, slug)["rank"]["ranking"]["tiers"] == [["d"], ["c"], ["b"], ["a"]]


def test_an_item_is_skipped_or_reported_with_a_reason(visit, site, slug):
    page = visit(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    page.keyboard.press("s")
    page.get_by_role("button", name="Skip").last.click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("Choose a reason")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    page.keyboard.press("g")
    page.keyboard.press("3")
    page.get_by_role("textbox", name="What is wrong").fill("a telephone number")
    page.get_by_role("dialog").get_by_role("button", name="Report").click()
    expect(page.locator("main")).to_contain_text("All done")
    assert [turn["state"] for turn in past(site, slug)] == ["reported", "skipped"]
    assert (
        site.one(f"SELECT r.text FROM report r JOIN project p ON p.id = r.project_id WHERE p.slug = '{slug}'")
        == "a telephone number"
    )
