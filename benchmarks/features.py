"""How features scale: a new day after a longer history, and the as-of join against DuckDB's.

Run by a project's Python, which has Spark; DuckDB comes with `--with`:

    cd build/demo && uv run --with duckdb python ../../benchmarks/features.py

Times are medians of one process, so only their ratios mean anything.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RUNS = 3
ROWS, KEYS = 1_000_000, 2_000
START = datetime(2020, 1, 1, tzinfo=UTC)
DAY, PER_DAY = timedelta(days=1), 2_000


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def project() -> Any:
    """The package of the project in this folder."""
    name = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["name"]
    return lambda module: importlib.import_module(f"{name}.{module}")


def new_day(of: Any, home: Path, spark: Any, days: int) -> list[float]:
    """Seconds of refreshing one more day, a few times, after a history of so many days."""
    features = of("mlops.stages.features")
    table = of("features.delays").CARRIER_DELAYS
    platform = of("mlops.platform.local").LocalPlatform(spark, f"d{days}", home)
    Column = of("mlops.declarations").Column  # noqa: N806
    columns = [
        Column("flight_id", "bigint", "Key"),
        Column("carrier", "string", "Airline"),
        Column("arr_delay", "double", "Minutes"),
        Column("available_at", "timestamp", "When the row became known"),
    ]
    platform.create("arrivals", columns, "Arrivals")
    schema = ", ".join(f"{column.name} {column.type}" for column in columns)

    def arrive(first: int, count: int) -> None:
        numbers = np.arange(first * PER_DAY, (first + count) * PER_DAY)
        frame = pd.DataFrame({"flight_id": numbers})
        frame["carrier"] = (numbers % 16).astype(str)
        frame["arr_delay"] = (numbers * 37 % 120).astype(float)
        step = pd.to_timedelta(numbers * (86_400 // PER_DAY), unit="s")
        frame["available_at"] = pd.Timestamp(START) + step
        rows = spark.createDataFrame(frame, schema)
        platform.merge("arrivals", rows, ["flight_id"], latest_by="available_at")

    for first in range(0, days, 10):
        arrive(first, min(10, days - first))
        features.refresh(platform, table, START + (first + 10) * DAY)
    found = []
    for day in range(days, days + RUNS + 1):
        arrive(day, 1)
        until = START + (day + 1) * DAY
        found.append(seconds(lambda until=until: features.refresh(platform, table, until)))
    return found[1:]


def as_of_join(of: Any, spark: Any, home: Path) -> dict[str, float]:
    """Seconds of this project's as-of join and of DuckDB's, from and to the same files."""
    import duckdb

    dice = np.random.default_rng(0)
    span = 86_400 * 90

    def frame(rows: int, time_name: str) -> pd.DataFrame:
        moment = pd.Timestamp(START) + pd.to_timedelta(dice.integers(0, span, rows), unit="s")
        return pd.DataFrame({"k": dice.integers(0, KEYS, rows), time_name: moment})

    asked = frame(ROWS, "at")
    known = frame(ROWS, "available_at").drop_duplicates(["k", "available_at"])
    known["x"], known["y"] = dice.random(len(known)), dice.random(len(known))
    asked["n"] = np.arange(ROWS)
    for name, rows in (("asked", asked), ("known", known)):
        rows.to_parquet(home / f"{name}.parquet", coerce_timestamps="us")
    Column, FeatureTable = (  # noqa: N806
        getattr(of("mlops.declarations"), name) for name in ("Column", "FeatureTable")
    )
    columns = (Column("x", "double", ""), Column("y", "double", ""))
    table = FeatureTable("f", "", ("k",), columns, (), compute=None)

    def ours() -> None:
        questions = spark.read.parquet(str(home / "asked.parquet"))
        rows = spark.read.parquet(str(home / "known.parquet"))
        found = of("mlops.point_in_time").lookup(questions, "at", [(table, rows)])
        found.write.mode("overwrite").parquet(str(home / "ours"))

    def theirs() -> None:
        duckdb.sql("SET threads = 2")
        duckdb.sql(
            f"COPY (SELECT a.*, x, y FROM '{home}/asked.parquet' a ASOF LEFT JOIN "
            f"'{home}/known.parquet' b ON a.k = b.k AND a.at >= b.available_at) "
            f"TO '{home}/theirs.parquet'"
        )

    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(RUNS)]
    mine = pd.read_parquet(home / "ours").sort_values("n")
    other = pd.read_parquet(home / "theirs.parquet").sort_values("n")
    for name in ("x", "y"):
        np.testing.assert_array_equal(mine[name].to_numpy(), other[name].to_numpy())
    return {
        "ours": statistics.median(pair[0] for pair in pairs),
        "duckdb": statistics.median(pair[1] for pair in pairs),
    }


def main() -> None:
    """Print the figures as JSON."""
    of = project()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        spark = of("mlops.platform.local").LocalPlatform.connect("benchmark", home).spark
        new_day(of, home, spark, 10)  # compiles
        short, long = (statistics.median(new_day(of, home, spark, days)) for days in (30, 300))
        join = as_of_join(of, spark, home)
    figures = {
        "new day after 30 days, s": round(short, 3),
        "after 300 days, s": round(long, 3),
        "ratio (at most 1.3)": round(long / short, 2),
        "as-of join of 1 M rows, s": round(join["ours"], 2),
        "DuckDB's, s": round(join["duckdb"], 2),
        "ratio (at most 2)": round(join["ours"] / join["duckdb"], 2),
        "Python's peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    json.dump(figures, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
