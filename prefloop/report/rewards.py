"""A study of reward models: is one better than guessing, and which? Its answer, and the models side by side.

A reward model that has learned something is above chance, and above both rules that look at nothing but length: whoever
prefers the longer answer, or the shorter, needs no model.
"""

from collections.abc import Sequence
from typing import Literal

from prefloop.report.data import Figure, Paired, ReportData, RewardRow
from prefloop.report.figures import with_interval
from prefloop.report.findings import (
    Finding,
    Verdict,
    difference,
    direction,
    listed,
    metric_name,
    of_seeds,
    policy_name,
    sample_size,
)
from prefloop.report.markup import Html, join
from prefloop.report.plots import finite_range
from prefloop.report.shell import absent, cell, table, whisker
from prefloop.report.texts import Words

COIN = 0.5  # the accuracy of whoever guesses
RULES = ("prefers_longer", "prefers_shorter")
Standing = Literal["above", "below", "open"]


def headline(data: ReportData, words: Words) -> Finding:
    """Is a reward model better than chance and than both rules of length?"""
    verdicts = {row.name: set(standing(data, row).values()) for row in data.rewards}
    up = [name for name, found in verdicts.items() if found == {"above"}]
    down = [name for name, found in verdicts.items() if "below" in found]
    rest = [name for name in verdicts if name not in up]
    if up and not rest:
        return Finding("yes", words["headline.rewards_yes"].format(up=listed(up, words)))
    if up:
        return Finding("open", words["headline.rewards_partly"].format(up=listed(up, words), rest=listed(rest, words)))
    if down:
        return Finding("no", words["headline.rewards_no"].format(down=listed(down, words)))
    return Finding("open", words["headline.rewards_open"].format(rest=listed(rest, words)))


def standing(data: ReportData, row: RewardRow) -> dict[str, Standing]:
    """A reward model against chance and against each rule of length. What was not measured is open."""
    pairs = {rule: data.difference(row.name, rule, "accuracy") for rule in RULES}
    return {"chance": against_chance(row.accuracy), **{rule: direction(p) if p else "open" for rule, p in pairs.items()}}


def against_chance(accuracy: Figure | None) -> Standing:
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return "open"
    return "above" if accuracy.low > COIN else "below" if accuracy.high < COIN else "open"


def findings(data: ReportData, words: Words) -> list[Finding]:
    """Each model against guessing, the models against each other, and how many training runs stand behind it."""
    return [*(of_model(data, row, words) for row in data.rewards), *of_pairs(data, words), *of_seeds(data, words)]


def of_model(data: ReportData, row: RewardRow, words: Words) -> Finding:
    """One reward model: its accuracy, and whether that is more than guessing."""
    name = policy_name(row.name, words)
    if row.accuracy is None:
        return Finding("missing", words["finding.rewards_missing"].format(name=name))
    stand = standing(data, row)
    parts = [words[f"finding.chance_{stand['chance']}"]]
    for rule in RULES:
        pair = data.difference(row.name, rule, "accuracy")
        told = difference(pair, words) if pair else words["missing"]
        parts.append(words[f"finding.rule_{stand[rule]}"].format(rule=policy_name(rule, words), difference=told))
    found = set(stand.values())
    verdict: Verdict = "no" if "below" in found else "yes" if found == {"above"} else "open"
    told = {"accuracy": with_interval(row.accuracy, as_percent=True), "n": prompts_of(row.accuracy, words)}
    return Finding(verdict, words["finding.rewards"].format(name=name, parts=words["semicolon"].join(parts), **told))


def prompts_of(figure: Figure, words: Words) -> str:
    n, seeds = figure.n_prompts or figure.n or 0, figure.n_seeds or 1
    return words["n.prompts" if seeds <= 1 else "n.prompts_seeds"].format(n=f"{n:,}", seeds=seeds)


def of_pairs(data: ReportData, words: Words) -> list[Finding]:
    """Reward models that judged the same prompts, against each other: accuracy and log-loss in one sentence."""
    found: dict[tuple[str, str], list[Paired]] = {}
    for pair in data.reward_pairs:
        if pair.b not in RULES:
            found.setdefault((pair.a, pair.b), []).append(pair)
    return [of_pair(pairs, words) for pairs in found.values()]


def of_pair(pairs: Sequence[Paired], words: Words) -> Finding:
    told = [
        {"metric": metric_name(p.metric, words), "difference": difference(p, words), "verdict": words[f"verdict.{direction(p)}"]}
        for p in pairs
    ]
    sentence = words["finding.rewards_pair"].format(
        a=policy_name(pairs[0].a, words),
        b=policy_name(pairs[0].b, words),
        n=sample_size(pairs[0], words),
        parts=words["semicolon"].join(words["finding.part"].format(**part) for part in told),
    )
    return Finding("open" if all(direction(pair) == "open" for pair in pairs) else "note", sentence)


def side_by_side(data: ReportData, words: Words) -> Html:
    """One row per reward model, the two rules of length beside it on the same prompts."""
    if not data.rewards:
        return absent(words)
    heads = [words["column.reward_model"], words["column.accuracy"], words["metric.loss"]]
    heads += [policy_name(rule, words) for rule in RULES]
    every = [figure for row in data.rewards for figure in (row.accuracy, row.prefers_longer, row.prefers_shorter) if figure]
    scale = finite_range([COIN], *([f.mean, *((f.low, f.high) if f.has_interval else ())] for f in every)) or (0.0, 1.0)
    scale = (max(scale[0], 0.0), min(scale[1], 1.0))
    rows = [
        [
            policy_name(row.name, words),
            drawn(row.accuracy, scale, "best_of_n", words, has_n=True),
            cell(row.loss, words, digits=3, has_n=False),
            drawn(row.prefers_longer, scale, "muted", words),
            drawn(row.prefers_shorter, scale, "muted", words),
        ]
        for row in data.rewards
    ]
    return table(heads, rows, class_="stacked policies")


def drawn(figure: Figure | None, scale: tuple[float, float], ink: str, words: Words, *, has_n: bool = False) -> Html:
    """A share with its interval, drawn beside the mark of a coin toss."""
    return join(cell(figure, words, as_percent=True, has_n=has_n), whisker(figure, scale, ink=ink, at=COIN))
