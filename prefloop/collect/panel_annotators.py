"""What is known of each annotator: how much, how fast, how right where it is known, how like the others, how lopsided.

Nothing follows from a number by itself; a manager decides. Intervals are Wilson's where a share is of things won or lost.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from prefloop.collect.panel_bias import pairs_of_texts
from prefloop.collect.places import answers_about
from prefloop.collect.planted import gold_score
from prefloop.collect.quality_settings import QualityConfig, floor_ms
from prefloop.collect.recent import Opined, Opinion
from prefloop.stats.agreement import marks, pair_signs
from prefloop.stats.coefficient import divided, of_sums
from prefloop.stats.intervals import wilson
from prefloop.stats.lopsided import slope

Json = dict[str, Any]


class Own(NamedTuple):
    """One person's judgment and the item it is of."""

    item: Opined
    opinion: Opinion


def annotators_panel(items: Sequence[Opined], settings: QualityConfig) -> list[Json]:
    """A row per annotator, those who did most first."""
    by_name: dict[str, list[Own]] = defaultdict(list)
    for one in items:
        for opinion in one.opinions:
            by_name[opinion.annotator].append(Own(one, opinion))
    originals = {one.item_id: one for one in items}
    rows = [row_of(name, own, settings, originals) for name, own in by_name.items()]
    return sorted(rows, key=lambda row: (-row["n"], row["annotator"]))


def row_of(name: str, own: list[Own], settings: QualityConfig, originals: dict[str, Opined]) -> Json:
    data = [one for one in own if one.item.kind in ("normal", "gold")]
    times = [one.opinion.active_ms for one in own if one.opinion.active_ms is not None]
    fast = sum(
        one.opinion.active_ms < floor_ms(settings, one.item.n_characters) for one in own if one.opinion.active_ms is not None
    )
    return {
        "annotator": name,
        "n": len(own),
        "median_ms": median(times) if times else None,
        "too_fast": wilson(fast, len(times)).as_dict(),
        "gold": gold(own, settings),
        "with_others": with_others(data),
        "first": first_place(data),
        "length_slope": length_slope(data),
        "straight": straight(data),
        "consistency": consistency(own, originals, name),
    }


def gold(own: list[Own], settings: QualityConfig) -> Json:
    """The share of gold items and checks that were passed, and the mean score."""
    scores = [
        gold_score(one.item.planted["expected"], order, one.item.names)
        for one in own
        if one.item.kind in ("gold", "check") and one.item.planted and (order := order_of(one)) is not None
    ]
    passed = sum(score >= settings.gold_pass - 1e-9 for score in scores)
    return {**wilson(passed, len(scores)).as_dict(), "score": float(np.mean(scores)) if scores else None}


def order_of(one: Own) -> tuple[list[list[str]], list[str]] | None:
    """The order as tiers again: level places are a tier, and so is what is unusable."""
    if one.opinion.places is None:
        return None
    known = sorted({place for place in one.opinion.places if not np.isnan(place)})
    names = one.item.names
    return [[names[i] for i, place in enumerate(one.opinion.places) if place == value] for value in known], []


def with_others(own: list[Own]) -> Json:
    """Agreement with the majority of everybody else, pair by pair of answers, where there is a majority: leave one out."""
    rows = []
    for one in own:
        others = [other.places for other in one.item.orders if other.id != one.opinion.id]
        if one.opinion.places is None or not others:
            continue
        majority = np.sign(np.nansum(pair_signs(others), axis=0))
        mine = pair_signs([one.opinion.places])[0]
        is_known = ~np.isnan(mine) & (majority != 0)
        mark = (mine == majority) + 0.5 * (mine == 0)
        rows.append([mark[is_known].sum(), is_known.sum()])
    known = np.array([row for row in rows if row[1]]).reshape(-1, 2)
    given = {"within": (0.0, 1.0), "n_boot": 200, "reason": "nobody else judged the same items"}
    return of_sums(known, lambda sums: divided(sums[..., 0], sums[..., 1]), **given).as_dict()


def first_place(own: list[Own]) -> Json:
    """How often what stood first on the screen was best alone, and how often it would by chance."""
    best = []
    for one in own:
        if (shown := only_best(one.item, one.opinion)) is not None:
            best.append((shown == 0, 1 / len(one.opinion.said.shown)))
    chance = float(np.mean([share for _, share in best])) if best else None
    return {**wilson(sum(is_first for is_first, _ in best), len(best)).as_dict(), "chance": chance}


def only_best(item: Opined, opinion: Opinion) -> int | None:
    """Where on the screen the only best answer stood; None where there is none."""
    if opinion.places is None:
        return None
    best = [i for i, place in enumerate(opinion.places) if place == np.nanmin(opinion.places)]
    return list(opinion.said.shown).index(item.names[best[0]]) if len(best) == 1 and len(opinion.places) > 1 else None


def length_slope(own: list[Own]) -> Json:
    """By how much a doubling of an answer's length, against another's, raises the log odds of being put before it."""
    difference, won, items = pairs_of_texts((one.item, one.opinion) for one in own)
    return slope(difference, won, items, n_boot=100).as_dict()


def straight(own: list[Own]) -> Json:
    """How often the order given is the order of the screen, or every answer got the same points on a scale."""
    is_straight = [is_order_of_screen(one) or is_one_column(one) for one in own if len(one.opinion.said.shown) > 1]
    return wilson(sum(is_straight), len(is_straight)).as_dict()


def is_order_of_screen(one: Own) -> bool:
    if one.opinion.places is None:
        return False
    place = dict(zip(one.item.names, one.opinion.places, strict=True))
    return [place[name] for name in one.opinion.said.shown] == list(range(len(one.opinion.said.shown)))


def is_one_column(one: Own) -> bool:
    """The same point for every answer on every scale, where answers are rated and none is ranked."""
    scales = [
        (stage, question) for stage, question in one.opinion.schema.of_type("likert", "single") if stage.per == "completion"
    ]
    if one.opinion.places is not None or not scales:
        return False
    return all(
        len({answers_about(one.opinion.said, stage.id, name).get(question.id) for name in one.item.names}) == 1
        for stage, question in scales
    )


def consistency(own: list[Own], originals: dict[str, Opined], name: str) -> Json:
    """Marks per pair of answers between a repeat and what the same person said before (half where a tie of one)."""
    rows = []
    for one in own:
        before = originals.get(one.item.planted["copy_of"]) if one.item.kind == "repeat" and one.item.planted else None
        earlier = [other.places for other in before.orders if other.annotator == name] if before else []
        if earlier and one.opinion.places is not None:
            rows.append(marks(pair_signs([earlier[0], one.opinion.places]), "half"))
    known = np.array([row for row in rows if row[1]]).reshape(-1, 2)
    given = {"within": (0.0, 1.0), "n_boot": 200, "reason": "nothing was judged twice"}
    return of_sums(known, lambda sums: divided(sums[..., 0], sums[..., 1]), **given).as_dict()
