"""A workspace that records what it is asked, and refuses what a real one would refuse.

It knows the requests of the model registry by MLflow's own messages, and those of the other APIs
by the fields they take. It keeps state: tables, grants, a model with versions and aliases.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from databricks.sdk.service.dataquality import Monitor
from google.protobuf.json_format import ParseDict, ParseError
from mlflow.protos import databricks_uc_registry_messages_pb2 as messages

OWNER = "11111111-2222-3333-4444-555555555555"
_REGISTRY = "/api/2.0/mlflow/unity-catalog/"
_MESSAGES = {
    ("GET", "registered-models/get"): messages.GetRegisteredModelRequest,
    ("PATCH", "registered-models/update"): messages.UpdateRegisteredModelRequest,
    ("GET", "registered-models/alias"): messages.GetModelVersionByAliasRequest,
    ("POST", "registered-models/alias"): messages.SetRegisteredModelAliasRequest,
    ("DELETE", "registered-models/alias"): messages.DeleteRegisteredModelAliasRequest,
    ("GET", "model-versions/get"): messages.GetModelVersionRequest,
    ("POST", "model-versions/set-tag"): messages.SetModelVersionTagRequest,
}
_STATEMENT_FIELDS = {
    *("statement", "warehouse_id", "wait_timeout", "on_wait_timeout", "catalog", "schema"),
    *("parameters", "row_limit", "byte_limit", "disposition", "format"),
}


class Refused(Exception):  # noqa: N818
    """A request that a workspace answers with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Workspace:
    """State, who calls, and every call: (method, path, body or query)."""

    user: str = OWNER
    owner: str = OWNER
    warehouses: frozenset[str] = frozenset({"w1"})
    model: str | None = "prod.flights.flight_delay"
    job_id: str = ""
    jobs: frozenset[str] = frozenset({"77"})
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    grants: dict[str, set[str]] = field(default_factory=dict)
    monitors: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, set[str]] = field(default_factory=dict)
    """The groups of each user."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Ended runs of jobs: `job_id`, `start_time`, `run_duration` (ms), `result_state`."""
    calls: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    """(part of "METHOD path", status, error code), each answered once, before anything else."""
    url: str = ""
    _statements: dict[str, list[list[str]]] = field(default_factory=dict)

    def changes(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """The calls that ask for a change."""
        return [
            call
            for call in self.calls
            if call[0] != "GET" and not str(call[2].get("statement", "")).startswith("SHOW ")
        ]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Raises:
            Refused: as a workspace would.
        """
        self.calls.append((method, path, body))
        self.fail_if_asked(method, path)
        if path.startswith(_REGISTRY):
            return self._registry(method, path.removeprefix(_REGISTRY), body)
        if path == "/.well-known/databricks-config":
            return {}
        if (method, path) == ("GET", "/api/2.0/preview/scim/v2/Me"):
            return {"userName": self.user}
        if (method, path) == ("GET", "/api/2.0/preview/scim/v2/Users"):
            return self._users(body.get("filter", ""), int(body.get("startIndex", 1)))
        if method == "GET" and re.fullmatch(r"/api/2\.\d/jobs/runs/list", path):
            return self._job_runs(body)
        table = re.fullmatch(r"/api/2.1/unity-catalog/tables/([^/]+)/exists", path)
        if table and method == "GET":
            return {"table_exists": table[1] in self.tables}
        if method == "GET" and path.startswith("/api/2.1/unity-catalog/tables/"):
            name = path.rsplit("/", maxsplit=1)[-1]
            if name not in self.tables:
                raise Refused(404, "TABLE_DOES_NOT_EXIST", f"Table '{name}' does not exist.")
            return {"full_name": name, "table_id": f"id of {name}"}
        if method == "GET" and path.startswith("/api/2.1/unity-catalog/schemas/"):
            return {"schema_id": f"id of {path.rsplit('/', maxsplit=1)[-1]}"}
        if path.startswith("/api/data-quality/v1/monitors"):
            return self._monitor(method, path, body)
        if path.startswith("/api/2.0/sql/statements"):
            return self._sql(method, path, body)
        raise Refused(404, "ENDPOINT_NOT_FOUND", f"no API {method} {path}")

    def fail_if_asked(self, method: str, path: str) -> None:
        """Refuse a request that a test has chosen, once.

        Raises:
            Refused: as chosen.
        """
        for failure in self.failures:
            if failure[0] in f"{method} {path}":
                self.failures.remove(failure)
                raise Refused(failure[1], failure[2], "asked to fail")

    def _monitor(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "GET":
            number = unquote(path.rsplit("/", maxsplit=1)[-1])
            if number not in self.monitors:
                raise Refused(404, "NOT_FOUND", "Monitor not found")
            return self.monitors[number]
        if Monitor.from_dict(body).as_dict() != body:  # it drops what it does not know
            raise Refused(400, "INVALID_PARAMETER_VALUE", "unknown field")
        if body["object_id"] not in {f"id of {name}" for name in self.tables}:
            raise Refused(404, "TABLE_DOES_NOT_EXIST", "no such table")
        self.monitors[body["object_id"]] = body
        return body

    def _users(self, wanted: str, start: int) -> dict[str, Any]:
        asked = re.fullmatch(r'userName eq ("(?:[^"\\]|\\.)*")', wanted)
        if asked is None:
            raise Refused(400, "INVALID_PARAMETER_VALUE", f"bad filter {wanted}")
        name = json.loads(asked[1])
        groups = [{"display": group} for group in sorted(self.groups.get(name, ()))]
        users = [{"id": "7", "userName": name, "groups": groups}] if name in self.groups else []
        page = users if start == 1 else []
        return {"Resources": page, "totalResults": len(users), "startIndex": start}

    def _job_runs(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Two a page."""
        known = {"job_id", "completed_only", "start_time_from", "start_time_to", "page_token"}
        if unknown := asked.keys() - known:
            raise Refused(400, "INVALID_PARAMETER_VALUE", f"unknown field {sorted(unknown)}")
        if asked["job_id"] not in self.jobs:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"Job {asked['job_id']} does not exist.")
        first, last = int(asked["start_time_from"]), int(asked["start_time_to"])
        ended = {"life_cycle_state": "TERMINATED"}
        found = [
            {**run, "state": ended | {"result_state": run["result_state"]}}
            for run in self.runs
            if str(run["job_id"]) == asked["job_id"] and first <= run["start_time"] <= last
        ]
        start = int(asked.get("page_token") or 0)
        more = {"next_page_token": str(start + 2)} if len(found) > start + 2 else {}
        return {"runs": found[start : start + 2], **more}

    def _registry(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        message = _MESSAGES.get((method, path))
        if message is None:
            raise Refused(404, "ENDPOINT_NOT_FOUND", f"no API {method} {path}")
        try:
            ParseDict(body, message())
        except ParseError as error:
            raise Refused(400, "INVALID_PARAMETER_VALUE", str(error)) from error
        if body.get("name") != self.model:
            text = f"Registered model {body.get('name')} does not exist"
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", text)
        if method != "GET" and self.user != self.owner:
            raise Refused(403, "PERMISSION_DENIED", f"{self.user} is not an owner of {self.model}")
        if path == "registered-models/update":
            if body["deployment_job_id"] not in self.jobs:
                raise Refused(404, "RESOURCE_DOES_NOT_EXIST", "no such job")
            self.job_id = body["deployment_job_id"]
        if path.startswith("registered-models/") and not path.endswith("alias"):
            model = {"name": self.model, "deployment_job_id": self.job_id}
            found = [{"alias": a, "version": v} for a, v in self.aliases.items()]
            return {"registered_model": model | {"aliases": found}}
        if path == "registered-models/alias":
            return self._alias(method, body)
        self._version(body["version"])
        if method == "POST":
            self.versions[body["version"]][body["key"]] = body["value"]
            return {}
        return {"model_version": self._described(body["version"])}

    def _alias(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "POST":
            self._version(body["version"])
            self.aliases[body["alias"]] = body["version"]
            return {}
        if body["alias"] not in self.aliases:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"Alias {body['alias']} does not exist")
        if method == "DELETE":
            del self.aliases[body["alias"]]
            return {}
        return {"model_version": self._described(self.aliases[body["alias"]])}

    def _version(self, version: str) -> None:
        if version not in self.versions:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"Version {version} does not exist")

    def _described(self, version: str) -> dict[str, Any]:
        tags = [{"key": key, "value": value} for key, value in self.versions[version].items()]
        return {"name": self.model, "version": version, "tags": tags}

    def _sql(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "GET":
            number = path.rsplit("/", maxsplit=1)[-1]
            return self._succeeded(number, self._statements[number])
        if unknown := body.keys() - _STATEMENT_FIELDS:
            raise Refused(400, "BAD_REQUEST", f"unknown field {sorted(unknown)}")
        if body.get("warehouse_id") not in self.warehouses:
            raise Refused(404, "NOT_FOUND", f"warehouse {body.get('warehouse_id')} does not exist")
        number = str(len(self._statements))
        try:
            self._statements[number] = self._run(body["statement"])
        except Refused as error:
            failed = {"error_code": "BAD_REQUEST", "message": str(error)}
            return {"statement_id": number, "status": {"state": "FAILED", "error": failed}}
        if number == "0":  # the warehouse has to start
            return {"statement_id": number, "status": {"state": "PENDING"}}
        return self._succeeded(number, self._statements[number])

    @staticmethod
    def _succeeded(number: str, rows: list[list[str]]) -> dict[str, Any]:
        status = {"state": "SUCCEEDED"}
        return {"statement_id": number, "status": status, "result": {"data_array": rows}}

    def _run(self, statement: str) -> list[list[str]]:
        created = re.match(r"CREATE TABLE IF NOT EXISTS (\S+) \(.+\) USING DELTA", statement)
        if created:
            self.tables.add(created[1].replace("`", ""))
            return []
        shown = re.fullmatch(r"SHOW GRANTS `(.+)` ON SCHEMA `\w+`.`\w+`", statement)
        if shown:
            return [[shown[1], p, "SCHEMA", "x"] for p in sorted(self.grants.get(shown[1], ()))]
        granted = re.fullmatch(r"GRANT (.+) ON SCHEMA `\w+`.`\w+` TO `(.+)`", statement)
        if granted and self.user == self.owner:
            self.grants.setdefault(granted[2], set()).update(granted[1].split(", "))
            return []
        if granted:
            raise Refused(403, "PERMISSION_DENIED", "User does not have MANAGE on Schema")
        raise Refused(400, "BAD_REQUEST", f"[PARSE_SYNTAX_ERROR] {statement}")


@contextmanager
def serve(workspace: Workspace) -> Iterator[Workspace]:
    """Answer at `workspace.url` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}") | dict(parse_qsl(parts.query))
            try:
                status, answer = 200, workspace.answer(self.command, parts.path, body)
            except Refused as error:
                status, answer = error.status, {"error_code": error.code, "message": str(error)}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    workspace.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield workspace
    finally:
        server.shutdown()
        server.server_close()
