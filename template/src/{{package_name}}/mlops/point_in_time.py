"""Point-in-time lookups: each row sees only what was known at its own time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from .declarations import FeatureTable


def lookup(
    observations: DataFrame, at: str, tables: Iterable[tuple[FeatureTable, DataFrame]]
) -> DataFrame:
    """Add the features of each table as they were known at the time in column `at`.

    That is the last row of the same keys with `available_at` <= `at` and not older than `max_age`;
    where there is none, or no value in it, a feature has its default, which is null unless the
    table declares one. Every observation comes out exactly once.
    The as-of join is the union and window form: one sort a table, linear in rows.
    """
    return reduce(lambda rows, pair: _one(rows, at, *pair), tables, observations)


def _one(observations: DataFrame, at: str, table: FeatureTable, rows: DataFrame) -> DataFrame:
    keys, names = list(table.keys), table.feature_names
    time, value, asked = F.col("_time"), F.col("_value"), F.col("_asked")
    features = rows.select(
        *keys,
        F.col("available_at").alias("_time"),
        F.lit(0).alias("_asked"),
        F.struct("available_at", *names).alias("_value"),
    )
    wanted = observations.withColumn("_time", F.col(at)).withColumn("_asked", F.lit(1))
    both = wanted.unionByName(features, allowMissingColumns=True)
    # A feature row known at the very same moment counts as known: it sorts before the question.
    before = (
        Window.partitionBy(*keys).orderBy(time, asked).rowsBetween(Window.unboundedPreceding, 0)
    )
    found = both.withColumn("_value", F.last(value, ignorenulls=True).over(before)).where(
        asked == 1
    )
    fresh = F.lit(True)
    if table.max_age is not None:
        fresh = value["available_at"] >= F.col(at) - F.lit(table.max_age)
    picked = []
    for column in table.features:
        known = F.when(fresh, value[column.name])
        if column.default is not None:
            known = F.coalesce(known, F.lit(column.default).cast(column.type))
        picked.append(known.alias(column.name))
    return found.select(*observations.columns, *picked)
