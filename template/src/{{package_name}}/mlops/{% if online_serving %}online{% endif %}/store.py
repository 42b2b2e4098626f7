"""The online store: of each feature table the newest row of each key, to look up in a millisecond.

Publishing is incremental: a batch holds what became known since the last one, and is one
transaction, so that a reader sees all of it or nothing, and a publisher that is killed leaves what
was there. A change of the columns, or a publication of an earlier time, builds the table anew and
swaps it in.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from ..declarations import Column, FeatureTable

if TYPE_CHECKING:
    import pyarrow as pa

    from ..platform import Platform

KNOWN = "available_at"  # here in microseconds since 1970, which every database keeps exactly
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: dict[str, type[sa.types.TypeEngine[Any]]] = {
    **dict.fromkeys(("string",), sa.Text),
    **dict.fromkeys(("double", "float"), sa.Double),
    **dict.fromkeys(("bigint", "int", "smallint", "tinyint"), sa.BigInteger),
    "boolean": sa.Boolean,
}
_PYTHON: dict[str, Callable[[Any], Any]] = {
    "string": str,
    **dict.fromkeys(("double", "float"), float),
    **dict.fromkeys(("bigint", "int", "smallint", "tinyint"), int),
    "boolean": bool,
}
_ROWS = 5_000  # rows written by a statement
_KEYS = 500  # keys asked for by a statement: planning it takes longer than proportional


def micros(time: datetime) -> int:
    """Microseconds since 1970 of a time with a zone."""
    return (time - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Published:
    """What the store holds of one feature table.

    `as_of` is the data time it is up to, `published_at` the clock's time when it got there,
    `rows` what the last batch wrote.
    """

    table: str
    physical: str
    keys: Mapping[str, str]
    features: Mapping[str, str]
    as_of: datetime
    published_at: datetime
    rows: int

    @property
    def age(self) -> float:
        """Freshness: seconds since the last publication."""
        return (datetime.now(UTC) - self.published_at).total_seconds()

    def data_time(self) -> datetime:
        """The moment of the data that is now: `as_of`, and the time since it was published.

        On a schedule that is the clock, less the minutes that a run takes. After a replay it is
        the end of the replay, so that features are no older than they were then.
        """
        return self.as_of + (datetime.now(UTC) - self.published_at)


class NotPublishedError(LookupError):
    """A table or a feature that is looked up is not in the store."""


class OnlineStore(ABC):
    """Where feature tables are published to."""

    @abstractmethod
    def publish(
        self, platform: Platform, table: FeatureTable, as_of: datetime, anew: bool = False
    ) -> int:
        """Bring the store up to `as_of`, `anew` with every key; the number of rows written."""

    @abstractmethod
    def published(self) -> dict[str, Published]:
        """What is in the store, by feature table."""


class SqlStore(OnlineStore):
    """SQLite or PostgreSQL, by URL."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        options: dict[str, Any] = {}
        if parsed.get_backend_name() == "sqlite":
            Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True)
            options["connect_args"] = {"timeout": 30}
            self._insert: Any = sqlite.insert
        elif parsed.get_backend_name() == "postgresql":
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            options["pool_pre_ping"] = True  # a connection that a restart has cut is replaced
            self._insert = postgresql.insert
        else:
            raise ValueError(
                f"ONLINE_STORE_URL names {parsed.drivername}, which is not supported. Fix: write "
                "it like postgresql://user@host/database or sqlite:////folder/online.sqlite."
            )
        self.url = parsed.render_as_string(hide_password=True)
        self._engine = sa.create_engine(parsed, **options)
        if parsed.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin)
        self._state = sa.Table(
            "published",
            sa.MetaData(),
            sa.Column("feature_table", sa.Text, primary_key=True),
            sa.Column("physical", sa.Text, nullable=False),
            sa.Column("keys", sa.Text, nullable=False),
            sa.Column("features", sa.Text, nullable=False),
            sa.Column("as_of", sa.BigInteger, nullable=False),
            sa.Column("published_at", sa.BigInteger, nullable=False),
            sa.Column("rows", sa.BigInteger, nullable=False),
        )
        self._queries: dict[tuple[str, ...], Any] = {}
        self._known: dict[str, Published] = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    # -- publishing -----------------------------------------------------------------------------
    def publish(
        self, platform: Platform, table: FeatureTable, as_of: datetime, anew: bool = False
    ) -> int:
        """Write the newest row of each key among those that became known since the last time."""
        from pyspark.sql import functions as F

        from ..stages.features import lateness

        rows = platform.read(table.name).where(F.col(KNOWN) <= as_of)
        types = dict(rows.dtypes)
        keys = {key: types[key] for key in table.keys}
        features = {column.name: column.type for column in table.features}
        since = None if anew else self.continues(table.name, keys, features, as_of)
        if since is not None:
            rows = rows.where(F.col(KNOWN) > since - lateness(table.sources))
        for key in keys:
            rows = rows.where(F.col(key).isNotNull())
        newest = rows.groupBy(*keys).agg(
            F.max_by(F.struct(KNOWN, *features), F.col(KNOWN)).alias("newest")
        )
        columns = [f"newest.{name}" for name in features]
        known = F.unix_micros(f"newest.{KNOWN}").alias(KNOWN)
        found = newest.select(*keys, known, *columns).toArrow()
        return self.write(table.name, keys, features, found, as_of, since)

    def continues(
        self, table: str, keys: Mapping[str, str], features: Mapping[str, str], as_of: datetime
    ) -> datetime | None:
        """The time up to which the store is, when a batch can be added; None: begin anew."""
        known = self.published().get(table)
        if known is None or (known.keys, known.features) != (keys, features):
            return None
        return known.as_of if known.as_of <= as_of else None

    def write(
        self,
        table: str,
        keys: Mapping[str, str],
        features: Mapping[str, str],
        rows: pa.Table,
        as_of: datetime,
        since: datetime | None,
    ) -> int:
        """Write one batch in one transaction; each key at most once, `available_at` in micros.

        `since` is what `continues` said: None replaces the whole table.
        """
        state, now = self._state, micros(datetime.now(UTC))
        writing = self._engine.execution_options(write=True)
        with self._lock, writing.begin() as connection:  # two that make a table collide
            connection.execute(sa.schema.CreateTable(state, if_not_exists=True))
        with writing.begin() as connection:
            # The row of the table's state is the lock of its publishers.
            empty = {"physical": "", "keys": "", "features": "", "as_of": 0, "published_at": 0}
            connection.execute(
                self._insert(state)
                .values(feature_table=table, rows=0, **empty)
                .on_conflict_do_nothing()
            )
            query = sa.select(state).where(state.c.feature_table == table).with_for_update()
            before = connection.execute(query).one()
            if since is not None and before.as_of != micros(since):
                raise RuntimeError(
                    f"{table} was published by another process meanwhile. Fix: run it again."
                )
            physical = before.physical
            if since is None:
                number = int(physical.rpartition("_")[2] or 0) + 1
                physical = f"online_{table}_{number}"
            target = self._table(physical, keys, features)
            if since is None:
                target.create(connection)
            insert = self._insert(target)
            values = {name: insert.excluded[name] for name in (KNOWN, *features)}
            upsert = insert.on_conflict_do_update(
                index_elements=list(keys),
                set_=values,
                where=insert.excluded[KNOWN] >= target.c[KNOWN],
            )
            for batch in rows.to_batches(max_chunksize=_ROWS):
                if batch.num_rows:
                    connection.execute(upsert, batch.to_pylist())
            connection.execute(
                sa.update(state)
                .where(state.c.feature_table == table)
                .values(
                    physical=physical,
                    keys=json.dumps(dict(keys)),
                    features=json.dumps(dict(features)),
                    as_of=micros(as_of),
                    published_at=now,
                    rows=rows.num_rows,
                )
            )
            if since is None and before.physical:
                connection.execute(sa.schema.DropTable(sa.table(before.physical)))  # type: ignore[arg-type]
        self._read_at = float("-inf")
        return int(rows.num_rows)

    @staticmethod
    def _table(physical: str, keys: Mapping[str, str], features: Mapping[str, str]) -> sa.Table:
        return sa.Table(
            physical,
            sa.MetaData(),
            *(sa.Column(name, _type(name, kind), primary_key=True) for name, kind in keys.items()),
            sa.Column(KNOWN, sa.BigInteger, nullable=False),
            *(sa.Column(name, _type(name, kind)) for name, kind in features.items()),
            sqlite_with_rowid=False,
        )

    # -- reading --------------------------------------------------------------------------------
    def published(self, max_age: float = 0.0) -> dict[str, Published]:
        """What is in the store; read again when last read more than `max_age` seconds ago."""
        if time.monotonic() - self._read_at <= max_age:
            return self._known
        with self._lock, self._engine.connect() as connection:
            found = {}
            if sa.inspect(connection).has_table(self._state.name):
                for row in connection.execute(sa.select(self._state)):
                    found[row.feature_table] = Published(
                        table=row.feature_table,
                        physical=row.physical,
                        keys=json.loads(row.keys),
                        features=json.loads(row.features),
                        as_of=_EPOCH + timedelta(microseconds=row.as_of),
                        published_at=_EPOCH + timedelta(microseconds=row.published_at),
                        rows=row.rows,
                    )
            self._known, self._read_at = found, time.monotonic()
        return found

    def lookup(
        self,
        tables: Iterable[FeatureTable],
        rows: Sequence[Mapping[str, Any]],
        at: datetime | None = None,
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The features of each row, by the keys in it, as known at data time `at`.

        As in batches, a key that is not there, one that is null, and a row older than `max_age`
        give the defaults of the features, as does a value that is null. Also returns how many rows
        each table had nothing for.
        """
        found: list[dict[str, Any]] = [{} for _ in rows]
        missing = {}
        with self._engine.connect() as connection:
            for table in tables:
                missing[table.name] = self._look_up(connection, table, rows, at, found)
        return found, missing

    def _look_up(
        self,
        connection: sa.Connection,
        table: FeatureTable,
        rows: Sequence[Mapping[str, Any]],
        at: datetime | None,
        found: list[dict[str, Any]],
    ) -> int:
        keys = [tuple(row[key] for key in table.keys) for row in rows]
        asked = list(dict.fromkeys(key for key in keys if None not in key))
        defaults, missing = [_default(column) for column in table.features], 0
        try:
            newest, state = self._newest(connection, table, asked)
        except (DBAPIError, NotPublishedError):  # built anew, or the database started again
            connection.rollback()
            self._read_at = float("-inf")
            newest, state = self._newest(connection, table, asked)
        oldest = None
        if table.max_age is not None:
            oldest = micros((at or state.data_time()) - table.max_age)
        for key, features in zip(keys, found, strict=True):
            row = newest.get(key)
            if row is None or (oldest is not None and row[0] < oldest):
                missing += 1
                row = (None, *defaults)
            for name, value, default in zip(table.feature_names, row[1:], defaults, strict=True):
                features[name] = default if value is None else value
        return missing

    def _newest(
        self, connection: sa.Connection, table: FeatureTable, keys: Sequence[tuple[Any, ...]]
    ) -> tuple[dict[tuple[Any, ...], tuple[Any, ...]], Published]:
        state = self.published(max_age=1.0).get(table.name)
        if state is None:
            raise NotPublishedError(
                f"Feature table {table.name} is not in the online store {self.url}. Fix: run the "
                "features job, whose last task publishes."
            )
        query, width = self._query(state, table), len(table.keys)
        found = {}
        for start in range(0, len(keys), _KEYS):
            part: Sequence[Any] = keys[start : start + _KEYS]
            if width == 1:
                part = [key[0] for key in part]
            for row in connection.execute(query, {"asked": part}):
                found[tuple(row[:width])] = tuple(row[width:])
        return found, state

    def _query(self, state: Published, table: FeatureTable) -> Any:
        """The statement that finds keys, made once for each table."""
        asked_for = (state.physical, table.name, *table.feature_names)
        made = self._queries.get(asked_for)
        if made is None:
            names = [*table.keys, KNOWN, *table.feature_names]
            has = {*state.keys, KNOWN, *state.features}
            absent = [name for name in names if name not in has]
            if absent:
                raise NotPublishedError(
                    f"Feature table {table.name} is published without {', '.join(absent)}. Fix: "
                    "run the features job with the code that is served."
                )
            target = self._table(state.physical, state.keys, state.features)
            parts = [target.c[key] for key in table.keys]
            wanted: Any = parts[0] if len(parts) == 1 else sa.tuple_(*parts)
            asked: Any = sa.bindparam("asked", expanding=True)
            made = sa.select(*(target.c[name] for name in names)).where(wanted.in_(asked))
            self._queries[asked_for] = made
        return made

    def example(self, table: FeatureTable, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of one row of the table that agrees with what is given, or of any; {} if empty."""
        state = self.published()[table.name]
        target = self._table(state.physical, state.keys, state.features)
        keys = [target.c[key] for key in table.keys]
        agrees = [target.c[key] == given[key] for key in table.keys if key in given]
        query = sa.select(*keys).order_by(*keys).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query.where(*agrees)).first()
            row = row or connection.execute(query).first()
        return dict(row._mapping) if row else {}

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _default(column: Column) -> Any:
    """What a look-up gives for no value, in the column's type."""
    return None if column.default is None else _PYTHON[column.type](column.default)


def _type(name: str, kind: str) -> sa.types.TypeEngine[Any]:
    if kind not in _TYPES:
        raise ValueError(
            f"Column {name} is {kind}, which the online store does not keep. Fix: cast it to one "
            f"of {', '.join(_TYPES)} in its feature table."
        )
    return _TYPES[kind]()


def _set_up_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, those of DDL too
    connection.execute("PRAGMA journal_mode=WAL")  # readers go on while a batch is written
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail when another has written.
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
