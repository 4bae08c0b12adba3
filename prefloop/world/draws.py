"""Randomness by key: the same words always draw the same number, in any order, process or batch."""

import hashlib
import random
from typing import Any


def digest(*key: Any) -> bytes:
    """32 bytes that depend on every part of the key and on where one part ends."""
    parts = "\x1f".join(f"{len(str(part))}:{part}" for part in key)
    return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def uniform(*key: Any) -> float:
    """A number strictly between 0 and 1."""
    return (int.from_bytes(digest(*key)[:6], "big") + 0.5) / 2**48


def generator(*key: Any) -> random.Random:
    """A generator of its own for the key."""
    return random.Random(digest(*key))
