"""Runs, how each site stands to them, and their rounds."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("offer", sa.LargeBinary(), nullable=False),
        sa.Column("adapter", sa.String(64), nullable=False),
        sa.Column("made", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("result", sa.String(64), nullable=True),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_table(
        "standing",
        sa.Column("run", sa.String(200), sa.ForeignKey("run.name"), primary_key=True),
        sa.Column("site", sa.String(200), sa.ForeignKey("site.name"), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered", sa.Text(), nullable=False),
    )
    op.create_table(
        "round",
        sa.Column("run", sa.String(200), sa.ForeignKey("run.name"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("adapter", sa.String(64), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("round")
    op.drop_table("standing")
    op.drop_table("run")
