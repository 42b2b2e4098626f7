"""How late flights of the same carrier, and on the same route, have been of late.

A delay counts only from the moment it is known, that is after the arrival: a statistic at time t
uses the arrivals with `available_at` <= t, never a flight that is still in the air.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from ..mlops.declarations import Column, FeatureTable

LATE_MINUTES = 15
_WINDOWS = {"24h": 24 * 3600, "7d": 7 * 24 * 3600}  # seconds
_SUMS = ("n", "minutes", "late")


def compute(
    since: datetime,
    until: datetime,
    arrivals: DataFrame,
    *,
    keys: tuple[str, ...],
    prefix: str,
    every: int,
) -> DataFrame:
    """Statistics of the arrivals of the last 24 hours and 7 days, every `every` seconds."""
    slot = (F.ceil(F.unix_timestamp("available_at") / every) * every).alias("slot")
    longest = max(_WINDOWS.values()) + every
    first = (int(since.timestamp()) // every + 1) * every
    last = int(until.timestamp()) // every * every
    late = (F.col("arr_delay") > LATE_MINUTES).cast("double")
    sums = arrivals.groupBy(*keys, slot).agg(
        F.count("*").cast("double").alias("n"),
        F.sum("arr_delay").alias("minutes"),
        F.sum(late).alias("late"),
    )
    # A row for each key and slot, so that a quiet carrier's statistic fades instead of standing,
    # and so that a window is a fixed number of rows. A key that has been quiet for longer than any
    # window gets none: the rows of a span would depend on what else was computed with it.
    zeros = [F.lit(0.0).alias(name) for name in _SUMS]
    slots = F.explode(F.sequence(F.lit(first - longest), F.lit(last), F.lit(every))).alias("slot")
    grid = arrivals.select(*keys).distinct().select(*keys, slots, *zeros)
    totals = sums.unionByName(grid).groupBy(*keys, "slot")
    rows = totals.agg(*(F.sum(name).alias(name) for name in _SUMS))

    # A sum over a window is the difference of two running sums: linear, however long the window.
    order = Window.partitionBy(*keys).orderBy("slot")
    so_far = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    running = rows.select(*keys, "slot", *(F.sum(n).over(so_far).alias(n) for n in _SUMS))
    columns = []
    for window, seconds in _WINDOWS.items():
        n, minutes, lates = (
            F.col(name) - F.lag(name, seconds // every, 0.0).over(order) for name in _SUMS
        )
        flights = F.when(n > 0, n)  # no arrival in the window: the mean is unknown, not zero
        columns += [
            (minutes / flights).alias(f"{prefix}_delay_{window}"),
            (lates / flights).alias(f"{prefix}_late_{window}"),
        ]
    heard_of = F.col("n") - F.lag("n", longest // every, 0.0).over(order) > 0
    return (
        running.select(*keys, "slot", *columns, heard_of.alias("heard_of"))
        .where(F.col("slot").between(first, last) & F.col("heard_of"))
        .withColumn("available_at", F.timestamp_seconds("slot"))
        .drop("slot", "heard_of")
    )


def _features(prefix: str, what: str) -> tuple[Column, ...]:
    columns: list[Column] = []
    for window in _WINDOWS:
        columns += [
            Column(f"{prefix}_delay_{window}", "double", f"Mean delay {what}, minutes, {window}"),
            Column(f"{prefix}_late_{window}", "double", f"Share of late flights {what}, {window}"),
        ]
    return tuple(columns)


CARRIER_DELAYS = FeatureTable(
    name="carrier_delays",
    description="Recent delays of the carrier, every hour",
    keys=("carrier",),
    features=_features("carrier", "of the carrier"),
    sources=("arrivals",),
    compute=partial(compute, keys=("carrier",), prefix="carrier", every=3600),
    lookback=timedelta(days=7, hours=1),  # the longest window and a slot
    max_age=timedelta(days=1),
)
ROUTE_DELAYS = FeatureTable(
    name="route_delays",
    description="Recent delays on the route, every six hours",
    keys=("origin", "dest"),
    features=_features("route", "on the route"),
    sources=("arrivals",),
    compute=partial(compute, keys=("origin", "dest"), prefix="route", every=6 * 3600),
    lookback=timedelta(days=7, hours=6),
    max_age=timedelta(days=1),
)
