"""A project several people have worked in for two days: what the owner's pages show in tests and pictures."""

import itertools
import json
import random
from functools import partial

from sqlalchemy import update

from prefloop.collect import accounts, items, planted, projects, queue, turns
from prefloop.collect.quality_settings import set_quality
from prefloop.collect.schema import template
from prefloop.collect.tables import project
from prefloop.records import Completion, Prompt
from tests.collect.made import same_ids
from tests.collect.site import Site

HOUR = 3_600_000
QUESTIONS = ("How do I descale a kettle?", "Why is the sky blue at noon and red in the evening?", "Write a polite reminder about an unpaid invoice.",
             "What is the difference between TCP and UDP?", "如何挑选成熟的西瓜？", "Summarise the plot of Hamlet in three sentences.")  # fmt: skip
WORDS = [
    "It",
    "depends",
    "on",
    "what",
    "you",
    "have",
    "at",
    "hand;",
    "start",
    "with",
    "the",
    "simplest",
    "thing,",
    "look",
    "at",
    "what",
    "happens,",
    "and",
    "only",
    "then",
    "go",
    "on",
    "to",
    "the",
    "next",
    "step.",
]
SOURCES = {"policy:large@900": 1.4, "policy:small@900": 0.4, "policy:small@300": -0.3, "dataset:forum": -1.0}
PEOPLE = {"amber": 0.3, "basil": 0.6, "coral": 0.7, "dahlia": 5.0}  # how much chance there is in what each says


def answer(rng: random.Random, source: str) -> str:
    text = " ".join(rng.sample(WORDS, rng.randint(9, 22)))
    return f"**In short:** {text}\n\n1. First this.\n2. Then that." if rng.random() < 0.3 + 0.15 * SOURCES[source] else text


def team(site: Site, slug: str = "kettle", *, n: int = 36, title: str = "Kettles and sonnets") -> str:
    """The project, judged: answers of stronger sources are mostly put first, one person answers by chance. Always the same."""
    with same_ids(slug):
        return judged_project(site, slug, n=n, title=title)


def judged_project(site: Site, slug: str, *, n: int, title: str) -> str:
    rng = random.Random(5)
    database, real = site.database, site.database.clock
    end = real()
    prompts = [Prompt.of(f"{QUESTIONS[i % len(QUESTIONS)]} ({i + 1})") for i in range(n)]
    new = [items.new_item(one, [Completion.of(one, answer(rng, source), source=source) for source in SOURCES]) for one in prompts]

    def make(connection) -> tuple[str, list[str]]:
        now = end - 50 * HOUR
        identity = projects.create(
            connection, slug=slug, title=title, schema=template("instructgpt"), overlap=3, user_id=None, now=now
        )
        connection.execute(update(project).where(project.c.id == identity).values(secret="cd" * 32))
        people = [accounts.create_user(connection, login=f"{slug}-{name}", now=now) for name in PEOPLE]
        for person in people:
            accounts.join(connection, project_id=identity, user_id=person, role="annotator", now=now)
        for role in ("reviewer", "manager", "viewer"):
            accounts.join(connection, project_id=identity, user_id=site.users[role], role=role, now=now)
        projects.set_state(connection, identity, "active", user_id=site.users["owner"], now=now)
        items.add(connection, identity, new, now=now)
        planted.make_checks(connection, here=projects.find(connection, slug), n=4, user_id=site.users["owner"], now=now)
        set_quality(connection, project_id=identity, change={"gold_rate": 0.12, "repeat_rate": 0.05, "seconds": 2.0}, now=now)
        return identity, people

    project_id, people = database.write(make)
    try:
        for number in range(int(n * 2.6)):
            who = number % len(people)
            moment = end - 46 * HOUR + int(45 * HOUR * number / (n * 2.6)) + rng.randint(0, HOUR // 2)
            database.clock = lambda moment=moment: moment
            turn = database.write(partial(queue.claim, project_id=project_id, user_id=people[who], now=moment))
            if isinstance(turn, queue.Turn):
                seconds = 1 if who == 3 else rng.randint(20, 90)
                database.clock = lambda moment=moment, seconds=seconds: moment + seconds * 1000
                said = judged(turn, rng, list(PEOPLE.values())[who], seconds)
                given = {"assignment_id": turn.assignment.id, "user_id": people[who], "key": turn.assignment.id, "said": said}
                database.write(partial(turns.submit, **given, now=database.clock()))
    finally:
        database.clock = real
    return project_id


def judged(turn: queue.Turn, rng: random.Random, chance: float, seconds: int) -> turns.Said:
    source = {one["id"]: one["source"] for one in json.loads(turn.completions_json)}
    worth = {
        letter: SOURCES.get(source[name], -3.0) + rng.gauss(0, chance)
        for letter, name in zip("abcd", json.loads(turn.assignment.shown_json), strict=True)
    }
    order = sorted(worth, key=lambda letter: -worth[letter])
    line = order[0]
    for above, letter in itertools.pairwise(order):
        line += (" = " if worth[above] - worth[letter] < 0.25 else " > ") + letter
    points = {letter: max(1, min(7, round(4.5 + 1.3 * value))) for letter, value in worth.items()}
    rate = {letter: {"overall": value, "opinion": rng.random() < 0.1} for letter, value in points.items()}
    return turns.Said({"rate": rate, "rank": {"ranking": line}}, active_ms=seconds * 1000)
