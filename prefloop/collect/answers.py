"""What somebody submits, held against what was asked: answers under letters in, answers under the completions' own ids out.

    {"rate": {"a": {"overall": 6, "fails_task": false}, "b": {"overall": 2, "edit": "…"}},
     "rank": {"ranking": {"tiers": [["a"], ["b"]], "unusable": []}, "why": "…"}}

A ranking may also be given as a line, ``a > b | c``. The letters are those of one person's screen and mean nothing elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prefloop.collect import rank_string
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import Condition, Question, Stage, TaskSchema

Answers = dict[str, Any]
MISSING = (None, "", [], {})
PROBLEMS_SHOWN = 20


class Wrong(ValueError):
    """An answer that the question does not allow."""


def checked(schema: TaskSchema, answers: Any, shown: Sequence[str], *, tags: Sequence[str] = ()) -> Answers:
    """The answers as they are stored; Refused with every problem where they do not answer the questions."""
    letters = dict(zip(rank_string.LETTERS, shown, strict=False))
    problems: list[str] = []
    stages = {stage.id: stage for stage in schema.stages}
    if not isinstance(answers, dict):
        raise refused(["answers must be an object of stages"])
    problems += [f"{name}: no such stage; stages are {', '.join(stages)}" for name in answers if name not in stages]
    stored = {}
    for name, stage in stages.items():
        given = answers.get(name) or {}
        if not isinstance(given, dict):
            problems.append(f"{name}: must be an object")
        elif stage.per == "item":
            stored[name] = answered(stage, given, letters, tags, name, problems)
        else:
            problems += [f"{name}.{letter}: no such answer on the screen" for letter in given if letter not in letters]
            about = {letter: given.get(letter) or {} for letter in letters}
            stored[name] = {
                letters[letter]: answered(stage, one, letters, tags, f"{name}.{letter}", problems)
                for letter, one in about.items()
            }
    if problems:
        raise refused(problems)
    return stored


def refused(problems: list[str]) -> Refused:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return Refused(422, "bad_answers", problems[0] + more, problems=problems[:PROBLEMS_SHOWN])


def answered(
    stage: Stage, given: Any, letters: Mapping[str, str], tags: Sequence[str], where: str, problems: list[str]
) -> Answers:
    """One stage's answers about one thing. What was not asked is left out; what was not answered too."""
    if not isinstance(given, dict):
        problems.append(f"{where}: must be an object")
        return {}
    known = {question.id for question in stage.questions}
    problems += [f"{where}.{name}: not asked; asked is {', '.join(sorted(known))}" for name in given if name not in known]
    stored = {}
    for question in stage.questions:
        value = given.get(question.id)
        if not holds(question.show_if, given, tags):
            continue
        if value in MISSING:
            if question.required or (question.required_if and holds(question.required_if, given, tags)):
                problems.append(f"{where}.{question.id}: needs an answer")
            continue
        try:
            stored[question.id] = CHECKS[question.type](question, value, letters)
        except Wrong as problem:
            problems.append(f"{where}.{question.id}: {problem}")
    return stored


# --- conditions -------------------------------------------------------------------------------------------------------------


def holds(condition: Condition, given: Mapping[str, Any], tags: Sequence[str]) -> bool:
    """Whether every part of a condition is true of the answers so far."""
    return all(
        wanted in tags if name == "prompt_tag" else compares(wanted, given.get(name)) for name, wanted in condition.items()
    )


def compares(wanted: Any, value: Any) -> bool:
    if not isinstance(wanted, dict):
        return value == wanted
    return all(COMPARISONS[kind](value, bound) for kind, bound in wanted.items())


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def has_unusable(value: Any) -> bool:
    return bool(value.get("unusable")) if isinstance(value, dict) else isinstance(value, str) and ("|" in value or "x" in value)


COMPARISONS = {
    "lte": lambda value, bound: is_number(value) and value <= bound,
    "gte": lambda value, bound: is_number(value) and value >= bound,
    "eq": lambda value, bound: value == bound,
    "has_unusable": lambda value, bound: has_unusable(value) == bound,
}

# --- one check per type of question -----------------------------------------------------------------------------------------


def an_order(question: Any, value: Any, letters: Mapping[str, str]) -> Answers:
    tiers, unusable = order_of(value)
    placed = [letter for tier in tiers for letter in tier] + unusable
    if strangers := sorted(set(placed) - set(letters)):
        raise Wrong(f"places {', '.join(strangers)}; on the screen are {', '.join(letters)}")
    if twice := sorted({letter for letter in placed if placed.count(letter) > 1}):
        raise Wrong(f"places {', '.join(twice)} twice")
    if question.complete and len(placed) < len(letters):
        raise Wrong(f"leaves out {', '.join(letter for letter in letters if letter not in placed)}; every answer needs a place")
    if not placed:
        raise Wrong("places nothing")
    if not question.ties and any(len(tier) > 1 for tier in tiers):
        raise Wrong("has a tie, which this project does not allow")
    if not question.unusable and unusable:
        raise Wrong("calls an answer unusable, which this project does not allow")
    return {
        "tiers": [[letters[letter] for letter in sorted(tier)] for tier in tiers],
        "unusable": [letters[letter] for letter in sorted(unusable)],
    }


def order_of(value: Any) -> tuple[list[list[str]], list[str]]:
    if isinstance(value, str):
        try:
            order = rank_string.parse(value)
        except ValueError as error:
            raise Wrong(str(error)) from None
        return [list(tier) for tier in order.tiers], list(order.unusable)
    if not isinstance(value, dict) or not set(value) <= {"tiers", "unusable", "strength"}:
        raise Wrong("must be {tiers: [[…]], unusable: […]} or a line such as  b > a = c | d")
    tiers, unusable = value.get("tiers") or [], value.get("unusable") or []
    if not (is_list_of_letters(unusable) and isinstance(tiers, list) and all(map(is_list_of_letters, tiers))):
        raise Wrong("tiers must be lists of letters, unusable a list of letters")
    return [tier for tier in tiers if tier], unusable


def is_list_of_letters(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def a_choice(question: Any, value: Any, letters: Mapping[str, str]) -> Answers:
    if not isinstance(value, dict) or not set(value) <= {"choice", "strength"}:
        raise Wrong("must be {choice: …, strength: …}")
    choice, strength = value.get("choice"), value.get("strength")
    allowed = [*letters, *(["tie"] if question.tie else []), *(["both_bad"] if question.both_bad else [])]
    if not isinstance(choice, str) or choice not in allowed:
        raise Wrong(f"the choice is {choice!r}; allowed are {', '.join(allowed)}")
    is_between = choice in letters
    if question.strength and is_between and strength not in range(1, question.strength + 1):
        raise Wrong(f"the strength is {strength!r}; allowed are 1 to {question.strength}")
    if isinstance(strength, bool):
        raise Wrong("the strength must be a whole number")
    stored: Answers = {"choice": letters.get(choice, choice)}
    return stored | ({"strength": strength} if question.strength and is_between else {})


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def a_point(question: Any, value: Any, letters: Mapping[str, str]) -> int:
    if not is_whole(value) or not question.min <= value <= question.max:
        raise Wrong(f"must be a whole number from {question.min} to {question.max}, got {value!r}")
    return value


def a_number(question: Any, value: Any, letters: Mapping[str, str]) -> float:
    low, high = question.min, question.max
    if not is_number(value) or not abs(value) < 1e15 or (low is not None and value < low) or (high is not None and value > high):
        raise Wrong(
            f"must be a number from {low if low is not None else '…'} to {high if high is not None else '…'}, got {value!r}"
        )
    return value


def a_flag(question: Any, value: Any, letters: Mapping[str, str]) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, got {value!r}")
    return value


def one_of(question: Any, value: Any, letters: Mapping[str, str]) -> str:
    allowed = [option.id for option in question.options]
    if not isinstance(value, str) or value not in allowed:
        raise Wrong(f"must be one of {', '.join(allowed)}, got {value!r}")
    return value


def some_of(question: Any, value: Any, letters: Mapping[str, str]) -> list[str]:
    if not isinstance(value, list):
        raise Wrong(f"must be a list, got {value!r}")
    chosen = {one_of(question, one, letters) for one in value}
    return [option.id for option in question.options if option.id in chosen]


def words(question: Any, value: Any, letters: Mapping[str, str]) -> str:
    if not isinstance(value, str):
        raise Wrong("must be text")
    if len(value) > question.max:
        raise Wrong(f"is {len(value):,} characters long; allowed are {question.max:,}")
    if not is_storable(value):
        raise Wrong("holds half a character (a lone surrogate)")
    return value


def is_storable(text: str) -> bool:
    """Lone surrogates come out of JSON, and go into no file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


CHECKS = {
    "rank": an_order, "pair": a_choice, "likert": a_point, "number": a_number, "flag": a_flag, "single": one_of,
    "multi": some_of, "text": words, "edit": words,
}  # fmt: skip


# --- back to letters --------------------------------------------------------------------------------------------------------


def on_screen(schema: TaskSchema, stored: Answers, shown: Sequence[str]) -> Answers:
    """Stored answers under the letters of the screen they were given on: what a recalled turn starts from."""
    letter = {completion: name for name, completion in zip(rank_string.LETTERS, shown, strict=False)}
    back: Answers = {}
    for stage in schema.stages:
        given = stored.get(stage.id, {})
        if stage.per == "completion":
            back[stage.id] = {letter[completion]: one for completion, one in given.items()}
        else:
            back[stage.id] = {question.id: with_letters(question, given[question.id], letter)
                              for question in stage.questions if question.id in given}  # fmt: skip
    return back


def with_letters(question: Question, value: Any, letter: Mapping[str, str]) -> Any:
    kind = getattr(question, "type", "")
    if kind == "rank":
        return {
            "tiers": [[letter[one] for one in tier] for tier in value["tiers"]],
            "unusable": [letter[one] for one in value["unusable"]],
        }
    if kind == "pair":
        return {**value, "choice": letter.get(value["choice"], value["choice"])}
    return value
