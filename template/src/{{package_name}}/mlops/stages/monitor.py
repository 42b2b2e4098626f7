"""Measure drift and, once labels are known, performance; say whether to retrain."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from ...problem import PROBLEM
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
)
from . import TaskValues, entry_point
from .train import PROFILE_FILE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run(platform: Platform, *, as_of: datetime, since: datetime | None = None) -> TaskValues:
    """Watch the predictions made in (since, as_of], by default the last `monitoring_window`."""
    registry = Registry(platform)
    champion = registry.at(CHAMPION)
    if champion is None:
        raise LookupError(f"{registry.model} has no champion to watch. Fix: run training first.")
    since = since or as_of - PROBLEM.monitoring_window
    made = F.col("predict_at")
    rows = platform.read(PREDICTIONS.name).where((made > since) & (made <= as_of)).persist()
    try:
        drifted = _drift(platform, registry, champion, rows, since, as_of)
        decay = _performance(platform, champion, rows, since, as_of)
    finally:
        rows.unpersist()
    rules = PROBLEM.retraining
    reasons = []
    if len(drifted) >= rules.drifted_features:
        total = len(PROBLEM.feature_names)
        reasons.append(f"drift in {len(drifted)} of {total} features: {', '.join(drifted)}")
    decayed = decay is not None and decay > rules.max_decay
    if decayed:
        reasons.append(f"decay: {PROBLEM.metric} is worse than at validation by {decay:.3f}")
    retrain, reason = bool(reasons), "; ".join(reasons) or "none"
    platform.record_rows(
        RETRAINING_DECISIONS, [(since, as_of, champion, retrain, decayed, reason)]
    )
    return {"retrain": str(retrain).lower(), "reason": reason}


def _drift(
    platform: Platform,
    registry: Registry,
    champion: str,
    rows: DataFrame,
    since: datetime,
    as_of: datetime,
) -> list[str]:
    """Record the drift of each feature against the champion's training data; name the drifted."""
    import mlflow

    run_id = registry.get(champion).run_id
    reference = mlflow.artifacts.load_dict(f"runs:/{run_id}/{PROFILE_FILE}")
    current = shares(rows.where(F.col("role") == "champion"), reference)
    limit = PROBLEM.retraining.psi
    values = {
        name: population_stability_index(profile["shares"], current[name])
        for name, profile in reference.items()
        if sum(current[name]) > 0
    }
    drifted = sorted(name for name, value in values.items() if value > limit)
    platform.record_rows(
        DRIFT_METRICS,
        [
            (since, as_of, champion, name, "psi", value, limit, name in drifted)
            for name, value in sorted(values.items())
        ],
    )
    return drifted


def _performance(
    platform: Platform, champion: str, rows: DataFrame, since: datetime, as_of: datetime
) -> float | None:
    """Record the metric of each version on rows with a known label; return the champion's decay."""
    known = labels(platform, as_of).withColumnRenamed(PROBLEM.entity_key, "entity")
    columns = ("model_version", "role", "prediction", "label")
    frame = rows.join(known, "entity").select(*columns).toPandas()
    results = platform.read(VALIDATION_RESULTS.name).where(F.col("check") == "threshold")
    at_validation = {row["model_version"]: row["value"] for row in results.collect()}
    decay = None
    records: list[tuple[object, ...]] = []
    for (version, role), part in frame.groupby(["model_version", "role"]):
        enough = len(part) >= PROBLEM.retraining.min_rows
        value = score(part["label"], part["prediction"]) if enough else None
        baseline = at_validation.get(version)
        records.append(
            (since, as_of, version, role, PROBLEM.metric, value, baseline, len(part))
        )
        if version == champion and role == "champion" and value is not None and baseline:
            decay = -gain(value, baseline)
    platform.record_rows(PERFORMANCE_METRICS, records)
    return decay


main = entry_point(run)
