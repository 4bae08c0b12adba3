"""What reading a data set found: rows kept, set aside and dropped, each reason with an example, and what the records hold.

Printed by ``prefloop data check`` and at the start of every training. Three fates of a row: *kept*; *set aside*, because it
is sound but holds nothing of the kind asked for (a tree nobody ranked); *dropped*, because it is unreadable, malformed or too
long. Only the last counts against the limit, together with answers that were cut when they were encoded.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefloop.data.rows import snippet
from prefloop.data.turns import split_key
from prefloop.errors import DataError
from prefloop.records import Demonstration, Group, Prompt, Ranking

FEW_UNITS = 20  # prompts or trees; below that a split by prompt is a matter of luck
CUT, TOO_LONG = "an answer cut short", "a prompt too long to keep"

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Finding:
    """How often something occurred, and where to see it once."""

    n: int
    where: str = ""
    snippet: str = ""

    def __str__(self) -> str:
        return f"{self.n:,}" + (f", e.g. {self.where} {self.snippet}".rstrip() if self.where else "")


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths; bins double in width and are named by their bounds."""

    n: int
    median: int
    p90: int
    maximum: int
    bins: dict[str, int]


@dataclass(frozen=True)
class DataReport:
    """Everything the doctor says about one data set."""

    name: str
    format: str
    gives: str
    n_rows: int = 0
    n_kept: int = 0  # rows
    n_records: int = 0
    n_prompts: int = 0  # different ones
    n_units: int = 0  # what a split keeps together: trees, or first turns
    dropped: dict[str, Finding] = field(default_factory=dict)  # by reason
    set_aside: dict[str, Finding] = field(default_factory=dict)
    remarks: dict[str, Finding] = field(default_factory=dict)  # kept, and worth knowing
    completions_per_group: dict[int, int] = field(default_factory=dict)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    by_split: dict[str, int] = field(default_factory=dict)  # records
    unused_columns: tuple[str, ...] = ()
    not_read: tuple[str, ...] = ()  # files or splits left alone
    encoded: dict[str, Finding] = field(default_factory=dict)  # records lost or cut when tokens were made of them
    n_encoded_answers: int = 0  # of how many answers "cut" was counted; 0 = all there are
    n_encoded_prompts: int = 0  # of how many prompts "too long" was counted; 0 = every record's

    @property
    def n_dropped(self) -> int:
        return sum(finding.n for finding in self.dropped.values())

    @property
    def n_answers(self) -> int:
        return sum(k * n for k, n in self.completions_per_group.items()) or self.n_records

    @property
    def share_lost(self) -> float:
        """Rows dropped of the rows there were, answers cut of the answers encoded, prompts too long of the prompts encoded.

        What was held out is read and reported, but not encoded yet, so it must not dilute the share of what was cut. The three
        are added up, at most to 1: whoever allows all to be lost is never refused.
        """
        cut, too_long = (self.encoded.get(reason, Finding(0)).n for reason in (CUT, TOO_LONG))
        answers, prompts = self.n_encoded_answers or self.n_answers, self.n_encoded_prompts or self.n_records
        return min(1.0, self.n_dropped / max(self.n_rows, 1) + cut / max(answers, 1) + too_long / max(prompts, 1))

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def refuse_if_too_many_dropped(self, share: float = 0.05) -> None:
        """DataError (exit 2) where more than this share of the data was lost."""
        if self.share_lost > share:
            lost = [f"    {reason}: {finding}" for reason, finding in {**self.dropped, **self.encoded}.items() if finding.n]
            raise DataError(
                f"{self.name}: {self.share_lost:.1%} of the data cannot be used as it is, and at most {share:.1%} may be lost\n"
                f"  {self.n_rows:,} rows read as {self.format}, {self.n_kept:,} kept\n"
                + "\n".join(lost)
                + "\n  mend these rows, allow longer ones, or raise the share that may be lost (max_dropped)"
            )

    def after_encoding(
        self, *, truncated_answers: int = 0, prompts_too_long: int = 0, answers: int = 0, prompts: int = 0, example: str = ""
    ) -> "DataReport":
        """The report with what was lost when tokens were made, of how many ``answers`` and ``prompts`` (0 = of all). A
        shortened prompt that keeps its answer whole is no loss and is not counted."""
        counts = {CUT: truncated_answers, TOO_LONG: prompts_too_long}
        found = {reason: Finding(n, snippet=snippet(example)) for reason, n in counts.items() if n}
        return replace(self, encoded={**self.encoded, **found}, n_encoded_answers=answers, n_encoded_prompts=prompts)

    def with_splits(self, splits: Mapping[str, Sequence[Any]]) -> "DataReport":
        """The report with the size of each split, and the prompts that are in more than one."""
        shared = prompts_in_several(splits)
        remarks = {**self.remarks, "a prompt in more than one split": shared} if shared.n else self.remarks
        return replace(self, by_split={name: len(records) for name, records in splits.items()}, remarks=remarks)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON, for summary.json."""
        found = {
            name: {reason: vars(f) for reason, f in getattr(self, name).items()}
            for name in ("dropped", "set_aside", "remarks", "encoded")
        }
        return {
            **vars(self),
            **found,
            "n_dropped": self.n_dropped,
            "share_lost": self.share_lost,
            "completions_per_group": {str(k): n for k, n in self.completions_per_group.items()},
            "lengths": {name: vars(lengths) for name, lengths in self.lengths.items()},
            "unused_columns": list(self.unused_columns),
            "not_read": list(self.not_read),
        }

    def lines(self) -> list[str]:
        """The report for a terminal."""
        lines = [
            f"{self.name}: {self.n_rows:,} rows read as {self.format}, giving {self.n_records:,} {self.gives}",
            f"  kept       {self.n_kept:,} rows ({self.n_kept / max(self.n_rows, 1):.1%})",
            *findings_lines("set aside", self.set_aside),
            *findings_lines("dropped", self.dropped),
            *findings_lines("encoding", self.encoded),
            *findings_lines("remarks", self.remarks),
        ]
        if self.gives != "text":
            lines.append(f"  prompts    {self.n_prompts:,} different" + few_units(self))
        if self.completions_per_group:
            lines.append(f"  K          {', '.join(f'{k}: {n:,}' for k, n in self.completions_per_group.items())}")
        if self.by_split:
            lines.append(f"  splits     {', '.join(f'{name}: {n:,}' for name, n in self.by_split.items())}")
        for name, lengths in self.lengths.items():
            lines.append(f"  {name}: median {lengths.median:,}, 90% up to {lengths.p90:,}, longest {lengths.maximum:,}")
            if name.startswith(("answer", "text")):
                lines += histogram(lengths)
        if self.unused_columns:
            lines.append(f"  not used   {', '.join(self.unused_columns)}")
        if self.not_read:
            lines.append(f"  not read   {', '.join(self.not_read)}")
        return lines


def few_units(report: DataReport) -> str:
    if 0 < report.n_units < FEW_UNITS:
        return f"; a split by prompt has only {report.n_units} parts to share out"
    return ""


def findings_lines(title: str, findings: Mapping[str, Finding]) -> list[str]:
    lines = []
    for reason, finding in findings.items():
        lines.append(f"  {title:<10} {finding.n:,}  {reason}")
        if finding.where or finding.snippet:
            lines.append(f"               {finding.where}  {finding.snippet}".rstrip())
        title = ""
    return lines


def histogram(lengths: Lengths) -> list[str]:
    """One bar per bin, the fullest 32 wide."""
    fullest = max(lengths.bins.values(), default=1)
    return [f"    {bounds:>13} {n:>8,} {'#' * max(1, round(32 * n / fullest))}" for bounds, n in lengths.bins.items() if n]


# --- what records hold ------------------------------------------------------------------------------------------------------


class Tally:
    """Counts by reason while rows are read, with the first place each was seen at."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, tuple[str, str]] = {}

    def add(self, reason: str, where: str = "", text: str = "", n: int = 1) -> None:
        self.counts[reason] += n
        self.first.setdefault(reason, (where, snippet(text)))

    def findings(self) -> dict[str, Finding]:
        return {reason: Finding(n, *self.first[reason]) for reason, n in self.counts.most_common()}


def examined(records: Sequence[Any], places: Sequence[str], *, count_tokens: CountTokens | None) -> dict[str, Any]:
    """The fields of a report that depend on the records alone."""
    remarks = Tally()
    for record, where in zip(records, places, strict=True):
        if isinstance(record, Group):
            remark_on_group(record, where, remarks)
    for text, where in repeated(records, places):
        remarks.add("a record that was there before", where, text)
    for text, where in contradictions(records, places):
        remarks.add("a pair ordered both ways by one annotator", where, text)
    k = Counter(len(record.completions) for record in records if isinstance(record, Group))
    prompts = [prompt_behind(record) for record in records if not isinstance(record, str)]
    return {
        "n_records": len(records),
        "n_prompts": len({prompt.id for prompt in prompts}),
        "n_units": len({split_key(prompt) for prompt in prompts}),
        "remarks": remarks.findings(),
        "completions_per_group": dict(sorted(k.items())),
        "lengths": lengths_of(records, count_tokens),
    }


def remark_on_group(group: Group, where: str, remarks: Tally) -> None:
    if not group.rankings:
        remarks.add("a group without a ranking", where, group.prompt.text)
    elif not any(ranking.pairs() for ranking in in_force(group)):
        remarks.add("a group whose answers are all tied: it teaches nothing", where, group.prompt.text)
    empty = [completion for completion in group.completions if completion.content.type == "text" and not completion.text.strip()]
    if empty:
        remarks.add("an empty answer", where, group.prompt.text, len(empty))
    texts = [completion.text for completion in group.completions if completion.content.type == "text"]
    if len(set(texts)) < len(texts):
        remarks.add("a group that shows one text twice", where, group.prompt.text)


def in_force(group: Group) -> list[Ranking]:
    """The rankings that no later one replaces."""
    replaced = {ranking.supersedes for ranking in group.rankings}
    return [ranking for ranking in group.rankings if ranking.id not in replaced]


def prompt_behind(record: Group | Demonstration | Prompt) -> Prompt:
    return record if isinstance(record, Prompt) else record.prompt


def repeated(records: Sequence[Any], places: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Records that say what an earlier one said, and their places."""
    seen = set()
    for record, where in zip(records, places, strict=True):
        said = hash(what_it_says(record))
        if said in seen:
            yield (record if isinstance(record, str) else prompt_behind(record).text), where
        seen.add(said)


def what_it_says(record: Any) -> tuple[Any, ...]:
    """The words of a record without ids and origins: two equal ones are duplicates."""
    if isinstance(record, str):
        return (record,)
    words = tuple((message.role, message.content) for message in prompt_behind(record).messages)
    if isinstance(record, Demonstration):
        return (words, record.completion.text)
    if isinstance(record, Group):
        names = {completion.id: completion.text or completion.id for completion in record.completions}
        orders = tuple(
            sorted((r.annotator, tuple(tuple(sorted(names[c] for c in tier)) for tier in r.tiers)) for r in record.rankings)
        )
        return (words, tuple(sorted(names.values())), orders)
    return (words,)


def contradictions(records: Sequence[Any], places: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Pairs of answers that one annotator put both ways round, each found where the second order stands."""
    seen: defaultdict[Any, set[tuple[int, int]]] = defaultdict(set)
    for record, where in zip(records, places, strict=True):
        if not isinstance(record, Group):
            continue
        words = hash(tuple((message.role, message.content) for message in record.prompt.messages))
        names = {completion.id: hash(completion.text or completion.id) for completion in record.completions}
        for ranking in in_force(record):
            before = seen[words, ranking.annotator]
            pairs = {(names[a], names[b]) for a, b in ranking.pairs()}
            for better, worse in pairs:
                if (worse, better) in before:
                    yield record.prompt.text, where
            before |= pairs


def prompts_in_several(splits: Mapping[str, Sequence[Any]]) -> Finding:
    """How many different prompts are in more than one split."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    words: dict[str, str] = {}
    for name, records in splits.items():
        for record in records:
            if not isinstance(record, str):
                prompt = prompt_behind(record)
                found[prompt.id].add(name)
                words.setdefault(prompt.id, prompt.text)
    shared = [key for key, names in found.items() if len(names) > 1]
    return Finding(len(shared), " and ".join(sorted(found[shared[0]])), snippet(words[shared[0]])) if shared else Finding(0)


def lengths_of(records: Sequence[Any], count_tokens: CountTokens | None) -> dict[str, Lengths]:
    """Lengths of prompts and answers, or of texts, in characters and, where they can be counted, tokens."""
    parts: dict[str, list[str]] = {"prompt": [], "answer": [], "text": []}
    for record in records:
        if isinstance(record, str):
            parts["text"].append(record)
            continue
        parts["prompt"].append("\n".join(message.content for message in prompt_behind(record).messages))
        if isinstance(record, Group):
            parts["answer"] += [completion.text for completion in record.completions]
        elif isinstance(record, Demonstration):
            parts["answer"].append(record.completion.text)
    units: dict[str, CountTokens] = {"characters": len} | ({"tokens": count_tokens} if count_tokens else {})
    return {
        f"{part} {unit}": distribution([count(text) for text in texts])
        for part, texts in parts.items()
        if texts
        for unit, count in units.items()
    }


def distribution(values: Sequence[int]) -> Lengths:
    ordered = sorted(values)
    n = len(ordered)
    widths = Counter(max(value.bit_length(), 4) for value in ordered)  # 0-15, 16-31, 32-63, ...
    bins = {f"{0 if width == 4 else 2 ** (width - 1)}-{2**width - 1}": widths[width] for width in sorted(widths)}
    return Lengths(n=n, median=ordered[(n - 1) // 2], p90=ordered[(9 * n - 1) // 10], maximum=ordered[-1], bins=bins)
