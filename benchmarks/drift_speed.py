"""Drift of 20 columns, in one pass: rows a second, memory, and a peer on the same data.

    python benchmarks/drift_speed.py PROJECT [--evidently PYTHON]

PROJECT is a rendered project; its environment runs this file. Writes Parquet files of 0.625, 2.5
and 10 million rows (ten numbers, five of them of few values, five categories), profiles a sample of
100,000 and counts each file on two cores. PYTHON has Evidently installed; it gets the same 100,000
and a million rows in memory, and the same statistic (PSI of 10 bins) for each column.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

SIZES = (625_000, 2_500_000, 10_000_000)
PEER_ROWS = 1_000_000
PEER = """
import json, sys, time
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
numbers = list(reference.select_dtypes("number"))
kinds = DataDefinition(
    numerical_columns=numbers,
    categorical_columns=[name for name in reference if name not in numbers],
)
start = time.perf_counter()
report = Report([DataDriftPreset(method="psi")])
r, c = (Dataset.from_pandas(one, data_definition=kinds) for one in (reference, current))
report.run(c, r)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def frame(rows: int, seed: int) -> pd.DataFrame:
    """Twenty columns and a time in 30 days."""
    random = np.random.default_rng(seed)
    columns = {f"n{i}": random.normal(size=rows) for i in range(10)}
    columns |= {f"f{i}": random.integers(0, 30, rows).astype(float) for i in range(5)}
    names = np.array([f"category {i}" for i in range(20)])
    columns |= {
        f"c{i}": pd.Categorical.from_codes(random.integers(0, 20, rows), names) for i in range(5)
    }
    at = pd.to_datetime(1_357_000_000 + random.integers(0, 30 * 86_400, rows), unit="s")
    found = pd.DataFrame(columns).assign(at=at.astype("datetime64[us]"))
    return found.astype({f"c{i}": str for i in range(5)})


def memory(children: bool) -> float:
    """Peak of this process or its children, GiB."""
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss / 1024**2


def main() -> None:
    """Write, count, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=Path)
    parser.add_argument("--evidently", type=Path)
    options = parser.parse_args()
    source = options.project.resolve() / "src"
    sys.path.insert(0, str(source))
    (package,) = (p.name for p in source.iterdir() if (p / "problem.py").exists())
    drift = __import__(f"{package}.mlops.drift", fromlist=["drift"])
    spark_module = __import__(f"{package}.mlops.platform.spark", fromlist=["spark"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        reference = frame(100_000, 1)
        names = [name for name in reference if name != "at"]
        bins = {name: drift.profile(reference[name]) for name in names}
        spark = spark_module.start_session(place / "warehouse")
        speeds = {}
        for rows in SIZES:
            file = place / f"rows{rows}"
            file.mkdir()
            for part in range(0, rows, 625_000):
                frame(625_000, part + 2).to_parquet(file / f"{part}.parquet")
            start = time.perf_counter()
            data = spark.read.parquet(str(file))
            counts = drift.count_rows(data, bins, "at", 1_357_000_000, 30)
            seconds = time.perf_counter() - start
            assert all(one.total == rows for one in counts.values())
            speeds[rows] = rows / seconds
            print(f"{rows:>10,} rows: {seconds:6.1f} s, {rows / seconds:>9,.0f} rows a second")
        ends = (SIZES[1], SIZES[-1])
        print(f"four times the rows take {4 * speeds[ends[0]] / speeds[ends[1]]:.2f} times as long")
        if options.evidently:
            current = frame(PEER_ROWS, 3)
            for name, one in (("reference", reference), ("current", current)):
                one.drop(columns="at").to_parquet(place / f"{name}.parquet")
            files = [str(place / f"{name}.parquet") for name in ("reference", "current")]
            command = [str(options.evidently), "-c", PEER, *files]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            theirs = PEER_ROWS / json.loads(done.stdout.splitlines()[-1])["seconds"]
            print(f"Evidently: {theirs:,.0f} rows a second; ratio {speeds[SIZES[-1]] / theirs:.1f}")
        spark.stop()
    print(f"peak memory: Python {memory(False):.2f} GiB, a child {memory(True):.2f} GiB")


if __name__ == "__main__":
    main()
