"""The folder for what local runs fetch or build once on a machine, for all projects."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """MLOPS_CACHE, else the user's cache folder."""
    if os.environ.get("MLOPS_CACHE"):
        return Path(os.environ["MLOPS_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "databricks-mlops"
