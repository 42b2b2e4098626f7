"""Batch scoring against the bare estimator, and against `mlflow.pyfunc.spark_udf`, in one process.

Run by a project's Python after the jobs features and training, in the project's folder:

    cd build/demo && MLOPS_HOME=.local uv run python ../../benchmarks/scoring.py

The champion scores a million observations, those of the project many times over. Ours and MLflow's
go from a Delta table to predictions in Arrow; the bare estimator, on one thread, from a data frame
in memory to an array. Medians of three runs.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, RUNS = 1_000_000, 3


def rate(work: Callable[[], object]) -> float:
    """Rows a second."""
    work()
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        found.append(ROWS / (time.perf_counter() - began))
    return statistics.median(found)


def main() -> None:
    """Print the figures as JSON."""
    name = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["name"]

    def of(module: str) -> Any:
        return importlib.import_module(f"{name}.{module}")

    import mlflow
    import pandas as pd
    import pyarrow as pa
    from deltalake import write_deltalake
    from pyspark.sql import functions as F  # noqa: N812
    from threadpoolctl import threadpool_limits

    local, problem = of("mlops.platform.local"), of("problem").PROBLEM
    platform = local.LocalPlatform.connect(name)
    registry = of("mlops.registry").Registry(platform)
    uri = registry.uri(registry.at("champion"))
    features = problem.feature_names
    made = platform.frame("observations")
    frame = pd.concat([made] * (ROWS // len(made) + 1), ignore_index=True).head(ROWS)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        there = local.LocalPlatform(platform.spark, "benchmark", Path(folder))
        write_deltalake(there.path("observations"), pa.Table.from_pandas(frame))
        rows = there.read("observations")

        scored: list[pa.Table] = []
        there._insert = lambda table, rows, keys, span: scored.append(rows)  # a peer writes nothing

        def ours() -> pa.Table:
            there.score_into("", rows.select(*features), uri, features, (), None)
            return scored.pop()

        def theirs() -> pa.Table:
            predict = mlflow.pyfunc.spark_udf(
                platform.spark, uri, result_type="array<double>", env_manager="local"
            )
            answer = F.element_at(predict(F.struct(*features)), -1)
            return rows.select(answer.alias("prediction")).toArrow()

        mine, other = (sorted(t["prediction"].to_pylist()) for t in (ours(), theirs()))
        assert mine == other and len(mine) == ROWS
        figures = {"ours": rate(ours), "spark_udf": rate(theirs)}
    estimator = mlflow.sklearn.load_model(uri)
    predict = getattr(estimator, "predict_proba", estimator.predict)
    inputs = frame[features]
    with threadpool_limits(1):
        figures["bare estimator, one core"] = rate(lambda: predict(inputs))
    figures["bare estimator, as it is"] = rate(lambda: predict(inputs))
    told = {f"{key}, rows/s": round(value) for key, value in figures.items()}
    told["cores"] = cores
    told["ours / (cores x bare on one core), at least 0.8"] = round(
        figures["ours"] / cores / figures["bare estimator, one core"], 2
    )
    told["ours / spark_udf"] = round(figures["ours"] / figures["spark_udf"], 2)
    told["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    json.dump(told, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
