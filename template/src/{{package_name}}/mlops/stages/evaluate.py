"""Evaluate a new model version; the results are evidence, whatever they say."""

from __future__ import annotations

from datetime import datetime

from ..decisions import COMPARED_TAG, NOBODY, decision_on
from ..evaluation import evaluate, rival
from ..model_card import write_card
from ..platform import Platform
from ..registry import Registry
from ..tables import VALIDATION_RESULTS
from . import TaskValues, entry_point


def run(platform: Platform, *, model_name: str, model_version: str) -> TaskValues:
    """Write one row a check to `validation_results`, unless the version is already decided on."""
    registry = Registry(platform, model_name)
    if decision_on(platform, registry, model_version) is not None:
        return None
    found = registry.get(model_version)
    as_of = datetime.fromisoformat(registry.tag(model_version, "as_of"))
    # Before the comparison: should another version be promoted meanwhile, it does not count.
    compared = rival(registry, model_version) or NOBODY
    results = evaluate(platform, registry, model_version)
    platform.record(
        VALIDATION_RESULTS,
        [
            (
                registry.model,
                model_version,
                result.check,
                result.kind,
                result.slice,
                result.value,
                result.threshold,
                result.baseline,
                result.passed,
                result.reason,
                as_of,
                found.run_id,
                result.seconds,
            )
            for result in results
        ],
    )
    registry.client.set_model_version_tag(registry.model, model_version, COMPARED_TAG, compared)
    write_card(registry, model_version, results)
    return {"passed": str(all(result.passed for result in results)).lower()}


main = entry_point(run)
