"""The collection service beside Label Studio and doccano. ``python -m benchmarks collect_peers``.

Each is what ``pip install`` and its own start command give, on SQLite, on this machine, with the same 10,000 items of four
answers. The same people by the same clock (36 annotators with a token, 5 s of thought on average) work in one after the other,
in turns; what is reported is what they waited for the next item and for their answer to be kept.

    prefloop       three judgments of an item; the next turn is leased, a ranking is submitted
    Label Studio   ``maximum_annotations`` 3 and a Ranker; the next task is locked, an annotation is created
    doccano        has no ranking and no queue: everybody reads the first text not confirmed yet, writes the order as a line and
                   confirms it, which are two requests; nothing keeps two people from the same text
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.collect_load import BEFORE, OVERLAP, THINK, prepare, say, write_lines
from benchmarks.environments import FOLDER, pip
from benchmarks.machine import ROOT, commit, machine, memory
from benchmarks.people import Answer, Line, Seen, percentile, spread
from prefloop import __version__
from prefloop.collect import items, projects
from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import migrate
from prefloop.records import Completion, Prompt

NAME = "collect_peers"
RESULT = ROOT / "benchmarks" / "results" / f"{NAME}.json"
WORK = ROOT / "benchmarks" / ".work" / NAME
PAGE = ROOT / "docs" / "collect.md"
MARKED = re.compile(rf"(?<=<!-- {NAME} -->\n).*?(?=<!-- /{NAME} -->)", re.DOTALL)
FULL = {"items": 10_000, "users": 36, "seconds": 30.0, "turns": 3}
STARTS_WITHIN = 180.0


class Task(NamedTuple):
    """What somebody was handed."""

    id: Any
    answers: list[str]


class Tool(NamedTuple):
    """One of those compared: how it is installed, and how its people ask."""

    name: str
    requirements: tuple[str, ...]  # what pip is asked for, itself first; none for our own
    scheme: str  # of the token
    next: Callable[[Line, Any], Awaitable[tuple[Answer, Task | None]]]
    submit: Callable[[Line, Any, Task, random.Random], Awaitable[list[Answer]]]

    @property
    def environment(self) -> Path:
        return FOLDER / self.requirements[0].replace("==", "-")


# --- how their people ask ---------------------------------------------------------------------------------------------------


async def our_next(line: Line, project: Any) -> tuple[Answer, Task | None]:
    answer = await line.ask("POST", f"/api/v1/projects/{project}/next", {})
    screen = json.loads(answer.body) if answer.status == 200 else {}
    return answer, Task(screen["assignment"], [one["id"] for one in screen["completions"]]) if screen else None


async def our_submit(line: Line, project: Any, task: Task, chance: random.Random) -> list[Answer]:
    tiers = [[one] for one in chance.sample(task.answers, len(task.answers))]
    body = {"answers": {"rank": {"ranking": {"tiers": tiers, "unusable": []}}}, "active_ms": 1, "input": "api"}
    return [await line.ask("POST", f"/api/v1/assignments/{task.id}/submit", body, Idempotency_Key=task.id)]


async def studio_next(line: Line, project: Any) -> tuple[Answer, Task | None]:
    answer = await line.ask("GET", f"/api/projects/{project}/next/")
    found = json.loads(answer.body) if answer.status == 200 else {}
    return answer, Task(found["id"], [one["id"] for one in found["data"]["answers"]]) if found else None


async def studio_submit(line: Line, project: Any, task: Task, chance: random.Random) -> list[Answer]:
    order = chance.sample(task.answers, len(task.answers))
    result = {"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": {"rank": order}}}
    return [await line.ask("POST", f"/api/tasks/{task.id}/annotations/", {"result": [result], "lead_time": 1.0})]


async def doccano_next(line: Line, project: Any) -> tuple[Answer, Task | None]:
    answer = await line.ask("GET", f"/v1/projects/{project}/examples?confirmed=false&limit=1&offset=0")
    found = json.loads(answer.body)["results"] if answer.status == 200 else []
    return answer, Task(found[0]["id"], list("abcd")) if found else None


async def doccano_submit(line: Line, project: Any, task: Task, chance: random.Random) -> list[Answer]:
    place = f"/v1/projects/{project}/examples/{task.id}"
    order = " > ".join(chance.sample(task.answers, len(task.answers)))
    return [await line.ask("POST", f"{place}/texts", {"text": order}), await line.ask("POST", f"{place}/states", {})]


TOOLS = (
    Tool("prefloop", (), "Bearer", our_next, our_submit),
    Tool("label_studio", ("label-studio==1.23.2",), "Token", studio_next, studio_submit),
    # with the newest marshmallow and NumPy, which its own requirements allow, doccano does not start
    Tool("doccano", ("doccano==1.8.4", "marshmallow==3.26.1", "numpy==1.26.4"), "Token", doccano_next, doccano_submit),
)
TITLES = {"prefloop": "prefloop", "label_studio": "Label Studio", "doccano": "doccano"}


# --- databases with something in them ---------------------------------------------------------------------------------------


def python_of(tool: Tool) -> str:
    """The interpreter a tool lives in; a peer's environment is made where it is missing."""
    if not tool.requirements:
        return sys.executable
    python, ready = tool.environment / "bin" / "python", tool.environment / ".ready"
    wanted = " ".join(tool.requirements)
    if not (ready.is_file() and ready.read_text() == wanted):
        say(f"making {tool.environment.relative_to(ROOT)} (up to 1 GB)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(tool.environment)], check=True)
        pip(python, *tool.requirements)
        ready.write_text(wanted)
    return str(python)


def environment_of(tool: Tool, folder: Path) -> dict[str, str]:
    """What tells a tool where its data are, and that it shall ask nobody outside."""
    own = {
        "label_studio": {
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder), "DJANGO_DB": "sqlite", "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false",
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        },
        "doccano": {
            "DOCCANO_HOME": str(folder), "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3", "MEDIA_ROOT": str(folder / "media"),
            "STANDALONE": "True", "DJANGO_SETTINGS_MODULE": "config.settings.production", "SECRET_KEY": "of a benchmark",
        },
    }.get(tool.name, {})  # fmt: skip
    return {**os.environ, **own, "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}


def filled(tool: Tool, *, n_items: int, users: int) -> Path:
    """A folder with a tool's database as it is before anybody works; made once for a size."""
    folder = WORK / f"{tool.name}-{version_of(tool)}-{n_items}-{users}"
    ready = folder / "told.json"
    if ready.is_file() and tool.requirements:  # our own is quickly made, and of this commit
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_lines(folder / "items.jsonl", n_items)
    began = time.perf_counter()
    if not tool.requirements:
        ready.write_text(json.dumps(fill_ours(folder, n_items, users)))
    else:
        words = [python_of(tool), str(ROOT / "benchmarks" / "collect_peers_setup.py"), tool.name, str(folder / "items.jsonl")]
        with (folder / "setup.log").open("wb") as log:
            done = subprocess.run(
                [*words, str(users), str(OVERLAP)],
                env=environment_of(tool, folder),
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        if done.returncode:
            raise SystemExit(f"bench: {tool.name} could not be filled:\n{(folder / 'setup.log').read_text()[-2000:]}")
        ready.write_bytes(done.stdout)
    say(f"{tool.name}: {n_items:,} items and {users} people in {time.perf_counter() - began:.0f} s")
    return folder


def fill_ours(folder: Path, n_items: int, users: int) -> dict[str, Any]:
    database = Database(database_url(f"sqlite:///{folder}/collect.sqlite"))
    migrate(database)
    tokens, _ = prepare(database, users=users, before=0)
    project_id, now = database.read(lambda c: projects.find(c, BEFORE).id), database.clock()
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    for start in range(0, n_items, 500):
        made = []
        for row in rows[start : start + 500]:
            prompt = Prompt.of(row["prompt"])
            made.append(items.new_item(prompt, [Completion.of(prompt, text) for text in row["completions"]]))
        database.write(lambda c, made=made: items.add(c, project_id, made, now=now))
    database.close()
    return {"project": BEFORE, "tokens": tokens}


# --- servers ----------------------------------------------------------------------------------------------------------------


@contextmanager
def running(tool: Tool, folder: Path, port: int) -> Iterator[int]:
    """A tool's server on a loopback port, with its own start command; its process."""
    from tests.collect.postgres import die_with_the_tests

    python, where = python_of(tool), None
    words = [
        "-m",
        "prefloop.cli",
        "collect",
        "serve",
        "--data",
        str(folder),
        "--database",
        f"sqlite:///{folder}/collect.sqlite",
        "--port",
        str(port),
    ]
    ready = "/health/ready"
    if tool.name == "label_studio":
        words = [
            "-m",
            "label_studio.server",
            "start",
            "--no-browser",
            "--internal-host",
            "127.0.0.1",
            "--port",
            str(port),
            "--data-dir",
            str(folder),
        ]
        ready = "/health"
    if tool.name == "doccano":  # as `doccano webserver` does, but on loopback
        workers = 2 * (os.cpu_count() or 1) + 1
        where = next(tool.environment.glob("lib/python*/site-packages/backend"))
        words, ready = ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(workers), "config.wsgi"], "/v1/me"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [python, *words], cwd=where, env=environment_of(tool, folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=die_with_the_tests,
        )  # fmt: skip
    try:
        ends = time.monotonic() + STARTS_WITHIN
        while not answers(f"http://127.0.0.1:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"bench: {tool.name} does not answer:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5):
            return True
    except urllib.error.HTTPError as refusal:
        return refusal.code < 500
    except OSError:
        return False


# --- the run ----------------------------------------------------------------------------------------------------------------


async def day(
    tool: Tool, line: Line, project: Any, seen: Seen, *, is_over: Callable[[], bool], chance: random.Random, think: float
) -> None:
    """One person: ask, think, submit, until it is over. What fails is counted, and the person goes on."""
    await asyncio.sleep(chance.uniform(0, think))
    while not is_over():
        answer, task = await tool.next(line, project)
        if answer.status == 200:
            seen.next.append(answer.seconds)
        else:
            seen.wrong.append(f"next: {answer.status} {answer.body[:200]!r}")
        await asyncio.sleep(chance.expovariate(1 / think))
        if task is None or is_over():  # whoever is in the middle of a thought goes on with it in the next turn
            continue
        done = await tool.submit(line, project, task, chance)
        if all(one.status in (200, 201, 202) for one in done):
            seen.submit.append(sum(one.seconds for one in done))
        else:
            seen.wrong.append(f"submit: {[one.status for one in done]} {done[-1].body[:200]!r}")


async def turn(tool: Tool, port: int, told: dict[str, Any], *, seconds: float, number: int, think: float) -> Seen:
    """Everybody at work in one tool for some seconds; the same thoughts in every tool."""
    seen, lines = Seen(), [Line(port, token, tool.scheme) for token in told["tokens"]]
    ends = time.perf_counter() + seconds
    is_over = lambda: time.perf_counter() > ends  # noqa: E731
    people = [
        day(tool, line, told["project"], seen, is_over=is_over, think=think, chance=random.Random(1000 * number + person))
        for person, line in enumerate(lines)
    ]
    try:
        await asyncio.gather(*people)
    finally:
        for line in lines:
            line.close()
    return seen


def measure(tools: list[Tool], *, n_items: int, users: int, seconds: float, turns: int, think: float = THINK) -> dict[str, Any]:
    """All servers run; people work in one at a time, first to last and then last to first."""
    from tests.ports import free_port

    seen: dict[str, list[Seen]] = {tool.name: [] for tool in tools}
    held: dict[str, float] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefloop-peers-")))
        places = {}
        for tool in tools:
            folder = shutil.copytree(filled(tool, n_items=n_items, users=users), scratch / tool.name)
            port = free_port()
            pid = stack.enter_context(running(tool, folder, port))
            places[tool.name] = (port, json.loads((folder / "told.json").read_text()), pid)
        for number in range(turns + 1):  # the first only warms up
            for tool in tools if number % 2 else tools[::-1]:
                port, told, pid = places[tool.name]
                given = {"seconds": seconds if number else min(seconds, 2 * think), "number": number, "think": think}
                found = asyncio.run(turn(tool, port, told, **given))
                say(f"turn {number} {tool.name}: {found.as_dict()} {found.wrong[:1]}")
                held[tool.name] = round(sum(memory(one, "VmRSS") for one in family(pid)), 1)
                if number:
                    seen[tool.name].append(found)
        alone = {}
        for tool in tools:
            port, told, _ = places[tool.name]
            one = {**told, "tokens": told["tokens"][:1]}
            alone[tool.name] = asyncio.run(
                turn(tool, port, one, seconds=seconds / 3, number=turns + 1, think=think / 50)
            ).as_dict()
            say(f"alone {tool.name}: {alone[tool.name]}")
    return {
        name: {"version": version_of(tool), **summary(seen[name]), "alone": alone[name], "memory_mb": held[name]}
        for tool in tools
        for name in [tool.name]
    }


def family(pid: int) -> list[int]:
    """A process and those it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def version_of(tool: Tool) -> str:
    return tool.requirements[0].partition("==")[2] if tool.requirements else __version__


def summary(turns: list[Seen]) -> dict[str, Any]:
    """Waits of all turns together, and of each."""
    return {
        "tasks": sum(len(one.submit) for one in turns),
        "failed": sum(len(one.wrong) for one in turns),
        "next": spread([wait for one in turns for wait in one.next]),
        "submit": spread([wait for one in turns for wait in one.submit]),
        "turns": [
            {"tasks": len(one.submit), "failed": len(one.wrong), "next_p50_ms": percentile(one.next, 0.5), "submit_p50_ms": percentile(one.submit, 0.5),
             "next_p95_ms": percentile(one.next, 0.95), "submit_p95_ms": percentile(one.submit, 0.95)} for one in turns
        ],
    }  # fmt: skip


# --- what is written --------------------------------------------------------------------------------------------------------


def lines(found: dict[str, Any]) -> str:
    """The table of docs/collect.md."""
    rows = [
        "| | next item, ms: median, p95 | submit, ms: median, p95 | one person alone, ms: next, submit | tasks done | failed | memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found["tools"].items():
        waits = [f"{one[what]['p50_ms']:.0f}, {one[what]['p95_ms']:.0f}" for what in ("next", "submit")]
        waits.append(", ".join(f"{one['alone'][what]['p50_ms']:.0f}" for what in ("next", "submit")))
        rows.append(
            f"| {TITLES[name]} {one['version']} | {' | '.join(waits)} | {one['tasks']:,} | {one['failed']} | {one['memory_mb']:.0f} |"
        )
    where = f"{found['machine']}; commit {found['commit']}; {found['turns']} turns of {found['seconds']:.0f} s in each, {found['users']} people"
    return "\n".join([*rows, "", f"{where}, {found['n_items']:,} items.", ""])


def page(found: dict[str, Any]) -> str:
    """docs/collect.md with the table of a result."""
    text = PAGE.read_text(encoding="utf-8")
    if not MARKED.search(text):
        raise SystemExit(f"bench: docs/collect.md has no <!-- {NAME} --> ... <!-- /{NAME} --> to put the table in")
    return MARKED.sub(lambda _: lines(found), text)


def write_page(found: dict[str, Any]) -> None:
    PAGE.write_text(page(found), encoding="utf-8")


def is_asked(words: list[str]) -> bool:
    return NAME in words


def main(given: list[str]) -> None:
    """Only the full sizes write a result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[NAME], metavar="NAME")
    parser.add_argument("--items", type=int, default=FULL["items"])
    parser.add_argument("--users", type=int, default=FULL["users"])
    parser.add_argument("--seconds", type=float, default=FULL["seconds"], help="of a turn")
    parser.add_argument("--turns", type=int, default=FULL["turns"])
    parser.add_argument("--tools", nargs="*", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--only-fill", action="store_true", help="make the environments and the databases, measure nothing")
    asked = parser.parse_args(given)
    tools = [tool for tool in TOOLS if tool.name in asked.tools]
    sizes = {"n_items": asked.items, "users": asked.users}
    if asked.only_fill:
        for tool in tools:
            filled(tool, **sizes)
        return
    sizes |= {"seconds": asked.seconds, "turns": asked.turns}
    found = {"name": NAME, "tools": measure(tools, **sizes), **sizes, "think_s": THINK, "machine": machine(), "commit": commit()}
    print(json.dumps(found), flush=True)
    if asked.tools == list(TITLES) and (asked.items, asked.users, asked.seconds, asked.turns) == tuple(FULL.values()):
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        write_page(found)
