"""How gold reward bends as a policy leaves its origin (Gao, Schulman, Hilton, arXiv 2210.10760).

With d = sqrt(KL(policy || origin)) and gold measured from the origin's own score, so that R(0) = 0:

    best-of-n    R(d) = d (a - b d)        peak at a / (2 b),       of height a^2 / (4 b)
    RL           R(d) = d (a - b log d)    peak at exp(a / b - 1),  of height b times that

Both are linear in a and b, hence plain least squares. The RL form has infinite slope at 0 and is not valid there (their
footnote 1), so points with d <= 0.2 are left out of both fits. Their figure 12 calls a / (2 b) the maximum; it is where the
maximum lies. A fit is a description: read the residuals, and what the first two thirds say of the last.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
Form = Literal["best_of_n", "rl"]

NEAREST = 0.2  # distance below which the RL form does not hold
FARTHEST = 1000.0  # a million nats: a curve whose peak lies beyond rises for good


class Peak(NamedTuple):
    distance: float  # sqrt of KL in nats
    height: float  # gold above the origin


@dataclass(frozen=True)
class Fit:
    """Coefficients of one curve, with the points they were fitted to."""

    form: Form
    a: float
    b: float
    d: Values
    residuals: Values  # measured minus fitted

    @property
    def rms(self) -> float:
        """Root mean square of the residuals, in units of gold."""
        return float(np.sqrt((self.residuals**2).mean()))

    @property
    def peak(self) -> Peak | None:
        """Where gold is highest; None where the curve has no maximum beyond the origin, or none within any run's reach."""
        if self.b <= 0 or (self.form == "best_of_n" and self.a <= 0):
            return None
        ratio = self.a / self.b
        if self.form == "best_of_n":
            return Peak(ratio / 2, self.a * ratio / 4) if ratio / 2 < FARTHEST else None
        return Peak(math.exp(ratio - 1), self.b * math.exp(ratio - 1)) if ratio - 1 < math.log(FARTHEST) else None

    @property
    def is_peak_measured(self) -> bool:
        """Whether the peak lies among the fitted points; outside them it is an extrapolation."""
        return self.peak is not None and bool(self.d.min() <= self.peak.distance <= self.d.max())


class Extrapolation(NamedTuple):
    """What the first two thirds of a curve say about the last."""

    fit: Fit  # of the first two thirds
    d: Values  # of the last third
    residuals: Values  # measured minus extrapolated


def fit_bon(d: ArrayLike, gold: ArrayLike) -> Fit:
    """Least squares of R = a d - b d^2 over best-of-n points; ``gold`` is measured from the origin's score."""
    return least_squares("best_of_n", d, gold)


def fit_rl(d: ArrayLike, gold: ArrayLike) -> Fit:
    """Least squares of R = a d - b d log d over checkpoints of an RL run; ``gold`` is measured from the origin's score."""
    return least_squares("rl", d, gold)


def predicted(fit: Fit, d: ArrayLike) -> Values:
    """Gold on the fitted curve."""
    return terms(fit.form, np.asarray(d, dtype=np.float64)) @ np.array([fit.a, fit.b])


def extrapolated(fit: Callable[[ArrayLike, ArrayLike], Fit], d: ArrayLike, gold: ArrayLike) -> Extrapolation:
    """Fit the nearest two thirds of the points and hold them against the farthest third.

    ``fit`` is ``fit_bon`` or ``fit_rl``. Rounded so that the held-out third is never empty.
    """
    distance, measured = usable(d, gold)
    kept = len(distance) - -(-len(distance) // 3)
    near = fit(distance[:kept], measured[:kept])
    return Extrapolation(near, distance[kept:], measured[kept:] - predicted(near, distance[kept:]))


def least_squares(form: Form, d: ArrayLike, gold: ArrayLike) -> Fit:
    distance, measured = usable(d, gold)
    if len(np.unique(distance)) < 2:
        raise ValueError(f"two coefficients need points at two distances above {NEAREST}, got {sorted(set(distance.tolist()))}")
    design = terms(form, distance)
    (a, b), *_ = np.linalg.lstsq(design, measured, rcond=None)
    return Fit(form, float(a), float(b), distance, measured - design @ np.array([a, b]))


def terms(form: Form, d: Values) -> Values:
    """What a and b multiply.  ... 2"""
    bend = d if form == "best_of_n" else np.log(d)
    return np.stack([d, -d * bend], axis=-1)


def usable(d: ArrayLike, gold: ArrayLike) -> tuple[Values, Values]:
    """The points beyond the nearest distance, in order of distance."""
    distance, measured = np.asarray(d, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if distance.ndim != 1 or distance.shape != measured.shape:
        raise ValueError(f"expected a distance and a gold score for each point, got shapes {distance.shape} and {measured.shape}")
    if not (np.isfinite(distance).all() and np.isfinite(measured).all()):
        raise ValueError("a distance or gold score is not finite; leave such points out")
    order = np.argsort(distance, kind="stable")
    far = order[distance[order] > NEAREST]
    return distance[far], measured[far]
