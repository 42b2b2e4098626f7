"""Projects of other answers, used as the default one is: set up, checked, their own tests run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import render
from test_project import finish, set_up
from test_render import CASES

PROJECTS: dict[str, dict[str, Any]] = {
    "everything": {
        **CASES["streams"],
        "online_serving": True,
        "sinks": ["parquet", "csv", "postgresql", "kafka"],
    },
    "serving_regression": CASES["online_serving_regression"],
    "hostile": CASES["all_hostile"],
}
# Tests that look into what answers have made of the bundle.
OF_THE_BUNDLE = "tests/mlops/test_bundle.py tests/mlops/test_resources.py"


@pytest.fixture(
    scope="module",
    params=[
        "everything",
        pytest.param("serving_regression", marks=pytest.mark.full),
        pytest.param("hostile", marks=pytest.mark.full),
    ],
)
def project(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project of one kind of answers, rendered, committed and set up."""
    made = tmp_path_factory.mktemp(request.param) / "project"
    project = render(template, made, **PROJECTS[request.param])
    set_up(project)
    return project


def test_make_check(project: Path) -> None:
    finish("make", "check", cwd=project, CI="")


def test_its_tests_of_the_bundle(project: Path) -> None:
    assert " passed" in finish("make", "test", f"ARGS={OF_THE_BUNDLE}", cwd=project, CI="")


@pytest.mark.full  # some minutes each
def test_all_its_tests(project: Path) -> None:
    assert " passed" in finish("make", "test-full", cwd=project, patience=1800, CI="")
