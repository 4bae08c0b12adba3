"""How far the learned reward can be trusted: accuracy beside its ceiling, calibration, difficulty, and length."""

from prefloop.report.data import Figure, ReportData, RewardModel
from prefloop.report.figures import interval, number, percent, sample_of, with_interval
from prefloop.report.markup import Html, join, tag
from prefloop.report.plots import Line, panel
from prefloop.report.rewards import side_by_side
from prefloop.report.shell import absent, folded, table, whisker
from prefloop.report.texts import Words


def reward(data: ReportData, words: Words) -> Html:
    """Accuracy beside its ceiling, calibration, accuracy by true gap, and what length has to do with it.

    Where several reward models were judged and no policy, each of them has its own.
    """
    measured = [row for row in data.rewards if row.trust]
    if data.is_of_rewards and len(measured) > 1:
        return join(*(of_one(row.name, row.trust, index, words) for index, row in enumerate(measured) if row.trust))
    model = data.reward_model
    if model is None:
        return absent(words)
    ceiling = model.bayes_ceiling.mean if model.bayes_ceiling else None
    tiles = [
        tile(model.pair_accuracy, words["tile.accuracy" if ceiling is None else "tile.accuracy_tick"], words, at=ceiling),
        tile(model.bayes_ceiling, words["tile.ceiling"], words),
        tile(model.gold_accuracy, words["tile.gold"], words),
        correlation_tile(model.length_correlation, words),
    ]
    others = (tag("h3", words["section.rewards"]), side_by_side(data, words)) if len(data.rewards) > 1 else ()
    return join(
        tag("div", *tiles, class_="tiles"),
        tag(
            "p",
            tick_mark() if ceiling is not None else None,
            words["tiles.scale" if ceiling is None else "tiles.tick"],
            class_="rule",
        ),
        tag("div", calibration(model, words), by_gap(model, words), class_="panels two"),
        *others,
    )


def of_one(name: str, model: RewardModel, index: int, words: Words) -> Html:
    """One of several reward models: how its chances came true, and whether it is surer where it is right."""
    drawn = tag("div", calibration(model, words, str(index)), by_gap(model, words, str(index)), class_="panels two")
    return folded(name, drawn, is_open=index == 0)


def tick_mark() -> Html:
    """The mark of the ceiling, as the tiles draw it."""
    return tag(
        "svg", tag("line", x1=8, x2=8, y1=0, y2=11, class_="s-text"), class_="swatch", viewBox="0 0 16 11", aria_hidden="true"
    )


def tile(figure: Figure | None, text: str, words: Words, *, at: float | None = None) -> Html:
    """A share on a scale from a coin toss to always."""
    if figure is None:
        return tag("div", tag("b", "–"), " ", tag("span", words["missing"], class_="missing"), tag("small", text))
    low = min(0.5, figure.mean, figure.low if figure.low is not None else 0.5)
    return tag(
        "div",
        tag("b", percent(figure.mean)),
        whisker(figure, (low, 1.0), at=at),
        tag("span", text),
        fine_print(figure, words, as_percent=True),
    )


def correlation_tile(figure: Figure | None, words: Words) -> Html:
    text = words["tile.length"]
    if figure is None:
        return tile(None, text, words)
    drawn = whisker(figure, (-1.0, 1.0), at=0.0)
    return tag("div", tag("b", number(figure.mean)), drawn, tag("span", text), fine_print(figure, words))


def fine_print(figure: Figure, words: Words, *, as_percent: bool = False) -> Html | None:
    """Interval and sample size."""
    parts = [interval(figure, as_percent=as_percent), sample_of(figure, words)]
    return tag("small", " · ".join(filter(None, parts))) if any(parts) else None


def calibration(model: RewardModel, words: Words, suffix: str = "") -> Html:
    heading = tag("figcaption", words["term.calibration"])
    if not model.calibration:
        return tag("figure", heading, absent(words))
    bins = sorted(model.calibration, key=lambda bin_: bin_.predicted)
    lowest = 0.5 if bins[0].predicted >= 0.5 else 0.0  # of the favourite's chances, or of the first answer's
    most = max(bin_.n for bin_ in bins) or 1
    line = Line(x=[b.predicted for b in bins], y=[b.observed for b in bins], ink="best_of_n", area=[b.n / most for b in bins])
    plot = panel(
        [line],
        name=f"calibration{suffix}",
        title=words["term.calibration"],
        x_label=words["plot.predicted"],
        y_label=words["plot.observed"],
        x_limits=(lowest - 0.02, 1.02),
        y_limits=(min(lowest, *(b.observed for b in bins)) - 0.02, 1.02),
        diagonal=True,
    )
    heads = [words["column.predicted"], words["column.observed"], words["column.n"]]
    rows = [[percent(b.predicted), percent(b.observed), f"{b.n:,}"] for b in bins]
    return tag(
        "figure",
        heading,
        plot,
        tag("p", words["calibration.text"], class_="rule"),
        folded(words["figures"], table(heads, rows, class_="plain")),
    )


def by_gap(model: RewardModel, words: Words, suffix: str = "") -> Html:
    heading = tag("figcaption", words["term.by_gap"])
    if not model.accuracy_by_gap:
        return tag("figure", heading, absent(words))
    bins = sorted(model.accuracy_by_gap, key=lambda bin_: bin_.gap)
    shares = [b.accuracy.mean for b in bins]
    lows, highs = [b.accuracy.low or 0.0 for b in bins], [b.accuracy.high or 0.0 for b in bins]
    band = (lows, highs) if all(b.accuracy.has_interval for b in bins) else None
    line = Line(x=[b.gap for b in bins], y=shares, ink="best_of_n", has_points=True, band=band)
    plot = panel(
        [line],
        name=f"gap{suffix}",
        title=words["plot.accuracy"],
        x_label=words[f"plot.gap_{model.gap_of}"],
        y_label=words["plot.accuracy"],
        y_limits=(min(0.4, *shares, *(band[0] if band else ())) - 0.02, 1.02),
        levels=[(0.5, "muted")],
    )
    heads = [words["column.gap"], words["column.accuracy"], words["column.n"]]
    rows = [[number(b.gap), with_interval(b.accuracy, as_percent=True), f"{b.n:,}"] for b in bins]
    return tag(
        "figure",
        heading,
        plot,
        tag("p", words["gap.text"], class_="rule"),
        folded(words["figures"], table(heads, rows, class_="plain")),
    )
