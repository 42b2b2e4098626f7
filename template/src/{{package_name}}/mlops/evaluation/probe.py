"""Try a model as a server would: in a clean process, from its files, row by row and in a batch."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..predictions import as_column
from .candidate import Candidate
from .compliance import requirements

SINGLE_ROWS = 30
BATCH_ROWS = 5000
_PRELOADED = ["mlflow.pyfunc.scoring_server", "mlflow.sklearn", "sklearn.ensemble", __name__]


@dataclass(frozen=True)
class Measured:
    """What was seen. Times are wall times; memory is resident, above that of the empty process."""

    load_seconds: float
    other_packages: list[tuple[str, str, str]]  # name, wanted, there
    p50_ms: float
    p99_ms: float
    rows_per_second: float
    memory_mb: float
    size_mb: float
    answered: list[str]  # malformed requests that got a prediction
    disagreement: float


def probe(candidate: Candidate, patience: float) -> Measured:
    """Measure the version in a process of its own; `patience` is in seconds.

    Raises:
        RuntimeError: the process died, or did not come to an end.
    """
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(candidate.registry.uri(candidate.version)))
    sample = candidate.data.features.tail(BATCH_ROWS)
    lines = requirements(candidate.model)
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        future = pool.submit(_measure, str(folder), sample, lines)
        try:
            return future.result(timeout=patience)
        except TimeoutError:
            for process in list(pool._processes.values()):  # the pool would wait for it
                process.kill()
            raise RuntimeError(f"no answer within {patience:g} s") from None
        except BrokenProcessPool:
            raise RuntimeError("the process died") from None


@cache
def _context() -> ForkServerContext:
    """Processes that begin with the libraries imported, and nothing else of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _measure(folder: str, sample: pd.DataFrame, lines: list[str]) -> Measured:
    import mlflow

    before, started = _memory(), time.monotonic()
    model = mlflow.pyfunc.load_model(folder)
    loaded = time.monotonic() - started
    model.predict(sample.head(1))

    started = time.monotonic()
    batch = as_column(model.predict(sample))
    throughput = len(sample) / max(time.monotonic() - started, 1e-9)

    schema = model.metadata.get_input_schema()
    times, single = [], []
    for place in range(min(SINGLE_ROWS, len(sample))):
        request = json.dumps({"dataframe_split": _split(sample.iloc[[place]])})
        started = time.monotonic()
        single.append(float(as_column(model.predict(_parse(request, schema)))[0]))
        times.append((time.monotonic() - started) * 1000)
    return Measured(
        load_seconds=loaded,
        other_packages=_other_packages(lines),
        p50_ms=float(np.quantile(times, 0.5)),
        p99_ms=float(np.quantile(times, 0.99)),
        rows_per_second=throughput,
        memory_mb=max(_memory() - before, 0.0),
        size_mb=sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        / 2**20,
        answered=_answered(model, sample.head(1), schema),
        disagreement=float(np.max(np.abs(np.array(single) - batch[: len(single)]))),
    )


def _split(rows: pd.DataFrame) -> dict[str, Any]:
    """Rows as a request has them: every digit of a number counts at a tree's split."""
    data = [[None if pd.isna(value) else value for value in row] for row in rows.values.tolist()]
    return {"columns": list(rows.columns), "data": data}


def _parse(request: str, schema: Any) -> object:
    """Read a request's body as the model's server does."""
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    return infer_and_parse_data(json.loads(request), schema)


def _answered(model: Any, row: pd.DataFrame, schema: Any) -> list[str]:
    """Names of the malformed requests that got a prediction instead of an error."""
    numeric = row.select_dtypes("number").columns[0]
    good = _split(row)
    place = list(row.columns).index(numeric)
    text = [*good["data"][0][:place], "many", *good["data"][0][place + 1 :]]
    requests = {
        f"without {numeric}": _split(row.drop(columns=numeric)),
        f"text for {numeric}": {"columns": good["columns"], "data": [text]},
        "no columns": {"columns": [], "data": [[]]},
    }
    answered = []
    for name, body in requests.items():
        try:
            model.predict(_parse(json.dumps({"dataframe_split": body}), schema))
        except Exception:
            continue
        answered.append(name)
    return answered


def _other_packages(lines: list[str]) -> list[tuple[str, str, str]]:
    """Packages of the requirements that are here in another version, or not at all."""
    other = []
    for line in lines:
        name, _, wanted = line.partition("==")
        try:
            there = version(name.split("[")[0])
        except PackageNotFoundError:
            there = "missing"
        if there != wanted:
            other.append((name, wanted, there))
    return other


def _memory() -> float:
    """Peak resident memory of this process, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
