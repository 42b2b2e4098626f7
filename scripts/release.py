"""Cut a release of the template, or choose the commit of one that is not tagged yet.

    make release VERSION=0.2.0                     # the commit checked out: changelog, tag, line
    make release-candidate VERSION=0.1.0 COMMIT=HEAD # a commit of the past: line only, no tag

A release is a tag, and a line in hooks/releases.yml for clones that come without tags. The line is
in the commit after the release, because a commit cannot hold its own name. Nothing is pushed.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

RELEASES, CHANGELOG = Path("hooks/releases.yml"), Path("CHANGELOG.md")
UNRELEASED = "## Unreleased\n"
TOLD = "### What changes in your project\n"


def git(*arguments: str) -> str:
    """Run git; its output. Its own message is the error."""
    done = subprocess.run(["git", *arguments], text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"error: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def known() -> dict[str, str]:
    """Each release with its commit, as the file has them."""
    text = RELEASES.read_text("utf-8")
    return dict(re.findall(r"^(v\d+\.\d+\.\d+): ([0-9a-f]{40})$", text, re.MULTILINE))


def number(tag: str) -> list[int]:
    """A tag as numbers, for comparing."""
    return [*map(int, tag.removeprefix("v").split("."))]


def check(tag: str, commit: str) -> None:
    """Refuse what would not be the newest release of this history."""
    if not re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", tag):
        sys.exit(f"error: VERSION={tag[1:]!r} is no version. Fix: VERSION=0.2.0")
    if git("status", "--porcelain"):
        sys.exit("error: there are changes that are not committed. Fix: commit or stash them.")
    if git("tag", "--list", tag):
        sys.exit(f"error: {tag} is tagged already. Fix: choose a later version.")
    for earlier, its in known().items():
        if earlier == tag:
            continue
        if number(earlier) > number(tag):
            sys.exit(f"error: {earlier} is a release already. Fix: choose a later version.")
        git("merge-base", "--is-ancestor", its, commit)
    git("merge-base", "--is-ancestor", commit, "HEAD")


def section(text: str) -> str:
    """What is unreleased in a changelog."""
    if UNRELEASED not in text:
        sys.exit("error: CHANGELOG.md has no Unreleased. Fix: write what is new there.")
    return re.split(r"^## ", text.split(UNRELEASED, 1)[1], flags=re.MULTILINE)[0]


def record(tag: str, commit: str) -> None:
    """Write the line of a release and commit it."""
    text = RELEASES.read_text("utf-8")
    line = f"{tag}: {commit}\n"
    replaced, found = re.subn(rf"^{re.escape(tag)}: .*\n", line, text, flags=re.MULTILINE)
    RELEASES.write_text(replaced if found else text + line, "utf-8")
    git("add", str(RELEASES))
    git("commit", "--quiet", "--allow-empty", "--message", f"Record {tag}")


def release(tag: str) -> None:
    """Date the changelog, commit, tag, and record."""
    text = CHANGELOG.read_text("utf-8")
    told = section(text)
    if TOLD not in told or not told.split(TOLD, 1)[1].strip():
        sys.exit(f"error: Unreleased lacks {TOLD.strip()!r}. Fix: say what a team sees and does.")
    today = datetime.datetime.now(datetime.UTC).date()
    CHANGELOG.write_text(text.replace(UNRELEASED, f"## {tag[1:]} ({today})\n", 1), "utf-8")
    git("add", str(CHANGELOG))
    git("commit", "--quiet", "--message", f"Release {tag[1:]}")
    git("tag", "--annotate", tag, "--message", tag)
    record(tag, git("rev-parse", f"{tag}^{{commit}}"))
    print(f"{tag} is tagged and recorded. After make test-full: git push --follow-tags")


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--candidate", metavar="COMMIT", help="only record this commit")
    options = parser.parse_args()
    tag = f"v{options.version}"
    commit = git("rev-parse", "--verify", f"{options.candidate or 'HEAD'}^{{commit}}")
    check(tag, commit)
    if options.candidate:
        record(tag, commit)
        print(f"{tag} is {commit} until it is tagged. Now: make test-releases")
    else:
        release(tag)


if __name__ == "__main__":
    main()
