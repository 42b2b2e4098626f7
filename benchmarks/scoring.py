"""Batch scoring against the bare estimator, and against `mlflow.pyfunc.spark_udf`, in one process.

Run by a project's Python after the jobs features and training, in the project's folder:

    cd build/demo && MLOPS_HOME=.local uv run python ../../benchmarks/scoring.py

The champion scores a million observations, those of the project many times over. Ours goes from
one Delta table to another; for the comparison with MLflow's, from a table to predictions in Arrow.
The bare estimator, on one thread, goes from a data frame in memory to an array. Medians of three
runs in turns. `--trees 200` lets a model of as many trees score in place of the champion.
"""

from __future__ import annotations

import argparse
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
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

ROWS, RUNS = 1_000_000, 3


def rates(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Rows a second of each, in turns: the machine may be quicker at one time than at another."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(RUNS):
        for name, work in works.items():
            work()  # warms up: another one has used the caches and the memory
            began = time.perf_counter()
            work()
            found[name].append(ROWS / (time.perf_counter() - began))
    return {name: statistics.median(speeds) for name, speeds in found.items()}


def grown(uri: str, trees: int, frame: pd.DataFrame, folder: Path) -> str:
    """A copy of a model with as many trees, fitted to labels by chance."""
    import mlflow

    estimator = mlflow.sklearn.load_model(uri)
    estimator[-1].set_params(max_iter=trees)
    estimator.fit(frame, np.random.default_rng(0).integers(0, 2, len(frame)))
    signature = mlflow.models.get_model_info(uri).signature
    mlflow.sklearn.save_model(
        estimator, folder / "model", signature=signature, serialization_format="cloudpickle"
    )
    return str(folder / "model")


def main() -> None:
    """Print the figures as JSON."""
    asking = argparse.ArgumentParser()
    asking.add_argument("--trees", type=int, help="default: the champion as it is")
    trees = asking.parse_args().trees
    name = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["name"]

    def of(module: str) -> Any:
        return importlib.import_module(f"{name}.{module}")

    import mlflow
    import pyarrow as pa
    from deltalake import write_deltalake
    from pyspark.sql import functions as F  # noqa: N812
    from threadpoolctl import threadpool_limits

    local, problem = of("mlops.platform.local"), of("problem").PROBLEM
    span, unscored = (getattr(of("mlops.platform"), kind) for kind in ("Span", "Unscored"))
    predictions = of("mlops.tables").PREDICTIONS
    platform = local.LocalPlatform.connect(name)
    registry = of("mlops.registry").Registry(platform)
    champion = registry.at("champion")
    if champion is None:
        sys.exit("There is no champion. Fix: run features and training with as_of=2013-03-15.")
    uri = registry.uri(champion)
    features, key = problem.feature_names, problem.entity_key
    made = platform.frame("observations")
    frame = pd.concat([made] * (ROWS // len(made) + 1), ignore_index=True).head(ROWS)
    frame[key] = [f"{number}" for number in range(ROWS)]
    first, last = (frame["predict_at"].agg(end).tz_localize("UTC") for end in ("min", "max"))
    asked = span("predict_at", first.to_pydatetime() - timedelta(1), last.to_pydatetime())
    frame["predict_at"] = frame["predict_at"].dt.tz_localize("UTC")
    said = {"model": "flights", "model_version": "1", "role": "champion", "as_of": asked.until}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        there = local.LocalPlatform(platform.spark, "benchmark", Path(folder))
        if trees:
            uri = grown(uri, trees, made[features], Path(folder))
        write_deltalake(there.path("observations"), pa.Table.from_pandas(frame))
        rows = there.read("observations")

        batch = unscored("observations", asked, key, None)

        def score() -> None:
            there.score_into(predictions, batch, uri, features, said)

        there.create(predictions.name, predictions.columns, predictions.description)

        def ours() -> None:
            there._table(predictions.name).delete()
            score()

        scored: list[pa.Table] = []

        def unwritten() -> None:
            scored.clear()
            with mock.patch.object(
                there, "_insert", lambda *said: scored.append(said[1].read_all())
            ):
                score()

        answers: list[pa.Table] = []

        def theirs() -> None:
            predict = mlflow.pyfunc.spark_udf(
                platform.spark, uri, result_type="array<double>", env_manager="local"
            )
            answer = F.element_at(predict(F.struct(*features)), -1)
            answers[:] = [rows.select(answer.alias("prediction")).toArrow()]

        estimator, inputs = mlflow.sklearn.load_model(uri), frame[features]
        predict = getattr(estimator, "predict_proba", estimator.predict)

        def on_one_core() -> None:
            with threadpool_limits(1):
                predict(inputs)

        figures = rates(
            {
                "ours": ours,
                "ours, not written": unwritten,
                "spark_udf": theirs,
                "bare estimator, one core": on_one_core,
                "bare estimator, as it is": lambda: predict(inputs),
            }
        )
        assert there.read(predictions.name).count() == ROWS
        mine, other = (sorted(t["prediction"].to_pylist()) for t in (scored[0], answers[0]))
        assert mine == other and len(mine) == ROWS
    told = {f"{key}, rows/s": round(value) for key, value in figures.items()}
    told["cores"] = cores
    for kind in ("ours, not written", "ours"):
        ratio = figures[kind] / cores / figures["bare estimator, one core"]
        told[f"{kind} / (cores x bare on one core), at least 0.8"] = round(ratio, 2)
    told["ours / spark_udf, neither writes"] = round(
        figures["ours, not written"] / figures["spark_udf"], 2
    )
    told["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    json.dump(told, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
