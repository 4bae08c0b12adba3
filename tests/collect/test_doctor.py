"""What ``prefloop collect doctor`` finds, and what it says of a place that will not do."""

import sqlite3
from collections import namedtuple

import pytest

from prefloop.collect import doctor
from prefloop.collect.serve import open_database
from tests.command_line import prefloop


def found(folder, url: str = "") -> dict[str, doctor.Finding]:
    return {one.name: one for one in doctor.examine(folder, url)}


def test_a_place_that_will_do_gets_a_line_for_everything_and_nothing_is_left_there(tmp_path):
    outcome = prefloop("collect", "doctor", "--data", tmp_path / "new" / "service")
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and lines[-1] == f"a service can run in {tmp_path / 'new' / 'service'}"
    assert [line.split()[1] for line in lines[:-1] if not line.startswith(" ")] == [
        "folder",
        "sqlite",
        "room",
        "fsync",
        "clock",
        "kept",
        "near",
    ]
    assert "which is not there yet" in lines[0] and list(tmp_path.iterdir()) == []


def test_a_database_that_is_there_is_looked_at(tmp_path):
    open_database(tmp_path, "").close()
    assert found(tmp_path)["sqlite"].ok
    data = bytearray((tmp_path / "collect.sqlite").read_bytes())
    data[4096 * 3 : 4096 * 12] = b"\xff" * 4096 * 9
    (tmp_path / "collect.sqlite").write_bytes(data)
    outcome = prefloop("collect", "doctor", "--data", tmp_path)
    assert outcome.code == 1 and "-> " in outcome.out and "prefloop collect restore" in outcome.out
    assert outcome.out.splitlines()[-1].endswith("mend sqlite")
    (tmp_path / "collect.sqlite").write_text("no database " * 100)
    assert "not a database" in found(tmp_path)["sqlite"].found


@pytest.mark.parametrize(
    ("name", "value", "which"),
    [
        ("sqlite3.sqlite_version_info", (3, 34, 9), "sqlite"),
        ("time.time", lambda: 0.0, "clock"),
        ("time.time", lambda: 4e9, "clock"),
        ("shutil.disk_usage", lambda place: namedtuple("Usage", "free")(10**6), "room"),
        ("SLOW_MS", 0.0, "fsync"),
        ("mounts", lambda: "here / nfs4 rw 0 0\n", "near"),
        ("not_persistent", lambda place: "it lies in memory", "kept"),
        ("os.access", lambda place, how: False, "folder"),
    ],
)
def test_what_is_wrong_is_found_and_something_mends_it(tmp_path, monkeypatch, name, value, which):
    monkeypatch.setattr(f"prefloop.collect.doctor.{name}", value)
    findings = found(tmp_path)
    assert [one.name for one in findings.values() if not one.ok] == [which]
    assert findings[which].mend


def test_a_team_needs_the_driver_of_postgresql(tmp_path, monkeypatch):
    assert found(tmp_path, "postgresql://x")["postgresql"].ok
    monkeypatch.setattr("prefloop.collect.doctor.find_spec", lambda name: None)
    missing = found(tmp_path, "postgresql://x")["postgresql"]
    assert not missing.ok and "prefloop[postgres]" in missing.mend


def test_the_mount_that_holds_a_folder_is_the_one_nearest_to_it(tmp_path):
    table = f"a / ext4 rw\nb {tmp_path} nfs4 rw\nc {tmp_path}/x tmpfs rw\nd {tmp_path}x zfs rw\n"
    assert [doctor.mounted_as(tmp_path / name, table) for name in ("y", "x", "x/y")] == ["nfs4", "tmpfs", "tmpfs"]
    assert doctor.mounted_as(tmp_path, "") == ""


def test_sqlite_that_cannot_keep_a_log_is_said(tmp_path, monkeypatch):
    class NoLog(sqlite3.Connection):
        def execute(self, *words):
            return super().execute("PRAGMA journal_mode = MEMORY")

    connect = sqlite3.connect
    monkeypatch.setattr("prefloop.collect.doctor.sqlite3.connect", lambda *given, **more: connect(*given, factory=NoLog, **more))
    assert found(tmp_path)["sqlite"].found == "no write-ahead log can be kept here (memory)"
