"""Serving online: the endpoint, and which version gets what share of its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .endpoint import Endpoint, RegistryEndpoint

if TYPE_CHECKING:
    from ..platform import Platform
    from ..registry import Registry

__all__ = ["Endpoint", "endpoint_of"]


def endpoint_of(platform: Platform, registry: Registry) -> Endpoint:
    """The endpoint that answers for the model on this platform."""
    return RegistryEndpoint(registry)
