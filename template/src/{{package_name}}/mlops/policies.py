"""What each rule of retraining would have cost and brought over the replayed year.

One pass over the months for each policy, with the rules, the gate and the drift of the project, on
the observations that `lifecycle` left. Hyperparameters are fixed, so that only the rules differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from . import drift, performance
from .datasets import labelled
from .declarations import Retraining
from .evaluation.comparison import compare
from .lifecycle import Month
from .metrics import gain, score
from .platform import Platform, naive
from .predictions import as_column
from .retraining import Evidence, decide
from .stages.ingest import BEGINNING
from .stages.train import reference, team_model
from .team import PROBLEM

OFF = Retraining(drifted_features=None, max_decay=None)


@dataclass(frozen=True)
class Policy:
    """Rules with a name; `expanding` trains on all there is."""

    name: str
    rules: Retraining
    expanding: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a policy cost, and what was served under it: the mean of the metric by month."""

    policy: str
    trainings: int
    promotions: int
    served: float
    by_month: dict[str, float] = field(default_factory=dict)


def usual() -> list[Policy]:
    """The policies to compare: none, by the calendar, by each trigger, the project's own."""
    own = PROBLEM.retraining
    by_drift = replace(own, max_decay=None, every=None, new_rows=None)
    by_decay = replace(own, drifted_features=None, every=None, new_rows=None)
    monthly, both = replace(OFF, every=timedelta(days=28)), replace(own, every=None, new_rows=None)
    return [
        Policy("never", OFF),
        Policy("every month", monthly),
        Policy("every month, expanding", monthly, True),
        Policy("every second month", replace(OFF, every=timedelta(days=56))),
        Policy("every third month", replace(OFF, every=timedelta(days=84))),
        Policy("every 50,000 labelled rows", replace(OFF, new_rows=50_000)),
        Policy("drift", by_drift),
        Policy("decay", by_decay),
        Policy("drift or decay", both),
        Policy("drift or decay, expanding", both, True),
        Policy("drift or decay, cool-down 45 days", replace(both, cool_down=timedelta(days=45))),
    ]


@dataclass(eq=False)
class Model:
    """A trained model, what it said at validation and what it was trained on."""

    estimator: Any
    as_of: datetime
    trained: pd.DataFrame
    held_out: pd.DataFrame

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """One number a row."""
        features = rows[PROBLEM.feature_names]
        if PROBLEM.task == "classification":
            return as_column(self.estimator.predict_proba(features))
        return as_column(self.estimator.predict(features))

    @cached_property
    def baseline(self) -> float:
        """The metric at validation."""
        return score(self.held_out["label"], self.predict(self.held_out))

    @cached_property
    def references(self) -> dict[str, drift.Reference]:
        """What drift is measured against."""
        saved = reference(self.trained.assign(prediction=0.0))
        return {n: drift.from_json(saved[n]) for n in (*PROBLEM.feature_names, "label")}


class Year:
    """The rows of the replay; trains each model once."""

    def __init__(self, platform: Platform, months: Sequence[Month]) -> None:
        """Read the rows.

        Raises:
            LookupError: the last month has none.
        """
        import optuna

        end = months[-1].end
        self.rows = labelled(platform, BEGINNING, end, end)
        if self.between(months[-1].start, end).empty:
            raise LookupError(
                f"There is no row of {months[-1].name}. Fix: replay the whole year first, by "
                "make lifecycle ARGS=--fresh."
            )
        first = next(
            m for m in months if m.end.date() - PROBLEM.replay_start >= PROBLEM.training_window
        )
        place = months.index(first)
        self.start, self.months = first.end, list(months[place + 1 :])
        sampler = optuna.samplers.TPESampler(seed=team_model.SEED)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._parameters = team_model.search_space(optuna.create_study(sampler=sampler).ask())
        self._models: dict[tuple[datetime, bool], Model] = {}
        self._served: dict[tuple[Model, str], np.ndarray] = {}
        self._drifted: dict[tuple[Model, str], list[str]] = {}

    def between(self, since: datetime, until: datetime) -> pd.DataFrame:
        """Rows that were due in (since, until]."""
        made = self.rows["predict_at"]
        return self.rows[(made > naive(since)) & (made <= naive(until))]

    def model(self, as_of: datetime, expanding: bool) -> Model:
        """The model of that moment."""
        if (as_of, expanding) not in self._models:
            until = as_of - PROBLEM.holdout
            since = BEGINNING if expanding else as_of - PROBLEM.training_window
            rows = self.between(since, until)
            estimator = team_model.build(self._parameters)
            estimator.fit(rows[PROBLEM.feature_names], rows["label"])
            held_out = self.between(until, as_of)
            self._models[as_of, expanding] = Model(estimator, as_of, rows, held_out)
        return self._models[as_of, expanding]

    def served(self, model: Model, month: Month) -> np.ndarray:
        """What the model says of the rows of a month."""
        if (model, month.name) not in self._served:
            self._served[model, month.name] = model.predict(self.between(month.start, month.end))
        return self._served[model, month.name]

    def drifted(self, model: Model, month: Month) -> list[str]:
        """The features that have drifted in a month, as monitoring decides it."""
        if (model, month.name) not in self._drifted:
            rows, rules = self.between(month.start, month.end), PROBLEM.retraining
            bins = {name: one.bins for name, one in model.references.items()}
            daily = {name: one.counts.rows for name, one in model.references.items()}
            days = (month.end - month.start).days
            limits = drift.stable_limits(bins, daily, days, rules.false_alarms)
            nowhere = np.zeros(len(rows), dtype=int)
            found = []
            for name in PROBLEM.feature_names:
                now = drift.count(rows[name], bins[name], nowhere, 1)
                value = drift.distances(bins[name], model.references[name].counts, now).get("psi")
                if value is not None and value > max(rules.psi, limits.get(name, 0.0)):
                    found.append(name)
            self._drifted[model, month.name] = found
        return self._drifted[model, month.name]


def live(year: Year, policy: Policy) -> Outcome:
    """Let the months pass under the policy."""
    champion = year.model(year.start, policy.expanding)
    trainings, promotions, by_month = [year.start], 1, {}
    rows_since = 0
    for month in year.months:
        rows = year.between(month.start, month.end)
        made = pd.Series(year.served(champion, month), index=rows.index)
        by_month[month.name] = score(rows["label"], made)
        rows_since += len(rows)
        seen = Evidence(
            as_of=month.end,
            features=len(PROBLEM.feature_names),
            drifted=year.drifted(champion, month) if policy.rules.drifted_features else (),
            decay=_decay(champion, rows, made) if policy.rules.max_decay is not None else None,
            metric=PROBLEM.metric,
            new_rows=rows_since,
            trainings=trainings,
        )
        if month is year.months[-1] or not decide(policy.rules, seen).retrain:
            continue
        trainings.append(month.end)
        rows_since = 0
        challenger = year.model(month.end, policy.expanding)
        if _better(challenger, champion):
            champion, promotions = challenger, promotions + 1
    served = float(np.mean(list(by_month.values())))
    return Outcome(policy.name, len(trainings), promotions, served, by_month)


def _decay(champion: Model, rows: pd.DataFrame, made: pd.Series) -> float | None:
    day = rows["predict_at"].dt.floor("D")
    found = performance.metric(rows["label"], made, day, PROBLEM.task)
    best = found.high if PROBLEM.higher_is_better else found.low
    if found.value is None or best is None:
        return None
    return -gain(found.value, champion.baseline) if gain(best, champion.baseline) < 0 else 0.0


def _better(challenger: Model, champion: Model) -> bool:
    rows = challenger.held_out
    label = rows["label"].to_numpy(dtype=float)
    made = (challenger.predict(rows), champion.predict(rows))
    found = compare(label, *made, PROBLEM.task, PROBLEM.gate.confidence)
    return found.low > PROBLEM.thresholds["gain_over_champion"]
