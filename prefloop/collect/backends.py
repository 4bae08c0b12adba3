"""Who answers in a live chat: servers that speak OpenAI's protocol, and functions of one's own. Only those somebody with the
files of this machine has named: ``chat.yaml`` in the folder of the service.

    backends:
      - {name: small, url: "http://127.0.0.1:8000/v1", model: my-model, weight: 2, params: {temperature: 0.9, max_tokens: 400}}
      - {name: other, url: "https://models.example/v1", model: theirs, key_env: THEIR_KEY}
      - {name: ours, python: "my_module:answer"}      # answer(messages, **params) -> text

No one who uses the pages can make the service ask another address: hosts come from that file, redirects are not followed,
proxies of the environment are not used, and a name that leads to a link-local address (where clouds keep credentials) is
refused at the moment it is used; what is connected to is the very address that was looked at.
"""

import ipaddress
import json
import os
import pkgutil
import re
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from pydantic import Field, field_validator, model_validator

from prefloop.collect.answers import is_storable
from prefloop.config import Config, parse
from prefloop.errors import ConfigError

FILE = "chat.yaml"
NAME = re.compile(r"[\w.@/-]{1,60}")
MAX_REPLY = 100_000  # characters of one
MAX_BYTES = 2 * 2**20  # of what a server sends
METADATA = ipaddress.ip_address("fd00:ec2::254")  # a cloud's, outside the link-local range
Messages = Sequence[dict[str, str]]


class Failed(Exception):
    """Why there is no reply; for the log and the manager, never for the annotator."""


class BackendConfig(Config):
    """One that answers."""

    name: str = Field(description="what exports call it: policy:NAME")
    url: str = Field("", description="of a server that speaks OpenAI's protocol, up to and with /v1")
    model: str = Field("", description="what that server calls the model")
    python: str = Field("", description="instead of a url: MODULE:FUNCTION, called with the messages and the params")
    weight: float = Field(1.0, gt=0, description="how often it is asked, against the others")
    key_env: str = Field("", description="environment variable that holds the key sent to the server")
    params: dict[str, Any] = Field({}, description="sent along: temperature, max_tokens …")

    @field_validator("name")
    @classmethod
    def a_name_can_stand_in_an_export(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("a name is up to 60 letters, digits, and . @ / - _")
        return name

    @model_validator(mode="after")
    def it_is_one_thing_that_can_be_asked(self) -> "BackendConfig":
        if bool(self.url) == bool(self.python):
            raise ValueError(f"{self.name} needs either a url or python")
        if self.url:
            place = urlsplit(self.url)
            if place.scheme not in ("http", "https") or not place.hostname or place.username or place.query or place.fragment:
                raise ValueError(f"{self.url!r} is no address of a server, such as http://127.0.0.1:8000/v1")
            if not self.model:
                raise ValueError(f"{self.name} needs the name of a model")
        return self


class ChatConfig(Config):
    """What live chats of a service are answered by, and how much."""

    backends: list[BackendConfig] = Field([], description="those that answer")
    timeout: float = Field(60.0, gt=0, le=600, description="seconds until the replies that are there are shown")
    replies_per_day: int = Field(1000, ge=1, description="that one person may ask for, all projects together")
    replies_per_project: int = Field(0, ge=0, description="that may be asked for in all; 0 = no end")

    @model_validator(mode="after")
    def names_are_used_once(self) -> "ChatConfig":
        names = [one.name for one in self.backends]
        if twice := sorted({one for one in names if names.count(one) > 1}):
            raise ValueError(f"two back-ends are called {', '.join(twice)}")
        return self

    def named(self, name: str) -> BackendConfig:
        return next(one for one in self.backends if one.name == name)


def config_in(folder: Path) -> ChatConfig:
    """The back-ends of a service; none where nobody named any."""
    path = folder / FILE
    if not path.is_file():
        return ChatConfig.of()
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold key: value lines, it holds a {type(given).__name__}")
    config = parse(ChatConfig, given, where=str(path))
    for one in config.backends:
        if one.python:
            function_named(one.python)
    return config


@cache
def function_named(name: str) -> Callable[..., Any]:
    """MODULE:FUNCTION, with the messages and a back-end's params in, and text out."""
    try:
        found = pkgutil.resolve_name(name)
    except Exception as error:  # a module of somebody's own may fail in any way while it is read
        raise ConfigError(
            f"python: {name!r} cannot be imported, {type(error).__name__}: {error}\n"
            f"  write MODULE:FUNCTION; MODULE must be importable from here (PYTHONPATH)"
        ) from None
    if ":" not in name or not callable(found):
        raise ConfigError(f"python: {name!r} is no function\n  write MODULE:FUNCTION")
    return found


# --- asking -----------------------------------------------------------------------------------------------------------------


def client() -> httpx.Client:
    """For all back-ends of a service."""
    return httpx.Client(follow_redirects=False, trust_env=False, limits=httpx.Limits(max_connections=None))


def reply(http: httpx.Client, backend: BackendConfig, messages: Messages, *, ends: float) -> str:
    """One answer before ``ends`` (of time.monotonic), or Failed."""
    text = called(backend, messages) if backend.python else asked(http, backend, messages, ends=ends)
    if not isinstance(text, str) or not text.strip():
        raise Failed("an empty answer, or none that is text")
    if len(text) > MAX_REPLY:
        raise Failed(f"an answer of {len(text):,} characters; allowed are {MAX_REPLY:,}")
    if "\0" in text or not is_storable(text):
        raise Failed("an answer that cannot be stored")
    return text


def called(backend: BackendConfig, messages: Messages) -> Any:
    try:
        return function_named(backend.python)([dict(message) for message in messages], **backend.params)
    except Exception as error:
        raise Failed(f"{type(error).__name__}: {error}"[:300]) from error


def asked(http: httpx.Client, backend: BackendConfig, messages: Messages, *, ends: float) -> Any:
    """POST /chat/completions; the addresses of the host in turn until one of them takes the connection."""
    place = urlsplit(backend.url)
    port = place.port or (443 if place.scheme == "https" else 80)
    key = os.environ.get(backend.key_env, "") if backend.key_env else ""
    headers = {"Host": place.netloc, **({"Authorization": f"Bearer {key}"} if key else {})}
    body = {**backend.params, "model": backend.model, "messages": list(messages), "stream": False}
    failure = Failed(f"{place.hostname} leads nowhere")
    for address in addresses(str(place.hostname), port):
        url = httpx.URL(f"{backend.url.rstrip('/')}/chat/completions").copy_with(host=address)
        request = http.build_request(
            "POST", url, json=body, headers=headers, timeout=left(ends), extensions=extensions(place.hostname, ends)
        )
        try:
            return said(sent(http, request, ends))
        except httpx.ConnectError as error:
            failure = Failed(f"no connection: {error}")
        except httpx.HTTPError as error:
            raise Failed(f"{type(error).__name__}: {error}"[:300]) from None
    raise failure


def extensions(host: str | None, ends: float) -> dict[str, Any]:
    """The name whose certificate is asked for, because the address is connected to; and time limits, which replace the client's."""
    return {"sni_hostname": host, "timeout": httpx.Timeout(left(ends)).as_dict()}


def left(ends: float) -> float:
    seconds = ends - time.monotonic()
    if seconds <= 0:
        raise Failed("out of time")
    return seconds


def addresses(host: str, port: int) -> list[str]:
    """Where a host may be reached; Failed where any of it is a place no back-end can be."""
    try:
        found = list(dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except OSError as error:
        raise Failed(f"{host} is not known: {error}") from None
    for one in found:
        if is_forbidden(one):
            raise Failed(f"{host} leads to {one}, where no back-end may be")
    return found


def is_forbidden(address: str) -> bool:
    """Link-local and metadata addresses, and those that are no single machine's."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip == METADATA or (ip.is_reserved and not ip.is_loopback)


def sent(http: httpx.Client, request: httpx.Request, ends: float) -> bytes:
    """The body of the answer, as long as there is time for it and it is not too long."""
    answer = http.send(request, stream=True)
    try:
        if answer.status_code != 200:
            raise Failed(f"the server answered {answer.status_code}")
        content = bytearray()
        for part in answer.iter_bytes():
            content += part
            left(ends)  # a server may send a letter now and then for ever
            if len(content) > MAX_BYTES:
                raise Failed(f"the server sent more than {MAX_BYTES // 2**20} MiB")
        return bytes(content)
    finally:
        answer.close()


def said(content: bytes) -> Any:
    """The text in a chat completion."""
    try:
        return json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Failed("the server answered something that is no chat completion") from None
