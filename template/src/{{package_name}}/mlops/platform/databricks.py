"""Databricks: Unity Catalog tables, the `databricks-uc` registry, the job's own task values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .base import Platform

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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

    def use_experiment(self, name: str) -> None:
        """Use the workspace experiment the bundle has made."""
        import mlflow

        mlflow.set_experiment(name)

    def score(self, rows: DataFrame, model_uri: str, features: Sequence[str]) -> DataFrame:
        """Score on the cluster, one copy of the model a worker."""
        import mlflow
        from pyspark.sql import functions as F

        predict = mlflow.pyfunc.spark_udf(
            self.spark, model_uri, result_type="array<double>", env_manager="local"
        )
        inputs = F.struct(*features)
        return rows.withColumn("prediction", F.element_at(predict(inputs), -1))

    def announce(self, model: str, version: str) -> None:
        """Do nothing: the deployment job attached to the model starts by itself."""

    def set_task_value(self, key: str, value: str) -> None:
        """Publish through dbutils."""
        from databricks.sdk.runtime import dbutils

        dbutils.jobs.taskValues.set(key=key, value=value)
