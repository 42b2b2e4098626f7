"""Evaluate a new model version; the results are evidence, whatever they say."""

from __future__ import annotations

from datetime import datetime

from ..decisions import decision_on
from ..evaluation import evaluate
from ..platform import Platform
from ..registry import Registry
from ..tables import VALIDATION_RESULTS
from . import TaskValues, entry_point


def run(platform: Platform, *, model_name: str, model_version: str) -> TaskValues:
    """Write one row a check to `validation_results`, unless the version is already decided on."""
    registry = Registry(platform, model_name)
    if decision_on(platform, model_version) is not None:
        return None
    as_of = datetime.fromisoformat(registry.tag(model_version, "as_of"))
    results = evaluate(platform, registry, model_version)
    platform.record(
        VALIDATION_RESULTS,
        [
            (
                model_version,
                result.check,
                result.kind,
                result.value,
                result.threshold,
                result.baseline,
                result.passed,
                result.reason,
                as_of,
            )
            for result in results
        ],
    )
    return {"passed": str(all(result.passed for result in results)).lower()}


main = entry_point(run)
