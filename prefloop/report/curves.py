"""What happened during training: proxy and gold against distance, learning curves, and the choice of an SFT epoch."""

from collections.abc import Sequence

from prefloop.report.data import CurvePoint, Figure, ReportData, SFTEpoch
from prefloop.report.figures import maybe, with_interval
from prefloop.report.findings import as_curve, in_order, place, policy_name, shape
from prefloop.report.markup import Html, join, tag
from prefloop.report.plots import Line, finite_range, ink_of, panel
from prefloop.report.shell import absent, cell, folded, legend, panels, ring, swatch, table
from prefloop.report.texts import Words


def all_curves(data: ReportData) -> dict[str, list[CurvePoint]]:
    """Every policy's curve in the order of the page, best of n among them."""
    curves = {name: in_order(points) for name, points in data.curves.items() if points}
    if data.best_of_n:
        curves[data.chooser or "best_of_n"] = as_curve(data.best_of_n)
    return {name: curves[name] for name in sorted(curves, key=place)}


def frontier(data: ReportData, words: Words) -> Html:
    """Proxy and gold against the root of the KL: one panel per policy, one scale for all."""
    curves = {name: [p for p in points if p.kl is not None] for name, points in all_curves(data).items()}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return absent(words)
    every = [point for points in curves.values() for point in points]
    x_limits = finite_range([root(point.kl) for point in every])
    y_limits = finite_range(*([p.gold, p.gold_low, p.gold_high, p.proxy] for p in every))
    key = tag(
        "ul",
        tag("li", swatch("text", has_point=False), words["legend.gold"]),
        tag("li", swatch("text", is_dashed=True, has_point=False), words["legend.proxy"]),
        tag("li", ring(), words["legend.peak"]),
        class_="legend",
    )
    drawn = [
        tag(
            "figure",
            tag("figcaption", policy_name(name, words)),
            panel(
                frontier_lines(points, ink_of(name, list(curves))),
                name=f"frontier{index}",
                title=f"{policy_name(name, words)}: {words['section.frontier']}",
                x_label=words["plot.sqrt_kl"],
                y_label=words["plot.reward"],
                x_limits=x_limits,
                y_limits=y_limits,
            ),
        )
        for index, (name, points) in enumerate(curves.items())
    ]
    notes = [words["frontier.text"]] + ([words["frontier.bound"]] if data.best_of_n else [])
    return join(
        tag("p", " ".join(notes)),
        key,
        tag("div", *drawn, class_="panels two"),
        folded(words["figures"], frontier_table(data, words)),
    )


def root(kl: float | None) -> float:
    """A KL measured on samples can come out a little below 0; its root is then 0."""
    return max(kl or 0.0, 0.0) ** 0.5


def frontier_lines(points: Sequence[CurvePoint], ink: str) -> list[Line]:
    gold = [p for p in points if p.gold is not None]
    proxy = [p for p in points if p.proxy is not None]
    lines = [Line(x=[root(p.kl) for p in proxy], y=[p.proxy or 0.0 for p in proxy], ink=ink, is_dashed=True)] if proxy else []
    if gold:
        peak = shape(points).peak
        lines.append(
            Line(
                x=[root(p.kl) for p in gold],
                y=[p.gold or 0.0 for p in gold],
                ink=ink,
                has_points=True,
                peak=gold.index(points[peak]) if peak >= 0 else max(range(len(gold)), key=lambda i: gold[i].gold or 0.0),
                band=gold_band(gold),
            )
        )
    return lines


def gold_band(points: Sequence[CurvePoint]) -> tuple[list[float], list[float]] | None:
    """The interval of gold along a curve, where every point has one."""
    if any(point.gold_low is None or point.gold_high is None for point in points):
        return None
    return [point.gold_low or 0.0 for point in points], [point.gold_high or 0.0 for point in points]


def frontier_table(data: ReportData, words: Words) -> Html:
    heads = [words[f"column.{key}"] for key in ("policy", "step", "episodes", "kl", "proxy", "gold", "length")]
    rows = [
        [
            policy_name(name, words),
            f"n = {point.step:,}" if name == data.chooser and data.best_of_n else f"{point.step:,}",
            f"{point.episodes:,}" if point.episodes is not None else "–",
            maybe(point.kl, words),
            maybe(point.proxy, words),
            with_interval(Figure(mean=point.gold, low=point.gold_low, high=point.gold_high))
            if point.gold is not None
            else words["missing"],
            maybe(point.length, words, 1) if point.length is not None else "–",
        ]
        for name, points in all_curves(data).items()
        for point in points
    ]
    return table(heads, rows, class_="plain")


def curves(data: ReportData, words: Words) -> Html:
    """Gold, proxy, KL and length over training."""
    trained = {name: in_order(data.curves[name]) for name in sorted(data.curves, key=place) if data.curves[name]}
    if not trained:
        return absent(words)
    inks = {name: ink_of(name, list(trained)) for name in trained}
    key = legend([(inks[name], policy_name(name, words)) for name in trained])
    plots = [learning_plot(trained, metric, inks, words) for metric in ("gold", "proxy", "kl", "length")]
    return join(tag("p", words["curves.text"]), key, panels(*plots, class_="panels two"))


def learning_plot(trained: dict[str, list[CurvePoint]], metric: str, inks: dict[str, str], words: Words) -> Html:
    """One metric of every policy; against episodes where all of them counted episodes, else against steps."""
    has_episodes = all(point.episodes is not None for points in trained.values() for point in points)
    found = [learning_line(points, metric, inks[name], has_episodes) for name, points in trained.items()]
    lines = [line for line in found if line is not None]
    label = words[f"plot.{metric}"]
    if not lines:
        return tag("p", f"{label}: {words['missing']}", class_="missing")
    x_label = words["plot.episodes" if has_episodes else "plot.step"]
    return panel(lines, name=f"curve-{metric}", title=label, x_label=x_label, y_label=label, whole_x=True)


def learning_line(points: Sequence[CurvePoint], metric: str, ink: str, has_episodes: bool) -> Line | None:
    usable = [point for point in points if getattr(point, metric) is not None]
    if not usable:
        return None
    x = [float(point.episodes or 0) if has_episodes else float(point.step) for point in usable]
    band = gold_band(usable) if metric == "gold" else None
    return Line(x=x, y=[getattr(point, metric) for point in usable], ink=ink, has_points=True, band=band)


def selection(data: ReportData, words: Words) -> Html:
    """The epochs of SFT: what their loss says, and what the reward of their answers says."""
    epochs = sorted(data.sft_selection, key=lambda epoch: epoch.epoch)
    if not epochs:
        return absent(words)
    heads = [words[f"column.{key}"] for key in ("epoch", "train_loss", "validation_loss", "reward", "chosen")]
    rows = [
        [
            str(e.epoch),
            maybe(e.train_loss, words, 3),
            maybe(e.validation_loss, words, 3),
            cell(e.reward, words, digits=3),
            f"✓ {words['chosen']}" if e.chosen else "",
        ]
        for e in epochs
    ]
    return join(
        tag("p", selection_sentence(epochs, words)), selection_plots(epochs, words), table(heads, rows, class_="stacked plain")
    )


def selection_sentence(epochs: Sequence[SFTEpoch], words: Words) -> str:
    measured = [epoch for epoch in epochs if epoch.validation_loss is not None]
    lowest = str(min(measured, key=lambda epoch: epoch.validation_loss or 0.0).epoch) if measured else words["missing"]
    chosen = [epoch.epoch for epoch in epochs if epoch.chosen]
    return words["selection.text" if chosen else "selection.none"].format(chosen=chosen[0] if chosen else "", lowest=lowest)


def selection_plots(epochs: Sequence[SFTEpoch], words: Words) -> Html | None:
    """Two small curves; a single epoch is no curve."""
    if len(epochs) < 2:
        return None
    losses = [
        epoch_line(epochs, [e.train_loss for e in epochs], "sft", True),
        epoch_line(epochs, [e.validation_loss for e in epochs], "sft", False),
    ]
    rewards = [epoch_line(epochs, [e.reward.mean if e.reward else None for e in epochs], "best_of_n", False)]
    key = tag(
        "ul",
        tag("li", swatch("sft"), words["legend.validation"]),
        tag("li", swatch("sft", is_dashed=True, has_point=False), words["legend.train"]),
        tag("li", swatch("best_of_n"), words["column.reward"]),
        class_="legend",
    )
    drawn = [
        panel([line for line in lines if line], name=name, title=label, x_label=words["plot.epoch"], y_label=label, whole_x=True)
        for name, label, lines in (("loss", words["plot.loss"], losses), ("selection", words["plot.selection_reward"], rewards))
        if any(lines)
    ]
    return join(key, panels(*drawn, class_="panels two")) if drawn else None


def epoch_line(epochs: Sequence[SFTEpoch], values: Sequence[float | None], ink: str, is_dashed: bool) -> Line | None:
    usable = [(float(epoch.epoch), value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    if not usable:
        return None
    return Line(x=[x for x, _ in usable], y=[y for _, y in usable], ink=ink, is_dashed=is_dashed, has_points=not is_dashed)
