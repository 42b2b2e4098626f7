"""Keep this project up to date with its template: `make update`, `add-model`, `template-status`.

`copier update` never sees the project. It updates a copy that holds nothing of the team's: the
template at the recorded version, rendered with the recorded answers. Git then merges what changed
in that copy into the project's last commit. So an edit follows a file that the template moved, and
an edit of a file that the template removed is a conflict, not a loss. All of this happens in a
temporary folder; the project itself is written last, in one step that can be taken back.

Runs in an environment with Copier (see the Makefile), not in the project's own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import copier
import jinja2
import packaging.version
import pathspec
import yaml

ANSWERS = ".copier-answers.yml"
MADE_BY_HAND = f"If it was edited by hand: git log -p -- {ANSWERS}"
FIXED = ("package_name",)
# Where git keeps what a person may have edited in an update before taking it back.
KEPT = "refs/template/undone"
SHAPING = ("task",)
HOSTS = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/", "git+": ""}
# For the temporary repositories: no setting of a person's may change how files are merged.
SETTINGS = """
[commit]
    gpgSign = false
[core]
    autocrlf = false
    hooksPath = /dev/null
    safecrlf = false
[merge]
    conflictStyle = merge
    directoryRenames = conflict
    renames = true
    renormalize = true
[rerere]
    enabled = false
"""
KINDS = {
    "DD": "both removed or moved it",
    "AA": "both added it",
    "UU": "both changed the same lines",
    "AU": "you added or moved it; the template did otherwise",
    "UA": "the template added or moved it; you did otherwise",
    "DU": "you removed it, the template changed it",
    "UD": "the template removed it, you changed it",
}


class TemplateError(Exception):
    """Why nothing more can be done, and the way out."""


def environment() -> dict[str, str]:
    """The environment for git and Copier: no question, no translation."""
    people = {
        f"GIT_{who}_{what}": text
        for who in ("AUTHOR", "COMMITTER")
        for what, text in (("NAME", "Template"), ("EMAIL", "template@example.com"))
    }
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
    inherited = {key: value for key, value in os.environ.items() if key not in elsewhere}
    fixed = {"GIT_LFS_SKIP_SMUDGE": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    return {**inherited, **people, **fixed}


def git(
    where: Path, *arguments: str, given: bytes = b"", extra: dict[str, str] | None = None
) -> str:
    """Run git there; its output. Raises TemplateError with git's own words when it fails."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=where,
        input=given,
        capture_output=True,
        env={**environment(), **(extra or {})},
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise TemplateError(f"git {arguments[0]} failed in {where}:\n{said}")
    return done.stdout.decode("utf-8", "surrogateescape")


def entries(text: str) -> list[str]:
    """The entries of git's -z output."""
    return [entry for entry in text.split("\0") if entry]


def run_copier(action: Callable[..., Any], where: Path, **options: Any) -> None:
    """Let Copier work there, never with --trust."""
    try:
        action(where, defaults=True, overwrite=True, quiet=True, **options)
    except Exception as error:  # Copier names no base class of its errors
        raise TemplateError(f"Copier: {error}") from None


# ---- What the project and its template say -----------------------------------------------------


def read_answers(project: Path) -> dict[str, Any]:
    """The project's answers; TemplateError names what is missing or broken."""
    path = project / ANSWERS
    if not path.is_file():
        raise TemplateError(
            f"{ANSWERS} is missing, so the template and its version are unknown. If it was "
            f"deleted:\n  git log --diff-filter=D --format=%h -- {ANSWERS}   # the commit\n"
            f"  git checkout COMMIT~1 -- {ANSWERS}"
        )
    try:
        answers = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TemplateError(f"{ANSWERS} is no YAML: {error}\n{MADE_BY_HAND}") from None
    if not isinstance(answers, dict):
        raise TemplateError(f"{ANSWERS} holds no answers.\n{MADE_BY_HAND}")
    for key in ("_commit", "_src_path"):
        if not isinstance(answers.get(key), str):
            raise TemplateError(
                f"{ANSWERS} has no {key}, so there is nothing to update from.\n{MADE_BY_HAND}"
            )
    return answers


def version_of(text: str) -> packaging.version.Version | None:
    """The version in a tag or `git describe`; None for a bare commit."""
    try:
        return packaging.version.Version(re.sub(r"-\d+-g[0-9a-f]+$", "", text))
    except packaging.version.InvalidVersion:
        return None


def fetch_template(source: str, to: Path) -> Path:
    """Clone the template with its releases tagged, whether or not its home has the tags."""
    url = source
    for prefix, host in HOSTS.items():
        if source.startswith(prefix):
            url = host + source.removeprefix(prefix)
    if Path(url).expanduser().exists():
        url = str(Path(url).expanduser().resolve())
    try:
        git(to.parent, "clone", "--quiet", "--bare", url, str(to))
    except TemplateError as error:
        raise TemplateError(
            f"The template {source} cannot be reached.\n{error}\nOffline? Try again later, or "
            "update from a clone (docs/update.md). Has it moved? "
            "make update ARGS='--source NEW-ADDRESS'"
        ) from None
    if (to / "shallow").exists():
        raise TemplateError(
            f"The template {source} is a shallow clone. Fix: git fetch --unshallow there."
        )
    listed = git(to, "ls-tree", "--name-only", "HEAD", "hooks/releases.yml")
    releases = yaml.safe_load(git(to, "show", "HEAD:hooks/releases.yml")) if listed.strip() else {}
    tags = git(to, "tag").split()
    for tag, commit in (releases or {}).items():
        if tag not in tags and has_commit(to, commit):
            git(to, "tag", tag, commit)
    return to


def has_commit(template: Path, name: str) -> bool:
    """Whether the template has this commit."""
    try:
        git(template, "rev-parse", "--verify", "--quiet", name + "^{commit}")
    except TemplateError:
        return False
    return True


def contains(template: Path, commit: str, earlier: str) -> bool:
    """Whether one commit of the template comes after another, or is the same."""
    try:
        git(template, "merge-base", "--is-ancestor", earlier, commit)
    except TemplateError:
        return False
    return True


def newest(template: Path) -> str:
    """What Copier takes when nothing else is asked for: the newest release, or HEAD."""
    tags = [(version, tag) for tag in git(template, "tag").split() if (version := version_of(tag))]
    released = [pair for pair in tags if not pair[0].is_prerelease]
    return max(released)[1] if released else "HEAD"


def release_notes(template: Path, old: str, new: str) -> str:
    """What the changelog of the new version says since the old one."""
    try:
        text = git(template, "show", f"{new}:CHANGELOG.md")
    except TemplateError:
        return ""
    before, after = version_of(old), version_of(new)
    notes = []
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
        title = re.match(r"## \[?v?([^\s\]]+)", section)
        version = version_of(title[1]) if title else None
        if version is None:
            shown = new not in git(template, "tag").split()
        else:
            shown = (before is None or version > before) and (after is None or version <= after)
        if shown:
            notes.append(section.strip())
    return "\n\n".join(notes)


def team_files(template: Path, commit: str, answers: dict[str, Any]) -> pathspec.GitIgnoreSpec:
    """The patterns of files that are the team's, from the template's own `_exclude`."""
    config = yaml.safe_load(git(template, "show", f"{commit}:copier.yml"))
    patterns = [
        jinja2.Template(pattern).render(answers, _copier_operation="update")
        for pattern in config.get("_exclude", [])
        if "_copier_operation" in pattern
    ]
    return pathspec.GitIgnoreSpec.from_lines(filter(None, patterns))


# ---- Trees -------------------------------------------------------------------------------------


@dataclass
class Workshop:
    """The temporary folder of one update, whose repositories share the project's objects."""

    project: Path
    folder: Path
    objects: Path = field(init=False)

    def __post_init__(self) -> None:
        """Find the project's objects, also from a linked worktree."""
        shared = git(self.project, "rev-parse", "--git-path", "objects").strip()
        self.objects = (self.project / shared).resolve()

    def repository(self, where: Path) -> Path:
        """Make a folder a repository that reads the project's objects and ignores line ends."""
        git(where, "init", "--quiet", "--template=")
        with (where / ".git/config").open("a", encoding="utf-8") as config:
            config.write(SETTINGS)
        for name, line in (
            ("objects/info/alternates", str(self.objects)),
            ("info/attributes", "* text=auto eol=lf"),
        ):
            path = where / ".git" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(line + "\n", "utf-8")
        return where

    def keep(self, where: Path) -> str:
        """Write a folder's files as a tree into the project's objects; its name."""
        shared = {"GIT_OBJECT_DIRECTORY": str(self.objects)}
        git(where, "add", "--all", "--force", ".", extra=shared)
        return git(where, "write-tree", extra=shared).strip()

    def commit(self, tree: str, *parents: str) -> str:
        """Write a commit that no branch of the project ever reaches."""
        options = [word for parent in parents for word in ("-p", parent)]
        return git(self.project, "commit-tree", tree, *options, "-m", "template").strip()

    def base(self, template: Path, answers: dict[str, Any]) -> Path:
        """What the template made of the answers at the recorded version."""
        where = self.folder / "base"
        where.mkdir()
        recorded = answers["_commit"]
        if not has_commit(template, recorded):
            raise TemplateError(
                f"The template has no {recorded}, which {ANSWERS} names as this project's version."
                f"\nIs it the right template? {answers['_src_path']}\n{MADE_BY_HAND}"
            )
        text = yaml.safe_dump(
            {**answers, "_src_path": f"git+{template.as_uri()}"}, allow_unicode=True
        )
        (where / ANSWERS).write_text(text, "utf-8")
        try:
            run_copier(copier.run_recopy, where, vcs_ref=recorded)
        except TemplateError as error:
            raise TemplateError(
                f"{recorded} of the template refuses the answers in {ANSWERS}: {error}\n"
                f"{MADE_BY_HAND}"
            ) from None
        lost = {
            key
            for key, answer in read_answers(where).items()
            if key[0] != "_" and answers.get(key, answer) != answer
        }
        if lost:
            raise TemplateError(
                f"{recorded} refuses the answer to {', '.join(sorted(lost))}. {MADE_BY_HAND}"
            )
        return self.repository(where)

    def updated(self, base: Path, ref: str, data: list[str]) -> Path:
        """The same at another version or with other answers, by `copier update`."""
        where = self.folder / "updated"
        shutil.copytree(base, where, symlinks=True)
        git(where, "add", "--all", "--force", ".")
        git(where, "commit", "--quiet", "--message", "before")
        changed = dict(answer.split("=", 1) for answer in data)
        run_copier(copier.run_update, where, vcs_ref=ref, data=changed, skip_answered=True)
        left = entries(git(where, "ls-files", "-z", "--unmerged"))
        if left:
            raise TemplateError(
                "The template's two versions do not fit each other. Tell its authors."
            )
        return where


# ---- The update --------------------------------------------------------------------------------


@dataclass
class Merge:
    """A project's files after an update; with conflicts, the entries for the index."""

    tree: str
    unmerged: list[str]

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Each path in conflict, and in which way."""
        stages: dict[str, set[str]] = {}
        for entry in self.unmerged:
            described, path = entry.split("\t", 1)
            stages.setdefault(path, set()).add(described.rsplit(" ", 1)[1])
        kinds = {"1": "DD", "2": "AU", "3": "UA", "23": "AA", "123": "UU", "12": "UD", "13": "DU"}
        for path, found in sorted(stages.items()):
            yield path, KINDS[kinds["".join(sorted(found))]]


def migrations(template: Path, old: str, new: str, folder: Path) -> list[Path]:
    """The new version's migrations that this project has not seen, oldest first."""
    names = git(template, "ls-tree", "--name-only", new, "hooks/migrations/").splitlines()
    found = []
    for name in names:
        match = re.fullmatch(r"hooks/migrations/v(\d+)_(\d+)_(\d+)_\w+\.py", name)
        if not match:
            continue
        version = packaging.version.Version(".".join(match.groups()))
        before = version_of(old)
        if before is None or version > before:
            path = folder / Path(name).name
            path.write_text(git(template, "show", f"{new}:{name}"), "utf-8")
            found.append((version, path))
    return [path for _, path in sorted(found)]


def merge(workshop: Workshop, base: Path, updated: Path, label: str, steps: list[Path]) -> Merge:
    """Merge what changed between two renders into the project's last commit."""
    ours = workshop.folder / "ours"
    ours.mkdir()
    workshop.repository(ours)
    git(ours, "read-tree", git(workshop.project, "rev-parse", "HEAD^{tree}").strip())
    git(ours, "checkout-index", "--all", "--index")
    # Where the template's home is, and its version, is never a matter of merging.
    text = (updated / ANSWERS).read_text("utf-8")
    shutil.copyfile(ours / ANSWERS, base / ANSWERS)
    for step in steps:
        for tree in (base, ours, updated):
            if tree in (base, ours):
                git(tree, "add", "--all", "--force", ".")
            try:
                runpy.run_path(str(step))["migrate"](tree)
            except Exception as error:
                raise TemplateError(f"Migration {step.stem} failed: {error!r}") from error
    (updated / ANSWERS).write_text(text, "utf-8")
    root = workshop.commit(workshop.keep(base))
    # Without a migration the project's own tree: adding files anew could change their line ends.
    kept = workshop.keep(ours) if steps else git(workshop.project, "rev-parse", "HEAD^{tree}")
    mine = workshop.commit(kept.strip(), root)
    theirs = workshop.commit(workshop.keep(updated), root)
    git(ours, "reset", "--quiet", "--hard", mine)
    git(ours, "branch", label, theirs)
    shared = {"GIT_OBJECT_DIRECTORY": str(workshop.objects)}
    try:
        git(ours, "merge", "--quiet", "--no-commit", "--no-ff", label, extra=shared)
    except TemplateError:
        if not git(ours, "ls-files", "--unmerged").strip():
            raise
    unmerged = entries(git(ours, "ls-files", "-z", "--unmerged"))
    for path in {entry.split("\t", 1)[1] for entry in unmerged}:
        command = ("add", "--force") if os.path.lexists(ours / path) else ("rm", "--quiet")
        git(ours, "--literal-pathspecs", *command, "--", path, extra=shared)
    return Merge(git(ours, "write-tree", extra=shared).strip(), unmerged)


def state_file(project: Path) -> Path:
    """Where an update that is being written leaves the way back."""
    return project / git(project, "rev-parse", "--git-path", "template-update.json").strip()


def changed_paths(project: Path, old: str, new: str, kinds: str = "") -> list[str]:
    """Paths that differ between two trees."""
    options = [f"--diff-filter={kinds}"] if kinds else []
    return entries(git(project, "diff-tree", "-r", "-z", "--name-only", *options, old, new))


def apply(project: Path, merged: Merge) -> None:
    """Write the merge into the project, staged; leave its conflicts for git to show."""
    head = git(project, "rev-parse", "HEAD").strip()
    in_the_way = [
        path
        for path in changed_paths(project, head, merged.tree, "A")
        if os.path.lexists(project / path)
    ]
    if in_the_way:
        raise TemplateError(
            "Files that git does not track are where the template adds its own. Move them away:\n"
            + "\n".join(f"  {path}" for path in in_the_way)
        )
    paths = {entry.split("\t", 1)[1] for entry in merged.unmerged}
    state = {"head": head, "tree": merged.tree, "conflicts": sorted(paths)}
    state_file(project).write_text(json.dumps(state), "utf-8")
    git(project, "read-tree", "-m", "-u", head, merged.tree)
    if merged.unmerged:
        lines = [f"0 {'0' * 40}\t{path}" for path in sorted(paths)] + merged.unmerged
        given = "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")
        git(project, "update-index", "-z", "--index-info", given=given)


def working_tree(project: Path, folder: Path) -> str:
    """Write the project's files as they are as a tree, leaving its index alone; the tree's name."""
    index = {"GIT_INDEX_FILE": str(folder / "index")}
    git(project, "read-tree", "HEAD", extra=index)
    git(project, "add", "--all", ".", extra=index)
    return git(project, "write-tree", extra=index).strip()


def undo(project: Path) -> None:
    """Take the last update back, whether it ended or was cut short."""
    path = state_file(project)
    if not path.is_file():
        raise TemplateError("There is no update to take back.")
    state = json.loads(path.read_text("utf-8"))
    if git(project, "rev-parse", "HEAD").strip() != state["head"]:
        raise TemplateError("The update is committed by now. Fix: git revert that commit.")
    with tempfile.TemporaryDirectory(prefix="template-undo-") as name:
        tree = working_tree(project, Path(name))
    kept = git(project, "commit-tree", tree, "-p", "HEAD", "-m", "Before an update was taken back")
    git(project, "update-ref", KEPT, kept.strip())
    lock = project / git(project, "rev-parse", "--git-path", "index.lock").strip()
    lock.unlink(missing_ok=True)
    git(project, "reset", "--quiet")
    added = changed_paths(project, state["head"], state["tree"], "A")
    for name in added:
        (project / name).unlink(missing_ok=True)
        for folder in (project / name).parents:
            if folder == project or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
    # A file that only the template removed is as it was, until a person resolves that.
    held = entries(git(project, "ls-tree", "-r", "-z", "--name-only", state["head"]))
    others = {*changed_paths(project, state["head"], state["tree"]), *state.get("conflicts", [])}
    if others := others & {*held}:
        given = "".join(f"{name}\0" for name in sorted(others)).encode("utf-8", "surrogateescape")
        options = ("--pathspec-from-file=-", "--pathspec-file-nul")
        git(project, "--literal-pathspecs", "checkout", "--quiet", "HEAD", *options, given=given)
    path.unlink()
    print(f"Taken back. What was there until now, edits since included: git diff HEAD {KEPT}")


def refuse_unready(project: Path) -> None:
    """An update wants a project that is one clean repository."""
    try:
        top = git(project, "rev-parse", "--show-toplevel").strip()
    except TemplateError:
        raise TemplateError(
            "This project is no git repository, so an update could not be taken back. Fix: git "
            "init && git add --all && git commit -m 'Start from the template'"
        ) from None
    if Path(top).resolve() != project:
        raise TemplateError(
            f"The project must be a repository of its own; this one begins at {top}."
        )
    if not has_commit(project, "HEAD"):
        raise TemplateError("There is no commit yet. Fix: git add --all && git commit")
    state = state_file(project)
    dirty = entries(git(project, "status", "--porcelain", "-z", "--untracked-files=all"))
    if not dirty:
        state.unlink(missing_ok=True)
        return
    listed = "\n".join(f"  {entry}" for entry in dirty[:20])
    more = f"\n  and {len(dirty) - 20} more" if len(dirty) > 20 else ""
    if (
        state.is_file()
        and json.loads(state.read_text("utf-8"))["head"]
        == git(project, "rev-parse", "HEAD").strip()
    ):
        raise TemplateError(
            f"An update has not been committed, or was cut short:\n{listed}{more}\n"
            "Commit it, or take it back: make update ARGS=--undo"
        )
    raise TemplateError(
        f"Commit or stash these first, an update wants a clean tree:\n{listed}{more}"
    )


def warn_of_hand_made_answers(workshop: Workshop, base: Path) -> None:
    """Say which files the answers ask for that the project has never had."""
    project = workshop.project
    if git(project, "rev-parse", "--is-shallow-repository").strip() == "true":
        return
    missing = changed_paths(project, "HEAD", workshop.keep(base), "A")
    if not missing:
        return
    options = ("--no-renames", "--diff-filter=D", "--name-only", "--format=", "-z")
    removed = entries(git(project, "--literal-pathspecs", "log", *options, "--", *missing))
    never = sorted({*missing} - {*removed})
    if never:
        listed = "\n".join(f"  {path}" for path in never)
        print(
            f"Note: the answers ask for files that were never in this project:\n{listed}\nIf an "
            f"answer in {ANSWERS} was edited by hand: set it back, commit, and change it with\n"
            "  make update ARGS='--data NAME=VALUE'"
        )


@dataclass
class Prepared:
    """An update that is ready to be written: both versions, release notes, what is asked anew."""

    old: str
    new: str
    notes: str
    asked: dict[str, Any]
    merged: Merge


def prepare(
    workshop: Workshop,
    answers: dict[str, Any],
    data: list[str] | None = None,
    home: str | None = None,
    ref: str | None = None,
) -> Prepared:
    """Work an update out, without a change to the project.

    `data` are answers to change (NAME=VALUE), `home` is the template's new address, `ref` another
    version than the newest release.
    """
    home = home or answers["_src_path"]
    template = fetch_template(home, workshop.folder / "template")
    base = workshop.base(template, answers)
    warn_of_hand_made_answers(workshop, base)
    wanted = ref or newest(template)
    if not ref and contains(template, answers["_commit"], wanted):
        wanted = answers["_commit"]
    if not has_commit(template, wanted):
        raise TemplateError(f"The template has no version {wanted}.")
    recorded = answers["_commit"]
    if contains(template, recorded, wanted) and not contains(template, wanted, recorded):
        raise TemplateError(
            f"{wanted} is older than {recorded}, which this project has. An update only goes "
            "forward. Fix: git revert the commit of the update that you do not want."
        )
    updated = workshop.updated(base, wanted, data or [])
    after = read_answers(updated)
    old, new = answers["_commit"], after["_commit"]
    write_home(updated, home)
    steps = migrations(template, old, new, workshop.folder) if old != new else []
    for step in steps:
        print(f"Migration: {step.stem}")
    return Prepared(
        old,
        new,
        release_notes(template, old, new) if old != new else "",
        {key: after[key] for key in sorted(after.keys() - answers.keys())},
        merge(workshop, base, updated, f"template-{new}", steps),
    )


def update(project: Path, options: argparse.Namespace) -> int:
    """Bring the template's changes; the exit code."""
    refuse_unready(project)
    answers = read_answers(project)
    for answer in options.data:
        name, given, value = answer.partition("=")
        if not given:
            raise TemplateError(f"--data wants NAME=VALUE, not {answer!r}.")
        if name in FIXED and value != answers.get(name):
            raise TemplateError(f"{name} cannot change: files of yours are named after it.")
        if name == "models":
            raise TemplateError("models do not change by an update. Fix: make add-model NAME=...")
        if name in SHAPING and value != answers.get(name):
            print(f"Note: {name} shaped files that are yours; those stay as they are.")
        if name.startswith("_") or name not in answers:
            known = ", ".join(sorted(key for key in answers if key[0] != "_"))
            print(f"Note: {name} is no answer of this version (it knows {known}).")
    with tempfile.TemporaryDirectory(prefix="template-update-") as name:
        workshop = Workshop(project, Path(name).resolve())
        ready = prepare(workshop, answers, options.data, options.source, options.vcs_ref)
        if ready.old != ready.new:
            notes = ready.notes or "It has no release notes."
            print(f"From {ready.old} to {ready.new}.\n\n{notes}\n")
        for key, answer in ready.asked.items():
            print(f"New question: {key}, answered {answer!r}. Another: --data {key}=...")
        changed = changed_paths(project, "HEAD", ready.merged.tree)
        if not changed:
            print(f"Up to date: {ready.new}.")
            return 0
        write(project, ready.merged, changed, options)
    return end(project, list(ready.merged.conflicts()), options, "Update from the template")


def write_home(render: Path, home: str) -> None:
    """Have the answers of a render name the template's real home, not the clone it came from."""
    text = (render / ANSWERS).read_text("utf-8")
    written = yaml.safe_dump({"_src_path": home}, allow_unicode=True, width=10_000).strip()
    text = re.sub(r"^_src_path: .*(\n  .*)*", lambda _: written, text, flags=re.MULTILINE)
    (render / ANSWERS).write_text(text, "utf-8")


def write(project: Path, merged: Merge, changed: list[str], options: argparse.Namespace) -> None:
    """Write the merge into the project, or say what it would change."""
    if options.dry_run:
        print("\n".join(f"Would change {path}" for path in changed))
    else:
        apply(project, merged)
        print(f"{len(changed)} files changed and staged. See: git diff --cached")


def end(
    project: Path, conflicts: list[tuple[str, str]], options: argparse.Namespace, message: str
) -> int:
    """List the conflicts, or check the project; the exit code."""
    if conflicts:
        width = max(len(path) for path, _ in conflicts)
        would = "would be " if options.dry_run else ""
        print(f"\n{len(conflicts)} {would}in conflict:", file=sys.stderr)
        for path, kind in conflicts:
            print(f"  {path:{width}}  {kind}", file=sys.stderr)
        if options.dry_run:
            return 0
        print(
            "Edit each (git mergetool helps), git add or git rm it, then make check and git commit."
            "\nOr take it all back: make update ARGS=--undo",
            file=sys.stderr,
        )
        return 1
    if options.dry_run or not options.check:
        return 0
    if subprocess.run(["make", "check"], cwd=project).returncode:
        print(
            "The update is in place, and make check fails: fix what it says and commit, or take "
            "the update back with make update ARGS=--undo",
            file=sys.stderr,
        )
        return 1
    print(f"make check passes. Run make test, then: git commit -m '{message}'")
    return 0


def add_model(project: Path, options: argparse.Namespace) -> int:
    """Add a further model at the template's version that the project has; the exit code."""
    refuse_unready(project)
    answers = read_answers(project)
    models, name = answers.get("models"), options.name
    if models is None:
        raise TemplateError("This version of the template has one model. Fix: make update first.")
    if not name:
        raise TemplateError("What is the model called? Fix: make add-model NAME=minutes_late")
    there = project / "src" / answers["package_name"] / name
    if name in models or os.path.lexists(there):
        raise TemplateError(
            f"{name} is there already: {there.relative_to(project)}. Fix: choose another name."
        )
    # Beside a model that says which, one that says how much; and the other way round.
    task = options.task or {"classification": "regression"}.get(answers["task"], "classification")
    with tempfile.TemporaryDirectory(prefix="template-add-model-") as folder:
        workshop = Workshop(project, Path(folder).resolve())
        template = fetch_template(options.source or answers["_src_path"], workshop.folder / "it")
        base = workshop.base(template, answers)
        added = workshop.folder / "added"
        shutil.copytree(base, added, symlinks=True)
        run_copier(
            copier.run_recopy,
            added,
            vcs_ref=answers["_commit"],
            data={"models": {**models, name: task}},
            skip_answered=True,
        )
        write_home(added, answers["_src_path"])
        merged = merge(workshop, base, added, f"add-{name}", [])
        write(project, merged, changed_paths(project, "HEAD", merged.tree), options)
    print(f"Yours: src/{answers['package_name']}/{name}/ ({task}). See docs/add-a-model.md.")
    return end(project, list(merged.conflicts()), options, f"Add the model {name}")


def status(project: Path, options: argparse.Namespace) -> int:
    """Print the template's version, what is behind, and which of its files have local edits."""
    answers = read_answers(project)
    home = options.source or answers["_src_path"]
    print(f"Template  {home}\nVersion   {answers['_commit']}")
    with tempfile.TemporaryDirectory(prefix="template-status-") as name:
        workshop = Workshop(project, Path(name).resolve())
        template = fetch_template(home, workshop.folder / "template")
        latest = newest(template)
        behind = git(template, "rev-list", "--count", f"{answers['_commit']}..{latest}").strip()
        label = git(template, "describe", "--tags", "--always", latest).strip()
        if behind == "0":
            print("Newest    this one")
        else:
            between = release_notes(template, answers["_commit"], latest)
            titles = [line[3:] for line in between.splitlines() if line.startswith("## ")]
            print(f"Newest    {label}, {behind} commits ahead: {', '.join(titles)}".rstrip(" :"))
        base = workshop.base(template, answers)
        yours = team_files(template, answers["_commit"], answers)
        shutil.copyfile(project / ANSWERS, base / ANSWERS)
        made = workshop.keep(base)
        now = working_tree(project, workshop.folder)
        words = entries(git(project, "diff", "--name-status", "-z", "-M", made, now))
    lines = []
    while words:
        kind, path = words.pop(0)[0], words.pop(0)
        moved = f" -> {words.pop(0)}" if kind in "RC" else ""
        meaning = {"M": "changed", "D": "removed", "R": "moved", "T": "changed"}.get(kind)
        if meaning and not yours.match_file(path):
            lines.append(f"  {meaning:8}{path}{moved}")
    print("Local edits of the template's files:" if lines else "No local edits of its files.")
    print("\n".join(lines), end="\n" if lines else "")
    return 0


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["update", "status", "add-model"])
    parser.add_argument("--data", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="say what would change")
    parser.add_argument("--no-check", dest="check", action="store_false", help="skip make check")
    parser.add_argument("--source", help="the template's new address")
    parser.add_argument("--undo", action="store_true", help="take the last update back")
    parser.add_argument("--vcs-ref", help="another version than the newest release")
    parser.add_argument("--name", help="of the model to add")
    parser.add_argument("--task", help="what it predicts: classification or regression")
    options = parser.parse_args()
    project = Path.cwd().resolve()
    os.environ.update(environment())  # for the git that Copier runs
    try:
        if options.command == "status":
            return status(project, options)
        if options.command == "add-model":
            return add_model(project, options)
        if options.undo:
            undo(project)
            return 0
        return update(project, options)
    except TemplateError as reason:
        print(f"{reason}\nThe project is as it was.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
