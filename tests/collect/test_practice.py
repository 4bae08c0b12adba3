"""Practice: first for those who are new, told at once, counted nowhere. On both databases."""

import json

import pytest
from sqlalchemy import event, text

from prefloop.collect import exports, feedback, items, planted, practice, projects, queue, reviews, turns
from prefloop.collect.database import Database, database_url
from prefloop.collect.exports import FORMATS
from prefloop.collect.migrate import migrate
from prefloop.collect.panel_agreement import agreement_panel
from prefloop.collect.panel_annotators import annotators_panel
from prefloop.collect.panel_bias import bias_panel
from prefloop.collect.quality_settings import QualityConfig, quality_of, set_quality
from prefloop.collect.recent import recent
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import read_schema
from prefloop.collect.web.quality import by_hour
from tests.collect.made import Made, made, violations
from tests.helpers import assert_close

DAY = 86_400_000
WHY = "<b>the first</b> answers the question"


def rows(project: Made, query: str, **given) -> list:
    return project.database.read(lambda c: c.execute(text(query), {"p": project.id, **given}).all())


def here(project: Made):
    return project.database.read(lambda c: projects.find(c, project.id))


def is_sound(project: Made) -> None:
    with project.database.snapshot() as connection:
        assert violations(connection, project.id) == []


def completions_of(project: Made, item_id: str) -> list[str]:
    ((listed,),) = rows(project, "SELECT completions_json FROM item_body WHERE item_id = :i", i=item_id)
    return [one["id"] for one in json.loads(listed)]


def some_items(project: Made, n: int) -> list[str]:
    """The first ordinary items of a project."""
    query = "SELECT id FROM item WHERE project_id = :p AND kind = 'normal' ORDER BY id LIMIT :n"
    return [row.id for row in rows(project, query, n=n)]


def practise(project: Made, n: int = 1, *, but: str = "") -> list[str]:
    """Make the first ordinary items practice, in which each answer is better than the next; their ids in the order made."""
    made_so = [one for one in some_items(project, n + 1) if one != but][:n][::-1]  # not in the order of their ids
    for identity in made_so:
        tiers = [[[one] for one in completions_of(project, identity)]]
        given = {"item_id": identity, "expected": {"tiers": tiers}, "user_id": project.users[0]}
        project.do(planted.make_gold, **given, practice=True, why=WHY)
    return made_so


def letters(turn: queue.Turn) -> list[str]:
    """The letters of an item's completions, in the item's own order."""
    letter = dict(zip(json.loads(turn.assignment.shown_json), "abcdefgh", strict=False))
    return [letter[one["id"]] for one in json.loads(turn.completions_json)]


def answer(turn: queue.Turn, order: list[int]) -> dict:
    """An order of the item's own completions, as it is typed on this screen."""
    return {"rank": {"ranking": " > ".join(letters(turn)[number] for number in order)}}


def work(project: Made, user: int, n: int) -> list[queue.Turn]:
    """The turns somebody gets one after the other, each submitted."""
    found = []
    while len(found) < n and isinstance(turn := project.claim(user), queue.Turn):
        project.submit(turn, user)
        found.append(turn)
    return found


# --- who gets it ------------------------------------------------------------------------------------------------------------


def test_whoever_is_new_has_all_practice_first_once_and_in_the_order_it_was_made(database, monkeypatch):
    moment = database.clock()
    monkeypatch.setattr(database, "clock", lambda: moment)  # all are made at once
    project = made(database, users=2, n=6, overlap=2)
    first = practise(project, 3)
    for user in (0, 1):
        had = [turn.assignment.item_id for turn in work(project, user, 9)]
        assert had[:3] == first and len(had) == len(set(had)) == 6
    assert [row.n_slots for row in rows(project, "SELECT n_slots FROM item WHERE project_id = :p AND kind = 'practice'")] == [
        2
    ] * 3
    is_sound(project)


def test_whoever_has_begun_gets_none_that_is_made_since(database):
    project = made(database, users=2, n=4, overlap=2)
    begun = project.claim(0)
    (one,) = practise(project, but=begun.assignment.item_id)
    project.submit(begun, 0)
    assert one not in [turn.assignment.item_id for turn in work(project, 0, 9)]
    assert work(project, 1, 1)[0].assignment.item_id == one


def test_saying_anew_what_is_right_keeps_the_place_in_line(database):
    project = made(database, users=1, n=3)
    first, second = practise(project, 2)
    given = {"item_id": first, "user_id": project.users[0], "practice": True}
    project.do(planted.make_gold, **given, expected={"worst": completions_of(project, first)[0]})
    assert [turn.assignment.item_id for turn in work(project, 0, 2)] == [first, second]


@pytest.mark.parametrize("how", ["skip", "report", "release"])
def test_what_is_skipped_reported_or_given_back_does_not_come_again_and_the_next_does(database, how):
    project = made(database, users=2, n=3, overlap=2)
    first, second = practise(project, 2)
    turn = project.claim(0)
    assert turn.assignment.item_id == first
    given = {"assignment_id": turn.assignment.id, "user_id": project.users[0]}
    more = {"skip": {"reason": "x"}, "report": {"reason": "x", "words": ""}, "release": {}}[how]
    project.do({"skip": turns.skip, "report": turns.report_item, "release": turns.release}[how], **given, **more)
    had = [turn.assignment.item_id for turn in work(project, 0, 9)]
    assert had[0] == second and first not in had and len(had) == 2
    assert project.claim(0).reason == "yours_done"
    assert project.claim(1).assignment.item_id == (second if how == "report" else first)  # what was reported is held
    assert database.read(lambda c: projects.progress(c, project.id))["skipped"] == 0
    is_sound(project)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_practice_turn_that_ran_out_comes_again_with_what_was_typed_and_waits_for_nobody_else(kind, new_url):
    time = [1_700_000_000_000]
    database = Database(database_url(new_url(kind)), clock=lambda: time[0])
    migrate(database)
    project = made(database, users=3, n=2, overlap=2)
    (one,) = practise(project)
    mine = project.claim(0)
    given = {"assignment_id": mine.assignment.id, "user_id": project.users[0]}
    project.do(turns.save_draft, **given, rev=0, body={"typed": 1})
    time[0] += DAY
    assert work(project, 1, 1)[0].assignment.item_id == one  # who sweeps
    assert [tuple(row) for row in rows(project, "SELECT n_slots, n_done FROM item WHERE id = :i", i=one)] == [(1, 1)]
    is_sound(project)
    again = project.claim(0)
    assert (again.assignment.id, again.draft.body_json) == (mine.assignment.id, '{"typed":1}')
    is_sound(project)
    time[0] += DAY
    assert isinstance(project.claim(2), queue.Turn)
    assert project.do(turns.heartbeat, **given).is_held  # whoever comes back to the page has it again, too
    assert project.submit(again, 0).feedback["why"] == WHY
    assert project.claim(0).assignment.item_id != one
    is_sound(project)
    database.close()


def test_a_claim_asks_no_more_of_the_database_where_there_is_no_practice(sqlite):
    def n_statements(project: Made) -> int:
        seen: list[str] = []
        listen = lambda connection, cursor, statement, *more: seen.append(statement)  # noqa: E731
        event.listen(sqlite.writer.engine, "before_cursor_execute", listen)
        project.claim(0)
        event.remove(sqlite.writer.engine, "before_cursor_execute", listen)
        assert not any("planted" in statement for statement in seen)
        return len(seen)

    plain, with_settings, with_none_left = made(sqlite, n=1), made(sqlite, n=1), made(sqlite, n=1)
    with_settings.do(set_quality, project_id=with_settings.id, change={"seconds": 2})
    (one,) = practise(with_none_left)
    with_none_left.do(planted.unmake_gold, item_id=one)
    sqlite.write(lambda c: items.set_overlap(c, one, 1))
    assert n_statements(plain) == n_statements(with_settings) == n_statements(with_none_left)


def test_who_comes_is_told_how_many_there_are_before_the_first(database):
    project = made(database, users=2, n=4, overlap=2)
    begun = project.claim(1)
    practise(project, 3, but=begun.assignment.item_id)
    ahead = lambda user: database.read(lambda c: practice.ahead_of(c, project.id, project.users[user]))  # noqa: E731
    assert ahead(0) == (3, 3)
    turn = project.claim(0)
    assert ahead(0) == (3, 3)  # it is before them still
    project.submit(turn, 0)
    assert ahead(0) == (2, 3)
    work(project, 0, 3)
    assert ahead(0)[0] == 0
    project.submit(begun, 1)
    assert ahead(1)[0] == 0  # for whom there is none


# --- what is told -----------------------------------------------------------------------------------------------------------


def test_the_answer_to_a_submit_says_how_much_was_right_in_the_letters_of_the_screen(database):
    project = made(database, users=2, n=2, overlap=2)
    practise(project)
    turn = project.claim(0)
    a, b = letters(turn)
    receipt = project.submit(turn, 0, answers=answer(turn, [1, 0]))
    assert receipt.feedback == {"score": 0.0, "expected": {"tiers": [[[a], [b]]]}, "why": WHY}
    assert project.submit(turn, 0, answers=answer(turn, [1, 0])) == receipt._replace(is_replay=True)
    other = project.claim(1)
    assert project.submit(other, 1, answers=answer(other, [0, 1])).feedback["score"] == 1.0
    assert [project.submit(project.claim(user), user).feedback for user in (0, 1)] == [None, None]  # ordinary ones


def test_every_kind_of_expectation_is_told_and_scored_by_what_holds_of_it(sqlite):
    project = made(sqlite, users=1, n=1, k=3)
    (one,) = some_items(project, 1)
    x, y, _ = completions_of(project, one)
    expected = {"before": [[x, y]], "best": x, "worst": y}
    given = {"item_id": one, "user_id": project.users[0], "expected": expected}
    project.do(planted.make_gold, **given, practice=True)
    turn = project.claim(0)
    a, b, _ = letters(turn)
    told = project.submit(turn, 0, answers=answer(turn, [0, 1, 2])).feedback
    assert told["expected"] == {"before": [[a, b]], "best": a, "worst": b} and told["why"] == ""
    assert_close(told["score"], 2 / 3)  # the pair and the best, not the worst


def test_a_corrected_practice_turn_is_told_anew_and_a_look_back_shows_it(database):
    project = made(database, users=1, n=1)
    practise(project)
    turn = project.claim(0)
    assert database.read(lambda c: feedback.told_before(c, turn)) == {}  # before the submit nothing is told
    first = project.submit(turn, 0, answers=answer(turn, [1, 0]))
    project.do(turns.recall, assignment_id=turn.assignment.id, user_id=project.users[0])
    again = project.submit(turn, 0, key="again", answers=answer(turn, [0, 1]))
    assert (first.feedback["score"], again.feedback["score"], again.rev) == (0.0, 1.0, 2)
    seen = database.read(lambda c: feedback.told_before(c, queue.turn_of(c, turn.assignment.id)))
    assert seen == {"feedback": again.feedback}
    is_sound(project)


def test_whoever_is_asked_for_an_order_and_gives_none_has_nothing_right(sqlite):
    schema = read_schema("{id: x, stages: [{id: rank, questions: [{id: ranking, type: rank, required: false}]}]}", where="a test")
    project = made(sqlite, users=1, n=1, schema=schema)
    practise(project)
    assert project.submit(project.claim(0), 0, answers={"rank": {}}).feedback["score"] == 0.0


# --- it counts nowhere ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(sqlite) -> Made:
    """Two practice items and two ordinary ones, each judged by both people: the ordinary alike, practice the other way round."""
    project = made(sqlite, users=2, n=4, overlap=2)
    practise(project, 2)
    project.do(set_quality, project_id=project.id, change={"overlap_max": 4, "confidence": 1.0, "seconds": 9})
    for user in (0, 1):
        for number in range(4):
            turn = project.claim(user)
            order = [0, 1] if number > 1 or user else [1, 0]
            given = {"assignment_id": turn.assignment.id, "user_id": project.users[user], "key": turn.assignment.id}
            time = 5 if number < 2 else None  # too fast, in practice
            project.do(turns.submit, **given, said=turns.Said(answer(turn, order), active_ms=time))
    is_sound(project)
    return project


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"audit"}))
def test_practice_is_in_no_export(judged, tmp_path, format):
    manifest = exports.export(judged.database, judged.slug, tmp_path / "out", format=format)
    assert (manifest["items"], manifest["judgments"]) == (2, 4)
    names = [name for row in kept(judged) for name in completions_of(judged, row.id)]
    for path in (tmp_path / "out").iterdir():
        assert not any(name.encode() in path.read_bytes() for name in names)


def kept(project: Made) -> list:
    return rows(project, "SELECT id, n_slots, n_done FROM item WHERE project_id = :p AND kind = 'practice'")


def test_practice_is_in_no_count_of_what_is_done(judged):
    found = judged.database.read(lambda c: projects.progress(c, judged.id))
    assert (found["items"], found["wanted"], found["done"]) == (2, 4, 4)
    tallied = rows(judged, "SELECT sum(submitted) AS n, sum(active_ms) AS ms FROM tally WHERE project_id = :p GROUP BY user_id")
    assert [tuple(row) for row in tallied] == [(2, 0), (2, 0)]
    assert sum(judged.database.read(lambda c: by_hour(c, judged.id, since=0)).values()) == 4


def test_practice_that_somebody_is_at_is_not_among_what_is_leased(database):
    project = made(database, users=2, n=2, overlap=2)
    practise(project)
    project.claim(0)
    assert database.read(lambda c: projects.progress(c, project.id))["leased"] == 0


def test_practice_is_in_no_panel(judged):
    seen = judged.database.read(lambda c: recent(c, here(judged)))
    assert [one.kind for one in seen] == ["normal"] * 2
    figures = annotators_panel(seen, quality_of(here(judged).settings_json))
    assert [(row["n"], row["too_fast"]["n"], row["gold"]["n"]) for row in figures] == [(2, 0, 0)] * 2
    assert agreement_panel(seen)["judgments"] == 4
    assert_close(agreement_panel(seen)["pairs"]["half"]["by_items"]["value"], 1.0)
    assert sum(map(sum, bias_panel(seen)["position"]["table"])) == 2 * 4


def test_nobody_else_is_asked_where_people_differ_in_practice(judged):
    assert [(row.n_slots, row.n_done) for row in kept(judged)] == [(2, 2)] * 2


def test_practice_goes_to_the_reviewer_only_where_it_was_reported(judged):
    queued = judged.database.read(lambda c: reviews.waiting(c, here(judged)))["items"]
    assert [one["kind"] for one in queued] == []  # though people differ on it, and were too fast
    project = made(judged.database, users=1, n=1)
    (one,) = practise(project)
    turn = project.claim(0)
    project.submit(turn, 0)
    settings = QualityConfig()
    (seen,) = project.database.read(lambda c: reviews.opined(c, here(project), [one]))
    assert reviews.looked_at(seen, settings, [])["reasons"] == []
    assert reviews.looked_at(seen, settings, [{"id": "x"}])["reasons"] == ["reported"]


def test_an_item_that_becomes_practice_is_out_of_every_count_and_comes_back_into_them(database):
    project = made(database, users=2, n=2, overlap=2)
    work(project, 0, 2)
    before = rows(project, "SELECT submitted, active_ms FROM tally WHERE project_id = :p")
    (one,) = practise(project)
    is_sound(project)
    work(project, 1, 9)
    is_sound(project)
    assert database.read(lambda c: projects.progress(c, project.id))["items"] == 1
    project.do(planted.unmake_gold, item_id=one)
    is_sound(project)
    after = rows(project, "SELECT submitted, active_ms FROM tally WHERE project_id = :p ORDER BY user_id")
    assert [tuple(row) for row in before] == [tuple(after[0])] and after[1].submitted == 2
    project.do(planted.make_gold, item_id=one, expected={"best": completions_of(project, one)[0]}, user_id=project.users[0])
    is_sound(project)


def test_a_rejected_practice_judgment_is_surplus_and_nobody_is_asked_instead(database):
    project = made(database, users=2, n=2, overlap=2)
    (one,) = practise(project)
    said = project.submit(project.claim(0), 0).judgment_id
    work(project, 0, 1)
    project.do(reviews.judge, judgment_id=said, user_id=project.users[1], verdict="reject", comment="")
    assert [tuple(row) for row in rows(project, "SELECT n_slots, n_surplus FROM item WHERE id = :i", i=one)] == [(0, 1)]
    is_sound(project)


def test_more_judgments_are_never_wanted_of_practice(database):
    project = made(database, users=1, n=2)
    (one,) = practise(project)
    assert database.write(lambda c: items.set_overlap(c, one, 5)) == 0
    is_sound(project)


@pytest.mark.parametrize("given", [{"why": "x"}, {"practice": True, "why": "x" * 2001}, {"practice": True, "expected": {}}])
def test_words_without_practice_too_many_of_them_or_no_expectation_are_refused(sqlite, given):
    project = made(sqlite, users=1, n=1)
    (one,) = some_items(project, 1)
    said = {"item_id": one, "expected": {"best": completions_of(project, one)[0]}, "user_id": project.users[0], **given}
    with pytest.raises(Refused) as refusal:
        project.do(planted.make_gold, **said)
    assert refusal.value.code == "bad_gold"


def test_gold_is_told_to_nobody(database, monkeypatch):
    monkeypatch.setattr(planted, "drawn", lambda *given: (0.0, 0))  # always due
    project = made(database, users=1, n=3)
    (gold,) = some_items(project, 1)
    expected = {"best": completions_of(project, gold)[0]}
    project.do(planted.make_gold, item_id=gold, expected=expected, user_id=project.users[0])
    project.do(set_quality, project_id=project.id, change={"gold_rate": 0.5})
    (one,) = practise(project)
    told = []
    while isinstance(turn := project.claim(0), queue.Turn):
        told.append((turn.assignment.item_id, project.submit(turn, 0).feedback is not None))
        again = project.database.read(lambda c, t=turn: feedback.told_before(c, queue.turn_of(c, t.assignment.id)))
        assert (again != {}) == told[-1][1]
    assert told[:2] == [(one, True), (gold, False)] and [is_told for _, is_told in told] == [True, False, False]
