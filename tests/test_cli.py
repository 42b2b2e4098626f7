"""The Databricks CLI reads, plans, deploys and removes the bundle, on a stand-in for a workspace.

Both are Databricks' own, built by `make cli`. The stand-in takes requests as a workspace does and
keeps what it is given; it has no Unity Catalog rights and runs no Spark.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from conftest import ROOT, commit, git, render
from test_bundle import CASES, targets_of

BUILT = ROOT / ".cli"
# The service principal of the stand-in, and the token that stands for its identity.
PRINCIPAL, TOKEN = "aaaaaaaa-bbbb-4ccc-dddd-eeeeeeeeeeee", "dbapi1"
PR = ("--var", "pr_number=7")

pytestmark = pytest.mark.skipif(
    not (BUILT / "databricks").exists(),
    reason="no Databricks CLI: nothing was validated, planned or deployed by it. Fix: make cli",
)


@dataclass
class Workspace:
    """The stand-in at an address."""

    url: str

    def environment(self) -> dict[str, str]:
        """What a program needs to talk to it, and nothing of the person who runs the tests."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith("DATABRICKS_") and k != "CI"
        }
        return kept | {
            "PATH": f"{BUILT}:{os.environ['PATH']}",
            "DATABRICKS_TOKEN": TOKEN,
            "DATABRICKS_CONFIG_FILE": os.devnull,
        }

    def api(self, method: str, path: str, **body: Any) -> Any:
        """Ask it without the CLI."""
        data = json.dumps(body).encode() if body else None
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with urlopen(Request(self.url + path, data, headers, method=method)) as response:
            return json.load(response)

    def jobs(self) -> list[str]:
        """The names of the jobs there."""
        listed = self.api("GET", "/api/2.2/jobs/list").get("jobs", [])
        return sorted(job["settings"]["name"] for job in listed)

    def project(self, template: Path, to: Path, **answers: Any) -> Path:
        """A project whose targets are all here, as the stand-in's principal."""
        project = render(template, to, **answers)
        path = project / "databricks.yml"
        text = re.sub(r"(?m)^(      host): .*$", rf"\1: {self.url}", path.read_text())
        for name in ("staging_principal", "prod_principal"):
            text = text.replace(answers.get(name, PRINCIPAL), PRINCIPAL)
        path.write_text(text)
        commit(project)
        warehouse = yaml.safe_load(text)["variables"]["warehouse_id"]["lookup"]["warehouse"]
        self.api("POST", "/api/2.0/sql/warehouses", name=warehouse)
        return project

    def run(self, project: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the project."""
        return subprocess.run(
            command,
            cwd=project,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def bundle(self, project: Path, target: str, *command: str) -> str:
        """Run `databricks bundle`, which has to succeed; its output."""
        selection = ("-t", target, *(PR if target == "pr" else ()))
        done = self.run(project, "databricks", "bundle", *command, *selection)
        assert done.returncode == 0, f"{command} -t {target}\n{done.stdout}"
        return done.stdout

    def plan(self, project: Path, target: str) -> set[str]:
        """What a deployment would do: the kinds of actions."""
        said = self.bundle(project, target, "plan", "-o", "json")
        entries = json.loads(said[said.index("{") :])["plan"]
        assert len(entries) > 20
        return {entry["action"] for entry in entries.values()}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty one. A request that it does not know fails the test."""
    log = tmp_path / "workspace.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [BUILT / "workspace"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with process:
        assert process.stdout is not None
        yield Workspace(process.stdout.readline().strip())
        process.kill()
    assert "No handler" not in log.read_text()


def principals(answers: dict[str, Any]) -> dict[str, Any]:
    """The answers, with principals, without which the CLI recommends to name one."""
    given = {"staging_principal": PRINCIPAL, "prod_principal": PRINCIPAL.replace("a", "f")}
    return given | answers


@pytest.mark.parametrize("case", CASES)
def test_every_target_is_valid(
    workspace: Workspace, template: Path, tmp_path: Path, case: str
) -> None:
    """Strictly: no error, no warning, no recommendation."""
    project = workspace.project(template, tmp_path / "project", **principals(CASES[case]))
    for target in targets_of(case):
        said = workspace.bundle(project, target, "validate", "--strict")
        assert said.rstrip().endswith("Validation OK!"), said
        assert not re.search(r"Warning|Recommendation|Error", said), said


def test_additions_have_a_file_of_their_own(
    workspace: Workspace, template: Path, tmp_path: Path
) -> None:
    """`resources/team.yml` adds variables, sets them for a target, and changes one of ours."""
    project = workspace.project(template, tmp_path / "project", **principals({}))
    page = (project / "docs/update.md").read_text("utf-8")
    added = page.split("```\n# resources/team.yml")[1].split("\n", 1)[1].split("```")[0]
    (project / "resources/team.yml").write_text(added)
    commit(project)
    for target, region, cron in (
        ("staging", "west", "0 0 4 1 * ?"),
        ("prod", "north", "0 30 2 * * ?"),
    ):
        said = workspace.bundle(project, target, "validate", "--strict", "-o", "json")
        bundle = json.loads(said[said.index("{") :])
        assert bundle["variables"]["region"]["value"] == region
        schedule = bundle["resources"]["jobs"]["training"]["schedule"]
        assert schedule["quartz_cron_expression"] == cron


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_every_target_is_deployed_once(
    workspace: Workspace, template: Path, tmp_path: Path, case: str
) -> None:
    """A first deployment creates, a second finds nothing to do; what is for trying goes again."""
    project = workspace.project(template, tmp_path / "project", **principals(CASES[case]))
    for target in targets_of(case):
        before = workspace.jobs()
        assert workspace.plan(project, target) == {"create"}
        workspace.bundle(project, target, "deploy")
        assert len(workspace.jobs()) == len(before) + 6
        assert workspace.plan(project, target) == {"skip"}
        if target in ("dev", "pr"):
            number = ["PR=7"] if target == "pr" else []
            done = workspace.run(project, "make", "destroy", f"TARGET={target}", *number)
            assert done.returncode == 0, done.stdout
            assert workspace.jobs() == before


def test_after_deploy_reads_the_summary(
    workspace: Workspace, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `bundle summary` prints holds what the step after a deployment needs."""
    models = {"minutes_late": "regression"}
    answers = principals({"package_name": "summarised", "models": models})
    project = workspace.project(template, tmp_path / "project", **answers)
    workspace.bundle(project, "staging", "deploy")
    assert workspace.plan(project, "staging") == {"skip"}
    said = workspace.bundle(project, "staging", "summary", "-o", "json")
    monkeypatch.syspath_prepend(project / "src")
    after_deploy = importlib.import_module("summarised.mlops.after_deploy")
    found = after_deploy.Deployment.of_summary(said[said.index("{") :])
    listed = workspace.api("GET", "/api/2.2/jobs/list")["jobs"]
    ids = {job["settings"]["name"]: str(job["job_id"]) for job in listed}
    assert found.deciders == {
        "staging.summarised.flight_delay": ids["summarised-deployment"],
        "staging.summarised.minutes_late": ids["summarised-minutes_late-deployment"],
    }
    warehouses = workspace.api("GET", "/api/2.0/sql/warehouses")["warehouses"]
    assert found.warehouse_id in {warehouse["id"] for warehouse in warehouses}
    assert found.principals == (PRINCIPAL,)
    assert found.host == workspace.url


def test_a_mistake_is_not_valid(workspace: Workspace, template: Path, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    project = workspace.project(template, tmp_path / "project")
    path = project / "resources/scoring.job.yml"
    path.write_text(path.read_text().replace("max_concurrent_runs", "max_concurent_runs"))
    done = workspace.run(project, "databricks", "bundle", "validate", "--strict", "-t", "dev")
    assert done.returncode
    assert "unknown field: max_concurent_runs" in done.stdout


@pytest.mark.parametrize("kind", [pytest.param("tag", marks=pytest.mark.full), "branch"])
def test_a_release_by_make(workspace: Workspace, template: Path, tmp_path: Path, kind: str) -> None:
    """Plan, deploy, look after it, decide: what CI runs in production, from what CI checks out."""
    answers = principals({"release_by": kind})
    project = workspace.project(template, tmp_path / "project", **answers)
    if kind == "tag":
        git(project, "checkout", "--quiet", "--detach")
    else:
        git(project, "switch", "--quiet", "--create", "release/1.2.0")
    made = workspace.run(project, "make", "plan", "TARGET=prod")
    assert made.returncode == 0, made.stdout
    assert re.search(r"Commit `\w+`: \d+ create\n", made.stdout)
    for command in (
        ["deploy", "TARGET=prod", "PLAN=plan"],
        ["smoke", "TARGET=prod"],
        ["rollback", "TARGET=prod", "COMMENT=worse, by a=0.1"],
        ["jobs", "TARGET=prod"],
    ):
        done = workspace.run(project, "make", *command)
        assert done.returncode == 0, done.stdout
    unknown = ("run", "scoring", "-t", "prod", "--params=as_off=2013-04-01")
    assert (
        "as_off is not declared" in workspace.run(project, "databricks", "bundle", *unknown).stdout
    )
    assert "no version is champion yet" not in done.stdout
    assert "model_version=10" in done.stdout
    for says in (
        "the plan is of a first deployment",
        "plan serial 1 does not match state serial 2",
    ):
        again = workspace.run(project, "make", "deploy", "TARGET=prod", "PLAN=plan")
        assert again.returncode, "another deployment has overtaken the plan"
        assert says in again.stdout
        workspace.run(project, "make", "plan", "TARGET=prod")
        (project / "resources/scoring.job.yml").open("a").write("      timeout_seconds: 600\n")
        workspace.bundle(project, "prod", "deploy")
