"""What a picture says about itself stays behind, and the picture stays the picture. Real files, made here by Pillow."""

import io
from functools import partial

import pytest

from prefloop.collect import folders, media
from prefloop.collect.media import Kind
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import template
from prefloop.collect.stripped import orientation, strip, stripped, tiff
from prefloop.errors import DataError
from tests.collect.made import made
from tests.collect.pictures import TAKEN, a_jpeg, a_png, a_webp, chunk

SECRET = b"made by secret-model"
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + SECRET


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL.Image")


def of(mime: str) -> Kind:
    return Kind("image", mime)


def drawing(pillow):
    """Colours that change everywhere, so that a picture turned or shifted is another."""
    picture = pillow.new("RGB", (32, 24))
    picture.putdata([(x * 8, y * 10, (x * y) % 256) for y in range(24) for x in range(32)])
    return picture


def position(pillow, way_up: int):
    """What a telephone writes: where it was, when, with what, and which way up it was held."""
    exif = pillow.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "telephone", way_up, "2026:11:22 10:00:00"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}
    return exif


def written(pillow, kind: str, **more) -> bytes:
    file = io.BytesIO()
    drawing(pillow).save(file, kind, **more)
    return file.getvalue()


def pixels(pillow, data: bytes) -> bytes:
    return pillow.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("way_up", [1, 6])
def test_a_jpeg_from_a_telephone_loses_its_position_and_stands_as_it_stood(pillow, progressive, way_up):
    given = {"progressive": progressive, "quality": 90, "icc_profile": b"a profile of colours", "comment": SECRET}
    data = written(pillow, "JPEG", exif=position(pillow, way_up), **given)
    data = data[:2] + b"\xff\xe1" + (len(XMP) + 2).to_bytes(2) + XMP + data[2:] + data  # another picture behind it
    assert pillow.open(io.BytesIO(data)).getexif().get_ifd(0x8825)
    bare = stripped(data, of("image/jpeg"))
    shown = pillow.open(io.BytesIO(bare))
    assert dict(shown.getexif()) == ({0x0112: way_up} if way_up > 1 else {})
    assert not shown.getexif().get_ifd(0x8825) and shown.info["icc_profile"] == b"a profile of colours"
    assert all(word not in bare for word in (SECRET, b"telephone", b"2026:11", b"xmpmeta"))
    assert pixels(pillow, bare) == pixels(pillow, data)
    assert bare.count(b"\xff\xd9") == 1 and stripped(bare, of("image/jpeg")) == bare


def test_a_png_loses_the_words_it_was_made_from(pillow):
    import PIL.PngImagePlugin as plugin

    words = plugin.PngInfo()
    words.add_text("parameters", SECRET.decode())
    words.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    data = written(pillow, "PNG", pnginfo=words, exif=position(pillow, 1), dpi=(72, 72))
    assert SECRET in data and b"eXIf" in data
    bare = stripped(data + SECRET, of("image/png"))
    assert SECRET not in bare and b"eXIf" not in bare and b"pHYs" in bare
    assert pixels(pillow, bare) == pixels(pillow, data) and media.png(bare) == media.png(data)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("way_up", [1, 8])
def test_a_webp_loses_its_position_and_stands_as_it_stood(pillow, lossless, way_up):
    data = written(pillow, "WEBP", lossless=lossless, exif=position(pillow, way_up), xmp=SECRET)
    bare = stripped(data, of("image/webp"))
    shown = pillow.open(io.BytesIO(bare))
    assert dict(shown.getexif()) == ({0x0112: way_up} if way_up > 1 else {})
    assert SECRET not in bare and b"telephone" not in bare and "xmp" not in shown.info
    assert pixels(pillow, bare) == pixels(pillow, data)
    assert media.webp(bare)[2:] == (32, 24) and len(bare) % 2 == 0


def test_a_gif_loses_its_comments_and_goes_on_moving(pillow):
    frames = [drawing(pillow).convert("P"), drawing(pillow).rotate(90).convert("P")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], loop=3, duration=50, comment=SECRET)
    data = file.getvalue()
    foreign = b"\x21\xff\x0bXMP DataXMP" + bytes([len(SECRET)]) + SECRET + b"\0"
    at = data.index(b"\x21\xff\x0bNETSCAPE2.0")
    data = data[:at] + foreign + data[at:] + SECRET
    bare = stripped(data, of("image/gif"))
    before, after = (pillow.open(io.BytesIO(one)) for one in (data, bare))
    assert SECRET not in bare and (after.n_frames, after.info["loop"], after.info["duration"]) == (2, 3, 50)
    for number in range(2):
        before.seek(number)
        after.seek(number)
        assert before.convert("RGB").tobytes() == after.convert("RGB").tobytes()


@pytest.mark.parametrize("mime", TAKEN)
def test_what_says_nothing_is_left_as_it_is(mime, tmp_path):
    for data in TAKEN[mime]:
        assert stripped(data, media.kind_of(kept(tmp_path, data))) == data


def kept(folder, data: bytes):
    (folder / "x").write_bytes(data)
    return folder / "x"


@pytest.mark.parametrize(
    ("mime", "data"),
    [
        ("image/jpeg", a_jpeg()[:-2]),
        ("image/jpeg", a_jpeg().replace(b"\xff\xda", b"\x00\xda")),
        ("image/jpeg", b"\xff\xd8\xff\xe1\xff\xff" + b"x" * 20),
        ("image/jpeg", b"\xff\xd8\xff\xe1\x00\x00" + b"x" * 20),
        ("image/png", a_png()[:40]),
        ("image/gif", b"GIF89a" + bytes(7) + b"x;"),
        ("image/gif", b"GIF89a" + bytes(7) + b"\x21\xfe\x09;"),
    ],
)
def test_parts_that_cannot_be_told_apart_are_refused(mime, data):
    with pytest.raises(Refused) as refused:
        stripped(data, of(mime))
    assert (refused.value.status, refused.value.code) == (422, "bad_media")


@pytest.mark.parametrize(
    ("exif", "way_up"),
    [
        (tiff(6), 6),
        (b"", 1),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0", 3),
        (tiff(9), 1),
        (b"MM\0*\xff\xff\xff\xff", 1),
    ],
)
def test_which_way_up_is_read_in_both_byte_orders_and_nonsense_is_upright(exif, way_up):
    assert orientation(exif) == way_up


def test_a_webp_without_a_directory_of_its_parts_needs_none(tmp_path):
    data = a_webp(b"VP8L")
    data = data[:4] + (len(data) - 8 + 8 + 4).to_bytes(4, "little") + data[8:] + b"EXIF" + (4).to_bytes(4, "little") + b"here"
    assert stripped(data, of("image/webp")) == a_webp(b"VP8L")


# --- where files come in ------------------------------------------------------------------------------------------------------


def test_a_file_is_written_anew_only_where_something_goes(tmp_path):
    path = kept(tmp_path, a_png())
    before = path.stat().st_mtime_ns
    strip(path, of("image/png"))
    assert path.stat().st_mtime_ns == before
    strip(kept(tmp_path, a_png(words=SECRET)), of("image/png"))
    assert path.read_bytes() == a_png()


def test_a_folder_of_pictures_is_stored_without_it_and_called_by_what_was_given(sqlite, tmp_path):
    project = made(sqlite, schema=template("image_pref"))
    (tmp_path / "suns/a sun").mkdir(parents=True)
    (tmp_path / "suns/a sun/one.png").write_bytes(a_png(words=SECRET))
    (tmp_path / "suns/a sun/two.png").write_bytes(a_png(colour=(1, 2, 3)))
    found = folders.media_folder(tmp_path / "suns")
    (group,) = found.whole()
    folders.store(project.database, tmp_path / "service", project.id, found)
    places = [media.place(tmp_path / "service", completion.content.sha256) for completion in group.completions]
    assert [place.read_bytes() for place in places] == [a_png(), a_png(colour=(1, 2, 3))]
    assert not project.database.read(
        partial(media.unknown, project_id=project.id, medium="image", hashes=[one.content.sha256 for one in group.completions])
    )
    (tmp_path / "suns/a sun/three.jpeg").write_bytes(a_jpeg().replace(b"\xff\xda", b"\x00\xda"))
    with pytest.raises(DataError, match=r"three\.jpeg, this picture cannot be used: a JPEG that is damaged"):
        folders.media_folder(tmp_path / "suns").whole()


def test_a_chunk_nobody_knows_is_no_part_of_the_picture():
    data = a_png()
    at = data.index(b"IDAT") - 4
    assert stripped(data[:at] + chunk(b"prVt", SECRET) + data[at:], of("image/png")) == data
