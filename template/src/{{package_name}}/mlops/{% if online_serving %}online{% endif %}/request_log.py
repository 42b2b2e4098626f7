"""The inference table: each request with its answer, features, version and latency.

Columns that Databricks' inference tables have too are called as there. Rows are written in batches
by a thread of their own, so that no request waits for a table.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable, Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType

from ..declarations import Column
from ..tables import Table
from ..team import own

if TYPE_CHECKING:
    import pyarrow as pa

REQUESTS = Table(
    own("requests"),
    "Every request to the endpoint, with its answer",
    (
        Column("databricks_request_id", "string", "Id of the request, as in its answer's header"),
        Column("request_time", "timestamp", "When it came in"),
        Column("status_code", "int", "HTTP status of the answer"),
        Column("execution_duration_ms", "double", "Milliseconds from the request to the answer"),
        Column("request", "string", "Body of the request"),
        Column("response", "string", "Body of the answer"),
        Column("model_version", "string", "Version that was asked; null: it was refused before"),
        Column("features", "string", "Inputs of the model as JSON, a list with an object a row"),
    ),
    ("databricks_request_id",),
)
_TYPES = {"int": "integer"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """One request, as it is logged."""

    id: str
    at: datetime
    status: int
    milliseconds: float
    request: bytes
    response: str
    version: str | None = None
    features: list[dict[str, Any]] | None = None

    def row(self) -> tuple[Any, ...]:
        """In the order of the table's columns."""
        features = None if self.features is None else json.dumps(self.features)
        text = self.request.decode("utf-8", errors="replace")
        answer = (text, self.response, self.version, features)
        return (self.id, self.at, self.status, self.milliseconds, *answer)


class RequestLog:
    """Appends to the inference table every `seconds`, or when `batch` rows wait.

    At most `most` rows wait: what comes beyond that, while the table cannot be written, is counted
    in `dropped` and not kept. `close` writes what waits.
    """

    def __init__(
        self, path: Path, seconds: float = 10.0, batch: int = 5_000, most: int = 100_000
    ) -> None:
        self.path, self.dropped, self.written = path, 0, 0
        self._seconds, self._batch = seconds, batch
        self._waiting: queue.Queue[Answered] = queue.Queue(most)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        if not DeltaTable.is_deltatable(str(path)):
            fields = [
                Field(c.name, PrimitiveType(_TYPES.get(c.type, c.type)), metadata=_comment(c))
                for c in REQUESTS.columns
            ]
            description = REQUESTS.description
            DeltaTable.create(path, Schema(fields), mode="ignore", description=description)
        self._schema = _arrow_schema(path)
        self._thread.start()

    def add(self, answered: Answered) -> None:
        """Keep one request for the next batch."""
        try:
            self._waiting.put_nowait(answered)
        except queue.Full:
            self.dropped += 1

    def close(self) -> int:
        """Write what waits; the number of requests that could not be kept."""
        self._closing.set()
        self._thread.join()
        return self.dropped

    def _run(self) -> None:
        rows: list[tuple[Any, ...]] = []
        due, batches = time.monotonic() + self._seconds, 0
        while not self._closing.is_set():
            if len(rows) >= self._batch:  # the last write has failed
                self._closing.wait(1.0)
            else:
                self._take(rows, min(due - time.monotonic(), 0.5))
            if rows and (len(rows) >= self._batch or time.monotonic() >= due):
                rows = self._write(rows)
                due, batches = time.monotonic() + self._seconds, batches + 1
                if batches % 100 == 0:
                    self._compact()
            elif not rows:
                due = time.monotonic() + self._seconds
        while not self._waiting.empty():
            self._take(rows, 0.0)
        self.dropped += len(self._write(rows, tries=5)) if rows else 0

    def _take(self, rows: list[tuple[Any, ...]], wait: float) -> None:
        with contextlib.suppress(queue.Empty):
            rows.append(self._waiting.get(timeout=max(wait, 0.001)).row())

    def _write(self, rows: list[tuple[Any, ...]], tries: int = 1) -> list[tuple[Any, ...]]:
        """Append the rows in one commit; the rows that are left, when that did not work."""
        import pyarrow as pa

        columns = [list(values) for values in zip(*rows, strict=True)]
        batch = pa.Table.from_arrays(
            [pa.array(values, f.type) for values, f in zip(columns, self._schema, strict=True)],
            schema=self._schema,
        )
        for again in range(tries):
            try:
                write_deltalake(self.path, batch, mode="append")
            except Exception:  # whatever the disk says: the rows wait for the next try
                _log.exception("%d requests could not be written to %s", len(rows), self.path)
                time.sleep(0.2 * again)
            else:
                self.written += len(rows)
                return []
        return rows

    def _compact(self) -> None:
        """Join the small files of many batches."""
        try:
            DeltaTable(self.path).optimize.compact()
        except Exception:  # another time, then
            _log.exception("%s could not be compacted", self.path)


def _comment(column: Column) -> dict[str, Any]:
    return {"comment": column.description}


def _arrow_schema(path: Path) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(DeltaTable(path).schema().to_arrow())
