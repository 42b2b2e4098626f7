"""A project that serves online, used as a person does: set up, checked, its own tests of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import commit, render

PATIENCE = 1800  # seconds: no step comes near it
USER = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")}


@pytest.mark.full  # an environment of its own, then five weeks of data on Spark
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_project_that_serves(template: Path, tmp_path: Path, task: str) -> None:
    project = render(template, tmp_path / "project", online_serving=True, task=task)
    commit(project)
    names = ("mlops/online_databricks", "mlops/rollout", "mlops/ab_test")
    names += ("integration/online_store", "integration/serve")
    tests = " ".join(f"tests/{name.replace('/', '/test_')}.py" for name in names)
    for command in (
        ["make", "setup"],
        ["make", "check"],
        ["make", "test-full", f"ARGS={tests}"],
    ):
        done = subprocess.run(
            command,
            cwd=project,
            env=USER | {"CI": ""},
            text=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert " passed" in done.stdout
