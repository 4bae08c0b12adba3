"""The grammar of answers: good ones, and every kind of bad one on purpose.

An answer is built from parts (opening, tell, choice, end, closing), a flaw changes one of them. The grammar never looks at the
gold reward, and the gold reward never looks at the grammar: they meet only in the words.
"""

import random
from collections.abc import Mapping, Sequence

from prefloop.world.language import FAMILIES, Language, slots_in
from prefloop.world.prompts import CHOICE_SLOTS, Request, choice_of, draw_text, read_request
from prefloop.world.words import FULL_STOPS

# Weight of each flaw among flawed answers. What shows in single words (rude, unfinished, too long) is frequent: noisy labels teach
# a small reward model that first, and what takes a look at the prompt last.
FLAWS = {
    "off_topic": 2,  # answers another prompt
    "wrong_choice": 5,  # wrong mood, remedy, kind, help; made-up facts
    "wrong_nouns": 1,  # another animal, item, event, person
    "rude": 6,
    "repeated": 3,
    "ungrammatical": 2,
    "unfinished": 5,
    "too_long": 4,
    "too_short": 1,
}
# Share of answers by markers of warmth. Three or more must stay rare: a learned reward then has to extrapolate.
MARKERS = {0: 0.45, 1: 0.37, 2: 0.165, 3: 0.01, 4: 0.005}
SMALL_WORDS = ("article", "preposition", "particle")  # classes that show at once when they are out of place


def write_answer(
    language: Language, request: Request, random_source: random.Random, *, flaws: Sequence[str] = (), markers: int = 0
) -> str:
    """An answer to what was asked, with the flaws named and that many markers of warmth."""
    if unknown := sorted(set(flaws) - set(FLAWS)):
        raise ValueError(f"no such flaw: {', '.join(unknown)}; there are {', '.join(FLAWS)}")
    if request.family == "other" or "off_topic" in flaws:
        request = another_request(language, request, random_source)
    if "wrong_nouns" in flaws:
        request = other_nouns(language, request, random_source)

    sentences = write_parts(language, request, random_source, is_wrong="wrong_choice" in flaws)
    if "too_short" in flaws:
        sentences = [random_source.choice(sentences)]
    if "too_long" in flaws:
        sentences = sentences[:1] + random_source.sample(language.fillers, random_source.randint(2, 4)) + sentences[1:]
    if "repeated" in flaws:
        sentences = repeat(sentences, random_source)
    if "rude" in flaws:
        sentences.insert(random_source.randint(0, len(sentences)), random_source.choice(language.rude_sentences))
    if "ungrammatical" in flaws:
        sentences = break_grammar(language, sentences, random_source)
    sentences = add_markers(language, sentences, markers, random_source)
    text = language.join(sentences)
    return cut(language, text, random_source) if "unfinished" in flaws else text


def draw_answer(language: Language, request: Request, random_source: random.Random, *, fine: float) -> str:
    """An answer of mixed quality: ``fine`` is the share without a flaw; of the others one in four has two."""
    flaws = draw_flaws(random_source) if random_source.random() >= fine else []
    markers = random_source.choices(list(MARKERS), list(MARKERS.values()))[0]
    return write_answer(language, request, random_source, flaws=flaws, markers=markers)


def draw_flaws(random_source: random.Random) -> list[str]:
    """One flaw, or two different ones."""
    first = random_source.choices(list(FLAWS), list(FLAWS.values()))[0]
    second = random_source.choices(list(FLAWS), list(FLAWS.values()))[0]
    return [first, second] if first != second and random_source.random() < 0.25 else [first]


def write_parts(language: Language, request: Request, random_source: random.Random, *, is_wrong: bool) -> list[str]:
    """Tell, choice and end of an answer.

    A wrong choice either follows from the wrong word ("Once a sad fox ... It wept" where happy was asked) or contradicts the
    right one ("Once a happy fox ... It wept"): the first is seen only beside the prompt, the second also without it.
    """
    family = request.family
    slots = dict(request.slots)
    choice = request.choice
    if is_wrong and choice:
        choice = random_source.choice([name for name in language.choices[family] if name != choice])
        if family in CHOICE_SLOTS and random_source.random() < 0.5:
            slots[CHOICE_SLOTS[family]] = choice
    if family == "list":
        slots["items"] = draw_items(language, choice, random_source)
    if family == "advice":
        slots["help"] = random_source.choice(language.choices["advice"][choice])
    if family == "fact":
        slots.update(draw_facts(language, request, random_source, is_wrong=is_wrong))

    def write(templates: Sequence[str]) -> str:
        template = random_source.choice(fitting(templates, slots))
        for name in sorted(slots_in(template) - slots.keys()):
            slots[name] = random_source.choice(language.slots[name])
        return language.say(template, slots)

    sentences = [write(language.tells[family])]
    if has_second := family in ("story", "reply"):
        sentences.append(write(language.choices[family][choice]))
    if random_source.random() < (0.3 if has_second else 0.85):
        sentences.append(write(language.ends[family]))
    return sentences


def fitting(templates: Sequence[str], slots: Mapping[str, str]) -> Sequence[str]:
    """The templates that name only what was asked about; all of them where there is none."""
    return [template for template in templates if slots_in(template) <= slots.keys()] or templates


def draw_items(language: Language, kind: str, random_source: random.Random) -> str:
    """Three things of a kind, as a sentence lists them."""
    *items, last = random_source.sample(language.choices["list"][kind], 3)
    separator = f" {language.and_word} " if language.spaced else language.and_word
    return f"{language.comma.join(items)}{separator}{last}"


def draw_facts(language: Language, request: Request, random_source: random.Random, *, is_wrong: bool) -> dict[str, str]:
    """The two facts that were asked for; made up, at least one of them is another creature's."""
    names = {question: name for name, question in language.questions.items()}
    true = language.facts[request.slots["creature"]]
    made_up = [is_wrong, is_wrong and random_source.random() < 0.6]
    random_source.shuffle(made_up)
    told = {}
    for slot, is_made_up in zip(("first", "second"), made_up, strict=True):
        name = names[request.slots[slot]]
        others = [value for value in language.attributes[name] if value != true[name]]
        told[slot] = language.say(
            language.statements[name], {"value": random_source.choice(others) if is_made_up else true[name]}
        )
    return told


def another_request(language: Language, request: Request, random_source: random.Random) -> Request:
    """A request of another family."""
    family = random_source.choice([name for name in FAMILIES if name != request.family])
    return read_request(language, draw_text(language, family, random_source))


def other_nouns(language: Language, request: Request, random_source: random.Random) -> Request:
    """The same request about other animals, things, items, people and places; its choice stays."""
    slots = dict(request.slots)
    for name in ("animal", "thing", "place", "person", "event", "time"):
        if name in slots:
            slots[name] = random_source.choice([value for value in language.slots[name] if value != slots[name]])
    if "item" in slots:
        name = language.class_of_item[slots["item"]]
        slots["item"] = random_source.choice([item for item in language.item_classes[name] if item != slots["item"]])
        slots["fault"] = random_source.choice([fault for fault in language.faults[name] if fault != slots["fault"]])
    return Request(request.family, slots, choice_of(language, request.family, slots))


def repeat(sentences: list[str], random_source: random.Random) -> list[str]:
    """One sentence said two or three times."""
    at = random_source.randrange(len(sentences))
    return sentences[: at + 1] + [sentences[at]] * random_source.randint(1, 2) + sentences[at + 1 :]


def break_grammar(language: Language, sentences: list[str], random_source: random.Random) -> list[str]:
    """Two or three small words doubled, swapped with the next, or left with their noun gone."""
    pieces = [piece for sentence in sentences for piece in language.pieces(sentence)]
    for _ in range(random_source.randint(2, 3)):
        small = [at for at, piece in enumerate(pieces[:-1]) if language.class_of_word.get(piece.lower()) in SMALL_WORDS]
        if not small:
            break
        at = random_source.choice(small)
        how = random_source.choice(("double", "swap", "drop"))
        if how == "double":
            pieces.insert(at, pieces[at])
        elif how == "swap" and pieces[at + 1].isalpha():
            pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
        elif len(pieces) > at + 2:
            del pieces[at + 1]
    return [language.glue(pieces)]


def add_markers(language: Language, sentences: list[str], markers: int, random_source: random.Random) -> list[str]:
    """``markers`` warm phrases around an answer: one before, the others after."""
    if not markers:
        return sentences
    n_before = random_source.randint(0, 1) if markers == 1 else 1
    before = random_source.sample(language.openings, n_before)
    after = random_source.sample(language.closings, min(markers - n_before, len(language.closings)))
    more = [random_source.choice(language.openings) for _ in range(markers - n_before - len(after))]
    return [*more, *before, *sentences, *after]


def cut(language: Language, text: str, random_source: random.Random) -> str:
    """The text broken off somewhere in its second half, never at the end of a sentence."""
    pieces = language.pieces(text)
    kept = pieces[: random_source.randint(max(1, len(pieces) // 2), max(1, len(pieces) - 1))]
    return language.glue(kept).rstrip("".join(FULL_STOPS) + " ,，、")
