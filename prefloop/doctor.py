"""What works on this machine, what does not, and the line that mends it. Torch is imported only if it is there."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import prefloop

CHECKOUT = Path(prefloop.__file__).parent.parent  # where constraints.txt lies, unless prefloop was installed from a wheel
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ROOM = 2 * 2**30  # bytes: a demo with its checkpoints, and then some


class Finding(NamedTuple):
    """One thing that was looked at."""

    ok: bool
    name: str
    found: str
    mend: str = ""  # the line that mends it, where it is not ok
    is_needed: bool = True  # False: training works without it


class Requirement(NamedTuple):
    """One line of the package's own metadata, as ``torch>=2.6; extra == "train"``."""

    package: str
    at_least: str
    extra: str  # empty for what is always needed


def main(write: Callable[[str], object]) -> int:
    """Every finding as a line through ``write``; 0 if everything that training needs works, else 1."""
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok" if finding.ok else ("MISSING" if finding.is_needed else "note")
        write(f"{mark:8}{finding.name:{width}}  {finding.found}")
        if not finding.ok and finding.mend:
            write(f"{'':8}{'':{width}}  -> {finding.mend}")
    broken = [finding.name for finding in findings if finding.is_needed and not finding.ok]
    write(f"training does not work here: mend {', '.join(broken)}" if broken else "training works here")
    return 1 if broken else 0


def examine() -> list[Finding]:
    """Everything there is to know, in the order in which it would be mended."""
    needed, extras = missing_packages()
    return [
        python(),
        Finding(True, "prefloop", f"{prefloop.__version__} in {Path(prefloop.__file__).parent}"),
        needed,
        *extras,
        *torch_build(),
        compiled_step(),
        constraints(CHECKOUT / "constraints.txt"),
        disk(Path.cwd()),
        hub_cache(),
        browser(),
        *development_data(),
    ]


def python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable}) on {platform.system()} {platform.machine()}"
    return Finding(sys.version_info >= (3, 11), "python", found, "make setup PYTHON=python3.11")


def install_line(extra: str) -> str:
    """The pip line for an extra, as it is typed in a checkout or anywhere else."""
    if (CHECKOUT / "constraints.txt").is_file():
        return f"cd {quote(str(CHECKOUT))} && {quote(sys.executable)} -m pip install -c constraints.txt -e '.[{extra}]'"
    return f"{quote(sys.executable)} -m pip install 'prefloop[{extra}]'"


def requirements(lines: list[str]) -> list[Requirement]:
    """The lines of a package's metadata, read without a library: our own are all of the form ``name>=1.2``."""
    parsed = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)""", marker)
        package = re.match(r"[\w.-]+", requirement)
        at_least = re.search(r">=\s*([\d.]+)", requirement)
        if package:
            parsed.append(Requirement(package[0], at_least[1] if at_least else "0", extra[1] if extra else ""))
    return parsed


def numbers(release: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13, 0), for comparing."""
    return tuple(int(part) for part in re.findall(r"\d+", release.partition("+")[0]))


def installed(package: str) -> str:
    """The version of an installed package, or an empty string."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def shortcomings(wanted: list[Requirement]) -> list[str]:
    """The requirements that are not met, each as a person would say it."""
    short = []
    for package, at_least, _ in wanted:
        here = installed(package)
        if not here:
            short.append(f"{package} is missing")
        elif numbers(here) < numbers(at_least):
            short.append(f"{package} {here} is older than {at_least}")
    return short


def missing_packages() -> tuple[Finding, list[Finding]]:
    """What is always needed, and each extra of which something is missing; only ``train`` is needed for training."""
    try:
        wanted = requirements(requires("prefloop") or [])
    except PackageNotFoundError:
        mend = f"{sys.executable} -m pip install -c constraints.txt -e '.[train]'"
        return Finding(False, "packages", "prefloop was never installed, it is only on the path", mend), []
    always = shortcomings([requirement for requirement in wanted if not requirement.extra])
    base = Finding(not always, "packages", "; ".join(always) or "everything the human side needs", install_line("train"))
    findings = []
    for extra in dict.fromkeys(requirement.extra for requirement in wanted if requirement.extra):
        parts = [requirement for requirement in wanted if requirement.extra == extra]
        short = shortcomings(parts)
        found = "; ".join(short) or ", ".join(f"{package} {installed(package)}" for package, _, _ in parts)
        findings.append(Finding(not short, f"extra {extra}", found, install_line(extra), extra == "train"))
    return base, findings


def torch_build() -> list[Finding]:
    """Which build of PyTorch this is, whether it computes, and what it can compute on."""
    if find_spec("torch") is None:
        return [
            Finding(False, "torch", "not installed", "make setup, which chooses the build for this machine, or the line above")
        ]
    try:
        import torch

        torch.ones(2).numpy()  # fails where torch and NumPy do not fit each other
    except Exception as error:  # a broken build fails in its own way: OSError for a library, ImportError, RuntimeError
        again = "make setup TORCH=default" if has_nvidia_gpu() else "make setup TORCH=cpu"
        return [Finding(False, "torch", f"installed, and does not start: {type(error).__name__}: {error}", again)]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}" if torch.version.hip else "CPU"
    return [Finding(True, "torch", f"{torch.__version__}, {build} build"), *devices(torch, build), cpu(torch)]


def devices(torch, build: str) -> list[Finding]:
    """One finding per accelerator that works, or why there is none although there could be."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return [Finding(True, f"cuda:{index}", name) for index, name in enumerate(names)]
    if torch.backends.mps.is_available():
        return [Finding(True, "mps", "Apple GPU")]
    if has_nvidia_gpu():
        found = f"there is an NVIDIA GPU, and this {build} build cannot use it"
        return [Finding(False, "cuda", found, "make setup TORCH=default  (or a driver that fits the build)", False)]
    if build != "CPU":
        found = f"no GPU: this {build} build works, and takes gigabytes that the CPU build does not"
        return [Finding(False, "cuda", found, "make setup TORCH=cpu", False)]
    return []


def cpu(torch) -> Finding:
    return Finding(True, "cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use{memory()}")


def compiled_step() -> Finding:
    """Whether sampling on the CPU has its compiled step: without it, it takes up to twice the time."""
    try:
        from prefloop.models.compiled import library
    except (ImportError, OSError):  # without torch, or with one that does not start: said above
        return Finding(False, "compiled step", "not looked for, since torch is not there", is_needed=False)
    functions, found = library()
    mend = "a C compiler with OpenMP, as in: apt install gcc" if "compiler" in found or "compile" in found else ""
    return Finding(functions is not None, "compiled step", found, mend, False)


def memory() -> str:
    try:
        return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory"
    except (ValueError, OSError):  # a system that does not tell
        return ""


def has_nvidia_gpu() -> bool:
    """Whether the machine has one, whatever torch thinks of it."""
    if Path("/dev/nvidia0").exists():
        return True
    try:
        return "GPU" in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):  # no driver, or one that hangs
        return False


def constraints(path: Path) -> Finding:
    """How far what is installed lies from the versions the tests passed with."""
    if not path.is_file():
        return Finding(True, "versions", "not a checkout: nothing to compare with", is_needed=False)
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [line.strip().split("==") for line in lines if "==" in line and not line.startswith("#")]
    there = [(package, pin, installed(package).partition("+")[0]) for package, pin in pins if installed(package)]
    other = [f"{package} {here} (tested: {pin})" for package, pin, here in there if here != pin]
    found = "; ".join(other) or f"all {len(there)} packages are those the tests passed with"
    return Finding(not other, "versions", found, install_line("train,report,test"), False)


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    return Finding(free > ROOM, "disk", found, f"free {ROOM / 2**30:.0f} GiB, or write elsewhere with --out")


def hub_cache() -> Finding:
    """Where models named by a hub id would be kept; folders need none."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    folder = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK)
    return Finding(
        ok, "hub cache", f"{folder}{'' if ok else ' cannot be written'}", "export HF_HOME=<a folder you may write>", False
    )


def browser() -> Finding:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), "")
    mend = "apt-get install chromium chromium-driver  (only the browser tests use one)"
    return Finding(bool(path), "browser", path or "no Chromium on the PATH", mend, False)


def development_data() -> list[Finding]:
    """The public data sets that some tests and configs use; said only in a checkout."""
    if not (CHECKOUT / "constraints.txt").is_file():
        return []
    folder = Path(os.environ.get("PREFLOOP_DATA") or CHECKOUT.parent / "shared" / "data")
    mend = "export PREFLOOP_DATA=<the folder>  (without it, the tests on real data are skipped)"
    return [Finding(folder.is_dir(), "data", str(folder) if folder.is_dir() else f"no folder {folder}", mend, False)]
