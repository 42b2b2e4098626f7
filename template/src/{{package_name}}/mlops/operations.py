"""Whether the jobs that everything rests on run, and what they cost.

All functions are pure. A limit on time comes from the job's own past windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np

from .data_quality import ALL, Finding
from .platform import JobRun

SLOWER = 3.0  # times as long as usual
MIN_SECONDS = 60.0  # a job that is slower by less is not looked at
MIN_WINDOWS = 2  # before a job is judged by its own past


def of_jobs(
    runs: Mapping[str, Iterable[JobRun]],
    usual: Mapping[str, Sequence[float]],
    costs: Mapping[str, float],
) -> list[Finding]:
    """Runs, failures, seconds and costs of each job.

    `usual` has seconds a run of earlier windows, `costs` dollars of the jobs whose costs are known.
    """
    found = []
    for job, some in runs.items():
        ended = list(some)
        if not ended:
            continue
        failed = sum(run.failed for run in ended)
        times = [run.seconds for run in ended]
        typical, total = float(np.median(times)), float(np.sum(times))
        past = usual.get(job, ())
        most = None
        if len(past) >= MIN_WINDOWS:
            most = max(SLOWER * float(np.median(past)), float(np.median(past)) + MIN_SECONDS)
        text = f"{failed} of {len(ended)} runs failed"
        slow = f"{typical:.0f} s a run"
        cost = f"{total:.0f} s of {len(ended)} runs: what the job costs in time of its compute"
        found += [
            Finding(job, ALL, "failed_runs", float(failed), high=0.0, reason=text),
            Finding(job, ALL, "run_seconds", typical, high=most, reason=slow),
            Finding(job, ALL, "total_seconds", total, reason=cost),
        ]
        if job in costs:
            words = f"{costs[job]:.2f} USD at list price for {len(ended)} runs"
            found.append(Finding(job, ALL, "list_cost", costs[job], reason=words))
    return found


def as_rows(
    found: Iterable[Finding], since: datetime, as_of: datetime, model: str
) -> list[tuple[object, ...]]:
    """Findings as rows of operations_metrics."""
    return [
        (since, as_of, model, one.subject, one.metric, one.value, one.high, one.passed, one.reason)
        for one in found
    ]
