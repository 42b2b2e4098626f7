"""Fixtures: a committed copy of the working tree, and renders of it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any
from unittest import mock

import copier
import jinja2
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

# Most of a render's time is Jinja compiling the same few hundred texts, and one git process for
# each file, which asks for a setting of Windows. The tests render some hundred times.
COMPILED: dict[tuple[Any, ...], CodeType] = {}
COMPILE = jinja2.Environment.compile


def compile_once(
    self: jinja2.Environment,
    source: str,
    name: str | None = None,
    filename: str | None = None,
    *rest: Any,
) -> Any:
    """Jinja's `compile`, remembering texts: Copier's settings are the same everywhere here."""
    key = (source, name, *rest)
    self.preprocess(source, name)  # by which Copier's extension forgets the last `yield`
    if key not in COMPILED:
        COMPILED[key] = COMPILE(self, source, name, filename, *rest)
    return COMPILED[key]


jinja2.Environment.compile = compile_once
copier._main.Worker._sync_git_index_executable_bit = lambda *_: None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest, so that the two workers end together."""
    items.sort(key=lambda item: item.path.name != "test_project.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add up what the runs of test_random_updates.py counted, in whichever process they ran."""
    passed = terminalreporter.stats.get("passed", [])
    counts: Counter[str] = Counter()
    for report in passed:
        counts.update(dict(report.user_properties).get("counts", {}))
    for name, number in sorted((+counts).items()):
        terminalreporter.write_line(f"{number:6} {name}")


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


def load(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def call(
    script: ModuleType, where: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script there in this process: Copier alone takes a second to import."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(where),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["script", *arguments]),
    ):
        try:
            code = script.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return subprocess.CompletedProcess([*arguments], code, out.getvalue(), err.getvalue())


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
