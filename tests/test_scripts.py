"""The scripts that a project delivers with, run as a person and CI run them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest import mock

import pytest
from conftest import call, commit, copy_template, git, load, render
from test_ci import Lab, lab, made
from test_update import edit

__all__ = ["lab", "made"]


def start(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a project."""
    return subprocess.run(
        command,
        cwd=project,
        env={k: v for k, v in os.environ.items() if k != "CI"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


# ---- make release -------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["tag", "branch"])
def rendered(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A project, and the refs its releases have."""
    folder = tmp_path_factory.mktemp("released") / "project"
    project = render(template, folder, release_by=request.param)
    commit(project)
    return project, {"tag": "refs/tags/v", "branch": "refs/heads/release/"}[request.param]


@pytest.fixture
def released(rendered: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of it with a remote."""
    project = shutil.copytree(rendered[0], tmp_path / "project")
    git(project, "clone", "--quiet", "--bare", str(project), str(tmp_path / "remote.git"))
    git(project, "remote", "add", "origin", str(tmp_path / "remote.git"))
    return project, rendered[1]


def test_release_pushes_what_starts_one(released: tuple[Path, str]) -> None:
    project, prefix = released
    assert start(project, "make", "release", "VERSION=1.9.0").returncode == 0
    commit(project, "Something new")
    git(project, "push", "--quiet", "origin", "HEAD:main")
    done = start(project, "make", "release", "VERSION=1.10.0")
    assert done.returncode == 0, done.stdout
    assert "Changes since 1.9.0:" in done.stdout
    assert "Something new" in done.stdout
    listed = git(project, "ls-remote", "origin", f"{prefix}1.10.0")
    assert listed.split() == [git(project, "rev-parse", "HEAD").strip(), f"{prefix}1.10.0"]


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("", "VERSION=1.2.0"),
        ("1.2", "VERSION=1.2.0"),
        ("v1.2.0", "VERSION=1.2.0"),
        ("1.2.0; ls", "no version"),
        ("1.0.0", "1.0.0 is released already"),
        ("0.9.9", "1.0.0 is released already"),
    ],
)
def test_release_refuses(released: tuple[Path, str], version: str, says: str) -> None:
    project, prefix = released
    git(project, "push", "--quiet", "origin", f"HEAD:{prefix}1.0.0")
    done = start(project, "make", "release", VERSION=version)
    assert done.returncode
    assert says in done.stdout


def test_release_is_the_newest_committed_main(released: tuple[Path, str]) -> None:
    project, prefix = released
    (project / "new.txt").touch()
    assert "not committed" in start(project, "make", "release", "VERSION=1.0.0").stdout
    commit(project, "Not pushed")
    assert "newest commit of main" in start(project, "make", "release", "VERSION=1.0.0").stdout
    assert git(project, "ls-remote", "origin", f"{prefix}*") == ""


# ---- The Databricks CLI -------------------------------------------------------------------------
@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror of the CLI's releases, with version 9.9.9."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
    system = platform.system().lower()
    folder = tmp_path / "mirror/v9.9.9"
    folder.mkdir(parents=True)
    archive = folder / f"databricks_cli_9.9.9_{system}_{machine}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("databricks", "#!/bin/sh\necho Databricks CLI v9.9.9\n")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    sums = folder / "databricks_cli_9.9.9_SHA256SUMS"
    sums.write_text(f"{'0' * 64}  other.zip\n{digest}  {archive.name}\n")
    return folder.parent


def install(project: Path, mirror: Path) -> subprocess.CompletedProcess[str]:
    """Have make bring the CLI, as on a machine without it."""
    command = ["make", ".bin/databricks", "DATABRICKS_CLI=9.9.9"]
    return start(project, *command, DATABRICKS_CLI_SOURCE=mirror.as_uri())


def test_cli_is_brought_when_missing(default_project: Path, mirror: Path, tmp_path: Path) -> None:
    project = shutil.copytree(default_project, tmp_path / "project")
    done = install(project, mirror)
    assert done.returncode == 0, done.stdout
    said = subprocess.run([project / ".bin/databricks"], text=True, capture_output=True).stdout
    assert said == "Databricks CLI v9.9.9\n"


def test_cli_that_was_changed_is_refused(
    default_project: Path, mirror: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(default_project, tmp_path / "project")
    (archive,) = mirror.rglob("*.zip")
    archive.write_bytes(archive.read_bytes() + b" ")
    done = install(project, mirror)
    assert "is not what the release's checksums say" in done.stdout
    assert not (project / ".bin/databricks").exists()
    archive.unlink()
    assert "set DATABRICKS_CLI_SOURCE to a mirror" in install(project, mirror).stdout


# ---- Deliveries by hand -------------------------------------------------------------------------
MISTAKES = {
    "plan of nothing": (["deploy", "TARGET=prod"], "Fix: make plan TARGET=prod"),
    "plan that is not there": (["deploy", "TARGET=prod", "PLAN=no"], "no/plan.json is missing"),
    "pr without a number": (["deploy", "TARGET=pr"], "make ... TARGET=pr PR=12"),
    "number without pr": (["deploy", "TARGET=staging", "PR=1"], "make ... TARGET=pr PR=12"),
    "no number": (["deploy", "TARGET=pr", "PR=1;ls"], "is no number"),
    "destroying prod": (["destroy", "TARGET=prod"], "prod is not for destroying"),
    "destroying staging": (["destroy", "TARGET=staging"], "staging is not for destroying"),
    "no version": (["approve", "TARGET=prod"], "Fix: VERSION=3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_the_fix(lab: Lab, mistake: str) -> None:
    command, says = MISTAKES[mistake]
    done = start(lab.project, "make", *command, PATH=f"{lab.programs}:/usr/bin:/bin")
    assert done.returncode
    assert says in done.stdout
    assert lab.calls() == [], "nothing was done on the workspace"


def by_hand(lab: Lab, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run make as somebody who has signed in."""
    return start(
        lab.project,
        "make",
        *command,
        PATH=f"{lab.programs}:/usr/bin:/bin",
        DATABRICKS_AUTH_TYPE="azure-devops-oidc",
        SYSTEM_ACCESSTOKEN="mine",
        DATABRICKS_CLIENT_ID="me",
        HOME=str(lab.programs),
        **more,
    )


ON_A_TARGET = {
    "jobs": "model-versions list",
    "smoke": "registered-models get",
    "approve": "current-user me",
    "reject": "current-user me",
    "rollback": "current-user me",
}


@pytest.mark.parametrize("command", ON_A_TARGET)
def test_each_call_goes_to_the_workspace_of_the_target(lab: Lab, command: str) -> None:
    """Not to that of the default target, which the CLI takes when it is told none."""
    done = by_hand(lab, command, "TARGET=staging", "VERSION=3", "COMMENT=why")
    assert done.returncode == 0, done.stdout
    lines = [" ".join(call["arguments"]) for call in lab.calls()]
    assert any(line.startswith(ON_A_TARGET[command]) for line in lines)
    assert [line for line in lines if " -t staging" not in line] == []


@pytest.mark.parametrize("target", ["dev", "dev_berlin"])
def test_each_workspace_of_development_is_for_destroying(lab: Lab, target: str) -> None:
    assert by_hand(lab, "destroy", f"TARGET={target}").returncode == 0
    assert lab.bundle() == [f"destroy -t {target} --auto-approve"]


def test_plan_of_another_commit_is_refused(lab: Lab) -> None:
    assert by_hand(lab, "plan", "TARGET=prod").returncode == 0
    commit(lab.project, "Later")
    done = by_hand(lab, "deploy", "TARGET=prod", "PLAN=plan")
    assert "the plan was made from commit" in done.stdout
    assert not [line for line in lab.bundle() if line.startswith("deploy")]


def test_in_ci_a_plan_without_its_digest_is_refused(lab: Lab) -> None:
    assert by_hand(lab, "plan", "TARGET=prod").returncode == 0
    done = by_hand(lab, "deploy", "TARGET=prod", "PLAN=plan", CI="true")
    assert "Fix: set DIGEST" in done.stdout
    assert by_hand(lab, "deploy", "TARGET=prod", "PLAN=plan").returncode == 0


# ---- make propose-update ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a second version: another first line, a page moved, a page gone."""
    template = copy_template(tmp_path_factory.mktemp("versions") / "template")
    docs = template / "template/docs"
    edit(template / "template/Makefile.jinja", lambda text: "# Version 2.\n" + text)
    (docs / "runbooks").mkdir()
    git(template, "mv", str(docs / "retrain.md.jinja"), str(docs / "runbooks"))
    (docs / "roll-back.md.jinja").unlink()
    notes = "# Changelog\n\n## 0.2.0\n\n- Runbooks have a folder.\n" + "- More.\n" * 1000
    (template / "CHANGELOG.md").write_text(notes)
    commit(template)
    git(template, "tag", "v0.2.0")
    return template


@pytest.fixture
def old(versions: Path, lab: Lab, tmp_path: Path) -> Lab:
    """A project of the first version behind a remote, with recording programs."""
    import copier

    project = tmp_path / "old"
    copier.run_copy(
        str(versions), project, data={"ci": "both"}, defaults=True, quiet=True, vcs_ref="v0.1.0"
    )
    commit(project)
    return lab_of(project, lab, tmp_path)


def lab_of(project: Path, lab: Lab, folder: Path) -> Lab:
    """The same programs for another project."""
    remote = folder / "old.git"
    git(project, "clone", "--quiet", "--bare", str(project), str(remote))
    git(project, "remote", "add", "origin", str(remote))
    return Lab(project, remote, lab.programs, lab.home)


# Both write the same branch; what differs is the call that opens the pull request.
SYSTEMS = pytest.mark.parametrize(
    "system", ["github", pytest.param("azure", marks=pytest.mark.full)]
)
OPENS = {"github": ["pr", "create"], "azure": ["repos", "pr", "create"]}
BRANCH = "refs/heads/template/v0.2.0"


def opened(lab: Lab) -> list[list[str]]:
    """Calls that open a pull request."""
    calls = [call["arguments"] for call in lab.calls() if call["program"] in ("gh", "az")]
    return [words for words in calls if "create" in words]


@SYSTEMS
def test_newer_template_becomes_a_pull_request(old: Lab, system: str) -> None:
    old.run(system, "template-update", old.event("schedule"))
    assert old.outcome.results == {"update": "success"}, old.outcome.output
    (words,) = opened(old)
    assert words[: len(OPENS[system])] == OPENS[system]
    assert git(old.remote, "show", f"{BRANCH}:Makefile").startswith("# Version 2.\n")
    assert "v0.2.0" in git(old.remote, "show", f"{BRANCH}:.copier-answers.yml")
    old.run(system, "template-update", old.event("schedule"))
    assert opened(old) == [], "the branch is there: nobody's work on it is thrown away"
    assert old.outcome.results == {"update": "success"}


@SYSTEMS
def test_conflicts_are_listed_and_fail_until_resolved(old: Lab, system: str) -> None:
    """And an edit follows a page that the template moved: it is the merge of `make update`."""
    team_edits(old.project)
    git(old.project, "push", "--quiet", "origin", "HEAD:main")
    wanted = ["Makefile, docs/roll-back.md", "template-conflicts.md, Makefile"]
    for listed in wanted:  # the second run finds the branch
        old.run(system, "template-update", old.event("schedule"))
        assert old.outcome.results == {"update": "failure"}
        assert f"unresolved conflicts: {listed}" in old.outcome.output
        if listed == wanted[0]:
            (words,) = opened(old)
            text = "\n".join(words[words.index("--description") + 1 :] if system == "azure" else [])
            assert system == "github" or "- `Makefile`: both changed the same lines" in text
            assert len(text) < 4000, "what Azure DevOps takes"
    assert "Ours." in git(old.remote, "show", f"{BRANCH}:docs/runbooks/retrain.md")
    assert "Ours." in git(old.remote, "show", f"{BRANCH}:docs/roll-back.md")
    git(old.project, "fetch", "--quiet", "origin", BRANCH)
    git(old.project, "switch", "--quiet", "--detach", "FETCH_HEAD")
    ours = git(old.project, "show", "main:Makefile")
    (old.project / "Makefile").write_text(ours)  # one is resolved, the other is not
    check = start(old.project, "make", "-o", ".venv/.ready", "check")
    assert check.returncode
    assert "- `docs/roll-back.md`: the template removed it, you changed it" in check.stdout
    for more in ("template-conflicts.md", ""):
        if not more:
            (old.project / "template-conflicts.md").unlink()
        commit(old.project)
        git(old.project, "push", "--quiet", "origin", f"HEAD:{BRANCH}")
        old.run(system, "template-update", old.event("schedule", commit=old.head("main")))
        assert old.outcome.results == {"update": "failure" if more else "success"}
        assert not more or f"unresolved conflicts: {more}\n" in old.outcome.output


def team_edits(project: Path) -> None:
    """Edit what the template edits, moves and removes."""
    edit(project / "Makefile", lambda text: "# Ours.\n" + text)
    for name in ("retrain.md", "roll-back.md"):
        edit(project / "docs" / name, lambda text: "Ours.\n" + text)
    commit(project)


def proposed(project: Path) -> subprocess.CompletedProcess[str]:
    """Run the script of `make propose-update`, without publishing."""
    with mock.patch.object(sys, "path", [str(project / "scripts"), *sys.path]):
        return call(load(project / "scripts/propose_update.py"), project)


def test_text_of_the_pull_request_lists_conflicts(old: Lab) -> None:
    team_edits(old.project)
    assert proposed(old.project).returncode == 3
    text = (old.project / "reports/template-update.md").read_text()
    assert "- `Makefile`: both changed the same lines" in text
    assert "- `docs/roll-back.md`: the template removed it, you changed it" in text
    assert "v0.1.0 to v0.2.0" in text
    assert "Runbooks have a folder." in text
    assert git(old.project, "status", "--porcelain") == ""
    assert git(old.project, "branch", "--show-current").strip() == "template/v0.2.0"


def test_unreachable_template_fails_the_run(old: Lab, tmp_path: Path) -> None:
    """Not "nothing newer"."""
    answers = old.project / ".copier-answers.yml"
    edit(answers, lambda text: re.sub("_src_path: .*", "_src_path: /nowhere/at-all", text))
    commit(old.project)
    git(old.project, "push", "--quiet", "origin", "HEAD:main")
    old.run("github", "template-update", old.event("schedule"))
    assert old.outcome.results == {"update": "failure"}
    assert "cannot be reached" in old.outcome.output


def test_nothing_newer_changes_nothing(lab: Lab) -> None:
    before = lab.head()
    done = proposed(lab.project)
    assert done.returncode == 0, done.stdout
    assert "nothing newer than v0.1.0" in done.stdout
    assert lab.head() == before
