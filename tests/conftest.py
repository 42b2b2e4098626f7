"""Fixtures: a committed copy of the working tree, and renders of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from pathspec import GitIgnoreSpec

ROOT = Path(__file__).resolve().parents[1]

# No identity, hook or line-ending setting of the person who runs the tests may change an outcome.
os.environ.update(
    GIT_CONFIG_GLOBAL=os.devnull,
    GIT_CONFIG_NOSYSTEM="1",
    **{f"GIT_{who}_NAME": "Tester" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "tester@example.com" for who in ("AUTHOR", "COMMITTER")},
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest, so that the two workers end together."""
    items.sort(key=lambda item: item.path.name != "test_project.py")


def git(where: Path, *arguments: str) -> str:
    """Run git there; its output."""
    done = subprocess.run(["git", *arguments], cwd=where, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(where: Path, message: str = "state") -> None:
    """Commit everything there, making it a repository first if it is none."""
    if not (where / ".git").exists():
        git(where, "init", "--quiet", "--initial-branch", "main")
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--allow-empty", "--message", message)


def copy_working_tree(to: Path) -> None:
    """Copy what a commit of the working tree would hold."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def copy_template(to: Path) -> Path:
    """Copy what a commit of the working tree would hold, commit it there and tag it v0.1.0."""
    copy_working_tree(to)
    commit(to)
    git(to, "tag", "v0.1.0")
    return to


def render(template: Path, to: Path, **answers: Any) -> Path:
    """Render the newest tag as `copier copy --defaults` does. Never unsafe: so without --trust."""
    copier.run_copy(str(template), to, data=answers, defaults=True, quiet=True, overwrite=True)
    return to


def answers_of(project: Path) -> dict[str, Any]:
    """What the project's answers file says."""
    return yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))


def team_files() -> GitIgnoreSpec:
    """The patterns of files that are the team's."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    patterns = [line.split("%}")[1].split("{%")[0] for line in config["_exclude"] if "{%" in line]
    return GitIgnoreSpec.from_lines(patterns)


def files_of(project: Path) -> list[Path]:
    """Every file of a project, .git aside, as paths inside it."""
    paths = (path.relative_to(project) for path in sorted(project.rglob("*")) if path.is_file())
    return [path for path in paths if path.parts[0] != ".git"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone-like copy of the working tree, tagged v0.1.0."""
    return copy_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def default_project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default answers, rendered. Read it, do not change it."""
    return render(template, tmp_path_factory.mktemp("default") / "project")
