"""The page of run folders: whatever is in config.yaml, meta.json, metrics.jsonl, samples.jsonl and summary.json.

Nothing is expected of a run but that it left some of these files: an interrupted run, one by a later method, or one with
a torn last line still has a page, which says what is missing or unreadable.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prefloop.errors import DataError, nearest_path
from prefloop.report.data import Figure
from prefloop.report.figures import significant, with_interval
from prefloop.report.markup import Child, Html, cut, join, tag
from prefloop.report.plots import Line, panel
from prefloop.report.shell import absent, document, folded, legend, section, table
from prefloop.report.texts import Words, words_of

FILES = ("config.yaml", "meta.json", "metrics.jsonl", "samples.jsonl", "summary.json")
RUN_INKS = ("best_of_n", "ppo", "ppo_ptx", "ppo_overoptimised", "other_0", "other_1", "other_2", "sft")
MOST_PLOTS = 24
MOST_POINTS = 250
MOST_SAMPLES = 20
OPEN_SAMPLES = 3
LONGEST_VALUE = 400
MOST_ROWS = 40


class Problem(NamedTuple):
    """Something missing or unreadable: the key of a sentence and what it names."""

    key: str
    values: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind, read once."""

    name: str
    folder: str
    config: str
    meta: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    problems: tuple[Problem, ...]

    @property
    def method(self) -> str:
        return str(self.meta.get("method", ""))


def read_run(folder: Path) -> RunFolder:
    """Everything readable of one run folder."""
    if not folder.is_dir():
        near = nearest_path(folder, Path.is_dir)
        hint = f"nearest: {near}" if near else "give the folder that a command wrote with --out"
        raise DataError(f"there is no run folder {folder}\n  {hint}")
    if not any((folder / name).is_file() for name in FILES):
        inside = sorted(path.parent.name for path in folder.glob("*/meta.json"))
        hint = f"runs inside it: {', '.join(inside)}" if inside else f"a run folder holds {', '.join(FILES)}"
        raise DataError(f"{folder} is not a run folder\n  {hint}")
    problems: list[Problem] = []
    return RunFolder(
        name=folder.resolve().name,
        folder=str(folder),
        config=read_text(folder / "config.yaml", problems),
        meta=read_object(folder / "meta.json", problems),
        metrics=read_lines(folder / "metrics.jsonl", problems),
        samples=read_lines(folder / "samples.jsonl", problems),
        summary=read_object(folder / "summary.json", problems),
        problems=tuple(problems),
    )


def read_text(path: Path, problems: list[Problem]) -> str:
    """The text of a file; empty, with a note in ``problems``, where there is none to read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing = "run.unfinished" if path.name == "summary.json" else "run.missing_file"
        problems.append(Problem(missing, {"name": path.name}))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("run.broken", {"name": path.name, "why": str(error)}))
    return ""


def read_object(path: Path, problems: list[Problem]) -> dict[str, Any]:
    text = read_text(path, problems)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(Problem("run.broken", {"name": path.name, "why": str(error)}))
        return {}
    if not isinstance(found, dict):
        problems.append(Problem("run.broken", {"name": path.name, "why": type(found).__name__}))
        return {}
    return found


def read_lines(path: Path, problems: list[Problem]) -> tuple[dict[str, Any], ...]:
    """The objects of a JSONL file; a torn line (the last, after a kill) is counted and passed over."""
    rows, torn = [], []
    for index, line in enumerate(read_text(path, problems).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            torn.append(index)
    if torn:
        problems.append(Problem("run.torn", {"name": path.name, "n": len(torn), "line": torn[0]}))
    return tuple(rows)


def render_runs(runs: Sequence[RunFolder], *, lang: str = "en") -> str:
    """One page for one run, or for several side by side."""
    if not runs:
        raise DataError("a page needs at least one run folder, got none")
    words = words_of(lang)
    title = words["run.title"].format(name=runs[0].name) if len(runs) == 1 else words["runs.title"].format(n=len(runs))
    inks = [RUN_INKS[index % len(RUN_INKS)] for index in range(len(runs))]
    return document(
        tag("header", tag("h1", title), *(tag("p", subtitle(run, words)) for run in runs)),
        told(runs, words),
        section("summary", words["run.summary"], *each(runs, summary, words)),
        section("metrics", words["run.metrics"], metrics(runs, inks, words)),
        section("samples", words["run.samples"], *each(runs, samples, words)),
        section("config", words["run.config"], *each(runs, config, words)),
        section("meta", words["run.meta"], *each(runs, meta, words)),
        tag("footer", words["page.footer"]),
        title=title,
        lang=lang,
    )


def subtitle(run: RunFolder, words: Words) -> str:
    return words["run.subtitle"].format(method=run.method or words["missing"], folder=run.folder)


def told(runs: Sequence[RunFolder], words: Words) -> Html | None:
    """What is missing or unreadable, of every run."""
    lines = [
        (f"{run.name}: " if len(runs) > 1 else "") + words[problem.key].format(**problem.values)
        for run in runs
        for problem in run.problems
    ]
    if not lines:
        return None
    listed = tag("ul", *(tag("li", line) for line in lines))
    return tag("div", tag("h2", words["section.warnings"]), listed, class_="warnings", role="note")


def each(runs: Sequence[RunFolder], make: Callable[[RunFolder, Words], Html], words: Words) -> list[Html]:
    """One part of every run, under its name where there are several."""
    return [join(tag("h3", run.name) if len(runs) > 1 else None, make(run, words)) for run in runs]


def summary(run: RunFolder, words: Words) -> Html:
    return listing(run.summary, words)


def meta(run: RunFolder, words: Words) -> Html:
    return listing(run.meta, words)


def config(run: RunFolder, words: Words) -> Html:
    return tag("pre", cut(run.config, words["cut"], 20_000)) if run.config.strip() else absent(words)


def listing(content: dict[str, Any], words: Words) -> Html:
    """A nested object as names and values, dotted where it nests."""
    if not content:
        return absent(words)
    pairs = list(flat(content, words))
    return tag("dl", *(part for name, value in pairs for part in (tag("dt", in_words(name, words)), tag("dd", value))))


def in_words(name: str, words: Words) -> Html:
    """A name of the files in words, and below it as the files have it; where only its beginning is known, that in words."""
    known = words.get(f"name.{name}")
    head, dot, rest = name.partition(".")
    if known is None and dot and f"name.{head}" in words:
        known = f"{words[f'name.{head}']} · {words.get(f'name.{rest}', rest)}"
    return join(known, tag("small", name, class_="mono")) if known and known != name else join(name)


def flat(content: dict[str, Any], words: Words, prefix: str = "") -> Iterator[tuple[str, Child]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if (
            isinstance(value, dict)
            and is_number(value.get("mean"))
            and is_number(value.get("low"))
            and is_number(value.get("high"))
        ):
            yield name, interval_of(value)
        elif isinstance(value, dict) and value:
            yield from flat(value, words, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            yield name, rows_of(value, words)
        else:
            yield name, cut(written(value, words), words["cut"], LONGEST_VALUE)


def rows_of(items: Sequence[dict[str, Any]], words: Words) -> Html:
    """A list of objects as a table that is folded; what lies deeper in them is dotted."""
    rows = [dict(flat(item, words)) for item in items[:MOST_ROWS]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = [words.get(f"name.{name}", name) for name in names]
    shown = table(heads, [[row.get(name, "") for name in names] for row in rows], class_="plain")
    more = tag("p", words["run.rows_more"].format(n=f"{len(items) - MOST_ROWS:,}")) if len(items) > MOST_ROWS else None
    return folded(words["run.rows"].format(n=f"{len(items):,}"), shown, more)


def interval_of(value: dict[str, Any]) -> str:
    low, high = sorted((value["low"], value["high"]))
    n = f", n\u00a0{value['n']:,}" if isinstance(value.get("n"), int) else ""
    return with_interval(Figure(mean=value["mean"], low=low, high=high)) + n


def written(value: Any, words: Words) -> str:
    if value is None:
        return words["missing"]
    if is_number(value):
        return f"{value:,}".replace("-", "−") if isinstance(value, int) else significant(value)
    if isinstance(value, bool):
        return words["yes" if value else "no"]
    if isinstance(value, (list, dict)) and not value:
        return words["none"]
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return words["comma"].join(written(item, words) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def metrics(runs: Sequence[RunFolder], inks: Sequence[str], words: Words) -> Html:
    """Every metric that moved as a small plot (all runs in it), and every metric in a table."""
    if not any(run.metrics for run in runs):
        return absent(words)
    names = list(
        dict.fromkeys(name for run in runs for row in run.metrics for name in row if name != "step" and is_number(row[name]))
    )
    moving = [name for name in names if any(moves(run, name) for run in runs)]
    plots = [plot(index, name, runs, inks, words) for index, name in enumerate(moving[:MOST_PLOTS])]
    figures = [tag("figure", tag("figcaption", in_words(name, words)), drawn) for name, drawn in zip(moving, plots, strict=False)]
    return join(
        *(tag("p", note) for note in metric_notes(runs, len(moving), words)),
        legend([(ink, run.name) for ink, run in zip(inks, runs, strict=True)]) if len(runs) > 1 else None,
        tag("div", *figures, class_="panels"),
        *(folded(f"{words['figures']}: {run.name}", metric_table(run, names, words)) for run in runs),
    )


def metric_notes(runs: Sequence[RunFolder], n_moving: int, words: Words) -> list[str]:
    """How much there is, and what of it is not drawn."""
    notes = [
        (f"{run.name}: " if len(runs) > 1 else "") + words["run.metrics_text"].format(n=f"{len(run.metrics):,}", **ends(run))
        for run in runs
        if run.metrics
    ]
    thin = max(stride(len(run.metrics)) for run in runs)
    left_out = [words["run.thinned"].format(n=thin)] if thin > 1 else []
    left_out += [words["run.undrawn"].format(n=n_moving - MOST_PLOTS)] if n_moving > MOST_PLOTS else []
    return [*notes, " ".join(left_out)] if left_out else notes


def ends(run: RunFolder) -> dict[str, str]:
    steps = [row.get("step", "?") for row in run.metrics]
    return {"first": str(steps[0]), "last": str(steps[-1])}


def moves(run: RunFolder, name: str) -> bool:
    """Whether a metric took two different finite values: a constant is better read than drawn."""
    return len({value for value in values_of(run, name) if math.isfinite(value)}) > 1


def values_of(run: RunFolder, name: str) -> list[float]:
    return [row[name] for row in run.metrics if is_number(row.get(name))]


def stride(n: int) -> int:
    return math.ceil(n / MOST_POINTS) if n > MOST_POINTS else 1


def plot(index: int, name: str, runs: Sequence[RunFolder], inks: Sequence[str], words: Words) -> Html:
    lines = [line for run, ink in zip(runs, inks, strict=True) if (line := metric_line(run, name, ink))]
    return panel(
        lines, name=f"metric{index}", title=name, x_label=words["plot.step"], y_label="", whole_x=True, inches=(3.7, 2.4)
    )


def metric_line(run: RunFolder, name: str, ink: str) -> Line | None:
    """A metric over steps, thinned to what a small plot can show; the last point is always there."""
    points = [
        (float(row["step"]) if is_number(row.get("step")) else float(index), float(row[name]))
        for index, row in enumerate(run.metrics)
        if is_number(row.get(name))
    ]
    if not points:
        return None
    every = stride(len(points))
    kept = points[::every] + ([points[-1]] if (len(points) - 1) % every else [])
    return Line(x=[x for x, _ in kept], y=[y for _, y in kept], ink=ink)


def metric_table(run: RunFolder, names: Sequence[str], words: Words) -> Html:
    heads = [words[f"column.{key}"] for key in ("key", "first", "last", "smallest", "largest")]
    rows = []
    for name in names:
        values = values_of(run, name)
        finite = [value for value in values if math.isfinite(value)]
        if values:
            extremes = (significant(min(finite)), significant(max(finite))) if finite else ("–", "–")
            rows.append([in_words(name, words), significant(values[0]), significant(values[-1]), *extremes])
    return table(heads, rows, class_="plain") if rows else absent(words)


def samples(run: RunFolder, words: Words) -> Html:
    """The last answers the run wrote down; all of it is text."""
    if not run.samples:
        return absent(words)
    shown = run.samples[-MOST_SAMPLES:]
    note = words["run.samples_some"].format(shown=len(shown), n=f"{len(run.samples):,}")
    blocks = [sample(row, words, is_open=index < OPEN_SAMPLES) for index, row in enumerate(shown)]
    return join(tag("p", note), *blocks)


def sample(row: dict[str, Any], words: Words, *, is_open: bool) -> Html:
    """One line of samples.jsonl: its prompt, every text in it, and the numbers beside them."""
    prompt = as_text(row.get("prompt", ""))
    texts = [
        (key, as_text(value)) for key, value in row.items() if key != "prompt" and not is_number(value) and value is not None
    ]
    numbers = [f"{words.get(f'name.{key}', key)} {written(value, words)}" for key, value in row.items() if is_number(value)]
    blocks = [
        tag(
            "div",
            tag("h4", in_words(key, words)),
            tag("div", cut(text, words["cut"]), class_="text", dir="auto") if text.strip() else words["samples.empty"],
        )
        for key, text in texts
    ]
    body = tag("div", *blocks, class_="answers") if blocks else None
    return folded(
        cut(prompt, words["cut"], 600) or words["samples.empty"], body, tag("small", " · ".join(numbers)), is_open=is_open
    )


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
