"""OpenAssistant's conversation trees: a prompt's ranked replies are a group, the path to the root is its conversation.

Replies that nobody ranked and replies marked deleted are left out of a group, as in the published ranking sets. Trees come
nested (one tree a line) or flat (one message a line, ``parent_id`` naming another line).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prefloop.data.rows import Bad, Row, Unusable, snippet
from prefloop.data.turns import (
    MIN_ANSWERS,
    Made,
    kind,
    list_of,
    message_of,
    number_of,
    prompt_from,
    ranked_group,
    text_of,
    tree_tag,
)
from prefloop.records import Message


class Kept(NamedTuple):
    """A record, the place of the row it came from, and how many rows went into it that went into none before."""

    where: str
    record: Any
    rows: int
    remarks: tuple[str, ...] = ()


class Aside(NamedTuple):
    """A well-formed row that holds nothing of the kind asked for; no fault of the data."""

    where: str
    reason: str
    snippet: str


Outcome = Kept | Aside | Bad


class Post(NamedTuple):
    """One message of a tree."""

    message: Message
    rank: float | None
    is_deleted: bool


def post_of(value: Any) -> Post:
    if not isinstance(value, dict):
        raise Unusable("a value of the wrong type", f"a message is {kind(value)}, wanted an object")
    is_deleted = value.get("deleted") in (True, "True", "true")
    return Post(message_of(value, "the tree"), number_of(value.get("rank"), "rank"), is_deleted)


def comparison(path: list[Message], replies: list[Post], *, name: str) -> Made:
    """The ranked replies to the last message of a path; nothing where fewer than two were ranked."""
    ranked = [post for post in replies if post.rank is not None and not post.is_deleted and post.message.role == "assistant"]
    if len(ranked) < MIN_ANSWERS:
        return Made([])
    prompt = prompt_from(path, origin=name, tags=(tree_tag(path[0].content),))
    return ranked_group(prompt, [post.message.content for post in ranked], [post.rank for post in ranked], name=name)


# --- nested: one tree a row ------------------------------------------------------------------------------------------------


def groups_of_tree(row: dict[str, Any], name: str) -> Made:
    """Every comparison of a nested tree."""
    records, remarks, problems = [], [], []
    pending: list[tuple[list[Message], dict[str, Any]]] = [([], row["prompt"])]
    while pending:
        before, node = pending.pop()
        path = [*before, post_of(node).message]
        replies = list_of(node.get("replies") or [], "replies")
        try:
            made = comparison(path, [post_of(reply) for reply in replies], name=name)
        except Unusable as problem:
            problems.append(problem)
            continue
        records += made.records
        remarks += made.remarks
        pending += [(path, reply) for reply in reversed(replies)]
    if problems and not records:
        raise problems[0]
    return Made(records, (*remarks, *(f"a branch of a tree left out: {problem.reason}" for problem in problems)))


def group_of_replies(row: dict[str, Any], name: str) -> Made:
    """A comparison already cut out of its tree: the path as ``prompt``, the ranked ``replies``."""
    path = [message_of(turn, "prompt") for turn in list_of(row["prompt"], "prompt")]
    if not path:
        raise Unusable("an empty prompt", "no turn")
    replies = [reply if isinstance(reply, dict) else {} for reply in list_of(row["replies"], "replies")]
    prompt = prompt_from(path, origin=name, tags=(tree_tag(path[0].content),))
    texts = [text_of(reply.get("text"), "a reply") for reply in replies]
    return ranked_group(prompt, texts, [number_of(reply.get("rank"), "rank") for reply in replies], name=name)


# --- flat: one message a row ------------------------------------------------------------------------------------------------


def groups_of_messages(rows: Iterable[Row], name: str) -> Iterator[Outcome]:
    """Every comparison among messages that name their parents. A message is kept if some comparison shows it."""
    posts, parents, places = {}, {}, {}
    for row in rows:
        try:
            key, post = text_of(row.value.get("message_id"), "message_id"), post_of(row.value)
        except Unusable as problem:
            yield Bad(row.where, problem.reason, problem.detail)
            continue
        if key in posts:
            yield Bad(row.where, "a message_id that was there before", key)
            continue
        posts[key], parents[key], places[key] = post, row.value.get("parent_id") or None, row.where

    paths = {key: path_to(key, parents) for key in posts}
    replies: dict[str, list[str]] = defaultdict(list)
    for key in posts:
        if paths[key] and parents[key]:
            replies[parents[key]].append(key)
    shown: set[str] = set()
    problems: list[tuple[str, Unusable]] = []
    for parent, children in replies.items():
        try:
            made = comparison([posts[key].message for key in paths[parent]], [posts[key] for key in children], name=name)
        except Unusable as problem:
            problems.append((parent, problem))
            continue
        for group in made.records:
            said = {completion.text for completion in group.completions}
            fresh = {*paths[parent], *(key for key in children if posts[key].message.content in said)} - shown
            shown |= fresh
            yield Kept(places[parent], group, len(fresh), made.remarks)
    for parent, problem in problems:
        for key in [key for key in replies[parent] if key not in shown]:
            shown.add(key)
            yield Bad(places[key], problem.reason, problem.detail)
    for key in posts:
        if not paths[key]:
            yield Bad(places[key], "a message cut off from its tree", f"parent {parents[key]} is not in the file")
        elif key not in shown:
            yield Aside(places[key], "a message in no comparison", snippet(posts[key].message.content))


def path_to(key: str, parents: dict[str, str | None]) -> list[str]:
    """The messages from the root down to this one; none where the way up breaks off or runs in a circle."""
    path = [key]
    while above := parents[path[-1]]:
        if above not in parents or above in path:
            return []
        path.append(above)
    return path[::-1]
