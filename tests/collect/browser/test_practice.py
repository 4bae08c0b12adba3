"""Practice on the page: announced before the first, told after each, made by a manager. Words of a manager's stay text."""

import json
import re
from itertools import count

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import text

from prefloop.collect import planted
from tests.collect.browser import example
from tests.collect.browser.conftest import PHONE
from tests.collect.browser.test_every_page import NAMELESS, TOO_SMALL, TWICE
from tests.collect.browser.test_work import has_the_next, past, submitted
from tests.collect.site import Site

numbers = count()
WHY = "C names the cause.\n<img src=x onerror=alert(1)><b>D</b> only sells something."


def a_project(site: Site) -> tuple[str, list[str]]:
    """Two items, the first about a kettle, in the order as given; their ids."""
    slug = f"practice{next(numbers)}"
    groups = [example.group("en"), example.group("zh")]
    example.project(site, slug, title="Household tips", template_name="rank", groups=groups)
    query = "SELECT i.id FROM item i JOIN project p ON p.id = i.project_id WHERE p.slug = :p ORDER BY i.priority DESC"
    return slug, list(site.database.read(lambda c: c.scalars(text(query), {"p": slug}).all()))


def practised(site: Site, *, why: str = WHY, n: int = 1) -> str:
    """The same, of which the first ``n`` are practice: C, then A and B, then D."""
    slug, ids = a_project(site)
    for identity in ids[:n]:
        listed = site.database.read(lambda c, i=identity: c.scalar(text("SELECT completions_json FROM item_body WHERE item_id = :i"), {"i": i}))  # fmt: skip
        a, b, c, d = (one["id"] for one in json.loads(listed))
        given = {"item_id": identity, "user_id": site.users["owner"], "practice": True, "why": why}
        site.main.do(planted.make_gold, **given, expected={"tiers": [[[c], [a, b], [d]]]})
    return slug


def answered(page: Page, line: str = "1 2 3 4") -> None:
    """An order typed and submitted."""
    page.locator(".card").first.wait_for()
    page.keyboard.press("r")
    page.keyboard.type(line)
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Enter")


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name=re.compile("Practice:|练习："))


def test_practice_is_announced_told_and_left_with_enter(visit, site):
    page = visit(f"/work/{practised(site)}")
    expect(page.get_by_role("heading", name="First, some practice: one item")).to_be_visible()
    assert page.locator(".card").count() == 0
    page.keyboard.press("Enter")
    answered(page)
    told = panel(page)
    expect(told).to_contain_text("58 % of what was expected")  # of six pairs: three as they are, half of the tie
    expect(told.locator("dd").first).to_have_text("C > A = B > D")
    expect(told.locator("dd").last).to_have_text("A > B > C > D")
    expect(told.locator(".why")).to_have_text(WHY)
    assert told.locator("img, b").count() == 0
    heard = page.locator(".unseen[role=status]").first
    for said in ("58 %", "Expected: C > A = B > D.", "Yours: A > B > C > D.", "C names the cause."):
        expect(heard).to_contain_text(said)
    expect(told.get_by_role("button", name="Next")).to_be_focused()
    page.keyboard.press("1")  # the answers are there to be looked at again, and stay as they are
    page.keyboard.press("ArrowDown")
    expect(page.locator(".card[data-id=a] .rank-chip")).to_contain_text("1st")
    assert [page.evaluate(look) for look in (NAMELESS, TOO_SMALL, TWICE)] == [[], [], []]
    page.keyboard.press("Enter")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    expect(panel(page)).to_have_count(0)
    expect(page.locator(".progress")).to_contain_text("0")
    answered(page)
    submitted(page)
    expect(panel(page)).to_have_count(0)
    expect(page.locator(".progress")).to_contain_text("1")


def test_what_was_as_expected_is_said_so_and_seen_again_when_one_looks_back(visit, site):
    slug = practised(site, why="", n=2)
    page = visit(f"/work/{slug}")
    page.get_by_role("button", name="Begin").click()
    answered(page, "3 1=2 4")
    expect(panel(page)).to_contain_text("just as expected")
    expect(panel(page).locator(".why")).to_have_count(0)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    page.reload()
    expect(page.locator(".card")).to_have_count(4)  # nothing is announced again
    page.keyboard.press("[")
    expect(page.locator(".note")).to_contain_text("This is how it was: submitted.")
    expect(page.locator(".told")).to_contain_text("C > A = B > D")
    page.keyboard.press("]")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    answered(page, "3 2=1 4")
    expect(panel(page)).to_contain_text("just as expected")
    panel(page).get_by_role("button", name="Next").click()
    expect(page.locator("main")).to_contain_text("All done")


def test_practice_that_is_sent_late_is_told_nothing_out_of_place(visit, site):
    slug = practised(site)
    page = visit(f"/work/{slug}")
    page.get_by_role("button", name="Begin").click()
    has_the_next(page)
    page.context.set_offline(True)
    answered(page)
    expect(page.locator(".state")).to_have_text("1 unsent")
    expect(page.locator(".conversation")).to_contain_text("水壶")
    page.context.set_offline(False)
    expect(page.locator(".state")).not_to_have_text("1 unsent")
    expect(panel(page)).to_have_count(0)
    expect(page.locator(".dock .submit")).to_be_visible()
    assert [turn["state"] for turn in past(site, slug)] == ["leased", "submitted"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_on_a_phone_all_of_it_fits_and_the_words_are_in_one_language(visit, site, language):
    slug = practised(site, why="这样更好，" * 200)
    page = visit(f"/work/{slug}", language=language, viewport=PHONE, has_touch=True)
    page.locator(".goes-on").tap()
    for letter in "abcd":
        page.locator(f"[data-chip={letter}]").tap()
    page.locator(".submit").tap()
    go = panel(page).locator(".goes-on")
    expect(go).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('.practice').getBoundingClientRect().height <= innerHeight * 0.61")
    english = re.findall("[A-Za-z]{2,}", panel(page).inner_text())
    assert bool(english) == (language == "en")
    go.tap()
    expect(page.locator(".conversation")).to_contain_text("水壶")


def test_a_manager_makes_an_item_nobody_has_judged_practice_and_takes_it_back(visit, site):
    slug, (identity, _) = a_project(site)
    page = visit(f"/projects/{slug}/review?item={identity}", "owner")
    page.get_by_role("button", name="Make gold or practice").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("[name=why]")).to_be_hidden()  # gold is told to nobody
    dialog.locator("[name=kind]").select_option("practice")
    dialog.locator("[name=why]").fill(WHY)
    dialog.locator("[name=order]").fill("3 1")
    dialog.get_by_role("button", name="Make it so").click()
    expect(dialog.get_by_role("alert")).to_contain_text("No place yet: b, d")
    dialog.locator("[name=order]").fill("3 1=2 x4")
    dialog.get_by_role("button", name="Make it so").click()
    expect(page.locator(".view .tag").last).to_have_text("practice")
    expect(page.locator(".view .note")).to_have_text(WHY)
    seen = site.ask("owner", "GET", f"/items/{identity}/review").json()
    a, b, c, d = (one["id"] for one in seen["completions"])
    assert seen["expected"] == {"tiers": [[[c], [a, b], [d]]], "why": WHY}
    page.goto(f"/projects/{slug}/items")
    page.locator("[name=kind]").select_option("practice")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody .tag").first).to_have_text("practice")
    page.goto(f"/projects/{slug}/review?item={identity}")
    page.get_by_role("button", name="No longer practice").click()
    expect(page.get_by_role("button", name="Make gold or practice")).to_be_visible()
    assert site.ask("owner", "GET", f"/projects/{slug}/planted").json() == {}
