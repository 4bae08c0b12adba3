"""A real Chromium before a real server. One browser for the session, one server for each module; without a browser, skips."""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from prefloop.doctor import BROWSERS
from tests.collect.site import Site

IMAGES = Path(__file__).parents[3] / "docs" / "images"
LIGHTS = ("light", "dark")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
NO_BROWSER = f"no Chromium on this machine ({', '.join(BROWSERS)})"
QUIET = ["quic", "background-networking", "component-update", "sync", "gpu"]
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
PATIENCE = 60_000  # milliseconds, for a machine that is busy with something else
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as started:
        flags = ["--no-sandbox", *(f"--disable-{part}" for part in QUIET)]
        running = started.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=3 * PATIENCE)
        yield running
        running.close()


@pytest.fixture(scope="module")
def site(browser: Browser, new_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with people and projects; started only where there is a browser to look at it."""
    opened = Site(tmp_path_factory.mktemp("site"), new_url("sqlite")).start()
    yield opened
    opened.stop()


Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def waiting(site: Site) -> Iterator[dict[str, list[BrowserContext]]]:
    """People's browsers that nobody uses now, by how they are set up: one that has been here has the pages' files already."""
    contexts: dict[str, list[BrowserContext]] = {}
    yield contexts
    for context in itertools.chain(*contexts.values()):
        context.close()


@pytest.fixture
def visit(browser: Browser, site: Site, waiting: dict[str, list[BrowserContext]]) -> Iterator[Visit]:
    """A page of somebody's own browser. What it complains about fails the test, violations of the policy first."""
    used: list[tuple[str, BrowserContext]] = []
    complaints: list[str] = []

    def new(
        path: str,
        role: str = "annotator",
        *,
        language: str = "en",
        viewport: dict[str, int] | None = None,
        **more: Any,
    ) -> Page:
        options = {"viewport": viewport or DESKTOP, "locale": {"en": "en-GB", "zh": "zh-CN"}[language], **more}
        kind = json.dumps(options, sort_keys=True)
        context = waiting[kind].pop() if waiting.get(kind) else new_context(options)
        used.append((kind, context))
        page = context.new_page()
        said = {"origin": site.address, "storageTypes": "local_storage,indexeddb,cache_storage,service_workers"}
        context.new_cdp_session(page).send("Storage.clearDataForOrigin", said)  # what somebody else left; no files of pages
        if role != "nobody":
            session = site.session(role, is_fresh=True)
            cookies: Any = [{"name": name, "value": value, "url": site.address} for name, value in session.cookies.items()]
            context.add_cookies(cookies)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(f"{error.name}: {error.message}\n{error.stack}"))
        page.goto(path)
        return page

    def new_context(options: dict[str, Any]) -> BrowserContext:
        context = browser.new_context(base_url=site.address, reduced_motion="reduce", timezone_id="UTC", **options)
        context.set_default_timeout(PATIENCE)
        return context

    new.complaints = complaints  # type: ignore[attr-defined]
    yield new
    for kind, context in used:
        for page in context.pages:
            page.close()
        context.clear_cookies()
        context.set_offline(False)
        waiting.setdefault(kind, []).append(context)
    assert [one for one in complaints if "Failed to load resource" not in one] == []


def photograph(page: Page, name: str, *, themes: tuple[str, ...] = ()) -> None:
    """A picture for the documents, or one in each light: whole colours, no caret. Only where PREFLOOP_PICTURES is set."""
    if not os.environ.get("PREFLOOP_PICTURES"):
        return
    for theme in themes:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        photograph(page, f"{name}-{theme}")
    if not themes:
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled", caret="hide")
