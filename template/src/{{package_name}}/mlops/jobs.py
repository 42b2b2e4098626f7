"""Run the jobs of resources/*.job.yml on this machine, as Databricks runs them.

Obeyed: job parameters (also passed on to notebook, run-job and keyword wheel tasks, as Databricks
does), `{{job.parameters.*}}`, `{{job.id}}`, `{{job.name}}`, `{{job.run_id}}`,
`{{job.trigger.time.iso_datetime}}` and `.iso_date` (also `job.start_time`), `{{task.name}}`,
`{{tasks.*.values.*}}`, `{{tasks.*.result_state}}`, `{{input}}` and `{{input.*}}`; depends_on with
outcome, run_if, max_retries, min_retry_interval_millis; condition_task, for_each_task,
run_job_task, python_wheel_task, notebook_task and pipeline_task.

Ignored, since they do not change what a run computes: full_refresh (each refresh of a pipeline
computes all of it here), schedules, compute, environments,
notifications, permissions, queues, health rules and timeouts (a task here may take as long as it
likes). Everything else is refused before the first task starts.

No task gets a time from the clock: the time of a run is given to the Runner.
"""

from __future__ import annotations

import itertools
import json
import operator
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from .bundle import Bundle, Problem, Where, job_id_of, suggest, text
from .job_check import (
    DEPLOYMENT,
    DEPLOYMENT_PARAMETERS,
    REFERENCE,
    EntryPoints,
    Findings,
    check,
    check_job,
    jobs_run_by,
    split_reference,
    strings,
    wheel_entry_points,
)
from .notebooks import run_notebook
from .platform import JobRun
from .resource_check import pipeline_files

__all__ = ["Findings", "JobFailed", "JobRefused", "Problem", "Runner", "TaskEvent", "check"]

TaskValues = dict[str, str]
RUNNING, RETRYING, SUCCESS, FAILED, UPSTREAM_FAILED, EXCLUDED = (
    "running",
    "retrying",
    "success",
    "failed",
    "upstream_failed",
    "excluded",
)
_ORDER: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
}


def problem_of(bundle: Bundle, job: str) -> str:
    """Name of the model that a job's tasks serve; empty for the first, and for no such job."""
    for task in bundle.jobs.get(job, {}).get("tasks", ()):
        named = task.get("python_wheel_task", {}).get("named_parameters", {})
        if named.get("problem"):
            return text(named["problem"])
    return ""


def _deployment() -> str:
    """The job that decides on versions of the model which this process serves."""
    from .team import own  # late: by now it is known which

    return own(DEPLOYMENT)


class JobRefused(Exception):  # noqa: N818
    """A run that cannot be started; no task has run. Says where the mistake is and its fix."""


class JobFailed(Exception):  # noqa: N818
    """A job that ended in failure: which task of it failed, why, and what did not run."""

    def __init__(
        self, job: str, task: str, cause: BaseException | str, skipped: Mapping[str, str]
    ) -> None:
        """`skipped` maps tasks that did not run to `upstream_failed` or `excluded`."""
        self.job, self.task, self.cause, self.skipped = job, task, cause, dict(skipped)
        reason = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        names = ", ".join(f"{name} ({state})" for name, state in skipped.items())
        after = f". Skipped: {names}" if names else ""
        super().__init__(f"job `{job}` failed in task `{task}`: {reason}{after}")


@dataclass(frozen=True)
class TaskEvent:
    """A task changed its state, one of the constants of this module in small letters.

    `detail` is the error of a failed or retried attempt, else empty.
    """

    job: str
    task: str
    state: str
    detail: str = ""


@dataclass
class _Run:
    """One run of a job."""

    job: str
    facts: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    values: dict[str, TaskValues] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """A task of a run, with what `{{task.name}}` and `{{input}}` stand for in it."""

    run: _Run
    task: Mapping[str, Any]
    where: Where
    item: Any = None


class Runner:
    """Runs jobs of one bundle on one platform; safe to use again, one run at a time."""

    def __init__(
        self,
        bundle: Bundle,
        platform: Any,
        on_task: Callable[[TaskEvent], object] | None = None,
        *,
        now: datetime | None = None,
        entry_points: EntryPoints = wheel_entry_points,
    ) -> None:
        """Take the bundle, and the platform that stages get.

        `on_task` is called for each change of a task's state, never twice at once. `now` (with
        a time zone) is what `{{job.trigger.time.iso_datetime}}` stands for; without it, a job
        can only run if that is not needed, that is if as_of is passed.
        """
        if now is not None and now.tzinfo is None:
            raise ValueError("now needs a time zone, for example datetime(2013, 5, 1, tzinfo=UTC)")
        self.bundle, self.platform, self.now = bundle, platform, now
        self._on_task, self._entry_points = on_task, entry_points
        self._lock = threading.RLock()
        self._run_ids = itertools.count(1)

    def run(
        self, job_key: str, parameters: Mapping[str, str] | None = None
    ) -> dict[str, TaskValues]:
        """Run a job, then the deployment job for each model version that came into being.

        Gives the task values of each task that succeeded. Raises JobRefused before the first
        task if something is wrong or not supported, and JobFailed at the end if the job failed:
        as on Databricks, tasks that do not depend on the failed one still run, and a failure
        that another task handles by its run_if, and that succeeds, is none of the job.
        """
        given = {name: text(value) for name, value in (parameters or {}).items()}
        self._refuse_what_cannot_run(job_key, given)
        self._at = _time(given.get("as_of")) or self.now or datetime.now(UTC)
        values = self._run_job(job_key, given)
        failures: list[JobFailed] = []
        deployment = _deployment()
        for name, version in self.platform.take_new_versions():
            try:
                values_of = (name, text(version))
                self._run_job(deployment, dict(zip(DEPLOYMENT_PARAMETERS, values_of, strict=True)))
            except JobFailed as error:  # the next version still gets its turn
                failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]
        return values

    def import_tasks(self) -> None:
        """Import what the tasks of all jobs call, so that none of them waits for it later."""
        for job in self.bundle.jobs.values():
            for task in job["tasks"]:
                if spec := task.get("python_wheel_task"):
                    self._entry_points(text(spec["package_name"]))[text(spec["entry_point"])].load()

    def _refuse_what_cannot_run(self, job_key: str, given: Mapping[str, str]) -> None:
        jobs = self.bundle.jobs
        if job_key not in jobs:
            raise JobRefused(f"there is no job `{job_key}`. Fix: {suggest(job_key, jobs)}.")
        deployment = _deployment()
        reached, ahead = dict[str, None](), [job_key, *({deployment} & jobs.keys())]
        while ahead:
            if (key := ahead.pop(0)) not in reached:
                reached[key] = None
                ahead += jobs_run_by(jobs[key], self.bundle)
        problems = [p for key in reached for p in check_job(self.bundle, key, self._entry_points)]
        if not problems:
            for key in reached:
                problems += self._only_on_a_workspace(key)
            known = _parameter_names(jobs[job_key])
            for name in given.keys() - set(known):
                message = f"job `{job_key}` has no parameter `{name}`"
                where = ("resources", "jobs", job_key, "parameters")
                problems.append(self.bundle.problem(where, message, suggest(name, known)))
            if self.now is None:
                asked = f'make run JOB={job_key} ARGS="{{}}=2013-06-01", with a time of your data'
                problems += self._needs_time(job_key, given.keys(), asked)
                if deployment in jobs:
                    problems += self._needs_time(deployment, set(DEPLOYMENT_PARAMETERS))
        if problems:
            raise JobRefused("\n".join(map(str, problems)))

    def _only_on_a_workspace(self, key: str) -> Iterator[Problem]:
        where: Where = ("resources", "jobs", key)
        job = self.bundle.jobs[key]
        parts = [(job.get("parameters"), (*where, "parameters"))]
        for index, task in enumerate(job["tasks"]):
            for kind in task:
                if kind.endswith("_task"):
                    parts.append((task[kind], (*where, "tasks", index, kind)))
        for string, at in itertools.chain.from_iterable(strings(*part) for part in parts):
            if "${" in string:
                message = f"job `{key}`: the value of `{string}` is known on a workspace only"
                yield self.bundle.problem(at, message, "use a variable and set it for this run")

    def _needs_time(
        self, key: str, given: Set[str], asked: str = "pass `{}` on to it"
    ) -> Iterator[Problem]:
        """Find uses of the time of the run in a job that is given these parameters.

        `asked` is the fix for a parameter that has none, with a place for its name.
        """
        where: Where = ("resources", "jobs", key)
        job = self.bundle.jobs[key]
        defaults = [
            (p["default"], (*where, "parameters", index), asked.format(p["name"]))
            for index, p in enumerate(job.get("parameters") or [])
            if p["name"] not in given
        ]
        tasks = (job["tasks"], (*where, "tasks"), "take it from a parameter of the job, `as_of`")
        for value, start, fix in [*defaults, tasks]:
            for string, at in strings(value, start):
                if any("_time." in r or ".time." in r for r in REFERENCE.findall(string)):
                    message = f"job `{key}` needs to know the time of its run"
                    yield self.bundle.problem(at, message, fix)
        names = set(_parameter_names(job))
        for task in job["tasks"]:
            inner = task.get("for_each_task", {}).get("task", task).get("run_job_task")
            other = self.bundle.job_key(inner["job_id"]) if inner else None
            if inner and other:
                yield from self._needs_time(other, names | set(inner.get("job_parameters") or {}))

    def _tell(self, run: _Run, task: str, state: str, error: BaseException | None = None) -> None:
        detail = f"{type(error).__name__}: {error}" if error else ""
        if self._on_task:
            with self._lock:
                self._on_task(TaskEvent(run.job, task, state, detail))

    def _run_job(self, key: str, given: Mapping[str, str]) -> dict[str, TaskValues]:
        if key not in self.bundle.jobs:
            raise JobFailed(key, "-", f"the bundle has no job `{key}`", {})
        job = self.bundle.jobs[key]
        with self._lock:
            facts = {"job.id": job_id_of(key), "job.run_id": str(next(self._run_ids))}
        facts["job.name"] = text(job.get("name", key))
        if self.now is not None:
            now = self.now.astimezone(UTC)
            for moment in ("job.trigger.time", "job.start_time"):
                facts[f"{moment}.iso_datetime"] = now.isoformat()
                facts[f"{moment}.iso_date"] = now.date().isoformat()
        run = _Run(key, facts)
        where: Where = ("resources", "jobs", key, "tasks")
        for parameter in job.get("parameters") or []:
            name = parameter["name"]
            run.parameters[name] = (
                given[name]
                if name in given
                else _fill(text(parameter["default"]), _Step(run, {}, where))
            )
        steps = {
            task["task_key"]: _Step(run, task, (*where, index))
            for index, task in enumerate(job["tasks"])
        }
        start = time.monotonic()
        errors = self._run_tasks(run, steps)
        needed = {d["task_key"] for s in steps.values() for d in s.task.get("depends_on") or []}
        ends = [run.states[task] for task in steps if task not in needed]
        failed = FAILED in ends or UPSTREAM_FAILED in ends
        seconds = time.monotonic() - start
        self.platform.note_run(job_id_of(key), JobRun(self._at, seconds, failed))
        if failed:
            task, cause = next(iter(errors.items()))
            skipped = {t: s for t, s in run.states.items() if s in (UPSTREAM_FAILED, EXCLUDED)}
            raise JobFailed(key, task, cause, skipped) from cause
        return run.values

    def _run_tasks(self, run: _Run, steps: Mapping[str, _Step]) -> dict[str, BaseException]:
        """Run tasks as soon as what they depend on is done; give errors, the first one first."""
        errors: dict[str, BaseException] = {}
        waiting = dict(steps)
        running: dict[Future[tuple[TaskValues, str]], str] = {}
        with ThreadPoolExecutor(max_workers=len(steps), thread_name_prefix=run.job) as pool:
            while waiting or running:
                for name, step in list(waiting.items()):
                    needed = step.task.get("depends_on") or []
                    if any(d["task_key"] not in run.states for d in needed):
                        continue
                    del waiting[name]
                    state = _what_becomes_of(step)
                    self._tell(run, name, state)
                    if state == RUNNING:
                        running[pool.submit(self._attempt, step)] = name
                    else:
                        run.states[name] = state
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    name = running.pop(future)
                    error = future.exception()
                    if error:
                        errors[name] = error
                    else:
                        run.values[name], run.outcomes[name] = future.result()
                    run.states[name] = FAILED if error else SUCCESS
                    self._tell(run, name, run.states[name], error)
        return errors

    def _attempt(self, step: _Step) -> tuple[TaskValues, str]:
        """Run a task, again if it fails and may be retried; give its values and its outcome."""
        for left in range(int(step.task.get("max_retries", 0)), -1, -1):
            try:
                return self._execute(step)
            except (Exception, SystemExit) as error:
                if not left:
                    raise
                self._tell(step.run, step.task["task_key"], RETRYING, error)
                time.sleep(int(step.task.get("min_retry_interval_millis", 0)) / 1000)
        raise AssertionError("unreachable")

    def _execute(self, step: _Step) -> tuple[TaskValues, str]:
        task, run = step.task, step.run
        if "for_each_task" in task:
            return self._for_each(step), ""
        if "condition_task" in task:
            spec = _fill(task["condition_task"], step)
            return {}, text(compare(spec["op"], text(spec["left"]), text(spec["right"])))
        if "run_job_task" in task:
            spec = _fill(task["run_job_task"], step)
            key = self.bundle.job_key(spec["job_id"]) or ""
            # A job takes the parameters it declares, and leaves the others.
            given = {**(spec.get("job_parameters") or {}), **run.parameters}
            self._run_job(key, {name: text(value) for name, value in given.items()})
            return {}, ""
        if "notebook_task" in task:
            spec = _fill(task["notebook_task"], step)
            folder = self.bundle.place((*step.where, "notebook_task", "notebook_path"))[0].parent
            widgets = {**(spec.get("base_parameters") or {}), **run.parameters}
            path = folder / text(spec["notebook_path"])
            return run_notebook(path, widgets, self.platform, run.values), ""
        if "pipeline_task" in task:
            from .pipelines import run_pipeline  # late: it loads Spark

            spec = _fill(task["pipeline_task"], step)
            key = self.bundle.pipeline_key(spec["pipeline_id"]) or ""
            given = self.bundle.pipelines[key].get("configuration") or {}
            configuration = {name: text(value) for name, value in given.items()}
            run_pipeline(pipeline_files(self.bundle, key), configuration, self.platform)
            return {}, ""
        spec = _fill(task["python_wheel_task"], step)
        arguments = [text(value) for value in spec.get("parameters") or []]
        if "named_parameters" in spec:
            named = {**(spec["named_parameters"] or {}), **run.parameters}
            arguments = [f"--{name}={text(value)}" for name, value in named.items()]
        main = self._entry_points(text(spec["package_name"]))[text(spec["entry_point"])].load()
        values = main(arguments, platform=self.platform) or {}
        return {name: text(value) for name, value in values.items()}, ""

    def _for_each(self, step: _Step) -> TaskValues:
        """Run the nested task once for each input; all of them, even if one fails."""
        spec = step.task["for_each_task"]
        filled = text(_fill(spec["inputs"], step))
        try:
            items = json.loads(filled)
        except ValueError:
            items = None
        if not isinstance(items, list):
            raise ValueError(f"inputs must be a JSON array, this is {filled!r}")
        where = (*step.where, "for_each_task", "task")
        with ThreadPoolExecutor(max_workers=int(spec.get("concurrency", 1))) as pool:
            nested = [_Step(step.run, spec["task"], where, item) for item in items]
            futures = [pool.submit(self._attempt, iteration) for iteration in nested]
        errors = [(i, error) for i, f in enumerate(futures) if (error := f.exception())]
        if errors:
            index, first = errors[0]
            message = f"{len(errors)} of {len(items)} iterations failed, first the one of "
            message += f"{items[index]!r}: {type(first).__name__}: {first}"
            raise RuntimeError(message) from first
        return {}


def _time(written: str | None) -> datetime | None:
    """A time as a parameter has it; None for what is none."""
    from .stages import ParameterError, parse_time  # they load what a check does without

    try:
        return parse_time("as_of", written) if written else None
    except ParameterError:
        return None


def compare(op: str, left: str, right: str) -> bool:
    """Evaluate a condition: text for (in)equality, so `12.0` is not `12`; numbers for order.

    Raises ValueError if an operand of an ordering is no number.
    """
    if op in ("EQUAL_TO", "NOT_EQUAL"):
        return (left == right) == (op == "EQUAL_TO")
    try:
        return _ORDER[op](Decimal(left), Decimal(right))
    except InvalidOperation as error:
        raise ValueError(f"{op} compares numbers, not {left!r} and {right!r}") from error


def _parameter_names(job: Mapping[str, Any]) -> list[str]:
    return [parameter["name"] for parameter in job.get("parameters") or []]


def _what_becomes_of(step: _Step) -> str:
    """Decide by depends_on and run_if whether a task runs, is excluded, or fails with others.

    A dependency on an outcome that did not come about counts as excluded. If all are excluded,
    the task is too, whatever its run_if.
    """
    needed = step.task.get("depends_on") or []
    states = []
    for dependency in needed:
        name, outcome = dependency["task_key"], dependency.get("outcome")
        other_way = outcome is not None and step.run.outcomes.get(name) not in (None, text(outcome))
        states.append(EXCLUDED if other_way else step.run.states[name])
    if not states:
        return RUNNING
    if set(states) == {EXCLUDED}:
        return EXCLUDED
    failed = [state for state in states if state in (FAILED, UPSTREAM_FAILED)]
    without_failure = UPSTREAM_FAILED if failed else EXCLUDED
    runs, otherwise = {
        "ALL_SUCCESS": (set(states) == {SUCCESS}, without_failure),
        "ALL_DONE": (True, EXCLUDED),
        "NONE_FAILED": (not failed, UPSTREAM_FAILED),
        "AT_LEAST_ONE_SUCCESS": (SUCCESS in states, UPSTREAM_FAILED),
        "ALL_FAILED": (len(failed) == len(states), EXCLUDED),
        "AT_LEAST_ONE_FAILED": (bool(failed), EXCLUDED),
    }[step.task.get("run_if", "ALL_SUCCESS")]
    return RUNNING if runs else otherwise


def _fill(value: Any, step: _Step) -> Any:
    """Replace `{{...}}` in a text, or in all texts of a map or list. Raises LookupError."""
    if isinstance(value, dict):
        return {key: _fill(child, step) for key, child in value.items()}
    if isinstance(value, list):
        return [_fill(child, step) for child in value]
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: _stands_for(match[1], step), value)
    return value


def _stands_for(reference: str, step: _Step) -> str:
    run = step.run
    match split_reference(reference):
        case ["job", "parameters", name]:
            return run.parameters[name]
        case ["task", "name"]:
            return text(step.task["task_key"])
        case ["tasks", name, "result_state"]:
            return run.states[name]
        case ["tasks", name, "values", key]:
            values = run.values.get(name, {})
            if key not in values:
                known = ", ".join(values) or "none"
                raise LookupError(f"task `{name}` has set no value `{key}` (it has set: {known})")
            return values[key]
        case ["input", *keys]:
            item = step.item
            for key in keys:
                if not isinstance(item, dict) or key not in item:
                    raise LookupError(f"input {item!r} has no `{key}`")
                item = item[key]
            return item if isinstance(item, str) else json.dumps(item)
    return run.facts[reference]
