"""Sign-off: automatic where the environment says so, else a person's."""

from __future__ import annotations

from ..decisions import APPROVAL_TAG, APPROVED, ApprovalRequiredError, decision_on, objections
from ..platform import Platform
from ..registry import Registry
from . import TaskValues, entry_point


def run(
    platform: Platform, *, model_name: str, model_version: str, approval: str = "manual"
) -> TaskValues:
    """Pass when the version is approved, or has failed its checks and will be refused anyway."""
    if approval not in ("automatic", "manual"):
        raise ValueError(f"--approval={approval!r} is unknown. Fix: say automatic or manual.")
    registry = Registry(platform, model_name)
    if approval == "automatic" or decision_on(platform, registry, model_version) is not None:
        return None
    if objections(platform, registry, model_version):
        return None
    if registry.get(model_version).tags.get(APPROVAL_TAG, "").lower() != APPROVED:
        package = __package__.split(".")[0]
        raise ApprovalRequiredError(
            f"Version {model_version} of {model_name} passed its checks and awaits approval. "
            f"Fix: look at notebooks/model_review.py, then run `{package} approve {model_version}` "
            f"(or set the tag {APPROVAL_TAG}={APPROVED} on the version) and run the job again."
        )
    return None


main = entry_point(run)
