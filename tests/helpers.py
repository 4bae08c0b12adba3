"""The one comparison the tests use, with tolerances nobody can widen in passing."""

from typing import Any

import numpy as np

FLOAT32 = 1e-5
FLOAT64 = 1e-9


def assert_close(actual: Any, expected: Any) -> None:
    """Equal shapes, and equal values within 1e-9 for float64 and 1e-5 for everything else (relative and absolute)."""
    actual_array, expected_array = as_array(actual), as_array(expected)
    assert actual_array.shape == expected_array.shape, f"shape {actual_array.shape}, expected {expected_array.shape}"
    double = is_double(actual) and (is_double(expected) or not hasattr(expected, "dtype"))
    tolerance = FLOAT64 if double else FLOAT32
    with np.errstate(invalid="ignore"):  # infinity less infinity
        gap = np.abs(actual_array - expected_array)
    allowed = tolerance * (1 + np.abs(expected_array))
    same = (gap <= allowed) | (actual_array == expected_array) | (np.isnan(actual_array) & np.isnan(expected_array))
    assert same.all(), (
        f"differs by up to {gap[~same].max()} (tolerance {tolerance})\n  actual   {actual_array}\n  expected {expected_array}"
    )


def as_array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)


def is_double(value: Any) -> bool:
    return "float64" in str(getattr(value, "dtype", type(value).__name__ if not isinstance(value, float) else "float64"))
