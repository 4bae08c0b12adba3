"""A real server in a process of its own, which a test may kill."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from prefloop.collect import accounts
from prefloop.collect.accounts import create_token
from prefloop.collect.database import Database
from tests.collect.made import Made
from tests.collect.postgres import die_with_the_tests

STARTS_WITHIN = 120.0  # seconds, on a machine that is busy with something else


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Running:
    """``prefloop collect serve`` with a database; always on the same port, so that clients find it again."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url, self.port = folder, url, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Running":
        words = ["collect", "serve", "--data", str(self.folder), "--database", self.url, "--port", str(self.port)]
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prefloop.cli", *words], stdout=log, stderr=log, preexec_fn=die_with_the_tests
        )
        log.close()
        ends = time.monotonic() + STARTS_WITHIN
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError((self.folder / "server.log").read_text())
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/health/ready", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL: no time to write anything."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """As Ctrl-C does; its exit code."""
        return self.end(signal.SIGINT)

    def end(self, with_signal: int) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(with_signal)
        code = self.process.wait(60)
        self.process = None
        return code


def tokens_of(project: Made, *, scopes: tuple[str, ...] = ("annotate",)) -> list[str]:
    """A token for each of a project's people."""
    database: Database = project.database
    now = database.clock()
    given = {"name": "test", "scopes": scopes, "now": now}
    return [
        database.write(lambda connection, user=user: create_token(connection, user_id=user, **given))[1] for user in project.users
    ]


def owner_of(database: Database) -> str:
    """The id of a new owner of the installation."""
    now = database.clock()
    return database.write(
        lambda connection: accounts.create_user(connection, login=f"owner-{accounts.new_secret()[:8]}", is_owner=True, now=now)
    )
