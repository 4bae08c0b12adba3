"""Reward models on fresh answers of each policy, and synthetic preferences by confidence: what a study of relearning rests on."""

from collections.abc import Sequence

from prefloop.report.data import FreshPaired, FreshRow, ReportData, SyntheticPairs
from prefloop.report.figures import number
from prefloop.report.findings import NEWS, difference, direction, metric_name, policy_name, sample_size
from prefloop.report.markup import Html, join, tag
from prefloop.report.shell import absent, cell, table, whisker
from prefloop.report.tables import symmetric
from prefloop.report.texts import Words

COIN = 0.5  # the accuracy of whoever guesses
FIGURES = ("accuracy", "loss", "overconfidence")


def fresh(data: ReportData, words: Words) -> Html:
    """Every reward model on the answers of every policy, what relearning changed there, and whether synthetic pairs were right."""
    if not data.fresh and not data.synthetic:
        return absent(words)
    parts: list[Html] = []
    if data.fresh:
        parts += [tag("p", words["fresh.text"]), judged(data.fresh, words)]
    if data.fresh_pairs:
        parts += [sentences(data.fresh_pairs, words), differences(data.fresh_pairs, words)]
    if data.synthetic:
        parts += [tag("h3", words["synthetic.title"]), tag("p", words["synthetic.text"]), by_confidence(data.synthetic, words)]
    return join(*parts)


def named(metric: str, words: Words) -> str:
    """A figure in words; accuracy is here against gold, not against labels."""
    return words["metric.by_gold"] if metric == "accuracy" else metric_name(metric, words)


def judged(rows: Sequence[FreshRow], words: Words) -> Html:
    """One row per policy and reward model."""
    heads = [words["column.answers_of"], words["column.reward_model"], *(named(figure, words) for figure in FIGURES)]
    written = [
        [
            policy_name(row.policy, words),
            policy_name(row.reward, words),
            join(cell(row.accuracy, words, as_percent=True), whisker(row.accuracy, (0.4, 1.0), ink="best_of_n", at=COIN)),
            cell(row.loss, words, digits=3, has_n=False),
            cell(row.overconfidence, words, as_percent=True, has_n=False),
        ]
        for row in rows
    ]
    return table(heads, written, class_="stacked policies")


def sentences(pairs: Sequence[FreshPaired], words: Words) -> Html:
    """What may be said of accuracy on each policy's answers."""
    told = [(pair, direction(pair)) for pair in pairs if pair.metric == "accuracy"]
    items = [
        tag(
            "li",
            words["fresh.on"].format(policy=policy_name(pair.policy, words)),
            words[f"finding.{verdict}"].format(
                a=policy_name(pair.a, words),
                b=policy_name(pair.b, words),
                metric=named(pair.metric, words),
                difference=difference(pair, words),
                n=sample_size(pair, words),
                at="",
            ),
            class_=NEWS[verdict],
        )
        for pair, verdict in told
    ]
    return tag("ul", *items, class_="findings")


def differences(pairs: Sequence[FreshPaired], words: Words) -> Html:
    """All paired differences, also those that separate nothing."""
    heads = [
        words[f"column.{key}"] for key in ("answers_of", "pair", "metric", "difference", "interval", "drawn", "n", "verdict")
    ]
    rows = []
    for pair in sorted(pairs, key=lambda pair: FIGURES.index(pair.metric)):
        scale = symmetric([other for other in pairs if other.metric == pair.metric])
        mean, _, ends = difference(pair, words).partition(" ")
        rows.append(
            [
                policy_name(pair.policy, words),
                f"{policy_name(pair.a, words)} − {policy_name(pair.b, words)}",
                named(pair.metric, words),
                tag("b", mean),
                ends,
                whisker(pair.figure, scale, at=0.0),
                sample_size(pair, words),
                words[f"verdict.{direction(pair)}"],
            ]
        )
    return table(heads, rows, class_="stacked")


def by_confidence(pairs: Sequence[SyntheticPairs], words: Words) -> Html:
    """Of each run the pairs it learned from, then all it could have made, by confidence."""
    heads = [words[f"column.{key}"] for key in ("synthetic", "confidence", "n", "gold_agrees", "gold_gap")]
    rows = [
        [
            policy_name(row.name, words),
            words["synthetic.learned"] if row.low is None else range_of(row),
            f"{row.n:,}",
            join(
                cell(row.accuracy, words, as_percent=True, has_n=False),
                whisker(row.accuracy, (0.0, 1.0), ink="best_of_n", at=COIN),
            ),
            cell(row.gap, words, has_n=False),
        ]
        for row in pairs
    ]
    return table(heads, rows, class_="stacked")


def range_of(row: SyntheticPairs) -> str:
    """Shares from the one up to, but not including, the other."""
    low = number(row.low or 0.0, 1)
    return f"≥ {low}" if row.high is None else f"{low} – < {number(row.high, 1)}"
