"""Decisions on model versions: what speaks for one, what was decided, and carrying it out."""

from __future__ import annotations

from datetime import datetime

from .evaluation import expected_checks
from .platform import Platform
from .registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from .tables import DEPLOYMENTS, VALIDATION_RESULTS

APPROVAL_TAG, APPROVED = "approval", "approved"


class ApprovalRequiredError(PermissionError):
    """A person has to approve the version first."""


def decision_on(platform: Platform, version: str) -> str | None:
    """`promoted` or `refused`, or None while the version is undecided."""
    if not platform.exists(DEPLOYMENTS.name):
        return None
    rows = platform.frame(DEPLOYMENTS.name, model_version=version)
    decided = rows[rows["decision"].isin(("promoted", "refused"))]
    return str(decided["decision"].iloc[0]) if len(decided) else None


def objections(platform: Platform, version: str) -> list[str]:
    """What stands against the version: failed checks, and results that are missing."""
    if not platform.exists(VALIDATION_RESULTS.name):
        return ["no check has been run"]
    rows = platform.frame(VALIDATION_RESULTS.name, model_version=version).to_dict("records")
    results = {row["check"]: row for row in rows}
    missing = [name for name in expected_checks() if name not in results]
    failed = [row for row in results.values() if row["passed"] is not True]
    return [f"{name}: no result" for name in missing] + [
        f"{row['check']}: {row['reason']}" for row in sorted(failed, key=lambda row: row["check"])
    ]


def promote(platform: Platform, registry: Registry, version: str, reason: str) -> None:
    """Make the version the champion. May be repeated after a stop at any point.

    The version before it is kept under an alias of its own, for a rollback.
    """
    champion = registry.at(CHAMPION)
    if champion == version:
        champion = registry.at(PREVIOUS)
    elif champion is not None:
        registry.point(PREVIOUS, champion)
    registry.point(CHAMPION, version)
    _settle(platform, registry, version, "promoted", reason, champion)


def refuse(platform: Platform, registry: Registry, version: str, reason: str) -> None:
    """Keep the champion, and keep the reason."""
    _settle(platform, registry, version, "refused", reason, registry.at(CHAMPION))


def roll_back(platform: Platform, registry: Registry) -> str:
    """Bring the previous champion back; return its version.

    Raises:
        LookupError: there is none.
    """
    previous, champion = registry.at(PREVIOUS), registry.at(CHAMPION)
    if previous is None or champion is None:
        raise LookupError(f"{registry.model} has no previous champion to go back to.")
    _write(platform, registry, champion, "rolled_back", f"back to version {previous}", previous)
    registry.point(CHAMPION, previous)
    registry.drop(PREVIOUS)
    return previous


def _settle(
    platform: Platform,
    registry: Registry,
    version: str,
    decision: str,
    reason: str,
    champion: str | None,
) -> None:
    _write(platform, registry, version, decision, reason, champion)
    if registry.at(CHALLENGER) == version:
        registry.drop(CHALLENGER)


def _write(
    platform: Platform,
    registry: Registry,
    version: str,
    decision: str,
    reason: str,
    champion: str | None,
) -> None:
    as_of = datetime.fromisoformat(registry.tag(version, "as_of"))
    platform.record(DEPLOYMENTS, [(version, decision, reason, champion, as_of)])


def approve(platform: Platform, registry: Registry, version: str) -> None:
    """Sign a version off.

    Raises:
        ValueError: its checks have not all passed; the message names them.
    """
    against = objections(platform, version)
    if against:
        raise ValueError(f"Version {version} cannot be approved: {'; '.join(against)}")
    registry.client.set_model_version_tag(registry.model, version, APPROVAL_TAG, APPROVED)


def history(platform: Platform, registry: Registry) -> list[tuple[str, str, str, str]]:
    """Version, aliases, decision and reason of each version, the newest first."""
    exists = platform.exists(DEPLOYMENTS.name)
    rows = platform.frame(DEPLOYMENTS.name).to_dict("records") if exists else []
    decided = {row["model_version"]: row for row in sorted(rows, key=lambda row: row["decision"])}
    aliases = registry.aliases()
    lines = []
    for version in registry.versions():
        row = decided.get(version)
        names = ", ".join(sorted(name for name, at in aliases.items() if at == version))
        decision = (row["decision"], row["reason"]) if row else ("undecided", "")
        lines.append((version, names, *decision))
    return lines
