"""Which answer stands where on whose screen: shuffled by the item, balanced over the slots of it.

Slot s shows the item's own permutation rotated by s, and read backwards on every other turn round. So over K slots each
answer stands once at each place, and of two answers slots 0 and 1 show AB and BA.
"""

from collections.abc import Sequence
from typing import Literal

from prefloop.collect.identity import keyed

Order = Literal["balanced", "shuffled", "as_given"]


def shown(completions: Sequence[str], *, secret: str, item_id: str, slot_no: int, order: Order) -> list[str]:
    """The completions of an item in the order in which one slot shows them."""
    if order == "as_given":
        return list(completions)
    turn = slot_no if order == "shuffled" else 0
    base = permuted(completions, keyed(secret, "order", item_id, turn))
    if order == "shuffled":
        return base
    k = len(base)
    rotated = [base[(place + slot_no) % k] for place in range(k)]
    return rotated[::-1] if slot_no // k % 2 else rotated


def permuted(values: Sequence[str], bits: bytes) -> list[str]:
    """Fisher-Yates with the 256 bits of a hash for chance: enough for 16! orders many times over."""
    chance = int.from_bytes(bits)
    result = list(values)
    for last in range(len(result) - 1, 0, -1):
        chance, chosen = divmod(chance, last + 1)
        result[last], result[chosen] = result[chosen], result[last]
    return result
