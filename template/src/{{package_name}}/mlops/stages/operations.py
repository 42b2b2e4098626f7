"""Watch the jobs themselves: runs that failed, runs that take long, what they cost."""

from __future__ import annotations

from datetime import datetime

from .. import operations
from ..platform import Platform, naive
from ..registry import Registry
from ..tables import OPERATIONS_METRICS
from ..team import PROBLEM
from . import ParameterError, TaskValues, entry_point, names


def run(
    platform: Platform,
    *,
    as_of: datetime,
    jobs: str,
    model_name: str | None = None,
    since: datetime | None = None,
) -> TaskValues:
    """Watch the runs in (since, as_of], by default the last `monitoring_window`.

    `jobs` has the name and id of each job: `features=1,training=2`.
    """
    model = Registry(platform, model_name).model
    start = since or as_of - PROBLEM.monitoring_window
    ids = _ids(jobs)
    ended = platform.job_runs(ids.values(), start, as_of)
    runs = {job: ended[job_id] for job, job_id in ids.items()}
    usual: dict[str, list[float]] = {}
    if platform.exists(OPERATIONS_METRICS.name):
        past = platform.frame(OPERATIONS_METRICS.name, metric="run_seconds", model=model)
        past = past[past["window_end"] < naive(as_of)]
        usual = {str(job): part["value"].tolist() for job, part in past.groupby("subject")}
    paid = platform.job_costs(ids.values(), start, as_of)
    costs = {job: paid[job_id] for job, job_id in ids.items() if job_id in paid}
    found = operations.of_jobs(runs, usual, costs)
    platform.record(OPERATIONS_METRICS, operations.as_rows(found, start, as_of, model))
    return None


def _ids(jobs: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in names(jobs)]
    wrong = [job for job, _, job_id in pairs if not job or not job_id.isdigit()]
    if wrong:
        raise ParameterError(
            f"--jobs={jobs!r} has no id for {wrong[0]!r}. Fix: write it like features=1,training=2."
        )
    return {job: job_id for job, _, job_id in pairs}


main = entry_point(run)
