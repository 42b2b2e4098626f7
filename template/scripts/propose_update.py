"""Bring the template's newest version onto a branch: what `make propose-update` runs.

The merge is that of `make update` (template.py), committed on a branch of its own. With `github` or
`azure` also push the branch and open a pull request for it, as CI does. Conflicts end with exit
code 3. They are committed with their marks, and listed in the text of the pull request
and in a file; while that file is there `make check` fails, so nobody merges them by mistake.

Runs in an environment with Copier (see the Makefile), not in the project's own.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import template

TEXT = Path("reports/template-update.md")
LEFT = Path("template-conflicts.md")
CONFLICTS = 3
MARKER = "^<{7} HEAD"
LONGEST = 3_900  # characters that Azure DevOps takes as a description, and a margin
PERSON = dict(os.environ)  # who commits, and with which settings of git


def run(*command: str, accept: tuple[int, ...] = (0,)) -> str:
    """Run a command; its output. Any other code than the accepted ends it all."""
    print("+", shlex.join(command), flush=True)
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, env=PERSON)
    if done.returncode not in accept:
        sys.exit(f"error: {command[0]} failed ({done.returncode}).\n{done.stdout}")
    return done.stdout.strip()


def left_in(commit: str) -> list[str]:
    """Files of a commit that still hold conflicts: listed as such, or with a mark."""
    listed = run("git", "ls-tree", "--name-only", commit, str(LEFT))
    command = ("git", "grep", "-I", "--name-only", "-E", "-e", MARKER, commit, "--", ".")
    marked = run(*command, f":(exclude){LEFT}", accept=(0, 1)).splitlines()
    return [*listed.splitlines(), *(line.partition(":")[2] for line in marked)]


def end(conflicts: list[str]) -> int:
    """Say how it ended; unresolved conflicts are a failure."""
    if conflicts:
        print(f"error: unresolved conflicts: {', '.join(conflicts)}", file=sys.stderr)
    return CONFLICTS if conflicts else 0


def propose(project: Path, publish: str) -> int:
    """Update on a branch, and publish it."""
    template.refuse_unready(project)
    with tempfile.TemporaryDirectory(prefix="template-update-") as name:
        workshop = template.Workshop(project, Path(name).resolve())
        new = template.prepare(workshop, template.read_answers(project))
        if new.old == new.new:
            print(f"The template has nothing newer than {new.old}.")
            return 0
        branch = f"template/{new.new}"
        sign_in(publish)
        if publish and run("git", "ls-remote", "--heads", "origin", branch):
            # Somebody may be resolving conflicts there: the branch is left alone, not forgotten.
            run("git", "fetch", "--quiet", "origin", branch)
            print(f"Branch {branch} is there already.")
            return end(left_in("FETCH_HEAD"))
        run("git", "switch", "--quiet", "--force-create", branch)
        template.apply(project, template.Merge(new.merged.tree, []))
    conflicts = list(new.merged.conflicts())
    found = [f"- `{path}`: {kind}" for path, kind in conflicts]
    if conflicts:
        text = f"# Conflicts with template {new.new}\n\nResolve each, then delete this file.\n"
        LEFT.write_text("\n".join([text, *found, ""]), "utf-8")
        run("git", "add", "--force", str(LEFT))
    title = f"Update from the template to {new.new}"
    run("git", "commit", "--quiet", "--no-verify", "-m", title)
    template.state_file(project).unlink()
    lines = [f"Template {new.old} to {new.new}, as `make update` does it. Files of the team stay."]
    if conflicts:
        lines += ["", "**Conflicts to resolve on this branch before it is merged**, after which"]
        lines += [f"`{LEFT}` has to be deleted:", "", *found]
    lines += ["", *new.notes.splitlines()]
    TEXT.parent.mkdir(exist_ok=True)
    TEXT.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"Branch {branch}; text of its pull request: {TEXT}")
    if publish:
        open_pull_request(publish, branch, title, lines)
    return end([path for path, _ in conflicts])


def sign_in(system: str) -> None:
    """Let git use the token of the CI run: the checkout kept none."""
    if system == "github":
        run("gh", "auth", "setup-git")  # takes GH_TOKEN
    elif system == "azure":
        token = PERSON["SYSTEM_ACCESSTOKEN"]
        PERSON.update(
            AZURE_DEVOPS_EXT_PAT=token,
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0="http.extraheader",
            GIT_CONFIG_VALUE_0=f"Authorization: Bearer {token}",
        )


def open_pull_request(system: str, branch: str, title: str, lines: list[str]) -> None:
    """Push the branch and open the pull request."""
    run("git", "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    if system == "github":
        where = ["--head", branch, "--base", "main"]
        run("gh", "pr", "create", "--title", title, "--body-file", str(TEXT), *where)
        return
    while sum(len(line) + 1 for line in lines) > LONGEST:
        lines = [*lines[:-2], f"... (all of it: {TEXT})"]
    where = ["--source-branch", branch, "--target-branch", "main", "--detect", "true"]
    run("az", "repos", "pr", "create", *where, "--title", title, "--description", *lines)


def main() -> int:
    """Update; in CI commit in the name of the robot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("publish", nargs="?", default="", choices=["", "github", "azure"])
    publish = parser.parse_args().publish
    if publish:
        for who in ("AUTHOR", "COMMITTER"):
            PERSON[f"GIT_{who}_NAME"] = "template-update"
            PERSON[f"GIT_{who}_EMAIL"] = "template-update@users.noreply.invalid"
    os.environ.update(template.environment())  # for the git that Copier runs
    try:
        return propose(Path.cwd().resolve(), publish)
    except template.TemplateError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
