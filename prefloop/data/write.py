"""Records out: JSON lines (gzipped where the name ends in .gz), pairs for trainers that know no more, and splits.

What is written is what is read back, bit for bit; files appear whole or not at all, and equal records make equal bytes.
"""

import errno
import gzip
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from prefloop.data.doctor import DataReport, in_force, prompt_behind
from prefloop.data.formats import Mapped
from prefloop.data.read import read_demonstrations, read_groups, read_prompts
from prefloop.data.turns import split_key
from prefloop.errors import DataError, RunError
from prefloop.records import Demonstration, Group, Prompt, Ranking, Record

R = TypeVar("R", Group, Demonstration, Prompt)


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """One group a line: prefloop's own kway JSONL. The number of lines written."""
    return write_lines(path, map(as_line, groups))


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> int:
    """One prompt a line."""
    return write_lines(path, map(as_line, prompts))


def write_demonstrations(path: str | Path, demonstrations: Iterable[Demonstration]) -> int:
    """One demonstration a line."""
    return write_lines(path, map(as_line, demonstrations))


def write_preferences(path: str | Path, groups: Iterable[Group]) -> int:
    """TRL's explicit, conversational preference format: every ordered pair of every ranking a line. Ties and ids are lost."""
    return write_lines(path, (line for group in groups for line in preference_lines(group)))


def as_line(record: Record) -> str:
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False)


def preference_lines(group: Group) -> Iterator[str]:
    prompt = [message.model_dump() for message in group.prompt.messages]
    text = {completion.id: completion.text for completion in group.completions}
    for ranking in in_force(group):
        for better, worse in ranking.pairs():
            sides = {"chosen": [spoken(text[better])], "rejected": [spoken(text[worse])]}
            yield json.dumps({"prompt": prompt, **sides}, ensure_ascii=False)


def spoken(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str = "kway",
    format: str = "auto",
    mapping: Mapped | None = None,
    split: str = "",
    name: str = "",
) -> DataReport:
    """A data set in another format: kway, trl (preference pairs), demonstrations or prompts. The report is of the reading."""
    if to not in CONVERSIONS:
        raise DataError(f"there is no conversion to {to!r}\n  known: {', '.join(CONVERSIONS)}")
    read, write = CONVERSIONS[to]
    reading = read(source, format=format, mapping=mapping, split=split, name=name)
    write(destination, reading.records)
    return reading.report


CONVERSIONS: dict[str, tuple[Callable[..., Any], Callable[..., int]]] = {
    "kway": (read_groups, write_groups),
    "trl": (read_groups, write_preferences),
    "demonstrations": (read_demonstrations, write_demonstrations),
    "prompts": (read_prompts, write_prompts),
}


# --- files ------------------------------------------------------------------------------------------------------------------


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """Lines of JSON to a .jsonl or .jsonl.gz file, which takes the place of an old one only when it is whole."""
    path = Path(path)
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path} must end in .jsonl or .jsonl.gz: records are written as JSON lines")
    n = 0
    with replacing(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")
            n += 1
    return n


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file beside the wanted one, moved into its place at the end; nothing is left of it if anything goes wrong."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as raw:
            if path.suffix.lower() == ".gz":
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:  # no name, no time: equal bytes
                    yield packed  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        beside.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(f"the disk is full: {path} was not written, and what stood there before is untouched") from error
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if beside.exists():
            beside.unlink()


# --- pairs and splits --------------------------------------------------------------------------------------------------------


def as_pairs(groups: Iterable[Group]) -> list[Group]:
    """Every ordered pair of every ranking as a group of its own with K = 2, in the order of the groups."""
    return [pair for group in groups for ranking in in_force(group) for pair in pairs_of(group, ranking)]


def pairs_of(group: Group, ranking: Ranking) -> Iterator[Group]:
    completions = {completion.id: completion for completion in group.completions}
    for better, worse in ranking.pairs():
        is_unusable = worse in ranking.unusable
        said = Ranking(
            prompt_id=group.prompt.id,
            tiers=((better,),) if is_unusable else ((better,), (worse,)),
            unusable=(worse,) if is_unusable else (),
            shown=(better, worse),
            annotator=ranking.annotator,
        )
        yield Group(prompt=group.prompt, completions=(completions[better], completions[worse]), rankings=(said,))


def split_by_prompt(
    records: Sequence[R], *, held_out: float, seed: int, key: Callable[[Prompt], str] = split_key
) -> tuple[list[R], list[R]]:
    """Training and held-out records, each in their order. Equal keys stay together: by default a tree, or a first turn.

    The side of a key is a hash of it and the seed, so that more records never move a prompt, and about ``held_out`` of the
    keys (not exactly, and of the records even less so) are held out.
    """
    if not 0 <= held_out < 1:
        raise DataError(f"the held-out share must be at least 0 and below 1, got {held_out}")
    keys = [key(prompt_behind(record)) for record in records]
    refuse_torn_prompts(records, keys)
    is_held_out = [place_of(key, seed) < held_out for key in keys]
    train = [record for record, out in zip(records, is_held_out, strict=True) if not out]
    return train, [record for record, out in zip(records, is_held_out, strict=True) if out]


def place_of(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the key and the seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) / 2**64


def refuse_torn_prompts(records: Sequence[Group | Demonstration | Prompt], keys: Sequence[str]) -> None:
    """One prompt under two keys could be on both sides."""
    keys_of: defaultdict[str, set[str]] = defaultdict(set)
    for record, key in zip(records, keys, strict=True):
        keys_of[prompt_behind(record).id].add(key)
    if torn := next((prompt for prompt, found in keys_of.items() if len(found) > 1), None):
        raise DataError(
            f"prompt {torn} belongs to {len(keys_of[torn])} trees: {', '.join(sorted(keys_of[torn]))}\n"
            f"  a split cannot keep both whole; give these prompts one tree tag, or another key"
        )
