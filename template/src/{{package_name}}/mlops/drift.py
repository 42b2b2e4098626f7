"""Drift: how far the distribution of a column has moved from its reference.

A reference is profiled once: bin edges or categories, and counts by day. What is watched later is
counted into the same bins, by day, in one pass. All distances are of those counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

BINS = 10  # of equal share, for the stability index
FINE = 100  # of equal share, for distances between distribution functions
MAX_CATEGORIES = 50
MIN_DAY_ROWS = 20  # a day with fewer does not tell whether a value stands still
BULK_ROWS = 200_000  # counted at once, by each worker
BLOCK_DAYS = 7  # a week keeps its weekend, and its weather
MOST = 3.5  # index with nine tenths of the rows in one bin of ten: a drift whatever was before
DRAWS = 1000
SEED = 2013
_FLOOR = 1e-4  # an empty bin would make the index infinite


class Profile(TypedDict):
    """Bin edges (numeric; n edges make n + 1 bins) or categories (n make n + 1 bins: `other`).

    `groups` has, for each bin, the bin of the stability index that it belongs to.
    """

    edges: list[float] | None
    categories: list[str] | None
    groups: list[int]


@dataclass(frozen=True)
class Counts:
    """Rows by period and bin of one column; a period is one day or more.

    `rows` and `sums` (p periods x b bins) hold the rows and the sum of their values, `missing` (p)
    the rows without a value; `least` and `most` (d days) are the ends of a day's numbers.
    """

    rows: np.ndarray
    sums: np.ndarray
    missing: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @property
    def days(self) -> int:
        """Number of days."""
        return len(self.least)

    def period(self, number: int) -> Counts:
        """One of the periods."""
        one = slice(number, number + 1)
        length = len(self.least) // len(self.missing)
        days = slice(number * length, (number + 1) * length)
        return Counts(
            self.rows[one], self.sums[one], self.missing[one], self.least[days], self.most[days]
        )

    @property
    def total(self) -> int:
        """Rows, with and without a value."""
        return int(self.rows.sum() + self.missing.sum())


@dataclass(frozen=True)
class Reference:
    """Bins of a column, its counts by day, and the days on which its value stood still."""

    bins: Profile
    counts: Counts
    constant_days: int


def profile(values: pd.Series) -> Profile:
    """Choose the bins of a column: hundredths of a number, the most frequent values of the rest."""
    present = values.dropna()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = present.to_numpy(dtype=float)
        if not len(numbers):
            return {"edges": [], "categories": None, "groups": [0]}
        hundredths = np.quantile(numbers, np.arange(1, FINE) / FINE)
        edges = np.unique(hundredths)
        tenths = np.unique(hundredths[FINE // BINS - 1 :: FINE // BINS])
        groups = np.searchsorted(tenths, np.append(edges, np.inf), side="left")
        return {"edges": edges.tolist(), "categories": None, "groups": groups.tolist()}
    categories = sorted(present.astype(str).value_counts().index[:MAX_CATEGORIES])
    return {"edges": None, "categories": categories, "groups": list(range(len(categories) + 1))}


def count(values: pd.Series, bins: Profile, day: np.ndarray, days: int, period: int = 1) -> Counts:
    """Count a column (n values) into its bins, by `day` (n numbers from 0 to `days` - 1).

    `period` days, of which `days` is a multiple, are counted together.
    """
    size, periods = len(bins["groups"]), days // period
    rows, sums = np.zeros((periods, size), dtype=int), np.zeros((periods, size))
    least, most = np.full(days, np.inf), np.full(days, -np.inf)
    gone = values.isna().to_numpy()
    at = day[~gone]
    if bins["edges"] is not None:
        numbers = values.to_numpy(dtype=float, na_value=np.nan)[~gone]
        # Sorted values are searched for the edges: ten times as fast as edges for each value.
        numbers_of = numbers[np.argsort((at // period).astype(np.int16), kind="stable")]
        parts = np.split(numbers_of, np.cumsum(np.bincount(at // period, minlength=periods))[:-1])
        for place, part in enumerate(map(np.sort, parts)):
            ends = np.append(np.searchsorted(part, bins["edges"], side="right"), len(part))
            rows[place] = np.diff(ends, prepend=0)
            filled = rows[place] > 0
            if filled.any():
                sums[place, filled] = np.add.reduceat(part, (ends - rows[place])[filled])
        np.minimum.at(least, at, numbers)
        np.maximum.at(most, at, numbers)
    else:
        places = {name: place for place, name in enumerate(bins["categories"] or [])}
        codes, names = pd.factorize(values[~gone])
        known = np.array([places.get(str(name), size - 1) for name in names], dtype=int)
        if len(names):
            cell = at // period * size + known[codes]
            rows = np.bincount(cell, minlength=periods * size).reshape(periods, size)
    missing = np.bincount(day[gone] // period, minlength=periods)
    return Counts(rows, sums, missing, least, most)


def add(first: Counts, second: Counts) -> Counts:
    """Counts of two parts of the same days."""
    return Counts(
        first.rows + second.rows,
        first.sums + second.sums,
        first.missing + second.missing,
        np.minimum(first.least, second.least),
        np.maximum(first.most, second.most),
    )


def count_rows(
    rows: DataFrame,
    profiles: Mapping[str, Profile],
    time: str,
    start: int,
    days: int,
    period: int = 1,
) -> dict[str, Counts]:
    """Count each profiled column by day, in one pass over the data.

    A day is 24 hours from `start` (seconds since 1970) of the column `time`; rows outside of the
    `days` count to the first or the last one. `period` days are counted together.
    """

    def count_batches(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import pyarrow as pa

        total: dict[str, Counts] = {}
        for batch in _in_bulk(batches):
            seconds = batch.column(0).to_numpy()
            day = np.clip((seconds - start) // 86_400, 0, days - 1).astype(np.int64)
            for place, (name, bins) in enumerate(profiles.items(), start=1):
                column = batch.column(place)
                if pa.types.is_string(column.type):
                    column = column.dictionary_encode()  # text is looked at once a value
                found = count(column.to_pandas(), bins, day, days, period)
                total[name] = add(total[name], found) if name in total else found
        flat = {name: _flat(counts) for name, counts in total.items()}
        yield pa.RecordBatch.from_pydict(
            {"column": list(flat), "numbers": list(flat.values())},
            pa.schema([("column", pa.string()), ("numbers", pa.list_(pa.float64()))]),
        )

    # As a Spark expression, some two hundred comparisons a row would be too long to compile.
    asked = rows.selectExpr(f"unix_timestamp(`{time}`)", *(f"`{name}`" for name in profiles))
    found = asked.mapInArrow(count_batches, "column string, numbers array<double>")
    sizes = {name: (days // period, len(bins["groups"])) for name, bins in profiles.items()}
    total = {name: _empty(days, *shape) for name, shape in sizes.items()}
    for row in found.collect():
        name = row["column"]
        part = _unflat(np.array(row["numbers"]), days, *sizes[name])
        total[name] = add(total[name], part)
    return total


def _in_bulk(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join small batches: what is done once a batch costs more than what is done once a row."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= BULK_ROWS:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _flat(counts: Counts) -> np.ndarray:
    parts = (counts.rows, counts.sums, counts.missing, counts.least, counts.most)
    return np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])


def _unflat(numbers: np.ndarray, days: int, periods: int, size: int) -> Counts:
    cells = periods * size
    ends = [cells, 2 * cells, 2 * cells + periods, 2 * cells + periods + days]
    rows, sums, missing, least, most = np.split(numbers, ends)
    shape = (periods, size)
    return Counts(rows.reshape(shape), sums.reshape(shape), missing, least, most)


def _empty(days: int, periods: int, size: int) -> Counts:
    nothing, ends = np.zeros((periods, size)), np.full(days, np.inf)
    return Counts(nothing, nothing, np.zeros(periods), ends, -ends)


def to_json(bins: Profile, counts: Counts) -> dict[str, Any]:
    """A profile and its counts as plain values; days without a row are left out."""
    seen = counts.rows.sum(axis=1) + counts.missing
    kept = seen > 0
    return {
        **bins,
        "rows": counts.rows[kept].astype(int).tolist(),
        "sums": counts.sums[kept].sum(axis=0).tolist(),
        "missing": counts.missing[kept].astype(int).tolist(),
        "constant_days": int(((counts.least == counts.most) & (seen >= MIN_DAY_ROWS)).sum()),
    }


def from_json(saved: Mapping[str, Any]) -> Reference:
    """What `to_json` gave; the ends of the values were not kept."""
    bins: Profile = {
        "edges": saved["edges"],
        "categories": saved["categories"],
        "groups": saved["groups"],
    }
    rows = np.array(saved["rows"], dtype=float).reshape(-1, len(bins["groups"]))
    missing = np.array(saved["missing"], dtype=float)
    counts = Counts(rows, np.array([saved["sums"]], dtype=float), missing, missing, missing)
    return Reference(bins, counts, saved["constant_days"])


# -- distances of two binned distributions: counts or shares, of the same bins ---------------------
def _shares(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, dtype=float)
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1e-300)


def population_stability_index(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Population stability index (b bins, or m x b: m values).

    The sum over bins of (c - r) ln(c / r): the symmetrised Kullback-Leibler divergence, as in
    Siddiqi, Credit Risk Scorecards (2006), where 0.1 is a small and 0.25 a large shift.
    """
    r = np.maximum(_shares(reference), _FLOOR)
    c = np.maximum(_shares(current), _FLOOR)
    return np.sum((c - r) * np.log(c / r), axis=-1)


def jensen_shannon(reference: np.ndarray, current: np.ndarray) -> float:
    """Jensen-Shannon distance, 0 to 1: the root of the divergence of Lin (1991), base 2."""
    r, c = _shares(reference), _shares(current)
    middle = (r + c) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(p > 0, p * np.log2(p / middle), 0.0) for p in (r, c)]
    return float(np.sqrt(max(np.sum(terms) / 2, 0.0)))


def kolmogorov_smirnov(reference: np.ndarray, current: np.ndarray) -> float:
    """Largest distance of the two distribution functions, for bins in order of their values.

    The two-sample statistic of Smirnov (1939); of binned data it is that at the bins' edges.
    """
    return float(np.abs(np.cumsum(_shares(reference)) - np.cumsum(_shares(current))).max())


def wasserstein(
    values: np.ndarray, reference: np.ndarray, their_values: np.ndarray, current: np.ndarray
) -> float:
    """First Wasserstein distance, in the column's unit, of weighted values (n, n and m, m).

    The area between the distribution functions (Vallender, 1974).
    """
    r, c = np.asarray(reference) > 0, np.asarray(current) > 0
    at = np.concatenate([np.asarray(values)[r], np.asarray(their_values)[c]])
    step = np.concatenate([_shares(reference)[r], -_shares(current)[c]])
    order = np.argsort(at, kind="stable")
    apart = np.cumsum(step[order])[:-1]
    return float(np.sum(np.abs(apart) * np.diff(at[order])))


def chi_squared(reference: np.ndarray, current: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic of homogeneity of two rows of counts (1900), and Cramer's V (1946).

    V, 0 to 1, is the effect size: unlike the statistic it does not grow with the rows.
    """
    table = np.array([reference, current], dtype=float)
    table = table[:, table.sum(axis=0) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return statistic, float(np.sqrt(statistic / table.sum()))


def coarse(bins: Profile, rows: np.ndarray) -> np.ndarray:
    """Counts (... x bins) as counts in the bins of the stability index."""
    starts = np.flatnonzero(np.diff(bins["groups"], prepend=-1))
    return np.add.reduceat(rows, starts, axis=-1)


def distances(bins: Profile, reference: Counts, current: Counts) -> dict[str, float]:
    """Every distance of two counts of a column; nothing when one of them has no value."""
    r, c = reference.rows.sum(axis=0), current.rows.sum(axis=0)
    if not r.sum() or not c.sum():
        return {}
    few, many = coarse(bins, r), coarse(bins, c)
    found = {
        "psi": float(population_stability_index(few, many)),
        "jensen_shannon": jensen_shannon(few, many),
    }
    if bins["edges"] is None:
        statistic, effect = chi_squared(few, many)
        return found | {"chi_squared": statistic, "cramers_v": effect}
    means = [part.sums.sum(axis=0) / np.maximum(n, 1) for part, n in ((reference, r), (current, c))]
    return found | {
        "kolmogorov_smirnov": kolmogorov_smirnov(r, c),
        "wasserstein": wasserstein(means[0], r, means[1], c),
    }


# -- how far a stable column moves by itself -------------------------------------------------------
def _block(days: int, length: int) -> int:
    """Days of a block: a week, unless that leaves too few of them."""
    return max(min(BLOCK_DAYS, length, days // 10), 1)


@lru_cache(maxsize=16)
def block_draws(days: int, length: int, seed: int = SEED) -> np.ndarray:
    """How often each of `days` is in each of `DRAWS` windows of `length` days (DRAWS x days).

    Windows are put together from whole blocks of days: the circular block bootstrap of Politis
    and Romano (1992), since neighbouring days are alike.
    """
    random = np.random.default_rng(seed)
    block = _block(days, length)
    blocks = -(-length // block)
    starts = random.integers(0, days, (DRAWS, blocks, 1))
    chosen = ((starts + np.arange(block)) % days).reshape(DRAWS, -1)[:, :length]
    weights = np.zeros((DRAWS, days))
    np.add.at(weights, (np.arange(DRAWS)[:, None], chosen), 1.0)
    return weights


def stable_limits(
    profiles: Mapping[str, Profile],
    reference: Mapping[str, np.ndarray],
    length: int,
    error: float,
    earlier: int | None = None,
) -> dict[str, float]:
    """Stability index that a stable window of `length` days seldom exceeds, for each column.

    `reference` has the counts of each column (days x bins). Two windows are drawn from it again
    and again: one of `length` days, one of `earlier` days (by default as many as the reference
    has, since it is a sample as well). Over all columns together a share of `error` of windows
    exceeds a limit (Bonferroni's correction). What is drawn rests on a few independent blocks
    only; so, as for the variance of a small sample, the limit is widened by the ratio of an
    F quantile to one of chi-squared.
    """
    from scipy.special import chdtri, fdtri

    share = 1 - error / max(len(reference), 1)
    limits = {}
    for name, rows in reference.items():
        days = coarse(profiles[name], np.asarray(rows, dtype=float))
        if not days.sum():
            continue
        blocks = max(len(days) / _block(len(days), length) - 1, 1)
        wider = fdtri(1, blocks, share) / chdtri(1, 1 - share)
        base = block_draws(len(days), earlier or len(days), SEED + 1) @ days
        drawn = block_draws(len(days), length) @ days
        values = population_stability_index(base, drawn)
        limits[name] = min(float(np.quantile(values, share) * wider), MOST)
    return limits
