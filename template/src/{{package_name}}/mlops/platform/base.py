"""What every platform offers: Delta tables by name, and the model registry's home."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..declarations import Column, FeatureTable
from ..tables import Table

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models.model import ModelInfo
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = 4  # Spark plans one query while it runs another


@dataclass(frozen=True)
class Span:
    """The rows whose time in `column` is in (since, until]."""

    column: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Unscored:
    """Rows of `table` in a span whose `key` is not among the `done` ones (column `entity`)."""

    table: str
    span: Span
    key: str
    done: DataFrame | None


@dataclass(frozen=True)
class JobRun:
    """A run of a job that has ended: its data time, how long it took and whether it failed."""

    at: datetime
    seconds: float
    failed: bool


@dataclass(frozen=True)
class LookedUp:
    """What a model was trained on: rows of keys, a time, `inputs` and a label, and the look-ups.

    The model's features are `inputs`, columns of the rows, and then those of each table, as known
    at the time in column `at`.
    """

    rows: DataFrame
    keys: Sequence[str]
    at: str
    inputs: Sequence[str]
    label: str
    tables: Sequence[FeatureTable]


def naive(time: datetime) -> pd.Timestamp:
    """A time as tables have it in pandas: UTC without saying so."""
    import pandas as pd

    return pd.Timestamp(time).tz_convert(None)


def time_of(rows: DataFrame, which: SparkColumn) -> datetime | None:
    """A time that is an aggregate of the rows, such as the first, in UTC; None of no rows."""
    from pyspark.sql import functions as F

    row = rows.agg(F.unix_micros(which)).first()
    if row is None or row[0] is None:
        return None
    return datetime.fromtimestamp(row[0] / 1e6, tz=UTC)


def doubled(table: str, keys: Sequence[str]) -> str:
    """What is wrong with rows that have the same keys."""
    return (
        f"Table {table}: several rows have the same {', '.join(keys)}. Fix: let `compute` give one "
        "row for each."
    )


def schema_of(columns: Iterable[Column]) -> StructType:
    """The columns as Spark's schema."""
    return _parsed(", ".join(column.ddl for column in columns))


@lru_cache
def _parsed(ddl: str) -> StructType:
    from pyspark.sql.types import StructType

    schema = StructType.fromDDL(ddl) if ddl else StructType()
    assert isinstance(schema, StructType)
    return schema


class MissingTableError(LookupError):
    """A table that a stage reads has not been written yet."""


BatchHandler = Callable[["Platform", "DataFrame", int], None]


class Platform(ABC):
    """Tables and models of one schema. Writes are atomic, and repeating one changes nothing."""

    name: str

    def __init__(self, spark: SparkSession, catalog: str, schema: str) -> None:
        self.spark = spark
        self.catalog = catalog
        self.schema = schema

    # -- tables ---------------------------------------------------------------------------------
    def full_name(self, table: str) -> str:
        """Three-level name of a table or model of this project."""
        return f"{self.catalog}.{self.schema}.{table}"

    @abstractmethod
    def exists(self, table: str) -> bool:
        """Whether the table has been written."""

    def read(self, table: str, span: Span | None = None) -> DataFrame:
        """Return the table as it is now, or its rows of a span.

        Raises:
            MissingTableError: it has not been written.
        """
        self._require(table)
        if span is None:
            return self._open(table)
        from pyspark.sql import functions as F

        time = F.col(span.column)
        return self._open(table, span).where((time > span.since) & (time <= span.until))

    def frame(self, table: str, **equal: str) -> pd.DataFrame:
        """Return a small table, or its rows with these values, in memory; times are naive UTC.

        Raises:
            MissingTableError: it has not been written.
        """
        self._require(table)
        return self._load(table, equal)

    def frame_of(self, table: str, span: Span) -> pd.DataFrame:
        """Return the rows of a span in memory; times are naive UTC.

        Raises:
            MissingTableError: the table has not been written.
        """
        self._require(table)
        return self._load(table, {}, span)

    def span(self, table: str, column: str) -> tuple[datetime, datetime] | None:
        """First and last time in a column, in UTC; None while the table is missing or empty."""
        return self._span(table, column) if self.exists(table) else None

    def columns(self, table: str) -> list[str]:
        """Names of the table's columns; none while it is missing."""
        return [field.name for field in self._schema(table)] if self.exists(table) else []

    def _require(self, table: str) -> None:
        if not self.exists(table):
            raise MissingTableError(
                f"Table {self.full_name(table)} does not exist yet. Fix: run the job that writes "
                "it first: features, then training, then scoring, then monitoring."
            )

    @abstractmethod
    def _schema(self, table: str) -> StructType: ...

    @abstractmethod
    def _open(self, table: str, span: Span | None = None) -> DataFrame:
        """All rows, or at least those of the span."""

    @abstractmethod
    def _load(
        self, table: str, equal: Mapping[str, str], span: Span | None = None
    ) -> pd.DataFrame: ...

    @abstractmethod
    def _span(self, table: str, column: str) -> tuple[datetime, datetime] | None: ...

    @abstractmethod
    def version(self, table: str) -> int:
        """Delta version of the table, for lineage."""

    @abstractmethod
    def create(
        self, table: str, columns: Iterable[Column], description: str, changes: bool = False
    ) -> None:
        """Create the table, with its columns' descriptions, unless it exists.

        A column that a merge has added gets its description. With `changes` the table keeps a
        change feed, from then on if it is there already.

        Raises:
            ValueError: a column is there with another type.
        """

    def _undescribed(
        self, table: str, columns: Sequence[Column], there: StructType
    ) -> list[Column]:
        """The columns that a table with this schema has without a description.

        Raises:
            ValueError: it has one of them with another type.
        """
        known = {field.name: field for field in there}
        for field in schema_of(columns):
            kind = known.get(field.name, field).dataType.simpleString()
            if kind != field.dataType.simpleString():
                raise ValueError(
                    f"Column {field.name} of {self.full_name(table)} is {kind}, and declared as "
                    f"{field.dataType.simpleString()}. Fix: give a column of another type another "
                    "name."
                )
        return [c for c in columns if c.name in known and "comment" not in known[c.name].metadata]

    @abstractmethod
    def merge(
        self, table: str, rows: DataFrame, keys: Sequence[str], latest_by: str | None = None
    ) -> None:
        """Insert the rows, or replace those with the same keys, in one atomic commit.

        New columns are added to the table. `rows` holds each key once. With `latest_by`, a time
        column, a row replaces only one that is not newer.
        """

    @abstractmethod
    def insert(self, table: str, rows: DataFrame, keys: Sequence[str], span: Span) -> None:
        """Insert the rows whose keys are not there yet, in one atomic commit that only adds.

        All rows are of the span, and only there they are looked for: the cost does not grow with
        the table.

        Raises:
            ValueError: several of the rows have the same keys; on a workspace Spark's own error.
        """

    @abstractmethod
    def replace(self, table: str, rows: DataFrame, keys: Sequence[str], span: Span) -> None:
        """Make the rows with a time in the span exactly these, in one atomic commit.

        Raises:
            ValueError: several of the rows have the same keys; on a workspace Spark's own error.
        """

    @abstractmethod
    def merge_rows(self, table: Table, rows: list[tuple[object, ...]]) -> None:
        """Merge a few rows of an evidence table, given in the order of its columns."""

    def record(self, table: Table, rows: DataFrame | list[tuple[object, ...]]) -> None:
        """Write evidence: create the table when needed, then replace rows with the same keys.

        What follows a table that is only added to, such as `predictions`, uses `insert`.
        """
        self.create(table.name, table.columns, table.description)
        if isinstance(rows, list):
            self.merge_rows(table, rows)
        else:
            self.merge(table.name, rows, table.keys)

    def keep(self, rows: DataFrame) -> DataFrame:
        """Return rows that are used more than once, computed already where that is cheaper."""
        return rows

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Do the same work for independent items at once; the first error is raised."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(work, items))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Decide alone: nobody else decides on versions while the block runs.

        On a workspace the deployment job sees to that, which runs once at a time.
        """
        yield

    @abstractmethod
    def declare(self, table: FeatureTable) -> None:
        """Make a table that has been created known as a feature table."""

    @abstractmethod
    def look_up_into(
        self,
        table: str,
        rows: DataFrame,
        span: Span,
        tables: Sequence[FeatureTable],
        keys: Sequence[str],
    ) -> None:
        """Merge the rows with the features of `tables` as they were known at each row's time.

        All rows are of the span, and hold each of `keys` once.
        """

    # -- streams --------------------------------------------------------------------------------
    @abstractmethod
    def follow(self, table: str, changes: bool = False) -> DataFrame:
        """Stream a table's rows: what is there, then what comes.

        With `changes` also rows that were replaced or removed, as they were; the table keeps a
        change feed. Without, rows are only ever added to the table.
        """

    @abstractmethod
    def folder(self, name: str) -> Path:
        """A folder for files that are no tables; it need not exist yet."""

    @abstractmethod
    def secret(self, name: str) -> str | None:
        """A secret of this project; None on a machine that has none of that name."""

    def drain(self, stream: DataFrame, name: str, handle: BatchHandler) -> None:
        """Hand over all that is new in a stream, in batches, and return.

        How far it has come is kept in a folder of that name. `handle(platform, rows, number)` has
        to give the same when it is called again with the same batch, as it is after a crash. It
        may run in another process: it gets a platform there, and must not hold a Spark session.
        """

        def batch(rows: DataFrame, number: int) -> None:
            here = copy(self)
            here.spark = rows.sparkSession
            handle(here, rows, number)

        writer = stream.writeStream.foreachBatch(batch).queryName(name)
        writer = writer.option("checkpointLocation", str(self.folder(f"checkpoints/{name}")))
        writer.trigger(availableNow=True).start().awaitTermination()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the session, which belongs to this process."""
        return self.__dict__ | {"spark": None}

    # -- jobs -----------------------------------------------------------------------------------
    @abstractmethod
    def job_runs(
        self, job_ids: Collection[str], since: datetime, until: datetime
    ) -> dict[str, list[JobRun]]:
        """The runs of each job that have ended, with a data time in (since, until]."""

    @abstractmethod
    def job_costs(
        self, job_ids: Collection[str], since: datetime, until: datetime
    ) -> dict[str, float]:
        """US dollars, at list price, of what each job used in (since, until].

        A job is missing where nobody knows.
        """

    # -- models ---------------------------------------------------------------------------------
    @abstractmethod
    def use_experiment(self, name: str) -> None:
        """Make this the experiment that training runs are logged to."""

    def log_model(
        self,
        estimator: Any,
        looked_up: LookedUp,
        versions: Mapping[str, int],
        **options: Any,
    ) -> ModelInfo:
        """Log a scikit-learn model to the active run.

        `versions` are those of the tables it was trained on, `options` what
        `mlflow.sklearn.log_model` takes.
        """
        import mlflow

        return mlflow.sklearn.log_model(estimator, name="model", **options)

    @abstractmethod
    def score_into(
        self,
        table: Table,
        rows: Unscored,
        model_uri: str,
        features: Sequence[str],
        said: Mapping[str, str | datetime],
    ) -> None:
        """Insert the rows as `entity`, with `prediction` (double) by the model.

        `features` are the model's inputs and are kept, as is the time of the span; `said` are the
        columns that are the same in all rows.
        """

    @abstractmethod
    def user(self) -> str:
        """Who runs this process."""

    @abstractmethod
    def groups(self, person: str) -> set[str]:
        """Names of the groups that a person is a member of; none when nobody knows the person."""

    @abstractmethod
    def announce(self, model: str, version: str) -> None:
        """Tell the platform that a version awaits deployment."""

    @abstractmethod
    def set_task_value(self, key: str, value: str) -> None:
        """Publish a value of the running task to the tasks after it."""
