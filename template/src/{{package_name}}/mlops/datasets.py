"""Rows to train, evaluate, score and monitor on, assembled point in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pandas as pd
from pyspark.sql import functions as F

from .platform import LookedUp, Platform, Span, naive
from .team import PROBLEM, own

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

OBSERVATIONS = own("observations")


def due(platform: Platform, since: datetime, until: datetime) -> DataFrame:
    """What predictions are due for in (since, until], without features of tables.

    Columns: the entity key, `predict_at`, the lookup keys and the request features of the problem.
    """
    sources = {name: platform.read(name) for name in PROBLEM.observation_sources}
    asked = F.col("predict_at")
    return PROBLEM.observations(**sources).where((asked > since) & (asked <= until))


def observations(platform: Platform, since: datetime, until: datetime) -> DataFrame:
    """Observations with their features, for predictions that are due in (since, until].

    They were looked up once, when they were due: what a model is trained on is what it is
    served with.
    """
    return platform.read(OBSERVATIONS, Span("predict_at", since, until))


def looked_up(platform: Platform) -> LookedUp:
    """How the features of a new model's observations were looked up."""
    rows = platform.read(OBSERVATIONS).withColumn("label", F.lit(0.0))
    inputs = [column.name for column in PROBLEM.request_features if not column.retired]
    tables = PROBLEM.tables_for(PROBLEM.feature_names)
    return LookedUp(rows, PROBLEM.lookup_keys, "predict_at", inputs, "label", tables)


def require_fresh(platform: Platform, as_of: datetime) -> None:
    """Raise LookupError when the observations end more than a scoring window before `as_of`."""
    known = platform.span(OBSERVATIONS, "predict_at")
    if known is None or known[1] < as_of - PROBLEM.scoring_window:
        ends = f"end at {known[1]:%Y-%m-%d %H:%M}" if known else "have not been written"
        raise LookupError(
            f"The observations {ends}, long before {as_of:%Y-%m-%d %H:%M}. Fix: run the features "
            "job up to then, and look why it has not run."
        )


def labels(platform: Platform, as_of: datetime, since: datetime | None = None) -> DataFrame:
    """Labels that were known at `as_of`: the entity key, `label`, `known_at`.

    Those of predictions made after `since` became known after it, so no older one is read.
    """
    sources = {name: platform.read(name) for name in PROBLEM.label_sources}
    known = PROBLEM.labels(**sources).where(F.col("known_at") <= as_of)
    return known if since is None else known.where(F.col("known_at") > since)


def labelled(platform: Platform, since: datetime, until: datetime, as_of: datetime) -> pd.DataFrame:
    """Observations made in (since, until] whose label was known at `as_of`.

    Columns: entity key, `predict_at`, all known features in order, `label`. Sorted by time and
    key, so that the same data always gives the same frame.
    """
    names = (OBSERVATIONS, *PROBLEM.label_sources)
    state = (as_of, *(platform.version(name) for name in names))
    held = _HELD.get(platform)
    if held is None or held.state != state or held.since > since:
        rows = observations(platform, since, as_of)
        known = labels(platform, as_of, since).select(PROBLEM.entity_key, "label")
        features = [column.name for column in PROBLEM.known_features]
        columns = [PROBLEM.entity_key, "predict_at", *features, "label"]
        frame = rows.join(known, PROBLEM.entity_key).select(*columns).toPandas()
        frame = frame.sort_values(["predict_at", PROBLEM.entity_key], ignore_index=True)
        held = _HELD[platform] = _Held(state, since, frame)
    made = held.frame["predict_at"]
    inside = (made > naive(since)) & (made <= naive(until))
    return held.frame[inside].reset_index(drop=True)


@dataclass(frozen=True)
class _Held:
    """The rows after `since` that were read last: training and evaluation read the same ones."""

    state: tuple[object, ...]
    since: datetime
    frame: pd.DataFrame


_HELD: WeakKeyDictionary[Platform, _Held] = WeakKeyDictionary()
