"""Prompts: drawn from templates, split by their own text, and read back into what was asked."""

import random
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from prefloop.errors import DataError
from prefloop.records import Prompt
from prefloop.world.draws import generator, uniform
from prefloop.world.language import FAMILIES, Language, slots_in

Split = Literal["train", "validation", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")
ATTEMPTS_PER_PROMPT = 1000  # before a family counts as used up
CHOICE_SLOTS = {"story": "mood", "list": "kind", "advice": "trouble"}  # the slot that says what has to be chosen


class Request(NamedTuple):
    """What a prompt asks for. ``choice`` is what has to be chosen right: the mood, the class of goods, the kind, the trouble."""

    family: str  # one of FAMILIES, or "other" for a prompt that is not of this world
    slots: Mapping[str, str]
    choice: str


def draw_prompts(language: Language, n: int, *, split: Split, seed: int) -> list[Prompt]:
    """``n`` distinct prompts of one split, the families at equal shares; a longer draw begins with the shorter one."""
    if split not in SPLITS:
        raise DataError(f"the world has no split {split!r}; there are {', '.join(SPLITS)}")
    random_source = generator("prompts", language.code, split, seed)
    families: dict[str, str] = {}
    for _ in range(n):
        family = random_source.choice(FAMILIES)
        drawn = (draw_text(language, family, random_source) for _ in range(ATTEMPTS_PER_PROMPT))
        text = next((text for text in drawn if text not in families and split_of(text) == split), None)
        if text is None:
            raise DataError(
                f"the {split} split of the {language.code} world has run out of prompts of the family {family!r}\n"
                f"  wanted: {n} prompts\n  found:  {len(families)}\nAsk for fewer prompts."
            )
        families[text] = family
    return [Prompt.of(text, origin="world", tags=(f"family:{family}",)) for text, family in families.items()]


def split_of(text: str) -> Split:
    """Eight prompts in ten are for training; decided by the text alone, hence the same for every seed."""
    place = uniform("split", text)
    return "train" if place < 0.8 else "validation" if place < 0.9 else "held_out"


def draw_text(language: Language, family: str, random_source: random.Random) -> str:
    """A prompt of a family, of any split."""
    template = random_source.choice(language.asks[family])
    slots: dict[str, str] = {}
    for name in sorted(slots_in(template)):
        if name in language.slots:
            slots[name] = random_source.choice(language.slots[name])
    if family == "reply":
        item_class = random_source.choice(list(language.item_classes))
        slots["item"] = random_source.choice(language.item_classes[item_class])
        slots["fault"] = random_source.choice(language.faults[item_class])
    if family == "fact":
        slots["first"], slots["second"] = random_source.sample(list(language.questions.values()), 2)
    return language.say(template, slots)


@lru_cache(maxsize=65536)
def read_request(language: Language, text: str) -> Request:
    """What the words of a prompt ask for; family "other" where no template fits."""
    for family, pattern in patterns(language):
        if found := pattern.fullmatch(text.strip()):
            slots = found.groupdict()
            return Request(family, slots, choice_of(language, family, slots))
    return Request("other", {}, "")


@lru_cache
def patterns(language: Language) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Every prompt template as a pattern with a group per slot."""
    values = {name: list(found) for name, found in language.slots.items()}
    values["item"] = list(language.class_of_item)
    values["fault"] = sorted({fault for faults in language.faults.values() for fault in faults})
    values["first"] = values["second"] = list(language.questions.values())

    def pattern_of(template: str) -> re.Pattern[str]:
        parts = re.split(r"\{(\w+)\}", template if language.spaced else template.replace(" ", ""))
        groups = [re.escape(part) if i % 2 == 0 else group(part, values[part]) for i, part in enumerate(parts)]
        return re.compile("".join(groups))

    return tuple((family, pattern_of(template)) for family in FAMILIES for template in language.asks[family])


def group(name: str, values: list[str]) -> str:
    """A named group that matches any of the values, longest first."""
    return f"(?P<{name}>{'|'.join(re.escape(value) for value in sorted(values, key=len, reverse=True))})"


def choice_of(language: Language, family: str, slots: Mapping[str, str]) -> str:
    """The choice an answer has to get right; facts have none, they are right or wrong one by one."""
    if family == "reply":
        return language.class_of_item[slots["item"]]
    return slots[CHOICE_SLOTS[family]] if family in CHOICE_SLOTS else ""
