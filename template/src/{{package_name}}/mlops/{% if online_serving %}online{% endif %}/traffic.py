"""Which of the versions on trial answers for an entity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def place(entity: str, salt: str) -> float:
    """Where the entity is, evenly spread over [0, 100): the same in every process, for ever."""
    digest = hashlib.blake2b(f"{salt}/{entity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def assigned(entity: str, shares: Mapping[str, int], challenger: str) -> str:
    """The version that answers for an entity, under these shares in percent.

    The challenger has the first places: an entity that it once answered for stays with it while
    its share grows, and one that it did not comes back to it never when the share falls to zero.
    The salt is the challenger, so that another trial has other entities.
    """
    if place(entity, challenger) < shares.get(challenger, 0):
        return challenger
    (other,) = (version for version in shares if version != challenger)
    return other
