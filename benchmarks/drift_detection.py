"""How often a stable month raises an alarm, and how soon a planted shift is seen.

    python benchmarks/drift_detection.py PROJECT [DRAWS]

PROJECT is a rendered project that has run `make lifecycle`; its environment runs this file. The
rows are the observations of the year. A stable world is made of their weeks in random order:
thirteen weeks are the reference, four other ones the window, so that nothing but chance tells them
apart, and the days of a week stay together. Into the latest days of such a window one feature is
shifted, by a share of its standard deviation; the delay is the number of shifted days until that
feature raises an alarm.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from deltalake import DeltaTable

PROJECT = Path(sys.argv[1]).resolve()
DRAWS = int(sys.argv[2]) if len(sys.argv) > 2 else 100
HOME = Path(os.environ.get("MLOPS_HOME", PROJECT / ".local"))
(package,) = (p for p in (PROJECT / "src").iterdir() if (p / "problem.py").exists())
sys.path.insert(0, str(PROJECT / "src"))
drift = __import__(f"{package.name}.mlops.drift", fromlist=["drift"])
PROBLEM = __import__(f"{package.name}.problem", fromlist=["problem"]).PROBLEM

SHIFTS = (0.1, 0.25, 0.5, 1.0, 2.0)  # standard deviations
REFERENCE, WINDOW = 13, 4  # weeks
RANDOM = np.random.default_rng(0)


def daily(values: pd.Series, bins: dict, day: np.ndarray, weeks: int) -> np.ndarray:
    """Counts by week, day of the week and bin of the stability index."""
    found = drift.count(values, bins, day, weeks * 7).rows
    return drift.coarse(bins, found).reshape(weeks, 7, -1)


def main() -> None:
    """Print both tables."""
    (path,) = (HOME / "warehouse").glob("*.db/observations")
    rows = DeltaTable(path).to_pandas()
    day = ((rows["predict_at"] - rows["predict_at"].min()) // pd.Timedelta(days=1)).to_numpy()
    weeks = int(day.max() + 1) // 7
    rows, day = rows[day < weeks * 7], day[day < weeks * 7]
    names = PROBLEM.feature_names
    bins = {name: drift.profile(rows[name]) for name in names}
    # Coarse bins are counted once; the limits then see them as they are.
    flat = {
        name: {**one, "groups": list(range(max(one["groups"]) + 1))} for name, one in bins.items()
    }
    counts = {name: daily(rows[name], bins[name], day, weeks) for name in names}
    numeric = [n for n in names if bins[n]["edges"] is not None and rows[n].std() > 0]
    shifted = {
        (name, size): daily(rows[name] + size * rows[name].std(), bins[name], day, weeks)
        for name in numeric
        for size in SHIFTS
    }
    rules = PROBLEM.retraining
    kinds = ("index above 0.1", "index above 0.2", "index above 0.2 and stable limit")
    alarms = {kind: np.zeros(3) for kind in kinds}
    delays: dict[float, list[float]] = {size: [] for size in SHIFTS}
    for _ in range(DRAWS):
        chosen = RANDOM.permutation(weeks)[: REFERENCE + WINDOW]
        first, last = chosen[:REFERENCE], chosen[REFERENCE:]
        reference = {n: counts[n][first].reshape(REFERENCE * 7, -1) for n in names}
        limits = drift.stable_limits(flat, reference, WINDOW * 7, rules.false_alarms)
        base = {n: reference[n].sum(axis=0) for n in names}
        index = {
            n: float(drift.population_stability_index(base[n], counts[n][last].sum(axis=(0, 1))))
            for n in names
        }
        limit = {n: max(0.2, limits.get(n, 0.0)) for n in names}
        for kind, least in zip(
            kinds, ({n: 0.1 for n in names}, {n: 0.2 for n in names}, limit), strict=True
        ):
            over = sum(index[n] > least[n] for n in names)
            alarms[kind] += [over >= 1, over >= 3, over / len(names)]
        for (name, size), moved in shifted.items():
            before = counts[name][last].reshape(WINDOW * 7, -1)
            after = moved[last].reshape(WINDOW * 7, -1)
            total = before.sum(axis=0) + np.cumsum((after - before)[::-1], axis=0)
            over = drift.population_stability_index(base[name], total) > limit[name]
            delays[size].append(int(np.argmax(over)) + 1 if over.any() else np.inf)
    print(f"{DRAWS} stable windows of {WINDOW * 7} days, {len(names)} features")
    for kind, (one, three, share) in alarms.items():
        line = f"windows with an alarm {one / DRAWS:6.1%}, with three {three / DRAWS:6.1%}"
        print(f"  {kind:34} {line}, of all measurements {share / DRAWS:6.2%}")
    print("shift (standard deviations), share seen within the window, days until then (quartiles)")
    for size, found in delays.items():
        seen = np.isfinite(found).mean()
        when = [f"{q:.0f}" for q in np.quantile(found, [0.25, 0.5, 0.75], method="lower")]
        print(f"  {size:4}  {seen:6.1%}  {', '.join(when)}")


if __name__ == "__main__":
    main()
