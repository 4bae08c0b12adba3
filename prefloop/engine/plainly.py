"""Values as JSON can say them. JSON has no NaN and no infinity; readers of other languages choke on Python's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def nothing(value: float) -> None:
    """What stands for a number that is not finite."""


def plain(value: Any, *, not_finite: Callable[[float], Any] = nothing) -> Any:
    """Tensors and arrays as lists, paths as text, numbers that are not finite as ``not_finite`` has it, the rest as it is."""
    if isinstance(value, dict):
        return {str(key): plain(inner, not_finite=not_finite) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, not_finite=not_finite) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), not_finite=not_finite)
    if isinstance(value, float) and not math.isfinite(value):
        return not_finite(value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is a {type(value).__name__}, which has no place in JSON")


def number(name: str, value: Any) -> float | int | bool | None:
    """A figure for metrics.jsonl."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, int | float | None):
        raise TypeError(f"the metric {name} is a {type(value).__name__}; metrics are numbers")
    return value if value is None or math.isfinite(value) else None
