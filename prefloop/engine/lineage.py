"""Where a run comes from: content hashes of its inputs, the commit, the versions, the machine."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

NOT_CONTENT = ("lock", ".unfinished")
LIBRARIES = ("prefloop", "torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "safetensors", "numpy")


def hash_of(path: Path | str) -> str:
    """SHA-256 of a file's content, or of the names and contents of everything in a folder."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path)
        if not set(name.parts) & set(NOT_CONTENT):
            digest.update(f"{name.as_posix()}\0{hash_of(file)}\n".encode())
    return digest.hexdigest()


def parentage(parents: dict[str, Path]) -> dict[str, dict[str, str | None]]:
    """Each input with its hash; None for one that is not on this disk (a hub id, a named scorer)."""
    return {name: {"path": str(path), "sha256": hash_of(path) if path.exists() else None} for name, path in parents.items()}


def versions() -> dict[str, str]:
    """Of Python and of the libraries whose change may move a figure."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device, n_processes: int) -> dict[str, Any]:
    """What the figures of a run were made on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "system": platform.platform(),
        "device": str(device),
        "name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": n_processes,
    }


def processor() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> dict[str, Any] | None:
    """The commit of the source this runs from, and whether files differ from it; None outside a git checkout of prefloop."""
    here = Path(__file__)
    try:
        tracked = git("ls-files", "--error-unmatch", here.name, folder=here.parent)
        if tracked is None:
            return None
        return {
            "sha": git("rev-parse", "HEAD", folder=here.parent),
            "is_changed": bool(git("status", "--porcelain", folder=here.parent)),
        }
    except OSError:  # no git on this machine
        return None


def git(*words: str, folder: Path) -> str | None:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def origin(*, method: str, seed: int, parents: dict[str, Path], device: torch.device, n_processes: int) -> dict[str, Any]:
    """What meta.json says of a run when it starts."""
    return {
        "method": method,
        "seed": seed,
        "command": sys.argv,
        "commit": commit(),
        "parents": parentage(parents),
        "versions": versions(),
        "machine": machine(device, n_processes),
    }
