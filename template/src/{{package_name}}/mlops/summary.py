"""The story of a replay, read from the evidence tables."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd
from pyspark.sql import functions as F

from .datasets import labels
from .lifecycle import Journal, Month
from .metrics import gain
from .platform import Platform, naive
from .registry import Registry
from .tables import (
    DATA_QUALITY_METRICS,
    DEPLOYMENTS,
    DRIFT_METRICS,
    PERFORMANCE_METRICS,
    PREDICTIONS,
    QUARANTINE,
    RETRAINING_DECISIONS,
    VALIDATION_RESULTS,
    Table,
)
from .team import PROBLEM

_BINS = 10
_QUALITY_COLUMNS = ["subject", "column", "metric", "reason"]
_SLICE_COLUMNS = ["slice", "value", "low", "high", "rows"]
_CHECK_COLUMNS = ["check", "kind", "value", "threshold", "baseline", "passed", "reason"]


def summarize(
    platform: Platform, journal: Journal, months: list[Month], project: str
) -> dict[str, Any]:
    """Return what `lifecycle.json` holds: each month, each decision with its evidence, the sum."""
    deployments = _frame(platform, DEPLOYMENTS)
    promoted = deployments[deployments["decision"] == "promoted"]
    versions = promoted["model_version"].astype(int)
    first = str(versions.min()) if len(versions) else None
    rows = [_month(platform, month, first, journal, deployments) for month in months]
    return {
        "project": project,
        "task": PROBLEM.task,
        "metric": PROBLEM.metric,
        "higher_is_better": PROBLEM.higher_is_better,
        "first_version": first,
        "months": rows,
        "calibration": _calibration(platform, months),
        "quarantined": _quarantined(platform),
        "summary": _totals(rows, journal),
    }


def _frame(platform: Platform, table: Table) -> pd.DataFrame:
    """This model's rows of an evidence table, with nulls as None; none while it is not written."""
    columns = [column.name for column in table.columns]
    if not platform.exists(table.name):
        return pd.DataFrame(columns=columns)
    this = {"model": Registry(platform).model} if "model" in columns else {}
    frame = platform.frame(table.name, **this)[columns]
    return frame.astype(object).replace({float("nan"): None})


def _at(frame: pd.DataFrame, column: str, month: Month) -> pd.DataFrame:
    return frame[frame[column] == naive(month.end)]


def _month(
    platform: Platform,
    month: Month,
    first: str | None,
    journal: Journal,
    deployments: pd.DataFrame,
) -> dict[str, Any]:
    everything = _at(_frame(platform, PERFORMANCE_METRICS), "window_end", month)
    whole = everything[everything["metric"] == PROBLEM.metric]
    measured = whole[whole["slice"] == "all"]
    served = measured[measured["role"] == "champion"]
    performance = dict(zip(measured["model_version"], measured["value"], strict=True))
    version = served["model_version"].iloc[0] if len(served) else None
    value = performance.get(version)
    baseline = performance.get(first)
    moved = _at(_frame(platform, DRIFT_METRICS), "window_end", month)
    moved = moved[moved["metric"] == "psi"]
    drift = moved[(moved["kind"] == "feature") & (moved["reference"] == "training")]
    quality = _at(_frame(platform, DATA_QUALITY_METRICS), "window_end", month)
    others = moved[moved["drifted"].astype(bool) & ~moved.index.isin(drift.index)]
    retraining = _at(_frame(platform, RETRAINING_DECISIONS), "window_end", month)
    decided = retraining.iloc[0] if len(retraining) else None
    results = _frame(platform, VALIDATION_RESULTS)
    return {
        "month": month.name,
        "as_of": month.end.isoformat(),
        "rows": int(served["rows"].sum()),
        "served_version": version,
        "served_metric": value,
        "first_version_metric": baseline,
        "gain": None if value is None or baseline is None else gain(value, baseline),
        "drift": dict(zip(drift["feature"], drift["value"], strict=True)),
        "drift_threshold": PROBLEM.retraining.psi,
        "drifted_features": sorted(drift[drift["drifted"].astype(bool)]["feature"]),
        "limits": dict(zip(drift["feature"], drift["threshold"], strict=True)),
        "sudden": sorted({n for n in others[others["reference"] == "previous"]["feature"]}),
        "moved": sorted({n for n in others[others["kind"] != "feature"]["kind"]}),
        "quality": quality[~quality["passed"].astype(bool)][_QUALITY_COLUMNS].to_dict("records"),
        "intervals": {
            row["model_version"]: [row["low"], row["high"]] for row in measured.to_dict("records")
        },
        "slices": whole[(whole["slice"] != "all") & (whole["role"] == "champion")][
            _SLICE_COLUMNS
        ].to_dict("records"),
        "decayed": bool(decided["decayed"]) if decided is not None else False,
        "retrain": bool(decided["retrain"]) if decided is not None else False,
        "retrain_reason": decided["reason"] if decided is not None else "",
        "decisions": [
            {
                "version": decision["model_version"],
                "decision": decision["decision"],
                "reason": decision["reason"],
                "checks": results[results["model_version"] == decision["model_version"]][
                    _CHECK_COLUMNS
                ].to_dict("records"),
            }
            for _, decision in _at(deployments, "as_of", month).iterrows()
        ],
        "performance": performance,
        "elapsed_seconds": round(
            sum(s["seconds"] for key, s in journal.steps.items() if key.startswith(month.name)), 1
        ),
    }


def _calibration(platform: Platform, months: list[Month]) -> list[dict[str, Any]]:
    """Mean prediction against mean label, by tenth of the served predictions of each version."""
    if not platform.exists(PREDICTIONS.name) or not months:
        return []
    served = platform.read(PREDICTIONS.name).where(F.col("role") == "champion")
    served = served.where(F.col("model") == Registry(platform).model)
    known = labels(platform, months[-1].end).withColumnRenamed(PROBLEM.entity_key, "entity")
    frame = served.join(known, "entity").select("model_version", "prediction", "label").toPandas()
    curves = []
    for version in sorted(frame["model_version"].unique(), key=int):
        rows = frame[frame["model_version"] == version]
        tenth = pd.qcut(rows["prediction"].rank(method="first"), _BINS, labels=False)
        parts = rows.groupby(tenth)
        bins = parts.agg(
            predicted=("prediction", "mean"), observed=("label", "mean"), rows=("label", "size")
        )
        curves.append({"version": version, "bins": bins.to_dict("records")})
    return curves


def _quarantined(platform: Platform) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for row in _frame(platform, QUARANTINE).to_dict("records"):
        reasons = counts[row["source"]]
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    return dict(counts)


def _totals(rows: list[dict[str, Any]], journal: Journal) -> dict[str, Any]:
    """Retraining against never: months in which another version than the first one served."""
    gains = {
        row["month"]: row["gain"]
        for row in rows
        if row["gain"] is not None and row["performance"].keys() > {row["served_version"]}
    }
    decisions = [decision["decision"] for row in rows for decision in row["decisions"]]
    return {
        "months_compared": len(gains),
        "months_better": sum(value > 0 for value in gains.values()),
        "months_worse": [month for month, value in gains.items() if value < 0],
        "mean_gain": sum(gains.values()) / len(gains) if gains else None,
        "trainings": len(decisions),
        "promotions": decisions.count("promoted"),
        "refusals": decisions.count("refused"),
        "elapsed_seconds": round(sum(step["seconds"] for step in journal.steps.values()), 1),
    }
