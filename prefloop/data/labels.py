"""Answers called good or bad: from thumbs where there are any, else from rankings, by a rule that is stated.

    thumbs   a rating of the question "good?": good above the middle of its scale, bad below; the mean over people
    halves   good where an answer stands above more answers than below it, bad where below more
    best     good in the best place of a ranking, bad everywhere else

Rankings of several people are summed: an answer is what more of them make of it. An answer called unusable is bad whatever
stands beside it. What comes out even (the middle of a ranking, a tie of all, as many for as against) is called nothing, and
left out. Of a pair, both rules say: the chosen answer is good, the rejected one bad.
"""

from collections import Counter, defaultdict
from typing import Literal

from prefloop.data.doctor import in_force
from prefloop.records import Group, Rating

Rule = Literal["halves", "best"]
QUESTION = "good?"  # what formats.py calls the label of unpaired feedback


def labels_of(group: Group, *, rule: Rule = "halves", unusable: bool = True) -> dict[str, bool]:
    """The answers of a group that are called something, True where that is good.

    ``unusable``: False leaves out answers that were called unusable, instead of calling them bad.
    """
    said = thumbs(group)
    rest = {answer: vote for answer, vote in votes(group, rule=rule, unusable=unusable).items() if answer not in said}
    return {answer: vote > 0 for answer, vote in {**rest, **said}.items() if vote != 0}


def thumbs(group: Group) -> dict[str, float]:
    """The mean of each answer's thumbs, from -1 (bad) to 1 (good)."""
    corrected = {rating.supersedes for rating in group.ratings}
    found: dict[str, list[float]] = defaultdict(list)
    for rating in group.ratings:
        if rating.question == QUESTION and rating.id not in corrected:
            found[rating.completion_id].append(above_the_middle(rating))
    return {answer: sum(values) / len(values) for answer, values in found.items()}


def above_the_middle(rating: Rating) -> float:
    """A point on a scale as a number from -1 to 1."""
    low, high = rating.scale
    return (2 * rating.value - low - high) / (high - low)


def votes(group: Group, *, rule: Rule, unusable: bool) -> dict[str, int]:
    """For how many rankings more an answer is good than bad."""
    found: Counter[str] = Counter()
    for ranking in in_force(group):
        place = ranking.places(with_unusable=unusable)
        bad = {answer: -1 for answer in ranking.unusable if unusable}
        best = min(place.values(), default=0)
        for answer, own in place.items():
            below, above = sum(own < other for other in place.values()), sum(own > other for other in place.values())
            by_rule = sign(below - above) if rule == "halves" else (0 if below == above == 0 else 1 if own == best else -1)
            found[answer] += bad.get(answer, by_rule)
    return dict(found)


def sign(x: int) -> int:
    return (x > 0) - (x < 0)
