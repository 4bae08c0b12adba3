"""What people agree to before they begin: a text of the questions (``consent``). Kept is who agreed to which words, and when.

Other words have to be agreed to anew; stand-ins, which nobody asks, are not asked.
"""

from sqlalchemy import Connection, insert, select

from prefloop.collect.asked import current_schema
from prefloop.collect.identity import as_json, new_id
from prefloop.collect.refusals import Refused
from prefloop.collect.schema import TaskSchema
from prefloop.collect.tables import app_user, event
from prefloop.records import content_id


def refuse_without(connection: Connection, *, project_id: str, user_id: str, schema: TaskSchema | None = None) -> None:
    """Refused with the words, where somebody has not agreed to them: those of the newest ``schema``. Before a claim: who does not
    agree holds nothing up."""
    schema = schema or current_schema(connection, project_id)[1]
    if not schema.consent:
        return
    words = content_id(schema.consent)
    given = select(event.c.id).where(event.c.project_id == project_id, event.c.user_id == user_id)
    if connection.scalar(given.where(event.c.action == "consent", event.c.object_id == words).limit(1)) is not None:
        return
    if not connection.scalar(select(app_user.c.speaks_as).where(app_user.c.id == user_id)):
        raise Refused(
            403, "consent_needed", "agree to what this project asks for first: POST /projects/{project}/consent", words=words,
            consent=schema.consent,
        )  # fmt: skip


def give(connection: Connection, *, project_id: str, user_id: str, words: str, now: int) -> None:
    """Somebody agrees to the words they were shown, which must be those that hold now."""
    schema = current_schema(connection, project_id)[1]
    if words != content_id(schema.consent):
        raise Refused(409, "consent_changed", "the text has changed since it was shown; read it again")
    row = {
        "id": new_id(now), "project_id": project_id, "user_id": user_id, "action": "consent", "object_id": words,
        "detail_json": as_json({"words": schema.consent}), "created": now,
    }  # fmt: skip
    connection.execute(insert(event).values(row))
