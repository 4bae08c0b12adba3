"""The load benchmark without its timings: what is asked, what is counted, what is written; and imports that keep every letter."""

import asyncio
import json
import random
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from benchmarks import collect_load, collect_peers, people
from benchmarks.machine import ROOT
from prefloop.collect import imports, items, queue
from prefloop.data.write import write_groups
from prefloop.records import Completion, Group, Message, Prompt
from tests.collect.made import made, violations
from tests.collect.site import Site

LOAD = {
    "next_p95_ms", "submit_p95_ms", "heavy_next_p95_ms", "next_p95_during_import_ms", "import_s", "export_s", "export_growth_mb",
    "start_s", "rss_mb", "first_page_kb", "saturation_tasks_per_s",
}  # fmt: skip
CHAOS = {"kills", "acknowledged", "lost", "over_assigned", "duplicates"}
RESULTS = sorted(path for path in (ROOT / "benchmarks" / "results").glob("collect_*.json") if path.stem != collect_peers.NAME)


def apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Run in a thread of its own: a browser that is being driven has an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@pytest.fixture(scope="module")
def site(new_url, tmp_path_factory):
    opened = Site(tmp_path_factory.mktemp("load"), new_url("sqlite")).start()
    yield opened
    opened.stop()


def test_the_names_are_those_that_make_bench_runs():
    assert [name for name in collect_load.NAMES if collect_load.is_asked([name, "--items", "5"])] == [
        "collect_load_sqlite", "collect_load_postgresql", "collect_chaos_sqlite", "collect_chaos_postgresql",
    ]  # fmt: skip
    assert not collect_load.is_asked(["reward_k9", "--pairs", "5"])


def test_a_percentile_is_in_milliseconds_and_is_not_below_so_many():
    waits = [number / 1000 for number in range(1, 101)]
    random.Random(0).shuffle(waits)
    assert people.spread(waits) == {"p50_ms": 51.0, "p95_ms": 96.0, "p99_ms": 100.0}
    assert people.percentile([], 0.95) is None and people.percentile([0.002], 0.95) == 2.0


def test_a_crowd_does_all_there_is_and_counts_its_waits(site):
    """60 items, three judgments each, three people: everybody does everything once."""
    tokens = [site.token(role) for role in ("annotator", "reviewer", "manager")]
    seen, took = apart(people.crowd(site.port, "main", tokens, think=0.0, seconds=600))
    assert seen.wrong == []
    assert (len(seen.next), len(seen.submit)) == (180, 180)
    assert all(0 < wait < took for wait in seen.next + seen.submit)
    assert site.one("SELECT count(*) FROM judgment WHERE NOT is_surplus") == 180
    assert site.database.read(lambda c: violations(c, site.main.id)) == []


def test_what_the_server_refuses_is_not_counted_as_a_wait(site):
    seen, _ = apart(people.crowd(site.port, "main", ["prefloop_wrong"], think=0.0, seconds=60))
    assert (seen.next, seen.submit) == ([], []) and seen.wrong[0].startswith("next: 401")


def test_answers_put_into_the_database_are_what_people_would_have_left(database):
    project = made(database, users=3, n=30, k=4, overlap=3)
    with_two = collect_load.fill(database, project.id, users=[project.users[0], project.users[1]])
    assert with_two == 60
    turn = project.claim(2)  # the third slot of every item is still there for the third person
    assert isinstance(turn, queue.Turn)
    project.submit(turn, 2, answers={"rank": {"ranking": "a > b > c > d"}})
    assert collect_load.fill(database, project.id, users=[project.users[0]] * 2 + [project.users[2]]) == 29
    never = [one for one in database.read(lambda c: violations(c, project.id)) if "tally" not in one]  # which is not filled in
    assert never == []


def test_somebody_who_has_done_half_claims_the_other_half(sqlite):
    project = made(sqlite, users=1, n=60, k=4, overlap=3)
    waits = collect_load.heavy(sqlite, project.slug, 40, claims=20)
    assert len(waits) == 20 and all(wait > 0 for wait in waits)
    counted = sqlite.read(lambda c: c.execute(text("SELECT count(*) FROM judgment WHERE project_id = :p"), {"p": project.id}))
    assert counted.scalar_one() == 60


def test_the_first_page_is_weighed_as_it_is_sent(site):
    shown = collect_load.first_page(site.address, f"/work/{site.main.slug}")
    page = len(site.http.get(f"{site.address}/work/{site.main.slug}").content) / 1000
    assert shown is not None and shown > page
    assert collect_load.first_page(site.address, "/no/such/page") is None


def test_a_result_has_its_keys_and_the_full_size():
    for path in RESULTS:
        found, is_chaos = json.loads(path.read_text()), "chaos" in path.stem
        assert found.keys() >= (CHAOS if is_chaos else LOAD), path.stem
        assert found["name"] == path.stem and path.stem in collect_load.NAMES
        assert (found["n_items"], found["users"]) == ((1500, 50) if is_chaos else (100_000, 200)), path.stem


# --- the import that is measured --------------------------------------------------------------------------------------------

AWKWARD = ["a\nb\r\nc", "\u2028 and \x85 and \x1e", 'tab\t"quoted" \\n', "中文 🙂", " "]


def test_every_letter_arrives_whatever_it_does_to_lines(sqlite, tmp_path):
    groups = []
    for number, awkward in enumerate(AWKWARD):
        prompt = Prompt(id=f"p\n{number}\u2028", messages=(Message(role="user", content=awkward),))
        groups.append(Group(prompt=prompt, completions=tuple(Completion.of(prompt, awkward + letter) for letter in "ab")))
    write_groups(tmp_path / "awkward.jsonl", groups)
    project = made(sqlite)
    assert imports.run(sqlite, project.id, tmp_path / "awkward.jsonl").added == len(AWKWARD)
    bodies = "SELECT i.prompt_id, b.prompt_json, b.completions_json FROM item i JOIN item_body b ON b.item_id = i.id WHERE i.project_id = :p ORDER BY i.id"
    rows = sqlite.read(lambda c: c.execute(text(bodies), {"p": project.id}).all())
    kept = [(row.prompt_id, json.loads(row.prompt_json), json.loads(row.completions_json)) for row in rows]
    assert kept == [
        (g.prompt.id, g.prompt.model_dump(mode="json"), [c.model_dump(mode="json") for c in g.completions]) for g in groups
    ]
    expected = [items.new_item(group.prompt, group.completions) for group in groups]
    assert [tuple(row) for row in rows] == [(one.prompt_id, one.prompt_json, one.completions_json) for one in expected]


def test_what_was_looked_at_is_stored_even_if_the_file_changes_meanwhile(sqlite, tmp_path, monkeypatch):
    file, project = tmp_path / "answers.jsonl", made(sqlite)
    line = '{"prompt": "question %s", "completions": ["x", "y"]}\n'
    file.write_text("".join(line % number for number in range(3)))
    compare = imports.compare

    def changing(*given):
        compare(*given)
        file.write_text("not a line of anything\n" * 3)

    monkeypatch.setattr(imports, "compare", changing)
    assert imports.run(sqlite, project.id, file).added == 3
    titles = sqlite.read(
        lambda c: (
            c.execute(
                text("SELECT prompt_json FROM item_body b JOIN item i ON i.id = b.item_id WHERE i.project_id = :p"),
                {"p": project.id},
            )
            .scalars()
            .all()
        )
    )
    assert sorted(json.loads(one)["messages"][0]["content"] for one in titles) == ["question 0", "question 1", "question 2"]
