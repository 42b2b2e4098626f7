"""Refresh the feature tables, then look the features up for the predictions that are due."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import functions as F

from ..datasets import OBSERVATIONS, assemble
from ..declarations import Column, FeatureTable
from ..platform import Platform
from ..team import PROBLEM
from . import TaskValues, entry_point
from .ingest import BEGINNING, SOURCES


def run(platform: Platform, *, as_of: datetime) -> TaskValues:
    """Compute what is new up to `as_of` and merge it in."""
    platform.each(lambda table: refresh(platform, table, as_of), PROBLEM.feature_tables)
    look_up(platform, as_of)
    return None


def look_up(platform: Platform, as_of: datetime) -> None:
    """Bring the observations up to `as_of`; after a change of the features, all of them."""
    known, since = platform.span(OBSERVATIONS, "predict_at"), BEGINNING
    if known and set(PROBLEM.feature_names) <= set(platform.read(OBSERVATIONS).columns):
        since = known[1] - lateness(PROBLEM.observation_sources)
    if since >= as_of:
        return
    rows = assemble(platform, since, as_of)
    described = {column.name: column for column in PROBLEM.features}
    columns = [described.get(n) or Column(n, kind, "Key or time") for n, kind in rows.dtypes]
    platform.create(OBSERVATIONS, columns, "Observations with the features known when due")
    platform.merge(OBSERVATIONS, rows, [PROBLEM.entity_key])


def refresh(platform: Platform, table: FeatureTable, as_of: datetime) -> None:
    """Bring one feature table up to `as_of`; only the new slice is computed."""
    done = platform.span(table.name, "available_at")
    if done:
        # What a source may still deliver late can change rows that are already there.
        since = done[1] - lateness(table.sources)
    else:
        since = _first_known(platform, table) - timedelta(seconds=1)
    if since >= as_of or not (table.lookback or _has_new_rows(platform, table, since)):
        return
    known = F.col("available_at")
    sources = {
        name: platform.read(name).where((known > since - table.lookback) & (known <= as_of))
        for name in table.sources
    }
    keys = (*table.keys, "available_at")
    rows = table.compute(since, as_of, **sources).select(*keys, *table.feature_names)
    types = dict(rows.dtypes)
    described = [Column(key, types[key], "Key") for key in table.keys]
    described.append(Column("available_at", "timestamp", "When the row became known"))
    platform.create(table.name, (*described, *table.features), table.description)
    platform.merge(table.name, rows, keys)


def lateness(names: tuple[str, ...]) -> timedelta:
    """How late a row of these sources may turn up."""
    return max(source.lateness for source in SOURCES if source.name in names)


def _has_new_rows(platform: Platform, table: FeatureTable, since: datetime) -> bool:
    spans = [platform.span(name, "available_at") for name in table.sources]
    return any(span and span[1] > since for span in spans)


def _first_known(platform: Platform, table: FeatureTable) -> datetime:
    """When the first row of the table's sources became known."""
    spans = [platform.span(name, "available_at") for name in table.sources]
    times = [span[0] for span in spans if span]
    if not times:
        raise ValueError(
            f"Feature table {table.name}: its sources {', '.join(table.sources)} hold no row. "
            "Fix: check `as_of` of the ingest task, and the quarantine table."
        )
    return min(times)


main = entry_point(run)
