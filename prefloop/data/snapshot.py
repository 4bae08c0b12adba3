"""A data set as it was used: the hash of every record, so that two runs can be asked what they saw that the other did not."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from prefloop.records import Snapshot, content_id, plain


class Changes(NamedTuple):
    """Hashes of the records in one snapshot and not in the other."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def snapshot(records: Iterable[Any], *, query: str) -> Snapshot:
    """The snapshot of some records or texts. Their order does not matter; how often each occurs does.

    ``query`` says how they were chosen: a path, a hub id with its split, a question to a store.
    """
    records = list(records)
    hashes = tuple(sorted(content_id(plain(record)) for record in records))
    counts = Counter(type(record).__name__ for record in records)
    return Snapshot(records=hashes, query=query, counts=dict(sorted(counts.items())))


def changes(before: Snapshot, after: Snapshot) -> Changes:
    """What has to be added to the first snapshot, and taken from it, to have the second."""
    old, new = Counter(before.records), Counter(after.records)
    return Changes(tuple(sorted((new - old).elements())), tuple(sorted((old - new).elements())))
