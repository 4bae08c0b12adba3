"""A project with people and items, in a line; and what holds in a database whatever has happened to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, text, update

from prefloop.collect import accounts, items, planted, projects, queue, turns
from prefloop.collect.database import Database
from prefloop.collect.schema import TaskSchema, template
from prefloop.collect.tables import project
from prefloop.records import Completion, Prompt

names = count()
RANKED = {"rank": {"ranking": "a > b"}}


class Made(NamedTuple):
    """A project in which everybody may work."""

    database: Database
    id: str
    slug: str
    users: tuple[str, ...]

    def claim(self, user: int | str = 0, **more: Any) -> queue.Turn | queue.Nothing:
        return self.do(queue.claim, project_id=self.id, user_id=self.user(user), **more)

    def submit(self, turn: queue.Turn, user: int | str = 0, *, key: str = "", answers: Any = RANKED) -> turns.Receipt:
        said = turns.Said(answers, active_ms=5)
        identity = turn.assignment.id
        return self.do(turns.submit, assignment_id=identity, user_id=self.user(user), key=key or identity, said=said)

    def do(self, work: Any, **given: Any) -> Any:
        """A store function in a transaction, at the database's own time."""
        return self.database.write(partial(work, **given, now=self.database.clock()))

    def user(self, user: int | str) -> str:
        return user if isinstance(user, str) else self.users[user]


def made(
    database: Database,
    *,
    users: int = 3,
    n: int = 0,
    k: int = 2,
    overlap: int = 1,
    schema: TaskSchema | None = None,
    secret: str = "",
) -> Made:
    """An active project of its own in a database shared with others."""
    number, now = next(names), database.clock()

    def make(connection: Connection) -> tuple[str, tuple[str, ...]]:
        people = tuple(accounts.create_user(connection, login=f"u{number}-{one}", now=now) for one in range(users))
        project_id = projects.create(
            connection, slug=f"p{number}", title="", schema=schema or template("rank"), overlap=overlap, user_id=None, now=now
        )
        if secret:  # so that the same happens again
            connection.execute(update(project).where(project.c.id == project_id).values(secret=secret))
        for person in people:
            accounts.join(connection, project_id=project_id, user_id=person, role="annotator", now=now)
        projects.set_state(connection, project_id, "active", user_id=None, now=now)
        return project_id, people

    project_id, people = database.write(make)
    finished = Made(database, project_id, f"p{number}", people)
    if n:
        add(finished, range(n), k=k)
    return finished


@contextmanager
def same_ids(name: str = "") -> Iterator[None]:
    """People and items made meanwhile have the same ids in every run; a name is used once in a database.

    What a screen shows first and when a check is due is drawn from a project's secret and from these: with both fixed, a test
    that counts such draws sees the same ones every time.
    """
    numbers = count()
    with pytest.MonkeyPatch.context() as patch:
        for module in (accounts, items, planted):
            patch.setattr(module, "new_id", lambda now=None: f"{name}{next(numbers):0{26 - len(name)}}")
        yield


def some_items(numbers: Sequence[int], *, k: int = 2) -> list[items.NewItem]:
    prompts = [Prompt.of(f"question {number}") for number in numbers]
    return [items.new_item(one, [Completion.of(one, f"answer {letter}") for letter in range(k)]) for one in prompts]


def add(project: Made, numbers: Sequence[int], *, k: int = 2, priority: int = 0) -> items.Added:
    now = project.database.clock()

    def both(connection: Connection) -> items.Added:
        added = items.add(connection, project.id, some_items(numbers, k=k), priority=priority, now=now)
        items.added_all(connection, project.id)
        return added

    return project.database.write(both)


# --- what always holds ------------------------------------------------------------------------------------------------------

NEVER = {  # a name and a query that must find nothing; :p is the project
    "an item with more judgments than wanted": """
        SELECT i.id FROM item i JOIN judgment j ON j.item_id = i.id AND j.rev = 1 AND NOT j.is_surplus
        WHERE i.project_id = :p GROUP BY i.id, i.n_slots HAVING count(*) > i.n_slots""",
    "a count of slots that is not their number": """
        SELECT i.id FROM item i LEFT JOIN slot s ON s.item_id = i.id WHERE i.project_id = :p
        GROUP BY i.id, i.n_slots HAVING count(s.item_id) <> i.n_slots""",
    "a count of done that is not their number": """
        SELECT i.id FROM item i LEFT JOIN slot s ON s.item_id = i.id AND s.state = 'done' WHERE i.project_id = :p
        GROUP BY i.id, i.n_done HAVING count(s.item_id) <> i.n_done""",
    "a count of done that is not the judgments": """
        SELECT i.id FROM item i LEFT JOIN judgment j ON j.item_id = i.id AND j.rev = 1 AND NOT j.is_surplus
        WHERE i.project_id = :p GROUP BY i.id, i.n_done HAVING count(j.id) <> i.n_done""",
    "a count of surplus that is not the judgments": """
        SELECT i.id FROM item i LEFT JOIN judgment j ON j.item_id = i.id AND j.rev = 1 AND j.is_surplus
        WHERE i.project_id = :p GROUP BY i.id, i.n_surplus HAVING count(j.id) <> i.n_surplus""",
    "a free slot with an owner, or a taken one without": """
        SELECT item_id FROM slot WHERE project_id = :p AND (state IN ('open', 'hold')) <> (user_id IS NULL)""",
    "a slot in no known state": """
        SELECT item_id FROM slot WHERE project_id = :p AND state NOT IN ('open', 'leased', 'done', 'hold')""",
    "a leased slot without its turn": """
        SELECT s.item_id FROM slot s LEFT JOIN assignment a ON a.id = s.assignment_id AND a.state = 'leased'
        AND a.user_id = s.user_id AND a.slot_no = s.slot_no AND a.lease_expires = s.lease_expires
        WHERE s.project_id = :p AND s.state = 'leased' AND a.id IS NULL""",
    "a leased turn without its slot": """
        SELECT a.id FROM assignment a LEFT JOIN slot s ON s.assignment_id = a.id AND s.state = 'leased'
        WHERE a.project_id = :p AND a.state = 'leased' AND s.item_id IS NULL""",
    "two judgments of one person on one item that both stand": """
        SELECT item_id FROM judgment WHERE project_id = :p AND NOT is_superseded GROUP BY item_id, user_id HAVING count(*) > 1""",
    "an open slot of an item that is held": """
        SELECT s.item_id FROM slot s JOIN item i ON i.id = s.item_id
        WHERE i.project_id = :p AND (s.state = 'open' AND i.status <> 'active' OR s.state = 'hold' AND i.status = 'active')""",
    "a tally that is not what was done": """
        SELECT t.user_id FROM (SELECT user_id, sum(submitted) AS n, sum(surplus) AS m FROM tally WHERE project_id = :p GROUP BY user_id) t
        WHERE t.n <> (SELECT count(*) FROM judgment j JOIN item i ON i.id = j.item_id AND i.kind <> 'practice'
                      WHERE j.project_id = :p AND j.user_id = t.user_id AND j.rev = 1)
        OR t.m <> (SELECT count(*) FROM judgment j JOIN item i ON i.id = j.item_id AND i.kind <> 'practice'
                   WHERE j.project_id = :p AND j.user_id = t.user_id AND j.rev = 1 AND j.is_surplus)""",
    "a slot of practice that waits": """
        SELECT s.item_id FROM slot s JOIN item i ON i.id = s.item_id
        WHERE i.project_id = :p AND i.kind = 'practice' AND s.state IN ('open', 'hold')""",
    "settings that do not say whether there is practice": """
        SELECT id FROM project p WHERE p.id = :p AND (p.settings_json LIKE '%"practice"%')
        <> EXISTS (SELECT 1 FROM planted WHERE project_id = :p AND kind = 'practice')""",
}


def violations(connection: Connection, project_id: str) -> list[str]:
    """Which of the things that never happen have happened."""
    return [name for name, query in NEVER.items() if connection.execute(text(query), {"p": project_id}).first() is not None]


WAITING = """SELECT count(*) FROM slot s WHERE s.project_id = :p AND s.state = 'open' AND NOT EXISTS
(SELECT 1 FROM assignment a WHERE a.item_id = s.item_id AND a.user_id = :u AND a.state NOT IN ('expired', 'released'))"""


def waiting_for(connection: Connection, project_id: str, user_id: str) -> int:
    """Open slots this person could have, counted without any cleverness."""
    return connection.scalar(text(WAITING), {"p": project_id, "u": user_id}) or 0
