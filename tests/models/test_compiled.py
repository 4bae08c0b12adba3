"""The functions of step.c beside torch in double precision, and what happens where they cannot be had."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.models import compiled
from prefloop.models.decoder import decoder_of
from prefloop.models.sampling import sample
from tests.helpers import assert_close
from tests.models.tiny import brief, policy, prompts

needs_compiler = pytest.mark.skipif(compiled.library().functions is None, reason=f"no compiled step: {compiled.library().found}")
THREADS = st.integers(1, 2)


def numbers(*sizes: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)) * scale


@needs_compiler
@settings(max_examples=40, deadline=None)
@given(
    out=st.integers(1, 40), width=st.integers(1, 40), eights=st.integers(1, 11), bias=st.booleans(), add=st.booleans(), threads=THREADS
)  # fmt: skip
def test_a_product_is_a_product_whatever_its_sizes(out, width, eights, bias, add, threads):
    n, functions = 8 * eights, compiled.library().functions
    weight, x, y, shift = numbers(out, width, seed=0), numbers(width, n, seed=1), numbers(out, n, seed=2), numbers(out, seed=3)
    scale = width**0.5  # what a sum of this many products is as large as
    expected = weight.double() @ x.double() + (y.double() if add else 0) + (shift.double()[:, None] if bias else 0)
    functions.product(
        weight.data_ptr(), shift.data_ptr() if bias else None, x.data_ptr(), y.data_ptr(), out, width, n, add, threads
    )
    assert_close(y / scale, expected / scale)


@needs_compiler
@pytest.mark.parametrize("is_centred", [False, True])
def test_every_column_is_normed_by_itself(is_centred):
    x = (numbers(24, 16, seed=0) + 2) * torch.logspace(-3, 3, 16)
    y = torch.empty_like(x)
    compiled.library().functions.norm(x.data_ptr(), y.data_ptr(), 24, 16, 1e-5, is_centred)
    wide = x.double() - (x.double().mean(0) if is_centred else 0)
    assert_close(y, wide / (wide.square().mean(0) + 1e-5).sqrt())


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_the_gate_is_silu_also_where_the_exponential_would_not_fit(threads):
    x = torch.cat([torch.linspace(-120, 120, 1000), numbers(1000, seed=1), torch.tensor([0.0, -1e4, 1e4, torch.nan] * 2)])
    up = torch.stack([x, numbers(len(x), seed=2)])
    y = torch.empty(len(x))
    compiled.library().functions.gate(up.data_ptr(), y.data_ptr(), len(x) // 8, 8, threads)
    wide = up.double()
    assert_close(y, torch.nn.functional.silu(wide[0]) * wide[1])
    assert torch.equal(y.isnan(), x.isnan())  # what went wrong stays to be seen


@needs_compiler
def test_the_exponential_is_right_to_a_few_roundings():
    """Seen through the gate: x / (1 + e^-x) is e^x x to rounding where x is far below zero."""
    x = torch.linspace(-80, -20, 4096)
    up, y = torch.stack([x, torch.ones(4096)]), torch.empty(4096)
    compiled.library().functions.gate(up.data_ptr(), y.data_ptr(), 512, 8, 1)
    expected = x.double() * x.double().exp()
    assert float(((y - expected) / expected).abs().max()) < 4 * torch.finfo(torch.float32).eps


@needs_compiler
@torch.no_grad()
def test_the_number_of_threads_changes_no_bit():
    decoder = decoder_of(policy("qwen2"), 20)
    assert decoder is not None
    said, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(1)  # torch's own products, of the prompts, do depend on it
        group, _ = decoder.read_prompts([[5, 6, 7], [5, 6, 7], [8, 9], [8, 9]], 4)
        torch.set_num_threads(threads)
        steps = [decoder.read_tokens([group], torch.tensor([4, 5, 6, 7]), torch.tensor([3, 3, 2, 2]) + step) for step in range(3)]
        said.append(torch.stack(steps))
    torch.set_num_threads(before)
    assert torch.equal(said[1], said[0])


@needs_compiler
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_likeliest_answers_are_those_of_torch(architecture, monkeypatch):
    model, encode = policy(architecture), brief()
    drawn = [sample(model, encode, prompts(4), k=2, max_new_tokens=20, seed=0, greedy=True)]
    monkeypatch.setattr(compiled, "library", lambda: compiled.Library(None, "not now"))
    drawn.append(sample(model, encode, prompts(4), k=2, max_new_tokens=20, seed=0, greedy=True))
    assert torch.equal(drawn[0].tokens, drawn[1].tokens)
    assert_close(drawn[0].logprobs, drawn[1].logprobs)


@needs_compiler
def test_many_rows_are_multiplied_by_torch_and_give_the_same(monkeypatch):
    model, encode = policy("gpt2"), brief()
    drawn = []
    for many in (1, 1000):
        monkeypatch.setattr(compiled, "MANY", many)
        drawn.append(sample(model, encode, prompts(4), k=3, max_new_tokens=20, seed=0, greedy=True))
    assert torch.equal(drawn[0].tokens, drawn[1].tokens)
    assert_close(drawn[0].logprobs, drawn[1].logprobs)


# ------------------------------------------------------------------------------------------------ where it comes from


@pytest.fixture
def looked_for_again():
    compiled.library.cache_clear()
    yield compiled.library
    compiled.library.cache_clear()


def reason(looked_for_again) -> str:
    found = looked_for_again()
    assert found.functions is None
    return found.found


def test_without_a_compiler_a_step_is_computed_in_torch(monkeypatch, looked_for_again):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert reason(looked_for_again) == "no C compiler: cc, gcc and clang are not on the path"
    drawn = sample(policy("llama"), brief(), prompts(2), k=2, max_new_tokens=5, seed=0)
    assert len(drawn.completions) == 4


def test_it_can_be_declined(monkeypatch, looked_for_again):
    monkeypatch.setenv("PREFLOOP_COMPILED", "0")
    assert reason(looked_for_again) == "not wanted: PREFLOOP_COMPILED=0"


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path, looked_for_again):
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "cc: out of luck" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert reason(looked_for_again) == f"{broken} does not compile it: cc: out of luck"
    assert not list((tmp_path / "cache").rglob("*.so"))


@needs_compiler
def test_it_is_compiled_once_also_by_several_at_a_time(tmp_path):
    compiler = compiled.library().found.removeprefix("by ").split(",")[0]
    with ThreadPoolExecutor(3) as pool:
        (path,) = set(pool.map(lambda _: compiled.built(compiler, tmp_path), range(3)))
    made = path.stat().st_mtime_ns
    assert compiled.built(compiler, tmp_path) == path
    assert path.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [path]


@needs_compiler
def test_another_processor_gets_a_file_of_its_own(tmp_path, monkeypatch):
    compiler = compiled.library().found.removeprefix("by ").split(",")[0]
    path = compiled.built(compiler, tmp_path)
    monkeypatch.setattr(compiled, "processor", lambda: "another")
    assert compiled.built(compiler, tmp_path) != path


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path, looked_for_again):
    (tmp_path / "prefloop").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux" and compiled.shutil.which("cc"):
        assert "does not compile it" in reason(looked_for_again)


@needs_compiler
def test_it_uses_the_threads_of_torch_and_brings_none(monkeypatch, tmp_path):
    before = compiled.openmp()
    assert before, "torch has an OpenMP of its own, and it is seen"
    compiler = compiled.library().found.removeprefix("by ").split(",")[0]
    assert compiled.loaded(compiled.built(compiler, tmp_path), compiler).functions is not None
    assert compiled.openmp() == before
    seen = iter([before, before | {"libomp.so"}])
    monkeypatch.setattr(compiled, "openmp", lambda: next(seen))
    found = compiled.loaded(compiled.built(compiler, tmp_path), compiler)
    assert found.functions is None and "brings libomp.so beside the OpenMP of torch" in found.found
