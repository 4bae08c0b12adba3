"""What requests hold. Unknown fields are refused, so that a misspelt one is not ignored."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prefloop.collect.answers import is_storable


def storable(text: str) -> str:
    if not is_storable(text) or "\x00" in text:
        raise ValueError("holds a character that cannot be stored")
    return text


Line = Annotated[str, Field(max_length=200), AfterValidator(storable)]
Words = Annotated[str, Field(max_length=20_000), AfterValidator(storable)]
Password = Annotated[str, Field(max_length=1000)]


class Body(BaseModel):
    """Of a request."""

    model_config = ConfigDict(extra="forbid")


class Login(Body):
    login: Line
    password: Password


class Me(Body):
    display: Line | None = None
    locale: Literal["", "en", "zh"] | None = None
    preferences: dict[str, Any] | None = None


class NewPassword(Body):
    old: Password
    new: Password


class NewToken(Body):
    name: Line
    scopes: list[Line]
    days: int | None = Field(None, ge=1, le=3650)


class Invitation(Body):
    role: Line


class Acceptance(Body):
    """Of an invitation: a new account, or none of these for one's own."""

    login: Line = ""
    display: Line = ""
    password: Password = ""


class NewUser(Body):
    """An account made by the owner; a stand-in (``speaks_as``) has no password, only tokens."""

    login: Line
    display: Line = ""
    password: Password = ""
    speaks_as: Annotated[str, Field(max_length=100, pattern=r"^(|(sim|judge|policy):[\w.@/-]+)$")] = ""


class UserState(Body):
    state: Literal["active", "closed"]


class NewProject(Body):
    slug: Line
    title: Line = ""
    template: Line = ""
    schema_yaml: Words = ""
    overlap: int = 1


class ProjectChange(Body):
    title: Line | None = None
    overlap: int | None = None


class ProjectState(Body):
    state: Line


class Membership(Body):
    role: Line


class Yaml(Body):
    yaml: Words


class ItemChange(Body):
    status: Literal["active", "held", "removed"] | None = None
    priority: int | None = Field(None, ge=-1_000_000, le=1_000_000)
    overlap: int | None = None


class ItemsChange(ItemChange):
    ids: list[Line] = Field(min_length=1, max_length=200)


class Next(Body):
    beside: list[Line] = Field([], max_length=10)


class DraftBody(Body):
    body: dict[str, Any]


class Submission(Body):
    answers: dict[str, Any]
    active_ms: int | None = Field(None, ge=0, le=10**9)
    input: Literal["", "keyboard", "mouse", "touch", "api"] = ""


class Agreement(Body):
    words: str = Field(max_length=64)


class Reason(Body):
    reason: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)]
    text: Words = ""


class ReportChange(Body):
    state: Literal["open", "dismissed", "fixed"]


class NewExport(Body):
    format: Line = "kway"
    settings: dict[str, Any] = {}


class QualityChange(Body):
    """Of quality_settings.QualityConfig; what is left out stays."""

    overlap_max: int | None = None
    confidence: float | None = None
    gold_rate: float | None = None
    repeat_rate: float | None = None
    gold_pass: float | None = None
    review_below: float | None = None
    seconds: float | None = None
    seconds_per_100: float | None = None


class Gold(Body):
    """What is right about an item; ``practice``: those who are new begin with it, and are told that and ``why``."""

    expected: dict[str, Any]
    practice: bool = False
    why: Annotated[str, Field(max_length=2000), AfterValidator(storable)] = ""


class Checks(Body):
    n: int = Field(10, ge=1, le=500)


class Verdict(Body):
    verdict: Line
    comment: Words = ""


class Decision(Body):
    """``answers`` are under letters, a for the first completion the item lists."""

    method: Line
    judgment: Line = ""
    answers: dict[str, Any] | None = None
    comment: Words = ""
