"""The workflows and pipelines of a project, executed: what each event does, and what it cannot."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ci_executor import Event, Machine, Run, UnsupportedError, read, run_azure, run_github
from conftest import ROOT, commit, git, render

FOLDERS = {"github": ".github/workflows", "azure": ".azure"}
EXECUTE: dict[str, Callable[[Path, Event, Machine], Run]] = {
    "github": run_github,
    "azure": run_azure,
}
FLOWS = ("pull-request", "staging", "release", "model", "template-update")
SYSTEMS = pytest.mark.parametrize("system", FOLDERS)
NOTHING = r"^$"

PR = ["-t", "pr", "--var", "pr_number=7"]
AS_OF = "--params=as_of=2013-04-01"
MODEL = ["--params=model_name=some.schema.model", "--params=model_version=10"]


def jobs_on(*target: str) -> list[str]:
    """The bundle's part of `make jobs`."""
    return [
        " ".join(words)
        for words in (
            ["summary", *target, "-o", "json"],
            ["run", "features", *target, AS_OF],
            ["run", "training", *target, AS_OF],
            ["run", "deployment", *target, *MODEL],
            ["run", "scoring", *target, AS_OF],
            ["run", "monitoring", *target, AS_OF],
        )
    ]


TARGET = " ".join(PR)
DEPLOYED = [f"validate --strict {TARGET}", f"deploy {TARGET}"]
READY = [*DEPLOYED, f"summary {TARGET} -o json", "after-deploy"]
DESTROYED = [f"destroy {TARGET} --auto-approve"]
PLANNED = ["validate --strict -t prod", "plan -t prod -o json"]
RELEASED = [
    "deploy -t prod --plan PLAN --auto-approve",
    "summary -t prod -o json",
    "after-deploy",
    "summary -t prod -o json",
    "run features -t prod",
    "run scoring -t prod",
]


# A remote that is private: CI's checkout leaves no credential, so a step has to bring one.
GIT = """#!/bin/sh
case "$1" in
ls-remote | fetch | push)
    test -e "$HOME/signed_in" || test -n "$GIT_CONFIG_VALUE_0" ||
        { echo "fatal: could not read Username" >&2; exit 128; } ;;
esac
exec /usr/bin/git "$@"
"""


@dataclass
class Lab:
    """A rendered project behind a git remote, and the programs its CI finds on PATH."""

    project: Path
    remote: Path
    programs: Path
    home: Path
    runs: int = 0
    outcome: Run = field(default_factory=Run)

    def wish(self, what: str, pattern: str) -> None:
        """Let calls that match fail, or be the moment of a cancellation."""
        (self.programs / what).write_text(pattern)

    def calls(self) -> list[dict[str, Any]]:
        """Every call of a program since the last run began."""
        log = self.programs / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def run(
        self,
        system: str,
        flow: str,
        event: Event,
        refused: str = "",
        delivery: str = "on",
    ) -> list[str]:
        """Run a flow; the bundle commands in their order, the post-deploy step among them."""
        (self.programs / "calls.jsonl").unlink(missing_ok=True)
        self.runs += 1
        names = ("pr", "staging", "prod-plan", "prod")
        variables = {"DATABRICKS_DELIVERY": delivery}
        if system == "azure":  # each pipeline is an identity, so each has variables of its own
            variables["DATABRICKS_CLIENT_ID"] = f"client of {flow}"
            variables |= {f"DATABRICKS_CLIENT_ID_{n}": f"client of {n}" for n in names}
        environments = {name: {"DATABRICKS_CLIENT_ID": f"client of {name}"} for name in names}
        machine = Machine(
            self.remote,
            self.programs,
            self.home / f"run{self.runs}",
            variables,
            environments,
            frozenset(filter(None, [refused])),
        )
        suffix = next((self.project / FOLDERS[system]).glob(f"{flow}.yml"))
        self.outcome = EXECUTE[system](suffix, event, machine)
        return self.bundle()

    def bundle(self) -> list[str]:
        """The bundle commands that were called."""
        found = []
        for call in self.calls():
            words = call["arguments"]
            if call["program"] == "databricks" and words[0] == "bundle":
                line = " ".join(words[1:])
                found.append(re.sub(r"--plan \S*/?plan/plan\.json", "--plan PLAN", line))
            elif "after-deploy" in words:
                assert words[words.index("--summary") + 1] == "reports/summary.json"
                found.append("after-deploy")
        return found

    def head(self, ref: str = "main") -> str:
        """Commit of a branch or tag."""
        return git(self.project, "rev-parse", ref).strip()

    def event(self, kind: str, ref: str = "refs/heads/main", **more: Any) -> Event:
        """Something that happens at the newest commit."""
        return Event(kind, ref, more.pop("commit", self.head()), **more)

    def pull_request(self, **more: Any) -> Event:
        """Pull request 7."""
        return self.event("pull_request", "refs/pull/7/merge", pull_request="7", **more)

    def release(self, ref: str = "refs/tags/v1.0.0", **more: Any) -> Event:
        """Release 1.0.0."""
        return self.event("push", ref, **more)


@pytest.fixture(scope="module")
def made(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project for both systems, with a remote."""
    project = render(template, tmp_path_factory.mktemp("ci") / "project", ci="both")
    (project / "uv.lock").write_text("# stands for a lock\n")
    commit(project)
    remote = project.with_name("remote.git")
    git(project, "clone", "--quiet", "--bare", str(project), str(remote))
    git(project, "remote", "add", "origin", str(remote))
    return project


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Lab:
    """The project, with programs that record."""
    programs = tmp_path / "bin"
    programs.mkdir()
    tool = programs / "stub_tool.py"
    shutil.copy(ROOT / "tests/stub_tool.py", tool)
    for name in ("databricks", "uv", "gh", "az"):
        (programs / name).write_text(
            f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(programs)!r})\n"
            "import stub_tool\nsys.exit(stub_tool.main())\n"
        )
        (programs / name).chmod(0o755)
    (programs / "git").write_text(GIT)
    (programs / "git").chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    (programs / "python").write_text(sys.executable)  # with Copier, as the real uv brings it
    return Lab(made, made.with_name("remote.git"), programs, tmp_path / "home")


# ---- What each event does -----------------------------------------------------------------------
@SYSTEMS
def test_pull_request(lab: Lab, system: str) -> None:
    """Checked here, then in a deployment of its own, which goes."""
    called = lab.run(system, "pull-request", lab.pull_request())
    assert called == [*READY, *jobs_on(*PR), *DESTROYED], lab.outcome.output
    assert lab.outcome.results == dict.fromkeys(("check", "workspace", "destroy"), "success")
    (summary,) = lab.outcome.summaries
    assert "[succeeded](https://workspace.example/monitoring)" in summary
    checks = [" ".join(call["arguments"]) for call in lab.calls() if call["program"] == "uv"]
    for part in ("sync", "ruff check", "ruff format --check", "mypy", "check", "pytest"):
        assert any(re.search(rf"\b{part}\b", line) for line in checks), part
    assert any("--junitxml=reports/junit.xml" in line and "--cov" in line for line in checks)


@SYSTEMS
def test_fork_gets_no_identity(lab: Lab, system: str) -> None:
    assert lab.run(system, "pull-request", lab.pull_request(fork=True)) == []
    assert lab.outcome.results["check"] == "success"
    assert {lab.outcome.results[job] for job in ("workspace", "destroy")} == {"skipped"}
    assert {call["client"] for call in lab.calls()} <= {None, "client of pull-request"}
    assert not [call for call in lab.calls() if call["token"]]


@SYSTEMS
def test_without_a_workspace_pull_requests_are_checked_all_the_same(lab: Lab, system: str) -> None:
    assert lab.run(system, "pull-request", lab.pull_request(), delivery="") == []
    assert lab.outcome.results["check"] == "success"


def test_dependabot_gets_no_identity(lab: Lab) -> None:
    event = lab.pull_request(author="dependabot[bot]")
    assert lab.run("github", "pull-request", event) == []


@SYSTEMS
def test_merge_to_main(lab: Lab, system: str) -> None:
    staging = ["-t", "staging"]
    assert lab.run(system, "staging", lab.event("push")) == [
        "validate --strict -t staging",
        "deploy -t staging",
        "summary -t staging -o json",
        "after-deploy",
        *jobs_on(*staging),
    ]
    assert "scoring: [succeeded](" in lab.outcome.summaries[0]


@SYSTEMS
def test_release_deploys_the_plan_that_was_approved(lab: Lab, system: str) -> None:
    called = lab.run(system, "release", lab.release())
    assert called == [*PLANNED, *RELEASED], lab.outcome.output
    assert "1 update, 1 skip" in lab.outcome.summaries[0]
    assert re.search(r"Digest of the plan: `[0-9a-f]{64}`", lab.outcome.summaries[0])


@SYSTEMS
@pytest.mark.parametrize("flow", ["staging", "release"])
def test_other_pushes_deliver_nothing(lab: Lab, system: str, flow: str) -> None:
    for ref in ("refs/heads/feature", "refs/tags/1.0.0", "refs/heads/release-notes"):
        assert lab.run(system, flow, lab.event("push", ref)) == []
        assert lab.outcome.results == {}


@SYSTEMS
def test_a_release_run_by_hand_from_a_branch_stops_before_the_plan(lab: Lab, system: str) -> None:
    assert lab.run(system, "release", lab.event("manual")) == []
    assert lab.outcome.results["plan"] == lab.outcome.results["deploy"] == "skipped"


@SYSTEMS
def test_roll_back_by_running_the_release_before_again(lab: Lab, system: str) -> None:
    """The plan is made from the older commit, and so is what is deployed."""
    git(lab.project, "tag", "--force", "v0.9.0")
    old = lab.head("v0.9.0")
    (lab.project / "README.md").open("a").write("\nLater.\n")
    commit(lab.project)
    git(lab.project, "push", "--quiet", "--force", "origin", "HEAD:main", "v0.9.0")
    event = lab.event("manual", "refs/tags/v0.9.0", commit=old)
    assert lab.head() != old
    assert lab.run(system, "release", event) == [*PLANNED, *RELEASED]
    assert f"Commit `{old}`" in lab.outcome.summaries[0]


@SYSTEMS
def test_releases_by_branch(lab: Lab, template: Path, tmp_path: Path, system: str) -> None:
    """A release, and back to the one before by running its branch."""
    project = render(template, tmp_path / "project", ci=system, release_by="branch")
    remote = tmp_path / "remote.git"
    for number in ("0.9.0", "1.0.0"):
        (project / "README.md").open("a").write(f"\nRelease {number}.\n")
        commit(project)
        git(project, "branch", f"release/{number}")
    git(project, "clone", "--quiet", "--bare", str(project), str(remote))
    by_branch = Lab(project, remote, lab.programs, lab.home)
    event = by_branch.release("refs/heads/release/1.0.0")
    assert by_branch.run(system, "release", event) == [*PLANNED, *RELEASED]
    before = by_branch.head("release/0.9.0")
    event = by_branch.event("manual", "refs/heads/release/0.9.0", commit=before)
    assert by_branch.run(system, "release", event) == [*PLANNED, *RELEASED]
    assert f"Commit `{before}`" in by_branch.outcome.summaries[0]
    assert by_branch.run(system, "release", by_branch.event("manual")) == []


# ---- What stops it, and where -------------------------------------------------------------------
@SYSTEMS
def test_failing_unit_test_stops_before_any_deployment(lab: Lab, system: str) -> None:
    lab.wish("fail", "^uv run .*pytest")
    for flow, event in {
        "pull-request": lab.pull_request(),
        "staging": lab.event("push"),
        "release": lab.release(),
    }.items():
        assert lab.run(system, flow, event) == []
        assert lab.outcome.results.pop("check") == "failure"
        assert set(lab.outcome.results.values()) == {"skipped"}


@SYSTEMS
@pytest.mark.parametrize("check", ["ruff check", "ruff format", "mypy", "flight_delays check"])
def test_failing_check_stops_before_the_tests(lab: Lab, system: str, check: str) -> None:
    lab.wish("fail", f"^uv run --no-sync {check}")
    assert lab.run(system, "pull-request", lab.pull_request()) == []
    assert ("check", "make test") not in lab.outcome.commands


@SYSTEMS
@pytest.mark.parametrize("job", ["features", "training", "deployment", "scoring", "monitoring"])
def test_failing_job_destroys_the_deployment(lab: Lab, system: str, job: str) -> None:
    lab.wish("fail", f"^databricks bundle run {job}")
    called = lab.run(system, "pull-request", lab.pull_request())
    last = next(i for i, line in enumerate(jobs_on(*PR)) if line.startswith(f"run {job}"))
    assert called == [*READY, *jobs_on(*PR)[: last + 1], *DESTROYED]
    assert lab.outcome.results["workspace"] == "failure"
    assert lab.outcome.results["destroy"] == "success"
    assert f"- {job}: failed" in lab.outcome.summaries[0]


@pytest.mark.parametrize("fails", [NOTHING, "serving-endpoints delete"])
def test_what_serves_a_pull_request_goes_too(
    lab: Lab, template: Path, tmp_path: Path, fails: str
) -> None:
    """Jobs make the endpoint and the store, so the bundle does not know them; nothing else goes."""
    project = render(template, tmp_path / "project", online_serving=True)
    commit(project)
    git(project, "clone", "--quiet", "--bare", str(project), str(tmp_path / "remote.git"))
    online = Lab(project, tmp_path / "remote.git", lab.programs, lab.home)
    lab.wish("fail", fails)
    assert online.run("github", "pull-request", online.pull_request())[-1:] == DESTROYED
    deleted = [call["arguments"] for call in lab.calls() if "delete" in str(call["arguments"])]
    expected = [["serving-endpoints", "delete", "some-schema-model", "-t", "pr"]]
    if fails == NOTHING:
        expected.append(["feature-store", "delete-online-store", "some-schema", "-t", "pr"])
    assert deleted == expected
    assert online.outcome.results["destroy"] == ("success" if fails == NOTHING else "failure")


@SYSTEMS
def test_failing_deployment_is_destroyed_too(lab: Lab, system: str) -> None:
    lab.wish("fail", "^databricks bundle deploy")
    assert lab.run(system, "pull-request", lab.pull_request()) == [*DEPLOYED, *DESTROYED]


@SYSTEMS
@pytest.mark.parametrize("moment", ["deploy", "run training"])
def test_cancelled_pull_request_is_destroyed(lab: Lab, system: str, moment: str) -> None:
    lab.wish("cancel", f"^databricks bundle {moment}")
    called = lab.run(system, "pull-request", lab.pull_request())
    done = [*READY, *jobs_on(*PR)]
    last = next(i for i, line in enumerate(done) if line.startswith(moment))
    assert called == [*done[: last + 1], *DESTROYED]
    assert lab.outcome.results["workspace"] == "cancelled"


@SYSTEMS
def test_cancelled_checks_deploy_nothing(lab: Lab, system: str) -> None:
    lab.wish("cancel", "^uv run .*mypy")
    assert lab.run(system, "pull-request", lab.pull_request()) == []
    assert lab.outcome.results["destroy"] == "skipped"


@SYSTEMS
def test_refused_approval_stops_after_the_plan(lab: Lab, system: str) -> None:
    assert lab.run(system, "release", lab.release(), refused="prod") == PLANNED
    assert lab.outcome.results["deploy"] == "failure"


@SYSTEMS
def test_another_plan_than_the_approved_one_is_refused(lab: Lab, system: str) -> None:
    """Somebody changes the artifact between plan and deployment."""
    saved = lab.home / "run1" / "artifacts" / "plan" / "plan.json"
    keep = Machine.fetch

    def forged(machine: Machine, name: str, to: Path) -> None:
        saved.write_text(json.dumps({"plan": {"resources.jobs.x": {"action": "delete"}}}))
        keep(machine, name, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "fetch", forged)
        assert lab.run(system, "release", lab.release()) == PLANNED
    assert "not the plan that was approved" in lab.outcome.output


# ---- Decisions on a model -----------------------------------------------------------------------
@SYSTEMS
@pytest.mark.parametrize("action", ["approve", "reject", "rollback"])
def test_decision_on_a_version(lab: Lab, system: str, action: str) -> None:
    """One job does it there, the same code as here, so that `deployments` has its row."""
    why = "a=b, $(System.AccessToken)"
    inputs = {"action": action, "target": "prod", "version": "3", "comment": why}
    called = lab.run(system, "model", lab.event("manual", inputs=inputs))
    assert lab.outcome.results == {"decide": "success"}, lab.outcome.output
    version = "" if action == "rollback" else " --params=version=3"
    said = why if system == "github" else why.replace("$(", "$ (")
    assert called == [
        f"run decision -t prod --params=action={action} --params=person=someone "
        f'--params="comment={said}"{version}'
    ]
    assert "by someone" in lab.outcome.summaries[0]
    assert {call["client"] for call in lab.calls()} == {"client of prod"}


@SYSTEMS
def test_decision_on_a_further_model(lab: Lab, template: Path, tmp_path: Path, system: str) -> None:
    models = {"minutes_late": "regression"}
    project = render(template, tmp_path / "project", ci=system, models=models)
    commit(project)
    remote = tmp_path / "remote.git"
    git(project, "clone", "--quiet", "--bare", str(project), str(remote))
    both = Lab(project, remote, lab.programs, lab.home)
    inputs = {"action": "rollback", "target": "prod"}
    for model, job in {"": "decision", "minutes_late": "minutes_late_decision"}.items():
        given = inputs | ({"model": model} if model else {})
        called = both.run(system, "model", both.event("manual", inputs=given))
        assert called[-1].startswith(f"run {job} -t prod "), both.outcome.output
    both.run(system, "model", both.event("manual", inputs=inputs | {"model": "late"}))
    assert "MODEL='late' is no model of the bundle" in both.outcome.output


@SYSTEMS
def test_a_rejection_says_why(lab: Lab, system: str) -> None:
    inputs = {"action": "reject", "target": "prod", "version": "3"}
    assert lab.run(system, "model", lab.event("manual", inputs=inputs)) == []
    assert "a rejection needs a reason" in lab.outcome.output


@SYSTEMS
def test_first_release_has_no_champion_to_score_with(lab: Lab, system: str) -> None:
    """That is said; a registry that cannot be asked is a failure."""
    (lab.programs / "without_champion").touch()
    called = lab.run(system, "release", lab.release())
    assert "run features -t prod" in called
    assert "run scoring -t prod" not in called
    assert "no version is champion yet" in lab.outcome.summaries[-1]
    lab.wish("fail", "^databricks registered-models get")
    lab.run(system, "release", lab.release())
    assert lab.outcome.results["deploy"] == "failure"


@SYSTEMS
def test_decision_in_production_waits_for_a_reviewer(lab: Lab, system: str) -> None:
    inputs = {"action": "approve", "target": "prod", "version": "3"}
    assert lab.run(system, "model", lab.event("manual", inputs=inputs), refused="prod") == []
    assert lab.calls() == []


@SYSTEMS
def test_text_of_a_dispatch_is_never_code(lab: Lab, system: str) -> None:
    planted = lab.home / "planted"
    for text in (f'"; touch {planted}; "', f"$(touch {planted})", f"$(shell touch {planted})"):
        inputs = {"action": "approve", "target": "prod", "version": text}
        assert lab.run(system, "model", lab.event("manual", inputs=inputs)) == []
        assert lab.outcome.results == {"decide": "failure"}
        assert "is no version. Fix: VERSION=3" in lab.outcome.output
        assert not planted.exists()


# ---- Identities ---------------------------------------------------------------------------------
@SYSTEMS
def test_no_production_identity_is_reachable_from_a_pull_request(lab: Lab, system: str) -> None:
    """Neither by running, nor by what the files name."""
    for path in sorted((lab.project / FOLDERS[system]).glob("*.yml")):
        (lab.programs / "calls.jsonl").unlink(missing_ok=True)
        lab.run(system, path.stem, lab.pull_request())
        if path.stem != "pull-request":
            assert lab.outcome.results == {}, f"{path.stem} is started by a pull request"
        for call in lab.calls():
            assert "prod" not in " ".join(map(str, [call["client"], call["token"]])), call
    text = (lab.project / FOLDERS[system] / "pull-request.yml").read_text()
    assert not re.search(r"\bprod|\bstaging\b|secrets\.", re.sub(r"(?m)#.*", "", text))


def test_each_github_job_has_the_identity_of_its_environment_only(lab: Lab) -> None:
    lab.run("github", "release", lab.release())
    seen = [(c["client"], c["token"]) for c in lab.calls() if c["client"] or c["token"]]
    assert dict.fromkeys(seen) == {
        ("client of prod-plan", "environment:prod-plan"): None,
        ("client of prod", "environment:prod"): None,
    }


# ---- Both systems are the same flow -------------------------------------------------------------
@pytest.mark.parametrize("flow", FLOWS)
def test_both_systems_have_the_same_jobs_and_steps(made: Path, flow: str) -> None:
    github = read(made / FOLDERS["github"] / f"{flow}.yml")["jobs"]
    azure: dict[str, dict[str, Any]] = {}
    for stage in read(made / FOLDERS["azure"] / f"{flow}.yml")["stages"]:
        azure |= {job.get("job") or job["deployment"]: job for job in stage["jobs"]}
    assert [*github] == [*azure]
    for key, ours in github.items():
        theirs = azure[key]
        strategy = theirs.get("strategy", {}).get("runOnce", {}).get("deploy", theirs)
        scripts = [step["run"] for step in ours["steps"] if "run" in step]
        other = [step["script"] for step in strategy["steps"] if "script" in step]
        assert scripts == [text.replace("PUBLISH=azure", "PUBLISH=github") for text in other], key
        assert ours["timeout-minutes"] == theirs["timeoutInMinutes"], key
        if "environment" in theirs:
            wanted = ours["environment"].replace("inputs.", "parameters.")
            assert wanted == theirs["environment"], key


@pytest.mark.parametrize(
    "happening",
    ["pull_request", "fork", "merge", "release", "refused", "failing", "cancelled", "manual"],
)
def test_both_systems_do_the_same(lab: Lab, happening: str) -> None:
    """Results of all jobs, their steps in order and all calls of the Databricks CLI."""
    seen = []
    for system in FOLDERS:
        lab.wish("fail", "^databricks bundle run scoring" if happening == "failing" else NOTHING)
        lab.wish("cancel", "^databricks bundle run tr" if happening == "cancelled" else NOTHING)
        flow, event = {
            "fork": ("pull-request", lab.pull_request(fork=True)),
            "merge": ("staging", lab.event("push")),
            "release": ("release", lab.release()),
            "refused": ("release", lab.release()),
            "manual": ("release", lab.event("manual", "refs/tags/v1.0.0")),
        }.get(happening, ("pull-request", lab.pull_request()))
        called = lab.run(system, flow, event, "prod" if happening == "refused" else "")
        seen.append((lab.outcome.results, lab.outcome.steps, called))
    assert seen[0] == seen[1]
    assert seen[0][1], "something ran"


@SYSTEMS
def test_results_and_coverage_are_published(lab: Lab, system: str) -> None:
    """Also those of a run that failed."""
    lab.wish("fail", "^uv run .* pytest")
    for flow in ("pull-request", "staging", "release"):
        text = (lab.project / FOLDERS[system] / f"{flow}.yml").read_text()
        if system == "azure":
            assert "testResultsFiles: reports/junit.xml" in text
            assert "summaryFileLocation: reports/coverage.xml" in text
    lab.run(system, "pull-request", lab.pull_request())
    assert lab.outcome.results["check"] == "failure"
    (reports,) = (lab.home / "run1/artifacts").glob("reports*")
    kept = {path.name for path in reports.iterdir()}
    assert kept == {"junit.xml", "coverage.xml"}


# ---- Rules of the files -------------------------------------------------------------------------
@SYSTEMS
def test_checks_and_deliveries_never_wait_for_each_other(made: Path, system: str) -> None:
    """And a newer push cancels a check, never a delivery."""
    files = {flow: read(made / FOLDERS[system] / f"{flow}.yml") for flow in FLOWS}
    if system == "github":
        groups = {flow: file["concurrency"]["group"] for flow, file in files.items()}
        stems = {flow: group.split("${{")[0].rstrip("-") for flow, group in groups.items()}
        assert len(set(stems.values())) == len(FLOWS), stems
        cancels = {flow: file["concurrency"]["cancel-in-progress"] for flow, file in files.items()}
        assert cancels == {flow: str(flow == "pull-request").lower() for flow in FLOWS}
    else:
        assert files["pull-request"]["pr"]["autoCancel"] == "true"
        for flow in ("staging", "release", "model"):
            assert files[flow]["pr"] == "none"
            assert files[flow]["lockBehavior"] == "sequential"


@SYSTEMS
def test_caches_are_keyed_by_the_lock_and_kept_out_of_deliveries(made: Path, system: str) -> None:
    for flow in FLOWS:
        text = (made / FOLDERS[system] / f"{flow}.yml").read_text()
        keys = re.findall(r"^\s+key: (.+)$", text, re.MULTILINE)
        assert len(keys) == (flow in ("pull-request", "staging"))
        assert all("uv.lock" in key for key in keys)


@pytest.mark.parametrize("kind", ["tag", "branch"])
def test_azure_pipelines_hang_together(template: Path, tmp_path: Path, kind: str) -> None:
    """Stages and jobs that others name exist, variables are defined, environments are known."""
    project = render(template, tmp_path / "project", ci="azure", release_by=kind)
    for path in sorted((project / ".azure").glob("*.yml")):
        text, pipeline = path.read_text(), read(path)
        stages = [stage["stage"] for stage in pipeline["stages"]]
        assert len(set(stages)) == len(stages)
        head = " ".join(line.strip("# ") for line in text.splitlines() if line.startswith("#"))
        declared = set(pipeline.get("variables", {})) | set(
            re.findall(r"DATABRICKS_[A-Z]\w+", head)
        )
        for number, stage in enumerate(pipeline["stages"]):
            assert set([stage.get("dependsOn")] if "dependsOn" in stage else []) <= {
                *stages[:number]
            }
            names = [job.get("job") or job["deployment"] for job in stage["jobs"]]
            for job in stage["jobs"]:
                assert job.get("dependsOn", names[0]) in names
                local = declared | set(job.get("variables", {}))
                used = set(re.findall(r"\$\((\w+)(?:\$\{\{.*?\}\})?\)", json.dumps(job)))
                used = {name if name[-1] != "_" else f"{name}prod" for name in used}
                assert used <= local, f"{path.name}: {used - local}"
                if "deployment" in job:
                    assert job["environment"] in ("staging", "prod", "${{ parameters.target }}")
        for stage, job in re.findall(r"stageDependencies\.(\w+)\.(\w+)\.", text):
            assert stage in stages
            assert f"job: {job}" in text


# ---- The executor itself ------------------------------------------------------------------------
REFUSED = {
    "an unknown action": ("uses: actions/setup-python@", "uses: other/action@"),
    "an action by tag": (re.compile(r"actions/checkout@\w+"), "actions/checkout@v6"),
    "credentials that stay": ("persist-credentials: false", "persist-credentials: true"),
    "a matrix": ("    steps:", "    strategy: {matrix: {a: [1]}}\n    steps:"),
    "an unknown key of a step": ("- run: make check", "- run: make check\n        shell: bash"),
    "a job without a time limit": (re.compile(r"    timeout-minutes: \d+\n"), ""),
    "text of the event in a script": ("make check", "make check X=${{ github.ref }}"),
    "an unknown function": ("always()", "fromJSON('1')"),
}
REFUSED_BY_AZURE = {
    "an unknown task": ("task: UsePythonVersion@0", "task: Bash@3"),
    "an unknown input of a task": ("versionSpec:", "architecture:"),
    "credentials that stay": ('persistCredentials: "false"', 'persistCredentials: "true"'),
    "a matrix": ("        steps:", "        strategy: {matrix: {a: {b: c}}}\n        steps:"),
    "resources": ("\nvariables:", "\nresources: {}\nvariables:"),
    "an unknown key of a step": (
        "- script: make check",
        "- script: make check\n            target: x",
    ),
    "a job without a time limit": (re.compile(r' +timeoutInMinutes: "\d+"\n'), ""),
    "text of the event in a script": ("make check", "make check X=$(Build.SourceBranch)"),
    "a variable that is not there": ("PR: $(System.PullRequest.PullRequestId)", "PR: $(Number)"),
    "an unknown function": ("always()", "xor(true, false)"),
    "a template": ("displayName: Check\n", "displayName: ${{ variables.x }}\n"),
}


@pytest.mark.parametrize(
    ("system", "what"),
    [*(("github", what) for what in REFUSED), *(("azure", what) for what in REFUSED_BY_AZURE)],
)
def test_executor_refuses_what_it_does_not_imitate(
    lab: Lab, system: str, what: str, tmp_path: Path
) -> None:
    old, new = (REFUSED if system == "github" else REFUSED_BY_AZURE)[what]
    path = lab.project / FOLDERS[system] / "pull-request.yml"
    text = path.read_text()
    changed = old.sub(new, text) if isinstance(old, re.Pattern) else text.replace(old, new)
    assert changed != text
    copy = tmp_path / "pull-request.yml"
    copy.write_text(changed)
    given = {"DATABRICKS_DELIVERY": "on", "DATABRICKS_CLIENT_ID": "client"}
    machine = Machine(lab.remote, lab.programs, lab.home, given)
    with pytest.raises(UnsupportedError):
        EXECUTE[system](copy, lab.pull_request(), machine)
