"""The service from Python: what a script, a training loop or a stand-in for a person uses. It speaks HTTP and knows no more.

    with connect("http://127.0.0.1:8090", token) as server:
        project = server.project("week-3")
        project.push("completions.jsonl")            # prompts with their answers, in any format prefloop reads
        project.wait_for(600)                        # judgments
        project.pull("rankings", format="kway")      # a folder; rankings/kway.jsonl goes to prefloop reward

A request that got no answer is sent again: reads, claims and drafts may be repeated as they are, submits because of their key.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from prefloop.collect.folders import media_folder
from prefloop.data.write import write_groups
from prefloop.errors import DataError, RunError, Waiting
from prefloop.records import Group, content_id

Json = dict[str, Any]
API = "/api/v1"
ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
POLL = 0.2
LATER = (429, 502, 503, 504)


class Server:
    """A server and who one is on it."""

    def __init__(self, http: httpx.Client, *, attempts: int = ATTEMPTS):
        self.http, self.attempts = http, attempts

    def ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """A request, again and again where the server does not answer or says later; RunError with what it said otherwise."""
        for attempt in range(self.attempts):
            try:
                answer = self.http.request(method, f"{API}{path}", **given)
            except httpx.TransportError as error:
                if attempt == self.attempts - 1:
                    raise RunError(
                        f"{self.http.base_url} does not answer: {error}\n  is the server running, and is this its address?"
                    ) from None
                wait = FIRST_WAIT * 2**attempt
            else:
                if answer.status_code not in LATER or attempt == self.attempts - 1:
                    return understood(answer)
                wait = float(answer.headers.get("retry-after", FIRST_WAIT * 2**attempt))
            time.sleep(min(wait, LONGEST_WAIT))
        raise AssertionError("the last attempt returns or raises")

    def me(self) -> Json:
        return self.ask("GET", "/me").json()

    def project(self, name: str) -> "Project":
        """A project that is there."""
        return Project(self, self.ask("GET", f"/projects/{name}").json()["slug"])

    def create(
        self, slug: str, *, template: str = "rank", title: str = "", overlap: int = 1, is_started: bool = True
    ) -> "Project":
        """A new project from a template, handing out work at once."""
        body = {"slug": slug, "template": template, "title": title, "overlap": overlap}
        self.ask("POST", "/projects", json=body)
        project = Project(self, slug)
        if is_started:
            project.set_state("active")
        return project


def understood(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    try:
        said = answer.json()
    except ValueError:
        said = {"detail": answer.text[:200] or answer.reason_phrase}
    problems = "".join(f"\n  {problem}" for problem in said.get("problems", []))
    raise RunError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code}, {said.get('detail')}{problems}")


class Project:
    """One project of a server."""

    def __init__(self, server: Server, slug: str):
        self.server, self.slug = server, slug
        self.path = f"/projects/{slug}"

    # for managers

    def set_state(self, state: str) -> None:
        """draft, active, paused, done or archived."""
        self.server.ask("POST", f"{self.path}/state", json={"state": state})

    def push(
        self, source: str | Path | Sequence[Group], *, dry_run: bool = False, skip_bad: bool = False, priority: int = 0
    ) -> Json:
        """Import a file, a folder of pictures by prompt, or groups from memory; the report. DataError with every problem, and
        nothing imported, where it is bad."""
        if not isinstance(source, str | Path):
            with temporary_lines(source) as path:
                return self.push(path, dry_run=dry_run, skip_bad=skip_bad, priority=priority)
        path = Path(source)
        if (found := media_folder(path)) is not None:
            groups = found.whole()
            for one in found.files.values() if not dry_run else ():
                self.upload(one.path)
            return {"items": len(groups), "problems": []} if dry_run else self.push(groups, skip_bad=skip_bad, priority=priority)
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        given = {"name": path.name, "dry_run": dry_run, "skip_bad": skip_bad, "priority": priority}
        job = self.server.ask("POST", f"{self.path}/items:import", params=given, content=Blocks(path)).json()["job"]
        return self.finished(job)["result"]

    def upload(self, path: str | Path) -> Json:
        """A picture, sound or clip into the project; its ``sha256`` is what completions name it by."""
        return self.server.ask("POST", f"{self.path}/assets", content=Blocks(Path(path))).json()

    def finished(self, job: str, *, progress: Callable[[int], None] = lambda n: None) -> Json:
        """A job, once it is done."""
        while True:
            found = self.server.ask("GET", f"/jobs/{job}").json()
            progress(found["n_done"])
            if found["state"] in ("failed", "cancelled"):
                raise DataError(found["result"]["error"])
            if found["state"] == "done":
                return found
            time.sleep(POLL)

    def cancel(self, job: str) -> Json:
        """End an import or an export before it is done; how far it is now."""
        return self.server.ask("POST", f"/jobs/{job}/cancel").json()

    def pull(self, folder: str | Path, *, format: str = "kway", **settings: Any) -> Json:
        """Export into a new folder; the manifest, whose hashes the files have."""
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} is there already and not empty\n  name another folder, or remove it")
        job = self.server.ask("POST", f"{self.path}/exports", json={"format": format, "settings": settings}).json()["job"]
        manifest = self.finished(job)["result"]
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*manifest["files"], "manifest.json"):
            with self.server.http.stream("GET", f"{API}/jobs/{job}/files/{name}") as answer, (folder / name).open("wb") as file:
                if not answer.is_success:
                    raise RunError(f"{name}: the server answered {answer.status_code}")
                digest = sha256()
                for part in answer.iter_bytes():
                    digest.update(part)
                    file.write(part)
            if name in manifest["files"] and digest.hexdigest() != manifest["files"][name]["sha256"]:
                raise RunError(f"{name} did not arrive as it was sent; pull again")
        return manifest

    def stats(self) -> Json:
        return self.server.ask("GET", f"{self.path}/stats").json()

    def wait_for(self, n: int, *, timeout: float = float("inf"), poll: float = 5.0) -> int:
        """Until there are ``n`` judgments; Waiting (exit code 3) where they do not come in time."""
        ends = time.monotonic() + timeout
        while (done := self.stats()["progress"]["done"]) < n:
            if time.monotonic() >= ends:
                raise Waiting(f"{self.slug} has {done} judgments of {n}; people have to answer before this can go on")
            time.sleep(min(poll, max(0.0, ends - time.monotonic())))
        return done

    # for annotators

    def next(self, beside: Sequence[str] = ()) -> Json | None:
        """The turn one is at, or the next; None where there is nothing to do now."""
        while True:
            answer = self.server.ask("POST", f"{self.path}/next", json={"beside": list(beside)})
            if answer.status_code != 204:
                return answer.json()
            if answer.headers.get("prefloop-reason") != "busy":  # others are claiming at this moment
                return None
            time.sleep(FIRST_WAIT)

    def turns(self) -> Iterator[Json]:
        """One turn after the other, until there is none. Each has to be submitted, skipped or released."""
        while (turn := self.next()) is not None:
            yield turn

    def submit(self, turn: Json, answers: Json, *, key: str = "", active_ms: int | None = None) -> Json:
        """Send answers; returns once they are on disk over there. The same turn and answers have the same key."""
        body = {"answers": answers, "active_ms": active_ms, "input": "api"}
        headers = {"Idempotency-Key": key or f"{turn['assignment']}:{content_id(answers)}"}
        return self.server.ask("POST", f"/assignments/{turn['assignment']}/submit", json=body, headers=headers).json()

    def skip(self, turn: Json, reason: str) -> None:
        self.server.ask("POST", f"/assignments/{turn['assignment']}/skip", json={"reason": reason})


class Blocks:
    """A file in parts, from its beginning each time it is sent."""

    def __init__(self, path: Path):
        self.path = path

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while block := file.read(2**20):
                yield block


@contextmanager
def temporary_lines(groups: Sequence[Group]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "groups.jsonl"
        write_groups(path, groups)
        yield path


@contextmanager
def connect(address: str, token: str, *, timeout: float = 60.0, attempts: int = ATTEMPTS) -> Iterator[Server]:
    """A server as somebody who holds a token."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=address.rstrip("/"), headers=headers, timeout=timeout, trust_env=False) as http:
        yield Server(http, attempts=attempts)
