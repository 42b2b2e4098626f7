"""Refreshes and scoring of a project that are killed half-way: the same tables, row by row.

A hundred thousand flights, in batches and as a stream. What is published, delivered or read from a
topic has tests of its own.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import deltalake
import pytest
from conftest import commit, render
from test_project import PATIENCE, USER, finish

HALF, UNTIL = "2013-03-01", "2013-05-01"
ROWS = 100_000
SCORE = """
import sys
from flight_delays.mlops.stages.{stage} import main
main(["--catalog=spark_catalog", "--schema=flight_delays", "--since=2013-01-01", "--as_of={until}"])
"""


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project one of whose feature tables follows its source as a stream, another does not."""
    project = render(template, tmp_path_factory.mktemp("kills") / "project", scoring="stream")
    delays = project / "src/flight_delays/features/delays.py"
    name = '    name="carrier_delays",\n'
    assert name in delays.read_text()
    delays.write_text(delays.read_text().replace(name, f'{name}    refresh="stream",\n'))
    commit(project)
    finish("make", "setup", cwd=project, CI="")
    return project


def features(project: Path, as_of: str) -> list[str | Path]:
    """The command that refreshes everything up to then."""
    return [project / ".venv/bin/flight_delays", "run", "features", f"as_of={as_of}"]


def score(project: Path, stage: str) -> list[str | Path]:
    """The command that scores everything there is."""
    return [project / ".venv/bin/python", "-c", SCORE.format(stage=stage, until=UNTIL)]


@pytest.fixture(scope="module")
def halfway(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months of data."""
    home = tmp_path_factory.mktemp("halfway")
    finish(*features(project, HALF), cwd=project, MLOPS_HOME=str(home))
    return home


@pytest.fixture(scope="module")
def undisturbed(project: Path, halfway: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four months of data and a champion, without an accident."""
    home = copied(halfway, tmp_path_factory.mktemp("undisturbed"))
    finish(*features(project, UNTIL), cwd=project, MLOPS_HOME=str(home))
    run = [project / ".venv/bin/flight_delays", "run", "training"]
    finish(*run, f"as_of={UNTIL}", "reason=test", cwd=project, MLOPS_HOME=str(home))
    return home


def copied(home: Path, to: Path) -> Path:
    """All tables; models stay where they are, and are found there."""
    shutil.copytree(home, to, dirs_exist_ok=True)
    return to


def commits(home: Path) -> int:
    """How often tables have been written."""
    return len([*home.glob("warehouse/*/*/_delta_log/*.json")])


def kill_often(command: list[str | Path], project: Path, home: Path, kills: list[int]) -> int:
    """Start the command again and again, and kill it after so many writes; how often it was."""
    dice, killed = random.Random(len(kills)), 0
    for writes in kills:
        before, deadline = commits(home), time.monotonic() + PATIENCE
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=project,
                env=USER | {"MLOPS_HOME": str(home)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while process.poll() is None and commits(home) < before + writes:
            assert time.monotonic() < deadline, (home / "log").read_text()[-3000:]
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        else:
            assert process.returncode == 0, (home / "log").read_text()[-3000:]
        process.wait()
    finish(*command, cwd=project, MLOPS_HOME=str(home))
    return killed


def rows(home: Path, table: str) -> list[str]:
    """A table's rows as text, in an order of their own."""
    (folder,) = home.glob(f"warehouse/*/{table}")
    found = deltalake.DeltaTable(folder).to_pyarrow_table()
    columns = [found[name].to_pylist() for name in sorted(found.column_names)]
    return sorted(
        repr([f"{x:.9g}" if isinstance(x, float) else x for x in row])  # sums end in other bits
        for row in zip(*columns, strict=True)
    )


@pytest.mark.full
def test_refreshes_that_are_killed_end_with_the_same_tables(
    project: Path, halfway: Path, undisturbed: Path, tmp_path: Path
) -> None:
    home = copied(halfway, tmp_path / "home")
    assert kill_often(features(project, UNTIL), project, home, [1, 2, 3, 2, 1, 2]) >= 4
    names = {log.parent.name for log in home.glob("warehouse/*/*/_delta_log")}
    assert {"schedule", "carrier_delays", "weather_features", "observations"} <= names
    for name in sorted(names):
        assert rows(home, name) == rows(undisturbed, name), name
    assert len(rows(home, "observations")) > ROWS


@pytest.mark.full
@pytest.mark.parametrize("stage", ["score", "score_stream"])
def test_scoring_that_is_killed_ends_with_the_same_predictions(
    project: Path, undisturbed: Path, tmp_path: Path, stage: str
) -> None:
    calm, home = (copied(undisturbed, tmp_path / name) for name in ("calm", "home"))
    finish(*score(project, "score"), cwd=project, MLOPS_HOME=str(calm))
    assert kill_often(score(project, stage), project, home, [1, 1, 1, 1]) >= 2
    expected = rows(calm, "predictions")
    assert len(expected) > ROWS
    assert rows(home, "predictions") == expected
