"""Drafts, submits, and everything that is not a submit, on both databases."""

import pytest
from sqlalchemy import text

from prefloop.collect import turns
from prefloop.collect.refusals import Refused
from tests.collect.made import RANKED, Made, made, violations
from tests.collect.test_queue import later, state_of, the_clock_is_put_back  # noqa: F401


def one(project: Made, query: str, **given):
    return project.database.read(lambda connection: connection.execute(text(query), given).one())


def named(turn, project: Made, user: int = 0) -> dict:
    return {"assignment_id": turn.assignment.id, "user_id": project.users[user]}


def test_a_submit_that_is_repeated_counts_once_and_gets_the_same_receipt(database):
    project = made(database, n=2)
    turn = project.claim()
    first = project.submit(turn, key="k")
    assert project.submit(turn, key="k") == first._replace(is_replay=True)
    assert one(project, "SELECT count(*) AS n FROM judgment WHERE project_id = :p", p=project.id).n == 1
    with pytest.raises(Refused, match="used for another") as refusal:
        project.submit(turn, key="k", answers={"rank": {"ranking": "b > a"}})
    assert refusal.value.status == 422
    with pytest.raises(Refused, match="submitted already") as refusal:
        project.submit(turn, key="another")
    assert refusal.value.status == 409


def test_a_key_is_ones_own(database):
    project = made(database, users=2, n=1, overlap=2)
    receipts = {project.submit(project.claim(user), user, key="same").judgment_id for user in (0, 1)}
    assert len(receipts) == 2


def test_nobody_submits_for_somebody_else(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    for work, more in (
        (turns.submit, {"key": "k", "said": turns.Said(RANKED)}),
        (turns.heartbeat, {}),
        (turns.skip, {"reason": "x"}),
        (turns.recall, {}),
    ):
        with pytest.raises(Refused, match="no such assignment"):
            project.do(work, **named(turn, project, 1), **more)


def test_a_bad_answer_changes_nothing(database):
    project = made(database, n=1)
    turn = project.claim()
    with pytest.raises(Refused, match="leaves out b"):
        project.submit(turn, answers={"rank": {"ranking": "a"}})
    assert state_of(project, turn.assignment.id) == "leased"
    assert project.submit(turn).rev == 1  # the key of a refused submit is free


def test_a_late_submit_fills_the_slot_that_is_still_open(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    later(project)
    other = made(database, users=1)  # whose claim sweeps
    other.claim()
    assert state_of(project, turn.assignment.id) == "expired"
    assert not project.submit(turn, 0).is_surplus
    assert project.claim(1).reason == "done"


def test_a_late_submit_is_kept_as_surplus_where_somebody_else_was_done(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    later(project)
    project.submit(project.claim(1), 1)
    receipt = project.submit(turn, 0)
    assert receipt.is_surplus
    counts = one(project, "SELECT n_done, n_surplus, n_slots FROM item WHERE project_id = :p", p=project.id)
    assert tuple(counts) == (1, 1, 1)
    with database.snapshot() as connection:
        assert violations(connection, project.id) == []


def test_a_draft_continues_the_revision_it_names_or_is_refused_with_the_other(database):
    project = made(database, n=1)
    turn = project.claim()
    assert project.do(turns.save_draft, **named(turn, project), rev=0, body={"n": 1}).rev == 1
    assert project.do(turns.save_draft, **named(turn, project), rev=1, body={"n": 2}).rev == 2
    assert project.do(turns.save_draft, **named(turn, project), rev=1, body={"n": 2}).rev == 2  # repeated: its answer was lost
    with pytest.raises(Refused) as refusal:
        project.do(turns.save_draft, **named(turn, project), rev=1, body={"n": 3})
    assert (refusal.value.status, refusal.value.more) == (412, {"rev": 2, "body": {"n": 2}})


def test_a_draft_outlives_its_lease_and_its_submit(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    later(project)
    project.submit(project.claim(1), 1)
    saved = project.do(turns.save_draft, **named(turn, project), rev=0, body={"typed": "much"})
    assert (saved.rev, saved.is_held) == (1, False)
    project.submit(turn, 0)
    assert (
        one(project, "SELECT body_json FROM draft WHERE assignment_id = :a", a=turn.assignment.id).body_json == '{"typed":"much"}'
    )


def test_half_a_character_is_refused_and_a_nul_is_kept_as_json(database):
    project = made(database, n=1)
    turn = project.claim()
    with pytest.raises(Refused, match="whole Unicode"):
        project.do(turns.save_draft, **named(turn, project), rev=0, body={"typed": "\ud800"})
    assert project.do(turns.save_draft, **named(turn, project), rev=0, body={"typed": "\x00"}).rev == 1


def test_what_was_submitted_can_be_recalled_for_a_while_and_the_old_revision_stays(database, monkeypatch):
    monkeypatch.setattr(turns, "RECALL_LAST", 3)
    project = made(database, n=5)
    turn = project.claim()
    first = project.submit(turn)
    project.do(turns.recall, **named(turn, project))
    assert project.claim().assignment.id == turn.assignment.id
    second = project.submit(turn, key="again", answers={"rank": {"ranking": "b > a"}})
    assert (second.rev, second.is_surplus) == (2, False)
    rows = "SELECT is_superseded FROM judgment WHERE id = :j"
    assert [bool(one(project, rows, j=receipt.judgment_id).is_superseded) for receipt in (first, second)] == [True, False]
    assert one(project, "SELECT n_done FROM item WHERE id = :i", i=turn.assignment.item_id).n_done == 1
    later(project, turns.RECALL_MS + 1)
    project.do(turns.recall, **named(turn, project))  # late, but among the last
    project.submit(turn, key="third")
    for _ in range(turns.RECALL_LAST):
        later(project, 1)
        project.submit(project.claim())
    later(project, turns.RECALL_MS)
    with pytest.raises(Refused, match="recalling is for 15 minutes"):
        project.do(turns.recall, **named(turn, project))


def test_a_skipped_item_goes_to_others_and_not_back(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    project.do(turns.skip, **named(turn, project), reason="not my language")
    project.do(turns.skip, **named(turn, project), reason="again")  # repeated: no harm
    assert project.claim(0).reason == "yours_done"
    assert project.claim(1).assignment.item_id == turn.assignment.item_id
    assert one(project, "SELECT skipped FROM tally WHERE project_id = :p", p=project.id).skipped == 1


def test_what_three_people_skip_is_held_and_reported(database):
    project = made(database, users=4, n=1)
    for user in range(3):
        project.do(turns.skip, **named(project.claim(user), project, user), reason="nonsense")
    assert project.claim(3).reason == "done"
    assert one(project, "SELECT reason FROM report WHERE project_id = :p", p=project.id).reason == "skipped_often"
    assert one(project, "SELECT status FROM item WHERE project_id = :p", p=project.id).status == "held"


def test_a_reported_item_is_held_at_once_and_those_at_work_may_finish(database):
    project = made(database, users=3, n=1, overlap=3)
    at_work = project.claim(0)
    project.do(turns.report_item, **named(project.claim(1), project, 1), reason="harmful", words="see the end")
    assert not isinstance(project.claim(2), type(at_work))
    assert not project.submit(at_work, 0).is_surplus


def test_what_is_given_back_comes_again_when_nothing_else_is_left(database):
    project = made(database, users=1, n=2)
    first = project.claim()
    project.do(turns.release, **named(first, project))
    second = project.claim()
    assert second.assignment.id != first.assignment.id
    project.submit(second)
    assert project.claim().assignment.id == first.assignment.id


def test_time_at_work_is_never_more_than_passed(database):
    project = made(database, n=1)
    turn = project.claim()
    later(project, 1000)
    said = turns.Said(RANKED, active_ms=999_999)
    receipt = project.do(turns.submit, **named(turn, project), key="k", said=said)
    assert 1000 <= one(project, "SELECT active_ms FROM judgment WHERE id = :j", j=receipt.judgment_id).active_ms < 900_000
