"""Passwords, sessions, tokens, invitations."""

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type
from sqlalchemy import text

from prefloop.collect import accounts
from prefloop.collect.database import Database, database_url
from prefloop.collect.identity import fingerprint
from prefloop.collect.migrate import migrate
from prefloop.collect.refusals import Refused
from tests.collect.made import made

NOW = 1_700_000_000_000
PASSWORD = "correct horse battery"


@pytest.fixture
def ada(database):
    login = f"ada-{accounts.new_secret()[:8]}"
    return database.write(lambda c: accounts.create_user(c, login=login, now=NOW))


def test_passwords_are_hashed_by_argon2id_with_19_mib():
    stored = accounts.hashed(PASSWORD)
    found = extract_parameters(stored)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 19 * 1024, 2, 1)
    assert accounts.verifies(stored, PASSWORD) and not accounts.verifies(stored, PASSWORD + "x")
    assert not accounts.needs_rehash(stored)
    assert accounts.needs_rehash("$argon2id$v=19$m=8192,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b7dWA")


def test_a_login_that_is_not_there_is_verified_against_a_real_hash_too():
    extract_parameters(accounts.NOBODY)
    assert not accounts.verifies("", PASSWORD)


@pytest.mark.parametrize("password", ["short", "x" * 129, "qwertyuiop", "QWERTYUIOP", "aaaaaaaaaaaa", "half \ud800 a character"])
def test_a_password_that_is_tried_first_is_refused(password):
    with pytest.raises(Refused):
        accounts.hashed(password)


def test_logins_are_the_same_in_any_case_and_taken_once(database):
    database.write(lambda c: accounts.create_user(c, login="Grace", now=NOW))
    assert database.read(lambda c: accounts.by_login(c, " GRACE ")).login == "grace"
    with pytest.raises(Refused, match="called 'grace' already"):
        database.write(lambda c: accounts.create_user(c, login="gRACE", now=NOW))
    for login in ("", "two words", "x" * 81, "bell\x07"):
        with pytest.raises(Refused, match="a login has"):
            database.write(lambda c, login=login: accounts.create_user(c, login=login, now=NOW))


def test_a_session_is_stored_as_a_hash_and_ends_by_idling_age_and_logging_out(database, ada):
    secret, csrf = database.write(lambda c: accounts.open_session(c, ada, agent="x", now=NOW))
    assert database.read(lambda c: c.scalar(text("SELECT count(*) FROM session WHERE sha256 = :s"), {"s": secret})) == 0

    def at(now):
        return database.read(lambda c: accounts.by_session(c, secret, now))

    who, is_due = at(NOW + 1000)
    assert (who.user_id, who.csrf, is_due) == (ada, csrf, False)
    assert at(NOW + accounts.SESSION_IDLE + 1) is None
    for hours in range(11, 24 * 7, 11):
        database.write(lambda c, hours=hours: accounts.touch(c, fingerprint(secret), NOW + hours * accounts.HOUR))
    assert at(NOW + accounts.SESSION_ALL) is not None
    assert at(NOW + accounts.SESSION_ALL + 1) is None
    database.write(lambda c: accounts.close_session(c, fingerprint(secret)))
    assert at(NOW + 1000) is None


def test_a_new_password_ends_the_other_sessions(database, ada):
    mine, other = (database.write(lambda c: accounts.open_session(c, ada, agent="x", now=NOW))[0] for _ in range(2))
    database.write(lambda c: accounts.set_password(c, ada, "hash", keep=fingerprint(mine)))
    assert database.read(lambda c: accounts.by_session(c, mine, NOW)) is not None
    assert database.read(lambda c: accounts.by_session(c, other, NOW)) is None


def test_only_so_many_sessions_stay_open(database, ada):
    for number in range(accounts.MAX_SESSIONS + 3):
        database.write(lambda c, number=number: accounts.open_session(c, ada, agent="x", now=NOW + number))
    assert (
        database.read(lambda c: c.scalar(text("SELECT count(*) FROM session WHERE user_id = :u"), {"u": ada}))
        == accounts.MAX_SESSIONS
    )


def test_after_five_wrong_passwords_waiting_doubles_up_to_a_quarter_of_an_hour(database):
    key = [f"login:{accounts.new_secret()}"]
    waits = []
    for _ in range(20):
        database.write(lambda c: accounts.failed(c, key, NOW))
        until = database.read(lambda c: c.scalar(text("SELECT until FROM login_attempt WHERE key = :k"), {"k": key[0]}))
        waits.append(until - NOW)
    assert waits[:9] == [0, 0, 0, 0, 0, 1000, 2000, 4000, 8000]
    assert waits[-1] == accounts.LONGEST_WAIT
    with pytest.raises(Refused, match="too many attempts") as refusal:
        database.read(lambda c: accounts.refuse_if_locked(c, key, NOW + 1))
    assert refusal.value.more == {"retry_after": 900}
    database.read(lambda c: accounts.refuse_if_locked(c, key, NOW + accounts.LONGEST_WAIT))


def test_a_token_is_shown_once_has_scopes_and_runs_out(database, ada):
    identity, secret = database.write(
        lambda c: accounts.create_token(c, user_id=ada, name="x", scopes=["annotate"], expires=NOW + 5, now=NOW)
    )
    assert database.read(lambda c: accounts.by_token(c, secret, NOW)).scopes == {"annotate"}
    assert database.read(lambda c: accounts.by_token(c, secret, NOW + 5)) is None
    assert database.read(lambda c: accounts.by_token(c, identity, NOW)) is None
    for scopes in ([], ["everything"]):
        with pytest.raises(Refused, match="unknown scopes"):
            database.write(lambda c, scopes=scopes: accounts.create_token(c, user_id=ada, name="x", scopes=scopes, now=NOW))


def test_an_invitation_is_accepted_once_and_in_time(database, ada):
    project = made(database)

    def invite():
        return database.write(
            lambda c: accounts.create_invite(c, project_id=project.id, role="reviewer", created_by=None, now=NOW)
        )

    secret, late = invite(), invite()
    database.write(lambda c: accounts.accept(c, secret, user_id=ada, now=NOW + 1))
    role = text("SELECT role FROM member WHERE project_id = :p AND user_id = :u")
    assert database.read(lambda c: c.scalar(role, {"p": project.id, "u": ada})) == "reviewer"
    for given, now in ((secret, NOW + 1), (late, NOW + accounts.INVITE_LASTS), ("x", NOW)):
        with pytest.raises(Refused, match="used, has run out, or never was"):
            database.write(lambda c, given=given, now=now: accounts.accept(c, given, user_id=ada, now=now))
    with pytest.raises(Refused, match="not as 'king'"):
        database.write(lambda c: accounts.create_invite(c, project_id=project.id, role="king", created_by=None, now=NOW))


def test_the_first_owner_comes_through_the_last_link_that_was_printed(new_url):

    database = Database(database_url(new_url("sqlite")))
    migrate(database)
    assert not database.read(accounts.has_owner)
    old, new = (database.write(lambda c: accounts.first_invite(c, now=NOW)) for _ in range(2))
    person = database.write(lambda c: accounts.create_user(c, login="ada", now=NOW))
    with pytest.raises(Refused):
        database.write(lambda c: accounts.accept(c, old, user_id=person, now=NOW))
    database.write(lambda c: accounts.accept(c, new, user_id=person, now=NOW))
    assert database.read(accounts.has_owner)
    database.close()


def test_an_erased_person_leaves_judgments_and_no_name(database):
    project = made(database, users=1, n=1)
    receipt = project.submit(project.claim())
    person = project.users[0]
    token = database.write(lambda c: accounts.create_token(c, user_id=person, name="x", scopes=["annotate"], now=NOW))[1]
    database.write(lambda c: accounts.erase(c, person))
    row = database.read(lambda c: c.execute(text("SELECT * FROM app_user WHERE id = :u"), {"u": person}).one())
    assert (row.display, row.password, row.state) == ("erased", "", "erased")
    assert row.login == f"erased-{person.lower()}"
    assert database.read(lambda c: accounts.by_token(c, token, NOW)) is None
    assert (
        database.read(lambda c: c.scalar(text("SELECT user_id FROM judgment WHERE id = :j"), {"j": receipt.judgment_id}))
        == person
    )
