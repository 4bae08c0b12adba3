"""Figures for a monitor: Prometheus' text format, which needs no library."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from sqlalchemy import Connection, func, select, text

from prefloop import __version__
from prefloop.collect import projects
from prefloop.collect.accounts import Principal
from prefloop.collect.refusals import Refused
from prefloop.collect.tables import job, project
from prefloop.collect.web.service import Service, service_of
from prefloop.collect.web.who import Anyone

router = APIRouter(tags=["metrics"])
Sample = tuple[dict[str, str], int]
OF_A_PROJECT = {  # what ``projects.progress`` counts: name and meaning
    "items": "Items, without those that were removed or planted",
    "wanted": "Judgments wanted of them",
    "done": "Judgments done of those wanted",
    "surplus": "Judgments beyond those wanted",
    "leased": "Judgments somebody is at",
    "skipped": "Turns that were skipped",
}


async def monitor(who: Anyone) -> Principal:
    """The owner, or a token of theirs that may do no more than look."""
    if not who.is_owner or "view" not in who.scopes:
        raise Refused(
            403, "not_allowed", "only the owner of this installation can do this, or a token of theirs with the scope view"
        )
    return who


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, who: Annotated[Principal, Depends(monitor)]) -> PlainTextResponse:
    """Requests answered, and how far every project is."""
    service = service_of(request)
    lines = [*of_the_server(service), *service.read(of_the_database)]
    return PlainTextResponse("".join(f"{line}\n" for line in lines))


def of_the_server(service: Service) -> Iterator[str]:
    yield from family("info", "gauge", "The version that runs", [({"version": __version__}, 1)])
    counts = sorted(service.answered.items())
    yield from family(
        "requests_total", "counter", "Requests answered since the start", [({"status": f"{one}xx"}, n) for one, n in counts]
    )


def of_the_database(connection: Connection) -> list[str]:
    counted = {
        row.slug: projects.progress(connection, row.id) for row in connection.execute(select(project.c.slug, project.c.id))
    }
    lines: list[str] = []
    for name, said in OF_A_PROJECT.items():
        samples: list[Sample] = [({"project": slug}, found[name]) for slug, found in sorted(counted.items())]
        lines += family(f"project_{name}", "gauge", said, samples)
    states = connection.execute(select(job.c.state, func.count()).group_by(job.c.state).order_by(job.c.state)).all()
    lines += family("jobs", "gauge", "Imports and exports by state", [({"state": state}, n) for state, n in states])
    if connection.dialect.name == "sqlite":
        pages, size = (connection.scalar(text(f"PRAGMA {name}")) or 0 for name in ("page_count", "page_size"))
        lines += family("database_bytes", "gauge", "Size of the database", [({}, pages * size)])
    return lines


def family(name: str, kind: str, said: str, samples: list[Sample]) -> Iterator[str]:
    yield f"# HELP prefloop_{name} {said}"
    yield f"# TYPE prefloop_{name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{escaped(one)}"' for label, one in labels.items())
        yield f"prefloop_{name}{{{inside}}} {value}" if inside else f"prefloop_{name} {value}"


def escaped(value: str) -> str:
    """A label's value; the three characters that would end it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
