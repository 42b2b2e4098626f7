"""The version under test, with what its checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..declarations import EvaluationData
from ..platform import naive
from ..predictions import as_column
from ..registry import CHAMPION, PREVIOUS, Registry
from ..team import PROBLEM

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MIN_ROWS = 500  # fewer later rows than this cannot tell two models apart


@dataclass(frozen=True)
class Candidate:
    """A version, its loaded model, and the later rows that it is judged on.

    `champion` is the version to beat, or None when there is none.
    """

    registry: Registry
    version: str
    found: ModelVersion
    model: Any
    data: EvaluationData
    champion: str | None


def rival(registry: Registry, version: str) -> str | None:
    """The version that this one has to beat: the champion, or the one before if that is itself.

    It is itself when a promotion was cut short after the alias had moved.
    """
    champion = registry.at(CHAMPION)
    return registry.at(PREVIOUS) if champion == version else champion


def load_candidate(registry: Registry, version: str, frame: pd.DataFrame) -> Candidate:
    """Load the version and predict the rows of `frame` (the columns of `labelled`) with it."""
    model = registry.load(version)
    features = frame[PROBLEM.feature_names]
    champion = rival(registry, version)
    data = EvaluationData(
        features=features,
        label=frame["label"],
        prediction=_predict(model, features),
        champion=None if champion is None else _by_champion(registry, champion, frame),
        model=model,
    )
    return Candidate(registry, version, registry.get(version), model, data, champion)


def _by_champion(registry: Registry, champion: str, frame: pd.DataFrame) -> pd.Series | None:
    """Predict with the champion the rows that it was not trained on; None if it cannot be used.

    A champion that cannot be read is no reason to promote: the check that compares then fails.
    """
    unseen = naive(datetime.fromisoformat(registry.tag(champion, "trained_until")))
    rows = frame[frame["predict_at"] > unseen]
    try:
        return _predict(registry.load(champion), rows[registry.inputs(champion)])
    except Exception:
        return None


def _predict(model: Any, features: pd.DataFrame) -> pd.Series:
    return pd.Series(as_column(model.predict(features)), index=features.index)
