"""Sites, their keys, and what an operator did."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_VALID = sa.text("until IS NULL")


def upgrade() -> None:
    op.create_table(
        "site",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("software", sa.String(200), nullable=False),
        sa.Column("protocols", sa.JSON(), nullable=False),
        sa.Column("enrolled", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_table(
        "site_key",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("site", sa.String(200), sa.ForeignKey("site.name"), nullable=False),
        sa.Column("node", sa.Text(), nullable=False, unique=True),
        sa.Column("signing", sa.String(64), nullable=False, unique=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index("one_valid_pair_of_a_site", "site_key", ["site"], unique=True, sqlite_where=_VALID, postgresql_where=_VALID)
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("what", sa.String(200), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("event")
    op.drop_index("one_valid_pair_of_a_site", "site_key")
    op.drop_table("site_key")
    op.drop_table("site")
