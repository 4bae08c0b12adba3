"""The tour keeps its promise: eight files that exist, in an order, under 1,500 lines together."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "tour.md"
STOP = re.compile(r"^## (\d+)\. \[(\S+)\]\(\.\./(\S+)\)$", re.MULTILINE)
MOST_LINES = 1500


def stops(page: str) -> list[tuple[int, str, str]]:
    """Each numbered heading of a tour: its number, the file it names and the file it links to."""
    return [(int(number), name, target) for number, name, target in STOP.findall(page)]


def n_lines(files: list[Path]) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_the_tour_has_eight_stops_in_order_each_named_as_it_is_linked():
    found = stops(TOUR.read_text(encoding="utf-8"))
    assert [number for number, _, _ in found] == list(range(1, 9))
    assert [name for _, name, _ in found] == [target for _, _, target in found]
    assert len({target for _, _, target in found}) == 8


def test_the_files_of_the_tour_are_read_in_one_sitting():
    files = [ROOT / target for _, _, target in stops(TOUR.read_text(encoding="utf-8"))]
    assert 0 < n_lines(files) < MOST_LINES


def test_a_stop_is_a_numbered_heading_with_a_link_and_nothing_else(tmp_path):
    page = "## 1. [a.py](../a.py)\n\ntext [b.py](../b.py)\n\n## 2. b.py\n## And then [c.py](../c.py)\n"
    assert stops(page) == [(1, "a.py", "a.py")]
    (tmp_path / "a.py").write_text("one\ntwo\n")
    (tmp_path / "b.py").write_text("three\n")
    assert n_lines([tmp_path / "a.py", tmp_path / "b.py"]) == 3
