"""Find features that know what nobody could know yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from .declarations import FeatureTable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def leaking_features(
    table: FeatureTable,
    sources: Mapping[str, DataFrame],
    since: datetime,
    until: datetime,
    cut: datetime,
) -> list[str]:
    """Names of the features whose value at `cut` or before changes when the future is taken away.

    The table is computed twice for (since, until]: from everything, and from the rows that were
    known at `cut`. A row known by `cut` must be the same in both; one that is there only with
    the future's help makes all its features leak.
    """
    known = F.col("available_at") <= cut
    everything = {name: sources[name] for name in table.sources}
    past = {name: rows.where(known) for name, rows in everything.items()}
    keys = [*table.keys, "available_at"]
    now = table.compute(since, until, **everything).where(known)
    then = table.compute(since, until, **past).where(known).withColumn("_there", F.lit(True))
    renamed = then.select(
        *keys, "_there", *(F.col(name).alias(f"_{name}") for name in table.feature_names)
    )
    both = now.join(renamed, keys, "left")
    changed = {
        name: F.col("_there").isNull() | ~F.col(name).eqNullSafe(F.col(f"_{name}"))
        for name in table.feature_names
    }
    # A key that only the future mentions has rows of nulls in its past: they tell nothing.
    says_something = reduce(or_, (F.col(name).isNotNull() for name in table.feature_names))
    counts = both.where(says_something).agg(
        *(F.count_if(leak).alias(name) for name, leak in changed.items())
    )
    row = counts.first()
    return [name for name in table.feature_names if row is not None and row[name]]
