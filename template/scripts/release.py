"""Start a release: give the newest commit of `main` a release tag or branch and push it."""

from __future__ import annotations

import re
import subprocess
import sys


def git(*arguments: str) -> str:
    """Run git; its output. Its own message is the error."""
    done = subprocess.run(["git", *arguments], text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"error: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def main(version: str, kind: str) -> None:
    """Check that the release is what everybody sees on `main`, then push it."""
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        sys.exit(f"error: VERSION={version!r} is no version. Fix: make release VERSION=1.2.0")
    if git("status", "--porcelain"):
        sys.exit("error: there are changes that are not committed. Fix: commit or stash them.")
    git("fetch", "--quiet", "--tags", "origin")
    here, there = git("rev-parse", "HEAD"), git("rev-parse", "origin/main")
    if here != there:
        sys.exit("error: this is not the newest commit of main. Fix: git switch main && git pull")
    prefix = {"tag": "refs/tags/v", "branch": "refs/heads/release/"}[kind]
    listed = git("ls-remote", "--refs", "origin", f"{prefix}*").splitlines()
    former = [line.split("\t")[1].removeprefix(prefix) for line in listed]
    numbers = {name: [*map(int, name.split("."))] for name in former if _is_version(name)}
    last = max(numbers, key=lambda name: numbers[name], default=None)
    if last and [*map(int, version.split("."))] <= numbers[last]:
        sys.exit(f"error: {last} is released already. Fix: choose a later version.")
    if last:
        git("fetch", "--quiet", "origin", f"{prefix}{last}")
        print(f"Changes since {last}:\n{git('log', '--oneline', 'FETCH_HEAD..HEAD')}\n")
    git("push", "--quiet", "origin", f"HEAD:{prefix}{version}")
    print(f"{prefix}{version} is pushed. Next: the plan and its approval, docs/delivery.md.")


def _is_version(name: str) -> bool:
    return re.fullmatch(r"\d+\.\d+\.\d+", name) is not None


if __name__ == "__main__":
    main(*sys.argv[1:3])
