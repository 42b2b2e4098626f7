"""The bundle of every kind of answers: each target, each resource, each query."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import sqlglot
from conftest import ROOT, render
from sqlglot.optimizer.qualify import qualify

BERLIN = "https://adb-4444444444444444.4.azuredatabricks.net"
PRINCIPALS = {
    "staging_principal": "11111111-2222-3333-4444-555555555555",
    "prod_principal": "66666666-7777-8888-9999-000000000000",
}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "clusters": {"compute": "job_clusters"},
    "table_update": {"features_refresh": "table_update", "source_tables": ["a.b.c", "d.e-f.g_h"]},
    "streams": {
        "features_refresh": "continuous",
        "scoring": "stream",
        "sinks": ["parquet", "csv", "postgresql", "kafka"],
    },
    "online": {"online_serving": True},
    "online_clusters": {"online_serving": True, "compute": "job_clusters"},
    "two_dev": {"extra_dev_workspaces": {"berlin": BERLIN, "b2": BERLIN}},
    "principals": {**PRINCIPALS, "task": "regression"},
    "all": {
        "compute": "job_clusters",
        "features_refresh": "table_update",
        "source_tables": ["yes.no.null"],
        "extra_dev_workspaces": {"berlin": BERLIN},
        "readers": "Leser: \"a\" 'b'",
        "warehouse": "Größe: {M} & more",
        "schema": "on",
        **PRINCIPALS,
    },
}


class Project:
    """A rendered project, and its modules that read a bundle."""

    def __init__(self, root: Path, package: str) -> None:
        self.root, self.package = root, package

    def module(self, name: str) -> ModuleType:
        """A module of the project's machinery."""
        return importlib.import_module(f"{self.package}.mlops.{name}")

    def load(self, target: str) -> Any:
        """The bundle for a target."""
        return self.module("bundle").load(self.root, target)

    def entry_points(self, package: str) -> dict[str, Any]:
        """What an installed wheel would tell, read off the stages."""
        assert package == self.package
        found = {}
        for path in (self.root / "src" / self.package / "mlops/stages").glob("[!_]*.py"):
            run = next(
                node
                for node in ast.parse(path.read_text("utf-8")).body
                if isinstance(node, ast.FunctionDef) and node.name == "run"
            )
            needed = (default is None for default in run.args.kw_defaults)
            own = dict(zip((a.arg for a in run.args.kwonlyargs), needed, strict=True))
            stage_object = SimpleNamespace(parameters={"catalog": True, "schema": True, **own})
            found[path.stem] = SimpleNamespace(load=lambda stage_object=stage_object: stage_object)
        return found


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    """Name of a case."""
    return request.param


@pytest.fixture(scope="module")
def project(
    case: str, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """The case, rendered, its package on the path."""
    package = f"bundle_{case}"
    root = render(
        template, tmp_path_factory.mktemp(case) / "project", package_name=package, **CASES[case]
    )
    sys.path.insert(0, str(root / "src"))
    yield Project(root, package)
    sys.path.remove(str(root / "src"))


def targets_of(case: str) -> list[str]:
    """Targets that a case must have."""
    extra = [f"dev_{name}" for name in CASES[case].get("extra_dev_workspaces", {})]
    return ["dev", *extra, "pr", "staging", "prod"]


def test_every_target_is_accepted(case: str, project: Project) -> None:
    accepted = project.module("accepted")
    for target in targets_of(case):
        bundle = project.load(target)
        kinds = {"alerts", "dashboards", "experiments", "jobs", "pipelines"}
        kinds |= {"registered_models", "schemas", "volumes"}
        assert bundle.resources.keys() == kinds
        for kind, resources in bundle.resources.items():
            from_dict = accepted.accepts(kind)
            assert from_dict, f"databricks-bundles knows no {kind}"
            for key, resource in resources.items():
                from_dict(resource)
                assert not accepted.refused(bundle, kind, key, from_dict)


def test_every_target_passes_the_projects_own_check(case: str, project: Project) -> None:
    for target in targets_of(case):
        bundle = project.load(target)
        findings = project.module("job_check").check(bundle, project.entry_points)
        assert not findings, str(findings)
        assert not findings.notes
        assert not project.module("resource_check").check_resources(bundle, "flight_delay")


def test_only_production_acts_by_itself(case: str, project: Project) -> None:
    for target in targets_of(case):
        bundle = project.load(target)
        preset = bundle.settings["presets"].get("trigger_pause_status")
        live = {
            key
            for key, job in bundle.jobs.items()
            for kind in ("schedule", "trigger", "continuous")
            if kind in job and job[kind].get("pause_status", preset or "UNPAUSED") != "PAUSED"
        }
        alerts = {a["schedule"]["pause_status"] for a in bundle.resources["alerts"].values()}
        assert alerts == {"UNPAUSED" if target == "prod" else "PAUSED"}
        assert live == (
            {"features", "training", "scoring", "monitoring"} if target == "prod" else set()
        ), target


def test_targets_do_not_share_a_place(case: str, project: Project) -> None:
    seen = set()
    for target in targets_of(case):
        bundle = project.load(target)
        schema = bundle.resources["schemas"]["mlops"]
        prefix = bundle.settings["presets"].get("name_prefix", bundle.settings["mode"])
        seen.add((schema["catalog_name"], schema["name"], prefix))
    assert len(seen) == len(targets_of(case))


def test_production_targets_belong_to_one_principal(case: str, project: Project) -> None:
    for target in ("staging", "prod"):
        bundle = project.load(target)
        principal = CASES[case].get(f"{target}_principal")
        root_path = bundle.settings["workspace"]["root_path"]
        owner = principal or "${workspace.current_user.userName}"
        assert root_path.startswith(f"/Workspace/Users/{owner}/.bundle/")
        expected = {"service_principal_name": principal} if principal else {}
        assert bundle.settings["run_as"] == expected


def test_answers_decide_compute_and_refresh(case: str, project: Project) -> None:
    answers = CASES[case]
    bundle = project.load("prod")
    on_clusters = answers.get("compute") == "job_clusters"
    for job in bundle.jobs.values():
        assert ("job_clusters" in job) == on_clusters
        assert ("environments" in job) == ("performance_target" in job) == (not on_clusters)
    trigger = bundle.jobs["features"].get("trigger", {}).get("table_update", {})
    assert trigger.get("table_names") == answers.get("source_tables")
    streams = answers.get("features_refresh") == "continuous"
    assert ("continuous" in bundle.jobs["features"]) == streams
    assert ("schedule" in bundle.jobs["features"]) == (not trigger and not streams)
    scoring = bundle.jobs["scoring"]
    assert ("continuous" in scoring) == (answers.get("scoring") == "stream")
    tasks = [task["task_key"] for task in scoring["tasks"]]
    assert tasks == ["score", *(f"deliver_{sink}" for sink in answers.get("sinks", []))]


def test_queries_read_columns_that_stages_write(case: str, project: Project) -> None:
    bundle = project.load("prod")
    schema = bundle.resources["schemas"]["mlops"]
    tables = {
        table.name: {column.name: column.type for column in table.columns}
        for table in project.module("tables").EVIDENCE
    }
    alerts = bundle.resources["alerts"]
    dashboard = json.loads((project.root / "dashboards/evidence.lvdash.json").read_text("utf-8"))
    queries = {f"alert {key}": alert["query_text"] for key, alert in alerts.items()}
    queries |= {d["name"]: "".join(d["queryLines"]) for d in dashboard["datasets"]}
    columns = {}
    for name, query in queries.items():
        parsed = qualify(
            sqlglot.parse_one(query, read="databricks"),
            schema={schema["catalog_name"]: {schema["name"]: tables}},
            catalog=schema["catalog_name"],
            db=schema["name"],
            dialect="databricks",
        )
        columns[name] = parsed.named_selects
    for key, alert in alerts.items():
        assert columns[f"alert {key}"] == [alert["evaluation"]["source"]["name"]]
    for page in dashboard["pages"]:
        for placed in page["layout"]:
            for query in placed["widget"]["queries"]:
                fields = {field["name"] for field in query["query"]["fields"]}
                assert fields <= {*columns[query["query"]["datasetName"]]}


def test_pages_run_jobs_and_tasks_that_are_there(case: str, project: Project) -> None:
    bundle = project.load("prod")
    seen = 0
    for page in [*(project.root / "docs").glob("*.md"), project.root / "README.md"]:
        for line in re.findall(r"databricks bundle run ([^`\n]+)", page.read_text("utf-8")):
            words = line.split()
            target = words.pop(words.index("-t") + 1)
            (job,) = {*words} & {*bundle.jobs}
            assert target in targets_of(case), f"{page.name}: {line}"
            tasks = {task["task_key"] for task in bundle.jobs[job]["tasks"]}
            declared = {parameter["name"] for parameter in bundle.jobs[job].get("parameters", [])}
            assert {*re.findall(r"--only (\w+)", line)} <= tasks, f"{page.name}: {line}"
            assert {*re.findall(r"(\w+)=", line)} <= declared, f"{page.name}: {line}"
            seen += 1
    assert seen


def test_widgets_fit_on_their_page(project: Project) -> None:
    dashboard = json.loads((project.root / "dashboards/evidence.lvdash.json").read_text("utf-8"))
    for page in dashboard["pages"]:
        cells: set[tuple[int, int]] = set()
        for placed in page["layout"]:
            at = placed["position"]
            mine = {
                (x, y)
                for x in range(at["x"], at["x"] + at["width"])
                for y in range(at["y"], at["y"] + at["height"])
            }
            assert not mine & cells, f"{page['name']}: widgets overlap"
            assert max(x for x, _ in mine) < 6, f"{page['name']}: a page has six columns"
            cells |= mine


CLI = shutil.which("databricks", path=f"{ROOT / '.cli'}:{os.environ['PATH']}")


@pytest.mark.skipif(
    not CLI, reason="no Databricks CLI: `databricks bundle schema` was not asked. Fix: make cli"
)
def test_the_cli_schema_accepts_it(project: Project, tmp_path: Path) -> None:
    schema = subprocess.run([CLI, "bundle", "schema"], text=True, capture_output=True)
    assert schema.returncode == 0, schema.stderr
    (tmp_path / "schema.json").write_text(schema.stdout, "utf-8")
    files = [project.root / "databricks.yml", *(project.root / "resources").iterdir()]
    done = subprocess.run(
        [
            Path(sys.executable).parent / "check-jsonschema",
            "--schemafile",
            tmp_path / "schema.json",
            *files,
        ],
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout
