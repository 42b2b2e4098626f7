"""Run the workflows of GitHub Actions and the pipelines of Azure DevOps on this machine.

It executes every script step of every job, in a clean clone for each job, with environment,
outputs, artifacts, conditions and needs. It knows what our files use and refuses everything else:
an `UnsupportedError` is a gap in the proof, so the files or this module have to change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STATUS = re.compile(r"\b(always|success|failure|cancelled)\(\)")
# Actions and tasks that need no imitation; their inputs are checked all the same.
QUIET_ACTIONS = {
    "actions/setup-python": {"python-version"},
    "actions/cache": {"path", "key", "restore-keys"},
}
QUIET_TASKS = {
    "UsePythonVersion@0": {"versionSpec"},
    "Cache@2": {"key", "restoreKeys", "path"},
    "PublishTestResults@2": {"testResultsFiles"},
    "PublishCodeCoverageResults@2": {"summaryFileLocation"},
}


class UnsupportedError(Exception):
    """The file uses something that this executor does not imitate."""


def only(mapping: Mapping[Any, Any], allowed: str, where: str) -> None:
    """Refuse keys that would be ignored."""
    if unknown := set(map(str, mapping)) - set(allowed.split()):
        raise UnsupportedError(f"{where}: {sorted(unknown)}")


# ---- Expressions of both systems ----------------------------------------------------------------
TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|([A-Za-z_][\w-]*)|(==|!=|&&|\|\||[!().,\[\]]))")


@dataclass
class Expression:
    """One expression; `infix` says whether it may have operators, as in GitHub's."""

    text: str
    functions: Mapping[str, Callable[..., Any]]
    context: Mapping[str, Any]
    infix: bool
    tokens: list[tuple[str, str, str]] = field(default_factory=list)

    def value(self) -> Any:
        """Evaluate it."""
        at = 0
        while self.text[at:].strip():
            match = TOKEN.match(self.text, at)
            if not match:
                raise UnsupportedError(f"expression {self.text!r} at {self.text[at:]!r}")
            self.tokens.append((match[1], match[2], match[3]))
            at = match.end()
        found = self._either()
        if self.tokens:
            raise UnsupportedError(f"expression {self.text!r}: {self.tokens} is left")
        return found

    def _operator(self, *wanted: str) -> str | None:
        if self.tokens and self.tokens[0][2] in wanted:
            return self.tokens.pop(0)[2]
        return None

    def _expect(self, wanted: str) -> None:
        if not self._operator(wanted):
            raise UnsupportedError(
                f"expression {self.text!r}: no {wanted!r} before {self.tokens[:1]}"
            )

    def _either(self) -> Any:
        left = self._both()
        while self.infix and self._operator("||"):
            right = self._both()
            left = left or right
        return left

    def _both(self) -> Any:
        left = self._equal()
        while self.infix and self._operator("&&"):
            right = self._equal()
            left = left and right
        return left

    def _equal(self) -> Any:
        left = self._unary()
        while self.infix and (operator := self._operator("==", "!=")):
            left = same(left, self._unary()) == (operator == "==")
        return left

    def _unary(self) -> Any:
        if self.infix and self._operator("!"):
            return not self._unary()
        if self._operator("("):
            inner = self._either()
            self._expect(")")
            return inner
        if not self.tokens:
            raise UnsupportedError(f"expression {self.text!r} ends early")
        string, name, operator = self.tokens.pop(0)
        if operator:
            raise UnsupportedError(f"expression {self.text!r}: {operator!r}")
        if name is None:
            return string.replace("''", "'")
        if name in ("true", "false"):
            return name == "true"
        if self._operator("("):
            return self._call(name)
        return self._path(name)

    def _call(self, name: str) -> Any:
        arguments = []
        while not self._operator(")"):
            arguments.append(self._either())
            self._operator(",")
        if name not in self.functions:
            raise UnsupportedError(f"function {name}() in {self.text!r}")
        return self.functions[name](*arguments)

    def _path(self, root: str) -> Any:
        if root not in self.context:
            raise UnsupportedError(f"context {root!r} in {self.text!r}")
        found: Any = self.context[root]
        while operator := self._operator(".", "["):
            string, name, _ = self.tokens.pop(0)
            key = name if operator == "." else string
            if operator == "[":
                self._expect("]")
            found = found.get(key, "") if isinstance(found, Mapping) else ""
        return found


def same(left: Any, right: Any) -> bool:
    """Both systems compare text without regard to case."""
    return str(left).lower() == str(right).lower()


# ---- What happens, and what is seen of it -------------------------------------------------------
@dataclass(frozen=True)
class Event:
    """What starts a run. `commit` is what is checked out."""

    kind: str  # pull_request, push, schedule, manual
    ref: str
    commit: str
    pull_request: str = ""
    fork: bool = False
    author: str = "someone"
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """The outcome: the result of each job, and each script step that was run."""

    results: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Job and command of each step, in order."""
        return [(job, command) for job, command, _ in self.steps]


@dataclass
class Machine:
    """Where jobs run: a remote to clone, programs on PATH, a folder for everything else."""

    remote: Path
    programs: Path
    home: Path
    variables: Mapping[str, str]  # of the repository, or of the pipeline
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()  # environments whose reviewers say no

    def __post_init__(self) -> None:
        self.run = Run()
        self.jobs = 0
        self.home.mkdir(parents=True, exist_ok=True)
        self.cancelled = self.home / "cancelled"  # a stub makes it: somebody cancels at that moment
        self.artifacts = self.home / "artifacts"

    @property
    def is_cancelled(self) -> bool:
        """Whether the run has been cancelled."""
        return self.cancelled.exists()

    def workspace(self) -> Path:
        """An empty folder for a job."""
        self.jobs += 1
        folder = self.home / f"job{self.jobs}" / "work"
        folder.mkdir(parents=True)
        return folder

    def clone(self, to: Path, commit: str, branch: str = "") -> None:
        """Check out as CI does: clean, without credentials; on no branch unless one is named."""
        where = ["-B", branch] if branch else ["--detach"]
        for command in (
            ["clone", "--quiet", f"file://{self.remote}", str(to)],
            ["-C", str(to), "checkout", "--quiet", *where, commit],
        ):
            subprocess.run(["git", *command], check=True, env=self.base())

    def base(self) -> dict[str, str]:
        """The environment every program gets: nothing of the person who runs the tests."""
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "CI_CANCELLED": str(self.cancelled),
        }

    def script(self, job: str, text: str, cwd: Path, environment: Mapping[str, str]) -> str:
        """Run one step in bash, as both systems do; success, failure or cancelled."""
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", text]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.base() | dict(environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        self.run.output += f"\n[{job}] {text}\n{done.stdout}"
        result = "failure" if done.returncode else "success"
        if done.returncode and self.is_cancelled:
            result = "cancelled"
        self.run.steps.append((job, text, result))
        return result

    def keep(self, name: str, path: Path, required: bool) -> None:
        """Store an artifact."""
        if path.is_dir():
            shutil.copytree(path, self.artifacts / name, dirs_exist_ok=True)
        elif required:
            raise FileNotFoundError(path)

    def fetch(self, name: str, to: Path) -> None:
        """Get an artifact."""
        shutil.copytree(self.artifacts / name, to, dirs_exist_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Read a workflow or pipeline; every value but true and false as text, `on` as a word."""
    loader = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {}})
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept = [(tag, rule) for tag, rule in pairs if tag.endswith((":null", ":merge"))]
        if kept:
            loader.yaml_implicit_resolvers[letter] = kept
    return yaml.load(path.read_text("utf-8"), Loader=loader)


# ---- GitHub Actions -----------------------------------------------------------------------------
def run_github(path: Path, event: Event, machine: Machine) -> Run:
    """Run a workflow for an event; an event that does not start it gives an empty run."""
    workflow = read(path)
    only(workflow, "name on permissions concurrency jobs", path.name)
    if workflow["permissions"] != {}:
        raise UnsupportedError("permissions of the whole workflow")
    if not _github_starts(workflow["on"], event):
        return machine.run
    github = {
        "event": {
            "pull_request": {
                "number": event.pull_request,
                "head": {"repo": {"full_name": "else/fork" if event.fork else "team/project"}},
                "user": {"login": event.author},
            }
        },
        "repository": "team/project",
        "ref": event.ref,
        "ref_type": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "token": "github-token",
        "workflow": workflow["name"],
    }
    needs: dict[str, dict[str, Any]] = {}
    for key, job in workflow["jobs"].items():
        required = job.get("needs", [])
        required = [required] if isinstance(required, str) else required
        if missing := set(required) - needs.keys():
            raise UnsupportedError(f"{key} needs {missing}, which are not above it")
        needs[key] = _github_job(key, job, {k: needs[k] for k in required}, github, event, machine)
        machine.run.results[key] = needs[key]["result"]
    return machine.run


def _github_starts(on: Mapping[str, Any], event: Event) -> bool:
    only(on, "pull_request push schedule workflow_dispatch", "on")
    kind = {"manual": "workflow_dispatch"}.get(event.kind, event.kind)
    if kind not in on:
        return False
    filters = on[kind] or {}
    if kind == "workflow_dispatch":
        only(filters, "inputs", kind)
        for name, declared in filters.get("inputs", {}).items():
            given = event.inputs.get(name, declared.get("default"))
            if declared["type"] == "choice" and given not in declared["options"]:
                raise ValueError(f"{name} cannot be {given!r}")
        return True
    if kind == "push":
        only(filters, "branches tags", kind)
        return _matches(filters.get("branches", []), filters.get("tags", []), event.ref)
    if filters and kind != "schedule":
        raise UnsupportedError(f"filters of {kind}")
    return True


def _matches(branches: list[str], tags: list[str], ref: str) -> bool:
    wanted = [f"refs/heads/{name}" for name in branches] + [f"refs/tags/{name}" for name in tags]
    patterns = [re.escape(name).replace(r"\*", "[^/]*") for name in wanted]
    return any(re.fullmatch(pattern, ref) for pattern in patterns)


def _github_job(
    key: str,
    job: dict[str, Any],
    needs: dict[str, Any],
    github: dict[str, Any],
    event: Event,
    machine: Machine,
) -> dict[str, Any]:
    only(
        job,
        "name needs if runs-on timeout-minutes environment permissions env outputs steps",
        key,
    )
    if "timeout-minutes" not in job or "permissions" not in job:
        raise UnsupportedError(f"{key}: no time limit or no permissions")
    context: dict[str, Any] = {
        "github": github,
        "vars": machine.variables,
        "needs": needs,
        "inputs": event.inputs,
        "runner": {"os": "Linux"},
        "steps": {},
    }
    went_well = all(need["result"] == "success" for need in needs.values())
    states = {
        "always": lambda: True,
        "success": lambda: went_well and not machine.is_cancelled,
        "failure": lambda: not went_well,
        "cancelled": lambda: machine.is_cancelled,
    }
    functions: dict[str, Callable[..., Any]] = {"startsWith": lambda a, b: str(a).startswith(b)}
    if not _github_if(job.get("if", ""), {**functions, **states}, context):
        return {"result": "skipped", "outputs": {}}
    environment = _fill(str(job.get("environment", "")), functions, context)
    if environment in machine.refused:
        return {"result": "failure", "outputs": {}}
    context["vars"] = {**machine.variables, **machine.environments.get(environment, {})}
    work = machine.workspace()
    given = {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": github["repository"],
        "GITHUB_REF": event.ref,
        "GITHUB_TRIGGERING_ACTOR": event.author,
        "RUNNER_TEMP": str(work.parent),
    }
    if job["permissions"].get("id-token") == "write" and not event.fork:
        given["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = f"environment:{environment}"
    given |= {k: _fill(v, functions, context) for k, v in job.get("env", {}).items()}
    result = "success"

    def hash_files(*patterns: str) -> str:
        found = [file for pattern in patterns for file in sorted(work.glob(pattern))]
        return hashlib.sha256(b"".join(file.read_bytes() for file in found)).hexdigest()

    for number, step in enumerate(job["steps"]):
        states = {
            "always": lambda: True,
            "success": lambda now=result: now == "success",
            "failure": lambda now=result: now == "failure",
            "cancelled": lambda now=result: now == "cancelled",
        }
        here = {**functions, "hashFiles": hash_files}
        if not _github_if(step.get("if", ""), {**here, **states}, context):
            continue
        if "uses" in step:
            filled = {k: _fill(v, here, context) for k, v in step.get("with", {}).items()}
            _github_action(step, filled, work, event, machine)
            continue
        only(step, "name id if run env", f"{key}, step {number}")
        if "${{" in step["run"]:
            raise UnsupportedError(f"an expression inside a script: {step['run']}")
        output, summary = work.parent / f"output{number}", work.parent / f"summary{number}"
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
        extra = {k: _fill(v, here, context) for k, v in step.get("env", {}).items()}
        done = machine.script(key, step["run"], work, {**given, **files, **extra})
        result = done if result == "success" else result
        lines = output.read_text().splitlines() if output.exists() else []
        outputs = dict(line.split("=", 1) for line in lines)
        if "id" in step:
            context["steps"][step["id"]] = {"outputs": outputs}
        if summary.exists():
            machine.run.summaries.append(summary.read_text())
    outputs = {k: _fill(v, functions, context) for k, v in job.get("outputs", {}).items()}
    return {"result": result, "outputs": outputs}


def _github_if(text: str, functions: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    text = text.strip()
    if text.startswith("${{") and text.endswith("}}"):
        text = text[3:-2]
    if not STATUS.search(text):
        text = f"success() && ({text})" if text else "success()"
    return bool(Expression(text, functions, context, infix=True).value())


def _fill(text: str, functions: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    return re.sub(
        r"\$\{\{(.*?)\}\}",
        lambda match: str(Expression(match[1], functions, context, infix=True).value()),
        text,
    )


def _github_action(
    step: dict[str, Any], given: dict[str, str], work: Path, event: Event, machine: Machine
) -> None:
    only(step, "uses with if", step["uses"])
    name, _, pin = step["uses"].partition("@")
    if not re.fullmatch(r"[0-9a-f]{40}", pin):
        raise UnsupportedError(f"{step['uses']} is not pinned to a commit")
    if name == "actions/checkout":
        only(given, "persist-credentials fetch-depth", name)
        if given.get("persist-credentials") != "false":
            raise UnsupportedError("a checkout that leaves credentials behind")
        kind, _, branch = event.ref.removeprefix("refs/").partition("/")
        machine.clone(work, event.commit, branch if kind == "heads" else "")
    elif name == "actions/upload-artifact":
        only(given, "name path if-no-files-found", name)
        required = given.get("if-no-files-found") == "error"
        machine.keep(given["name"], work / given["path"], required)
    elif name == "actions/download-artifact":
        only(given, "name path", name)
        machine.fetch(given["name"], work / given["path"])
    elif name in QUIET_ACTIONS:
        only(given, " ".join(QUIET_ACTIONS[name]), name)
    else:
        raise UnsupportedError(f"action {name}")


# ---- Azure DevOps -------------------------------------------------------------------------------
def run_azure(path: Path, event: Event, machine: Machine) -> Run:
    """Run a pipeline for an event; an event that does not start it gives an empty run."""
    pipeline = read(path)
    only(
        pipeline,
        "name trigger pr schedules lockBehavior parameters variables stages",
        path.name,
    )
    if not _azure_starts(pipeline, event):
        return machine.run
    parameters = {}
    for declared in pipeline.get("parameters", []):
        given = event.inputs.get(declared["name"], declared.get("default"))
        if "values" in declared and given not in declared["values"]:
            raise ValueError(f"{declared['name']} cannot be {given!r}")
        parameters[declared["name"]] = given
    pipeline = _expand(pipeline, parameters)
    reasons = {"pull_request": "PullRequest", "push": "IndividualCI", "schedule": "Schedule"}
    variables = {
        **machine.variables,
        "Agent.OS": "Linux",
        "Build.Reason": reasons.get(event.kind, "Manual"),
        "Build.SourceBranch": event.ref,
        "Build.RequestedForEmail": event.author,
        **pipeline.get("variables", {}),
    }
    if event.kind == "pull_request":
        variables["System.PullRequest.PullRequestId"] = event.pull_request
        variables["System.PullRequest.IsFork"] = str(event.fork)
    done: dict[str, dict[str, Any]] = {}
    previous: list[str] = []
    for stage in pipeline["stages"]:
        name = stage["stage"]
        only(stage, "stage displayName dependsOn condition jobs", name)
        required = _names(stage.get("dependsOn", previous))
        before = {key: done[key] for key in required}
        if any(result["result"] == "Pending" for result in before.values()):
            raise UnsupportedError(f"{name} depends on a later stage")
        functions = _azure_functions(before, machine)
        context = {"variables": variables, "dependencies": before}
        condition = stage.get("condition", "succeeded()")
        if not Expression(condition, functions, context, infix=False).value():
            done[name] = {"result": "Skipped", "jobs": {}}
            for job in stage["jobs"]:
                machine.run.results[job.get("job") or job["deployment"]] = "skipped"
        else:
            done[name] = _azure_stage(stage, variables, before, event, machine)
        previous = [name]
    return machine.run


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _expand(node: Any, parameters: Mapping[str, str]) -> Any:
    """Replace `${{ parameters.x }}` and `${{ replace(parameters.x, 'a', 'b') }}`; refuse others."""
    if isinstance(node, dict):
        return {key: _expand(value, parameters) for key, value in node.items()}
    if isinstance(node, list):
        return [_expand(value, parameters) for value in node]
    if not isinstance(node, str):
        return node
    filled = re.sub(r"\$\{\{ parameters\.(\w+) \}\}", lambda match: parameters[match[1]], node)
    filled = re.sub(
        r"\$\{\{ replace\(parameters\.(\w+), '([^']*)', '([^']*)'\) \}\}",
        lambda match: parameters[match[1]].replace(match[2], match[3]),
        filled,
    )
    if "${{" in filled:
        raise UnsupportedError(f"template expression {node!r}")
    return filled


def _azure_starts(pipeline: Mapping[str, Any], event: Event) -> bool:
    trigger, pull = pipeline["trigger"], pipeline["pr"]
    if event.kind == "manual":
        return True
    if event.kind == "schedule":
        return "schedules" in pipeline
    if event.kind == "pull_request":
        if pull == "none":
            return False
        only(pull, "autoCancel branches", "pr")
        return True
    if trigger == "none":
        return False
    only(trigger, "batch branches tags", "trigger")
    branches = trigger.get("branches", {}).get("include", [])
    return _matches(branches, trigger.get("tags", {}).get("include", []), event.ref)


def _azure_functions(
    before: Mapping[str, Mapping[str, Any]], machine: Machine
) -> dict[str, Callable[..., Any]]:
    results = [item["result"] for item in before.values()]
    return {
        "and": lambda *values: all(values),
        "or": lambda *values: any(values),
        "not": lambda value: not value,
        "eq": same,
        "ne": lambda left, right: not same(left, right),
        "startsWith": lambda text, start: str(text).lower().startswith(start.lower()),
        "always": lambda: True,
        "succeeded": lambda: all(r == "Succeeded" for r in results) and not machine.is_cancelled,
        "failed": lambda: "Failed" in results,
        "canceled": lambda: machine.is_cancelled,
    }


WORDS = {"success": "Succeeded", "failure": "Failed", "cancelled": "Canceled"}


def _azure_stage(
    stage: dict[str, Any],
    variables: Mapping[str, str],
    stages: Mapping[str, Any],
    event: Event,
    machine: Machine,
) -> dict[str, Any]:
    # Checks of every environment of a stage are asked before the stage starts.
    refused = {job.get("environment") for job in stage["jobs"]} & machine.refused
    done: dict[str, dict[str, Any]] = {}
    for job in stage["jobs"]:
        own = "deployment environment strategy" if "deployment" in job else "job steps"
        keys = f"{own} displayName dependsOn condition timeoutInMinutes pool variables"
        only(job, keys, stage["stage"])
        key = job.get("job") or job["deployment"]
        if "timeoutInMinutes" not in job:
            raise UnsupportedError(f"{key}: no time limit")
        before = {name: done[name] for name in _names(job.get("dependsOn", []))}
        functions = _azure_functions(before, machine)
        context = {"variables": variables, "dependencies": before}
        condition = job.get("condition", "succeeded()")
        if refused or not Expression(condition, functions, context, infix=False).value():
            done[key] = {"result": "Skipped", "outputs": {}}
            machine.run.results[key] = "failure" if refused else "skipped"
            continue
        done[key] = _azure_job(key, job, variables, stages, event, machine)
        machine.run.results[key] = done[key]["state"]
    bad = [job["result"] for job in done.values() if job["result"] in ("Failed", "Canceled")]
    result = "Failed" if refused else bad[0] if bad else "Succeeded"
    outputs = {name: {"outputs": job["outputs"]} for name, job in done.items()}
    return {"result": result, **outputs}


def _azure_job(
    key: str,
    job: dict[str, Any],
    variables: Mapping[str, str],
    stages: Mapping[str, Any],
    event: Event,
    machine: Machine,
) -> dict[str, Any]:
    steps = job.get("steps")
    if "deployment" in job:
        only(job["strategy"], "runOnce", key)
        only(job["strategy"]["runOnce"], "deploy", key)
        only(job["strategy"]["runOnce"]["deploy"], "steps", key)
        steps = job["strategy"]["runOnce"]["deploy"]["steps"]
    root = machine.workspace().parent
    work = root / "work"
    known = {
        **variables,
        "System.AccessToken": "pipeline-token",
        "System.JobAttempt": "1",
        "Pipeline.Workspace": str(root),
        "Build.SourcesDirectory": str(work),
    }
    for name, text in job.get("variables", {}).items():
        known[name] = _runtime(text, stages) if text.startswith("$[") else text
    exported = {
        re.sub(r"[. ]", "_", name).upper(): value
        for name, value in known.items()
        if name != "System.AccessToken"
    }
    exported |= {"TF_BUILD": "True", "AGENT_TEMPDIRECTORY": str(root)}

    def fill(text: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise UnsupportedError(f"{key}: variable {match[1]} is not defined")
            return str(known[match[1]])

        return re.sub(r"\$\(([\w.]+)\)", one, text)

    exported = {name: fill(value) for name, value in exported.items()}
    result, outputs = "success", {}
    for step in steps:
        only(
            step,
            "checkout fetchDepth persistCredentials task inputs displayName condition script name "
            "env publish artifact download",
            key,
        )
        # A job that starts after a cancellation, to clean up, has a status of its own.
        functions = {
            **_azure_functions({"steps": {"result": WORDS[result]}}, machine),
            "succeeded": lambda now=result: now == "success",
            "canceled": lambda now=result: now == "cancelled",
        }
        condition = step.get("condition", "succeeded()")
        context = {"variables": known}
        if not Expression(condition, functions, context, infix=False).value():
            continue
        if "script" in step:
            if re.search(r"\$\(|\$\{\{", step["script"]):
                raise UnsupportedError(f"an expression inside a script: {step['script']}")
            environment = {k: fill(v) for k, v in step.get("env", {}).items()}
            start = len(machine.run.output)
            done = machine.script(key, step["script"], work, {**exported, **environment})
            result = done if result == "success" else result
            said = machine.run.output[start:]
            pattern = r"##vso\[task\.setvariable variable=(\w+);isOutput=true\](.*)"
            for name, value in re.findall(pattern, said):
                outputs[f"{step['name']}.{name}"] = value
            for page in re.findall(r"##vso\[task\.uploadsummary\](.*)", said):
                machine.run.summaries.append(Path(page).read_text())
        elif "checkout" in step:
            if step["checkout"] != "self" or step["persistCredentials"] != "false":
                raise UnsupportedError("a checkout that leaves credentials behind")
            machine.clone(work, event.commit)
        elif "publish" in step:
            machine.keep(
                fill(step["artifact"]), work / fill(step["publish"]), required=key == "plan"
            )
        elif "download" in step:
            if step["download"] != "current":
                raise UnsupportedError(f"download: {step['download']}")
            machine.fetch(step["artifact"], root / step["artifact"])
        elif step.get("task") in QUIET_TASKS:
            only(step["inputs"], " ".join(QUIET_TASKS[step["task"]]), step["task"])
            for value in step["inputs"].values():
                fill(value)
        else:
            raise UnsupportedError(f"{key}: {json.dumps(step)}")
    return {"result": WORDS[result], "state": result, "outputs": outputs}


def _runtime(text: str, stages: Mapping[str, Any]) -> str:
    context = {"stageDependencies": stages}
    return str(Expression(text[2:-1], {}, context, infix=False).value())
