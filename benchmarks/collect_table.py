"""The tables of docs/collect.md, made from results/collect_*.json. ``python -m benchmarks.collect_table`` writes them anew."""

import json
import re
from collections.abc import Callable
from typing import Any

from benchmarks.machine import ROOT

PAGE = ROOT / "docs" / "collect.md"
RESULTS = ROOT / "benchmarks" / "results"
KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
Result = dict[str, Any]


def spread(of: Result) -> str:
    return f"{of['p50_ms']:.0f}, **{of['p95_ms']:.0f}**, {of['p99_ms']:.0f}"


LOAD: list[tuple[str, Callable[[Result], str], str]] = [  # what, of which result, wanted
    ("next, ms at the median, 95th and 99th percentile", lambda one: spread(one["more"]["next"]), "50 at the 95th"),
    ("submit, ms", lambda one: spread(one["more"]["submit"]), "60 at the 95th"),
    ("next while 100,000 items come in, ms at the 95th", lambda one: f"**{one['next_p95_during_import_ms']:.0f}**", "100"),
    ("import of 100,000 items meanwhile, s", lambda one: f"**{one['import_s']:.0f}**", "60"),
    ("next in the store, of somebody who has done 50,000, ms at the 95th", lambda one: f"{one['heavy_next_p95_ms']:.1f}", "5"),
    ("export of 300,000 judgments, s", lambda one: f"{one['export_s']:.0f}", "60"),
    ("memory it takes, MB", lambda one: f"{one['export_growth_mb']:.0f}", "200"),
    ("start with 100,000 items, s", lambda one: f"{one['start_s']:.1f}", "2"),
    ("memory before any login, MB", lambda one: f"{one['rss_mb']:.0f}", "150"),
    ("first page, kB", lambda one: f"{one['first_page_kb']:.0f}", "150"),
    ("tasks a second with no thinking, 200 connections", lambda one: f"{one['saturation_tasks_per_s']:.0f}", ""),
    ("commit", lambda one: one["commit"], ""),
]
CHAOS = ("kills", "acknowledged", "lost", "over_assigned", "duplicates")


def results(what: str) -> dict[str, Result]:
    """Those that were measured, by database."""
    files = {kind: RESULTS / f"collect_{what}_{kind}.json" for kind in KINDS}
    return {kind: json.loads(file.read_text(encoding="utf-8")) for kind, file in files.items() if file.is_file()}


def load() -> str:
    found = results("load")
    rows = [[what, *(of(one) for one in found.values()), wanted] for what, of, wanted in LOAD]
    return as_table([["", *(KINDS[kind] for kind in found), "wanted"], *rows])


def chaos() -> str:
    found = results("chaos")
    head = ["database", "kills", "acknowledged judgments", "lost", "given to too many", "stored twice", "commit"]
    rows = [[KINDS[kind], *(f"{one[name]:,}" for name in CHAOS), one["commit"]] for kind, one in found.items()]
    return as_table([head, *rows])


def as_table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def page() -> str:
    """docs/collect.md with the tables of the results that are there."""
    text = PAGE.read_text(encoding="utf-8")
    for name, made in (("load", load()), ("chaos", chaos())):
        marked = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"bench: {PAGE.relative_to(ROOT)} has no <!-- {name} --> ... <!-- /{name} --> to put the table in")
        text = marked.sub(lambda _, made=made: made, text)
    return text


def write() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
