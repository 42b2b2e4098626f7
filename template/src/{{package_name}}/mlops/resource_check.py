"""Find mistakes in what a bundle holds beside jobs: storage, pipelines, dashboards, alerts, target.

As with jobs, `bundle validate` finds few of these, and a deployment finds them one at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .accepted import CLASSES, accepts, refused
from .bundle import PAUSE_STATUSES, Bundle, Problem, Where, suggest, text
from .cron import cron_mistake, timezone_fix
from .job_check import PRODUCTION

_SCHEDULES = {"alerts": "quartz_cron_schedule", "quality_monitors": "quartz_cron_expression"}
"""Presets pause jobs and pipelines only; these have schedules too."""
_PARENTS = {
    "pipelines": "schema",
    "registered_models": "schema_name",
    "volumes": "schema_name",
}


def check_resources(bundle: Bundle, *models: str) -> list[Problem]:
    """Check everything but jobs, for the target; `models` are names as each problem.py has them."""
    found = [*_target(bundle), *(p for model in models for p in _model(bundle, model, models))]
    for kind, resources in bundle.resources.items():
        if kind == "jobs":
            continue
        from_dict = accepts(kind)
        for key, resource in resources.items():
            where: Where = ("resources", kind, key)
            if not isinstance(resource, dict):
                message = f"resources.{kind}.{key} must be a map"
                found.append(bundle.problem(where, message, "write a map here"))
                continue
            if from_dict and kind in CLASSES:
                found += refused(bundle, kind, key, from_dict)
            if kind in _SCHEDULES:
                found += _schedule(bundle, where, resource.get("schedule"), _SCHEDULES[kind])
            if kind in _PARENTS:
                found += _parent(bundle, where, resource, _PARENTS[kind])
            if kind == "alerts":
                found += _alert(bundle, where, resource)
            if kind == "dashboards":
                found += _dashboard(bundle, where, resource)
            if kind == "pipelines":
                found += _pipeline(bundle, where, resource)
    return list(dict.fromkeys(found))


def _target(bundle: Bundle) -> Iterator[Problem]:
    """A production target has one place, which not everybody can write to."""
    workspace = bundle.settings.get("workspace") or {}
    root_path = workspace.get("root_path") if isinstance(workspace, dict) else None
    permissions = bundle.settings.get("permissions") or []
    if bundle.settings.get("mode") == "production":
        if not root_path:
            message = f"target `{bundle.target}` is for production and has no workspace.root_path, "
            message += "so everyone who deploys makes a copy of their own"
            fix = "set workspace.root_path to a folder of the service principal that deploys"
            yield bundle.problem(("target",), message, fix)
        for index, permission in enumerate(permissions):
            everyone = {"group_name": "users", "level": "CAN_MANAGE"}
            if isinstance(permission, dict) and everyone.items() <= permission.items():
                message = f"everyone may change what target `{bundle.target}` deploys"
                yield bundle.problem(("permissions", index), message, "give `users` CAN_VIEW")
    for key in bundle.resources.get("secret_scopes", {}):
        for permission in permissions:
            if isinstance(permission, dict) and permission.get("group_name") == "users":
                message = f"everyone may read secret scope `{key}`: the CLI gives what `users` get "
                message += f"on target `{bundle.target}` on scopes, too, and CAN_VIEW there is READ"
                fix = "make the scope outside of the bundle, by admin-setup --key-vault"
                yield bundle.problem(("resources", "secret_scopes", key), message, fix)
    if text(root_path).startswith("/Workspace/Shared/"):
        message = "everyone may write to /Workspace/Shared, so `bundle validate --strict` fails"
        fix = "use a folder of the service principal that deploys, below /Workspace/Users"
        yield bundle.problem(("workspace", "root_path"), message, fix)


def _model(bundle: Bundle, model: str, models: tuple[str, ...]) -> Iterator[Problem]:
    names = {key: m.get("name") for key, m in _maps(bundle, "registered_models")}
    if names and model not in names.values():
        key = next((key for key, name in names.items() if name not in models), next(iter(names)))
        message = f"registered model `{key}` is called `{names[key]}`, in problem.py `{model}`"
        at: Where = ("resources", "registered_models", key, "name")
        yield bundle.problem(at, message, f"set variable `model` to `{model}`")


def _maps(bundle: Bundle, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, resource in bundle.resources.get(kind, {}).items():
        if isinstance(resource, dict):
            yield key, resource


def _schedule(bundle: Bundle, where: Where, schedule: Any, field: str) -> Iterator[Problem]:
    if not isinstance(schedule, dict):
        return
    at: Where = (*where, "schedule")
    name = f"{where[1][:-1] if isinstance(where[1], str) else ''} `{where[2]}`"
    mistake = cron_mistake(text(schedule.get(field))) if schedule.get(field) else None
    if mistake:
        message = f"{name}: `{schedule[field]}` is no Quartz cron expression: {mistake}"
        fix = "write `second minute hour day-of-month month day-of-week`, as in `0 30 5 * * ?`"
        yield bundle.problem((*at, field), message, fix)
    zone = text(schedule.get("timezone_id") or "UTC")
    if right := timezone_fix(zone):
        yield bundle.problem((*at, "timezone_id"), f"{name}: there is no time zone `{zone}`", right)
    status = schedule.get("pause_status", "UNPAUSED")
    if status not in PAUSE_STATUSES:
        fix = suggest(text(status), PAUSE_STATUSES)
        yield bundle.problem((*at, "pause_status"), f"{name}: `{status}` is not possible", fix)
    elif status == "UNPAUSED" and bundle.target != PRODUCTION:
        message = f"{name} would run by itself in target `{bundle.target}`: presets do not pause it"
        fix = "set its pause_status by a variable that is PAUSED but in production"
        yield bundle.problem((*at, "pause_status"), message, fix)


def _parent(
    bundle: Bundle, where: Where, resource: dict[str, Any], field: str
) -> Iterator[Problem]:
    """What is inside a schema of this bundle follows its name, prefixes included."""
    written, name = bundle.written((*where, field)), resource.get(field)
    own = [key for key, schema in _maps(bundle, "schemas") if schema.get("name") == name]
    if own and not re.search(r"\$\{resources\.schemas\.", written):
        message = f"{where[1]}.{where[2]}: `{written}` misses the prefix that the schema gets in "
        message += "development"
        fix = f"write ${{resources.schemas.{own[0]}.name}}"
        yield bundle.problem((*where, field), message, fix)


def _alert(bundle: Bundle, where: Where, alert: dict[str, Any]) -> Iterator[Problem]:
    evaluation = alert.get("evaluation")
    source = evaluation.get("source") if isinstance(evaluation, dict) else None
    column = source.get("name") if isinstance(source, dict) else None
    query = text(alert.get("query_text"))
    if column and query and not re.search(rf"\b{re.escape(text(column))}\b", query):
        at: Where = (*where, "evaluation", "source", "name")
        message = f"alert `{where[2]}`: its query has no column `{column}`"
        yield bundle.problem(at, message, "name a column that query_text selects")


def pipeline_files(bundle: Bundle, key: str) -> list[Path]:
    """The source files of a pipeline, in the order of its libraries."""
    found = []
    for index, library in enumerate(bundle.pipelines[key].get("libraries") or []):
        where: Where = ("resources", "pipelines", key, "libraries", index)
        found += _library_files(bundle, where, library)
    return found


def _library_files(bundle: Bundle, where: Where, library: Any) -> list[Path]:
    """Files of one library: a file, or a folder with all that is in it."""
    kind = next((k for k in ("glob", "file") if isinstance(library, dict) and k in library), None)
    if kind is None or not isinstance(library[kind], dict):
        return []
    path = text(library[kind].get("include" if kind == "glob" else "path"))
    folder = bundle.place(where)[0].parent
    if path.endswith("/**"):
        files = sorted((folder / path.removesuffix("/**")).rglob("*"))
        return [file for file in files if file.suffix in (".py", ".sql")]
    return [folder / path] if (folder / path).is_file() else []


def _pipeline(bundle: Bundle, where: Where, pipeline: dict[str, Any]) -> Iterator[Problem]:
    name = f"pipeline `{where[2]}`"
    libraries = pipeline.get("libraries") or []
    if not libraries:
        yield bundle.problem(where, f"{name} has no libraries", "name the files that define it")
    for index, library in enumerate(libraries if isinstance(libraries, list) else []):
        at: Where = (*where, "libraries", index)
        files = _library_files(bundle, at, library)
        if not files:
            message = f"{name}: there is no such file"
            yield bundle.problem(at, message, "name a file, or a folder and `/**`, from here")
        for file in files:
            if file.suffix == ".py" and (mistake := _syntax_mistake(file)):
                fix = "correct the file"
                yield bundle.problem(at, f"{name}: {file.name} cannot be read: {mistake}", fix)
    if pipeline.get("continuous") and bundle.target != PRODUCTION:
        message = f"{name} would run all the time in target `{bundle.target}`"
        fix = "remove continuous: a job refreshes it"
        yield bundle.problem((*where, "continuous"), message, fix)


def _syntax_mistake(file: Path) -> str:
    try:
        compile(file.read_text(encoding="utf-8"), file.name, "exec")
    except (SyntaxError, ValueError) as error:
        return str(error)
    return ""


def _dashboard(bundle: Bundle, where: Where, dashboard: dict[str, Any]) -> Iterator[Problem]:
    run_as = bundle.settings.get("run_as")
    if run_as and dashboard.get("embed_credentials"):
        message = f"dashboard `{where[2]}`: embed_credentials does not go with run_as of the target"
        yield bundle.problem((*where, "embed_credentials"), message, "set it to false")
    if "warehouse_id" not in dashboard:
        message = f"dashboard `{where[2]}` has no warehouse_id"
        yield bundle.problem(where, message, "write `warehouse_id: ${var.warehouse_id}`")
    if "file_path" not in dashboard:
        return
    at: Where = (*where, "file_path")
    path = bundle.place(at)[0].parent / text(dashboard["file_path"])
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob("*.lvdash.json"))
        message = f"dashboard `{where[2]}`: there is no file `{path.name}`"
        yield bundle.problem(at, message, suggest(path.name, others))
        return
    yield from check_dashboard(path, bundle.root)


def check_dashboard(path: Path, root: Path) -> Iterator[Problem]:
    """Check that the widgets of a dashboard show what its datasets have."""
    lines = path.read_text(encoding="utf-8").splitlines()
    file = path.resolve().relative_to(root.resolve()).as_posix()
    try:
        content = json.loads("\n".join(lines))
        datasets = {d["name"]: "".join(d["queryLines"]) for d in content["datasets"]}
        for page in content["pages"]:
            for placed in page["layout"]:
                for near, message, fix in _widget(placed["widget"], datasets):
                    line = next((n for n, text in enumerate(lines, 1) if near in text), 1)
                    yield Problem(file, line, message, fix)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        yield Problem(file, line, f"cannot be read: {error}", "export the dashboard again")
    except (KeyError, TypeError) as error:
        yield Problem(file, 1, f"is no dashboard: {error} is missing", "export it again")


def _widget(widget: dict[str, Any], datasets: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """The mistakes of a widget: a text of the line to point at, what is wrong, the fix."""
    name = widget["name"]
    shown: set[str] = set()
    for query in (query["query"] for query in widget.get("queries", [])):
        dataset = query["datasetName"]
        if dataset not in datasets:
            message = f"widget `{name}` reads dataset `{dataset}`, which is not there"
            yield f'"datasetName": "{dataset}"', message, suggest(dataset, datasets)
            return
        for field in query["fields"]:
            shown.add(field["name"])
            for column in re.findall(r"`([^`*]+)`", field["expression"]):
                if not re.search(rf"\b{re.escape(column)}\b", datasets[dataset]):
                    message = f"widget `{name}`: dataset `{dataset}` has no column `{column}`"
                    yield f"`{column}`", message, f"select it in the query of `{dataset}`"
    for field_name in _field_names(widget.get("spec", {}).get("encodings", {})):
        if field_name not in shown:
            message = f"widget `{name}` shows `{field_name}`, which it does not query"
            yield f'"fieldName": "{field_name}"', message, suggest(field_name, shown)


def _field_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "fieldName" in value:
            yield value["fieldName"]
        for child in value.values():
            yield from _field_names(child)
    elif isinstance(value, list):
        for child in value:
            yield from _field_names(child)
