"""Two hundred annotators in one thread: each a connection that is kept, a token, and time to think between claim and submit.

They speak HTTP by hand, because a client library would take more of the two cores than the server that is measured.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

CRLF = b"\r\n"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Line:
    """A connection to the server, opened again where it broke."""

    def __init__(self, port: int, token: str, scheme: str = "Bearer"):
        self.port, self.token = port, f"{scheme} {token}"
        self.ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = json.dumps(body).encode() if body is not None else b""
        own = {"Host": f"127.0.0.1:{self.port}", "Authorization": self.token, "Content-Length": str(len(sent))}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in {**own, "Content-Type": "application/json", **named}.items()]
        message = f"{method} {path} HTTP/1.1\r\n".encode() + CRLF.join(line.encode() for line in lines) + 2 * CRLF + sent
        began = time.perf_counter()
        try:
            reader, head = await self.sent(message)
        except (
            asyncio.IncompleteReadError,
            ConnectionError,
        ):  # the server hangs up after 5 idle seconds; a browser asks again too
            self.close()
            reader, head = await self.sent(message)
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        content = await reader.readexactly(int(found.get("content-length", 0)))
        return Answer(int(head[0].split(" ")[1]), found, content, time.perf_counter() - began)

    async def sent(self, message: bytes) -> tuple[asyncio.StreamReader, list[str]]:
        """The connection, once the head of the answer is there."""
        if self.ends is None or self.ends[0].at_eof():
            self.ends = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.ends
        writer.write(message)
        await writer.drain()
        return reader, (await reader.readuntil(2 * CRLF)).decode("latin-1").split("\r\n")

    def close(self) -> None:
        if self.ends is not None:
            self.ends[1].close()
        self.ends = None


class Seen:
    """Every wait in seconds, by what was asked, and how many tasks were done."""

    def __init__(self) -> None:
        self.next: list[float] = []
        self.submit: list[float] = []
        self.wrong: list[str] = []

    def as_dict(self) -> dict[str, Any]:
        return {"tasks": len(self.submit), "next": spread(self.next), "submit": spread(self.submit), "wrong": len(self.wrong)}


def percentile(values: list[float], share: float) -> float | None:
    """In milliseconds, the smallest value that so many are not above."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


def spread(values: list[float]) -> dict[str, float | None]:
    return {f"p{round(100 * share)}_ms": percentile(values, share) for share in (0.5, 0.95, 0.99)}


async def day(line: Line, slug: str, seen: Seen, *, think: float, is_over: Callable[[], bool], chance: random.Random) -> None:
    """One person: claim, think, submit, until it is over or nothing is left. Whoever thinks begins somewhere in a thought."""
    if think:
        await asyncio.sleep(chance.uniform(0, think))
    while not is_over():
        turn = await line.ask("POST", f"/api/v1/projects/{slug}/next", {})
        if turn.status == 204 and turn.headers.get("prefloop-reason") == "busy":
            continue
        if turn.status == 204:
            return
        if turn.status != 200:
            seen.wrong.append(f"next: {turn.status} {turn.body[:200]!r}")
            return
        seen.next.append(turn.seconds)
        if think:
            await asyncio.sleep(chance.expovariate(1 / think))
        screen = json.loads(turn.body)
        letters = [one["id"] for one in screen["completions"]]
        chance.shuffle(letters)
        answers = {"rank": {"ranking": {"tiers": [[one] for one in letters], "unusable": []}}}
        path, key = f"/api/v1/assignments/{screen['assignment']}/submit", screen["assignment"]
        done = await line.ask("POST", path, {"answers": answers, "active_ms": 1, "input": "api"}, Idempotency_Key=key)
        if done.status not in (200, 202):
            seen.wrong.append(f"submit: {done.status} {done.body[:200]!r}")
            return
        seen.submit.append(done.seconds)


async def crowd(
    port: int, slug: str, tokens: list[str], *, think: float, seconds: float, until: asyncio.Event | None = None
) -> tuple[Seen, float]:
    """Everybody at once, for some seconds or until something else is over; what was seen, and how long it took."""
    seen, lines = Seen(), [Line(port, token) for token in tokens]
    began = time.perf_counter()
    is_over = lambda: until.is_set() if until is not None else time.perf_counter() - began > seconds  # noqa: E731
    given = {"think": think, "is_over": is_over}
    people = [day(line, slug, seen, **given, chance=random.Random(number)) for number, line in enumerate(lines)]
    try:
        await asyncio.gather(*people)
    finally:
        for line in lines:
            line.close()
    return seen, time.perf_counter() - began
