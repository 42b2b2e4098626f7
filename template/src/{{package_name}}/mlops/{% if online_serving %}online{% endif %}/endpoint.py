"""What answers for the model, and which version gets what share of the requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

from ..registry import CHAMPION, Registry

TRAFFIC_TAG = "traffic"


class Endpoint(Protocol):
    """An endpoint whose traffic is split by version; shares are whole percents."""

    def traffic(self) -> dict[str, int]:
        """Percent of the requests by version; empty while nothing is served."""

    def set_traffic(self, shares: Mapping[str, int]) -> None:
        """Serve these versions, from now on, each its share; a challenger comes last.

        Raises:
            ValueError: the shares are not positive or do not add up to 100.
        """


def check_shares(shares: Mapping[str, int]) -> None:
    """Raise ValueError when the shares of versions cannot be served."""
    if any(share <= 0 for share in shares.values()) or sum(shares.values()) != 100:
        said = ", ".join(f"{version}: {share}" for version, share in shares.items())
        raise ValueError(
            f"Traffic ({said}) cannot be split like that. Fix: give each version a positive whole "
            "share, 100 together."
        )


class RegistryEndpoint:
    """The server of this project (`serve`), which follows the registry.

    It serves the champion, unless a tag of the model says otherwise. The tag names the champion of
    that moment: moving the alias ends what it says, so that a promotion or a rollback is one step.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def traffic(self) -> dict[str, int]:
        """Read the tag and the alias."""
        champion = self._registry.at(CHAMPION)
        if champion is None:
            return {}
        tags = self._registry.client.get_registered_model(self._registry.model).tags
        told = json.loads(tags.get(TRAFFIC_TAG) or "{}")
        return told["shares"] if told.get("champion") == champion else {champion: 100}

    def set_traffic(self, shares: Mapping[str, int]) -> None:
        """Write the tag; servers read it every few seconds."""
        check_shares(shares)
        client, model = self._registry.client, self._registry.model
        told = {"champion": self._registry.at(CHAMPION), "shares": dict(shares)}
        client.set_registered_model_tag(model, TRAFFIC_TAG, json.dumps(told))
