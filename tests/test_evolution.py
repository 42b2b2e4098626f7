"""Features of a project that come, get another name and go, as a person types it.

Of two feature tables that change one is refreshed in batches and one as a stream; scoring follows
the observations as a stream. A champion that was trained before goes on.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import pytest
from conftest import commit, render
from test_project import LOCK, USER, finish, program

TRAINED = "2013-03-15"
DAYS = [f"2013-03-{day}" for day in range(16, 22)]
OLD, NEW = "seats", "places"
FACTS, WEATHER = "facts.py", "weather.py"
# What a person edits: file, what is there, what takes its place.
ADD = [
    (
        FACTS,
        '        F.col("seats").cast("double").alias("seats"),\n',
        '        F.col("seats").cast("double").alias("seats"),\n'
        '        F.col("engines").cast("double").alias("engines"),\n',
    ),
    (
        FACTS,
        '        Column("seats", "double", "Seats of the plane"),\n',
        '        Column("seats", "double", "Seats of the plane"),\n'
        '        Column("engines", "double", "Engines of the plane"),\n',
    ),
    (
        WEATHER,
        '    Column("visib", "double", "Visibility, miles"),\n',
        '    Column("visib", "double", "Visibility, miles"),\n'
        '    Column("cold", "double", "Degrees below freezing"),\n',
    ),
    (
        WEATHER,
        "            else F.col(column.name)\n",
        '            else F.greatest(F.lit(32.0) - F.col("temp"), F.lit(0.0)).alias("cold")\n'
        '            if column.name == "cold"\n'
        "            else F.col(column.name)\n",
    ),
]
RENAME = [
    (
        FACTS,
        '        F.col("seats").cast("double").alias("seats"),\n',
        '        F.col("seats").cast("double").alias("seats"),\n'
        '        F.col("seats").cast("double").alias("places"),\n',
    ),
    (
        FACTS,
        '        Column("seats", "double", "Seats of the plane"),\n',
        '        Column("seats", "double", "Seats of the plane", retired=True),\n'
        '        Column("places", "double", "Seats of the plane"),\n',
    ),
]
DROP = [
    (FACTS, '        F.col("seats").cast("double").alias("seats"),\n', ""),
    (FACTS, '        Column("seats", "double", "Seats of the plane", retired=True),\n', ""),
]
BRING_BACK = [
    (
        FACTS,
        '        F.col("seats").cast("double").alias("places"),\n',
        RENAME[0][2],
    ),
    (FACTS, '        Column("places", "double", "Seats of the plane"),\n', RENAME[1][2]),
]
PROMOTE = """
import sys
from flight_delays.mlops.platform.local import home_dir, use_mlflow
from mlflow import MlflowClient
use_mlflow(home_dir())
MlflowClient().set_registered_model_alias(
    "spark_catalog.flight_delays.flight_delay", "champion", sys.argv[1]
)
"""


class Person:
    """Who types commands in a project, and edits its features."""

    def __init__(self, project: Path, home: Path) -> None:
        self.project, self.home = project, home

    def type(self, *words: str) -> str:
        """Run the project's command; what it says."""
        return finish(program(self.project), *words, cwd=self.project, MLOPS_HOME=str(self.home))

    def fails(self, *words: str) -> str:
        """The same for a command that has to fail."""
        done = subprocess.run(
            [program(self.project), *words],
            cwd=self.project,
            env=USER | {"MLOPS_HOME": str(self.home)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        assert done.returncode == 1, done.stdout[-3000:]
        return done.stdout

    def edit(self, changes: list[tuple[str, str, str]]) -> None:
        """Change the features."""
        for name, old, new in changes:
            file = self.project / "src/flight_delays/features" / name
            assert file.read_text().count(old) == 1, (name, old)
            file.write_text(file.read_text().replace(old, new))
        commit(self.project)

    def day(self, as_of: str) -> None:
        """Every job of a day."""
        self.type("run", "features", f"as_of={as_of}")
        self.type("run", "scoring", f"as_of={as_of}")
        self.type("run", "monitoring", f"as_of={as_of}")

    def train(self, as_of: str) -> str:
        """Train a version, and make it champion whatever the gate thinks; its number."""
        told = self.type("run", "training", f"as_of={as_of}")
        version = re.findall(r'"model_version": "(\d+)"', told)[-1]
        python = self.project / ".venv/bin/python"
        finish(python, "-c", PROMOTE, version, cwd=self.project, MLOPS_HOME=str(self.home))
        return version

    def asks(self) -> tuple[str, dict[str, Any]]:
        """Start the server, and ask it what it says to try; the version, and what it looked up."""
        server = subprocess.Popen(
            [program(self.project), "serve", "--port", "0"],
            cwd=self.project,
            env=USER | {"MLOPS_HOME": str(self.home)},
            text=True,
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if line.startswith("curl "):
                    break
            address, body = re.fullmatch(r"curl (\S+) .* -d '(.*)'\n", line).groups()  # type: ignore[union-attr]
            kind = {"Content-Type": "application/json"}
            asked = urllib.request.Request(address, body.encode(), kind)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                version = answer.headers["x-model-version"]
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
            server.stdout.close()
        logged = self.table("requests").to_pylist()
        last = max(logged, key=lambda row: row["request_time"])
        return version, json.loads(last["features"])[0]

    def table(self, name: str) -> Any:
        """A table as it is."""
        (folder,) = self.home.glob(f"warehouse/*/{name}")
        return deltalake.DeltaTable(folder).to_pyarrow_table()

    def filled(self, name: str, column: str) -> float:
        """Share of a table's rows that have a value there."""
        rows = self.table(name)
        return 1 - rows[column].null_count / len(rows)

    def online(self, name: str) -> set[str]:
        """Columns of a table of the online store."""
        with closing(sqlite3.connect(self.home / "warehouse/online.sqlite")) as store:
            query = "SELECT features FROM published WHERE feature_table = ?"
            ((features,),) = store.execute(query, (name,)).fetchall()
        return set(json.loads(features))


@pytest.mark.full
def test_features_come_and_go(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "project", online_serving=True, scoring="stream")
    if LOCK.exists():
        shutil.copy(LOCK, project / "uv.lock")
    commit(project)
    finish("make", "setup", cwd=project, CI="")
    evolve(Person(project, tmp_path / "home"))


def evolve(person: Person) -> None:
    """Add two features, rename one, drop the old name, and look at everything after each."""
    person.edit([(WEATHER, "    keys=", '    refresh="stream",\n    keys=')])
    person.type("run", "features", f"as_of={TRAINED}")
    person.type("run", "training", f"as_of={TRAINED}")
    person.day(DAYS[0])

    # Added: there for old rows too, ignored by the champion, used by the next version.
    person.edit(ADD)
    person.day(DAYS[1])
    for table, column in (("plane_facts", "engines"), ("weather_features", "cold")):
        assert person.filled(table, column) == 1
        assert person.filled("observations", column) > 0.8
        assert column in person.online(table)
    version, inputs = person.asks()
    assert version == "1"
    assert OLD in inputs and not {"engines", "cold"} & inputs.keys()
    second = person.train(DAYS[1])
    person.day(DAYS[2])
    assert {"engines", "cold"} <= set(person.table("predictions").column_names)
    version, inputs = person.asks()
    assert version == second and {"engines", "cold", OLD} <= inputs.keys()

    # Renamed: both are kept up, and the champion goes on with the old name.
    person.edit(RENAME)
    person.day(DAYS[3])
    for table in ("plane_facts", "observations"):
        rows = person.table(table)
        assert rows[OLD].equals(rows[NEW]), table
    version, inputs = person.asks()
    assert version == second and OLD in inputs and NEW not in inputs

    # The old name is dropped too early: who needs it is told so by name.
    person.edit(DROP)
    person.type("run", "features", f"as_of={DAYS[4]}")
    gone = f"Version {second} of spark_catalog.flight_delays.flight_delay needs {OLD}, which"
    assert gone in person.fails("run", "scoring", f"as_of={DAYS[4]}")
    assert gone in person.fails("serve", "--port", "0")
    assert OLD not in person.online("plane_facts")

    # As told, it is brought back; then a version without it becomes champion, and it can go.
    person.edit(BRING_BACK)
    person.type("run", "features", f"as_of={DAYS[4]}", "backfill=plane_facts")
    person.type("run", "scoring", f"as_of={DAYS[4]}")
    third = person.train(DAYS[4])
    person.edit(DROP)
    person.day(DAYS[5])
    version, inputs = person.asks()
    assert int(version) >= int(third), "monitoring may have had another one trained"
    assert NEW in inputs and OLD not in inputs
    made = person.table("predictions")
    assert set(made["model_version"].to_pylist()) == {"1", second, third}
    assert len(made) == len(set(made["entity"].to_pylist())) > 3000
