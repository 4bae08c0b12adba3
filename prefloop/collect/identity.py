"""Ids that sort by time, secrets that are stored as hashes, pseudonyms, and JSON that is the same text for the same value."""

import hashlib
import hmac
import json
import secrets
import threading
import time
from typing import Any

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # base 32 without I, L, O, U
PAIRS = [one + other for one in CROCKFORD for other in CROCKFORD]  # two letters at a time


def now_ms() -> int:
    """UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Ulids:
    """Ids in 26 letters: 48 bits of time, 80 of chance. Those of one process go up even within a millisecond."""

    def __init__(self) -> None:
        self.lock, self.last = threading.Lock(), 0

    def next(self, now: int) -> str:
        with self.lock:
            drawn = (now << 80) | secrets.randbits(79)  # half the room above is left for those that follow
            is_same = self.last >> 80 == now
            self.last = self.last + 1 + secrets.randbits(32) if is_same else drawn
            made = self.last
        return "".join([PAIRS[(made >> shift) & 1023] for shift in range(120, -1, -10)])


ULIDS = Ulids()


def new_id(now: int | None = None) -> str:
    """A ULID, which sorts by when it was made."""
    return ULIDS.next(now_ms() if now is None else now)


def new_secret() -> str:
    """256 random bits for a link, a cookie or a token; only its ``fingerprint`` is stored."""
    return secrets.token_urlsafe(32)


def fingerprint(secret: str | bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def keyed(key: str, *parts: object) -> bytes:
    """HMAC-SHA-256 of some parts under a project's secret."""
    return hmac.new(bytes.fromhex(key), json.dumps(parts).encode(), hashlib.sha256).digest()


def pseudonym(key: str, user_id: str) -> str:
    """What the annotator of a record is called outside: stable within a project, of no use in another."""
    return f"human:{keyed(key, 'annotator', user_id).hex()[:12]}"


CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def as_json(value: Any) -> str:
    """Canonical JSON: equal values are equal texts."""
    return CANONICAL.encode(value)
