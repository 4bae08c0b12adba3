"""The server dies under somebody who is typing: kill -9, and on."""

import re

from playwright.sync_api import expect

from prefloop.collect import accounts
from prefloop.collect.database import Database, database_url
from prefloop.collect.migrate import migrate
from tests.collect.browser.conftest import PATIENCE
from tests.collect.made import made
from tests.collect.server import Running


def test_a_draft_and_a_submission_survive_the_death_of_the_server(browser, new_url, tmp_path):
    url = new_url("sqlite")
    database = Database(database_url(url))
    migrate(database)
    project = made(database, users=1, n=2, k=3)
    given = {"agent": "test", "now": database.clock()}
    secret, _ = database.write(lambda connection: accounts.open_session(connection, project.users[0], **given))
    server = Running(tmp_path, url, is_warm=True).start()
    context = browser.new_context(locale="en-GB", reduced_motion="reduce")
    try:
        context.set_default_timeout(PATIENCE)
        context.add_cookies([{"name": "prefloop_session", "value": secret, "url": server.address}])
        page = context.new_page()
        page.goto(f"{server.address}/work/{project.slug}")
        why = page.get_by_role("textbox", name="Why")
        why.type("before the end, ")
        expect(page.locator(".state")).to_have_text("saved")
        server.kill()
        why.type("after it")
        expect(page.locator(".state")).to_have_text("kept on this device")
        page.locator(".line").fill("3 2 1")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".state")).to_have_text("1 unsent")
        drafts = "SELECT body_json FROM draft"
        assert "after it" not in database.read(lambda c: c.exec_driver_sql(drafts).scalar())
        server.start()
        expect(page.locator(".state")).not_to_have_text(
            re.compile("unsent"), timeout=3 * PATIENCE
        )  # it tries less and less often
        judgments = "SELECT body_json FROM judgment"
        (stored,) = database.read(lambda c: c.exec_driver_sql(judgments).scalars().all())
        assert "before the end, after it" in stored
    finally:
        context.close()
        server.stop()
        database.close()
