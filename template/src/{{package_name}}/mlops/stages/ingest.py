"""Bring each source's new rows into its bronze table, under its data contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial, reduce

from pyspark.sql import DataFrame

from ..contract import (
    ContractError,
    bad_rows,
    check_schema,
    good_rows,
    judge,
    judge_stream,
    last_rows,
)
from ..data_quality import Finding
from ..declarations import Source, Stream
from ..platform import Platform, naive
from ..tables import DATA_QUALITY_METRICS, QUARANTINE
from ..team import PROBLEM, module, own
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
    read = [source for source in sources if not isinstance(source.read, Stream)]
    streams = [source for source in sources if isinstance(source.read, Stream)]
    tables = [table for table in PROBLEM.feature_tables if table.refresh == "stream"]
    followed = {name for table in tables for name in table.sources}
    try:
        judged = platform.each(lambda source: _judge(platform, source, as_of), read)
        platform.each(lambda source: _take_in(platform, source, source.name in followed), streams)
    except ContractError as error:
        finding = Finding(error.source, error.column, "schema", 1.0, high=0.0, reason=error.reason)
        platform.record(
            DATA_QUALITY_METRICS, [(as_of, as_of, platform.full_name(PROBLEM.name), *finding.row)]
        )
        raise
    _settle(platform, as_of)
    if not read:
        return
    bad = (bad_rows(source, rows) for source, rows in zip(read, judged, strict=True))
    # Quarantine first: the bronze table is the record of how far this source has come.
    platform.record(QUARANTINE, reduce(DataFrame.unionByName, bad))

    def write(pair: tuple[Source, DataFrame]) -> None:
        source, rows = pair
        changes = source.name in followed
        platform.create(source.name, source.columns, source.description, changes=changes)
        platform.merge(source.name, good_rows(rows), source.keys, latest_by="available_at")

    platform.each(write, zip(read, judged, strict=True))


def _take_in(platform: Platform, source: Source, followed: bool) -> None:
    """Take what has come in a stream; its position is kept in a checkpoint of this model."""
    assert isinstance(source.read, Stream)
    rows = source.read.open(platform)
    check_schema(source, rows)
    platform.create(source.name, source.columns, source.description, changes=followed)
    platform.drain(rows, own(f"ingest-{source.name}"), partial(_take_batch, source))


def _take_batch(source: Source, platform: Platform, rows: DataFrame, number: int) -> None:
    """Merge one batch in; one that comes again, after a crash, changes nothing."""
    judged = platform.keep(judge_stream(source, rows))
    platform.record(QUARANTINE, bad_rows(source, judged))
    last = last_rows(source, good_rows(judged))
    platform.merge(source.name, last, source.keys, latest_by="available_at")


def _settle(platform: Platform, as_of: datetime) -> None:
    """Say that a schema that was wrong when this was run before is right now."""
    if not platform.exists(DATA_QUALITY_METRICS.name):
        return
    model = platform.full_name(PROBLEM.name)
    rows = platform.frame(DATA_QUALITY_METRICS.name, metric="schema", model=model)
    wrong = rows[(rows["window_end"] == naive(as_of)) & ~rows["passed"].astype(bool)]
    mended = [
        Finding(str(row["subject"]), str(row["column"]), "schema", 0.0, high=0.0, reason="mended")
        for row in wrong.to_dict("records")
    ]
    if mended:
        platform.record(DATA_QUALITY_METRICS, [(as_of, as_of, model, *one.row) for one in mended])


def _judge(platform: Platform, source: Source, as_of: datetime) -> DataFrame:
    """What is new in the source, judged by its contract."""
    known = platform.span(source.name, "available_at")
    since = known[1] if known else BEGINNING
    rows = source.read(platform.spark, since - source.lateness, as_of)
    return platform.keep(judge(source, rows))


main = entry_point(run)
