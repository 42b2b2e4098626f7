"""Bring each source's new rows into its bronze table, under its data contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import DataFrame

from ..contract import bad_rows, good_rows, judge
from ..declarations import Source
from ..platform import Platform
from ..tables import QUARANTINE
from ..team import PROBLEM, module
from . import TaskValues, entry_point

SOURCES: tuple[Source, ...] = module("sources").SOURCES
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def run(platform: Platform, *, as_of: datetime, backfill: str = "") -> TaskValues:
    """Read what became known up to `as_of`; good rows go to bronze, bad ones to quarantine.

    Databricks hands the job's `backfill` to each task; sources have nothing to compute anew.
    """
    bring_in(platform, SOURCES, as_of)
    return None


def bring_in(platform: Platform, sources: Sequence[Source], as_of: datetime) -> None:
    """Bring the new rows of these sources in."""
    judged = platform.each(lambda source: _judge(platform, source, as_of), sources)
    bad = (bad_rows(source, rows) for source, rows in zip(sources, judged, strict=True))
    rejected = reduce(DataFrame.unionByName, bad).dropDuplicates(list(QUARANTINE.keys))
    # Quarantine first: the bronze table is the record of how far this source has come.
    platform.record(QUARANTINE, rejected)

    tables = [table for table in PROBLEM.feature_tables if table.refresh == "stream"]
    streamed = {name for table in tables for name in table.sources}

    def write(pair: tuple[Source, DataFrame]) -> None:
        source, rows = pair
        followed = source.name in streamed
        platform.create(source.name, source.columns, source.description, changes=followed)
        platform.merge(source.name, good_rows(rows), source.keys, latest_by="available_at")

    platform.each(write, zip(sources, judged, strict=True))


def _judge(platform: Platform, source: Source, as_of: datetime) -> DataFrame:
    """What is new in the source, judged by its contract."""
    known = platform.span(source.name, "available_at")
    since = known[1] if known else BEGINNING
    rows = source.read(platform.spark, since - source.lateness, as_of)
    return platform.keep(judge(source, rows))


main = entry_point(run)
