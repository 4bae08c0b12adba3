"""Two small projects to look at the pages with, one in English and one in Chinese."""

from pathlib import Path

import yaml
from sqlalchemy import select

from prefloop.collect import items
from prefloop.collect.database import Database
from prefloop.collect.desk import invitation, new_project
from prefloop.collect.schema import template
from prefloop.collect.tables import project
from prefloop.records import Completion, Prompt

EXAMPLES = Path(__file__).with_name("demo.yaml")


def prepare(database: Database) -> list[str]:
    """The projects, made where they are not there yet; their names."""
    there = set(database.read(lambda connection: connection.scalars(select(project.c.slug)).all()))
    wanted = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    for one in wanted:
        if one["slug"] not in there:
            identity = new_project(database, one["slug"], template(one["template"]), 2, title=one["title"])
            found = [new_item(given) for given in one["items"]]
            now = database.clock()
            database.write(
                lambda connection, identity=identity, found=found, now=now: items.add(connection, identity, found, now=now)
            )
    return [one["slug"] for one in wanted]


def new_item(given: dict) -> items.NewItem:
    prompt = Prompt.of(given["prompt"], origin="demo")
    return items.new_item(
        prompt, [Completion.of(prompt, text, source=f"policy:{number}") for number, text in enumerate(given["completions"])]
    )


def links(database: Database, address: str) -> list[str]:
    """A link for each project with which one person joins as annotator."""
    return [f"{name}, as annotator: {address}/invite#{invitation(database, name, 'annotator')}" for name in prepare(database)]
