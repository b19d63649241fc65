"""What gates measure, and the files of channels

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("rerolls", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "look",
        sa.Column("batch_id", sa.String(length=40), nullable=False),
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.String(length=40), nullable=False),
        sa.Column("dhash", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_look_image_id_image"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "row", "image_id", name=op.f("pk_look")),
    )
    op.create_index(op.f("ix_look_image_id"), "look", ["image_id"])
    op.create_table(
        "channel_file",
        sa.Column("image_id", sa.String(length=40), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("storage_key", sa.String(length=512), nullable=False),
        sa.Column("format", sa.String(length=8), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_channel_file_image_id_image"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id", "channel", name=op.f("pk_channel_file")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_channel_file_storage_key")),
    )


def downgrade() -> None:
    op.drop_table("channel_file")
    op.drop_table("look")
    op.drop_column("job", "rerolls")
