"""Deploy a model version: the champion's alias moves, or the refusal is recorded."""

from __future__ import annotations

from ..decisions import decide, verdict
from ..platform import Platform
from ..registry import Registry
from . import TaskValues, entry_point


def run(platform: Platform, *, model_name: str, model_version: str) -> TaskValues:
    """Promote the version when every expected check is there and passed, else refuse it."""
    registry = Registry(platform, model_name)
    decision = decide(platform, registry, model_version)
    print(verdict(platform, registry, model_version))
    return {"decision": decision}


main = entry_point(run)
