"""Each check of the gate has tests that notice when it always passes."""

from __future__ import annotations

import ast
from pathlib import Path

import mutants
import pytest
from conftest import commit, render
from test_project import finish

PACKAGE = Path("src/flight_delays")
KINDS = {"compliance.py": "CHECKS", "infrastructure.py": "CHECKS", "quality.py": "checks"}


def named(path: Path, where: str) -> set[str]:
    """Names of the functions that a module lists as its checks."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    (listed,) = (
        node
        for node in tree.body
        if getattr(node, "name", "") == where
        or (
            isinstance(node, ast.AnnAssign | ast.Assign)
            and where in ast.unparse(node).split("=")[0]
        )
    )
    used = {node.id for node in ast.walk(listed) if isinstance(node, ast.Name)}
    return used & functions


def test_every_check_has_a_mutant_and_a_test_of_its_own(default_project: Path) -> None:
    """Checks are found by what they return; the lists that the gate runs must be those."""
    package = default_project / PACKAGE
    found = mutants.checks(package)
    evaluation = package / "mlops/evaluation"
    listed = [named(evaluation / file, where) for file, where in KINDS.items()]
    assert set.union(*listed) == set(found) == set(mutants.CHECKS)
    tests = (default_project / "tests/mlops/test_evaluation.py").read_text("utf-8")
    for name in (name for names in mutants.CHECKS.values() for name in names):
        assert f"def test_{name.partition('[')[0]}(" in tests
    broken = {mutant.name: mutant for mutant in mutants.mutants(package)}
    for name, path in found.items():
        mutant = broken[f"check {name}"]
        ast.parse(mutant.text)
        assert mutant.tests
        assert mutant.text.count("mutant") == 1 and path.name in mutant.file


@pytest.mark.full  # an hour: the tests of each mutant, one after the other
def test_every_mutant_of_a_check_is_noticed(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = render(template, tmp_path / "project", online_serving=True)
    commit(project)
    finish("make", "setup", cwd=project, CI="")
    python = str(project / ".venv/bin/python")
    assert mutants.main(project, python, ["check "]) == 0, capsys.readouterr().out
