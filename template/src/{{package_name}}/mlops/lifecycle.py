"""Replay the whole life of the model, month by month, through the project's own jobs."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .datasets import OBSERVATIONS
from .jobs import Runner, TaskEvent
from .platform.local import JOB_RUNS, LocalPlatform
from .registry import CHAMPION, SHADOW, Registry
from .team import PROBLEM, code_digest, own

JOURNAL = own("lifecycle") + ".jsonl"


class LifecycleError(RuntimeError):
    """The replay cannot go on."""


@dataclass(frozen=True)
class Month:
    """A calendar month of the replay: data times (start, end]."""

    name: str
    start: datetime
    end: datetime


def months(until: str | None = None) -> list[Month]:
    """The months to replay; `until` names the last one, like 2013-05.

    Raises:
        LifecycleError: `until` is not a month of the replay.
    """
    found = list(_calendar(PROBLEM.replay_start, PROBLEM.replay_end))
    names = [month.name for month in found]
    if until is None:
        return found
    if until not in names:
        raise LifecycleError(
            f"--until {until!r} is not a month of the replay. Fix: name one of "
            f"{names[0]} to {names[-1]}."
        )
    return found[: names.index(until) + 1]


def _calendar(first: date, last: date) -> Iterator[Month]:
    year, month = first.year, first.month
    while (year, month) < (last.year, last.month):
        following = (year + month // 12, month % 12 + 1)
        yield Month(
            f"{year}-{month:02d}",
            datetime(year, month, 1, tzinfo=UTC),
            datetime(*following, 1, tzinfo=UTC),
        )
        year, month = following


class Journal:
    """What has been done, a line a finished step, so that a replay that was cut short goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.steps: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    step = json.loads(line)
                except ValueError:
                    break  # the line that was being written when the process was killed
                self.steps[step["step"]] = step
            self._rewrite()

    def _rewrite(self) -> None:
        """Drop a half-written last line, so that the next one starts on its own."""
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text("".join(json.dumps(step) + "\n" for step in self.steps.values()))
        fresh.replace(self.path)

    def once(self, step: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Do the work and write its result down, unless that has been done."""
        if step not in self.steps:
            started = time.monotonic()
            done = {"step": step, **work(), "seconds": round(time.monotonic() - started, 3)}
            with self._lock, self.path.open("a") as file:
                file.write(json.dumps(done) + "\n")
                file.flush()
                os.fsync(file.fileno())
                self.steps[step] = done
        return self.steps[step]


def clear(home: Path) -> None:
    """Remove the tables, models and runs of this machine; the journal goes first."""
    for journal in home.glob("*lifecycle.jsonl"):  # of other models too: their tables go as well
        journal.unlink()
    (home / JOB_RUNS).unlink(missing_ok=True)
    for name in ("warehouse", "artifacts", "files"):
        shutil.rmtree(home / name, ignore_errors=True)
    for database in home.glob("mlflow.db*"):
        database.unlink()


def _logs(home: Path, schema: str) -> Iterator[Path]:
    """What shows that a table of this model has been written."""
    return (home / "warehouse").glob(f"{schema}.db/{OBSERVATIONS}/_delta_log/*.json")


def open_journal(home: Path, schema: str) -> Journal:
    """Open the journal of this project's replay.

    Raises:
        LifecycleError: it belongs to other code, or the tables were written by single jobs.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / JOURNAL
    if not path.exists() and any(_logs(home, schema)):
        raise LifecycleError(
            f"{home} holds tables that single jobs have written, so a replay from the start would "
            "not be one. Fix: add --fresh to start over, or set MLOPS_HOME to another folder."
        )
    journal = Journal(path)
    code = journal.once("start", lambda: {"code": code_digest()})["code"]
    if code != code_digest():
        raise LifecycleError(
            f"problem.py, features/ or model.py have changed since the replay in {home} began. "
            "Fix: add --fresh to start over."
        )
    return journal


def replay(
    bundle: Bundle,
    platform: LocalPlatform,
    journal: Journal,
    until: str | None = None,
    on_step: Callable[[str, str], None] = lambda month, job: None,
    on_task: Callable[[TaskEvent], object] | None = None,
) -> None:
    """Run the jobs of each month; steps in the journal are not run again."""
    runner = Runner(bundle, platform, on_task=on_task)
    # What a month's features need is there before its model is: they are computed ahead, as on a
    # workspace, some months in one run. Nobody sees them early, since every stage reads up to its
    # own `as_of`.
    ahead = Runner(bundle, LocalPlatform(platform.spark, platform.schema, platform.home), on_task)

    def step(runner: Runner, month: Month, job: str, **parameters: str) -> dict[str, Any]:
        given = {"as_of": month.end.isoformat(), **parameters}
        return journal.once(f"{month.name} {job}", lambda: {"values": runner.run(own(job), given)})

    first, window = PROBLEM.replay_start, PROBLEM.training_window
    # With too little history to train on, the next month brings this one in as well.
    lived = [month for month in months(until) if month.end.date() - first >= window]
    with ThreadPoolExecutor(1) as pool:
        runs = [(end, pool.submit(step, ahead, end, "features")) for end in feature_runs(lived)]
        try:
            # Meanwhile, what also takes seconds: MLflow creates its database, Python imports.
            registry = Registry(platform)
            runner.import_tasks()
            for month in lived:
                on_step(month.name, "features")
                next(run for end, run in runs if end.end >= month.end).result()
                _live(registry, journal, month, partial(step, runner), on_step)
        finally:
            pool.shutdown(cancel_futures=True)


def feature_runs(lived: list[Month]) -> list[Month]:
    """The months at whose end features are computed: the first, the third after it, the last.

    A run costs some seconds whatever its span, and the rows are the same. A first one for all
    months would keep the first model waiting.
    """
    return [month for n, month in enumerate(lived) if n in (0, 3) or month is lived[-1]]


def _live(
    registry: Registry,
    journal: Journal,
    month: Month,
    step: Callable[..., dict[str, Any]],
    on_step: Callable[[str, str], None],
) -> None:
    """Train the first model at the end of the month, or serve it with the champion and watch."""
    trained = next((key for key in list(journal.steps) if key.endswith(" training")), None)
    if trained is None or trained.startswith(month.name):
        on_step(month.name, "training")
        step(month, "training", reason="first model")
        champion = registry.at(CHAMPION)
        if champion is None:
            raise LifecycleError(
                f"The first model, trained up to {month.name}, was refused: there is nothing "
                "to serve. Fix: see the table validation_results, then problem.py."
            )
        # The first model goes on as a shadow: what would have been without retraining.
        if registry.at(SHADOW) is None:
            registry.point(SHADOW, champion)
    else:
        for job in ("scoring", "monitoring"):
            on_step(month.name, job)
            step(month, job, since=month.start.isoformat())
