"""What may be said about a study, by rules, from its figures alone.

An order is claimed only when the paired 95% interval of the difference excludes 0; otherwise the two are "not
separated". Over-optimisation (Gao, Schulman, Hilton, arXiv 2210.10760) is claimed only when gold peaks and falls while
the proxy climbs:

    the interval of the highest gold lies above that of the first point (it rose)
    and above that of the last point (it fell),
    and the proxy at the last point is higher than at the peak.

The highest of many noisy points is high by luck too. Intervals that do not overlap ask for a gap of nearly four standard
errors between two points, where a paired interval would ask for two, and that pays for having picked the peak.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from prefloop.report.data import ROWS, BestOf, CurvePoint, Figure, Paired, ReportData
from prefloop.report.figures import brackets, maybe, number, percent, signed, with_interval
from prefloop.report.texts import Words

AIM = 0.08  # how far below the ceiling of its own labels a reward model may stay
SEEDS_FOR_AN_ORDER = 5

Verdict = Literal["yes", "no", "open", "missing", "note"]


NEWS: dict[Literal["above", "below", "open"], Verdict] = {"above": "yes", "below": "no", "open": "open"}


class Finding(NamedTuple):
    """One sentence, and whether it is good news, bad news, undecided, unmeasured or just worth knowing."""

    verdict: Verdict
    text: str


class Shape(NamedTuple):
    """What a curve of gold and proxy does: where its peak is, where it ends, and what may be called it."""

    kind: Literal["peaked", "fell", "no_fall", "no_climb", "no_interval", "missing"]
    peak: int = -1
    last: int = -1


def direction(pair: Paired) -> Literal["above", "below", "open"]:
    """a against b: an order only when the interval excludes 0. NaN excludes nothing."""
    if pair.low > 0 and pair.high > 0:
        return "above"
    if pair.low < 0 and pair.high < 0:
        return "below"
    return "open"


def shape(points: Sequence[CurvePoint]) -> Shape:
    """The kind of a curve whose points are in the order of training (or of n)."""
    usable = [i for i, point in enumerate(points) if is_finite(point.gold) and is_finite(point.proxy)]
    if len(usable) < 3:
        return Shape("missing")
    gold = {i: points[i].gold or 0.0 for i in usable}
    first, last, peak = usable[0], usable[-1], max(usable, key=lambda i: gold[i])
    if any(points[i].gold_low is None or points[i].gold_high is None for i in (first, peak, last)):
        return Shape("no_interval", peak, last)
    if not above(points[peak], points[last]):
        return Shape("no_fall", peak, last)
    if not (points[last].proxy or 0.0) > (points[peak].proxy or 0.0):
        return Shape("no_climb", peak, last)
    return Shape("peaked" if above(points[peak], points[first]) else "fell", peak, last)


def is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def above(one: CurvePoint, other: CurvePoint) -> bool:
    """Whether the gold interval of one lies wholly above the other's."""
    return one.gold_low is not None and other.gold_high is not None and one.gold_low > other.gold_high


def in_order(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    return sorted(points, key=lambda point: point.step)


def as_curve(points: Sequence[BestOf]) -> list[CurvePoint]:
    """Best of n as a curve over n, so that one rule and one plot serve both."""
    curve = [CurvePoint(step=p.n, proxy=p.proxy, gold=p.gold, gold_low=p.low, gold_high=p.high, kl=p.kl) for p in points]
    return in_order(curve)


def policy_name(name: str, words: Words) -> str:
    """``ppo`` as people call it; anything unknown as it is. A point of a sweep stands behind: ``PPO (ppo.kl=0.1)``."""
    head, _, point = name.partition("@")
    return words.get(f"policy.{head}", head) + (f" ({point})" if point else "")


def in_short(data: ReportData, words: Words) -> str:
    """The baseline in a heading or the middle of a sentence."""
    return words.get(f"short.{data.baseline}", data.baseline)


def metric_name(metric: str, words: Words) -> str:
    """``gold`` or ``skill/sums`` in words; anything unknown as it is."""
    head, _, rest = metric.replace(":", "/").replace(".", "/").partition("/")
    if head in ("skill", "skills") and rest:
        return words["metric.skill_named"].format(name=rest)
    if head == "fluency":
        return fluency_name(rest, words)
    return words.get(f"metric.{'skill' if head == 'skills' else metric}", metric)


def fluency_name(figure: str, words: Words) -> str:
    return words.get(f"fluency.{figure}", figure.replace("_", " "))


def headline(data: ReportData, words: Words) -> Finding:
    """Did it work: the trained policies against the baseline in gold reward."""
    pairs = {name: data.difference(name, data.against(name), "gold") for name in data.judged()}
    verdicts = {name: direction(pair) if pair is not None else None for name, pair in pairs.items()}
    up, down, undecided = ([name for name in verdicts if verdicts[name] == kind] for kind in ("above", "below", "open"))
    rest = [name for name in verdicts if name not in up]
    model = words.get(f"model.{data.baseline}", data.baseline)
    if up and not rest:
        return Finding("yes", words["headline.yes"].format(up=listed(up, words), baseline=model))
    if up:
        told = words["headline.partly"].format(up=listed(up, words), rest=listed(rest, words), baseline=model)
        return Finding("open", told)
    if down:
        return Finding("no", words["headline.no"].format(down=listed(down, words), baseline=model))
    if undecided:
        return Finding("open", words["headline.open"].format(rest=listed(undecided, words), baseline=model))
    return Finding("missing", words[f"headline.{what_is_missing(data)}"].format(baseline=model, rest=listed(rest, words)))


def what_is_missing(data: ReportData) -> str:
    """Why nothing can be said of any policy."""
    if not data.rows and not data.paired:
        return "nothing"
    if len(data.rows) == 1:
        return "alone"
    if data.rows and all(row.gold is None for row in data.rows):
        return "no_gold"
    return "missing" if data.judged() else "untrained"


def listed(names: Sequence[str], words: Words) -> str:
    shown = [policy_name(name, words) for name in names]
    if len(shown) < 2:
        return "".join(shown)
    return words["comma"].join(shown[:-1]) + words["and"] + shown[-1]


def findings(data: ReportData, words: Words) -> list[Finding]:
    """The sentences of the first screen, in the order in which a reader asks."""
    return [
        *of_gold(data, words),
        *of_skills(data, words),
        of_reward_model(data, words),
        *of_overoptimisation(data, words),
        *of_seeds(data, words),
    ]


def of_gold(data: ReportData, words: Words) -> list[Finding]:
    """Trained policies and best of n against the baseline; then against each other, where that was measured."""
    told = [
        *(data.judged() or ["ppo", "ppo_ptx"] * (not data.rows)),
        *(row.name for row in data.rows if is_chooser(row.name, data)),
    ]
    wanted = [(name, data.against(name)) for name in told]
    wanted += [(pair.a, pair.b) for pair in data.paired if pair.metric == "gold" and {pair.a, pair.b} <= set(told)]
    return [of_difference(data, a, b, "gold", words) for a, b in wanted]


def is_chooser(name: str, data: ReportData) -> bool:
    """Whether a row is best of n."""
    return bool(data.chooser) and name.partition("@")[0] == data.chooser


def of_skills(data: ReportData, words: Words) -> list[Finding]:
    """PPO against PPO-ptx, skill by skill: what the pretraining term is for. Without those two, every policy against the baseline."""
    both = {"ppo", "ppo_ptx"} <= {row.name for row in data.rows} | {name for pair in data.paired for name in (pair.a, pair.b)}
    wanted = [("ppo_ptx", "ppo")] if both else [(name, data.against(name)) for name in data.judged()]
    metrics = dict.fromkeys(pair.metric for pair in data.paired if pair.metric.startswith("skill"))
    told = [of_difference(data, a, b, metric, words) for a, b in wanted for metric in metrics if data.difference(a, b, metric)]
    return told or [of_difference(data, "ppo_ptx", "ppo", "skill", words)] * both


def of_difference(data: ReportData, a: str, b: str, metric: str, words: Words) -> Finding:
    pair = data.difference(a, b, metric)
    names = {"a": policy_name(a, words), "b": policy_name(b, words), "metric": metric_name(metric, words)}
    if pair is None:
        return Finding("missing", words["finding.difference_missing"].format(**names))
    verdict = direction(pair)
    sentence = words[f"finding.{verdict}"].format(
        **names,
        difference=difference(pair, words),
        n=sample_size(pair, words),
        at=circumstances(data, a, b, words) if metric == "gold" else "",
    )
    return Finding(NEWS[verdict], sentence)


def is_share(metric: str) -> bool:
    return metric.startswith(("skill", "win", "accuracy", "overconfidence", "fluency/distinct"))


def difference(pair: Paired, words: Words) -> str:
    """``+1.65 [1.50, 1.80]``; shares in points of a hundred."""
    scale, digits = (100, 1) if is_share(pair.metric) else (1, 3) if pair.metric.startswith(("loss", "fluency")) else (1, 2)
    mean, low, high = (scale * value for value in (pair.mean, pair.low, pair.high))
    written = f"{signed(mean, digits)} {brackets(number(low, digits), number(high, digits))}"
    return written + (words["points"] if is_share(pair.metric) else "")


def sample_size(pair: Paired, words: Words) -> str:
    things = "items" if pair.metric.startswith("skill") else "prompts"
    key = f"n.{things}" if pair.n_seeds <= 1 else f"n.{things}_seeds"
    return words[key].format(n=f"{pair.n_prompts:,}", seeds=pair.n_seeds)


def circumstances(data: ReportData, a: str, b: str, words: Words) -> str:
    """A reward is only comparable at a stated distance from the reference and a stated length."""
    rows = [data.row(name) for name in (a, b)]
    kl = [maybe(row.kl.mean if row and row.kl else None, words) for row in rows]
    length = [maybe(row.length.mean if row and row.length else None, words, 1) for row in rows]
    return words["finding.at"].format(kl_a=kl[0], kl_b=kl[1], length_a=length[0], length_b=length[1])


def of_reward_model(data: ReportData, words: Words) -> Finding:
    """The reward model's accuracy beside the most its noisy labels allow."""
    model = data.reward_model
    if model is None or model.pair_accuracy is None:
        return Finding("missing", words["finding.reward_missing"])
    accuracy = with_interval(model.pair_accuracy, as_percent=True)
    if model.bayes_ceiling is None:
        return Finding("note", words["finding.reward_no_ceiling"].format(accuracy=accuracy))
    figure, enough = model.pair_accuracy, model.bayes_ceiling.mean - AIM
    low, high = (-math.inf, math.inf) if figure.low is None or figure.high is None else (figure.low, figure.high)
    verdict: Verdict = "yes" if low >= enough else "no" if high < enough else "open"
    key = {"yes": "within", "no": "short", "open": "open" if figure.has_interval else "unknown"}[verdict]
    ceiling = percent(model.bayes_ceiling.mean)
    return Finding(verdict, words[f"finding.reward_{key}"].format(accuracy=accuracy, ceiling=ceiling, aim=round(100 * AIM)))


def of_overoptimisation(data: ReportData, words: Words) -> list[Finding]:
    """The run that is meant to show it, always; any other policy only when it does show it.

    A study without such a run asks it of every policy it trained.
    """
    curves = {name: in_order(points) for name, points in data.curves.items()} | {data.chooser: as_curve(data.best_of_n)}
    named = dict.fromkeys((*curves, *(row.name for row in data.rows)))
    always = [name for name in named if name.partition("@")[0] == "ppo_overoptimised"] or list(data.curves)
    sentences = []
    for name in sorted(named, key=place):
        points = curves.get(name, [])
        found = shape(points)
        if name in always or found.kind == "peaked":
            sentences.append(of_shape(name, points, found, words))
    return sentences


def over_optimised(data: ReportData) -> list[str]:
    """The policies whose gold peaked and fell while the proxy climbed, in the order of the page."""
    return [name for name in sorted(data.curves, key=place) if shape(in_order(data.curves[name])).kind == "peaked"]


def place(name: str) -> int:
    """The order of the page: the stable names first; strangers after them, in the order of the study where a sort is stable."""
    head = name.partition("@")[0]
    return ROWS.index(head) if head in ROWS else len(ROWS)


def of_shape(name: str, points: Sequence[CurvePoint], found: Shape, words: Words) -> Finding:
    values = {"policy": policy_name(name, words)}
    if found.kind not in ("missing", "no_interval"):
        peak, last = points[found.peak], points[found.last]
        values |= {
            "peak": gold_of(peak),
            "last": gold_of(last),
            "peak_kl": maybe(peak.kl, words),
            "last_kl": maybe(last.kl, words),
        }
        values |= {"proxy_peak": maybe(peak.proxy, words), "proxy_last": maybe(last.proxy, words)}
    meant = name.partition("@")[0] == "ppo_overoptimised"
    verdict: Verdict = (
        "missing" if found.kind in ("missing", "no_interval") else "no" if found.kind == "peaked" and not meant else "note"
    )
    return Finding(verdict, words[f"finding.over_{found.kind}"].format(**values))


def gold_of(point: CurvePoint) -> str:
    return with_interval(Figure(mean=point.gold or 0.0, low=point.gold_low, high=point.gold_high))


def of_seeds(data: ReportData, words: Words) -> list[Finding]:
    """How many training runs stand behind the differences, where they are too few."""
    pairs = (*data.paired, *data.reward_pairs)
    if not pairs:
        return []
    fewest = min(pair.n_seeds for pair in pairs)
    if fewest >= SEEDS_FOR_AN_ORDER:
        return []
    return [Finding("note", words["finding.one_seed"] if fewest <= 1 else words["finding.few_seeds"].format(n=fewest))]
