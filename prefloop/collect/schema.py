"""What annotators are asked: a task schema in YAML, checked when it is loaded and immutable once it is stored.

    format_version: 1
    id: rate_and_rank
    title: {en: Rate and rank answers, zh: 评分并排序}
    stages:
      - id: rate
        per: completion
        questions:
          - {id: overall, type: likert, min: 1, max: 7, required: true}
          - {id: edit, type: edit, show_if: {overall: {lte: 3}}}
      - id: rank
        questions:
          - {id: ranking, type: rank, ties: true, unusable: true}
          - {id: why, type: text, required_if: {ranking: {has_unusable: true}}}

A stage asks either about each completion or about the item as a whole. ``show_if`` and ``required_if`` name a question of the
same stage, or the prompt's tag (``prompt_tag``).
"""

import difflib
import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from prefloop.collect.identity import as_json
from prefloop.collect.order import Order
from prefloop.collect.rank_string import LETTERS
from prefloop.config import Config, parse
from prefloop.errors import ConfigError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Said = Annotated[str, StringConstraints(max_length=20_000)]


def as_words(value: Any) -> Any:
    return {"en": value} if isinstance(value, str) else value


Words = Annotated[dict[Literal["en", "zh"], Said], BeforeValidator(as_words)]  # a text, or one per language
Bound = dict[Literal["lte", "gte", "eq", "has_unusable"], float | str | bool]
Condition = dict[str, Bound | str]


class Option(Config):
    """One answer to choose."""

    id: Name = Field(description="what is stored")
    label: Words = Field({}, description="what is read; the id where there is none")


def as_option(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


Options = Annotated[list[Annotated[Option, BeforeValidator(as_option)]], Field(min_length=2, max_length=40)]


class Question(Config):
    """What every question has."""

    id: Name = Field(description="name of the answer in records")
    label: Words = Field({}, description="what is asked; the id where there is nothing")
    help: Words = Field({}, description="what the question mark beside it says")
    required: bool = Field(False, description="no submitting without it")
    show_if: Condition = Field({}, description="asked only where this holds")
    required_if: Condition = Field({}, description="no submitting without it where this holds")


class Rank(Question):
    """All completions in an order."""

    type: Literal["rank"]
    required: bool = True
    ties: bool = Field(True, description="equal places are allowed")
    unusable: bool = Field(True, description="answers may be thrown out")
    complete: bool = Field(True, description="every answer needs a place")


class Pair(Question):
    """Which of two, and how clearly."""

    type: Literal["pair"]
    required: bool = True
    tie: bool = Field(True, description="neither is better")
    both_bad: bool = Field(True, description="neither is usable")
    strength: int = Field(0, ge=0, le=9, description="steps of how much better; 0 = not asked")


class Likert(Question):
    """A point on a scale of whole numbers."""

    type: Literal["likert"]
    min: int = 1
    max: int = 7
    anchors: dict[int, Words] = Field({}, description="what points of the scale mean")

    @model_validator(mode="after")
    def the_scale_goes_up(self) -> "Likert":
        if not self.min < self.max <= self.min + 20:
            raise ValueError(f"a scale has 2 to 21 points, got {self.min} to {self.max}")
        return self


class Number(Question):
    """Any number in a range."""

    type: Literal["number"]
    min: float | None = None
    max: float | None = None


class Flag(Question):
    """Yes, or not said."""

    type: Literal["flag"]


class Single(Question):
    """One of several."""

    type: Literal["single"]
    options: Options


class Multi(Question):
    """Any of several."""

    type: Literal["multi"]
    options: Options


class FreeText(Question):
    """In own words."""

    type: Literal["text"]
    max: int = Field(2000, ge=1, le=20_000, description="characters")


class Edit(Question):
    """The answer as it should have been; exported as a demonstration."""

    type: Literal["edit"]
    max: int = Field(100_000, ge=1, le=200_000, description="characters")


KINDS: dict[str, type[Question]] = {
    "rank": Rank, "pair": Pair, "likert": Likert, "number": Number, "flag": Flag, "single": Single, "multi": Multi,
    "text": FreeText, "edit": Edit,
}  # fmt: skip
ABOUT = {"rank": "item", "pair": "item", "edit": "completion"}  # the others may be asked of either


class Stage(Config):
    """Questions that are answered together."""

    id: Name
    per: Literal["completion", "item"] = Field("item", description="asked about each answer, or once")
    title: Words = Field({}, description="what it is called on the page")
    questions: list[Any] = Field(min_length=1, description="see KINDS")

    @model_validator(mode="after")
    def names_are_used_once(self) -> "Stage":
        ids = [question.id for question in self.questions]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"the stage {self.id} asks {', '.join(twice)} twice")
        for question in self.questions:
            if ABOUT.get(question.type, self.per) != self.per:
                raise ValueError(f"{question.id} is of type {question.type}, which is asked per {ABOUT[question.type]}")
            for named in (*question.show_if, *question.required_if):
                if named != "prompt_tag" and named not in ids:
                    raise ValueError(f"{question.id} depends on {named!r}, which the stage {self.id} does not ask")
        return self


class HowMany(Config):
    """Completions an item may have."""

    min: int = Field(2, ge=1, le=16)
    max: int = Field(16, ge=1, le=16)


class Lease(Config):
    """How long somebody may keep an item to themselves."""

    minutes: int = Field(30, ge=1, le=1440, description="from the claim, and again from every sign of life")
    max_minutes: int = Field(240, ge=1, le=10_080, description="in all")
    prefetch: int = Field(1, ge=0, le=5, description="further items held ready")


class TaskSchema(Config):
    """A version of what is asked."""

    format_version: Literal[1] = 1
    id: Name
    title: Words = Field({}, description="what it is called on the page")
    guidelines: Words = Field({}, description="Markdown, shown beside the work")
    consent: Words = Field({}, description="Markdown, agreed to before the first turn")
    medium: Literal["text", "image", "audio", "video"] = "text"
    live: bool = Field(False, description="the annotator writes the prompts, models answer")
    completions: HowMany = HowMany.of()
    order: Order = Field("balanced", description="of the answers on the screen")
    render: Literal["rendered", "raw", "annotator"] = Field("rendered", description="Markdown drawn, as typed, or by choice")
    stages: list[Stage] = Field(min_length=1)
    lease: Lease = Lease.of()

    @model_validator(mode="after")
    def a_schema_is_of_one_piece(self) -> "TaskSchema":
        ids = [stage.id for stage in self.stages]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"two stages are called {', '.join(twice)}")
        if self.completions.min > self.completions.max:
            raise ValueError(f"completions.min {self.completions.min} is above completions.max {self.completions.max}")
        orders = self.of_type("rank", "pair")
        if len(orders) > 1:
            raise ValueError(f"one order is asked of an item, here are {', '.join(one.id for _, one in orders)}")
        if orders and self.completions.min < 2:
            raise ValueError("an order needs two answers: completions.min must be at least 2")
        if self.of_type("pair") and (self.completions.min, self.completions.max) != (2, 2):
            raise ValueError("a pair is of two answers: completions must be {min: 2, max: 2}")
        return self

    def of_type(self, *types: str) -> list[tuple[Stage, Any]]:
        """Every question of some types, with its stage."""
        return [(stage, question) for stage in self.stages for question in stage.questions if question.type in types]


# --- reading ----------------------------------------------------------------------------------------------------------------

TEMPLATES = Path(__file__).parent / "templates"


def template_names() -> list[str]:
    return sorted(path.stem for path in TEMPLATES.glob("*.yaml"))


def template(name: str) -> TaskSchema:
    """A schema that comes with prefloop."""
    if name not in template_names():
        near = difflib.get_close_matches(name, template_names(), n=1)
        hint = f"did you mean {near[0]!r}? known" if near else "known"
        raise ConfigError(f"there is no template {name!r}\n  {hint}: {', '.join(template_names())}")
    return read_schema((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"), where=f"template {name}")


def read_schema(text: str, *, where: str) -> TaskSchema:
    """A schema from YAML or JSON text; every problem is named with its place."""
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid YAML\n  {error}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{where} must hold key: value lines, it holds a {type(given).__name__}")
    return schema_from(given, where=where)


def schema_from(given: dict[str, Any], *, where: str) -> TaskSchema:
    stages = given.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise ConfigError(f"{where}: stages must be a list of stages, each with id and questions")
    read = [stage_from(stage, where=f"{where}, stage {number}") for number, stage in enumerate(stages, start=1)]
    return parse(TaskSchema, {**given, "stages": read}, where=where)


def stage_from(given: dict[str, Any], *, where: str) -> Stage:
    questions = given.get("questions")
    if not isinstance(questions, list):
        raise ConfigError(f"{where}: questions must be a list")
    read = [question_from(one, where=f"{where}, question {number}") for number, one in enumerate(questions, start=1)]
    return parse(Stage, {**given, "questions": read}, where=where)


def question_from(given: Any, *, where: str) -> Question:
    kind = given.get("type") if isinstance(given, dict) else None
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{where} has the type {kind!r}{hint}\n  types: {', '.join(KINDS)}")
    return parse(KINDS[kind], given, where=where)


def body_of(schema: TaskSchema) -> str:
    """The text a schema is stored as."""
    return as_json(schema.model_dump(mode="json", exclude_defaults=False))


@lru_cache(maxsize=256)
def schema_of(body_json: str) -> TaskSchema:
    """A schema as it was stored; they are immutable, so each is read once."""
    return schema_from(json.loads(body_json), where="a stored schema")


@lru_cache(maxsize=1024)
def completion_ids(completions_json: str) -> tuple[str, ...]:
    """The ids of an item's completions."""
    return tuple(completion["id"] for completion in json.loads(completions_json))


def letters(n: int) -> str:
    """What the completions of an item are called on a screen."""
    return LETTERS[:n]
