"""The checks that a model version must pass before it may become the champion.

Every check ends in a result. One that raises is a failed one, with the error as its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from ..datasets import labelled
from ..declarations import CheckResult, EvaluationData
from ..platform import Platform
from ..registry import Registry
from ..team import PROBLEM, module
from ..trial import CLEAN_PROCESS
from . import compliance, infrastructure, quality
from .candidate import MIN_ROWS, Candidate, load_candidate, rival
from .infrastructure import probe

__all__ = ["MIN_ROWS", "Candidate", "evaluate", "expected_checks", "rival"]

Subject = TypeVar("Subject")
TeamCheck = Callable[[EvaluationData], CheckResult]
TEAM_CHECKS: Sequence[TeamCheck] = module("checks").CHECKS


def evaluate(platform: Platform, registry: Registry, version: str) -> list[CheckResult]:
    """Run every check on rows that are later than all that the version was trained on."""
    CLEAN_PROCESS.start()  # it gets ready while the rows are read
    as_of = datetime.fromisoformat(registry.tag(version, "as_of"))
    since = datetime.fromisoformat(registry.tag(version, "trained_until"))
    frame = labelled(platform, since, as_of, as_of)
    if frame.empty:
        reason = f"there is no labelled row between {since:%Y-%m-%d} and {as_of:%Y-%m-%d}"
        return [CheckResult(name, False, reason) for name in expected_checks()]
    try:
        candidate = load_candidate(registry, version, frame)
    except Exception as error:
        reason = f"the version cannot be used: {_words(error)}"
        return [CheckResult(name, False, reason) for name in expected_checks()]

    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(_infrastructure, candidate)
        results = [
            _guard(name, check, candidate)
            for name, check in (compliance.CHECKS | quality.checks(PROBLEM.task)).items()
        ]
        results += trying.result()
    return results + [_guard(check.__name__, check, candidate.data) for check in TEAM_CHECKS]


def expected_checks() -> list[str]:
    """Names of all the checks: a version that lacks the result of one is not deployed.

    Raises:
        ValueError: two checks have the same name.
    """
    standard = (compliance.CHECKS, quality.checks(PROBLEM.task), infrastructure.CHECKS)
    names = [name for checks in standard for name in checks]
    for check in TEAM_CHECKS:
        if check.__name__ in names:
            raise ValueError(
                f"checks.py: there are two checks named {check.__name__}, so one result would hide "
                "the other. Fix: rename it."
            )
        names.append(check.__name__)
    return names


def _infrastructure(candidate: Candidate) -> list[CheckResult]:
    try:
        measured = probe(candidate)
    except Exception as error:
        reason = f"it could not be tried in a process of its own: {_words(error)}"
        kind = infrastructure.KIND
        return [CheckResult(name, False, reason, kind) for name in infrastructure.CHECKS]
    return [_guard(*pair, measured) for pair in infrastructure.CHECKS.items()]


def _guard(name: str, check: Callable[[Subject], CheckResult], subject: Subject) -> CheckResult:
    """Run a check; an error in it is a failure, and its name is the one expected."""
    started = time.monotonic()
    try:
        result = replace(check(subject), check=name)
    except Exception as error:
        result = CheckResult(name, False, f"the check failed to run: {_words(error)}")
    return replace(result, seconds=round(time.monotonic() - started, 3))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
