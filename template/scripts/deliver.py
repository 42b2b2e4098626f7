"""Deliver the bundle to a workspace: what `make deploy`, `plan`, `jobs` and the like run.

A person and CI run the same commands; each is printed before it runs. Standard library only, so
that a delivery installs nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CLI = os.environ.get("DATABRICKS", "databricks")
PLAN = "plan.json"
DIST = Path("dist")
LIFE = ("features", "training", "deployment", "scoring", "monitoring")
SUMMARY = Path("reports/summary.json")
CHAMPION = "champion"
RUN_URL = re.compile(r"Run URL: (\S+)")


class DeliveryError(Exception):
    """What is wrong, and the fix."""


class Target:
    """A target of databricks.yml, seen through the Databricks CLI."""

    def __init__(self, name: str, pull_request: str) -> None:
        if (name == "pr") != bool(pull_request):
            raise DeliveryError("PR goes with TARGET=pr. Fix: make ... TARGET=pr PR=12")
        if pull_request and not re.fullmatch(r"[1-9][0-9]*", pull_request):
            raise DeliveryError(f"PR={pull_request!r} is no number. Fix: make ... TARGET=pr PR=12")
        self.name = name
        self.selection = ["-t", name]
        if pull_request:
            self.selection += ["--var", f"pr_number={pull_request}"]

    def bundle(self, command: str, *arguments: str) -> str:
        """Run `databricks bundle`; its output is shown as it comes, and given back."""
        verb, *rest = shlex.split(command)
        return call("bundle", verb, *rest, *self.selection, *arguments)

    def query(self, command: str, *arguments: str) -> Any:
        """Run `databricks bundle`, quietly, for the JSON it prints."""
        output = call("bundle", command, *self.selection, *arguments, "-o", "json", quiet=True)
        return json.loads(output)

    def ask(self, *arguments: str) -> Any:
        """Ask the workspace of this target, quietly, for the JSON that the CLI prints.

        Without `-t` the CLI talks to the workspace of the default target.
        """
        return json.loads(call(*arguments, "-t", self.name, "-o", "json", quiet=True))

    @cached_property
    def resources(self) -> dict[str, Any]:
        """What the bundle holds there, by kind and key."""
        return dict(self.query("summary").get("resources", {}))

    def is_deployed(self) -> bool:
        """Whether anything of the bundle is there already."""
        return any("id" in one for found in self.resources.values() for one in found.values())

    def models(self) -> list[str]:
        """The models of the bundle by the names of their jobs; the first one's is empty."""
        jobs, found = (self.resources.get(kind, {}) for kind in ("jobs", "registered_models"))
        further = [key for key in found if job_of(key, "scoring") in jobs]
        return ["", *further]

    def model(self, name: str = "") -> str:
        """Full name of a registered model that the bundle has made; the first one by default."""
        declared = self.resources.get("registered_models", {})
        if name and name not in declared:
            raise DeliveryError(f"MODEL={name!r} is no model of the bundle. Fix: {[*declared]}")
        try:
            schema = self.resources["schemas"]["mlops"]
            model = declared[name or CHAMPION]["name"]
        except KeyError as missing:
            raise DeliveryError(f"the summary has no {missing}. Fix: deploy first.") from None
        return f"{schema['catalog_name']}.{schema['name']}.{model}"

    def full_names(self) -> list[str]:
        """Full name of each registered model."""
        return [self.model(key) for key in self.resources.get("registered_models", {})]

    def run(self, job: str, **parameters: str) -> str:
        """Run a job to its end; the address of its run."""
        given = [f"--params={_pair(name, value)}" for name, value in parameters.items() if value]
        found = RUN_URL.search(self.bundle(f"run {job}", *given))
        return found[1] if found else ""


def _pair(name: str, value: str) -> str:
    """A parameter as the CLI reads it: with a second equals sign it takes the text for CSV."""
    pair = f"{name}={value}"
    return '"' + pair.replace('"', '""') + '"' if "=" in value else pair


def call(*arguments: str, quiet: bool = False) -> str:
    """Run the Databricks CLI; its output."""
    command = [CLI, *arguments]
    print("+", shlex.join(["databricks", *arguments]), flush=True)
    stderr = None if quiet else subprocess.STDOUT
    lines: list[str] = []
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=stderr) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if not quiet:
                print(line, end="", flush=True)
    if process.returncode:
        raise DeliveryError(f"databricks {' '.join(arguments[:2])} failed ({process.returncode}).")
    return "".join(lines)


def tell(name: str, value: str) -> None:
    """Hand a value to later steps, in the way of the CI system; on a laptop just print it."""
    print(f"{name}: {value}")
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")
    elif os.environ.get("TF_BUILD"):
        print(f"##vso[task.setvariable variable={name};isOutput=true]{value}")


def report(title: str, lines: Sequence[str]) -> None:
    """Show a summary on the page of the run; on a laptop print it."""
    text = "\n".join([f"## {title}", "", *lines, ""])
    print(text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    elif os.environ.get("TF_BUILD"):
        folder = Path(os.environ["AGENT_TEMPDIRECTORY"])
        page = folder / f"{re.sub(r'[^a-z]+', '-', title.lower())}.md"
        page.write_text(text, encoding="utf-8")
        print(f"##vso[task.uploadsummary]{page}")


def commit() -> str:
    """The commit that is checked out."""
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout.strip()


def digest_of(folder: Path) -> str:
    """One digest of every file of a folder, by name and content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in files
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def plan(target: Target, folder: Path) -> None:
    """Save what a deployment would change: the plan, the wheel it names and the commit."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(DIST, ignore_errors=True)  # only the wheel of this plan may be in it
    target.bundle("validate --strict")
    document = target.query("plan")
    wheels = sorted(DIST.glob("*.whl"))
    if not wheels:
        raise DeliveryError("the plan came without a wheel in dist/. Fix: see its output above.")
    (folder / DIST).mkdir(parents=True)
    (folder / PLAN).write_text(json.dumps(document, indent=2), encoding="utf-8")
    for wheel in wheels:
        shutil.copy2(wheel, folder / DIST / wheel.name)
    (folder / "commit").write_text(f"{commit()}\n", encoding="utf-8")
    actions = {key: str(entry.get("action", "?")) for key, entry in document["plan"].items()}
    counted = Counter(actions.values())
    lines = [f"Commit `{commit()}`: " + ", ".join(f"{n} {name}" for name, n in counted.items()), ""]
    lines += [f"- {what} `{key}`" for key, what in actions.items() if what != "skip"]
    digest = digest_of(folder)
    report(f"Plan for {target.name}", [*lines, "", f"Digest of the plan: `{digest}`"])
    tell("digest", digest)


def deploy(target: Target, folder: Path | None, digest: str) -> None:
    """Deploy: what is checked out, or exactly the plan that was saved and approved."""
    if folder is None:
        if target.name == "prod":
            raise DeliveryError(
                "prod takes a plan that somebody has read. Fix: make plan TARGET=prod, "
                "then make deploy TARGET=prod PLAN=plan"
            )
        target.bundle("validate --strict")
        target.bundle("deploy")
        return
    if not (folder / PLAN).is_file():
        raise DeliveryError(f"{folder / PLAN} is missing. Fix: make plan TARGET={target.name}")
    if os.environ.get("CI") and not digest:
        raise DeliveryError("CI names the digest of the plan it was given. Fix: set DIGEST.")
    if digest and digest_of(folder) != digest:
        raise DeliveryError("this is not the plan that was approved. Fix: start the release again.")
    planned = (folder / "commit").read_text(encoding="utf-8").strip()
    if planned != commit():
        raise DeliveryError(
            f"the plan was made from commit {planned}, not from {commit()}. "
            f"Fix: check that commit out, or make plan TARGET={target.name} again."
        )
    document = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    if not document.get("lineage") and target.is_deployed():
        # The CLI compares a plan with the state it was made from, but for a first deployment.
        raise DeliveryError(
            f"the plan is of a first deployment, and {target.name} has been deployed since. "
            f"Fix: make plan TARGET={target.name} again, or start the release again."
        )
    # With a plan the CLI builds nothing: it uploads the wheel that the plan names.
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.copytree(folder / DIST, DIST)
    target.bundle("deploy", "--plan", str(folder / PLAN), "--auto-approve")


def destroy(target: Target) -> None:
    """Remove what a deployment for trying made. Never staging, never prod."""
    if not re.fullmatch(r"pr|dev(_[a-z0-9]+)?", target.name):
        raise DeliveryError(f"{target.name} is not for destroying. Fix: TARGET=dev or TARGET=pr.")
    try:
        if find_spec("served") and target.is_deployed():
            for made in import_module("served").made_beside(target):
                call(*made, "-t", target.name)
    finally:
        target.bundle("destroy", "--auto-approve")


def newest(target: Target, model: str) -> str:
    """The newest version of a model."""
    listed = target.ask("model-versions", "list", model)
    versions = [int(version["version"]) for version in listed]
    if not versions:
        raise DeliveryError(f"{model} has no version. Fix: see what the training job says.")
    return str(max(versions))


def jobs(target: Target, as_of: str, only: str = "") -> None:
    """Run the life of each model once: features, training, deployment, scoring, monitoring."""
    done: list[str] = []
    try:
        for name, kind in itertools.product([only] if only else target.models(), LIFE):
            parameters = {"as_of": as_of}
            if kind == "deployment":
                model = target.model(name)
                parameters = {"model_name": model, "model_version": newest(target, model)}
            job = job_of(name, kind)
            done.append(f"- {job}: failed")
            done[-1] = f"- {job}: [succeeded]({target.run(job, **parameters)})"
    finally:
        report(f"Jobs on {target.name}", done)


def job_of(model: str, kind: str) -> str:
    """The key of a model's job; the first model's jobs are called by their kind alone."""
    return f"{model}_{kind}" if model else kind


def champion(target: Target, model: str) -> str | None:
    """The version that scores, by the model's aliases, if there is one."""
    found = target.ask("registered-models", "get", model, "--include-aliases")
    aliases = {alias["alias_name"]: alias["version_num"] for alias in found.get("aliases", [])}
    return str(aliases[CHAMPION]) if CHAMPION in aliases else None


def smoke(target: Target) -> None:
    """Run what a deployment must not have broken: features, and scoring if there is a champion."""
    lines = []
    for name in target.models():
        features, scoring = job_of(name, "features"), job_of(name, "scoring")
        lines.append(f"- {features}: [succeeded]({target.run(features)})")
        version = champion(target, target.model(name))
        if version is None:
            lines.append(f"- {scoring}: not run, no version is champion yet")
        else:
            lines.append(f"- {scoring}, version {version}: [succeeded]({target.run(scoring)})")
    report(f"Smoke run on {target.name}", lines)


def person(target: Target) -> str:
    """Who decides: whoever started the run of CI, or has signed in to the target's workspace."""
    for name in ("GITHUB_TRIGGERING_ACTOR", "BUILD_REQUESTEDFOREMAIL"):
        if os.environ.get(name):
            return os.environ[name]
    return str(target.ask("current-user", "me")["userName"])


def decide(target: Target, action: str, version: str, comment: str, name: str = "") -> None:
    """Approve or reject a version, or bring the previous champion back: a job does it there.

    It is the code of the command on a laptop, so checks, tags and the row in `deployments` are the
    same. An approved version still needs a passing result of every check.
    """
    if action != "rollback" and not re.fullmatch(r"[1-9][0-9]*", version):
        raise DeliveryError(f"VERSION={version!r} is no version. Fix: VERSION=3")
    if action == "reject" and not comment:
        raise DeliveryError("a rejection needs a reason. Fix: COMMENT='too old a source'")
    if name:
        target.model(name)  # says which models there are
    given = {"action": action, "person": person(target), "comment": comment}
    if action != "rollback":
        given["version"] = version
    url = target.run(job_of(name, "decision"), **given)
    what = "the champion" if action == "rollback" else f"version {version}"
    report(f"Decision on {target.name}", [f"[{action} {what}]({url}), by {given['person']}"])


def keep_summary(target: Target) -> None:
    """Write what the bundle has deployed to a file, for `after-deploy`."""
    SUMMARY.parent.mkdir(exist_ok=True)
    SUMMARY.write_text(json.dumps(target.query("summary"), indent=2), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a known error is a message and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = ["plan", "deploy", "summary", "destroy", "jobs", "smoke"]
    commands += ["approve", "reject", "rollback"]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--target", default="dev")
    parser.add_argument("--pr", default="", help="number of the pull request, with --target pr")
    parser.add_argument("--plan", default="", help="folder of a saved plan")
    parser.add_argument("--digest", default="", help="digest that the saved plan must have")
    parser.add_argument("--as-of", default="", help="moment of the data; empty: now")
    parser.add_argument("--version", default="", help="version of the model")
    parser.add_argument("--model", default="", help="a further model of the project")
    parser.add_argument("--comment", default="", help="why; kept with the decision")
    options = parser.parse_args(argv)
    name = options.model.strip()
    try:
        target = Target(options.target, options.pr)
        match options.command:
            case "plan":
                plan(target, Path(options.plan or "plan"))
            case "deploy":
                deploy(target, Path(options.plan) if options.plan else None, options.digest)
            case "summary":
                keep_summary(target)
            case "destroy":
                destroy(target)
            case "jobs":
                jobs(target, options.as_of, name)
            case "smoke":
                smoke(target)
            case action:
                version, comment = options.version.strip(), options.comment.strip()
                decide(target, action, version, comment, name)
    except (DeliveryError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
