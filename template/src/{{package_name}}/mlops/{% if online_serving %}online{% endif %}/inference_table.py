"""The inference table: what the endpoint was asked, what it answered, and which version did."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..platform import Platform
from ..predictions import as_column
from ..registry import Registry
from ..team import PROBLEM
from .request_log import REQUESTS
from .rollout import Health

ENTITIES = "system.serving.served_entities"
ANSWER = "entity string, version string, prediction double, at timestamp"


def answers(platform: Platform, registry: Registry) -> DataFrame | None:
    """The requests that a version has answered or failed at; None while nothing is logged.

    Columns: `version`, `request_time`, `status_code`, `execution_duration_ms`, `request`,
    `response`. On a workspace a request names the entity that served it by an id of its own, which
    a system table knows.
    """
    if platform.name == "local":
        table, version = REQUESTS.name, F.col("model_version")
    else:
        table, version = f"{PROBLEM.name}_payload", F.regexp_extract("served", r"^version-(.+)", 1)
    if not platform.exists(table):
        return None
    rows = platform.read(table)
    if platform.name != "local":
        from .databricks import endpoint_name

        entities = platform.spark.table(ENTITIES)
        entities = entities.where(F.col("endpoint_name") == endpoint_name(registry))
        name = F.col("served_entity_name").alias("served")
        rows = rows.join(entities.select("served_entity_id", name).distinct(), "served_entity_id")
    columns = ("request_time", "status_code", "execution_duration_ms", "request", "response")
    return rows.select(version.alias("version"), *columns).where(F.col("version").isNotNull())


def health(platform: Platform, registry: Registry, version: str, since: datetime) -> Health:
    """Count the requests that a version was given, and those of them that failed.

    A model that raises gets its caller a 400, here and on a workspace, as a bad request does
    there: the rollout sees whether the champion gives as many.
    """
    rows = answers(platform, registry)
    if rows is None:
        return Health(0, 0, 0.0)
    rows = rows.where((F.col("version") == version) & (F.col("request_time") >= F.lit(since)))
    failed = (F.col("status_code") >= 500) | (F.col("status_code") == 400)
    latency = F.when(~failed, F.col("execution_duration_ms").cast("double"))
    row = rows.agg(
        F.count("*"), F.count(F.when(failed, 1)), F.percentile_approx(latency, 0.99, 10_000)
    ).first()
    assert row is not None  # an aggregate of no row is a row
    return Health(int(row[0]), int(row[1]), float(row[2] or 0.0))


def predictions(rows: DataFrame) -> DataFrame:
    """Each row of each request that was answered: `entity`, `version`, `prediction`, `at`.

    A row that does not say whom it is about is left out. A prediction that is no number is null.
    """
    key = PROBLEM.entity_key
    good = rows.where(F.col("status_code") == 200)
    return good.mapInPandas(lambda frames: (_parsed(frame, key) for frame in frames), ANSWER)


def _parsed(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    found: list[tuple[Any, ...]] = []
    for row in frame.itertuples():
        entities = _entities(json.loads(str(row.request)), key)
        values = as_column(json.loads(str(row.response))["predictions"])
        if len(entities) == len(values):
            found += [
                (str(entity), row.version, None if pd.isna(value) else value, row.request_time)
                for entity, value in zip(entities, values, strict=True)
                if entity is not None
            ]
    return pd.DataFrame(found, columns=["entity", "version", "prediction", "at"])


def _entities(body: dict[str, Any], key: str) -> list[Any]:
    """Whom each row of a request is about, in any of the forms that MLflow takes."""
    (given,) = body.values()
    if isinstance(given, dict) and "columns" in given:
        columns = given["columns"]
        return [row[columns.index(key)] for row in given["data"]] if key in columns else []
    if isinstance(given, dict):
        return list(given.get(key, []))
    return [row.get(key) for row in given]
