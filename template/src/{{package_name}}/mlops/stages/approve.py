"""Sign-off: automatic where the environment says so, else a person's."""

from __future__ import annotations

from ..decisions import (
    APPROVAL_TAG,
    APPROVED,
    SIGNER_TAG,
    ApprovalRequiredError,
    decision_on,
    missing_approval,
    objections,
)
from ..model_plots import log_plots
from ..platform import Platform
from ..registry import Registry
from . import TaskValues, entry_point, names


def run(
    platform: Platform,
    *,
    model_name: str,
    model_version: str,
    approval: str = "manual",
    approvers: str = "",
) -> TaskValues:
    """Pass when the version is approved, or has failed its checks and will be refused anyway.

    `approvers` are the users and groups who may approve, separated by commas; empty, anybody may.
    """
    if approval not in ("automatic", "manual"):
        raise ValueError(f"--approval={approval!r} is unknown. Fix: say automatic or manual.")
    registry = Registry(platform, model_name)
    if approval == "automatic" or decision_on(platform, registry, model_version) is not None:
        return None
    if objections(platform, registry, model_version):
        return None
    missing = missing_approval(platform, registry, model_version, names(approvers))
    if missing:
        _show(platform, registry, model_version)
        package = __package__.split(".")[0]
        where = (
            f"`{package} approve {model_version}`"
            if platform.name == "local"
            else f"`make approve TARGET=... VERSION={model_version}` in the project"
        )
        tags = f"{APPROVAL_TAG}={APPROVED}" + (f" and {SIGNER_TAG}" if approvers else "")
        raise ApprovalRequiredError(
            f"Version {model_version} of {model_name} passed its checks and awaits approval: "
            f"{missing}. Fix: look at notebooks/model_review.py, then run {where} (or set the tag "
            f"{tags} on the version) and run the job again."
        )
    return None


def _show(platform: Platform, registry: Registry, version: str) -> None:
    """Draw the plots for the approver; without them the version awaits approval all the same."""
    try:
        log_plots(platform, registry, version)
    except Exception as error:
        print(f"the plots of version {version} could not be drawn: {error}")


main = entry_point(run)
