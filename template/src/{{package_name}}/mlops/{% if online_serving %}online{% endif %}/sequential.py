"""A sequential test on outcomes: may be looked at after every label, and stopped at any look.

The mixture sequential probability ratio test of Robbins (1970), as Johari, Koomen, Pekelis and
Walsh use it for experiments online (Always Valid Inference: Continuous Monitoring of A/B Tests,
Operations Research 2022). It gives a confidence interval that holds at all times together, so that
whoever stops when it looks good is wrong no more often than stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Verdict = Literal["promote", "stop", "keep running"]
MIN_ROWS = 100  # of each version: below, a mean is not yet near a normal distribution


@dataclass(frozen=True)
class Trial:
    """What a trial demands.

    `gain` is the smallest gain that is worth finding, in the unit of the loss: the test is
    quickest for about that much. `error` is the probability that a challenger that is no better
    is promoted, at whatever time one looks. A trial ends without a promotion after `most` labelled
    rows of the challenger.
    """

    gain: float
    error: float = 0.05
    most: int = 20_000


@dataclass(frozen=True)
class Judgement:
    """How much less the challenger loses a row, and between what bounds, at any time."""

    verdict: Verdict
    gain: float
    low: float
    high: float
    challenger_rows: int
    champion_rows: int
    reason: str


def judge(outcomes: pd.DataFrame, champion: str, challenger: str, trial: Trial) -> Judgement:
    """Compare two versions that served different entities in the same time.

    `outcomes` has a row an entity whose label is known: `version`, `loss` (smaller is better, such
    as a squared or an absolute error), and `stratum`, a time in which the shares of the traffic
    did not change. Versions are compared within a stratum only: when shares and the world change
    together, the pooled means compare one time with another.

    A loss that is no finite number is an answer that is none. A challenger that gives one is
    stopped: who does not answer what is hard looks good on the rest. The champion's are left out.
    """
    both = outcomes[outcomes["version"].isin((champion, challenger))]
    finite = np.isfinite(both["loss"].to_numpy(dtype=float))
    silent = int((both["version"].eq(challenger) & ~finite).sum())
    both = both[finite]
    sizes = both["version"].value_counts()
    ours, theirs = int(sizes.get(challenger, 0)), int(sizes.get(champion, 0))
    gain, variance = _difference(both, champion, challenger)
    if silent:
        reason = f"{silent} answers of the challenger are no finite number"
        return Judgement("stop", gain, -math.inf, math.inf, ours, theirs, reason)
    if min(ours, theirs) < MIN_ROWS or not variance > 0:
        reason = f"{ours} and {theirs} rows with a label: fewer than {MIN_ROWS} tell nothing"
        verdict: Verdict = "stop" if ours >= trial.most else "keep running"
        return Judgement(verdict, gain, -math.inf, math.inf, ours, theirs, reason)
    # Two-sided: half of the error a side.
    width = float(half_width(variance, trial.gain, 2 * trial.error))
    low, high = gain - width, gain + width
    between = f"the challenger loses {gain:+.4g} less a row, between {low:+.4g} and {high:+.4g}"
    if low > 0:
        verdict, why = "promote", "better beyond chance"
    elif high < trial.gain:
        verdict, why = "stop", f"no gain of {trial.gain:g}"
    elif ours >= trial.most:
        verdict, why = "stop", f"not told apart within {trial.most} rows"
    else:
        verdict, why = "keep running", "not yet told apart"
    return Judgement(verdict, gain, low, high, ours, theirs, f"{between}: {why}")


def half_width(variance: float | np.ndarray, scale: float, error: float) -> np.ndarray:
    """Half of the interval that a difference leaves at no time, but with probability `error`.

    `variance` is that of the estimated difference now; `scale` the standard deviation of the
    normal mixture. From the likelihood ratio of the mixture, equation 10 of Johari et al. solved
    for the difference.
    """
    total = variance + scale**2
    ratio = 2 * math.log(1 / error) + np.log(total / variance)
    return np.sqrt(variance * total / scale**2 * ratio)


def outcomes(
    served: pd.DataFrame, labels: pd.DataFrame, changes: Sequence[pd.Timestamp], task: str
) -> pd.DataFrame:
    """What came of the answers: `version`, `loss`, `stratum`, a row an entity with a label.

    `served` has `entity`, `version`, `prediction` and `at`, `labels` has `entity` and `label`, and
    `changes` are the times at which the shares of the traffic changed. Of an entity that asked
    more than once, the first answer counts. The loss is the squared error of a probability
    (Brier 1950), else the absolute error.
    """
    first = served.sort_values("at").drop_duplicates("entity")
    known = first.merge(labels, on="entity")
    error = known["prediction"] - known["label"]
    loss = error**2 if task == "classification" else error.abs()
    edges = pd.DatetimeIndex(sorted(changes))
    stratum = edges.searchsorted(pd.DatetimeIndex(known["at"]), side="right")
    return pd.DataFrame({"version": known["version"], "loss": loss, "stratum": stratum})


def _difference(rows: pd.DataFrame, champion: str, challenger: str) -> tuple[float, float]:
    """How much less the challenger loses, and the variance of that; zeros where nothing is known.

    Strata are weighted by n m / (n + m), as Cochran (1954) has it: by what they can tell, and not
    by what they happened to say.
    """
    parts = rows.groupby(["stratum", "version"])["loss"].agg(["size", "mean", "var"])
    gain = variance = weights = 0.0
    for _, part in parts.groupby(level="stratum"):
        found = part.droplevel("stratum")
        if not {champion, challenger} <= set(found.index):
            continue
        n, mean, spread = found.loc[[challenger]].to_numpy(dtype=float)[0]
        m, other_mean, other_spread = found.loc[[champion]].to_numpy(dtype=float)[0]
        if min(n, m) < 2:
            continue
        weight = n * m / (n + m)
        gain += weight * (other_mean - mean)
        variance += weight**2 * (spread / n + other_spread / m)
        weights += weight
    if not weights:
        return 0.0, 0.0
    return float(gain / weights), float(variance / weights**2)
