"""Pictures in a real browser: side by side, zoomed together, swapped in place, ranked."""

import hashlib
import io
import math
import re
import struct
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from prefloop.collect import accounts, folders, imports, items, media
from prefloop.collect.schema import template
from prefloop.records import Completion, Image, Prompt
from tests.collect.browser.conftest import LIGHTS, PHONE, Visit, photograph
from tests.collect.made import Made, made
from tests.collect.pictures import chunk
from tests.collect.site import Site
from tests.helpers import assert_close

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


ASKED = {"en": "A sun that sets over the sea", "zh": "海上落日"}
SUNS = (sunset(0.05, 0.25, (30, 60, 110)), sunset(-0.2, 0.4, (20, 80, 90)), sunset(0.2, 0.3, (60, 40, 90)))


@pytest.fixture(params=["en"])
def pictures(site: Site, request: pytest.FixtureRequest) -> Made:
    project = made(site.database, users=0, schema=template("image_pref").model_copy(update={"order": "as_given"}))
    project.do(accounts.join, project_id=project.id, user_id=site.users["annotator"], role="annotator")
    site.ask("owner", "PATCH", f"/projects/{project.slug}", json={"title": {"en": "Sunsets", "zh": "日落"}[request.param]})
    prompt = Prompt.of(ASKED[request.param])
    completions = []
    for number, data in enumerate(SUNS):
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


@pytest.mark.parametrize(("pictures", "language"), [("en", "en"), ("zh", "zh")], indirect=["pictures"])
def test_pictures_are_rated_and_ranked_like_words(visit: Visit, pictures: Made, language: str):
    page = visit(f"/work/{pictures.slug}", language=language, viewport={"width": 1600, "height": 960})
    loaded(page, 3)
    for card, points in zip(page.locator(".card").all(), (6, 4, 5), strict=True):
        for asked, more in zip(card.locator(".ask-likert").all(), (0, -1, 1), strict=True):
            asked.locator(".pill").nth(points + more - 1).click()
    for letter in "cab":
        page.locator(f".card[data-id={letter}] .rank-chip").click()
    page.evaluate("document.activeElement.blur()")
    expect(page.locator(".state")).to_have_class("state saved")
    assert (
        page.locator(".card").evaluate_all("all => new Set(all.map((one) => one.getBoundingClientRect().top)).size") == 1
    )  # side by side
    photograph(page, f"collect-images-{language}", themes=LIGHTS)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    photograph(page, f"collect-images-phone-{language}")
    page.locator(".submit").click()
    query = "SELECT count(*) FROM judgment WHERE project_id = ?"
    expect(page.locator(".card")).to_have_count(0)
    assert pictures.database.read(lambda c: c.exec_driver_sql(query, (pictures.id,)).scalar_one()) == 1


def test_a_folder_of_pictures_becomes_items_on_the_setup_page(visit: Visit, site: Site, tmp_path: Path):
    project = made(site.database, users=0, schema=template("image_pref"))
    project.do(accounts.join, project_id=project.id, user_id=site.users["manager"], role="manager")
    root = tmp_path / "suns"
    for folder in ("a red sun", "long"):
        (root / folder).mkdir(parents=True)
        for name, data in zip(("large@900.png", "small.png"), SUNS, strict=False):
            (root / folder / name).write_bytes(data)
    (root / "long/prompt.txt").write_text("落日，越红越好", encoding="utf-8")
    (root / "a red sun/.DS_Store").write_bytes(b"x")
    (root / "a red sun/third.png").write_bytes(b"<svg onload=alert(1)>")
    page = visit(f"/projects/{project.slug}/setup", "manager")
    page.locator("[name=folder]").set_input_files(root)
    expect(page.locator("[data-problems='1'] li")).to_contain_text("suns/a red sun/third.png: this is none of the files")
    items_path = f"/projects/{project.slug}/items"
    assert site.ask("manager", "GET", items_path).json()["items"] == []
    (root / "a red sun/third.png").unlink()
    page.locator("[name=folder]").set_input_files(root)
    page.get_by_role("button", name="Import 2 items").click()
    expect(page.get_by_text("2 items are in the project now.")).to_be_visible()
    expect(page.locator("[data-step=preview] .picture img")).to_have_count(2)
    found = site.ask("manager", "GET", items_path).json()["items"]
    assert {one["prompt"] for one in found} == {"a red sun", "落日，越红越好"}
    whole = site.ask("manager", "GET", f"/items/{found[0]['id']}").json()
    assert [one["source"] for one in whole["completions"]] == ["policy:large@900", "policy:small"]


def a_tone(seconds: float, pitch: float, height: int = 20) -> bytes:
    """A sound long enough to be wound."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(
            bytes(128 + round(height * math.sin(2 * math.pi * pitch * n / 8000)) for n in range(int(8000 * seconds)))
        )
    return file.getvalue()


def test_of_two_sounds_one_plays_and_the_other_goes_on_where_it_was(visit: Visit, site: Site, tmp_path: Path):
    project = made(site.database, users=0, schema=template("audio_mos"))
    project.do(accounts.join, project_id=project.id, user_id=site.users["annotator"], role="annotator")
    (tmp_path / "tones/hum").mkdir(parents=True)
    for name, pitch, height in (("low.wav", 110, 20), ("high.wav", 330, 60)):
        (tmp_path / "tones/hum" / name).write_bytes(a_tone(30, pitch, height))
    found = folders.media_folder(tmp_path / "tones")

    def before(project_id: str) -> str:
        folders.store(site.database, site.service.folder, project_id, found)
        return project_id

    assert imports.run(site.database, project.id, found, before=before).added == 1
    page = visit(f"/work/{project.slug}")
    expect(page.locator("audio")).to_have_count(2)
    first, second = page.locator("audio").all()
    for one in (first, second):
        expect(one).not_to_have_js_property("readyState", 0)
    page.locator(".card[data-id=a]").focus()
    for key in (".", ".", ","):
        page.keyboard.press(key)
    for one in (first, second):
        expect(one).to_have_js_property("currentTime", 5)
    page.locator(".transport [name=speed]").select_option("0.25")
    page.locator(".card[data-id=a]").focus()
    page.keyboard.press("p")
    expect(first).to_have_js_property("paused", False)
    page.locator(".card[data-id=b]").focus()
    page.keyboard.press("p")
    expect(second).to_have_js_property("paused", False)
    expect(first).to_have_js_property("paused", True)
    assert second.evaluate("one => one.currentTime") >= 5  # not from its beginning
    page.keyboard.press("p")
    for one in (first, second):
        expect(one).to_have_js_property("paused", True)
        expect(one).to_have_js_property("playbackRate", 0.25)

    drawings = page.locator("canvas.shape[data-state=drawn]")
    expect(drawings).to_have_count(2)
    painted = "one => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.filter((value) => value).length"
    quiet, loud = sorted(drawing.evaluate(painted) for drawing in drawings.all())
    assert 0 < 2 * quiet < loud  # the bars of the one that is three times as high
    box = drawings.first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(first).to_have_js_property("currentTime", 15)
    equal = page.locator(".transport [name=equally_loud]")
    volumes = lambda: sorted(one.evaluate("one => one.volume") for one in (first, second))  # noqa: E731
    assert volumes() == [1, 1]
    equal.check()
    energies = [sum((value - 128) ** 2 for value in a_tone(30, pitch, height)[44:]) for pitch, height in ((110, 20), (330, 60))]
    assert_close(np.float32(volumes()), np.float32([math.sqrt(energies[0] / energies[1]), 1]))
    equal.uncheck()
    assert volumes() == [1, 1]
