"""Fetch the Databricks CLI of one version into a folder: what `make` does when PATH has none."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import sys
import urllib.request
import zipfile
from pathlib import Path

# A mirror with the same files, for machines that do not reach the code host.
SOURCE = os.environ.get(
    "DATABRICKS_CLI_SOURCE", "https://github.com/databricks/cli/releases/download"
)
SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def fetch(name: str, version: str) -> bytes:
    """Get one file of a release."""
    with urllib.request.urlopen(f"{SOURCE}/v{version}/{name}", timeout=120) as response:
        return bytes(response.read())


def install(version: str, folder: Path) -> Path:
    """Check the archive against the release's list of checksums and unpack the program."""
    system = SYSTEMS.get(platform.system())
    machine = MACHINES.get(platform.machine().lower())
    if system is None or machine is None:
        here = f"{platform.system()} {platform.machine()}"
        sys.exit(f"error: no Databricks CLI is known for {here}. Fix: install it by hand.")
    name = f"databricks_cli_{version}_{system}_{machine}.zip"
    try:
        archive = fetch(name, version)
        listed = fetch(f"databricks_cli_{version}_SHA256SUMS", version).decode()
    except OSError as error:
        sys.exit(
            f"error: {name} cannot be fetched from {SOURCE}: {error}. Fix: install the Databricks "
            "CLI by hand, or set DATABRICKS_CLI_SOURCE to a mirror of its releases."
        )
    digest = hashlib.sha256(archive).hexdigest()
    if f"{digest}  {name}" not in listed.splitlines():
        sys.exit(f"error: {name} is not what the release's checksums say. Fix: fetch it again.")
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "databricks"
    fresh = folder / "databricks.part"
    fresh.write_bytes(zipfile.ZipFile(io.BytesIO(archive)).read("databricks"))
    fresh.chmod(0o755)
    fresh.replace(program)
    return program


if __name__ == "__main__":
    print(f"Databricks CLI {sys.argv[1]}: {install(sys.argv[1], Path(sys.argv[2]))}")
