"""How a config writes a reward: one scorer, or a weighted sum of several. Torch-free, so that studies can read it too.

    runs/reward/model                                           one
    0.7*runs/reward/model + 0.3*python:rules:brevity            a sum; " + " separates, a number and * weigh, 1 where there is none
    1*runs/helpful/model + -2*rules:runs/rules/model            a weight may be negative

What a term may be is said in ``models/scorer.py``.
"""

import re
from typing import NamedTuple

from prefloop.errors import ConfigError

WEIGHT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*\*\s*")


class Term(NamedTuple):
    """A scorer and what its scores are multiplied by."""

    weight: float
    scorer: str


def terms_of(spec: str) -> list[Term]:
    """The weighted scorers of a spec, in their order."""
    terms = []
    for part in re.split(r"\s\+\s", spec):
        found = WEIGHT.match(part.strip())
        scorer = part.strip()[found.end() :] if found else part.strip()
        if not scorer and (found or " + " in spec):
            raise ConfigError(
                f"the reward {spec!r} has a term without a scorer\n"
                f"  write WEIGHT*SCORER + WEIGHT*SCORER, such as 0.7*runs/reward/model + 0.3*python:rules:brevity"
            )
        terms.append(Term(float(found[1]) if found else 1.0, scorer))
    return terms


def files_of(spec: str) -> list[str]:
    """The files and folders a spec may name, whether they are there or not; a python: or world: scorer names none."""
    found = []
    for part in re.split(r"\s\+\s", spec):
        scorer = WEIGHT.sub("", part.strip(), count=1) if WEIGHT.match(part.strip()) else part.strip()
        kind, _, rest = scorer.partition(":")
        if kind in ("python", "world"):
            continue
        found += [name.strip() for name in (rest if kind in ("lexicon", "policy", "judge", "rules") else scorer).split(",")]
    return [name for name in found if name]


def names_gold(spec: str) -> bool:
    """Whether the world's gold is among the terms: for measuring, never for training."""
    return any(term.scorer.startswith("world:") for term in terms_of(spec))
