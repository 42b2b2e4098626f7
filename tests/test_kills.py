"""A project whose jobs are killed again and again, each in the middle of each task.

A hundred thousand flights, row by row, against the same commands without an accident. What is
delivered to sinks, and what is read from a topic, is killed in test_sinks.py and test_sources.py.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import deltalake
import pytest
from conftest import commit, render
from test_project import LOCK, PATIENCE, USER, finish, program

SINCE, TRAINED = "2013-01-01", "2013-03-15"
STEPS = ["2013-03-25", "2013-04-08", "2013-04-20", "2013-05-01"]
ROWS = 100_000
VICTIMS = ["features.ingest", "features.features", "features.publish", "scoring.score"]


@pytest.fixture(scope="module", params=["batch", "stream"])
def project(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project that refreshes and scores in batches, and one that does both as streams."""
    made = tmp_path_factory.mktemp("kills") / "project"
    render(template, made, online_serving=True, scoring=request.param)
    if request.param == "stream":
        for module in ("delays", "facts", "weather"):
            file = made / f"src/flight_delays/features/{module}.py"
            text = file.read_text()
            assert "    keys=" in text
            file.write_text(text.replace("    keys=", '    refresh="stream",\n    keys='))
    if LOCK.exists():
        shutil.copy(LOCK, made / "uv.lock")
    commit(made)
    finish("make", "setup", cwd=made, CI="")
    return made


def run(project: Path, job: str, as_of: str) -> list[str | Path]:
    """The command that runs a job up to then."""
    since = [f"since={SINCE}"] if job == "scoring" else []
    return [program(project), "run", job, f"as_of={as_of}", *since]


def play(
    command: list[str | Path], project: Path, home: Path, victim: str = "", after: float = 0.0
) -> tuple[dict[str, float], str]:
    """Run a command; the seconds that each of its tasks took, and the task that was killed.

    It is killed `after` seconds after the task `victim` began. "" when all was over by then.
    """
    begun: dict[str, float] = {}
    took: dict[str, float] = {}
    with (home / "log").open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=USER | {"MLOPS_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Java goes with it
        )
    assert process.stdout is not None
    kill = threading.Timer(after, lambda: os.killpg(process.pid, signal.SIGKILL))
    with process.stdout as lines:
        for line in lines:
            if told := re.match(r"(\w+\.\w+): (running|success)$", line):
                task, state = told.groups()
                if state == "success":
                    took[task] = time.monotonic() - begun[task]
                    continue
                begun[task] = time.monotonic()
                if task == victim:
                    kill.start()
    code = process.wait(PATIENCE)
    kill.cancel()
    assert code == 0 or (victim and code == -signal.SIGKILL), (home / "log").read_text()[-3000:]
    return took, "" if code == 0 else next(iter(begun.keys() - took.keys()), "")


def commits(home: Path) -> int:
    """How often tables have been written."""
    return len([*home.glob("warehouse/*/*/_delta_log/*.json")])


def rows(home: Path, table: str) -> list[str]:
    """A table's rows as text, in an order of their own."""
    (folder,) = home.glob(f"warehouse/*/{table}")
    found = deltalake.DeltaTable(folder).to_pyarrow_table()
    names = sorted(found.column_names)
    if table == "predictions":
        names.remove("as_of")  # of the run that made it: a later one, after a kill
    return as_text(zip(*(found[name].to_pylist() for name in names), strict=True))


def as_text(found: Iterable[Iterable[object]]) -> list[str]:
    """Rows, sorted; sums that were begun elsewhere end in other bits."""
    return sorted(repr([f"{x:.9g}" if isinstance(x, float) else x for x in row]) for row in found)


def online(home: Path) -> dict[str, list[str]]:
    """The rows of each table of the online store."""
    with closing(sqlite3.connect(home / "warehouse/online.sqlite")) as store:
        state = store.execute("SELECT feature_table, physical, as_of FROM published").fetchall()
        return {
            table: [str(as_of), *as_text(store.execute(f"SELECT * FROM {physical}"))]
            for table, physical, as_of in state
        }


@pytest.mark.full
def test_jobs_that_are_killed_end_with_the_same_tables(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each step is killed once in each task."""
    calm = tmp_path_factory.mktemp("calm")
    play(run(project, "features", TRAINED), project, calm)
    play(run(project, "training", TRAINED), project, calm)
    home = tmp_path_factory.mktemp("killed")
    shutil.copytree(calm, home, dirs_exist_ok=True)  # models stay, and are found where they are
    seconds: dict[str, float] = {}
    for job in ("features", "scoring"):
        seconds |= play(run(project, job, STEPS[-1]), project, calm)[0]
    assert seconds.keys() == set(VICTIMS)

    dice, killed, halfway = random.Random(6), Counter[str](), 0
    for as_of in STEPS:
        for victim in VICTIMS:
            job = victim.partition(".")[0]
            if job == "scoring":
                play(run(project, "features", as_of), project, home)
            before, after = commits(home), dice.uniform(0.0, 0.6) * seconds[victim]
            _, found = play(run(project, job, as_of), project, home, victim, after)
            killed[found] += 1
            halfway += found != "" and commits(home) > before
    for job in ("features", "scoring"):
        play(run(project, job, STEPS[-1]), project, home)
    told = f"killed in {dict(killed)}, {halfway} of them after a write"
    assert all(killed[victim] >= 2 for victim in VICTIMS), told
    assert halfway >= 4, f"{told}: kills that come before all writes prove little"

    names = {log.parent.name for log in calm.glob("warehouse/*/*/_delta_log")}
    assert {"arrivals", "carrier_delays", "observations", "predictions"} <= names
    for name in sorted(names):
        assert rows(home, name) == rows(calm, name), name
    assert min(len(rows(calm, name)) for name in ("observations", "predictions")) > ROWS
    assert online(home) == online(calm)
    assert len(online(calm)) == 5
