"""Bring each source's new rows into its bronze table, under its data contract."""

from __future__ import annotations

from datetime import UTC, datetime

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
    known = platform.span(source.name, "available_at")
    since = known[1] if known else BEGINNING
    rows = source.read(platform.spark, since - source.lateness, as_of)
    judged = platform.keep(judge(source, rows))
    # Quarantine first: the bronze table is the record of how far this source has come.
    rejected = bad_rows(source, judged).dropDuplicates(list(QUARANTINE.keys))
    platform.merge(QUARANTINE.name, rejected, QUARANTINE.keys)
    platform.merge(source.name, good_rows(judged), source.keys)


main = entry_point(run)
