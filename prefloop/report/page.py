"""The page of a study: the answer in plain words first, then what it rests on.

``render(data)`` is a pure function: equal data give equal bytes.
"""

from collections.abc import Sequence

from prefloop.report.data import ReportData
from prefloop.report.figures import duration
from prefloop.report.findings import Finding, findings, headline
from prefloop.report.markup import Html, tag
from prefloop.report.sections import SECTIONS
from prefloop.report.shell import document, section
from prefloop.report.tables import every_difference, side_by_side
from prefloop.report.texts import Words, words_of


def render(data: ReportData, *, lang: str = "en") -> str:
    """The page as one HTML file that needs nothing else."""
    words = words_of(lang)
    return document(
        masthead(data, words),
        answer(headline(data, words), findings(data, words), words),
        section("table", words["section.table"], side_by_side(data, words)),
        warned(data.warnings, words),
        contents(words),
        section("paired", words["section.paired"], every_difference(data, words)),
        *(section(key, words[f"section.{key}"], make(data, words)) for key, make in SECTIONS.items()),
        tag("footer", words["page.footer"]),
        title=data.title,
        lang=lang,
    )


def masthead(data: ReportData, words: Words) -> Html:
    took = f"{words['made']} {duration(data.seconds)}" if data.seconds is not None else None
    facts = " · ".join(part for part in (data.subtitle, took) if part)
    return tag("header", tag("h1", data.title), tag("p", facts) if facts else None)


def answer(verdict: Finding, sentences: Sequence[Finding], words: Words) -> Html:
    """Did it work, and every sentence the figures allow."""
    return tag(
        "section",
        tag("p", verdict.text, class_="verdict"),
        tag("p", words["headline.rule"], class_="rule"),
        tag("ul", *(tag("li", finding.text, class_=finding.verdict) for finding in sentences), class_="findings"),
        id="answer",
        aria_label=words["section.findings"],
    )


def warned(warnings: Sequence[str], words: Words) -> Html | None:
    if not warnings:
        return None
    return tag(
        "div",
        tag("h2", words["section.warnings"]),
        tag("ul", *(tag("li", text) for text in warnings)),
        class_="warnings",
        role="note",
    )


def contents(words: Words) -> Html:
    links = [tag("li", tag("a", words[f"section.{key}"], href=f"#{key}")) for key in ("paired", *SECTIONS)]
    return tag("nav", tag("ul", *links), aria_label=words["contents"])
