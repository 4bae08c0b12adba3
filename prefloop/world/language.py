"""What the world has to know of a language: its words, its templates, its small encyclopedia.

Everything else in this package is the same for every language.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

FAMILIES = ("story", "reply", "list", "fact", "advice")

Templates = tuple[str, ...]


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: there is one object per language
class Language:
    """Words and templates; ``{name}`` in a template is a slot.

    slots       what a prompt can name: slot -> values; ``fault`` depends on the item and is in ``faults``
    asks        prompt templates by family
    titles      by family, what stands over the same text outside of a conversation
    tells       first sentences of an answer by family; they hold the nouns and the form that was asked for
    choices     by family, what must be chosen right: choice -> sentences (mood, class of goods, trouble)
    ends        last sentences by family, optional
    cues        by family, the words that betray a choice: choice -> words; sets of one family are disjoint
    signs       by family, words that show an answer of that family's form
    attributes  of a made-up creature: attribute -> values, disjoint
    facts       creature -> attribute -> value; this is the truth
    """

    code: str
    slots: Mapping[str, Templates]
    item_classes: Mapping[str, Templates]  # class -> items
    faults: Mapping[str, Templates]  # class -> faults
    asks: Mapping[str, Templates]
    titles: Mapping[str, str]
    tells: Mapping[str, Templates]
    choices: Mapping[str, Mapping[str, Templates]]
    ends: Mapping[str, Templates]
    cues: Mapping[str, Mapping[str, frozenset[str]]]
    signs: Mapping[str, frozenset[str]]
    attributes: Mapping[str, Templates]
    questions: Mapping[str, str]  # attribute -> as asked
    statements: Mapping[str, str]  # attribute -> as told, with {value}
    facts: Mapping[str, Mapping[str, str]]
    openings: Templates  # each holds exactly one marker of warmth
    closings: Templates
    markers: frozenset[str]
    rude_sentences: Templates
    rude_words: frozenset[str]
    fillers: Templates  # neutral sentences that answer nothing
    word_classes: Mapping[str, frozenset[str]]
    illegal: frozenset[tuple[str, str]]  # pairs of classes that never follow each other; "end" is the end of a clause
    and_word: str  # joins the last two of a list
    comma: str
    spaced: bool  # words are written with spaces between them
    length_target: int  # words of a comfortable answer
    extra_words: frozenset[str] = frozenset()  # known words that no template holds

    @cached_property
    def class_of_item(self) -> dict[str, str]:
        return {item: name for name, items in self.item_classes.items() for item in items}

    @cached_property
    def class_of_word(self) -> dict[str, str]:
        return {word: name for name, words in self.word_classes.items() for word in words}

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word of every template and slot, in lower case; only a spaced language can be cut into them by itself."""
        return frozenset(word for text in self.texts() for word in re.findall(r"[^\W_]+", text.lower())) | self.extra_words

    @cached_property
    def word_lengths(self) -> tuple[int, ...]:
        return tuple(sorted({len(word) for word in self.vocabulary}, reverse=True))

    def texts(self) -> list[str]:
        """Every piece of text an answer can be made of, slots left out."""
        pieces: list[str] = [
            *self.openings,
            *self.closings,
            *self.rude_sentences,
            *self.fillers,
            self.and_word,
            *self.class_of_item,
        ]
        for table in (self.slots, self.faults, self.tells, self.ends, self.attributes, self.asks):
            pieces += [value for values in table.values() for value in values]
        for choices in self.choices.values():
            pieces += [text for name, sentences in choices.items() for text in (name, *sentences)]
        pieces += [*self.titles.values(), *self.questions.values(), *self.statements.values(), *self.facts]
        return [re.sub(r"\{\w+\}", " ", piece) for piece in pieces]

    def pieces(self, text: str) -> list[str]:
        """A text cut where a word may be moved: at spaces, or between the words of a language that has none."""
        return text.split() if self.spaced else longest_words(self, text)

    def glue(self, pieces: list[str]) -> str:
        """The opposite of ``pieces``; a language without spaces loses those of its templates."""
        return " ".join(pieces) if self.spaced else "".join(pieces).replace(" ", "")

    def say(self, template: str, slots: Mapping[str, str]) -> str:
        """A template with its slots filled, as it is written in the language."""
        return self.glue([template.format(**slots)])

    def join(self, sentences: list[str]) -> str:
        """Sentences as one text."""
        return self.glue([sentence for sentence in sentences if sentence])


@cache
def slots_in(template: str) -> frozenset[str]:
    """The names of a template's slots."""
    return frozenset(re.findall(r"\{(\w+)\}", template))


def longest_words(language: Language, text: str) -> list[str]:
    """Greedy longest match against the language's own words; any other character stands alone."""
    tokens, at = [], 0
    while at < len(text):
        length = next((n for n in language.word_lengths if text[at : at + n] in language.vocabulary), 1)
        if not text[at].isspace():
            tokens.append(text[at : at + length])
        at += length
    return tokens
