"""A real server in a process of its own, which a test may kill."""

import multiprocessing
import os
import signal
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
from tests.ports import free_port

WARM = multiprocessing.get_context("forkserver")  # a process that has imported everything: a server is a fork of it
WARM.set_forkserver_preload(["prefloop.cli", "prefloop.collect.serve", "tests.collect.server"])
STARTS_WITHIN = 120.0  # seconds, on a machine that is busy with something else


class Forked:
    """A warm process as subprocess has them."""

    def __init__(self, words: list[str], log: Path):
        self.process = WARM.Process(target=typed, args=(words, log), daemon=True)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(int(self.process.pid or 0), number)

    def wait(self, seconds: float) -> int:
        self.process.join(seconds)
        if (code := self.process.exitcode) is None:
            raise TimeoutError(f"the server has not ended within {seconds:g} s")
        return code


def typed(words: list[str], log: Path) -> None:
    """What ``prefloop WORDS`` does, in this process."""
    from prefloop.cli import app

    die_with_the_tests()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app(words)


class Running:
    """``prefloop collect serve`` with a database; always on the same port, so that clients find it again.

    ``is_warm`` saves the second that its imports take, where a test starts it again and again.
    """

    def __init__(self, folder: Path, url: str, *, is_warm: bool = False, more: tuple[str, ...] = ()):
        self.folder, self.url, self.port, self.is_warm, self.more = folder, url, free_port(), is_warm, more
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | Forked | None = None

    def start(self) -> "Running":
        words = ["collect", "serve", "--data", str(self.folder), "--database", self.url, "--port", str(self.port), *self.more]
        if self.is_warm:
            self.process = Forked(words, self.folder / "server.log")
        else:
            with (self.folder / "server.log").open("ab") as log:
                command = [sys.executable, "-m", "prefloop.cli", *words]
                self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_the_tests)
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
