"""Refresh the feature tables, then look the features up for the predictions that are due."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial, reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..contract import bad_rows, good_rows, judge_features
from ..datasets import OBSERVATIONS, due
from ..declarations import Column, FeatureTable
from ..platform import Platform, Span, time_of
from ..tables import QUARANTINE, REFRESHES
from ..team import PROBLEM
from . import TaskValues, entry_point, names
from .ingest import BEGINNING, SOURCES


def run(platform: Platform, *, as_of: datetime, backfill: str = "") -> TaskValues:
    """Compute what is new up to `as_of` and merge it in.

    `backfill` names feature tables, separated by commas, that are computed anew from the
    beginning; the observations are then looked up again, all of them. Predictions stay.

    Raises:
        ValueError: `backfill` names a table that there is not.
    """
    again = set(names(backfill))
    tables = {table.name: table for table in PROBLEM.feature_tables}
    if unknown := sorted(again - tables.keys()):
        raise ValueError(
            f"--backfill: there is no feature table {unknown[0]!r}. Fix: use some of "
            f"{', '.join(tables)}."
        )
    platform.each(lambda table: bring_up(platform, table, as_of), PROBLEM.feature_tables)
    platform.each(lambda name: compute_anew(platform, tables[name], as_of), sorted(again))
    look_up(platform, as_of, anew=bool(again))
    return None


def look_up(platform: Platform, as_of: datetime, anew: bool = False) -> None:
    """Bring the observations up to `as_of`; after a change of the features, all of them."""
    known, since, until = platform.span(OBSERVATIONS, "predict_at"), BEGINNING, as_of
    wanted = {column.name: column for column in PROBLEM.known_features}
    if known and (anew or not _has_columns(platform, OBSERVATIONS, wanted)):
        until = max(as_of, known[1])
    elif known:
        since = known[1] - lateness(PROBLEM.observation_sources)
    if since >= until:
        return
    rows = due(platform, since, until)
    columns = [wanted.get(n) or Column(n, kind, "Key or time") for n, kind in rows.dtypes]
    columns += [column for name, column in wanted.items() if name not in rows.columns]
    platform.create(OBSERVATIONS, columns, "Observations with the features known when due")
    span, keys = Span("predict_at", since, until), [PROBLEM.entity_key]
    platform.look_up_into(OBSERVATIONS, rows, span, PROBLEM.feature_tables, keys)


def bring_up(platform: Platform, table: FeatureTable, as_of: datetime) -> None:
    """Bring one feature table up to `as_of` in the way it declares."""
    if not _has_columns(platform, table.name, table.feature_names):
        compute_anew(platform, table, as_of)  # rows that are there have nothing in a new column
    if table.refresh == "stream":
        catch_up(platform, table, as_of)
    refresh(platform, table, as_of)
    if platform.exists(table.name):
        platform.declare(table)  # each time: it may have been made by an older version


def refresh(platform: Platform, table: FeatureTable, as_of: datetime) -> None:
    """Compute what is newer than the last row, or may still change."""
    done = platform.span(table.name, "available_at")
    if done:
        # What a source may still deliver late can change rows that are already there.
        since = done[1] - lateness(table.sources)
    else:
        since = _first_known(platform, table) - timedelta(seconds=1)
    if since < as_of and (table.lookback or _has_new_rows(platform, table, since)):
        _compute(platform, table, since, as_of, done[1] if done else since)


def compute_anew(platform: Platform, table: FeatureTable, as_of: datetime) -> None:
    """Compute all rows, up to `as_of` or as far as they go, in place of those that are there."""
    since = _first_known(platform, table) - timedelta(seconds=1)
    done = platform.span(table.name, "available_at")
    until = max(as_of, done[1]) if done else as_of
    _compute(platform, table, since, until, until)


def catch_up(platform: Platform, table: FeatureTable, as_of: datetime) -> None:
    """Follow the changes of the table's sources, and compute from the earliest of them on.

    The stream is the trigger and says where to start; what is written is computed from the
    sources as they are. So a batch that is handled twice, after a crash, writes the same.
    """
    changes = [platform.follow(name, changes=True).select("available_at") for name in table.sources]
    stream = reduce(DataFrame.unionAll, changes)
    # Another set of sources is another stream.
    name = "-".join(("features", table.name, *table.sources))
    platform.drain(stream, name, partial(_on_changes, table, as_of))


def _on_changes(
    table: FeatureTable, as_of: datetime, platform: Platform, changes: DataFrame, number: int
) -> None:
    first = time_of(changes, F.min("available_at"))
    done = platform.span(table.name, "available_at")
    if first is None or done is None:
        return  # the table is still empty: `refresh` computes all of it
    since = first - timedelta(microseconds=1)
    if since < as_of:
        _compute(platform, table, since, as_of, done[1])


def _compute(
    platform: Platform, table: FeatureTable, since: datetime, as_of: datetime, done: datetime
) -> None:
    """Compute the rows known in (since, as_of] and put them in place of those that are there."""
    known = Span("available_at", since - table.lookback, as_of)
    sources = {name: platform.read(name, known) for name in table.sources}
    keys = [*table.keys, "available_at"]
    features = (F.col(column.name).cast(column.type) for column in table.features)
    rows = table.compute(since, as_of, **sources).select(*keys, *features)
    rows = rows.dropna(subset=["available_at"])
    types = dict(rows.dtypes)
    described = [Column(key, types[key], "Key") for key in table.keys]
    described.append(Column("available_at", "timestamp", "When the row became known"))
    owner = f" Owner: {table.owner}." if table.owner else ""
    platform.create(table.name, (*described, *table.features), table.description + owner)
    if table.has_expectations:
        judged = platform.keep(judge_features(table, rows))
        _report(platform, table, judged, since, as_of)
        rows = good_rows(judged)
    rows = rows.dropna(subset=keys)  # no look-up would find them, and a primary key is whole
    span = Span("available_at", since, as_of)
    if since < done:
        platform.replace(table.name, rows, keys, span)
    else:
        platform.insert(table.name, rows, keys, span)


def _report(
    platform: Platform, table: FeatureTable, judged: DataFrame, since: datetime, as_of: datetime
) -> None:
    """Write down how many rows met the expectations, and keep those that did not."""
    counts = judged.agg(F.count("*"), F.count_if(F.size("reasons") > 0)).first()
    rows, bad = counts or (0, 0)
    if bad:
        platform.record(QUARANTINE, bad_rows(table, judged))
    platform.record(REFRESHES, [(table.name, as_of, since, rows, bad)])


def lateness(names: tuple[str, ...]) -> timedelta:
    """How late a row of these sources may turn up."""
    return max(source.lateness for source in SOURCES if source.name in names)


def _has_columns(platform: Platform, table: str, names: Iterable[str]) -> bool:
    """Whether a table has these columns, or is not there yet."""
    there = platform.columns(table)
    return not there or set(names) <= set(there)


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
