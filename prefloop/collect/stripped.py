"""Pictures without what they say about themselves: where and when they were taken, with what, by which model and from which words.

A telephone writes its position into a JPEG and an image model its name and prompt into a PNG; whoever judges could read both.
Kept is what a picture is drawn from, its colours (profiles, gamma), its movement, and which way up it is. Sounds and clips are
left as they are.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from prefloop.collect.media import Kind, NotOne
from prefloop.collect.refusals import Refused

ORIENTATION = 0x0112
PNG_KEPT = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT")  # fmt: skip
WEBP_KEPT = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP")
LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # extensions of a GIF that say how often it plays
HAS_EXIF, HAS_XMP = 0x08, 0x04  # bits of a WebP's first chunk


def strip(path: Path, kind: Kind) -> None:
    """Leave of a picture's file the picture alone; on disk when this returns."""
    data = path.read_bytes() if kind.medium == "image" else b""
    if (bare := stripped(data, kind)) != data:
        with path.open("wb") as file:
            file.write(bare)
            file.flush()
            os.fsync(file.fileno())


def stripped(data: bytes, kind: Kind) -> bytes:
    """The picture alone; Refused where its parts cannot be told from each other. Sounds and clips as they are."""
    try:
        return STRIP[kind.mime](data) if kind.medium == "image" else data
    except (NotOne, struct.error, IndexError) as problem:
        said = str(problem) if isinstance(problem, NotOne) else "a file that is cut off or damaged"
        raise Refused(422, "bad_media", f"this picture cannot be used: {said}") from None


# --- JPEG -------------------------------------------------------------------------------------------------------------------


def jpeg(data: bytes) -> bytes:
    """Up to the end of the first picture: some carry others behind it, with positions of their own."""
    parts, way_up = [], 1
    for marker, segment in segments(data):
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            way_up = orientation(segment[10:])
        if is_drawn(marker, segment):
            parts.append(segment)
    exif = b"Exif\0\0" + tiff(way_up) if way_up > 1 else b""
    added = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif if exif else b""
    return b"\xff\xd8" + added + b"".join(parts)


def is_drawn(marker: int, segment: bytes) -> bool:
    """Whether a segment changes what is seen: of those of applications the JFIF header, colour profiles, and Adobe's transform."""
    if 0xE0 <= marker <= 0xEF:
        return marker in (0xE0, 0xEE) or segment[4:16] == b"ICC_PROFILE\0"
    return marker != 0xFE  # a comment


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every segment with its marker; what is drawn by a scan belongs to the segment that begins it."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise NotOne("a JPEG that is damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == 0xD9:
            yield marker, data[at : at + 2]
            return
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise NotOne("a JPEG that is cut off")
        if marker == 0xDA:
            end = end_of_scan(data, end)
        yield marker, data[at:end]
        at = end


def end_of_scan(data: bytes, at: int) -> int:
    """Where the next marker stands; in a scan FF is followed by 00, or begins one of its own marks."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise NotOne("a JPEG that is cut off")
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2


def orientation(exif: bytes) -> int:
    """Which way up, 1 to 8, by the first directory of a TIFF; 1 where it does not say, or nothing that can be read."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (n,) = struct.unpack_from(f"{order}H", exif, start)
        for number in range(n):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * number)
            if (tag, kind, count) == (ORIENTATION, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def tiff(way_up: int) -> bytes:
    """A TIFF whose only entry is which way up."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ORIENTATION, 3, 1, way_up, 0, 0)


# --- the others -------------------------------------------------------------------------------------------------------------


def png(data: bytes) -> bytes:
    """What every reader must know (a capital first letter), and of the rest what changes the colours or moves."""
    parts, at = [data[:8]], 8
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name[:1].isupper() or name in PNG_KEPT:
            parts.append(data[at:end])
        if name == b"IEND":
            return b"".join(parts)
        at = end


def webp(data: bytes) -> bytes:
    kept, way_up, at, end = [], 1, 12, 8 + struct.unpack_from("<I", data, 4)[0]
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        after = at + 8 + length + length % 2
        if name == b"EXIF":
            way_up = orientation(data[at + 8 : after].removeprefix(b"Exif\0\0"))
        elif name in WEBP_KEPT:
            kept.append(data[at:after])
        at = after
    if kept and kept[0][:4] == b"VP8X":
        flags = kept[0][8] & ~(HAS_EXIF | HAS_XMP) | (HAS_EXIF if way_up > 1 else 0)
        kept[0] = kept[0][:8] + bytes([flags]) + kept[0][9:]
        if way_up > 1:
            exif = tiff(way_up)
            kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(data: bytes) -> bytes:
    """Without comments, and without extensions of applications but for loops."""
    at = 13 + colours(data[10])
    parts = [data[:at]]
    while data[at] != 0x3B:
        begins = at
        if data[at] == 0x21:
            label, name = data[at + 1], data[at + 3 : at + 14]
            at = after_blocks(data, at + 2)
            is_kept = label != 0xFE and (label != 0xFF or name in LOOPS)
        elif data[at] == 0x2C:
            at = after_blocks(data, at + 11 + colours(data[at + 9]))
            is_kept = True
        else:
            raise NotOne("a GIF that is damaged")
        if is_kept:
            parts.append(data[begins:at])
    return b"".join(parts) + b";"


def colours(flags: int) -> int:
    """Bytes of the table of colours that some flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def after_blocks(data: bytes, at: int) -> int:
    """Behind a row of blocks, each with its length before it, the last of length 0."""
    while data[at]:
        at += 1 + data[at]
    return at + 1


STRIP = {"image/jpeg": jpeg, "image/png": png, "image/webp": webp, "image/gif": gif}
