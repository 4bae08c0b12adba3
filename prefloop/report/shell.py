"""The page around the figures, and the pieces both kinds of page are put together from.

The page makes no request and runs no script: its content policy forbids everything but the one style sheet it carries,
by hash, so that markup smuggled in by a model's answer could neither load nor style anything even if escaping failed.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from prefloop.report.data import Figure
from prefloop.report.figures import interval, number, percent, sample_of
from prefloop.report.markup import Child, Html, join, tag
from prefloop.report.texts import Words

PAGE_LANG = {"en": "en", "zh": "zh-Hans"}
SHAPES = {
    "base": "M8 9L4 2h8z",
    "sft": "M8 1.5l3.5 4L8 9.5l-3.5-4z",
    "best_of_n": "M5 2.5h6v6H5z",
    "ppo_ptx": "M8 2l4 7H4z",
    "ppo_overoptimised": "M5.5 2L8 4l2.5-2L12 3.5l-2 2 2 2L10.5 9 8 7 5.5 9 4 7.5l2-2-2-2z",
    "rlp_uml": "M4.5 1.5l7 4-7 4z",
    "rlp_spg": "M8 1.5l3.5 2v4L8 9.5l-3.5-2v-4z",
    "rloo": "M8 1.5l4 3-1.5 4.5h-5L4 4.5z",
}  # the markers of the plots, for the legend


def document(*body: Child, title: str, lang: str) -> str:
    """A whole page: head, policy, style sheet, and the body."""
    style = files("prefloop.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
        between="\n",
    )
    page = tag("html", tag("head", head), "\n", tag("body", tag("main", *body)), lang=PAGE_LANG[lang])
    return f"<!doctype html>\n{page.text}\n"


def section(key: str, heading: str, *content: Child) -> Html:
    return tag("section", tag("h2", heading), *content, id=key)


def absent(words: Words) -> Html:
    """What stands where a part was not measured: the page never lets it vanish."""
    return tag("p", words["missing"], class_="missing")


def folded(summary: str, *content: Child, is_open: bool = False) -> Html:
    return tag("details", tag("summary", summary), *content, open=is_open)


def table(heads: Sequence[str], rows: Sequence[Sequence[Child]], *, class_: str = "") -> Html:
    """Rows of cells; on a narrow screen each row becomes a block in which every cell carries its column's name."""
    head = tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads)))
    body = tag("tbody", *(table_row(heads, row) for row in rows))
    return tag("div", tag("table", head, body, class_=class_ or None), class_="scroll")


def table_row(heads: Sequence[str], cells: Sequence[Child]) -> Html:
    kinds = [("th", "row")] + [("td", None)] * (len(cells) - 1)
    named = zip(kinds, heads, cells, strict=True)
    return tag("tr", *(tag(kind, content, data_label=head, scope=scope) for (kind, scope), head, content in named))


def cell(figure: Figure | None, words: Words, *, as_percent: bool = False, digits: int = 2, has_n: bool = True) -> Child:
    """A figure in a table: mean, interval below it, and its sample size."""
    if figure is None:
        return tag("span", words["missing"], class_="missing")
    mean = percent(figure.mean) if as_percent else number(figure.mean, digits)
    small = [interval(figure, as_percent=as_percent, digits=digits)] if figure.has_interval else []
    small += [sample_of(figure, words)] if has_n and sample_of(figure, words) else []
    return join(tag("b", mean), tag("small", " · ".join(small)) if small else None)


def whisker(
    figure: Figure | None, scale: tuple[float, float], *, ink: str = "text", at: float | None = None, width: int = 120
) -> Html | None:
    """An interval drawn on a scale that it shares with the rows around it; ``at`` marks what it is compared with."""
    if figure is None or not scale[0] < scale[1]:
        return None

    def across(value: float) -> float:
        return round(4 + (width - 8) * min(max((value - scale[0]) / (scale[1] - scale[0]), 0.0), 1.0), 1)

    parts = [tag("line", x1=4, x2=width - 4, y1=8, y2=8, class_="s-grid")]
    if at is not None:
        parts.append(tag("line", x1=across(at), x2=across(at), y1=0, y2=16, class_="tick s-text"))
    if figure.has_interval:
        parts.append(
            tag("line", x1=across(figure.low or 0.0), x2=across(figure.high or 0.0), y1=8, y2=8, class_=f"thick s-{ink}")
        )
    parts.append(tag("circle", cx=across(figure.mean), cy=8, r=3.6, class_=f"f-{ink}"))
    return tag("svg", *parts, class_="whisker", viewBox=f"0 0 {width} 16", aria_hidden="true")


def legend(entries: Sequence[tuple[str, str]], *extra: Child) -> Html:
    """Which ink is which: (ink, name), and any further notes."""
    return tag("ul", *(tag("li", swatch(ink), name) for ink, name in entries), *extra, class_="legend")


def swatch(ink: str, *, is_dashed: bool = False, has_point: bool = True) -> Html:
    line = tag("line", x1=0, x2=16, y1=5.5, y2=5.5, class_=f"s-{ink}" + (" dashed" if is_dashed else ""))
    point = (
        tag("path", d=SHAPES[ink], class_=f"f-{ink}") if ink in SHAPES else tag("circle", cx=8, cy=5.5, r=3.2, class_=f"f-{ink}")
    )
    return tag("svg", line, point if has_point else None, class_="swatch", viewBox="0 0 16 11", aria_hidden="true")


def ring() -> Html:
    """The mark of a peak, as the plots draw it."""
    return tag(
        "svg", tag("circle", cx=8, cy=5.5, r=4.2, class_="ring s-text"), class_="swatch", viewBox="0 0 16 11", aria_hidden="true"
    )


def panels(*plots: Html, class_: str = "panels") -> Html:
    """Plots side by side where there is room."""
    return tag("div", *(tag("figure", plot) for plot in plots), class_=class_)
