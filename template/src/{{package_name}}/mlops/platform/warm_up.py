"""Use a session as the stages do, in a process of its own, so that Java can note its classes."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..contract import bad_rows, good_rows, judge
from ..declarations import Column, Source
from ..drift import count_rows, profile
from .local import LocalPlatform

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
COLUMNS = (
    Column("id", "bigint", "Key", nullable=False, check="id >= 0"),
    Column("kind", "string", "Key of the feature", nullable=False, check="length(kind) = 1"),
    Column("value", "double", "Some number", check="value BETWEEN 0 AND 1e9"),
    Column("available_at", "timestamp", "When the row became known", nullable=False),
)


def compute(since: datetime, until: datetime, rows: DataFrame) -> DataFrame:
    """Aggregate, and spread over a grid."""
    slots = F.explode(F.sequence(F.lit(0), F.lit(9), F.lit(3))).alias("slot")
    sums = rows.groupBy("kind").agg(F.sum("value").alias("mean"), F.count("*").alias("n"))
    grid = rows.select("kind").distinct().select("kind", slots).join(sums, "kind")
    known = F.timestamp_seconds(F.lit(since.timestamp()) + F.col("slot")).alias("available_at")
    return grid.select("kind", known, (F.col("mean") / F.col("n")).alias("mean"))


SOURCE = Source("rows", "Rows", lambda spark, since, until: spark.range(0), COLUMNS, ("id",))


def main() -> None:
    """Take rows in, compute a feature, join it, keep the answer and profile it."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        platform = LocalPlatform.connect("warm_up", Path(folder))
        frame = pd.DataFrame({"id": range(2000)})
        frame["kind"] = frame["id"].mod(26).map(lambda number: chr(97 + number))
        frame["value"] = frame["id"] / 7
        frame["available_at"] = pd.Timestamp(NOON) - pd.to_timedelta(frame["id"], unit="min")
        schema = ", ".join(f"{column.name} {column.type}" for column in COLUMNS)
        rows = platform.spark.createDataFrame(frame, schema)
        platform.create("rows", COLUMNS, "Rows")
        judged = platform.keep(judge(SOURCE, rows))
        bad_rows(SOURCE, judged).toArrow()
        platform.merge("rows", good_rows(judged), ["id"])
        start = NOON - timedelta(days=2)
        features = compute(start, NOON, platform.read("rows").where(F.col("available_at") > start))
        described = (COLUMNS[1], Column("mean", "double", "Mean"), COLUMNS[3])
        platform.create("features", described, "Features")
        platform.merge("features", features, ["kind", "available_at"])
        asked = platform.read("rows").withColumnRenamed("available_at", "asked_at")
        found = asked.join(platform.read("features").drop("available_at"), "kind")
        found = found.join(platform.read("rows").select("id"), "id", "left_anti").unionByName(found)
        answer = found.toPandas()
        profiles = {name: profile(answer[name]) for name in ("kind", "mean")}
        count_rows(found, profiles, "asked_at", int(start.timestamp()), 2)
        platform.spark.stop()


if __name__ == "__main__":
    main()
