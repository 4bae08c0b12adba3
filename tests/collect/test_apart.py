"""A large file is looked at in another process: the same items, the same messages, and other people do not wait."""

import os
import pickle

import pytest

from prefloop.collect import apart, imports
from prefloop.collect.database import Closed, Database
from prefloop.errors import DataError, NotInstalled, RunError
from tests.collect.made import made
from tests.collect.test_imports import lines, n_items, row


@pytest.fixture
def project(sqlite):
    return made(sqlite)


def test_another_process_finds_what_this_one_finds(project, tmp_path, monkeypatch):
    path = lines(tmp_path / "file.jsonl", [row(0), row(1), row(1), row(2, k=17)])
    here = imports.look_into(project.database, project.id, path, tmp_path / "here")
    monkeypatch.setattr(apart, "LARGE", 0)
    there = apart.look_into(project.database, project.id, path, tmp_path / "there")
    assert there == here
    assert (here.items, here.n_problems) == (2, 1)
    assert (tmp_path / "there").read_text() == (tmp_path / "here").read_text() != ""


def test_what_another_process_refuses_is_refused_here_in_its_words(project, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "LARGE", 0)
    path = lines(tmp_path / "file.jsonl", [row(0), row(1, k=17)])
    with pytest.raises(DataError, match=r"file.jsonl:2, 17 answers"):
        imports.run(project.database, project.id, path, looking=apart.look_into)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        imports.run(project.database, project.id, tmp_path / "empty.jsonl", looking=apart.look_into)
    assert n_items(project) == 0


def killed(*given: object) -> None:
    os._exit(9)


def test_a_process_that_is_killed_is_told_as_that(project, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "LARGE", 0)
    monkeypatch.setattr(apart, "look_there", killed)
    with pytest.raises(RunError, match=r"reading file.jsonl was ended from outside.*import it again"):
        apart.look_into(project.database, project.id, lines(tmp_path / "file.jsonl", [row()]), tmp_path / "waiting")


def test_a_database_that_was_opened_for_reading_writes_nothing(project):
    reading = Database(project.database.url, writes=False)
    with pytest.raises(Closed, match="opened for reading"):
        reading.write(lambda connection: None)
    reading.close()


def test_a_missing_package_is_named_across_processes():
    error = pickle.loads(pickle.dumps(NotInstalled("pyarrow", "train", "reading Parquet")))
    assert type(error) is NotInstalled
    assert str(error) == str(NotInstalled("pyarrow", "train", "reading Parquet"))
