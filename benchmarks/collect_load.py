"""The collection service under load. ``python -m benchmarks collect_load_sqlite`` (or ``_postgresql``, ``collect_chaos_…``).

A server of its own in a folder of its own, on this machine; 200 annotators log in by token and think 5 s on average, while
100,000 items are imported, then on those items, then without thinking at all; then the rest is answered in the database and
300,000 judgments are exported; then the server is started again. What is reported is what the people waited.

    next_p95_ms, submit_p95_ms     over HTTP, with think time, on the project of 100,000 items
    next_p95_during_import_ms      the same, on another project, while the 100,000 come in; import_s is how long they took
    saturation_tasks_per_s         claims with their submits, 200 connections, no thinking
    heavy_next_p95_ms              in the store, of somebody who has done half of the items
    export_s, export_growth_mb     kway, all judgments, by the server's job; what its memory grew by
    start_s, rss_mb                a start on this database until it answers, and its memory then, before anybody comes
    first_page_kb                  the page of an annotator and everything it asks for; null where there is none
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert, select, text, update

from benchmarks import collect_table
from benchmarks.machine import ROOT, commit, machine, memory
from benchmarks.people import Seen, crowd, percentile, spread
from prefloop.collect import accounts, items, projects, queue, turns
from prefloop.collect.client import connect
from prefloop.collect.database import Database, database_url
from prefloop.collect.identity import as_json, new_id
from prefloop.collect.migrate import migrate
from prefloop.collect.schema import template
from prefloop.collect.tables import assignment, item, judgment, task_schema
from prefloop.records import Completion, Prompt

KINDS = ("sqlite", "postgresql")
NAMES = tuple(f"collect_{what}_{kind}" for what in ("load", "chaos") for kind in KINDS)
RESULTS = ROOT / "benchmarks" / "results"
K, OVERLAP, THINK = 4, 3, 5.0
BEFORE, MAIN = "before", "main"  # the projects
FULL = {"items": 100_000, "users": 200, "seconds": 120.0}
WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "or",
    "had",
    "by",
    "but",
    "some",
    "what",
]


# --- what is asked about ----------------------------------------------------------------------------------------------------


def words(chance: random.Random, n: int) -> str:
    return " ".join(chance.choices(WORDS, k=n))


def write_lines(path: Path, n: int) -> None:
    """Prompts of 30 words with four answers of 60: what the import reads."""
    chance = random.Random(0)
    with path.open("w") as file:
        for number in range(n):
            answers = [f"{words(chance, 60)} {letter}" for letter in "abcd"]
            file.write(json.dumps({"prompt": f"question {number}: {words(chance, 30)}", "completions": answers}) + "\n")


def some(numbers: range) -> list[items.NewItem]:
    """Items that are there before the import."""
    chance, made = random.Random(1), []
    for number in numbers:
        prompt = Prompt.of(f"before {number}: {words(chance, 30)}")
        made.append(items.new_item(prompt, [Completion.of(prompt, f"{words(chance, 60)} {letter}") for letter in "abcd"]))
    return made


def prepare(database: Database, *, users: int, before: int) -> tuple[list[str], str]:
    """Two projects, one with items, one to import into; annotators in both. Their tokens, and the owner's."""
    now = database.clock()

    def make(connection: Any) -> tuple[list[str], str]:
        owner = accounts.create_user(connection, login="owner", is_owner=True, now=now)
        people = [accounts.create_user(connection, login=f"annotator{number}", now=now) for number in range(users)]
        for slug in (BEFORE, MAIN):
            given = {"slug": slug, "title": slug, "schema": template("rank"), "overlap": OVERLAP, "user_id": None}
            project_id = projects.create(connection, **given, now=now)
            projects.set_state(connection, project_id, "active", user_id=None, now=now)
            for person in people:
                accounts.join(connection, project_id=project_id, user_id=person, role="annotator", now=now)
        first = projects.find(connection, BEFORE).id
        for start in range(0, before, 500):
            items.add(connection, first, some(range(start, min(before, start + 500))), now=now)
        token = partial(accounts.create_token, connection, name="load", now=now)
        scopes = ("annotate", "view", "read", "import", "export", "manage", "own")
        return [token(user_id=person, scopes=("annotate",))[1] for person in people], token(user_id=owner, scopes=scopes)[1]

    return database.write(make)


# --- what is measured -------------------------------------------------------------------------------------------------------


async def while_importing(port: int, address: str, owner: str, tokens: list[str], file: Path) -> tuple[Seen, float, dict]:
    """People at work in one project while another is filled; how long that took, and what the import said."""
    over, taken = asyncio.Event(), 0.0
    work = asyncio.create_task(crowd(port, BEFORE, tokens, think=THINK, seconds=0, until=over))
    await asyncio.sleep(THINK)  # until everybody is at work

    def push() -> dict:
        with connect(address, owner, timeout=600) as server:
            return server.project(MAIN).push(file)

    began = time.perf_counter()
    report = await asyncio.to_thread(push)
    taken = time.perf_counter() - began
    over.set()
    return (await work)[0], taken, report


def heavy(database: Database, slug: str, n: int, claims: int = 300) -> list[float]:
    """Seconds of claims by somebody who has worked down half of the queue."""
    now = database.clock()

    def make(connection: Any) -> tuple[str, str]:
        found = projects.find(connection, slug)
        user = accounts.create_user(connection, login="heavy", now=now)
        accounts.join(connection, project_id=found.id, user_id=user, role="annotator", now=now)
        return found.id, user

    project_id, user = database.write(make)
    done = fill(database, project_id, users=[user], at_most=n)
    if done < n:
        raise SystemExit(f"bench: {done} items were left for somebody who should have done {n}")
    epoch = {"epoch": database.read(lambda c: projects.find(c, slug).epoch), "seen": None}
    last = database.read(lambda c: c.execute(text(LAST_DONE), {"u": user, "p": project_id}).scalar_one())
    row = {"project_id": project_id, "user_id": user, "priority": 0, "shuffle_key": last}
    database.write(lambda c: queue.put(c, queue.claim_cursor, {**row, **epoch}, epoch))
    seconds = []
    for _ in range(claims):
        began = time.perf_counter()
        turn = database.write(lambda c: queue.claim(c, project_id=project_id, user_id=user, now=database.clock()))
        seconds.append(time.perf_counter() - began)
        if not isinstance(turn, queue.Turn):
            raise SystemExit(f"bench: nothing was left for the heavy annotator: {turn}")
        said = turns.Said({"rank": {"ranking": "a > b > c > d"}})
        given = {"assignment_id": turn.assignment.id, "user_id": user, "key": turn.assignment.id, "said": said}
        database.write(lambda c, given=given: turns.submit(c, **given, now=database.clock()))
    return seconds


LAST_DONE = "SELECT max(s.shuffle_key) FROM slot s WHERE s.user_id = :u AND s.project_id = :p AND s.state = 'done'"
OPEN = """SELECT s.item_id, s.slot_no, s.shuffle_key, b.completions_json FROM slot s JOIN item_body b ON b.item_id = s.item_id
WHERE s.project_id = :p AND s.state = 'open' AND s.slot_no = :n AND s.shuffle_key > :after ORDER BY s.shuffle_key LIMIT 2000"""


def fill(database: Database, project_id: str, *, users: list[str], at_most: int = 10**9) -> int:
    """Answer open slots in the database itself, one user for each slot number, down the queue; how many."""
    here = task_schema.c.project_id == project_id
    schema_id = str(database.read(lambda c: c.scalar(select(task_schema.c.id).where(here))))
    chance, now, done = random.Random(2), database.clock(), 0
    for number, user in enumerate(users):
        after = -1
        while done < at_most:
            given = {"p": project_id, "n": number, "after": after}
            rows = list(database.read(lambda c, given=given: c.execute(text(OPEN), given).all()))[: at_most - done]
            if not rows:
                break
            after = rows[-1].shuffle_key
            database.write(
                partial(answer, rows=rows, project_id=project_id, user=user, schema_id=schema_id, chance=chance, now=now)
            )
            done += len(rows)
    return done


def answer(
    connection: Any, *, rows: list[Any], project_id: str, user: str, schema_id: str, chance: random.Random, now: int
) -> None:
    """What as many claims and submits would have left behind."""
    made, said, taken = [], [], []
    for row in rows:
        shown = [one["id"] for one in json.loads(row.completions_json)]
        chance.shuffle(shown)
        mine, body = new_id(now), {"rank": {"ranking": {"tiers": [[one] for one in shown], "unusable": []}}}
        common = {"project_id": project_id, "item_id": row.item_id, "user_id": user, "schema_id": schema_id}
        lease = {"leased_at": now, "lease_expires": now, "closed_at": now, "state": "submitted"}
        made.append({**common, **lease, "id": mine, "slot_no": row.slot_no, "shown_json": as_json(shown)})
        said.append({**common, "id": new_id(now), "assignment_id": mine, "rev": 1, "body_json": as_json(body),
                     "is_surplus": False, "active_ms": 1, "wall_ms": 1, "input": "api", "created": now})  # fmt: skip
        taken.append({"i": row.item_id, "n": row.slot_no, "u": user, "a": mine})
    connection.execute(insert(assignment), made)
    connection.execute(insert(judgment), said)
    done = "UPDATE slot SET state = 'done', user_id = :u, assignment_id = :a WHERE item_id = :i AND slot_no = :n"
    connection.execute(text(done), taken)
    counted = update(item).where(item.c.id.in_([row.item_id for row in rows])).values(n_done=item.c.n_done + 1)
    connection.execute(counted)


class Watched:
    """A process's memory, looked at ten times a second while something goes on."""

    def __init__(self, pid: int):
        self.pid, self.before, self.peak, self.growth = pid, memory(pid, "VmRSS"), 0.0, 0.0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self) -> None:
        while not self.is_over.wait(0.1):
            self.peak = max(self.peak, memory(self.pid, "VmRSS"))

    def __enter__(self) -> "Watched":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.is_over.set()
        self.thread.join()
        self.growth = round(max(self.peak, memory(self.pid, "VmRSS")) - self.before, 1)


def first_page(address: str, path: str) -> float | None:
    """Kilobytes on the wire of an annotator's page and of all it asks for; a file of another host is a fault, not a measurement."""
    with httpx.Client(base_url=address, headers={"Accept-Encoding": "gzip"}, trust_env=False) as http:
        page = http.get(path)
        if page.status_code == 404:
            return None
        asked = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text))
        if strangers := sorted(one for one in asked if "//" in one):
            raise SystemExit(f"bench: the page asks a third party: {strangers[0]}")
        folder = next((one.rpartition("/")[0] for one in asked if one.endswith(".js")), "")
        files = [http.get(one) for one in sorted(asked | {f"{folder}/texts.en.json"}) if one != path]
    return round(sum(one.num_bytes_downloaded for one in (page, *files)) / 1000, 1)


# --- the run ----------------------------------------------------------------------------------------------------------------


@contextmanager
def a_database(kind: str, folder: Path) -> Iterator[str]:
    """The address of an empty one."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/collect.sqlite"
        return
    from tests.collect.postgres import Server

    server = Server()
    try:
        yield server.url()
    finally:
        server.remove()


def load(kind: str, folder: Path, *, n_items: int, users: int, seconds: float) -> dict[str, Any]:
    """Everything above, in turn; one line a step on stderr."""
    from tests.collect.server import Running

    with a_database(kind, folder) as url:
        database = Database(database_url(url))
        migrate(database)
        tokens, owner = prepare(database, users=users, before=max(500, n_items // 10))
        database.close()
        write_lines(folder / "items.jsonl", n_items)
        say(f"{kind}: {n_items:,} items to import, {users} annotators")
        running = Running(folder, url).start()
        try:
            return {**measured(running, url, folder, tokens, owner, n_items, seconds), "kind": kind}
        finally:
            running.stop()


def measured(running: Any, url: str, folder: Path, tokens: list[str], owner: str, n_items: int, seconds: float) -> dict[str, Any]:
    port, file = running.port, folder / "items.jsonl"
    during, import_s, report = asyncio.run(while_importing(port, running.address, owner, tokens, file))
    say(f"import: {import_s:.1f} s, {report['added']:,} items; meanwhile next {spread(during.next)}")
    usual, _ = asyncio.run(crowd(port, MAIN, tokens, think=THINK, seconds=seconds))
    say(f"at work: {usual.as_dict()}")
    full, took = asyncio.run(crowd(port, MAIN, tokens, think=0.0, seconds=seconds / 4))
    say(f"without thinking: {len(full.submit) / took:.0f} tasks/s, {full.as_dict()}")
    if wrong := [*during.wrong, *usual.wrong, *full.wrong]:
        raise SystemExit(f"bench: {len(wrong)} requests failed, the first: {wrong[0]}")
    database = Database(database_url(url))
    waits = heavy(database, MAIN, n_items // 2, claims=min(300, n_items // 8))
    say(f"heavy: next {spread(waits)}")
    project_id = database.read(lambda c: projects.find(c, MAIN).id)
    fillers = [f"filler{number}" for number in range(OVERLAP)]
    ids = [database.write(lambda c, n=name: accounts.create_user(c, login=n, now=database.clock())) for name in fillers]
    fill(database, project_id, users=ids)
    database.close()
    with Watched(running.process.pid) as watched, connect(running.address, owner, timeout=600) as server:
        began = time.perf_counter()
        manifest = server.project(MAIN).pull(folder / "export")
        export_s = time.perf_counter() - began
    say(f"export: {export_s:.1f} s, {manifest['judgments']:,} judgments, {watched.growth} MB more")
    running.stop()
    began = time.perf_counter()
    running.start()
    start_s, rss = time.perf_counter() - began, memory(running.process.pid, "VmRSS")
    return {
        "next_p95_ms": percentile(usual.next, 0.95),
        "submit_p95_ms": percentile(usual.submit, 0.95),
        "heavy_next_p95_ms": percentile(waits, 0.95),
        "next_p95_during_import_ms": percentile(during.next, 0.95),
        "import_s": round(import_s, 2),
        "export_s": round(export_s, 2),
        "export_growth_mb": watched.growth,
        "start_s": round(start_s, 2),
        "rss_mb": round(rss, 1),
        "first_page_kb": first_page(running.address, f"/work/{MAIN}"),
        "saturation_tasks_per_s": round(len(full.submit) / took, 1),
        "more": {"next": spread(usual.next), "submit": spread(usual.submit), "tasks": len(usual.submit), "seconds": seconds,
                 "saturated": full.as_dict(), "judgments_exported": manifest["judgments"]},
    }  # fmt: skip


def chaos(kind: str, folder: Path, *, n_items: int, users: int, kills: int) -> dict[str, Any]:
    """The chaos test of the service at its full size."""
    from tests.collect.postgres import Server
    from tests.collect.test_chaos import chaos as run

    postgres = Server() if kind == "postgresql" else None
    url = postgres.url() if postgres else f"sqlite:///{folder}/collect.sqlite"
    hurt = (lambda: (postgres.kill(), postgres.start())) if postgres else None
    try:
        return run(folder, url, annotators=users, items=n_items, overlap=OVERLAP, kills=kills, hurt=hurt)
    finally:
        if postgres:
            postgres.remove()


def say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def is_asked(words: list[str]) -> bool:
    """Whether a command line names one of these; they run only when they are named."""
    return bool(set(words) & set(NAMES))


def main(given: list[str]) -> None:
    """Runs the named ones; only the full sizes write a result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--items", type=int, help="items (100,000; 1,500 under chaos); other sizes write no results")
    parser.add_argument("--users", type=int, help="annotators (200; 50 under chaos)")
    parser.add_argument("--seconds", type=float, default=FULL["seconds"], help="of work with think time (default 120)")
    parser.add_argument("--kills", type=int, default=20, help="under chaos")
    asked = parser.parse_args(given)
    for name in asked.names:
        _, what, kind = name.split("_")
        full = {"items": 1500, "users": 50} if what == "chaos" else FULL
        sizes = {"n_items": asked.items or full["items"], "users": asked.users or full["users"]}
        if sizes["users"] < OVERLAP:
            parser.error(f"{OVERLAP} judgments of each item need as many annotators, here are {sizes['users']}")
        folder = Path(tempfile.mkdtemp(prefix="prefloop-load-"))
        folder.chmod(0o755)  # PostgreSQL may run as somebody else
        try:
            more = {"kills": asked.kills} if what == "chaos" else {"seconds": asked.seconds}
            found = (chaos if what == "chaos" else load)(kind, folder, **sizes, **more)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        found = {"name": name, **found, **sizes, "machine": machine(), "commit": commit()}
        print(json.dumps(found), flush=True)
        is_full = not asked.items and not asked.users and asked.seconds == FULL["seconds"] and asked.kills == 20
        if is_full:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            collect_table.write()
