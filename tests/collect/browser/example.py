"""Projects worth looking at: what the browser's tests work on and what its pictures show."""

from typing import Any

from prefloop.collect import accounts, items, projects
from prefloop.collect.schema import template
from prefloop.records import Completion, Group, Message, Prompt
from tests.collect.site import Site

TEA = {
    "en": (
        "My kettle furs up every few weeks. How do I get rid of the limescale without buying anything special?",
        (
            "Fill it **half and half with white vinegar and water**, bring it to the boil, and leave it for an hour. Then:\n\n1. Pour it out and "
            "rinse twice.\n2. Boil once with clean water and throw that away.\n\nLemon juice works too, and smells better. In a hard-water area, do it once a month.",
            "Vinegar. Boil some in it, wait, rinse.",
            "Limescale is mostly calcium carbonate, which dissolves in acid. Any acid in the kitchen will do: two tablespoons of citric "
            "acid, or the juice of a lemon, in a full kettle. Bring to the boil, let it stand for 30 minutes, rinse well.\n\nA filter jug slows the furring down.",
            "You should buy our *KettleClean Pro* tablets. Never use vinegar: it makes toxic gas with the steel.",
        ),
    ),
    "zh": (
        "水壶每隔几周就结一层水垢。不买专门的清洁剂，怎么去掉？",
        (
            "用**白醋和水各一半**装满，烧开后静置一小时，然后：\n\n1. 倒掉，冲洗两遍。\n2. 再烧一壶清水倒掉。\n\n柠檬汁也可以，而且气味更好。水质较硬的地区每月做一次即可。",
            "用醋煮一下，等一会儿，冲干净。",
            "水垢的主要成分是碳酸钙，遇酸溶解。厨房里的酸都行：一整壶水加两勺柠檬酸，或一个柠檬的汁。烧开后静置三十分钟，彻底冲洗。\n\n用滤水壶可以减缓结垢。",
            "建议购买“净壶宝”清洁片。千万不要用醋，会和不锈钢反应产生毒气。",
        ),
    ),
}


def group(language: str) -> Group:
    asked, said = TEA[language]
    prompt = Prompt.of(asked)
    return Group(prompt=prompt, completions=tuple(Completion.of(prompt, text, source="policy:x") for text in said))


def conversation() -> Group:
    """A talk of several turns, with code."""
    turns = ("How do I reverse a list in Python?", "Use `reversed(xs)` or `xs[::-1]`.", "And which of the two copies it?")
    roles = ("user", "assistant", "user")
    prompt = Prompt(messages=tuple(Message(role=role, content=text) for role, text in zip(roles, turns, strict=True)))
    said = (
        "`xs[::-1]` makes a copy. `reversed(xs)` returns an iterator over the same list:\n\n```python\nfor x in reversed(xs):  # no copy\n    print(x)\n```",
        "Neither.",
    )
    return Group(prompt=prompt, completions=tuple(Completion.of(prompt, text) for text in said))


def project(
    site: Site,
    slug: str,
    *,
    title: str,
    template_name: str,
    groups: list[Group],
    order: str = "as_given",
    overlap: int = 5,
    changed: dict[str, Any] | None = None,
) -> str:
    """An active project in which everybody but the outsider annotates."""
    database, now = site.database, site.database.clock()
    schema = template(template_name).model_copy(update={"order": order, **(changed or {})})

    def make(connection) -> str:
        identity = projects.create(connection, slug=slug, title=title, schema=schema, overlap=overlap, user_id=None, now=now)
        for role in ("annotator", "reviewer", "manager"):
            accounts.join(connection, project_id=identity, user_id=site.users[role], role="annotator", now=now)
        projects.set_state(connection, identity, "active", user_id=None, now=now)
        for place, one in enumerate(groups):  # by falling priority: they come in this order
            items.add(connection, identity, [items.new_item(one.prompt, one.completions)], priority=-place, now=now)
        items.added_all(connection, identity)
        return identity

    return database.write(make)
