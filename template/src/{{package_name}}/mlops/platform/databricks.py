"""Databricks: Unity Catalog tables, the `databricks-uc` registry, the job's own task values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..declarations import Column, FeatureTable
from ..tables import Table, create_table_sql
from . import feature_engineering
from .base import JobRun, LookedUp, Platform, Span, Unscored, doubled

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models.model import ModelInfo
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


_USAGE, _PRICES = "system.billing.usage", "system.billing.list_prices"
_INSERT = "WHEN NOT MATCHED THEN INSERT *"


def _distinct(table: str, rows: DataFrame, keys: Sequence[str]) -> DataFrame:
    """The rows; writing them fails when several have the same keys."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    copies = F.count("*").over(Window.partitionBy(*keys))
    broken = F.raise_error(doubled(table, keys)).cast("boolean")
    alone = F.when(F.col("_copies") > 1, broken).otherwise(F.lit(True))
    return rows.withColumn("_copies", copies).where(alone).drop("_copies")


def _inside(span: Span, table: str = "t.") -> str:
    since, until = (f"TIMESTAMP '{time.isoformat()}'" for time in (span.since, span.until))
    return f"{table}`{span.column}` > {since} AND {table}`{span.column}` <= {until}"


class DatabricksPlatform(Platform):
    """The platform inside a workspace."""

    name = "databricks"

    @classmethod
    def connect(cls, catalog: str, schema: str) -> DatabricksPlatform:
        """Use the session of the job or notebook."""
        import mlflow
        from pyspark.sql import SparkSession

        mlflow.set_tracking_uri("databricks")
        mlflow.set_registry_uri("databricks-uc")
        spark = SparkSession.builder.getOrCreate()
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        return cls(spark, catalog, schema)

    def exists(self, table: str) -> bool:
        """Ask Unity Catalog."""
        return bool(self.spark.catalog.tableExists(self.full_name(table)))

    def _schema(self, table: str) -> StructType:
        return self._open(table).schema

    def _open(self, table: str, span: Span | None = None) -> DataFrame:
        return self.spark.table(self.full_name(table))

    def _load(self, table: str, equal: Mapping[str, str], span: Span | None = None) -> pd.DataFrame:
        from pyspark.sql import functions as F

        rows = self._open(table)
        for column, value in equal.items():
            rows = rows.where(F.col(column) == value)
        if span is not None:
            rows = rows.where(_inside(span, ""))
        return rows.toPandas()

    def _span(self, table: str, column: str) -> tuple[datetime, datetime] | None:
        from pyspark.sql import functions as F

        ends = (F.unix_micros(F.min(column)), F.unix_micros(F.max(column)))
        row = self._open(table).agg(*ends).first()
        if row is None or row[0] is None:
            return None
        first, last = (datetime.fromtimestamp(micros / 1e6, tz=UTC) for micros in row)
        return first, last

    def version(self, table: str) -> int:
        """Ask the table's history."""
        history = self.spark.sql(f"DESCRIBE HISTORY {self.full_name(table)} LIMIT 1").first()
        return int(history["version"]) if history else -1

    def create(
        self, table: str, columns: Iterable[Column], description: str, changes: bool = False
    ) -> None:
        """Create a managed table."""
        name = self.full_name(table)
        columns = list(columns)
        if columns:
            self.spark.sql(create_table_sql(name, columns, description))
        for column in self._undescribed(table, columns, self._schema(table)):
            comment = column.ddl.partition(" COMMENT ")[2]
            self.spark.sql(f"ALTER TABLE {name} ALTER COLUMN `{column.name}` COMMENT {comment}")
        if changes:
            feed = "delta.enableChangeDataFeed"
            found = self.spark.sql(f"SHOW TBLPROPERTIES {name}").collect()
            if (feed, "true") not in [(row["key"], row["value"]) for row in found]:
                self.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('{feed}' = 'true')")

    def merge(
        self, table: str, rows: DataFrame, keys: Sequence[str], latest_by: str | None = None
    ) -> None:
        """Run one MERGE."""
        newer = f"AND s.`{latest_by}` >= t.`{latest_by}`" if latest_by else ""
        self._merge(table, rows, keys, f"WHEN MATCHED {newer} THEN UPDATE SET *", _INSERT)

    def insert(self, table: str, rows: DataFrame, keys: Sequence[str], span: Span) -> None:
        """Run one MERGE."""
        self._merge(table, _distinct(table, rows, keys), keys, _INSERT, where=_inside(span))

    def replace(self, table: str, rows: DataFrame, keys: Sequence[str], span: Span) -> None:
        """Run one MERGE."""
        gone = f"WHEN NOT MATCHED BY SOURCE AND {_inside(span)} THEN DELETE"
        rows = _distinct(table, rows, keys)
        self._merge(table, rows, keys, "WHEN MATCHED THEN UPDATE SET *", _INSERT, gone)

    def _merge(
        self, table: str, rows: DataFrame, keys: Sequence[str], *clauses: str, where: str = "true"
    ) -> None:
        view = f"_merge_{uuid4().hex}"  # the session is shared
        rows.createOrReplaceTempView(view)
        match = " AND ".join(f"t.`{key}` <=> s.`{key}`" for key in keys)
        try:
            # Rows of a stream belong to a session of their own, and so does their view.
            rows.sparkSession.sql(
                f"MERGE WITH SCHEMA EVOLUTION INTO {self.full_name(table)} t USING {view} s "
                f"ON {match} AND {where} {' '.join(clauses)}"
            )
        finally:
            rows.sparkSession.catalog.dropTempView(view)

    def merge_rows(self, table: Table, rows: list[tuple[object, ...]]) -> None:
        """Merge them as a data frame."""
        schema = ", ".join(f"`{column.name}` {column.type}" for column in table.columns)
        if rows:
            self.merge(table.name, self.spark.createDataFrame(rows, schema), table.keys)

    def declare(self, table: FeatureTable) -> None:
        """Give it a primary key with its time, unless it has one."""
        feature_engineering.declare(self, table)

    def look_up_into(
        self,
        table: str,
        rows: DataFrame,
        span: Span,
        tables: Sequence[FeatureTable],
        keys: Sequence[str],
    ) -> None:
        """Have the feature engineering client do it, which notes who reads which features."""
        self.merge(table, feature_engineering.look_up(self, rows, span.column, tables), keys)

    def follow(self, table: str, changes: bool = False) -> DataFrame:
        """Stream the table."""
        self._require(table)
        reader = self.spark.readStream.option("readChangeFeed", str(changes))
        return reader.table(self.full_name(table))

    def folder(self, name: str) -> Path:
        """In the bundle's volume."""
        return Path("/Volumes", self.catalog, self.schema, "files", name)

    def secret(self, name: str) -> str | None:
        """Ask the secret scope that is called like the package; one that is not there raises.

        Names in Azure Key Vault have dashes and no underscores.
        """
        from databricks.sdk.runtime import dbutils

        scope, key = __package__.split(".")[0], name.replace("_", "-")
        return str(dbutils.secrets.get(scope=scope, key=key))

    def job_runs(
        self, job_ids: Collection[str], since: datetime, until: datetime
    ) -> dict[str, list[JobRun]]:
        """Ask the workspace; a data time is when a run has started."""
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.service.jobs import RunResultState as Result

        first, last = (int(time.timestamp() * 1000) for time in (since, until))
        right = {Result.SUCCESS, Result.SUCCESS_WITH_FAILURES, Result.CANCELED}
        list_runs = partial(
            WorkspaceClient().jobs.list_runs,
            completed_only=True,
            start_time_from=first + 1,
            start_time_to=last,
        )
        return {
            job_id: [
                JobRun(
                    at=datetime.fromtimestamp((run.start_time or 0) / 1000, tz=UTC),
                    seconds=(run.run_duration or 0) / 1000,
                    failed=run.state is not None and run.state.result_state not in right,
                )
                for run in list_runs(job_id=int(job_id))
            ]
            for job_id in job_ids
        }

    def job_costs(
        self, job_ids: Collection[str], since: datetime, until: datetime
    ) -> dict[str, float]:
        """Ask the system tables of billing, some hours behind; nothing where they cannot be read.

        https://learn.microsoft.com/azure/databricks/admin/system-tables/billing
        """
        from databricks.sdk import WorkspaceClient
        from pyspark.errors import PySparkException

        first, last = (f"TIMESTAMP '{time.isoformat()}'" for time in (since, until))
        try:
            rows = self.spark.sql(
                "SELECT u.usage_metadata.job_id AS job, "
                "SUM(u.usage_quantity * p.pricing.effective_list.default) AS dollars "
                f"FROM {_USAGE} u JOIN {_PRICES} p ON u.sku_name = p.sku_name "
                "AND u.cloud = p.cloud AND u.usage_unit = p.usage_unit "
                "AND u.usage_start_time >= p.price_start_time "
                "AND (p.price_end_time IS NULL OR u.usage_start_time < p.price_end_time) "
                f"WHERE u.workspace_id = '{WorkspaceClient().get_workspace_id()}' "
                f"AND u.usage_metadata.job_id IN ({', '.join(repr(one) for one in job_ids)}) "
                f"AND u.usage_end_time > {first} AND u.usage_end_time <= {last} "
                "AND p.currency_code = 'USD' GROUP BY u.usage_metadata.job_id"
            ).collect()
        except PySparkException as error:
            print(f"What jobs cost is not known: {str(error).splitlines()[0]}")
            return {}
        return {row["job"]: float(row["dollars"]) for row in rows}

    def use_experiment(self, name: str) -> None:
        """Use the workspace experiment the bundle has made."""
        import mlflow

        mlflow.set_experiment(name)

    def log_model(
        self,
        estimator: Any,
        looked_up: LookedUp,
        versions: Mapping[str, int],
        **options: Any,
    ) -> ModelInfo:
        """Log it with its look-ups, where MLflow can register that; the tables in any case."""
        feature_engineering.log_lineage(self, versions)
        if feature_engineering.registers_packed():
            return feature_engineering.pack(self, estimator, looked_up, options)
        print(
            "The model is logged without its look-ups: the MLflow that is installed here is not "
            "Databricks' own build. docs/databricks.md tells what that means."
        )
        return super().log_model(estimator, looked_up, versions, **options)

    def score_into(
        self,
        table: Table,
        rows: Unscored,
        model_uri: str,
        features: Sequence[str],
        said: Mapping[str, str | datetime],
    ) -> None:
        """Score on the cluster, one copy of the model a worker.

        A classifier answers with a column a class, of which the last is the label's probability; a
        regressor with one column, which MLflow hands over as an array of one.
        """
        import mlflow
        from pyspark.sql import functions as F

        found = self.read(rows.table, rows.span)
        if rows.done is not None:
            done = rows.done.select(F.col("entity").alias(rows.key))
            found = found.join(done, rows.key, "left_anti")
        kind = "array<double>"
        whole = model_uri.removesuffix(f"/{feature_engineering.PLAIN}")
        if whole == model_uri:
            predict = mlflow.pyfunc.spark_udf(
                self.spark, model_uri, result_type=kind, env_manager="local"
            )
            found = found.withColumn("prediction", predict(F.struct(*features)))
        else:
            # The features are there, so it looks none up, but notes who has used them.
            found = feature_engineering.client().score_batch(
                model_uri=whole, df=found, result_type=kind, env_manager="local"
            )
        scored = found.select(
            F.col(rows.key).alias("entity"),
            rows.span.column,
            *(F.lit(value).alias(name) for name, value in said.items()),
            *features,
            F.element_at("prediction", -1).alias("prediction"),
        )
        # Observations hold each key once.
        self._merge(table.name, scored, table.keys, _INSERT, where=_inside(rows.span))

    def user(self) -> str:
        """Ask the session."""
        row = self.spark.sql("SELECT current_user() AS name").first()
        return str(row["name"]) if row else "unknown"

    def groups(self, person: str) -> set[str]:
        """Ask the workspace."""
        from databricks.sdk import WorkspaceClient

        quoted = person.replace("\\", "\\\\").replace('"', '\\"')
        found = WorkspaceClient().users.list(
            attributes="userName,groups", filter=f'userName eq "{quoted}"'
        )
        groups = [group.display for user in found for group in user.groups or []]
        return {name for name in groups if name}

    def announce(self, model: str, version: str) -> None:
        """Do nothing: the deployment job attached to the model starts by itself."""

    def set_task_value(self, key: str, value: str) -> None:
        """Publish through dbutils."""
        from databricks.sdk.runtime import dbutils

        dbutils.jobs.taskValues.set(key=key, value=value)
