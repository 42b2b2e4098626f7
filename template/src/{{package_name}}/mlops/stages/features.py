"""Refresh the feature tables, then look the features up for the predictions that are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pyspark.sql import functions as F

from ...problem import PROBLEM
from ...sources import SOURCES
from ..datasets import OBSERVATIONS, assemble
from ..declarations import Column, FeatureTable
from ..platform import Platform
from . import TaskValues, entry_point
from .ingest import BEGINNING, known_until


def run(platform: Platform, *, as_of: datetime) -> TaskValues:
    """Compute what is new up to `as_of` and merge it in."""
    platform.each(lambda table: refresh(platform, table, as_of), PROBLEM.feature_tables)
    look_up(platform, as_of)
    return None


def look_up(platform: Platform, as_of: datetime) -> None:
    """Bring the observations up to `as_of`; after a change of the features, all of them."""
    since = known_until(platform, OBSERVATIONS, "predict_at")
    if since is not None and not set(PROBLEM.feature_names) <= set(
        platform.read(OBSERVATIONS).columns
    ):
        since = None
    since = since or BEGINNING
    since -= _lateness(PROBLEM.observation_sources) if since > BEGINNING else timedelta(0)
    if since >= as_of:
        return
    rows = assemble(platform, since, as_of)
    described = {column.name: column for column in PROBLEM.features}
    columns = [described.get(n) or Column(n, kind, "Key or time") for n, kind in rows.dtypes]
    platform.create(OBSERVATIONS, columns, "Observations with the features known when due")
    platform.merge(OBSERVATIONS, rows, [PROBLEM.entity_key])


def refresh(platform: Platform, table: FeatureTable, as_of: datetime) -> None:
    """Bring one feature table up to `as_of`; only the new slice is computed."""
    since = known_until(platform, table.name)
    where = None
    if since is None:
        since = _first_known(platform, table) - timedelta(seconds=1)
    else:
        # What a source may still deliver late can change rows that are already there.
        since -= _lateness(table.sources)
        where = f"t.available_at > timestamp_micros({int(since.timestamp() * 1_000_000)})"
    if since >= as_of:
        return
    known = F.col("available_at")
    sources = {
        name: platform.read(name).where((known > since - table.lookback) & (known <= as_of))
        for name in table.sources
    }
    keys = (*table.keys, "available_at")
    rows = table.compute(since, as_of, **sources).select(*keys, *table.feature_names).persist()
    try:
        if not rows.isEmpty():
            types = dict(rows.dtypes)
            described = [Column(key, types[key], "Key") for key in table.keys]
            described.append(Column("available_at", "timestamp", "When the row became known"))
            platform.create(table.name, (*described, *table.features), table.description)
            platform.merge(table.name, rows, keys, where)
    finally:
        rows.unpersist()


def _lateness(names: tuple[str, ...]) -> timedelta:
    """How late a row of these sources may turn up."""
    return max(source.lateness for source in SOURCES if source.name in names)


def _first_known(platform: Platform, table: FeatureTable) -> datetime:
    """When the first row of the table's sources became known."""
    first = [
        platform.read(name).agg(F.unix_micros(F.min("available_at"))).first()
        for name in table.sources
    ]
    times = [row[0] for row in first if row and row[0] is not None]
    if not times:
        raise ValueError(
            f"Feature table {table.name}: its sources {', '.join(table.sources)} hold no row. "
            "Fix: check `as_of` of the ingest task, and the quarantine table."
        )
    return datetime.fromtimestamp(min(times) / 1e6, tz=UTC)


main = entry_point(run)
