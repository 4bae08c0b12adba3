"""The server is killed under people at work, again and again: what it acknowledged is there, once, and nothing too often.

Every annotator is a process with a log of its own, fsynced after each acknowledgement, and repeats a submit until it is
answered. ``make test`` kills three times with a few annotators; the long run kills the server twenty times under fifty, and
PostgreSQL itself besides.
"""

import json
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from prefloop.collect.client import connect
from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import migrate
from tests.collect.made import made, violations
from tests.collect.server import Running, tokens_of

ORDERS = ("a > b", "b > a", "a = b", "a | b")
PATIENCE = 200  # attempts at a request before an annotator gives up


def annotate(address: str, token: str, slug: str, log: Path, seed: int, done: Any, most: Any) -> None:
    """One person's day: until the server says there is nothing left for anybody; nothing is begun while ``most`` are done."""
    chance = random.Random(seed)
    with connect(address, token, timeout=10, attempts=PATIENCE) as server, log.open("a") as acknowledged:
        project = server.project(slug)
        while True:
            while done.value >= most.value:
                time.sleep(0.01)
            turn = project.next()
            if turn is None:
                if project.server.ask("GET", f"{project.path}/why-empty").json()["reason"] != "leased":
                    return
                time.sleep(0.05)
                continue
            if chance.random() < 0.1:
                body, headers = {"body": {"typed": chance.random()}}, {"If-Match": str((turn["draft"] or {"rev": 0})["rev"])}
                server.ask("PUT", f"/assignments/{turn['assignment']}/draft", json=body, headers=headers)
            answers = {"rank": {"ranking": chance.choice(ORDERS), "why": f"seed {seed}"}}
            receipt = project.submit(turn, answers)
            acknowledged.write(json.dumps({**receipt, "assignment": turn["assignment"], "answers": answers}) + "\n")
            acknowledged.flush()
            os.fsync(acknowledged.fileno())
            with done:
                done.value += 1
            time.sleep(chance.uniform(0, 0.02))


def chaos(folder: Path, url: str, *, annotators: int, items: int, overlap: int, kills: int, hurt: Any = None) -> dict[str, int]:
    """Kill the server ``kills`` times, each after so many acknowledgements, then let people finish; what was found.

    However late a kill comes on a busy machine, there is something left to do: until then people go on for a little only.
    """
    database = Database(database_url(url))
    migrate(database)
    project = made(database, users=annotators, n=items, overlap=overlap)
    tokens = tokens_of(project)
    database.close()
    running = Running(folder, url, is_warm=True).start()
    context = multiprocessing.get_context("fork")
    done, most = context.Value("q", 0), context.Value("q", 0)
    logs = [folder / f"acknowledged-{number}.jsonl" for number in range(annotators)]
    people = [
        context.Process(target=annotate, args=(running.address, tokens[number], project.slug, log, number, done, most))
        for number, log in enumerate(logs)
    ]
    for person in people:
        person.start()
    killed = 0
    for after in sorted(random.Random(0).sample(range(items * overlap // 10, items * overlap * 8 // 10), kills)):
        most.value = after + annotators
        while acknowledgements(logs) < after and any(person.is_alive() for person in people):
            time.sleep(0.01)
        killed += acknowledgements(logs) < items * overlap
        running.kill()
        if hurt is not None and killed % 2:
            hurt()
        running.start()
    most.value = 2**62
    for person in people:
        person.join(900)
    codes = [person.exitcode for person in people]
    running.stop()
    assert codes == [0] * annotators, (folder / "server.log").read_text()
    database = Database(database_url(url))
    try:
        return {"kills": killed, **found_in(database, project.id, logs, items * overlap)}
    finally:
        database.close()


def acknowledgements(logs: list[Path]) -> int:
    return sum(log.read_bytes().count(b"\n") for log in logs if log.exists())


def found_in(database: Database, project_id: str, logs: list[Path], wanted: int) -> dict[str, int]:
    acknowledged = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    with database.snapshot() as connection:
        rows = connection.execute(
            text("SELECT id, assignment_id, body_json, is_surplus FROM judgment WHERE project_id = :p"), {"p": project_id}
        ).all()
        assert violations(connection, project_id) == []
    stored = {row.id: row for row in rows}
    why = {name: json.loads(row.body_json)["rank"]["why"] for name, row in stored.items()}
    return {
        "acknowledged": len(acknowledged),
        "lost": sum(
            one["judgment"] not in stored or why[one["judgment"]] != one["answers"]["rank"]["why"] for one in acknowledged
        ),
        "over_assigned": sum(not row.is_surplus for row in rows) - wanted,
        "duplicates": len(rows) - len({row.assignment_id for row in rows}),
    }


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_three_kills_lose_nothing_and_give_nothing_twice(kind, new_url, tmp_path):
    found = chaos(tmp_path, new_url(kind), annotators=4, items=24, overlap=2, kills=3)
    assert found["kills"] == 3, "the work was over before the third kill: more items"
    assert found["acknowledged"] >= 24 * 2
    assert (found["lost"], found["over_assigned"], found["duplicates"]) == (0, 0, 0)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_twenty_kills_of_the_server_and_of_postgresql_lose_nothing(kind, new_url, tmp_path, request):
    hurt = None
    if kind == "postgresql":
        postgres = request.getfixturevalue("postgres")
        hurt = lambda: (postgres.kill(), postgres.start())  # noqa: E731
    found = chaos(tmp_path, new_url(kind), annotators=50, items=1500, overlap=3, kills=20, hurt=hurt)
    assert found["kills"] == 20
    assert (found["lost"], found["over_assigned"], found["duplicates"]) == (0, 0, 0)
