"""Planted items, reviews, and what an item came to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "planted",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("expected_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("copy_of", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_planted_item_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_planted_project_id")),
        sa.ForeignKeyConstraint(["copy_of"], ["item.id"], name=op.f("fk_planted_copy_of")),
        sa.ForeignKeyConstraint(["created_by"], ["app_user.id"], name=op.f("fk_planted_created_by")),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_planted")),
        sa.UniqueConstraint("copy_of", name=op.f("uq_planted_copy_of")),
    )
    op.create_index("planted_in_project", "planted", ["project_id", "kind", "item_id"], unique=False)
    op.create_table(
        "review",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("judgment_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), server_default="", nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_review_project_id")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_review_item_id")),
        sa.ForeignKeyConstraint(["judgment_id"], ["judgment.id"], name=op.f("fk_review_judgment_id")),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name=op.f("fk_review_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
    )
    op.create_index(op.f("ix_review_item_id"), "review", ["item_id"], unique=False)
    op.create_index(op.f("ix_review_judgment_id"), "review", ["judgment_id"], unique=False)
    op.create_table(
        "final",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("schema_id", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("body_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("judgment_id", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), server_default="", nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_final_item_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_final_project_id")),
        sa.ForeignKeyConstraint(["schema_id"], ["task_schema.id"], name=op.f("fk_final_schema_id")),
        sa.ForeignKeyConstraint(["judgment_id"], ["judgment.id"], name=op.f("fk_final_judgment_id")),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name=op.f("fk_final_user_id")),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_final")),
    )
    op.create_index("final_of_project", "final", ["project_id", "item_id"], unique=False)
