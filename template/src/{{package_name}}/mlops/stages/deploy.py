"""Deploy a model version: the champion's alias moves, or the refusal is recorded."""

from __future__ import annotations

from ..decisions import decision_on, objections, promote, refuse
from ..platform import Platform
from ..registry import Registry
from . import TaskValues, entry_point


def run(platform: Platform, *, model_name: str, model_version: str) -> TaskValues:
    """Promote the version when every expected check is there and passed, else refuse it."""
    registry = Registry(platform, model_name)
    decided = decision_on(platform, registry, model_version)
    if decided is not None:
        return {"decision": decided}
    against = objections(platform, registry, model_version)
    if against:
        refuse(platform, registry, model_version, "; ".join(against))
        return {"decision": "refused"}
    promote(platform, registry, model_version, "every check passed")
    return {"decision": "promoted"}


main = entry_point(run)
