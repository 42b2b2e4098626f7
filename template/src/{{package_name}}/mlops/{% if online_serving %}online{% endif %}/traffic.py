"""Which of the versions that share the traffic answers for an entity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def place(entity: str, salt: str) -> float:
    """Where the entity is, evenly spread over [0, 100): the same in every process, for ever."""
    digest = hashlib.blake2b(f"{salt}/{entity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def assigned(entity: str, shares: Mapping[str, int]) -> str:
    """The version that answers for an entity, under these shares in percent.

    The last version, the challenger, has the first places: an entity that it once answered for
    stays with it while its share grows, and comes back to it never when the share falls to zero.
    The salt is the challenger, so that another test has other entities.
    """
    *others, challenger = shares
    at, end = place(entity, challenger), 0
    for version in (challenger, *others):
        end += shares[version]
        if at < end:
            return version
    raise ValueError(f"The shares of {', '.join(shares)} add up to {end}. Fix: to 100.")
