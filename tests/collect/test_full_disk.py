"""A disk that is full: one clear message, nothing acknowledged is lost, and on it goes once there is room."""

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from prefloop.collect import turns
from prefloop.collect.database import Database, database_url
from prefloop.collect.exports import export
from prefloop.collect.jobs import Jobs
from prefloop.collect.migrate import migrate
from prefloop.collect.refusals import Refused
from prefloop.collect.room import is_full
from prefloop.collect.web import media, transfer
from prefloop.errors import RunError
from tests.collect.made import RANKED, Made, made, violations
from tests.collect.pictures import a_png
from tests.collect.site import Site

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
LONG = "much was typed here " * 500  # more than fits into what a page has left


@pytest.fixture(scope="module")
def site(new_url, tmp_path_factory) -> Iterator[Site]:
    opened = Site(tmp_path_factory.mktemp("full"), new_url("sqlite")).start()
    yield opened
    opened.stop()


@contextmanager
def no_room(database: Database) -> Iterator[None]:
    """SQLite may take no further page, as on a disk without a free block."""

    def pages(limit: int) -> None:
        database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}").scalar())

    pages(1)  # SQLite takes what it has as the least
    try:
        yield
    finally:
        pages(2**30)


def n_judgments(project: Made) -> int:
    query = text("SELECT count(*) FROM judgment WHERE project_id = :p")
    return project.database.read(lambda connection: connection.scalar(query, {"p": project.id}))


def test_a_full_database_loses_nothing_that_was_acknowledged_and_goes_on(tmp_path):
    database = Database(database_url(str(tmp_path / "a.sqlite")))
    migrate(database)
    project = made(database, users=8, n=40, overlap=2)

    def work(user: int) -> list[tuple[int, object, str | None]]:
        """One item after the other until there are none or no room; each with the receipt, or None where it was refused."""
        done = []
        for number in range(10):
            try:
                turn = project.claim(user)
                project.do(
                    turns.save_draft, assignment_id=turn.assignment.id, user_id=project.users[user], rev=0, body={"typed": LONG}
                )
            except OperationalError as error:
                assert is_full(error)
                return done
            try:
                done.append((user, turn, project.submit(turn, user, key=f"{user}-{number}").judgment_id))
            except OperationalError as error:
                assert is_full(error)
                return [*done, (user, turn, None)]
        return done

    first = [one for user in range(4) for one in work(user)[:2]]
    with no_room(database), ThreadPoolExecutor(8) as pool:
        during = [one for done in pool.map(work, range(8)) for one in done]
        assert len(during) < 80  # somebody found it full
        acknowledged = {judgment for *_, judgment in during if judgment}
        stored = set(database.read(lambda c: c.scalars(text("SELECT id FROM judgment")).all()))
        assert acknowledged <= stored and len(first) == 8
    for user, turn, judgment in during:
        if judgment is None:
            project.submit(turn, user, key="again")  # the page sends it once more
    with database.snapshot() as connection:
        assert violations(connection, project.id) == []
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    before = n_judgments(project)
    assert len([one for user in range(8) for one in work_on(project, user)]) + before == 80
    database.close()


def work_on(project: Made, user: int) -> Iterator[str]:
    """Everything there is for somebody."""
    while hasattr(turn := project.claim(user), "assignment"):
        yield project.submit(turn, user).judgment_id


def test_a_request_is_told_and_can_be_sent_again(site):
    turn = site.a_turn("manager")
    path, headers = f"/assignments/{turn}", {"If-Match": "0", "Idempotency-Key": "full"}
    body = {"answers": RANKED}
    draft = {"body": {"typed": LONG * 20}}
    with no_room(site.database):
        refused = site.ask("manager", "PUT", f"{path}/draft", json=draft, headers=headers)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "10"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "disk_full" and "no room left on the disk" in refused.json()["detail"]
        assert site.ask("manager", "GET", path).json()["draft"] is None  # reading goes on
        assert site.http.get(f"{site.address}/health/ready").status_code == 200
    assert site.ask("manager", "PUT", f"{path}/draft", json=draft, headers=headers).status_code == 200
    first = site.ask("manager", "POST", f"{path}/submit", json=body, headers=headers)
    again = site.ask("manager", "POST", f"{path}/submit", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (200, 200) and again.headers["idempotency-replayed"] == "true"


@needs_dev_full
def test_an_upload_that_does_not_fit_is_told_and_leaves_nothing(site, monkeypatch):
    folder = site.service.folder / "media"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(media, "new_id", lambda: "here")
    (folder / "upload-here").symlink_to("/dev/full")
    before = sorted(path for path in folder.rglob("*") if path.name != "upload-here")
    answer = site.ask("manager", "POST", "/projects/main/assets", content=a_png())
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert sorted(folder.rglob("*")) == before
    assert site.ask("manager", "POST", "/projects/main/assets", content=a_png()).status_code == 201


class FullFolder(type(Path())):
    """A folder in which a file can be begun, and holds nothing."""

    def mkdir(self, *given, **more):
        Path(self).mkdir(*given, **more)
        (self / "items.jsonl").symlink_to("/dev/full")


@needs_dev_full
def test_an_import_that_does_not_fit_is_told_and_leaves_nothing(site, monkeypatch):
    asked = {"method": "POST", "path": "/projects/main/items:import", "content": b'{"prompt": "x", "completions": ["a", "b"]}\n'}
    monkeypatch.setattr(transfer, "new_id", lambda: "here")
    with monkeypatch.context() as patch:
        patch.setattr(site.service.jobs, "place", lambda identity: FullFolder(site.service.folder / "jobs" / identity))
        answer = site.ask("manager", **asked)
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert not (site.service.folder / "jobs" / "here").exists()
    assert site.database.read(lambda c: c.scalar(text("SELECT count(*) FROM job"))) == 0
    assert site.ask("manager", **asked).status_code == 202


@needs_dev_full
def test_an_export_that_does_not_fit_is_told_and_leaves_nothing(sqlite, tmp_path, monkeypatch):
    project = made(sqlite, users=1, n=1)
    project.submit(project.claim())
    monkeypatch.setattr("prefloop.collect.exports.file_names", lambda format, config: ["/dev/full"])
    with pytest.raises(RunError, match="no room left on the disk of the service; nothing was exported"):
        export(sqlite, project.slug, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_only_a_full_disk_is_one():
    class FullPostgresql(Exception):
        sqlstate = "53100"

    assert is_full(OSError(errno.ENOSPC, "x")) and is_full(OSError(errno.EDQUOT, "x"))
    assert is_full(OperationalError("INSERT", {}, FullPostgresql()))
    assert not any(
        is_full(one) for one in (OSError(errno.EACCES, "x"), Refused(422, "x", "x"), OperationalError("x", {}, Exception()))
    )


def test_the_end_of_a_job_is_written_once_there_is_room(sqlite, tmp_path, monkeypatch):
    monkeypatch.setattr("prefloop.collect.jobs.POLL", 0.01)
    work, ends = Jobs(sqlite, tmp_path), []

    def write(connection) -> None:
        ends.append(len(ends))
        if len(ends) < 3:
            raise OperationalError("UPDATE job", {}, Exception("database or disk is full"))

    work.insist(write)
    assert ends == [0, 1, 2]
    work.is_stopping = True  # it is begun again when the server comes back
    ends.clear()
    with pytest.raises(OperationalError):
        work.insist(write)


def test_a_fault_that_would_never_come_right_is_not_tried_again(sqlite, tmp_path):
    with pytest.raises(ZeroDivisionError):
        Jobs(sqlite, tmp_path).insist(lambda connection: 1 / 0)
