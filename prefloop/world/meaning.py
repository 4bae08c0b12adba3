"""What an answer of the world says, however it says it: the exact relation that a model of entailment only estimates.

    form      the kinds of answer it is (story, reply, list, fact, advice), by the words only they have
    choice    what it chooses: moods, remedies and help by any of their words; of lists the things, of facts the values
    nouns     the animals, things, places, people it names, those aside that stand in sentences any answer may have
    rude      that it is

Left out is manner: order, warmth, length, filler words, grammar, and whether it ends. So two answers mean the same where they
say the same, and one entails another that says nothing more. Gold is not asked: it is no part of what an answer says.
"""

import re
from functools import cache, lru_cache

from prefloop.errors import ConfigError
from prefloop.stats.clusters import Equivalence
from prefloop.world.gold import DETAILS
from prefloop.world.language import FAMILIES, Language
from prefloop.world.languages import LANGUAGES
from prefloop.world.words import read_words

Said = frozenset[tuple[str, str]]


@lru_cache(maxsize=65536)
def said(language: Language, text: str) -> Said:
    """Everything an answer says, as pairs of a kind and a value."""
    present = frozenset(read_words(language, text).words)
    forms = [family for family in FAMILIES if language.signs[family] & present]
    found = [("form", family) for family in forms]
    for family in forms:
        found += choices(language, family, present)
    found += [("noun", noun) for noun in (nouns(language) & present) - furniture(language)]
    found += [("rude", "")] * bool(language.rude_words & present)
    return frozenset(found)


@cache
def nouns(language: Language) -> frozenset[str]:
    """What a prompt can ask an answer to name."""
    return frozenset(value for name in DETAILS for value in language.slots.get(name, ())) | frozenset(language.class_of_item)


@cache
def furniture(language: Language) -> frozenset[str]:
    """The words of sentences that any answer may have: "They are easy to find in town." says nothing of a town."""
    ends = [end for templates in language.ends.values() for end in templates]
    sentences = [*ends, *language.openings, *language.closings, *language.fillers]
    return frozenset(word for sentence in sentences for word in read_words(language, re.sub(r"\{\w+\}", " ", sentence)).words)


def choices(language: Language, family: str, present: frozenset[str]) -> list[tuple[str, str]]:
    """What an answer of that form chooses."""
    if family == "fact":
        return [(name, value) for name, values in language.attributes.items() for value in values if value in present]
    cues = language.cues[family]
    if family == "list":
        return [(kind, item) for kind, items in cues.items() for item in sorted(items & present)]
    return [(family, choice) for choice, words in cues.items() if words & present]


def entails(language: Language, first: str, second: str) -> bool:
    """Whether whoever says the first has said all of the second."""
    return said(language, second) <= said(language, first)


def same_content(code: str) -> Equivalence:
    """Two texts are the same where each entails the other, in the world of that language."""
    if code not in LANGUAGES:
        raise ConfigError(f"same = world:{code}: the embedded world does not speak {code!r}\n  it speaks {', '.join(LANGUAGES)}")
    language = LANGUAGES[code]
    return lambda first, second: said(language, first) == said(language, second)
