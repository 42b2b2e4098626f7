"""The A/B test of a version against the champion, on what came of their answers.

One runs at a time. Which one is a tag of the registered model, what was found is in `ab_tests`.
The deployment job begins it and, once it is won, goes on; the monitoring job looks at it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from pyspark.sql import functions as F

from ..datasets import labels
from ..declarations import Column
from ..platform import Platform
from ..registry import Registry
from ..tables import Table
from ..team import PROBLEM, own
from .inference_table import answers, predictions
from .sequential import Judgement, outcomes

TAG = "ab_test"

AB_TESTS = Table(
    own("ab_tests"),
    "Each look at an A/B test of a version against the champion",
    (
        Column("model", "string", "Name of the registered model"),
        Column("model_version", "string", "The challenger"),
        Column("champion", "string", "The version that it was compared with"),
        Column("as_of", "timestamp", "Up to when labels were known"),
        Column("began", "timestamp", "Since when the challenger has its share, by the clock"),
        Column("share", "int", "Percent of the requests that the challenger gets"),
        Column("verdict", "string", "promote, stop or keep running"),
        Column("gain", "double", "How much less the challenger loses a row"),
        Column("low", "double", "Lower bound of it, at all looks together; null: too few rows"),
        Column("high", "double", "Upper bound of it; null: too few rows"),
        Column("threshold", "double", "The smallest gain that is worth finding"),
        Column("challenger_rows", "bigint", "Labelled answers of the challenger"),
        Column("champion_rows", "bigint", "Labelled answers of the champion"),
        Column("reason", "string", "The verdict in words"),
    ),
    ("model", "model_version", "champion", "as_of"),
)


@dataclass(frozen=True)
class AbTest:
    """A test that runs: `share` percent for the version since `began` (ISO, by the clock).

    `gain` is the smallest gain in the loss that is worth finding. It is fixed when the test begins,
    which the bounds on its errors suppose.
    """

    version: str
    champion: str
    share: int
    gain: float
    began: str

    @property
    def since(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.began)


def running(registry: Registry) -> AbTest | None:
    """The test that runs, if one does."""
    tags = registry.client.get_registered_model(registry.model).tags
    told = json.loads(tags.get(TAG) or "{}")
    return AbTest(**told) if told else None


def begin(registry: Registry, test: AbTest) -> None:
    """Have the monitoring job look at the test from now on."""
    registry.client.set_registered_model_tag(registry.model, TAG, json.dumps(asdict(test)))


def end(registry: Registry, version: str) -> None:
    """The test of the version runs no longer."""
    test = running(registry)
    if test is not None and test.version == version:
        registry.client.set_registered_model_tag(registry.model, TAG, "{}")


def last_look(
    platform: Platform, registry: Registry, version: str, champion: str
) -> dict[str, Any] | None:
    """The newest row of the test of these two, or None."""
    if not platform.exists(AB_TESTS.name):
        return None
    rows = platform.frame(
        AB_TESTS.name, model=registry.model, model_version=version, champion=champion
    )
    return None if rows.empty else dict(rows.sort_values("as_of").iloc[-1])


def record(
    platform: Platform, registry: Registry, test: AbTest, as_of: datetime, found: Judgement
) -> None:
    """Write what a look has found."""
    bounded = found.low > float("-inf")
    bounds = (found.low, found.high) if bounded else (None, None)
    row = (
        *(registry.model, test.version, test.champion, as_of, test.since, test.share),
        *(found.verdict, found.gain, *bounds, test.gain),
        *(found.challenger_rows, found.champion_rows, found.reason),
    )
    platform.record(AB_TESTS, [row])


def seen(platform: Platform, registry: Registry, test: AbTest, as_of: datetime) -> pd.DataFrame:
    """What came of the answers so far: `version`, `loss` and `stratum`, as `judge` takes them.

    Only answers whose label was known at `as_of`.
    """
    rows = answers(platform, registry)
    if rows is None:
        return pd.DataFrame({"version": [], "loss": [], "stratum": []})
    rows = rows.where(F.col("version").isin(test.version, test.champion))
    rows = rows.where(F.col("request_time") >= F.lit(test.since))
    key = F.col(PROBLEM.entity_key).cast("string").alias("entity")
    known = labels(platform, as_of).select(key, F.col("label").cast("double"))
    frame = predictions(rows).join(known, "entity").toPandas()
    told = frame[["entity", "label"]].drop_duplicates("entity")
    served = frame.drop(columns="label")
    return outcomes(served, told, [], PROBLEM.task)


def line(platform: Platform, registry: Registry) -> str | None:
    """The test that runs, in words, for `status`; None when none does."""
    test = running(registry)
    if test is None:
        return None
    look = last_look(platform, registry, test.version, test.champion)
    found = "not looked at yet" if look is None else f"{look['verdict']} ({look['reason']})"
    return (
        f"A/B test: version {test.version} has {test.share} % of the requests since "
        f"{test.since:%Y-%m-%d %H:%M}, version {test.champion} the rest: {found}"
    )
