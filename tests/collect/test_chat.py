"""Live chats: replies from real servers that behave in every way, shown together and unseen; a conversation leaves as rankings."""

import json
import random
import time

import pytest
from sqlalchemy import text

from prefloop.collect import accounts, backends, chat, turns
from prefloop.collect.backends import BackendConfig, ChatConfig, Failed, config_in
from prefloop.collect.exports import ExportConfig, export
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import read_schema, template
from prefloop.data.read import read_groups
from prefloop.errors import ConfigError
from tests.collect.made import made, violations
from tests.collect.openai_server import Models
from tests.collect.site import Site
from tests.ports import taken_port

K_WAY = """
id: talk
live: true
completions: {min: 2, max: 4}
stages: [{id: rank, questions: [{id: ranking, type: rank}]}]
"""


def echo(messages, **params) -> str:
    """What ``python: tests.collect.test_chat:echo`` names."""
    return f"{params.get('word', 'echo')}: {messages[-1]['content']}"


OWN = {"name": "own", "python": "tests.collect.test_chat:echo"}


def fails(messages) -> str:
    raise RuntimeError("no GPU")


def sleeps(messages) -> str:
    time.sleep(20)
    return "late"


PATIENCE = 60.0  # seconds, on a machine that is busy with something else


@pytest.fixture(scope="module")
def models():
    server = Models().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(new_url, tmp_path_factory, models):
    """Begun after the models, so that it ends before them and leaves them no open connection."""
    opened = Site(tmp_path_factory.mktemp("talk"), new_url("sqlite")).start()
    yield opened
    opened.service.talk.stop()
    opened.stop()


def configured(models, *names: str, timeout: float = 30.0, **more) -> ChatConfig:
    listed = [{"name": name, "url": models.address, "model": name} for name in names]
    return ChatConfig.of(backends=listed, timeout=timeout, **more)


class Talking:
    """One person's conversation in a project of its own."""

    def __init__(self, site: Site, config: ChatConfig, *, schema=None, role: str = "annotator"):
        site.service.talk.config = config
        self.site, self.role = site, role
        self.project = made(site.database, users=1, schema=schema or read_schema(K_WAY, where="here"))
        join = {"project_id": self.project.id, "user_id": site.users[role], "role": role}
        self.project.do(accounts.join, **join)
        self.path = f"/projects/{self.project.slug}"

    def ask(self, method: str, path: str, status: int = 200, role: str = "", **given):
        answer = self.site.ask(role or self.role, method, path, **given)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def begin(self, **body) -> str:
        self.chat = f"/chats/{self.ask('POST', f'{self.path}/chats', 201, json=body)['chat']}"
        return self.chat

    def say(self, words: str) -> dict:
        self.ask("POST", f"{self.chat}/turns", 202, json={"text": words})
        return self.settled()

    def shown_of(self, n: int, monkeypatch) -> dict:
        """The turn once ``n`` replies are there and time is up: as long as a busy machine takes for them, and no longer."""
        self.until("done", n)
        before = self.site.database.clock
        monkeypatch.setattr(self.site.database, "clock", lambda: before() + int(1000 * PATIENCE))
        return self.settled()

    def until(self, state: str, n: int) -> None:
        ends = time.monotonic() + PATIENCE
        while self.one(f"SELECT count(*) FROM generation WHERE project_id = :p AND state = '{state}'") < n:
            assert time.monotonic() < ends, "the replies never come"
            time.sleep(0.02)

    def settled(self) -> dict:
        ends = time.monotonic() + PATIENCE
        while (seen := self.ask("GET", self.chat))["turns"][-1]["state"] == "generating":
            assert seen["turns"][-1]["completions"] == [], "a reply was shown before the others"
            assert time.monotonic() < ends, "the replies never come"
            time.sleep(0.02)
        return seen["turns"][-1]

    def choose(self, answers, *, status: int = 200, key: str = "k", **more):
        body = {"answers": answers, "input": "api", **more}
        return self.ask("POST", f"{self.chat}/choose", status, json=body, headers={"Idempotency-Key": f"{self.chat}:{key}"})

    def one(self, query: str):
        return self.site.database.read(lambda c: c.execute(text(query), {"p": self.project.id}).scalar_one())


def ranked(order: str) -> dict:
    return {"rank": {"ranking": order}}


# --- a conversation ---------------------------------------------------------------------------------------------------------


def test_a_conversation_is_as_many_rankings_as_it_has_turns(site, models, tmp_path):
    talking = Talking(site, configured(models, "good", "better"))
    talking.begin()
    first = talking.say("hello")
    assert (first["state"], [one["id"] for one in first["completions"]]) == ("compare", list("abcd"))
    texts = {one["id"]: one["content"]["text"] for one in first["completions"]}
    seen = talking.choose(ranked("c > a = b | d"))
    assert seen["turns"][0]["chosen"] == "c"
    second = talking.say("and then?")
    heard = models.heard[-1]["messages"]
    assert [message["content"] for message in heard] == ["hello", texts["c"], "and then?"]
    talking.choose(ranked("a > b > c > d"), key="second", go_on_with="b")
    manifest = export(site.database, talking.project.id, tmp_path / "out", format="kway", config=ExportConfig())
    assert manifest["judgments"] == 2
    one, two = read_groups(tmp_path / "out" / "kway.jsonl").records
    placed = {completion.id: completion.text for completion in one.completions}
    (ranking,) = one.rankings
    assert [[placed[name] for name in tier] for tier in ranking.tiers] == [[texts["c"]], sorted([texts["a"], texts["b"]], key=[placed[n] for n in ranking.tiers[1]].index)]  # fmt: skip
    assert [placed[name] for name in ranking.unusable] == [texts["d"]]
    assert [message.content for message in two.prompt.messages] == ["hello", texts["c"], "and then?"]
    assert {one.prompt.tags[0]} == {two.prompt.tags[0]} and one.prompt.tags[0].startswith("tree:")
    assert one.prompt.tags[1:] == ("live",) and one.prompt.origin == ranking.annotator
    sources = sorted(completion.source for completion in one.completions)
    assert sources == ["policy:better", "policy:better", "policy:good", "policy:good"]  # none twice before all were asked
    assert site.database.read(lambda c: violations(c, talking.project.id)) == []
    assert len(second["completions"]) == 4


def test_what_goes_to_the_page_says_nothing_of_who_answered(site, models):
    talking = Talking(site, configured(models, "good", "better"))
    talking.begin()
    talking.say("hello")
    sent = json.dumps(talking.ask("GET", talking.chat)).replace("good answers", "").replace("better answers", "")
    hidden = [
        "policy",
        "backend",
        "params",
        '"ms"',
        "good",
        "better",
        talking.one("SELECT id FROM generation WHERE project_id = :p LIMIT 1"),
    ]
    assert [word for word in hidden if word in sent] == []


def test_the_order_on_the_screen_is_not_that_of_asking(site, models):
    """Ids of replies go up in the order in which they were asked for; of 24 orders six screens would all have that one by no chance."""
    talking = Talking(site, configured(models, "good"))
    for number in range(6):
        talking.begin()
        talking.say(f"hello {number}")
    query = text("SELECT t.shown_json FROM chat_turn t JOIN chat c ON c.id = t.chat_id WHERE c.project_id = :p")
    shown = [json.loads(one) for one in site.database.read(lambda c: c.execute(query, {"p": talking.project.id}).scalars())]
    assert len(shown) == 6 and any(one != sorted(one) for one in shown)


def test_a_strength_leaves_as_it_was_said_and_the_winner_is_gone_on_with(site, models, tmp_path):
    talking = Talking(site, configured(models, "good"), schema=template("hh_chat"))
    talking.begin()
    turn = talking.say("hello")
    assert turn["k"] == 2
    seen = talking.choose({"choose": {"better": {"choice": "b", "strength": 3}}})
    assert seen["turns"][0]["chosen"] == "b"
    export(site.database, talking.project.id, tmp_path / "out", format="trl_preference", config=ExportConfig())
    (line,) = [json.loads(line) for line in (tmp_path / "out" / "trl_preference.jsonl").read_text().splitlines()]
    assert line["margin"] == 3.0 and line["chosen"][0]["content"] == turn["completions"][1]["content"]["text"]


def test_a_red_team_goes_on_with_the_worst_and_says_so_in_the_prompt(site, models, tmp_path):
    talking = Talking(site, configured(models, "good"))
    talking.begin(red_team=True)
    talking.say("something bad")
    assert talking.choose(ranked("b > a > d | c"))["turns"][0]["chosen"] == "c"
    export(site.database, talking.project.id, tmp_path / "out", format="kway", config=ExportConfig())
    (group,) = read_groups(tmp_path / "out" / "kway.jsonl").records
    assert "red_team" in group.prompt.tags


def test_choosing_again_with_the_same_key_changes_nothing(site, models):
    talking = Talking(site, configured(models, "good"))
    talking.begin()
    talking.say("hello")
    first = talking.choose(ranked("a > b > c > d"))
    assert talking.choose(ranked("a > b > c > d")) == first
    talking.choose(ranked("b > a > c > d"), key="another", status=409)
    assert talking.one("SELECT count(*) FROM judgment WHERE project_id = :p") == 1
    assert talking.one("SELECT count(*) FROM item WHERE project_id = :p") == 1


WRONG = [
    (ranked("a > b"), {}, "leaves out c, d"),
    (ranked("a > b > c > d"), {"go_on_with": "q"}, "go on with one of a, b, c, d"),
    (ranked("| a b c d"), {}, "no reply is the best"),
]


@pytest.mark.parametrize(("answers", "more", "said"), WRONG)
def test_what_cannot_be_chosen_leaves_nothing_behind(site, models, answers, more, said):
    talking = Talking(site, configured(models, "good"))
    talking.begin()
    talking.say("hello")
    assert said in talking.choose(answers, status=422, **more)["detail"]
    assert talking.one("SELECT count(*) FROM item WHERE project_id = :p") == 0
    assert talking.settled()["state"] == "compare"


def test_where_every_reply_is_bad_somebody_says_which_to_go_on_with(site, models):
    talking = Talking(site, configured(models, "good"))
    talking.begin()
    talking.say("hello")
    assert talking.choose(ranked("| a b c d"), go_on_with="d")["turns"][0]["chosen"] == "d"


def test_a_conversation_is_its_own_persons(site, models):
    talking = Talking(site, configured(models, "good"))
    talking.begin()
    for role in ("manager", "owner", "reviewer"):
        talking.ask("GET", talking.chat, 404, role=role)
        talking.ask("POST", f"{talking.chat}/turns", 404, role=role, json={"text": "mine now"})
    assert [one["chat"] for one in talking.ask("GET", f"{talking.path}/chats")] == [talking.chat.removeprefix("/chats/")]


def test_one_thing_after_the_other(site, models):
    talking = Talking(site, configured(models, "good"))
    talking.begin()
    talking.choose(ranked("a > b"), status=409)
    talking.ask("POST", f"{talking.chat}/regenerate", 409)
    talking.ask("POST", f"{talking.chat}/turns", 422, json={"text": "  "})
    talking.say("hello")
    talking.ask("POST", f"{talking.chat}/turns", 409, json={"text": "too early"})
    talking.choose(ranked("a > b > c > d"))
    talking.ask("POST", f"{talking.chat}/close", 204)
    talking.ask("POST", f"{talking.chat}/turns", 409, json={"text": "too late"})
    talking.project.do(
        lambda connection, now: connection.execute(
            text("UPDATE project SET state = 'paused' WHERE id = :p"), {"p": talking.project.id}
        )
    )
    talking.ask("POST", f"{talking.path}/chats", 409, json={})


def test_a_project_that_is_not_live_has_no_chats(site, models):
    talking = Talking(site, configured(models, "good"), schema=template("rank"))
    assert talking.ask("POST", f"{talking.path}/chats", 409, json={})["code"] == "not_live"


def test_the_store_keeps_a_conversation_on_both_databases(database):
    project, config = made(database, users=2, schema=read_schema(K_WAY, where="here")), ChatConfig.of(backends=[OWN])
    mine = {"user_id": project.users[0]}
    identity = project.do(chat.start, project_id=project.id, is_red_team=False, **mine)
    for number in range(2):
        begun = project.do(chat.say, chat_id=identity, words=f"words {number}", config=config, **mine)
        for one in begun.replies:
            project.do(chat.keep_reply, reply_id=one.id, text=f"to {one.messages[-1]['content']}", error="", ms=1)
        said = turns.Said(ranked("d > c > b | a"))
        project.do(chat.choose, chat_id=identity, key=f"{number}", said=said, go_on_with="", **mine)
    seen = database.read(lambda c: chat.view(c, chat_id=identity, user_id=project.users[0]))
    assert [(turn["user"], turn["state"], turn["chosen"]) for turn in seen["turns"]] == [
        ("words 0", "chosen", "d"),
        ("words 1", "chosen", "d"),
    ]
    (listed,) = database.read(lambda c: chat.listed(c, project_id=project.id, user_id=project.users[0]))
    assert (listed["turns"], listed["title"], listed["state"]) == (2, "words 0", "open")
    assert database.read(lambda c: chat.listed(c, project_id=project.id, user_id=project.users[1])) == []
    project.do(chat.close, chat_id=identity, **mine)
    assert database.read(lambda c: violations(c, project.id)) == []
    with pytest.raises(Refused, match="was ended"):
        project.do(chat.say, chat_id=identity, words="more", config=config, **mine)


# --- back-ends that fail ----------------------------------------------------------------------------------------------------

BAD = ["breaks", "nonsense", "empty", "broken", "elsewhere", "endless"]


@pytest.mark.parametrize("name", BAD)
def test_two_good_replies_are_shown_without_those_that_failed(site, models, name):
    talking = Talking(site, configured(models, "good", name))
    talking.begin()
    turn = talking.say("hello")
    assert [one["content"]["text"].split()[0] for one in turn["completions"]] == ["good", "good"]
    assert talking.one(f"SELECT count(*) FROM generation WHERE project_id = :p AND backend = '{name}' AND error <> ''") == 2
    talking.choose(ranked("a = b"))


@pytest.mark.parametrize("name", ["slow", "drips"])
def test_when_time_is_up_what_is_there_is_shown(site, models, monkeypatch, name):
    talking = Talking(site, configured(models, "good", name, timeout=PATIENCE))
    talking.begin()
    talking.ask("POST", f"{talking.chat}/turns", 202, json={"text": "hello"})
    try:
        assert len(talking.shown_of(2, monkeypatch)["completions"]) == 2
    finally:
        models.let_go()


def test_what_answers_too_slowly_is_broken_off_when_time_is_up(site, models):
    talking = Talking(site, configured(models, "drips", timeout=0.5))
    talking.begin()
    turn = talking.say("hello")
    assert (turn["state"], turn["completions"]) == ("failed", [])
    talking.until("failed", 4)  # nothing waits for a reply for ever


def test_too_few_replies_can_be_asked_for_again(site, models):
    talking = Talking(site, configured(models, "broken"))
    talking.begin()
    turn = talking.say("hello")
    assert (turn["state"], turn["completions"]) == ("failed", [])
    talking.choose(ranked("a > b"), status=409)
    site.service.talk.config = configured(models, "good")
    talking.ask("POST", f"{talking.chat}/regenerate", 202)
    again = talking.settled()
    assert (again["state"], again["user"], len(again["completions"])) == ("compare", "hello", 4)


def test_a_server_that_was_killed_while_models_answered_shows_what_was_there(site, models, monkeypatch):
    """Its threads are gone: the rows of replies that were asked for say so for ever, until time is up."""
    talking = Talking(site, configured(models, "good", timeout=PATIENCE))
    talking.begin()
    site.service.talk.begin, begin = (lambda begun: None), site.service.talk.begin
    try:
        talking.ask("POST", f"{talking.chat}/turns", 202, json={"text": "hello"})
    finally:
        site.service.talk.begin = begin
    ids = site.database.read(
        lambda c: (
            c.execute(text("SELECT id FROM generation WHERE project_id = :p ORDER BY id"), {"p": talking.project.id})
            .scalars()
            .all()
        )
    )
    for one in ids[:3]:
        talking.project.do(chat.keep_reply, reply_id=one, text=f"reply {one}", error="", ms=1)
    turn = talking.shown_of(3, monkeypatch)
    assert (turn["state"], len(turn["completions"])) == ("compare", 3)
    talking.project.do(chat.keep_reply, reply_id=ids[3], text="late", error="", ms=1)
    assert len(talking.settled()["completions"]) == 3  # what came later is kept, and not shown


def test_functions_of_ones_own_answer_and_fail_like_servers(site):
    listed = [
        {"name": "own", "python": "tests.collect.test_chat:echo", "params": {"word": "said"}},
        {"name": "ill", "python": "tests.collect.test_chat:fails"},
    ]
    talking = Talking(site, ChatConfig.of(backends=listed))
    talking.begin()
    assert [one["content"]["text"] for one in talking.say("hello")["completions"]] == ["said: hello"] * 2
    error = "SELECT error FROM generation WHERE project_id = :p AND backend = 'ill' LIMIT 1"
    assert talking.one(error) == "RuntimeError: no GPU"


def test_a_function_that_never_returns_holds_nobody_up(site, monkeypatch):
    listed = [
        {"name": "own", "python": "tests.collect.test_chat:echo"},
        {"name": "asleep", "python": "tests.collect.test_chat:sleeps"},
    ]
    talking = Talking(site, ChatConfig.of(backends=listed, timeout=PATIENCE))
    talking.begin()
    talking.ask("POST", f"{talking.chat}/turns", 202, json={"text": "hello"})
    assert len(talking.shown_of(2, monkeypatch)["completions"]) == 2


# --- how much ---------------------------------------------------------------------------------------------------------------


def test_a_person_has_so_many_replies_a_day_and_a_project_so_many_at_all(site, models, monkeypatch):
    now = site.database.clock()
    monkeypatch.setattr(site.database, "clock", lambda: now)  # the day does not end meanwhile
    talking = Talking(site, configured(models, "good", replies_per_project=8), role="reviewer")
    for _ in range(2):
        talking.begin()
        talking.say("hello")
    talking.begin()
    assert talking.ask("POST", f"{talking.chat}/turns", 409, json={"text": "x"})["code"] == "budget_project"
    assert talking.one("SELECT count(*) FROM generation WHERE project_id = :p") == 8
    elsewhere = Talking(site, configured(models, "good", replies_per_day=11), role="reviewer")
    elsewhere.begin()
    refused = elsewhere.ask("POST", f"{elsewhere.chat}/turns", 429, json={"text": "x"})
    assert refused["code"] == "budget" and 0 < refused["retry_after"] <= 86_400
    assert elsewhere.one("SELECT count(*) FROM chat_turn t JOIN chat c ON c.id = t.chat_id WHERE c.project_id = :p") == 0


def test_a_project_says_who_answers_how_often_and_what_is_said_before(site, models):
    talking = Talking(site, configured(models, "good", "better", "broken"))
    change = {"backends": {"better": 2.0}, "k": 3, "system": "Be brief."}
    talking.ask("PATCH", f"{talking.path}/chat", 200, role="owner", json=change)
    found = talking.ask("GET", f"{talking.path}/chat", 200, role="owner")
    assert found == {**change, "known": [{"name": n, "model": n, "weight": 1.0} for n in ("good", "better", "broken")]}
    talking.begin()
    turn = talking.say("hello")
    assert [one["content"]["text"].split()[0] for one in turn["completions"]] == ["better"] * 3
    assert models.heard[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    for bad in ({"backends": {"nobody": 1}}, {"backends": {"good": 0}}, {"k": 17}):
        talking.ask("PATCH", f"{talking.path}/chat", 422, role="owner", json=bad)


def test_back_ends_are_drawn_by_weight():
    chance, counted = random.Random(0), {"a": 0, "b": 0}
    for _ in range(2000):
        counted[chat.drawn({"a": 3.0, "b": 1.0}, 1, chance)[0]] += 1
    assert 1400 < counted["a"] < 1600  # three in four of 2,000: 1,500, one standard deviation is 19
    assert sorted(chat.drawn({"a": 3.0, "b": 1.0}, 4, chance)) == ["a", "a", "b", "b"]


def test_a_service_without_back_ends_says_so(site):
    talking = Talking(site, ChatConfig.of())
    talking.begin()
    assert talking.ask("POST", f"{talking.chat}/turns", 409, json={"text": "x"})["code"] == "no_backend"


# --- only where the owner said ----------------------------------------------------------------------------------------------


def reply_from(url: str, *, model: str = "good", seconds: float = PATIENCE) -> str:
    with backends.client() as http:
        backend = BackendConfig.of(name="x", url=url, model=model)
        return backends.reply(http, backend, [{"role": "user", "content": "hello"}], ends=time.monotonic() + seconds)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0", "fd00:ec2::254", "255.255.255.255"],
)
def test_a_name_that_leads_where_no_back_end_may_be_is_not_asked(models, monkeypatch, address):
    family = (None, None, None, "", (address, models.port))
    monkeypatch.setattr(backends.socket, "getaddrinfo", lambda *given, **more: [(*family,)])
    before = len(models.heard)
    with pytest.raises(Failed, match="where no back-end may be"):
        reply_from(f"http://models.example:{models.port}/v1")
    assert len(models.heard) == before


def test_what_is_connected_to_is_the_address_that_was_looked_at(models, monkeypatch):
    """A name that changes its mind between looking and connecting gains nothing: it is asked once."""
    asked, really = [], backends.socket.getaddrinfo

    def named(host, *given, **more):
        asked.extend([host] if host == "models.example" else [])
        return really("127.0.0.1" if host == "models.example" else host, *given, **more)

    monkeypatch.setattr(backends.socket, "getaddrinfo", named)
    assert reply_from(f"http://models.example:{models.port}/v1").startswith("good answers")
    assert asked == ["models.example"]
    assert models.heard[-1]["headers"]["host"] == f"models.example:{models.port}"


def test_loopback_is_allowed_because_models_live_there():
    assert not any(map(backends.is_forbidden, ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.8", "192.168.1.2", "2001:db8::1"]))


def test_no_redirect_is_followed_and_no_proxy_of_the_environment_used(models, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert reply_from(models.address).startswith("good")
    n = len(models.heard)
    with pytest.raises(Failed, match="answered 307"):
        reply_from(models.address, model="elsewhere")
    assert len(models.heard) == n + 1


def test_an_answer_ends_with_its_time_and_with_its_length(models):
    with pytest.raises(Failed, match="out of time"):
        reply_from(models.address, model="drips", seconds=0.5)  # it would go on for ever, a letter at a time
    with pytest.raises(Failed, match="more than 2 MiB"):
        reply_from(models.address, model="endless")


def test_nobody_listening_is_a_failure_with_its_reason():
    with taken_port() as nobody, pytest.raises(Failed, match="no connection"):
        reply_from(f"http://127.0.0.1:{nobody.getsockname()[1]}/v1")


def test_a_key_is_sent_from_the_environment_and_kept_nowhere(models, monkeypatch):
    monkeypatch.setenv("THEIR_KEY", "very secret")
    with backends.client() as http:
        backend = BackendConfig.of(name="x", url=models.address, model="good", key_env="THEIR_KEY", params={"temperature": 0.5})
        backends.reply(http, backend, [{"role": "user", "content": "hello"}], ends=time.monotonic() + PATIENCE)
    assert models.heard[-1]["headers"]["authorization"] == "Bearer very secret"
    assert models.heard[-1]["temperature"] == 0.5
    assert "very secret" not in json.dumps(chat.asked_how(ChatConfig.of(backends=[backend.model_dump()]), "x"))


FILES = [
    ("backends: [{name: x}]", "needs either a url or python"),
    ("backends: [{name: x, url: 'http://h/v1', python: 'a:b'}]", "needs either a url or python"),
    ("backends: [{name: x, url: 'file:///etc/passwd', model: m}]", "no address of a server"),
    ("backends: [{name: x, url: 'http://u:p@h/v1', model: m}]", "no address of a server"),
    ("backends: [{name: x, url: 'http://h/v1'}]", "needs the name of a model"),
    ("backends: [{name: 'x y', url: 'http://h/v1', model: m}]", "a name is up to 60"),
    ("backends: [{name: x, python: 'no.such:thing'}]", "cannot be imported"),
    ("backends: [{name: x, python: 'json:__name__'}]", "is no function"),
    ("backends: [{name: x, python: 'json:dumps'}, {name: x, python: 'json:loads'}]", "two back-ends are called x"),
    ("[1]", "must hold key: value lines"),
    ("a: [", "cannot be read"),
]


@pytest.mark.parametrize(("written", "said"), FILES)
def test_a_file_of_back_ends_that_cannot_be_used_is_refused_at_the_start(tmp_path, written, said):
    (tmp_path / "chat.yaml").write_text(written)
    with pytest.raises(ConfigError, match=said):
        config_in(tmp_path)


def test_a_folder_without_the_file_has_no_back_ends(tmp_path):
    assert config_in(tmp_path).backends == []
    (tmp_path / "chat.yaml").write_text("backends: [{name: own, python: 'tests.collect.test_chat:echo'}]\ntimeout: 5\n")
    config = config_in(tmp_path)
    assert (config.named("own").python, config.timeout) == ("tests.collect.test_chat:echo", 5.0)


# --- setting up -------------------------------------------------------------------------------------------------------------


def test_a_manager_asks_one_model_and_hears_what_it_says_or_why_it_says_nothing(site, models):
    site.service.talk.config = configured(models, "good", "nonsense")
    project = made(site.database, users=0, schema=template("hh_chat"))
    project.do(accounts.join, project_id=project.id, user_id=site.users["manager"], role="manager")
    path = f"/projects/{project.slug}/chat"
    assert site.ask("manager", "PATCH", path, json={"system": "Be kind."}).status_code == 200
    known = site.ask("manager", "GET", path).json()["known"]
    assert known == [{"name": name, "model": name, "weight": 1.0} for name in ("good", "nonsense")]
    heard = site.ask("manager", "POST", f"{path}/try", json={"backend": "good", "text": "who are you?"}).json()
    assert "who are you?" in heard["text"] and heard["error"] == ""
    (asked,) = [one for one in models.heard if one["messages"][-1]["content"] == "who are you?"]
    assert asked["messages"][0] == {"role": "system", "content": "Be kind."}
    failed = site.ask("manager", "POST", f"{path}/try", json={"backend": "nonsense"}).json()
    assert (failed["text"], failed["error"]) == ("", "the server answered something that is no chat completion")
    assert site.ask("manager", "POST", f"{path}/try", json={"backend": "other"}).json()["code"] == "bad_chat"
    assert (
        site.database.read(lambda c: c.scalar(text("SELECT count(*) FROM generation WHERE project_id = :p"), {"p": project.id}))
        == 0
    )
