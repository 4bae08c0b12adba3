"""Student's t for whole degrees of freedom, so that a mean over five seeds gets the interval five seeds deserve."""

import math
from statistics import NormalDist

import numpy as np

LARGE = 200  # from here on the expansion below is right to twelve digits


def student_t(level: float, df: int) -> float:
    """The t that a Student variable stays below in absolute value with probability ``level``."""
    if df >= LARGE:
        return student_t_expansion(level, df)
    low, high = 0.0, math.pi / 2  # of atan(t / sqrt(df)): the whole half-line, without overflow
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if central_mass(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def central_mass(angle: float, df: int) -> float:
    """P(|T| < t) where ``angle`` = atan(t / sqrt(df)): the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    squared = math.cos(angle) ** 2
    if df == 1:
        return 2 * angle / math.pi
    if df % 2:
        j = np.arange(1, (df - 3) // 2 + 1)
        series = 1 + np.cumprod(squared * 2 * j / (2 * j + 1)).sum()
        return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * float(series))
    j = np.arange(1, (df - 2) // 2 + 1)
    return math.sin(angle) * float(1 + np.cumprod(squared * (2 * j - 1) / (2 * j)).sum())


def student_t_expansion(level: float, df: int) -> float:
    """Around the normal quantile, in powers of 1/df (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    corrections = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / df**power for power, term in enumerate(corrections, start=1))
