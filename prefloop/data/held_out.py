"""Rankings to learn from, and rankings of other prompts to judge by."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from prefloop.data.doctor import Finding, in_force
from prefloop.data.read import Reading, read_groups
from prefloop.data.rows import snippet
from prefloop.data.turns import split_key
from prefloop.data.write import split_by_prompt
from prefloop.errors import DataError
from prefloop.records import Group

SHARED = "rankings of validation left out: their prompts are learned from"


class SplitGroups(NamedTuple):
    """Rankings in two parts that share no prompt and no tree."""

    train: list[Group]
    held_out: list[Group]
    reading: Reading[Group]  # of what is learned from, with its report
    n_shared: int  # groups of ``validation`` left out, because their prompts are learned from


def read_split_groups(data: str, *, validation: str, held_out: float, seed: int, allow_unranked: bool = False) -> SplitGroups:
    """Training groups, held-out groups, and the reading of ``data`` with its report.

    ``validation`` names a file to judge on, of which prompts that are learned from too are left out; without one a share
    ``held_out`` of the prompts is kept back, whole prompts at a time (0 keeps none). Raises DataError where nothing is left
    to judge on.
    """
    reading = read_groups(data, allow_unranked=allow_unranked)
    if validation:
        return without_shared(
            reading, read_groups(validation, allow_unranked=allow_unranked).records, data=data, validation=validation
        )
    if held_out == 0:
        return SplitGroups(reading.records, [], reading, 0)
    train, kept = split_by_prompt(reading.records, held_out=held_out, seed=seed)
    if not train or not kept:
        raise DataError(
            f"{data} has {len({g.prompt.id for g in reading.records})} different prompts, too few to hold out {held_out:.0%} of them\n"
            f"  give more, or judge on another file with validation=, or not at all with held_out=0"
        )
    return SplitGroups(train, kept, reading, 0)


def without_shared(reading: Reading[Group], judged: list[Group], *, data: str, validation: str) -> SplitGroups:
    """Nothing is judged on a prompt, or a tree, that is learned from: such groups are left out, counted and reported."""
    learned = {split_key(group.prompt) for group in reading.records} | {group.prompt.id for group in reading.records}
    kept = [group for group in judged if not learned & {split_key(group.prompt), group.prompt.id}]
    if not kept:
        raise DataError(
            f"every prompt of validation = {validation} is in data = {data} too, or in a tree with one of it\n"
            f"  a score on prompts that were learned from tells nothing about others: name a file of other prompts,\n"
            f"  or leave validation= away, and a share of the prompts is held out (held_out=)"
        )
    n_shared = len(judged) - len(kept)
    if n_shared:
        first = next(group for group in judged if learned & {split_key(group.prompt), group.prompt.id})
        found = Finding(n_shared, validation, snippet(first.prompt.text))
        reading = replace(reading, report=replace(reading.report, remarks={**reading.report.remarks, SHARED: found}))
    return SplitGroups(reading.records, kept, reading, n_shared)


def refuse_without_order(judged: Sequence[Group], name: str, *, unusable: bool) -> None:
    """DataError where no ranking to judge by has two answers in different places: known before hours are spent on training.

    ``unusable``: answers called unusable stand below the others, as in training.
    """
    if any(ranking.pairs(with_unusable=unusable) for group in judged for ranking in in_force(group)):
        return
    raise DataError(
        f"none of the {len(judged)} rankings of {name} puts two answers in different places, so nothing can be judged by them\n"
        f"  name other rankings with validation=, or judge not at all with held_out=0; see prefloop data check"
    )
