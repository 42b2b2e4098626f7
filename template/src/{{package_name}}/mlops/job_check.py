"""Find wiring mistakes in jobs without running them, without Spark and without a workspace.

Databricks finds most of these only when a run reaches the task. A field must be one that
Databricks accepts and that the local runner either obeys or may ignore (names, notifications,
permissions, compute); everything else is a problem, because here it would be skipped silently.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Protocol

from .accepted import accepts, refused
from .bundle import PAUSE_STATUSES, TRIGGERS, Bundle, Problem, Where, suggest, text
from .cron import cron_mistake, timezone_fix
from .notebooks import NotebookError, read_notebook
from .yaml_tree import dotted, relative, words

_LOG = logging.getLogger(__name__)
RUN_IF = (
    "ALL_SUCCESS",
    "ALL_DONE",
    "NONE_FAILED",
    "AT_LEAST_ONE_SUCCESS",
    "ALL_FAILED",
    "AT_LEAST_ONE_FAILED",
)
CONDITIONS = (
    "EQUAL_TO",
    "NOT_EQUAL",
    "GREATER_THAN",
    "GREATER_THAN_OR_EQUAL",
    "LESS_THAN",
    "LESS_THAN_OR_EQUAL",
)
REFERENCE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
PRODUCTION = "prod"
DEPLOYMENT = "deployment"
"""The job that each new model version starts, with these parameters."""
DEPLOYMENT_PARAMETERS = ("model_name", "model_version")
_JOB_FACTS = words(
    "job.id job.name job.run_id job.trigger.time.iso_datetime job.trigger.time.iso_date "
    "job.start_time.iso_datetime job.start_time.iso_date"
)


class EntryPoint(Protocol):
    """What is asked of an installed entry point."""

    def load(self) -> Any:
        """Import the function."""


EntryPoints = Callable[[str], Mapping[str, EntryPoint]]


def wheel_entry_points(package: str) -> dict[str, EntryPoint]:
    """Find the functions a wheel task may call: group `packages` of an installed distribution.

    Raises importlib.metadata.PackageNotFoundError.
    """
    found = importlib.metadata.distribution(package).entry_points
    return {entry.name: entry for entry in found if entry.group == "packages"}


# What a job may hold. A name that ends in `!` is required. ANY is not looked into.
SCALAR, SCALARS, MAP, ANY = "a single value", "a list of values", "a map of values", "anything"


def _fields(names: str, kind: str = SCALAR) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


_EVENTS = (
    "on_start on_success on_failure on_streaming_backlog_exceeded "
    "on_duration_warning_threshold_exceeded on_maintenance_start on_maintenance_complete"
)
_ANYWHERE: dict[str, Any] = {
    **_fields("description timeout_seconds"),
    "email_notifications": _fields(_EVENTS, SCALARS) | _fields("no_alert_for_skipped_runs"),
    "webhook_notifications": {event: [_fields("id!")] for event in _EVENTS.split()},
    "notification_settings": _fields("no_alert_for_skipped_runs no_alert_for_canceled_runs")
    | _fields("alert_on_last_attempt"),
    "health": {"rules!": [_fields("metric! op! value!")]},
}
_NESTED: dict[str, Any] = {
    **_ANYWHERE,
    **_fields("task_key! environment_key job_cluster_key existing_cluster_id max_retries"),
    **_fields("min_retry_interval_millis retry_on_timeout disable_auto_optimization"),
    **_fields("new_cluster libraries", ANY),
    "condition_task": _fields("op! left! right!"),
    "run_job_task": {"job_id!": SCALAR, "job_parameters": MAP},
    "notebook_task": {**_fields("notebook_path! source"), "base_parameters": MAP},
    "pipeline_task": _fields("pipeline_id! full_refresh"),
    "python_wheel_task": {
        **_fields("package_name! entry_point!"),
        "named_parameters": MAP,
        "parameters": SCALARS,
    },
}
_TASK = _NESTED | {
    "depends_on": [_fields("task_key! outcome")],
    "run_if": SCALAR,
    "for_each_task": {**_fields("inputs! concurrency"), "task!": _NESTED},
}
_ENVIRONMENT = _fields("environment_version client base_environment project_environment") | _fields(
    "dependencies java_dependencies", SCALARS
)
_JOB = _ANYWHERE | {
    **_fields("name performance_target max_concurrent_runs budget_policy_id usage_policy_id"),
    **_fields("tags lifecycle", ANY),
    "queue": _fields("enabled!"),
    "schedule": _fields("quartz_cron_expression! timezone_id! pause_status"),
    "trigger": _fields("pause_status") | _fields("periodic file_arrival table_update model", ANY),
    "continuous": _fields("pause_status task_retry_mode"),
    "parameters": [_fields("name! default!")],
    "permissions": [_fields("level! user_name group_name service_principal_name")],
    "run_as": _fields("user_name group_name service_principal_name"),
    "environments": [{"environment_key!": SCALAR, "spec": _ENVIRONMENT}],
    "job_clusters": [{"job_cluster_key!": SCALAR, "new_cluster!": ANY}],
    "tasks!": [_TASK],
}
_KINDS = tuple(key for key in _TASK if key.endswith("_task"))
# Databricks knows these, this runner does not.
_ONLY_THERE = words(
    "ai_runtime_task alert_task clean_rooms_notebook_task dashboard_task dbt_platform_task "
    "dbt_task gen_ai_compute_task power_bi_task python_operator_task "
    "spark_jar_task spark_python_task spark_submit_task sql_task compute disabled "
    "environment_variables environment_variables_key git_source parent_path triggers "
    "duration_target edit_mode full_refresh_selection refresh_flow_selection refresh_selection "
    "reset_checkpoint_selection warehouse_id pipeline_params sql_condition"
)


class Findings(list[Problem]):
    """Problems, and notes on what could not be checked."""

    notes: list[str]

    def __str__(self) -> str:
        """Print problems, then notes, one a line."""
        return "\n".join([*map(str, self), *(f"note: {note}" for note in self.notes)])


def check(bundle: Bundle, entry_points: EntryPoints = wheel_entry_points) -> Findings:
    """Check the wiring of every job of a bundle for its target."""
    findings = Findings(p for key in bundle.jobs for p in check_job(bundle, key, entry_points))
    findings.notes = []
    for key, job in bundle.jobs.items():
        for trigger in TRIGGERS if isinstance(job, dict) else ():
            live = trigger in job and _as(dict, job[trigger]).get("pause_status") != "PAUSED"
            if live and bundle.target != PRODUCTION:
                where = ("resources", "jobs", key, trigger, "pause_status")
                message = f"job `{key}` would run by itself in target `{bundle.target}`: its "
                message += f"{trigger} is not paused"
                fix = "remove pause_status from the job (a written one beats presets and mode), "
                fix += "and, but for mode: development, set presets.trigger_pause_status: PAUSED"
                findings.append(bundle.problem(where, message, fix))
    accepted = accepts("jobs")
    if accepted is None:
        note = "databricks-bundles is not installed, so the types and values of fields were not "
        note += "checked against Databricks' own classes; `make setup` installs it"
        findings.notes.append(note)
        _LOG.warning(note)  # also seen by who prints the problems only
        return findings
    for key in bundle.jobs:
        findings += refused(bundle, "jobs", key, accepted)
    return findings


def check_job(
    bundle: Bundle, key: str, entry_points: EntryPoints = wheel_entry_points
) -> list[Problem]:
    """Check one job: everything that would go wrong, or be skipped, in a run on this machine."""
    found = _JobCheck(bundle, key, entry_points)
    found.run()
    return list(dict.fromkeys(found.problems))


def jobs_run_by(job: Any, bundle: Bundle) -> list[str]:
    """List the jobs that a job starts with run_job_task, by key."""
    found = []
    for task in _as(list, _as(dict, job).get("tasks")):
        loop = _as(dict, _as(dict, task).get("for_each_task"))
        nested = _as(dict, loop.get("task", task))
        key = bundle.job_key(_as(dict, nested.get("run_job_task")).get("job_id"))
        found += [key] if key else []
    return found


def _as(kind: type, value: Any) -> Any:
    """Give `value`, or something empty if it is not of a kind: its own check reports that."""
    return value if isinstance(value, kind) else kind()


def split_reference(reference: str) -> list[str]:
    """Split `tasks.`my-task`.values.x` at its dots; [] if a name needs backticks and has none."""
    parts = re.findall(r"(`[^`]+`|[^.`]+)(?:\.|$)", reference)
    if ".".join(parts) != reference or not all(re.fullmatch(r"`.+`|\w+", p) for p in parts):
        return []
    return [part.strip("`") for part in parts]


def strings(value: Any, where: Where) -> Iterator[tuple[str, Where]]:
    """Walk through all texts that Databricks fills `{{...}}` in."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key not in ("description", "task_key", "name"):
                yield from strings(child, (*where, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from strings(child, (*where, index))
    elif isinstance(value, str):
        yield value, where


class _JobCheck:
    def __init__(self, bundle: Bundle, key: str, entry_points: EntryPoints) -> None:
        self.bundle, self.key, self.entry_points = bundle, key, entry_points
        self.where: Where = ("resources", "jobs", key)
        self.job = bundle.jobs[key]
        self.problems: list[Problem] = []

    def report(self, where: Where, message: str, fix: str) -> None:
        field = dotted(where[3:])
        message = f"job `{self.key}`{f', {field}' if field else ''}: {message}"
        self.problems.append(self.bundle.problem(where, message, fix))

    def run(self) -> None:
        if not self._shape(self.job, _JOB, self.where):
            return  # what follows relies on it
        parameters = self.job.get("parameters") or []
        self.parameters = [p["name"] for p in parameters]
        self._unique(parameters, "name", (*self.where, "parameters"))
        deploys = self.key == DEPLOYMENT or self.key.endswith(f"_{DEPLOYMENT}")
        for name in DEPLOYMENT_PARAMETERS if deploys else ():
            if name not in self.parameters:
                fix = f"add it, or name another job than this one `{self.key}`"
                self.report(self.where, f"a deployment job needs parameter `{name}`", fix)
        self._references(parameters, (*self.where, "parameters"), None)
        self.environments = [e["environment_key"] for e in self.job.get("environments") or []]
        self.clusters = [c["job_cluster_key"] for c in self.job.get("job_clusters") or []]
        self._triggers()
        self._environments()
        self.tasks = {task["task_key"]: task for task in self.job["tasks"]}
        at = (*self.where, "tasks")
        if not self.tasks:
            self.report(at, "there is no task", "add one")
        self._unique(self.job["tasks"], "task_key", at)
        before = self._order(at)
        for index, task in enumerate(self.job["tasks"]):
            self._task(task, (*at, index), before[task["task_key"]])

    def _shape(self, value: Any, spec: Any, where: Where) -> bool:
        """Report what does not have the form of `spec`; False if it cannot be read further."""
        if spec == ANY:
            return True
        form = {SCALARS: list, MAP: dict}.get(spec) if isinstance(spec, str) else type(spec)
        fits = isinstance(value, form) if form else not isinstance(value, dict | list)
        if not fits:
            kind = spec if isinstance(spec, str) else "a list" if form is list else "a map"
            self.report(where, f"must be {kind}", f"write {kind} here")
            return False
        if isinstance(value, list):
            inner = SCALAR if spec == SCALARS else spec[0]
            return all([self._shape(v, inner, (*where, i)) for i, v in enumerate(value)])
        if not isinstance(value, dict):
            return True
        if spec == MAP:
            return all([self._shape(v, SCALAR, (*where, k)) for k, v in value.items()])
        good = True
        for name, child in value.items():
            inner = spec.get(name, spec.get(f"{name}!"))
            if name in _ONLY_THERE and inner is None:
                fix = "use what the docstring of mlops/jobs.py lists, or run the job on Databricks"
                self.report((*where, name), f"`{name}` is not supported on this machine", fix)
            elif inner is None:
                fix = suggest(name, [known.rstrip("!") for known in spec])
                self.report((*where, name), f"unknown field `{name}`", fix)
            else:
                good &= self._shape(child, inner, (*where, name))
        for name in spec:
            if name.endswith("!") and value.get(name[:-1]) is None:
                self.report(where, f"`{name[:-1]}` is missing", f"add {name[:-1]}")
                good = False
        return good

    def _unique(self, items: list[dict[str, Any]], field: str, where: Where) -> None:
        names = [item[field] for item in items]
        for index, name in enumerate(names):
            if not isinstance(name, str):
                message = f"YAML reads `{text(name)}` as something else than text"
                self.report((*where, index, field), message, f'write "{text(name)}", quoted')
            if name in names[:index]:
                self.report((*where, index, field), f"`{name}` is defined twice", "rename one")

    def _one_of(self, value: Any, options: tuple[str, ...] | list[str], where: Where) -> None:
        if text(value) not in options:
            self.report(where, f"`{text(value)}` is not possible", suggest(text(value), options))

    def _number(self, task: dict[str, Any], field: str, lowest: int, where: Where) -> None:
        value = task.get(field, lowest)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            fix = f"write a whole number, {lowest} or more"
            self.report((*where, field), f"`{text(value)}` is not possible here", fix)

    def _triggers(self) -> None:
        for name in TRIGGERS:
            trigger = self.job.get(name) or {}
            if "pause_status" in trigger:
                at = (*self.where, name, "pause_status")
                self._one_of(trigger["pause_status"], PAUSE_STATUSES, at)
        cron = (self.job.get("schedule") or {}).get("quartz_cron_expression")
        mistake = cron_mistake(text(cron)) if cron else None
        if mistake:
            at = (*self.where, "schedule", "quartz_cron_expression")
            fix = "write `second minute hour day-of-month month day-of-week`, as in `0 30 5 * * ?`"
            self.report(at, f"`{cron}` is no Quartz cron expression: {mistake}", fix)
        zone = text((self.job.get("schedule") or {}).get("timezone_id") or "UTC")
        if right := timezone_fix(zone):
            at = (*self.where, "schedule", "timezone_id")
            self.report(at, f"there is no time zone `{zone}`", right)

    def _environments(self) -> None:
        for index, environment in enumerate(self.job.get("environments") or []):
            at, spec = (*self.where, "environments", index, "spec"), environment.get("spec") or {}
            number = text(spec.get("environment_version", "1"))
            if not number.isdigit():
                message = f"`{number}` is no version of an environment"
                self.report((*at, "environment_version"), message, 'write a whole number, as "5"')
            for place, name in enumerate(spec.get("dependencies") or []):
                if "*" in text(name) and not text(name).endswith(".whl"):
                    message = f"`{name}` matches nothing that the bundle builds"
                    fix = "write a package, or the wheel: ../dist/*.whl"
                    self.report((*at, "dependencies", place), message, fix)

    def _order(self, where: Where) -> dict[str, set[str]]:
        """Check depends_on; give the tasks that come before each task, directly or not."""
        direct: dict[str, set[str]] = {key: set() for key in self.tasks}
        for index, task in enumerate(self.job["tasks"]):
            for position, needed in enumerate(task.get("depends_on") or []):
                at = (*where, index, "depends_on", position)
                name, outcome = needed["task_key"], needed.get("outcome")
                if name not in self.tasks:
                    message = f"there is no task `{name}` to depend on"
                    self.report((*at, "task_key"), message, suggest(name, self.tasks))
                    continue
                direct[task["task_key"]].add(name)
                if outcome is None:
                    continue
                self._one_of(outcome, ("true", "false"), (*at, "outcome"))
                if "condition_task" not in self.tasks[name]:
                    message = f"task `{name}` has no outcome: it is not a condition_task"
                    self.report((*at, "outcome"), message, "remove outcome")
        before: dict[str, set[str]] = {key: set() for key in self.tasks}
        try:
            for key in TopologicalSorter(direct).static_order():
                before[key] = direct[key].union(*(before[k] for k in direct[key]))
        except CycleError as error:
            circle = error.args[1]
            index = [t["task_key"] for t in self.job["tasks"]].index(circle[0])
            message = f"tasks wait for each other: {' -> '.join(circle)}"
            self.report((*where, index, "depends_on"), message, "remove one of these depends_on")
        return before

    def _task(
        self, task: dict[str, Any], where: Where, before: set[str], in_loop: bool = False
    ) -> None:
        if "run_if" in task:
            self._one_of(task["run_if"], RUN_IF, (*where, "run_if"))
        self._number(task, "max_retries", 0, where)
        self._number(task, "min_retry_interval_millis", 0, where)
        for field, known in (
            ("environment_key", self.environments),
            ("job_cluster_key", self.clusters),
        ):
            if field in task and task[field] not in known:
                message = f"{field} `{task[field]}` is not defined in this job"
                self.report((*where, field), message, suggest(task[field], known))
        kinds = [kind for kind in _KINDS if kind in task]
        if len(kinds) != 1 and not any(name in _ONLY_THERE for name in task):
            message = f"a task needs exactly one kind, this has {', '.join(kinds) or 'none'}"
            self.report(where, message, f"keep one of {', '.join(_KINDS)}")
        outside = {k: v for k, v in task.items() if k != "for_each_task"}
        self._references(outside, where, before, in_loop)
        for kind in kinds:
            getattr(self, f"_{kind}")(task, task[kind], (*where, kind), before)

    def _condition_task(self, task: Any, spec: Any, where: Where, before: set[str]) -> None:
        self._one_of(spec["op"], CONDITIONS, (*where, "op"))

    def _for_each_task(self, task: Any, spec: Any, where: Where, before: set[str]) -> None:
        self._number(spec, "concurrency", 1, where)
        self._references({"inputs": spec["inputs"]}, where, before)
        if not REFERENCE.search(text(spec["inputs"])):
            try:
                good = isinstance(json.loads(text(spec["inputs"])), list)
            except ValueError:
                good = False
            if not good:
                message = "inputs is neither a JSON array nor a reference"
                self.report((*where, "inputs"), message, 'write it as in `["a", "b"]`, quoted')
        self._task(spec["task"], (*where, "task"), before, in_loop=True)

    def _run_job_task(self, task: Any, spec: Any, where: Where, before: set[str]) -> None:
        other = self.bundle.job_key(spec["job_id"])
        if other is None:
            message = f"job_id `{spec['job_id']}` is no job of this bundle"
            fix = "write ${resources.jobs.<key>.id}, with a key out of "
            self.report((*where, "job_id"), message, fix + ", ".join(self.bundle.jobs))
            return
        seen, ahead = set[str](), [other]
        while ahead:
            if (name := ahead.pop()) not in seen:
                seen.add(name)
                ahead += jobs_run_by(self.bundle.jobs[name], self.bundle)
        if self.key in seen:
            self.report((*where, "job_id"), "the job ends up running itself", "break the circle")
        declared = _as(list, _as(dict, self.bundle.jobs[other]).get("parameters"))
        known = [text(_as(dict, parameter).get("name")) for parameter in declared]
        for name in spec.get("job_parameters") or {}:
            if name not in known:
                message = f"job `{other}` has no parameter `{name}`"
                self.report((*where, "job_parameters", name), message, suggest(name, known))
        self._pushed_down(spec.get("job_parameters") or {}, (*where, "job_parameters"))

    def _notebook_task(self, task: Any, spec: Any, where: Where, before: set[str]) -> None:
        if spec.get("source", "WORKSPACE") != "WORKSPACE":
            fix = "remove source: the notebook is deployed with the bundle"
            self.report((*where, "source"), f"`{spec['source']}` is not supported", fix)
        at = (*where, "notebook_path")
        path = self.bundle.place(at)[0].parent / text(spec["notebook_path"])
        try:
            read_notebook(path)
        except NotebookError as error:
            self.report(at, str(error), error.fix)
        self._pushed_down(spec.get("base_parameters") or {}, (*where, "base_parameters"))

    def _pipeline_task(self, task: Any, spec: Any, where: Where, before: set[str]) -> None:
        if self.bundle.pipeline_key(spec["pipeline_id"]) is None:
            message = f"pipeline_id `{spec['pipeline_id']}` is no pipeline of this bundle"
            fix = "write ${resources.pipelines.<key>.id}, with a key out of "
            fix += ", ".join(self.bundle.pipelines) or "none: this bundle has no pipeline"
            self.report((*where, "pipeline_id"), message, fix)

    def _python_wheel_task(self, task: Any, spec: Any, where: Where, before: set[str]) -> None:
        if not task.keys() & words(
            "environment_key job_cluster_key existing_cluster_id new_cluster"
        ):
            fix = "add environment_key (serverless) or job_cluster_key"
            self.report(where, "a wheel task needs an environment or a cluster", fix)
        if "named_parameters" in spec and "parameters" in spec:
            self.report(where, "both parameters and named_parameters", "keep named_parameters")
        package, name = text(spec["package_name"]), text(spec["entry_point"])
        try:
            found = self.entry_points(package)
        except importlib.metadata.PackageNotFoundError:
            at, message = (*where, "package_name"), f"package `{package}` is not installed here"
            self.report(at, message, "correct package_name, or run `make setup`")
            return
        if name not in found:
            message = f"package `{package}` has no entry point `{name}` in group `packages`"
            self.report((*where, "entry_point"), message, suggest(name, found))
            return
        try:
            accepted: Mapping[str, bool] = found[name].load().parameters
        except Exception as error:  # whatever the import of the team's code raises
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            message = f"entry point `{name}` cannot be used: {reason}"
            for frame in reversed(traceback.extract_tb(error.__traceback__)):
                file = Path(frame.filename)
                if file.is_relative_to(self.bundle.root / "src") and file != Path(__file__):
                    message += f" ({relative(file, self.bundle.root)}:{frame.lineno})"
                    break
            fix = "let its module be imported without a Spark session, with `main` an entry_point"
            self.report((*where, "entry_point"), message, fix)
            return
        field = "parameters" if "parameters" in spec else "named_parameters"
        given = [
            (match[1], (*where, field, index))
            for index, value in enumerate(spec.get("parameters") or [])
            if (match := re.match(r"--([\w-]+)", text(value)))
        ] or [(key, (*where, field, key)) for key in spec.get("named_parameters") or {}]
        for parameter, at in given:
            if parameter not in accepted:
                message = f"`{name}` takes no parameter `{parameter}`"
                self.report(at, message, suggest(parameter, accepted))
        passed = {parameter for parameter, _ in given}
        if "named_parameters" in spec:
            passed |= set(self.parameters)
            self._pushed_down(spec["named_parameters"] or {}, (*where, field))
            for parameter in set(self.parameters) - accepted.keys():
                message = f"Databricks passes the job's parameter `{parameter}` on to this task, "
                fix = f"let `{name}` take it, or take it off the job"
                self.report((*where, field), f"{message}and `{name}` does not take it", fix)
        for parameter, required in accepted.items():
            if required and parameter not in passed:
                message = f"`{name}` needs parameter `{parameter}`"
                self.report((*where, field), message, f"add {parameter}")

    def _pushed_down(self, given: Mapping[str, Any], where: Where) -> None:
        """A job parameter wins over a task parameter of that name: it must be the same thing."""
        for name, value in given.items():
            match = REFERENCE.fullmatch(text(value))
            same = match and split_reference(match[1]) == ["job", "parameters", name]
            if name in self.parameters and not same:
                message = f"the job's parameter `{name}` overrides this value on Databricks"
                fix = f'write "{{{{job.parameters.{name}}}}}", or rename one of them'
                self.report((*where, name), message, fix)

    def _references(
        self, value: Any, where: Where, before: set[str] | None, in_loop: bool = False
    ) -> None:
        """Check every `{{...}}` below `value`; `before` is None for defaults of parameters."""
        for string, at in strings(value, where):
            if re.search(r"\{\{|\}\}", REFERENCE.sub("", string)):
                message = "braces do not match, so Databricks would pass them on as text"
                self.report(at, message, "write {{ and }} in pairs")
            for reference in REFERENCE.findall(string):
                if mistake := self._reference_mistake(reference, before, in_loop):
                    self.report(at, f"{{{{{reference}}}}}: {mistake[0]}", mistake[1])

    def _reference_mistake(
        self, reference: str, before: set[str] | None, in_loop: bool
    ) -> tuple[str, str] | None:
        match split_reference(reference):
            case ["job", "parameters", name] if before is not None:
                if name in self.parameters:
                    return None
                return f"the job has no parameter `{name}`", suggest(name, self.parameters)
            case ["task", "name"] if before is not None:
                return None
            case ["input", *rest] if in_loop and len(rest) <= 1:
                return None
            case ["tasks", name, *rest] if before is not None:
                if name not in before:
                    fix = "add it to depends_on" if name in self.tasks else suggest(name, before)
                    return f"task `{name}` does not come before this one", fix
                if rest == ["result_state"]:
                    return None
                if len(rest) == 2 and rest[0] == "values":
                    if self.tasks[name].keys() & {"python_wheel_task", "notebook_task"}:
                        return None
                    return f"task `{name}` sets no values", "refer to a wheel or notebook task"
            case []:
                fix = "put backticks around names with other signs than letters, digits and _"
                return "not a reference", fix
            case _ if reference in _JOB_FACTS:
                return None
        usual = {"job.parameters.<name>", "task.name", "tasks.<task>.values.<name>"}
        if before is None:
            usual = set()
        return "unknown reference", suggest(reference, _JOB_FACTS | usual)
