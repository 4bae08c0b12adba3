"""Other people's models behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama, a vendor): text in, text out, over HTTP.

A YAML file says where, and who:

    url: http://127.0.0.1:8000/v1      # the part before /chat/completions
    model: some-model
    key: SOME_VARIABLE                 # the environment variable that holds the key; never the key itself

A request that got no answer, or one that says later (408, 429, 5xx), is sent again, each time after a longer wait; anything
else a server objects to ends the run with what it said. Answers come back in the order of the questions.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import Field

from prefloop.config import Config, parse, read_yaml
from prefloop.errors import ConfigError, RunError
from prefloop.records import Completion, Prompt

LATER = (408, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0

Turn = dict[str, str]  # role and content
Q = TypeVar("Q")
A = TypeVar("A")
C = TypeVar("C", bound="ServerConfig")


class ServerConfig(Config):
    """A model behind an OpenAI-compatible server."""

    url: str = Field(description="the part of the address before /chat/completions, such as http://127.0.0.1:8000/v1")
    model: str = Field(description="the model's name there")
    key: str = Field("", description="environment variable that holds the key; empty sends none")
    timeout: float = Field(120.0, gt=0, description="seconds to wait for one answer")
    at_once: int = Field(8, ge=1, le=256, description="requests at a time")
    attempts: int = Field(5, ge=1, description="times a request is sent before the run gives up")
    wait: float = Field(1.0, ge=0, description="seconds before the second attempt; doubled for each one after it")


def read_server(cls: type[C], file: str) -> C:
    """The settings in a YAML file."""
    return parse(cls, read_yaml(Path(file)), where=file)


def say_to(server: ServerConfig, http: httpx.Client, turns: Sequence[Turn], **how: Any) -> str:
    """The model's answer to a conversation; ``how`` are further fields of the request, such as temperature and max_tokens."""
    body = {"model": server.model, "messages": list(turns), **how}
    for attempt in range(server.attempts):
        is_last = attempt == server.attempts - 1
        try:
            answer = http.post("/chat/completions", json=body)
        except httpx.TransportError as error:
            if is_last:
                raise RunError(
                    f"{server.url} does not answer: {error or type(error).__name__}\n  is the server running, and is this its address?"
                ) from None
        else:
            if answer.status_code not in LATER or is_last:
                return words_of(answer, server)
        time.sleep(min(server.wait * 2**attempt, LONGEST_WAIT))
    raise AssertionError("the last attempt returns or raises")


def words_of(answer: httpx.Response, server: ServerConfig) -> str:
    if not answer.is_success:
        raise RunError(f"{server.url} answered {answer.status_code} for the model {server.model}: {answer.text[:200]!r}")
    try:
        content = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise RunError(
            f"{server.url} does not answer as an OpenAI-compatible server does: {answer.text[:200]!r}\n"
            f"  expected choices[0].message.content; url is the part of the address before /chat/completions"
        ) from None
    return content if isinstance(content, str) else ""  # null where a model said nothing


def ask_all(server: ServerConfig, ask: Callable[[httpx.Client, Q], A], questions: Sequence[Q]) -> list[A]:
    """``ask(http, question)`` for every question, ``at_once`` at a time; the answers in the order of the questions."""
    headers = {"Authorization": f"Bearer {key_of(server)}"} if server.key else {}
    with (
        httpx.Client(base_url=server.url.rstrip("/"), headers=headers, timeout=server.timeout, trust_env=False) as http,
        ThreadPoolExecutor(server.at_once) as pool,
    ):
        asked = [pool.submit(ask, http, question) for question in questions]
        try:
            return [one.result() for one in asked]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what has not been asked yet need not be
            raise


def key_of(server: ServerConfig) -> str:
    key = os.environ.get(server.key, "")
    if not key:
        raise ConfigError(
            f"key: the environment variable {server.key} is empty\n  put the key of {server.url} into it, or leave key out"
        )
    return key


def turns_of(prompt: Prompt) -> list[Turn]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def server_answers(
    server: ServerConfig, prompts: Sequence[Prompt], *, k: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
) -> list[Completion]:
    """K answers to every prompt, those of one prompt adjacent. Each has a seed of its own, which servers may or may not heed."""
    questions = [(prompt, j) for prompt in prompts for j in range(k)]
    how = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}

    def ask(http: httpx.Client, question: tuple[Prompt, int]) -> str:
        prompt, j = question
        return say_to(server, http, turns_of(prompt), seed=(seed + j) % 2**31, **how)

    said = ask_all(server, ask, questions)
    return [
        Completion.of(prompt, text, source=f"policy:{server.model}") for (prompt, _), text in zip(questions, said, strict=True)
    ]
