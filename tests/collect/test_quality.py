"""More people where people differ, planted items, reviews and decisions, on both databases."""

import json

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from prefloop.collect import exports, items, planted, projects, queue, reviews
from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import migrate, newest, scripts, version_of
from prefloop.collect.places import Said, places
from prefloop.collect.planted import expectation, gold_score
from prefloop.collect.quality import confidence_of
from prefloop.collect.quality_settings import set_quality
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import read_schema, template
from prefloop.records import Group
from tests.collect.made import Made, add, made, violations
from tests.helpers import assert_close


def set_to(project: Made, **change) -> None:
    project.do(set_quality, project_id=project.id, change=change)


def ranked(line: str) -> dict:
    return {"rank": {"ranking": line}}


def one(project: Made, query: str, **given):
    return project.database.read(lambda c: c.execute(text(query), {"p": project.id, **given}).one())


def row_of(project: Made):
    return project.database.read(lambda c: projects.find(c, project.id))


def is_sound(project: Made) -> None:
    with project.database.snapshot() as connection:
        assert violations(connection, project.id) == []


def ids_on_screen(turn: queue.Turn) -> dict[str, str]:
    """The letter of each completion."""
    return {name: letter for letter, name in zip("abcdefgh", json.loads(turn.assignment.shown_json), strict=False)}


def says(project: Made, user: int, order: list[int]) -> str:
    """Claim, and put the item's completions (by their number in it) in an order; the judgment's id."""
    turn = project.claim(user)
    letter = ids_on_screen(turn)
    names = [one["id"] for one in json.loads(turn.completions_json)]
    return project.submit(turn, user, answers=ranked(" > ".join(letter[names[number]] for number in order))).judgment_id


# --- dynamic overlap --------------------------------------------------------------------------------------------------------


def test_where_people_differ_more_are_asked_up_to_the_most_and_no_further(database):
    project = made(database, users=5, n=1, overlap=2)
    set_to(project, overlap_max=4, confidence=0.6)
    for user, order in enumerate(([0, 1], [1, 0], [0, 1], [1, 0])):  # never more sure than a half
        says(project, user, order)
    assert tuple(one(project, "SELECT n_slots, n_done FROM item WHERE project_id = :p")) == (4, 4)
    assert project.claim(4).reason == "done"
    is_sound(project)


def test_where_people_agree_nobody_else_is_asked(database):
    project = made(database, users=3, n=1, overlap=2)
    set_to(project, overlap_max=4, confidence=0.6)
    for user in (0, 1):
        says(project, user, [1, 0])
    assert project.claim(2).reason == "done"


def test_whoever_had_come_to_the_end_of_the_queue_finds_what_is_wanted_since(database):
    project = made(database, users=3, n=1, overlap=2)
    set_to(project, overlap_max=3)
    mine = project.claim(0)
    says(project, 1, [0, 1])
    assert project.claim(2).reason == "leased"
    letter = ids_on_screen(mine)
    first, second = (letter[completion["id"]] for completion in json.loads(mine.completions_json))
    project.submit(mine, 0, answers=ranked(f"{second} > {first}"))  # the other way round
    assert one(project, "SELECT n_slots FROM item WHERE project_id = :p").n_slots == 3
    assert project.claim(2).assignment.item_id == mine.assignment.item_id
    is_sound(project)


def test_a_fixed_number_stays_fixed(database):
    project = made(database, users=3, n=1, overlap=2)
    says(project, 0, [0, 1])
    says(project, 1, [1, 0])
    assert project.claim(2).reason == "done"


def test_without_an_order_points_and_choices_say_how_sure_an_item_is():
    schema = read_schema(
        "{id: x, completions: {min: 1, max: 2}, stages: [{id: s, per: completion, questions: ["
        "{id: points, type: likert, min: 1, max: 5}, {id: thumb, type: single, options: [up, down]}]}]}",
        where="a test",
    )

    def sure(*given: tuple[int, str]) -> float:
        said = [Said({"s": {"x": {"points": points, "thumb": thumb}}}, ["x"]) for points, thumb in given]
        return confidence_of(schema, said, ["x"])

    assert_close(sure((3, "up"), (3, "up")), 1.0)
    assert_close(sure((2, "up"), (3, "up")), 1 - 1 / 4)
    assert_close(sure((3, "up"), (3, "up"), (3, "down")), 1 / 3)  # one pair of people of three says the same
    assert_close(confidence_of(template("rank"), [], ["x"]), 1.0)


@pytest.mark.parametrize("change", [{"overlap_max": 51}, {"gold_rate": 0.9}, {"gold": 1}, {"seconds": -1}])
def test_settings_that_make_no_sense_are_refused(sqlite, change):
    with pytest.raises(Refused, match="quality"):
        set_to(made(sqlite), **change)


# --- gold -------------------------------------------------------------------------------------------------------------------

NAMES = ["w", "x", "y", "z"]


@pytest.mark.parametrize(
    ("expected", "order", "score"),
    [
        ({"best": "w"}, ([["w"], ["x", "y", "z"]], []), 1.0),
        ({"best": "w"}, ([["w", "x"], ["y"], ["z"]], []), 1.0),  # a tie at the top is at the top
        ({"best": "w"}, ([["w", "x", "y", "z"]], []), 0.0),  # of everything it says nothing
        ({"best": "w"}, ([["x"], ["w"], ["y", "z"]], []), 0.0),
        ({"worst": "z"}, ([["w"], ["x", "y"]], ["z"]), 1.0),
        ({"worst": "z"}, ([["w"], ["z"], ["x"]], ["y"]), 0.0),
        ({"before": [["w", "x"], ["y", "z"]]}, ([["w"], ["z"], ["x"], ["y"]], []), 0.5),
        ({"before": [["w", "x"]], "best": "x"}, ([["w"], ["x"], ["y"], ["z"]], []), 0.5),
        ({"tiers": [[["w"], ["x"], ["y"], ["z"]]]}, ([["x"], ["w"], ["y"], ["z"]], []), 5 / 6),
        ({"tiers": [[["w"], ["x"], ["y"], ["z"]], [["z"], ["y"], ["x"], ["w"]]]}, ([["z"], ["y"], ["x"], ["w"]], []), 1.0),
        ({"tiers": [[["w"], ["x"], ["y", "z"]]]}, ([["w"], ["x"], ["y"]], ["z"]), 5.5 / 6),
    ],
)
def test_a_gold_item_is_scored_by_the_share_that_holds(expected, order, score):
    assert_close(gold_score(expectation(expected, NAMES), order, NAMES), score)


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"best": "q"},
        {"best": ["w"]},
        {"worst": {"w": 1}},
        {"before": [["w", "w"]]},
        {"before": [["w"]]},
        {"tiers": [[["w"], ["x"]]]},
        {"top": "w"},
        [],
        {"tiers": []},
    ],
)
def test_expectations_that_say_nothing_or_name_nothing_are_refused(expected):
    with pytest.raises(Refused) as refusal:
        expectation(expected, NAMES)
    assert refusal.value.code == "bad_gold"


def first_item(project: Made) -> tuple[str, list[str]]:
    row = one(project, "SELECT i.id, b.completions_json FROM item i JOIN item_body b ON b.item_id = i.id "
                       "WHERE i.project_id = :p AND i.kind = 'normal' ORDER BY i.id LIMIT 1")  # fmt: skip
    return row.id, [completion["id"] for completion in json.loads(row.completions_json)]


def make_gold(project: Made) -> str:
    identity, names = first_item(project)
    project.do(planted.make_gold, item_id=identity, expected={"best": names[0]}, user_id=project.users[0])
    return identity


def test_a_gold_item_leaves_the_queue_and_comes_once_to_everybody(database, monkeypatch):
    monkeypatch.setattr(planted, "drawn", lambda *given: (0.0, 0))  # always due
    project = made(database, users=3, n=4, overlap=3)
    gold = make_gold(project)
    assert one(project, "SELECT n_slots FROM item WHERE id = :i", i=gold).n_slots == 0
    set_to(project, gold_rate=0.5)
    had = {user: [] for user in range(3)}
    for _ in range(5):
        for user in range(3):
            if isinstance(turn := project.claim(user), queue.Turn):
                had[user].append(turn.assignment.item_id)
                assert project.claim(user).assignment.id == turn.assignment.id  # asking again changes nothing
                project.submit(turn, user)
    assert [turns.count(gold) for turns in had.values()] == [1, 1, 1]
    everything = [item for turns in had.values() for item in turns if item != gold]
    assert len(everything) == 3 * len(set(everything)) == 3 * 3  # nobody lost an ordinary item to a check
    assert one(project, "SELECT n_slots, n_done FROM item WHERE id = :i", i=gold) == (3, 3)
    with database.snapshot() as connection:
        assert projects.progress(connection, project.id)["wanted"] == 9
    is_sound(project)


def test_a_check_is_due_as_often_as_its_rate_and_the_draw_changes_with_every_turn(sqlite):
    project = made(sqlite, users=2, n=1, overlap=2, secret="cd" * 32)
    row = row_of(project)

    def chance(user: str) -> float:
        return sqlite.read(lambda c: planted.drawn(c, row, user)[0])

    chances = [chance(f"person {number}") for number in range(40)]  # drawn from the secret and these: the same in every run
    assert len(set(chances)) == 40 and 0.3 < sum(chances) / 40 < 0.7  # uniform: 0.5, with a spread of 0.046
    before = [chance(user) for user in project.users]
    project.submit(project.claim(0), 0)
    assert chance(project.users[0]) != before[0]
    assert chance(project.users[1]) == before[1]


def test_gold_that_was_claimed_and_not_answered_is_an_open_slot_like_any_other(database, monkeypatch):
    monkeypatch.setattr(planted, "drawn", lambda *given: (0.0, 0))  # always due
    project = made(database, users=2, n=1)
    gold = make_gold(project)
    set_to(project, gold_rate=0.5)
    assert [project.claim(user).assignment.item_id for user in (0, 1)] == [gold, gold]
    is_sound(project)


def test_gold_can_be_taken_back(database):
    project = made(database, users=1, n=2)
    gold = make_gold(project)
    project.do(planted.unmake_gold, item_id=gold)
    assert one(project, "SELECT kind FROM item WHERE id = :i", i=gold).kind == "normal"
    with pytest.raises(Refused, match="no such gold"):
        project.do(planted.unmake_gold, item_id=gold)


def test_checks_are_made_by_exchanging_an_answer_and_are_in_no_export(database, tmp_path, monkeypatch):
    monkeypatch.setattr(planted, "drawn", lambda *given: (0.0, 0))  # always due
    project = made(database, users=1, n=6, k=3)
    given = {"user_id": project.users[0]}
    assert project.do(planted.make_checks, here=row_of(project), n=4, **given) == 4
    assert project.do(planted.make_checks, here=row_of(project), n=4, **given) == 2  # of the other items
    assert project.do(planted.make_checks, here=row_of(project), n=4, **given) == 0
    rows = project.database.read(lambda c: c.execute(text(
        "SELECT b.prompt_json, b.completions_json, pl.expected_json FROM planted pl JOIN item_body b ON b.item_id = pl.item_id "
        "WHERE pl.project_id = :p"), {"p": project.id}).all())  # fmt: skip
    for row in rows:
        listed, worst = json.loads(row.completions_json), json.loads(row.expected_json)["worst"]
        assert [one["source"] == "check" for one in listed] == [one["id"] == worst for one in listed] == [False, False, True]
    set_to(project, gold_rate=0.5)
    while isinstance(turn := project.claim(), queue.Turn):
        project.submit(turn, answers=ranked("a > b > c"))
    manifest = exports.export(database, project.slug, tmp_path / "out")
    assert manifest["items"] == 6 == one(project, "SELECT count(*) AS n FROM judgment WHERE project_id = :p").n / 2
    is_sound(project)


# --- repeats ----------------------------------------------------------------------------------------------------------------


def test_what_one_judged_a_while_ago_comes_again_as_another_item(database, monkeypatch, tmp_path):
    monkeypatch.setattr(planted, "BETWEEN", 2)
    monkeypatch.setattr(planted, "drawn", lambda *given: (0.0, 3))  # a repeat whenever there can be one
    project = made(database, users=1, n=6)
    set_to(project, repeat_rate=0.2)
    seen: list[str] = []
    while isinstance(turn := project.claim(), queue.Turn):
        copy = database.read(
            lambda c, t=turn: c.scalar(text("SELECT copy_of FROM planted WHERE item_id = :i"), {"i": t.assignment.item_id})
        )
        if copy:
            assert copy in seen[:-2]
            assert turn.assignment.item_id != copy
        seen.append(turn.assignment.item_id)
        project.submit(turn)
    assert len(seen) == len(set(seen)) > 6
    assert exports.export(database, project.slug, tmp_path / "out")["items"] == 6
    is_sound(project)


# --- reviews ----------------------------------------------------------------------------------------------------------------


def reviewer(project: Made) -> str:
    return project.users[-1]


def test_a_rejected_judgment_counts_no_more_and_somebody_else_is_asked(database, tmp_path):
    project = made(database, users=4, n=1)
    said = says(project, 0, [0, 1])
    project.do(reviews.judge, judgment_id=said, user_id=reviewer(project), verdict="reject", comment="")
    assert project.claim(0).reason == "yours_done"
    says(project, 1, [1, 0])
    assert tuple(one(project, "SELECT n_slots, n_done, n_surplus FROM item WHERE project_id = :p")) == (1, 1, 1)
    assert exports.export(database, project.slug, tmp_path / "out")["judgments"] == 1
    is_sound(project)
    with pytest.raises(Refused, match="rejected already"):
        project.do(reviews.judge, judgment_id=said, user_id=reviewer(project), verdict="accept", comment="")


def test_a_returned_judgment_comes_back_to_its_annotator_with_the_comment_and_stands_until_then(database):
    project = made(database, users=2, n=1)
    turn = project.claim(0)
    said = project.submit(turn, 0).judgment_id
    given = {"judgment_id": said, "user_id": reviewer(project)}
    with pytest.raises(Refused, match="needs a comment"):
        project.do(reviews.judge, **given, verdict="return", comment=" ")
    project.do(reviews.judge, **given, verdict="return", comment="look at the second one again")
    again = project.claim(0)
    assert again.assignment.id == turn.assignment.id
    assert database.read(lambda c: reviews.returned(c, turn.assignment.id)) == "look at the second one again"
    assert one(project, "SELECT n_done FROM item WHERE project_id = :p").n_done == 1
    assert project.submit(again, 0, key="another", answers=ranked("b > a")).rev == 2
    assert database.read(lambda c: reviews.returned(c, turn.assignment.id)) is None
    with pytest.raises(Refused, match="corrected since"):
        project.do(reviews.judge, **given, verdict="accept", comment="")
    is_sound(project)


def test_nobody_reviews_what_they_said_themselves(sqlite):
    project = made(sqlite, users=1, n=1)
    said = says(project, 0, [0, 1])
    with pytest.raises(Refused, match="somebody else") as refusal:
        project.do(reviews.judge, judgment_id=said, user_id=project.users[0], verdict="accept", comment="")
    assert refusal.value.status == 403


def test_the_queue_holds_what_has_a_reason_until_it_is_decided(database):
    project = made(database, users=3, n=3, overlap=2, k=2)
    set_to(project, seconds=0, seconds_per_100=0)
    for orders in (([0, 1], [1, 0]), ([0, 1], [0, 1]), ([0, 1], [0, 1])):
        for user, order in enumerate(orders):
            says(project, user, order)
    here = row_of(project)

    def queued(reason: str = "") -> list[dict]:
        return database.read(lambda c: reviews.waiting(c, here, reason=reason))["items"]

    (differing,) = queued()
    assert differing["reasons"] == ["disagreement", "low_confidence"]
    assert (differing["agreement"], differing["confidence"]) == (0.0, 0.0)
    assert queued("gold_fail") == []
    set_to(project, seconds=600)
    here = row_of(project)
    assert len(queued("too_fast")) == 3
    given = {"item_id": differing["id"], "user_id": reviewer(project), "judgment_id": "", "answers": None, "comment": ""}
    project.do(reviews.decide, **given, method="all")
    assert differing["id"] not in [one["id"] for one in queued()]
    with pytest.raises(Refused, match="reasons:"):
        queued("nonsense")


def test_who_said_it_and_where_answers_come_from_are_told_once_it_is_decided(database):
    project = made(database, users=2, n=1, overlap=2)
    for user in (0, 1):
        says(project, user, [0, 1])
    identity, names = first_item(project)

    def look() -> dict:
        return database.read(lambda c: reviews.whole(c, row_of(project), identity, reviewer(project)))

    before = look()
    assert not any("annotator" in said for said in before["judgments"]) and "source" not in before["completions"][0]
    assert before["consensus"]["tiers"] == [[names[0]], [names[1]]]
    given = {"item_id": identity, "user_id": reviewer(project), "judgment_id": "", "answers": None, "comment": "clear"}
    project.do(reviews.decide, **given, method="consensus")
    after = look()
    assert all(said["annotator"].startswith("human:") for said in after["judgments"]) and "source" in after["completions"][0]
    assert after["final"]["answers"] == {"rank": {"ranking": {"tiers": [[names[0]], [names[1]]], "unusable": []}}}


def test_an_item_is_decided_by_a_judgment_or_by_the_reviewers_own_answers(database):
    project = made(database, users=2, n=1, overlap=1)
    said = says(project, 0, [1, 0])
    identity, names = first_item(project)
    given = {"item_id": identity, "user_id": reviewer(project), "comment": ""}
    project.do(reviews.decide, **given, method="judgment", judgment_id=said, answers=None)
    project.do(reviews.decide, **given, method="answers", judgment_id="", answers=ranked("a | b"))  # decides again
    row = one(project, "SELECT method, body_json FROM final WHERE item_id = :i", i=identity)
    assert row.method == "answers"
    assert json.loads(row.body_json)["rank"]["ranking"] == {"tiers": [[names[0]]], "unusable": [names[1]]}
    with pytest.raises(Refused, match="leaves out b"):
        project.do(reviews.decide, **given, method="answers", judgment_id="", answers=ranked("a"))
    with pytest.raises(Refused, match="no such judgment"):
        project.do(reviews.decide, **given, method="judgment", judgment_id="x", answers=None)
    with pytest.raises(Refused, match="decided by"):
        project.do(reviews.decide, **given, method="whim", judgment_id="", answers=None)


def test_an_export_of_decisions_has_them_in_place_of_the_judgments(database, tmp_path):
    project = made(database, users=3, n=2, overlap=2)
    for user in (0, 1):
        for order in ([0, 1], [0, 1]):
            says(project, user, order)
    identity, names = first_item(project)
    given = {"item_id": identity, "user_id": reviewer(project), "comment": "", "judgment_id": ""}
    project.do(reviews.decide, **given, method="answers", answers=ranked("b > a"))
    for is_final, rankings in ((False, [2, 2]), (True, [1, 2])):
        folder = tmp_path / str(is_final)
        exports.export(database, project.slug, folder, config=exports.ExportConfig.of(final=is_final))
        groups = [Group.model_validate_json(line) for line in (folder / "kway.jsonl").read_text().splitlines()]
        assert [len(group.rankings) for group in groups] == rankings
    assert groups[0].rankings[0].tiers == ((names[1],), (names[0],))


def test_places_are_numbers_in_the_items_own_order():
    assert places(([["y"], ["w", "x"]], ["z"]), NAMES) == [1.0, 1.0, 0.0, 2.0]
    assert [value != value for value in places(([["w"]], []), ["w", "x"])] == [False, True]


# --- versions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_of_the_first_version_is_brought_up_with_what_it_holds(new_url, kind):
    database = Database(database_url(new_url(kind)))

    def first_version(connection) -> None:
        steps = scripts()._upgrade_revs("0001", "base")
        context = MigrationContext.configure(connection, opts={"fn": lambda revision, context: steps})
        with Operations.context(context):
            context.run_migrations()
        connection.execute(text("INSERT INTO app_user (id, login, display, created) VALUES ('u', 'ada', 'Ada', 1)"))

    database.write(first_version)
    assert database.read(version_of) == "0001"
    migrate(database)
    assert database.read(version_of) == newest()
    assert {"planted", "review", "final"} <= set(inspect(database.readers).get_table_names())
    assert database.read(lambda c: c.scalar(text("SELECT login FROM app_user"))) == "ada"
    database.close()


def test_an_item_that_wants_fewer_keeps_its_checks(sqlite):
    project = made(sqlite, users=2, n=2, overlap=3)
    add(project, [7])
    identity, _ = first_item(project)
    sqlite.write(lambda c: items.set_overlap(c, identity, 1))
    slots = "SELECT (SELECT n_slots FROM item WHERE id = :i), (SELECT count(*) FROM slot WHERE item_id = :i)"
    assert tuple(sqlite.read(lambda c: c.execute(text(slots), {"i": identity}).one())) == (1, 1)
    is_sound(project)
