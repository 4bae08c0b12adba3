"""What a project asks now: the newest version of its questions."""

from sqlalchemy import Connection, bindparam, select

from prefloop.collect.refusals import Refused
from prefloop.collect.schema import TaskSchema, schema_of
from prefloop.collect.tables import task_schema

SCHEMA = (
    select(task_schema).where(task_schema.c.project_id == bindparam("project")).order_by(task_schema.c.version.desc()).limit(1)
)


def current_schema(connection: Connection, project_id: str) -> tuple[str, TaskSchema, int]:
    """The id, the questions and the number of that version."""
    row = connection.execute(SCHEMA, {"project": project_id}).first()
    if row is None:
        raise no_schema()
    return row.id, schema_of(row.body_json), row.version


def no_schema() -> Refused:
    return Refused(409, "no_schema", "the project asks no questions yet; give it a task schema")
