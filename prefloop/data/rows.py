"""Files, folders and hub ids as rows: what a row says is read here, what it means in formats.py.

A row that cannot be read is handed on as a ``Bad`` with its place and the reason, and counted by the reader. A file that
breaks off in a way that hides how much is missing (a cut archive, a JSON document or a quote that never ends) is refused.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from prefloop.errors import DataError, NotInstalled, nearest_path

MAX_LINE = 16 * 2**20  # bytes of one JSON line; a longer one is never a conversation, and usually a file without line breaks
DOCUMENT_END = "<|endoftext|>"  # on a line of its own: the file holds documents, not one text per line
HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(:(?P<subset>[\w.-]+))?")
STRUCTURED = frozenset(  # CSV cells that hold JSON; a prompt that happens to begin with a bracket stays text
    ("messages", "conversations", "completions", "ranks", "scores", "candidates", "ranked", "replies", "history", "context")
)
SPACE = re.compile(r"\s*")
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "eval": "test",
    "heldout": "test",
}
NOT_ROWS = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json"))


class Row(NamedTuple):
    """One object of a file and its place, ``pairs.jsonl:17``."""

    where: str
    value: dict[str, Any]


class Bad(NamedTuple):
    """A row that cannot be used: unreadable, malformed or too long."""

    where: str
    reason: str
    snippet: str


class Unusable(Exception):
    """Raised while a row is converted: why it cannot be used. The reader turns it into a ``Bad``."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Source(NamedTuple):
    """One file, or one split of a hub id."""

    name: str
    split: str  # "" where nothing says so
    rows: Callable[[], Iterator[Row | Bad]]


def sources(path_or_id: str | Path) -> list[Source]:
    """Everything that can be read under a path or a hub id, in a fixed order."""
    path = Path(path_or_id)
    if path.is_dir():
        return folder_sources(path)
    if path.exists():
        return [file_source(path, path.name, split="")]
    hub = HUB_ID.fullmatch(str(path_or_id))
    if hub and suffix_of(path) not in READERS and not path.parent.is_dir():
        return hub_sources(hub["repository"], hub["subset"])
    near = nearest_path(path)
    hint = f"nearest: {near}" if near else "give a file, a folder, or a hub id like owner/name"
    here = "" if path.is_absolute() else f" (looked for in {Path.cwd()})"
    raise DataError(f"there is no data at {path_or_id}{here}\n  {hint}")


def suffix_of(path: Path) -> str:
    """The ending that says how to read a file: .jsonl of pairs.jsonl.gz."""
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower()


def folder_sources(folder: Path) -> list[Source]:
    """The files of a folder and of the folders in it, by name."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and suffix_of(p) in READERS and is_data(p.relative_to(folder))]
    if not files:
        raise DataError(f"{folder} holds no file that can be read\n  read are: {', '.join(READERS)}, each also with .gz")
    return [file_source(p, p.relative_to(folder).as_posix(), split=split_named_by(p.relative_to(folder))) for p in files]


def is_data(path: Path) -> bool:
    return path.name not in NOT_ROWS and not any(part.startswith((".", "_")) for part in path.parts)


def split_named_by(path: Path) -> str:
    """``train`` of train-00000-of-00002.parquet, ``test`` of test/part_a.txt; empty for part_a.txt."""
    words = re.split(r"[^a-z]+", path.as_posix().lower())
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), "")


def file_source(path: Path, name: str, *, split: str) -> Source:
    suffix = suffix_of(path)
    if suffix not in READERS:
        raise DataError(f"{path} ends in no known kind of file\n  read are: {', '.join(READERS)}, each also with .gz")
    return Source(name, split, lambda: READERS[suffix](path, name))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where its name ends in .gz."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}\n  the copy was cut or damaged; fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def snippet(text: str, width: int = 80) -> str:
    """The beginning of a text on one line, without anything a terminal would obey."""
    head = "".join(c if c.isprintable() else " " for c in text.strip()[: width + 1])
    return head if len(head) <= width else head[: width - 1] + "…"


def is_storable(text: str) -> bool:
    """Whether a text can be written as UTF-8. Undecodable bytes and JSON's \\ud83d leave half a character behind."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_utf16(head: bytes, name: str) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{name} is UTF-16\n  save it as UTF-8: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}")


# --- JSON lines ----------------------------------------------------------------------------------------------------------


def json_lines(path: Path, name: str) -> Iterator[Row | Bad]:
    """One object per line. Blank lines are not rows."""
    with opened(path) as file:
        yield from json_lines_of(file, name)


def json_lines_of(file: IO[bytes], name: str) -> Iterator[Row | Bad]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
        where = f"{name}:{number}"
        if number == 1:
            refuse_utf16(line, name)
            line = line.removeprefix(b"\xef\xbb\xbf")
        is_ended = line.endswith(b"\n")
        if len(line) > MAX_LINE and not is_ended:
            skip_line(file)
            yield Bad(where, f"a line of more than {MAX_LINE // 2**20} MiB", snippet(line[:200].decode(errors="replace")))
        elif line.strip():
            yield parsed_line(line, where, is_ended=is_ended)


def skip_line(file: IO[bytes]) -> None:
    """Past the end of the line the file stands in, without holding it in memory."""
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
        pass


def parsed_line(line: bytes, where: str, *, is_ended: bool) -> Row | Bad:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return Bad(where, "not UTF-8", snippet(line[:200].decode(errors="replace")))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # ValueError also covers an integer of more digits than Python will read
        return Bad(where, "not JSON" if is_ended else "the last line is cut off", snippet(text))
    return row_or_bad(where, value, text)


def row_or_bad(where: str, value: Any, text: str = "") -> Row | Bad:
    if isinstance(value, dict):
        return Row(where, value)
    return Bad(where, "not an object with columns", snippet(text or repr(value)))


# --- other kinds of file --------------------------------------------------------------------------------------------------


def json_document(path: Path, name: str) -> Iterator[Row | Bad]:
    """A list of objects, an object that holds one such list, or JSON lines under the wrong ending."""
    with opened(path) as file:
        data = file.read()
    refuse_utf16(data, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 (byte {error.start})\n  save it as UTF-8") from None
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from items_of(text, start + 1, name)
    elif start < len(text):
        yield from rows_of_object(text, data, name)


def items_of(text: str, at: int, name: str) -> Iterator[Row | Bad]:
    """The items of a JSON list one by one, so that each keeps the line it begins on."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    at = after_space(text, at)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise broken_document(name, line, text[at:]) from None
        yield row_or_bad(f"{name}:{line}", value, text[at:end])
        at = after_space(text, end)
        if text[at : at + 1] == ",":
            at = after_space(text, at + 1)
            if text[at : at + 1] == "]":
                raise broken_document(name, line, text[at:])
        elif text[at : at + 1] != "]":
            raise broken_document(name, line + text.count("\n", counted, at), text[at:])
    if rest := text[at + 1 :].strip():
        raise broken_document(name, line, rest)


def after_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def broken_document(name: str, line: int, rest: str) -> DataError:
    found = f"found {snippet(rest, 40)!r}" if rest.strip() else "the file ends there"
    return DataError(
        f"{name} stops being a JSON list at line {line}: {found}\n  fetch it again, or keep it as JSON lines (.jsonl)"
    )


def rows_of_object(text: str, data: bytes, name: str) -> Iterator[Row | Bad]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # not one document: JSON lines are often named .json
        yield from json_lines_of(io.BytesIO(data), name)
        return
    lists = lists_in(value)
    if len(lists) != 1 or is_one_row(value):
        yield row_or_bad(f"{name}:1", value, text)
        return
    for key, items in lists.items():
        for index, item in enumerate(items):
            yield row_or_bad(f"{name}, {key}[{index}]", item)


def lists_in(value: Any) -> dict[str, list[Any]]:
    """The columns of an object that hold lists of objects."""
    columns = value if isinstance(value, dict) else {}
    return {key: item for key, item in columns.items() if isinstance(item, list) and item and isinstance(item[0], dict)}


def is_one_row(value: dict[str, Any]) -> bool:
    """A document {"data": [rows]} is not a row; a lone {"messages": [...]} is."""
    return any(key in STRUCTURED for key in value) or len(value) > 3


def comma_separated(path: Path, name: str) -> Iterator[Row | Bad]:
    """RFC 4180 with a header line; .tsv the same with tabs. Cells are text, those of STRUCTURED columns hold JSON."""
    csv.field_size_limit(MAX_LINE)
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter="\t" if suffix_of(path) == ".tsv" else ",", strict=True)
        try:
            header = next(reader, [])
            refuse_utf16("".join(header)[:2].encode("utf-8", "surrogateescape"), name)
            if twice := sorted({column for column in header if header.count(column) > 1}):
                raise DataError(f"{name} names the column {twice[0]!r} twice\n  give every column a name of its own")
            begins = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield row_of_cells(header, cells, f"{name}:{begins}")
                begins = reader.line_num + 1
        except csv.Error as error:
            hint = "a quote that is never closed swallows the rows after it; mend that line"
            raise DataError(f"{name}:{reader.line_num} is not CSV: {error}\n  {hint}") from None


def row_of_cells(header: list[str], cells: list[str], where: str) -> Row | Bad:
    said = ",".join(cells)
    if not is_storable(said):
        return Bad(where, "not UTF-8", snippet(said.encode("utf-8", "surrogateescape").decode(errors="replace")))
    if len(cells) != len(header):
        return Bad(where, "more or fewer cells than the header", snippet(f"{len(cells)} of {len(header)}: {said}"))
    return Row(where, {column: cell_value(column, cell) for column, cell in zip(header, cells, strict=True)})


def cell_value(column: str, cell: str) -> Any:
    if column in STRUCTURED and cell.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell  # the format says what it wanted instead
    return cell


def parquet(path: Path, name: str) -> Iterator[Row | Bad]:
    """Rows of a parquet file, numbered from 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise NotInstalled("pyarrow", "train", f"reading {name}") from None
    with opened(path) as file:
        try:
            table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if path.suffix.lower() == ".gz" else file)
            number = 0
            for batch in table.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{name}:{number}", value)
        except pyarrow.ArrowException as error:
            raise DataError(f"{name} is not a whole parquet file: {str(error).splitlines()[0]}\n  fetch it again") from None


def text_lines(path: Path, name: str) -> Iterator[Row | Bad]:
    """One text per line; or, where a line says <|endoftext|>, one document between two such lines."""
    document: list[str] = []
    begins = 1
    holds_documents = any(line.strip() == DOCUMENT_END for _, line in numbered_text(path, name))
    for number, line in numbered_text(path, name):
        where = f"{name}:{begins if holds_documents else number}"
        if holds_documents and line.strip() != DOCUMENT_END:
            document.append(line)
        elif holds_documents:
            yield from text_row(where, "\n".join(document).strip())
            document, begins = [], number + 1
        else:
            yield from text_row(where, line)
    yield from text_row(f"{name}:{begins}", "\n".join(document).strip())


def numbered_text(path: Path, name: str) -> Iterator[tuple[int, str]]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                refuse_utf16(line, name)
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def text_row(where: str, text: str) -> Iterator[Row | Bad]:
    if not is_storable(text):
        yield Bad(where, "not UTF-8", snippet(text.encode("utf-8", "surrogateescape").decode(errors="replace")))
    elif text.strip():
        yield Row(where, {"text": text})


READERS: dict[str, Callable[[Path, str], Iterator[Row | Bad]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_document,
    ".csv": comma_separated,
    ".tsv": comma_separated,
    ".parquet": parquet,
    ".txt": text_lines,
}


# --- the hub ---------------------------------------------------------------------------------------------------------------


def hub_sources(repository: str, subset: str | None) -> list[Source]:
    """Every split of a data set on the Hugging Face hub; ``owner/name:subset`` chooses a subset."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise NotInstalled("datasets", "train", f"reading {repository} from the hub") from None
    try:
        splits = load_dataset(repository, subset)
    except Exception as error:  # the library raises a dozen kinds: no network, no such id, no right to it, a choice of subsets
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{repository} is no file here, and the hub did not give it: {said}\n"
            f"  check the name and HF_HUB_OFFLINE / HF_TOKEN; a subset is written {repository}:SUBSET"
        ) from None
    named = {f"{repository}/{split}": (str(split), rows) for split, rows in splits.items()}
    return [Source(name, split, hub_rows(name, rows)) for name, (split, rows) in named.items()]


def hub_rows(name: str, rows: Iterable[Any]) -> Callable[[], Iterator[Row | Bad]]:
    return lambda: (Row(f"{name}:{number}", dict(row)) for number, row in enumerate(rows, start=1))
