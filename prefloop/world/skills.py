"""Skills that no prompt of the world asks for, with items kept out of the corpus.

sums      sum: 3 + 4 = 7.                  operands 0 to 10
spelling  spell: bakomi = b a k o m i.     words of two or three syllables
turning   turn: ba ko mi = mi ko ba.       three different syllables, last first

An item is held out by the hash of its own question, whatever the seed: about one in six. The corpus never holds its question.
"""

import random
from dataclasses import dataclass

from prefloop.errors import DataError
from prefloop.world.draws import generator, uniform

SKILLS = ("sums", "spelling", "turning")
SHARES = (0.5, 0.25, 0.25)  # of the skill lines; sums are the hardest
SYLLABLES = ("ba", "ke", "di", "fo", "gu", "la", "me", "ni", "po", "ru", "sa", "te")
LARGEST = 10
HELD_OUT = 1 / 6
ITEMS_PER_LINE = 3


@dataclass(frozen=True)
class SkillItem:
    """A question in plain text and the continuation that is right."""

    prompt: str
    answer: str

    def is_solved_by(self, continuation: str) -> bool:
        """Whether what a model wrote after the prompt is the answer, up to the full stop that ends it."""
        return continuation.partition(".")[0].strip() == self.answer


def draw_item(name: str, random_source: random.Random) -> SkillItem:
    """Any item of the skill, held out or not."""
    if name == "sums":
        a, b = random_source.randint(0, LARGEST), random_source.randint(0, LARGEST)
        return SkillItem(f"sum: {a} + {b} =", str(a + b))
    if name == "spelling":
        word = "".join(random_source.choices(SYLLABLES, k=random_source.choice((2, 3, 3))))
        return SkillItem(f"spell: {word} =", " ".join(word))
    if name == "turning":
        first = random_source.sample(SYLLABLES, 3)
        return SkillItem(f"turn: {' '.join(first)} =", " ".join(reversed(first)))
    raise DataError(f"the world has no skill {name!r}; there are {', '.join(SKILLS)}")


def is_held_out(item: SkillItem) -> bool:
    """Kept out of the corpus; decided by the question alone."""
    return uniform("skill", item.prompt) < HELD_OUT


def skill_line(name: str, random_source: random.Random) -> str:
    """A line of the corpus: several items of one skill that are not held out."""
    said = []
    while len(said) < ITEMS_PER_LINE:
        item = draw_item(name, random_source)
        if not is_held_out(item):
            said.append(f"{item.prompt} {item.answer}.")
    return " ".join(said)


def draw_held_out(name: str, n: int, *, seed: int) -> list[SkillItem]:
    """``n`` different held-out items, or all there are if that is fewer."""
    random_source = generator("skill", name, seed)
    items: dict[str, SkillItem] = {}
    for _ in range(100 * max(n, 100)):
        if len(items) >= n:
            break
        item = draw_item(name, random_source)
        if is_held_out(item):
            items.setdefault(item.prompt, item)
    return list(items.values())
