"""`serve`: the champion behind a port of this machine, without Spark."""

from __future__ import annotations

import json
import os
import signal
import socket
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..team import PROBLEM

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

    from .champion import Served
    from .store import SqlStore

FOLLOW = 2.0  # seconds between two looks at the registry


def serve(
    schema: str,
    home: Path,
    host: str,
    port: int,
    at: datetime | None,
    say: Callable[[str], None],
) -> int:
    """Answer requests until SIGTERM or SIGINT, then write what is left of the log.

    `at` fixes the data time of all requests. Returns 1 when requests could not be logged.

    Raises:
        LookupError: there is no champion, or a feature table is not in the online store.
        OSError: the port is taken.
    """
    # asyncio has small packets sent at once where the protocol is named; without, a client that
    # keeps its connection waits 40 ms for each answer.
    taken = socket.socket(proto=socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        text = f"port {port} of {host}: {error.strerror}. Fix: pass another --port."
        raise OSError(text) from None
    # A row is predicted faster by one thread than shared among several. Read when loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import uvicorn

    from ..platform.local import LocalPlatform, use_mlflow
    from ..registry import Registry
    from . import sql_store
    from .app import build
    from .champion import Served
    from .request_log import REQUESTS, RequestLog

    use_mlflow(home)
    # Nothing here computes: no Spark, which would take seconds and a gigabyte.
    platform = LocalPlatform(cast("SparkSession", None), schema, home)
    store = sql_store(home)
    keys = key_types(store)
    served = Served(Registry(platform), store)
    served.refresh()
    example = example_row(served, store)
    log = RequestLog(platform.path(REQUESTS.name))
    app = build(served, log, example, keys, at)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises a signal again once it has stopped, which would end us before the log.
        signal.signal(number, server.handle_exit)
    url = f"http://{host}:{taken.getsockname()[1]}"
    taken.listen()  # so that who reads the lines below can ask at once
    say(f"model: {served.registry.model}, {_traffic(served.shares)}")
    for line in freshness(store):
        say(line)
    say(f"listening on {url}, described at {url}/docs; try:")
    body = json.dumps({"dataframe_records": [example]})
    say(f"curl {url}/invocations -H 'Content-Type: application/json' -d '{body}'")
    served.follow(FOLLOW, lambda shares: say(f"now serving {_traffic(shares)}"))
    try:
        server.run(sockets=[taken])
    finally:
        served.close()
        lost = log.close()
        store.close()
    say(f"{log.written} requests logged to {REQUESTS.name}" + (f", {lost} lost" if lost else ""))
    return 1 if lost else 0


def _traffic(shares: dict[str, int]) -> str:
    if len(shares) == 1:
        return f"version {next(iter(shares))}"
    return ", ".join(f"version {version}: {share} %" for version, share in shares.items())


def freshness(store: SqlStore) -> list[str]:
    """A line for each feature table: up to when it is published, and how long ago."""
    lines = [f"online store: {store.url}"]
    for state in store.published().values():
        ago = f"{state.age:,.0f} s" if state.age < 600 else f"{state.age / 3600:,.1f} h"
        lines.append(f"  {state.table}: as of {state.as_of:%Y-%m-%d %H:%M}, published {ago} ago")
    return lines


def key_types(store: SqlStore) -> dict[str, str]:
    """The type of each key of the feature tables.

    Raises:
        LookupError: a table has not been published.
    """
    states = store.published()
    absent = [table.name for table in PROBLEM.feature_tables if table.name not in states]
    if absent:
        raise LookupError(
            f"The online store {store.url} lacks {', '.join(absent)}. Fix: run the features job, "
            "whose last task publishes."
        )
    kinds: dict[str, str] = {}
    for table in PROBLEM.feature_tables:
        kinds |= states[table.name].keys
    return kinds


def example_row(served: Served, store: SqlStore) -> dict[str, Any]:
    """A row that a request may bring: from the model's own example, keys from the store."""
    model = served.pick().model
    names = [column.name for column in PROBLEM.request_features]
    row: dict[str, Any] = dict.fromkeys(names)
    if model.input_example is not None:
        first = json.loads(model.input_example.head(1).to_json(orient="records"))[0]
        row |= {name: first.get(name) for name in names}
    for table in PROBLEM.feature_tables:
        row = store.example(table, row) | row
    keys = [key for table in PROBLEM.feature_tables for key in table.keys]
    return {name: row.get(name) for name in dict.fromkeys((*names, *keys))}
