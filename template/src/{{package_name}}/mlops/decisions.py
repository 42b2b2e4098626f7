"""Decisions on model versions: what speaks for one, what was decided, and carrying it out."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from .evaluation import expected_checks, rival
from .platform import Platform
from .registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from .tables import DEPLOYMENTS, VALIDATION_RESULTS
from .team import PROBLEM

APPROVAL_TAG = "approval"
APPROVED, REJECTED, PENDING = "approved", "rejected", "pending"
SIGNER_TAG, COMMENT_TAG, SIGNED_TAG = "approval_by", "approval_comment", "approval_at"
PROMOTING_TAG = "promoting"  # the gate is about to move the alias to the version
PASSED = "every check passed"
COMPARED_TAG, NOBODY = "compared_with", "none"  # the champion that the evaluation compared with


class ApprovalRequiredError(PermissionError):
    """A person has to approve the version first."""


class OutdatedError(RuntimeError):
    """The evidence is about a champion that is none any more; the job has to run again."""


def decision_on(platform: Platform, registry: Registry, version: str) -> str | None:
    """`promoted` or `refused`, or None while the version is undecided."""
    found = _decisions(platform, registry, version)
    return next((name for name in ("promoted", "refused") if name in found), None)


def _decisions(platform: Platform, registry: Registry, version: str) -> dict[str, str | None]:
    """Each decision on the version, with the champion before it."""
    if not platform.exists(DEPLOYMENTS.name):
        return {}
    rows = platform.frame(DEPLOYMENTS.name, model=registry.model, model_version=version)
    return dict(zip(rows["decision"], rows["previous_champion"], strict=True))


def verdict(platform: Platform, registry: Registry, version: str) -> str:
    """What was decided on the version, why, and who is champion now: one line for people."""
    decision, champion = decision_on(platform, registry, version), registry.at(CHAMPION)
    said = "is not decided on yet"
    if decision is not None:
        keys = {"model": registry.model, "model_version": version, "decision": decision}
        said = f"was {decision}: {platform.frame(DEPLOYMENTS.name, **keys)['reason'].iloc[0]}"
    now = "there is no champion" if champion is None else f"the champion is version {champion}"
    return f"Version {version} of {registry.model} {said}; {now}"


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
    if tags.get(APPROVAL_TAG, "").lower() == REJECTED:
        who, comment = tags.get(SIGNER_TAG, "somebody"), tags.get(COMMENT_TAG, "")
        against.append(f"rejected by {who}: {comment}" if comment else f"rejected by {who}")
    outdated = _outdated(registry, version)
    return [*against, outdated] if outdated else against


def _outdated(registry: Registry, version: str) -> str | None:
    """What is wrong with the comparison, when another version has become champion since."""
    compared = registry.get(version).tags.get(COMPARED_TAG, NOBODY)
    champion = rival(registry, version) or NOBODY
    if compared == champion:
        return None
    return (
        f"it was compared with version {compared}, and the champion is now version {champion}: "
        "run the deployment job again"
    )


def decide(platform: Platform, registry: Registry, version: str, reason: str = PASSED) -> str:
    """Promote the version when nothing stands against it, else refuse it; return which.

    What was decided stays so: a version that is decided on is left alone. `reason` is kept with a
    promotion.

    Raises:
        OutdatedError: all that stands against it is that the champion has changed since. Nothing
            is decided then; the job, run again, compares with the present champion.
    """
    with platform.exclusive():
        finish(platform, registry)
        decided = decision_on(platform, registry, version)
        if decided is not None:
            _drop_challenger(registry, version)
            return decided
        against = objections(platform, registry, version)
        outdated = _outdated(registry, version)
        if outdated and against == [outdated]:
            raise OutdatedError(f"Version {version} is not decided on: {outdated}.")
        if against:
            refuse(platform, registry, version, "; ".join(against))
            return "refused"
        promote(platform, registry, version, reason)
        return "promoted"


def finish(platform: Platform, registry: Registry) -> None:
    """End what was cut short on the champion, before another decision.

    A promotion whose alias has moved was decided, whatever comes later: what lacks is its record.
    A rollback is recorded first: what lacks is the alias. A champion whose alias somebody has moved
    by hand is left alone.
    """
    champion, previous = registry.at(CHAMPION), registry.at(PREVIOUS)
    if champion is None:
        return
    found = _decisions(platform, registry, champion)
    if not found and PROMOTING_TAG in registry.get(champion).tags:
        reason = f"{PASSED} (recorded late: the job was cut short)"
        _settle(platform, registry, champion, "promoted", reason, previous)
    elif previous is not None and found.get("rolled_back") == previous:
        registry.point(CHAMPION, previous)
        registry.drop(PREVIOUS)


def promote(platform: Platform, registry: Registry, version: str, reason: str) -> None:
    """Make the version the champion. May be repeated after a stop at any point.

    The version before it is kept under an alias of its own, for a rollback.
    """
    registry.client.set_model_version_tag(registry.model, version, PROMOTING_TAG, "true")
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
    with platform.exclusive():
        champion = registry.at(CHAMPION)
        if champion is not None and not _decisions(platform, registry, champion):
            finish(platform, registry)
        return _roll_back(platform, registry)


def _roll_back(platform: Platform, registry: Registry) -> str:
    previous, champion = registry.at(PREVIOUS), registry.at(CHAMPION)
    if previous is not None and previous == champion:  # a rollback was cut short here
        registry.drop(PREVIOUS)
        return previous
    if previous is None or champion is None:
        raise LookupError(f"{registry.model} has no previous champion to go back to.")
    _settle(platform, registry, champion, "rolled_back", f"back to version {previous}", previous)
    registry.point(CHAMPION, previous)
    registry.drop(PREVIOUS)
    return previous


def _drop_challenger(registry: Registry, version: str) -> None:
    if registry.at(CHALLENGER) == version:
        registry.drop(CHALLENGER)


def _settle(
    platform: Platform,
    registry: Registry,
    version: str,
    decision: str,
    reason: str,
    champion: str | None,
) -> None:
    """Record the decision; from then on the version is no challenger."""
    tags = registry.get(version).tags
    as_of = datetime.fromisoformat(registry.tag(version, "as_of"))
    signed = tags.get(SIGNED_TAG)
    person = (tags.get(SIGNER_TAG), tags.get(COMMENT_TAG))
    at = datetime.fromisoformat(signed) if signed else None
    row = (registry.model, version, decision, reason, champion, as_of, *person, at)
    platform.record(DEPLOYMENTS, [row])
    _drop_challenger(registry, version)


def approve(
    platform: Platform,
    registry: Registry,
    version: str,
    person: str,
    comment: str = "",
    approvers: Collection[str] = (),
) -> None:
    """Sign a version off; who has done so before stays the one who did.

    Raises:
        LookupError: it is no version.
        ValueError: it is decided on, or has not passed all its checks.
        PermissionError: the person is none of the approvers, or has trained the version and the
            gate wants another one.
    """
    with platform.exclusive():
        _undecided(platform, registry, version)
        against = objections(platform, registry, version)
        if against:
            raise ValueError(f"Version {version} cannot be approved: {'; '.join(against)}")
        if missing_approval(platform, registry, version, approvers) is None:
            return
        problem = _may_not_sign(platform, registry, version, person, approvers)
        if problem:
            raise PermissionError(f"Version {version} was not approved: {problem}")
        _sign(registry, version, APPROVED, person, comment)


def reject(platform: Platform, registry: Registry, version: str, person: str, comment: str) -> None:
    """Keep a version from becoming the champion, whatever its checks say.

    Raises:
        LookupError: it is no version.
        ValueError: it is decided on.
    """
    with platform.exclusive():
        _undecided(platform, registry, version)
        _sign(registry, version, REJECTED, person, comment)


def missing_approval(
    platform: Platform, registry: Registry, version: str, approvers: Collection[str] = ()
) -> str | None:
    """Why the version counts as not approved; None when a person who may has signed it off.

    `approvers` are users and groups; empty, anybody may who can set the tag.
    """
    tags = registry.get(version).tags
    if tags.get(APPROVAL_TAG, "").lower() != APPROVED:
        return "nobody has approved it"
    return _may_not_sign(platform, registry, version, tags.get(SIGNER_TAG, ""), approvers)


def _may_not_sign(
    platform: Platform, registry: Registry, version: str, person: str, approvers: Collection[str]
) -> str | None:
    """Why the person may not sign the version off, or None."""
    author, wanted = registry.get(version).tags.get("author"), set(approvers)
    if not person and (wanted or not PROBLEM.gate.self_approval):
        return f"the tag {SIGNER_TAG} does not say who has approved it"
    if not PROBLEM.gate.self_approval and person == author:
        return (
            f"it was trained by {author}, who may not sign it off. Fix: have somebody else approve "
            "it, or set self_approval in the gate of problem.py."
        )
    if wanted and person not in wanted and not wanted & platform.groups(person):
        return f"{person} is not among the approvers: {', '.join(sorted(wanted))}"
    return None


def _undecided(platform: Platform, registry: Registry, version: str) -> None:
    finish(platform, registry)
    registry.require(version)
    decided = decision_on(platform, registry, version)
    if decided is not None:
        raise ValueError(
            f"Version {version} was {decided} already. Fix: to take a champion back, roll back; to "
            "try again, train a new version."
        )


def _sign(registry: Registry, version: str, answer: str, person: str, comment: str) -> None:
    # The answer comes last, and an earlier one is taken away first: cut short, nobody has signed.
    for tag, text in (
        (APPROVAL_TAG, PENDING),
        (SIGNER_TAG, person),
        (COMMENT_TAG, comment),
        (SIGNED_TAG, datetime.now(UTC).isoformat(timespec="seconds")),
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
