"""A claim costs the same whatever has been done already: by SQLite's plan and by its count of instructions, not by the clock."""

import pytest
from sqlalchemy import text

from prefloop.collect import queue, turns
from tests.collect.made import Made, made


@pytest.mark.parametrize(
    ("range_", "order", "index"),
    [(queue.FORWARD, "s.shuffle_key, s.slot_no", "slot_queue"), (queue.AGAIN, "s.opened", "slot_reopened")],
)
def test_sqlite_walks_the_queue_by_its_index_without_sorting(sqlite, range_, order, index):
    statement = queue.open_statement(range_, order, sqlite=True, lock=True)
    given = {"project": "p", "priority": 0, "user": "u", "after": 0, "until": 1}
    plan = "\n".join(row.detail for row in sqlite.read(lambda c: c.execute(text(f"EXPLAIN QUERY PLAN {statement}"), given).all()))
    assert f"SEARCH s USING INDEX {index} (project_id=?" in plan
    assert "TEMP B-TREE" not in plan and "ANY(" not in plan and "SCAN" not in plan


def steps_of_a_claim(project: Made) -> int:
    """Instructions that SQLite executes for one claim."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    def work(connection) -> None:
        driver = connection.connection.driver_connection
        driver.set_progress_handler(count, 10)
        queue.claim(connection, project_id=project.id, user_id=project.users[0], now=project.database.clock())
        driver.set_progress_handler(None, 0)

    project.database.write(work)
    return counted


def test_who_has_done_much_claims_as_quickly_as_who_has_done_little(sqlite):
    project = made(sqlite, users=2, n=90, overlap=2)
    project.submit(project.claim())
    little = steps_of_a_claim(project)

    def work(connection) -> None:
        for _ in range(60):
            turn = queue.claim(connection, project_id=project.id, user_id=project.users[0], now=1)
            said = turns.Said({"rank": {"ranking": "a > b"}})
            turns.submit(
                connection, assignment_id=turn.assignment.id, user_id=project.users[0], key=turn.assignment.id, said=said, now=1
            )

    sqlite.write(work)
    assert steps_of_a_claim(project) < 3 * little
