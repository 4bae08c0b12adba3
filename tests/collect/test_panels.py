"""What the dashboard says of a project whose people are known: one is careful, one takes what stands first, one answers alike."""

import json
from collections import Counter

import numpy as np
import pytest

from prefloop.collect import items, planted, projects, turns
from prefloop.collect.identity import new_id, pseudonym
from prefloop.collect.panel_agreement import DAY, agreement_panel, preference_alpha
from prefloop.collect.panel_annotators import annotators_panel
from prefloop.collect.panel_bias import bias_panel
from prefloop.collect.quality_settings import quality_of, set_quality
from prefloop.collect.recent import recent
from prefloop.collect.schema import template
from prefloop.collect.web.quality import Panels, by_hour, oldest_id
from prefloop.records import Completion, Prompt
from tests.collect.made import made, same_ids
from tests.helpers import assert_close

CAREFUL, FIRST, ALIKE = range(3)
N = 12


@pytest.fixture(scope="module")
def project(sqlite):
    """Every item has answers good, fair and poor, the better the longer; good ones have Markdown and come from a large model."""
    prompts = [Prompt.of(f"panel question {number}") for number in range(N)]
    texts = (
        ("**good** " + "x" * 119, "policy:large"),
        ("fair " + "x" * 59, "policy:small"),
        ("poor " + "x" * 27, "policy:small"),
    )
    new = [items.new_item(one, [Completion.of(one, text, source=source) for text, source in texts]) for one in prompts]
    with same_ids():
        built = made(sqlite, users=3, overlap=3, schema=template("instructgpt"), secret="cd" * 32)
        sqlite.write(lambda c: items.add(c, built.id, new, now=sqlite.clock()))
    gold = sqlite.read(lambda c: c.exec_driver_sql(f"SELECT i.id, b.completions_json FROM item i JOIN item_body b ON b.item_id = i.id WHERE i.project_id = '{built.id}' ORDER BY i.id LIMIT 1").one())  # fmt: skip
    built.do(
        planted.make_gold, item_id=gold.id, expected={"best": json.loads(gold.completions_json)[0]["id"]}, user_id=built.users[0]
    )
    built.do(set_quality, project_id=built.id, change={"gold_rate": 0.5, "seconds": 0.004, "seconds_per_100": 0})
    for user in (CAREFUL, FIRST, ALIKE):
        while hasattr(turn := built.claim(user), "assignment"):
            built.do(
                turns.submit,
                assignment_id=turn.assignment.id,
                user_id=built.users[user],
                key=turn.assignment.id,
                said=said(turn, user),
            )
    return built


def said(turn, user: int) -> turns.Said:
    names = [one["id"] for one in json.loads(turn.completions_json)]
    shown = json.loads(turn.assignment.shown_json)
    letter = {name: "abc"[place] for place, name in enumerate(shown)}
    best_first = [letter[name] for name in names]
    line = {CAREFUL: " > ".join(best_first), FIRST: "a > b > c", ALIKE: f"{best_first[0]} > {best_first[1]} = {best_first[2]}"}[
        user
    ]
    points = {CAREFUL: (7, 5, 2), FIRST: (4, 4, 4), ALIKE: (6, 5, 3)}[user]
    rate = {
        letter[name]: {"overall": value, "opinion": place == 2}
        for place, (name, value) in enumerate(zip(names, points, strict=True))
    }
    return turns.Said({"rate": rate, "rank": {"ranking": line}}, active_ms=50 if user == CAREFUL else 0)


@pytest.fixture(scope="module")
def seen(project, sqlite):
    return sqlite.read(lambda c: recent(c, projects.find(c, project.id)))


@pytest.fixture(scope="module")
def rows(project, sqlite, seen):
    found = sqlite.read(lambda c: projects.find(c, project.id))
    panel = annotators_panel(seen, quality_of(found.settings_json))
    return {
        user: next(row for row in panel if row["annotator"] == pseudonym(found.secret, project.users[user])) for user in range(3)
    }


def test_everything_that_was_said_is_seen_by_the_panels(seen):
    assert [len(one.opinions) for one in seen] == [3] * N
    assert [one.kind for one in seen].count("gold") == 1


def test_whoever_takes_the_first_has_a_rate_of_one_and_the_careful_one_that_of_chance(rows):
    assert rows[FIRST]["first"]["mean"] == 1.0 and rows[FIRST]["first"]["n"] == N
    assert rows[FIRST]["first"]["low"] > 1 / 3 == rows[FIRST]["first"]["chance"]
    assert rows[CAREFUL]["first"]["low"] < 1 / 3 < rows[CAREFUL]["first"]["high"]
    assert rows[FIRST]["straight"]["mean"] == 1.0 and rows[CAREFUL]["straight"]["mean"] < 1


def test_time_gold_and_agreement_with_the_others(rows):
    assert (rows[CAREFUL]["median_ms"], rows[FIRST]["median_ms"]) == (rows[CAREFUL]["median_ms"], 0)
    assert rows[FIRST]["too_fast"]["mean"] == 1.0
    assert [rows[user]["gold"]["n"] for user in range(3)] == [1, 1, 1]
    assert rows[CAREFUL]["gold"]["mean"] == rows[ALIKE]["gold"]["mean"] == 1.0
    assert rows[CAREFUL]["with_others"]["value"] > rows[FIRST]["with_others"]["value"]
    assert "judged twice" in rows[CAREFUL]["consistency"]["reason"]


def test_preferring_the_longer_is_a_slope_that_decides_everything(rows):
    assert "decides every pair" in rows[CAREFUL]["length_slope"]["reason"]
    assert rows[FIRST]["length_slope"]["low"] < 0 < rows[FIRST]["length_slope"]["high"]


def test_agreement_is_that_of_its_definition(seen):
    panel = agreement_panel(seen)
    # careful and alike: two of three pairs the same, one a tie of one; what the third says depends on the screen
    (cell,) = [
        one for one in panel["matrix"]["cells"] if one["agreement"] == max(c["agreement"] for c in panel["matrix"]["cells"])
    ]
    assert_close(cell["agreement"], 2.5 / 3)
    assert (panel["items"], panel["judgments"]) == (N, 3 * N)
    for coefficient in (panel["preference_alpha"], panel["kendall_w"], panel["pairs"]["half"]["by_items"]):
        assert coefficient["low"] <= coefficient["value"] <= coefficient["high"] and coefficient["n"] == N
    assert panel["pairs"]["drop"]["chance"] == 0.5
    questions = {one["question"]: one for one in panel["questions"]}
    assert questions["overall"]["type"] == "likert" and questions["overall"]["icc_2k"]["value"] is not None
    assert_close(questions["opinion"]["alpha_nominal"]["value"], 1.0)  # the same flag on the same answer, by everybody
    assert "same answer" in questions["sexual"]["alpha_nominal"]["reason"] and questions["sexual"]["gwet_ac1"]["value"] == 1.0
    assert json.loads(json.dumps(panel, allow_nan=False)) == panel
    days = Counter(max(opinion.created for opinion in one.opinions) // DAY for one in seen)  # two, where it is just midnight
    assert [(one["day"], one["n"]) for one in panel["trend"]] == sorted(days.items())


def test_alpha_of_preferences_does_not_depend_on_which_answer_an_item_lists_first():
    rng = np.random.default_rng(3)
    listed = [np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0] if rng.random() < 0.8 else [2.0, 1.0, 0.0]]) for _ in range(60)]
    mixed = [table[:, rng.permutation(3)] for table in listed]
    alpha = preference_alpha(listed)
    assert_close(preference_alpha(mixed).value, alpha.value)
    disagreed = np.mean([table[0, 0] != table[1, 0] for table in listed])
    n = 2 * 2 * 3 * 60  # judgments of pairs, each pair both ways round; half of them are 1, half -1, four half-ranges apart
    assert_close(alpha.value, 1 - (n - 1) * disagreed * n / (2 * (n / 2) ** 2))


def test_bias_shows_places_lengths_marks_and_makers(seen):
    panel = bias_panel(seen)
    table = panel["position"]["table"]
    assert panel["position"]["k"] == 3 and sum(map(sum, table)) == 3 * 3 * N
    assert table[0][0] > table[2][0] and panel["position"]["chi_square"]["df"] == 4
    assert panel["length"]["longer_wins"]["value"] > 0.5 and panel["markdown"]["value"] > 0.5
    assert [one["source"] for one in panel["sources"]["board"]] == ["policy:large", "policy:small"]
    assert panel["sources"]["board"][0]["strength"] > 0
    assert panel["markdown"]["n"] == N
    assert json.loads(json.dumps(panel, allow_nan=False)) == panel


def test_panels_of_nothing_give_reasons():
    panel = {**agreement_panel([]), **bias_panel([])}
    assert panel["preference_alpha"]["value"] is None and panel["preference_alpha"]["reason"]
    assert panel["sources"]["reason"] and panel["position"]["k"] == 0
    assert json.dumps(panel, allow_nan=False)


def test_a_panel_is_computed_again_once_something_was_done_unless_that_takes_long():
    now, runs = [0.0], []

    def compute(seconds: float):
        def work() -> int:
            now[0] += seconds
            runs.append(1)
            return len(runs)

        return work

    panels = Panels(clock=lambda: now[0])
    assert [panels.get(("p", "x"), done, compute(0.1)) for done in ((1,), (1,), (2,))] == [1, 1, 2]
    assert panels.get(("p", "y"), (1,), compute(2.0)) == 3
    assert panels.get(("p", "y"), (2,), compute(2.0)) == 3  # twenty times two seconds have not passed
    now[0] += 41
    assert panels.get(("p", "y"), (2,), compute(2.0)) == 4


def test_hours_count_first_judgments_from_a_moment_on(project, sqlite):
    now = sqlite.clock()
    hours = sqlite.read(lambda c: by_hour(c, project.id, since=now - 3_600_000))
    assert sum(hours.values()) == 3 * N and set(hours) <= {now // 3_600_000, now // 3_600_000 - 1}
    assert sqlite.read(lambda c: by_hour(c, project.id, since=now + 60_000)) == {}


def test_the_least_id_of_a_moment_is_below_all_ids_of_it():
    assert oldest_id(1000) <= new_id(1000) < oldest_id(1001)
