"""Files in, and out again under addresses of one's own."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from prefloop.collect import media, stripped
from prefloop.collect.identity import new_id
from prefloop.collect.refusals import Refused
from prefloop.collect.web.document import FILE_SENT, FILES
from prefloop.collect.web.service import service_of
from prefloop.collect.web.who import Anyone, Here, in_project

router = APIRouter(tags=["media"])
Importer = Annotated[Here, Depends(in_project("import"))]
ALONE = {  # a file is shown, never run, and never leaves the browser it was sent to
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'none'",
    "Cache-Control": "private, max-age=43200, immutable",
    "Content-Disposition": "inline",
}


@router.post("/projects/{project}/assets", status_code=201, openapi_extra=FILE_SENT)
async def new_asset(request: Request, here: Importer) -> dict[str, Any]:
    """The body is a file; it is called by the hash in the answer from now on. What a picture says about itself is not kept."""
    service = service_of(request)
    waiting = service.folder / "media" / f"upload-{new_id()}"
    waiting.parent.mkdir(parents=True, exist_ok=True)
    try:
        digest, n_bytes = hashlib.sha256(), 0
        with waiting.open("wb") as file:
            async for part in request.stream():
                n_bytes += len(part)
                if n_bytes > max(media.MAX_BYTES.values()):
                    raise Refused(413, "too_long", f"a file is at most {max(media.MAX_BYTES.values()) // 2**20} MiB")
                digest.update(part)
                await run_in_threadpool(file.write, part)
            file.flush()
            await run_in_threadpool(os.fsync, file.fileno())
        kind = await run_in_threadpool(media.kind_of, waiting)
        await run_in_threadpool(stripped.strip, waiting, kind)
        await run_in_threadpool(into_place, waiting, media.place(service.folder, digest.hexdigest()))
    finally:
        waiting.unlink(missing_ok=True)
    given = {"project_id": here.project.id, "sha256": digest.hexdigest(), "kind": kind, "n_bytes": n_bytes}
    await run_in_threadpool(service.write, media.add, **given, user_id=here.who.user_id)
    return {"sha256": digest.hexdigest(), "bytes": n_bytes, **kind._asdict()}


def into_place(waiting: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(waiting, place)


@router.get("/media/{token}", response_class=FileResponse, responses=FILES)
def get_media(request: Request, token: str, who: Anyone) -> FileResponse:
    """A file on one's screen. Range requests are answered, so that a clip can be wound."""
    service = service_of(request)
    found = service.read(media.opened, given=token, user_id=who.user_id, now=service.database.clock())
    return FileResponse(media.place(service.folder, found.sha256), media_type=found.mime, headers=ALONE)
