"""Measure what came in, drift and, once labels are known, performance; say whether to retrain.

Labels and volumes come from the tables of pipelines/monitoring.py, which the job refreshes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyspark.sql import functions as F

from .. import data_quality, performance
from ..data_quality import ALL, Finding
from ..datasets import observations
from ..drift import Counts, Reference, count, count_rows, distances, from_json, stable_limits
from ..metrics import gain
from ..monitored import LABEL, SOURCE_VOLUME, judged_predictions_table, with_columns
from ..performance import Estimate
from ..platform import Platform, Span, naive
from ..registry import CHAMPION, Registry
from ..retraining import Evidence, decayed, decide
from ..tables import (
    DATA_QUALITY_METRICS,
    DRIFT_METRICS,
    PERFORMANCE_METRICS,
    PREDICTIONS,
    RETRAINING_DECISIONS,
    VALIDATION_RESULTS,
)
from ..team import PROBLEM, own
from . import TaskValues, entry_point
from .ingest import SOURCES
from .train import PROFILE_FILE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Row = tuple[object, ...]
Recorded = Mapping[tuple[str, str], int]  # labelled rows by version and role
PREDICTION = "prediction"
JUDGED_PREDICTIONS = own(judged_predictions_table(PROBLEM).name)
TRAINING, PREVIOUS = "training", "previous"
DAY = timedelta(days=1)
ENOUGH_DAYS = 7  # a week, so that each weekday is there


@dataclass(frozen=True)
class Window:
    """Data times (since, as_of]."""

    since: datetime
    as_of: datetime

    @property
    def days(self) -> int:
        """Length in days, rounded up."""
        return max(-((self.since - self.as_of) // DAY), 1)

    @property
    def before(self) -> Window:
        """The window before, as long."""
        return Window(self.since - self.days * DAY, self.since)

    def of(self, rows: DataFrame) -> DataFrame:
        """The rows whose prediction was made in it."""
        made = F.col("predict_at")
        return rows.where((made > self.since) & (made <= self.as_of))

    def within(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The same, in memory."""
        made = frame["predict_at"]
        return frame[(made > naive(self.since)) & (made <= naive(self.as_of))]


def run(
    platform: Platform,
    *,
    as_of: datetime,
    model_name: str | None = None,
    since: datetime | None = None,
) -> TaskValues:
    """Watch the predictions made in (since, as_of], by default the last `monitoring_window`."""
    registry = Registry(platform, model_name)
    champion = registry.at(CHAMPION)
    if champion is None:
        raise LookupError(f"{registry.model} has no champion to watch. Fix: run training first.")
    window = Window(since or as_of - PROBLEM.monitoring_window, as_of)
    decided = _decided(platform, registry.model, window)
    if decided is not None:
        return decided

    references = _references(registry, champion)
    earlier = _measured_earlier(platform, registry.model, window)
    made = platform.read(PREDICTIONS.name).where(F.col("model") == registry.model)
    start = min([window.before, *earlier], key=lambda one: one.since).since
    inputs = _features(references)
    types = {column.name: column.type for column in PROBLEM.known_features}
    made = with_columns(made, {name: types.get(name, "double") for name in inputs})
    scored = _scored(platform, registry.model, start, as_of)
    served = scored[scored["role"] == "champion"]
    if window.within(served).empty:
        raise LookupError(
            f"There is no prediction between {window.since:%Y-%m-%d} and {as_of:%Y-%m-%d} to "
            "watch. Fix: run the scoring job for that time, and look why it has not run."
        )
    alike = _trained_alike(registry, champion, served["model_version"].unique())
    made = made.where(F.col("model_version").isin(alike))
    counts = _counts(made, references, window)
    known = served.dropna(subset=[LABEL])
    for place, one in ((TRAINING, window), (PREVIOUS, window.before)):
        values = one.within(known)[LABEL]
        nowhere = np.zeros(len(values), dtype=int)
        counts[place][LABEL] = count(values, references[LABEL].bins, nowhere, 1)

    days = _covered(served[served["model_version"].isin(alike)], window)
    drift = _drift(references, counts[TRAINING], counts[PREVIOUS], window, days)
    quality = _sources(platform, window)
    quality += _inputs(references, counts[TRAINING])
    quality += data_quality.skew(PREDICTIONS.name, _skew(platform, made, inputs, window))
    arrived = _labelled(platform, registry.model, window, served)
    quality.append(arrived)
    baselines = _baselines(platform, registry)
    measured = _measure(window.within(scored), window, as_of, baselines)
    for past, recorded in earlier.items():
        late = _grown(past.within(scored), recorded)
        measured += _measure(late, past, as_of, baselines)

    # Labels that come late are of other rows than those that are there.
    decay = _decay(measured, window, champion) if arrived.passed else None
    times = [datetime.fromisoformat(registry.tag(v, "as_of")) for v in registry.versions()]
    last = max((time for time in times if time <= as_of), default=window.since)
    seen = Evidence(
        as_of=as_of,
        features=len(inputs),
        drifted=_drifted(drift),
        decay=decay,
        metric=PROBLEM.metric,
        new_rows=int((known["predict_at"] > naive(last)).sum()),
        trainings=times,
    )
    decision = decide(PROBLEM.retraining, seen)
    span = (window.since, as_of, registry.model)
    platform.record(DATA_QUALITY_METRICS, [(*span, *finding.row) for finding in quality])
    platform.record(DRIFT_METRICS, [(*span, champion, *row) for row in drift])
    platform.record(PERFORMANCE_METRICS, [(*row[:2], registry.model, *row[2:]) for row in measured])
    # Last: a window without a decision is measured again.
    worse = decayed(PROBLEM.retraining, decay)
    verdict: Row = (*span, champion, decision.retrain, worse, decision.reason)
    platform.record(RETRAINING_DECISIONS, [verdict])
    return {"retrain": str(decision.retrain).lower(), "reason": decision.reason}


def _decided(platform: Platform, model: str, window: Window) -> TaskValues:
    """What was decided for this window. It stands: the champion may be another one by now."""
    if not platform.exists(RETRAINING_DECISIONS.name):
        return None
    rows = platform.frame(RETRAINING_DECISIONS.name, model=model)
    start, end = naive(window.since), naive(window.as_of)
    rows = rows[(rows["window_start"] == start) & (rows["window_end"] == end)]
    if rows.empty:
        return None
    row = rows.iloc[0]
    return {"retrain": str(bool(row["retrain"])).lower(), "reason": str(row["reason"])}


def _references(registry: Registry, champion: str) -> dict[str, Reference]:
    """The champion's training data: each feature, the prediction and the label."""
    import mlflow

    run_id = registry.get(champion).run_id
    saved = mlflow.artifacts.load_dict(f"runs:/{run_id}/{PROFILE_FILE}")
    if LABEL not in saved:
        raise LookupError(
            f"The profile of version {champion} is of an older form: it has no label. Fix: train a "
            "new version and deploy it."
        )
    return {name: from_json(one) for name, one in saved.items()}


def _counts(
    made: DataFrame, references: Mapping[str, Reference], window: Window
) -> dict[str, dict[str, Counts]]:
    """Served rows by day and bin, of the window and of the one before, in one pass."""
    both = Window(window.before.since, window.as_of)
    bins = {name: one.bins for name, one in references.items() if name != LABEL}
    rows = both.of(made).where(F.col("role") == "champion")
    first = int(both.since.timestamp()) + 1  # a window is open at its start
    found = count_rows(rows, bins, "predict_at", first, 2 * window.days, period=window.days)
    return {
        TRAINING: {name: one.period(1) for name, one in found.items()},
        PREVIOUS: {name: one.period(0) for name, one in found.items()},
    }


def _features(references: Mapping[str, Reference]) -> list[str]:
    """What the champion was trained with, which may be other features than those of a new model."""
    return [name for name in references if name not in (PREDICTION, LABEL)]


def _trained_alike(registry: Registry, champion: str, versions: Iterable[str]) -> list[str]:
    """Those of the versions that were trained with the champion's features.

    Of others, not all inputs that are watched have been recorded.
    """
    inputs, known = set(registry.trained_with(champion)), set(registry.versions())
    return [v for v in versions if v in known and set(registry.trained_with(v)) == inputs]


def _covered(rows: pd.DataFrame, window: Window) -> int:
    """Days of the window since the first of these rows, at least one."""
    inside = window.within(rows)["predict_at"]
    return 1 if inside.empty else max(-int((inside.min() - naive(window.as_of)) // DAY), 1)


def _scored(platform: Platform, model: str, start: datetime, as_of: datetime) -> pd.DataFrame:
    """Predictions since `start`, with their label, which is missing unless it was known."""
    span = Span("predict_at", start, as_of)
    found = platform.frame_of(JUDGED_PREDICTIONS, span)
    found = found[found["model"] == model]
    known = found[LABEL].where(found["known_at"] <= naive(as_of))
    # In one order, so that sums of the same rows are the same to the last digit.
    order = ["model_version", "role", "entity"]
    return found.assign(**{LABEL: known}).sort_values(order, ignore_index=True)


def _drift(
    references: Mapping[str, Reference],
    now: Mapping[str, Counts],
    before: Mapping[str, Counts],
    window: Window,
    days: int,
) -> list[Row]:
    """Kind, column, reference, metric, value, threshold and whether it drifted.

    `days` of the window have rows, at its end; few of them are told but not judged.
    """
    rules = PROBLEM.retraining
    bins = {name: one.bins for name, one in references.items()}
    daily = {name: one.counts.rows for name, one in references.items()}
    limits = {
        TRAINING: stable_limits(bins, daily, days, rules.false_alarms),
        PREVIOUS: stable_limits(bins, daily, days, rules.false_alarms, earlier=window.days),
    }
    rows: list[Row] = []
    for name, one in references.items():
        kind = name if name in (PREDICTION, LABEL) else "feature"
        compared = {TRAINING: one.counts, PREVIOUS: before[name]}
        if name == PREDICTION:
            del compared[PREVIOUS]  # another version may have made those
        for place, base in compared.items():
            for metric, value in distances(one.bins, base, now[name]).items():
                threshold = None
                if metric == "psi" and days >= min(window.days, ENOUGH_DAYS):
                    threshold = max(rules.psi, limits[place].get(name, 0.0))
                drifted = threshold is not None and value > threshold
                rows.append((kind, name, place, metric, value, threshold, drifted))
    return rows


def _drifted(drift: Iterable[Row]) -> list[str]:
    """Features that have left the champion's training data."""
    slow = (row for row in drift if row[0] == "feature" and row[2] == TRAINING)
    return sorted(str(row[1]) for row in slow if row[6])


def _sources(platform: Platform, window: Window) -> list[Finding]:
    """Volume, freshness and quarantine of each source."""
    rows = platform.frame(own(SOURCE_VOLUME.name))
    rows = rows[rows["hour"] < naive(window.as_of)]
    found = []
    for source in SOURCES:
        theirs = rows[rows["source"] == source.name]
        good, bad = theirs[theirs["reason"].isna()], theirs[theirs["reason"].notna()]
        found += data_quality.source(source.name, good, window.since, window.as_of)
        found += data_quality.quarantined(source.name, bad, good, window.since)
    return found


def _inputs(references: Mapping[str, Reference], now: Mapping[str, Counts]) -> list[Finding]:
    found = []
    for name in _features(references):
        found += data_quality.column(PREDICTIONS.name, name, references[name], now[name])
    return found


def _skew(
    platform: Platform, made: DataFrame, names: Sequence[str], window: Window
) -> dict[str, float]:
    """Share of served rows whose feature is not what training would look up, by feature.

    Nothing when every row is the same.
    """
    theirs = observations(platform, window.since, window.as_of).select(
        F.col(PROBLEM.entity_key).alias("entity"), *(F.col(n).alias(f"_{n}") for n in names)
    )
    both = window.of(made).where(F.col("role") == "champion").join(theirs, "entity")
    differ = (~F.col(n).eqNullSafe(F.col(f"_{n}")) for n in names)
    row = both.agg(*(F.mean(d.cast("double")) for d in differ)).first()
    shares = {name: float(row[i] or 0.0) for i, name in enumerate(names)} if row else {}
    return shares if any(shares.values()) else {}


def _labelled(platform: Platform, model: str, window: Window, served: pd.DataFrame) -> Finding:
    rows = window.within(served)
    earlier: list[float] = []
    if platform.exists(DATA_QUALITY_METRICS.name):
        past = platform.frame(DATA_QUALITY_METRICS.name, metric="labelled", model=model)
        earlier = past[past["window_end"] < naive(window.as_of)]["value"].tolist()
    known = int(rows[LABEL].notna().sum())
    return data_quality.labelled(PREDICTIONS.name, len(rows), known, earlier)


def _measured_earlier(platform: Platform, model: str, window: Window) -> dict[Window, Recorded]:
    """Windows whose labels may still come, with the labelled rows that were recorded."""
    if not platform.exists(PERFORMANCE_METRICS.name):
        return {}
    whole = {"model": model, "metric": PROBLEM.metric, "slice": ALL}
    rows = platform.frame(PERFORMANCE_METRICS.name, **whole)
    oldest = naive(window.as_of - PROBLEM.retraining.late_labels)
    rows = rows[(rows["window_end"] > oldest) & (rows["window_end"] < naive(window.as_of))]
    found: dict[Window, Recorded] = {}
    for (start, end), part in rows.groupby(["window_start", "window_end"]):
        times = (pd.Timestamp(str(t), tz="UTC").to_pydatetime() for t in (start, end))
        keys = zip(part["model_version"], part["role"], strict=True)
        found[Window(*times)] = dict(zip(keys, part["rows"].astype(int), strict=True))
    return found


def _grown(scored: pd.DataFrame, recorded: Recorded) -> pd.DataFrame:
    """The predictions of those versions that have other labels than were recorded."""
    parts = [
        part
        for (version, role), part in scored.groupby(["model_version", "role"])
        if part[LABEL].notna().sum() != recorded.get((str(version), str(role)), 0)
    ]
    return pd.concat(parts) if parts else scored.head(0)


def _baselines(platform: Platform, registry: Registry) -> dict[str, float]:
    """The metric of each version at validation."""
    results = platform.frame(VALIDATION_RESULTS.name, model=registry.model, check="threshold")
    return dict(zip(results["model_version"], results["value"], strict=True))


def _measure(
    scored: pd.DataFrame, window: Window, as_of: datetime, baselines: Mapping[str, float]
) -> list[Row]:
    """Rows of performance_metrics: each version and role, the champion by slice, too."""
    found: list[Row] = []
    known = scored.dropna(subset=[LABEL])
    known = known.assign(day=(known["predict_at"] - naive(window.since)) // DAY)
    for (version, role), part in known.groupby(["model_version", "role"]):
        key = (window.since, window.as_of, version, role)
        for name, one in _estimates(part):
            baseline = baselines.get(str(version)) if name == PROBLEM.metric else None
            found.append((*key, ALL, name, one.value, one.low, one.high, baseline, one.rows, as_of))
        for feature in PROBLEM.gate.slices if role == "champion" else ():
            for value, rows in part.groupby(feature):
                if len(rows) < PROBLEM.gate.min_slice_rows:
                    continue
                one = performance.metric(*_columns(rows), PROBLEM.task)
                where = (f"{feature}={value}", PROBLEM.metric)
                figures = (one.value, one.low, one.high, None, one.rows, as_of)
                found.append((*key, *where, *figures))
    return found


def _columns(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    return rows[LABEL], rows[PREDICTION], rows["day"]


def _estimates(rows: pd.DataFrame) -> Iterable[tuple[str, Estimate]]:
    label, prediction, day = _columns(rows)
    if len(rows) < PROBLEM.retraining.min_rows:
        yield PROBLEM.metric, Estimate(len(rows))
        return
    yield PROBLEM.metric, performance.metric(label, prediction, day, PROBLEM.task)
    yield "bias", performance.bias(label, prediction, day)
    yield "calibration_error", performance.calibration_error(label, prediction)


def _decay(measured: Iterable[Row], window: Window, champion: str) -> float | None:
    """How much worse the champion is than at validation; 0 when that may be chance."""
    key = (window.since, window.as_of, champion, "champion", ALL, PROBLEM.metric)
    row = next((row for row in measured if row[:6] == key), None)
    if row is None or row[6] is None or row[9] is None:
        return None
    value, low, high, baseline = (float(row[i]) for i in (6, 7, 8, 9))  # type: ignore[arg-type]
    if gain(high if PROBLEM.higher_is_better else low, baseline) >= 0:
        return 0.0
    return -gain(value, baseline)


main = entry_point(run)
