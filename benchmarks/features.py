"""How features scale: a new day after a longer history, and the point-in-time join.

The join is compared with DuckDB's plain as-of join, which is not given a limit of memory and does
not sort; and its memory, from tables to a table, with itself on more rows.

Run by a project's Python:

    cd build/demo && uv run python ../../benchmarks/features.py

Times are medians of one process, so only their ratios mean anything.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import subprocess
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


def new_day(of: Any, home: Path, spark: Any, days: int) -> tuple[float, float]:
    """Seconds of merging and of refreshing one more day, after a history of so many days."""
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
    merging, refreshing = [], []
    for day in range(days, days + RUNS + 1):
        merging.append(seconds(lambda day=day: arrive(day, 1)))
        until = START + (day + 1) * DAY
        refreshing.append(seconds(lambda until=until: features.refresh(platform, table, until)))
    return statistics.median(merging[1:]), statistics.median(refreshing[1:])


def as_of_join(of: Any, words: bool) -> tuple[float, float]:
    """Seconds of this project's as-of join and of DuckDB's, of the same Arrow tables."""
    import duckdb
    import pyarrow as pa

    dice = np.random.default_rng(0)
    span = 86_400 * 90

    def frame(rows: int, time_name: str) -> pd.DataFrame:
        moment = pd.Timestamp(START) + pd.to_timedelta(dice.integers(0, span, rows), unit="s")
        keys = dice.integers(0, KEYS, rows)
        return pd.DataFrame({"k": [f"key {n}" for n in keys] if words else keys, time_name: moment})

    def arrow(rows: pd.DataFrame) -> pa.Table:
        found = pa.Table.from_pandas(rows, preserve_index=False)
        return found.set_column(1, found.column_names[1], found[1].cast(pa.timestamp("us", "UTC")))

    asked = frame(ROWS, "at")
    known = frame(ROWS, "available_at").drop_duplicates(["k", "available_at"])
    known["x"], known["y"] = dice.random(len(known)), dice.random(len(known))
    asked["n"] = np.arange(ROWS)
    questions, rows = arrow(asked), arrow(known)
    declared = of("mlops.declarations")
    columns = tuple(declared.Column(name, "double", "") for name in "xy")
    table = declared.FeatureTable("f", "", ("k",), columns, (), compute=None)
    peer = duckdb.connect(config={"threads": 2})
    peer.register("questions", questions)
    peer.register("rows", rows)

    def ours() -> pa.Table:
        with (
            tempfile.TemporaryDirectory() as folder,
            of("mlops.platform.point_in_time").looked_up(
                questions, "at", ["n"], [(table, rows)], Path(folder)
            ) as found,
        ):
            return found.read_all()

    def theirs() -> pa.Table:
        return peer.sql(
            "SELECT a.*, x, y FROM questions a ASOF LEFT JOIN rows b "
            "ON a.k = b.k AND a.at >= b.available_at"
        ).to_arrow_table()

    mine, other = (found.sort_by("n") for found in (ours(), theirs()))
    for name in ("x", "y"):
        assert mine[name].to_pylist() == other[name].to_pylist()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(RUNS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def memory(of: Any, home: Path, rows: int) -> None:
    """Print the MB of a process that looks up so many rows in that many, from tables to a table."""
    import pyarrow as pa
    from deltalake import write_deltalake

    declared = of("mlops.declarations")
    features = tuple(declared.Column(f"x{number}", "double", "") for number in range(8))
    table = declared.FeatureTable("known", "", ("k",), features, (), compute=None, max_age=3 * DAY)
    platform = of("mlops.platform.local").LocalPlatform.connect("benchmark", home)
    dice, part = np.random.default_rng(0), 500_000
    for first in range(0, rows, part):
        for name in ("asked", "known"):
            since = (first + np.sort(dice.integers(0, part, part))) / rows * 86_400 * 90
            times = (START.timestamp() * 1e6 + since * 1e6).astype("int64")
            keys = np.char.add("key ", dice.integers(0, KEYS, part).astype(str))
            columns = {"k": pa.array(keys)}
            columns["available_at"] = pa.array(times).cast(pa.timestamp("us", "UTC"))
            if name == "asked":
                columns["n"] = pa.array(np.arange(first, first + part))
            else:
                columns |= {column.name: pa.array(dice.random(part)) for column in features}
            write_deltalake(platform.path(name), pa.table(columns), mode="append")
    asked = platform.read("asked").withColumnRenamed("available_at", "at")
    asks = (declared.Column(name, kind, "") for name, kind in asked.dtypes)
    platform.create("answers", (*asks, *features), "Answers")
    span = of("mlops.platform").Span("at", START, START + 91 * DAY)
    platform.look_up_into("answers", asked, span, [table], ["n"])
    assert platform.read("answers").count() == rows
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Print the figures as JSON."""
    of = project()
    if sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            memory(of, Path(folder), int(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        spark = of("mlops.platform.local").LocalPlatform.connect("benchmark", home).spark
        new_day(of, home, spark, 10)  # compiles
        short, long = (new_day(of, home, spark, days) for days in (30, 300))
    whole, text = as_of_join(of, words=False), as_of_join(of, words=True)
    some, many = (
        int(subprocess.check_output([sys.executable, __file__, str(rows)], text=True))
        for rows in (4 * ROWS, 16 * ROWS)
    )
    figures = {
        "new day after 30 days, s": round(short[1], 3),
        "after 300 days, s": round(long[1], 3),
        "ratio (at most 1.3)": round(long[1] / short[1], 2),
        "merge of a new day of a source after 30 days, s": round(short[0], 3),
        "merge after 300 days, s": round(long[0], 3),
        "ratio of merges": round(long[0] / short[0], 2),
        "as-of join of 1 M rows by a number, s": round(whole[0], 2),
        "DuckDB's, s": round(whole[1], 2),
        "ratio (at most 2)": round(whole[0] / whole[1], 2),
        "by a text, s": round(text[0], 2),
        "of DuckDB, s": round(text[1], 2),
        "its ratio (at most 2)": round(text[0] / text[1], 2),
        "memory of a process that looks up 4 M rows in 4 M, MB": some,
        "16 M in 16 M, MB": many,
        "ratio for four times the rows (bounded: 1)": round(many / some, 2),
    }
    json.dump(figures, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
