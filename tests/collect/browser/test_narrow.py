"""Every page at the width of a small telephone, and at 200% zoom: nothing is beside the screen, and every control says what it
is (WCAG 2.2, 1.4.4, 1.4.10 and 4.1.2)."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page

from tests.collect.browser import example
from tests.collect.browser.conftest import Visit
from tests.collect.browser.owner_example import team
from tests.collect.browser.test_every_page import TWICE, inviting
from tests.collect.browser.test_owner import drawn
from tests.collect.site import Site

SMALL = {"width": 360, "height": 640}
ZOOMED = {"width": 640, "height": 430}  # what 1280 × 860 is at 200%, in the pixels a page reckons with
BESIDE = """() => [...document.querySelectorAll("header, header *, main, main *, dialog, dialog *")].filter((one) => one.checkVisibility()
  && !one.closest(".unseen, .skip-link") && !scrolls(one)).filter((one) => { const { left, right, width } = one.getBoundingClientRect();
  return width && (right > innerWidth + 1 || left < -1); }).map((one) => one.outerHTML.slice(0, 100))
  .concat(document.documentElement.scrollWidth > innerWidth ? ["the whole page"] : []);
  function scrolls(one) { for (let at = one.parentElement; at; at = at.parentElement)
    if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(at).overflowX) && at !== document.body) return true; return false; }"""
CONTROLS = """button, a[href], input:not([type=hidden]), textarea, select, summary, audio, video, dialog, [tabindex], [contenteditable=true],
  [role=button], [role=slider], [role=menuitem], [role=radio], [role=checkbox], [role=tab], [role=option], [role=region], [role=dialog]"""
NAMELESS = """(controls) => { const words = (one) => one?.innerText?.trim() || one?.textContent?.trim() || "";
  const name = (one) => one.getAttribute("aria-label")?.trim() || (one.getAttribute("aria-labelledby") ?? "").split(/\\s+/).map((id) => id && words(document.getElementById(id))).join("")
    || [...(one.labels ?? [])].map(words).join("") || one.title || (one.matches("input, textarea, select, audio, video") ? "" : words(one)) || one.querySelector?.("img[alt]")?.alt || "";
  return [...document.querySelectorAll(controls)].filter((one) => one.checkVisibility() && !/[\\p{L}\\p{N}]/u.test(name(one))).map((one) => one.outerHTML.slice(0, 140)); }"""


@contextmanager
def at_every_size(page: Page) -> Iterator[None]:
    """What was done on a page in between, at the small size, is looked at there and zoomed."""
    page.set_viewport_size(SMALL)  # type: ignore[arg-type]
    yield
    for size in (SMALL, ZOOMED):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate(BESIDE) == [], (page.url, size)
        assert page.evaluate(NAMELESS, CONTROLS) == [], (page.url, size)
        assert page.evaluate(TWICE) == [], (page.url, size)
    page.set_viewport_size(SMALL)  # type: ignore[arg-type]


def test_no_page_scrolls_sideways_and_every_control_has_a_name(visit: Visit, site: Site):
    team(site, n=6)
    groups = [example.group("en"), example.conversation()]
    slug = "narrow"
    example.project(site, slug, title="Kettlesandsonnetsandotherwordswithoutabreak", template_name="instructgpt", groups=groups)
    site.a_chat("turns")
    page = visit("/login", "nobody", viewport=SMALL)
    for path in ("/login", inviting(site)):
        with at_every_size(page):
            page.goto(path)
            page.locator("form input").first.wait_for()
    page = visit("/", "manager", viewport=SMALL)
    for path, seen in {
        "/": ".projects li",
        "/projects": "main a[href*='/projects/kettle']",
        "/projects/kettle/items": "tbody tr",
        "/projects/kettle/review": ".matrix",
        "/projects/kettle/setup": "main form, main input",
        f"/work/{slug}": ".card",
    }.items():
        with at_every_size(page):
            page.goto(path)
            page.locator(seen).first.wait_for()
    page.locator(".card").first.focus()
    page.keyboard.press("Shift+2")  # a low mark, which asks for an edit
    for key in ("?", "s", "e"):
        with at_every_size(page):
            page.keyboard.press(key)
            page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
    with at_every_size(page):
        page.goto("/projects/kettle")
        drawn(page)
    with at_every_size(page):
        page.goto(f"/chat/{site.talk.slug}")
        page.locator("main button").first.wait_for()
