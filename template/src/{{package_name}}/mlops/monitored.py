"""What monitoring looks at: predictions with their labels, and how many rows came in when.

All functions are pure and lazy. pipelines/monitoring.py makes tables of them, which are computed
anew from what is there: so labels that come late, and rows that are filled in, come out right. They
know no `as_of`; who reads them leaves out what was not known then.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from .declarations import Column, Problem
from .tables import PREDICTIONS, Table

LABEL = "label"
SOURCE_VOLUME = Table(
    "source_volume",
    "Rows that became known in each hour, by source, and those in quarantine, by reason",
    (
        Column("source", "string", "Name of the source or feature table"),
        Column("reason", "string", "Why the rows are in quarantine; null: they are not"),
        Column("hour", "timestamp", "Start of the hour"),
        Column("rows", "bigint", "Number of rows"),
    ),
    ("source", "reason", "hour"),
)


def judged_predictions_table(problem: Problem) -> Table:
    """The table of `judged_predictions`, which has the features that slices are made of."""
    kept = [c for c in PREDICTIONS.columns if c.name != "as_of"]
    slices = [c for c in problem.known_features if c.name in problem.gate.slices]
    return Table(
        "judged_predictions",
        "Every prediction of the model with its label, once that is known",
        (
            *kept,
            *(Column(c.name, c.type, c.description) for c in slices),
            Column(LABEL, "double", "What came true; null: not known yet"),
            Column("known_at", "timestamp", "When the label became known"),
        ),
        PREDICTIONS.keys,
    )


def ddl(table: Table) -> str:
    """The columns as a schema, with their descriptions."""
    return ", ".join(column.ddl for column in table.columns)


def judged_predictions(
    problem: Problem, model: str, predictions: DataFrame, labels: DataFrame
) -> DataFrame:
    """Add its label to each prediction of a model; `labels` are those of the problem."""
    entity = F.col(problem.entity_key).alias("entity")
    known = labels.select(entity, F.col(LABEL).cast("double").alias(LABEL), "known_at")
    made = predictions.where(F.col("model") == model).join(known, "entity", "left")
    types = {column.name: column.type for column in judged_predictions_table(problem).columns}
    return with_columns(made, types).select(*types)


def with_columns(rows: DataFrame, types: Mapping[str, str]) -> DataFrame:
    """Predictions with these columns; null are features that have not been recorded yet.

    Which are missing is left to Spark: a pipeline may not ask for the columns of a table.
    """
    wanted = (F.lit(None).cast(kind).alias(name) for name, kind in types.items())
    return rows.unionByName(rows.where(F.lit(False)).select(*wanted), allowMissingColumns=True)


def source_volume(sources: Mapping[str, DataFrame], quarantine: DataFrame) -> DataFrame:
    """Count rows by source and hour; those in quarantine by reason, too."""
    hour = F.date_trunc("hour", "available_at").alias("hour")
    good = (
        rows.select(F.lit(name).alias("source"), F.lit(None).cast("string").alias("reason"), hour)
        for name, rows in sources.items()
    )
    both = reduce(DataFrame.unionByName, [*good, quarantine.select("source", "reason", hour)])
    counted = both.where(F.col("hour").isNotNull()).groupBy("source", "reason", "hour")
    return counted.agg(F.count("*").alias("rows"))
