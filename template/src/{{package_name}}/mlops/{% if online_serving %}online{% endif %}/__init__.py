"""Online features and serving: the latest features by key, and the champion behind an endpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .endpoint import Endpoint, RegistryEndpoint
from .store import OnlineStore, SqlStore

if TYPE_CHECKING:
    from pathlib import Path

    from ..platform import Platform
    from ..registry import Registry

__all__ = ["Endpoint", "OnlineStore", "endpoint_of", "sql_store", "store_of"]


def sql_store(home: Path) -> SqlStore:
    """The store at ONLINE_STORE_URL, else a SQLite file among the local tables."""
    default = f"sqlite:///{home}/warehouse/online.sqlite"
    return SqlStore(os.environ.get("ONLINE_STORE_URL") or default)


def store_of(platform: Platform) -> OnlineStore:
    """The online store of this platform."""
    if platform.name == "databricks":
        from .databricks import Lakebase

        return Lakebase(platform)
    from ..platform.local import home_dir

    return sql_store(getattr(platform, "home", None) or home_dir())


def endpoint_of(platform: Platform, registry: Registry) -> Endpoint:
    """The endpoint that answers for the model on this platform."""
    if platform.name == "databricks":
        from .databricks import ModelServing

        return ModelServing(platform, registry)
    return RegistryEndpoint(registry)
