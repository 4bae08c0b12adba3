"""Pictures in a real browser: side by side, zoomed together, swapped in place, ranked."""

import hashlib
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from prefloop.collect import accounts, items, media
from prefloop.collect.schema import template
from prefloop.records import Completion, Image, Prompt
from tests.collect.browser.conftest import Visit, photograph
from tests.collect.made import Made, made
from tests.collect.pictures import chunk
from tests.collect.site import Site

IMAGES = Path(__file__).parents[3] / "docs" / "images"
SIDE = 240
Colour = tuple[int, int, int]


def drawn(paint: Callable[[float, float], Colour]) -> bytes:
    """A PNG whose colour at (x, y), both from -1 to 1, a function says."""
    share = [2 * (n + 0.5) / SIDE - 1 for n in range(SIDE)]
    rows = b"".join(b"\0" + b"".join(bytes(paint(x, y)) for x in share) for y in share)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sunset(height: float, size: float, sea: Colour) -> bytes:
    """A sun over water."""

    def paint(x: float, y: float) -> Colour:
        if y > 0.25:
            near = abs(x) < size * (0.5 + y) and int(40 * y) % 3 != 0
            return (250, 190, 110) if near else sea
        if x * x + (y - height) ** 2 < size * size:
            return (255, 214, 120)
        glow = max(0.0, 1 - abs(y - 0.25))
        return (int(90 + 160 * glow), int(80 + 70 * glow), int(130 - 20 * glow))

    return drawn(paint)


@pytest.fixture
def pictures(site: Site) -> Made:
    project = made(site.database, users=0, schema=template("image_pref"))
    project.do(accounts.join, project_id=project.id, user_id=site.users["annotator"], role="annotator")
    prompt = Prompt.of("A sun that sets over the sea")
    completions = []
    for number, data in enumerate(
        (sunset(0.05, 0.25, (30, 60, 110)), sunset(-0.2, 0.4, (20, 80, 90)), sunset(0.2, 0.3, (60, 40, 90)))
    ):
        waiting = site.service.folder / f"picture{number}"
        waiting.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        kind, place = media.kind_of(waiting), media.place(site.service.folder, sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        waiting.replace(place)
        project.do(media.add, project_id=project.id, sha256=sha256, kind=kind, n_bytes=len(data), user_id=None)
        completions.append(Completion(prompt_id=prompt.id, content=Image(uri=f"model-{number}.png", sha256=sha256)))
    project.do(items.add, project_id=project.id, items=[items.new_item(prompt, completions)])
    return project


def loaded(page: Page, n: int) -> None:
    expect(page.locator(".picture img")).to_have_count(n)
    for image in page.locator(".picture img").all():
        expect(image).to_have_js_property("naturalWidth", SIDE)


def transforms(page: Page) -> list[str]:
    return page.locator(".picture img").evaluate_all("all => all.map(one => one.style.transform)")


def test_pictures_stand_side_by_side_zoom_together_and_swap(visit: Visit, pictures: Made):
    page = visit(f"/work/{pictures.slug}")
    loaded(page, 3)
    assert "model-" not in page.content()
    assert transforms(page) == ["", "", ""]
    photograph(page, IMAGES / "collect-images.png")
    first = page.locator(".picture").first
    first.hover()
    page.mouse.wheel(0, -300)
    expect(page.locator(".picture img").first).to_have_attribute("style", re.compile("scale"))
    assert len(set(transforms(page))) == 1 and "scale(1.25)" in transforms(page)[0]
    first.focus()
    page.keyboard.press("0")
    assert transforms(page) == ["", "", ""]
    own, other = (page.locator(".picture img").nth(place).get_attribute("src") for place in (0, 1))
    page.keyboard.down("v")
    expect(page.locator(".picture img").first).to_have_attribute("src", str(other))
    expect(first.locator(".swapped")).to_have_text("B")
    page.keyboard.up("v")
    expect(page.locator(".picture img").first).to_have_attribute("src", str(own))


def test_pictures_are_rated_and_ranked_like_words(visit: Visit, pictures: Made):
    page = visit(f"/work/{pictures.slug}")
    loaded(page, 3)
    for card in page.locator(".card").all():
        for asked in card.locator(".ask-likert").all():
            asked.locator(".pill").nth(4).click()
    for letter in "cab":
        page.locator(f".card[data-id={letter}] .rank-chip").click()
    page.locator(".submit").click()
    query = "SELECT count(*) FROM judgment WHERE project_id = ?"
    expect(page.locator(".card")).to_have_count(0)
    assert pictures.database.read(lambda c: c.exec_driver_sql(query, (pictures.id,)).scalar_one()) == 1
