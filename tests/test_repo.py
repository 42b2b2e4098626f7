"""This repository keeps its own rules."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, commit, git, render
from test_render import REGISTRY_HOSTS, WINDOWS_DEVICE, run

VERSIONS = yaml.safe_load((ROOT / "hooks/versions.yml").read_text("utf-8"))
RESERVED = {
    kind: set(names.split())
    for kind, names in yaml.safe_load((ROOT / "hooks/reserved.yml").read_text("utf-8")).items()
}


def tracked() -> list[str]:
    """What a commit of the working tree would hold."""
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_copying_needs_no_trust() -> None:
    config = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    assert not {"_tasks", "_jinja_extensions", "_migrations", "_external_data"} & config.keys()


def test_every_question_has_help_and_default() -> None:
    config = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    computed = False
    for name, question in config.items():
        if name.startswith("_"):
            continue
        assert {"help", "default"} <= question.keys(), name
        hidden = question.get("when") is False
        limited = "choices" in question or question["type"] == "bool"
        assert hidden or limited or name in question.get("validator", ""), name
        assert hidden or not computed, f"{name}: computed values come last"
        computed = computed or hidden


def test_every_question_is_explained_in_its_place() -> None:
    config = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    asked = [name for name in config if name[0] != "_" and config[name].get("when") is not False]
    page = (ROOT / "docs/questions.md").read_text("utf-8")
    cells = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    rows = [re.findall(r"`(\w+)`", cell) for cell in cells]
    assert sorted(name for row in rows for name in row) == sorted(asked)
    first = [row[0] for row in rows]
    assert first == sorted(first, key=asked.index)


def test_pins_live_in_one_file() -> None:
    """No template states a version of a package or an action by itself."""
    for name in tracked():
        if name.startswith("template/") and Path(name).suffix == ".jinja":
            for line in (ROOT / name).read_text("utf-8").splitlines():
                assert not re.search(r"[0-9a-f]{40}", line), f"{name}: {line}"
                assert not re.search(r'"[a-z][\w-]+(==|>=|~=)\d', line), f"{name}: {line}"


def test_own_workflow_uses_the_pins() -> None:
    pins = {f"{pin['sha']} # {pin['tag']}" for pin in VERSIONS["actions"].values()}
    workflows = [path.read_text("utf-8") for path in (ROOT / ".github/workflows").iterdir()]
    used = re.findall(r"uses: [\w/-]+@(.+)", "".join(workflows))
    assert used
    assert {*used} <= pins
    run("zizmor", "--offline", "--no-progress", "--persona=pedantic", ".github", cwd=ROOT)
    run("actionlint", cwd=ROOT)


def test_cli_version_is_stated_once(default_project: Path) -> None:
    """And it is one that the bundle accepts."""
    exact, least = VERSIONS["databricks"]["cli_exact"], VERSIONS["databricks"]["cli"]
    parts = [[*map(int, version.split("."))] for version in (exact, least.removeprefix(">= "))]
    assert parts[0] >= parts[1]
    places = [
        path.relative_to(default_project).as_posix()
        for path in default_project.rglob("*")
        if path.is_file() and re.search(rf"\b{re.escape(exact)}\b", path.read_text("utf-8"))
    ]
    assert places == ["Makefile"]


def test_only_requirements_of_the_team_are_offered_for_update(default_project: Path) -> None:
    """Whatever a template update brings is left to template updates."""
    offered = yaml.safe_load((default_project / ".github/dependabot.yml").read_text("utf-8"))
    (updates,) = offered["updates"]
    ignored = {entry["dependency-name"] for entry in updates["ignore"]}
    owned = set().union(*(VERSIONS[kind] for kind in ("build", "runtime", "local", "checks")))
    assert ignored == owned
    assert not ignored & VERSIONS["example"].keys()


def test_own_tools_are_the_pinned_ones() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert f'"ruff{VERSIONS["checks"]["ruff"]}"' in pyproject
    assert set(re.findall(r"ruff==[\d.]+", pyproject + hooks)) == {
        f"ruff{VERSIONS['checks']['ruff']}"
    }
    assert f"uv{VERSIONS['uv']}" in (ROOT / "Makefile").read_text("utf-8")


def test_reserved_names_are_complete(default_project: Path) -> None:
    public = {name.lower() for name in sys.stdlib_module_names if not name.startswith("_")}
    assert public <= RESERVED["stdlib"]
    assert {word.lower() for word in keyword.kwlist} <= RESERVED["keyword"]
    pyproject = tomllib.loads((default_project / "pyproject.toml").read_text("utf-8"))
    required = [*pyproject["project"]["dependencies"]]
    for group in pyproject["dependency-groups"].values():
        required += [entry for entry in group if isinstance(entry, str)]
    names = {re.match(r"[\w-]+", entry)[0].replace("-", "_") for entry in required}
    assert names <= RESERVED["dependency"]
    folders = {path.name for path in default_project.iterdir() if path.is_dir()}
    assert {folder for folder in folders if folder[0] != "."} <= RESERVED["project"]


def test_file_names_are_safe_on_windows() -> None:
    for name in tracked():
        for part in Path(name).parts:
            assert not WINDOWS_DEVICE.search(part), name
            assert not re.search(r'[<>:"\\|?*]|[. ]$', part), name


def test_no_registry_hosts() -> None:
    for name in tracked():
        if Path(name).suffix not in (".png", ".gif", ".webp"):
            text = (ROOT / name).read_text("utf-8")
            assert not [host for host in REGISTRY_HOSTS if host in text], name


def test_template_files_are_not_ignored() -> None:
    """template/.gitignore is the project's, and git reads it here too."""
    ignored = git(ROOT, "ls-files", "--others", "--ignored", "--exclude-standard", "template")
    caches = ("__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache")
    assert not [name for name in ignored.splitlines() if not any(c in name for c in caches)]


def test_help_lists_the_teams_targets_too(default_project: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(default_project / name, tmp_path)
    (tmp_path / "team.mk").write_text("prices: ## Fetch prices\n\t@echo fetched\n")
    done = subprocess.run(["make", "help"], cwd=tmp_path, text=True, capture_output=True)
    listed = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()]
    assert ["prices", "Fetch prices"] in listed
    assert {"help", "setup", "lifecycle"} <= {target for target, _ in listed}


def test_uv_is_brought_when_missing(default_project: Path, tmp_path: Path) -> None:
    """On a machine with nothing but Python and make."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "awk", "touch"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").symlink_to(sys._base_executable)
    project = shutil.copytree(default_project, tmp_path / "project")
    environment = os.environ | {"PATH": str(tools)}
    command = ["make", ".uv/bin/uv"]
    done = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = subprocess.run([project / ".uv/bin/uv", "--version"], text=True, capture_output=True)
    assert found.stdout.startswith("uv ")
    done = subprocess.run(
        ["make", "-n", "check"], cwd=project, env=environment, text=True, capture_output=True
    )
    assert ".uv/bin/uv sync" in done.stdout


# Each is a file someone might commit by mistake, and the hook that has to stop it. Secrets are put
# together here so that no scanner finds one in this repository.
MISTAKES = {
    "ruff": ("src/flight_delays/bad.py", "import os\n"),
    "ruff-format": ("src/flight_delays/bad.py", '"""Bad."""\nx  =  1\n'),
    "check-yaml": ("resources/bad.yml", "a: [1\n"),
    "check-toml": ("bad.toml", "a = \n"),
    "check-merge-conflict": ("bad.txt", "<<<<<<< before updating\na\n=======\nb\n>>>>>>> after\n"),
    "rejected-hunks": ("Makefile.rej", "@@\n"),
    "large-files": ("bad.bin", "x" * 2_000_000),
    "private-key": ("bad.pem", "-----BEGIN RSA PRIVATE " + "KEY-----\n"),
    "databricks-token": ("bad.txt", "dapi" + "0123456789abcdef" * 2 + "\n"),
    "secrets": ("bad.env", "password = '" + "hunter2hunter2'\n"),
    "nbstripout": (
        "notebooks/bad.ipynb",
        '{"cells": [{"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {}, '
        '"outputs": [{"name": "stdout", "output_type": "stream", "text": ["1\\n"]}], '
        '"source": ["print(1)"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n',
    ),
}


@pytest.fixture(scope="module")
def hooked_project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project in which every pre-commit hook has passed."""
    project = render(template, tmp_path_factory.mktemp("hooked") / "project", ci="both")
    commit(project)
    run("pre-commit", "validate-config", ".pre-commit-config.yaml", cwd=project)
    run("pre-commit", "run", "--all-files", "--color=never", cwd=project)
    return project


def test_every_hook_has_a_mistake_to_stop() -> None:
    config = (ROOT / "template/.pre-commit-config.yaml.jinja").read_text("utf-8")
    assert {*re.findall(r"- id: (\S+)", config)} == MISTAKES.keys()


@pytest.mark.parametrize("hook", MISTAKES)
def test_hook_stops_mistake(hooked_project: Path, hook: str) -> None:
    name, text = MISTAKES[hook]
    path = hooked_project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    git(hooked_project, "add", "--force", name)
    try:
        program = Path(sys.executable).parent / "pre-commit"
        command = [program, "run", hook, "--files", name, "--color=never"]
        done = subprocess.run(command, cwd=hooked_project, text=True, capture_output=True)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Failed" in done.stdout
    finally:
        git(hooked_project, "reset", "--quiet", "--hard")
