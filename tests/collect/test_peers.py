"""The benchmark beside other tools, without the other tools: what each is asked, what is counted, and the table made of it."""

import asyncio
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks import collect_peers
from benchmarks.collect_peers import FULL, PAGE, RESULT, TOOLS, day, lines, page, summary, turn
from benchmarks.people import Answer, Seen
from tests.collect.site import Site

TOOL = {tool.name: tool for tool in TOOLS}
HANDED = {  # what each hands out: an item with answers
    "prefloop": {"assignment": "t1", "completions": [{"id": "a"}, {"id": "b"}]},
    "label_studio": {"id": 7, "data": {"answers": [{"id": "answer-0"}, {"id": "answer-1"}]}},
    "doccano": {"results": [{"id": 9, "text": "x"}]},
}


class Stub:
    """A line on which everything takes 10 ms; it writes down what was asked, and refuses what it is told to."""

    def __init__(self, handed: dict[str, Any], refused: str = "nothing"):
        self.handed, self.refused, self.asked = handed, refused, []

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        self.asked.append((method, path, body, headers))
        await asyncio.sleep(0.001)
        status = 500 if path.endswith(self.refused) else 200 if len(self.asked) % 2 else 201
        return Answer(status, {}, json.dumps(self.handed).encode() if "next" in path or "examples?" in path else b"{}", 0.01)


def apart(work: Any) -> Any:
    """Run in a thread of its own: a browser that is being driven has an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def one_task(name: str, refused: str = "nothing") -> tuple[list[Any], Seen]:
    """What is asked for one task, and what was seen."""
    stub, seen = Stub(HANDED[name], refused), Seen()
    given = {"is_over": lambda: len(stub.asked) > 1, "chance": random.Random(0), "think": 1e-6}
    apart(day(TOOL[name], stub, "p", seen, **given))  # type: ignore[arg-type]
    return stub.asked, seen


def test_every_tool_is_asked_for_an_item_and_given_an_order_of_its_answers():
    ours, _ = one_task("prefloop")
    assert [one[:2] for one in ours] == [("POST", "/api/v1/projects/p/next"), ("POST", "/api/v1/assignments/t1/submit")]
    tiers = ours[1][2]["answers"]["rank"]["ranking"]["tiers"]
    assert sorted(tier[0] for tier in tiers) == ["a", "b"] and ours[1][3] == {"Idempotency_Key": "t1"}
    studio, _ = one_task("label_studio")
    assert [one[:2] for one in studio] == [("GET", "/api/projects/p/next/"), ("POST", "/api/tasks/7/annotations/")]
    assert sorted(studio[1][2]["result"][0]["value"]["ranker"]["rank"]) == ["answer-0", "answer-1"]
    doccano, _ = one_task("doccano")
    assert [one[1] for one in doccano] == [
        "/v1/projects/p/examples?confirmed=false&limit=1&offset=0", "/v1/projects/p/examples/9/texts", "/v1/projects/p/examples/9/states",
    ]  # fmt: skip
    assert sorted(doccano[1][2]["text"].split(" > ")) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("name", "requests"), [("prefloop", 1), ("label_studio", 1), ("doccano", 2)])
def test_a_wait_is_that_of_all_requests_a_submit_takes(name, requests):
    _, seen = one_task(name)
    assert (seen.next, seen.submit, seen.wrong) == ([0.01], [0.01 * requests], [])


@pytest.mark.parametrize(("name", "refused"), [("prefloop", "submit"), ("label_studio", "annotations/"), ("doccano", "states")])
def test_what_was_refused_counts_as_failed_and_as_no_wait(name, refused):
    _, seen = one_task(name, refused)
    assert (len(seen.next), seen.submit, len(seen.wrong)) == (1, [], 1)
    counted = summary([seen, seen])
    assert (counted["tasks"], counted["failed"], counted["submit"]["p50_ms"]) == (0, 2, None)


def test_people_work_in_our_own_server_as_they_do_in_the_others(new_url, tmp_path):
    site = Site(tmp_path, new_url("sqlite")).start()
    told = {"project": "main", "tokens": [site.token(role) for role in ("annotator", "reviewer", "manager")]}
    seen = apart(turn(TOOL["prefloop"], site.port, told, seconds=0.6, number=1, think=0.01))
    stored = int(site.one("SELECT count(*) FROM judgment"))
    site.stop()
    assert seen.wrong == [] and 0 < len(seen.submit) == stored
    assert all(0 < wait < 60 for wait in seen.next + seen.submit)


SOME = {
    "tools": {"doccano": {"version": "1.8.4", "tasks": 1234, "failed": 2, "memory_mb": 400.4, "next": {"p50_ms": 99.6, "p95_ms": 201.0},
                          "submit": {"p50_ms": 31.2, "p95_ms": 40.0}, "alone": {"next": {"p50_ms": 60.2}, "submit": {"p50_ms": 20.9}}}},
    "machine": "a processor", "commit": "abc", "turns": 3, "seconds": 40.0, "users": 36, "n_items": 10_000,
}  # fmt: skip


def test_the_table_has_a_row_for_each_tool_and_says_where_it_was_measured(monkeypatch, tmp_path):
    assert "| doccano 1.8.4 | 100, 201 | 31, 40 | 60, 21 | 1,234 | 2 | 400 |" in lines(SOME).splitlines()
    assert lines(SOME).splitlines()[-1] == "a processor; commit abc; 3 turns of 40 s in each, 36 people, 10,000 items."
    monkeypatch.setattr(collect_peers, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("before\n<!-- collect_peers -->\nold\n<!-- /collect_peers -->\nafter\n")
    assert page(SOME) == f"before\n<!-- collect_peers -->\n{lines(SOME)}<!-- /collect_peers -->\nafter\n"
    (tmp_path / "page.md").write_text("no place for it")
    with pytest.raises(SystemExit, match="collect_peers"):
        page(SOME)


def test_the_page_shows_the_result_that_is_kept_and_it_has_the_full_size():
    if not RESULT.is_file():
        assert "Not measured yet." in PAGE.read_text(encoding="utf-8")
        return
    found = json.loads(RESULT.read_text())
    assert page(found) == PAGE.read_text(encoding="utf-8")
    assert {name: found[name] for name in ("users", "seconds", "turns")} == {
        name: FULL[name] for name in ("users", "seconds", "turns")
    }
    assert found["n_items"] == FULL["items"] and list(found["tools"]) == [tool.name for tool in TOOLS]
    assert all(len(one["turns"]) >= 3 for one in found["tools"].values())
