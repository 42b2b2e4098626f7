"""Try a model as a server would: in a clean process, from its files, row by row and in a batch.

The process has the libraries imported and nothing of the training. It forks for each try, so that
one try costs no start and leaves nothing behind for the next.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .predictions import as_column

SINGLE_ROWS = 30


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


class CleanProcess:
    """The process that tries models, one after the other. It ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start it unless it runs; importing the libraries takes it some seconds."""
        with self._lock:
            self._start()

    def _start(self) -> Connection:
        if self._connection is None:
            ours, theirs = multiprocessing.Pipe()
            # The same packages as here, wherever they were found.
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            code = f"from {__name__} import serve; serve({theirs.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that a try that hangs can be ended with it
            )
            theirs.close()
            self._connection = ours
        return self._connection

    def measure(
        self, folder: Path, sample: pd.DataFrame, requirements: list[str], patience: float
    ) -> Measured:
        """Try the model in `folder` on the rows of `sample`; `patience` is in seconds.

        Raises:
            RuntimeError: the model cannot be loaded or used, the process died, or did not come
                to an end.
        """
        with self._lock:
            connection = self._start()
            try:
                connection.send((str(folder), sample, requirements))
                if not connection.poll(patience):
                    self._stop()
                    raise RuntimeError(f"no answer within {patience:g} s")
                answer = connection.recv()
            except (EOFError, OSError):
                self._stop()
                raise RuntimeError("the process died") from None
        if isinstance(answer, Measured):
            return answer
        raise RuntimeError(answer)

    def _stop(self) -> None:
        assert self._process is not None and self._connection is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        self._process = self._connection = None


CLEAN_PROCESS = CleanProcess()


def serve(descriptor: int) -> None:
    """Answer tries that come through the pipe, until the other end is closed."""
    for library in ("mlflow.pyfunc.scoring_server", "mlflow.sklearn", "sklearn.ensemble"):
        import_module(library)
    connection = Connection(descriptor)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            try:
                connection.send(_measure(*request))
            except BaseException as error:  # a model that calls sys.exit, too
                connection.send(f"{type(error).__name__}: {error}")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            connection.send("the process died")


def _measure(folder: str, sample: pd.DataFrame, requirements: list[str]) -> Measured:
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
        other_packages=_other_packages(requirements),
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


def _other_packages(requirements: list[str]) -> list[tuple[str, str, str]]:
    """Packages of the requirements that are here in another version, or not at all."""
    other = []
    for line in requirements:
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
