"""A clock that is set, by hand or by a machine that woke up: nobody loses what they typed, nothing is handed out twice."""

from typing import Any

import pytest
from sqlalchemy import text

from prefloop.collect import queue, turns
from tests.collect.made import Made, made, violations
from tests.collect.test_queue import later, state_of, the_clock_is_put_back  # noqa: F401

DAY = 86_400_000
JUMPS = {"back": -400 * DAY, "forward": 400 * DAY, "an hour back": -DAY // 24, "a lease forward": 30 * 60_000}


def typed(project: Made, turn: queue.Turn, rev: int = 0) -> Any:
    given = {"assignment_id": turn.assignment.id, "user_id": project.users[0]}
    return project.do(turns.save_draft, **given, rev=rev, body={"typed": f"after {rev}"})


def is_sound(project: Made) -> bool:
    with project.database.snapshot() as connection:
        return violations(connection, project.id) == []


@pytest.mark.parametrize("jump", JUMPS)
def test_a_turn_is_still_ones_own_after_the_clock_was_set(database, jump):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    assert typed(project, turn).rev == 1
    later(project, JUMPS[jump])
    again = project.claim(0)
    assert again.assignment.id == turn.assignment.id and again.draft.rev == 1
    assert typed(project, turn, rev=1).rev == 2
    assert project.submit(turn, 0).is_surplus is False
    assert project.claim(1).reason == "done" and is_sound(project)


@pytest.mark.parametrize("jump", JUMPS)
def test_what_was_given_on_meanwhile_is_judged_by_both_and_wanted_of_one(database, jump):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    later(project, JUMPS[jump])
    other = project.claim(1)
    if JUMPS[jump] < 0:
        assert other.reason == "leased"  # a clock set back takes nobody's turn away
    else:
        assert other.assignment.item_id == turn.assignment.item_id and state_of(project, turn.assignment.id) == "expired"
        project.submit(other, 1)
    assert project.submit(turn, 0).is_surplus is (JUMPS[jump] > 0)
    assert is_sound(project)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_receipt_is_the_same_and_a_judgment_can_be_mended_after_the_clock_was_set(database, jump):
    project = made(database, users=1, n=1)
    turn = project.claim()
    first = project.submit(turn, key="k")
    later(project, JUMPS[jump])
    assert project.submit(turn, key="k") == first._replace(is_replay=True)
    project.do(turns.recall, assignment_id=turn.assignment.id, user_id=project.users[0])
    assert project.claim().assignment.id == turn.assignment.id
    second = project.submit(turn, key="mended", answers={"rank": {"ranking": "b > a"}})
    assert second.rev == 2 and is_sound(project)
    said = "SELECT is_superseded FROM judgment WHERE assignment_id = :a ORDER BY rev"
    rows = database.read(lambda c: c.scalars(text(said), {"a": turn.assignment.id}).all())
    assert [bool(row) for row in rows] == [True, False]


def test_a_clock_that_jumps_at_every_step_over_assigns_nothing_and_everything_gets_done(database):
    project = made(database, users=4, n=6, overlap=2)
    jumps = [JUMPS[name] for name in sorted(JUMPS)]
    for step in range(200):
        later(project, jumps[step % 4] if step % 3 else -jumps[step % 4])
        user = step % 4
        found = project.claim(user)
        if isinstance(found, queue.Turn) and step % 5:  # every fifth is left lying
            project.submit(found, user)
        assert is_sound(project)
        if {project.claim(one).reason for one in range(4) if not isinstance(project.claim(one), queue.Turn)} == {"done"}:
            break
    later(project, 10 * 400 * DAY)  # whatever is still leased has run out
    for user in range(4):
        while isinstance(found := project.claim(user), queue.Turn):
            project.submit(found, user)
    assert {project.claim(user).reason for user in range(4)} <= {"done", "yours_done"}
    done = "SELECT sum(n_done), sum(n_slots) FROM item WHERE project_id = :p"
    n_done, n_slots = database.read(lambda c: c.execute(text(done), {"p": project.id}).one())
    assert n_done == n_slots == 12 and is_sound(project)
