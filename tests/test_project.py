"""The default project, used as a person does: set up, checked, tested, replayed, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pytest
from conftest import ROOT, answers_of, commit, render
from test_repo import RESERVED

UNTIL = "2013-04"
PATIENCE = 600  # seconds: no step of these tests comes near it
LOCK = ROOT / "build/test-uv.lock"  # a resolution takes half a minute, its reuse a second
# What `make test ARGS=...` hands down is not meant for the make of a project.
USER = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")}

SMALL_TEXT = """
[...document.querySelectorAll('body *')].filter(one => !one.closest('svg')
  && [...one.childNodes].some(part => part.nodeType === 3 && part.textContent.trim())
  && parseFloat(getComputedStyle(one).fontSize) < 11).map(one => one.outerHTML.slice(0, 80))
"""


def finish(*command: str | Path, cwd: Path, patience: float = PATIENCE, **environment: str) -> str:
    """Run a command to its end; its output, which is the message when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=USER | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=patience,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def set_up(project: Path) -> str:
    """Commit a rendered project and make it ready; what that says."""
    commit(project)
    if LOCK.exists():
        shutil.copy(LOCK, project / "uv.lock")
    return finish("make", "setup", cwd=project, CI="")  # in CI a stale lock would be an error


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default answers, rendered, committed and set up."""
    project = render(template, tmp_path_factory.mktemp("made") / "project")
    assert "Java" in set_up(project), "setup says which Java it uses"
    LOCK.parent.mkdir(exist_ok=True)
    shutil.copy(project / "uv.lock", LOCK)
    return project


def program(project: Path) -> Path:
    """The project's command."""
    return project / ".venv/bin" / answers_of(project)["package_name"]


@pytest.fixture(scope="module")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a replay that nothing interrupted."""
    home = tmp_path_factory.mktemp("undisturbed")
    finish(program(project), "lifecycle", "--until", UNTIL, cwd=project, MLOPS_HOME=str(home))
    return home


def test_setup_is_idempotent(project: Path) -> None:
    started = time.monotonic()
    finish("make", "setup", cwd=project)
    assert time.monotonic() - started < 30


def test_make_check(project: Path) -> None:
    finish("make", "check", cwd=project)


def test_make_test(project: Path) -> None:
    assert " passed" in finish("make", "test", cwd=project)


@pytest.mark.full  # two minutes; `make test` of the project holds one test of each part
def test_thorough_tests_of_the_machinery(project: Path) -> None:
    assert " passed" in finish("make", "test-full", "ARGS=-m thorough", cwd=project)


def test_wheel_holds_the_package_and_its_entry_points(project: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv") or ROOT / ".uv/bin/uv"
    finish(uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, cwd=project)
    (wheel,) = tmp_path.glob("*.whl")
    name = answers_of(project)["package_name"]
    assert wheel.name.startswith(f"{name}-")
    listed = finish("python3", "-m", "zipfile", "--list", wheel, cwd=project)
    assert f"{name}/problem.py" in listed
    assert f"{name}/mlops/report/" in listed
    assert "entry_points.txt" in listed


@pytest.mark.full  # a new release of any requirement may bring a name: no reason to stop a change
def test_no_package_may_be_named_like_an_installed_one(project: Path) -> None:
    """Or one of the two would hide the other."""
    code = "from importlib.metadata import packages_distributions as p; print(*p())"
    names = finish(project / ".venv/bin/python", "-I", "-c", code, cwd=project).split()
    names = {name.lower() for name in names if name.isidentifier() and name[0] != "_"}
    unknown = names - set().union(*RESERVED.values()) - {answers_of(project)["package_name"]}
    assert not unknown, "add these to hooks/reserved.yml"


def test_lifecycle_reports_every_month(project: Path, undisturbed: Path) -> None:
    report = json.loads((project / "reports/lifecycle.json").read_text("utf-8"))
    assert report["project"] == answers_of(project)["project_name"]
    assert report["months"][-1]["month"] == UNTIL
    scored = [month for month in report["months"] if month["served_version"]]
    assert scored
    for month in scored:
        assert 0.5 < month["served_metric"] < 1
        assert 0.5 < month["first_version_metric"] < 1
    decisions = [decision for month in report["months"] for decision in month["decisions"]]
    assert decisions
    assert all(decision["reason"] for decision in decisions)
    page = (project / "reports/lifecycle.html").read_text("utf-8")
    assert answers_of(project)["project_name"] in page
    assert "http-equiv" not in page and "<script src" not in page, "the page needs no network"


@pytest.mark.full  # needs a browser
def test_the_report_is_readable_on_a_screen_a_phone_and_paper(
    project: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Nothing is wider than the screen or fetched from elsewhere; slices open; it prints."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH: the report was not looked at in a browser")
    from playwright.sync_api import sync_playwright

    page_of = (project / "reports/lifecycle.html").as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390, 320):
            page = browser.new_page(viewport={"width": width, "height": 800})
            wrong: list[str] = []
            page.on("console", lambda said, wrong=wrong: wrong.append(said.text))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            asked: list[str] = []
            page.on("request", lambda one, asked=asked: asked.append(one.url))
            page.goto(page_of)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            hidden = [
                h.inner_text() for h in page.query_selector_all("h1, h2") if not h.is_visible()
            ]
            assert not hidden
            slices = page.locator("details").first
            table = slices.locator("table").first
            assert not table.is_visible()
            slices.locator("summary").focus()
            page.keyboard.press("Enter")
            assert table.is_visible(), "a keyboard opens the slices"
            small = page.evaluate(SMALL_TEXT)
            assert not small, "too small to read"
            assert asked == [page_of] and not wrong
            page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
        paper = page.pdf(format="A4", path=tmp_path / "report.pdf")
        assert 2 <= paper.count(b"/Type /Page\n") <= 12
        browser.close()


def test_finished_lifecycle_runs_nothing_again(project: Path, undisturbed: Path) -> None:
    before = tables(undisturbed), journal(undisturbed), registry(undisturbed)
    finish(
        program(project), "lifecycle", "--until", UNTIL, cwd=project, MLOPS_HOME=str(undisturbed)
    )
    assert (tables(undisturbed), journal(undisturbed), registry(undisturbed)) == before


def journal(home: Path) -> list[dict[str, Any]]:
    """The finished steps of a replay, so far."""
    path = home / "lifecycle.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def tables(home: Path) -> dict[str, list[str]]:
    """Every Delta table's rows as sorted text. Read without Spark: by another implementation.

    Without what a clock or a draw gave: names of runs, seconds, how fast a version served, how
    long a job took.
    Numbers to nine digits: a sum over rows that a table holds in another order differs after that.
    """
    found = {}
    for log in sorted(home.glob("warehouse/**/_delta_log")):
        table = deltalake.DeltaTable(log.parent).to_pyarrow_table()
        columns = sorted({*table.column_names} - {"run_id", "seconds"})
        rows = table.select(columns).to_pylist()
        for row in rows:
            if row.get("kind") == "infrastructure" or log.parent.name == "operations_metrics":
                row |= {"value": None, "reason": None}
        found[log.parent.name] = sorted(
            repr([f"{x:.9g}" if isinstance(x, float) else x for x in row.values()]) for row in rows
        )
    return found


def registry(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Versions and aliases of the registered models."""
    with sqlite3.connect(f"file:{home / 'mlflow.db'}?mode=ro", uri=True) as database:
        return {
            table: sorted(database.execute(f"select {columns} from {table}"))
            for table, columns in [
                ("model_versions", "name, version"),
                ("registered_model_aliases", "name, alias, version"),
            ]
        }


def committed(table: str, times: int = 1) -> Callable[[Path], bool]:
    """Whether a table has been written so often."""

    def is_so(home: Path) -> bool:
        return len([*home.glob(f"warehouse/*/{table}/_delta_log/*.json")]) >= times

    return is_so


# Each is reached while a step is under way, whose work is then half done.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "a model is written and not yet registered": lambda home: bool(
        (home / "mlflow.db").exists() and [*home.glob("artifacts/**/MLmodel")]
    ),
    "a month is scored and not yet written down": committed("predictions"),
    "drift is measured and nothing yet decided": committed("drift_metrics"),
}


def kill_at(reached: Callable[[Path], bool], project: Path, home: Path) -> None:
    """Start or resume the replay in a process group of its own, and kill it at the moment."""
    with (home.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [program(project), "lifecycle", "--until", UNTIL],
            cwd=project,
            env=USER | {"MLOPS_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not reached(home):
            assert process.poll() is None, (home.parent / "log").read_text()[-4000:]
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_killed_lifecycle_ends_with_the_same_tables(
    project: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Killed at three moments, one after the other, it ends as if nothing had happened."""
    home = tmp_path / "home"
    home.mkdir()
    for moment, reached in MOMENTS.items():
        assert not reached(home), f"too late to prove a thing: {moment}"
        kill_at(reached, project, home)
        assert len(journal(home)) < len(journal(undisturbed)), moment

    finish(program(project), "lifecycle", "--until", UNTIL, cwd=project, MLOPS_HOME=str(home))

    again, expected = tables(home), tables(undisturbed)
    assert expected.keys() == again.keys()
    for name, rows in expected.items():
        assert again[name] == rows, f"{name} differs"
    assert registry(home) == registry(undisturbed)


@pytest.mark.full
@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_requirements_resolve_for_other_pythons(project: Path, python: str) -> None:
    uv = shutil.which("uv") or ROOT / ".uv/bin/uv"
    command = [uv, "pip", "compile", "--quiet", "--python-version", python, "pyproject.toml"]
    assert "mlflow==" in finish(*command, "--group", "local", "--group", "checks", cwd=project)


@pytest.mark.full
def test_whole_year(project: Path, tmp_path: Path) -> None:
    finish(program(project), "lifecycle", cwd=project, MLOPS_HOME=str(tmp_path))
    report = json.loads((project / "reports/lifecycle.json").read_text("utf-8"))
    summary = report["summary"]
    assert summary["months_better"] > summary["months_compared"] / 2
    assert summary["mean_gain"] > 0
