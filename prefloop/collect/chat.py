"""Live chats: somebody writes, K replies come from models unseen, all at once; one of them is gone on with.

A turn is asked for (``say``), its replies are written one by one as they come (``keep_reply``), and shown together: when all
are there, or when time is up and there are at least as many as can be compared. What somebody then says of them (``choose``)
makes the turn an item with a judgment, as if it had been imported: prompt so far, replies, order on the screen. So exports,
counts and agreement know chats without knowing of them, and a conversation is as many ``Ranking``s as it has turns.

A ranking means "better first" in a red team too: who attacks a model says which answer was the less harmful, and goes on with
the more harmful one. The prompts of such a chat have the tag red_team.
"""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import Connection, Row, and_, func, insert, select, update

from prefloop.collect import items, turns
from prefloop.collect.answers import Answers, is_storable
from prefloop.collect.asked import current_schema
from prefloop.collect.backends import ChatConfig
from prefloop.collect.identity import as_json, keyed, new_id, pseudonym
from prefloop.collect.order import permuted
from prefloop.collect.queue import MINUTE, occupy
from prefloop.collect.rank_string import LETTERS
from prefloop.collect.refusals import Refused, not_found
from prefloop.collect.schema import TaskSchema, schema_of
from prefloop.collect.tables import assignment, chat, chat_turn, generation, item, judgment, member, project, task_schema
from prefloop.config import Config, parse
from prefloop.errors import ConfigError
from prefloop.records import Completion, Message, Prompt, Text

MAX_TURNS = 50  # of a conversation
MAX_WORDS = 20_000  # characters somebody may write at once
DAY = 86_400_000
USUAL_K = 4
LISTED = 50


class ProjectChat(Config):
    """What a project's chats are answered by."""

    backends: dict[str, float] = Field({}, description="names and weights; empty = all the service has, with their own")
    k: int = Field(0, ge=0, le=16, description="replies to a turn; 0 = as many as the questions allow, at most 4")
    system: str = Field("", max_length=MAX_WORDS, description="put before every conversation")


class Asked(NamedTuple):
    """A reply to ask for."""

    id: str
    backend: str
    messages: tuple[dict[str, str], ...]


class Begun(NamedTuple):
    """A turn whose replies are to be asked for now."""

    turn_id: str
    ends: int
    replies: tuple[Asked, ...]


# --- settings of a project --------------------------------------------------------------------------------------------------


def settings_of(settings_json: str) -> ProjectChat:
    return ProjectChat(**json.loads(settings_json).get("chat", {}))


def set_settings(
    connection: Connection, *, project_id: str, change: Mapping[str, Any], config: ChatConfig, now: int
) -> ProjectChat:
    """Change some of them; names must be of back-ends the service has."""
    here = select(project.c.settings_json).where(project.c.id == project_id).with_for_update()
    settings = json.loads(str(connection.scalar(here)))
    try:
        changed = parse(ProjectChat, {**settings.get("chat", {}), **change}, where="chat")
    except ConfigError as error:
        raise Refused(422, "bad_chat", str(error)) from None
    known = [one.name for one in config.backends]
    if strangers := sorted(set(changed.backends) - set(known)):
        raise Refused(422, "bad_chat", f"no back-end is called {', '.join(strangers)}; there are {', '.join(known) or 'none'}")
    if any(weight <= 0 for weight in changed.backends.values()):
        raise Refused(422, "bad_chat", "a weight is above 0; leave a back-end out instead")
    if not is_storable(changed.system) or "\0" in changed.system:
        raise Refused(422, "bad_chat", "system holds a character that cannot be stored")
    settings["chat"] = changed.model_dump()
    connection.execute(update(project).where(project.c.id == project_id).values(settings_json=as_json(settings)))
    return changed


# --- conversations ----------------------------------------------------------------------------------------------------------


def start(connection: Connection, *, project_id: str, user_id: str, is_red_team: bool, now: int) -> str:
    """A new conversation; its id."""
    here = connection.execute(select(project).where(project.c.id == project_id)).one()
    refuse_unless_open(here)
    refuse_strangers(connection, project_id, user_id)
    if not current_schema(connection, project_id)[1].live:
        raise Refused(409, "not_live", "this project has no live chat; its questions say live: true where it has")
    identity = new_id(now)
    row = {"id": identity, "project_id": project_id, "user_id": user_id, "state": "open", "created": now}
    connection.execute(insert(chat).values({**row, "is_red_team": is_red_team}))
    return identity


def refuse_strangers(connection: Connection, project_id: str, user_id: str) -> None:
    """The owner of the installation may do much, but works only where they are a member."""
    here = and_(member.c.project_id == project_id, member.c.user_id == user_id)
    if connection.scalar(select(member.c.role).where(here)) is None:
        raise Refused(403, "not_a_member", "only members of a project can work in it")


def refuse_unless_open(here: Row[Any]) -> None:
    if here.state != "active":
        raise Refused(409, "paused", "the project is not handing out work at the moment")


def mine(connection: Connection, chat_id: str, user_id: str) -> Row[Any]:
    """Somebody's own conversation, locked; anybody else's does not exist."""
    row = connection.execute(select(chat).where(chat.c.id == chat_id).with_for_update()).first()
    if row is None or row.user_id != user_id:
        raise not_found("chat")
    return row


def turns_of(connection: Connection, chat_id: str) -> list[Row[Any]]:
    """The turns so far, the first first."""
    return list(connection.execute(select(chat_turn).where(chat_turn.c.chat_id == chat_id).order_by(chat_turn.c.number)))


def say(connection: Connection, *, chat_id: str, user_id: str, words: str, config: ChatConfig, now: int) -> Begun:
    """The next turn: what somebody writes, and the replies to ask for."""
    talk = mine(connection, chat_id, user_id)
    here = connection.execute(select(project).where(project.c.id == talk.project_id)).one()
    refuse_unless_open(here)
    refuse_strangers(connection, talk.project_id, user_id)
    if talk.state != "open":
        raise Refused(409, "chat_closed", "this conversation was ended; begin another")
    if not words.strip() or len(words) > MAX_WORDS:
        raise Refused(422, "bad_words", f"write something, {MAX_WORDS:,} characters at most")
    before = turns_of(connection, chat_id)
    if before and before[-1].state != "chosen":
        raise Refused(409, "not_chosen", "the last replies are not judged yet")
    if len(before) >= MAX_TURNS:
        raise Refused(409, "chat_long", f"a conversation has at most {MAX_TURNS} turns; begin another")
    schema_id, schema, _ = current_schema(connection, talk.project_id)
    row = {
        "id": new_id(now), "chat_id": chat_id, "number": len(before) + 1, "user_text": words, "schema_id": schema_id,
        "state": "generating", "k": replies_wanted(schema, settings_of(here.settings_json)), "ends": now, "created": now,
    }  # fmt: skip
    connection.execute(insert(chat_turn).values(row))
    return asked_for(connection, talk, here, row["id"], config=config, now=now)


def replies_wanted(schema: TaskSchema, settings: ProjectChat) -> int:
    """Within what the questions can be asked about."""
    wanted = settings.k or min(USUAL_K, schema.completions.max)
    return max(schema.completions.min, min(wanted, schema.completions.max))


def regenerate(connection: Connection, *, chat_id: str, user_id: str, config: ChatConfig, now: int) -> Begun:
    """Ask again, where too few replies came."""
    talk = mine(connection, chat_id, user_id)
    before = turns_of(connection, chat_id)
    if not before or before[-1].state != "failed":
        raise Refused(409, "not_failed", "there is nothing to ask again for")
    here = connection.execute(select(project).where(project.c.id == talk.project_id)).one()
    refuse_unless_open(here)
    change = {"state": "generating", "attempt": before[-1].attempt + 1}
    connection.execute(update(chat_turn).where(chat_turn.c.id == before[-1].id).values(change))
    return asked_for(connection, talk, here, before[-1].id, config=config, now=now)


def asked_for(connection: Connection, talk: Row[Any], here: Row[Any], turn_id: str, *, config: ChatConfig, now: int) -> Begun:
    """The replies of a turn, written down before anybody is asked, so that they count."""
    turn = connection.execute(select(chat_turn).where(chat_turn.c.id == turn_id)).one()
    refuse_beyond(connection, talk, turn.k, config, now)
    weights = weights_of(settings_of(here.settings_json), config)
    chance = random.Random(keyed(here.secret, "backends", turn_id, turn.attempt))
    messages = conversation(connection, talk.id, settings_of(here.settings_json).system)
    replies = tuple(Asked(new_id(now), name, messages) for name in drawn(weights, turn.k, chance))
    ends = now + int(config.timeout * 1000)
    connection.execute(update(chat_turn).where(chat_turn.c.id == turn_id).values(ends=ends))
    common = {"turn_id": turn_id, "project_id": talk.project_id, "user_id": talk.user_id, "attempt": turn.attempt, "created": now}
    connection.execute(insert(generation), [
        {**common, "id": one.id, "backend": one.backend, "state": "asked", "params_json": as_json(asked_how(config, one.backend))}
        for one in replies
    ])  # fmt: skip
    return Begun(turn_id, ends, replies)


def asked_how(config: ChatConfig, name: str) -> dict[str, Any]:
    backend = config.named(name)
    return {"model": backend.model or backend.python, **backend.params}


def weights_of(settings: ProjectChat, config: ChatConfig) -> dict[str, float]:
    weights = {one.name: settings.backends.get(one.name, one.weight) for one in config.backends
               if not settings.backends or one.name in settings.backends}  # fmt: skip
    if not weights:
        raise Refused(
            409, "no_backend", "nothing answers here yet; the owner names back-ends in chat.yaml in the service's folder"
        )
    return weights


def drawn(weights: Mapping[str, float], k: int, chance: random.Random) -> list[str]:
    """``k`` back-ends by weight; none twice before all were taken, so that two replies come from two of them."""
    taken: list[str] = []
    left: dict[str, float] = {}
    while len(taken) < k:
        left = left or dict(weights)
        (one,) = chance.choices(list(left), list(left.values()))
        taken.append(one)
        del left[one]
    return taken


def refuse_beyond(connection: Connection, talk: Row[Any], k: int, config: ChatConfig, now: int) -> None:
    """More replies than somebody may ask for today, or a project at all."""
    since = now - now % DAY
    own = and_(generation.c.user_id == talk.user_id, generation.c.created >= since)
    today = connection.scalar(select(func.count()).select_from(generation).where(own)) or 0
    if today + k > config.replies_per_day:
        raise Refused(429, "budget", f"that is enough for today: {config.replies_per_day:,} replies a day and person",
                      retry_after=(since + DAY - now) // 1000 + 1)  # fmt: skip
    if config.replies_per_project:
        here = generation.c.project_id == talk.project_id
        n = connection.scalar(select(func.count()).select_from(generation).where(here)) or 0
        if n + k > config.replies_per_project:
            raise Refused(409, "budget_project", f"the project has used its {config.replies_per_project:,} replies")


def conversation(connection: Connection, chat_id: str, system: str = "") -> tuple[dict[str, str], ...]:
    """What was said so far along the way that was gone on, the newest turn's words last."""
    messages = [{"role": "system", "content": system}] if system else []
    before = turns_of(connection, chat_id)
    chosen = [turn.chosen for turn in before if turn.chosen]
    said = {row.id: row.text for row in connection.execute(select(generation).where(generation.c.id.in_(chosen)))}
    for turn in before:
        messages.append({"role": "user", "content": turn.user_text})
        if turn.chosen:
            messages.append({"role": "assistant", "content": said[turn.chosen]})
    return tuple(messages)


# --- replies ----------------------------------------------------------------------------------------------------------------


def keep_reply(connection: Connection, *, reply_id: str, text: str, error: str, ms: int, now: int) -> None:
    """A reply that is whole, or why there is none; the last one of a turn shows them all."""
    row = connection.execute(select(generation).where(generation.c.id == reply_id)).one()
    change = {"state": "failed" if error else "done", "text": text, "error": error[:500], "ms": ms}
    connection.execute(update(generation).where(generation.c.id == reply_id, generation.c.state == "asked").values(change))
    settle(connection, turn_id=row.turn_id, now=now)


def settle(connection: Connection, *, turn_id: str, now: int) -> None:
    """Show the replies of a turn, where all are there, or time is up and there are enough."""
    turn = connection.execute(select(chat_turn).where(chat_turn.c.id == turn_id).with_for_update()).one()
    if turn.state != "generating":
        return
    of_attempt = and_(generation.c.turn_id == turn_id, generation.c.attempt == turn.attempt)
    rows = connection.execute(select(generation.c.id, generation.c.state).where(of_attempt).order_by(generation.c.id)).all()
    if any(row.state == "asked" for row in rows) and now < turn.ends:
        return
    body = connection.scalar(select(task_schema.c.body_json).where(task_schema.c.id == turn.schema_id))
    there = [row.id for row in rows if row.state == "done"]
    if len(there) < max(2, schema_of(str(body)).completions.min):
        connection.execute(update(chat_turn).where(chat_turn.c.id == turn_id).values(state="failed"))
        return
    secret = connection.scalar(
        select(project.c.secret).join(chat, chat.c.project_id == project.c.id).where(chat.c.id == turn.chat_id)
    )
    change = {"state": "compare", "shown_json": as_json(permuted(there, keyed(str(secret), "chat", turn_id))), "released": now}
    connection.execute(update(chat_turn).where(chat_turn.c.id == turn_id).values(change))


def is_due(connection: Connection, *, chat_id: str, now: int) -> str:
    """The turn whose time is up and whose replies nobody has shown yet: whoever asked for them may have been killed."""
    late = and_(chat_turn.c.chat_id == chat_id, chat_turn.c.state == "generating", chat_turn.c.ends <= now)
    return connection.scalar(select(chat_turn.c.id).where(late)) or ""


# --- judging ----------------------------------------------------------------------------------------------------------------


def choose(
    connection: Connection, *, chat_id: str, user_id: str, key: str, said: turns.Said, go_on_with: str, now: int
) -> turns.Receipt:
    """What somebody says of the replies of the last turn, and the letter of the one to go on with; empty: the best."""
    talk = mine(connection, chat_id, user_id)
    before = turns_of(connection, chat_id)
    last = before[-1] if before else None
    if last is None or last.state not in ("compare", "chosen"):
        raise Refused(409, "nothing_to_choose", "there are no replies to choose from yet")
    shown = json.loads(last.shown_json)
    given = {"user_id": user_id, "key": key, "said": said, "now": now}
    if last.state == "chosen":  # the same again gets its receipt, anything else hears that it was submitted
        return turns.submit(connection, assignment_id=last.assignment_id, **given)
    assignment_id = made_item(connection, talk, before, shown, now)
    receipt = turns.submit(connection, assignment_id=assignment_id, **given)
    stored = json.loads(str(connection.scalar(select(judgment.c.body_json).where(judgment.c.id == receipt.judgment_id))))
    chosen = gone_on_with(schema_by(connection, last), stored, shown, letter=go_on_with, is_red_team=talk.is_red_team)
    change = {"state": "chosen", "chosen": chosen, "assignment_id": assignment_id}
    connection.execute(update(chat_turn).where(chat_turn.c.id == last.id).values(change))
    return receipt


def schema_by(connection: Connection, turn: Row[Any]) -> TaskSchema:
    return turns.schema_by_id(connection, turn.schema_id)


def gone_on_with(schema: TaskSchema, stored: Answers, shown: Sequence[str], *, letter: str, is_red_team: bool) -> str:
    """The reply that becomes part of the conversation: the one named, else the best, in a red team the worst."""
    named = dict(zip(LETTERS, shown, strict=False))
    if letter:
        if letter not in named:
            raise Refused(422, "bad_letter", f"go on with one of {', '.join(named)}, not {letter!r}")
        return named[letter]
    tiers = tiers_in(schema, stored, shown)
    if not tiers:
        raise Refused(422, "no_best", "no reply is the best; say which to go on with")
    return min(tiers[-1 if is_red_team else 0], key=list(shown).index)


def tiers_in(schema: TaskSchema, stored: Answers, shown: Sequence[str]) -> list[list[str]]:
    """The order a judgment means, best first; none where it says that no reply is usable, or asks no order."""
    for stage, question in schema.of_type("rank", "pair"):
        value = stored.get(stage.id, {}).get(question.id)
        if value is None:
            return []
        if question.type == "rank":
            return [*value["tiers"], *([value["unusable"]] if value["tiers"] and value["unusable"] else [])]
        if value["choice"] in shown:
            return [[value["choice"]], [one for one in shown if one != value["choice"]]]
        return [list(shown)] if value["choice"] == "tie" else []
    return []


def made_item(connection: Connection, talk: Row[Any], before: Sequence[Row[Any]], shown: Sequence[str], now: int) -> str:
    """A turn as an item whose first judgment is this person's; the id of their assignment."""
    here = connection.execute(select(project).where(project.c.id == talk.project_id)).one()
    last = before[-1]
    messages = conversation(connection, talk.id, settings_of(here.settings_json).system)
    prompt = Prompt(
        messages=tuple(Message.model_validate(message) for message in messages),
        origin=pseudonym(here.secret, talk.user_id),
        tags=(f"tree:{talk.id}", "live", *(["red_team"] if talk.is_red_team else [])),
    )
    rows = {row.id: row for row in connection.execute(select(generation).where(generation.c.id.in_(shown)))}
    completions = [
        Completion(id=one, prompt_id=prompt.id, content=Text(text=rows[one].text), source=f"policy:{rows[one].backend}")
        for one in sorted(shown)
    ]
    new = items.new_item(prompt, completions)
    items.add(connection, talk.project_id, [new], now=now)
    of_new = and_(item.c.project_id == talk.project_id, item.c.ext_id == new.ext_id)
    item_id = str(connection.scalar(select(item.c.id).where(of_new)))
    identity, expires = new_id(now), now + MINUTE
    given = {"user_id": talk.user_id, "assignment_id": identity, "expires": expires}
    if not occupy(connection, item_id, 0, **given):
        raise AssertionError("a new item's first slot is open")
    row = {
        "id": identity, "project_id": talk.project_id, "item_id": item_id, "user_id": talk.user_id, "slot_no": 0,
        "state": "leased", "schema_id": last.schema_id, "shown_json": as_json(list(shown)), "leased_at": last.released,
        "lease_expires": expires,
    }  # fmt: skip
    connection.execute(insert(assignment).values(row))
    return identity


def close(connection: Connection, *, chat_id: str, user_id: str, now: int) -> None:
    """End a conversation."""
    talk = mine(connection, chat_id, user_id)
    connection.execute(update(chat).where(chat.c.id == talk.id).values(state="closed"))


# --- what its person sees ---------------------------------------------------------------------------------------------------


def view(connection: Connection, *, chat_id: str, user_id: str) -> dict[str, Any]:
    """A conversation as its page shows it. Nothing says which model answered, or when a single reply was there."""
    talk = connection.execute(select(chat).where(chat.c.id == chat_id)).first()
    if talk is None or talk.user_id != user_id:
        raise not_found("chat")
    before = turns_of(connection, chat_id)
    here = connection.execute(select(project).where(project.c.id == talk.project_id)).one()
    schema, version = asked_in(connection, talk, before)
    shown = [one for turn in before for one in json.loads(turn.shown_json)]
    text = {row.id: row.text for row in connection.execute(select(generation).where(generation.c.id.in_(shown)))}
    return {
        "chat": talk.id,
        "project": here.slug,
        "state": talk.state,
        "red_team": talk.is_red_team,
        "schema": schema.model_dump(mode="json"),
        "schema_version": version,
        "turns": [seen(turn, text) for turn in before],
    }


def asked_in(connection: Connection, talk: Row[Any], before: Sequence[Row[Any]]) -> tuple[TaskSchema, int]:
    """The questions of the turn that is open, else the newest."""
    if not before or before[-1].state == "chosen":
        return current_schema(connection, talk.project_id)[1:]
    row = connection.execute(select(task_schema).where(task_schema.c.id == before[-1].schema_id)).one()
    return schema_of(row.body_json), row.version


def seen(turn: Row[Any], text: Mapping[str, str]) -> dict[str, Any]:
    shown = json.loads(turn.shown_json)
    lettered = [
        {"id": letter, "content": {"type": "text", "text": text[one]}} for letter, one in zip(LETTERS, shown, strict=False)
    ]
    letter = next((named["id"] for named, one in zip(lettered, shown, strict=True) if one == turn.chosen), None)
    return {
        "number": turn.number,
        "user": turn.user_text,
        "state": turn.state,
        "k": turn.k,
        "completions": lettered,
        "chosen": letter,
    }


def listed(connection: Connection, *, project_id: str, user_id: str) -> list[dict[str, Any]]:
    """One's own conversations in a project, the latest first."""
    own = and_(chat.c.user_id == user_id, chat.c.project_id == project_id)
    first = select(chat_turn.c.chat_id, chat_turn.c.user_text).where(chat_turn.c.number == 1).subquery()
    n_turns = select(chat_turn.c.chat_id, func.count().label("n")).group_by(chat_turn.c.chat_id).subquery()
    joined = chat.outerjoin(first, first.c.chat_id == chat.c.id).outerjoin(n_turns, n_turns.c.chat_id == chat.c.id)
    wanted = select(chat, first.c.user_text, n_turns.c.n).select_from(joined).where(own).order_by(chat.c.id.desc()).limit(LISTED)
    return [
        {"chat": row.id, "state": row.state, "red_team": row.is_red_team, "turns": row.n or 0,
         "title": (row.user_text or "")[:120], "created": row.created}
        for row in connection.execute(wanted)
    ]  # fmt: skip
