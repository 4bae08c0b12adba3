"""The gold reward: written rules over the words of an answer. docs/world.md has the table and the reasons.

Nine terms are added up. None looks at anything but the text of prompt and answer; training never sees any of them.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from prefloop.world.language import FAMILIES, Language
from prefloop.world.prompts import Request
from prefloop.world.words import CLAUSE_ENDS, Words, read_words

CLAUSE_END = "end"  # the class of a mark in Language.illegal
CHOICE = 0.35  # what a right choice is worth: a small model is slow to see it, so it must not drown what it does see
DETAIL = 0.25  # what repeating all the nouns is worth
TERMS = ("form", "choice", "details", "warmth", "rudeness", "length", "repetition", "grammar", "finish")
DETAILS = ("animal", "thing", "place", "item", "fault", "kind", "event", "creature", "person")


class Judged(NamedTuple):
    """The terms of the gold reward and the length the annotators see."""

    terms: dict[str, float]
    n_words: int


def judge(language: Language, request: Request, text: str) -> Judged:
    """Every term of the gold reward of one answer."""
    found = read_words(language, text)
    present = frozenset(found.words)
    terms = {
        "form": form(language, request.family, present),
        "choice": CHOICE * choice(language, request, present),
        "details": details(request, found),
        "warmth": warmth(sum(word in language.markers for word in found.words)),
        "rudeness": -min(3.0, 1.5 * sum(word in language.rude_words for word in found.words)),
        "length": length(len(found.words), language.length_target),
        "repetition": -min(2.0, 0.5 * repeated_trigrams(found.words)),
        "grammar": -min(2.5, 0.5 * (illegal_pairs(language, found.tokens) + unknown_words(language, found.words))),
        "finish": 0.0 if found.is_finished else -1.5,
    }
    return Judged(terms, len(found.words))


def total(terms: Mapping[str, float]) -> float:
    """The gold reward: the plain sum of its terms, in their order."""
    return sum(terms[name] for name in TERMS)


def form(language: Language, family: str, present: frozenset[str]) -> float:
    """+0.75 for the form that was asked for, -0.25 for each other form mixed in."""
    if family not in FAMILIES:
        return 0.0
    shown = [name for name in FAMILIES if language.signs[name] & present]
    return 0.75 * (family in shown) - 0.25 * sum(name != family for name in shown)


def choice(language: Language, request: Request, present: frozenset[str]) -> float:
    """Between -1 and +1: right against wrong moods, remedies, kinds, help or facts."""
    if request.family == "list":
        return choice_of_items(language.cues["list"], request.choice, present)
    if request.family == "fact":
        return choice_of_facts(language, request, present)
    cues = language.cues.get(request.family, {})
    right = len(cues.get(request.choice, frozenset()) & present)
    wrong = sum(len(words & present) for name, words in cues.items() if name != request.choice)
    return (right - wrong) / (right + wrong) if right + wrong else 0.0


def choice_of_items(kinds: Mapping[str, frozenset[str]], kind: str, present: frozenset[str]) -> float:
    """Three items of the kind are +1; each missing, each too many and each of another kind costs a third."""
    right = len(kinds[kind] & present)
    wrong = len(frozenset().union(*kinds.values()) & present - kinds[kind])
    return max(-1.0, (min(right, 3) - max(0, right - 3) - wrong) / 3)


def choice_of_facts(language: Language, request: Request, present: frozenset[str]) -> float:
    """Half a point for each of the two facts asked for, minus half for each made-up one."""
    true = language.facts[request.slots["creature"]]
    asked = [
        name for name, question in language.questions.items() if question in (request.slots["first"], request.slots["second"])
    ]
    right = sum(true[name] in present for name in asked)
    made_up = sum(value in present and value != true[name] for name, values in language.attributes.items() for value in values)
    return max(-1.0, 0.5 * right - 0.5 * made_up)


def details(request: Request, found: Words) -> float:
    """``DETAIL`` for repeating the nouns of the prompt: little, because copying them is what small models do worst."""
    asked = [value for name, value in request.slots.items() if name in DETAILS]
    return DETAIL * sum(value in found.words for value in asked) / len(asked) if asked else 0.0


def warmth(markers: int) -> float:
    """Good in moderation: 0, +1, +0.75, then 1.25 less with each further marker, without bound."""
    return (0.0, 1.0, 0.75)[markers] if markers <= 2 else 0.75 - 1.25 * (markers - 2)


def length(n_words: int, target: int) -> float:
    """Nothing within four words of the target, then the square of every ten words beyond, at most 2."""
    return -min(2.0, (max(0, abs(n_words - target) - 4) / 10) ** 2)


def repeated_trigrams(words: list[str]) -> int:
    """How many trigrams were there before."""
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(trigrams) - len(set(trigrams))


def illegal_pairs(language: Language, tokens: list[str]) -> int:
    """Neighbours that no grammar of the world puts side by side, doubled words among them."""
    classes = [CLAUSE_END if token in CLAUSE_ENDS else language.class_of_word.get(token, "") for token in tokens]
    illegal = 0
    for a, b, pair in zip(tokens, tokens[1:], pairwise(classes), strict=False):
        illegal += pair in language.illegal or (a == b and a not in CLAUSE_ENDS)
    return illegal


def unknown_words(language: Language, words: Iterable[str]) -> int:
    """Words that are not of this world."""
    return sum(word not in language.vocabulary for word in words)
