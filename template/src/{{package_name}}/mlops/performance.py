"""How good served predictions were, with the uncertainty of the figure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
_BINS = 10


@dataclass(frozen=True)
class Estimate:
    """A figure of some rows with its interval; all None with too few rows."""

    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


def metric(label: pd.Series, prediction: pd.Series, day: pd.Series, task: str) -> Estimate:
    """The problem's metric of n predictions, with an interval of `CONFIDENCE`.

    AUC has the variance of DeLong, DeLong and Clarke-Pearson (1988), mean absolute error that of
    a mean. Rows of one `day` share its weather, so what they add to the variance is summed by day
    first: Obuchowski, Nonparametric analysis of clustered ROC curve data (1997).
    """
    if task == "classification":
        if label.nunique() < 2:  # no AUC
            return Estimate(len(label))
        return _interval(*_auc(label, prediction), day)
    errors = (prediction - label).abs()
    return _interval(float(errors.mean()), (errors - errors.mean()) / len(errors), day)


def bias(label: pd.Series, prediction: pd.Series, day: pd.Series) -> Estimate:
    """Mean prediction minus mean label: calibration in the large."""
    apart = prediction - label
    return _interval(float(apart.mean()), (apart - apart.mean()) / len(apart), day)


def calibration_error(label: pd.Series, prediction: pd.Series) -> Estimate:
    """Mean distance of predicted and observed means over ten bins of equal size.

    Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning
    (2015); of a regression, in the label's unit.
    """
    tenth = pd.qcut(prediction.rank(method="first"), _BINS, labels=False)
    means = pd.DataFrame({"p": prediction, "y": label}).groupby(tenth).mean()
    return Estimate(len(label), float((means["p"] - means["y"]).abs().mean()))


def _auc(label: pd.Series, prediction: pd.Series) -> tuple[float, pd.Series]:
    """AUC, and what each row adds to it: its mean win over the other class, centred and scaled."""
    positive = label > 0
    rank = prediction.rank()
    ones, zeros = prediction[positive], prediction[~positive]
    won = pd.Series(0.0, index=prediction.index)
    won[positive] = (rank[positive] - ones.rank()) / len(zeros)
    won[~positive] = 1 - (rank[~positive] - zeros.rank()) / len(ones)
    value = float(won[positive].mean())
    return value, (won - value) / np.where(positive, len(ones), len(zeros))


def _interval(value: float, influence: pd.Series, day: pd.Series) -> Estimate:
    by_day = influence.groupby(day).sum()
    days = max(len(by_day), 2)
    error = float(np.sqrt(np.sum(by_day**2) * days / (days - 1)))
    far = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * error
    return Estimate(len(influence), value, value - far, value + far)
