"""The problem's metric, and how good a model without features would be."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import mean_absolute_error, roc_auc_score

from .team import PROBLEM


def score(label: pd.Series, prediction: np.ndarray | pd.Series) -> float:
    """The metric of the problem: AUC, or mean absolute error in the label's unit.

    Raises:
        ValueError: a prediction is not finite, or a classifier's rows hold one class only.
    """
    values = np.asarray(prediction, dtype=float)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{bad} of {len(values)} predictions are not finite numbers")
    if PROBLEM.task == "regression":
        return float(mean_absolute_error(label, values))
    if label.nunique() < 2:
        raise ValueError("all labels are the same, so there is no AUC")
    return float(roc_auc_score(label, values))


def naive_score(label: pd.Series) -> float:
    """The metric of the best constant: 0.5 for AUC, the error of the median for MAE."""
    if PROBLEM.task == "classification":
        return 0.5
    return score(label, np.full(len(label), label.median()))


def gain(value: float, baseline: float) -> float:
    """How much better `value` is than `baseline`; negative when it is worse."""
    return value - baseline if PROBLEM.higher_is_better else baseline - value
