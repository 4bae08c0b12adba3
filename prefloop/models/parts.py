"""How many rows are computed at once."""

from torch import Tensor

TOKENS_AT_ONCE = 2048  # where no gradient is wanted; as many as an update computes at once by itself (docs/decisions/0013)


def sizes(tokens_of: Tensor, rows: int, tokens: int) -> list[int]:
    """How many rows each part has: no more than ``rows`` and ``tokens`` (0: no limit, at least one row), padding included.

    ``tokens_of`` N is what each row costs, in the order in which they are taken.
    """
    found: list[int] = []
    n = largest = 0
    for cost in tokens_of.tolist():
        largest = max(largest, cost)
        is_full = n > 0 and ((rows > 0 and n == rows) or (tokens > 0 and (n + 1) * largest > tokens))
        if is_full:
            found.append(n)
            n, largest = 0, cost
        n += 1
    return [*found, n] if n else found
