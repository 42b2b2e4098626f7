"""Whether what came in is what usually comes in: volume, freshness, nulls, categories, skew.

All functions are pure. Limits come from the project's own history: the days before the window,
or the champion's training data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from .drift import MIN_DAY_ROWS, Counts, Reference
from .platform import naive

MIN_HISTORY = 14  # days before a source is judged by its own past
USUAL_DAYS = 0.9  # share of past days with rows that makes a source a daily one
LEAST_VOLUME = 0.5  # of a slow day (the fifth percentile of the past)
BAD_ROWS = 0.01  # share of rows in quarantine, or twice what is usual
MARGIN = 0.02  # share of rows above the worst day of the training data
SKEW = 0.001  # share of rows
LABELLED = 0.8  # share of predictions, or of what is usual
ALL = "all"


@dataclass(frozen=True)
class Finding:
    """One measurement of a table or a column (`ALL`: the table), and the limits it must keep."""

    subject: str
    column: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def row(self) -> tuple[object, ...]:
        """As columns of data_quality_metrics, after the window."""
        place = (self.subject, self.column, self.metric)
        return (*place, self.value, self.low, self.high, self.passed, self.reason)

    @property
    def passed(self) -> bool:
        """Whether the value is within its limits."""
        above = self.low is None or self.value >= self.low
        return above and (self.high is None or self.value <= self.high)


def source(name: str, per_hour: pd.DataFrame, since: datetime, as_of: datetime) -> list[Finding]:
    """Volume and freshness of a source; `per_hour` has `hour` and `rows` (all until `as_of`)."""
    hours = per_hour[per_hour["hour"] < naive(as_of)]
    inside = hours["hour"] >= naive(since)
    rows = float(hours["rows"][inside].sum())
    found = [Finding(name, ALL, "rows", rows)]
    # Days of 24 hours, counted back from the end of the window: 0 is the last one.
    age = (naive(as_of) - hours["hour"]).dt.total_seconds().floordiv(86_400).astype(int)
    days = hours["rows"].groupby(age).sum().reindex(range(int(age.max() + 1) if len(age) else 0))
    length = max((as_of - since) // timedelta(days=1), 1)
    window, past = days[:length].fillna(0.0), days[length:].fillna(0.0)
    if len(past) < MIN_HISTORY or (past > 0).mean() < USUAL_DAYS:
        return found  # a table of facts, or too new to say what is usual
    window = window.reindex(range(length), fill_value=0.0)
    slow = LEAST_VOLUME * float(np.quantile(past, 0.05))
    least = naive(as_of) - timedelta(days=int(window.idxmin()) + 1)
    text = f"{window.min():.0f} rows in the 24 hours from {least:%Y-%m-%d %H:%M}"
    found.append(Finding(name, ALL, "least_day", float(window.min()), low=slow, reason=text))
    last = hours["hour"].max() + timedelta(hours=1)
    idle = max((naive(as_of) - last) / timedelta(hours=1), 0.0)
    busy = np.unique(hours["hour"][~inside].to_numpy(dtype="datetime64[h]"))
    gaps = np.diff(busy).astype(float)  # hours between hours with a row
    usual = 2 * max(float(np.quantile(gaps, 0.99)), 12.0)
    text = f"the last row became known about {last:%Y-%m-%d %H:%M}"
    found.append(Finding(name, ALL, "idle_hours", float(idle), high=usual, reason=text))
    return found


def quarantined(name: str, bad: pd.DataFrame, good: pd.DataFrame, since: datetime) -> list[Finding]:
    """Share of a source's rows that broke its contract; `bad` has `hour`, `reason`, `rows`."""
    found = []
    copies = bad["reason"].str.contains("duplicate key", regex=False)
    for metric, rows in (("duplicates", bad[copies]), ("contract", bad[~copies])):
        shares = []
        for later in (False, True):
            count = rows["rows"][(rows["hour"] >= naive(since)) == later].sum()
            other = good["rows"][(good["hour"] >= naive(since)) == later].sum()
            shares.append(float(count / max(count + other, 1)))
        inside = rows[rows["hour"] >= naive(since)].groupby("reason")["rows"].sum()
        most = f"{inside.max()} rows: {inside.idxmax()}" if len(inside) else "no row"
        limit = max(BAD_ROWS, 2 * shares[0])
        found.append(Finding(name, ALL, metric, shares[1], high=limit, reason=most))
    return found


def column(subject: str, name: str, reference: Reference, counts: Counts) -> list[Finding]:
    """Nulls, unseen categories and standstill of a column, against its training data by day."""
    rows, missing = reference.counts.rows, reference.counts.missing
    seen = rows.sum(axis=1) + missing

    def limit(bad: np.ndarray) -> float:
        enough = seen >= MIN_DAY_ROWS
        return float(np.max(bad[enough] / seen[enough], initial=0.0)) + MARGIN

    total = max(counts.total, 1)
    value = float(counts.missing.sum() / total)
    text = f"{value:.1%} of {counts.total} rows have no value"
    found = [Finding(subject, name, "missing", value, high=limit(missing), reason=text)]
    if reference.bins["edges"] is None:
        value = float(counts.rows[:, -1].sum() / total)
        text = f"{value:.1%} of {counts.total} rows have a category that training did not see"
        found.append(Finding(subject, name, "unseen", value, high=limit(rows[:, -1]), reason=text))
    elif reference.constant_days <= 0.05 * len(missing):
        still = int((counts.least == counts.most).sum())
        still *= int(counts.rows.sum() >= MIN_DAY_ROWS * counts.days)
        text = f"one and the same value on {still} of {counts.days} days"
        found.append(Finding(subject, name, "constant_days", float(still), high=1.0, reason=text))
    return found


def skew(subject: str, shares: Mapping[str, float]) -> list[Finding]:
    """Share of predictions whose input is not what training would see for the same entity.

    `shares` has it for each feature, or nothing when every row is the same.
    """
    found = [
        Finding(subject, name, "skew", share, high=SKEW, reason=f"{share:.1%} of rows differ")
        for name, share in shares.items()
    ]
    return found or [Finding(subject, ALL, "skew", 0.0, high=SKEW, reason="every row is the same")]


def labelled(subject: str, made: int, known: int, earlier: Iterable[float]) -> Finding:
    """Share of the predictions whose label has arrived, against `earlier` windows."""
    value, past = known / max(made, 1), list(earlier)
    low = LABELLED * float(np.median(past)) if past else LABELLED
    text = f"{known} of {made} predictions have a label"
    return Finding(subject, ALL, "labelled", value, low=low, reason=text)
