"""What the inference table says of a version since a moment."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import functions as F

from ..platform import Platform
from ..team import PROBLEM
from .rollout import Health


def inference_table(platform: Platform) -> str:
    """Name of the table that the endpoint logs its requests to."""
    return "requests" if platform.name == "local" else f"{PROBLEM.name}_payload"


def health(platform: Platform, version: str, since: datetime) -> Health:
    """Count the requests that a version has answered, and those of them that failed."""
    if not platform.exists(inference_table(platform)):
        return Health(0, 0, 0.0)
    rows = platform.read(inference_table(platform)).where(
        (F.col("served_entity_id") == version) & (F.col("request_time") >= F.lit(since))
    )
    failed = F.col("status_code") >= 500
    latency = F.when(~failed, F.col("execution_duration_ms").cast("double"))
    row = rows.agg(
        F.count("*"), F.count(F.when(failed, 1)), F.percentile_approx(latency, 0.99, 10_000)
    ).first()
    assert row is not None  # an aggregate of no row is a row
    return Health(int(row[0]), int(row[1]), float(row[2] or 0.0))
