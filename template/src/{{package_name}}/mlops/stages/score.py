"""Score new rows with the champion; keep each prediction for good."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import functions as F

from ..datasets import OBSERVATIONS, require_fresh
from ..platform import Platform, Span, Unscored, time_of
from ..registry import CHAMPION, SHADOW, Registry
from ..tables import PREDICTIONS
from ..team import PROBLEM
from . import TaskValues, entry_point
from .ingest import BEGINNING


def run(
    platform: Platform,
    *,
    as_of: datetime,
    model_name: str | None = None,
    since: datetime | None = None,
) -> TaskValues:
    """Score the predictions due in (since, as_of] that have not been made yet.

    The window is `scoring_window` of the problem, and reaches back to the last prediction when
    runs were left out, unless `since` is given. A version under the alias `shadow` is scored on the
    same rows, and only recorded.
    """
    registry = Registry(platform, model_name)
    champion = require_champion(registry)
    require_fresh(platform, as_of)
    window = as_of - PROBLEM.scoring_window
    since = since or min(window, last_scored(platform, registry.model) or window)
    predict(platform, registry, since, as_of, as_of)
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
    registry.inputs(champion)
    return champion


def last_scored(platform: Platform, model: str) -> datetime | None:
    """When the last prediction of the model's champions was due."""
    ends = platform.span(PREDICTIONS.name, "predict_at")
    if ends is None:
        return None
    theirs = (F.col("model") == model) & (F.col("role") == "champion")
    # Of several models this one may have come less far than the others; else a few files tell.
    for since in (ends[1] - PROBLEM.scoring_window, BEGINNING):
        rows = platform.read(PREDICTIONS.name, Span("predict_at", since, ends[1]))
        last = time_of(rows.where(theirs), F.max("predict_at"))
        if last is not None:
            return last
    return None


def predict(
    platform: Platform, registry: Registry, since: datetime, until: datetime, as_of: datetime
) -> None:
    """Score observations of (since, until] that have no prediction yet, and keep the answers.

    `as_of` is the time of the run, which is written down.
    """
    champion, shadow = require_champion(registry), registry.at(SHADOW)
    platform.create(PREDICTIONS.name, PREDICTIONS.columns, PREDICTIONS.description)
    due = Span("predict_at", since, until)
    _predict(platform, registry, champion, "champion", due, as_of)
    if shadow is not None and shadow != champion:
        _predict(platform, registry, shadow, "shadow", due, as_of)


def _predict(
    platform: Platform,
    registry: Registry,
    version: str,
    role: str,
    span: Span,
    as_of: datetime,
) -> None:
    """Add the predictions of one version for the rows that lack one."""
    inputs, done = registry.inputs(version), None
    made = platform.span(PREDICTIONS.name, "predict_at")
    if made and made[1] > span.since:
        # A served prediction stands, whatever version is champion when a run is repeated.
        same = F.col("role") == role
        if role != "champion":
            same = F.col("model_version") == version
        done = platform.read(PREDICTIONS.name).where(F.col("model") == registry.model)
        done = done.where(same & (F.col("predict_at") > span.since))
    said: dict[str, str | datetime]
    said = {"model": registry.model, "model_version": version, "role": role, "as_of": as_of}
    rows = Unscored(OBSERVATIONS, span, PROBLEM.entity_key, done)
    platform.score_into(PREDICTIONS, rows, registry.uri(version), inputs, said)


main = entry_point(run)
