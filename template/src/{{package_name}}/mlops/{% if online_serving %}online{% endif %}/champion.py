"""The versions that are served, each with its look-ups; followed as the registry changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..declarations import Column, FeatureTable
from ..registry import Registry
from ..team import PROBLEM
from .endpoint import RegistryEndpoint
from .store import SqlStore
from .traffic import assigned

if TYPE_CHECKING:
    from collections.abc import Callable

_DTYPES = {"double": "float64", "float": "float64", "string": "object", "boolean": "object"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """A loaded version: its inputs, in order, and the tables that some of them come from."""

    number: str
    model: Any
    inputs: tuple[Column, ...]
    tables: tuple[FeatureTable, ...]

    @classmethod
    def load(cls, registry: Registry, store: SqlStore, number: str) -> Version:
        """Load a version and predict once with it.

        Raises:
            LookupError: it needs a feature that this project no longer has, or that is not in the
                online store.
        """
        names = registry.inputs(number)
        known = {column.name: column for column in PROBLEM.known_features}
        model = registry.load(number)
        # So it does not depend on what was added or removed since it was trained.
        tables = PROBLEM.tables_for(names)
        blank = dict.fromkeys(key for table in tables for key in table.keys)
        store.lookup(tables, [blank])
        if model.input_example is not None:
            model.predict(model.input_example)  # the first answer takes longer than others
        return cls(number, model, tuple(known[name] for name in names), tables)

    def inputs_of(
        self, rows: Sequence[Mapping[str, Any]], features: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """What the model gets: of each row the request's own features, then those looked up."""
        return [
            {c.name: row[c.name] if c.name in row else found[c.name] for c in self.inputs}
            for row, found in zip(rows, features, strict=True)
        ]

    def predict(self, inputs: Sequence[Mapping[str, Any]]) -> Any:
        """The model's answer, a row each."""
        columns = {c.name: _column(c, [row[c.name] for row in inputs]) for c in self.inputs}
        return self.model.predict(pd.DataFrame(columns))


def _column(column: Column, values: list[Any]) -> pd.Series:
    """Values as training has seen them: whole numbers are floats where one is unknown."""
    dtype = _DTYPES.get(column.type) or ("float64" if None in values else "int64")
    return pd.Series(values, dtype=dtype)


class Served:
    """The versions that get traffic. `follow` keeps up with the registry without a pause."""

    def __init__(self, registry: Registry, store: SqlStore) -> None:
        self.registry, self.store = registry, store
        self.failures = 0
        self._endpoint = RegistryEndpoint(registry)
        self._stop = threading.Event()
        self._now: tuple[tuple[Version, int], ...] = ()  # replaced as a whole, never changed
        self._threads: list[threading.Thread] = []

    @property
    def shares(self) -> dict[str, int]:
        """Percent by version, as it is served now."""
        return {version.number: share for version, share in self._now}

    def refresh(self) -> bool:
        """Serve what the registry says; whether that is something else than before.

        Requests are answered by the old versions until the new ones have been loaded.

        Raises:
            LookupError: there is no champion, or a version lacks a feature.
        """
        shares = self._endpoint.traffic()
        if not shares:
            raise LookupError(
                f"{self.registry.model} has no champion, so there is nothing to serve. Fix: run "
                "the training job; its version becomes champion when it passes the deployment job."
            )
        if shares == self.shares:
            return False
        loaded = {version.number: version for version, _ in self._now}
        self._now = tuple(
            (loaded.get(number) or Version.load(self.registry, self.store, number), share)
            for number, share in shares.items()
        )
        return True

    def pick(self, entity: str = "") -> Version:
        """The version for an entity: as long as it is served, the same for each request."""
        now = self._now
        if len(now) == 1:
            return now[0][0]
        number = assigned(entity, {version.number: share for version, share in now})
        return next(version for version, _ in now if version.number == number)

    def follow(self, seconds: float, changed: Callable[[dict[str, int]], None]) -> None:
        """Look at the registry every so many seconds, in a thread, until `close`."""

        def watch() -> None:
            while not self._stop.wait(seconds):
                try:
                    if self.refresh():
                        changed(self.shares)
                except Exception:  # the versions that are served go on
                    self.failures += 1
                    _log.exception("the registry's versions could not be served")

        thread = threading.Thread(target=watch, name="registry", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
