"""Whether one model is better than another on the same rows, beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

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
        total = np.maximum(weights.sum(axis=0, dtype=np.float64), 1.0)
        gains = better @ weights.astype(np.float64) / total
    low, high = np.quantile(gains[1:], [1 - confidence, confidence])
    return Comparison(float(gains[0]), float(low), float(high))


def _weights(rows: int) -> np.ndarray:
    """How often each resample draws each row (n x m); first the rows as they are."""
    return _drawn(1 << (rows - 1).bit_length())[:rows]  # few drawings serve all sizes of slices


@cache
def _drawn(rows: int) -> np.ndarray:
    weights = np.random.default_rng(SEED).poisson(1.0, (rows, RESAMPLES + 1)).astype(np.uint8)
    weights[:, 0] = 1
    return weights


def weighted_auc(label: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC under each column of `weights` (n x m): m values; ties count half.

    The Mann-Whitney form: the weight of pairs in which the positive row has the higher score.
    """
    order = np.argsort(score, kind="stable")
    late = label[order] > 0
    positive, negative = order[late], order[~late]
    # Sums of small whole numbers: exact in 32 bits up to 2^23, and half the memory.
    lighter = np.zeros((len(negative) + 1, weights.shape[1]), np.float32)
    np.cumsum(weights[negative], axis=0, out=lighter[1:])
    lowest = np.searchsorted(score[negative], score[positive], "left")
    highest = np.searchsorted(score[negative], score[positive], "right")
    below = (lighter[lowest] + lighter[highest]) / 2  # of equal scores, half
    pairs = np.einsum("ij,ij->j", weights[positive], below, dtype=np.float64)
    total = weights[positive].sum(axis=0, dtype=np.float64) * lighter[-1]
    return pairs / np.maximum(total, 1e-12)
