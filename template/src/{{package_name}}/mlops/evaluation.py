"""The checks that a model version must pass before it may become the champion.

Every check ends in a result. One that raises is a failed one, with the error as its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import pandas as pd

from ..checks import CHECKS
from ..problem import PROBLEM
from .datasets import labelled
from .declarations import CheckResult, EvaluationData
from .metrics import gain, naive_score, score
from .platform import Platform
from .predictions import as_column
from .registry import CHAMPION, Registry

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MIN_ROWS = 500  # fewer later rows than this cannot tell two models apart

Check = Callable[[EvaluationData], CheckResult]


def evaluate(platform: Platform, registry: Registry, version: str) -> list[CheckResult]:
    """Run every check on rows that are later than all that the version was trained on."""
    as_of = datetime.fromisoformat(registry.tag(version, "as_of"))
    since = datetime.fromisoformat(registry.tag(version, "trained_until"))
    frame = labelled(platform, since, as_of, as_of)
    features, label = frame[PROBLEM.feature_names], frame["label"]
    try:
        model = registry.load(version)
        data = EvaluationData(
            features=features,
            label=label,
            prediction=_predict(model, features),
            champion=None,
            model=model,
        )
    except Exception as error:
        reason = f"the version cannot be used: {_words(error)}"
        return [CheckResult(name, False, reason) for name in expected_checks()]

    results = [
        _guard("signature", lambda: signature(model.metadata.signature)),
        _guard("enough_rows", lambda: enough_rows(data)),
        _guard(
            "better_than_champion", lambda: better_than_champion(registry, version, frame, data)
        ),
    ]
    named: Sequence[Check] = (threshold, better_than_naive, *CHECKS)
    return results + [_guard(_name(check), lambda check=check: check(data)) for check in named]  # type: ignore[misc]


def expected_checks() -> list[str]:
    """Names of all the checks: a version that lacks the result of one is not deployed."""
    standard = ["signature", "enough_rows", "better_than_champion"]
    return [*standard, *(_name(check) for check in (threshold, better_than_naive, *CHECKS))]


def _name(check: Check) -> str:
    return check.__name__


def _guard(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    """Run a check; an error in it is a failure, and its name is the one expected."""
    try:
        return replace(check(), check=name)
    except Exception as error:
        return CheckResult(name, False, f"the check failed to run: {_words(error)}")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _predict(model: object, features: pd.DataFrame) -> pd.Series:
    answer = model.predict(features)  # type: ignore[attr-defined]
    return pd.Series(as_column(answer), index=features.index)


def signature(found: ModelSignature | None) -> CheckResult:
    """The model says what it takes and gives, and takes what the problem declares."""
    if found is None or found.inputs is None or found.outputs is None:
        return CheckResult("signature", False, "inputs or outputs are not declared", "compliance")
    inputs = found.inputs.input_names()
    wrong = set(inputs) ^ set(PROBLEM.feature_names)
    return CheckResult(
        check="signature",
        passed=not wrong,
        reason=f"differs from problem.py in {sorted(wrong)}" if wrong else "as problem.py says",
        kind="compliance",
        value=float(len(inputs)),
    )


def enough_rows(data: EvaluationData) -> CheckResult:
    """There are enough later rows to judge by."""
    rows = len(data.label)
    return CheckResult(
        check="enough_rows",
        passed=rows >= MIN_ROWS,
        reason=f"{rows} later rows with a known label",
        kind="compliance",
        value=float(rows),
        threshold=float(MIN_ROWS),
    )


def threshold(data: EvaluationData) -> CheckResult:
    """The metric is good enough by itself."""
    value, wanted = score(data.label, data.prediction), PROBLEM.thresholds[PROBLEM.metric]
    return CheckResult(
        check="threshold",
        passed=gain(value, wanted) >= 0,
        reason=f"{PROBLEM.metric} {value:.3f} on later rows, {wanted:.3f} is demanded",
        value=value,
        threshold=wanted,
    )


def better_than_naive(data: EvaluationData) -> CheckResult:
    """The model beats the best constant."""
    value, naive = score(data.label, data.prediction), naive_score(data.label)
    wanted = PROBLEM.thresholds["gain_over_naive"]
    return CheckResult(
        check="better_than_naive",
        passed=gain(value, naive) >= wanted,
        reason=f"{gain(value, naive):+.3f} {PROBLEM.metric} against a constant",
        value=value,
        threshold=wanted,
        baseline=naive,
    )


def better_than_champion(
    registry: Registry, version: str, frame: pd.DataFrame, data: EvaluationData
) -> CheckResult:
    """The version is better than the champion, on rows that neither was trained on."""
    wanted = PROBLEM.thresholds["gain_over_champion"]
    champion = registry.at(CHAMPION)
    if champion is None or champion == version:
        value = score(data.label, data.prediction)
        return CheckResult("better_than_champion", True, "there is no champion yet", value=value)
    unseen = pd.Timestamp(registry.tag(champion, "trained_until")).tz_convert(None)
    rows = frame["predict_at"] > unseen
    if rows.sum() < MIN_ROWS:
        raise ValueError(f"only {rows.sum()} rows that the champion was not trained on either")
    theirs = _predict(registry.load(champion), data.features[rows])
    value, baseline = (
        score(data.label[rows], data.prediction[rows]),
        score(data.label[rows], theirs),
    )
    better = gain(value, baseline)
    return CheckResult(
        check="better_than_champion",
        passed=better > wanted,
        reason=f"{better:+.4f} {PROBLEM.metric} against version {champion} on the same rows",
        value=value,
        threshold=wanted,
        baseline=baseline,
    )
