import importlib
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.conftest import folder_of, n_threads

ROOT = Path(__file__).parent.parent

SUITE = """
import pytest

def test_short(): pass

@pytest.mark.long
def test_study(): pass

def test_on_data(data): assert data.name == "sets"

@pytest.mark.data
def test_marked(): pass
"""


def outcome(folder: Path, *flags: str, data: Path) -> str:
    """What pytest prints for SUITE under our conftest."""
    (folder / "test_suite.py").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        folder,
        folder,
        *flags,
    ]
    environment = {**os.environ, "PREFLOOP_DATA": str(data)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


def test_what_is_left_out_is_counted_with_its_reason_and_the_time_is_told(tmp_path):
    printed = outcome(tmp_path, data=tmp_path / "nowhere")
    assert "1 passed, 3 skipped" in printed
    assert "a study or a chaos run" in printed
    assert "no development data in" in printed
    assert "test_suite.py (1 tests)" in printed and "in all, 3 skipped" in printed


def test_with_the_data_and_the_flag_nothing_is_left_out(tmp_path):
    (tmp_path / "sets").mkdir()
    assert "4 passed" in outcome(tmp_path, "--long", data=tmp_path / "sets")


def test_every_machine_computes_with_as_many_threads_as_every_other():
    assert n_threads({}) == 1
    assert n_threads({"PREFLOOP_TEST_THREADS": "5"}) == 5


def test_torch_takes_the_threads_that_were_set():
    torch = pytest.importorskip("torch")
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_the_tests_ask_no_hub_and_keep_nothing_in_the_cache_of_a_person():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert Path.home() not in Path(os.environ["HF_HOME"]).parents


def test_a_property_is_not_refuted_by_a_busy_machine():
    assert hypothesis.settings().deadline is None


def examples() -> list[str]:
    drawn = []

    @hypothesis.settings(max_examples=50)
    @hypothesis.given(st.lists(st.floats()))
    def draw(example):
        drawn.append(repr(example))

    draw()
    return drawn


def test_a_property_sees_the_same_examples_whatever_was_imported_before(tmp_path, monkeypatch, request):
    if request.config.getoption("--long"):
        pytest.skip("the long runs look for new ones")
    before = examples()
    (tmp_path / "full_of_numbers.py").write_text(f"NUMBERS = {[n / 7 for n in range(2000, 2300)]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("full_of_numbers")
    assert examples() == before


def test_time_is_told_per_folder_of_tests():
    assert folder_of("tests/ops/test_gae.py::test_x[1/2]") == "tests/ops"
    assert folder_of("tests/test_docs.py::test_y") == "tests/test_docs.py"


@pytest.mark.parametrize("package", ["torch", "transformers", "peft", "accelerate", "datasets", "matplotlib.pyplot"])
def test_importing_what_we_build_on_warns_of_nothing(package):
    pytest.importorskip(package)  # warnings are errors here, so that one of theirs would stop every test
