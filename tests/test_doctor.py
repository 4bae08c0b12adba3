import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefloop import doctor
from prefloop.doctor import Finding, Requirement


def fake_torch(*, cuda: str | None = None, gpus: tuple[str, ...] = (), mps: bool = False) -> SimpleNamespace:
    """As much of torch as the doctor asks."""
    return SimpleNamespace(
        __version__="2.13.0",
        ones=lambda n: SimpleNamespace(numpy=lambda: [1.0] * n),
        version=SimpleNamespace(cuda=cuda, hip=None),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus), device_count=lambda: len(gpus), get_device_name=lambda index: gpus[index]
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        get_num_threads=lambda: 3,
    )


@pytest.fixture
def machine(monkeypatch):
    """Sets which torch is installed and whether there is an NVIDIA GPU; returns what the doctor says of them, by name."""

    def look(torch: object, *, has_gpu: bool) -> dict[str, Finding]:
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(doctor, "find_spec", lambda name: torch)
        monkeypatch.setattr(doctor, "has_nvidia_gpu", lambda: has_gpu)
        return {finding.name: finding for finding in doctor.torch_build()}

    return look


def test_a_cpu_build_on_a_machine_without_a_gpu_is_as_it_should_be(machine):
    findings = machine(fake_torch(), has_gpu=False)
    assert list(findings) == ["torch", "cpu"] and all(finding.ok for finding in findings.values())
    assert findings["torch"].found == "2.13.0, CPU build"
    assert "3 threads" in findings["cpu"].found


def test_a_cpu_build_beside_a_gpu_is_mended_by_the_default_build(machine):
    finding = machine(fake_torch(), has_gpu=True)["cuda"]
    assert not finding.ok and not finding.is_needed and "TORCH=default" in finding.mend


def test_a_cuda_build_without_a_gpu_works_and_says_what_it_costs(machine):
    findings = machine(fake_torch(cuda="13.0"), has_gpu=False)
    assert findings["torch"].found == "2.13.0, CUDA 13.0 build"
    assert not findings["cuda"].is_needed and "TORCH=cpu" in findings["cuda"].mend


def test_a_missing_compiler_costs_speed_and_nothing_else(monkeypatch):
    compiled = pytest.importorskip("prefloop.models.compiled")
    monkeypatch.setattr(
        compiled, "library", lambda: compiled.Library(None, "no C compiler: cc, gcc and clang are not on the path")
    )
    finding = doctor.compiled_step()
    assert not finding.ok and not finding.is_needed and "gcc" in finding.mend
    monkeypatch.setattr(compiled, "library", lambda: compiled.Library(None, "not wanted: PREFLOOP_COMPILED=0"))
    assert not doctor.compiled_step().mend


def test_every_gpu_is_named(machine):
    findings = machine(fake_torch(cuda="13.0", gpus=("Big", "Small")), has_gpu=True)
    assert findings["cuda:0"].found == "Big" and findings["cuda:1"].found == "Small"


def test_an_apple_gpu_is_named(machine):
    assert machine(fake_torch(mps=True), has_gpu=False)["mps"].ok


def test_no_torch_is_something_training_needs(machine):
    finding = machine(None, has_gpu=False)["torch"]
    assert not finding.ok and finding.is_needed and "make setup" in finding.mend


def test_a_torch_that_does_not_start_is_shown_with_its_own_words(machine):
    broken = fake_torch()
    broken.ones = lambda n: (_ for _ in ()).throw(OSError("libgomp.so.1: cannot open shared object file"))
    finding = machine(broken, has_gpu=False)["torch"]
    assert not finding.ok and finding.is_needed and "libgomp.so.1" in finding.found


def test_requirements_are_read_as_the_metadata_writes_them():
    lines = ["numpy>=1.26", 'torch>=2.6; extra == "train"', "pytest-timeout>=2.3; extra == 'test'", "rich"]
    assert doctor.requirements(lines) == [
        Requirement("numpy", "1.26", ""),
        Requirement("torch", "2.6", "train"),
        Requirement("pytest-timeout", "2.3", "test"),
        Requirement("rich", "0", ""),
    ]


@pytest.mark.parametrize(
    ("here", "at_least", "is_enough"),
    [("2.13.0+cpu", "2.6", True), ("2.5.1", "2.6", False), ("2.6", "2.6", True), ("10.0", "9.9", True), ("1.26.4", "1.26", True)],
)
def test_versions_are_compared_as_numbers(monkeypatch, here, at_least, is_enough):
    monkeypatch.setattr(doctor, "installed", lambda package: here)
    assert doctor.shortcomings([Requirement("x", at_least, "")]) == ([] if is_enough else [f"x {here} is older than {at_least}"])


def metadata(monkeypatch, lines: list[str], installed: dict[str, str]) -> tuple[Finding, dict[str, Finding]]:
    monkeypatch.setattr(doctor, "requires", lambda package: lines)
    monkeypatch.setattr(doctor, "installed", lambda package: installed.get(package, ""))
    base, extras = doctor.missing_packages()
    return base, {finding.name: finding for finding in extras}


def test_only_the_train_extra_is_needed_for_training(monkeypatch):
    lines = ["numpy>=1.26", 'torch>=2.6; extra == "train"', 'matplotlib>=3.9; extra == "report"']
    base, extras = metadata(monkeypatch, lines, {"numpy": "2.4.6"})
    assert base.ok
    assert extras["extra train"].is_needed and extras["extra train"].found == "torch is missing"
    assert not extras["extra report"].is_needed and "[report]" in extras["extra report"].mend


def test_a_package_that_was_never_installed_says_so(monkeypatch):
    def not_there(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "requires", not_there)
    base, extras = doctor.missing_packages()
    assert not base.ok and extras == [] and "pip install" in base.mend


def test_outside_a_checkout_the_pip_line_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CHECKOUT", tmp_path)
    assert doctor.install_line("train").endswith("pip install 'prefloop[train]'")
    (tmp_path / "constraints.txt").write_text("")
    assert doctor.install_line("train").endswith("pip install -c constraints.txt -e '.[train]'")


def test_a_line_to_type_survives_a_folder_with_a_space(monkeypatch, tmp_path):
    folder = tmp_path / "my checkout"
    folder.mkdir()
    (folder / "constraints.txt").write_text("")
    monkeypatch.setattr(doctor, "CHECKOUT", folder)
    assert shlex.split(doctor.install_line("train"))[:2] == ["cd", str(folder)]


def test_packages_other_than_the_tested_ones_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "installed", {"torch": "2.13.0+cpu", "numpy": "2.0.0"}.get)
    (tmp_path / "constraints.txt").write_text("# tested\ntorch==2.13.0\nnumpy==2.4.6\nabsent==1.0\n")
    finding = doctor.constraints(tmp_path / "constraints.txt")
    assert not finding.ok and finding.found == "numpy 2.0.0 (tested: 2.4.6)"
    assert doctor.constraints(tmp_path / "nowhere.txt").ok


def test_a_full_disk_is_something_training_needs(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    finding = doctor.disk(Path("."))
    assert not finding.ok and finding.is_needed and "--out" in finding.mend


def test_a_hub_cache_that_cannot_be_written_is_noted(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "later"))
    assert doctor.hub_cache().ok
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))  # a file where a folder should be
    assert not doctor.hub_cache().ok and not doctor.hub_cache().is_needed


def test_the_development_data_is_looked_for_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFLOOP_DATA", str(tmp_path))
    assert [finding.ok for finding in doctor.development_data()] == [True]
    monkeypatch.setenv("PREFLOOP_DATA", str(tmp_path / "nowhere"))
    assert [finding.ok for finding in doctor.development_data()] == [False]


def test_a_driver_program_without_a_gpu_is_no_gpu(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'No devices were found'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor.Path, "exists", lambda path: False)
    assert not doctor.has_nvidia_gpu()
    program.write_text("#!/bin/sh\necho 'GPU 0: Big'\n")
    assert doctor.has_nvidia_gpu()
    program.unlink()
    assert not doctor.has_nvidia_gpu()


@pytest.mark.parametrize(("is_needed", "code"), [(True, 1), (False, 0)])
def test_the_exit_code_is_about_training(monkeypatch, is_needed, code):
    findings = [Finding(True, "python", "3.11"), Finding(False, "gadget", "broken", "buy another", is_needed)]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    lines: list[str] = []
    assert doctor.main(lines.append) == code
    assert any("gadget" in line and "broken" in line for line in lines) and any("buy another" in line for line in lines)
    assert lines[-1] == ("training does not work here: mend gadget" if code else "training works here")


def test_this_machine_which_runs_the_tests_is_fit_for_training():
    findings = {finding.name: finding for finding in doctor.examine()}
    assert [finding for finding in findings.values() if finding.is_needed and not finding.ok] == []
    assert f"{os.cpu_count()} cores" in findings["cpu"].found
    assert {"python", "prefloop", "packages", "extra train", "torch", "versions", "disk", "hub cache", "browser"} <= set(findings)
