"""What a bundle cannot do, once it is deployed. Run it after each deployment.

In this order, so that a first deployment into an empty catalog works in one go:

1. the evidence tables, which the dashboard and the alerts read, are created empty;
2. the deployment job is attached to the registered model, so that each new version starts it;
3. principals that run jobs without owning the schema get what jobs need. (Grants of a bundle know
   no CREATE MODEL VERSION, hence by SQL.)
4. where asked for, the table of predictions gets data profiling. (A bundle's quality monitor
   needs a table that is there before it.)

Every step looks first and changes only what differs. One that fails for a passing reason (429, 5xx,
a lost connection) is tried again with growing pauses; then the report says what was done and what
was not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .tables import EVIDENCE, PREDICTIONS, Table, create_table_sql

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

JOB, MODEL, SCHEMA, DASHBOARD = "deployment", "champion", "mlops", "evidence"
"""Resource keys of the bundle."""
PRIVILEGES = (
    "USE SCHEMA",
    "SELECT",
    "MODIFY",
    "CREATE TABLE",
    "EXECUTE",
    "CREATE MODEL",
    "CREATE MODEL VERSION",
    "APPLY TAG",
    "MANAGE",
)
"""On the schema, for those who run its jobs without owning it. Aliases need MANAGE."""
PROFILED_DAILY = "0 0 7 * * ?"
_PAUSES = (1.0, 4.0, 16.0)
_PATIENCE = 60  # seconds for which the SDK itself repeats a request that is throttled
_PASSING = (
    "ABORTED",
    "DEADLINE_EXCEEDED",
    "INTERNAL_ERROR",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
)


class AfterDeployError(RuntimeError):
    """A step that cannot be done; says why and what to do."""


@dataclass(frozen=True)
class Deployment:
    """What a bundle has deployed, and who else runs it."""

    catalog: str
    schema: str
    model: str
    job_id: str
    warehouse_id: str
    principals: tuple[str, ...] = ()
    host: str = ""
    further: tuple[tuple[str, str], ...] = ()  # each further model, and the job that decides on it
    profile: str | None = None  # classification or regression: profile the predictions

    def use_host(self) -> None:
        """Have the clients of this process talk to the workspace that was deployed to.

        Raises:
            ValueError: DATABRICKS_HOST names another one.
        """
        given = os.environ.get("DATABRICKS_HOST", self.host)
        if self.host and given.rstrip("/") != self.host.rstrip("/"):
            raise ValueError(
                f"DATABRICKS_HOST is {given}, and the summary is of {self.host}. Fix: unset it, or "
                "pass the summary of the target that is deployed there."
            )
        if self.host:
            os.environ["DATABRICKS_HOST"] = self.host

    @property
    def schema_name(self) -> str:
        """The schema with its catalog, quoted for SQL."""
        return f"{quoted(self.catalog)}.{quoted(self.schema)}"

    @property
    def deciders(self) -> dict[str, str]:
        """Three-level name of each registered model, with the id of its deployment job."""
        pairs = ((self.model, self.job_id), *self.further)
        return {f"{self.catalog}.{self.schema}.{model}": job_id for model, job_id in pairs}

    @classmethod
    def of_summary(
        cls,
        text: str,
        warehouse_id: str | None = None,
        principals: Iterable[str] = (),
        profile: str | None = None,
    ) -> Deployment:
        """Read what `databricks bundle summary -o json` prints.

        Raises:
            ValueError: it is something else, or the bundle has not been deployed.
        """
        try:
            summary = json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"the summary is no JSON: {error}. Fix: databricks bundle summary -t TARGET -o "
                "json, piped into this command."
            ) from None
        schema = _resource(summary, "schemas", SCHEMA)
        model = str(_resource(summary, "registered_models", MODEL).get("name"))
        job_id = _job_id(summary, JOB)
        further = [
            (str(other.get("name")), _job_id(summary, f"{key}_{JOB}"))
            for key, other in summary["resources"]["registered_models"].items()
            if f"{key}_{JOB}" in summary["resources"]["jobs"]
        ]
        warehouse = warehouse_id or _resource(summary, "dashboards", DASHBOARD).get("warehouse_id")
        if not warehouse or "${" in warehouse:
            raise ValueError("the summary names no SQL warehouse. Fix: pass --warehouse-id ID.")
        run_as = (summary.get("run_as") or {}).get("service_principal_name")
        others = dict.fromkeys([*([run_as] if run_as else []), *principals])
        return cls(
            catalog=str(schema.get("catalog_name")),
            schema=str(schema.get("name")),
            model=model,
            job_id=job_id,
            warehouse_id=str(warehouse),
            principals=tuple(others),
            host=str((summary.get("workspace") or {}).get("host") or ""),
            further=tuple(further),
            profile=profile,
        )


def _job_id(summary: Any, key: str) -> str:
    job_id = str(_resource(summary, "jobs", key).get("id") or "")
    if not job_id:
        raise ValueError(
            f"job {key} has no id in the summary. Fix: run `databricks bundle deploy` for the "
            "same target first."
        )
    return job_id


def _resource(summary: Any, kind: str, key: str) -> dict[str, Any]:
    try:
        found = summary["resources"][kind][key]
    except (KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"the summary has no resources.{kind}.{key}. Fix: pass what `databricks bundle summary "
            "-o json` prints for this project."
        )
    return found


def quoted(name: str) -> str:
    """A name between backticks, for SQL."""
    return "`" + name.replace("`", "``") + "`"


def run(
    deployment: Deployment,
    say: Callable[[str], None],
    workspace: WorkspaceClient | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Do every step and say what changed; False when one could not be done.

    A failed step does not stop the others. (Only the profile relies on one, on its table.)
    """
    if workspace is None:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.config import Config

        workspace = WorkspaceClient(config=Config(retry_timeout_seconds=_PATIENCE))
    steps: dict[str, Callable[[], bool]] = {
        f"table {table.name}": partial(_table, workspace, deployment, table) for table in EVIDENCE
    }
    for model, job_id in deployment.deciders.items():
        steps[f"deployment job of {model}"] = partial(_attach, model, job_id)
    for principal in deployment.principals:
        steps[f"grants of {principal}"] = partial(_grant, workspace, deployment, principal)
    if deployment.profile:
        name = f"profile of {PREDICTIONS.name}"
        steps[name] = partial(_profile, workspace, deployment, deployment.profile)
    failed = 0
    for name, step in steps.items():
        try:
            changed = _retried(step, sleep)
        except Exception as error:  # whatever the workspace or the network says
            failed += 1
            say(f"NOT DONE   {name}: {type(error).__name__}: {error}")
        else:
            say(f"{'changed  ' if changed else 'unchanged'}  {name}")
    if failed:
        say(f"{failed} of {len(steps)} steps were not done. Fix what they say, then run it again.")
    return not failed


def _retried(step: Callable[[], bool], sleep: Callable[[float], None]) -> bool:
    for pause in _PAUSES:
        try:
            return step()
        except Exception as error:
            if not _passes(error):
                raise
            sleep(pause)
    return step()


def _passes(error: Exception) -> bool:
    """Whether trying again may help.

    What a gateway answers (502, or a page instead of JSON) has no code that is known.
    """
    from databricks.sdk import errors

    passing = (
        ConnectionError,
        errors.Aborted,
        errors.DeadlineExceeded,
        errors.InternalError,
        errors.TemporarilyUnavailable,
        errors.TooManyRequests,
    )
    if isinstance(error, passing) or type(error) is errors.DatabricksError:
        return True
    return str(getattr(error, "error_code", "")) in _PASSING


def _table(workspace: WorkspaceClient, deployment: Deployment, table: Table) -> bool:
    name = f"{deployment.catalog}.{deployment.schema}.{table.name}"
    if workspace.tables.exists(name).table_exists:
        return False
    full_name = f"{deployment.schema_name}.{quoted(table.name)}"
    _sql(workspace, deployment, create_table_sql(full_name, table.columns, table.description))
    return True


def _attach(model_name: str, job_id: str) -> bool:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri="databricks", registry_uri="databricks-uc")
    model = client.get_registered_model(model_name)
    if str(model.deployment_job_id or "") == job_id:
        return False
    client.update_registered_model(model_name, deployment_job_id=job_id)
    return True


def _grant(workspace: WorkspaceClient, deployment: Deployment, principal: str) -> bool:
    if workspace.current_user.me().user_name == principal:
        return False  # it has deployed the schema, so it owns it
    who, schema = quoted(principal), deployment.schema_name
    rows = _sql(workspace, deployment, f"SHOW GRANTS {who} ON SCHEMA {schema}")
    has = {row[1].replace("_", " ") for row in rows if len(row) > 1}
    missing = [privilege for privilege in PRIVILEGES if privilege not in has]
    if missing:
        _sql(workspace, deployment, f"GRANT {', '.join(missing)} ON SCHEMA {schema} TO {who}")
    return bool(missing)


def _profile(workspace: WorkspaceClient, deployment: Deployment, task: str) -> bool:
    """Have the workspace profile the predictions as an inference log, once a day."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service import dataquality as dq

    schema = f"{deployment.catalog}.{deployment.schema}"
    table = workspace.tables.get(f"{schema}.{PREDICTIONS.name}").table_id or ""
    try:
        workspace.data_quality.get_monitor("table", table)
    except NotFound:
        pass
    else:
        return False
    kind = dq.InferenceProblemType[f"INFERENCE_PROBLEM_TYPE_{task.upper()}"]
    # No slices: the features' columns come with the first predictions.
    log = dq.InferenceLogConfig(
        problem_type=kind,
        timestamp_column="predict_at",
        granularities=[dq.AggregationGranularity.AGGREGATION_GRANULARITY_1_DAY],
        prediction_column="prediction",
        model_id_column="model_version",
    )
    config = dq.DataProfilingConfig(
        output_schema_id=workspace.schemas.get(schema).schema_id or "",
        inference_log=log,
        schedule=dq.CronSchedule(PROFILED_DAILY, "UTC"),
        warehouse_id=deployment.warehouse_id,
    )
    monitor = dq.Monitor("table", table, data_profiling_config=config)
    workspace.data_quality.create_monitor(monitor)
    return True


def _sql(workspace: WorkspaceClient, deployment: Deployment, statement: str) -> list[list[str]]:
    """Run one statement on the warehouse, which may have to start first; its rows."""
    from databricks.sdk.service.sql import StatementState

    api = workspace.statement_execution
    done = api.execute_statement(statement, deployment.warehouse_id, wait_timeout="50s")
    while done.status and done.status.state in (StatementState.PENDING, StatementState.RUNNING):
        time.sleep(1)
        done = api.get_statement(done.statement_id or "")
    if not done.status or done.status.state is not StatementState.SUCCEEDED:
        reason = done.status.error.message if done.status and done.status.error else "no reason"
        raise AfterDeployError(f"{reason} ({statement})")
    return done.result.data_array or [] if done.result else []
