"""Pictures, sounds and clips: taken by their bytes, found by their hash, shown under addresses that are one person's."""

import hashlib
import json

import httpx
import pytest

from prefloop.collect import accounts, imports, media, projects
from prefloop.collect.client import connect
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import read_schema, template
from prefloop.errors import DataError
from tests.collect.made import Made, made
from tests.collect.pictures import REFUSED, TAKEN, a_png, a_wav
from tests.collect.site import Site


@pytest.fixture(scope="module")
def site(new_url, tmp_path_factory):
    opened = Site(tmp_path_factory.mktemp("media"), new_url("sqlite")).start()
    yield opened
    opened.stop()


@pytest.fixture
def pictures(site) -> Made:
    """A project about pictures with its annotator and reviewer."""
    project = made(site.database, users=0, schema=template("image_pref"))
    for role in ("annotator", "reviewer", "manager"):
        project.do(accounts.join, project_id=project.id, user_id=site.users[role], role=role)
    return project


# --- what is taken ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mime", TAKEN)
def test_a_file_is_what_its_bytes_say(tmp_path, mime):
    for number, data in enumerate(TAKEN[mime]):
        path = tmp_path / f"{number}.txt"  # whatever its name says
        path.write_bytes(data)
        kind = media.kind_of(path)
        assert (kind.medium, kind.mime) == (mime.partition("/")[0], mime)
        assert (kind.width, kind.height) == ((4, 3) if kind.medium == "image" else (0, 0))


@pytest.mark.parametrize("what", REFUSED)
def test_what_only_looks_like_one_is_refused(tmp_path, what):
    path = tmp_path / "picture.png"
    path.write_bytes(REFUSED[what])
    with pytest.raises(Refused) as refused:
        media.kind_of(path)
    assert (refused.value.status, refused.value.code) == (422, "bad_media")


def test_a_file_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(media.MAX_BYTES, "image", 50)
    (tmp_path / "x").write_bytes(a_png())
    with pytest.raises(Refused) as refused:
        media.kind_of(tmp_path / "x")
    assert refused.value.status == 413


# --- from an upload to a screen -----------------------------------------------------------------------------------------------


def uploaded(site: Site, project: Made, data: bytes, *, status: int = 201) -> dict:
    answer = site.ask("manager", "POST", f"/projects/{project.slug}/assets", content=data)
    assert answer.status_code == status, answer.text
    return answer.json()


def line(number: int, *hashes: str, medium: str = "image") -> str:
    shown = [
        {
            "id": f"{number}-{place}",
            "prompt_id": f"p{number}",
            "content": {"type": medium, "uri": f"secret-model/{place}.png", "sha256": sha256},
        }
        for place, sha256 in enumerate(hashes)
    ]
    prompt = {"id": f"p{number}", "messages": [{"role": "user", "content": f"a red square, number {number}"}]}
    return json.dumps({"format_version": 1, "prompt": prompt, "completions": shown, "rankings": [], "ratings": []}) + "\n"


def two_pictures(site: Site, project: Made) -> list[str]:
    return [uploaded(site, project, a_png(colour=colour))["sha256"] for colour in ((200, 0, 0), (0, 0, 200))]


def screen_of(site: Site, project: Made, role: str = "annotator") -> dict:
    return site.ask(role, "POST", f"/projects/{project.slug}/next", json={}).json()


def test_an_upload_is_called_by_the_hash_of_its_bytes_and_lies_there(site, pictures):
    data = a_png(profile=b"x" * 5_000_000)  # longer than any other request may be
    said = uploaded(site, pictures, data)
    assert said == {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "medium": "image",
        "mime": "image/png",
        "width": 4,
        "height": 3,
    }
    assert media.place(site.service.folder, said["sha256"]).read_bytes() == data
    assert uploaded(site, pictures, data) == said  # again is no harm


def test_a_picture_is_shown_without_what_it_says_about_itself(site, pictures):
    data = a_png(words=b"parameters\0made by secret-model")
    said = uploaded(site, pictures, data)
    assert said["sha256"] == hashlib.sha256(data).hexdigest()  # what rows call it by
    assert media.place(site.service.folder, said["sha256"]).read_bytes() == a_png()


def test_what_is_refused_leaves_no_file(site, pictures):
    before = sorted((site.service.folder / "media").rglob("*"))
    assert uploaded(site, pictures, b"<svg/>", status=422)["code"] == "bad_media"
    assert sorted((site.service.folder / "media").rglob("*")) == before


def test_a_screen_has_addresses_and_nothing_of_where_pictures_came_from(site, pictures, tmp_path):
    hashes = two_pictures(site, pictures)
    (tmp_path / "pictures.jsonl").write_text(line(0, *hashes))
    assert imports.run(site.database, pictures.id, tmp_path / "pictures.jsonl").added == 1
    screen = screen_of(site, pictures)
    assert [one["content"]["type"] for one in screen["completions"]] == ["image", "image"]
    assert all(set(one["content"]) == {"type", "src"} for one in screen["completions"])
    assert "secret-model" not in json.dumps(screen)
    got = [site.ask("annotator", "GET", one["content"]["src"].removeprefix("/api/v1")) for one in screen["completions"]]
    assert {hashlib.sha256(one.content).hexdigest() for one in got} == set(hashes)
    for one in got:
        assert one.headers["content-type"] == "image/png" and one.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in one.headers["content-security-policy"] and "immutable" in one.headers["cache-control"]
        assert one.headers["etag"]
    part = site.ask(
        "annotator", "GET", screen["completions"][0]["content"]["src"].removeprefix("/api/v1"), headers={"Range": "bytes=0-3"}
    )
    assert (part.status_code, part.content) == (206, b"\x89PNG")


def test_an_address_is_one_persons_for_some_hours(site, pictures):
    (sha256, _) = two_pictures(site, pictures)
    secret, now = site.database.read(lambda c: projects.find(c, pictures.slug).secret), site.database.clock()
    own = media.token(secret, sha256=sha256, user_id=site.users["annotator"], now=now)
    path = f"/media/{own}"
    assert site.ask("annotator", "GET", path).status_code == 200
    assert site.ask("reviewer", "GET", path).status_code == 404
    assert httpx.get(f"{site.address}/api/v1{path}", trust_env=False).status_code == 401
    old = media.token(secret, sha256=sha256, user_id=site.users["annotator"], now=now - 2 * media.HOURS_12)
    expires, _, mac = own.partition("-")
    later = f"{int(expires, 16) + 50:x}-{mac}"
    other = own.replace(sha256, "0" * 64)
    for wrong in (old, later, other, own[:-1], own + "0", "x", "../../collect.sqlite"):
        assert site.ask("annotator", "GET", f"/media/{wrong}").status_code == 404, wrong
    assert media.token(secret, sha256=sha256, user_id="u", now=0) == media.token(
        secret, sha256=sha256, user_id="u", now=media.HOURS_12 - 1
    )


WRONG = [
    (lambda hashes: line(0, hashes[0], "0" * 64), "no image of this project has the sha256: 0000"),
    (lambda hashes: line(0, hashes[0], ""), "names no uploaded file by its sha256"),
    (lambda hashes: line(0, hashes[0], hashes[1], medium="audio"), "audio answers, where the project asks about image"),
    (lambda hashes: '{"prompt": "x", "completions": ["a", "b"]}\n', "text answers, where the project asks about image"),
]


@pytest.mark.parametrize(("written", "said"), WRONG)
def test_an_import_of_what_cannot_be_shown_is_refused_whole(site, pictures, tmp_path, written, said):
    hashes = two_pictures(site, pictures)
    (tmp_path / "pictures.jsonl").write_text(written(hashes))
    with pytest.raises(DataError, match=said):
        imports.run(site.database, pictures.id, tmp_path / "pictures.jsonl")


def test_a_bad_row_among_good_ones_can_be_left_out(site, pictures, tmp_path):
    hashes = two_pictures(site, pictures)
    (tmp_path / "pictures.jsonl").write_text(line(0, *hashes) + line(1, hashes[0], "0" * 64) + line(2, *hashes))
    with pytest.raises(DataError, match="jsonl:2, no image"):
        imports.run(site.database, pictures.id, tmp_path / "pictures.jsonl")
    assert imports.run(site.database, pictures.id, tmp_path / "pictures.jsonl", skip_bad=True).added == 2


def test_a_sound_is_no_picture_even_where_the_hash_is_known(site, pictures, tmp_path):
    hashes = [uploaded(site, pictures, a_wav())["sha256"], *two_pictures(site, pictures)]
    (tmp_path / "pictures.jsonl").write_text(line(0, *hashes[:2]))
    with pytest.raises(DataError, match="no image of this project"):
        imports.run(site.database, pictures.id, tmp_path / "pictures.jsonl")


def test_a_file_of_another_project_is_none_of_this_one(site, pictures, tmp_path):
    elsewhere = made(
        site.database,
        users=0,
        schema=read_schema("id: x\nmedium: image\nstages: [{id: s, questions: [{id: q, type: rank}]}]", where="here"),
    )
    hashes = two_pictures(site, pictures)
    (tmp_path / "pictures.jsonl").write_text(line(0, *hashes))
    with pytest.raises(DataError, match="no image of this project"):
        imports.run(site.database, elsewhere.id, tmp_path / "pictures.jsonl")


def test_the_client_uploads_and_pushes(site, pictures, tmp_path):
    token = site.token("manager", "import", "view")
    (tmp_path / "red.png").write_bytes(a_png(colour=(1, 2, 3)))
    (tmp_path / "blue.png").write_bytes(a_png(colour=(3, 2, 1)))
    with connect(site.address, token) as server:
        project = server.project(pictures.slug)
        hashes = [project.upload(tmp_path / name)["sha256"] for name in ("red.png", "blue.png")]
        (tmp_path / "pictures.jsonl").write_text(line(7, *hashes))
        assert project.push(tmp_path / "pictures.jsonl")["added"] == 1
        for name in ("large.png", "small.png"):
            (tmp_path / "suns/a sun").mkdir(parents=True, exist_ok=True)
            (tmp_path / "suns/a sun" / name).write_bytes(a_png(colour=(9, 9, len(name))))
        assert project.push(tmp_path / "suns")["added"] == 1
        (tmp_path / "suns/a sun/third.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"suns/a sun/third\.png, this is none of the files"):
            project.push(tmp_path / "suns")
