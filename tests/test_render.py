"""Every kind of answers gives a project whose files the tools that own their formats accept."""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import answers_of, files_of, render

HOSTILE_NAMES = {
    "quotes": """It's "quoted" \\ `twice` '''three''' \"\"\"times\"\"\" \\N""",
    "github_expression": "${{ secrets.TOKEN }} and ${var.catalog}",
    "jinja": "{{ package_name }} {% if %} {# no #}",
    "yaml": ": # - [a, {b: !c &d *e | > @f % `",
    "emoji": "🚀 Flüge 👩‍💻 запоздання",
    "non_ascii": "航班延误",
    "long": "Predicting late flights " * 8 + "20 chars",
    "windows": "con",
    "digits": "2013 flights",
    "module": "mlflow",
    "keyword": "class",
    "yaml_word": "null",
    "number": "1e3",
    "html": "</title><script>alert(1)</script> & more",
    "spaces": "  padded  ",
}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "minimal": {"project_name": "x"},
    **{f"ci_{ci}": {"ci": ci} for ci in ("github", "azure", "both", "none")},
    "online_serving": {"online_serving": True},
    "online_serving_regression": {
        "online_serving": True,
        "task": "regression",
        "compute": "job_clusters",
        "package_name": "a" * 30,
    },
    "release_branch": {"release_by": "branch", "ci": "both"},
    "task_regression": {"task": "regression"},
    **{f"name_{key}": {"project_name": name} for key, name in HOSTILE_NAMES.items()},
    "models": {
        "package_name": "a" * 30,
        "models": {"m" * 20: "classification", "z": "regression", "features_2": "regression"},
    },
    **{f"sink_{sink}": {"sinks": [sink]} for sink in ("parquet", "postgresql")},
    "streams": {
        "features_refresh": "continuous",
        "kafka_sources": True,
        "scoring": "stream",
        "sinks": ["csv", "kafka"],
    },
    "all_hostile": {
        "project_name": HOSTILE_NAMES["quotes"],
        "description": HOSTILE_NAMES["jinja"] + HOSTILE_NAMES["yaml"] + HOSTILE_NAMES["emoji"],
        "package_name": "a" * 30,
        "dev_catalog": "no",
        "staging_catalog": "null",
        "prod_catalog": "_1e3",
        "schema": "on",
        "ci": "both",
        "task": "regression",
        "compute": "job_clusters",
        "features_refresh": "table_update",
        "source_tables": ["no.on.null"],
        "kafka_sources": True,
        "scoring": "stream",
        "sinks": ["parquet", "csv", "postgresql", "kafka"],
        "extra_dev_workspaces": {"no": "https://adb-4444444444444444.4.azuredatabricks.net"},
        "warehouse": HOSTILE_NAMES["emoji"],
        "notify_destination": HOSTILE_NAMES["quotes"],
        "training_data": "expanding",
        "readers": """It's "quoted" \\ : # {{ x }}""",
        "staging_principal": "00000000-0000-0000-0000-000000000000",
        "prod_principal": "1e310000-0000-0000-0000-000000000000",
    },
}
# Expressions that the platform, not Copier, replaces.
FOREIGN = re.compile(r"\$\{\{.*?\}\}|\{\{(job|tasks?|input|backfill)\b.*?\}\}")
# "{{ and }}" is prose, "{{{{x}}}}" an f-string.
DEBRIS = re.compile(
    r"(?<!\{)\{\{-?\s*(?!and\b)[A-Za-z_][\w.]*\s*(-?\}\}|[|(\[])"
    r"|\{%-?\s*(if|el|end|for|set|from|import|include|macro|raw|block)|\{#"
)
# Rendered by the project itself, not by Copier.
OWN_TEMPLATES = (".j2",)
PLAIN_TEXT = {
    ".md",
    ".csv",
    ".html",
    ".j2",
    ".mplstyle",
    ".css",
    ".js",
    ".svg",
    ".txt",
    ".typed",
    ".sql",
}
PLAIN_NAMES = {".gitignore", ".gitattributes"}
WINDOWS_DEVICE = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
REGISTRY_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "maven" + ".org", "npm" + "js")


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    """Name of a case."""
    return request.param


@pytest.fixture(scope="module")
def project(case: str, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The case, rendered. Read it, do not change it."""
    return render(template, tmp_path_factory.mktemp(case) / "project", **CASES[case])


def text_of(path: Path) -> str:
    """A file's text; every file of a project is UTF-8 and ends in one newline."""
    text = path.read_bytes().decode("utf-8")
    assert "\r" not in text, f"{path}: carriage return"
    assert not text or (text.endswith("\n") and not text.endswith("\n\n")), f"{path}: its end"
    return text


def run(*command: str, cwd: Path) -> None:
    """Run a tool of the tests' environment; its output is the message when it fails."""
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([program, *command[1:]], cwd=cwd, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_answers_arrive_unchanged(case: str, project: Path) -> None:
    answers = answers_of(project)
    assert {key: answers[key] for key in CASES[case]} == CASES[case]
    assert not {"versions"} & answers.keys(), "a computed value is no answer"


def test_package_name_is_usable(project: Path) -> None:
    name = answers_of(project)["package_name"]
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    assert len(name) <= 30
    assert not keyword.iskeyword(name)
    assert name not in sys.stdlib_module_names


def test_no_template_syntax_is_left(project: Path) -> None:
    given = {str(answer) for answer in answers_of(project).values() if "{" in str(answer)}
    spellings = given | {json.dumps(text, ensure_ascii=False)[1:-1] for text in given}
    for path in files_of(project):
        assert path.suffix != ".jinja", path
        assert not re.search(r"[{}%]", str(path)), path
        if path.suffix in OWN_TEMPLATES or path.name == ".copier-answers.yml":
            continue
        text = text_of(project / path)
        for spelling in spellings:
            text = text.replace(spelling, "")
        left = DEBRIS.search(FOREIGN.sub("", text))
        assert not left, f"{path}: {text[left.start() : left.start() + 60]!r}"


def test_every_file_parses(project: Path) -> None:
    for path in files_of(project):
        text = text_of(project / path)
        if path.suffix == ".py":
            compile(text, str(path), "exec", dont_inherit=True)
        elif path.suffix in (".yml", ".yaml"):
            assert yaml.safe_load(text) is not None, path
        elif path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix == ".json":
            json.loads(text)
        elif path.name == "Makefile":
            targets = re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)
            assert {"setup", "check", "test", "lifecycle", "run", "clean", "help"} <= {*targets}
            for target in targets:
                done = subprocess.run(
                    ["make", "--dry-run", "JOB=training", target],
                    cwd=project,
                    text=True,
                    capture_output=True,
                )
                assert done.returncode == 0, done.stderr
        else:
            assert path.suffix in PLAIN_TEXT or path.name in PLAIN_NAMES, f"who parses {path}?"


def test_configuration_says_what_was_answered(project: Path) -> None:
    answers = answers_of(project)
    pyproject = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    bundle = yaml.safe_load((project / "databricks.yml").read_text("utf-8"))
    assert pyproject["project"]["name"] == bundle["bundle"]["name"] == answers["package_name"]
    assert pyproject["project"]["description"] == answers["description"]
    assert pyproject["tool"]["mlops"]["project"] == answers["project_name"]
    assert bundle["variables"]["schema"]["default"] == answers["schema"]
    assert bundle["variables"]["notify"]["default"] == answers["owner_email"]
    for environment in ("dev", "staging", "prod"):
        target = bundle["targets"][environment]
        assert target["workspace"]["host"] == answers[f"{environment}_host"]
        assert target["variables"]["catalog"] == answers[f"{environment}_catalog"]


def test_python_is_clean_and_formatted(project: Path) -> None:
    run("ruff", "check", "--no-cache", ".", cwd=project)
    run("ruff", "format", "--no-cache", "--diff", ".", cwd=project)


def test_package_imports_without_spark(project: Path) -> None:
    name = answers_of(project)["package_name"]
    script = (
        f"import sys; sys.path.insert(0, 'src'); import {name}, {name}.mlops.bundle; "
        "sys.exit('imports pyspark' if 'pyspark' in sys.modules else 0)"
    )
    run(Path(sys.executable).name, "-B", "-c", script, cwd=project)


def test_serving_is_there_only_when_chosen(project: Path) -> None:
    traces = re.compile(r"(?i)(?<!table_)online[_ ]s|mlops.online|prometheus|schemathesis")
    found = [path for path in files_of(project) if path.name != ".copier-answers.yml"]
    found = [path for path in found if traces.search(f"{path} {text_of(project / path)}")]
    if answers_of(project)["online_serving"]:
        assert Path("docs/serve.md") in found
    else:
        assert not found


def test_only_the_chosen_ci_is_there(project: Path) -> None:
    ci = answers_of(project)["ci"]
    folders = {path.parts[0] for path in files_of(project) if len(path.parts) > 1}
    assert (".github" in folders) == (ci in ("github", "both"))
    assert (".azure" in folders) == (ci in ("azure", "both"))
    assert "workflows" not in folders


def test_only_the_chosen_sinks_are_there(project: Path) -> None:
    answers = answers_of(project)
    text = "".join(
        text_of(project / path)
        for path in files_of(project)
        if path.suffix in (".py", ".toml", ".yml") and path.name != ".copier-answers.yml"
    )
    for sink, marks in {
        "postgresql": ("psycopg", "postgresql_place"),
        "kafka": ("confluent", "kafka_place"),
    }.items():
        for mark in marks:
            wanted = sink in answers["sinks"]
            wanted |= mark == "psycopg" and answers["online_serving"]  # its store may be PostgreSQL
            assert (mark in text) == wanted, mark
    names = {path.stem for path in files_of(project)}
    assert ("files" in names) == bool({"parquet", "csv"} & {*answers["sinks"]})
    assert {"deliver", "test_sinks"} <= names or not answers["sinks"]
    assert ("test_sinks" in names) == bool(answers["sinks"])
    assert ({"topics", "test_topics"} <= names) == answers["kafka_sources"]
    assert ("score_stream" in names) == (answers["scoring"] == "stream")


# The vendor's schema names this task and has forgotten its inputs, so it refuses each use of it.
COVERAGE = re.compile(
    r"^ +- task: PublishCodeCoverageResults@2\n +displayName: .*\n +condition: .*\n +inputs:\n"
    r" +summaryFileLocation: reports/coverage.xml\n",
    re.MULTILINE,
)


def test_ci_files_pass_their_linters(project: Path, tmp_path: Path) -> None:
    workflows = sorted(str(path) for path in project.glob(".github/workflows/*"))
    if workflows:
        run("zizmor", "--offline", "--no-progress", "--persona=pedantic", ".github", cwd=project)
        run("actionlint", *workflows, cwd=project)
        dependabot = ("--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")
        run("check-jsonschema", *dependabot, cwd=project)
    if (project / "renovate.json").exists():
        renovate = ("--builtin-schema", "vendor.renovate", "renovate.json")
        run("check-jsonschema", *renovate, cwd=project)
    for path in project.glob(".azure/*"):
        schema = ("--builtin-schema", "vendor.azure-pipelines")
        copy = tmp_path / path.name
        copy.write_text(COVERAGE.sub("", path.read_text("utf-8")), "utf-8")
        run("check-jsonschema", *schema, "--regex-variant", "nonunicode", str(copy), cwd=project)


def test_file_names_are_safe_on_windows(project: Path) -> None:
    seen: set[str] = set()
    for path in files_of(project):
        assert str(path).lower() not in seen, f"{path}: differs from another by case only"
        seen.add(str(path).lower())
        assert len(str(path)) <= 120, path
        for part in path.parts:
            assert not WINDOWS_DEVICE.search(part), path
            assert not re.search(r'[<>:"\\|?*]|[. ]$', part), path


def test_no_path_or_host_of_one_machine(project: Path) -> None:
    for path in files_of(project):
        text = text_of(project / path)
        if path.name != ".copier-answers.yml":
            assert str(project) not in text, path
            machine = re.search(r"(?<![\w.}/-])/(home|root|Users|tmp|work)/\w+", text)
            assert not machine, f"{path}: {machine}"
        assert not [host for host in REGISTRY_HOSTS if host in text], path


# Files that a person or a command makes, so that a page may name one that is not there; and paths
# of requests. What `make add-model` makes is called minutes_late in pages.
MADE_LATER = (
    *("/", ".venv/", ".local/", ".bin/", "plan/", "reports/", "checkpoints/", "files/", "jars/"),
    *("team.mk", "resources/team.yml", "resources/prices.job.yml", "template-conflicts.md"),
    *("uv.lock", "model_card."),
)
FILE = re.compile(r"[\w./*-]*(?:/|\.(?:py|yml|md|toml|json|mk|lock|ipynb))")


def pages_of(project: Path) -> list[Path]:
    """What people and coding agents read."""
    return [project / "README.md", project / "AGENTS.md", *sorted((project / "docs").glob("*.md"))]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and Azure DevOps make them."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_of_pages_lead_somewhere(project: Path) -> None:
    for page in pages_of(project):
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
            if "://" not in link:
                name, _, anchor = link.partition("#")
                place = page.parent / name if name else page
                assert place.exists(), f"{page.name}: {link}"
                assert not anchor or anchor in headings(place), f"{page.name}: {link}"


def test_pages_name_files_that_are_there(project: Path) -> None:
    """A name in backticks that looks like a file's or folder's is one."""
    package = project / "src" / answers_of(project)["package_name"]
    folders = (project, package, package / "mlops", package / "features", *project.glob("*/"))
    for page in pages_of(project):
        for name in re.findall(r"`([^`\n]+)`", text_of(page)):
            if not FILE.fullmatch(name) or name.startswith(MADE_LATER) or "minutes_late" in name:
                continue
            there = any([*folder.glob(name.strip("/"))] for folder in (*folders, page.parent))
            assert there, f"{page.name}: {name}"


def test_pages_name_commands_that_are_there(project: Path) -> None:
    package = answers_of(project)["package_name"]
    cli = text_of(project / "src" / package / "mlops/cli.py")
    commands = {*re.findall(r"\bcommand\(\s*\"([\w-]+)\"", cli)}
    makefile = text_of(project / "Makefile")
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)}
    assert {"status", "run", "after-deploy"} <= commands
    for page in [*pages_of(project), project / "Makefile", *project.glob("resources/*.yml")]:
        text = text_of(page)
        named = {
            *re.findall(r"(?:^|`|&& )(?:[A-Z_]+=\S+ )?make ([a-z][a-z-]*)", text, re.MULTILINE)
        }
        assert named <= targets, f"{page.name}: {named - targets}"
        own = rf"(?:`|\.venv/bin/){package} (?:--problem \w+ )?([a-z-]+)"
        assert {*re.findall(own, text)} <= commands, page.name
    listed = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
    assert listed and {*listed[1].replace("\\", "").split()} == targets


# What only some projects have, by the words that speak of it; pages that tell how to add it apart.
NOT_CHOSEN: dict[str, tuple[str, Any]] = {
    "GitHub": (r"GitHub|\.github|Dependabot", lambda a: a["ci"] in ("github", "both")),
    "Azure DevOps": (r"Azure DevOps|\.azure/|vstoken", lambda a: a["ci"] in ("azure", "both")),
    "Renovate": (r"[Rr]enovate", lambda a: a["ci"] == "azure"),
    "CI": (r"\bCI\b(?! system: the| is set|\))", lambda a: a["ci"] != "none"),
    "sinks": (r"\b[Ss]inks?\b|dead_letters", lambda a: bool(a["sinks"])),
    "topics": (r"[Kk]afka|[Ee]vent hub", lambda a: a["kafka_sources"] or "kafka" in a["sinks"]),
    "serverless": (r"serverless", lambda a: a["compute"] == "serverless"),
    "clusters": (r"node_type|spark_version", lambda a: a["compute"] == "job_clusters"),
    "classes": (r"\bAUC\b|DeLong|predict_proba", lambda a: a["task"] == "classification"),
    "expanding": (r"expanding", lambda a: a["training_data"] == "expanding"),
    "tags": (r"tags? `v|refs/tags|tag of a release", lambda a: a["release_by"] == "tag"),
}


def test_pages_speak_of_what_was_chosen_only(project: Path) -> None:
    answers = answers_of(project)
    given = [answers[key] for key in ("project_name", "description", "warehouse", "readers")]
    for page in [*pages_of(project), project / "Makefile", *project.glob("resources/*.yml")]:
        text = text_of(page)
        for answer in given:
            text = text.replace(answer, "")
        for what, (words, chosen) in NOT_CHOSEN.items():
            if not chosen(answers):
                found = re.search(f".*({words}).*", text)
                assert not found, f"{page.name}, {what}: {found[0]}"


def test_every_entry_point_is_a_jobs(project: Path) -> None:
    settings = tomllib.loads(text_of(project / "pyproject.toml"))["project"]["entry-points"]
    named = re.findall(
        r"entry_point: (\w+)", "".join(map(text_of, project.glob("resources/*.job.yml")))
    )
    assert {*named} == settings["packages"].keys()


def test_the_readme_lists_every_job_of_a_model(project: Path) -> None:
    names = [path.name.removesuffix(".job.yml") for path in project.glob("resources/*.job.yml")]
    listed = re.findall(r"^\| `(\w+)` \|", text_of(project / "README.md"), re.MULTILINE)
    assert {*listed} == {name for name in names if "." not in name}
