"""The memory a run will need, by part, before anything is loaded; and what to change where the device has less.

What is there all the time (weights, moments, averages, answers) is added up; of the gradients with what a forward pass keeps,
and what is let go before they come (the sampler's copy of the weights with its keys and values, a model that is asked once),
only the larger is counted, for they are not there together. The interpreter and its libraries are not counted: they are in
memory already. Passes without a gradient are limited to as many tokens as an update is by itself
(``models/parts.TOKENS_AT_ONCE``) and keep less of them.

On a processor an update that is cut needs more than its largest part. PyTorch asks for blocks that begin at multiples of 64
bytes, for which glibc (2.36) looks for a little more than that, so a block does not fit where one of its size has been. The
gradients of the first part, which stay, lie where its passing values were; those of the next part find no place between them.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prefloop.config import Config
from prefloop.data.reward_spec import files_of
from prefloop.engine.progress import say
from prefloop.errors import ConfigError
from prefloop.models.adapters import is_adapter_on, same_folder
from prefloop.models.decoder import LARGEST
from prefloop.models.shapes import FLOAT, Shape, shape_of
from prefloop.ops.logprobs import CHUNK_LOGITS, KEPT_LOGITS, SMALLEST_CHUNK

GIB, MIB = 2**30, 2**20
ANSWER_BYTES = 64  # of a token of an answer in the buffers of a round
ADAPTED = 1.3  # of the same without adapters, whose own products come and go between what is kept (measured)
SLACK = 0.95  # of what is free may be planned with
SAMPLE_ROWS = 256  # that are drawn side by side where a method has no setting for it
SEARCHED = 4 * 2  # distributions a beam search holds of every row, and they are float64


class Work(NamedTuple):
    """What the data says: tokens of the longest row, a prompt with all answers that share its row, and rows of an update."""

    longest: int
    rows: int
    new_tokens: int = 0  # of an answer that is drawn
    round_rows: int = 0  # answers of a round
    prompt: int = 0  # tokens of the longest prompt that is answered


class Needs(NamedTuple):
    """Bytes by part. ``learning`` and ``drawing``, which is also who is asked before the first step, take turns."""

    lasting: dict[str, int]
    learning: dict[str, int]
    drawing: dict[str, int]

    @property
    def parts(self) -> dict[str, int]:
        return {name: size for part in self for name, size in part.items() if size}

    @property
    def total(self) -> int:
        return sum(self.lasting.values()) + max(sum(self.learning.values()), sum(self.drawing.values()))


def needs_of(config: Any, work: Work, shape: Shape | None = None, *, device: str = "cpu") -> Needs:
    """What a method's settings ask for, of a model that is made and not read ``shape``; settings a method lacks are as if left out."""
    shape, share = shape or shape_of(config.model), getattr(config, "share", "none")
    adapter = getattr(config, "adapter", None)
    rank = adapter.rank if adapter is not None and (share == "adapters" or not hasattr(config, "share")) else 0
    learned = shape.adapter(rank) if rank else shape.parameters
    members = getattr(config, "members", 1)
    critic = 0 if not hasattr(config, "critic") or share == "trunk" else learned
    frozen = shape.parameters if rank else 0
    lasting = {
        "weights": FLOAT * (frozen + members * learned),
        "critic": FLOAT * critic,
        "reference": FLOAT * of_reference(config, shape, rank),
        "reward": FLOAT * of_reward(config, shape, rank) * (work.round_rows > 0),
        "optimiser": 2 * FLOAT * (members * learned + critic),
        "average": FLOAT * learned * (getattr(config, "ema", 0) > 0),
        "answers": ANSWER_BYTES * work.round_rows * (work.prompt + work.new_tokens),
    }
    tokens = at_once(config.optim, work)
    learning = {
        "gradients": FLOAT * (members * learned + critic),
        "activations": activations(shape, tokens, has_adapter=rank > 0, is_cut=device == "cpu" and is_cut(config.optim, work)),
        "distributions": 0 if hasattr(config, "members") else distributions(shape, tokens),  # a reward model says no words
    }
    drawing = of_sampler(config, shape, work) if work.new_tokens else {}
    return Needs(lasting, learning, drawing if work.round_rows else of_guests(config, shape, rank))


def of_guests(config: Any, shape: Shape, rank: int) -> dict[str, int]:
    """Other models that are asked before the first step and let go of: a reference of one's own, the reward that is learned anew."""
    reference = getattr(config, "reference", "")
    found = {"reference": shape_of(reference).parameters if reference else 0, "reward": of_reward(config, shape, rank)}
    return {name: FLOAT * size for name, size in found.items() if size}


def of_reference(config: Any, shape: Shape, rank: int) -> int:
    """Numbers of a reference held beside the policy: none where it is the policy's own base, or asked before the first step."""
    if not hasattr(config, "reference") or not hasattr(config, "rounds"):
        return 0
    if rank and (not config.reference or same_folder(config.reference, config.model)):
        return 0
    if rank and is_adapter_on(config.reference, config.model):
        return shape.adapter(rank)
    return shape_of(config.reference or config.model).parameters


def of_reward(config: Any, shape: Shape, rank: int) -> int:
    """Numbers of the models that score: the reward a policy is trained on, who orders candidates, who labels pairs."""
    candidates = getattr(config, "candidates", None)
    given = candidates.reward if candidates else getattr(config, "judge", "") or getattr(config, "reward", "")
    folders = [f for spec in ([given] if isinstance(given, str) else given) for f in files_of(spec) if Path(f).is_dir()]
    return sum(
        shape.adapter(rank) if rank and is_adapter_on(folder, config.model) else shape_of(folder).parameters for folder in folders
    )


def at_once(optim: Any, work: Work) -> int:
    """Tokens of the largest part of an update."""
    rows = min(optim.micro_batch or work.rows, work.rows)
    tokens = rows * work.longest
    return max(work.longest, min(optim.micro_tokens or tokens, tokens))


def is_cut(optim: Any, work: Work) -> bool:
    """Whether an update may be computed in more than one part."""
    return at_once(optim, work) < work.rows * work.longest


def activations(shape: Shape, tokens: int, *, has_adapter: bool, is_cut: bool) -> int:
    """What a forward pass keeps, and a layer's worth of gradients; of an update in parts also what comes and goes in it."""
    kept = shape.kept_of_a_token * tokens * (shape.layers + 1) // shape.layers
    if is_cut:
        return kept + shape.passing_of_a_token(has_adapter) * tokens
    return int(ADAPTED * kept) if has_adapter else kept


def distributions(shape: Shape, tokens: int) -> int:
    """Over the vocabulary: those that wait for the backward pass, and two chunks that are being computed."""
    chunk = min(max(SMALLEST_CHUNK, CHUNK_LOGITS // shape.vocabulary), tokens) * shape.vocabulary
    return FLOAT * (min(tokens * shape.vocabulary, KEPT_LOGITS) + 2 * chunk)


def of_sampler(config: Any, shape: Shape, work: Work) -> dict[str, int]:
    """A copy of the weights laid out for one token at a time, where a model is small enough, and keys and values."""
    asked = getattr(config, "candidates", config)
    rows = min(getattr(config, "sample_rows", SAMPLE_ROWS), work.round_rows)
    if getattr(asked, "decoding", "draw") != "draw":
        return of_beams(shape, rows, work.prompt + work.new_tokens)
    columns = -(-rows // asked.k) * work.prompt + rows * work.new_tokens
    copy = shape.parameters + shape.vocabulary * shape.width if FLOAT * shape.parameters <= LARGEST else 0
    return {
        "sampler's weights": FLOAT * copy,
        "keys and values": FLOAT * (2 * shape.layers * shape.keys * columns + 3 * rows * shape.vocabulary),
    }


def of_beams(shape: Shape, rows: int, longest: int) -> dict[str, int]:
    """Keys and values of whole rows, a layer of them twice while beams change places, and the distributions that are compared."""
    columns = 2 * (shape.layers + 1) * shape.keys * rows * longest
    return {"keys and values": FLOAT * (columns + SEARCHED * rows * shape.vocabulary)}


# ------------------------------------------------------------------------------------------------ what there is


def free_memory(device: torch.device) -> int:
    """Bytes the device has left: of a GPU as its driver says, else of the machine or the container this runs in."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(free_of_machine(), free_of_container())


def free_of_machine(file: Path = Path("/proc/meminfo")) -> int:
    """What the system could give without swapping; all its memory where it does not say."""
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_of_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's limit leaves, control groups of either version; no limit is a very large number."""
    for most, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            return int((folder / most).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return 2**62


# ------------------------------------------------------------------------------------------------ before a run


def admit(config: Any, work: Work, device: torch.device, shape: Shape | None = None) -> dict[str, int]:
    """Say what the run will need and return it by part; ConfigError, with the nearest settings that fit, where it is too much."""
    try:
        needs = needs_of(config, work, shape, device=device.type)
    except LookupError:
        return {}  # the weights are read next, and what is wrong with their folder is said there
    free = free_memory(device)
    allowed = config.memory * GIB if config.memory else SLACK * free
    parts = ", ".join(f"{name} {size / MIB:.3g}" for name, size in needs.parts.items())
    told = f"memory: about {amount(needs.total)} of {amount(free)} that {device} has free; in MiB: {parts}"
    if needs.total <= allowed:
        say(told)
        return needs.parts
    limit = f"memory={config.memory:g} GiB" if config.memory else f"{SLACK:.0%} of what is free"
    fits = smaller(config, lambda changed: needs_of(changed, work, shape, device=device.type).total <= allowed)
    raise ConfigError(
        f"the run needs more memory than {limit}\n  {told}\n"
        f"  {'nearest settings that fit: ' + ' '.join(fits) if fits else 'no setting fits; use a smaller model or a larger device'}\n"
        f"  to try all the same: memory={needs.total / GIB + 1:.0f} (GiB the run may need)"
    )


def smaller(config: Any, fits: Callable[[Any], bool]) -> list[str]:
    """The mildest change that makes it fit, as a person would type it: memory alone first, then what is learned."""
    changed: dict[str, Any] = {}
    for step in milder_first(config):
        for change in step:
            if fits(with_settings(config, changed | change)):
                return [f"{key}={value}" for key, value in (changed | change).items()]
        changed |= step[-1]
    return []


def milder_first(config: Any) -> list[list[dict[str, Any]]]:
    """Groups of changes, each from the mildest to the sharpest: tokens and rows at once, which cost time only, then sharing."""
    steps: list[list[dict[str, Any]]] = [[{"optim.micro_tokens": 2**n} for n in range(15, 6, -1)]]
    if hasattr(config, "sample_rows"):
        steps.append([{"sample_rows": 2**n} for n in range(8, 2, -1)])
    if getattr(config, "share", None) == "none":
        steps.append([{"share": "trunk", "critic": "policy"}])
    if hasattr(config, "share"):
        steps.append([{"share": "adapters", "critic": "policy"}])
    elif hasattr(config, "adapter") and config.adapter.rank == 0:
        steps.append([{"adapter.rank": 8}])
    return steps


def with_settings(config: Any, change: dict[str, Any]) -> Any:
    """The settings with dotted keys changed."""
    for key, value in change.items():
        outer, _, inner = key.partition(".")
        new: Any = value if not inner else with_settings(getattr(config, outer), {inner: value})
        config = config.model_copy(update={outer: new}) if isinstance(config, Config) else config
    return config


def amount(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
