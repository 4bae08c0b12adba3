"""A job that nobody wants any more: it ends at its next step, says so, and leaves what may stay and nothing else."""

import multiprocessing

import pytest

from prefloop.collect import apart, exports, imports, jobs
from prefloop.collect.jobs import CANCELLED, Cancelled, Jobs
from prefloop.collect.queue import Nothing
from prefloop.collect.refusals import Refused
from tests.collect.made import Made, add, made
from tests.collect.test_imports import lines, n_items, row

IMPORT = {"name": "file.jsonl", "dry_run": False, "priority": 0, "skip_bad": False}


@pytest.fixture
def project(sqlite) -> Made:
    return made(sqlite, users=1, overlap=2)


def waiting(work: Jobs, project: Made, number: int = 0, kind: str = "import", **settings) -> str:
    """A job, its file at its place."""
    identity = f"{project.slug}-{number}"
    project.do(jobs.create, identity=identity, project_id=project.id, user_id=None, kind=kind, settings=settings)
    if kind == "import":
        work.place(identity).mkdir(parents=True)
        lines(work.place(identity) / "file.jsonl", [row(number, k=2) for number in range(7)])
    return identity


def state(project: Made, identity: str) -> tuple[str, str]:
    found = project.database.read(lambda connection: jobs.look_at(connection, identity))
    return found["state"], found["result"].get("error", "")


def run_next(work: Jobs) -> None:
    work.do(work.database.write(jobs.taken))


def test_a_job_that_waits_is_cancelled_at_once(project, tmp_path):
    work = Jobs(project.database, tmp_path)
    one = waiting(work, project, **IMPORT)
    assert project.do(jobs.cancel, identity=one) is False
    assert state(project, one) == ("cancelled", CANCELLED)
    assert project.database.write(jobs.taken) is None
    assert project.do(jobs.cancel, identity=one) is False  # twice is once


def test_an_import_ends_at_its_next_step_and_the_same_file_brings_the_rest(project, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK", 2)
    work = Jobs(project.database, tmp_path)
    one = waiting(work, project, **IMPORT)
    store = imports.store

    def cancelled_meanwhile(*given) -> int:
        assert project.do(jobs.cancel, identity=one) is True
        work.no_longer_wanted(one)
        return store(*given)

    add(project, [100])
    project.submit(project.claim())
    assert project.claim() == Nothing("yours_done")  # this person has come to the end of the queue, where others have not
    monkeypatch.setattr(imports, "store", cancelled_meanwhile)
    run_next(work)
    assert state(project, one) == ("cancelled", f"{CANCELLED}; the 2 items that were stored stay")
    assert n_items(project) == 1 + 2
    assert not work.place(one).exists() and work.unwanted == set()
    project.submit(project.claim())  # who was at the end is shown what came
    with pytest.raises(Refused, match="this job has ended") as refused:
        monkeypatch.setattr(imports, "store", store)
        run_next_again(work, project)
    assert refused.value.status == 409 and n_items(project) == 1 + 7


def run_next_again(work: Jobs, project: Made) -> None:
    """The same file once more, to its end; then cancelling comes too late."""
    two = waiting(work, project, 2, **IMPORT)
    run_next(work)
    assert state(project, two) == ("done", "")
    project.do(jobs.cancel, identity=two)


def test_what_was_cancelled_before_its_server_died_is_not_begun_again_and_its_file_goes(project, tmp_path):
    work = Jobs(project.database, tmp_path)
    one, two = (waiting(work, project, number, **IMPORT) for number in (0, 1))
    project.database.write(jobs.taken)
    assert project.do(jobs.cancel, identity=one) is True  # at work, and killed before its next step
    assert project.do(jobs.cancel, identity=two) is False  # and killed before its file was removed
    after = Jobs(project.database, tmp_path)
    after.start()
    after.stop()
    assert [state(project, identity) for identity in (one, two)] == [("cancelled", CANCELLED)] * 2
    assert n_items(project) == 0 and list((tmp_path / "jobs").iterdir()) == []


def test_an_import_that_fails_leaves_no_file_behind(project, tmp_path):
    work = Jobs(project.database, tmp_path)
    one = waiting(work, project, **IMPORT)
    lines(work.place(one) / "file.jsonl", [row(k=17)])
    run_next(work)
    assert state(project, one)[0] == "failed" and not work.place(one).exists()


def test_an_export_that_is_cancelled_leaves_nothing(project, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "TOLD", 1)
    imports.run(project.database, project.id, lines(tmp_path / "file.jsonl", [row(number, k=2) for number in range(3)]))
    project.submit(project.claim())
    work = Jobs(project.database, tmp_path)
    one = waiting(work, project, kind="export", format="kway", settings={})
    work.no_longer_wanted(one)
    run_next(work)
    assert state(project, one) == ("cancelled", CANCELLED)
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_file_of_nothing_but_bad_rows_is_cancelled_too(project, tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "CHUNK", 2)
    path, seen = lines(tmp_path / "file.jsonl", [row(number, k=17) for number in range(7)]), []

    def cancelled() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise Cancelled(CANCELLED)

    with pytest.raises(Cancelled):
        imports.look(project.database, project.id, path, check=cancelled)


def test_another_process_stops_reading_where_nobody_waits(project, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "LARGE", 0)
    monkeypatch.setattr(apart, "CHECKED", 0.01)
    path = lines(tmp_path / "file.jsonl", [row(number, k=2) for number in range(3000)])

    def cancelled() -> None:
        raise Cancelled(CANCELLED)

    with pytest.raises(Cancelled):
        apart.look_into(project.database, project.id, path, tmp_path / "waiting", check=cancelled)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "waiting").exists() or len((tmp_path / "waiting").read_text().splitlines()) < 3000
