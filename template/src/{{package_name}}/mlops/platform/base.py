"""What every platform offers: Delta tables by name, and the model registry's home."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from ..declarations import Column
from ..tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Item = TypeVar("Item")
_THREADS = 4  # a small Delta write waits more than it works


class MissingTableError(LookupError):
    """A table that a stage reads has not been written yet."""


class Platform(ABC):
    """Tables and models of one schema. Writes are atomic, and repeating one changes nothing."""

    name: str

    def __init__(self, spark: SparkSession, catalog: str, schema: str) -> None:
        self.spark = spark
        self.catalog = catalog
        self.schema = schema
        self._known: set[str] = set()
        self._lock = threading.Lock()

    # -- tables ---------------------------------------------------------------------------------
    def full_name(self, table: str) -> str:
        """Three-level name of a table or model of this project."""
        return f"{self.catalog}.{self.schema}.{table}"

    @abstractmethod
    def exists(self, table: str) -> bool:
        """Whether the table has been written."""

    def read(self, table: str) -> DataFrame:
        """Return the table.

        Raises:
            MissingTableError: it has not been written; the message says which job writes it.
        """
        if not self.exists(table):
            raise MissingTableError(
                f"Table {self.full_name(table)} does not exist yet. Fix: run the job that writes "
                "it first: features, then training, then scoring, then monitoring."
            )
        return self.spark.table(self.full_name(table))

    def create(self, table: str, columns: Iterable[Column], description: str) -> None:
        """Create the table, with its columns' descriptions, unless it exists."""
        if table in self._known or self.exists(table):
            return
        comment = description.replace("\\", "\\\\").replace("'", "\\'")
        ddl = ", ".join(column.ddl for column in columns)
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.full_name(table)} ({ddl}) USING DELTA "
            f"{self._location(table)} COMMENT '{comment}'"
        )
        self._known.add(table)

    def _location(self, table: str) -> str:
        """LOCATION clause of a new table; nothing for a managed one."""
        return ""

    def merge(
        self, table: str, rows: DataFrame, keys: Sequence[str], where: str | None = None
    ) -> None:
        """Insert the rows, or replace those with the same keys, in one atomic commit.

        New columns are added to the table. `rows` holds each key once. `where` is a condition on
        key columns of the target `t` that every row meets; it spares reading older files.
        """
        view = f"_merge_{uuid4().hex}"  # the session is shared
        rows.createOrReplaceTempView(view)
        match = " AND ".join(
            [f"t.`{key}` <=> s.`{key}`" for key in keys] + ([where] if where else [])
        )
        try:
            self.spark.sql(
                f"MERGE WITH SCHEMA EVOLUTION INTO {self.full_name(table)} t USING {view} s "
                f"ON {match} WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            )
        finally:
            self.spark.catalog.dropTempView(view)

    def record(self, table: Table, rows: DataFrame) -> None:
        """Write evidence: create the table when needed, then replace rows with the same keys."""
        self.create(table.name, table.columns, table.description)
        self.merge(table.name, rows, table.keys)

    def record_rows(self, table: Table, rows: list[tuple[object, ...]]) -> None:
        """Write evidence given as tuples, in the order of the table's columns."""
        schema = ", ".join(f"`{column.name}` {column.type}" for column in table.columns)
        if rows:
            self.record(table, self.spark.createDataFrame(rows, schema))

    def version(self, table: str) -> int:
        """Delta version of the table, for lineage."""
        self.read(table)  # a session that has just begun knows no table before it is asked for
        history = self.spark.sql(f"DESCRIBE HISTORY {self.full_name(table)} LIMIT 1").first()
        return int(history["version"]) if history else -1

    def each(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do the same work for independent items at once; the first error is raised."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(work, items))

    # -- models ---------------------------------------------------------------------------------
    @abstractmethod
    def use_experiment(self, name: str) -> None:
        """Make this the experiment that training runs are logged to."""

    @abstractmethod
    def score(self, rows: DataFrame, model_uri: str, features: Sequence[str]) -> DataFrame:
        """Add `prediction` (double) by the model to each row; `features` are its inputs."""

    @abstractmethod
    def announce(self, model: str, version: str) -> None:
        """Tell the platform that a version awaits deployment."""

    @abstractmethod
    def set_task_value(self, key: str, value: str) -> None:
        """Publish a value of the running task to the tasks after it."""
