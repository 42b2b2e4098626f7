"""The shape of a model's answer."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_column(answer: Any) -> np.ndarray:
    """One number a row: the probability of the positive class, or the expected value.

    A classifier answers with n rows of class probabilities, a regressor with n values.
    """
    values = np.asarray(answer, dtype=float)
    return values[:, -1] if values.ndim == 2 else values
