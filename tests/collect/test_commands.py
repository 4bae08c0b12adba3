"""``prefloop collect`` as it is typed."""

import json
import re

import httpx
import pytest
import yaml

from prefloop.collect import accounts, demo, projects, queue
from prefloop.collect.serve import open_database
from prefloop.data.read import read_groups
from tests.collect.server import Running
from tests.command_line import prefloop


@pytest.fixture
def answers(tmp_path):
    rows = [{"prompt": f"question {n}", "completions": [f"answer {k}" for k in range(3)]} for n in range(3)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def typed(data, *words):
    return prefloop("collect", *words, "--data", data)


def test_from_a_file_to_rankings_without_a_server(tmp_path, answers):
    data = tmp_path / "service"
    looked = typed(data, "import", "first", answers, "--template", "rank", "--dry-run")
    assert (looked.code, looked.out.splitlines()) == (
        0,
        ["answers.jsonl: unranked, 3 rows, 3 items (0 there already)", "nothing was stored (--dry-run)"],
    )
    assert typed(data, "import", "first", answers).code == 2  # still no such project
    stored = typed(data, "import", "first", answers, "--template", "rank", "--overlap", "2")
    assert stored.out.splitlines()[-1] == "3 items are now in first"
    assert typed(data, "import", "first", answers).out.splitlines()[-1] == "0 items are now in first"
    token = typed(data, "user", "token", "sim:0", "--project", "first").out.strip()
    assert re.fullmatch(r"prefloop_[\w-]{43}", token)
    assert typed(data, "user", "list").out.splitlines() == ["sim:0: annotator of first"]
    judge_all(data, token)
    exported = typed(data, "export", "first", "--out", tmp_path / "out", "least=1")
    assert exported.out.strip() == f"wrote 3 judgments of 3 items to {tmp_path / 'out'}"
    (ranking,) = read_groups(tmp_path / "out" / "kway.jsonl").records[0].rankings
    assert ranking.annotator == "sim:0"
    saved = typed(data, "backup", tmp_path / "copy")
    assert saved.out.strip() == f"wrote {tmp_path / 'copy.sqlite'}: 3 judgments of 3 items, checked"
    assert "is sound" in typed(data, "restore", tmp_path / "copy.sqlite", "--verify").out
    assert "restored 3 judgments" in typed(data, "restore", tmp_path / "copy.sqlite").out
    assert typed(data, "user", "erase", "sim:0").code == 0
    assert typed(data, "user", "list").out.startswith("erased-")


def judge_all(data, token) -> None:
    from prefloop.collect import turns

    database = open_database(data, "")
    who = database.read(lambda c: accounts.by_token(c, token, database.clock()))
    project = database.read(lambda c: c.exec_driver_sql("SELECT id FROM project").scalar_one())

    def work(connection) -> None:
        while isinstance(turn := queue.claim(connection, project_id=project, user_id=who.user_id, now=1), queue.Turn):
            said = turns.Said({"rank": {"ranking": "a > b > c"}})
            turns.submit(
                connection, assignment_id=turn.assignment.id, user_id=who.user_id, key=turn.assignment.id, said=said, now=1
            )

    database.write(work)
    database.close()


def test_a_service_is_made_ready_before_it_is_started(tmp_path):
    first = typed(tmp_path / "service", "init", "--address", "https://rank.example.org/")
    assert re.search(r"https://rank\.example\.org/invite#[\w-]{43}\n", first.out) and first.code == 0
    database = open_database(tmp_path / "service", "")
    database.write(lambda c: accounts.create_user(c, login="ada", is_owner=True, now=1))
    database.close()
    assert typed(tmp_path / "service", "init").out.endswith("is ready, and has an owner\n")


def test_the_demo_has_something_to_judge_in_both_languages_and_is_made_once(tmp_path):
    database = open_database(tmp_path, "")
    said = [line for _ in range(2) for line in demo.links(database, "http://x")]
    assert [line.partition(",")[0] for line in said] == ["tips", "changshi"] * 2
    written = {one["slug"]: one for one in yaml.safe_load(demo.EXAMPLES.read_text(encoding="utf-8"))}

    def look(connection) -> None:
        for name, expected in written.items():
            found = projects.find(connection, name)
            counts = projects.progress(connection, found.id)
            assert (found.title, found.state) == (expected["title"], "active")
            assert (counts["items"], counts["wanted"]) == (len(expected["items"]), 2 * len(expected["items"]))
            worker = accounts.create_user(connection, login=name, now=1)
            accounts.join(connection, project_id=found.id, user_id=worker, role="annotator", now=1)
            turn = queue.claim(connection, project_id=found.id, user_id=worker, now=1)
            assert isinstance(turn, queue.Turn) and turn.schema.id == expected["template"]

    database.write(look)
    database.close()


WRONG = [
    (["export", "x", "--out", "out"], "there is no service in"),
    (["user", "list"], "there is no service in"),
    (["import", "x", "answers.jsonl", "--template", "arean"], "did you mean 'arena'"),
    (["import", "x", "nowhere.jsonl", "--template", "rank"], "there is no data at nowhere.jsonl"),
    (["import", "x", "nowhere.jsonl", "--template", "rank", "--schema", "y"], "either --template or --schema"),
    (["import", "x", "nowhere.jsonl", "--schema", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    (["restore", "nowhere.sqlite"], "there is no backup nowhere.sqlite"),
    (["serve", "--database", "mysql://x"], "mysql is not supported"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_what_cannot_be_done_is_one_message_and_exit_code_2(tmp_path, words, said):
    outcome = typed(tmp_path / "service", *words)
    assert outcome.code == 2
    assert said in outcome.err and "Traceback" not in outcome.err


def test_an_account_that_is_not_there_is_named(tmp_path, answers):
    data = tmp_path / "service"
    typed(data, "import", "first", answers, "--template", "rank")
    outcome = typed(data, "user", "token", "ada")
    assert outcome.code == 2 and "there is no account 'ada'\n  accounts: none yet" in outcome.err
    assert re.fullmatch(r"http://127\.0\.0\.1:8090/invite#[\w-]{43}\n", typed(data, "user", "invite", "first").out)
    assert "a role is" not in typed(data, "user", "invite").out
    assert "one is invited as" in typed(data, "user", "invite", "first", "--role", "king").err


def test_a_bad_file_is_refused_by_a_dry_run_too(tmp_path, answers):
    answers.write_text(answers.read_text() + "{\n")
    outcome = typed(tmp_path / "service", "import", "first", answers, "--template", "rank", "--dry-run")
    assert outcome.code == 2 and "answers.jsonl:4, not JSON" in outcome.err


def test_the_first_start_prints_the_owners_link_and_ctrl_c_ends_it(tmp_path):
    running = Running(tmp_path, f"sqlite:///{tmp_path}/collect.sqlite", more=("--proxy", "127.0.0.1")).start()
    said = (tmp_path / "server.log").read_text()
    link = re.search(rf"http://127\.0\.0\.1:{running.port}/invite#([\w-]{{43}})", said)
    assert link is not None
    behind_tls(running.address, link[1])
    second = typed(tmp_path, "serve", "--port", "1")
    assert second.code == 1 and "another server works on" in second.err
    assert running.stop() == 0


def behind_tls(address: str, invite: str) -> None:
    """What somebody gets who comes through a proxy that speaks TLS, and somebody who does not."""
    with httpx.Client(base_url=address, trust_env=False) as http:
        assert "strict-transport-security" not in http.get("/login").headers
        through = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "203.0.113.7",
            "Host": "rank.example.org",
            "Origin": "https://rank.example.org",
        }
        joined = http.post(
            f"/api/v1/invites/{invite}/accept", json={"login": "ada", "password": "a password of mine"}, headers=through
        )
        assert joined.status_code == 200, joined.text
        assert "strict-transport-security" in joined.headers
        cookie = joined.headers["set-cookie"]
        assert cookie.startswith("__Host-prefloop_session=") and "Secure" in cookie and "HttpOnly" in cookie
