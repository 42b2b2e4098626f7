"""Where the project runs: this package is the only place that asks."""

from __future__ import annotations

import os

from .base import JobRun, LookedUp, MissingTableError, Platform, Span, Unscored, naive, time_of

__all__ = [
    "JobRun",
    "LookedUp",
    "MissingTableError",
    "Platform",
    "Span",
    "Unscored",
    "connect",
    "naive",
    "time_of",
]


def connect(catalog: str, schema: str) -> Platform:
    """Return the platform this process runs on, with its Spark session and MLflow set up."""
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        from .databricks import DatabricksPlatform

        return DatabricksPlatform.connect(catalog, schema)
    from .local import LocalPlatform

    return LocalPlatform.connect(schema)
