"""This machine: Spark and Delta in a folder, MLflow on SQLite."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..predictions import as_column
from .base import Platform
from .spark import start_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CATALOG = "spark_catalog"  # the only catalog that open-source Spark lets Delta manage


def home_dir() -> Path:
    """The folder that holds local tables, runs and models: MLOPS_HOME, else `.local`."""
    return Path(os.environ.get("MLOPS_HOME", ".local")).resolve()


class LocalPlatform(Platform):
    """The platform on a laptop. One process at a time may write."""

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
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
            import mlflow

            logging.getLogger("mlflow").setLevel(logging.ERROR)  # it comments on each model
            mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
            mlflow.set_registry_uri(f"sqlite:///{home}/mlflow.db")
            platform = cls(session.result(), schema, home)
        platform.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {CATALOG}.{schema}")
        return platform

    # -- tables ---------------------------------------------------------------------------------
    def _path(self, table: str) -> Path:
        return self.home / "warehouse" / f"{self.schema}.db" / table

    def _location(self, table: str) -> str:
        return f"LOCATION '{self._path(table).as_uri()}'"

    def exists(self, table: str) -> bool:
        """Look for the table's log; name the table again, since a session forgets it."""
        with self._lock:
            if table in self._known:
                return True
            log = self._path(table) / "_delta_log"
            if not any(log.glob("*.json")):
                return False
            self.spark.sql(
                f"CREATE TABLE IF NOT EXISTS {self.full_name(table)} USING DELTA "
                f"{self._location(table)}"
            )
            self._known.add(table)
            return True

    # -- models ---------------------------------------------------------------------------------
    def use_experiment(self, name: str) -> None:
        """Create the experiment with its artifacts in the project's folder."""
        import mlflow

        if mlflow.get_experiment_by_name(name) is None:
            folder = self.home / "artifacts" / name.strip("/")
            mlflow.create_experiment(name, artifact_location=folder.as_uri())
        mlflow.set_experiment(name)

    def score(self, rows: DataFrame, model_uri: str, features: Sequence[str]) -> DataFrame:
        """Score in this process: local data is small, and a worker takes long to start."""
        import pandas as pd
        from pyspark.sql.types import DoubleType, StructField, StructType

        frame = rows.toPandas()
        answer = pd.Series(dtype=float)
        if len(frame):
            answer = pd.Series(as_column(_load(model_uri).predict(frame[list(features)])))
        schema = StructType([*rows.schema.fields, StructField("prediction", DoubleType())])
        scored = frame.assign(prediction=answer)
        return self.spark.createDataFrame(scored, schema)

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
