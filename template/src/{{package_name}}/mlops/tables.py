"""The evidence tables: their columns, their meaning, their keys.

Dashboards, alerts, reports and the retraining decision read these and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .declarations import Column


@dataclass(frozen=True)
class Table:
    """A table with documented columns; a write replaces the row with the same keys."""

    name: str
    description: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]


def create_table_sql(full_name: str, columns: Iterable[Column], description: str) -> str:
    """The statement that creates a managed Delta table unless it is there."""
    comment = description.replace("\\", "\\\\").replace("'", "\\'")
    ddl = ", ".join(column.ddl for column in columns)
    return f"CREATE TABLE IF NOT EXISTS {full_name} ({ddl}) USING DELTA COMMENT '{comment}'"


QUARANTINE = Table(
    "quarantine",
    "Rows that broke the contract of their source or feature table, with the reason",
    (
        Column("source", "string", "Name of the source or feature table"),
        Column("row", "string", "The row as JSON"),
        Column("reason", "string", "What is wrong with it"),
        Column("available_at", "timestamp", "When the row became known"),
    ),
    ("source", "row"),
)

REFRESHES = Table(
    "refreshes",
    "What each run computed for each feature table that has expectations",
    (
        Column("feature_table", "string", "Name of the feature table"),
        Column("as_of", "timestamp", "Data time of the run"),
        Column("since", "timestamp", "Start of what was computed, exclusive"),
        Column("rows", "bigint", "Rows that were computed"),
        Column("quarantined", "bigint", "Those that broke an expectation, now in quarantine"),
    ),
    ("feature_table", "as_of", "since"),
)

PREDICTIONS = Table(
    "predictions",
    "Every prediction ever made, with the inputs it was made from",
    (
        Column("entity", "string", "Key of the entity that was scored"),
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "Version of the registered model"),
        Column("role", "string", "champion: it was served; shadow: it was only recorded"),
        Column("predict_at", "timestamp", "Data time of the prediction"),
        Column("as_of", "timestamp", "Data time of the scoring run"),
        Column("prediction", "double", "Probability of the label, or its expected value"),
    ),
    ("entity", "model", "model_version"),
)

VALIDATION_RESULTS = Table(
    "validation_results",
    "One row a check of a model version",
    (
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "Version of the registered model"),
        Column("check", "string", "Name of the check"),
        Column("kind", "string", "compliance, quality, slice, business, infrastructure, ..."),
        Column("slice", "string", "The slice that the value was measured on; null: all rows"),
        Column("value", "double", "What was measured"),
        Column("threshold", "double", "What was demanded"),
        Column("baseline", "double", "The same measure of the champion or of a naive model"),
        Column("passed", "boolean", "Whether the check passed"),
        Column("reason", "string", "The result in words"),
        Column("as_of", "timestamp", "Data time of the model version"),
        Column("run_id", "string", "MLflow run that trained the version"),
        Column("seconds", "double", "How long the check took"),
    ),
    ("model", "model_version", "check"),
)

DEPLOYMENTS = Table(
    "deployments",
    "Every decision on a model version",
    (
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "Version of the registered model"),
        Column("decision", "string", "promoted, refused or rolled_back"),
        Column("reason", "string", "Why"),
        Column("previous_champion", "string", "The version that was champion before"),
        Column("as_of", "timestamp", "Data time of the model version"),
        Column("decided_by", "string", "Who signed the version off or rejected it; null: nobody"),
        Column("comment", "string", "What that person said"),
        Column("signed_at", "timestamp", "When, by the clock"),
    ),
    ("model", "model_version", "decision"),
)

DATA_QUALITY_METRICS = Table(
    "data_quality_metrics",
    "What came in in a window: schema, volume, freshness, nulls, duplicates, skew, labels",
    (
        Column("window_start", "timestamp", "Start of the window, exclusive"),
        Column("window_end", "timestamp", "End of the window, inclusive"),
        Column("model", "string", "Name of the registered model"),
        Column("subject", "string", "A source, or predictions"),
        Column("column", "string", "Name of the column; all: the table as a whole"),
        Column("metric", "string", "rows, least_day, idle_hours, missing, unseen, ..."),
        Column("value", "double", "What was measured"),
        Column("low", "double", "The least that is right; null: no such limit"),
        Column("high", "double", "The most that is right; null: no such limit"),
        Column("passed", "boolean", "Whether the value is within its limits"),
        Column("reason", "string", "The result in words"),
    ),
    ("window_start", "window_end", "model", "subject", "column", "metric"),
)

DRIFT_METRICS = Table(
    "drift_metrics",
    "Drift of each feature, the prediction and the label in a window, against a reference",
    (
        Column("window_start", "timestamp", "Start of the window, exclusive"),
        Column("window_end", "timestamp", "End of the window, inclusive"),
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "The champion that was watched"),
        Column("kind", "string", "feature, prediction or label"),
        Column("feature", "string", "Name of the column"),
        Column("reference", "string", "training: the champion's data; previous: the window before"),
        Column("metric", "string", "psi decides; jensen_shannon, wasserstein, ... tell how"),
        Column("value", "double", "What was measured"),
        Column("threshold", "double", "Above this it has drifted; null: not judged"),
        Column("drifted", "boolean", "Whether it has"),
    ),
    (
        "window_start",
        "window_end",
        "model",
        "model_version",
        "kind",
        "feature",
        "reference",
        "metric",
    ),
)

PERFORMANCE_METRICS = Table(
    "performance_metrics",
    "How good the predictions of a window were, as far as their labels are known",
    (
        Column("window_start", "timestamp", "Start of the window, exclusive"),
        Column("window_end", "timestamp", "End of the window, inclusive"),
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "Version that made the predictions"),
        Column("role", "string", "champion or shadow"),
        Column("slice", "string", "Rows it was measured on, such as carrier=AA; all: every row"),
        Column("metric", "string", "auc or mae; bias and calibration_error of its predictions"),
        Column("value", "double", "What was measured; null with too few rows"),
        Column("low", "double", "Lower end of the 95 % interval, by day"),
        Column("high", "double", "Upper end of it"),
        Column("baseline", "double", "The same metric of this version at validation"),
        Column("rows", "bigint", "Labelled predictions"),
        Column("as_of", "timestamp", "When it was measured: again when labels came late"),
    ),
    ("window_start", "window_end", "model", "model_version", "role", "slice", "metric"),
)

RETRAINING_DECISIONS = Table(
    "retraining_decisions",
    "Whether each monitored window called for a new model, and why",
    (
        Column("window_start", "timestamp", "Start of the window, exclusive"),
        Column("window_end", "timestamp", "End of the window, inclusive"),
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "The champion that was watched"),
        Column("retrain", "boolean", "Whether to train a new version"),
        Column("decayed", "boolean", "Whether performance has decayed"),
        Column("reason", "string", "Why"),
    ),
    ("window_start", "window_end", "model", "model_version"),
)

OPERATIONS_METRICS = Table(
    "operations_metrics",
    "How the jobs, and the endpoint if there is one, did in a window: failures, time, cost",
    (
        Column("window_start", "timestamp", "Start of the window, exclusive"),
        Column("window_end", "timestamp", "End of the window, inclusive"),
        Column("model", "string", "Name of the registered model"),
        Column("subject", "string", "Name of the job"),
        Column("metric", "string", "failed_runs, run_seconds (median), total_seconds, list_cost"),
        Column("value", "double", "What was measured"),
        Column("high", "double", "The most that is right; null: no such limit"),
        Column("passed", "boolean", "Whether the value is within its limit"),
        Column("reason", "string", "The result in words"),
    ),
    ("window_start", "window_end", "model", "subject", "metric"),
)

EVIDENCE = (
    QUARANTINE,
    REFRESHES,
    PREDICTIONS,
    VALIDATION_RESULTS,
    DEPLOYMENTS,
    DATA_QUALITY_METRICS,
    DRIFT_METRICS,
    PERFORMANCE_METRICS,
    RETRAINING_DECISIONS,
    OPERATIONS_METRICS,
)
