"""What a team declares about its data and its problem, as plain immutable values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from .platform import Platform

Task = Literal["classification", "regression"]
Refresh = Literal["batch", "stream"]


# What a default may be; a number is not a truth value.
_DEFAULTS: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "string": str,
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), int),
    **dict.fromkeys(("float", "double"), (int, float)),
}


@dataclass(frozen=True)
class Column:
    """One documented column.

    `type` is a Spark SQL type. `check` is a Spark SQL condition that a good row meets (null passes
    it, NaN does not); `nullable=False` demands a value, which NaN is not. `default` is what a
    lookup of a feature gives where it finds no value; it need not meet the `check`. A `retired`
    feature is kept up for versions that were trained with it; new ones are trained without.

    Raises:
        ValueError: the default is not of the column's type.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    check: str | None = None
    default: float | str | None = None
    retired: bool = False

    def __post_init__(self) -> None:
        kind = self.type.lower()
        fits = isinstance(self.default, _DEFAULTS.get(kind, object))
        if self.default is not None and (
            not fits or isinstance(self.default, bool) != (kind == "boolean")
        ):
            raise ValueError(
                f"Column {self.name}: its default {self.default!r} is no {self.type}. "
                "Fix: give one that is, or none."
            )

    @property
    def ddl(self) -> str:
        """The column as a line of CREATE TABLE."""
        quoted = self.description.replace("\\", "\\\\").replace("'", "\\'")
        return f"`{self.name}` {self.type} COMMENT '{quoted}'"


class Stream(ABC):
    """A way to read a source: it hands over each row once, and cannot be asked for a span."""

    @abstractmethod
    def open(self, platform: Platform) -> DataFrame:
        """Start reading: a streaming data frame with the columns of the source's contract.

        It may have two more. `_order` grows with each change of a key, and tells the last of those
        known at the same moment; `_message` is what could not be read as a row, else null.
        """

    def __call__(self, spark: SparkSession, since: datetime, until: datetime) -> DataFrame:
        """Refuse: what has been handed over is in the source's table."""
        raise TypeError("This source is a stream. Fix: read its table, which the job fills.")


@dataclass(frozen=True)
class Source:
    """A source and its data contract; becomes one bronze table of the same name.

    `read(spark, since, until)` returns the rows that became known in (since, until]; or it is a
    `Stream`, of which each run takes all that has come, whatever the run's time. The column
    `available_at` of the contract says when a row became known. `lateness` is how far behind
    its own `available_at` a row may still turn up: that much is read again each time. Of rows
    with the same keys the one known last counts, in whatever order they turn up; a source whose
    rows change over time and whose past matters has `available_at` among its keys.
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
    `keys`, `available_at` and `features`. It has to give the same rows for a span at once and for
    its parts. A row that breaks a `check` of its features goes to `quarantine`. A lookup finds the
    last row known at the time asked for; one older than `max_age` counts as missing.

    `refresh` is how a run finds what to compute: "batch" computes again what is newer than the
    last row less the `lateness` of the sources; "stream" follows the changes of the sources, and
    computes from the earliest change on, however old it is.
    """

    name: str
    description: str
    keys: tuple[str, ...]
    features: tuple[Column, ...]
    sources: tuple[str, ...]
    compute: Callable[..., DataFrame]
    lookback: timedelta = timedelta(0)
    max_age: timedelta | None = None
    owner: str = ""
    refresh: Refresh = "batch"

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, in order."""
        return [column.name for column in self.features]

    @property
    def has_expectations(self) -> bool:
        """Whether any feature has a check or must have a value."""
        return any(column.check or not column.nullable for column in self.features)


@dataclass(frozen=True)
class Retraining:
    """When monitoring asks for a new model; None switches a rule off.

    A feature drifts when its population stability index against the champion's training data is
    above `psi` and above what a stable month exceeds in a share of `false_alarms` (of windows,
    all features together). A new version is trained when at least `drifted_features` features
    drift, when the metric is worse than at validation by more than `max_decay` (in the metric's
    unit) and beyond chance, when the last training is `every` ago, or when `new_rows` labelled
    rows have come since; but not within `cool_down` of the last training, and at most `budget`
    times a year. Training by hand is always possible. Performance is measured with `min_rows`
    labels; labels may come up to `late_labels` after the end of a window.
    """

    psi: float = 0.2
    drifted_features: int | None = 3
    max_decay: float | None = 0.03
    every: timedelta | None = None
    new_rows: int | None = None
    cool_down: timedelta = timedelta(0)
    budget: int | None = None
    min_rows: int = 500
    false_alarms: float = 0.05
    late_labels: timedelta = timedelta(days=60)


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
    slice: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Gate:
    """What a version must meet before it may become the champion, beside `thresholds`.

    The version has to be better than the champion with `confidence`: of versions that are no
    better, a share of 1 - `confidence` gets through. No slice of the features in `slices` with
    at least `min_slice_rows` rows may be worse by more than `slice_margin` (in the metric's
    unit). A model that has gone more than `implausible` of the way from a constant to a perfect
    one is taken for a leak. Costs are those of acting on a classifier, in any unit.
    """

    confidence: float = 0.95
    slices: tuple[str, ...] = ()
    slice_margin: float = 0.05
    min_slice_rows: int = 300
    implausible: float = 0.95
    forbidden_features: tuple[str, ...] = ()
    forbidden_licences: tuple[str, ...] = ("AGPL", "Affero", "SSPL")  # part of a licence's name
    max_calibration_error: float = 0.1
    calibration_margin: float = 0.02  # how much worse than a champion that is off, too
    cost_of_false_alarm: float = 1.0
    cost_of_miss: float = 3.0
    max_latency_ms: float = 250.0
    min_rows_per_second: float = 1000.0
    max_memory_mb: float = 1000.0
    max_size_mb: float = 200.0
    patience: float = 120.0  # seconds for all measurements of a version in its own process
    self_approval: bool = True  # whether who has trained a version may sign it off


@dataclass(frozen=True)
class EvaluationData:
    """What a check sees: held-out later rows that neither model was trained on.

    `features` (n rows), `label` (n), `prediction` (n; a probability for a classifier) of the
    version under test, and `champion`: its predictions of the rows that it was not trained on
    either, or None when there is no champion yet.
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
    The replay on a laptop runs from the month of `replay_start` up to that of `replay_end`. A model
    is trained on the last `training_window`, or with `expanding_window` on all there is.
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
    gate: Gate = field(default_factory=Gate)
    expanding_window: bool = False
    intended_use: str = ""

    @property
    def known_features(self) -> list[Column]:
        """Request features, then each table's, in order; with those that are retired."""
        columns = list(self.request_features)
        for table in self.feature_tables:
            columns += table.features
        return columns

    @property
    def features(self) -> list[Column]:
        """The inputs of a new model, in order."""
        return [column for column in self.known_features if not column.retired]

    @property
    def feature_names(self) -> list[str]:
        """Names of the inputs of a new model, in order."""
        return [column.name for column in self.features]

    def tables_for(self, names: Iterable[str]) -> tuple[FeatureTable, ...]:
        """The feature tables that these features come from, each with those features only."""
        wanted = set(names) - {column.name for column in self.request_features}
        tables = (
            replace(table, features=tuple(c for c in table.features if c.name in wanted))
            for table in self.feature_tables
        )
        return tuple(table for table in tables if table.features)

    @property
    def lookup_keys(self) -> list[str]:
        """What the feature tables are looked up by."""
        return list(dict.fromkeys(key for table in self.feature_tables for key in table.keys))

    @property
    def metric(self) -> str:
        """`auc` for a classifier, `mae` for a regressor."""
        return "auc" if self.task == "classification" else "mae"

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger metric is a better model."""
        return self.task == "classification"
