"""Break each check and each guard of a project's gate, and see some test fail.

    python tests/mutants.py PROJECT PYTHON [WORD ...]

A mutant of a check always passes; a mutant of a guard never holds. Words choose the mutants whose
name has one of them. A mutant that no test notices is printed, and makes the exit code 1.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

DECISIONS = ("tests/mlops/test_faults.py", "tests/mlops/test_decisions.py")
ROLLOUT = ("tests/mlops/test_rollout.py",)
AB_TEST = ("tests/mlops/test_ab_test.py",)
BAD = "tests/mlops/test_evaluation.py::test_"
# The tests of a check, so that a run need not try thirty models for each of them.
CHECKS = {
    "signature": ["a_model_without_a_signature_is_refused"],
    "input_example": ["an_undocumented_model_is_refused[no example]"],
    "dependencies": ["an_undocumented_model_is_refused[loose requirements]"],
    "licences": ["a_licence_that_is_not_allowed_is_refused"],
    "lineage": ["an_undocumented_model_is_refused[a tag missing]"],
    "description": ["an_undocumented_model_is_refused[no description]"],
    "allowed_features": ["a_forbidden_feature_is_refused"],
    "enough_rows": ["too_few_rows_are_no_proof"],
    "threshold": ["a_bad_model_is_refused[nothing]"],
    "better_than_naive": ["a_bad_model_is_refused[constant]"],
    "plausible": ["a_bad_model_is_refused[knows the answer]"],
    "better_than_champion": ["a_copy_of_the_champion_is_not_better"],
    "no_slice_worse": ["a_bad_model_is_refused[nonsense on one slice]"],
    "calibrated": ["probabilities_that_are_none_are_refused"],
    "worth_its_errors": ["probabilities_that_are_none_are_refused"],
    "loads_in_a_clean_process": ["other_packages_than_the_logged_ones_are_told"],
    "single_row_latency": ["a_slow_model_is_refused"],
    "batch_throughput": ["a_big_model_is_refused"],
    "memory": ["a_big_model_is_refused"],
    "artifact_size": ["a_big_model_is_refused"],
    "malformed_input_refused": ["a_model_that_answers_nonsense_is_refused"],
    "online_agrees_with_batch": ["an_answer_that_depends_on_the_batch_is_refused"],
}
GUARDED = {
    "decisions.py": DECISIONS,
    "stages/approve.py": DECISIONS,
    "online/rollout.py": ROLLOUT,
    "online/sequential.py": ROLLOUT,
    "online/inference_table.py": AB_TEST,
    "online/traffic.py": ROLLOUT,
    "stages/roll_out.py": (*ROLLOUT, *AB_TEST),
    "stages/ab_test.py": AB_TEST,
}
PATIENCE = 600  # seconds; a mutant that never ends is noticed


@dataclass(frozen=True)
class Mutant:
    """A file with one thing broken, and the tests that should notice."""

    name: str
    file: str
    text: str
    tests: tuple[str, ...]


def checks(package: Path) -> dict[str, Path]:
    """Each check that writes to `validation_results`, with its file."""
    return {
        node.name: path
        for path in sorted((package / "mlops/evaluation").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and _is_check(node)
    }


def mutants(package: Path) -> Iterator[Mutant]:
    """All of them, checks last."""
    for file, tests in GUARDED.items():
        path = package / "mlops" / file
        if path.exists():
            yield from _guards(path.read_text(), f"mlops/{file}", tests)
    for name, path in checks(package).items():
        text = path.read_text()
        (node,) = (n for n in ast.parse(text).body if getattr(n, "name", "") == name)
        lines = text.splitlines(keepends=True)
        end = node.body[0].end_lineno  # of its docstring
        broken = f'    return CheckResult("{name}", True, "mutant")\n'
        tests = tuple(BAD + test for test in CHECKS[name])
        file = f"mlops/evaluation/{path.name}"
        yield Mutant(f"check {name}", file, "".join([*lines[:end], broken, *lines[end:]]), tests)


def _is_check(node: ast.FunctionDef) -> bool:
    returns = isinstance(node.returns, ast.Name) and node.returns.id == "CheckResult"
    return returns and not node.name.startswith("_")


def _guards(text: str, file: str, tests: tuple[str, ...]) -> Iterator[Mutant]:
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    raw = text.encode()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.If):
            test = node.test
            begin = starts[test.lineno - 1] + test.col_offset
            end = starts[(test.end_lineno or 0) - 1] + (test.end_col_offset or 0)
            words = " ".join(raw[begin:end].decode().split())
            if words == "TYPE_CHECKING":
                continue
            broken = (raw[:begin] + b"False" + raw[end:]).decode()
            yield Mutant(f"{file}:{test.lineno}: {words}", file, broken, tests)


def survives(mutant: Mutant, project: Path, python: str) -> bool:
    """Whether the tests pass with the mutant in place of the file."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "src"
        shutil.copytree(project / "src", place)
        (package,) = (path.parent for path in place.glob("*/mlops"))
        (package / mutant.file).write_text(mutant.text)
        command = [python, "-m", "pytest", "-q", "-x", "-W", "ignore", "-p", "no:cacheprovider"]
        command += ["-m", "" if mutant.name.startswith("check ") else "not thorough"]
        try:
            done = subprocess.run(
                [*command, *mutant.tests],
                cwd=project,
                env=os.environ | {"PYTHONPATH": str(place)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode not in (0, 1):
            sys.exit(f"error: {mutant.name}: the tests did not run\n{done.stdout[-2000:]}")
        return done.returncode == 0


def _none(some: list[Mutant], package: Path) -> Mutant:
    """Nothing broken, for all the tests of these mutants."""
    tests = tuple(dict.fromkeys(test for mutant in some for test in mutant.tests))
    return replace(some[0], text=(package / some[0].file).read_text(), tests=tests)


def main(project: Path, python: str, words: list[str]) -> int:
    """Try each; print what came of it."""
    (package,) = (path.parent for path in (project / "src").glob("*/mlops"))
    chosen = [
        mutant
        for mutant in mutants(package)
        if not words or any(word in mutant.name for word in words)
    ]
    for kind in (True, False):
        some = [mutant for mutant in chosen if mutant.name.startswith("check ") is kind]
        if some and not survives(_none(some, package), project, python):
            sys.exit("error: the tests fail as they are, so they prove nothing. Fix: mend them.")
    alive = []
    for mutant in chosen:
        living = survives(mutant, project, python)
        print("SURVIVED" if living else "noticed ", mutant.name, flush=True)
        if living:
            alive.append(mutant.name)
    print(f"{len(alive)} not noticed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]))
