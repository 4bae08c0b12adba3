"""The tables, the same on SQLite and PostgreSQL. Times are UTC milliseconds, ids are ULIDs, ``*_json`` is canonical JSON text.

An item is a prompt with its K completions; a slot is one judgment that is wanted of it, so that nobody can be asked for more
judgments than there are rows; an assignment is one person's turn at an item; a judgment is what that person said, never
edited: recalling it makes a new revision. docs/collect.md draws the picture.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def to(target: str) -> ForeignKey:
    return ForeignKey(target)


# --- people -----------------------------------------------------------------------------------------------------------------

app_user = Table(
    "app_user",
    metadata,
    Column("id", Text, primary_key=True),
    Column("login", Text, nullable=False, unique=True),  # casefolded
    Column("display", Text, nullable=False),
    Column("password", Text, nullable=False, server_default=""),  # argon2id; empty: nobody can log in with one
    Column("is_owner", Boolean, nullable=False, server_default=text("false")),  # of the whole installation
    Column("speaks_as", Text, nullable=False, server_default=""),  # sim:3, judge:<model>; empty for people, who get a pseudonym
    Column("locale", Text, nullable=False, server_default=""),
    Column("preferences_json", Text, nullable=False, server_default="{}"),
    Column("state", Text, nullable=False, server_default="active"),  # active | closed | erased
    Column("created", BigInteger, nullable=False),
)
session = Table(
    "session",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("user_id", Text, to("app_user.id"), nullable=False, index=True),
    Column("csrf", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("last_used", BigInteger, nullable=False),
    Column("agent", Text, nullable=False, server_default=""),
)
api_token = Table(
    "api_token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, to("app_user.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("scopes_json", Text, nullable=False),
    Column("expires", BigInteger),
    Column("created", BigInteger, nullable=False),
)
invite = Table(
    "invite",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("project_id", Text, to("project.id")),  # none: an invitation to own the installation
    Column("role", Text, nullable=False),
    Column("created_by", Text, to("app_user.id")),
    Column("expires", BigInteger, nullable=False),
    Column("used_by", Text, to("app_user.id")),
    Column("created", BigInteger, nullable=False),
)
login_attempt = Table(
    "login_attempt",
    metadata,
    Column("key", Text, primary_key=True),
    Column("n", Integer, nullable=False),
    Column("until", BigInteger, nullable=False),  # nobody is let in before
)

# --- projects ---------------------------------------------------------------------------------------------------------------

project = Table(
    "project",
    metadata,
    Column("id", Text, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("state", Text, nullable=False),  # draft | active | paused | done | archived
    Column("overlap", Integer, nullable=False),  # judgments wanted of each item
    Column("settings_json", Text, nullable=False, server_default="{}"),
    Column("secret", Text, nullable=False),  # hex; keys orders on screen and pseudonyms
    Column("epoch", Integer, nullable=False, server_default="0"),  # how often items were added: cursors older than it restart
    Column("reopened", Integer, nullable=False, server_default="0"),  # how often a slot was opened again
    Column("created_by", Text, to("app_user.id")),
    Column("created", BigInteger, nullable=False),
)
member = Table(
    "member",
    metadata,
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("user_id", Text, to("app_user.id"), nullable=False, index=True),
    Column("role", Text, nullable=False),  # manager | reviewer | annotator | viewer
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "user_id"),
)
task_schema = Table(
    "task_schema",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("body_json", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_by", Text, to("app_user.id")),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("project_id", "version"),
)

# --- items and the judgments wanted of them ---------------------------------------------------------------------------------

item = Table(
    "item",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("ext_id", Text, nullable=False),  # what an import knows it by: the hash of its prompt and completions
    Column("prompt_id", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default="normal"),  # normal | gold | practice | check | repeat (see planted)
    Column("status", Text, nullable=False, server_default="active"),  # active | held | removed
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("shuffle_key", BigInteger, nullable=False),
    Column("n_slots", Integer, nullable=False),
    Column("n_done", Integer, nullable=False, server_default="0"),
    Column("n_surplus", Integer, nullable=False, server_default="0"),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("project_id", "ext_id"),
    Index("ix_item_project_id_id", "project_id", "id"),
    Index("ix_item_project_id_prompt_id", "project_id", "prompt_id"),
)
item_body = Table(  # the big part, kept out of lists and queues
    "item_body",
    metadata,
    Column("item_id", Text, to("item.id"), primary_key=True),
    Column("prompt_json", Text, nullable=False),
    Column("completions_json", Text, nullable=False),
)
slot = Table(
    "slot",
    metadata,
    Column("item_id", Text, to("item.id"), nullable=False),
    Column("slot_no", Integer, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("shuffle_key", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # open | leased | done | hold
    Column("user_id", Text),
    Column("assignment_id", Text),
    Column("lease_expires", BigInteger),
    Column("opened", Integer, nullable=False, server_default="0"),  # project.reopened when it was last opened
    PrimaryKeyConstraint("item_id", "slot_no"),
    Index("slot_user", "item_id", "user_id", unique=True, sqlite_where=text("user_id IS NOT NULL"),
          postgresql_where=text("user_id IS NOT NULL")),
    Index("slot_queue", "project_id", "priority", "shuffle_key", "slot_no", sqlite_where=text("state = 'open'"),
          postgresql_where=text("state = 'open'")),
    Index("slot_reopened", "project_id", "opened", sqlite_where=text("state = 'open' AND opened > 0"),
          postgresql_where=text("state = 'open' AND opened > 0")),
    Index("slot_lease", "lease_expires", sqlite_where=text("state = 'leased'"), postgresql_where=text("state = 'leased'")),
)  # fmt: skip

# --- one person's turn at an item -------------------------------------------------------------------------------------------

assignment = Table(
    "assignment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("item_id", Text, to("item.id"), nullable=False),
    Column("user_id", Text, to("app_user.id"), nullable=False),
    Column("role", Text, nullable=False, server_default="annotate"),
    Column("slot_no", Integer),
    Column("state", Text, nullable=False),  # leased | submitted | recalled | skipped | reported | expired | released
    Column("schema_id", Text, to("task_schema.id"), nullable=False),
    Column("shown_json", Text, nullable=False),  # completion ids in the order of the screen: its first is a, its second b
    Column("leased_at", BigInteger, nullable=False),
    Column("lease_expires", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    UniqueConstraint("item_id", "user_id", "role"),
    Index("assignment_live", "user_id", "project_id", sqlite_where=text("state IN ('leased', 'expired', 'recalled')"),
          postgresql_where=text("state IN ('leased', 'expired', 'recalled')")),
    Index("assignment_history", "user_id", "project_id", "closed_at"),
)  # fmt: skip
claim_cursor = Table(  # how far down the queue of one priority a person has come
    "claim_cursor",
    metadata,
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("shuffle_key", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("seen", Integer),  # once the queue is used up: project.reopened when it was last looked at
    PrimaryKeyConstraint("project_id", "user_id", "priority"),
)
draft = Table(
    "draft",
    metadata,
    Column("assignment_id", Text, to("assignment.id"), primary_key=True),
    Column("rev", Integer, nullable=False),
    Column("body_json", Text, nullable=False),
    Column("updated", BigInteger, nullable=False),
)
judgment = Table(
    "judgment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("assignment_id", Text, to("assignment.id"), nullable=False),
    Column("item_id", Text, to("item.id"), nullable=False),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("user_id", Text, to("app_user.id"), nullable=False),
    Column("schema_id", Text, to("task_schema.id"), nullable=False),
    Column("rev", Integer, nullable=False),
    Column("body_json", Text, nullable=False),  # answers under the completions' own ids
    Column("is_surplus", Boolean, nullable=False),  # beyond the judgments wanted: someone else was done first
    Column("is_superseded", Boolean, nullable=False, server_default=text("false")),
    Column("active_ms", BigInteger),
    Column("wall_ms", BigInteger, nullable=False),
    Column("input", Text, nullable=False, server_default=""),  # keyboard | mouse | touch | api
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("assignment_id", "rev"),
    Index("judgment_of_item", "project_id", "item_id", "id"),
)
idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_sha256", Text, nullable=False),
    Column("response_json", Text, nullable=False),
    Column("created", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("user_id", "key"),
)
report = Table(
    "report",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("item_id", Text, to("item.id"), nullable=False),
    Column("user_id", Text, to("app_user.id")),
    Column("reason", Text, nullable=False),
    Column("text", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),  # open | dismissed | fixed
    Column("created", BigInteger, nullable=False),
    Index("report_of_project", "project_id", "state", "id"),
)

# --- checks on annotators, and what reviewers decide ------------------------------------------------------------------------

planted = Table(  # items that check those who judge them
    "planted",
    metadata,
    Column("item_id", Text, to("item.id"), primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("kind", Text, nullable=False),  # gold, practice: what is right is known | check: made to have a worst answer | repeat
    Column("expected_json", Text, nullable=False, server_default="{}"),
    Column("copy_of", Text, to("item.id"), unique=True),  # of a repeat: what is shown again
    Column("created_by", Text, to("app_user.id")),
    Column("created", BigInteger, nullable=False),
    Index("planted_in_project", "project_id", "kind", "item_id"),
)
review = Table(
    "review",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("item_id", Text, to("item.id"), nullable=False, index=True),
    Column("judgment_id", Text, to("judgment.id"), nullable=False, index=True),
    Column("user_id", Text, to("app_user.id"), nullable=False),
    Column("verdict", Text, nullable=False),  # accept | return | reject
    Column("comment", Text, nullable=False, server_default=""),
    Column("created", BigInteger, nullable=False),
)
final = Table(  # what an item came to, where somebody decided it
    "final",
    metadata,
    Column("item_id", Text, to("item.id"), primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("schema_id", Text, to("task_schema.id"), nullable=False),
    Column(
        "method", Text, nullable=False
    ),  # all: every judgment stands | judgment: one of them | consensus | answers: the reviewer's
    Column("body_json", Text, nullable=False, server_default="{}"),  # answers under the completions' own ids
    Column("judgment_id", Text, to("judgment.id")),
    Column("user_id", Text, to("app_user.id"), nullable=False),
    Column("comment", Text, nullable=False, server_default=""),
    Column("created", BigInteger, nullable=False),
    Index("final_of_project", "project_id", "item_id"),
)

asset = Table(  # a file that answers show, known by the hash of its bytes
    "asset",
    metadata,
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("sha256", Text, nullable=False, index=True),
    Column("medium", Text, nullable=False),  # image | audio | video
    Column("mime", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created_by", Text, to("app_user.id")),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "sha256"),
)

# --- live chats -------------------------------------------------------------------------------------------------------------

chat = Table(
    "chat",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("user_id", Text, to("app_user.id"), nullable=False),
    Column("state", Text, nullable=False),  # open | closed
    Column("is_red_team", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
    Index("chat_of_user", "user_id", "project_id", "id"),
)
chat_turn = Table(  # what somebody said, and what came of it; once chosen it is an item with a judgment
    "chat_turn",
    metadata,
    Column("id", Text, primary_key=True),
    Column("chat_id", Text, to("chat.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("user_text", Text, nullable=False),
    Column("schema_id", Text, to("task_schema.id"), nullable=False),
    Column("state", Text, nullable=False),  # generating | compare | failed | chosen
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("k", Integer, nullable=False),  # replies asked for
    Column("ends", BigInteger, nullable=False),  # when those that are there are shown
    Column("shown_json", Text, nullable=False, server_default="[]"),  # ids of replies in the order of the screen
    Column("released", BigInteger),
    Column("chosen", Text),  # the reply the talk goes on with
    Column("assignment_id", Text, to("assignment.id")),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("chat_id", "number"),
)
generation = Table(  # one reply, written as soon as it is whole
    "generation",
    metadata,
    Column("id", Text, primary_key=True),
    Column("turn_id", Text, to("chat_turn.id"), nullable=False, index=True),
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("backend", Text, nullable=False),
    Column("params_json", Text, nullable=False),
    Column("state", Text, nullable=False),  # asked | done | failed
    Column("text", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("ms", BigInteger),
    Column("created", BigInteger, nullable=False),
    Index("generation_of_user", "user_id", "created"),
    Index("generation_of_project", "project_id"),
)

# --- work in the background, counts, and what happened ----------------------------------------------------------------------

job = Table(
    "job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, to("project.id"), nullable=False),
    Column("user_id", Text, to("app_user.id")),
    Column("kind", Text, nullable=False),  # import | export
    Column("state", Text, nullable=False),  # waiting | running | done | failed | cancelled
    Column("settings_json", Text, nullable=False),
    Column("result_json", Text, nullable=False, server_default="{}"),
    Column("n_done", Integer, nullable=False, server_default="0"),
    Column("created", BigInteger, nullable=False),
    Column("finished", BigInteger),
    Index("job_state", "state", "id"),
)
tally = Table(  # what each person did each day, counted in the transaction that does it; nobody else writes these rows
    "tally",
    metadata,
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("day", Integer, nullable=False),  # days since 1970
    Column("submitted", Integer, nullable=False, server_default="0"),
    Column("surplus", Integer, nullable=False, server_default="0"),
    Column("skipped", Integer, nullable=False, server_default="0"),
    Column("active_ms", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("project_id", "user_id", "day"),
)
event = Table(
    "event",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text),
    Column("user_id", Text),
    Column("action", Text, nullable=False),
    Column("object_id", Text, nullable=False, server_default=""),
    Column("detail_json", Text, nullable=False, server_default="{}"),
    Column("created", BigInteger, nullable=False),
    Index("event_of_project", "project_id", "id"),
)
