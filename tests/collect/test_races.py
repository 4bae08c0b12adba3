"""Two transactions of PostgreSQL at the same moment, one open while the other begins: as if one had come after the other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, text

from prefloop.collect import items, planted, queue, turns
from prefloop.collect.database import Database
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import completion_ids
from prefloop.collect.tables import assignment
from tests.collect.made import RANKED, Made, made, some_items, violations

WAITED = 0.3  # seconds in which the second comes as far as it can


def beside(database: Database, first: Callable[..., Any], second: Callable[..., Any]) -> tuple[Any, Any]:
    """What both return: the second begins before the first is committed."""
    with ThreadPoolExecutor(1) as pool:
        with database.readers.begin() as connection:
            done = first(connection)
            other = pool.submit(database.write, second)
            wait([other], timeout=WAITED)
        return done, other.result()


def submitting(project: Made, turn: queue.Turn, key: str) -> Callable[..., Any]:
    given = {"assignment_id": turn.assignment.id, "user_id": project.user(0), "now": project.database.clock()}
    return partial(turns.submit, **given, key=key, said=turns.Said(RANKED))


def lapsed(project: Made, turn: queue.Turn) -> None:
    """The lease of a turn has run out, and nobody has noticed yet."""

    def change(connection) -> None:
        for table, column in (("slot", "assignment_id"), ("assignment", "id")):
            connection.execute(text(f"UPDATE {table} SET lease_expires = 1 WHERE {column} = :turn"), {"turn": turn.assignment.id})

    project.database.write(change)


def broken(project: Made) -> list[str]:
    return project.database.read(lambda connection: violations(connection, project.id))


@pytest.mark.parametrize("keys", [("same", "same"), ("one", "other")])
def test_of_two_submits_of_a_turn_one_counts(postgresql, keys):
    project = made(postgresql, n=1, users=1)
    turn = project.claim()
    first, second = (submitting(project, turn, key) for key in keys)
    if keys == ("same", "same"):
        receipt, again = beside(postgresql, first, second)
        assert again == receipt._replace(is_replay=True)
    else:
        with pytest.raises(Refused, match="submitted already"):
            beside(postgresql, first, second)
    assert broken(project) == []


def test_a_key_for_two_turns_is_refused_for_the_second(postgresql):
    project = made(postgresql, n=2, users=1)
    one = project.claim()
    other = project.claim(beside=[one.assignment.id])
    with pytest.raises(Refused, match="used for another submission"):
        beside(postgresql, submitting(project, one, "key"), submitting(project, other, "key"))


def test_items_that_two_imports_bring_are_stored_once(postgresql):
    project = made(postgresql, users=1)
    adding = partial(items.add, project_id=project.id, items=some_items(range(3)), now=1)
    assert beside(postgresql, adding, adding) == (items.Added(3, 0), items.Added(0, 3))


@pytest.mark.parametrize("closing", ["submit", "skip"])
def test_a_turn_that_is_closed_late_is_not_given_again_by_a_claim_that_waited(postgresql, closing):
    project = made(postgresql, n=1, users=1, overlap=2)
    turn = project.claim()
    lapsed(project, turn)
    project.do(queue.sweep)
    given = {"assignment_id": turn.assignment.id, "user_id": project.user(0), "now": postgresql.clock()}
    close = submitting(project, turn, "late") if closing == "submit" else partial(turns.skip, **given, reason="x")
    _, found = beside(
        postgresql, close, partial(queue.claim, project_id=project.id, user_id=project.user(0), now=postgresql.clock())
    )
    assert found == queue.Nothing("yours_done")
    state = select(assignment.c.state).where(assignment.c.id == turn.assignment.id)
    assert postgresql.read(lambda connection: connection.scalar(state)) in ("submitted", "skipped")
    assert broken(project) == []


def test_a_sweep_passes_over_a_turn_that_somebody_has_in_hand(postgresql):
    project = made(postgresql, n=1, users=2)
    turn = project.claim()
    lapsed(project, turn)
    with postgresql.readers.begin() as connection:
        turns.mine(connection, turn.assignment.id, project.user(0))
        assert (
            postgresql.write(partial(queue.sweep, now=postgresql.clock())) == 0
        )  # nor does it wait for them, who may wait for it
    assert project.do(queue.sweep) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_no_slot_of_an_item_that_is_held_as_its_lease_is_swept_stays_open(postgresql, is_first):
    project = made(postgresql, n=1, users=1, overlap=2)
    turn = project.claim()
    lapsed(project, turn)
    hold = partial(items.set_status, item_id=turn.assignment.item_id, status="held")
    sweep = partial(queue.sweep, now=postgresql.clock())
    beside(postgresql, *((hold, sweep) if is_first else (sweep, hold)))
    assert broken(project) == []


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("was", [False, True])
def test_what_is_said_of_an_item_that_becomes_practice_meanwhile_or_is_no_more_is_counted_by_what_it_is(
    postgresql, was, is_first
):
    project = made(postgresql, n=1, users=1)
    turn = project.claim()
    which = {"item_id": turn.assignment.item_id, "now": postgresql.clock()}
    best = completion_ids(turn.completions_json)[0]
    making = partial(planted.make_gold, **which, expected={"best": best}, user_id=project.user(0), practice=True)
    if was:
        postgresql.write(making)
    change = partial(planted.unmake_gold, **which) if was else making
    submit = submitting(project, turn, f"{was}-{is_first}")
    done = beside(postgresql, *((change, submit) if is_first else (submit, change)))
    receipt = done[1 if is_first else 0]
    assert (receipt.feedback is not None) is (was != is_first)
    assert broken(project) == []
