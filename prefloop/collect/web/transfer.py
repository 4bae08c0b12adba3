"""Files in and out: imports are uploaded and then looked at or stored by a job; exports are made by a job and then fetched."""

import re
import shutil
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from sqlalchemy import Connection, select
from starlette.concurrency import run_in_threadpool

from prefloop.collect import exports, jobs
from prefloop.collect.identity import new_id
from prefloop.collect.imports import MAX_BYTES
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.tables import job
from prefloop.collect.web import shapes
from prefloop.collect.web.document import FILE_SENT, FILES
from prefloop.collect.web.service import service_of
from prefloop.collect.web.who import Here, in_project, in_project_of
from prefloop.config import parse
from prefloop.data.rows import READERS

router = APIRouter(tags=["transfer"])
Importer = Annotated[Here, Depends(in_project("import"))]
Exporter = Annotated[Here, Depends(in_project("export"))]
OfJob = Annotated[Here, Depends(in_project_of("see", "job"))]
FILE_NAME = re.compile(r"[\w][\w.-]{0,79}")
PAGE = 50


@router.post("/projects/{project}/items:import", status_code=202, openapi_extra=FILE_SENT)
async def import_items(
    request: Request, here: Importer, name: str = "items.jsonl", dry_run: bool = False, skip_bad: bool = False, priority: int = 0
) -> dict[str, Any]:
    """The body is the file; ``name`` says what kind. A job looks at all of it before anything is stored."""
    if not FILE_NAME.fullmatch(name) or not name.lower().removesuffix(".gz").endswith(tuple(READERS)):
        raise Refused(422, "bad_name", f"a file is called by letters and ends in {', '.join(READERS)}, or one of these and .gz")
    if not -1_000_000 <= priority <= 1_000_000:
        raise Refused(422, "bad_priority", "a priority is between -1,000,000 and 1,000,000")
    refuse_long(int(declared) if (declared := request.headers.get("content-length", "")).isdigit() else 0)
    service = service_of(request)
    identity = new_id()
    place = service.jobs.place(identity)
    place.mkdir(parents=True)
    try:
        n_bytes = 0
        with (place / name).open("wb") as file:
            async for part in request.stream():
                n_bytes += len(part)
                refuse_long(n_bytes)
                await run_in_threadpool(file.write, part)
        settings = {"name": name, "dry_run": dry_run, "skip_bad": skip_bad, "priority": priority}
        given = {"identity": identity, "project_id": here.project.id, "user_id": here.who.user_id, "kind": "import"}
        await run_in_threadpool(service.write, jobs.create, **given, settings=settings)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    service.jobs.ring()
    return {"job": identity}


def refuse_long(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise Refused(413, "too_long", f"an import is at most {MAX_BYTES // 2**30} GiB; split it")


@router.post("/projects/{project}/exports", status_code=202)
def new_export(request: Request, body: shapes.NewExport, here: Exporter) -> dict[str, Any]:
    """Begin one."""
    if body.format not in exports.FORMATS:
        raise Refused(422, "bad_format", f"formats: {', '.join(exports.FORMATS)}")
    identity = new_id()
    settings = {"format": body.format, "settings": parse(exports.ExportConfig, body.settings, where="settings").model_dump()}
    given = {"identity": identity, "project_id": here.project.id, "user_id": here.who.user_id, "kind": "export"}
    service = service_of(request)
    service.write(jobs.create, **given, settings=settings)
    service.jobs.ring()
    return {"job": identity}


@router.get("/projects/{project}/jobs")
def list_jobs(request: Request, here: Exporter, cursor: str = "") -> dict[str, Any]:
    """Imports and exports, the latest first."""

    def look(connection: Connection) -> dict[str, Any]:
        wanted = select(job.c.id).where(job.c.project_id == here.project.id).order_by(job.c.id.desc()).limit(PAGE)
        ids = list(connection.scalars(wanted.where(job.c.id < cursor) if cursor else wanted))
        return {"jobs": [jobs.look_at(connection, one) for one in ids], "cursor": ids[-1] if len(ids) == PAGE else None}

    return service_of(request).read(look)


@router.get("/jobs/{identity}")
def get_job(request: Request, identity: str, here: OfJob) -> dict[str, Any]:
    """How far it is."""
    found = service_of(request).read(jobs.look_at, identity=identity)
    refuse_unless(here, found["kind"])
    return found


@router.post("/jobs/{identity}/cancel", status_code=202)
def cancel_job(request: Request, identity: str, here: OfJob) -> dict[str, Any]:
    """End a job before it is done, at once where it waits and at its next step where it is at work. An export leaves nothing,
    an import the items it has stored: the same file again brings the rest."""
    service = service_of(request)
    refuse_unless(here, service.read(jobs.look_at, identity=identity)["kind"])
    if service.write(jobs.cancel, identity=identity):
        service.jobs.no_longer_wanted(identity)
    else:
        service.jobs.leave_nothing(identity)
    return service.read(jobs.look_at, identity=identity)


@router.get("/jobs/{identity}/files/{name}", response_class=FileResponse, responses=FILES)
def get_file(request: Request, identity: str, name: str, here: OfJob) -> FileResponse:
    """A file of an export; Range requests go on where a download broke off."""
    service = service_of(request)
    found = service.read(jobs.look_at, identity=identity)
    refuse_unless(here, found["kind"])
    listed = (
        {*found["result"].get("files", {}), "manifest.json"} if found["kind"] == "export" and found["state"] == "done" else ()
    )
    if name not in listed:  # names come from the manifest, never from the request
        raise not_found("file")
    kind = "application/octet-stream"
    return FileResponse(
        service.jobs.place(identity) / name, media_type=kind, filename=name, content_disposition_type="attachment"
    )


def refuse_unless(here: Here, kind: str) -> None:
    """A job is for those who may do what it does."""
    if not here.standing.may(kind):
        raise Refused(403, "not_allowed", f"this needs the right {kind!r}")
