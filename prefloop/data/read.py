"""Any accepted file, folder or hub id as records, with a report of what happened to every row.

    reading = read_groups("pairs.jsonl.gz")
    reading.report.lines()                      # what a person reads
    reading.refuse_if_too_many_dropped(0.05)    # DataError, exit 2
    reading.records                             # list[Group]

A richer format serves a poorer question: rankings give demonstrations (the best answer) and prompts. docs/data.md lists the
formats. In a folder or on the hub whose parts are named train, validation or test, ``split`` chooses, and train is the default.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from prefloop.data.doctor import CountTokens, DataReport, Tally, examined, in_force, prompt_behind
from prefloop.data.formats import (
    FORMATS,
    SAMPLE,
    Mapped,
    check_mapping,
    columns_of,
    converted,
    mapped,
    named,
    recognise,
)
from prefloop.data.rows import Bad, Row, Source, sources, suffix_of
from prefloop.data.trees import Aside
from prefloop.errors import DataError
from prefloop.records import Demonstration, Group, Prompt

T = TypeVar("T")
AsWanted = Callable[[Any], Any]


@dataclass(frozen=True)
class Reading(Generic[T]):
    """The records of a data set and the report on them."""

    records: list[T]
    report: DataReport

    def refuse_if_too_many_dropped(self, share: float = 0.05) -> "Reading[T]":
        """Itself, or DataError where more than ``share`` of the data cannot be used."""
        self.report.refuse_if_too_many_dropped(share)
        return self


class How(NamedTuple):
    """The settings every reader takes."""

    format: str  # a name in formats.FORMATS, or auto
    mapping: Mapped | None  # our column: theirs, dotted for nested values, items[].inner for lists
    split: str
    name: str  # what records say they came from
    count_tokens: CountTokens | None


def read_groups(
    source: str | Path,
    *,
    format: str = "auto",
    mapping: Mapped | None = None,
    split: str = "",
    name: str = "",
    allow_unranked: bool = False,
    count_tokens: CountTokens | None = None,
) -> Reading[Group]:
    """Prompts with their ranked answers. Groups nobody has ranked are set aside unless ``allow_unranked``."""
    as_wanted = as_it_is if allow_unranked else as_ranked_group
    return read(source, "groups", as_wanted, How(format, mapping, split, name, count_tokens))


def read_demonstrations(
    source: str | Path,
    *,
    format: str = "auto",
    mapping: Mapped | None = None,
    split: str = "",
    name: str = "",
    count_tokens: CountTokens | None = None,
) -> Reading[Demonstration]:
    """Prompts with an answer to imitate; of ranked answers the best, the first of them where several tie."""
    return read(source, "demonstrations", as_demonstration, How(format, mapping, split, name, count_tokens))


def read_prompts(
    source: str | Path,
    *,
    format: str = "auto",
    mapping: Mapped | None = None,
    split: str = "",
    name: str = "",
    count_tokens: CountTokens | None = None,
) -> Reading[Prompt]:
    """Prompts alone, each once, in the order of their first appearance."""
    reading = read(source, "prompts", as_prompt, How(format, mapping, split, name, count_tokens))
    once: dict[str, Prompt] = {}
    for prompt in reading.records:
        once.setdefault(prompt.id, prompt)
    return Reading(list(once.values()), replace(reading.report, n_records=len(once)))


def read_text(
    source: str | Path,
    *,
    format: str = "auto",
    mapping: Mapped | None = None,
    split: str = "",
    name: str = "",
    count_tokens: CountTokens | None = None,
) -> Reading[str]:
    """Texts: the lines of a .txt file, the documents between its <|endoftext|> lines, or a column ``text``."""
    return read(source, "text", as_it_is, How(format, mapping, split, name, count_tokens))


def check(
    source: str | Path,
    *,
    format: str = "auto",
    mapping: Mapped | None = None,
    split: str = "",
    name: str = "",
    count_tokens: CountTokens | None = None,
) -> DataReport:
    """The report on a data set as what it is; on every split of it where none is named, with the prompts they share."""
    parts, not_read = chosen(sources(source), split, source, every_split=True)
    how = How(format, mapping, split, name or name_of(source), count_tokens)
    report = read_parts(parts, None, None, how, str(source)).report
    return replace(report, not_read=tuple(part.name for part in not_read))


# --- one record as another ---------------------------------------------------------------------------------------------------


class NotWanted(NamedTuple):
    """Why a sound record answers another question than the one asked."""

    reason: str


def as_it_is(record: Any) -> Any:
    return record


def as_ranked_group(group: Group) -> Group | NotWanted:
    return group if group.rankings else NotWanted("answers that nobody ranked")


def as_demonstration(record: Prompt | Demonstration | Group) -> Demonstration | NotWanted:
    if isinstance(record, Prompt):
        return NotWanted("a conversation that nobody answered")
    if isinstance(record, Demonstration):
        return record
    best = next((ranking.tiers[0] for ranking in in_force(record) if ranking.tiers and ranking.pairs()), ())
    answer = next((completion for completion in record.completions if completion.id in best and completion.text.strip()), None)
    if answer is None:
        return NotWanted("no answer that stands above another")
    return Demonstration(prompt=record.prompt, completion=answer)


def as_prompt(record: str | Prompt | Demonstration | Group) -> Prompt:
    if isinstance(record, str):
        return Prompt.of(record)
    return record if isinstance(record, Prompt) else record.prompt


AS_IT_IS = {"groups": as_it_is, "demonstrations": as_demonstration, "prompts": as_it_is, "text": as_it_is}


# --- reading -----------------------------------------------------------------------------------------------------------------


def read(source: str | Path, want: str, as_wanted: AsWanted, how: How) -> Reading[Any]:
    """Records of one kind; ``as_wanted`` makes them of what the format gives, or says why it cannot."""
    parts, not_read = chosen(sources(source), how.split, source, every_split=False)
    reading = read_parts(parts, want, as_wanted, how._replace(name=how.name or name_of(source)), str(source))
    report = replace(reading.report, not_read=tuple(part.name for part in not_read))
    if not reading.records:
        reasons = [f"  {reason}: {finding}" for reason, finding in {**report.dropped, **report.set_aside}.items()]
        raise DataError(f"{source} gives no {want}: none of its {report.n_rows:,} rows can be used\n" + "\n".join(reasons))
    return Reading(reading.records, report)


def name_of(source: str | Path) -> str:
    """What records say they came from: pairs for pairs.jsonl.gz, the folder's name, the hub id."""
    path = Path(source)
    if path.is_dir():
        return path.resolve().name
    if path.exists():
        return path.name[: path.name.lower().rindex(suffix_of(path))]
    return str(source)


def chosen(parts: Sequence[Source], split: str, source: str | Path, *, every_split: bool) -> tuple[list[Source], list[Source]]:
    """The parts to read and those left alone."""
    splits = list(dict.fromkeys(part.split for part in parts if part.split))
    if split and split not in splits:
        raise DataError(f"{source} has no split {split!r}\n  its splits: {', '.join(splits) or 'none; leave split out'}")
    if not splits:
        return list(parts), []
    if not split and not every_split and len(splits) > 1 and "train" not in splits:
        raise DataError(f"{source} has several splits, none called train: {', '.join(splits)}\n  say which: split={splits[0]}")
    wanted = [split] if split else splits if every_split else ["train"] if "train" in splits else splits
    return [part for part in parts if part.split in wanted], [part for part in parts if part.split not in wanted]


def read_parts(parts: Sequence[Source], want: str | None, as_wanted: AsWanted | None, how: How, where: str) -> Reading[Any]:
    """Every row of some parts, all of one format, and the tally of what became of it."""
    samples = {part.name: sample_of(part, how.mapping) for part in parts}
    format = common_format(samples, want, how, where, parts)
    as_wanted = as_wanted or AS_IT_IS[FORMATS[format].gives]
    rows = Rows(parts, how.mapping)
    aside, remarks = Tally(), Tally()
    records, places, n_kept = [], [], 0
    for outcome in converted(rows, format, how.name):
        if isinstance(outcome, Bad):
            rows.dropped.add(outcome.reason, outcome.where, outcome.snippet)
            continue
        if isinstance(outcome, Aside):
            aside.add(outcome.reason, outcome.where, outcome.snippet)
            continue
        record = as_wanted(outcome.record)
        if isinstance(record, NotWanted):
            aside.add(record.reason, outcome.where, prompt_behind(outcome.record).text, outcome.rows)
            continue
        n_kept += outcome.rows
        for remark in outcome.remarks:
            remarks.add(remark, outcome.where)
        records.append(record)
        places.append(outcome.where)
    facts = examined(records, places, count_tokens=how.count_tokens)
    report = DataReport(
        name=where,
        format=format,
        gives=want or FORMATS[format].gives,
        n_rows=rows.n,
        n_kept=n_kept,
        dropped=rows.dropped.findings(),
        set_aside=aside.findings(),
        unused_columns=unused_columns(samples.values(), format),
        **{**facts, "remarks": {**remarks.findings(), **facts["remarks"]}},
    )
    return Reading(records, with_splits(report, parts, records, [rows.split_of[place] for place in places]))


def with_splits(report: DataReport, parts: Sequence[Source], records: Sequence[Any], splits: Sequence[str]) -> DataReport:
    names = list(dict.fromkeys(part.split for part in parts))
    if len(names) < 2:
        return report
    by_name = {name: [record for record, split in zip(records, splits, strict=True) if split == name] for name in names}
    return report.with_splits(by_name)


class Rows:
    """The readable rows of some parts, with our names for their columns; the others are dropped, and counted, as they pass."""

    def __init__(self, parts: Sequence[Source], mapping: Mapped | None):
        self.parts, self.mapping = parts, mapping
        self.dropped = Tally()
        self.n = 0
        self.split_of: dict[str, str] = {}

    def __iter__(self) -> Iterator[Row]:
        return mapped(self.readable(), self.mapping) if self.mapping else self.readable()

    def readable(self) -> Iterator[Row]:
        for part in self.parts:
            for row in part.rows():
                self.n += 1
                self.split_of[row.where] = part.split
                if isinstance(row, Bad):
                    self.dropped.add(row.reason, row.where, row.snippet)
                else:
                    yield row


def sample_of(part: Source, mapping: Mapped | None) -> list[Row]:
    """The first readable rows of a part, as the formats will see them."""
    rows = [row for row in islice(part.rows(), 4 * SAMPLE) if isinstance(row, Row)][:SAMPLE]
    if mapping and rows:
        check_mapping(mapping, rows, part.name)
        return list(mapped(rows, mapping))
    return rows


def common_format(samples: Mapping[str, Sequence[Row]], want: str | None, how: How, where: str, parts: Sequence[Source]) -> str:
    """The one format of all parts."""
    recognised = recognise if how.format == "auto" else named(how.format)
    formats = {part: recognised(sample, want=want, where=part) for part, sample in samples.items() if sample}
    if not formats:
        raise nothing_to_read(parts, where)
    if len(set(formats.values())) > 1:
        listed = "\n".join(f"  {part}: {format}" for part, format in formats.items())
        raise DataError(f"the files of {where} are of several formats\n{listed}\n  name one file, or keep one format to a folder")
    return next(iter(formats.values()))


def nothing_to_read(parts: Sequence[Source], where: str) -> DataError:
    bad = next((row for part in parts for row in part.rows() if isinstance(row, Bad)), None)
    if bad is None:
        return DataError(f"{where} is empty: it holds no row\n  give a file with one record a line")
    return DataError(f"no row of {where} can be read\n  {bad.where}, {bad.reason}: {bad.snippet}\n  is it what its ending says?")


def unused_columns(samples: Iterable[Sequence[Row]], format: str) -> tuple[str, ...]:
    used = FORMATS[format].columns
    return tuple(dict.fromkeys(column for sample in samples for column in columns_of(sample) if column not in used))
