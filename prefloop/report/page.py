"""The page of a study: the answer in plain words first, then what it rests on.

``render(data)`` is a pure function: equal data give equal bytes.
"""

from collections.abc import Sequence

from prefloop.report import rewards
from prefloop.report.data import ReportData
from prefloop.report.figures import duration
from prefloop.report.findings import Finding, findings, headline, listed, over_optimised
from prefloop.report.markup import Html, tag
from prefloop.report.sections import ASKED_SELDOM, SECTIONS
from prefloop.report.shell import document, section
from prefloop.report.tables import every_difference, gold_picture, how_answers_read, side_by_side
from prefloop.report.texts import Words, words_of

COMPARED = {"paired": every_difference}
OF_POLICIES = ("loop", "frontier", "curves", "selection", "samples")  # sections a study of reward models has nothing for


def render(data: ReportData, *, lang: str = "en") -> str:
    """The page as one HTML file that needs nothing else."""
    words = words_of(lang)
    parts = parts_of(data)
    return document(
        masthead(data, words),
        *of_rewards(data, words) if data.is_of_rewards else of_policies(data, words),
        warned(data.warnings, words),
        contents(parts, words),
        *(section(key, words[f"section.{key}"], (SECTIONS | ASKED_SELDOM | COMPARED)[key](data, words)) for key in parts),
        tag("footer", words["page.footer"]),
        title=data.title,
        lang=lang,
    )


def parts_of(data: ReportData) -> list[str]:
    """The sections of the page: all of them, except where a study never had policies. What it left out is said once."""
    parts = [key for key in SECTIONS if not data.is_of_rewards or key not in OF_POLICIES]
    parts.insert(parts.index("data"), "paired")
    if data.fresh or data.synthetic:
        parts.insert(parts.index("reward") + 1, "fresh")
    return parts


def of_policies(data: ReportData, words: Words) -> tuple[Html, ...]:
    """The first screen of a study that compares policies."""
    return (
        answer(headline(data, words), words["headline.rule"], words, *but(data, words), picture=gold_picture(data, words)),
        section("table", words["section.table"], side_by_side(data, words), how_answers_read(data, words)),
        found(findings(data, words), words),
    )


def of_rewards(data: ReportData, words: Words) -> tuple[Html, ...]:
    """The first screen of a study of reward models alone."""
    missing = words["comma"].join(words[f"section.{key}"] for key in ("table", *OF_POLICIES))
    return (
        answer(rewards.headline(data, words), words["headline.rewards_rule"], words),
        section(
            "table",
            words["section.rewards"],
            rewards.side_by_side(data, words),
            tag("p", words["rewards.text"], class_="rule"),
            tag("p", words["page.left_out"].format(parts=missing), class_="rule"),
        ),
        found(rewards.findings(data, words), words),
    )


def masthead(data: ReportData, words: Words) -> Html:
    took = f"{words['made']} {duration(data.seconds)}" if data.seconds is not None else None
    facts = " · ".join(part for part in (data.subtitle, took) if part)
    return tag("header", tag("h1", data.title), tag("p", facts) if facts else None)


def answer(verdict: Finding, rule: str, words: Words, *but: Html, picture: Html | None = None) -> Html:
    """Did it work, what has to be said with it in one breath, and the picture of it."""
    return tag(
        "section",
        tag("p", verdict.text, class_="verdict"),
        *but,
        picture,
        tag("p", rule, class_="rule"),
        id="answer",
        aria_label=words["section.answer"],
    )


def but(data: ReportData, words: Words) -> list[Html]:
    """Over-optimisation belongs to the headline: first of the policies it praises, then of the run meant to show it."""
    peaked = over_optimised(data)
    kinds = {
        "headline.but": [n for n in peaked if n in data.judged()],
        "headline.meant": [n for n in peaked if n not in data.judged()],
    }
    return [
        tag(
            "p",
            words[key].format(policies=listed(names, words)),
            " ",
            tag("a", words["headline.see"], href="#frontier"),
            class_="but",
        )
        for key, names in kinds.items()
        if names
    ]


def found(sentences: Sequence[Finding], words: Words) -> Html:
    """Every sentence that the figures allow."""
    listed = tag("ul", *(tag("li", finding.text, class_=finding.verdict) for finding in sentences), class_="findings")
    return section("findings", words["section.findings"], listed)


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


def contents(parts: Sequence[str], words: Words) -> Html:
    links = [tag("li", tag("a", words[f"section.{key}"], href=f"#{key}")) for key in parts]
    return tag("nav", tag("ul", *links), aria_label=words["contents"])
