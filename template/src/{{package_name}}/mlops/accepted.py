"""Ask Databricks' own classes whether they accept a resource: fields, types, values."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable
from typing import Any

from .bundle import Bundle, Problem, Where

CLASSES = {
    "alerts": "Alert",
    "apps": "App",
    "clusters": "Cluster",
    "dashboards": "Dashboard",
    "experiments": "MlflowExperiment",
    "jobs": "Job",
    "model_serving_endpoints": "ModelServingEndpoint",
    "pipelines": "Pipeline",
    "quality_monitors": "QualityMonitor",
    "registered_models": "RegisteredModel",
    "schemas": "Schema",
    "secret_scopes": "SecretScope",  # pragma: allowlist secret
    "sql_warehouses": "SqlWarehouse",
    "volumes": "Volume",
}
"""Class of databricks.bundles.<kind> for each kind of resource."""

FromDict = Callable[[Any], object]


def accepts(kind: str) -> FromDict | None:
    """What takes a resource of this kind or raises; None where databricks-bundles has nothing."""
    try:
        module = importlib.import_module(f"databricks.bundles.{kind}")
    except ImportError:
        return None
    found = getattr(module, CLASSES.get(kind, ""), None)
    from_dict: FromDict | None = getattr(found, "from_dict", None)
    return from_dict


def refused(bundle: Bundle, kind: str, key: str, from_dict: FromDict) -> list[Problem]:
    """What Databricks has against a resource, at the field it names where it names one."""
    try:
        given = bundle.resources[kind][key]
        if field := _no_scalar(from_dict(given), given):
            raise ValueError(f"'{field}' must be a single value")
    except (TypeError, ValueError, AttributeError) as error:
        message = f"Databricks does not accept {kind[:-1]} `{key}`: {error}"
        where: Where = ("resources", kind, key)
        named = re.findall(r"'([^']*)'", str(error))
        inside = [at for at in bundle.places if at[:3] == where and len(at) > 3]
        fits = [at for at in inside if at[-1] in named or _value(bundle, at) in named]
        at = min(fits, key=len) if fits else where
        return [bundle.problem(at, message, "correct the field or value that is named")]
    return []


def _no_scalar(made: Any, given: Any) -> str | None:
    """Name of a field that is given a list or map and takes a single value.

    The classes make text of it.
    """
    if isinstance(made, list) and isinstance(given, list):
        pairs = zip(made, given, strict=False)
        return next(filter(None, (_no_scalar(*pair) for pair in pairs)), None)
    if dataclasses.is_dataclass(made) and isinstance(given, dict):
        for name, value in given.items():
            taken = getattr(made, name, None)
            if isinstance(value, list | dict) and isinstance(taken, str):
                return str(name)
            if inside := _no_scalar(taken, value):
                return inside
    return None


def _value(bundle: Bundle, where: Where) -> object:
    value: Any = bundle.resources
    for step in where[1:]:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
