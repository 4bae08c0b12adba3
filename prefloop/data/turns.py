"""The values of foreign rows as turns, prompts and answers. One place decides what counts as a conversation.

Roles other than a person's, the assistant's and the system's (tools, functions) are refused: prefloop has no place for them
yet, and a conversation without them would say something else.
"""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from prefloop.data.rows import Unusable, is_storable, snippet
from prefloop.records import Completion, Demonstration, Group, Message, Prompt, Ranking, content_id

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
KIND_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
MIN_ANSWERS, MAX_ANSWERS = 2, 16
NO_PROMPT = "(no prompt)"  # stands where a set ranks texts that answer nothing; a model cannot start from no token at all
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Made(NamedTuple):
    """The records of a row, and what is worth counting about how they came to be."""

    records: list[Any]
    remarks: tuple[str, ...] = ()


# --- values ---------------------------------------------------------------------------------------------------------------


def text_of(value: Any, column: str) -> str:
    """A text, or the joined text parts of a message's content."""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise Unusable("a value of the wrong type", f"{column} is {kind(value)}, wanted text")
    if not is_storable(value):
        raise Unusable("a text with half a character", f"{column} holds a lone surrogate, which no file can store")
    return value


def kind(value: Any) -> str:
    """A value's type in words."""
    return KIND_NAMES.get(type(value), type(value).__name__)


def list_of(value: Any, column: str) -> list[Any]:
    if not isinstance(value, list):
        raise Unusable("a value of the wrong type", f"{column} is {kind(value)}, wanted a list")
    return value


def number_of(value: Any, column: str) -> float | None:
    """A finite number; None where nothing is said. Text that spells a number is one: CSV knows no other."""
    if value is None or value == "":
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        raise Unusable("a value of the wrong type", f"{column} is {kind(value)}, wanted a number") from None
    if not math.isfinite(number):
        raise Unusable("a rank or score that is not a number", f"{column} is {value!r}")
    return number


def message_of(value: Any, column: str) -> Message:
    """A turn: {role, content}, ShareGPT's {from, value}, OASST's {role, text}."""
    if not isinstance(value, dict):
        raise Unusable("a value of the wrong type", f"a turn of {column} is {kind(value)}, wanted {{role, content}}")
    role = value.get("role", value.get("from"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise Unusable("a role other than system, user or assistant", f"{column} has a turn by {role!r}")
    content = next((value[key] for key in ("content", "value", "text") if value.get(key) is not None), None)
    return Message(role=ROLES[role.lower()], content=text_of(content, f"a turn of {column}"))  # type: ignore[arg-type]


def messages_of(value: Any, column: str) -> list[Message]:
    return [message_of(turn, column) for turn in list_of(value, column)]


# --- prompts and answers --------------------------------------------------------------------------------------------------


def prompt_of(value: Any, column: str, *, origin: str, tags: tuple[str, ...] = ()) -> Prompt:
    """A prompt from a text, a transcript that waits for the assistant, or a list of turns."""
    if isinstance(value, str):
        text = text_of(value, column)
        if not text.strip():
            raise Unusable("an empty prompt", column)
        waiting = text.rstrip().removesuffix("\n\nAssistant:")
        is_transcript = TURN.match(text) and waiting != text.rstrip()
        messages = transcript(waiting) if is_transcript else [Message(role="user", content=text)]
    else:
        messages = messages_of(value, column)
    return prompt_from(messages, origin=origin, tags=tags)


def prompt_from(messages: Sequence[Message], *, origin: str, tags: tuple[str, ...] = ()) -> Prompt:
    if not any(message.content.strip() for message in messages):
        raise Unusable("an empty prompt", f"{len(messages)} turns without a word")
    return Prompt(messages=tuple(messages), origin=origin, tags=tags)


def transcript(text: str) -> list[Message]:
    """The turns of "\\n\\nHuman: … \\n\\nAssistant: …". White space around a turn belongs to the format, not to the words."""
    begins = list(TURN.finditer(text))
    if not begins or text[: begins[0].start()].strip():
        raise Unusable("a transcript without turns", "wanted text that begins with Human: or Assistant:")
    ends = [found.start() for found in begins[1:]] + [len(text)]
    roles = [ROLES[found.group(1).lower()] for found in begins]
    return [
        Message(role=role, content=text_of(text[found.end() : end].strip(), "a turn"))  # type: ignore[arg-type]
        for role, found, end in zip(roles, begins, ends, strict=True)
    ]


def answer_of(value: Any, column: str) -> str:
    """One answer: a text, a message of the assistant, or a list of exactly that message."""
    if not isinstance(value, list | dict):
        return text_of(value, column)
    turns = messages_of(value if isinstance(value, list) else [value], column)
    if len(turns) != 1 or turns[0].role != "assistant":
        found = ", ".join(turn.role for turn in turns)
        raise Unusable("an answer that is not one turn of the assistant", f"{column} has {len(turns)} turns: {found}")
    return turns[0].content


def shared_beginning(a: str, b: str) -> str:
    """The longest text both begin with, by halving: slices compare at the speed of C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return a[:low]


def parted_transcripts(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """Anthropic's pairs: what both share, cut at its last "\\n\\nAssistant:", is the prompt; the rest are the answers."""
    marker = "\n\nAssistant:"
    shared = shared_beginning(text_of(chosen, "chosen"), text_of(rejected, "rejected"))
    cut = shared.rfind(marker)
    if cut < 0:
        raise Unusable("transcripts that share no turn", "no '\\n\\nAssistant:' before the two part")
    answers = chosen[cut + len(marker) :], rejected[cut + len(marker) :]
    if any(TURN.search(answer) for answer in answers):
        raise Unusable("transcripts that part before the last answer", "one of the two goes on with another turn")
    return transcript(shared[:cut]), answers[0].strip(), answers[1].strip()


def parted_conversations(chosen: Any, rejected: Any) -> tuple[list[Message], str, str]:
    """The turns both share, and the two answers that follow."""
    pair = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
    shared = [a for a, b in takewhile(lambda two: two[0] == two[1], zip(*pair, strict=False))]
    if pair[0] == pair[1]:
        raise Unusable("answers that are all the same text", snippet(pair[0][-1].content if pair[0] else ""))
    if any(len(turns) != len(shared) + 1 for turns in pair):
        n = [len(turns) - len(shared) for turns in pair]
        raise Unusable("conversations that part before the last answer", f"chosen goes on for {n[0]} turns, rejected for {n[1]}")
    last = [answer_of([turns[-1].model_dump()], column) for column, turns in zip(("chosen", "rejected"), pair, strict=True)]
    return shared, last[0], last[1]


def parted_texts(chosen: str, rejected: str) -> tuple[list[Message], str, str]:
    """TRL's implicit prompt: the words both texts begin with."""
    shared = shared_beginning(text_of(chosen, "chosen"), text_of(rejected, "rejected"))
    is_between_words = all(len(text) == len(shared) or text[len(shared)].isspace() for text in (chosen, rejected))
    if not is_between_words:
        shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    if not shared.strip():
        raise Unusable("no prompt, and no beginning in common", snippet(chosen))
    return [Message(role="user", content=shared.rstrip())], chosen[len(shared.rstrip()) :], rejected[len(shared.rstrip()) :]


# --- groups ---------------------------------------------------------------------------------------------------------------


def ranked_group(
    prompt: Prompt, answers: Sequence[str], places: Sequence[float | None], *, name: str, sources: Iterable[str] | None = None
) -> Made:
    """A group with one ranking by ``dataset:name``: lower places are better, equal ones tied, None says nothing.

    Equal texts become one answer. If they were placed differently, nothing is known about that text: it keeps no place.
    """
    if len(answers) != len(places):
        raise Unusable("as many ranks as answers are wanted", f"{len(answers)} answers, {len(places)} ranks or scores")
    refuse_number_of_answers(len(answers))
    said: dict[str, set[float | None]] = {}
    for answer, place in zip(answers, places, strict=True):
        said.setdefault(answer, set()).add(place)
    if len(said) < MIN_ANSWERS:
        raise Unusable("answers that are all the same text", snippet(answers[0]))
    place_of = {answer: next(iter(placed)) if len(placed) == 1 else None for answer, placed in said.items()}
    if sum(place is not None for place in place_of.values()) < MIN_ANSWERS:
        raise too_few_in_place(answers, places, said)
    origin = dict(zip(reversed(answers), reversed(list(sources)), strict=True)) if sources is not None else {}
    completions = {answer: Completion.of(prompt, answer, source=origin.get(answer, f"dataset:{name}")) for answer in said}
    order = sorted({place for place in place_of.values() if place is not None})
    tiers = tuple(tuple(completions[a].id for a, place in place_of.items() if place == tier) for tier in order)
    shown = tuple(completion.id for completion in completions.values())
    ranking = Ranking(prompt_id=prompt.id, tiers=tiers, shown=shown, annotator=f"dataset:{name}")
    group = Group(prompt=prompt, completions=tuple(completions.values()), rankings=(ranking,))
    return Made([group], remarks_on(len(answers), said))


def too_few_in_place(answers: Sequence[str], places: Sequence[float | None], said: dict[str, set[float | None]]) -> Unusable:
    """Why fewer than two answers have a place: nobody gave them one, or one text has several and so none that counts."""
    twice = next((answer for answer, placed in said.items() if len(placed) > 1), None)
    if twice is None:
        ranked = sum(place is not None for place in places)
        return Unusable("fewer than 2 answers with a rank or score", f"{ranked} of {len(answers)} answers have one")
    at = " and ".join(str(number + 1) for number, answer in enumerate(answers) if answer == twice)
    return Unusable(
        "the same answer twice, ranked differently; without it fewer than 2 ranked answers are left",
        f"answers {at} are both {snippet(twice, 40)!r}",
    )


def remarks_on(n_answers: int, said: dict[str, set[float | None]]) -> tuple[str, ...]:
    remarks = ["the same answer twice, taken as one"] if n_answers > len(said) else []
    if any(len(placed) > 1 for placed in said.values()):
        remarks.append("the same answer twice, ranked differently: which rank holds is not known, so it has none")
    return tuple(remarks)


def refuse_number_of_answers(n: int) -> None:
    if n < MIN_ANSWERS:
        raise Unusable(f"fewer than {MIN_ANSWERS} answers", f"{n} answers")
    if n > MAX_ANSWERS:
        raise Unusable(f"more than {MAX_ANSWERS} answers", f"{n} answers")


def demonstration_of(prompt: Prompt, answer: str, *, name: str) -> Demonstration:
    if not answer.strip():
        raise Unusable("an empty answer, which would teach silence", snippet(prompt.text))
    return Demonstration(prompt=prompt, completion=Completion.of(prompt, answer, source=f"dataset:{name}"))


def tree_tag(first_turn: str) -> str:
    """The tag of a conversation: everything that grew from the same first turn is one tree, wherever it was written down."""
    return f"tree:{content_id(first_turn)}"


def split_key(prompt: Prompt) -> str:
    """What a split keeps together: the tree a prompt is tagged with, or else everything that begins with the same first turn."""
    first = next((message.content for message in prompt.messages if message.role == "user"), prompt.messages[0].content)
    return next((tag for tag in prompt.tags if tag.startswith("tree:")), tree_tag(first))
