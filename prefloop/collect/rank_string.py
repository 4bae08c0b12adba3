"""An order as a line of text: ``b > a = c | d``. Best first, ``=`` between equals, unusable ones after ``|``.

Typed by hand, digits may stand for letters, commas and spaces for ``>``, and ``x`` before a name for unusable:
``2 1=3 x4`` is the same line. Completions are a to p, in the order of the screen.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

LETTERS = "abcdefghijklmnop"  # 16: the most completions an item may have
LONGEST = 200  # 16 answers need half of it

NAME = r"x?\s*(?:[a-p]|[1-9])"
TIER = rf"{NAME}(?:\s*=\s*{NAME})*"
LINE = re.compile(
    rf"\s*(?P<ranked>{TIER}(?:[\s>,]+{TIER})*)?\s*(?:\|\s*(?P<unusable>{NAME}(?:[\s=,]+{NAME})*)?)?\s*", re.IGNORECASE
)


class Order(NamedTuple):
    """Tiers, best first, and what is unusable."""

    tiers: tuple[tuple[str, ...], ...]
    unusable: tuple[str, ...] = ()


def parse(line: str) -> Order:
    """The order a line says; ValueError where it says none, or places something twice."""
    found = LINE.fullmatch(line) if len(line) <= LONGEST else None
    if found is None:
        raise ValueError(f"{line[:60]!r} is no order of answers; write the best first, as in  b > a = c | d")
    tiers: list[tuple[str, ...]] = []
    unusable = [name(one) for one in names(found["unusable"] or "")]
    for tier in re.findall(TIER, found["ranked"] or "", re.IGNORECASE):
        ranked = [one for one in names(tier) if not is_crossed(one)]
        unusable += [name(one) for one in names(tier) if is_crossed(one)]
        if ranked:
            tiers.append(tuple(name(one) for one in ranked))
    placed = [one for tier in tiers for one in tier] + unusable
    if twice := sorted({one for one in placed if placed.count(one) > 1}):
        raise ValueError(f"{line[:60]!r} places {', '.join(twice)} twice")
    return Order(tuple(tiers), tuple(unusable))


def names(part: str) -> list[str]:
    return re.findall(NAME, part, re.IGNORECASE)


def is_crossed(typed: str) -> bool:
    return typed.lower().startswith("x")


def name(typed: str) -> str:
    last = typed[-1].lower()
    return LETTERS[int(last) - 1] if last.isdigit() else last


def written(tiers: Sequence[Sequence[str]], unusable: Sequence[str] = ()) -> str:
    """The line for an order; letters inside a tier stand in the order of the alphabet."""
    ranked = " > ".join(" = ".join(sorted(tier)) for tier in tiers)
    return f"{ranked} | {' '.join(sorted(unusable))}".strip() if unusable else ranked
