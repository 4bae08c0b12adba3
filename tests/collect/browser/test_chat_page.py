"""A live chat in a real browser: written, answered by real servers, compared without seeing who answered, gone on with."""

import json

import pytest
from playwright.sync_api import Page, expect

from prefloop.collect import accounts
from prefloop.collect.backends import ChatConfig
from prefloop.collect.schema import read_schema, template
from tests.collect.browser.conftest import DESKTOP, LIGHTS, PHONE, Visit, photograph
from tests.collect.made import Made, made
from tests.collect.site import ROLES, Site

ANSWERS = {
    "brief": "Put the tin in the fridge for **ten minutes**, then turn it upside down: a cold loaf shrinks, and lets go of the sides.",
    "long": (
        "There are three things to try, in this order:\n\n1. Run a thin knife once around the edge.\n"
        "2. Let it cool on its side, so that the steam gets out.\n3. Wrap the tin in a warm towel for a minute.\n\n"
        "If none of them helps, the tin wanted more butter; cut a piece of paper to its bottom next time."
    ),
    "简": "连模具一起放进冰箱**十分钟**再倒扣：面包遇冷收缩，会自己脱开四壁。",
    "详": (
        "可以依次试三种办法：\n\n1. 用薄刀沿边缘划一圈。\n2. 侧放晾凉，让蒸汽散出来。\n3. 用热毛巾裹住模具一分钟。\n\n"
        "都不行的话，说明黄油抹少了；下次在底部垫一张油纸。"
    ),
}


def brief(messages: list[dict[str, str]]) -> str:
    """A back-end that answers well."""
    if "面包" in messages[0]["content"]:
        return ANSWERS["简"]
    return ANSWERS["brief"] if len(messages) == 1 else "You can freeze it for **three months**; slice it first."


def long(messages: list[dict[str, str]]) -> str:
    """Another one."""
    if "面包" in messages[0]["content"]:
        return ANSWERS["详"]
    return ANSWERS["long"] if len(messages) == 1 else "Yes. Wrapped twice, it keeps for about three months in the freezer."


def hostile(messages: list[dict[str, str]]) -> str:
    """One that answers with what no page may run."""
    return "<img src=x onerror=alert(1)><script>alert(2)</script>[x](javascript:alert(3)) **bold**"


def configured(*names: str) -> ChatConfig:
    listed = [{"name": name, "python": f"tests.collect.browser.test_chat_page:{name}"} for name in names]
    return ChatConfig.of(backends=listed, timeout=20.0)


@pytest.fixture
def talk(site: Site) -> Made:
    """A live project of its own in which everybody may work; two models answer."""
    site.service.talk.config = configured("brief", "long")
    project = made(site.database, users=0, schema=template("hh_chat"))
    for role in ROLES:
        project.do(accounts.join, project_id=project.id, user_id=site.users[role], role=role)
    return project


def begun(visit: Visit, talk: Made, **more) -> Page:
    page = visit(f"/chat/{talk.slug}", **more)
    page.get_by_role("button").filter(has_text="Begin a conversation").or_(
        page.get_by_role("button").filter(has_text="开始对话")
    ).click()
    expect(page.locator(".composer textarea")).to_be_focused()
    return page


def said(page: Page, words: str) -> None:
    page.locator(".composer textarea").fill(words)
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(2)


def n_judgments(talk: Made) -> int:
    count = "SELECT count(*) FROM judgment WHERE project_id = ?"
    return talk.database.read(lambda c: c.exec_driver_sql(count, (talk.id,)).scalar_one())


def test_somebody_talks_compares_and_goes_on_with_the_better_answer(visit: Visit, talk: Made):
    page = begun(visit, talk)
    said(page, "My bread sticks to the tin. What can I do?")
    names = page.locator(".pair button").all_inner_texts()
    assert len(names) == 8 == len(set(names)), "two steps of strength have the same name"
    assert "policy" not in page.content() and "python" not in page.content()
    page.get_by_role("button", name="Submit and go on").click(force=True)
    assert n_judgments(talk) == 0  # nothing is an answer before somebody gave one
    strong = page.locator("[data-choice=b3]")
    strong.click()
    expect(strong).to_have_attribute("aria-pressed", "true")
    better = page.locator(".card[data-id=b] .answer").inner_text()
    photograph(page, "collect-chat-en", themes=LIGHTS)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".conversation .message.assistant")).to_have_count(1)
    assert page.locator(".conversation .message.assistant .md").inner_text().strip() == better.strip()
    assert n_judgments(talk) == 1
    said(page, "And can I freeze it?")
    expect(page.locator(".conversation .message")).to_have_count(3)


def test_a_reload_finds_what_was_said_typed_and_chosen(visit: Visit, talk: Made):
    page = begun(visit, talk)
    page.locator(".composer textarea").fill("not sent ye")
    page.keyboard.type("t")
    page.goto("about:blank")
    page.go_back()
    expect(page.locator(".composer textarea")).to_have_value("not sent yet")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(2)
    before = [page.locator(f".card[data-id={letter}] .answer").inner_text() for letter in "ab"]
    page.locator("[data-choice=a2]").click()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("[data-choice=a2]")).to_have_attribute("aria-pressed", "true")
    assert [page.locator(f".card[data-id={letter}] .answer").inner_text() for letter in "ab"] == before


def test_hostile_answers_are_shown_and_run_nothing(visit: Visit, talk: Made, site: Site):
    site.service.talk.config = configured("hostile")
    page = begun(visit, talk)
    page.on("dialog", lambda dialog: pytest.fail("a reply ran"))
    said(page, "<b>mine</b>")
    expect(page.locator(".card strong").first).to_have_text("bold")
    assert page.locator(".card img, .card script, .card a[href^=javascript]").count() == 0


def test_too_few_answers_can_be_asked_for_again(visit: Visit, talk: Made, site: Site):
    site.service.talk.config = ChatConfig.of(backends=[{"name": "ill", "python": "tests.collect.test_chat:fails"}])
    page = begun(visit, talk)
    page.locator(".composer textarea").fill("hello")
    page.keyboard.press("Enter")
    again = page.get_by_role("button", name="Ask again")
    expect(again).to_be_visible()
    site.service.talk.config = configured("brief", "long")
    again.click()
    expect(page.locator(".card")).to_have_count(2)


def test_in_chinese_on_a_phone_nothing_is_wider_than_the_screen(visit: Visit, talk: Made):
    page = begun(visit, talk, language="zh", viewport=PHONE, color_scheme="dark")
    page.locator(".composer textarea").fill("面包粘在模具上怎么办？")
    page.get_by_role("button", name="发送").click()
    expect(page.locator(".card")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    photograph(page, "collect-chat-phone-zh")
    page.locator("[data-choice=a4]").click()
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    photograph(page, "collect-chat-zh", themes=LIGHTS)
    page.locator(".submit").click()
    expect(page.locator(".composer")).to_be_visible()
    assert n_judgments(talk) == 1


def test_the_list_of_projects_leads_to_the_chat(visit: Visit, talk: Made):
    page = visit("/")
    page.locator(f'a[href="/chat/{talk.slug}"]').click()
    expect(page.get_by_role("button", name="Begin a conversation")).to_be_visible()


def test_an_ime_that_composes_does_not_send(visit: Visit, talk: Made):
    page = begun(visit, talk)
    page.locator(".composer textarea").fill("ni hao")
    press = "element => element.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    page.locator(".composer textarea").evaluate(press)
    expect(page.locator(".composer textarea")).to_have_value("ni hao")
    page.get_by_role("button", name="All conversations").click()
    expect(page.get_by_role("button", name="Begin a conversation")).to_be_visible()
    assert n_judgments(talk) == 0


FOUR = """
id: four
live: true
completions: {min: 2, max: 4}
stages:
  - {id: each, per: completion, questions: [{id: rude, type: flag}]}
  - {id: all, questions: [{id: ranking, type: rank}]}
"""


def test_four_answers_are_put_in_order_by_taps_and_flagged(visit: Visit, site: Site, talk: Made):
    project = made(site.database, users=0, schema=read_schema(FOUR, where="here"))
    project.do(accounts.join, project_id=project.id, user_id=site.users["annotator"], role="annotator")
    page = begun(visit, project)
    page.locator(".composer textarea").fill("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(4)
    for letter in "bda":
        page.locator(f".card[data-id={letter}] .rank-chip").click()
    page.locator(".card[data-id=c] .flag").click()
    expect(page.locator(".why-not")).to_have_text("1 answer has no place yet")
    page.locator(".card[data-id=c] .rank-chip").click()
    expect(page.locator(".card[data-id=c] .rank-chip")).to_have_text("4")
    best = page.locator(".card[data-id=b] .answer").inner_text()
    page.locator(".submit").click()
    assert page.locator(".conversation .message.assistant .md").inner_text().strip() == best.strip()
    query = "SELECT j.body_json, a.shown_json FROM judgment j JOIN assignment a ON a.id = j.assignment_id WHERE j.project_id = ?"
    body, shown = site.database.read(lambda c: c.exec_driver_sql(query, (project.id,)).one())
    a, b, c, d = json.loads(shown)
    assert json.loads(body)["all"]["ranking"]["tiers"] == [[b], [d], [a], [c]]
    assert json.loads(body)["each"][c] == {"rude": True}


def test_a_red_team_says_so_and_goes_on_with_the_worst(visit: Visit, talk: Made):
    page = visit(f"/chat/{talk.slug}")
    page.locator(".talk input[type=checkbox]").check()
    page.get_by_role("button", name="Begin a conversation").click()
    said(page, "something bad")
    expect(page.locator(".prompt .red")).to_have_text("Red team:")
    expect(page.locator(".go-on")).to_contain_text("the worst")
    worse = page.locator(".card[data-id=b] .answer").inner_text()
    page.locator("[data-choice=a1]").click()
    page.locator(".submit").click()
    assert page.locator(".conversation .message.assistant .md").inner_text().strip() == worse.strip()


# --- who answers ------------------------------------------------------------------------------------------------------------


def test_a_manager_tries_the_models_and_chooses_among_them(visit: Visit, talk: Made, site: Site):
    listed = [{"name": name, "python": f"tests.collect.browser.test_chat_page:{name}"} for name in ("brief", "long")]
    listed.append({"name": "ill", "python": "tests.collect.test_chat:fails"})
    site.service.talk.config = ChatConfig.of(backends=listed)
    page = visit(f"/projects/{talk.slug}/setup", "manager")
    models = page.locator(".backend")
    expect(models).to_have_count(3)
    assert page.locator("[data-step=items]").count() == 0  # nothing is imported into a live project
    for name, said in (("brief", "ten minutes"), ("ill", "RuntimeError: no GPU")):
        page.locator(f"[data-backend={name}]").get_by_role("button", name="Try it").click()
        expect(page.locator(f"[data-backend={name}] [role=status]")).to_contain_text(said)
    page.locator("[data-backend=ill]").get_by_role("checkbox").uncheck()
    page.locator("[data-backend=long] [type=number]").fill("2.5")
    page.locator("[data-step=chat] [name=system]").fill("Be kind.")
    with page.expect_response("**/chat"):
        page.locator("[data-step=chat]").get_by_role("button", name="Store").click()
    stored = site.ask("manager", "GET", f"/projects/{talk.slug}/chat").json()
    assert (stored["backends"], stored["system"]) == ({"brief": 1, "long": 2.5}, "Be kind.")
    for name in ("brief", "long"):
        page.locator(f"[data-backend={name}]").get_by_role("checkbox").uncheck()
    page.locator("[data-step=chat]").get_by_role("button", name="Store").click()
    expect(page.locator("[data-step=chat] [role=alert]")).to_have_text("Choose at least one.")


def test_where_no_model_is_named_the_page_says_how_to_name_one(visit: Visit, talk: Made, site: Site):
    site.service.talk.config = ChatConfig.of()
    page = visit(f"/projects/{talk.slug}/setup", "manager", language="zh")
    expect(page.locator("[data-step=chat]")).to_contain_text("chat.yaml")
    expect(page.locator("[data-step=chat] pre")).to_contain_text("key_env")
