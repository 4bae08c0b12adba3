"""How the page writes numbers: the same figure looks the same wherever it stands."""

import math

from prefloop.report.data import Figure
from prefloop.report.texts import Words


def number(value: float, digits: int = 2) -> str:
    """With a true minus sign, thousands apart, and no minus before a rounded zero."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounded = round(value, digits) + 0.0
    return f"{rounded:,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A difference: its sign is half of what it says."""
    written = number(value, digits)
    return written if written.startswith("−") or not math.isfinite(value) else f"+{written}"


def percent(value: float, digits: int = 1) -> str:
    return number(100 * value, digits) + ("%" if math.isfinite(value) else "")


def whole(value: int | None, words: Words) -> str:
    return words["missing"] if value is None else f"{value:,}"


def maybe(value: float | None, words: Words, digits: int = 2) -> str:
    return words["missing"] if value is None else number(value, digits)


def interval(figure: Figure, *, as_percent: bool = False, digits: int = 2) -> str:
    """``[low, high]`` in the unit of the mean beside it, or nothing. A share ends at 0 and 1, wherever a bootstrap goes."""
    if figure.low is None or figure.high is None or not figure.has_interval:
        return ""
    low, high = (max(figure.low, 0.0), min(figure.high, 1.0)) if as_percent else (figure.low, figure.high)
    ends = [percent(end).removesuffix("%") if as_percent else number(end, digits) for end in (low, high)]
    return brackets(*ends)


def sample_of(figure: Figure, words: Words) -> str:
    """What it is a mean of: ``n 300``, or ``300 prompts, 5 seeds`` where several training runs answered; empty if unknown."""
    if figure.n_seeds is not None and figure.n_seeds > 1 and figure.n_prompts is not None:
        told = words["n.prompts_seeds"].format(n=f"{figure.n_prompts:,}", seeds=figure.n_seeds)
    else:
        n = figure.n if figure.n is not None else figure.n_prompts
        told = "" if n is None else f"n {n:,}"
    return told.replace(" ", "\u00a0")


def brackets(low: str, high: str) -> str:
    """The two ends, which no line break may part."""
    return f"[{low},\u00a0{high}]"


def with_interval(figure: Figure, *, as_percent: bool = False) -> str:
    """``1.87 [1.71, 2.03]``"""
    mean = percent(figure.mean) if as_percent else number(figure.mean)
    return f"{mean} {interval(figure, as_percent=as_percent)}".strip()


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes and seconds below two hours, then hours."""
    if not math.isfinite(seconds):
        return number(seconds)
    if seconds < 119.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def significant(value: float) -> str:
    """Four significant digits, for metrics whose size nobody knows beforehand."""
    if not math.isfinite(value) or value == 0:
        return number(value, 0)
    if 1e-4 <= abs(value) < 1e6:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        written = number(value, digits)
        return written.rstrip("0").rstrip(".") if "." in written else written
    return f"{value:.3e}".replace("-", "−")
