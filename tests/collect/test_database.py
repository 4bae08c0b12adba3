"""Writing and reading, migrations and backups."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from prefloop.collect import accounts, backup, serve
from prefloop.collect.database import ATTEMPTS, BATCH_SECONDS, PATIENCE, Closed, Database, database_url
from prefloop.collect.identity import new_id, pseudonym
from prefloop.collect.migrate import LOCK, is_behind, migrate, newest, version_of
from prefloop.collect.serve import only_server, open_database
from prefloop.collect.tables import metadata
from prefloop.errors import ConfigError, DataError, RunError
from tests.collect.made import made


def user(login: str):
    return lambda connection: accounts.create_user(connection, login=login, now=1)


def logins(database: Database, like: str) -> set[str]:
    return set(database.read(lambda c: c.scalars(text("SELECT login FROM app_user WHERE login LIKE :l"), {"l": like}).all()))


def test_a_work_that_fails_undoes_itself_and_nothing_else(database):
    def fails(connection):
        user("half-1")(connection)
        raise ValueError("no")

    gate = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        blocked = pool.submit(database.write, lambda connection: gate.wait(10))
        works = [pool.submit(database.write, fails if number % 2 else user(f"whole-{number}")) for number in range(6)]
        gate.set()
        assert blocked.result()
    assert [type(work.exception()) for work in works] == [type(None), ValueError] * 3
    assert logins(database, "whole-%") == {"whole-0", "whole-2", "whole-4"}
    assert logins(database, "half-%") == set()


def test_what_waits_is_committed_together(sqlite, monkeypatch):
    database = sqlite
    monkeypatch.setattr("prefloop.collect.database.BATCH_SECONDS", 60.0)
    commits = []
    gate, waiting = threading.Event(), threading.Event()

    def count(connection) -> None:
        commits.append(connection)

    event.listen(database.writer.engine, "commit", count)
    with ThreadPoolExecutor(6) as pool:
        blocked = pool.submit(database.write, lambda connection: (waiting.set(), gate.wait(10)))
        waiting.wait(10)
        works = [database.writer.submit(user(f"together-{number}")) for number in range(20)]
        gate.set()
        blocked.result()
        assert all(work.result() for work in works)
    event.remove(database.writer.engine, "commit", count)
    assert len(commits) == 1  # the one that blocked took the others with it
    assert len(logins(database, "together-%")) == 20


def test_a_long_work_lets_others_go_before_it_and_is_not_put_off_for_ever(sqlite):
    database, order = sqlite, []
    gate, waiting = threading.Event(), threading.Event()

    def named(name):
        return lambda connection: order.append(name)

    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(database.write, lambda connection: (waiting.set(), gate.wait(10)))
        waiting.wait(10)
        long = database.writer.submit(named("long"), is_long=True)
        others = [database.writer.submit(named(number)) for number in range(3)]
        gate.set()
        blocked.result()
        for one in (long, *others):
            one.result()
    assert order == [0, 1, 2, "long"]

    order.clear()

    def again(number):
        def work(connection):
            order.append(number)
            if number < 3 * PATIENCE:
                asked.append(database.writer.submit(again(number + 1)))
                time.sleep(2 * BATCH_SECONDS)  # a transaction for each

        return work

    asked = []
    asked.append(database.writer.submit(again(0)))
    database.writer.submit(named("long"), is_long=True).result()
    while len(asked) <= 3 * PATIENCE or not all(one.done() for one in asked):
        time.sleep(0.001)
    assert PATIENCE - 1 <= order.index("long") < 3 * PATIENCE


def test_a_long_work_that_waits_at_the_end_is_written_too(new_url):
    database = Database(database_url(new_url("sqlite")))
    gate, begun = threading.Event(), threading.Event()
    database.writer.submit(lambda connection: begun.set() or gate.wait(10))
    assert begun.wait(10)  # alone in its transaction, whose others are looked for only when it is done
    long = database.writer.submit(lambda connection: "written", is_long=True)  # goes behind whatever follows, here the end
    closing = threading.Thread(target=database.close)
    closing.start()
    while not database.writer.is_closed:
        time.sleep(0.001)
    gate.set()
    closing.join(10)
    assert long.result(timeout=10) == "written"


def test_nobody_hears_of_success_before_the_commit(tmp_path):
    database = Database(database_url(str(tmp_path / "a.sqlite")))
    migrate(database)

    def fails(connection) -> None:
        raise OSError("the disk is gone")

    event.listen(database.writer.engine, "commit", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        database.write(user("ada"))
    event.remove(database.writer.engine, "commit", fails)
    assert logins(database, "%") == set()
    database.write(user("ada"))
    assert logins(database, "%") == {"ada"}
    database.close()
    with pytest.raises(Closed):
        database.write(user("bob"))


def test_sqlite_is_durable_by_its_settings(tmp_path):
    database = Database(database_url(str(tmp_path / "a.sqlite")))
    found = database.write(
        lambda c: [c.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")]
    )
    assert found == ["wal", 2, 1]  # 2: FULL, an fsync at every commit
    with pytest.raises(DBAPIError, match="readonly"):
        database.read(lambda c: c.execute(text("CREATE TABLE x (y)")))
    database.close()


def test_a_transaction_that_postgresql_breaks_off_is_run_again(postgresql):
    database = postgresql
    runs = []

    def work(connection):
        runs.append(1)
        user(f"retried-{len(runs)}")(connection)
        if len(runs) < 3:
            connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$"))

    database.write(work)
    assert logins(database, "retried-%") == {"retried-3"}
    with pytest.raises(DBAPIError):
        database.write(
            lambda c: (runs.append(1), c.execute(text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")))
        )
    assert len(runs) == 3 + ATTEMPTS


def test_a_snapshot_sees_one_moment(database):
    database.write(user("before"))
    with database.snapshot() as connection:
        count = text("SELECT count(*) FROM app_user WHERE login IN ('before', 'after')")
        assert connection.scalar(count) == 1
        database.write(user("after"))
        assert connection.scalar(count) == 1
    assert logins(database, "after") == {"after"}


# --- versions ---------------------------------------------------------------------------------------------------------------


def test_the_migrations_make_exactly_the_tables_that_the_code_knows(database):
    differences = database.read(lambda connection: compare_metadata(MigrationContext.configure(connection), metadata))
    assert differences == []
    assert database.read(version_of) == newest()
    migrate(database)  # again: nothing to do
    assert not is_behind(database)


def test_a_database_of_a_newer_prefloop_is_refused_and_left_alone(new_url):
    database = Database(database_url(new_url("sqlite")))
    migrate(database)
    database.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(DataError, match="version 9999, which this prefloop does not know"):
        migrate(database)
    assert database.read(version_of) == "9999"
    database.close()


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "://"])
def test_an_address_that_is_no_database_is_refused(address):
    with pytest.raises(ConfigError):
        database_url(address)


def test_a_second_server_is_refused(database, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "LINGERS", 0.0)
    with (
        only_server(tmp_path, database),
        pytest.raises(RunError, match="another server works on"),
        only_server(tmp_path, database),
    ):
        pass
    with only_server(tmp_path, database):
        pass


def test_a_server_waits_until_postgresql_has_heard_of_the_death_of_the_last_one(postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "LINGERS", 60.0)
    dead = postgresql.readers.connect().execution_options(isolation_level="AUTOCOMMIT")
    dead.detach()
    assert dead.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK + 1})
    notices = threading.Timer(0.3, dead.close)
    notices.start()
    with only_server(tmp_path, postgresql):
        pass
    notices.join()


# --- copies -----------------------------------------------------------------------------------------------------------------


def test_a_backup_of_a_database_in_use_is_whole_and_can_be_put_back(tmp_path):
    folder = tmp_path / "service"
    database = open_database(folder, "")
    project = made(database, n=4)
    project.submit(project.claim())
    copy = backup.write(database, tmp_path / "copy")
    project.submit(project.claim())
    database.close()
    assert copy.stat().st_mode & 0o077 == 0
    rows = backup.restore(copy, folder / "collect.sqlite")
    assert (rows["item"], rows["judgment"]) == (4, 1)
    assert (folder / "collect.sqlite.before-restore").is_file()
    again = open_database(folder, "")
    assert again.read(lambda c: c.scalar(text("SELECT count(*) FROM judgment"))) == 1
    again.close()
    with pytest.raises(DataError, match="is there already"):
        backup.write(database, copy)


def test_a_damaged_backup_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no backup"):
        backup.verify(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("x" * 5000)
    with pytest.raises(DataError, match="is no backup of prefloop"):
        backup.verify(tmp_path / "text.sqlite")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE x (y)")
        other.commit()
    with pytest.raises(DataError, match="is no backup of prefloop"):
        backup.verify(tmp_path / "other.sqlite")


def test_an_older_database_is_copied_before_it_is_migrated(tmp_path, monkeypatch):
    folder = tmp_path / "service"
    open_database(folder, "").close()
    assert not (folder / "backups").exists()
    monkeypatch.setattr("prefloop.collect.serve.is_behind", lambda database: True)
    open_database(folder, "").close()
    (copy,) = (folder / "backups").glob("before-migration-*.sqlite")
    assert backup.verify(copy)["app_user"] == 0


def test_a_postgresql_database_is_backed_up_with_its_own_tool(postgresql, tmp_path):
    with pytest.raises(RunError, match="pg_dump --format=custom"):
        backup.write(postgresql, tmp_path / "copy")


# --- names ------------------------------------------------------------------------------------------------------------------


def test_ids_sort_by_time_and_pseudonyms_differ_between_projects():
    ids = [new_id(5) for _ in range(1000)] + [new_id(6)]
    assert ids == sorted(set(ids)) and {len(one) for one in ids} == {26}
    assert pseudonym("ab" * 32, "ada") == pseudonym("ab" * 32, "ada") != pseudonym("cd" * 32, "ada")
    assert "ada" not in pseudonym("ab" * 32, "ada")
