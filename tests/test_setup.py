"""`make setup` with an interpreter that only pretends: no network, no minutes, and every way in which it can go."""

import os
import platform
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from prefloop.doctor import numbers, requirements

ROOT = Path(__file__).parent.parent

# Answers as Python would, but makes a .venv of itself, and writes down what pip was asked instead of doing it.
PRETENDER = """#!/bin/sh
text="$*"
case $text in
"-m venv"*)
    rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python
    echo "VIRTUAL_ENV=$(pwd -P)/.venv" >.venv/bin/activate
    echo venv >>asked ;;
"-m pip install"*)
    echo "${text#-m pip }" >>asked
    case $text in *"${REFUSE:-nothing is refused}"*) exit 1 ;; esac
    for word; do case $word in torch==*) echo "${word#torch==}" >.venv/torch ;; esac; done ;;
"-m pip"*) ;;
*importlib.metadata*) cat .venv/torch ;;
*"print(sys.base_prefix"*) echo IDENTITY ;;
*version_info*) [ IDENTITY != 3.10 ] ;;
*) echo "Python IDENTITY" ;;
esac
"""


class Setup(NamedTuple):
    code: int
    said: str
    asked: list[str]  # of pip, and of venv


class Checkout:
    """A copy of what `make setup` reads, and its runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for name in ("Makefile", "setup.sh", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self.python = self.interpreter("3.11")

    def interpreter(self, identity: str) -> Path:
        path = self.folder.parent / f"python-{identity}"
        path.write_text(PRETENDER.replace("IDENTITY", identity))
        path.chmod(0o755)
        return path

    def setup(self, *variables: str, refuse: str = "", path: Path | None = None) -> Setup:
        asked = self.folder / "asked"
        asked.write_text("")
        environment = {"PATH": f"{path or self.folder}:/usr/bin:/bin", "REFUSE": refuse, "CPU_INDEX": "https://cpu.example"}
        done = subprocess.run(
            ["make", "setup", *variables], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        return Setup(done.returncode, done.stdout + done.stderr, asked.read_text().splitlines())

    @property
    def is_ready(self) -> bool:
        return (self.folder / ".venv" / ".ready").exists()


@pytest.fixture
def checkout(tmp_path):
    if platform.system() != "Linux" or not shutil.which("make") or Path("/dev/nvidia0").exists():
        pytest.skip("the choice of a build is tested on Linux, with make and without an NVIDIA GPU")
    return Checkout(tmp_path / "a checkout")


def first(checkout: Checkout, **how) -> Setup:
    return checkout.setup(f"PYTHON={checkout.python}", **how)


EVERYTHING = "install --quiet -c .venv/constraints.txt -e .[train,report,test]"


def test_a_machine_without_a_gpu_gets_the_cpu_build_and_keeps_it(checkout):
    done = first(checkout)
    assert done.code == 0, done.said
    assert done.asked == ["venv", "install --retries 1 --timeout 10 --no-deps torch==2.13.0+cpu", EVERYTHING]
    pins = (checkout.folder / ".venv" / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin.startswith("torch==")] == ["torch==2.13.0+cpu"]


def test_a_second_setup_asks_for_nothing(checkout):
    first(checkout)
    assert checkout.setup().asked == [] and first(checkout).asked == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_new_requirements_are_installed_into_the_same_venv(checkout, name):
    first(checkout)
    later = (checkout.folder / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(checkout.folder / name, (later, later))
    asked = checkout.setup().asked
    assert "venv" not in asked and asked[-1] == EVERYTHING


def test_where_no_index_has_a_cpu_build_pytorchs_own_is_asked_once_and_the_default_taken(checkout):
    done = first(checkout, refuse="+cpu")
    assert done.code == 0, done.said
    assert done.asked[1:4] == [
        "install --retries 1 --timeout 10 --no-deps torch==2.13.0+cpu",
        "install --retries 1 --timeout 10 --no-deps --index-url https://cpu.example torch==2.13.0+cpu",
        "install torch==2.13.0",
    ]
    assert "several gigabytes of CUDA" in done.said


def test_a_machine_with_a_gpu_gets_the_default_build(checkout, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: Big'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert first(checkout, path=tmp_path).asked[1] == "install torch==2.13.0"


def test_the_build_that_was_asked_for_is_taken_and_remembered(checkout):
    words = "torch==2.14.0 --index-url https://cuda.example"
    assert checkout.setup(f"PYTHON={checkout.python}", f"TORCH={words}").asked[1] == f"install {words}"
    assert checkout.setup(f"TORCH={words}").asked == [] and checkout.setup().asked == []
    (checkout.folder / ".venv" / ".ready").unlink()
    assert checkout.setup().asked[0] == f"install {words}"


def test_another_build_replaces_the_cpu_build(checkout):
    first(checkout)
    assert checkout.setup("TORCH=default").asked[0] == "install --force-reinstall --no-deps torch==2.13.0"


def test_a_failed_setup_says_what_to_do_and_the_next_one_goes_on(checkout):
    done = first(checkout, refuse="-e")
    assert done.code != 0 and not checkout.is_ready
    assert "pip could not install prefloop" in done.said and "run the same command again" in done.said
    again = checkout.setup()
    assert again.code == 0 and checkout.is_ready and "venv" not in again.asked


def test_a_failed_torch_is_not_taken_for_an_installed_one(checkout):
    done = first(checkout, refuse="torch==")
    assert done.code != 0 and not checkout.is_ready and EVERYTHING not in done.asked


def test_a_venv_of_another_python_is_made_anew_when_that_one_is_asked_for(checkout):
    first(checkout)
    done = checkout.setup(f"PYTHON={checkout.interpreter('3.12')}")
    assert done.asked[0] == "venv" and "it is not of" in done.said


def test_a_venv_whose_python_is_gone_is_made_anew(checkout):
    first(checkout)
    (checkout.folder / ".venv" / "bin" / "python").unlink()
    assert first(checkout).asked[0] == "venv"


def test_a_copied_checkout_does_not_work_in_the_venv_of_the_first(checkout, tmp_path):
    first(checkout)
    shutil.copytree(checkout.folder, tmp_path / "copy")
    checkout.folder = tmp_path / "copy"
    done = first(checkout)
    assert done.asked[0] == "venv" and "another folder" in done.said


def test_an_old_python_is_refused_with_the_line_that_names_another(checkout):
    done = checkout.setup(f"PYTHON={checkout.interpreter('3.10')}")
    assert done.code != 0 and "older than Python 3.11" in done.said and "make setup PYTHON=" in done.said and done.asked == []


def test_every_requirement_has_a_pin_that_satisfies_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = requirements([*project["dependencies"], *extras["train"], *extras["report"], *extras["test"]])
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert [name for name, at_least, _ in wanted if numbers(pins.get(name.lower(), "0")) < numbers(at_least)] == []
    assert pins["torch"] == "2.13.0"


def test_ci_runs_what_a_developer_types_and_nothing_else():
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert os.access(script, os.X_OK)
