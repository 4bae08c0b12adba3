"""What holds of every page: hostile text stays text, Chinese is Chinese, and nobody is shut out by how they look or move."""

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from prefloop.collect import accounts, items, projects
from prefloop.collect.schema import read_schema
from prefloop.collect.serve import first_owner
from prefloop.records import Completion, Message, Prompt
from tests.collect.browser import example
from tests.collect.browser.conftest import PATIENCE, PHONE
from tests.collect.hostile import EVERYTHING, SCRIPTS, UNSEEN
from tests.collect.made import made
from tests.collect.site import PASSWORD, Site

TOKENS = {  # foregrounds, backgrounds, the least contrast (WCAG 2.2, 1.4.3 and 1.4.11)
    "text": (("ink", "soft"), ("paper", "sheet", "well"), 4.5),
    "accent": (("accent",), ("paper", "sheet", "well", "wash"), 4.5),
    "on the accent": (("on-accent",), ("accent",), 4.5),
    "good": (("good",), ("sheet", "wash"), 4.5),
    "bad": (("bad",), ("sheet", "bad-wash"), 4.5),
    "warn": (("warn",), ("sheet", "warn-wash"), 4.5),
    "borders of controls": (("edge",), ("sheet", "paper", "well"), 3.0),
}
NAMELESS = """() => {
  const name = (one) => one.getAttribute("aria-label") || one.innerText?.trim() || one.labels?.[0]?.innerText.trim() || one.title || "";
  const shown = [...document.querySelectorAll("button, a, input, textarea, select, [role=region], dialog")].filter((one) => one.checkVisibility());
  return shown.filter((one) => !name(one) && !one.getAttribute("aria-labelledby")).map((one) => one.outerHTML.slice(0, 120));
}"""
TOO_SMALL = """() => [...document.querySelectorAll("button, a, input, select")].filter((one) => one.checkVisibility() && !one.matches(".unseen, .skip-link"))
  .filter((one) => one.getBoundingClientRect().height < 24 || one.getBoundingClientRect().width < 24).map((one) => one.outerHTML.slice(0, 120))"""
TWICE = """() => { const ids = [...document.querySelectorAll("[id]")].map((one) => one.id); return ids.filter((id, place) => ids.indexOf(id) !== place); }"""
WORDS = """() => [document.title, document.body.innerText, ...[...document.querySelectorAll("[aria-label], [title], [placeholder]")].flatMap((one) =>
  [one.getAttribute("aria-label"), one.title, one.placeholder])].filter(Boolean)"""
ALLOWED = re.compile(
    r"Prefloop|main|Tips|Ctrl|Esc|annotator|prefloop collect import NAME FILE --template rank|\bEN\b|\b[A-D]\b|\bx4\b"
)


def work(slug: str) -> str:
    """Where an annotator works."""
    return f"/work/{slug}"


def inviting(site: Site) -> str:
    now = site.database.clock()
    given = {"project_id": site.main.id, "role": "annotator", "created_by": None, "now": now}
    return f"/invite#{site.database.write(lambda connection: accounts.create_invite(connection, **given))}"


# --- hostile text -----------------------------------------------------------------------------------------------------------


def hostile_project(site: Site) -> None:
    """Every slot that somebody may write into holds all of it."""
    quoted = EVERYTHING.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\u2028", "\\L")
    text = f"""
format_version: 1
id: hostile
title: "{quoted}"
guidelines: "{quoted}"
stages:
  - id: rate
    per: completion
    title: "{quoted}"
    questions:
      - {{id: overall, type: likert, label: "{quoted}", help: "{quoted}", anchors: {{1: "{quoted}", 7: "{quoted}"}}}}
      - {{id: bad, type: flag, label: "{quoted}"}}
      - {{id: kind, type: single, options: [{{id: x, label: "{quoted}"}}, y]}}
      - {{id: edit, type: edit, label: "{quoted}"}}
  - id: rank
    questions:
      - {{id: ranking, type: rank}}
      - {{id: why, type: text, max: 20000, label: "{quoted}"}}
"""
    database, now = site.database, site.database.clock()
    schema = read_schema(text, where="the hostile schema")
    prompt = Prompt(
        messages=tuple(Message(role=role, content=EVERYTHING + UNSEEN) for role in ("system", "user", "assistant", "user"))
    )
    said = [
        Completion.of(prompt, EVERYTHING),
        Completion.of(prompt, EVERYTHING + UNSEEN),
        *(Completion.of(prompt, one) for one in SCRIPTS[:3]),
    ]

    def make(connection) -> None:
        identity = projects.create(
            connection, slug="hostile", title=EVERYTHING[:190], schema=schema, overlap=3, user_id=None, now=now
        )
        accounts.join(connection, project_id=identity, user_id=site.users["spare"], role="annotator", now=now)
        projects.set_state(connection, identity, "active", user_id=None, now=now)
        items.add(connection, identity, [items.new_item(prompt, said)], priority=0, now=now)
        items.added_all(connection, identity)

    database.write(make)
    site.ask("spare", "PATCH", "/me", json={"display": SCRIPTS[1]})


FOREIGN = """() => [...document.querySelectorAll("script, iframe, object, embed, img, form[action], base, style, template, link, meta[http-equiv], *")]
  .filter((one) => one.matches("script:not([src^='/static/']), iframe, object, embed, img, form[action], base, style, template, meta[http-equiv]")
    || (one.matches("link") && !one.getAttribute("href").startsWith("/static/")) || [...one.attributes].some(({ name }) => name.startsWith("on") || name === "style" && one.tagName !== "DIV" && !one.matches(".menu, .toast"))
    || (one.matches(".md a[href]") && !/^(https?:|mailto:)/.test(one.getAttribute("href"))))
  .map((one) => one.outerHTML.slice(0, 160))"""


def test_hostile_text_stays_text_in_every_place(visit, site):
    hostile_project(site)
    page = visit(work("hostile"), "spare")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))

    def is_clean() -> None:
        assert page.evaluate("window.hit") is None
        assert page.evaluate(FOREIGN) == []
        assert [url for url in asked if not url.startswith(site.address)] == []

    page.locator(".card").first.wait_for()
    is_clean()
    assert page.locator(".unseen-character").count() > 0
    page.keyboard.press("m")  # as typed
    expect(page.locator(".answer .raw").filter(has_text="<script>window.hit = 1</script>").first).to_be_visible()
    is_clean()
    page.get_by_role("textbox").last.fill(EVERYTHING[:3000])
    page.locator(".card").first.focus()
    page.keyboard.press("e")
    page.get_by_role("dialog").get_by_role("textbox").fill(EVERYTHING[::-1] + EVERYTHING)
    is_clean()
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    is_clean()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="What I did").click()
    expect(page.locator(".past")).to_have_count(1)
    is_clean()
    page.goto("/")
    expect(page.locator("h1")).to_contain_text("onerror")  # the name, in full
    is_clean()
    page.goto(inviting(site))
    page.locator("h1").wait_for()
    is_clean()


def test_the_policy_stops_what_would_get_through_and_the_tests_hear_of_it(visit):
    page = visit("/login", "nobody")
    page.locator("form").wait_for()
    thrown = page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } }")
    assert thrown == "TypeError"  # no string becomes markup
    assert (
        page.evaluate("() => { try { trustedTypes.createPolicy('another', {}); } catch (error) { return error.name; } }")
        == "TypeError"
    )
    page.evaluate(
        "() => { const made = document.createElement('img'); made.src = 'http://evil.example/'; document.body.append(made); }"
    )
    blocked = [one for one in visit.complaints if "has been blocked" in one]
    ends = time.monotonic() + PATIENCE / 1000
    while len(blocked) < 3 and time.monotonic() < ends:  # it hears of them a little later
        page.wait_for_timeout(50)
        blocked = [one for one in visit.complaints if "has been blocked" in one]
    assert len(blocked) == 3, visit.complaints
    visit.complaints.clear()


# --- in Chinese -------------------------------------------------------------------------------------------------------------


def english(page: Page) -> list[str]:
    """Words of a page that are not Chinese and no names."""
    found = [ALLOWED.sub("", text) for text in page.evaluate(WORDS)]
    return [text for text in found if re.search("[A-Za-z]{2,}", text)]


def test_a_chinese_page_has_no_english_in_it(visit, site):
    example.project(site, "zh", title="家居小窍门", template_name="instructgpt", groups=[example.group("zh")])
    page = visit("/login", "nobody", language="zh")
    for path in ("/login", inviting(site), "/invite"):
        page.goto("about:blank")
        page.goto(path)
        page.locator("h1").wait_for()
        assert english(page) == []
    page = visit("/", language="zh")
    page.locator("h1").wait_for()
    assert english(page) == []
    page.goto(work("zh"))
    page.locator(".card").first.wait_for()
    page.keyboard.press("1")
    page.keyboard.press("Shift+2")
    page.keyboard.press("ArrowDown")
    assert english(page) == []
    for keys in ("?", "s", "g", "e", "d"):
        page.keyboard.press(keys)
        page.get_by_role("dialog").wait_for()
        assert english(page) == []
        page.keyboard.press("Escape")
    for opener in ("回答 A 的更多操作", "我做过的", "浅色或深色", "annotator 的账号"):
        page.get_by_role("button", name=opener).click()
        page.locator("dialog, .menu").wait_for()
        assert english(page) == []
        page.keyboard.press("Escape")
    page.get_by_role("button", name="切换到英文").click()
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    assert site.ask("annotator", "GET", "/me").json()["locale"] == "en"


# --- for everybody ----------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_every_colour_can_be_read_on_what_it_stands_on(visit):
    assert round(contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)"), 6) == 21
    page = visit("/login", "nobody")
    page.locator("form").wait_for()
    read = "(name) => { const one = document.body.appendChild(document.createElement('i')); one.style.color = `var(--${name})`; return getComputedStyle(one).color; }"
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        names = {name for front, back, _ in TOKENS.values() for name in (*front, *back)}
        colours: dict[str, str] = {name: page.evaluate(read, name) for name in names}
        weak = [
            (theme, front, back) for fronts, backs, least in TOKENS.values() for front in fronts for back in backs
            if contrast(colours[front], colours[back]) < least
        ]  # fmt: skip
        assert weak == []


def is_usable(page: Page) -> None:
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(TOO_SMALL) == []
    assert page.evaluate(TWICE) == []
    assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
    assert page.locator("[tabindex]:not([tabindex='0'], [tabindex='-1'])").count() == 0
    assert page.evaluate("document.documentElement.lang") in ("en", "zh-CN")


@pytest.mark.parametrize("viewport", [None, PHONE])
def test_everything_has_a_name_and_a_size_and_the_whole_fits(visit, site, viewport):
    slug = f"usable{bool(viewport)}".lower()
    example.project(site, slug, title="Tips", template_name="instructgpt", groups=[example.group("en")])
    page = visit("/login", "nobody", viewport=viewport)
    page.locator("form").wait_for()
    is_usable(page)
    page = visit("/", viewport=viewport)
    page.locator(".projects").wait_for()
    is_usable(page)
    page.goto(f"/work/{slug}")
    page.locator(".card").first.wait_for()
    is_usable(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_key_is_changed_and_the_old_one_does_nothing(visit, site):
    page = visit(work("main"))
    page.locator(".card").first.wait_for()
    page.keyboard.press("?")
    row = page.get_by_role("row").filter(has_text="Skip").get_by_role("button")
    row.click()
    with page.expect_response("**/me"):  # where it is kept
        page.keyboard.press("q")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("s")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("q")
    expect(page.get_by_role("dialog")).to_contain_text("Skip this one")
    assert site.ask("annotator", "GET", "/me").json()["preferences"]["keys"] == {"key.skip": "q"}
    page.keyboard.press("Escape")
    site.ask("annotator", "PATCH", "/me", json={"preferences": {}})


def test_somebody_sees_where_they_are_signed_in_and_signs_out_there(visit, site):
    other = site.session("viewer", is_fresh=True)
    page = visit("/", "viewer")
    page.get_by_role("button", name="Account of viewer").click()
    page.get_by_role("menuitem", name="Where I am signed in").click()
    listed = page.get_by_role("dialog").locator("[data-session]")
    listed.nth(1).wait_for()  # they come from the server, all at once
    before = listed.count()
    assert page.get_by_role("dialog").get_by_text("here", exact=True).count() == 1
    headers = {"Cookie": f"prefloop_session={other.cookies['prefloop_session']}"}
    identity = next(one["id"] for one in site.http.get("/me/sessions", headers=headers).json() if one["is_this"])
    page.locator(f"[data-session='{identity}']").get_by_role("button", name="Sign out there").click()
    expect(listed).to_have_count(before - 1)
    assert site.http.get("/me", headers=headers).status_code == 401


# --- coming in --------------------------------------------------------------------------------------------------------------


def test_the_first_owner_comes_in_by_the_link_that_is_printed_and_others_by_theirs(visit, site):
    database: Any = site.database
    database.write(lambda connection: connection.exec_driver_sql("UPDATE app_user SET is_owner = FALSE"))
    page = visit(first_owner(database, site.address), "nobody")
    expect(page.locator("main")).to_contain_text("to own this installation")
    page.get_by_role("textbox", name="Choose a login").fill("ada")
    page.get_by_role("textbox", name="Password").fill("password1234")
    page.get_by_role("textbox", name="Your name").fill("Ada")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.get_by_role("button", name="Make the account").click()
    expect(page.locator("h1")).to_have_text("Hello, Ada")
    main = page.get_by_role("listitem").filter(has_text="main")
    expect(main.get_by_role("link", name="Dashboard")).to_have_attribute("href", "/projects/main")
    main.get_by_role("button", name="Join, to judge too").click()
    main.get_by_role("link", name="Start").click()
    page.locator(".card").first.wait_for()
    page.get_by_role("button", name="Account of Ada").click()
    page.get_by_role("menuitem", name="Sign out").click()
    page.get_by_role("textbox", name="Login").fill("ada")
    page.get_by_role("textbox", name="Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This login and password do not belong together.")
    page.goto(work("main?x=1"))  # who is not signed in is asked to, and comes back
    page.get_by_role("textbox", name="Login").fill("ada")
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator(".card").first.wait_for()
    assert page.url == site.address + work("main?x=1")
    page.goto(f"{site.address}/login?next=//evil.example")  # but only here
    page.wait_for_url(f"{site.address}/")


def test_a_project_that_has_nothing_says_why(visit, site):
    project = made(site.database, users=0)
    database, now = site.database, site.database.clock()
    database.write(
        lambda connection: accounts.join(
            connection, project_id=project.id, user_id=site.users["annotator"], role="annotator", now=now
        )
    )
    page = visit(f"/work/{project.slug}")
    expect(page.locator("main")).to_contain_text("There are no items in this project yet.")
    page.goto(work("there-is-no-such"))
    expect(page.get_by_role("alert")).to_contain_text("There is no such thing here, or not for you.")
