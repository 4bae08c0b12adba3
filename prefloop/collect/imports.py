"""Files into a project: first looked at whole, then stored, so that a bad file changes nothing.

    report = look(database, project_id, "answers.jsonl")     # the dry run: what is there, and what is wrong with it, by line
    report = run(database, project_id, "answers.jsonl")      # DataError with the same report if anything is wrong

Every format that prefloop reads as groups is accepted (docs/data.md); rankings in it are left aside, people answer afresh. An
item that is there already, word for word, is left as it is: an import that was cut off is finished by running it again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection

from prefloop.collect import items, queue
from prefloop.collect.database import Database
from prefloop.collect.items import NewItem, new_item
from prefloop.collect.schema import TaskSchema
from prefloop.data.formats import converted
from prefloop.data.read import How, common_format, name_of, sample_of
from prefloop.data.rows import Bad, Row, snippet, sources
from prefloop.data.trees import Aside
from prefloop.errors import DataError
from prefloop.records import Completion, Group, Prompt

MAX_BYTES = 2 * 2**30  # of a file
MAX_ITEMS = 1_000_000  # of an import
MAX_CHARACTERS = 200_000  # of a prompt, or of one answer
CHUNK = 200  # items stored in one transaction: annotators wait no longer than that takes
SHOWN = 20  # problems listed in a message


class Problem(NamedTuple):
    """What is wrong, and where: ``answers.jsonl:17``."""

    where: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}, {self.reason}" + (f": {self.detail}" if self.detail else "")


@dataclass
class Report:
    """What an import found, and what it did."""

    name: str
    format: str = ""
    rows: int = 0
    items: int = 0  # that are fit to be stored
    known: int = 0  # of these, there already
    added: int = 0
    problems: list[Problem] = field(default_factory=list)  # the first of them
    n_problems: int = 0
    remarks: Counter[str] = field(default_factory=Counter)

    def wrong(self, problem: Problem) -> None:
        self.n_problems += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)

    def lines(self) -> list[str]:
        """What a person reads."""
        said = [f"{self.name}: {self.format}, {self.rows:,} rows, {self.items:,} items ({self.known:,} there already)"]
        said += [f"  {problem}" for problem in self.problems]
        if self.n_problems > len(self.problems):
            said.append(f"  and {self.n_problems - len(self.problems):,} more")
        return said + [f"  {n:,} × {remark}" for remark, n in self.remarks.most_common()]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "format": self.format, "rows": self.rows, "items": self.items, "known": self.known,
            "added": self.added, "n_problems": self.n_problems, "problems": [str(problem) for problem in self.problems],
            "remarks": dict(self.remarks),
        }  # fmt: skip


class Found(NamedTuple):
    """An item and the row it came from."""

    where: str
    item: NewItem


def look(database: Database, project_id: str, source: str | Path, *, schema: TaskSchema | None = None) -> Report:
    """The dry run: every row is read and held against the project; nothing is stored."""
    schema = schema or database.read(lambda connection: queue.current_schema(connection, project_id)[1])
    report = Report(name_of(source) if Path(source).is_dir() else Path(source).name)
    for chunk in chunks(checked(source, schema, report)):
        database.read(lambda connection, chunk=chunk: compare(connection, project_id, chunk, report))
    return report


def run(
    database: Database,
    project_id: str,
    source: str | Path,
    *,
    priority: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Report:
    """Store every item of a file. Where anything is wrong with it nothing is stored, unless ``skip_bad`` leaves that out."""
    schema = database.read(lambda connection: queue.current_schema(connection, project_id)[1])
    looked = look(database, project_id, source, schema=schema)
    if looked.n_problems and not skip_bad:
        hint = "mend them, or leave these rows out with skip_bad (--skip-bad); nothing was imported"
        raise DataError("\n".join([f"{looked.n_problems:,} problems in {looked.name}", *looked.lines()[1:], f"  {hint}"]))
    if not looked.items:
        raise DataError("\n".join([f"{looked.name} holds nothing to import", *looked.lines()[1:]]))
    for chunk in chunks(checked(source, schema, Report(looked.name))):
        looked.added += store(database, project_id, chunk, priority)
        progress(looked.added)
    database.write(lambda connection: items.added_all(connection, project_id))
    return looked


def store(database: Database, project_id: str, chunk: list[Found], priority: int) -> int:
    now = database.clock()

    def work(connection: Connection) -> int:
        fresh = [found.item for found in chunk]
        clashing = items.contradictions(connection, project_id, fresh)
        fit = [one for one in fresh if one.ext_id not in clashing]
        return items.add(connection, project_id, fit, priority=priority, now=now).added

    return database.write(work)


def compare(connection: Connection, project_id: str, chunk: list[Found], report: Report) -> None:
    """Hold items against those of the project."""
    fresh = [found.item for found in chunk]
    clashing = items.contradictions(connection, project_id, fresh)
    for found in chunk:
        if clash := clashing.get(found.item.ext_id):
            report.wrong(Problem(found.where, "an id that stands for something else in this project", clash))
            report.items -= 1
    report.known += len(items.known_ids(connection, project_id, [one.ext_id for one in fresh if one.ext_id not in clashing]))


# --- rows to items ----------------------------------------------------------------------------------------------------------


def checked(source: str | Path, schema: TaskSchema, report: Report) -> Iterator[Found]:
    """The items of a file that are fit to be stored; what is not goes into the report."""
    seen: set[str] = set()
    said: dict[int, int] = {}  # hashes of ids and of what they stand for: a file may hold a million
    for where, group in groups(source, report):
        one = new_item(group.prompt, group.completions)
        problem = unfit(group, schema) or contradiction(group, said)
        if problem:
            report.wrong(Problem(where, *problem))
        elif one.ext_id in seen:
            report.remarks["an item that was there before, taken once"] += 1
        elif report.items >= MAX_ITEMS:
            raise DataError(
                f"{report.name} holds more than {MAX_ITEMS:,} items\n  split it, and import the parts one after the other"
            )
        else:
            seen.add(one.ext_id)
            report.items += 1
            if group.rankings or group.ratings:
                report.remarks["rankings in the file, left aside: people answer afresh"] += 1
            yield Found(where, one)


def groups(source: str | Path, report: Report) -> Iterator[tuple[str, Group]]:
    """Prompts with their answers, each with its place."""
    parts = sources(source)
    for part in parts if Path(source).exists() else ():
        refuse_huge(Path(source) / part.name if Path(source).is_dir() else Path(source))
    samples = {part.name: sample_of(part, None) for part in parts}
    how = How("auto", None, "", name_of(source), None)
    report.format = common_format(samples, "groups", how, report.name, parts)

    def readable() -> Iterator[Row]:
        for part in parts:
            for row in part.rows():
                report.rows += 1
                if isinstance(row, Bad):
                    report.wrong(Problem(*row))
                else:
                    yield row

    for outcome in converted(readable(), report.format, name_of(source)):
        if isinstance(outcome, Bad):
            report.wrong(Problem(*outcome))
        elif isinstance(outcome, Aside):
            report.remarks[outcome.reason] += 1
        else:
            report.remarks.update(outcome.remarks)
            yield outcome.where, outcome.record


def refuse_huge(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(
            f"{path.name} is {size / 2**30:.1f} GiB, an import at most {MAX_BYTES // 2**30} GiB\n"
            f"  split it, and import the parts one after the other"
        )


def unfit(group: Group, schema: TaskSchema) -> tuple[str, str] | None:
    """Why this project cannot ask about a group."""
    k, allowed = len(group.completions), schema.completions
    if not allowed.min <= k <= allowed.max:
        return f"{k} answers, where the project takes {allowed.min} to {allowed.max}", snippet(group.prompt.text)
    media = sorted({completion.content.type for completion in group.completions} - {schema.medium})
    if media or schema.medium != "text":
        return f"{', '.join(media) or schema.medium} answers, which cannot be imported as a list", "only text can"
    long = next((text for text in texts(group) if len(text) > MAX_CHARACTERS), None)
    if long is not None:
        return f"a text of {len(long):,} characters, where {MAX_CHARACTERS:,} are allowed", snippet(long)
    if not all(is_storable(text) for text in texts(group)):
        return "a character that cannot be stored", snippet(group.prompt.text)
    return None


def texts(group: Group) -> Iterator[str]:
    yield from (message.content for message in group.prompt.messages)
    yield from (completion.text for completion in group.completions)
    yield from (group.prompt.id, group.prompt.origin, *group.prompt.tags)
    yield from (name for completion in group.completions for name in (completion.id, completion.source))


def is_storable(text: str) -> bool:
    try:
        return "\x00" not in text and bool(text.encode() or True)
    except UnicodeEncodeError:
        return False


def contradiction(group: Group, said: dict[int, int]) -> tuple[str, str] | None:
    """An id that stood for something else further up."""
    for record in (group.prompt, *group.completions):
        meaning = hash(words_of(record))
        if said.setdefault(hash((type(record).__name__, record.id)), meaning) != meaning:
            return "an id that stands for something else further up", f"{type(record).__name__.lower()} {record.id}"
    return None


def words_of(record: Prompt | Completion) -> Any:
    if isinstance(record, Prompt):
        return tuple((message.role, message.content) for message in record.messages)
    return (record.prompt_id, record.content.model_dump_json())


def chunks(found: Iterable[Found]) -> Iterator[list[Found]]:
    chunk: list[Found] = []
    for one in found:
        chunk.append(one)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
