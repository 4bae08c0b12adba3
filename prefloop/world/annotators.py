"""Thirteen simulated annotators: Bradley-Terry on their own weighting of the gold terms, with every human weakness.

The pool, the flips by half coins and the seeding by text follow AlpacaFarm (arXiv 2305.14387). Each annotator orders K
answers by utility plus Gumbel noise: that order is Plackett-Luce, whose pairwise marginals are exactly Bradley-Terry, because
the difference of two Gumbel numbers is logistic. Ties come from a grid: utilities in the same cell of a grid of width
``tie_band``, laid at a random offset, are equal, so a pair at distance d is told apart with probability min(1, d / tie_band),
whatever else is on the screen. Both choices keep every pairwise probability in closed form (``pair_probabilities``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from prefloop.errors import DataError
from prefloop.records import Group, Ranking
from prefloop.world.draws import generator, uniform
from prefloop.world.gold import TERMS, Judged

POOL = 13
ROUNDING = 9  # decimals of gold that count; sums of the same terms may differ beyond them
TINY = 1e-6  # stands for no tie band and for no noise in the closed form; far below any gold margin


@dataclass(frozen=True)
class Annotator:
    """Tastes and weaknesses; all in units of the gold reward."""

    name: str
    weights: tuple[float, ...]  # one per gold term, around 1
    temperature: float  # of Bradley-Terry; 0 is a perfect eye
    length_bias: float  # per ten words
    first_bonus: float  # for the answer shown first
    tie_band: float  # what is nearer than this is often called equal; 0 never ties
    unusable_below: float  # an answer worth less, by its own noisy utility, is rejected


PERFECT = Annotator("sim:gold", (1.0,) * len(TERMS), 0.0, 0.0, 0.0, 0.0, -math.inf)


@cache
def annotator(number: int) -> Annotator:
    """Annotator ``sim:<number>``, the same person in every world and with every seed."""
    random_source = generator("annotator", number)
    return Annotator(
        name=f"sim:{number}",
        weights=tuple(math.exp(random_source.gauss(0.0, 0.2)) for _ in TERMS),
        temperature=random_source.uniform(0.1, 0.4),
        length_bias=random_source.uniform(-0.05, 0.2),
        first_bonus=random_source.uniform(0.0, 0.2),
        tie_band=random_source.uniform(0.6, 1.2),
        unusable_below=random_source.uniform(-1.75, -0.75),
    )


def pool(n: int) -> tuple[Annotator, ...]:
    """The first ``n`` annotators of the thirteen."""
    if not 1 <= n <= POOL:
        raise DataError(f"the world has {POOL} annotators, {n} were asked for")
    return tuple(annotator(number) for number in range(n))


def base_utility(who: Annotator, judged: Judged) -> float:
    """What an answer is worth to an annotator before noise and before it is put on the screen."""
    own = sum(weight * judged.terms[name] for weight, name in zip(who.weights, TERMS, strict=True))
    return own + who.length_bias * min(judged.n_words, 60) / 10


def rank(
    group: Group, judged: Sequence[Judged], *, who: Annotator, flip: float, key: tuple, screen: Sequence[str] = ()
) -> Ranking:
    """One annotator's ranking of one group, shown in the order of ``screen``, or of chance where none is given.

    Everything random is keyed by ``key`` and by the texts, so it depends neither on the order of the completions nor on
    their sources; equal texts always tie. A flip replaces, with probability 2 * ``flip``, the order of the tiers by a random
    one: every strict pair is then inverted with probability ``flip`` exactly, ties stay ties, and K = 2 is AlpacaFarm's coin.
    """
    asked = group.prompt.text
    worth = {c.id: base_utility(who, j) for c, j in zip(group.completions, judged, strict=True)}
    text_of = {completion.id: completion.text for completion in group.completions}
    shown = list(screen) or sorted(worth, key=lambda c: (uniform("shown", *key, asked, text_of[c]), c))
    first = text_of[shown[0]]

    def utility_of(completion: str) -> float:
        text = text_of[completion]
        noise = who.temperature * gumbel("noise", *key, who.name, asked, text)
        return worth[completion] + who.first_bonus * (text == first) + noise

    utility = {completion: utility_of(completion) for completion in shown}
    tiers = tiers_of(utility, shown, band=who.tie_band, offset=uniform("grid", *key, who.name, asked))
    is_rejected = [max(utility[c] for c in tier) < who.unusable_below for tier in tiers]
    texts = sorted(text_of.values())
    if uniform("flip", *key, asked, *texts) < 2 * flip:
        generator("order", *key, asked, *texts).shuffle(tiers)
    unusable = tiers.pop() if is_rejected[-1] and len(tiers) > 1 else ()
    return Ranking(prompt_id=group.prompt.id, tiers=tuple(tiers), unusable=unusable, shown=tuple(shown), annotator=who.name)


def gumbel(*key: object) -> float:
    """Standard Gumbel noise by key."""
    return -math.log(-math.log(uniform(*key)))


def tiers_of(utility: dict[str, float], shown: Sequence[str], *, band: float, offset: float) -> list[tuple[str, ...]]:
    """Completions by cell of the tie grid, best cell first; without a band only equal utilities tie."""
    cell = {c: math.floor(utility[c] / band + offset) if band else round(utility[c], ROUNDING) for c in shown}
    return [tuple(c for c in shown if cell[c] == place) for place in sorted(set(cell.values()), reverse=True)]


class PairProbabilities(NamedTuple):
    """Over the pool, before flips: how likely the one answer is placed above the other, and below; the rest are ties."""

    above: np.ndarray  # K K, [i, j]: i above j
    below: np.ndarray  # K K


def pair_probabilities(who: Sequence[Annotator], judged: Sequence[Judged], n_shown: int) -> PairProbabilities:
    """Closed form for every pair of one group, over the annotators and over which answer was shown first."""
    worth = np.array([[base_utility(one, answer) for answer in judged] for one in who])  # A K
    margin = worth[:, :, None] - worth[:, None, :]  # A K K
    temperature, band, bonus = (
        np.array([getattr(one, name) for one in who])[:, None, None] for name in ("temperature", "tie_band", "first_bonus")
    )
    above = np.zeros(margin.shape)
    for sign, share in ((1, 1 / n_shown), (-1, 1 / n_shown), (0, (n_shown - 2) / n_shown)):
        above += share * placed_above(margin + sign * bonus, temperature, band)
    mean = above.mean(0)
    return PairProbabilities(mean, mean.T)


def placed_above(margin: np.ndarray, temperature: np.ndarray, band: np.ndarray) -> np.ndarray:
    """P(margin plus logistic noise reaches a higher cell of the grid).

    At distance d > 0 that has probability min(1, d / band), so it is 1/band times the integral over x from 0 to band of
    sigma((margin - x) / temperature), which is a difference of two softplus. Without noise it is the distance itself.
    """
    width = np.maximum(band, TINY)  # without ties the integral shrinks to a point
    slope = np.maximum(temperature, TINY * 1e-3)
    return slope / width * (np.logaddexp(0.0, margin / slope) - np.logaddexp(0.0, (margin - width) / slope))
