"""Point-in-time lookups: each row sees only what was known at its own time.

The features of a row are those of the last row of the same keys with `available_at` <= the row's
time and not older than `max_age`; where there is none, or no value in it, a feature has its
default, which is null unless the table declares one. A key with a null in it finds nothing. Every
observation comes out exactly once. There are two of it, for rows in a cluster and for rows in
memory; one test compares both with a slow one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from .declarations import FeatureTable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def lookup(
    observations: DataFrame, at: str, tables: Iterable[tuple[FeatureTable, DataFrame]]
) -> DataFrame:
    """Add the features of each table as they were known at the time in column `at`.

    The as-of join is the union and window form: one sort a table, linear in rows.
    """
    return reduce(lambda rows, pair: _one(rows, at, *pair), tables, observations)


def _one(observations: DataFrame, at: str, table: FeatureTable, rows: DataFrame) -> DataFrame:
    keys, names = list(table.keys), table.feature_names
    time, value, asked = F.col("_time"), F.col("_value"), F.col("_asked")
    features = rows.dropna(subset=keys).select(
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


def lookup_in_memory(
    observations: pa.Table, at: str, tables: Iterable[tuple[FeatureTable, pa.Table]]
) -> pa.Table:
    """The same in memory, by pandas' as-of join, which is some twenty times as fast there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for table, rows in tables:
        found = rows.take(_last_known(observations, at, rows, table.keys, table.max_age))
        for column in table.features:
            values = found[column.name]
            if column.default is not None:
                values = pc.fill_null(values, pa.scalar(column.default).cast(values.type))
            observations = observations.append_column(column.name, values)
    return observations


def _last_known(
    observations: pa.Table,
    at: str,
    rows: pa.Table,
    keys: Sequence[str],
    max_age: timedelta | None,
) -> pa.Array:
    """For each observation the number of the row it sees; null for none."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    asked_key, known_key = _coded(observations, rows, keys)
    asked_time, known_time = _micros(observations[at]), _micros(rows["available_at"])
    order = np.argsort(asked_time)
    known_order = np.argsort(known_time)
    known_order = known_order[known_key[known_order] >= 0]
    found = pd.merge_asof(
        pd.DataFrame({"key": asked_key[order], "time": asked_time[order]}),
        pd.DataFrame(
            {"key": known_key[known_order], "time": known_time[known_order], "row": known_order}
        ),
        on="time",
        by="key",
        tolerance=None if max_age is None else max_age // timedelta(microseconds=1),
    )
    last = np.empty(len(order))
    last[order] = found["row"]
    return pa.array(last, from_pandas=True).cast(pa.int64())


def _coded(
    observations: pa.Table, rows: pa.Table, keys: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each key of both, equal where all its parts are; negative where one is null."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    count = len(observations)
    codes, null = None, np.zeros(count + len(rows), dtype=bool)
    for key in keys:
        asked = observations[key]
        part = pa.chunked_array([*asked.chunks, *rows[key].cast(asked.type).chunks], asked.type)
        coded = part.combine_chunks().dictionary_encode()
        null |= coded.indices.is_null().to_numpy(zero_copy_only=False)
        numbers = coded.indices.fill_null(0).to_numpy()
        if codes is None:
            codes = numbers.astype(np.int64)
        else:
            codes = pd.factorize(codes * (len(coded.dictionary) + 1) + numbers)[0]
    assert codes is not None, "a feature table has a key"
    codes[null] = -1
    return codes[:count], codes[count:]


def _micros(times: pa.ChunkedArray) -> np.ndarray:
    """Microseconds since 1970."""
    import pyarrow as pa

    return times.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
