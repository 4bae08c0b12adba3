"""The page in a real browser, where there is one: its own policy lets its style sheet through and nothing complains."""

import shutil
import subprocess
from pathlib import Path

import pytest

from prefloop.report.page import render
from tests.report.example import study

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
QUIET = ["gpu", "quic", "background-networking", "component-update", "sync"]
FLAGS = ["--headless", "--no-sandbox", "--no-first-run", "--enable-logging=stderr", *(f"--disable-{part}" for part in QUIET)]


def complaints(page: str, folder: Path) -> list[str]:
    """What the browser's console says about a page."""
    folder.mkdir()
    (folder / "page.html").write_text(page, encoding="utf-8")
    where = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={folder / 'page.png'}", (folder / "page.html").as_uri()]
    done = subprocess.run([str(BROWSER), *FLAGS, *where], capture_output=True, text=True, timeout=240)
    assert (folder / "page.png").is_file(), done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page_without_a_complaint_and_refuses_a_foreign_style(tmp_path: Path):
    page = render(study())
    assert complaints(page, tmp_path / "own") == []
    tampered = page.replace("<main>", "<main><style>main { display: none }</style>")
    refused = complaints(tampered, tmp_path / "foreign")
    assert refused and all("Content Security Policy" in line for line in refused)
