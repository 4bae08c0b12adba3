"""The pages: one shell of HTML, and our own modules and style sheets at addresses that name what they hold.

Nothing is inline, nothing comes from elsewhere, and nothing is built: what lies in ``pages/`` is what a browser gets. An
address holds the hash of all of it, so that a browser may keep a file for ever and a new version is never mixed with an old.
"""

import gzip
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException

from prefloop.collect.render import render
from prefloop.collect.tables import project, tally
from prefloop.collect.web.service import service_of
from prefloop.collect.web.shapes import Body
from prefloop.collect.web.who import Anyone

FOLDER = Path(__file__).parent.parent / "pages"
TYPES = {
    ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml",
}  # fmt: skip
DAY = 86_400_000
LANGUAGES = ("en", "zh")
IMPORTED = re.compile(r'^(?:import|export)\b[^;]*?from "\./([\w./-]+)"', re.MULTILINE)

PAGES = {  # path: the module in pages/ that draws it; its style sheet, where there is one, has the same name
    "/": "home",
    "/login": "login",
    "/invite": "invite",
    "/work/{project}": "work",
    "/chat/{project}": "chat",
    "/projects": "project_list",
    "/projects/{project}": "dashboard",
    "/projects/{project}/items": "items",
    "/projects/{project}/review": "review",
    "/projects/{project}/setup": "project_setup",
}


class Asset(NamedTuple):
    """A file as it is sent."""

    content: bytes
    zipped: bytes
    type: str


@cache
def assets() -> dict[str, Asset]:
    """Every file of the pages by its name; what is not here cannot be asked for."""
    paths = [path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES]
    found = {path.relative_to(FOLDER).as_posix(): asset(path.read_bytes(), TYPES[path.suffix]) for path in paths}
    for page in {*PAGES.values()}:
        for language in LANGUAGES:
            content = json.dumps(words(found, page, language), ensure_ascii=False).encode()
            found[f"texts.{page}.{language}.json"] = asset(content, TYPES[".json"])
    return found


def asset(content: bytes, kind: str) -> Asset:
    return Asset(content, gzip.compress(content, mtime=0), kind)


def words(found: dict[str, Asset], page: str, language: str) -> dict[str, str]:
    """The texts whose first part ("login" of "login.title") some module of a page names: a page loads no other page's words."""
    sources = "".join(found[module].content.decode() for module in imported(found, f"{page}.js"))
    named = set(re.findall(r"""["'`]([a-z_]+)\.""", sources))
    everything = json.loads(found[f"texts.{language}.json"].content)
    return {key: text for key, text in everything.items() if "." not in key or key.partition(".")[0] in named}


@cache
def version() -> str:
    """The hash of everything the pages are made of."""
    everything = hashlib.sha256((FOLDER / "shell.html").read_bytes())
    for name, one in assets().items():
        everything.update(name.encode() + b"\0" + one.content)
    return everything.hexdigest()[:16]


@cache
def shell(name: str) -> bytes:
    """The HTML of a page: links to its modules and style sheets, and no words."""
    modules = imported(assets(), f"{name}.js")
    styles = [
        "base.css",
        *(css for module in modules if (css := module.replace(".js", ".css")) in assets() and css != "base.css"),
    ]
    links = [f'<link rel="stylesheet" href="/static/VERSION/{css}">' for css in styles]
    links += [f'<link rel="modulepreload" href="/static/VERSION/{module}">' for module in modules]
    text = (FOLDER / "shell.html").read_text(encoding="utf-8")
    return text.replace("LINKS", "\n".join(links)).replace("NAME", name).replace("VERSION", version()).encode()


def imported(files: dict[str, Asset], module: str, seen: tuple[str, ...] = ()) -> list[str]:
    """A module and all it imports, each once, the module itself first."""
    found = [*seen, module]
    for name in IMPORTED.findall(files[module].content.decode()):
        if name not in found:
            found = imported(files, name, tuple(found))
    return found


# --- routes -----------------------------------------------------------------------------------------------------------------

router = APIRouter(include_in_schema=False)


def show(request: Request) -> Response:
    """The shell of the page a path stands for."""
    content = shell(PAGES[request.scope["route"].path])
    return fresh(request, content, "text/html; charset=utf-8", "no-cache")


def static(request: Request, version_: str, name: str) -> Response:
    """A file of this version."""
    found = assets().get(name)
    if found is None or version_ != version():
        raise HTTPException(404, "there is no such file; load the page again")
    is_zipped = "gzip" in request.headers.get("accept-encoding", "")
    answer = fresh(request, found.zipped if is_zipped else found.content, found.type, "public, max-age=31536000, immutable")
    answer.headers["Vary"] = "Accept-Encoding"
    if is_zipped and answer.status_code == 200:
        answer.headers["Content-Encoding"] = "gzip"
    return answer


def fresh(request: Request, content: bytes, kind: str, kept: str) -> Response:
    """The content, or 304 where the browser has it."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": kept}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


for path in PAGES:
    router.add_api_route(path, show, methods=["GET", "HEAD"])
router.add_api_route("/static/{version_}/{name:path}", static, methods=["GET", "HEAD"])


# --- what only pages ask for ------------------------------------------------------------------------------------------------

api = APIRouter(tags=["pages"])


class Texts(Body):
    texts: list[str] = Field(max_length=200)


@api.post("/render")
def rendered(body: Texts, who: Anyone) -> dict[str, list[str]]:
    """Texts as HTML that is safe to show."""
    return {"html": [render(text) for text in body.texts]}


@api.get("/me/today")
def today(request: Request, who: Anyone) -> dict[str, int]:
    """How many judgments one made today (UTC), by project."""
    service = service_of(request)
    day = service.database.clock() // DAY

    def look(connection: Connection) -> dict[str, int]:
        joined = tally.join(project, project.c.id == tally.c.project_id)
        wanted = select(project.c.slug, tally.c.submitted).select_from(joined)
        rows = connection.execute(wanted.where(tally.c.user_id == who.user_id, tally.c.day == day))
        return {row.slug: row.submitted for row in rows}

    return service.read(look)
