"""Carry out a person's decision on a version: approve or reject it, or roll the champion back."""

from __future__ import annotations

from ..decisions import approve, reject, roll_back
from ..platform import Platform
from ..registry import Registry
from . import ParameterError, TaskValues, entry_point


def run(
    platform: Platform,
    *,
    action: str,
    model_name: str | None = None,
    version: str = "",
    person: str = "",
    comment: str = "",
) -> TaskValues:
    """Sign the version off or refuse it, which the deployment job then records; or roll back.

    `deploy` of the values says whether the deployment job has to run for the version.
    """
    if action not in ("approve", "reject", "rollback"):
        raise ParameterError(f"--action={action!r} is unknown. Fix: approve, reject or rollback.")
    registry = Registry(platform, model_name)
    if action == "rollback":
        restored = roll_back(platform, registry)
        return {"model_name": registry.model, "model_version": restored, "deploy": "false"}
    if not version:
        raise ParameterError(f"--version is empty. Fix: name the version to {action}.")
    if action == "approve":
        approve(platform, registry, version, person or platform.user(), comment)
    elif not comment:
        raise ParameterError("--comment is empty. Fix: say why the version is rejected.")
    else:
        reject(platform, registry, version, person or platform.user(), comment)
    return {"model_name": registry.model, "model_version": version, "deploy": "true"}


main = entry_point(run)
