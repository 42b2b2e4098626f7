"""Run the files of a declarative pipeline in this process, as `spark-pipelines` does in its own.

Each dataset is computed anew and its table replaced, which is what a refresh comes to. Supported
are materialized views and temporary views written in Python; everything else is an error.
"""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.pipelines.flow import Flow
from pyspark.pipelines.graph_element_registry import (
    GraphElementRegistry,
    graph_element_registration_context,
)
from pyspark.pipelines.output import MaterializedView, Output, TemporaryView

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from .platform.local import LocalPlatform

_ONE_AT_A_TIME = threading.Lock()  # names and configuration are the session's
# Tables of a laptop fit into memory; sorting them for a join takes three times as long.
_CONFIGURATION = {"spark.sql.autoBroadcastJoinThreshold": str(256 * 1024**2)}


@dataclass(frozen=True)
class Refresh:
    """Names of the tables that a pipeline has written, and of those it has read."""

    written: list[str]
    read: list[str]


class PipelineError(RuntimeError):
    """A pipeline that cannot run here."""


def run_pipeline(
    files: Iterable[Path], configuration: Mapping[str, str], platform: LocalPlatform
) -> Refresh:
    """Compute every dataset that the files define, and replace its table.

    Raises:
        PipelineError: there is something that only a workspace or `spark-pipelines` can run.
        MissingTableError: a dataset reads a table that has not been written.
    """
    with _ONE_AT_A_TIME, _configured(platform.spark, {**configuration, **_CONFIGURATION}):
        graph = _Graph(platform)
        with graph_element_registration_context(graph):
            for file in files:
                runpy.run_path(str(file))
        try:
            tables = [(one, graph.rows(one.name)) for one in graph.tables]
            platform.each(lambda pair: platform.overwrite(*pair), tables)
        finally:
            graph.forget()
        return Refresh([one.name for one, _ in tables], sorted(graph.read))


@contextmanager
def _configured(spark: SparkSession, configuration: Mapping[str, str]) -> Iterator[None]:
    before = {key: spark.conf.get(key, None) for key in configuration}
    try:
        for key, value in configuration.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


class _Graph(GraphElementRegistry):
    """The datasets of a pipeline, and the tables they have asked for."""

    def __init__(self, platform: LocalPlatform) -> None:
        self._platform = platform
        self._flows: dict[str, Flow] = {}
        self._asked: set[str] = set()
        self.read: set[str] = set()
        self.tables: list[MaterializedView] = []

    def register_output(self, output: Output) -> None:
        """Take a dataset."""
        if isinstance(output, MaterializedView):
            self.tables.append(output)
        elif not isinstance(output, TemporaryView):
            kind = type(output).__name__
            raise PipelineError(
                f"Dataset {output.name} is a {kind}, which is not supported on this machine. Fix: "
                "make it a materialized view, or run the pipeline on Databricks."
            )

    def register_flow(self, flow: Flow) -> None:
        """Take the query of a dataset."""
        if flow.name in self._flows:
            raise PipelineError(f"Dataset {flow.name} is defined twice. Fix: rename one of them.")
        self._flows[flow.name] = flow

    def register_sql(self, sql_text: str, file_path: Path) -> None:
        """Refuse."""
        raise PipelineError(f"{file_path} is SQL, which is not supported on this machine.")

    def rows(self, name: str, inside: tuple[str, ...] = ()) -> DataFrame:
        """The rows of a dataset. A table that its query misses is looked up, and it asks again."""
        if name in inside:
            way = " -> ".join((*inside, name))
            raise PipelineError(f"Datasets read each other: {way}. Fix: break the circle.")
        while True:
            try:
                return self._flows[name].func()
            except AnalysisException as error:
                if error.getCondition() != "TABLE_OR_VIEW_NOT_FOUND":
                    raise
                missing = (error.getMessageParameters() or {})["relationName"].replace("`", "")
                if missing in self._asked:
                    raise
            if missing in self._flows:
                found = self.rows(missing, (*inside, name))
            else:
                found = self._platform.read(missing)
                self.read.add(missing)
            found.createOrReplaceTempView(missing)
            self._asked.add(missing)

    def forget(self) -> None:
        """Remove the names from the session."""
        for name in self._asked:
            self._platform.spark.catalog.dropTempView(name)
