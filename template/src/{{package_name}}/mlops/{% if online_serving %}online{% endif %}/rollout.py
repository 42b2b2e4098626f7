"""Give a new version the traffic step by step, and take it back when it does harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from .endpoint import Endpoint

Verdict = Literal["further", "wait", "back"]


@dataclass(frozen=True)
class Plan:
    """How a version gets the traffic, and what takes it back.

    `steps` are percents of the requests, growing; 100 alone is a switch that nobody watches. A
    step is left when `min_requests` have been answered by the version; when they have not come
    within `patience`, the version goes back undecided. An error rate above `max_error_rate`, or a
    p99 latency above `max_p99_ms`, that is also above `worse` times the champion's is harm.
    """

    steps: tuple[int, ...] = (10, 50, 100)
    min_requests: int = 200
    max_error_rate: float = 0.01
    max_p99_ms: float = 250.0
    worse: float = 1.5
    patience: timedelta = timedelta(hours=1)
    poll: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        growing = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not (growing and self.steps and self.steps[0] > 0 and self.steps[-1] == 100):
            text = ",".join(map(str, self.steps))
            raise ValueError(
                f"traffic steps {text!r}: Fix: write growing percents that end at 100, such as "
                "10,50,100."
            )


def parse_steps(text: str) -> tuple[int, ...]:
    """The steps of a text like `10,50,100`.

    Raises:
        ValueError: one is no number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"traffic steps {text!r} are no numbers. Fix: write them like 10,50,100."
        ) from None


@dataclass(frozen=True)
class Health:
    """What a version has answered since a step began; `p99_ms` is of answers without an error."""

    requests: int
    errors: int
    p99_ms: float

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed."""
        return self.errors / self.requests if self.requests else 0.0


Measure = Callable[[str, datetime], Health]  # of a version, since a time


def judge(challenger: Health, champion: Health | None, plan: Plan) -> tuple[Verdict, str]:
    """Whether a step may be left, with the reason in words.

    An error rate is too high when so many errors would come from the highest allowed rate in one
    of a thousand trials at most: of the first ten requests one may fail by chance.
    """
    rate = f"{challenger.errors} of {challenger.requests} requests failed"
    # What callers do wrong fails with the champion as well.
    usual = champion.error_rate * plan.worse if champion else 0.0
    allowed = min(max(plan.max_error_rate, usual), 0.999)
    if too_many(challenger.errors, challenger.requests, allowed):
        return "back", f"{rate}, {allowed:.1%} are allowed"
    if challenger.requests < plan.min_requests:
        return "wait", f"{challenger.requests} of {plan.min_requests} requests"
    if challenger.error_rate > allowed:
        return "back", f"{rate}, {allowed:.1%} are allowed"
    usual = champion.p99_ms * plan.worse if champion and champion.requests else 0.0
    limit = max(plan.max_p99_ms, usual)
    if not challenger.p99_ms <= limit:
        return "back", f"p99 is {challenger.p99_ms:.0f} ms, {limit:.0f} ms is allowed"
    return "further", f"{rate}, p99 {challenger.p99_ms:.0f} ms"


def too_many(errors: int, requests: int, rate: float, chance: float = 0.001) -> bool:
    """Whether at least so many errors have at most this chance when each request fails at `rate`.

    The exact binomial tail.
    """
    fewer = np.arange(errors)
    logs = np.log(np.arange(1, requests + 1))
    factorial = np.concatenate([[0.0], np.cumsum(logs)])
    choose = factorial[requests] - factorial[fewer] - factorial[requests - fewer]
    odds = fewer * np.log(max(rate, 1e-12)) + (requests - fewer) * np.log1p(-rate)
    return bool(1 - np.exp(choose + odds).sum() <= chance)


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended: `done`, `harmful` (all traffic is back) or `unproven` (it is, too)."""

    result: Literal["done", "harmful", "unproven"]
    reason: str


def roll_out(
    endpoint: Endpoint,
    champion: str | None,
    challenger: str,
    plan: Plan,
    measure: Measure,
    now: Callable[[], datetime],
    sleep: Callable[[timedelta], None],
    until: int = 100,
) -> Outcome:
    """Raise the challenger's share step by step; on harm, or an error here, give all of it back.

    It ends at `until` percent. A rollout that was cut short goes on at the step that the endpoint
    is at. Without a champion there is nothing to compare with and nobody to give the traffic back
    to: the challenger gets all of it.
    """
    if champion is None or champion == challenger or (until == 100 and plan.steps == (100,)):
        endpoint.set_traffic({challenger: 100})
        return Outcome("done", "all traffic at once")
    words = []
    reached = endpoint.traffic().get(challenger, 0)
    theirs = None  # at 100 %: what the champion did beside it last
    try:
        for step in (*(step for step in plan.steps if step < until), until):
            if step < reached:
                continue
            rest = {champion: 100 - step} if step < 100 else {}
            endpoint.set_traffic(rest | {challenger: step})
            began = now()
            while True:
                theirs = measure(champion, began) if rest else theirs
                verdict, why = judge(measure(challenger, began), theirs, plan)
                if verdict == "further":
                    words.append(f"{step} %: {why}")
                    break
                if verdict == "back":
                    endpoint.set_traffic({champion: 100})
                    return Outcome("harmful", f"taken back at {step} % of the traffic: {why}")
                if now() - began >= plan.patience:
                    endpoint.set_traffic({champion: 100})
                    minutes = plan.patience.total_seconds() / 60
                    return Outcome("unproven", f"at {step} % only {why} in {minutes:.0f} minutes")
                sleep(plan.poll)
    except BaseException:
        endpoint.set_traffic({champion: 100})
        raise
    return Outcome("done", "; ".join(words))
