"""What other programs in which people judge write: Argilla's records, Label Studio's tasks, votes of an arena.

Several people may have said something on one row, each a ``Ranking``. Ids that prefloop wrote into its own exports for these
programs come back as they were, where the words they stand for did.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prefloop.data.rows import Unusable, snippet
from prefloop.data.turns import (
    MIN_ANSWERS,
    Made,
    kind,
    list_of,
    messages_of,
    number_of,
    parted_conversations,
    prompt_from,
    prompt_of,
    refuse_number_of_answers,
    text_of,
)
from prefloop.records import Completion, Group, Prompt, Ranking, Text, content_id

NUMBERED = re.compile(r"(?:answer|candidate|completion|generation|output|reply|response|text)[ _-]?(\d+)")
ASKED = ("prompt", "instruction", "question")
TIER = re.compile(r"tier_(\d+)")
UNUSABLE = math.inf  # a place below every other
KINDS = ("human", "sim", "judge", "policy", "dataset")  # of names that annotators have in records


class Answer(NamedTuple):
    """An answer, what rankings of its row call it, and its id where that is known."""

    key: str
    text: str
    id: str = ""
    source: str = ""


class Said(NamedTuple):
    """One person's order: a place for each key that has one, the lowest best."""

    annotator: str
    place: dict[str, float]
    seconds: float | None = None


def group_of(prompt: Prompt, answers: Sequence[Answer], said: Sequence[Said], *, name: str) -> Made:
    """A group. Equal texts without ids become one answer, which keeps a place where they had the same."""
    if not answers:
        raise Unusable("no answer", snippet(prompt.text))
    has_ids = len({one.id for one in answers if one.id}) == len(answers)
    made: dict[str, Completion] = {}
    for one in answers:
        given = {"prompt_id": prompt.id, "content": Text(text=one.text), "source": one.source or f"dataset:{name}"}
        made[one.id if has_ids else one.text] = Completion(id=one.id if has_ids else "", **given)
    id_of = {one.key: made[one.id if has_ids else one.text].id for one in answers}
    shown = tuple(completion.id for completion in made.values())
    rankings = tuple(ranking for one in said if (ranking := ranking_of(prompt, one, id_of, shown)))
    if rankings:
        refuse_number_of_answers(len(shown))
    remarks = ("the same answer twice, taken as one",) if len(made) < len(answers) else ()
    return Made([Group(prompt=prompt, completions=tuple(made.values()), rankings=rankings)], remarks)


def ranking_of(prompt: Prompt, said: Said, id_of: dict[str, str], shown: tuple[str, ...]) -> Ranking | None:
    """None where fewer than two answers have a place."""
    if strangers := [key for key in said.place if key not in id_of]:
        raise Unusable("a ranking of answers that are not on the line", f"{strangers[0]} is none of {', '.join(id_of)}")
    places: dict[str, set[float]] = {}
    for key, place in said.place.items():
        places.setdefault(id_of[key], set()).add(place)
    place_of = {identity: next(iter(found)) for identity, found in places.items() if len(found) == 1}
    if len(place_of) < MIN_ANSWERS:
        return None
    order = sorted({place for place in place_of.values() if place != UNUSABLE})
    return Ranking(
        prompt_id=prompt.id,
        tiers=tuple(tuple(identity for identity in shown if place_of.get(identity) == place) for place in order),
        unusable=tuple(identity for identity in shown if place_of.get(identity) == UNUSABLE),
        shown=shown,
        annotator=said.annotator,
        seconds=said.seconds,
    )


def annotator_of(who: Any, name: str) -> str:
    """What somebody is called in records: never their e-mail address."""
    if who is None or who == "":
        return f"dataset:{name}"
    sort, colon, _ = str(who).partition(":")
    return str(who) if colon and sort in KINDS else f"human:{content_id(str(who))[:12]}"


def numbered(fields: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is called answer_1, answer_2 and so on, in the order of these numbers; empty ones were never asked about."""
    found = [(int(match[1]), key) for key in fields if (match := NUMBERED.fullmatch(key)) and fields[key] not in (None, "")]
    return [(key, fields[key]) for _, key in sorted(found)]


def asked_in(fields: dict[str, Any], where: str, name: str) -> Prompt:
    column = next((column for column in ASKED if fields.get(column)), None)
    if column is None:
        raise Unusable("no prompt", f"{where} has none of {', '.join(ASKED)}: {', '.join(map(str, fields))}")
    return prompt_of(fields[column], f"{where}.{column}", origin=name)


def objects(value: Any, column: str) -> list[dict[str, Any]]:
    """A list of objects; nothing where nothing is said."""
    found = list_of([] if value is None else value, column)
    if strays := [one for one in found if not isinstance(one, dict)]:
        raise Unusable("a value of the wrong type", f"{column} holds {kind(strays[0])}, wanted objects")
    return found


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


# --- Argilla ----------------------------------------------------------------------------------------------------------------


def argilla(row: dict[str, Any], name: str) -> Made:
    """{fields: {prompt, answer_1, …}, responses}: as its server writes them (a list), or its client (by question)."""
    fields = row["fields"]
    metadata = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
    listed = [(key, text_of(value, f"fields.{key}")) for key, value in numbered(fields)]
    ids, own, words = metadata.get("completion_ids"), text_or_none(metadata.get("prompt_id")), text_or_none(fields.get("prompt"))
    if own and words and metadata.get("turns") == 1 and isinstance(ids, list) and len(ids) == len(listed):  # by us, and whole
        prompt = Prompt(id=own, messages=Prompt.of(words).messages, origin=name)
        answers = [Answer(key, text, str(identity)) for (key, text), identity in zip(listed, ids, strict=True)]
    else:
        prompt = asked_in(fields, "fields", name)
        answers = [Answer(key, text) for key, text in listed]
    return group_of(prompt, answers, list(responses(row.get("responses"), name)), name=name)


def responses(given: Any, name: str) -> Iterator[Said]:
    """The orders among Argilla's responses; answers to other questions are left aside."""
    if isinstance(given, dict):
        spoken = [(one, one.get("value")) for said in given.values() for one in objects(said, "responses")]
    else:
        spoken = [(one, value) for one in objects(given, "responses") for value in values_of(one)]
    for one, value in spoken:
        if one.get("status", "submitted") == "submitted" and isinstance(value, list) and (place := argilla_order(value)):
            yield Said(annotator_of(one.get("user", one.get("user_id")), name), place)


def values_of(response: dict[str, Any]) -> list[Any]:
    values = response.get("values")
    return [one.get("value") for one in values.values() if isinstance(one, dict)] if isinstance(values, dict) else []


def argilla_order(value: list[Any]) -> dict[str, float]:
    """[{value, rank}], or names in order; empty where it is neither."""
    if all(isinstance(one, dict) and "value" in one for one in value):
        ranked = {str(one["value"]): number_of(one.get("rank"), "rank") for one in value}
        return {key: rank for key, rank in ranked.items() if rank is not None}
    is_order = all(isinstance(one, str) and NUMBERED.fullmatch(one) for one in value)  # several options chosen are none
    return {one: float(place) for place, one in enumerate(value)} if is_order else {}


# --- Label Studio -----------------------------------------------------------------------------------------------------------


def label_studio(row: dict[str, Any], name: str) -> Made:
    """{data: {prompt, a list of {id, body} or answer1, answer2 …}, annotations} with Ranker or Pairwise."""
    data = row["data"]
    if isinstance(data.get("messages"), list):
        prompt = prompt_from(messages_of(data["messages"], "data.messages"), origin=name)
        own = text_or_none(data.get("prompt_id"))
        prompt = Prompt(id=own, messages=prompt.messages, origin=name) if own else prompt
    else:
        own, prompt = None, asked_in(data, "data", name)
    answers = list(listed_in(data)) or [Answer(key, text_of(value, f"data.{key}")) for key, value in numbered(data)]
    if not own:
        answers = [one._replace(id="") for one in answers]  # another's ids hold within a task
    return group_of(prompt, answers, list(annotations(row.get("annotations"), answers, name)), name=name)


def listed_in(data: dict[str, Any]) -> Iterator[Answer]:
    """The items of a List tag: the first list of objects that have an id."""
    lists = (value for key, value in data.items() if key != "messages" and isinstance(value, list) and value)
    found = next((value for value in lists if all(isinstance(one, dict) and "id" in one for one in value)), [])
    for one in found:
        words = next((one[key] for key in ("body", "text", "title") if one.get(key)), None)
        yield Answer(str(one["id"]), text_of(words, "data, in a list, body"), str(one["id"]))


def annotations(given: Any, answers: Sequence[Answer], name: str) -> Iterator[Said]:
    """The orders among what people did to a task; what they cancelled is none."""
    for one in objects(given, "annotations"):
        if one.get("was_cancelled"):
            continue
        who = one.get("completed_by")
        who = who.get("email", who.get("id")) if isinstance(who, dict) else who
        for result in objects(one.get("result"), "annotations[].result"):
            if place := studio_order(result, answers):
                yield Said(annotator_of(who, name), place, number_of(one.get("lead_time"), "lead_time"))


def studio_order(result: dict[str, Any], answers: Sequence[Answer]) -> dict[str, float]:
    """A Ranker's only list, its buckets where they are called tier_1, tier_2 … and unusable, or a Pairwise; else empty."""
    value = result["value"] if isinstance(result.get("value"), dict) else {}
    if result.get("type") == "pairwise" and len(answers) == 2 and value.get("selected") in ("left", "right"):
        left, right = (one.key for one in answers)
        return {left: 0.0, right: 1.0} if value["selected"] == "left" else {left: 1.0, right: 0.0}
    ranker = value.get("ranker")
    if isinstance(ranker, dict) and list(ranker) == [result.get("from_name")]:
        ranker = ranker[result["from_name"]]
    if isinstance(ranker, list):
        return {str(one): float(place) for place, one in enumerate(ranker)}
    if not isinstance(ranker, dict):
        return {}
    return {str(one): place for place, bucket in tiers_in(ranker) for one in list_of(ranker[bucket], f"bucket {bucket}")}


def tiers_in(buckets: dict[str, Any]) -> Iterator[tuple[float, str]]:
    """Buckets whose names say how good they are; of others nobody knows which is better."""
    for bucket in buckets:
        if bucket == "unusable":
            yield UNUSABLE, bucket
        elif tier := TIER.fullmatch(bucket):
            yield float(tier[1]), bucket


# --- an arena ---------------------------------------------------------------------------------------------------------------

WINNERS = {
    "model_a": {"a": 0.0, "b": 1.0},
    "model_b": {"a": 1.0, "b": 0.0},
    "tie": {"a": 0.0, "b": 0.0},
    "tie (bothbad)": {"a": UNUSABLE, "b": UNUSABLE},
}


def arena(row: dict[str, Any], name: str) -> Made:
    """{conversation_a, conversation_b, winner}: two answers to the same conversation, and a vote."""
    shared, *texts = parted_conversations(row["conversation_a"], row["conversation_b"])
    winner = row.get("winner")
    if winner is not None and (not isinstance(winner, str) or winner not in WINNERS):
        raise Unusable("a winner that is none of the two", f"winner is {snippet(repr(winner), 40)}, wanted {', '.join(WINNERS)}")
    models = [row.get("model_a"), row.get("model_b")]
    answers = [
        Answer(key, text, source=f"dataset:{name}:{model}" if isinstance(model, str) else "")
        for key, text, model in zip("ab", texts, models, strict=True)
    ]
    said = [Said(annotator_of(row.get("judge"), name), WINNERS[winner])] if winner is not None else []
    return group_of(prompt_from(shared, origin=name), answers, said, name=name)
