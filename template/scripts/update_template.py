"""Bring the template's newest version onto a branch: what `make propose-update` runs.

With an argument, `github` or `azure`, also push the branch and open a pull request for it, as CI
does. Copier exits with 0 when an update leaves conflicts; this does not: exit code 3 says that the
branch holds conflicts, which the text of the pull request lists.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

COPIER = shlex.split(os.environ.get("COPIER", "copier"))
TEXT = Path("reports/template-update.md")
BEHIND = 2  # exit code of `copier check-update --quiet`
CONFLICTS = 3
MARKER = "^<{7} before updating"


def run(*command: str, accept: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """Run a command; its exit code and output. Any other code than the accepted ends it all."""
    print("+", shlex.join(command), flush=True)
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE)
    if done.returncode not in accept:
        sys.exit(f"error: {command[0]} failed ({done.returncode}).\n{done.stdout}")
    return done.returncode, done.stdout.strip()


def version() -> str:
    """The version of the template that the project has."""
    for line in Path(".copier-answers.yml").read_text(encoding="utf-8").splitlines():
        if line.startswith("_commit: "):
            return line.removeprefix("_commit: ").strip("'\"")
    sys.exit("error: .copier-answers.yml has no _commit. Fix: restore it from Git.")


def conflicts_in(commit: str) -> list[str]:
    """Files of a commit with the marks that an update leaves."""
    _, found = run("git", "grep", "--name-only", "-E", "-e", MARKER, commit, "--", accept=(0, 1))
    return [line.partition(":")[2] for line in found.splitlines()]


def end(conflicts: list[str]) -> int:
    """Say how it ended; unresolved conflicts are a failure."""
    if conflicts:
        print(f"error: unresolved conflicts: {', '.join(conflicts)}", file=sys.stderr)
    return CONFLICTS if conflicts else 0


def update(publish: str) -> int:
    """Update on a branch, and publish it."""
    if run("git", "status", "--porcelain")[1]:
        sys.exit("error: there are changes that are not committed. Fix: commit or stash them.")
    asked, _ = run(*COPIER, "check-update", "--quiet", accept=(0, BEHIND))
    before = version()
    if asked == 0:
        print(f"The template has nothing newer than {before}.")
        return 0
    run(*COPIER, "update", "--skip-answered", "--defaults", "--quiet")
    after = version()
    branch = f"template/{after}"
    if publish and run("git", "ls-remote", "--heads", "origin", branch)[1]:
        # Somebody may be resolving conflicts there: the branch is left alone, but not forgotten.
        run("git", "reset", "--quiet", "--hard")
        run("git", "fetch", "--quiet", "origin", branch)
        print(f"Branch {branch} is there already.")
        return end(conflicts_in("FETCH_HEAD"))
    run("git", "switch", "--quiet", "--force-create", branch)
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--no-verify", "-m", f"Update from the template to {after}")
    conflicts = conflicts_in("HEAD")
    lines = [f"Template {before} to {after}, by `copier update`. Files that are the team's stay."]
    if conflicts:
        lines += ["", "**Conflicts to resolve on this branch before it is merged:**", ""]
        lines += [f"- `{name}`" for name in conflicts]
    TEXT.parent.mkdir(exist_ok=True)
    TEXT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Branch {branch}; text of its pull request: {TEXT}")
    if publish:
        open_pull_request(publish, branch, f"Update from the template to {after}", lines)
    return end(conflicts)


def open_pull_request(system: str, branch: str, title: str, lines: list[str]) -> None:
    """Push with the token of the CI run and open the pull request."""
    if system == "github":
        run("gh", "auth", "setup-git")  # takes GH_TOKEN for pushes
    else:
        token = os.environ["SYSTEM_ACCESSTOKEN"]
        os.environ.update(
            AZURE_DEVOPS_EXT_PAT=token,
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0="http.extraheader",
            GIT_CONFIG_VALUE_0=f"Authorization: Bearer {token}",
        )
    run("git", "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    if system == "github":
        where = ["--head", branch, "--base", "main"]
        run("gh", "pr", "create", "--title", title, "--body-file", str(TEXT), *where)
    else:
        where = ["--source-branch", branch, "--target-branch", "main", "--detect", "true"]
        run("az", "repos", "pr", "create", *where, "--title", title, "--description", *lines)


def main(publish: str = "") -> int:
    """Update; in CI commit in the name of the robot."""
    if publish not in ("", "github", "azure"):
        sys.exit(f"error: PUBLISH={publish!r} is unknown. Fix: github, azure or nothing.")
    if publish:
        for who in ("AUTHOR", "COMMITTER"):
            os.environ[f"GIT_{who}_NAME"] = "template-update"
            os.environ[f"GIT_{who}_EMAIL"] = "template-update@users.noreply.invalid"
    return update(publish)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
