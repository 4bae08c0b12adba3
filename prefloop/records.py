"""The nouns that cross processes: frozen, JSON in and out, identified by content. No torch here.

A record is never edited; a correction is a new record whose ``supersedes`` names the old one.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT_VERSION = 1  # of a line of kway JSONL; a reader refuses a newer one
CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))  # one for all: to make it takes as long


class Record(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def content_id(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(CANONICAL.encode(value).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """A record as the JSON value that identifies it; anything else as it is."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


class Identified(Record):
    """A record with an id of its own: given by whoever made it, or else derived from what it says."""

    id: str = ""

    @model_validator(mode="after")
    def an_id_is_given_or_derived(self) -> "Identified":
        if not self.id:
            said = self.model_dump(mode="json", exclude={"id"})
            object.__setattr__(self, "id", content_id(said))  # the only write to a frozen record, before anyone sees it
        return self


class Text(Record):
    """Plain text, as a person would read it; no tokens, no template."""

    type: Literal["text"] = "text"
    text: str


class Image(Record):
    """A still picture, by address and hash."""

    type: Literal["image"] = "image"
    uri: str
    sha256: str = ""


class Audio(Record):
    """A sound, by address and hash."""

    type: Literal["audio"] = "audio"
    uri: str
    sha256: str = ""


class Video(Record):
    """A clip, by address and hash."""

    type: Literal["video"] = "video"
    uri: str
    sha256: str = ""


Content = Annotated[Text | Image | Audio | Video, Field(discriminator="type")]


class Message(Record):
    """One turn of a conversation, in the shape of OpenAI's chat API."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Identified):
    """What an answer answers: one or more turns, the last of them usually the user's."""

    messages: tuple[Message, ...] = Field(min_length=1)
    origin: str = ""  # where it came from: "world", "hh_rlhf_harmless", "person:ada"
    tags: tuple[str, ...] = ()  # "tree:<id>", "topic:<name>"; splits keep equal trees together

    @model_validator(mode="before")
    @classmethod
    def the_id_depends_on_the_words_alone(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("id") and given.get("messages"):
            turns = [plain(message) for message in given["messages"]]
            if all(isinstance(turn, dict) for turn in turns):
                return {**given, "id": content_id([[turn.get("role"), turn.get("content")] for turn in turns])}
        return given

    @classmethod
    def of(cls, text: str, *, origin: str = "", tags: tuple[str, ...] = ()) -> "Prompt":
        """A prompt of a single user turn."""
        return cls(messages=(Message(role="user", content=text),), origin=origin, tags=tags)

    @property
    def text(self) -> str:
        """The last turn, which is the one being answered."""
        return self.messages[-1].content


class Completion(Identified):
    """One answer to a prompt. ``source``: human:<pseudonym>, policy:<run>@<step>, judge:<model>, sim:<n> or dataset:<name>."""

    prompt_id: str
    content: Content
    source: str = ""

    @classmethod
    def of(cls, prompt: Prompt, text: str, *, source: str = "") -> "Completion":
        """A text answer to ``prompt``."""
        return cls(prompt_id=prompt.id, content=Text(text=text), source=source)

    @property
    def text(self) -> str:
        """The words of a text answer; an empty string for pictures, sounds and clips."""
        return self.content.text if isinstance(self.content, Text) else ""


class Ranking(Identified):
    """One annotator's order of the completions of one prompt, best tier first.

    Inside a tier completions are tied. ``unusable`` is a last tier of its own, below every other. A completion in
    ``shown`` that was placed nowhere says nothing. Two completions make a pairwise choice: there is no second type.
    """

    prompt_id: str
    tiers: tuple[tuple[str, ...], ...]
    unusable: tuple[str, ...] = ()
    shown: tuple[str, ...]
    annotator: str
    seconds: float | None = None
    at: str = ""  # ISO 8601; empty where the time is unknown or meaningless
    supersedes: str = ""

    @model_validator(mode="after")
    def every_placed_answer_was_shown_once(self) -> "Ranking":
        placed = [completion for tier in self.tiers for completion in tier] + list(self.unusable)
        if strangers := sorted(set(placed) - set(self.shown)):
            raise ValueError(
                f"the ranking of prompt {self.prompt_id} by {self.annotator} places "
                f"{', '.join(strangers)}, never shown on that screen\n"
                f"  shown:  {', '.join(self.shown)}\n"
                f"  placed: {', '.join(placed)}\n"
                f"Place only completions in 'shown'; to say nothing about one, leave it out; to reject it, name it unusable."
            )
        if twice := sorted({c for c in placed if placed.count(c) > 1}):
            raise ValueError(
                f"the ranking of prompt {self.prompt_id} by {self.annotator} places {', '.join(twice)} "
                f"twice; a completion belongs to one tier"
            )
        if not all(self.tiers):
            raise ValueError(f"the ranking of prompt {self.prompt_id} by {self.annotator} has an empty tier; leave it out")
        return self

    def places(self, *, with_unusable: bool = True) -> dict[str, int]:
        """The tier of each placed completion, 0 is best; unusable ones share the tier after the last."""
        place = {completion: index for index, tier in enumerate(self.tiers) for completion in tier}
        if with_unusable:
            place.update({completion: len(self.tiers) for completion in self.unusable})
        return place

    def pairs(self, *, with_unusable: bool = True) -> list[tuple[str, str]]:
        """Every strictly ordered pair (better, worse)."""
        place = self.places(with_unusable=with_unusable)
        return [(a, b) for a in place for b in place if place[a] < place[b]]


class Rating(Identified):
    """One annotator's answer to one question about one completion: a point on a scale, or a flag."""

    completion_id: str
    question: str
    scale: tuple[float, float]
    value: float
    annotator: str
    at: str = ""
    supersedes: str = ""


class Demonstration(Identified):
    """An answer somebody wrote, or chose, to be imitated."""

    prompt: Prompt
    completion: Completion


class Group(Record):
    """A line of kway JSONL: a prompt, its completions, and what people said about them.

    This is what the page exports, what training reads, and what every other format is converted to.
    """

    format_version: int = FORMAT_VERSION
    prompt: Prompt
    completions: tuple[Completion, ...]
    rankings: tuple[Ranking, ...] = ()
    ratings: tuple[Rating, ...] = ()

    @model_validator(mode="after")
    def the_parts_belong_together(self) -> "Group":
        if self.format_version > FORMAT_VERSION:
            raise ValueError(f"format_version {self.format_version} is newer than the {FORMAT_VERSION} this prefloop reads")
        known = {completion.id for completion in self.completions}
        for ranking in self.rankings:
            if strangers := sorted(set(ranking.shown) - known):
                raise ValueError(
                    f"a ranking of prompt {self.prompt.id} by {ranking.annotator} was shown "
                    f"{', '.join(strangers)}, which is not among the completions of this line: {', '.join(sorted(known))}"
                )
        for rating in self.ratings:
            if rating.completion_id not in known:
                raise ValueError(f"a rating by {rating.annotator} is of completion {rating.completion_id}, not of this line")
        return self


class Snapshot(Identified):
    """A set of records as it was used: the hash of each, the query that chose them, and counts."""

    records: tuple[str, ...]
    query: str
    counts: dict[str, int]
