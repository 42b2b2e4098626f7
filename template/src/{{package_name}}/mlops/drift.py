"""Drift of a feature against its reference: binned distributions and their distance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

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
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if number and present.empty:
        return {"edges": [], "categories": None, "shares": [0.0, missing]}
    if number:
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

    def count_batches(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            counted = counts(batch.to_pandas(), profiles)
            yield pa.RecordBatch.from_pydict(
                {"feature": list(counted), "bins": [bins.tolist() for bins in counted.values()]},
                pa.schema([("feature", pa.string()), ("bins", pa.list_(pa.int64()))]),
            )

    # As a Spark expression, some two hundred comparisons a row would be too long to compile.
    found = rows.select(*profiles).mapInArrow(count_batches, "feature string, bins array<bigint>")
    total = {name: np.zeros(len(reference["shares"])) for name, reference in profiles.items()}
    for row in found.collect():
        total[row["feature"]] += row["bins"]
    return {name: (bins / max(bins.sum(), 1)).tolist() for name, bins in total.items()}


def counts(frame: pd.DataFrame, profiles: Mapping[str, Profile]) -> dict[str, np.ndarray]:
    """Rows in each bin of each profile."""
    found = {}
    index: np.ndarray
    for name, reference in profiles.items():
        values, size = frame[name], len(reference["shares"])
        if reference["edges"] is not None:
            numbers = values.to_numpy(dtype=float, na_value=np.nan)
            index = np.searchsorted(reference["edges"], numbers, side="left")
            index[np.isnan(numbers)] = size - 1
        else:
            places = {name: place for place, name in enumerate(reference["categories"] or [])}
            found_at = values.astype(object).astype(str).map(places)
            index = found_at.fillna(size - 2).to_numpy(dtype=int)
            index[values.isna().to_numpy()] = size - 1
        found[name] = np.bincount(index, minlength=size)
    return found


def population_stability_index(reference: list[float], current: list[float]) -> float:
    """Population stability index of two binned distributions (shares that sum to one).

    The sum over bins of (c - r) ln(c / r): the symmetrised Kullback-Leibler divergence, as in
    Siddiqi, Credit Risk Scorecards (2006), where 0.1 is a small and 0.25 a large shift.
    """
    r = np.maximum(np.asarray(reference), _FLOOR)
    c = np.maximum(np.asarray(current), _FLOOR)
    return float(np.sum((c - r) * np.log(c / r)))
