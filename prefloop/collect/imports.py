"""Files into a project: first looked at whole, then stored, so that a bad file changes nothing. What was looked at is what is
stored: it waits in a temporary file, so that nothing is read twice, or changes in between.

    report = look(database, project_id, "answers.jsonl")     # the dry run: what is there, and what is wrong with it, by line
    report = run(database, project_id, "answers.jsonl")      # DataError with the same report if anything is wrong

Every format that prefloop reads as groups is accepted (docs/data.md), and folders of pictures, sounds and clips (folders.py);
rankings in a file are left aside, people answer afresh. An item that is there already, word for word, is left as it is: an import that was cut off is finished by running it again.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from sqlalchemy import Connection

from prefloop.collect import items, media
from prefloop.collect.asked import current_schema
from prefloop.collect.database import Database
from prefloop.collect.folders import MediaFolder
from prefloop.collect.identity import as_json
from prefloop.collect.items import NewItem, new_item
from prefloop.collect.schema import TaskSchema
from prefloop.data.formats import converted
from prefloop.data.read import How, common_format, name_of, sample_of
from prefloop.data.rows import Bad, Row, snippet, sources
from prefloop.data.trees import Aside
from prefloop.errors import DataError
from prefloop.records import Completion, Group, Prompt, Text

T = TypeVar("T")

MAX_BYTES = 2 * 2**30  # of a file
MAX_ITEMS = 1_000_000  # of an import
MAX_CHARACTERS = 200_000  # of a prompt, or of one answer
CHUNK = 150  # items stored in one transaction: annotators wait no longer than that takes
COUNTED = 1000  # items after which a database counts what it has, and again at twice as many
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


def look(
    database: Database,
    project_id: str,
    source: str | Path | MediaFolder,
    *,
    schema: TaskSchema | None = None,
    keep: Callable[[NewItem], object] = lambda item: None,
    check: Callable[[], object] = lambda: None,
) -> Report:
    """The dry run: every row is read and held against the project; nothing is stored. ``check`` is called now and then, and
    raises where nobody waits for it any more."""
    schema = schema or database.read(lambda connection: current_schema(connection, project_id)[1])
    files = source.files if isinstance(source, MediaFolder) else {}
    report = Report(title_of(source))
    for chunk in chunks(checked(source, schema, report, check)):
        database.read(lambda connection, chunk=chunk: compare(connection, project_id, chunk, report))
        find = lambda connection, chunk=chunk: without_files(  # noqa: E731
            connection, project_id, chunk, report, schema.medium, set(files)
        )
        unshown = database.read(find) if schema.medium != "text" else set()
        for found in chunk:
            if found.item.ext_id not in unshown:
                keep(found.item)
    return report


def look_into(
    database: Database,
    project_id: str,
    source: str | Path | MediaFolder,
    waiting: Path,
    *,
    schema: TaskSchema | None = None,
    check: Callable[[], object] = lambda: None,
) -> Report:
    """``look``, whose items are written to a file; ``kept`` reads them there."""
    with waiting.open("w", encoding="utf-8") as file:
        return look(database, project_id, source, schema=schema, keep=lambda item: file.write(as_line(item)), check=check)


def title_of(source: str | Path | MediaFolder) -> str:
    if isinstance(source, MediaFolder):
        return source.root.name
    return name_of(source) if Path(source).is_dir() else Path(source).name


def run(
    database: Database,
    project_id: str,
    source: str | Path | MediaFolder,
    *,
    priority: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda n: None,
    schema: TaskSchema | None = None,
    before: Callable[[str], str] = lambda project_id: project_id,
    looking: Callable[..., Report] = look_into,
) -> Report:
    """Store every item of a file. Where anything is wrong with it nothing is stored, unless ``skip_bad`` leaves that out.

    ``before`` is called with the project's id between looking and storing, and returns it: there files that items show are put
    in their places, and a project is made that was not there (whose ``schema`` is given, its id empty). ``looking`` is
    ``look_into`` or does the same elsewhere (apart.py).
    """
    with tempfile.TemporaryDirectory(prefix="prefloop-") as folder:
        waiting = Path(folder) / "items"
        looked = looking(database, project_id, source, waiting, schema=schema)
        if looked.n_problems and not skip_bad:
            hint = "mend them, or leave these rows out with skip_bad (--skip-bad); nothing was imported"
            raise DataError("\n".join([f"{looked.n_problems:,} problems in {looked.name}", *looked.lines()[1:], f"  {hint}"]))
        if not looked.items:
            raise DataError("\n".join([f"{looked.name} holds nothing to import", *looked.lines()[1:]]))
        project_id = before(project_id)
        secret = database.read(lambda connection: items.secret_of(connection, project_id))
        try:
            with waiting.open(encoding="utf-8") as file:
                counted = COUNTED
                for chunk in chunks(kept(file)):
                    looked.added += store(database, project_id, chunk, priority, secret)
                    progress(looked.added)
                    if looked.added >= counted:
                        database.write(items.taken_stock_of)
                        counted = 2 * looked.added
        finally:  # broken off, too: what was stored until then is to be found
            database.write(lambda connection: items.added_all(connection, project_id))
    return looked


def as_line(item: NewItem) -> str:
    """JSON holds no raw line break and no NUL, and a hash holds neither."""
    return "\0".join((item.ext_id, as_json(item.prompt_id), item.prompt_json, item.completions_json)) + "\n"


def kept(waiting: IO[str]) -> Iterator[NewItem]:
    """The items that were looked at, each as it was written by ``as_line``."""
    for line in waiting:
        ext_id, prompt_id, prompt_json, completions_json = line.removesuffix("\n").split("\0")
        yield NewItem(ext_id, json.loads(prompt_id), prompt_json, completions_json)


def store(database: Database, project_id: str, chunk: list[NewItem], priority: int, secret: str) -> int:
    now = database.clock()
    places = items.places(secret, chunk, now)

    def work(connection: Connection) -> int:
        there = items.there(connection, project_id, chunk)  # again: somebody else may have stored in between
        kept = [number for number, one in enumerate(chunk) if one.ext_id not in there.clashing]
        given = [places[number] for number in kept]
        fit = [chunk[number] for number in kept]
        return items.add(connection, project_id, fit, priority=priority, now=now, given=given, known=there.known).added

    return database.write(work, is_long=True)


def compare(connection: Connection, project_id: str, chunk: list[Found], report: Report) -> None:
    """Hold items against those of the project."""
    there = items.there(connection, project_id, [found.item for found in chunk])
    for found in chunk:
        if clash := there.clashing.get(found.item.ext_id):
            report.wrong(Problem(found.where, "an id that stands for something else in this project", clash))
            report.items -= 1
    report.known += len(there.known)


def without_files(
    connection: Connection, project_id: str, chunk: list[Found], report: Report, medium: str, coming: set[str]
) -> set[str]:
    """The items whose files the project does not have, or not as this medium; by their ext_id. Some files are ``coming``."""
    hashes = [one for one in media.hashes_in(found.item.completions_json for found in chunk) if one not in coming]
    missing = media.unknown(connection, project_id, medium, hashes)
    bad = set()
    for found in chunk:
        if gone := sorted(missing & set(media.hashes_in([found.item.completions_json]))):
            report.wrong(Problem(found.where, f"no {medium} of this project has the sha256", gone[0]))
            report.items -= 1
            bad.add(found.item.ext_id)
    return bad


# --- rows to items ----------------------------------------------------------------------------------------------------------


def checked(source: str | Path | MediaFolder, schema: TaskSchema, report: Report, check: Callable[[], object]) -> Iterator[Found]:
    """The items of a file that are fit to be stored; what is not goes into the report."""
    seen: set[str] = set()
    said: dict[int, int] = {}  # hashes of ids and of what they stand for: a file may hold a million
    for where, group in groups(source, report, check):
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


def groups(source: str | Path | MediaFolder, report: Report, check: Callable[[], object]) -> Iterator[tuple[str, Group]]:
    """Prompts with their answers, each with its place."""
    if isinstance(source, MediaFolder):
        yield from groups_of_files(source, report)
        return
    parts = sources(source)
    for part in parts if Path(source).exists() else ():
        refuse_huge(Path(source) / part.name if Path(source).is_dir() else Path(source))
    samples = {part.name: sample_of(part, None) for part in parts}
    how = How("auto", None, "", name_of(source), None)
    report.format = common_format(samples, "groups", how, report.name, parts)

    def readable() -> Iterator[Row]:
        for part in parts:
            for row in part.rows():
                if report.rows % CHUNK == 0:  # good or bad
                    check()
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


def groups_of_files(source: MediaFolder, report: Report) -> Iterator[tuple[str, Group]]:
    report.format = "a folder of files"
    for where, outcome in source.groups():
        report.rows += 1
        if isinstance(outcome, str):
            report.wrong(Problem(where, outcome))
        else:
            yield where, outcome


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
    others = sorted({completion.content.type for completion in group.completions} - {schema.medium})
    if others:
        return f"{', '.join(others)} answers, where the project asks about {schema.medium}", snippet(group.prompt.text)
    if any(not isinstance(one.content, Text) and not media.SHA.fullmatch(one.content.sha256) for one in group.completions):
        return "an answer that names no uploaded file by its sha256", snippet(group.prompt.text)
    said = texts(group)
    long = max(said, key=len)
    if len(long) > MAX_CHARACTERS:
        return f"a text of {len(long):,} characters, where {MAX_CHARACTERS:,} are allowed", snippet(long)
    if not is_storable(" ".join(said)):  # one look at all of them: a half of a character stays one beside a space
        return "a character that cannot be stored", snippet(group.prompt.text)
    return None


def texts(group: Group) -> list[str]:
    prompt = group.prompt
    said = [prompt.id, prompt.origin, *prompt.tags, *(message.content for message in prompt.messages)]
    for completion in group.completions:
        place = completion.text if isinstance(completion.content, Text) else completion.content.uri
        said += (place, completion.id, completion.source)
    return said


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
    content = record.content
    return (record.prompt_id, content.text if isinstance(content, Text) else content)


def chunks(found: Iterable[T]) -> Iterator[list[T]]:
    chunk: list[T] = []
    for one in found:
        chunk.append(one)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
