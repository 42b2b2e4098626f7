"""`make release` and `make release-candidate`, and what CI says without the history they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, commit, copy_working_tree, git
from test_update import edit

FIRST = "# Every release.\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of this repository without a release, three commits long."""
    where = tmp_path / "template"
    copy_working_tree(where)
    (where / "hooks/releases.yml").write_text(FIRST)
    told = "# Changelog\n\n## Unreleased\n\nNew.\n\n### What changes in your project\n\n- All.\n"
    (where / "CHANGELOG.md").write_text(told)
    for message in ("one", "two", "three"):
        commit(where, message)
    return where


def make(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make there."""
    environment = {k: v for k, v in os.environ.items() if k not in ("ARGS", "MAKEFLAGS")}
    return subprocess.run(
        ["make", *words], cwd=where, text=True, capture_output=True, env=environment
    )


def releases(where: Path) -> str:
    """The committed list of releases."""
    return git(where, "show", "HEAD:hooks/releases.yml")


def test_release_dates_tags_and_records(repository: Path) -> None:
    for version in ("0.1.0", "0.2.0"):
        done = make(repository, "release", f"VERSION={version}")
        assert done.returncode == 0, done.stderr
        assert f"## {version} (20" in git(repository, "show", f"v{version}:CHANGELOG.md")
        edit(
            repository / "CHANGELOG.md",
            lambda text: text.replace(
                "# Changelog\n",
                "# Changelog\n\n## Unreleased\n\n### What changes in your project\n\n- More.\n",
            ),
        )
        commit(repository)
    tagged = [git(repository, "rev-parse", f"v0.{n}.0^{{commit}}").strip() for n in (1, 2)]
    assert releases(repository) == f"{FIRST}v0.1.0: {tagged[0]}\nv0.2.0: {tagged[1]}\n"
    assert "is tagged already" in make(repository, "release", "VERSION=0.1.0").stderr
    assert "v0.2.0 is a release already" in make(repository, "release", "VERSION=0.1.1").stderr


def test_candidate_may_be_chosen_again_until_it_is_tagged(repository: Path) -> None:
    for name in ("HEAD~2", "HEAD~1"):
        wanted = git(repository, "rev-parse", name).strip()
        done = make(repository, "release-candidate", "VERSION=0.1.0", f"COMMIT={name}")
        assert done.returncode == 0, done.stderr
        assert releases(repository) == f"{FIRST}v0.1.0: {wanted}\n"
    assert git(repository, "tag") == ""
    assert make(repository, "release", "VERSION=0.1.0").returncode == 0
    tagged = git(repository, "rev-parse", "v0.1.0^{commit}").strip()
    assert releases(repository) == f"{FIRST}v0.1.0: {tagged}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["release", "VERSION=1"], "VERSION='1' is no version. Fix"),
        (["release"], "VERSION='' is no version. Fix"),
        (["release-candidate", "VERSION=0.1.0", "COMMIT=nothing"], "git rev-parse"),
        (["release-candidate", "VERSION=0.1.0"], "Which commit?"),
    ],
)
def test_mistakes_change_nothing(repository: Path, words: list[str], says: str) -> None:
    done = make(repository, *words)
    assert done.returncode
    assert says in done.stderr
    assert releases(repository) == FIRST
    assert git(repository, "log", "--format=%s").split() == ["three", "two", "one"]


def test_a_release_that_does_not_say_what_changes_is_refused(repository: Path) -> None:
    edit(repository / "CHANGELOG.md", lambda text: text.replace("- All.", ""))
    assert "not committed" in make(repository, "release", "VERSION=0.1.0").stderr
    commit(repository)
    assert "say what a team sees and does" in make(repository, "release", "VERSION=0.1.0").stderr
    edit(repository / "CHANGELOG.md", lambda text: text.replace("Unreleased", "Unknown"))
    commit(repository)
    assert "has no Unreleased" in make(repository, "release", "VERSION=0.1.0").stderr
    assert git(repository, "tag") == ""


@pytest.mark.parametrize(("whole", "says"), [("1", "1 error"), ("", "1 skipped")])
def test_ci_without_history_fails(tmp_path: Path, whole: str, says: str) -> None:
    """Updates from releases cannot be tested there, and nobody would see that they were not."""
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", ROOT.as_uri(), str(shallow))
    copy_working_tree(shallow)
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_releases.py", "-k", "in_order"]
    environment = os.environ | {"WHOLE_HISTORY": whole}
    done = subprocess.run(command, cwd=shallow, text=True, capture_output=True, env=environment)
    assert says in done.stdout, done.stdout
    assert "Fix: git fetch --unshallow" in done.stdout
    assert bool(done.returncode) == bool(whole)
