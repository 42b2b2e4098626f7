"""The web application: MLflow's scoring protocol over keys, features looked up on the way."""

# No `from __future__ import annotations` here: FastAPI reads the classes that are made below.
import asyncio
import contextlib
import io
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import mlflow
from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from mlflow.pyfunc.scoring_server import predictions_to_json
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..team import PROBLEM
from .champion import Served
from .protocol import RequestError, explain, invocation_model, row_model, rows_of
from .request_log import Answered, RequestLog
from .store import NotPublishedError

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_log = logging.getLogger(__name__)


class Refusal(BaseModel):
    """Why a request was not answered."""

    error_code: str
    message: str


class Predictions(BaseModel):
    """The model's answer: an item a row."""

    predictions: list[Any]


class Metrics:
    """What Prometheus reads at /metrics."""

    def __init__(self, served: Served, log: RequestLog) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._served, self._log = served, log
        self.requests = self._counter("requests", "Requests by path and status", "path", "status")
        self.predictions = self._counter("predictions", "Rows predicted, by version", "version")
        self.missing = self._counter("features_missing", "Rows without features", "table")
        self.seconds = Histogram(
            "invocation_seconds",
            "From a request to its answer",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._age = self._gauge("features_age_seconds", "Since the last publication", "table")
        self._traffic = self._gauge("traffic_percent", "Share of the requests", "version")
        self._dropped = self._gauge("requests_not_logged", "Requests lost to the inference table")
        self._failures = self._gauge("version_load_failures", "Times a version could not be loaded")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def text(self) -> bytes:
        """All of them, in Prometheus' format."""
        for name, state in self._served.store.published(max_age=1.0).items():
            self._age.labels(name).set(state.age)
        self._traffic.clear()
        for version, share in self._served.shares.items():
            self._traffic.labels(version).set(share)
        self._dropped.set(self._log.dropped)
        self._failures.set(self._served.failures)
        return generate_latest(self.registry)


class _Measured:
    """Notes when a request came in, and counts it by the status of its answer."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(
        self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["started"] = time.perf_counter()

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counted)


def build(
    served: Served,
    log: RequestLog,
    example: dict[str, Any],
    keys: dict[str, str],
    at: datetime | None = None,
) -> FastAPI:
    """The application; `at` is the data time of all requests, None the store's own.

    `keys` gives the type of each key of the feature tables.
    """
    row = row_model(PROBLEM, keys)
    invocation: Any = invocation_model(row, example)
    metrics = Metrics(served, log)
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="predict")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.shutdown()  # by now every request has been answered

    app = FastAPI(
        title=PROBLEM.name,
        description=PROBLEM.description,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.add_middleware(_Measured, metrics=metrics)

    def note(request: Request, body: bytes, status: int, text: str, **more: Any) -> dict[str, str]:
        """Put the request into the log; the headers of its answer."""
        seconds = time.perf_counter() - request.scope["started"]
        metrics.seconds.observe(seconds)
        number = uuid.uuid4().hex
        now = datetime.now(UTC)
        log.add(Answered(number, now, status, 1000 * seconds, body, text, **more))
        version = more.get("version")
        return {"x-request-id": number} | ({"x-model-version": version} if version else {})

    async def refuse(
        request: Request, status: int, code: str, message: str, version: str | None = None
    ) -> Response:
        answer = JSONResponse({"error_code": code, "message": message}, status)
        if request.url.path == "/invocations" and request.method == "POST":
            body = b""
            with contextlib.suppress(ClientDisconnect):  # whoever hung up has not sent all of it
                body = await request.body()
            text = bytes(answer.body).decode()
            answer.headers.update(note(request, body, status, text, version=version))
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        kind = request.headers.get("content-type", "")
        said = explain(error.errors())
        if "json" not in kind.lower():
            said = f"Content-Type must be application/json, not {kind or 'left out'}"
        return await refuse(request, 400, "BAD_REQUEST", said)

    @app.exception_handler(RequestError)
    async def wrong(request: Request, error: RequestError) -> Response:
        return await refuse(request, 400, "BAD_REQUEST", str(error), error.version)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "BAD_REQUEST")
        answer = await refuse(request, error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(SQLAlchemyError)
    async def no_store(request: Request, error: SQLAlchemyError) -> Response:
        _log.error("the online store does not answer: %s", error)
        text = "the online store does not answer; try again"
        return await refuse(request, 503, "TEMPORARILY_UNAVAILABLE", text)

    @app.exception_handler(NotPublishedError)
    async def not_published(request: Request, error: NotPublishedError) -> Response:
        _log.error("%s", error)
        return await refuse(request, 503, "TEMPORARILY_UNAVAILABLE", str(error))

    def answer(body: Any) -> tuple[str, str, list[dict[str, Any]]]:
        """The answer's text, the version that gave it, and the model's inputs."""
        rows = rows_of(body, row)
        version = served.pick(_asked_for(rows[0]))
        found, missing = served.store.lookup(version.tables, rows, at)
        inputs = version.inputs_of(rows, found)
        try:
            predicted = version.predict(inputs)
        except Exception as error:  # as MLflow's own server answers: the model refuses the rows
            _log.warning("version %s refused a request", version.number, exc_info=True)
            text_of = f"the model cannot predict these rows: {error}"
            raise RequestError(text_of, version.number) from error
        text = io.StringIO()
        predictions_to_json(predicted, text)
        metrics.predictions.labels(version.number).inc(len(rows))
        for table, count in missing.items():
            if count:
                metrics.missing.labels(table).inc(count)
        return text.getvalue(), version.number, inputs

    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": Refusal, "description": "A field is wrong or missing; the message names it"},
        503: {"model": Refusal, "description": "The online store does not answer"},
    }

    @app.post("/invocations", response_model=Predictions, responses=refusals)
    async def invocations(request: Request, body: Annotated[invocation, Body()]) -> Response:
        """Predict rows, given by their keys and the request's own features."""
        loop = asyncio.get_running_loop()
        text, version, inputs = await loop.run_in_executor(pool, answer, body)
        raw = await request.body()
        headers = note(request, raw, 200, text, version=version, features=inputs)
        return Response(text, media_type="application/json", headers=headers)

    @app.get("/ping")
    @app.get("/health", include_in_schema=False)
    async def ping() -> dict[str, str]:
        """Whether requests are answered."""
        return {"status": "ok"}

    @app.get("/version")
    async def version() -> dict[str, Any]:
        """The model, the percent of the requests by version, and how fresh the features are."""
        states = served.store.published(max_age=1.0).values()
        return {
            "model": served.registry.model,
            "traffic": served.shares,
            "features": {
                state.table: {"as_of": state.as_of, "age_seconds": round(state.age, 1)}
                for state in states
            },
            "mlflow": mlflow.__version__,
        }

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    _describe_refusals(app)
    return app


def _asked_for(row: Mapping[str, Any]) -> str:
    """Whom a row is about: the entity if it is named, else all that was said of it."""
    entity = row.get(PROBLEM.entity_key)
    return json.dumps(row, sort_keys=True) if entity is None else str(entity)


def _describe_refusals(app: FastAPI) -> None:
    """Take FastAPI's own 422 from the description: a bad request is 400 here, as in MLflow."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = described()
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
