"""A text as the gold reward reads it: words, clauses, and whether it was finished."""

import re
from typing import NamedTuple

from prefloop.world.language import Language, longest_words

SPACED = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]|_")
CLAUSE_ENDS = frozenset(".!?,;:。！？，；：、")
FULL_STOPS = frozenset(".!?。！？")


class Words(NamedTuple):
    """``words`` leaves out the marks; ``tokens`` keeps them, so that a clause's end is seen."""

    words: list[str]
    tokens: list[str]
    is_finished: bool


def read_words(language: Language, text: str) -> Words:
    """The words of any text whatever, in lower case. Never fails."""
    lowered = text.lower()
    tokens = SPACED.findall(lowered) if language.spaced else longest_words(language, lowered)
    words = [token for token in tokens if token.isalnum() or "'" in token[1:]]
    stripped = text.rstrip()
    return Words(words, tokens, bool(stripped) and stripped[-1] in FULL_STOPS)
