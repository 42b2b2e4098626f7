"""This machine: Spark and Delta in a folder, MLflow on SQLite."""

from __future__ import annotations

import fcntl
import getpass
import grp
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from deltalake import DeltaTable, Field, Schema, write_deltalake

from ..declarations import Column, FeatureTable
from ..predictions import as_column
from ..tables import Table
from .base import JobRun, Platform, Span, Unscored, doubled, schema_of
from .in_parts import PART, handed_over, in_order, parts_of
from .point_in_time import InFiles, looked_up
from .spark import start_session

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from deltalake.table import TableMerger
    from pyarrow.compute import Expression
    from pyarrow.dataset import Dataset
    from pyspark.pipelines.output import MaterializedView
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_PENDING = "pending"  # a column whose values are being written: metadata of its field
_ROUNDING = timedelta(milliseconds=1)  # of the times in a table's log, which are cut off
_MANY = 64 * 2**20  # bytes of files: rows of more are not held in memory
_NEVER = datetime.min.replace(tzinfo=UTC)
JOB_RUNS = "job_runs.jsonl"
CATALOG = "spark_catalog"  # the only catalog that open-source Spark lets Delta manage


def home_dir() -> Path:
    """The folder that holds local tables, runs and models: MLOPS_HOME, else `.local`."""
    return Path(os.environ.get("MLOPS_HOME", ".local")).resolve()


def use_mlflow(home: Path) -> None:
    """Point MLflow at the project's own store."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it comments on each model
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{home}/mlflow.db")


class LocalPlatform(Platform):
    """The platform on a laptop. Writers wait for each other, in this process and in others."""

    name = "local"

    def __init__(self, spark: SparkSession, schema: str, home: Path) -> None:
        super().__init__(spark, CATALOG, schema)
        self.home = home
        self._new_versions: list[tuple[str, str]] = []

    @classmethod
    def connect(cls, schema: str, home: Path | None = None) -> LocalPlatform:
        """Start Spark, and point MLflow at the project's own store."""
        home = home or home_dir()
        home.mkdir(parents=True, exist_ok=True)
        # Java starts while Python imports MLflow: each takes some seconds.
        with ThreadPoolExecutor(1) as pool:
            session = pool.submit(start_session, home / "warehouse")
            use_mlflow(home)
            return cls(session.result(), schema, home)

    # -- tables: delta-rs keeps the log, which takes Spark a second a write; Spark computes --------
    def path(self, table: str) -> Path:
        """The folder of a table."""
        return self.home / "warehouse" / f"{self.schema}.db" / table

    def _table(self, table: str) -> DeltaTable:
        return DeltaTable(self.path(table))

    def exists(self, table: str) -> bool:
        """Look for the table's log."""
        return DeltaTable.is_deltatable(str(self.path(table)))

    def _schema(self, table: str) -> StructType:
        return _spark_schema(self._table(table))

    def columns(self, table: str) -> list[str]:
        """Those that are not pending."""
        found = self._table(table).schema().fields if self.exists(table) else []
        return [field.name for field in found if field.metadata.get(_PENDING) != "true"]

    def _open(self, table: str, span: Span | None = None) -> DataFrame:
        delta = self._table(table)
        schema, files = _spark_schema(delta), self._paths(delta, table, span)
        if not files:
            return self.spark.createDataFrame([], schema)
        return self.spark.read.schema(schema).parquet(*files)

    def _paths(self, delta: DeltaTable, table: str, span: Span | None) -> list[str]:
        """Those files that may have rows of the span: engines would look into each of them."""
        if span is None:
            return [unquote(uri) for uri in delta.file_uris()]
        return [
            str(self.path(table) / unquote(path))
            for path, first, last in _files(delta, span.column)
            if not (first and last) or (first <= span.until and last > span.since)
        ]

    def _load(self, table: str, equal: Mapping[str, str], span: Span | None = None) -> pd.DataFrame:
        import pyarrow.compute as pc

        rows = _rows(self._table(table)).to_table(filter=_within(span) if span else None)
        for column, value in equal.items():
            rows = rows.filter(pc.field(column) == value)
        return _naive(rows).to_pandas()

    def _span(self, table: str, column: str) -> tuple[datetime, datetime] | None:
        return _ends(self._table(table), column)

    def version(self, table: str) -> int:
        """Read the log."""
        return self._table(table).version()

    def create(
        self, table: str, columns: Iterable[Column], description: str, changes: bool = False
    ) -> None:
        """Create an empty table in the project's folder."""
        columns = list(columns)
        feed = {"delta.enableChangeDataFeed": "true"} if changes else {}
        if self.exists(table):
            for column in self._undescribed(table, columns, self._schema(table)):
                with self._lock("write"):
                    alter = self._table(table).alter
                    alter.set_column_metadata(column.name, {"comment": column.description})
            delta = self._table(table)
            if not feed.items() <= delta.metadata().configuration.items():
                delta.alter.set_table_properties(feed)
            return
        with self._lock("write"):
            DeltaTable.create(
                self.path(table),
                _delta_schema(columns),
                mode="ignore",
                description=description,
                configuration=feed,
            )

    def merge(
        self, table: str, rows: DataFrame, keys: Sequence[str], latest_by: str | None = None
    ) -> None:
        """Collect the rows, which are few, and merge them."""
        collected = rows.toArrow()
        if collected.num_rows:
            self._merge(table, collected, keys, latest_by)

    def insert(self, table: str, rows: DataFrame, keys: Sequence[str], span: Span) -> None:
        """Collect the rows, and add those that are new."""
        collected = rows.toArrow()
        if collected.num_rows:
            _require_distinct(table, collected, keys)
            self._insert(table, collected, keys, span)

    def _insert(
        self, table: str, rows: pa.Table | pa.RecordBatchReader, keys: Sequence[str], span: Span
    ) -> None:
        self._write(table, rows, keys, lambda m: m.when_not_matched_insert_all(), span)

    def replace(self, table: str, rows: DataFrame, keys: Sequence[str], span: Span) -> None:
        """Collect the rows, and merge them over the span."""

        def clauses(merger: TableMerger) -> TableMerger:
            merger = merger.when_matched_update_all().when_not_matched_insert_all()
            return merger.when_not_matched_by_source_delete(_inside(span))

        collected = rows.toArrow()
        _require_distinct(table, collected, keys)
        self._write(table, collected, keys, clauses)

    def merge_rows(self, table: Table, rows: list[tuple[object, ...]]) -> None:
        """Merge them without Spark."""
        import pyarrow as pa

        schema = pa.schema(self._table(table.name).schema().to_arrow())
        columns = [column.name for column in table.columns]
        found = [dict(zip(columns, row, strict=True)) for row in rows]
        if found:
            self._merge(table.name, pa.Table.from_pylist(found, schema), table.keys)

    def _merge(
        self,
        table: str,
        rows: pa.Table | pa.RecordBatchReader,
        keys: Sequence[str],
        latest_by: str | None = None,
    ) -> None:
        newer = f"s.`{latest_by}` >= t.`{latest_by}`" if latest_by else None
        self._write(
            table,
            rows,
            keys,
            lambda m: m.when_matched_update_all(newer).when_not_matched_insert_all(),
        )

    def _write(
        self,
        table: str,
        rows: pa.Table | pa.RecordBatchReader,
        keys: Sequence[str],
        clauses: Callable[[TableMerger], TableMerger],
        span: Span | None = None,
    ) -> None:
        """Merge the rows; columns that the table lacks are added in a commit before.

        Matches are looked for in the span; where there can be none, rows are only appended.

        A merge of delta-rs that adds columns gives the table another id, on which streams that
        follow it end. Until the rows are there, the columns are pending, and not told of.
        """
        import pyarrow as pa

        with self._lock("write"):  # of two merges into a table at once, one would fail
            delta = self._table(table)
            there = {field.name for field in delta.schema().fields}
            new = [
                Field(field.name, field.type, metadata={_PENDING: "true"})
                for field in Schema.from_arrow(rows.schema).fields
                if field.name not in there
            ]
            if new:
                delta.alter.add_columns(new)
                delta = self._table(table)
            fields = delta.schema().fields
            pending = [field.name for field in fields if field.metadata.get(_PENDING) == "true"]
            known = _ends(delta, span.column) if span else None
            if not delta.file_uris() or (span and (known is None or known[1] <= span.since)):
                types = {field.name: field.type for field in pa.schema(delta.schema().to_arrow())}
                named = pa.schema([(name, types[name]) for name in rows.schema.names])
                write_deltalake(delta, rows.cast(named), mode="append", schema_mode="merge")
            else:
                # Only of rows in memory it takes note which keys there are.
                held = rows if isinstance(rows, pa.Table) else rows.read_all()
                where = " AND ".join(
                    [_same(held, key) for key in keys] + ([_inside(span)] if span else [])
                )
                merger = delta.merge(
                    held, where, source_alias="s", target_alias="t", streamed_exec=False
                )
                clauses(merger).execute()
            for name in pending:
                self._table(table).alter.set_column_metadata(name, {_PENDING: "false"})

    def overwrite(self, table: MaterializedView, rows: DataFrame) -> None:
        """Make a dataset of a pipeline exactly these rows, in one atomic commit."""
        import pyarrow as pa
        from pyspark.sql.types import StructType

        asked = table.schema or rows.schema
        schema = StructType.fromDDL(asked) if isinstance(asked, str) else asked
        fields = pa.schema(Schema.from_json(schema.json()).to_arrow())
        collected = rows.toArrow().select(fields.names).cast(fields)
        with self._lock("write"):
            write_deltalake(
                self.path(table.name),
                collected,
                mode="overwrite",
                schema_mode="overwrite",
                description=table.comment,
            )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other process decides."""
        with self._lock("decide"):
            yield

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Hold a file of the project's folder; the system lets go of it when a process ends."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keep(self, rows: DataFrame) -> DataFrame:
        """Compute them now; Spark's own cache would spend longer on compressing them."""
        collected = rows.toArrow()
        # Spark need not run a job to find out that what comes of no rows is none.
        return self.spark.createDataFrame(collected if len(collected) else [], rows.schema)

    def declare(self, table: FeatureTable) -> None:
        """Do nothing: only a workspace tells them from other tables."""

    def look_up_into(
        self,
        table: str,
        rows: DataFrame,
        span: Span,
        tables: Sequence[FeatureTable],
        keys: Sequence[str],
    ) -> None:
        """Look the features up without Spark, which would sort ten times as long.

        Features are not held in memory, nor are rows that may be many; answers only where they are
        merged into what is there already.
        """
        import pyarrow as pa

        known = []
        for features in tables:
            self._require(features.name)
            delta = self._table(features.name)
            since = _NEVER if features.max_age is None else span.since - features.max_age
            files = self._paths(delta, features.name, Span("available_at", since, span.until))
            known.append((features, InFiles(pa.schema(delta.schema().to_arrow()), files)))
        with self._lock("look_up"), _scratch(self.home / "look_up") as folder:
            asked, spill = _collected(rows, folder / "asked"), folder / "spill"
            if asked is not None:
                with looked_up(asked, span.column, keys, known, spill) as answers:
                    self._merge(table, answers, keys)

    # -- streams: Spark's own Delta source reads what delta-rs has written -------------------------
    def follow(self, table: str, changes: bool = False) -> DataFrame:
        """Stream the table's folder."""
        self._require(table)
        reader = self.spark.readStream.format("delta").option("readChangeFeed", str(changes))
        return reader.load(str(self.path(table)))

    def folder(self, name: str) -> Path:
        """Beside the tables."""
        return self.home / "files" / self.schema / name

    def secret(self, name: str) -> str | None:
        """Ask the environment, in capitals."""
        return os.environ.get(name.upper())

    # -- jobs: a line a run, which the job runner writes -------------------------------------------
    def note_run(self, job_id: str, run: JobRun) -> None:
        """Keep a run that has ended."""
        line = {"job": job_id, "at": run.at.isoformat(), "seconds": run.seconds}
        with self._runs.open("a") as file:
            file.write(json.dumps(line | {"failed": run.failed}) + "\n")

    def job_runs(
        self, job_ids: Collection[str], since: datetime, until: datetime
    ) -> dict[str, list[JobRun]]:
        """Read the lines."""
        found: dict[str, list[JobRun]] = {job_id: [] for job_id in job_ids}
        for line in self._runs.read_text().splitlines() if self._runs.exists() else ():
            one = json.loads(line)
            at = datetime.fromisoformat(one["at"])
            if one["job"] in found and since < at <= until:
                found[one["job"]].append(JobRun(at, one["seconds"], one["failed"]))
        return found

    def job_costs(
        self, job_ids: Collection[str], since: datetime, until: datetime
    ) -> dict[str, float]:
        """Nothing: nobody sends a bill for this machine."""
        return {}

    @property
    def _runs(self) -> Path:
        return self.home / JOB_RUNS

    # -- models ---------------------------------------------------------------------------------
    def use_experiment(self, name: str) -> None:
        """Create the experiment with its artifacts in the project's folder."""
        import mlflow

        if mlflow.get_experiment_by_name(name) is None:
            folder = self.home / "artifacts" / name.strip("/")
            mlflow.create_experiment(name, artifact_location=folder.as_uri())
        mlflow.set_experiment(name)

    def score_into(
        self,
        table: Table,
        rows: Unscored,
        model_uri: str,
        features: Sequence[str],
        said: Mapping[str, str | datetime],
    ) -> None:
        """Score in this process, without Spark: rows take longer through it than to predict.

        They are read, predicted and written at once, part by part.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        model, wanted = _load(model_uri), _within(rows.span)
        # Without the descriptions of the columns, which are those of another table.
        columns = {name: pc.field(name) for name in (rows.span.column, *features)}
        columns = {"entity": pc.field(rows.key).cast(pa.string())} | columns
        if rows.done is not None:
            done = rows.done.select("entity").toArrow()["entity"].combine_chunks()
            wanted &= ~columns["entity"].isin(done)

        def answered(part: pa.Table) -> pa.RecordBatch:
            inputs = _naive(part.select(list(features))).to_pandas()
            part = part.append_column("prediction", pa.array(as_column(model.predict(inputs))))
            for name, value in said.items():
                part = part.append_column(name, pa.repeat(value, len(part)))
            return part.to_batches()[0]

        found = _rows(self._table(rows.table))
        batches = found.to_batches(columns=columns, filter=wanted, batch_size=PART)
        scored = in_order(answered, parts_of(batches))
        first = next(scored, None)
        if first is not None:
            with handed_over(first.schema, chain([first], scored)) as made:
                self._insert(table.name, made, table.keys, rows.span)

    def user(self) -> str:
        """Ask the operating system."""
        return getpass.getuser()

    def groups(self, person: str) -> set[str]:
        """Ask the operating system."""
        return {group.gr_name for group in grp.getgrall() if person in group.gr_mem}

    def announce(self, model: str, version: str) -> None:
        """Remember the version; the job runner starts the deployment job for it."""
        self._new_versions.append((model, version))

    def set_task_value(self, key: str, value: str) -> None:
        """Do nothing: the job runner takes what the stage returns."""

    def take_new_versions(self) -> list[tuple[str, str]]:
        """Versions announced since the last call."""
        taken, self._new_versions = self._new_versions, []
        return taken


@lru_cache(maxsize=4)
def _load(model_uri: str) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(model_uri)


def _spark_schema(delta: DeltaTable) -> StructType:
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(delta.schema().to_json()))


def _rows(delta: DeltaTable) -> Dataset:
    """The table for Arrow, by Arrow's own file system.

    That of delta-rs is written in Python. A thread of Arrow that lets go of it while Python ends
    aborts the process (Arrow's issue 34314), which happened to every tenth that ended with a read.
    """
    from pyarrow.fs import FileSystem, SubTreeFileSystem

    system, folder = FileSystem.from_uri(delta.table_uri)
    return delta.to_pyarrow_dataset(filesystem=SubTreeFileSystem(folder, system))


def _within(span: Span) -> Expression:
    import pyarrow.compute as pc

    return (pc.field(span.column) > span.since) & (pc.field(span.column) <= span.until)


def _ends(delta: DeltaTable, column: str) -> tuple[datetime, datetime] | None:
    """First and last time; of the rows, only those are read that may hold them."""
    import pyarrow.compute as pc

    files, outer = _files(delta, column), None
    told = [(first, last) for _, first, last in files if first and last]
    if told and len(told) == len(files):
        low = min(first for first, _ in told) + _ROUNDING
        high = max(last for _, last in told) - _ROUNDING
        outer = (pc.field(column) <= low) | (pc.field(column) >= high)
    times = _rows(delta).to_table(columns=[column], filter=outer)[column]
    ends = pc.min_max(times).as_py()
    return None if ends["min"] is None else (ends["min"], ends["max"])


def _files(delta: DeltaTable, column: str) -> list[tuple[str, datetime | None, datetime | None]]:
    """Path, first and last time of each file, as the log has them; None where it does not say."""
    import pyarrow as pa

    actions = pa.table(delta.get_add_actions(flatten=True))
    names = ("path", f"min.{column}", f"max.{column}")
    if not set(names) <= set(actions.column_names):
        return [(path, None, None) for path in actions["path"].to_pylist()]
    found = zip(*(actions[name].to_pylist() for name in names), strict=True)
    return [(path, first, last and last + _ROUNDING) for path, first, last in found]


def _require_distinct(table: str, rows: pa.Table, keys: Sequence[str]) -> None:
    import pyarrow.compute as pc

    counted = rows.select(keys).group_by(keys).aggregate([([], "count_all")])
    copies = counted.filter(pc.field("count_all") > 1)
    if copies.num_rows:
        raise ValueError(f"{doubled(table, keys)} Such as: {copies.slice(0, 1).to_pylist()[0]}.")


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards; that of a run that was killed is in its way."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _collected(rows: DataFrame, folder: Path) -> pa.Table | InFiles | None:
    """The rows; in files of the folder when there may be many, and None when there are none."""
    from pyarrow.parquet import read_metadata

    read = [Path(unquote(urlparse(uri).path)) for uri in rows.inputFiles()]
    if sum(path.stat().st_size for path in read if path.exists()) <= _MANY:
        found = rows.toArrow()
        return found if found.num_rows else None
    rows.write.parquet(str(folder))
    files = {str(path): read_metadata(path) for path in folder.glob("*.parquet")}
    schemas = [file.schema.to_arrow_schema() for file in files.values() if file.num_rows]
    return InFiles(schemas[0], list(files)) if schemas else None


def _same(rows: pa.Table, key: str) -> str:
    """That a key is the same, null and NaN included.

    Only by `=` does delta-rs see which files cannot have it, and does not know where NaN is.
    """
    from pyarrow.types import is_floating

    values = rows[key]
    if values.null_count or is_floating(values.type):
        return f"(t.`{key}` IS NOT DISTINCT FROM s.`{key}`)"
    return f"t.`{key}` = s.`{key}`"


def _delta_schema(columns: Iterable[Column]) -> Schema:
    return Schema.from_json(schema_of(columns).json())


def _inside(span: Span) -> str:
    since, until = (
        f"arrow_cast('{time.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        for time in (span.since, span.until)
    )
    return f"t.`{span.column}` > {since} AND t.`{span.column}` <= {until}"


def _naive(rows: pa.Table) -> pa.Table:
    """Times without their zone, which is UTC: as Spark gives them to pandas."""
    import pyarrow as pa

    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            times = rows.column(index).cast(pa.timestamp("ns"))
            rows = rows.set_column(index, field.name, times)
    return rows
