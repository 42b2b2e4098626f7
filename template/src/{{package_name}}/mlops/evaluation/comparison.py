"""Whether one model is better than another on the same rows, beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 200
SEED = 2013


@dataclass(frozen=True)
class Comparison:
    """How much better the first model is: the gain and its one-sided bounds.

    `low` is exceeded with the stated confidence, and `high` is not.
    """

    gain: float
    low: float
    high: float


def compare(
    label: np.ndarray, ours: np.ndarray, theirs: np.ndarray, task: str, confidence: float
) -> Comparison:
    """Paired bootstrap of the gain in AUC, or the loss in mean absolute error (n values each).

    Rows are drawn again with replacement, the same rows for both models, so that what is hard
    for both counts for neither: Efron and Tibshirani, An Introduction to the Bootstrap (1993),
    chapters 13 and 16. Draws are Poisson weights of mean one (Hanley and MacGibbon, Creating
    non-parametric bootstrap samples using Poisson frequencies, 2006), so that all resamples are
    one matrix. The bounds are percentiles: models of equal skill get `low` > 0 in a share of
    1 - `confidence` of comparisons.

    Raises:
        ValueError: a classifier's rows hold one class only.
    """
    weights = _weights(len(label))
    if task == "classification":
        if len(np.unique(label)) < 2:
            raise ValueError("all labels are the same, so there is no AUC to compare")
        gains = weighted_auc(label, ours, weights) - weighted_auc(label, theirs, weights)
    else:
        better = np.abs(theirs - label) - np.abs(ours - label)
        gains = weights @ better / np.maximum(weights.sum(axis=1), 1.0)
    low, high = np.quantile(gains[1:], [1 - confidence, confidence])
    return Comparison(float(gains[0]), float(low), float(high))


@lru_cache(maxsize=1)
def _weights(rows: int) -> np.ndarray:
    """How often each resample draws each row (m x n); first the rows as they are."""
    random = np.random.default_rng(SEED)
    weights = random.poisson(1.0, (RESAMPLES + 1, rows)).astype(np.float32)
    weights[0] = 1.0
    return weights


def weighted_auc(label: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC under each row of `weights` (m x n): m values; ties count half.

    The Mann-Whitney form: the weight of pairs in which the positive row has the higher score.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # a group for each value
    positive = weights[:, order] * (label[order] > 0)
    negative = weights[:, order] - positive
    positive = np.add.reduceat(positive, starts, axis=1)
    negative = np.add.reduceat(negative, starts, axis=1)
    below = np.cumsum(negative, axis=1, dtype=np.float64) - negative
    pairs = (positive * (below + negative / 2)).sum(axis=1)
    total = positive.sum(axis=1, dtype=np.float64) * negative.sum(axis=1, dtype=np.float64)
    return pairs / np.maximum(total, 1e-12)
