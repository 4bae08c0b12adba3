"""How ranking looks: the whole of it is in sight in both languages, light and dark, on a desk and in a hand.

``PREFLOOP_PICTURES=1 make test ARGS=tests/collect/browser`` writes the pictures in docs/images anew.
"""

import pytest
from playwright.sync_api import Page, expect

from tests.collect.browser import example
from tests.collect.browser.conftest import LIGHTS, PHONE, photograph

DESK = {"width": 1280, "height": 800}
TITLE = {"en": "Household tips", "zh": "家居小窍门"}
WHY = {"en": "C says why it works; D sells something and frightens people.", "zh": "C 解释了原理；D 在推销，还吓唬人。"}


def ranked(page: Page, language: str) -> None:
    page.keyboard.press("r")
    page.keyboard.type("3 > 1 = 2 | 4")
    page.keyboard.press("Enter")
    page.locator(".reason textarea").fill(WHY[language])
    page.locator(".card[data-id=c]").focus()


def tapped(page: Page, language: str) -> None:
    for letter in "ca":
        page.locator(f"[data-chip={letter}]").tap()
    page.locator(".card[data-id=b] .rank-chip").scroll_into_view_if_needed()


def rated(page: Page, language: str) -> None:
    for keys in ("1", "Shift+6", "2", "Shift+3", "f", "a"):
        page.keyboard.press(keys)
    page.locator(".card[data-id=b]").focus()


VIEWS = [
    ("rank-en", "rank", "en", LIGHTS, DESK, ranked),
    ("rank-zh", "rank", "zh", LIGHTS, DESK, ranked),
    ("rank-phone-en", "rank", "en", ("light",), PHONE, tapped),
    ("rank-phone-zh", "instructgpt", "zh", ("dark",), PHONE, rated),
    ("rate-en", "instructgpt", "en", ("light",), {"width": 1280, "height": 1000}, rated),
]


@pytest.mark.parametrize(("name", "template", "language", "themes", "size", "work"), VIEWS, ids=[view[0] for view in VIEWS])
def test_the_whole_of_a_task_is_in_sight(visit, site, name, template, language, themes, size, work):
    project = {"title": TITLE[language], "template_name": template, "groups": [example.group(language)]}
    example.project(site, name, **project)
    page = visit(f"/work/{name}", language=language, viewport=size, color_scheme=themes[0], has_touch=size == PHONE)
    page.locator(".card").first.wait_for()
    work(page, language)
    expect(page.locator(".state")).to_have_class("state saved")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for part in (".top", ".conversation", ".cards", ".strip", ".submit"):
        expect(page.locator(part)).to_be_in_viewport()
    cut = "[...document.querySelectorAll('.button, .rank-chip, .tag, .flag, .pill')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    if size == PHONE:
        page.evaluate("document.querySelector('.dots').scrollIntoView({ block: 'start' })")
    photograph(page, f"collect-{name}", themes=themes)
