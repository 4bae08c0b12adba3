"""Plots as inline SVG, drawn by matplotlib, coloured by the page's style sheet.

matplotlib lays out; the page decides colours and fonts, so that one drawing serves light and dark. To that end every
line is drawn in a stand-in colour and every label as a stand-in word (matplotlib measures fonts without Chinese and
reads $ as mathematics), and ``for_page`` replaces both: colours by classes, style attributes by plain attributes (the
page's policy forbids inline styles), words by escaped text. The result holds no date, no address and no random id:
equal figures give equal bytes.
"""

import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefloop.errors import NotInstalled
from prefloop.report.markup import Html, tag

# One ink per row of the study, a few for policies with other names, and three for the furniture.
INKS = (
    "base",
    "sft",
    "best_of_n",
    "ppo",
    "ppo_ptx",
    "ppo_overoptimised",
    "rlp_uml",
    "rlp_spg",
    "rrhf",
    "dpo",
    "rloo",
    "other_0",
    "other_1",
    "other_2",
    "text",
    "muted",
    "grid",
)
STAND_INS = {ink: f"#0a0a{index:02x}" for index, ink in enumerate(INKS)}
MARKERS = {
    "base": "v",
    "sft": "D",
    "best_of_n": "s",
    "ppo": "o",
    "ppo_ptx": "^",
    "ppo_overoptimised": "X",
    "rlp_uml": ">",
    "rlp_spg": "h",
    "rloo": "p",
    "other_0": "P",
    "other_1": "<",
}
SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
DROPPED = {
    "font-family",
    "stroke-linejoin",
    "stroke-linecap",
    "stroke-dashoffset",
    "stroke-miterlimit",
}  # the style sheet has these


@dataclass(frozen=True)
class Line:
    """One curve: where it runs, its interval if it has one, and how it is drawn."""

    x: Sequence[float]
    y: Sequence[float]
    ink: str
    band: tuple[Sequence[float], Sequence[float]] | None = None  # the lower and the upper edge of its interval
    is_dashed: bool = False
    has_points: bool = False
    area: Sequence[float] | None = None  # of each point, relative; only points are drawn
    peak: int | None = None  # the point that gets a ring


def ink_of(policy: str, policies: Sequence[str]) -> str:
    """The ink of a policy: its own, or one of three for names the page does not know, in order of appearance."""
    if policy in INKS:
        return policy
    strangers = [name for name in policies if name not in INKS]
    return f"other_{strangers.index(policy) % 3}" if policy in strangers else "other_0"


def panel(
    lines: Sequence[Line],
    *,
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    diagonal: bool = False,
    levels: Sequence[tuple[float, str]] = (),
    whole_x: bool = False,
    inches: tuple[float, float] = (4.7, 3.0),
) -> Html:
    """One small plot. ``name`` keeps its ids apart from those of the other plots on the page.

    levels    horizontal lines to compare with: (height, ink)
    diagonal  the line on which what is predicted is what happens
    whole_x   the horizontal axis counts things: no half epochs
    inches    the drawing fills its column; smaller inches make its letters larger
    """
    matplotlib = installed_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whoever reads the page has not seen this machine's matplotlibrc
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5, "axes.unicode_minus": True})
        figure = matplotlib.figure.Figure(figsize=inches)
        matplotlib.backends.backend_svg.FigureCanvasSVG(figure)
        axes = figure.add_axes(frame(inches))
        furnish(axes, x_limits=x_limits, y_limits=y_limits, whole_x=whole_x)
        if diagonal:
            axes.plot([0, 1], [0, 1], color=STAND_INS["muted"], linewidth=1, dashes=(3, 3), zorder=1)
        for height, ink in levels:
            axes.axhline(height, color=STAND_INS[ink], linewidth=1, dashes=(3, 3), zorder=1)
        for line in lines:
            draw(axes, line)
        drawing = io.StringIO()
        figure.savefig(
            drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    words = {"wordx": x_label, "wordy": y_label}
    return for_page(drawing.getvalue(), name=name, title=title, words=words)


def frame(inches: tuple[float, float]) -> tuple[float, float, float, float]:
    """Where the axes stand (left, bottom, width, height): the same margins in points everywhere, so that panels line up."""
    width, height = 72 * inches[0], 72 * inches[1]
    left, right, bottom, top = 36, 5, 33, 22
    return left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height


def installed_matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.backends.backend_svg
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError:
        raise NotInstalled("matplotlib", "report", "the report page") from None
    return matplotlib


def furnish(axes: Any, *, x_limits: tuple[float, float] | None, y_limits: tuple[float, float] | None, whole_x: bool) -> None:
    """A quiet frame: one base line, a pale grid, few ticks, the vertical axis named above itself where it can be read."""
    ticker = installed_matplotlib().ticker
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(STAND_INS["muted"])
    axes.grid(axis="y", color=STAND_INS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=STAND_INS["muted"])
    axes.set_xlabel("wordx", color=STAND_INS["muted"])
    axes.set_title("wordy", loc="left", color=STAND_INS["muted"], fontsize=9.5)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=whole_x, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(tick))
    axes.margins(x=0.03, y=0.08)
    if x_limits:
        axes.set_xlim(*x_limits)
    if y_limits:
        axes.set_ylim(*y_limits)


def tick(value: float, position: int) -> str:
    """A tick label without an offset or a factor in a far corner: 0.25, 1,500, 20k, 2.5e−5."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k".replace("-", "−")
    if abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return f"{round(value, 6):,g}".replace("-", "−")


def draw(axes: Any, line: Line) -> None:
    color = STAND_INS[line.ink]
    if line.band is not None:
        axes.fill_between(line.x, *line.band, color=color, alpha=0.18, linewidth=0, zorder=2)
    if line.area is not None:
        axes.scatter(line.x, line.y, s=[12 + 90 * share for share in line.area], color=color, alpha=0.75, linewidth=0, zorder=4)
        axes.plot(line.x, line.y, color=color, linewidth=1, zorder=3)
        return
    marker = MARKERS.get(line.ink, "o") if line.has_points else ""
    dashes = {"dashes": (4, 2)} if line.is_dashed else {}
    axes.plot(line.x, line.y, color=color, linewidth=1.7, marker=marker, markersize=4, markeredgewidth=0, zorder=3, **dashes)
    if line.peak is not None:
        axes.plot(
            line.x[line.peak],
            line.y[line.peak],
            "o",
            markersize=11,
            markerfacecolor="none",
            color=color,
            markeredgewidth=1.6,
            zorder=5,
        )


def finite_range(*values: Sequence[float | None] | None) -> tuple[float, float] | None:
    """The smallest and largest of all finite values with a little air, to give several panels one scale."""
    every = [value for part in values if part for value in part if value is not None and math.isfinite(value)]
    if not every:
        return None
    air = 0.06 * (max(every) - min(every)) or 0.5
    return min(every) - air, max(every) + air


def for_page(drawing: str, *, name: str, title: str, words: dict[str, str]) -> Html:
    """matplotlib's file as an inline drawing: classes for colours, no styles, no addresses, ids of its own."""
    root = ElementTree.fromstring(drawing)
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{SVG}style", f"{SVG}metadata") or is_invisible(child):
                parent.remove(child)
    referred = set(re.findall(r"(?:href=\"|url\()#([\w.-]+)", drawing))
    body = "".join(written(child, name=name, words=words, referred=referred) for child in root)
    return Html(f'<svg class="plot" role="img" viewBox="{root.get("viewBox")}">{tag("title", title).text}{body}</svg>')


def is_invisible(element: ElementTree.Element) -> bool:
    style = element.get("style", "")
    return element.tag == f"{SVG}path" and "fill: none" in style and "stroke:" not in style


def written(element: ElementTree.Element, *, name: str, words: dict[str, str], referred: set[str]) -> str:
    """One element and what is in it, as HTML reads it."""
    kind = element.tag.removeprefix(SVG)
    attributes = page_attributes(element, name=name, referred=referred)
    inner = "".join(written(child, name=name, words=words, referred=referred) for child in element)
    if kind == "text":
        label = (element.text or "").strip()
        return tag("text", words.get(label, label)).text.replace("<text", f"<text{attributes}", 1)
    if kind in ("g", "defs") and not inner:
        return ""
    if kind == "g" and not attributes:
        return inner
    return f"<{kind}{attributes}>{inner}</{kind}>" if inner else f"<{kind}{attributes}/>"


def page_attributes(element: ElementTree.Element, *, name: str, referred: set[str]) -> str:
    found: dict[str, str] = {}
    classes = []
    for key, value in element.attrib.items():
        if key == "id":
            if value in referred:
                found["id"] = f"{name}-{value}"
        elif key == "style":
            for declared in filter(None, (part.strip() for part in value.split(";"))):
                what, _, setting = (part.strip() for part in declared.partition(":"))
                if ink := ink_named(setting):
                    classes.append(f"{what[0]}-{ink}")  # f-ppo fills, s-ppo strokes
                elif what not in DROPPED:
                    found[what] = setting.removesuffix("px") if what == "font-size" else setting
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        else:
            found[key.replace(XLINK, "")] = rounded(value).replace("url(#", f"url(#{name}-")
    if "href" in found:
        found["href"] = "#" + f"{name}-" + found["href"].removeprefix("#")
    if classes:
        found["class"] = " ".join(classes)
    return "".join(f' {key}="{value}"' for key, value in found.items())


def ink_named(color: str) -> str | None:
    return next((ink for ink, stand_in in STAND_INS.items() if stand_in == color), None)


def rounded(value: str) -> str:
    """Coordinates to a hundredth of a point, which nobody sees and which halves the page."""
    short = re.sub(r"-?\d+\.\d+", lambda match: f"{round(float(match[0]), 2):g}", value)
    return " ".join(short.split())
