"""Is the version documented, reproducible and allowed?"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, metadata

from ..declarations import CheckResult
from ..team import PROBLEM
from .candidate import MIN_ROWS, Candidate

KIND = "compliance"
LINEAGE = ("as_of", "code", "git_commit", "reason", "table_versions", "trained_from")


def signature(candidate: Candidate) -> CheckResult:
    """The model says what it takes and gives, and takes what the problem declares."""
    found = candidate.model.metadata.signature
    if found is None or found.inputs is None or found.outputs is None:
        return _result("signature", False, "inputs or outputs are not declared")
    inputs = found.inputs.input_names()
    wrong = set(inputs) ^ set(PROBLEM.feature_names)
    words = f"differs from problem.py in {sorted(wrong)}" if wrong else "as problem.py says"
    return _result("signature", not wrong, words, float(len(inputs)))


def input_example(candidate: Candidate) -> CheckResult:
    """The model carries rows that show how to call it."""
    there = candidate.model.metadata.saved_input_example_info is not None
    return _result("input_example", there, "there is one" if there else "the model has none")


def dependencies(candidate: Candidate) -> CheckResult:
    """The packages that the model needs are frozen to one version each."""
    lines = requirements(candidate)
    loose = [line for line in lines if "==" not in line]
    words = f"not frozen: {', '.join(loose)}" if loose else f"{len(lines)} packages, all frozen"
    return _result("dependencies", bool(lines) and not loose, words if lines else "none named")


def licences(candidate: Candidate) -> CheckResult:
    """Each package that the model needs has a known licence, and none that the team forbids."""
    found = {line.split("==")[0]: licence_of(line) for line in requirements(candidate)}
    forbidden = [word.lower() for word in PROBLEM.gate.forbidden_licences]
    wrong = [
        f"{name} ({licence or 'no licence named'})"
        for name, licence in found.items()
        if not licence or any(word in licence.lower() for word in forbidden)
    ]
    words = ", ".join(f"{name} {licence}" for name, licence in found.items())
    return _result("licences", not wrong, f"not allowed: {', '.join(wrong)}" if wrong else words)


def licence_of(requirement: str) -> str:
    """The licence of an installed package, as short as the package tells it; empty: it does not."""
    try:
        told = metadata(requirement.split("==")[0].split("[")[0])
    except PackageNotFoundError:
        return ""
    fields = {name: told.get_all(name) or [] for name in ("License-Expression", "License")}
    classes = [text for text in told.get_all("Classifier") or [] if text.startswith("License ::")]
    short = fields["License-Expression"] or [text.rpartition(" :: ")[2] for text in classes]
    lines = "".join(fields["License"]).strip().splitlines()  # some packages put the text there
    return ", ".join(short or lines[:1])


def lineage(candidate: Candidate) -> CheckResult:
    """Code, data and reason of the training are on the version, and its data ends before today."""
    tags = candidate.found.tags
    missing = [name for name in LINEAGE if not tags.get(name)]
    if missing:
        return _result("lineage", False, f"no tag {', '.join(missing)}")
    if tags["trained_until"] >= tags["as_of"]:
        return _result("lineage", False, "it was trained on the rows that it is judged on")
    tables = set(json.loads(tags["table_versions"]))
    unknown = {table.name for table in PROBLEM.feature_tables} - tables
    words = f"no version of {', '.join(sorted(unknown))}" if unknown else "complete"
    return _result("lineage", not unknown, words)


def description(candidate: Candidate) -> CheckResult:
    """Somebody who finds the version in the registry can read what it is."""
    there = bool((candidate.found.description or "").strip())
    return _result("description", there, "there is one" if there else "the version has none")


def allowed_features(candidate: Candidate) -> CheckResult:
    """No feature is one that the team has forbidden."""
    found = candidate.model.metadata.signature
    names = found.inputs.input_names() if found and found.inputs else PROBLEM.feature_names
    used = sorted(set(names) & set(PROBLEM.gate.forbidden_features))
    words = f"forbidden: {', '.join(used)}" if used else "no forbidden feature"
    return _result("allowed_features", not used, words, float(len(used)))


def enough_rows(candidate: Candidate) -> CheckResult:
    """There are enough later rows to judge by."""
    rows = len(candidate.data.label)
    words = f"{rows} later rows with a known label"
    return _result("enough_rows", rows >= MIN_ROWS, words, float(rows), float(MIN_ROWS))


def requirements(candidate: Candidate) -> list[str]:
    """Lines of the model's requirements.txt."""
    from mlflow.pyfunc import get_model_dependencies

    uri = candidate.registry.uri(candidate.version)
    with open(get_model_dependencies(uri, format="pip"), encoding="utf-8") as file:  # noqa: PTH123
        lines = [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line]


def _result(
    name: str,
    passed: bool,
    reason: str,
    value: float | None = None,
    threshold: float | None = None,
) -> CheckResult:
    return CheckResult(name, passed, reason, KIND, value, threshold)


CHECKS: dict[str, Callable[[Candidate], CheckResult]] = {
    check.__name__: check
    for check in (
        signature,
        input_example,
        dependencies,
        licences,
        lineage,
        description,
        allowed_features,
        enough_rows,
    )
}
