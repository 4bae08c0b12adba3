"""The two tables of the answer: the policies side by side, and every paired difference between them."""

from collections.abc import Sequence
from typing import NamedTuple

from prefloop.report.data import ROWS, Figure, Paired, ReportData, Row
from prefloop.report.figures import number, sample_of, with_interval
from prefloop.report.findings import (
    difference,
    direction,
    fluency_name,
    in_short,
    is_chooser,
    is_share,
    metric_name,
    place,
    policy_name,
    sample_size,
)
from prefloop.report.markup import Child, Html, join, tag
from prefloop.report.plots import finite_range, ink_of
from prefloop.report.shell import absent, cell, folded, table, whisker
from prefloop.report.texts import Words


class Column(NamedTuple):
    """One metric of every policy, and how it is written."""

    label: str
    figures: list[Figure | None]
    as_percent: bool = False
    digits: int = 2

    def size(self, words: Words) -> str:
        """The sample of most figures of the column: it stands in the heading, once, and others in their cells."""
        sizes = [size for figure in self.figures if figure is not None and (size := sample_of(figure, words))]
        return max(dict.fromkeys(sizes), key=sizes.count, default="")

    def heading(self, words: Words) -> str:
        size = self.size(words)
        return f"{self.label} ({size})".replace(",\u00a0", ", ") if size else self.label

    def cell(self, index: int, words: Words) -> Child:
        figure = self.figures[index]
        has_n = figure is not None and sample_of(figure, words) != self.size(words)
        return cell(figure, words, as_percent=self.as_percent, digits=self.digits, has_n=has_n)


def side_by_side(data: ReportData, words: Words) -> Html:
    """One row per policy: every figure with its interval and sample size."""
    if not data.rows:
        return absent(words)
    rows = in_page_order(data)
    columns = columns_of(rows, in_short(data, words), words)
    scale = finite_range(*([figure.mean, figure.low, figure.high] for figure in columns[0].figures if figure)) or (0.0, 0.0)
    inks = [ink_of(row.name, [row.name for row in rows]) for row in rows]
    written = []
    for index, row in enumerate(rows):
        cells = [column.cell(index, words) for column in columns]
        cells[0] = join(cells[0], whisker(row.gold, scale, ink=inks[index]))
        if is_chooser(row.name, data) and row.kl is not None:
            cells[2] = join("≤ ", cells[2])
        if row.name == data.against(row.name):  # its own rate against itself says nothing, and its distance is 0
            cells[1] = tag("span", words["reference"], class_="muted")
            cells[2] = tag("b", number(0.0)) if row.kl else cells[2]
        written.append([row_name(row, words), *cells])
    return table([words["column.policy"], *(column.heading(words) for column in columns)], written, class_="stacked policies")


def in_page_order(data: ReportData) -> list[Row]:
    """The stable names first, then the others as the study has them; the baseline before everything it is compared with."""
    rows = sorted(data.rows, key=lambda row: place(row.name))
    return sorted(rows, key=lambda row: row.name != data.baseline) if data.baseline not in ROWS else rows


def how_answers_read(data: ReportData, words: Words) -> Html | None:
    """Surprise and repetition of every policy's answers, where a study asked for them."""
    figures = list(dict.fromkeys(name for row in data.rows for name in row.fluency))
    if not figures:
        return None
    rows = in_page_order(data)
    columns = [
        Column(fluency_name(name, words), [row.fluency.get(name) for row in rows], is_share(f"fluency/{name}"), digits=3)
        for name in figures
    ]
    written = [[row_name(row, words), *(column.cell(index, words) for column in columns)] for index, row in enumerate(rows)]
    return join(
        tag("h3", words["fluency.title"]),
        table([words["column.policy"], *(column.heading(words) for column in columns)], written, class_="stacked policies"),
        tag("p", words["fluency.text"].format(baseline=words.get(f"model.{data.baseline}", data.baseline)), class_="rule"),
    )


def row_name(row: Row, words: Words) -> Html:
    """The name people read, and below it the one that summary.json has."""
    name = policy_name(row.name, words)
    return join(name, tag("small", row.name, class_="mono") if name != row.name else None)


def columns_of(rows: Sequence[Row], baseline: str, words: Words) -> list[Column]:
    skills = list(dict.fromkeys(name for row in rows for name in row.skill))
    named = [Column(words["column.skill"].format(name=name), [row.skill.get(name) for row in rows], True) for name in skills]
    return [
        Column(words["column.gold"], [row.gold for row in rows]),
        Column(words["column.win"].format(baseline=baseline), [row.win for row in rows], True),
        Column(words["column.kl"].format(baseline=baseline), [row.kl for row in rows]),
        Column(words["column.length"], [row.length for row in rows], digits=1),
        Column(words["column.proxy"], [row.proxy for row in rows]),
        *(named or [Column(words["metric.skill"], [None for _ in rows])]),
    ]


def every_difference(data: ReportData, words: Words) -> Html:
    """All paired differences, also those that separate nothing."""
    if not data.paired and not data.reward_pairs:
        return absent(words)
    heads = [words[f"column.{key}"] for key in ("pair", "metric", "difference", "interval", "drawn", "n", "verdict")]
    ordered = [
        pair
        for part in (data.paired, data.reward_pairs)  # policies first
        for pair in sorted(part, key=lambda pair: (pair.metric, place(pair.a), place(pair.b)))
    ]
    by_metric = {pair.metric: [other for other in ordered if other.metric == pair.metric] for pair in ordered}
    rows = [difference_row(pair, symmetric(by_metric[pair.metric]), words) for pair in ordered]
    return join(
        tag("p", words["paired.text"].format(n=len(ordered), open=sum(direction(pair) == "open" for pair in ordered))),
        folded(words["paired.all"].format(n=len(ordered)), table(heads, rows, class_="stacked")),
    )


def gold_picture(data: ReportData, words: Words) -> Html | None:
    """The decision as a picture: gold of every policy with its interval, and a line where the baseline stands."""
    rows = [row for row in in_page_order(data) if row.gold]
    if len(rows) < 2:
        return None
    scale = finite_range(*([row.gold.mean, row.gold.low, row.gold.high] for row in rows if row.gold)) or (0.0, 1.0)
    baseline = data.row(data.baseline)
    at = baseline.gold.mean if baseline and baseline.gold else None
    inks = {row.name: ink_of(row.name, [one.name for one in rows]) for row in rows}
    drawn = [
        tag(
            "li",
            tag("b", policy_name(row.name, words)),
            whisker(row.gold, scale, ink=inks[row.name], at=at, width=480),
            tag("span", with_interval(row.gold)),
        )
        for row in rows
        if row.gold
    ]
    key = words["picture.gold" if at is not None else "picture.alone"].format(
        baseline=words.get(f"model.{data.baseline}", data.baseline)
    )
    return tag("figure", tag("ul", *drawn), tag("figcaption", key), class_="picture")


def difference_row(pair: Paired, scale: tuple[float, float], words: Words) -> list[Child]:
    verdict = direction(pair)
    mean, _, ends = difference(pair, words).partition(" ")
    return [
        f"{policy_name(pair.a, words)} − {policy_name(pair.b, words)}",
        metric_name(pair.metric, words),
        tag("b", mean),
        ends,
        whisker(Figure(mean=pair.mean, low=pair.low, high=pair.high), scale, at=0.0),
        sample_size(pair, words),
        tag("span", words[f"verdict.{verdict}"], class_="muted" if verdict == "open" else None),
    ]


def symmetric(pairs: Sequence[Paired]) -> tuple[float, float]:
    """A scale with 0 in its middle that holds every interval of one metric."""
    ends = finite_range([end for pair in pairs for end in (pair.low, pair.high)])
    reach = max(abs(ends[0]), abs(ends[1])) if ends else 0.0
    return -reach, reach
