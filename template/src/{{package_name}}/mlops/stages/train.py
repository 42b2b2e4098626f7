"""Train and tune a model on what was known, and register it as a new version."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ..datasets import OBSERVATIONS, labelled, looked_up, require_fresh
from ..decisions import decision_on
from ..drift import count, profile, to_json
from ..metrics import score
from ..platform import Platform
from ..predictions import as_column
from ..registry import CHALLENGER, Registry
from ..team import PROBLEM, code_digest, module
from . import TaskValues, entry_point

if TYPE_CHECKING:
    import pandas as pd

PROFILE_FILE = "training_profile.json"
MIN_ROWS = 1000
team_model = module("model")


def run(
    platform: Platform,
    *,
    as_of: datetime,
    experiment: str,
    model_name: str | None = None,
    reason: str = "manual",
    git_commit: str = "unknown",
) -> TaskValues:
    """Train on the window that ends `holdout` before `as_of`; announce the new version.

    The same code, configuration and `as_of` give the version that is already there, so that a
    run that was cut short can be repeated.
    """
    registry = Registry(platform, model_name)
    identity = {"as_of": as_of.isoformat(), "code": code_digest()}
    found = registry.find(identity)
    if found is None:
        found = _train(platform, registry, as_of, experiment, reason, git_commit, identity)
    if decision_on(platform, registry, found) is None:
        registry.point(CHALLENGER, found)
    registry.announce(found)
    return {"model_name": registry.model, "model_version": found}


def _train(
    platform: Platform,
    registry: Registry,
    as_of: datetime,
    experiment: str,
    reason: str,
    git_commit: str,
    identity: dict[str, str],
) -> str:
    import mlflow
    from mlflow.models import infer_signature

    since, until = as_of - PROBLEM.training_window, as_of - PROBLEM.holdout
    if PROBLEM.expanding_window:
        first = platform.span(OBSERVATIONS, "predict_at")
        since = min(first[0] - timedelta(seconds=1), since) if first else since
    require_fresh(platform, as_of)
    read = [table.name for table in PROBLEM.feature_tables]
    read += [OBSERVATIONS, *PROBLEM.label_sources]
    versions = {name: platform.version(name) for name in read}  # before they are read: no newer
    frame = labelled(platform, since, until, as_of)
    if len(frame) < MIN_ROWS:
        raise ValueError(
            f"Only {len(frame)} labelled rows between {since:%Y-%m-%d} and {until:%Y-%m-%d}, "
            f"{MIN_ROWS} are needed. Fix: run the features job up to `as_of`, or widen "
            "training_window in problem.py."
        )
    features, label = frame[PROBLEM.feature_names], frame["label"]
    tags = identity | {
        "reason": reason,
        "git_commit": git_commit,
        "author": platform.user(),
        "trained_from": since.isoformat(),
        "trained_until": until.isoformat(),
        "table_versions": json.dumps(versions, sort_keys=True),
    }
    platform.use_experiment(experiment)
    with mlflow.start_run(run_name=f"train {as_of:%Y-%m-%d}", tags=tags) as training_run:
        best = _tune(features, label)
        mlflow.log_params(best | {"rows": len(frame)})
        estimator = team_model.build(best).fit(features, label)
        classifier = PROBLEM.task == "classification"
        example = features.head(5)
        answer = estimator.predict_proba(example) if classifier else estimator.predict(example)
        answers = as_column(
            estimator.predict_proba(features) if classifier else estimator.predict(features)
        )
        mlflow.log_dict(reference(frame.assign(prediction=answers)), PROFILE_FILE)
        logged = platform.log_model(
            estimator,
            looked_up(platform),
            versions,
            signature=infer_signature(features.head(1000), answer),
            input_example=example,
            pip_requirements=frozen_requirements(),
            pyfunc_predict_fn="predict_proba" if classifier else "predict",
            serialization_format="cloudpickle",
        )
        run_id = training_run.info.run_id
    description = (
        f"{PROBLEM.description}. Trained on {len(frame):,} rows from {since:%Y-%m-%d} to "
        f"{until:%Y-%m-%d}, because: {reason}."
    )
    return registry.register(logged.model_uri, run_id, tags, description)


def reference(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """What monitoring compares with: each feature, `prediction` and `label`, by day."""
    day = (frame["predict_at"] - frame["predict_at"].min()) // timedelta(days=1)
    places, days = day.to_numpy(dtype=int), int(day.max()) + 1
    found = {}
    for name in (*PROBLEM.feature_names, "prediction", "label"):
        bins = profile(frame[name])
        found[name] = to_json(bins, count(frame[name], bins, places, days))
    return found


def _tune(features: pd.DataFrame, label: pd.Series) -> dict[str, Any]:
    """Search on the latest rows, judged on the last fifth of them; a child run a trial."""
    import mlflow
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    features, label = features.tail(team_model.TUNING_ROWS), label.tail(team_model.TUNING_ROWS)
    cut = len(features) * 4 // 5

    def objective(trial: optuna.Trial) -> float:
        parameters = team_model.search_space(trial)
        trial.set_user_attr("parameters", parameters)
        estimator = team_model.build(parameters).fit(features[:cut], label[:cut])
        later = features[cut:]
        classifier = PROBLEM.task == "classification"
        answer = estimator.predict_proba(later) if classifier else estimator.predict(later)
        value = score(label[cut:], as_column(answer))
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            mlflow.log_params(parameters)
            mlflow.log_metric(PROBLEM.metric, value)
        return value

    study = optuna.create_study(
        direction="maximize" if PROBLEM.higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=team_model.SEED),
    )
    study.optimize(objective, n_trials=team_model.TRIALS)
    mlflow.log_metric(f"tuning_{PROBLEM.metric}", study.best_value)
    return dict(study.best_trial.user_attrs["parameters"])


def frozen_requirements() -> list[str]:
    """The exact versions a server needs to load the model."""
    needed = ("mlflow", "scikit-learn", "pandas", "numpy", "cloudpickle")
    return [f"{name}=={version(name)}" for name in needed]


main = entry_point(run)
