"""The step of a decoder compiled for this machine (``step.c``), where there is a C compiler.

What torch does for one token of a few dozen rows is mostly not arithmetic: some two hundred operations that each take longer
to begin than to run, and products whose matrices are copied before they are used. Compiled, a step reads the weights and the
keys once and little else (docs/performance.md has the figures).

The file is compiled once, in about a second, for the processor at hand, and kept in the user's cache folder under a name made
of everything it depends on. Nothing is lost where that cannot be: the step in torch gives the same but for rounding.
``PREFLOOP_COMPILED=0`` asks for that.
"""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from transformers.activations import SiLUActivation

from prefloop.models.decoder_group import AnswerGroup, Heads

if TYPE_CHECKING:
    from prefloop.models.decoder import Decoder, LinearMap

SOURCE = Path(__file__).with_name("step.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
SECONDS = 60  # a compiler that needs longer is not going to end
SILU = (nn.SiLU, SiLUActivation)
EIGHT = 8  # numbers that are computed at a time
MANY = 96  # rows from which on the products of torch's library are as fast


class Shape(ctypes.Structure):
    """As in step.c."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in [
            *("n_query", "n_key", "size"),
            *("n_prompts", "n_answers", "n_before", "room", "filled"),
            *("n", "first", "n_runs", "most"),
        ]
    ]


class Library(NamedTuple):
    """The functions of step.c, or why there are none."""

    functions: ctypes.CDLL | None
    found: str


@cache
def library() -> Library:
    """Compiled if need be, and loaded; once in a process."""
    if os.environ.get("PREFLOOP_COMPILED") == "0":
        return Library(None, "not wanted: PREFLOOP_COMPILED=0")
    if sys.platform != "linux":
        return Library(None, f"not on {sys.platform}")
    wanted = shlex.split(os.environ.get("CC", ""))[:1] or ["cc", "gcc", "clang"]
    compiler = next((found for name in wanted if (found := shutil.which(name))), None)
    if compiler is None:
        return Library(None, "no C compiler: cc, gcc and clang are not on the path")
    try:
        path = built(compiler, cache_folder())
    except (OSError, subprocess.SubprocessError) as reason:
        said = getattr(reason, "stderr", "") or str(reason)
        return Library(None, f"{compiler} does not compile it: {said.strip().splitlines()[0]}")
    return loaded(path, compiler)


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prefloop"


def built(compiler: str, folder: Path) -> Path:
    """The compiled file, made if it is not there. Processes that make it at the same time do not disturb each other."""
    release = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    depends_on = (SOURCE.read_text(encoding="utf-8"), *FLAGS, compiler, release, processor())
    path = folder / f"step-{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as new:
        out = Path(new) / path.name
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(out), "-lm"]
        subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
        out.replace(path)
    return path


def processor() -> str:
    """What ``-march=native`` stands for here."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    kept = {line for line in lines if re.match(r"(model name|flags|Features|CPU (part|implementer))\s*:", line)}
    return "\n".join([platform.machine(), *sorted(kept)])


def loaded(path: Path, compiler: str) -> Library:
    before = openmp()
    functions = ctypes.CDLL(str(path))
    if more := openmp() - before:  # a second pool of threads: the two would wait for each other's processors
        return Library(
            None, f"{compiler} brings {', '.join(sorted(more))} beside the OpenMP of torch: {', '.join(sorted(before))}"
        )
    pointer, whole, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    functions.product.argtypes = [pointer] * 4 + [whole] * 3 + [number] * 2
    functions.norm.argtypes = [pointer] * 2 + [whole] * 2 + [ctypes.c_float, number]
    functions.gate.argtypes = [pointer] * 2 + [whole] * 2 + [number]
    functions.attend.argtypes = [ctypes.POINTER(Shape)] + [pointer] * 10 + [number]
    for name in ("product", "norm", "gate", "attend"):
        getattr(functions, name).restype = None
    return Library(functions, f"by {compiler}, {path}")


def openmp() -> set[str]:
    """The OpenMP libraries that this process has loaded."""
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    return set(re.findall(r"\S*/(lib(?:gomp|omp|iomp5)\S*\.so\S*)", mapped))


# ------------------------------------------------------------------------------------------------ a step


def compiled_for(embedding_weight: Tensor, size: int) -> ctypes.CDLL | None:
    """The functions, where they know this kind of numbers and heads of this size."""
    if embedding_weight.dtype != torch.float32 or embedding_weight.device.type != "cpu" or size % EIGHT:
        return None
    return library().functions


def read_tokens(
    functions: ctypes.CDLL, decoder: "Decoder", groups: Sequence[AnswerGroup], tokens: Tensor, position: Tensor
) -> Tensor:
    """As ``Decoder.read_tokens``: R V. What the groups saw is kept in them."""
    n_rows = len(tokens)
    more = (0, -n_rows % EIGHT)
    tokens, position = torch.constant_pad_nd(tokens, more), torch.constant_pad_nd(position, more)
    n, threads, heads = len(tokens), torch.get_num_threads(), decoder.heads
    x = embedding(tokens, decoder.embedding).t().contiguous()  # D N
    if decoder.place is not None:
        x += decoder.place[position].t()
    turn = None if decoder.turn is None else decoder.turn[position]
    turned = None if turn is None else turn.data_ptr()
    first = decoder.layers[0]
    normed, mixed = torch.empty_like(x), x.new_empty(len(first.mix.weight), n)
    seen, up = x.new_zeros(heads.n_query * heads.size, n), x.new_empty(len(first.up.weight), n)
    inner = x.new_empty(first.down.weight.shape[1], n)
    shapes = shapes_of(groups, heads, n)
    score = x.new_empty(threads, shapes[0].most)

    def product(by: "LinearMap", x: Tensor, y: Tensor, add: bool = False) -> None:
        if n >= MANY:
            torch.addmm(y, by.weight, x, beta=float(add), out=y)
            if by.bias is not None:
                y += by.bias[:, None]
            return
        bias = None if by.bias is None else by.bias.data_ptr()
        functions.product(by.weight.data_ptr(), bias, x.data_ptr(), y.data_ptr(), *by.weight.shape, n, add, threads)

    def norm() -> None:
        functions.norm(x.data_ptr(), normed.data_ptr(), len(x), n, decoder.norm.eps, decoder.norm.is_centred)

    for place, layer in enumerate(decoder.layers):
        norm()
        product(layer.mix, normed, mixed)
        for group, shape in zip(groups, shapes, strict=True):
            before = group.prefix[place].data_ptr() if group.is_shared else None
            tables = group.length.data_ptr(), group.own[place].data_ptr(), *(table.data_ptr() for table in group.tables)
            functions.attend(shape, mixed.data_ptr(), turned, before, *tables, score.data_ptr(), seen.data_ptr(), threads)
        product(layer.out, seen, x, add=True)
        norm()
        product(layer.up, normed, up)
        if decoder.is_gated and isinstance(decoder.act, SILU):
            functions.gate(up.data_ptr(), inner.data_ptr(), len(inner), n, threads)
        elif decoder.is_gated:
            torch.mul(decoder.act(up[: len(inner)]), up[len(inner) :], out=inner)
        else:
            inner = decoder.act(up)
        product(layer.down, inner, x, add=True)
    norm()
    logits = x.new_empty(len(decoder.head.weight), n)
    product(decoder.head, normed, logits)
    return logits.t()[:n_rows].contiguous()


def shapes_of(groups: Sequence[AnswerGroup], heads: Heads, n: int) -> list[Shape]:
    """What step.c is told of each group; the rows of a group stand behind those of the one before."""
    shapes, first = [], 0
    most = max(group.filled + 1 + (group.n_before if group.is_shared else 0) for group in groups) + EIGHT
    for group in groups:
        room, before = group.own[0].shape[4], group.n_before
        sizes = (group.n_prompts, group.n_answers, before, room, group.filled, n, first, len(group.tables[2]) - 1, most)
        shapes.append(Shape(*heads, *sizes))
        first += group.n_rows
    return shapes
