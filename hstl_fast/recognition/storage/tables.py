"""The tables of a gallery; their names begin with `hstl_`, so that they may stand beside others in a database.

`hstl_meta` has one row. A recording has an embedding by each network, of which one is in use: that of `hstl_meta`;
others are there only while `refresh` computes them. Numbers of people, recordings and embeddings are never used again.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

# The number of the tables below; another one where they change, with a step in `migration`.
FORMAT = 1

# SQLite counts in its own type for keys, which is as wide.
_Number = BigInteger().with_variant(Integer, "sqlite")
_NEVER_AGAIN: dict[str, Any] = {"sqlite_autoincrement": True}


class Moment(TypeDecorator[datetime]):
    """A time in UTC, which SQLite keeps as text without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        if value is None:
            return None
        moment = value.astimezone(timezone.utc)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


metadata = MetaData()

networks = Table(
    "hstl_networks",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("preset", String(100), nullable=False),
    Column("weights", String(200), nullable=False),
    Column("preprocessing", String(100), nullable=False),
    Column("parts", Integer, nullable=False),
    Column("channels", Integer, nullable=False),
    UniqueConstraint("preset", "weights", "preprocessing"),
    **_NEVER_AGAIN,
)

meta = Table(
    "hstl_meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("gallery", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("network_id", _Number, ForeignKey(networks.c.id), nullable=True),
    Column("created", Moment, nullable=False),
)

# The latest changes, so that one whose connection was lost while it was committed is not made twice.
changes = Table(
    "hstl_changes",
    metadata,
    Column("revision", _Number, primary_key=True, autoincrement=False),
    Column("token", String(32), nullable=False, unique=True),
)

thresholds = Table(
    "hstl_thresholds",
    metadata,
    Column("network_id", _Number, ForeignKey(networks.c.id, ondelete="CASCADE"), primary_key=True),
    Column("distance", Float(53), nullable=False),
    Column("false_accept_rate", Float(53), nullable=True),
)

people = Table(
    "hstl_people",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created", Moment, nullable=False),
    **_NEVER_AGAIN,
)

recordings = Table(
    "hstl_recordings",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("person_id", _Number, ForeignKey(people.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("fps", Float(53), nullable=True),
    Column("created", Moment, nullable=False),
    Column("keep_until", Moment, nullable=True, index=True),
    Column("digest", String(80), nullable=False, unique=True),
    # By `clips.compressed`. Stored last: what stands before it is then read without it.
    Column("silhouettes", LargeBinary, nullable=True),
    **_NEVER_AGAIN,
)

embeddings = Table(
    "hstl_embeddings",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("recording_id", _Number, ForeignKey(recordings.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("network_id", _Number, ForeignKey(networks.c.id), nullable=False),
    # The CRC-32 of the vector, as zlib computes it.
    Column("crc", BigInteger, nullable=False),
    # float32 [P, C], little-endian.
    Column("vector", LargeBinary, nullable=False),
    # It also finds all embeddings of a network without reading a vector.
    Index("hstl_embeddings_of_network", "network_id", "recording_id", unique=True),
    **_NEVER_AGAIN,
)
