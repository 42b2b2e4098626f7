"""Decisions on model versions: what speaks for one, what was decided, and carrying it out."""

from __future__ import annotations

from datetime import datetime

from .evaluation import expected_checks, rival
from .platform import Platform
from .registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from .tables import DEPLOYMENTS, VALIDATION_RESULTS
from .team import PROBLEM

APPROVAL_TAG = "approval"
APPROVED, REJECTED = "approved", "rejected"
COMPARED_TAG, NOBODY = "compared_with", "none"  # the champion that the evaluation compared with


class ApprovalRequiredError(PermissionError):
    """A person has to approve the version first."""


def decision_on(platform: Platform, registry: Registry, version: str) -> str | None:
    """`promoted` or `refused`, or None while the version is undecided."""
    if not platform.exists(DEPLOYMENTS.name):
        return None
    rows = platform.frame(DEPLOYMENTS.name, model=registry.model, model_version=version)
    decided = rows[rows["decision"].isin(("promoted", "refused"))]
    return str(decided["decision"].iloc[0]) if len(decided) else None


def objections(platform: Platform, registry: Registry, version: str) -> list[str]:
    """What stands against the version: failed checks, missing results, a person's rejection."""
    if not platform.exists(VALIDATION_RESULTS.name):
        return ["no check has been run"]
    found = platform.frame(VALIDATION_RESULTS.name, model=registry.model, model_version=version)
    results = found.to_dict("records")
    present = {row["check"] for row in results}
    missing = [name for name in expected_checks() if name not in present]
    failed = [row for row in results if row["passed"] is not True]
    against = [f"{name}: no result" for name in missing]
    against += [
        f"{row['check']}: {row['reason']}" for row in sorted(failed, key=lambda row: row["check"])
    ]
    tags = registry.get(version).tags
    compared, champion = tags.get(COMPARED_TAG, NOBODY), rival(registry, version) or NOBODY
    if compared != champion:
        against.append(
            f"it was compared with version {compared}, and the champion is now version {champion}: "
            "run the deployment job again"
        )
    if tags.get(APPROVAL_TAG, "").lower() == REJECTED:
        who, comment = tags.get("approval_by", "somebody"), tags.get("approval_comment", "")
        against.append(f"rejected by {who}: {comment}" if comment else f"rejected by {who}")
    return against


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
    if previous is not None and previous == champion:  # a rollback was cut short here
        registry.drop(PREVIOUS)
        return previous
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
    tags = registry.get(version).tags
    as_of = datetime.fromisoformat(registry.tag(version, "as_of"))
    person = (tags.get("approval_by"), tags.get("approval_comment"))
    row = (registry.model, version, decision, reason, champion, as_of, *person)
    platform.record(DEPLOYMENTS, [row])


def approve(
    platform: Platform, registry: Registry, version: str, person: str, comment: str = ""
) -> None:
    """Sign a version off.

    Raises:
        ValueError: it is no version, is decided on, or has not passed all its checks.
        PermissionError: the person has trained the version, and the gate wants another one.
    """
    _undecided(platform, registry, version)
    against = objections(platform, registry, version)
    if against:
        raise ValueError(f"Version {version} cannot be approved: {'; '.join(against)}")
    author = registry.get(version).tags.get("author")
    if not PROBLEM.gate.self_approval and person == author:
        raise PermissionError(
            f"Version {version} was trained by {author}, who may not sign it off. Fix: have "
            "somebody else approve it, or set self_approval in the gate of problem.py."
        )
    _sign(registry, version, APPROVED, person, comment)


def reject(platform: Platform, registry: Registry, version: str, person: str, comment: str) -> None:
    """Keep a version from becoming the champion, whatever its checks say.

    Raises:
        ValueError: it is no version, or is decided on.
    """
    _undecided(platform, registry, version)
    _sign(registry, version, REJECTED, person, comment)


def _undecided(platform: Platform, registry: Registry, version: str) -> None:
    known = registry.versions()
    if version not in known:
        raise ValueError(
            f"{registry.model} has no version {version}. Fix: name one of "
            f"{', '.join(known) or 'none: run the training job'}."
        )
    decided = decision_on(platform, registry, version)
    if decided is not None:
        raise ValueError(
            f"Version {version} was {decided} already. Fix: to take a champion back, roll back; to "
            "try again, train a new version."
        )


def _sign(registry: Registry, version: str, answer: str, person: str, comment: str) -> None:
    # The answer comes last: without it the other two say nothing.
    for tag, text in (
        ("approval_by", person),
        ("approval_comment", comment),
        (APPROVAL_TAG, answer),
    ):
        registry.client.set_model_version_tag(registry.model, version, tag, text)


def history(platform: Platform, registry: Registry) -> list[tuple[str, str, str, str]]:
    """Version, aliases, decision and reason of each version, the newest first."""
    exists = platform.exists(DEPLOYMENTS.name)
    rows = (
        platform.frame(DEPLOYMENTS.name, model=registry.model).to_dict("records") if exists else []
    )
    decided = {row["model_version"]: row for row in sorted(rows, key=lambda row: row["decision"])}
    aliases = registry.aliases()
    lines = []
    for version in registry.versions():
        row = decided.get(version)
        names = ", ".join(sorted(name for name, at in aliases.items() if at == version))
        decision = (row["decision"], row["reason"]) if row else ("undecided", "")
        lines.append((version, names, *decision))
    return lines
