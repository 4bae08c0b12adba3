"""Every format prefloop reads, in one table: the columns that give it away and the function that makes records of a row.

Recognition is by columns and the kinds of their values. A format whose columns include all those of another wins over it;
of the rest the richest wins (rankings, then demonstrations, prompts, text); two left over are ambiguous, and refused.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefloop.data.annotated import arena, argilla, label_studio
from prefloop.data.convert import (
    alpaca,
    alpaca_eval,
    alpaca_preference,
    alpaca_ranked,
    bare_instruction,
    bare_prompt,
    context_completions,
    conversation,
    implicit_preference,
    k_answers,
    kway,
    own_demonstration,
    own_prompt,
    preference,
    prompt_completion,
    ranked_texts,
    selected_rejected,
    sharegpt_preference,
    text,
    ultrafeedback,
    unpaired,
    unranked_answers,
)
from prefloop.data.rows import Bad, Row, Unusable, snippet
from prefloop.data.trees import Aside, Kept, Outcome, group_of_replies, groups_of_messages, groups_of_tree
from prefloop.data.turns import Made, kind
from prefloop.errors import DataError

KINDS = ("groups", "demonstrations", "prompts", "text")  # richest first
SERVED_BY = {  # what a reader may make its records of
    "groups": ("groups",),
    "demonstrations": ("demonstrations", "groups"),
    "prompts": ("prompts", "demonstrations", "groups", "text"),
    "text": ("text",),
}
SAMPLE = 64  # rows whose columns are looked at

Mapped = Mapping[str, str | Sequence[str]]
Convert = Callable[[dict[str, Any], str], Made]


@dataclass(frozen=True)
class Format:
    """A shape of rows."""

    gives: str  # one of KINDS
    needs: dict[str, tuple[type, ...]]  # column: the kinds of value it may hold
    row: Convert | None = None  # one row at a time
    table: Callable[[Iterable[Row], str], Iterator[Outcome]] | None = None  # or all of them, where rows belong together
    either: tuple[str, ...] = ()  # and at least one of these
    also: tuple[str, ...] = ()  # read where present

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return (*self.needs, *self.either, *self.also)


TEXT, LIST, OBJECT, ANSWER = (str,), (list,), (dict,), (str, list, dict)
TURNS = (str, list)
ANY = (str, int, float, bool, list, dict, type(None))

PAIR = {"prompt": TURNS, "chosen": ANSWER, "rejected": ANSWER}
POSTS = {"message_id": TEXT, "parent_id": ANY, "role": TEXT, "text": TEXT, "rank": ANY}
SCORES = ("score_chosen", "score_rejected", "metadata")
ALPACA = ("input", "history", "system")

FORMATS: dict[str, Format] = {
    # rankings
    "kway": Format("groups", {"format_version": ANY, "prompt": OBJECT, "completions": LIST}, kway, also=("rankings", "ratings")),
    "k-answers": Format("groups", {"prompt": TURNS, "completions": LIST}, k_answers, either=("ranks", "scores")),
    "unranked": Format("groups", {"prompt": TURNS, "completions": LIST}, unranked_answers),
    "nemo-rl": Format("groups", {"context": TURNS, "completions": LIST}, context_completions),
    "preference": Format("groups", PAIR, preference, also=SCORES),
    "reward-bench": Format("groups", {**PAIR, "subset": TEXT}, preference, also=SCORES),
    "implicit-preference": Format("groups", {"chosen": TURNS, "rejected": TURNS}, implicit_preference, also=SCORES),
    "selected-rejected": Format("groups", {"prompt": TURNS, "selected": ANSWER, "rejected": ANSWER}, selected_rejected),
    "sharegpt-preference": Format(
        "groups", {"conversations": LIST, "chosen": ANSWER, "rejected": ANSWER}, sharegpt_preference, also=("system", *SCORES)
    ),
    "alpaca-preference": Format(
        "groups", {"instruction": TEXT, "chosen": ANSWER, "rejected": ANSWER}, alpaca_preference, also=(*ALPACA, *SCORES)
    ),
    "alpaca-ranked": Format("groups", {"instruction": TEXT, "output": LIST}, alpaca_ranked, also=ALPACA),
    "alpaca-eval": Format("groups", {"instruction": TEXT, "candidates": LIST}, alpaca_eval),
    "ultrafeedback": Format("groups", {"instruction": TEXT, "completions": LIST}, ultrafeedback),
    "ranked-texts": Format("groups", {"ranked": LIST}, ranked_texts, also=("prompt",)),
    "oasst-trees": Format("groups", {"message_tree_id": TEXT, "prompt": OBJECT}, groups_of_tree),
    "oasst-groups": Format("groups", {"message_tree_id": TEXT, "prompt": LIST, "replies": LIST}, group_of_replies),
    "oasst-messages": Format("groups", POSTS, table=groups_of_messages, also=("deleted",)),
    "unpaired": Format("groups", {"prompt": TURNS, "completion": ANSWER, "label": ANY}, table=unpaired),
    "unpaired-messages": Format("groups", {"messages": LIST, "label": ANY}, table=unpaired),
    "argilla": Format("groups", {"fields": OBJECT}, argilla, also=("responses", "metadata", "external_id")),
    "label-studio": Format("groups", {"data": OBJECT}, label_studio, also=("annotations",)),
    "arena": Format(
        "groups", {"conversation_a": LIST, "conversation_b": LIST}, arena, also=("winner", "model_a", "model_b", "judge")
    ),
    # an answer to imitate
    "demonstration": Format("demonstrations", {"prompt": OBJECT, "completion": OBJECT}, own_demonstration, also=("id",)),
    "prompt-completion": Format("demonstrations", {"prompt": TURNS, "completion": ANSWER}, prompt_completion),
    "alpaca": Format("demonstrations", {"instruction": TEXT, "output": TEXT}, alpaca, also=ALPACA),
    "sharegpt": Format("demonstrations", {"conversations": LIST}, conversation, also=("system",)),
    "messages": Format("demonstrations", {"messages": LIST}, conversation, also=("system",)),
    # something to answer
    "prompt-record": Format("prompts", {"messages": LIST, "origin": TEXT}, own_prompt, also=("id", "tags")),
    "prompts": Format("prompts", {"prompt": TURNS}, bare_prompt),
    "instructions": Format("prompts", {"instruction": TEXT}, bare_instruction, also=ALPACA),
    # to learn to speak; also every .txt file
    "text": Format("text", {"text": TEXT}, text),
}
SYNONYMS = {  # only to suggest a mapping in a message, never to guess one in silence
    "prompt": ("question", "query", "input", "instruction", "goal", "user_query", "dialogue"),
    "chosen": ("selected", "response_j", "better", "preferred", "win", "winner", "chosen_response", "answer_chosen"),
    "rejected": ("response_k", "worse", "lose", "loser", "rejected_response", "answer_rejected"),
    "completion": ("answer", "response", "output", "target", "completion_text", "std_answer"),
    "completions": ("responses", "answers", "candidates", "outputs", "replies"),
    "label": ("is_good", "thumb", "feedback", "score"),
    "text": ("content", "document", "sentence", "story", "body"),
    "messages": ("conversation", "dialog", "turns", "chat"),
}


# --- recognition ------------------------------------------------------------------------------------------------------------


def recognise(rows: Sequence[Row], *, want: str | None, where: str) -> str:
    """The format of some rows by their columns; ``want`` is the kind of record asked for, None for the richest.

    For the richest, a format that is only missed by misspelt columns is an error: somebody wrote it, and would be given less.
    """
    columns = columns_of(rows)
    fitting = [name for name, format in FORMATS.items() if fits(format, columns)]
    specific = [name for name in fitting if not any(is_wider(FORMATS[other], FORMATS[name]) for other in fitting)]
    serving = [name for name in specific if want is None or FORMATS[name].gives in SERVED_BY[want]]
    if not specific:
        raise unknown_columns(columns, where)
    if not serving:
        raise wrong_kind(specific[0], want, columns, where)
    kinds = [FORMATS[name].gives for name in serving]
    richest = [name for name, gives in zip(serving, kinds, strict=True) if gives == min(kinds, key=KINDS.index)]
    if len(richest) > 1:
        raise DataError(
            f"{where} can be read in {len(richest)} ways: {', '.join(richest)}\n"
            + "\n".join(f"  {name} needs {needs_of(name)}" for name in richest)
            + f"\n  say which: format={richest[0]}"
        )
    if want is None and (meant := misspelt(richest[0], columns)):
        raise misspelt_columns(richest[0], meant, columns, where)
    return richest[0]


def misspelt(name: str, columns: Mapping[str, Any]) -> str:
    """A format that gives more than the one recognised and lacks nothing but the spelling of some columns; empty if there is none."""
    read = FORMATS[name]
    unused = {column: value for column, value in columns.items() if column not in read.columns}
    for other, format in FORMATS.items():
        gives_more = (KINDS.index(format.gives), not is_wider(format, read)) < (KINDS.index(read.gives), True)
        gone = missing(format, columns)
        if gives_more and format.row is not read.row and gone and all(spelt_like(format, column, unused) for column in gone):
            return other
    return ""


def spelt_like(format: Format, column: str, columns: Mapping[str, Any]) -> str:
    """A column that is written almost like a missing one and holds what that one would; empty where there is none."""
    kinds = format.needs.get(column, ANY)
    spelt = {"".join(c for c in other.casefold() if c.isalnum()): other for other in columns if isinstance(columns[other], kinds)}
    near = difflib.get_close_matches(column.replace("_", ""), list(spelt), n=1, cutoff=0.8)
    return spelt[near[0]] if near else ""


def misspelt_columns(name: str, meant: str, columns: Mapping[str, Any], where: str) -> DataError:
    gone = missing(FORMATS[meant], columns)
    near = {column: spelt_like(FORMATS[meant], column, columns) for column in gone}
    return DataError(
        f"{where} would be {meant}, but for the {'name of a column' if len(gone) == 1 else 'names of some columns'}\n"
        f"  found    {in_a_row(columns)}\n"
        f"  needed   {needs_of(meant)}\n"
        f"  nearest  {', '.join(f'{column} is missing, {other} is there' for column, other in near.items())}\n"
        f"  rename: prefloop data convert FILE NEW.jsonl {' '.join(f'mapping.{column}={other}' for column, other in near.items())}\n"
        f"  or, if it is meant as it is: format={name}, which gives {FORMATS[name].gives}"
    )


def in_a_row(columns: Mapping[str, Any]) -> str:
    """Columns with the kind of what they hold, as a reader would write them."""
    return ", ".join(f"{column} ({kind(value)})" for column, value in columns.items())


IN_WORDS = {"groups": "rankings, pairs or several answers to a prompt"}
CONVERTED = "columns of other names are renamed by: prefloop data convert FILE NEW.jsonl mapping.{}"


def wrong_kind(name: str, want: str | None, columns: Mapping[str, Any], where: str) -> DataError:
    giving = [other for other, format in FORMATS.items() if format.gives in SERVED_BY[str(want)]]
    nearest = max(giving, key=lambda other: nearness(FORMATS[other], columns))
    gone = missing(FORMATS[nearest], columns)
    is_near = bool(gone) and all(suggestion(FORMATS[nearest], column, columns) for column in gone)
    renamed = " mapping.".join(f"{column}={suggestion(FORMATS[nearest], column, columns)}" for column in gone)
    hint = f"  nearest is {nearest}, which needs {needs_of(nearest)}\n" if is_near else ""
    return DataError(
        f"{where} is read as {name}, which gives {FORMATS[name].gives}; {IN_WORDS.get(str(want), want)} are wanted here\n{hint}"
        f"  its columns: {', '.join(columns)}; {CONVERTED.format(renamed if is_near else 'OURS=THEIRS')}\n"
        f"  formats that give what is wanted: {', '.join(giving)}"
    )


def columns_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Every column of the first rows with a value it holds, None where it holds none."""
    columns: dict[str, Any] = {}
    for row in rows[:SAMPLE]:
        for column, value in row.value.items():
            if columns.get(column) is None:
                columns[column] = value
    return columns


def fits(format: Format, columns: Mapping[str, Any]) -> bool:
    has_needs = all(column in columns and isinstance(columns[column], kinds) for column, kinds in format.needs.items())
    return has_needs and (not format.either or any(columns.get(column) is not None for column in format.either))


def is_wider(wide: Format, narrow: Format) -> bool:
    """Whether a format explains every column that another explains, and more."""
    return {*narrow.needs, *narrow.either} < {*wide.needs, *wide.either}


def unknown_columns(columns: Mapping[str, Any], where: str) -> DataError:
    found = in_a_row(columns)
    known = "\n".join(f"    {name:<20} {needs_of(name)}" for name in FORMATS)
    nearest = max(FORMATS, key=lambda name: nearness(FORMATS[name], columns))
    hint = ""
    if nearness(FORMATS[nearest], columns)[0] > 0:
        gone = missing(FORMATS[nearest], columns)
        mapping = " mapping.".join(f"{column}={suggestion(FORMATS[nearest], column, columns) or 'ITS_COLUMN'}" for column in gone)
        hint = f"  nearest is {nearest}, which needs {needs_of(nearest)}\n  {CONVERTED.format(mapping)}\n"
    known = f"  known formats and what they need:\n{known}"
    return DataError(f"{where} has columns of no known format: {found}\n{hint}{known}")


def nearness(format: Format, columns: Mapping[str, Any]) -> tuple[float, int]:
    """The share of a format's columns that are there, or there under a name that means the same."""
    gone = missing(format, columns)
    n_needed = len(format.needs) + bool(format.either)
    alike = sum(bool(suggestion(format, column, columns)) for column in gone)
    return (n_needed - len(gone) + alike) / n_needed, n_needed


def missing(format: Format, columns: Mapping[str, Any]) -> list[str]:
    gone = [column for column, kinds in format.needs.items() if not (column in columns and isinstance(columns[column], kinds))]
    return gone + ([format.either[0]] if format.either and not any(column in columns for column in format.either) else [])


def suggestion(format: Format, column: str, columns: Mapping[str, Any]) -> str:
    """A column that could stand for a missing one, by its name and the kind of its values; empty where there is none."""
    kinds = format.needs.get(column, ANY)
    alike = next((other for other in SYNONYMS.get(column, ()) if other in columns and isinstance(columns[other], kinds)), "")
    unused = {other: value for other, value in columns.items() if other not in format.columns}
    return alike or spelt_like(format, column, unused)


def needs_of(name: str) -> str:
    """The columns of a format as a reader would write them."""
    format = FORMATS[name]
    needs = [column + in_words(kinds) for column, kinds in format.needs.items()]
    return ", ".join(needs) + (f", {' or '.join(format.either)}" if format.either else "")


def in_words(kinds: tuple[type, ...]) -> str:
    words = {str: "text", list: "list", dict: "object"}
    return "" if kinds == ANY else f" ({' or '.join(words[kind] for kind in kinds)})"


def named(format: str) -> Callable[..., str]:
    """Like ``recognise``, for a format given by name: it must exist, fit and serve."""
    if format not in FORMATS:
        raise DataError(f"there is no format {format!r}\n  {nearest_of(format, ['auto', *FORMATS], 'known')}")

    def checked(rows: Sequence[Row], *, want: str | None, where: str) -> str:
        columns = columns_of(rows)
        if gone := missing(FORMATS[format], columns):
            raise DataError(
                f"{where} is not {format}: it lacks {', '.join(gone)}\n"
                f"  {format} needs {needs_of(format)}\n"
                f"  its columns: {', '.join(columns)}"
            )
        if want is not None and FORMATS[format].gives not in SERVED_BY[want]:
            raise wrong_kind(format, want, columns, where)
        return format

    return checked


# --- conversion -------------------------------------------------------------------------------------------------------------


def converted(rows: Iterable[Row], format: str, name: str) -> Iterator[Outcome]:
    """Rows of one format as records, or as the reason why not."""
    chosen = FORMATS[format]
    if chosen.table is not None:
        yield from chosen.table(rows, name)
        return
    for row in rows:
        yield from outcomes_of(row, chosen, name)


def outcomes_of(row: Row, format: Format, name: str) -> Iterator[Outcome]:
    try:
        if gone := [column for column in format.needs if column not in row.value]:
            raise Unusable("a column is missing", ", ".join(gone))
        made = format.row(row.value, name) if format.row else Made([])
    except Unusable as problem:
        yield Bad(row.where, problem.reason, problem.detail or snippet(repr(row.value)))
        return
    if not made.records:
        yield Aside(row.where, "nothing ranked in it", snippet(repr(row.value)))
    for number, record in enumerate(made.records):
        yield Kept(row.where, record, rows=int(number == 0), remarks=made.remarks if number == 0 else ())


# --- foreign columns ----------------------------------------------------------------------------------------------------------


def mapped(rows: Iterable[Row], mapping: Mapped) -> Iterator[Row]:
    """Rows with our names for their columns; columns that were not taken stay."""
    spent = {part.partition(".")[0].removesuffix("[]") for path in mapping.values() for part in paths_of(path)}
    spent |= {part for path in mapping.values() for part in paths_of(path)}
    for row in rows:
        ours = {field: taken(row.value, path) for field, path in mapping.items()}
        rest = {column: value for column, value in row.value.items() if column not in spent}
        yield Row(row.where, {**rest, **{field: value for field, value in ours.items() if value is not None}})


def paths_of(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path


def taken(value: Any, path: str | Sequence[str]) -> Any:
    """A column, ``outer.inner``, ``items[].inner``, or a list of these; None where there is no such thing."""
    if not isinstance(path, str):
        return [taken(value, part) for part in path]
    if not path:
        return value
    if isinstance(value, dict) and path in value:
        return value[path]
    head, _, rest = path.partition(".")
    is_list = head.endswith("[]")
    inner = value.get(head.removesuffix("[]")) if isinstance(value, dict) else None
    if is_list:
        return [taken(item, rest) for item in inner] if isinstance(inner, list) else None
    return taken(inner, rest) if rest else inner


def check_mapping(mapping: Mapped, rows: Sequence[Row], where: str) -> None:
    """Every name on the left is ours, every path on the right leads somewhere."""
    fields = sorted({column for format in FORMATS.values() for column in format.columns})
    columns = columns_of(rows)
    for field, path in mapping.items():
        if field not in fields:
            raise DataError(f"the mapping names {field!r}, which is no column of ours\n  {nearest_of(field, fields, 'ours')}")
        for part in paths_of(path):
            if all(taken(row.value, part) is None for row in rows[:SAMPLE]):
                raise DataError(
                    f"the mapping {field}: {part} leads nowhere in {where}\n  {nearest_of(part, list(columns), 'its columns')}"
                )


def nearest_of(name: str, names: Sequence[str], title: str) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"{title}: {', '.join(names)}" + (f"\n  nearest: {near[0]}" if near else "")
