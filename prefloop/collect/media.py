"""Pictures, sounds and clips: known by the hash of their bytes, taken only where the bytes are what they are said to be.

What somebody uploads is looked at from its first bytes on, whatever its name says; only the kinds in ``KINDS`` are taken, none
of which a browser runs (no SVG, no HTML). A picture must be whole and of a size that can be drawn. Annotators get addresses
that hold for themselves and for some hours, and say nothing of where a file came from.
"""

import hmac
import json
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, select

from prefloop.collect.identity import keyed
from prefloop.collect.queue import put
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import asset, project

MAX_BYTES = {"image": 20 * 2**20, "audio": 100 * 2**20, "video": 500 * 2**20}
MAX_SIDE, MAX_PIXELS = 16_384, 64_000_000  # what a picture unpacks to
HOURS_12 = 12 * 3_600_000
SHA = re.compile(r"[0-9a-f]{64}")
TOKEN = re.compile(r"([0-9a-f]{1,12})-([0-9a-f]{64})-([0-9a-f]{32})")


class Kind(NamedTuple):
    """What some bytes are."""

    medium: str
    mime: str
    width: int = 0
    height: int = 0


class NotOne(ValueError):
    """Why bytes that begin like a picture are none."""


# --- pictures -----------------------------------------------------------------------------------------------------------------


def png(data: bytes) -> Kind:
    """IHDR first, every chunk with its checksum, IEND last."""
    at, size = 8, (0, 0)
    while at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body, check = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if len(check) < 4 or zlib.crc32(name + body) != int.from_bytes(check):
            raise NotOne("a PNG that is cut off or damaged")
        if at == 8 and (name != b"IHDR" or length != 13):
            raise NotOne("a PNG without its header")
        size = struct.unpack(">II", body[:8]) if name == b"IHDR" else size
        if name == b"IEND":
            return Kind("image", "image/png", *size)
        at += 12 + length
    raise NotOne("a PNG that is cut off or damaged")


def jpeg(data: bytes) -> Kind:
    """Segments up to the frame header, which has the size; the end of the picture somewhere after."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            if b"\xff\xd9" not in data[at:]:
                raise NotOne("a JPEG that is cut off")
            return Kind("image", "image/jpeg", width, height)
        at += 2 + length if marker != 0xFF else 1
    raise NotOne("a JPEG without a picture")


def gif(data: bytes) -> Kind:
    if len(data) < 14 or data.rstrip(b"\0")[-1:] != b";":
        raise NotOne("a GIF that is cut off")
    return Kind("image", "image/gif", *struct.unpack("<HH", data[6:10]))


def webp(data: bytes) -> Kind:
    """The three ways a WebP says its size."""
    if len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise NotOne("a WebP that is cut off")
    kind = data[12:16]
    if kind == b"VP8X":
        return Kind("image", "image/webp", *(int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27)))
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Kind("image", "image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        return Kind("image", "image/webp", *(side & 0x3FFF for side in struct.unpack("<HH", data[26:30])))
    raise NotOne("a WebP without a picture")


PICTURES = ((b"\x89PNG\r\n\x1a\n", png), (b"\xff\xd8\xff", jpeg), (b"GIF87a", gif), (b"GIF89a", gif))
SOUNDS = {b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"ID3": "audio/mpeg", b"\xff\xfb": "audio/mpeg", b"\xff\xf3": "audio/mpeg"}
MP4 = (b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"dash", b"M4V ")
KINDS = "PNG, JPEG, GIF, WebP; WAV, MP3, FLAC, Ogg; MP4, WebM"


def kind_of(path: Path) -> Kind:
    """What a file is by its bytes; Refused where it is nothing that is taken."""
    with path.open("rb") as file:
        head = file.read(64)
    medium = medium_of(head)
    if medium is None:
        raise Refused(422, "bad_media", f"this is none of the files that are taken: {KINDS}")
    if path.stat().st_size > MAX_BYTES[medium.medium]:
        raise Refused(413, "too_long", f"{medium.medium} files are at most {MAX_BYTES[medium.medium] // 2**20} MiB")
    if medium.medium != "image":
        return medium
    try:
        found = read_picture(path.read_bytes())
    except (NotOne, struct.error) as problem:
        raise Refused(422, "bad_media", f"this picture cannot be used: {problem}") from None
    if not (0 < found.width <= MAX_SIDE and 0 < found.height <= MAX_SIDE and found.width * found.height <= MAX_PIXELS):
        raise Refused(
            422, "bad_media", f"a picture of {found.width:,} × {found.height:,}; at most {MAX_PIXELS // 10**6} megapixels"
        )
    return found


def medium_of(head: bytes) -> Kind | None:
    """What the first bytes say a file is."""
    if any(head.startswith(magic) for magic, _ in PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return Kind("image", "")
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return Kind("audio", "audio/wav")
    if head[4:8] == b"ftyp" and head[8:12] in MP4:
        return Kind("video", "video/mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3" and b"webm" in head:
        return Kind("video", "video/webm")
    return next((Kind("audio", mime) for magic, mime in SOUNDS.items() if head.startswith(magic)), None)


def read_picture(data: bytes) -> Kind:
    return next((read(data) for magic, read in PICTURES if data.startswith(magic)), None) or webp(data)


# --- files of a project -------------------------------------------------------------------------------------------------------


def place(folder: Path, sha256: str) -> Path:
    """Where a file lies: by its hash, never by a name somebody gave it."""
    return folder / "media" / sha256[:2] / sha256


def add(connection: Connection, *, project_id: str, sha256: str, kind: Kind, n_bytes: int, user_id: str | None, now: int) -> None:
    """A file that lies at its place is now one of the project."""
    row = {"project_id": project_id, "sha256": sha256, "medium": kind.medium, "mime": kind.mime, "bytes": n_bytes,
           "width": kind.width, "height": kind.height, "created_by": user_id, "created": now}  # fmt: skip
    put(connection, asset, row, {"mime": kind.mime})


def unknown(connection: Connection, project_id: str, medium: str, hashes: Sequence[str]) -> set[str]:
    """Which of some hashes are of no file of this medium that the project has."""
    here = and_(asset.c.project_id == project_id, asset.c.medium == medium, asset.c.sha256.in_(hashes))
    return set(hashes) - set(connection.scalars(select(asset.c.sha256).where(here)))


def hashes_in(completions_json: Iterable[str]) -> list[str]:
    """The hashes of the files some items show."""
    found = {one["content"].get("sha256", "") for listed in completions_json for one in json.loads(listed)}
    return sorted(found - {""})


# --- addresses of one's own ---------------------------------------------------------------------------------------------------


def token(secret: str, *, sha256: str, user_id: str, now: int) -> str:
    """An address for one person, good for 12 to 24 hours; the same all the time, so that a browser keeps the file."""
    expires = now // HOURS_12 + 2
    return f"{expires:x}-{sha256}-{signature(secret, sha256, user_id, expires)}"


def signature(secret: str, sha256: str, user_id: str, expires: int) -> str:
    return keyed(secret, "media", sha256, user_id, expires).hex()[:32]


def opened(connection: Connection, *, given: str, user_id: str, now: int) -> Any:
    """The file an address stands for; there is none for anybody else, or later."""
    parts = TOKEN.fullmatch(given)
    if parts is None or int(parts[1], 16) * HOURS_12 <= now:
        raise not_found("file")
    joined = asset.join(project, project.c.id == asset.c.project_id)
    rows = connection.execute(select(asset, project.c.secret).select_from(joined).where(asset.c.sha256 == parts[2]))
    for row in rows:
        if hmac.compare_digest(signature(row.secret, parts[2], user_id, int(parts[1], 16)), parts[3]):
            return row
    raise not_found("file")


def on_screen(content: dict[str, Any], *, secret: str, user_id: str, now: int) -> dict[str, Any]:
    """What a screen is told of an answer: words as they are, of a file nothing but an address."""
    if content["type"] == "text":
        return content
    return {"type": content["type"], "src": f"/api/v1/media/{token(secret, sha256=content['sha256'], user_id=user_id, now=now)}"}
