"""`make update`: no edit lost, every conflict said, and an intact project whatever goes wrong."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml
from conftest import (
    ROOT,
    answers_of,
    call,
    commit,
    copy_template,
    files_of,
    git,
    load,
    render,
    team_files,
)
from test_project import LOCK, finish
from test_update import HOSTILE, contents, edit

PACKAGE = "src/flight_delays"
TEAM_LINE = "# the team's line\n"
PRINCIPAL = "00000000-1111-2222-3333-444444444444"


def script(
    project: Path, *arguments: str, check: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the project's own script."""
    words = [*arguments] if check or arguments[0] == "status" else [*arguments, "--no-check"]
    return call(load(project / "scripts/template.py"), project, *words, **environment)


def updated(project: Path, *arguments: str) -> str:
    """Update without conflict; what was said."""
    done = script(project, "update", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not git(project, "ls-files", "--unmerged")
    return done.stdout


def refused(project: Path, says: str, *arguments: str) -> str:
    """An update that says what is wrong and changes nothing, not even in the index."""
    before, status = contents(project), git(project, "status", "--porcelain")
    done = script(project, "update", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "The project is as it was." in done.stderr
    assert contents(project) == before
    assert git(project, "status", "--porcelain") == status
    return done.stderr


def is_untouched(project: Path) -> None:
    """The project is its last commit."""
    assert not git(project, "status", "--porcelain", "--untracked-files=all")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with a second release, which renames, moves, removes, adds and asks anew."""
    template = copy_template(tmp_path_factory.mktemp("versions"))
    tree = template / "template"
    mlops = tree / "src/{{package_name}}/mlops"
    git(template, "mv", str(mlops / "cron.py"), str(mlops / "schedules.py"))
    (tree / "docs/runbooks").mkdir()
    git(template, "mv", str(tree / "docs/retrain.md.jinja"), str(tree / "docs/runbooks"))
    (tree / "docs/roll-back.md.jinja").unlink()
    (tree / "notebooks/explore.py.jinja").unlink()
    edit(mlops / "schedules.py", lambda text: text + "# of version 2\n")
    edit(tree / "Makefile.jinja", lambda text: text + "# of version 2: {{ nickname }}\n")
    (tree / "docs/added.md").write_text("# Added\n")
    edit(tree / "src/{{package_name}}/problem.py.jinja", lambda text: text + "# of version 2\n")
    question = "nickname:\n  type: str\n  help: Nickname?\n  default: bird\n\n# ---- Computed"
    edit(template / "copier.yml", lambda text: text.replace("# ---- Computed", question))
    notes = (
        "## 0.2.0\n\n### What changes in your project\n\n- A nickname.\n\n## 0.1.0\n\n- First.\n"
    )
    (template / "CHANGELOG.md").write_text(f"# Changelog\n\n{notes}")
    commit(template)
    git(template, "tag", "v0.2.0")
    return template


@pytest.fixture(scope="module")
def rendered() -> dict[str, Path]:
    """Projects of version 1 by their answers."""
    return {}


@pytest.fixture
def old(
    versions: Path,
    rendered: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Make a committed project of version 1."""

    def make(**answers: str) -> Path:
        key = ",".join(f"{name}={value}" for name, value in answers.items())
        if key not in rendered:
            rendered[key] = tmp_path_factory.mktemp("old") / "project"
            options = {"data": answers, "defaults": True, "quiet": True, "vcs_ref": "v0.1.0"}
            copier.run_copy(str(versions), rendered[key], **options)
            commit(rendered[key])
        project = shutil.copytree(rendered[key], tmp_path / "project")
        git(project, "reset", "--quiet")
        return project

    return make


def edit_all(project: Path) -> None:
    """The team edits a file that goes on, one that is renamed, one that is moved, one removed."""
    for name in (f"{PACKAGE}/mlops/cron.py", "docs/retrain.md", "docs/roll-back.md", "Makefile"):
        edit(project / name, lambda text: TEAM_LINE + text)
    edit(project / f"{PACKAGE}/problem.py", lambda text: TEAM_LINE + text)
    commit(project)


def test_copier_alone_loses_edits(old: Callable[..., Path]) -> None:
    """Why there is `make update`. Green on the day Copier does it: then simplify."""
    project = old()
    edit_all(project)
    copier.run_update(project, defaults=True, quiet=True, overwrite=True)
    kept = [path for path, text in contents(project).items() if TEAM_LINE.encode() in text]
    assert {*kept} == {"Makefile", f"{PACKAGE}/problem.py"}


def test_edits_follow_moves_and_removals_are_conflicts(old: Callable[..., Path]) -> None:
    project = old()
    edit_all(project)
    before = contents(project)
    done = script(project, "update")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "docs/roll-back.md  the template removed it, you changed it" in done.stderr
    assert "1 in conflict" in done.stderr
    assert "--undo" in done.stderr
    assert "- A nickname." in done.stdout
    assert "nickname, answered 'bird'" in done.stdout
    unmerged = {line.split("\t")[1] for line in git(project, "ls-files", "-u").splitlines()}
    assert unmerged == {"docs/roll-back.md"}
    after = contents(project)
    for name in (
        f"{PACKAGE}/mlops/schedules.py",
        "docs/runbooks/retrain.md",
        "docs/roll-back.md",
        "Makefile",
    ):
        assert TEAM_LINE.encode() in after[name], name
    assert b"# of version 2" in after[f"{PACKAGE}/mlops/schedules.py"]
    assert after[f"{PACKAGE}/problem.py"] == before[f"{PACKAGE}/problem.py"]
    assert f"{PACKAGE}/mlops/cron.py" not in after

    assert "has not been committed" in script(project, "update").stderr
    (project / "Makefile").write_text("resolved by hand\n")
    undone = script(project, "update", "--undo")
    assert undone.returncode == 0, undone.stderr
    assert "git diff HEAD refs/template/undone" in undone.stdout
    assert git(project, "show", "refs/template/undone:Makefile") == "resolved by hand\n"
    is_untouched(project)
    assert contents(project) == before
    assert script(project, "update", "--undo").returncode == 2


def test_undo_brings_back_what_a_person_removed_to_resolve(old: Callable[..., Path]) -> None:
    """Or moved: the conflict is a file that the template removed and the update left alone."""
    project = old()
    edit_all(project)
    before = contents(project)
    assert script(project, "update").returncode == 1
    git(project, "rm", "--quiet", "docs/roll-back.md")
    git(project, "mv", "docs/promote.md", "docs/promoting.md")
    assert script(project, "update", "--undo").returncode == 0
    assert "docs/roll-back.md" in contents(project)
    (project / "docs/promoting.md").rename(project / "docs/promote.md")  # no part of the update
    assert contents(project) == before
    is_untouched(project)


def test_both_changed_the_same_lines(old: Callable[..., Path]) -> None:
    project = old()
    edit(project / "Makefile", lambda text: text + "# ours, at the same place\n")
    commit(project)
    done = script(project, "update")
    assert done.returncode == 1
    assert "Makefile  both changed the same lines" in done.stderr
    text = (project / "Makefile").read_text()
    assert "<<<<<<< HEAD\n# ours, at the same place\n" in text
    assert "# of version 2: bird\n>>>>>>> template-v0.2.0" in text


@pytest.mark.full
@pytest.mark.parametrize("answers", [{}, {"project_name": HOSTILE, "ci": "both"}])
def test_result_is_a_fresh_render(
    versions: Path, old: Callable[..., Path], tmp_path: Path, answers: dict[str, str]
) -> None:
    project = old(**answers)
    assert "Newest    v0.2.0, 1 commits ahead: 0.2.0" in script(project, "status").stdout
    updated(project)
    fresh = contents(render(versions, tmp_path / "fresh", **answers))
    late = f"src/{answers_of(project)['package_name']}/problem.py"
    result = contents(project)
    differ = {path for path in {*fresh, *result} if fresh.get(path) != result.get(path)}
    assert differ == {late, "notebooks/explore.py"}, "the team's: not changed, not removed"
    commit(project)
    assert "Up to date: v0.2.0" in updated(project)
    is_untouched(project)
    assert "Newest    this one" in script(project, "status").stdout


def test_dry_run_tells_conflicts_and_changes_nothing(old: Callable[..., Path]) -> None:
    project = old()
    edit_all(project)
    done = script(project, "update", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Would change docs/runbooks/retrain.md" in done.stdout
    assert "1 would be in conflict:\n  docs/roll-back.md  the template removed it" in done.stderr
    is_untouched(project)
    assert script(project, "update", "--undo").returncode == 2, "nothing to take back"


@pytest.mark.full
def test_make_check_decides(old: Callable[..., Path]) -> None:
    project = old()
    removed = ("\t$(RUN) mypy", "\t$(RUN) ruff format", "\t$(RUN) $(PACKAGE) check")
    for result, code in (("true", 0), ("false", 1)):
        text = (project / "Makefile").read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith(removed)]
        text = "\n".join(lines).replace("check: $(READY)", "check:") + "\n"
        text = text.replace("\t$(RUN) ruff check .", f"\t{result}")
        (project / "Makefile").write_text(text, "utf-8")
        commit(project)
        done = script(project, "update", check=True)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("make check fails" in done.stderr) == (code == 1)
        git(project, "reset", "--quiet", "--hard", "HEAD~1")


@pytest.mark.full
def test_status_lists_edits_of_template_files(old: Callable[..., Path]) -> None:
    project = old()
    assert "No local edits of its files." in script(project, "status").stdout
    edit_all(project)
    git(project, "mv", "docs/promote.md", "docs/promoting.md")
    (project / f"{PACKAGE}/mlops/own.py").write_text('"""Own."""\n')
    (project / "docs/monitoring.md").unlink()
    done = script(project, "status")
    assert done.returncode == 0, done.stderr
    edits = done.stdout.split("files:\n")[1].splitlines()
    assert edits == [
        "  changed Makefile",
        "  removed docs/monitoring.md",
        "  moved   docs/promote.md -> docs/promoting.md",
        "  changed docs/retrain.md",
        "  changed docs/roll-back.md",
        f"  changed {PACKAGE}/mlops/cron.py",
    ]
    assert git(project, "status", "--porcelain").count("\n") == 3, "status staged something"


@pytest.mark.full  # installs the project: minutes where packages are not cached yet
def test_make_update_ends_in_a_real_check(old: Callable[..., Path]) -> None:
    """As a person types it, with Copier brought by uv, and the check of the project."""
    project = old()
    if LOCK.exists():
        shutil.copy(LOCK, project / "uv.lock")
    finish("make", "setup", cwd=project, CI="")
    edit(project / f"{PACKAGE}/mlops/cron.py", lambda text: TEAM_LINE + text)
    commit(project)
    assert "Newest    v0.2.0" in finish("make", "template-status", cwd=project)
    # Version 2 renames a module that others import, and does not tell them: the check finds it.
    failed = subprocess.run(["make", "update"], cwd=project, text=True, capture_output=True)
    assert failed.returncode, failed.stdout
    assert "make check fails" in failed.stderr
    assert TEAM_LINE in (project / f"{PACKAGE}/mlops/schedules.py").read_text()
    assert "Taken back." in finish("make", "update", "ARGS=--undo", cwd=project)
    is_untouched(project)
    assert "Would change Makefile" in finish("make", "update", "ARGS=--dry-run", cwd=project)
    data = "ARGS=--vcs-ref v0.1.0 --data schema=other"
    assert "make check passes" in finish("make", "update", data, cwd=project)
    assert 'default: "other"' in (project / "databricks.yml").read_text()


# ---- Answers change ----------------------------------------------------------------------------


CHANGES = [
    ("ci=both", "ci=github", ".azure/pull-request.yml"),
    ("ci=azure", "ci=github", ".azure/pull-request.yml"),
    ("ci=none", "ci=github", None),
    ("online_serving=true", "online_serving=false", "docs/serve.md"),
    ("task=regression", "task=classification", None),
    ("extra_dev_workspaces={berlin: https://adb-4.4.azuredatabricks.net}", "", None),
    ("compute=job_clusters", "compute=serverless", None),
    ("features_refresh=table_update", "features_refresh=schedule", None),
    ("release_by=branch", "release_by=tag", None),
    (f"prod_principal={PRINCIPAL}", "prod_principal=", None),
    ("prod_host=https://adb-5.5.azuredatabricks.net", "", None),
]


@pytest.mark.parametrize(
    ("there", "back", "appears"),
    [CHANGES[0], *(pytest.param(*case, marks=pytest.mark.full) for case in CHANGES[1:])],
)
def test_answers_change_there_and_back(
    versions: Path, tmp_path: Path, there: str, back: str, appears: str | None
) -> None:
    project = render(versions, tmp_path / "project")
    edit(project / f"{PACKAGE}/model.py", lambda text: TEAM_LINE + text)
    (project / ".github/own.yml").write_text("own: true\n")
    commit(project)
    before = contents(project)
    updated(project, "--data", there)
    name, value = there.split("=", 1)
    default = answers_of(render(versions, tmp_path / "default"))[name]
    back = back or f"{name}={default}"
    fresh = contents(render(versions, tmp_path / "fresh", **{name: yaml.safe_load(value)}))
    after = contents(project)
    assert after != before
    yours = team_files()
    for path in {*fresh, *after}:
        mine = yours.match_file(path) or path == ".github/own.yml"
        assert after.get(path) == (before if mine else fresh).get(path), path
    assert appears is None or appears in after
    commit(project)
    updated(project, "--data", back)
    assert contents(project) == before


@pytest.mark.full
def test_package_name_cannot_change(old: Callable[..., Path]) -> None:
    refused(old(), "package_name cannot change", "--data", "package_name=other")


@pytest.mark.full
def test_unknown_and_older_versions_are_refused(old: Callable[..., Path]) -> None:
    project = old()
    refused(project, "no version v7.7.7", "--vcs-ref", "v7.7.7")
    updated(project)
    commit(project)
    said = refused(project, "v0.1.0 is older than v0.2.0", "--vcs-ref", "v0.1.0")
    assert "git revert" in said


@pytest.mark.full
def test_bad_answer_is_refused(old: Callable[..., Path]) -> None:
    refused(old(), "'jenkins' is not in", "--data", "ci=jenkins")


# ---- Migrations --------------------------------------------------------------------------------

MIGRATION = '''"""Move {old} to {new}, which is rewritten in the same release."""

import subprocess
from pathlib import Path


def migrate(project: Path) -> None:
    old, new = project / "{old}", project / "{new}"
    if old.exists() and not new.exists():
        subprocess.run(["git", "mv", old, new], cwd=project, check=True)
    for path in project.glob("src/*/problem.py"):
        path.write_text(path.read_text("utf-8").replace("{old}", "{new}"), "utf-8")
'''


def test_every_migration_turns_before_into_after(tmp_path: Path) -> None:
    """And a second run changes nothing. Each has its example in tests/migrations/."""
    examples = ROOT / "tests/migrations"
    for migration in sorted((ROOT / "hooks/migrations").glob("*.py")):
        example = examples / migration.stem
        assert example.is_dir(), f"{migration.name} has no example"
        project = shutil.copytree(example / "before", tmp_path / migration.stem)
        for _ in range(2):
            commit(project)
            runpy.run_path(str(migration))["migrate"](project)
            assert contents(project) == contents(example / "after"), migration.name


@pytest.mark.full
def test_ten_releases_in_one_step(tmp_path: Path) -> None:
    """Each release moves one file and rewrites it; the edit goes all the way."""
    template = copy_template(tmp_path / "template")
    note = template / "template/docs/note0.md"
    note.write_text("".join(f"line {n} of release 0\n" for n in range(30)))
    problem = template / "template/src/{{package_name}}/problem.py.jinja"
    edit(problem, lambda text: text + "# see note0\n")
    commit(template)
    git(template, "tag", "v0.1.1")
    project = tmp_path / "project"
    copier.run_copy(str(template), project, defaults=True, quiet=True)
    edit(project / "docs/note0.md", lambda text: "the team's line\n" + text)
    commit(project)
    for release in range(1, 11):
        (note.parent / f"note{release - 1}.md").unlink()
        text = "".join(f"{'other ' * release}text {n}\n" for n in range(25))
        (note.parent / f"note{release}.md").write_text(text)
        name = f"hooks/migrations/v0_{release + 1}_0_move_note.py"
        moved = {"old": f"docs/note{release - 1}.md", "new": f"docs/note{release}.md"}
        (template / name).write_text(MIGRATION.format(**moved))
        commit(template)
        git(template, "tag", f"v0.{release + 1}.0")
    done = script(project, "update")
    assert done.stdout.count("Migration: ") == 10
    assert "v0_2_0_move_note" in done.stdout.split("Migration: ")[1], "oldest first"
    left = {path for path in contents(project) if path.startswith("docs/note")}
    assert left == {"docs/note10.md"}
    assert "the team's line" in (project / "docs/note10.md").read_text()


@pytest.mark.full
def test_migration_may_change_team_files_and_may_fail(tmp_path: Path) -> None:
    template = copy_template(tmp_path / "template")
    project = render(template, tmp_path / "project")
    edit(project / f"{PACKAGE}/problem.py", lambda text: TEAM_LINE + text + "# old_name\n")
    commit(project)
    migration = template / "hooks/migrations/v0_2_0_rename.py"
    migration.write_text(
        "def migrate(project):\n"
        "    for path in project.glob('src/*/problem.py'):\n"
        "        path.write_text(path.read_text().replace('old_name', 'new_name'))\n"
    )
    commit(template)
    git(template, "tag", "v0.2.0")
    updated(project)
    text = (project / f"{PACKAGE}/problem.py").read_text()
    assert text.startswith(TEAM_LINE)
    assert text.endswith("# new_name\n")

    git(project, "reset", "--quiet", "--hard")
    migration.write_text("def migrate(project):\n    raise OSError('disk')\n")
    commit(template)
    git(template, "tag", "v0.3.0")
    refused(project, "Migration v0_2_0_rename failed: OSError('disk')")


# ---- Bad situations ----------------------------------------------------------------------------


def test_dirty_tree(old: Callable[..., Path]) -> None:
    project = old()
    (project / "notes.txt").write_text("mine\n")
    assert "?? notes.txt" in refused(project, "Commit or stash")


@pytest.mark.full
def test_no_repository_and_no_commit(old: Callable[..., Path]) -> None:
    project = old()
    shutil.rmtree(project / ".git")
    done = script(project, "update", GIT_CEILING_DIRECTORIES=str(project.parent))
    assert done.returncode == 2
    assert "git init" in done.stderr
    git(project, "init", "--quiet")
    assert "no commit yet" in script(project, "update").stderr


@pytest.mark.full
def test_inside_another_repository(old: Callable[..., Path], tmp_path: Path) -> None:
    project = old()
    shutil.rmtree(project / ".git")
    commit(tmp_path)
    refused(project, "a repository of its own")


def test_shallow_clone_detached_head_odd_path(old: Callable[..., Path], tmp_path: Path) -> None:
    project = old()
    edit_all(project)
    clone = tmp_path / "Ünïcode und Leerzeichen 航班"
    git(tmp_path, "clone", "--quiet", "--depth=1", project.as_uri(), str(clone))
    git(clone, "checkout", "--quiet", "--detach")
    (clone / "notebooks/Übersicht 1.py").write_text("# ours\n")
    (clone / "docs/roll-back.md").rename(clone / "docs/zurück rollen.md")
    commit(clone)
    done = script(clone, "update")
    assert done.returncode == 1
    assert "docs/zurück rollen.md" in done.stderr
    assert "the template removed it" in done.stderr or "you added or moved" in done.stderr
    assert (clone / "notebooks/Übersicht 1.py").read_text() == "# ours\n"
    assert TEAM_LINE in (clone / "docs/zurück rollen.md").read_text()
    assert script(clone, "update", "--undo").returncode == 0
    is_untouched(clone)


@pytest.mark.parametrize(
    "committed",
    [
        pytest.param(True, marks=pytest.mark.full, id="in_commits"),
        pytest.param(False, id="in_working_tree"),
    ],
)
def test_windows_line_endings(old: Callable[..., Path], committed: bool) -> None:
    project = old()
    (project / ".gitattributes").unlink()
    commit(project)  # first, because git adds files by the attributes that it still has
    if committed:
        for path in files_of(project):
            (project / path).write_bytes((project / path).read_bytes().replace(b"\n", b"\r\n"))
    edit(project / "Makefile", lambda text: TEAM_LINE + text)
    commit(project)
    if not committed:
        git(project, "config", "core.autocrlf", "true")
        git(project, "rm", "--quiet", "-r", "--cached", ".")
        git(project, "reset", "--quiet", "--hard")
        assert b"\r\n" in (project / "Makefile").read_bytes()
    updated(project)
    text = (project / "Makefile").read_bytes()
    assert TEAM_LINE.strip().encode() in text
    assert b"# of version 2" in text
    assert b"# of version 2" in (project / f"{PACKAGE}/mlops/schedules.py").read_bytes()
    assert committed or b"\r\n" in text
    assert b"\r\n" in (project / f"{PACKAGE}/problem.py").read_bytes()


@pytest.mark.parametrize(
    "home",
    [
        pytest.param("/nowhere/at-all", marks=pytest.mark.full),
        "https://127.0.0.1:9/template.git",
    ],
)
def test_unreachable_template(old: Callable[..., Path], versions: Path, home: str) -> None:
    """Gone, or this machine is offline."""
    project = old()
    text = (project / ".copier-answers.yml").read_text().replace(str(versions), home)
    (project / ".copier-answers.yml").write_text(text)
    commit(project)
    said = refused(project, "cannot be reached")
    assert "--source" in said
    done = script(project, "status")
    assert done.returncode == 2
    assert "v0.1.0" in done.stdout
    assert "cannot be reached" in done.stderr


@pytest.mark.full
def test_offline_from_a_clone(old: Callable[..., Path], versions: Path) -> None:
    """As docs/update.md says: git takes the clone for the address, which stays as it was."""
    project = old()
    home = "https://127.0.0.1:9/template.git"
    edit(project / ".copier-answers.yml", lambda text: text.replace(str(versions), home))
    commit(project)
    instead = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": home}
    done = script(project, "update", GIT_CONFIG_KEY_0=f"url.{versions}.insteadOf", **instead)
    assert done.returncode == 0, done.stderr
    assert answers_of(project)["_src_path"] == home
    assert answers_of(project)["_commit"] == "v0.2.0"


def test_moved_template(old: Callable[..., Path], versions: Path, tmp_path: Path) -> None:
    """Its new home came without tags, too: hooks/releases.yml stands in."""
    project = old()
    elsewhere = tmp_path / "new home"
    git(tmp_path, "clone", "--quiet", "--no-local", str(versions), str(elsewhere))
    releases = {tag: git(elsewhere, "rev-parse", tag).strip() for tag in ("v0.1.0", "v0.2.0")}
    (elsewhere / "hooks/releases.yml").write_text(yaml.safe_dump(releases))
    commit(elsewhere)
    git(elsewhere, "tag", "--delete", "v0.1.0", "v0.2.0")
    updated(project, "--source", str(elsewhere))
    answers = answers_of(project)
    assert answers["_src_path"] == str(elsewhere)
    assert answers["_commit"] == "v0.2.0"
    assert (project / "docs/added.md").is_file()


@pytest.mark.full
def test_shallow_template(old: Callable[..., Path], versions: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", versions.as_uri(), str(shallow))
    refused(old(), "git fetch --unshallow", "--source", str(shallow))


def test_missing_answers(old: Callable[..., Path]) -> None:
    project = old()
    (project / ".copier-answers.yml").unlink()
    commit(project)
    assert "git checkout COMMIT~1" in refused(project, "is missing")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("ci: github", "ci: [github", "is no YAML"),
        pytest.param(
            "ci: github", "ci: jenkins", "refuses the answer to ci", marks=pytest.mark.full
        ),
        ("_commit: v0.1.0", "_commit: v9.9.9", "has no v9.9.9"),
        ("_commit: v0.1.0\n", "", "has no _commit"),
        ("_src_path: ", "other: ", "has no _src_path"),
    ],
)
def test_broken_answers(old: Callable[..., Path], before: str, after: str, says: str) -> None:
    project = old()
    edit(project / ".copier-answers.yml", lambda text: text.replace(before, after))
    commit(project)
    assert "git log -p" in refused(project, says)


@pytest.mark.full
def test_answer_edited_by_hand(old: Callable[..., Path]) -> None:
    project = old()
    answers = project / ".copier-answers.yml"
    edit(answers, lambda text: text.replace("ci: github", "ci: both"))
    commit(project)
    said = updated(project)
    assert "never in this project" in said
    assert "  .azure/pull-request.yml" in said


@pytest.mark.full
def test_untracked_file_in_the_way(old: Callable[..., Path]) -> None:
    project = old()
    edit(project / ".gitignore", lambda text: text + "docs/added.md\n")
    commit(project)
    (project / "docs/added.md").write_text("the team's, ignored by git\n")
    assert "  docs/added.md" in refused(project, "Move them away")


# Stands before git in PATH and kills the update when it writes the project, before or after.
KILLER = """#!/bin/sh
case " $* " in *" -u "*) ;; *) exec {git} "$@" ;; esac
case {when} in
within) # as if git had died: half of the files, the lock, no index
    for name in docs/added.md Makefile; do printf "half a fi" > $name; done
    : > .git/index.lock ;;
after) {git} "$@" ;;
esac
kill -9 $PPID
"""


UPDATE = [sys.executable, "scripts/template.py", "update", "--no-check"]
SLOW = [pytest.param(when, marks=pytest.mark.full) for when in ("before", "after")]


@pytest.mark.parametrize("when", ["within", *SLOW])
def test_killed_while_writing(old: Callable[..., Path], tmp_path: Path, when: str) -> None:
    project = old()
    edit_all(project)
    before = contents(project)
    shim = tmp_path / "bin/git"
    shim.parent.mkdir()
    shim.write_text(KILLER.format(git=shutil.which("git"), when=when))
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    killed = subprocess.run(
        UPDATE, cwd=project, capture_output=True, env={**os.environ, "PATH": path}
    )
    assert killed.returncode == -signal.SIGKILL
    if when == "before":
        assert contents(project) == before
    else:
        assert "was cut short" in script(project, "update").stderr
        assert script(project, "update", "--undo").returncode == 0
    assert contents(project) == before
    is_untouched(project)
    assert script(project, "update").returncode == 1, "the one conflict, as if nothing had been"


@pytest.mark.full
@pytest.mark.parametrize("seconds", [0.8, 1.6, 2.4])
def test_killed_at_any_time(old: Callable[..., Path], seconds: float) -> None:
    project = old()
    edit_all(project)
    before = contents(project)
    process = subprocess.Popen(UPDATE, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    if git(project, "status", "--porcelain"):
        assert script(project, "update", "--undo").returncode == 0
    assert contents(project) == before
    is_untouched(project)
