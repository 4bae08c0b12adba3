"""Each peer in an environment of its own, with the very build of torch that prefloop has.

torch is named with its build (``2.13.0+cpu``), for a bare ``torch`` would bring several gigabytes of CUDA. Peers of today get
the versions of constraints.txt for everything they share with prefloop; the release that still has PPO gets its own time's.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import ROOT

FOLDER = ROOT / "benchmarks" / ".envs"
REQUIREMENTS = {
    "trl-1.16": ("trl==1.16.0",),
    "trl-0.24": ("trl==0.24.0", "transformers==4.57.6", "accelerate==1.12.0", "numpy==2.4.6", "rich"),
}
LIKE_OURS = ("trl-1.16",)  # held to constraints.txt
SHOWN = ("torch", "transformers", "trl", "accelerate", "datasets", "numpy")


def python_of(environment: str) -> str:
    """The interpreter of a peer's environment, which is made where it is missing; prefloop's own for an empty name."""
    if not environment:
        return sys.executable
    folder = FOLDER / environment
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = " ".join([*REQUIREMENTS[environment], f"torch=={version('torch')}"])
    if not (ready.is_file() and ready.read_text() == wanted):
        make(folder, python, environment)
        ready.write_text(wanted)
    return str(python)


def make(folder: Path, python: Path, environment: str) -> None:
    """A virtual environment with the peer."""
    print(f"bench: making {folder.relative_to(ROOT)} (about 1.3 GB)", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install_torch(python)
    held = [f"torch=={version('torch')}"]
    if environment in LIKE_OURS:
        held += [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("torch==")]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(held) + "\n")
    pip(python, "-c", str(constraints), *REQUIREMENTS[environment])


def install_torch(python: Path) -> None:
    """Prefloop's build: from the configured indexes, else from where setup.sh finds it."""
    wanted = f"torch=={version('torch')}"
    if pip(python, wanted, check=False):
        return
    found = re.search(r"CPU_INDEX:-([^}]+)", (ROOT / "setup.sh").read_text())
    index = os.environ.get("CPU_INDEX") or (found[1] if found else "")
    pip(python, "--extra-index-url", index, wanted)


def pip(python: Path, *what: str, check: bool = True) -> bool:
    """Whether pip could install it."""
    return subprocess.run([str(python), "-m", "pip", "install", "--quiet", *what], check=check).returncode == 0


def versions(python: str) -> dict[str, str]:
    """What an environment holds of the packages that matter."""
    ask = (
        "import json, importlib.metadata as m\n"
        f"print(json.dumps({{d.metadata['Name']: d.version for d in m.distributions() if d.metadata['Name'] in {SHOWN!r}}}))"
    )
    return json.loads(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout)
