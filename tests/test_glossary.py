"""The two glossaries explain the same terms in the same order, and every paper names its place in the code."""

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
ENGLISH = re.compile(r"^- \*\*([^*]+)\*\*: ", re.MULTILINE)
CHINESE = re.compile(r"^- \*\*[^*(]+ \(([^*]+)\)\*\*:", re.MULTILINE)


def items(page: str) -> list[str]:
    return [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("- ")]


def test_both_glossaries_hold_the_same_terms_in_the_same_order():
    english = ENGLISH.findall((DOCS / "glossary.md").read_text(encoding="utf-8"))
    chinese = CHINESE.findall((DOCS / "glossary.zh.md").read_text(encoding="utf-8"))
    assert english == chinese
    assert len(english) == len(set(english)) == len(items("glossary.md")) == len(items("glossary.zh.md"))


def test_every_paper_names_something_in_the_code():  # tests/test_docs.py holds that the names exist
    papers = items("papers.md")
    assert papers and [paper for paper in papers if not re.search(r"`prefloop(\.\w+)+`", paper)] == []
