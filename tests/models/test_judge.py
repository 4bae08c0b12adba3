"""A server of the test's own, and a judge on it: marks, nonsense, silence, errors; other models' answers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefloop.errors import ConfigError, RunError
from prefloop.models.judge import JudgeConfig, JudgeScorer, marks_in
from prefloop.models.scorer import load_scorer
from prefloop.models.server import ServerConfig, server_answers
from prefloop.records import Completion, Prompt
from tests.helpers import assert_close
from tests.ports import taken_port

Reply = Callable[[dict[str, Any]], Any]  # the request's body -> text, or (status, body)


@contextmanager
def served(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible server on this machine that answers by ``reply``: its url, and the requests it has had."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append({**body, "path": self.path, "key": self.headers.get("authorization")})
            said = reply(body)
            status, content = said if isinstance(said, tuple) else (200, {"choices": [{"message": {"content": said}}]})
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def settings(path: Path, url: str, **more: Any) -> str:
    path.write_text(yaml.safe_dump({"url": url, "model": "tiny", "wait": 0, **more}))
    return str(path)


def shown(body: dict[str, Any]) -> dict[str, Any]:
    """What a judge is shown: the conversation and the answer."""
    return json.loads(body["messages"][-1]["content"])


def by_words(body: dict[str, Any]) -> str:
    """A judge that counts words."""
    n = min(5, len(shown(body)["answer"].split()))
    return f"Relevance: {n}\n**correctness** = {n}/5\ncoherence: 5\nsafety: 1"


PROMPTS = [Prompt.of("how many?"), Prompt.of("why?"), Prompt.of("who?")]
ANSWERS = [Completion.of(prompt, text) for prompt, text in zip(PROMPTS, ("one two", "because of it", "x"), strict=True)]


def test_a_score_is_the_sum_of_the_marks_in_the_order_of_the_answers(tmp_path):
    with served(by_words) as (url, asked):
        scorer = load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', url)}")
        assert_close(scorer(PROMPTS, ANSWERS), [2 + 2 + 6.0, 3 + 3 + 6.0, 1 + 1 + 6.0])
        assert scorer([], []) == []
    assert {one["path"] for one in asked} == {"/v1/chat/completions"}
    assert {one["model"] for one in asked} == {"tiny"} and {one["key"] for one in asked} == {None}
    said = [shown(one) for one in asked]
    assert {"conversation": [{"role": "user", "content": "why?"}], "answer": "because of it"} in said


CRITERIA = JudgeConfig.of(url="http://x", model="m", criteria=["relevance", "safety"])


@pytest.mark.parametrize(
    ("words", "marks"),
    [
        ("relevance: 4\nsafety: 2", [4, 2]),
        ("**Safety**: 2.5/5\n- Relevance = 1", [1, 2.5]),
        ("relevance: 4", None),
        ("relevance: 4\nrelevance: 5\nsafety: 1", None),
        ("relevance: 6\nsafety: 1", None),
        ("relevance: 0\nsafety: 1", None),
        ("relevance: -4\nsafety: 1", None),
        ("relevance: 41\nsafety: 1", None),
        ("relevance: nan\nsafety: 1", None),
        ("irrelevance: 4\nsafety: 1", None),
        ("I would say 4 and 2.", None),
        ("", None),
    ],
)
def test_a_reply_counts_if_every_criterion_has_exactly_one_mark_within_the_scale(words, marks):
    assert marks_in(words, CRITERIA) == marks


def test_a_judge_that_answers_nonsense_is_asked_again_and_then_the_answer_has_the_lowest_mark(tmp_path):
    def reply(body: dict[str, Any]) -> str:
        answer = shown(body)["answer"]
        if answer == "x":
            return "Ignore the scale! relevance: 99"
        return by_words(body) if body["seed"] else "hm"  # the second time it knows

    with served(reply) as (url, asked):
        judge = JudgeScorer(settings(tmp_path / "judge.yaml", url, max_unread=0.4))
        assert_close(judge(PROMPTS, ANSWERS), [10.0, 12.0, 4.0])
    assert judge.counts == {"judged": 3, "unread": 1}
    assert sorted(one["seed"] for one in asked if shown(one)["answer"] == "x") == [0, 1, 2]
    assert sorted(one["seed"] for one in asked if shown(one)["answer"] == "one two") == [0, 1]


def test_where_too_few_replies_can_be_read_the_run_ends_with_the_judges_words(tmp_path):
    with served(lambda body: "as a large language model") as (url, _):
        scorer = load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', url)}")
        with pytest.raises(
            RunError, match=r"no readable marks for 3 of 3 answers(.|\n)*as a large language model(.|\n)*max_unread"
        ):
            scorer(PROMPTS, ANSWERS)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((401, "no such key"), "answered 401 for the model tiny: 'no such key'"),
        ((200, "<html>"), "does not answer as an OpenAI-compatible server does: '<html>'"),
        ((200, {"choices": []}), "does not answer as an OpenAI-compatible server"),
        ((503, "busy"), "answered 503"),
    ],
)
def test_a_server_that_objects_ends_the_run_with_what_it_said(tmp_path, reply, told):
    with served(lambda body: reply) as (url, asked):
        scorer = load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', url, attempts=2, at_once=1)}")
        with pytest.raises(RunError, match=told):
            scorer(PROMPTS[:1], ANSWERS[:1])
    assert len(asked) == (2 if reply[0] == 503 else 1)


def test_a_server_that_is_busy_for_a_while_is_asked_again(tmp_path):
    left = [503, 429]

    def reply(body: dict[str, Any]) -> Any:
        return (left.pop(), "later") if left else by_words(body)

    with served(reply) as (url, _):
        assert_close(load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', url)}")(PROMPTS[:1], ANSWERS[:1]), [10.0])


def test_nobody_there_is_told_by_address(tmp_path):
    with taken_port() as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        scorer = load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', url, attempts=2)}")
        with pytest.raises(RunError, match=f"{url} does not answer"):
            scorer(PROMPTS, ANSWERS)


def test_the_key_comes_from_the_environment_and_is_asked_for_by_name(tmp_path, monkeypatch):
    with served(by_words) as (url, asked):
        scorer = load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', url, key='A_TEST_KEY')}")
        with pytest.raises(ConfigError, match="the environment variable A_TEST_KEY is empty"):
            scorer(PROMPTS, ANSWERS)
        monkeypatch.setenv("A_TEST_KEY", "abc")
        scorer(PROMPTS, ANSWERS)
    assert {one["key"] for one in asked} == {"Bearer abc"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"low": 5, "high": 5}, "not below"),
        ({"criteria": ["a", "A "]}, "twice"),
        ({"criteria": []}, "criteria"),
        ({"modle": "x"}, "modle"),
    ],
)
def test_settings_of_a_judge_that_make_no_sense_are_refused(tmp_path, more, told):
    with pytest.raises(ConfigError, match=told):
        load_scorer(f"judge:{settings(tmp_path / 'judge.yaml', 'http://127.0.0.1:1/v1', **more)}")


def test_other_models_answer_in_the_order_of_the_prompts_each_with_a_seed(tmp_path):
    def reply(body: dict[str, Any]) -> str:
        return f"{body['messages'][-1]['content']} {body['seed']}"

    with served(reply) as (url, asked):
        server = ServerConfig.of(url=url, model="tiny")
        said = server_answers(server, PROMPTS, k=2, max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3)
    assert [c.text for c in said] == [f"{p.text} {seed}" for p in PROMPTS for seed in (3, 4)]
    assert {c.source for c in said} == {"policy:tiny"}
    assert [(one["max_tokens"], one["temperature"], one["top_p"]) for one in asked] == [(7, 0.5, 0.9)] * 6
