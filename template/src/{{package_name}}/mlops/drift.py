"""Drift of a feature against its reference: binned distributions and their distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

BINS = 10
MAX_CATEGORIES = 50
_FLOOR = 1e-4  # an empty bin would make the index infinite
OTHER, MISSING = "other", "missing"


class Profile(TypedDict):
    """Reference distribution: bin edges (numeric) or categories, and the share of rows in each.

    Shares have one entry a bin or category, then `other` (categories only), then `missing`.
    """

    edges: list[float] | None
    categories: list[str] | None
    shares: list[float]


def profile(values: pd.Series) -> Profile:
    """Profile a reference sample: deciles for numbers, the most frequent values for the rest."""
    missing = float(values.isna().mean())
    present = values.dropna()
    if pd.api.types.is_numeric_dtype(values):
        edges = np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1])).tolist()
        counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
        shares = (counts / max(len(values), 1)).tolist()
        return {"edges": edges, "categories": None, "shares": [*shares, missing]}
    frequent = present.astype(str).value_counts()
    categories = sorted(frequent.index[:MAX_CATEGORIES])
    shares = [float(frequent[category]) / max(len(values), 1) for category in categories]
    other = 1.0 - missing - sum(shares)
    return {"edges": None, "categories": categories, "shares": [*shares, max(other, 0.0), missing]}


def shares(rows: DataFrame, profiles: Mapping[str, Profile]) -> dict[str, list[float]]:
    """Share of the rows in each bin of each profile, in one pass over the data."""
    bins = F.create_map(
        *(
            part
            for name, reference in profiles.items()
            for part in (F.lit(name), _bin(F.col(name), reference))
        )
    )
    counted = rows.select(F.explode(bins).alias("feature", "bin")).groupBy("feature", "bin").count()
    counts = {name: [0] * len(reference["shares"]) for name, reference in profiles.items()}
    for row in counted.collect():
        counts[row["feature"]][row["bin"]] += row["count"]
    return {name: [n / max(sum(bins), 1) for n in bins] for name, bins in counts.items()}


def _bin(value: F.Column, reference: Profile) -> F.Column:
    """Index of the value's bin in `shares` of the reference."""
    last = len(reference["shares"]) - 1
    edges, categories = reference["edges"], reference["categories"]
    if edges is not None:
        above = [(value > F.lit(edge)).cast("int") for edge in edges]
        index = sum(above, F.lit(0))
        return F.when(value.isNull() | F.isnan(value), last).otherwise(index)
    places = {category: index for index, category in enumerate(categories or [])}
    known = F.create_map(*(F.lit(part) for pair in places.items() for part in pair))
    found = known[value.cast("string")] if places else F.lit(None)
    return F.when(value.isNull(), last).otherwise(F.coalesce(found, F.lit(last - 1)))


def population_stability_index(reference: list[float], current: list[float]) -> float:
    """Population stability index of two binned distributions (shares that sum to one).

    The sum over bins of (c - r) ln(c / r): the symmetrised Kullback-Leibler divergence, as in
    Siddiqi, Credit Risk Scorecards (2006), where 0.1 is a small and 0.25 a large shift.
    """
    r = np.maximum(np.asarray(reference), _FLOOR)
    c = np.maximum(np.asarray(current), _FLOOR)
    return float(np.sum((c - r) * np.log(c / r)))
