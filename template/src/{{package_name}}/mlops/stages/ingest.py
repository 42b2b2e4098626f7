"""Bring each source's new rows into its bronze table, under its data contract."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark import StorageLevel
from pyspark.sql import functions as F

from ...sources import SOURCES
from ..contract import bad_rows, good_rows, judge
from ..declarations import Source
from ..platform import Platform
from ..tables import QUARANTINE
from . import TaskValues, entry_point

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def run(platform: Platform, *, as_of: datetime) -> TaskValues:
    """Read what became known up to `as_of`; good rows go to bronze, bad ones to quarantine."""
    platform.create(QUARANTINE.name, QUARANTINE.columns, QUARANTINE.description)
    platform.each(lambda source: _ingest(platform, source, as_of), SOURCES)
    return None


def _ingest(platform: Platform, source: Source, as_of: datetime) -> None:
    platform.create(source.name, source.columns, source.description)
    since = known_until(platform, source.name) or BEGINNING
    judged = judge(source, source.read(platform.spark, since - source.lateness, as_of))
    judged = judged.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        bad = F.size("reasons") > 0
        counts = judged.agg(F.count("*"), F.count_if(bad)).first()
        rows, rejected = counts if counts else (0, 0)
        # Quarantine first: the bronze table is the record of how far this source has come.
        if rejected:
            kept = bad_rows(source, judged).dropDuplicates(list(QUARANTINE.keys))
            platform.merge(QUARANTINE.name, kept, QUARANTINE.keys)
        if rows > rejected:
            platform.merge(source.name, good_rows(judged), source.keys)
    finally:
        judged.unpersist()


def known_until(platform: Platform, table: str, time: str = "available_at") -> datetime | None:
    """The latest time in a table, or None when it is empty."""
    if not platform.exists(table):
        return None
    row = platform.read(table).agg(F.unix_micros(F.max(time))).first()
    return datetime.fromtimestamp(row[0] / 1e6, tz=UTC) if row and row[0] is not None else None


main = entry_point(run)
