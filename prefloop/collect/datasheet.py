"""What somebody needs to know before training on an export: who judged, how often, how far they agree, what is lopsided.

Everything is gathered in one pass; what needs many rankings at once (agreement) looks at a bounded number of items, and says
at how many.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from prefloop.collect.judged import Judged, Judgment, order_in, ranking_of
from prefloop.records import Ranking
from prefloop.stats.agreement import agreement_interval
from prefloop.stats.intervals import Interval

AGREEMENT_ITEMS = 2000  # items whose rankings are compared, the first with two or more
PERSONAL = {  # what free text should not hold; a warning, not a judgment
    "an e-mail address": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{2,63}"),
    "a telephone number": re.compile(r"(?<![\w.])\+?\d{1,3}[ -]?\(?\d{2,4}\)?[ -]?\d{3,4}[ -]?\d{3,4}(?![\w.])"),
    "a Chinese identity number": re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)"),
}


class Summary:
    """Counts over an export."""

    def __init__(self, project: Row[Any]):
        self.project = project
        self.items = self.judgments = self.surplus = self.revised = 0
        self.most_tiers = 0
        self.last_judgment = ""
        self.by_annotator: Counter[str] = Counter()
        self.by_number: Counter[int] = Counter()  # of judgments an item has
        self.by_k: Counter[int] = Counter()
        self.by_version: Counter[int] = Counter()
        self.first_place: Counter[int] = Counter()  # where on the screen the only best answer stood
        self.chance_first = 0.0  # how often the first place would win by chance
        self.ties = self.pairs = 0
        self.personal: Counter[str] = Counter()
        self.rankings: list[Ranking] = []
        self.compared = 0
        self.guidelines: Mapping[str, str] = {}

    def add(self, judged: Judged) -> None:
        """One more item."""
        self.items += 1
        self.by_number[len(judged.judgments)] += 1
        self.by_k[len(judged.completions)] += 1
        for one in judged.judgments:
            self.add_judgment(one)
        if len(judged.judgments) > 1 and self.compared < AGREEMENT_ITEMS:
            rankings = [ranking for one in judged.judgments if (ranking := ranking_of(judged, one))]
            self.rankings += [Ranking.model_validate(ranking) for ranking in rankings]
            self.compared += len(rankings) > 1

    def add_judgment(self, one: Judgment) -> None:
        self.judgments += 1
        self.surplus += one.is_surplus
        self.revised += one.rev > 1
        self.by_annotator[one.annotator] += 1
        self.by_version[one.version] += 1
        self.last_judgment = max(self.last_judgment, one.id)
        self.guidelines = {**one.schema.guidelines} or self.guidelines
        order = order_in(one)
        if order is not None:
            self.add_order(order[0], order[1], one.shown)
        for text in free_texts(one):
            for kind, pattern in PERSONAL.items():
                self.personal[kind] += bool(pattern.search(text))

    def add_order(self, tiers: list[list[str]], unusable: list[str], shown: tuple[str, ...]) -> None:
        sizes = [len(tier) for tier in (*tiers, unusable) if tier]
        n = sum(sizes)
        self.most_tiers = max(self.most_tiers, len(tiers))
        self.pairs += n * (n - 1) // 2
        self.ties += sum(size * (size - 1) // 2 for size in sizes)
        if tiers and len(tiers[0]) == 1:
            self.first_place[shown.index(tiers[0][0])] += 1
            self.chance_first += 1 / len(shown)

    def counts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "items": self.items,
            "judgments": self.judgments,
            "surplus": self.surplus,
            "annotators": len(self.by_annotator),
            "judgments_per_item": {str(n): self.by_number[n] for n in sorted(self.by_number)},
            "completions_per_item": {str(k): self.by_k[k] for k in sorted(self.by_k)},
            "schema_versions": {str(version): self.by_version[version] for version in sorted(self.by_version)},
            "personal_data_suspected": {kind: n for kind, n in sorted(self.personal.items()) if n},
        }

    def agreement(self) -> Interval | None:
        """Share of ordered pairs on which two annotators agree; None where nobody judged what another did."""
        return agreement_interval(self.rankings) if self.compared else None

    def datasheet(self, format: str, settings: dict[str, Any]) -> str:
        """The page beside the data."""
        counts = self.by_annotator.most_common()
        largest = f", the busiest {counts[0][1]:,} of them" if counts else ""
        parts = [
            f"# {self.project.title}: {format} export",
            f"{self.items:,} items, {self.judgments:,} judgments by {len(counts)} annotators{largest}. "
            f"{self.surplus:,} judgments are beyond the number wanted of their item; {self.revised:,} were revised by their author.",
            "## How it was made",
            f"Settings of the export: `{json.dumps(settings, ensure_ascii=False, sort_keys=True)}`. Annotators appear under pseudonyms "
            "that are stable within this project and mean nothing outside it. Who made an answer was hidden from them, and so was "
            "what others said; each answer stood at each place of the screen about equally often.",
            *(f"Guidelines ({language}):\n\n{quoted(words)}" for language, words in sorted(self.guidelines.items())),
            "## How often",
            listing("judgments of an item", "items", self.by_number),
            listing("answers to a prompt", "items", self.by_k),
            "## How far people agree",
            self.agreement_in_words(),
            f"Ties: {share(self.ties, self.pairs)} of all pairs of answers that one person placed.",
            "## What is lopsided",
            f"The answer that stood first on the screen was the only best one in {share(self.first_place[0], sum(self.first_place.values()))} "
            f"of the orders with one best answer; by chance it would have been {self.chance_first / max(1, sum(self.first_place.values())):.1%}.",
            *self.warnings(),
        ]
        return "\n\n".join(parts) + "\n"

    def agreement_in_words(self) -> str:
        found = self.agreement()
        if found is None:
            return "Not known: no two people ordered the same item."
        return (
            f"Two people who both put a pair of answers in order agree on it with frequency {found.mean:.3f} "
            f"(95% interval {found.low:.3f} to {found.high:.3f}, over {found.n:,} items; chance would be 0.5)."
        )

    def warnings(self) -> list[str]:
        found = [f"{n:,} free texts look as if they held {kind}" for kind, n in sorted(self.personal.items()) if n]
        return ["## Before it is shared", "; ".join(found) + ". Look at them first."] if found else []


def free_texts(one: Judgment) -> list[str]:
    """What somebody typed."""
    texts = []
    for stage, question in one.schema.of_type("text", "edit"):
        given = one.answers.get(stage.id, {})
        sayings = given.values() if stage.per == "completion" else [given]
        texts += [said[question.id] for said in sayings if question.id in said]
    return texts


def listing(what: str, of: str, counts: Counter[int]) -> str:
    rows = [f"| {n} | {counts[n]:,} |" for n in sorted(counts)]
    return "\n".join([f"| {what} | {of} |", "|---|---|", *rows])


def share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})" if whole else "none"


def quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())
