"""``python -m benchmarks [NAME ...]``: runs the named cases, or all, and writes results/NAME.json and the table."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import collect_load, collect_peers, table
from benchmarks.cases import CASES, MODEL, THREADS, tiny
from benchmarks.duel import measure
from benchmarks.inputs import TINY_MODEL, prepare
from benchmarks.machine import ROOT
from benchmarks.ours import SIDES

WORK = ROOT / "benchmarks" / ".work"
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    known = {case.name: case for case in CASES}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; none = all")
    parser.add_argument(
        "--pairs", type=int, default=5, help="pairs of turns that are measured (default 5; fewer write no results)"
    )
    parser.add_argument("--warmup", type=int, default=1, help="pairs of turns before them (default 1)")
    parser.add_argument("--tiny", action="store_true", help="in miniature, to see whether it works; writes no results")
    parser.add_argument("--threads", type=int, default=THREADS, help=f"of each side; writes no results unless {THREADS}")
    parser.add_argument("--shape", nargs="*", default=[], metavar="KEY=VALUE", help="try other sizes; writes no results")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    changed = {key: json.loads(value) for key, _, value in (item.partition("=") for item in asked.shape)}
    for name in asked.names or known:
        case = tiny(known[name]) if asked.tiny else known[name]
        case = replace(case, shape={**case.shape, **changed})
        if case.kind not in SIDES:
            print(f"bench: {name} cannot run yet: prefloop has no side for it", file=sys.stderr)
            continue
        is_real = not (asked.tiny or changed) and asked.threads == THREADS and asked.pairs >= 5
        folder = WORK / (name if is_real else f"{name}-try")
        spec = prepare(case, folder, model_shape=TINY_MODEL if asked.tiny else MODEL, threads=asked.threads)
        found = measure(spec, pairs=asked.pairs, warmup=asked.warmup)
        print(table.sentence(found), flush=True)
        if is_real:
            write(RESULTS / f"{name}.json", found)
            table.write_page()


def write(path: Path, found: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asked = next((one for one in (collect_load, collect_peers) if one.is_asked(sys.argv[1:])), None)
    main() if asked is None else asked.main(sys.argv[1:])
