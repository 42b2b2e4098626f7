"""More than one model in a project: added, run, kept apart, updated; and bad names refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from conftest import answers_of, commit, copy_template, files_of, git, render
from test_make_update import script, updated
from test_project import LOCK, finish, program
from test_update import contents, edit

PACKAGE = "src/flight_delays"
TEAM_LINE = "# the team's line\n"
AS_OF, LATER = "2013-02-01", "2013-02-08"


def add(project: Path, name: str, task: str = "") -> str:
    """Add a model, as make does; what was said."""
    done = script(project, "add-model", "--name", name, "--task", task)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(project: Path, says: str, *arguments: str) -> None:
    """A command that says what is wrong and how to go on, and changes nothing."""
    before, status = contents(project), git(project, "status", "--porcelain")
    done = script(project, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(project) == before
    assert git(project, "status", "--porcelain") == status


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a second release: a job, the machinery and the example have changed."""
    template = copy_template(tmp_path_factory.mktemp("versions"))
    tree = template / "template"
    edit(
        tree / "resources/scoring.job.yml.jinja",
        lambda text: text.replace("task_key: score", "task_key: score_rows"),
    )
    edit(tree / "src/{{package_name}}/mlops/cron.py", lambda text: text + "\n\n# of version 2\n")
    for name in ("problem.py.jinja", "sources.py", "model.py.jinja"):
        edit(tree / "src/{{package_name}}" / name, lambda text: text + "# of version 2\n")
    commit(template)
    git(template, "tag", "v0.2.0")
    return template


@pytest.fixture(scope="module")
def first(versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project of version 1."""
    project = tmp_path_factory.mktemp("first") / "project"
    copier.run_copy(str(versions), project, defaults=True, quiet=True, vcs_ref="v0.1.0")
    commit(project)
    return project


@pytest.fixture
def old(first: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    project = shutil.copytree(first, tmp_path / "project")
    git(project, "reset", "--quiet")
    return project


def test_a_project_with_one_model_knows_of_no_other(default_project: Path) -> None:
    assert answers_of(default_project)["models"] == {}
    names = [path.as_posix() for path in files_of(default_project)]
    assert not [name for name in names if name.startswith(PACKAGE) and name.count("problem") > 1]
    jobs = sorted((default_project / "resources").glob("*.job.yml"))
    assert len(jobs) == 6
    assert "MLOPS_PROBLEM" not in (default_project / "Makefile").read_text()


def test_adding_is_rendering_with_the_model(old: Path, versions: Path, tmp_path: Path) -> None:
    """The second and the third; each is one commit, the order is no matter."""
    assert f"Yours: {PACKAGE}/minutes_late/ (regression)" in add(old, "minutes_late")
    assert {line[:2] for line in git(old, "status", "--porcelain").splitlines()} == {"A ", "M "}
    changed = [
        line[3:] for line in git(old, "status", "--porcelain").splitlines() if line[0] == "M"
    ]
    assert changed == [".copier-answers.yml", ".github/workflows/model.yml", "Makefile"]
    commit(old)
    add(old, "very_late", "classification")
    commit(old)
    assert answers_of(old)["models"] == {
        "minutes_late": "regression",
        "very_late": "classification",
    }

    fresh = tmp_path / "fresh"
    models = answers_of(old)["models"]
    data = {"models": models}
    copier.run_copy(str(versions), fresh, data=data, defaults=True, quiet=True, vcs_ref="v0.1.0")
    assert contents(old) == contents(fresh)


def test_a_job_of_the_model_names_it_everywhere(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "project", models={"minutes_late": "regression"})
    for kind in ("features", "training", "deployment", "scoring", "monitoring"):
        first, other = (
            yaml.safe_load((project / f"resources/{prefix}{kind}.job.yml").read_text())
            for prefix in ("", "minutes_late.")
        )
        text = json.dumps(other)
        assert list(other["resources"]["jobs"]) == [f"minutes_late_{kind}"]
        wheels = [task for task in text.split("named_parameters")[1:]]
        assert all('"problem": "minutes_late"' in task for task in wheels)
        assert "champion.name" not in text and "experiments.runs" not in text
        assert "resources.jobs.training" not in text
        told_apart = text.replace('"problem": "minutes_late", ', "").replace("0 20 *", "")
        for ours, theirs in (
            ("minutes_late_", ""),
            ("-minutes_late-", "-"),
            ("registered_models.minutes_late", "registered_models.champion"),
            ("experiments.minutes_late_runs", "experiments.runs"),
        ):
            told_apart = told_apart.replace(ours, theirs)
        if kind != "features":  # which starts at another minute
            assert json.loads(told_apart) == first


def test_an_update_reaches_both_and_loses_no_edit(old: Path) -> None:
    add(old, "minutes_late")
    commit(old)
    model = f"{PACKAGE}/minutes_late"
    mine = [f"{model}/{name}.py" for name in ("problem", "sources", "model", "checks")]
    mine += [f"{model}/features/__init__.py", "tests/unit/test_minutes_late.py"]
    job = "resources/minutes_late.scoring.job.yml"
    for name in (*mine, f"{PACKAGE}/problem.py"):
        edit(old / name, lambda text: TEAM_LINE + text)
    edit(old / job, lambda text: text.replace("max_concurrent_runs: 1", "max_concurrent_runs: 2"))
    (old / f"{model}/features/own.py").write_text("OWN = 1\n")
    commit(old)
    before = contents(old)

    updated(old)

    after = contents(old)
    assert {path: after[path] for path in mine} == {path: before[path] for path in mine}
    assert after[f"{PACKAGE}/problem.py"] == before[f"{PACKAGE}/problem.py"]
    assert after[f"{model}/features/own.py"] == b"OWN = 1\n"
    for name in ("resources/scoring.job.yml", job):
        assert b"task_key: score_rows" in after[name], name
    assert b"max_concurrent_runs: 2" in after[job]
    assert b"# of version 2" in after[f"{PACKAGE}/mlops/cron.py"]
    assert answers_of(old)["models"] == {"minutes_late": "regression"}
    commit(old)
    add(old, "very_late")  # at the new version
    assert b"task_key: score_rows" in contents(old)["resources/very_late.scoring.job.yml"]


BAD_NAMES = {
    "flight_delays": "is the package: add a word, such as flight_delays_2",
    "class": "is a keyword name: add a word, such as class_model",
    "json": "is a stdlib name: add a word, such as json_model",
    "pandas": "is a dependency name: add a word, such as pandas_model",
    "training": "is taken in each project: add a word, such as training_model",
    "flight_delay": "is taken in each project: add a word, such as flight_delay_model",
    "Late": "must be lower-case ASCII words",
    "../late": "must be lower-case ASCII words",
    "a_name_of_21_letters_": "must be lower-case ASCII words",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_no_answer(template: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=BAD_NAMES[name]):
        render(template, tmp_path / "project", models={name: "regression"})
    assert not (tmp_path / "project").exists()


def test_no_model_takes_the_key_of_a_resource(
    template: Path, default_project: Path, tmp_path: Path
) -> None:
    """A key names one resource of the bundle, whatever its kind, and a model is one."""
    keys: set[str] = set()
    for path in (default_project / "resources").glob("*.yml"):
        for found in yaml.safe_load(path.read_text())["resources"].values():
            keys |= found.keys()
    with pytest.raises(ValueError, match="is taken in each project") as refusal:
        render(template, tmp_path / "project", models=dict.fromkeys(keys, "regression"))
    assert [key for key in keys if f" {key} is taken" not in str(refusal.value)] == []


def test_bad_requests_are_refused_with_the_fix(old: Path) -> None:
    add(old, "minutes_late")
    commit(old)
    there = "is there already: src/flight_delays/minutes_late. Fix: choose another name"
    refused(old, there, "add-model", "--name", "minutes_late")
    refused(old, "is there already: src/flight_delays/mlops", "add-model", "--name", "mlops")
    refused(old, BAD_NAMES["class"], "add-model", "--name", "class")
    refused(old, "What is the model called? Fix: make add-model NAME=", "add-model", "--name", "")
    refused(old, "classification or regression", "add-model", "--name", "one", "--task", "ranking")
    refused(old, "make add-model NAME=", "update", "--data", "models={}")
    edit(old / "README.md", lambda text: text + TEAM_LINE)
    refused(old, "an update wants a clean tree", "add-model", "--name", "one")


@pytest.mark.full  # some minutes: the jobs of two models, each in a process of its own
def test_two_models_live_side_by_side(old: Path) -> None:
    """Added, checked, updated, checked again, then run."""
    project = old
    if LOCK.exists():
        shutil.copy(LOCK, project / "uv.lock")
    finish("make", "setup", cwd=project, CI="")
    commit(project)
    add(project, "minutes_late", "regression")
    assert "0 problems in the bundle" in finish("make", "check", cwd=project)
    commit(project)
    updated(project)
    for name in ("scoring", "minutes_late.scoring"):
        assert "task_key: score_rows" in (project / f"resources/{name}.job.yml").read_text()
    assert "0 problems in the bundle" in finish("make", "check", cwd=project)

    def run(job: str, *parameters: str) -> None:
        finish(program(project), "run", job, *parameters, cwd=project)

    window = (f"as_of={LATER}", f"since={AS_OF}")
    for model in ("", "minutes_late_"):
        run(f"{model}features", f"as_of={AS_OF}")
        run(f"{model}training", f"as_of={AS_OF}")
        run(f"{model}features", f"as_of={LATER}")
        run(f"{model}scoring", *window)
        run(f"{model}monitoring", *window)

    from deltalake import DeltaTable

    first, second = (
        "spark_catalog.flight_delays.flight_delay",
        "spark_catalog.flight_delays.minutes_late",
    )
    tables = project / ".local/warehouse/flight_delays.db"

    def rows(table: str) -> list[dict[str, Any]]:
        return DeltaTable(tables / table).to_pyarrow_table().to_pylist()

    for name in ("predictions", "deployments", "drift_metrics", "performance_metrics"):
        assert {row["model"] for row in rows(name)} == {first, second}, name
    measured = {(row["model"], row["metric"]) for row in rows("performance_metrics")}
    assert {(first, "auc"), (second, "mae")} <= measured
    assert not {(first, "mae"), (second, "auc")} & measured
    made = [
        [row["prediction"] for row in rows("predictions") if row["model"] == model]
        for model in (first, second)
    ]
    assert len(made[0]) == len(made[1])
    assert max(made[0]) <= 1 < max(made[1])

    status = finish(program(project), "--problem", "minutes_late", "status", cwd=project)
    assert second in status and "promoted" in status
    unknown = [program(project), "--problem", "other", "status"]
    done = subprocess.run(unknown, cwd=project, text=True, capture_output=True)
    assert done.returncode == 1
    assert "There is no model 'other' beside the first. Fix:" in done.stderr
