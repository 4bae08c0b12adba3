"""Simulated annotators as clients: they ask for the next item, look at the screen, answer, submit. Over HTTP like everybody.

    with admitted(database, "first", stand_ins) as tokens:               # accounts sim:0, sim:1, …, for as long as this lasts
        done = simulate("http://127.0.0.1:8090", "first", tokens, stand_ins)

A stand-in is a function of what stands on a screen: prompt and answers, in the order shown. What it says (an order, and what
each answer is worth to it) is turned into answers to whatever the project asks. The embedded world has thirteen of them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import delete

from prefloop.collect.client import Json, Project, connect
from prefloop.collect.database import Database
from prefloop.collect.desk import new_token
from prefloop.collect.identity import as_json, fingerprint
from prefloop.collect.schema import Stage, schema_of
from prefloop.collect.tables import api_token
from prefloop.errors import DataError
from prefloop.records import Completion, Group, Message, Prompt, Ranking, Text


class Opinion(NamedTuple):
    """What somebody thinks of a screen: the order, and the worth of each answer, where 0 is neither good nor bad."""

    ranking: Ranking
    worth: Mapping[str, float]


StandIn = Callable[[Group], tuple[Ranking, Mapping[str, float]]]
WHY = "a simulated annotator"  # where words must be given


@contextmanager
def admitted(database: Database, slug: str, people: Mapping[str, StandIn]) -> Iterator[dict[str, str]]:
    """A token for each stand-in, who is an annotator of the project from now on; the tokens end with the block."""
    tokens = {name: new_token(database, name, scopes=["annotate"], project=slug, days=1) for name in people}
    try:
        yield tokens
    finally:
        spent = api_token.c.sha256.in_([fingerprint(token) for token in tokens.values()])
        database.write(lambda connection: connection.execute(delete(api_token).where(spent)))


def simulate(
    address: str,
    slug: str,
    tokens: Mapping[str, str],
    people: Mapping[str, StandIn],
    *,
    at_most: int = 0,
    told: Callable[[str], object] = lambda name: None,
) -> dict[str, int]:
    """Everybody works at once until there is nothing left for them, or ``at_most`` each; how many judgments of whom."""

    def day(name: str) -> int:
        with connect(address, tokens[name]) as server:
            return worked(server.project(slug), people[name], at_most=at_most, told=lambda: told(name))

    with ThreadPoolExecutor(len(people)) as pool:
        return dict(zip(people, pool.map(day, people), strict=True))


def worked(project: Project, who: StandIn, *, at_most: int, told: Callable[[], object]) -> int:
    """One stand-in's work; how many judgments."""
    done = 0
    while not at_most or done < at_most:
        turn = project.next()
        if turn is None:
            break
        try:
            answers = answered(turn, Opinion(*who(group_on(turn))))
        except DataError:  # somebody else can have it now, not in half an hour
            project.server.ask("POST", f"/assignments/{turn['assignment']}/release")
            raise
        project.submit(turn, answers)
        done += 1
        told()
    return done


def group_on(turn: Json) -> Group:
    """What a screen shows, as records; the completions are called by their letters."""
    prompt = Prompt(messages=tuple(Message(**message) for message in turn["prompt"]["messages"]))
    if any(one["content"]["type"] != "text" for one in turn["completions"]):
        raise DataError(f"{turn['project']} asks about {turn['schema']['medium']}\n  simulated annotators can only read")
    completions = [Completion(id=one["id"], prompt_id=prompt.id, content=Text(**one["content"])) for one in turn["completions"]]
    return Group(prompt=prompt, completions=tuple(completions))


# --- an opinion as answers --------------------------------------------------------------------------------------------------


def answered(turn: Json, opinion: Opinion) -> Json:
    """Answers to every question that somebody with this opinion would or must answer."""
    schema = schema_of(as_json(turn["schema"]))
    letters = [one["id"] for one in turn["completions"]]
    said = {}
    for stage in schema.stages:
        if stage.per == "item":
            said[stage.id] = stage_answered(stage, lambda question: of_item(question, opinion))
        else:
            said[stage.id] = {
                letter: stage_answered(stage, lambda question, at=opinion.worth[letter]: of_answer(question, at))
                for letter in letters
            }
    return said  # what a condition keeps from being asked is left aside by the service


def stage_answered(stage: Stage, say: Callable[[Any], Any]) -> Json:
    given = {question.id: say(question) for question in stage.questions}
    return {name: value for name, value in given.items() if value is not None}


def of_item(question: Any, opinion: Opinion) -> Any:
    """What is said about all answers together."""
    ranking, worth = opinion
    if question.type == "rank":
        return an_order(question, ranking)
    if question.type == "pair":
        return a_choice(question, ranking, worth)
    return of_answer(question, max(worth.values()))


def an_order(question: Any, ranking: Ranking) -> Json:
    """The tiers, in the shape the project allows."""
    tiers = [list(tier) for tier in ranking.tiers]
    unusable = list(ranking.unusable)
    if unusable and not question.unusable:
        tiers, unusable = [*tiers, unusable], []
    if not question.ties:
        tiers = [[one] for tier in tiers for one in tier]
    return {"tiers": tiers, "unusable": unusable}


def a_choice(question: Any, ranking: Ranking, worth: Mapping[str, float]) -> Json:
    if not ranking.tiers and question.both_bad:
        return {"choice": "both_bad"}
    groups = [*ranking.tiers, *([ranking.unusable] if ranking.unusable else [])]
    if len(groups[0]) > 1 and question.tie:
        return {"choice": "tie"}
    best, other = [one for tier in groups for one in tier][:2]
    return {"choice": best} | ({"strength": steps(worth[best] - worth[other], question.strength)} if question.strength else {})


def steps(distance: float, n: int) -> int:
    """How clearly better, from 1 to ``n``: two points of worth are as clear as it gets."""
    return min(n, max(1, math.ceil(abs(distance) / 2 * n)))


def of_answer(question: Any, worth: float) -> Any:
    """What is said about one answer; None where nothing has to be."""
    share = 1 / (1 + math.exp(-max(-50.0, min(50.0, worth))))  # of the way from the worst to the best
    if question.type == "likert":
        return question.min + min(question.max - question.min, int(share * (question.max - question.min + 1)))
    if question.type == "single" and {option.id for option in question.options} == {"up", "down"}:
        return "up" if worth > 0 else "down"
    if not (question.required or question.required_if):
        return None
    return MUST[question.type](question, share)


MUST: dict[str, Callable[[Any, float], Any]] = {  # where no silence is allowed
    "flag": lambda question, share: False,
    "single": lambda question, share: question.options[0].id,
    "multi": lambda question, share: [question.options[0].id],
    "text": lambda question, share: WHY[: question.max],
    "edit": lambda question, share: WHY[: question.max],
    "number": lambda question, share: a_number(question.min, question.max, share),
}


def a_number(low: float | None, high: float | None, share: float) -> float:
    if low is not None and high is not None:
        return low + share * (high - low)
    return low if low is not None else (high if high is not None else share)
