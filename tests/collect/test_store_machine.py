"""Anything in any order: hypothesis drives the store, a plain dictionary remembers what it acknowledged, and both must agree."""

import json
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from prefloop.collect import items, planted, projects, queue, turns
from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import migrate
from prefloop.collect.refusals import Refused
from tests.collect.made import add, made, violations, waiting_for

USERS = st.integers(0, 3)
ORDERS = st.sampled_from(["a > b", "b > a", "a = b", "a | b", "| a b"])
MINUTE = 60_000


class StoreMachine(RuleBasedStateMachine):
    """``opened`` holds the database, so that a rule can close it and open it again."""

    opened: ClassVar[dict[str, Database]]
    time: ClassVar[list[int]]

    @initialize(overlap=st.integers(1, 3), n=st.integers(0, 4))
    def a_project(self, overlap: int, n: int) -> None:
        self.project = made(self.opened["database"], users=4, overlap=overlap, n=n, secret="ab" * 32)
        self.n = n
        self.turns: dict[str, tuple[queue.Turn, int]] = {}  # every turn anybody ever got
        self.acknowledged: dict[str, tuple[str, int, Any]] = {}  # judgment: assignment, revision, answers
        self.receipts: list[tuple[str, int, str, Any, turns.Receipt]] = []

    def some_turn(self, data: st.DataObject) -> tuple[queue.Turn, int]:
        return data.draw(st.sampled_from(list(self.turns.values())))

    def do(self, work: Any, **given: Any) -> Any:
        return self.project._replace(database=self.opened["database"]).do(work, **given)

    @rule(user=USERS, beside=st.booleans())
    def claim(self, user: int, beside: bool) -> None:
        who = self.project.users[user]
        held = [name for name, (_, owner) in self.turns.items() if owner == user] if beside else []
        found = self.do(queue.claim, project_id=self.project.id, user_id=who, beside=held)
        if isinstance(found, queue.Turn):
            assert found.assignment.user_id == who
            said = [assignment for assignment, _, _ in self.acknowledged.values()]
            assert found.assignment.id not in said or found.assignment.state == "recalled"
            others = [turn for turn, owner in self.turns.values() if owner == user and turn.assignment.id != found.assignment.id]
            assert found.assignment.item_id not in [turn.assignment.item_id for turn in others]
            self.turns[found.assignment.id] = (found, user)
        elif found.reason != "held_enough" and found.reason != "paused":
            with self.opened["database"].snapshot() as connection:
                assert waiting_for(connection, self.project.id, who) == 0, f"{found} though something is waiting"

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), order=ORDERS)
    def submit(self, data: st.DataObject, order: str) -> None:
        turn, user = self.some_turn(data)
        key, answers = f"key{len(self.receipts)}", {"rank": {"ranking": order, "why": "so"}}
        given = {"assignment_id": turn.assignment.id, "user_id": self.project.users[user], "key": key}
        before = [rev for assignment, rev, _ in self.acknowledged.values() if assignment == turn.assignment.id]
        try:
            receipt = self.do(turns.submit, said=turns.Said(answers), **given)
        except Refused as refusal:
            assert refusal.code == "already_submitted" and before
            return
        assert receipt.rev == max(before, default=0) + 1 and not receipt.is_replay
        self.acknowledged[receipt.judgment_id] = (turn.assignment.id, receipt.rev, answers)
        self.receipts.append((turn.assignment.id, user, key, answers, receipt))

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), is_altered=st.booleans())
    def submit_again(self, data: st.DataObject, is_altered: bool) -> None:
        assignment, user, key, answers, receipt = data.draw(st.sampled_from(self.receipts))
        given = {"assignment_id": assignment, "user_id": self.project.users[user], "key": key}
        if is_altered:
            with pytest.raises(Refused, match="used for another"):
                self.do(turns.submit, said=turns.Said({"rank": {"ranking": "b = a"}}), **given)
        else:
            assert self.do(turns.submit, said=turns.Said(answers), **given) == receipt._replace(is_replay=True)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), how=st.sampled_from(["skip", "report", "release", "recall", "heartbeat", "draft"]))
    def something_else_with_a_turn(self, data: st.DataObject, how: str) -> None:
        turn, user = self.some_turn(data)
        given = {"assignment_id": turn.assignment.id, "user_id": self.project.users[user]}
        works = {
            "skip": partial(turns.skip, reason="unsure"),
            "report": partial(turns.report_item, reason="broken", words=""),
            "release": turns.release,
            "recall": turns.recall,
            "heartbeat": turns.heartbeat,
            "draft": partial(turns.save_draft, rev=data.draw(st.integers(0, 2)), body={"typed": 1}),
        }
        with suppress(Refused):
            self.do(works[how], **given)

    @rule(minutes=st.sampled_from([1, 29, 31, 300]))
    def time_passes(self, minutes: int) -> None:
        self.time[0] += minutes * MINUTE

    @rule(n=st.integers(1, 2), priority=st.sampled_from([0, 0, 5]))
    def more_items(self, n: int, priority: int) -> None:
        numbers = range(self.n, self.n + n)
        add(self.project._replace(database=self.opened["database"]), numbers, priority=priority)
        self.n += n

    @precondition(lambda self: self.n)
    @rule(data=st.data(), overlap=st.integers(1, 4))
    def another_overlap(self, data: st.DataObject, overlap: int) -> None:
        self.opened["database"].write(partial(items.set_overlap, item_id=self.an_item(data), n=overlap))

    @precondition(lambda self: self.n)
    @rule(data=st.data(), status=st.sampled_from(["active", "active", "held", "removed"]))
    def another_status(self, data: st.DataObject, status: str) -> None:
        self.opened["database"].write(partial(items.set_status, item_id=self.an_item(data), status=status))

    @precondition(lambda self: self.n)
    @rule(data=st.data(), priority=st.integers(-1, 1))
    def another_priority(self, data: st.DataObject, priority: int) -> None:
        self.opened["database"].write(partial(items.set_priority, item_id=self.an_item(data), priority=priority))

    @precondition(lambda self: self.n)
    @rule(data=st.data(), kind=st.sampled_from(["practice", "practice", "gold", "normal"]))
    def another_kind(self, data: st.DataObject, kind: str) -> None:
        identity = self.an_item(data)
        with suppress(Refused):
            if kind == "normal":
                self.do(planted.unmake_gold, item_id=identity)
                return
            with self.opened["database"].snapshot() as connection:
                listed = connection.scalar(text("SELECT completions_json FROM item_body WHERE item_id = :i"), {"i": identity})
            given = {"expected": {"best": json.loads(listed)[0]["id"]}, "user_id": self.project.users[0]}
            self.do(planted.make_gold, item_id=identity, practice=kind == "practice", **given)

    def an_item(self, data: st.DataObject) -> str:
        with self.opened["database"].snapshot() as connection:
            ids = connection.scalars(text("SELECT id FROM item WHERE project_id = :p ORDER BY ext_id"), {"p": self.project.id})
            return data.draw(st.sampled_from(list(ids)))

    @rule(state=st.sampled_from(["active", "active", "paused"]))
    def start_or_pause(self, state: str) -> None:
        self.do(projects.set_state, project_id=self.project.id, state=state, user_id=None)

    @rule()
    def restart(self) -> None:
        before = self.opened["database"]
        before.close()
        self.opened["database"] = Database(before.url, clock=before.clock)

    def teardown(self) -> None:
        """Leave no lease that the next example would sweep: it would not happen again in the same way."""
        free = "UPDATE slot SET state = 'hold', user_id = NULL, assignment_id = NULL, lease_expires = NULL WHERE state = 'leased'"
        self.opened["database"].write(lambda connection: connection.execute(text(free)))

    @invariant()
    def nothing_that_never_happens_has_happened(self) -> None:
        if not hasattr(self, "project"):
            return
        with self.opened["database"].snapshot() as connection:
            assert violations(connection, self.project.id) == []
            rows = connection.execute(text("SELECT * FROM judgment WHERE project_id = :p"), {"p": self.project.id}).all()
        assert {row.id: (row.assignment_id, row.rev) for row in rows} == {
            name: (assignment, rev) for name, (assignment, rev, _) in self.acknowledged.items()
        }
        assert all(json.loads(row.body_json)["rank"]["why"] == "so" for row in rows)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_whatever_happens_in_whatever_order_what_was_acknowledged_is_there_and_nothing_else(kind, new_url, request):
    time = [1_700_000_000_000]
    database = Database(database_url(new_url(kind)), clock=lambda: time[0])
    migrate(database)
    machine = type("Machine", (StoreMachine,), {"opened": {"database": database}, "time": time})
    is_long = request.config.getoption("--long")
    run_state_machine_as_test(
        machine, settings=settings(max_examples=300 if is_long else 8, stateful_step_count=40 if is_long else 20)
    )
    machine.opened["database"].close()
