"""Whether to train a new version, by the rules of `problem.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .declarations import Retraining

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Evidence:
    """What is known at `as_of`: drifted features, decay beyond chance, rows, past trainings."""

    as_of: datetime
    features: int
    drifted: Sequence[str] = ()
    decay: float | None = None
    metric: str = ""
    new_rows: int = 0
    trainings: Sequence[datetime] = ()

    @property
    def last(self) -> datetime | None:
        """When a version was trained last."""
        return max((time for time in self.trainings if time <= self.as_of), default=None)


@dataclass(frozen=True)
class Decision:
    """Whether to retrain, and why or why not."""

    retrain: bool
    reason: str


def decide(rules: Retraining, seen: Evidence) -> Decision:
    """Weigh the evidence; a call that has to wait says what for."""
    reasons = []
    if rules.drifted_features is not None and len(seen.drifted) >= rules.drifted_features:
        names = ", ".join(seen.drifted)
        reasons.append(f"drift in {len(seen.drifted)} of {seen.features} features: {names}")
    if decayed(rules, seen.decay):
        reasons.append(f"decay: {seen.metric} is worse than at validation by {seen.decay:.3f}")
    if rules.every is not None and (seen.last is None or seen.as_of - seen.last >= rules.every):
        reasons.append(f"schedule: every {rules.every.days} days")
    if rules.new_rows is not None and seen.new_rows >= rules.new_rows:
        reasons.append(f"volume: {seen.new_rows} new labelled rows")
    if not reasons:
        return Decision(False, "none")
    called = "; ".join(reasons)
    if seen.last is not None and seen.as_of - seen.last < rules.cool_down:
        until = seen.last + rules.cool_down
        return Decision(False, f"waits until {until:%Y-%m-%d} (cool-down): {called}")
    spent = sum(seen.as_of - YEAR < time <= seen.as_of for time in seen.trainings)
    if rules.budget is not None and spent >= rules.budget:
        return Decision(False, f"waits: {spent} trainings in a year are the budget: {called}")
    return Decision(True, called)


def decayed(rules: Retraining, decay: float | None) -> bool:
    """Whether the metric has become worse by more than the rules allow."""
    return rules.max_decay is not None and decay is not None and decay > rules.max_decay
