"""Measure drift and, once labels are known, performance; say whether to retrain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd
from pyspark.sql import functions as F

from ..datasets import labels
from ..drift import population_stability_index, shares
from ..metrics import gain, score
from ..platform import Platform
from ..registry import CHAMPION, Registry
from ..tables import (
    DRIFT_METRICS,
    PERFORMANCE_METRICS,
    PREDICTIONS,
    RETRAINING_DECISIONS,
    VALIDATION_RESULTS,
    Table,
)
from ..team import PROBLEM
from . import TaskValues, entry_point
from .train import PROFILE_FILE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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
    since = since or as_of - PROBLEM.monitoring_window
    decided = _decided(platform, registry.model, since, as_of)
    if decided is not None:
        return decided
    made = F.col("predict_at")
    rows = platform.read(PREDICTIONS.name).where(F.col("model") == registry.model)
    rows = rows.where((made > since) & (made <= as_of))
    drift = _drift(registry, champion, rows)
    performance = _performance(platform, registry, rows, as_of)
    if not performance and not drift:
        raise LookupError(
            f"There is no prediction between {since:%Y-%m-%d} and {as_of:%Y-%m-%d} to watch. Fix: "
            "run the scoring job for that time, and look why it has not run."
        )
    rules = PROBLEM.retraining
    drifted = sorted(name for name, value in drift.items() if value > rules.psi)
    decay = next((p.decay for p in performance if p.key == (champion, "champion")), None)
    decayed = decay is not None and decay > rules.max_decay
    reasons = []
    if len(drifted) >= rules.drifted_features:
        total = len(PROBLEM.feature_names)
        reasons.append(f"drift in {len(drifted)} of {total} features: {', '.join(drifted)}")
    if decayed:
        reasons.append(f"decay: {PROBLEM.metric} is worse than at validation by {decay:.3f}")
    retrain, reason = bool(reasons), "; ".join(reasons) or "none"

    window, watched = (since, as_of), (registry.model, champion)
    evidence: list[tuple[Table, list[tuple[object, ...]]]] = [
        (
            DRIFT_METRICS,
            [
                (*window, *watched, name, "psi", value, rules.psi, name in drifted)
                for name, value in sorted(drift.items())
            ],
        ),
        (
            PERFORMANCE_METRICS,
            [
                (*window, registry.model, *p.key, PROBLEM.metric, p.value, p.baseline, p.rows)
                for p in performance
            ],
        ),
        (RETRAINING_DECISIONS, [(*window, *watched, retrain, decayed, reason)]),
    ]
    for table, found in evidence:
        platform.record(table, found)
    return {"retrain": str(retrain).lower(), "reason": reason}


def _decided(platform: Platform, model: str, since: datetime, as_of: datetime) -> TaskValues:
    """What was decided for this window. It stands: the champion may be another one by now.

    The decision is written last, so a window without one is measured again.
    """
    if not platform.exists(RETRAINING_DECISIONS.name):
        return None
    rows = platform.frame(RETRAINING_DECISIONS.name, model=model)
    start, end = (pd.Timestamp(time).tz_convert(None) for time in (since, as_of))
    rows = rows[(rows["window_start"] == start) & (rows["window_end"] == end)]
    if rows.empty:
        return None
    row = rows.iloc[0]
    return {"retrain": str(bool(row["retrain"])).lower(), "reason": str(row["reason"])}


@dataclass(frozen=True)
class Performance:
    """The metric of one version in one role; `value` is None with too few labelled rows."""

    key: tuple[str, str]
    rows: int
    value: float | None
    baseline: float | None

    @property
    def decay(self) -> float | None:
        """How much worse than at validation."""
        if self.value is None or self.baseline is None:
            return None
        return -gain(self.value, self.baseline)


def _drift(registry: Registry, champion: str, rows: DataFrame) -> dict[str, float]:
    """Population stability index of each feature against the champion's training data."""
    import mlflow

    run_id = registry.get(champion).run_id
    reference = mlflow.artifacts.load_dict(f"runs:/{run_id}/{PROFILE_FILE}")
    current = shares(rows.where(F.col("role") == "champion"), reference)
    return {
        name: population_stability_index(profile["shares"], current[name])
        for name, profile in reference.items()
        if sum(current[name]) > 0
    }


def _performance(
    platform: Platform, registry: Registry, rows: DataFrame, as_of: datetime
) -> list[Performance]:
    """The metric of each version and role, on the rows whose label is known."""
    known = labels(platform, as_of).withColumnRenamed(PROBLEM.entity_key, "entity")
    columns = ("model_version", "role", "prediction", "label")
    frame = rows.join(known, "entity").select(*columns).toPandas()
    results = platform.frame(VALIDATION_RESULTS.name, model=registry.model, check="threshold")
    at_validation = dict(zip(results["model_version"], results["value"], strict=True))
    found = []
    for (version, role), part in frame.groupby(["model_version", "role"]):
        enough = len(part) >= PROBLEM.retraining.min_rows
        value = score(part["label"], part["prediction"]) if enough else None
        found.append(
            Performance((str(version), str(role)), len(part), value, at_validation.get(version))
        )
    return found


main = entry_point(run)
