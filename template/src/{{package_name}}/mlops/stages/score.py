"""Score new rows with the champion; keep each prediction for good."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from ..datasets import observations, require_fresh
from ..platform import Platform, Span
from ..registry import CHAMPION, SHADOW, Registry
from ..tables import PREDICTIONS
from ..team import PROBLEM
from . import TaskValues, entry_point

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run(
    platform: Platform,
    *,
    as_of: datetime,
    model_name: str | None = None,
    since: datetime | None = None,
) -> TaskValues:
    """Score the predictions due in (since, as_of] that have not been made yet.

    The window is `scoring_window` of the problem unless `since` is given. A version under the
    alias `shadow` is scored on the same rows, and only recorded.
    """
    registry = Registry(platform, model_name)
    champion = require_champion(registry)
    since = since or as_of - PROBLEM.scoring_window
    require_fresh(platform, as_of)
    predict(platform, registry, observations(platform, since, as_of), since, as_of)
    return {"model_version": champion}


def require_champion(registry: Registry) -> str:
    """The version that serves.

    Raises:
        LookupError: there is none, or it needs a feature that is gone.
    """
    champion = registry.at(CHAMPION)
    if champion is None:
        raise LookupError(
            f"{registry.model} has no champion, so there is nothing to score with. Fix: run the "
            "training job; its version becomes champion when it passes the deployment job."
        )
    registry.require_features(champion)
    return champion


def predict(
    platform: Platform, registry: Registry, rows: DataFrame, since: datetime, as_of: datetime
) -> None:
    """Score observations of (since, as_of] that have no prediction yet, and keep the answers."""
    champion, shadow = require_champion(registry), registry.at(SHADOW)
    platform.create(PREDICTIONS.name, PREDICTIONS.columns, PREDICTIONS.description)
    _predict(platform, registry, rows, champion, "champion", since, as_of)
    if shadow is not None and shadow != champion:
        _predict(platform, registry, rows, shadow, "shadow", since, as_of)


def _predict(
    platform: Platform,
    registry: Registry,
    rows: DataFrame,
    version: str,
    role: str,
    since: datetime,
    as_of: datetime,
) -> None:
    """Add the predictions of one version for the rows that lack one."""
    made = platform.span(PREDICTIONS.name, "predict_at")
    if made and made[1] > since:
        # A served prediction stands, whatever version is champion when a run is repeated.
        same = F.col("role") == role
        if role != "champion":
            same = F.col("model_version") == version
        done = platform.read(PREDICTIONS.name).where(F.col("model") == registry.model)
        done = done.where(same & (F.col("predict_at") > since))
        entity = F.col("entity").alias(PROBLEM.entity_key)
        rows = rows.join(done.select(entity), PROBLEM.entity_key, "left_anti")
    rows = rows.select(
        F.col(PROBLEM.entity_key).alias("entity"),
        F.lit(registry.model).alias("model"),
        F.lit(version).alias("model_version"),
        F.lit(role).alias("role"),
        "predict_at",
        F.lit(as_of).alias("as_of"),
        *PROBLEM.feature_names,
    )
    platform.score_into(
        PREDICTIONS.name,
        rows,
        registry.uri(version),
        PROBLEM.feature_names,
        PREDICTIONS.keys,
        Span("predict_at", since, as_of),
    )


main = entry_point(run)
