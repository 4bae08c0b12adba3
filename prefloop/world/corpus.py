"""Pretraining text: conversations, plain sentences and skills, one document per line.

Skills and plain sentences look like nothing a prompt asks for, so that PPO can forget them and PPO-ptx can keep them.
"""

import random

from prefloop.records import Completion, Demonstration, Prompt
from prefloop.world.answers import draw_answer, write_answer
from prefloop.world.draws import generator
from prefloop.world.language import FAMILIES, Language, slots_in
from prefloop.world.prompts import Split, draw_prompts, draw_text, read_request, split_of
from prefloop.world.skills import SHARES as SKILL_SHARES
from prefloop.world.skills import SKILLS, skill_line

SHARES = {"chat": 0.45, "sentences": 0.35, "skills": 0.2}  # of the lines
FINE_IN_CORPUS = 0.2
FINE_IN_DEMONSTRATIONS = 0.55


def chat_document(prompt: str, answer: str) -> str:
    """A conversation of one turn as the corpus writes it."""
    return f"<|user|>{prompt}<|assistant|>{answer}"


def draw_corpus(language: Language, n_lines: int, *, seed: int) -> list[str]:
    """``n_lines`` documents in random order; a longer draw begins with the shorter one."""
    random_source = generator("corpus", language.code, seed)
    writers = {"chat": chat_line, "sentences": sentence_line, "skills": any_skill_line}
    kinds = random_source.choices(list(SHARES), list(SHARES.values()), k=n_lines)
    return [writers[kind](language, generator("corpus", language.code, seed, at)) for at, kind in enumerate(kinds)]


def chat_line(language: Language, random_source: random.Random) -> str:
    """A conversation about a training prompt, its answer of mixed quality."""
    text = training_text(language, random_source)
    answer = draw_answer(language, read_request(language, text), random_source, fine=FINE_IN_CORPUS)
    return chat_document(text, answer)


def sentence_line(language: Language, random_source: random.Random) -> str:
    """A passage under its title, or a few sentences about nothing in particular."""
    how = random_source.random()
    if how < 0.7:
        return titled_passage(language, random_source)
    if how < 0.9:
        return language.join([fact_sentence(language, random_source) for _ in range(2)])
    return language.join(random_source.sample(language.fillers, 3))


def titled_passage(language: Language, random_source: random.Random) -> str:
    """A story, a complaint and its remedy, a list, facts or advice, without a flaw, as a book would print it."""
    request = read_request(language, training_text(language, random_source))
    title = language.titles[request.family]
    missing = {name: random_source.choice(language.slots[name]) for name in sorted(slots_in(title) - request.slots.keys())}
    request = request._replace(slots={**request.slots, **missing})
    return language.join([language.say(title, request.slots), write_answer(language, request, random_source)])


def fact_sentence(language: Language, random_source: random.Random) -> str:
    """Two true facts about a creature of the small encyclopedia."""
    creature = random_source.choice(list(language.facts))
    names = random_source.sample(list(language.questions), 2)
    first, second = (language.say(language.statements[name], {"value": language.facts[creature][name]}) for name in names)
    return language.say(random_source.choice(language.tells["fact"]), {"creature": creature, "first": first, "second": second})


def any_skill_line(language: Language, random_source: random.Random) -> str:
    """A line of one skill."""
    return skill_line(random_source.choices(SKILLS, SKILL_SHARES)[0], random_source)


def training_text(language: Language, random_source: random.Random) -> str:
    """A prompt of the training split."""
    while True:
        text = draw_text(language, random_source.choice(FAMILIES), random_source)
        if split_of(text) == "train":
            return text


def draw_demonstrations(language: Language, n: int, *, seed: int, split: Split) -> list[Demonstration]:
    """``n`` answers of mixed quality to distinct prompts."""

    def answer(prompt: Prompt) -> Completion:
        random_source = generator("demonstration", language.code, seed, prompt.text)
        text = draw_answer(language, read_request(language, prompt.text), random_source, fine=FINE_IN_DEMONSTRATIONS)
        return Completion.of(prompt, text, source="dataset:world")

    prompts = draw_prompts(language, n, split=split, seed=seed)
    return [Demonstration(prompt=prompt, completion=answer(prompt)) for prompt in prompts]
