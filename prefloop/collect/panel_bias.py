"""What answers win by that is not their worth: the place on the screen, their length, Markdown; and who made the better ones."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from prefloop.collect.recent import Opined, Opinion
from prefloop.stats.coefficient import Values, divided, of_sums
from prefloop.stats.lopsided import bradley_terry, chi_square, slope

Json = dict[str, Any]
MARKDOWN = re.compile(r"(?m)^\s*(?:[-*+]|\d+\.)\s+\S|^#{1,6}\s|```|\*\*\S|^\s*\|.*\|")
SOURCES = 16  # on the board, those with most comparisons
N_BOOT = 100


def bias_panel(items: Sequence[Opined]) -> Json:
    data = [one for one in items if one.kind in ("normal", "gold")]
    difference, won, owners = pairs_of_texts((one, opinion) for one in data for opinion in one.orders)
    return {
        "position": position(data),
        "length": {"slope": slope(difference, won, owners, n_boot=N_BOOT).as_dict(), "longer_wins": share_won(np.sign(difference), won, owners)},
        "markdown": markdown(data),
        "sources": sources(data),
    }  # fmt: skip


# --- the screen -------------------------------------------------------------------------------------------------------------


def position(items: Sequence[Opined]) -> Json:
    """How often each place on the screen came to each tier, among items with the commonest number of answers."""
    given = [(one, opinion) for one in items for opinion in one.orders if not any(map(math.isnan, opinion.places or [math.nan]))]
    common = Counter(len(one.names) for one, _ in given)
    k = max(common, key=lambda size: (common[size], -size), default=0)
    table = np.zeros((k, k), dtype=int)
    n = 0
    for one, opinion in given:
        if len(one.names) == k:
            n += 1
            place = dict(zip(one.names, opinion.places or (), strict=True))
            for at, name in enumerate(opinion.said.shown):
                table[at, min(int(place[name]), k - 1)] += 1
    test = chi_square(table)
    known = math.isfinite(test.p)
    return {
        "k": k, "judgments": n, "table": table.tolist(),
        "chi_square": {"statistic": test.statistic if known else None, "df": test.df, "p": test.p if known else None, "reason": test.reason},
    }  # fmt: skip


# --- words ------------------------------------------------------------------------------------------------------------------


def pairs_of_texts(given: Iterable[tuple[Opined, Opinion]]) -> tuple[Values, Values, list[str]]:
    """For each pair of text answers in each judgment: how many doublings longer the first is, 1, 0 or 1/2 as it won, the item."""
    difference, won, owners = [], [], []
    for one, opinion in given:
        lengths = [math.log2(len(text)) if text else None for text in one.texts]
        for i, j in combinations(range(len(lengths)), 2):
            result = result_of(opinion, i, j)
            if result is not None and lengths[i] is not None and lengths[j] is not None:
                difference.append(lengths[i] - lengths[j])
                won.append(result)
                owners.append(one.item_id)
    return np.array(difference), np.array(won), owners


def result_of(opinion: Opinion, i: int, j: int) -> float | None:
    if opinion.places is None or math.isnan(opinion.places[i]) or math.isnan(opinion.places[j]):
        return None
    return (1 + float(np.sign(opinion.places[j] - opinion.places[i]))) / 2


def share_won(sign: Values, won: Values, owners: Sequence[str]) -> Json:
    """How often the one with more of it is put first, ties left out; 1/2 is no bias."""
    rows: dict[str, list[float]] = {}
    for more, result, owner in zip(sign, won, owners, strict=True):
        if more and result != 0.5:
            row = rows.setdefault(owner, [0.0, 0.0])
            row[0] += result if more > 0 else 1 - result
            row[1] += 1
    given = {"within": (0.0, 1.0), "n_boot": 400, "reason": "no pair differs in it"}
    return of_sums(
        np.array(list(rows.values())).reshape(-1, 2), lambda sums: divided(sums[..., 0], sums[..., 1]), **given
    ).as_dict()


def markdown(items: Sequence[Opined]) -> Json:
    """How often the one with Markdown is put before the one without."""
    sign, won, owners = [], [], []
    for one in items:
        has = [bool(MARKDOWN.search(text)) for text in one.texts]
        for opinion in one.orders:
            for i, j in combinations(range(len(has)), 2):
                result = result_of(opinion, i, j)
                if has[i] != has[j] and result is not None:
                    sign.append(1.0 if has[i] else -1.0)
                    won.append(result)
                    owners.append(one.item_id)
    return share_won(np.array(sign), np.array(won), owners)


# --- who made them ----------------------------------------------------------------------------------------------------------


def sources(items: Sequence[Opined]) -> Json:
    """Where answers come from, by strength (Bradley-Terry with ties), with intervals over items, and who beat whom how often."""
    met = Counter(
        completion.get("source", "")
        for one in items
        for completion in one.completions
        for _ in one.orders
        if completion.get("source")
    )
    names = sorted(name for name, _ in met.most_common(SOURCES))
    if len(names) < 2:
        return {"names": names, "board": [], "wins": [], "ties": [], "reason": "answers come from fewer than two named sources"}
    tables = [table for one in items if (table := contests(one, names)).any()]
    if not tables:
        return {"names": names, "board": [], "wins": [], "ties": [], "reason": "no answers of two sources were compared"}
    stacked = np.array(tables)  # items 2 K K
    wins, ties = stacked.sum(0)
    found = bradley_terry(wins, ties)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(N_BOOT):
        drawn = stacked[rng.integers(len(stacked), size=len(stacked))].sum(0)
        draws.append(bradley_terry(*drawn).strength)
    low, high = np.quantile(np.array(draws), [0.025, 0.975], axis=0)
    board = [
        {"source": name, "strength": float(found.strength[i]), "low": float(low[i]), "high": float(high[i]),
         "n": int(wins[i].sum() + wins[:, i].sum() + ties[i].sum())} for i, name in enumerate(names)
    ]  # fmt: skip
    return {
        "names": names,
        "board": sorted(board, key=lambda one: -one["strength"]),
        "wins": wins.tolist(),
        "ties": ties.tolist(),
        "reason": "",
    }


def contests(one: Opined, names: Sequence[str]) -> np.ndarray:
    """Wins and ties between sources in an item.  2 K K"""
    table = np.zeros((2, len(names), len(names)))
    at = [names.index(source) if (source := completion.get("source")) in names else None for completion in one.completions]
    for opinion in one.orders:
        for i, j in combinations(range(len(at)), 2):
            a, b = at[i], at[j]
            result = result_of(opinion, i, j)
            if a is None or b is None or a == b or result is None:
                continue
            if result == 0.5:
                table[1, a, b] += 1
                table[1, b, a] += 1
            else:
                winner, loser = (a, b) if result else (b, a)
                table[0, winner, loser] += 1
    return table
