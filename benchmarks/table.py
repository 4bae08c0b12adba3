"""The table of docs/performance.md, made from results/*.json. ``python -m benchmarks.table`` writes it anew."""

import json
import re
from typing import Any

from benchmarks.cases import CASES
from benchmarks.machine import ROOT

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(?<=<!-- benchmarks -->\n).*?(?=<!-- /benchmarks -->)", re.DOTALL)
HEAD = (
    "| benchmark | peer | prefloop | peer's | ratio | must, aim | the idea alone | share of it | floor | memory above torch, MB: ours, theirs | others |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def results() -> list[dict[str, Any]]:
    """Those that were measured, in the order of the cases."""
    files = [RESULTS / f"{case.name}.json" for case in CASES]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def lines(found: list[dict[str, Any]]) -> str:
    """The table, and below it what was not measured and on which machine and commits the rest was."""
    rows = [row(one) for one in found]
    missing = [case.name for case in CASES if case.name not in {one["name"] for one in found}]
    where = sorted({f"{one['machine']}, {one['threads']} threads" for one in found})
    said = ["", *(f"Machine: {place}." for place in where)]
    said += [f"Not measured yet: {', '.join(missing)}."] if missing else []
    return "\n".join([*HEAD, *rows, *said]) + "\n"


def row(one: dict[str, Any]) -> str:
    memory, ideal = one["memory_above_torch_mb"], one["ideal"]
    cells = [
        f"`{one['name']}`",
        one["peer"],
        f"{span(one['ours'])} {one['ours']['unit']}",
        span(one["theirs"]),
        f"**{one['ratio']['median']:g}** ({one['ratio']['min']:g} to {one['ratio']['max']:g})",
        f"{one['must']:g}, {one['aim']:g}",
        f"{ideal['ratio']:g} ({ideal['of']})",
        f"{100 * one['share_of_ideal']:.0f}%",
        f"{one['floor']['rate']:g}",
        f"{memory['ours']}, {memory['theirs']}",
        f"{100 * one['others']['median']:.0f}% ({one['commit']})",
    ]
    return f"| {' | '.join(cells)} |"


def span(values: dict[str, Any]) -> str:
    return f"{values['median']:g} ({values['min']:g} to {values['max']:g})"


def sentence(one: dict[str, Any]) -> str:
    """What the terminal shows of a result."""
    memory, above, ideal = one["memory_mb"], one["memory_above_torch_mb"], one["ideal"]
    return (
        f"{one['name']}: {span(one['ours'])} {one['ours']['unit']} against {span(one['theirs'])} of {one['peer']}\n"
        f"  ratio {span(one['ratio'])} over {one['pairs']} pairs, of processor time {span(one['ratio_of_processor_time'])};"
        f" must reach {one['must']:g}, aim {one['aim']:g}\n"
        f"  the idea alone ({ideal['of']}) would give {ideal['ratio']:g}; {100 * one['share_of_ideal']:.0f}% of it reached;"
        f" the floor of our side is {one['floor']['rate']:g} {one['ours']['unit']}"
        f" ({one['floor']['gflops']:g} GFLOP/s, {one['floor']['gb_a_second']:g} GB/s)\n"
        f"  peak memory {memory['ours']} MB against {memory['theirs']} MB; above the bare import of torch {above['ours']} against {above['theirs']}\n"
        f"  start-up {one['start_seconds']['ours']} s against {one['start_seconds']['theirs']} s;"
        f" others used {100 * one['others']['median']:.0f}% of the machine (at most {100 * one['others']['max']:.0f}%)\n"
        f"  {one['machine']}, {one['threads']} threads, commit {one['commit']}"
    )


def page() -> str:
    """docs/performance.md with the table of the results that are there."""
    text = PAGE.read_text(encoding="utf-8")
    if not MARKED.search(text):
        raise SystemExit(
            f"bench: {PAGE.relative_to(ROOT)} has no <!-- benchmarks --> ... <!-- /benchmarks --> to put the table in"
        )
    return MARKED.sub(lambda _: lines(results()), text)


def write_page() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write_page()
