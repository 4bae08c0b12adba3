"""The work of a step, counted from the case: what the idea alone would give, and how fast prefloop's side could be at best.

What the idea alone would give is the work of both sides, in the unit the idea saves:

    tokens      a token through the model, forward or backward
    operations  multiplications of a round of PPO, from the sizes of the matrices
    bytes       memory a sampler has to read and write: weights, keys and values; the peer also copies its cache at every step

A ratio of counts is no bound: a side may also be faster at the same work.

The floor is the time prefloop's side needs if every multiplication ran at the rate of large matrix products and every byte
moved at the rate of a large copy. A step of decoding takes the longer of its operations and its bytes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

FLOAT = 4  # bytes


class Work(NamedTuple):
    """Of one step, both sides."""

    unit: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


# ------------------------------------------------------------------------------------------------ the idea alone


def work(spec: dict[str, Any]) -> Work:
    counts = {"reward": of_pairs, "dpo": of_pairs, "group_rl": of_group, "ppo": of_ppo, "sampling": of_sampling}
    return counts[spec["kind"]](spec)


def of_pairs(spec: dict[str, Any]) -> Work:
    """Prompts once with their completions, against every ordered pair as two rows padded to the longest of ``rows`` pairs."""
    shape, lengths = spec["shape"], spec["drawn"]["completion_lengths"]
    ours = sum(shape["prompt"] + sum(own) for own in lengths)
    pairs = [[own[i], own[j]] for own in lengths for i in range(len(own)) for j in range(i)]
    theirs = sum(
        2 * len(part) * (shape["prompt"] + max(map(max, part)))
        for part in (pairs[start : start + shape["rows"]] for start in range(0, len(pairs), shape["rows"]))
    )
    return Work("tokens", ours, theirs)


def of_group(spec: dict[str, Any]) -> Work:
    """Drawing, the reference, and an update that counts three times (forward, and twice as much backward)."""
    shape = spec["shape"]
    rows, prompt, new = shape["prompts"] * shape["k"], shape["prompt"], shape["new_tokens"]
    return Work("tokens", 5 * (shape["prompts"] * prompt + rows * new), 5 * rows * (prompt + new))


def of_ppo(spec: dict[str, Any]) -> Work:
    """A token through the trunk, through the head; an update counts three times.

    Theirs puts the head on prompts too, and value and policy each have a trunk. Ours with a shared trunk has one for both.
    """
    shape, model = spec["shape"], spec["model_shape"]
    trunk, head = trunk_weights(model), head_weights(model)
    new, row = shape["new_tokens"], shape["prompt"] + shape["new_tokens"]
    once = row * trunk + new * head + row * trunk  # drawing, and the reward model reads the row
    updates = 3 * shape["epochs"]
    trunks = 1 if shape["share"] == "trunk" else 2
    ours = once + (row * trunk + new * head) + row * trunk + updates * (trunks * row * trunk + new * head)
    theirs = once + row * (trunk + head) + row * trunk + updates * (2 * row * trunk + row * head)
    return Work("operations", ours * shape["prompts"], theirs * shape["prompts"])


def of_sampling(spec: dict[str, Any]) -> Work:
    return tokens_of_sampling(spec) if spec["ideal"] == "tokens" else bytes_of_sampling(spec)


def tokens_of_sampling(spec: dict[str, Any]) -> Work:
    """Prompts once and rows that leave when they end, against every row with its prompt until the longest ends."""
    shape, limits = spec["shape"], spec["drawn"]["limits"]
    ours = shape["prompts"] * shape["prompt"] + sum(limits)
    return Work("tokens", ours, len(limits) * (shape["prompt"] + max(limits)))


def bytes_of_sampling(spec: dict[str, Any]) -> Work:
    """Every step reads the weights and all keys and values; concatenation reads and writes them once more."""
    shape, model = spec["shape"], spec["model_shape"]
    held = [shape["prompts"] * shape["k"] * (shape["prompt"] + step) for step in range(shape["new_tokens"])]
    weights, cache = len(held) * weight_bytes(model), cache_bytes(model, held)
    return Work("bytes", weights + cache, weights + 3 * cache)


# ------------------------------------------------------------------------------------------------ the floor


def floor(spec: dict[str, Any], *, flops: float, bandwidth: float) -> float:
    """Seconds a step of prefloop's side takes at best, at these operations and bytes a second."""
    floors = {"reward": pairs_floor, "dpo": pairs_floor, "group_rl": group_floor, "ppo": ppo_floor, "sampling": drawing_floor}
    return floors[spec["kind"]](spec, flops, bandwidth)


def pairs_floor(spec: dict[str, Any], flops: float, bandwidth: float) -> float:
    """One update; DPO also needs the head on its completions."""
    prompt, lengths, model = spec["shape"]["prompt"], spec["drawn"]["completion_lengths"], spec["model_shape"]
    seen = sum(visible(prompt, own) for own in lengths)
    said = sum(map(sum, lengths)) if spec["kind"] == "dpo" else 0
    return 3 * forward(model, tokens=work(spec).ours, said=said, seen=seen) / flops


def group_floor(spec: dict[str, Any], flops: float, bandwidth: float) -> float:
    """Drawing, the reference, one update."""
    shape, model = spec["shape"], spec["model_shape"]
    said = shape["prompts"] * shape["k"] * shape["new_tokens"]
    tokens = shape["prompts"] * shape["prompt"] + said
    seen = shape["prompts"] * visible(shape["prompt"], [shape["new_tokens"]] * shape["k"])
    return drawing_floor(spec, flops, bandwidth) + 4 * forward(model, tokens=tokens, said=said, seen=seen) / flops


def ppo_floor(spec: dict[str, Any], flops: float, bandwidth: float) -> float:
    """Drawing; reward, reference and values once; the updates."""
    shape, model = spec["shape"], spec["model_shape"]
    rows, row = shape["prompts"] * shape["k"], shape["prompt"] + shape["new_tokens"]
    trunk = forward(model, tokens=rows * row, said=0, seen=rows * visible(row, []))
    head = forward(model, tokens=0, said=rows * shape["new_tokens"], seen=0)
    trunks = 1 if shape["share"] == "trunk" else 2
    return drawing_floor(spec, flops, bandwidth) + (3 * trunk + head + 3 * shape["epochs"] * (trunks * trunk + head)) / flops


def drawing_floor(spec: dict[str, Any], flops: float, bandwidth: float) -> float:
    """Every prompt read once, then a step for each place in the answers with the rows that still go on."""
    shape, model = spec["shape"], spec["model_shape"]
    rows = shape["prompts"] * shape["k"]
    limits = spec["drawn"].get("limits") or [shape["new_tokens"]] * rows
    prefill = forward(
        model, tokens=shape["prompts"] * shape["prompt"], said=rows, seen=shape["prompts"] * visible(shape["prompt"], [])
    )
    seconds = prefill / flops
    for step in range(1, max(limits)):  # the first token comes from the prefill
        live = sum(limit > step for limit in limits)
        held = live * (shape["prompt"] + step)
        operations = forward(model, tokens=live, said=live, seen=held)
        seconds += max(operations / flops, (weight_bytes(model) + cache_bytes(model, [held])) / bandwidth)
    return seconds


def forward(model: dict[str, int], *, tokens: float, said: float, seen: float) -> float:
    """Operations of a forward pass: ``tokens`` through the trunk, ``said`` through the head, ``seen`` pairs in attention."""
    attention = 4 * model["layers"] * model["width"] * seen  # a multiplication and an addition, for the score and for the value
    return 2 * trunk_weights(model) * tokens + 2 * head_weights(model) * said + attention


def visible(prompt: int, completions: Sequence[int]) -> int:
    """Pairs of tokens of which one sees the other: a prompt, and completions that see it and themselves."""
    return prompt * (prompt + 1) // 2 + sum(length * prompt + length * (length + 1) // 2 for length in completions)


# ------------------------------------------------------------------------------------------------ sizes


def trunk_weights(model: dict[str, int]) -> int:
    """Weights a token is multiplied with before the head."""
    return model["layers"] * (4 * model["width"] ** 2 + 3 * model["width"] * model["inner"])


def head_weights(model: dict[str, int]) -> int:
    return model["width"] * model["vocabulary"]


def weight_bytes(model: dict[str, int]) -> int:
    """Of what a step of decoding multiplies with."""
    return FLOAT * (trunk_weights(model) + head_weights(model))


def cache_bytes(model: dict[str, int], tokens: Sequence[int]) -> int:
    """Keys and values of that many tokens in all layers, summed over the steps."""
    return FLOAT * 2 * model["layers"] * model["width"] * sum(tokens)
