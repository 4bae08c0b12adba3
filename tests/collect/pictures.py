"""Small files of every kind that is taken, made byte by byte."""

import io
import struct
import wave
import zlib


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def a_png(
    width: int = 4, height: int = 3, *, colour: tuple[int, int, int] = (200, 30, 30), words: bytes = b"", profile: bytes = b""
) -> bytes:
    """A picture of one colour; ``words`` and ``profile`` make it longer, and only the second is kept."""
    row = b"\0" + bytes(colour) * width
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), chunk(b"IDAT", zlib.compress(row * height))]
    parts += [chunk(name, body) for name, body in ((b"tEXt", words), (b"iCCP", profile)) if body]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def a_jpeg(width: int = 4, height: int = 3) -> bytes:
    start = b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9)
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return start + frame + b"\xff\xda\x00\x02" + bytes(8) + b"\xff\xd9"


def a_gif(width: int = 4, height: int = 3) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + b",\0\0\0\0" + bytes(7) + b";"


def a_webp(kind: bytes, width: int = 4, height: int = 3) -> bytes:
    size = {
        b"VP8X": bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(5),
        b"VP8 ": bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height),
    }[kind]
    body = b"WEBP" + kind + struct.pack("<I", len(size)) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def a_wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    return file.getvalue()


TAKEN = {
    "image/png": [a_png()], "image/jpeg": [a_jpeg()], "image/gif": [a_gif()],
    "image/webp": [a_webp(kind) for kind in (b"VP8X", b"VP8L", b"VP8 ")],
    "audio/wav": [a_wav()], "audio/flac": [b"fLaC" + bytes(60)], "audio/ogg": [b"OggS" + bytes(60)],
    "audio/mpeg": [b"ID3" + bytes(60), b"\xff\xfb\x90\x00" + bytes(60)],
    "video/mp4": [b"\0\0\0\x20ftypisom" + bytes(60)], "video/webm": [b"\x1a\x45\xdf\xa3" + bytes(20) + b"webm" + bytes(60)],
}  # fmt: skip
REFUSED = {
    "an SVG, which a browser runs": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "a page": b"<!doctype html><script>alert(1)</script>",
    "nothing": b"",
    "text": b"just words",
    "a program": b"\x7fELF" + bytes(60),
    "a PNG that is cut off": a_png()[:-6],
    "a PNG with a changed letter": a_png().replace(b"IDAT", b"IDAS"),
    "a PNG that begins with something else": b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x") + a_png()[8:],
    "a PNG that would unpack to a gigabyte": a_png(1, 1).replace(
        a_png(1, 1)[8:33], chunk(b"IHDR", struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0))
    ),
    "a PNG of no size": a_png(1, 1).replace(a_png(1, 1)[8:33], chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 1, 8, 2, 0, 0, 0))),
    "a JPEG without its end": a_jpeg()[:-2],
    "a JPEG without a picture": b"\xff\xd8\xff\xe0\x00\x04\0\0\xff\xd9",
    "a GIF that is cut off": a_gif()[:-1],
    "a WebP that is cut off": a_webp(b"VP8X")[:-4],
    "an AVI, which begins like a WAV": b"RIFF\x40\0\0\0AVI " + bytes(60),
    "a film of a kind browsers do not show": b"\0\0\0\x20ftypqt  " + bytes(60),
}
