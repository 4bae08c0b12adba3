"""The files of an export, each of which counts its lines while it is written and knows its hash at the end."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from prefloop.errors import NotInstalled

Json = dict[str, Any]
BATCH = 20_000  # rows of a Parquet file that are held at once


class Lines:
    """JSON lines, or a row of CSV each."""

    def __init__(self, path: Path, columns: tuple[str, ...] = ()):
        self.path, self.columns, self.n, self.hash = path, columns, 0, hashlib.sha256()
        self.file: IO[bytes]

    def __enter__(self) -> "Lines":
        self.file = self.path.open("wb")
        if self.columns:
            self.put(csv_row(self.columns))
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def write(self, line: Json) -> None:
        self.n += 1
        self.put(csv_row(line.values()) if self.columns else json.dumps(line, ensure_ascii=False) + "\n")

    def put(self, text: str) -> None:
        data = text.encode()
        self.hash.update(data)
        self.file.write(data)


class Columns:
    """Rows of a Parquet file: text, but for the columns that are said to be numbers."""

    def __init__(self, path: Path, columns: tuple[str, ...], numbers: dict[str, str]):
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError:
            raise NotInstalled("pyarrow", "train", "writing Parquet") from None
        self.path, self.n, self.hash, self.rows = path, 0, hashlib.sha256(), list[Json]()
        types = {column: getattr(pyarrow, numbers.get(column, "string"))() for column in columns}
        self.schema = pyarrow.schema(list(types.items()))
        self.batch = pyarrow.RecordBatch.from_pylist
        self.file = pyarrow.parquet.ParquetWriter(path, self.schema)

    def __enter__(self) -> "Columns":
        return self

    def __exit__(self, *raised: object) -> None:
        if not any(raised):
            self.flush()
        self.file.close()
        with self.path.open("rb") as file:
            self.hash = hashlib.file_digest(file, "sha256")

    def write(self, line: Json) -> None:
        self.n += 1
        self.rows.append(line)
        if len(self.rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.file.write_batch(self.batch(self.rows, schema=self.schema))
            self.rows = []


def csv_row(values: Iterable[Any]) -> str:
    """A row no spreadsheet takes for a formula."""
    row = io.StringIO()
    csv.writer(row).writerow([harmless(value) for value in values])
    return row.getvalue()


def harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def described(path: Path, files: dict[str, Lines | Columns]) -> Json:
    """What the manifest says of a file; ``files`` are those with lines."""
    if path.name in files:
        lines = files[path.name]
        return {"sha256": lines.hash.hexdigest(), "bytes": path.stat().st_size, "lines": lines.n}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
