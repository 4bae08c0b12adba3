"""A real Chromium before a real server. One browser for the session, one server for each module; without a browser, skips."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from prefloop.doctor import BROWSERS
from tests.collect.site import Site

CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)
NO_BROWSER = f"no Chromium on this machine ({', '.join(BROWSERS)})"
QUIET = ["quic", "background-networking", "component-update", "sync", "gpu"]
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
PATIENCE = 30_000  # milliseconds, for a machine that is busy with something else
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as started:
        flags = ["--no-sandbox", *(f"--disable-{part}" for part in QUIET)]
        running = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def site(browser: Browser, new_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with people and projects; started only where there is a browser to look at it."""
    opened = Site(tmp_path_factory.mktemp("site"), new_url("sqlite")).start()
    yield opened
    opened.stop()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    """A page of somebody's own browser. What it complains about fails the test, violations of the policy first."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def new(
        path: str,
        role: str = "annotator",
        *,
        language: str = "en",
        viewport: dict[str, int] | None = None,
        address: str = "",
        **more: Any,
    ) -> Page:
        context = browser.new_context(
            base_url=address or site.address,
            viewport=viewport or DESKTOP,  # type: ignore[arg-type]
            locale={"en": "en-GB", "zh": "zh-CN"}[language],
            reduced_motion="reduce",
            timezone_id="UTC",
            **more,
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        if role != "nobody":
            session = site.session(role, is_fresh=True)
            cookies: Any = [
                {"name": name, "value": value, "url": address or site.address} for name, value in session.cookies.items()
            ]
            context.add_cookies(cookies)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(f"{error.name}: {error.message}\n{error.stack}"))
        page.goto(path)
        return page

    new.complaints = complaints  # type: ignore[attr-defined]
    yield new
    for context in contexts:
        context.close()
    assert [one for one in complaints if "Failed to load resource" not in one] == []


def photograph(page: Page, path: Path) -> None:
    """A picture for the documents: whole colours, no caret. Kept where PREFLOOP_PICTURES is set, so that tests change no file."""
    taken = page.screenshot(animations="disabled", caret="hide")
    if os.environ.get("PREFLOOP_PICTURES"):
        path.write_bytes(taken)
