"""How far people agree, question by question: what the dashboard's agreement panel shows, and its matrix of annotators."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from prefloop.collect.places import answers_about
from prefloop.collect.recent import Opined
from prefloop.stats.agreement import agreement_of, chance_of, marks, pair_signs
from prefloop.stats.coefficient import Coefficient, divided
from prefloop.stats.reliability import cohen_kappa, fleiss_kappa, gwet_ac1, icc_2k, kendall_w, krippendorff_alpha

Json = dict[str, Any]
DAY = 86_400_000
N_BOOT = 400
IN_MATRIX = 12  # annotators, those who did most


def agreement_panel(items: Sequence[Opined]) -> Json:
    """Everything about agreement over some items; undefined numbers come with the reason."""
    twice = [one for one in items if one.kind in ("normal", "gold") and len(one.opinions) > 1]
    tables = [np.array([opinion.places for opinion in one.orders]) for one in twice if len(one.orders) > 1]
    given = {"n_boot": N_BOOT}
    return {
        "items": len(twice),
        "judgments": sum(len(one.opinions) for one in twice),
        "pairs": {
            ties: {"by_items": agreement_of(tables, ties=ties, **given).as_dict(),
                   "by_pairs": agreement_of(tables, ties=ties, mean="pairs", **given).as_dict(), "chance": number(chance_of(tables, ties))}
            for ties in ("drop", "half", "strict")
        },
        "preference_alpha": preference_alpha(tables).as_dict(),
        "kendall_w": kendall_w([table for table in tables if not np.isnan(table).any()], **given).as_dict(),
        "questions": questions(twice),
        "matrix": matrix(twice),
        "trend": trend(twice),
    }  # fmt: skip


def number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def preference_alpha(tables: Sequence[np.ndarray]) -> Coefficient:
    """Krippendorff's ordinal alpha of before, level, after, each pair of answers a unit.

    Each pair is taken both ways round. Which answer the item lists first says nothing; counted one way only, people who agree
    on items that list the better answer first would look as if they always said the same word.
    """
    units, items = [], []
    for number, table in enumerate(tables):
        for column in pair_signs(table).T:
            known = column[~np.isnan(column)]
            units += [known.tolist(), (-known).tolist()]
            items += [number, number]
    return krippendorff_alpha(units, metric="ordinal", items=items, n_boot=N_BOOT)


# --- points, flags, choices -------------------------------------------------------------------------------------------------


def questions(items: Sequence[Opined]) -> list[Json]:
    """Alpha and its relatives for every scale, flag and choice that was asked."""
    asked = {
        (stage.id, question.id): (stage, question)
        for one in items
        for opinion in one.opinions
        for stage, question in opinion.schema.of_type("likert", "number", "flag", "single")
    }
    return [about(items, stage, question) for stage, question in asked.values()]


def about(items: Sequence[Opined], stage: Any, question: Any) -> Json:
    units, names, owners = units_of(items, stage, question)
    given = {"items": owners, "n_boot": N_BOOT}
    metrics = ("ordinal", "interval") if question.type in ("likert", "number") else ("nominal",)
    found: Json = {"stage": stage.id, "question": question.id, "label": question.label, "type": question.type}
    found |= {f"alpha_{metric}": krippendorff_alpha(units, metric=metric, **given).as_dict() for metric in metrics}
    if question.type in ("likert", "number"):
        found["icc_2k"] = common_table(units, names, owners).as_dict()
    else:
        n = 2 if question.type == "flag" else len(question.options)
        found["fleiss"] = fleiss_kappa(units, **given).as_dict()
        found["gwet_ac1"] = gwet_ac1(units, categories=range(n), **given).as_dict()
    return found


def units_of(items: Sequence[Opined], stage: Any, question: Any) -> tuple[list[list[float]], list[list[str]], list[str]]:
    """The values given to each thing, who gave them, and the item the thing belongs to."""
    units, names, owners = [], [], []
    for one in items:
        for thing in one.names if stage.per == "completion" else [""]:
            given = [(opinion.annotator, value_of(opinion.said, stage, question, thing)) for opinion in one.opinions]
            known = [(name, value) for name, value in given if value is not None]
            units.append([value for _, value in known])
            names.append([name for name, _ in known])
            owners.append(one.item_id)
    return units, names, owners


def value_of(said: Any, stage: Any, question: Any, thing: str) -> float | None:
    """As a number: an option by its place, a flag that was not set as 0."""
    if stage.id not in said.answers:
        return None
    value = answers_about(said, stage.id, thing).get(question.id)
    if question.type == "flag":
        return float(bool(value))
    if question.type == "single":
        return None if value is None else float([option.id for option in question.options].index(value))
    return None if value is None else float(value)


def common_table(units: list[list[float]], names: list[list[str]], owners: list[str]) -> Coefficient:
    """ICC(2,k) over the units that the same people judged, of those people who did so most often."""
    teams = Counter(tuple(sorted(who)) for who in names if len(who) > 1 and len(set(who)) == len(who))
    team = max(teams, key=lambda one: (teams[one], one), default=())
    rows, items = [], []
    for unit, who, owner in zip(units, names, owners, strict=True):
        if tuple(sorted(who)) == team:
            rows.append([unit[who.index(name)] for name in team])
            items.append(owner)
    return icc_2k(rows if rows else [[0.0]], items=items or None, n_boot=N_BOOT)


# --- people and days --------------------------------------------------------------------------------------------------------


def matrix(items: Sequence[Opined]) -> Json:
    """Agreement of every two annotators on pairs of answers (half for a tie of one), and Cohen's kappa of the same pairs."""
    busy = Counter(opinion.annotator for one in items for opinion in one.orders)
    names = sorted(name for name, _ in busy.most_common(IN_MATRIX))
    cells: dict[tuple[str, str], list[tuple[np.ndarray, str]]] = defaultdict(list)
    for one in items:
        orders = sorted((opinion for opinion in one.orders if opinion.annotator in names), key=lambda opinion: opinion.annotator)
        signs = pair_signs([opinion.places for opinion in orders]) if len(orders) > 1 else np.empty((0, 0))
        for i in range(len(orders)):
            for j in range(i + 1, len(orders)):
                cells[orders[i].annotator, orders[j].annotator].append((signs[[i, j]], one.item_id))
    return {"annotators": names, "cells": [cell(pair, parts) for pair, parts in sorted(cells.items()) if pair[0] != pair[1]]}


def cell(pair: tuple[str, str], parts: list[tuple[np.ndarray, str]]) -> Json:
    total = sum(marks(signs, "half") for signs, _ in parts)
    both = np.concatenate([signs for signs, _ in parts], axis=1)
    owners = [owner for signs, owner in parts for _ in range(signs.shape[1])]
    is_known = ~np.isnan(both).any(0)
    kept = [owner for owner, known in zip(owners, is_known, strict=True) if known]
    kappa = cohen_kappa(both[0, is_known], both[1, is_known], items=kept, n_boot=50)
    agreement = number(float(divided(np.asarray(total[0]), np.asarray(total[1]))))
    return {"a": pair[0], "b": pair[1], "items": len(parts), "agreement": agreement, "kappa": kappa.as_dict()}


def trend(items: Sequence[Opined]) -> list[Json]:
    """Agreement by the day of an item's last judgment, the last thirty days there are."""
    days: dict[int, list[np.ndarray]] = defaultdict(list)
    for one in items:
        if len(one.orders) > 1:
            days[max(opinion.created for opinion in one.orders) // DAY].append(
                np.array([opinion.places for opinion in one.orders])
            )
    return [{"day": day, **agreement_of(tables, ties="half", n_boot=200).as_dict()} for day, tables in sorted(days.items())[-30:]]
