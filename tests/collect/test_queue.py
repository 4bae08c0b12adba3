"""Who gets what next, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import text

from prefloop.collect import items, projects, queue, turns
from prefloop.collect.database import Database
from prefloop.collect.refusals import Refused
from tests.collect.made import Made, add, made, violations

HOUR = 3_600_000


def state_of(project: Made, assignment: str) -> str:
    return project.database.read(lambda c: c.scalar(text("SELECT state FROM assignment WHERE id = :a"), {"a": assignment}))


def later(project: Made, ms: int = HOUR) -> Made:
    """The same project, some time on."""
    before = project.database.clock
    project.database.clock = lambda: before() + ms
    return project


@pytest.fixture(autouse=True)
def the_clock_is_put_back(database: Database):
    before = database.clock
    yield
    database.clock = before


def test_a_turn_is_the_same_until_it_is_over(database):
    project = made(database, n=3)
    turn = project.claim()
    assert project.claim().assignment.id == turn.assignment.id
    project.submit(turn)
    assert project.claim().assignment.item_id != turn.assignment.item_id


def test_the_next_can_be_held_ready_beside_the_one_at_work_and_no_more(database):
    project = made(database, n=5)
    first = project.claim()
    second = project.claim(beside=[first.assignment.id])
    assert second.assignment.id != first.assignment.id
    assert project.claim(beside=[first.assignment.id, second.assignment.id]) == queue.Nothing("held_enough")
    assert project.claim().assignment.id == first.assignment.id


def test_every_item_is_given_to_as_many_people_as_judgments_are_wanted_of_it(database):
    project = made(database, users=3, n=2, overlap=2)
    given = [project.claim(user) for user in (0, 1, 0, 1) for turn in [project.claim(user)] if project.submit(turn, user)]
    assert len(given) == 4
    assert project.claim(2).reason == "done"
    with database.snapshot() as connection:
        assert violations(connection, project.id) == []


def test_items_are_finished_one_after_the_other(database):
    project = made(database, users=3, n=4, overlap=3)
    assert len({project.claim(user).assignment.item_id for user in range(3)}) == 1


def test_people_who_ask_at_the_same_moment_get_different_slots(database):
    project = made(database, users=8, n=5, overlap=1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(project.claim, range(8)))
    turns_got = [one for one in found if isinstance(one, queue.Turn)]
    assert len({turn.assignment.item_id for turn in turns_got}) == len(turns_got) == 5
    assert {one.reason for one in found if isinstance(one, queue.Nothing)} <= {"leased", "busy"}


def test_one_person_in_two_windows_gets_one_turn(database):
    project = made(database, users=1, n=5)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: project.claim(0), range(4)))
    assert len({turn.assignment.id for turn in found}) == 1


def test_higher_priorities_come_first_and_a_changed_one_counts(database):
    project = made(database, users=1, n=2)
    add(project, [7], priority=9)
    urgent = project.claim()
    assert urgent.assignment.item_id in prioritised(project, 9)
    project.submit(urgent)
    (first, second) = prioritised(project, 0)
    database.write(partial(items.set_priority, item_id=second, priority=1))
    assert project.claim().assignment.item_id == second
    assert first != second


def prioritised(project: Made, priority: int) -> list[str]:
    query = text("SELECT id FROM item WHERE project_id = :p AND priority = :n ORDER BY shuffle_key")
    return project.database.read(lambda c: list(c.scalars(query, {"p": project.id, "n": priority})))


def test_why_there_is_nothing_is_said(database):
    empty = made(database)
    assert empty.claim() == queue.Nothing("empty")
    project = made(database, users=2, n=1, overlap=2)
    turn = project.claim(0)
    project.submit(turn, 0)
    assert project.claim(0) == queue.Nothing("yours_done")
    held = project.claim(1)
    assert project.claim(0) == queue.Nothing("leased", held.assignment.lease_expires)
    project.submit(held, 1)
    assert project.claim(1) == queue.Nothing("done")
    project.do(projects.set_state, project_id=project.id, state="paused", user_id=None)
    assert project.claim(1) == queue.Nothing("paused")


def test_only_members_get_anything(database):
    project, other = made(database, n=1), made(database)
    with pytest.raises(Refused, match="only members"):
        project.claim(other.users[0])


# --- leases -----------------------------------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_goes_to_somebody_who_had_come_to_the_end_of_the_queue(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    assert project.claim(1).reason == "leased"
    later(project)
    assert project.claim(1).assignment.item_id == turn.assignment.item_id
    assert state_of(project, turn.assignment.id) == "expired"


@pytest.mark.parametrize("has_looked_at_all", [True, False])
def test_what_opens_again_behind_ones_place_in_the_queue_is_found(database, has_looked_at_all):
    project = made(database, users=2, n=2)
    first = project.claim(1).assignment.item_id  # the head of the queue
    (other,) = set(prioritised(project, 0)) - {first}
    database.write(partial(items.set_overlap, item_id=other, n=2))  # so that a slot of what one has done stays open
    project.submit(project.claim(0), 0)
    if has_looked_at_all:
        assert project.claim(0).reason == "leased"
    later(project)
    found = project.claim(0)
    assert isinstance(found, queue.Turn) and found.assignment.item_id == first
    project.submit(found, 0)
    assert project.claim(0).reason == "yours_done"


def test_whoever_comes_back_gets_the_same_turn_with_what_was_typed(database):
    project = made(database, users=2, n=2)
    turn = project.claim(0)
    project.do(turns.save_draft, assignment_id=turn.assignment.id, user_id=project.users[0], rev=0, body={"typed": "x"})
    later(project)
    assert made(database).claim().reason == "empty"  # which sweeps
    assert state_of(project, turn.assignment.id) == "expired"
    again = project.claim(0)
    assert again.assignment.id == turn.assignment.id
    assert again.draft.body_json == '{"typed":"x"}'


def test_work_extends_a_lease_up_to_its_longest(database):
    project = made(database, n=1)
    turn = project.claim()
    given = {"assignment_id": turn.assignment.id, "user_id": project.users[0]}
    ends = [project.do(turns.heartbeat, **given).lease_expires]
    for _ in range(12):
        later(project, 25 * 60_000)
        ends.append(project.do(turns.heartbeat, **given).lease_expires)
    longest = turn.assignment.leased_at + 240 * 60_000
    assert ends == sorted(ends)
    assert max(ends) == longest
    assert not project.do(turns.heartbeat, **given).is_held


def test_more_wanted_of_an_item_reaches_people_at_the_end_of_the_queue_and_less_takes_only_free_slots(database):
    project = made(database, users=3, n=1)
    turn = project.claim(0)
    project.submit(turn, 0)
    assert project.claim(1).reason == "done"
    item = turn.assignment.item_id
    assert database.write(partial(items.set_overlap, item_id=item, n=3)) == 3
    held = project.claim(1)
    assert held.assignment.item_id == item
    assert database.write(partial(items.set_overlap, item_id=item, n=1)) == 2  # one is done, one is being worked on
    assert project.claim(2).reason == "leased"


def test_items_added_later_reach_people_at_the_end_of_the_queue(database):
    project = made(database, users=1, n=1)
    project.submit(project.claim())
    assert project.claim().reason == "done"
    add(project, [1, 2])
    assert isinstance(project.claim(), queue.Turn)


def test_the_same_item_again_is_no_new_one(database):
    project = made(database, n=3)
    assert add(project, range(5)) == items.Added(added=2, known=3)


def test_a_slot_that_somebody_has_is_not_given_again(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    mine = turn.assignment

    def occupied(connection) -> bool:
        here = (connection, mine.item_id, mine.slot_no)
        return queue.occupy(*here, user_id=project.users[1], assignment_id="another", expires=None)

    assert not database.write(occupied)
    assert project.submit(turn, 0).is_surplus is False
