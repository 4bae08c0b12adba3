"""Which answers mean the same: greedy clustering, and how much of a sample the largest cluster holds.

For RLP's synthetic preferences (SPG, Lang et al. 2024, arXiv 2403.19279, section 4.2): several answers to one prompt are clustered
by meaning, and the share of the largest cluster is the confidence in it. Two answers mean the same where each entails the
other (Kuhn et al. 2023, arXiv 2302.09664); any other equivalence of two texts fits the same place:

    bidirectional(entails)     the paper's: entailment both ways, whatever model says so
    uncontradicted(label)      looser: neither way is called a contradiction, so "neutral" counts as the same
    same_words                 equal but for case, punctuation and spaces
    nearer_than(vectors, c)    cosine of two embeddings at least c
    mistaken(are_same, share)  any of them, made to err about a share of the pairs: what a worse model would do to a method

The clustering is our own, because neither paper gives one that is well defined: what models call "the same" is not transitive, so
the order of comparisons decides. Ours is fixed by the texts and not by the order they were drawn in: equal texts are one item;
items come most frequent first, then alphabetically; each joins the first cluster whose first member it means the same as, or
founds one. A cluster's first member, its most frequent text, speaks for it; no other is asked.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefloop.errors import DataError

MARKS = re.compile(r'["()\[\]“”…。、]|(?<!\d)[.,:;!?]|[.,:;!?](?!\d)')

Equivalence = Callable[[str, str], bool]


class Clusters(NamedTuple):
    """A partition of the positions 0 .. n - 1 of a sample. The largest cluster is first; of equal ones, the one founded first."""

    members: tuple[tuple[int, ...], ...]
    representatives: tuple[str, ...]  # the text that speaks for each cluster

    @property
    def n(self) -> int:
        return sum(len(cluster) for cluster in self.members)

    @property
    def largest(self) -> tuple[int, ...]:
        return self.members[0]

    @property
    def outside(self) -> tuple[int, ...]:
        """Positions of the answers that are not in the largest cluster; none where all answers mean the same."""
        return tuple(sorted(position for cluster in self.members[1:] for position in cluster))

    @property
    def confidence(self) -> float:
        """Share of the sample that the largest cluster holds: 1 / n where all differ, 1 where all are the same."""
        return len(self.largest) / self.n

    @property
    def is_tied(self) -> bool:
        """Whether another cluster is as large as the largest."""
        return len(self.members) > 1 and len(self.members[1]) == len(self.members[0])


def clusters(texts: Sequence[str], are_same: Equivalence) -> Clusters:
    """The answers of one prompt by meaning. ``are_same`` is asked about different texts only, the representative first."""
    if not texts:
        raise DataError("there is no answer to cluster; leave out prompts without answers")
    count = Counter(texts)
    founders: list[str] = []
    founder_of: dict[str, str] = {}
    for text in sorted(count, key=lambda text: (-count[text], text)):
        founder_of[text] = next((founder for founder in founders if are_same(founder, text)), text)
        if founder_of[text] == text:
            founders.append(text)
    members = [tuple(i for i, text in enumerate(texts) if founder_of[text] == founder) for founder in founders]
    by_size = sorted(range(len(founders)), key=lambda c: -len(members[c]))  # stable: founded first stays first
    return Clusters(tuple(members[c] for c in by_size), tuple(founders[c] for c in by_size))


# --------------------------------------------------------------------------------------------------------- equivalences


def bidirectional(entails: Callable[[str, str], bool]) -> Equivalence:
    """Two texts are the same where each entails the other. The second direction is asked only where the first holds."""
    return lambda first, second: entails(first, second) and entails(second, first)


def uncontradicted(label: Callable[[str, str], str]) -> Equivalence:
    """Two texts are the same where neither way is labelled "contradiction", as in the code released with semantic entropy."""
    return lambda first, second: "contradiction" not in (label(first, second), label(second, first))


def looked_up(texts: Sequence[str], table: ArrayLike) -> Callable[[str, str], bool]:
    """A relation that was computed beforehand in one batch: ``table[i, j]`` is what it says of ``texts[i]`` and ``texts[j]``.

    Of a text that stands twice the first row and column are taken.
    """
    says = np.asarray(table)
    if says.shape != (len(texts), len(texts)) or says.dtype != np.bool_:
        raise DataError(
            f"a relation of {len(texts)} texts is a table of {len(texts)} x {len(texts)} booleans, got {says.dtype} of shape {says.shape}"
        )
    place = {text: i for i, text in reversed(list(enumerate(texts)))}
    return lambda first, second: bool(says[place[first], place[second]])


def same_words(first: str, second: str) -> bool:
    """The same words in the same order, whatever their case, punctuation and spaces."""
    return words(first) == words(second)


def words(text: str) -> list[str]:
    """What is left between spaces and marks; a mark between digits belongs to its number, a minus to its word."""
    plain = unicodedata.normalize("NFKC", text).casefold()  # wide characters become narrow ones
    return MARKS.sub(" ", plain).split()


def nearer_than(vectors: Mapping[str, ArrayLike], threshold: float) -> Equivalence:
    """Two texts are the same where the cosine of their vectors is at least ``threshold``; a vector of zeros is near nothing."""

    def unit(text: str) -> NDArray[np.float64]:
        vector = np.asarray(vectors[text], dtype=np.float64)
        length = float(np.linalg.norm(vector))
        return vector / length if length > 0 else vector

    return lambda first, second: float(unit(first) @ unit(second)) >= threshold


def mistaken(are_same: Equivalence, share: float, *, seed: int) -> Equivalence:
    """The opposite of what a relation says about ``share`` of the pairs of texts; which ones, the texts and the seed decide."""
    if not share:
        return are_same

    def says(first: str, second: str) -> bool:
        key = json.dumps([seed, *sorted((first, second))]).encode()
        errs = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") < share * 2**64
        return are_same(first, second) != errs

    return says
