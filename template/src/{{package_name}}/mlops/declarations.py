"""What a team declares about its data and its problem, as plain immutable values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Column:
    """One documented column.

    `type` is a Spark SQL type. `check` is a Spark SQL condition that a good row meets (null passes
    it); `nullable=False` demands a value.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    check: str | None = None

    @property
    def ddl(self) -> str:
        """The column as a line of CREATE TABLE."""
        quoted = self.description.replace("\\", "\\\\").replace("'", "\\'")
        return f"`{self.name}` {self.type} COMMENT '{quoted}'"


@dataclass(frozen=True)
class Source:
    """A source and its data contract; becomes one bronze table of the same name.

    `read(spark, since, until)` returns the rows that became known in (since, until]. The column
    `available_at` of the contract says when a row became known. `lateness` is how far behind
    its own `available_at` a row may still turn up: that much is read again each time.
    """

    name: str
    description: str
    read: Callable[[SparkSession, datetime, datetime], DataFrame]
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    lateness: timedelta = timedelta(0)


@dataclass(frozen=True)
class FeatureTable:
    """A feature table: its keys, when a row became known, its features and how to compute them.

    `compute(since, until, **sources)` gets the bronze tables named in `sources`, holding what was
    known in (since - lookback, until], and returns the rows that became known in (since, until]:
    `keys`, `available_at` and `features`. A lookup finds the last row known at the time asked
    for; one older than `max_age` counts as missing.
    """

    name: str
    description: str
    keys: tuple[str, ...]
    features: tuple[Column, ...]
    sources: tuple[str, ...]
    compute: Callable[..., DataFrame]
    lookback: timedelta = timedelta(0)
    max_age: timedelta | None = None

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, in order."""
        return [column.name for column in self.features]


@dataclass(frozen=True)
class Retraining:
    """When monitoring asks for a new model.

    A feature drifts when its population stability index against the champion's training data is
    above `psi`. Retraining starts when at least `drifted_features` features drift, or when the
    metric is worse than at validation by more than `max_decay` (in the metric's unit).
    """

    psi: float = 0.2
    drifted_features: int = 3
    max_decay: float = 0.03
    min_rows: int = 500


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check on a model version."""

    check: str
    passed: bool
    reason: str
    kind: str = "quality"
    value: float | None = None
    threshold: float | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class EvaluationData:
    """What a check sees: held-out later rows that neither model was trained on.

    `features` (n rows), `label` (n), `prediction` (n; a probability for a classifier) of the
    version under test, and `champion` (n, or None when there is no champion yet).
    """

    features: pd.DataFrame
    label: pd.Series
    prediction: pd.Series
    champion: pd.Series | None
    model: Any = None


@dataclass(frozen=True)
class Problem:
    """The machine learning problem.

    `observations(**sources)` gives one row an entity to predict: `entity_key`, `predict_at` (when
    the prediction is made), the lookup keys of the feature tables and the request features.
    `labels(**sources)` gives `entity_key`, `label` and `known_at` (when the label became known).
    The replay on a laptop runs from the month of `replay_start` up to that of `replay_end`.
    """

    name: str
    description: str
    task: Task
    entity_key: str
    observations: Callable[..., DataFrame]
    observation_sources: tuple[str, ...]
    labels: Callable[..., DataFrame]
    label_sources: tuple[str, ...]
    request_features: tuple[Column, ...]
    feature_tables: tuple[FeatureTable, ...]
    training_window: timedelta
    holdout: timedelta
    scoring_window: timedelta
    monitoring_window: timedelta
    thresholds: Mapping[str, float]
    replay_start: date
    replay_end: date
    retraining: Retraining = field(default_factory=Retraining)

    @property
    def features(self) -> list[Column]:
        """The model's inputs, in order: request features, then each table's features."""
        columns = list(self.request_features)
        for table in self.feature_tables:
            columns += table.features
        return columns

    @property
    def feature_names(self) -> list[str]:
        """Names of the model's inputs, in order."""
        return [column.name for column in self.features]

    @property
    def metric(self) -> str:
        """`auc` for a classifier, `mae` for a regressor."""
        return "auc" if self.task == "classification" else "mae"

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger metric is a better model."""
        return self.task == "classification"
