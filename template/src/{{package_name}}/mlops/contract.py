"""Contracts of sources and feature tables: good rows go on, bad rows are kept with the reason."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from .declarations import Column, FeatureTable, Source
from .tables import QUARANTINE


class ContractError(ValueError):
    """The source as a whole is not what its contract says: nothing of it may be used."""

    def __init__(self, source: str, column: str, message: str) -> None:
        super().__init__(f"Source {source}: column {column} {message}")
        self.source, self.column, self.reason = source, column, f"column {column} {message}"


def check_schema(source: Source, rows: DataFrame) -> None:
    """Raise ContractError when a column is missing or has another type."""
    found = dict(rows.dtypes)
    for column in source.columns:
        if column.name not in found:
            raise ContractError(
                source.name,
                column.name,
                f"is missing, it has {', '.join(sorted(found))}. Fix: map it in sources.py, or "
                "drop it from the contract and from the features that use it.",
            )
        if found[column.name] != column.type:
            raise ContractError(
                source.name,
                column.name,
                f"is {found[column.name]}, its contract says {column.type}. Fix: cast it in "
                "sources.py, or change the contract.",
            )


def judge_stream(source: Source, rows: DataFrame) -> DataFrame:
    """The same for rows of a stream, where a key that comes again is no fault."""
    names = [column.name for column in source.columns]
    more = [name for name in ("_message", "_order") if name in rows.columns]
    reasons = _broken(source.columns)
    if "_message" in more:
        reasons.append(F.when(F.col("_message").isNotNull(), F.lit("no row of the contract")))
    return rows.select(*names, *more, F.array_compact(F.array(*reasons)).alias("reasons"))


def last_rows(source: Source, good: DataFrame) -> DataFrame:
    """Of good rows of a stream with the same key the one that counts."""
    order = [F.col(name).desc() for name in ("available_at", "_order") if name in good.columns]
    latest = Window.partitionBy(*source.keys).orderBy(*order)
    names = [column.name for column in source.columns]
    return good.withColumn("_copy", F.row_number().over(latest)).where("_copy = 1").select(*names)


def judge(source: Source, rows: DataFrame) -> DataFrame:
    """Return the rows with the contract's columns and `reasons`, an array that is empty when good.

    Of rows with the same key the one known last is good, the others are duplicates. Ties are
    broken by content, so that the same rows always give the same answer.
    """
    check_schema(source, rows)
    names = [column.name for column in source.columns]
    latest = Window.partitionBy(*source.keys).orderBy(
        F.col("available_at").desc(), F.xxhash64(*names)
    )
    rows = rows.select(*names, F.row_number().over(latest).alias("_copy"))
    reasons = [F.when(F.col("_copy") > 1, F.lit("duplicate key")), *_broken(source.columns)]
    return rows.select(*names, F.array_compact(F.array(*reasons)).alias("reasons"))


def judge_features(table: FeatureTable, rows: DataFrame) -> DataFrame:
    """Return the computed rows with `reasons`, an array that is empty when the row is good.

    Raises:
        ValueError: a feature is missing or has another type than declared.
    """
    found = dict(rows.dtypes)
    for column in table.features:
        if found.get(column.name) != column.type:
            what = found.get(column.name, "not there")
            raise ValueError(
                f"Feature table {table.name}: `compute` gives {column.name} as {what}, its "
                f"declaration says {column.type}. Fix: change one of them in features/."
            )
    keys = (F.when(F.col(key).isNull(), F.lit(f"key {key} is missing")) for key in table.keys)
    reasons = F.array_compact(F.array(*keys, *_broken(table.features)))
    return rows.select(*rows.columns, reasons.alias("reasons"))


def _broken(columns: Iterable[Column]) -> list[SparkColumn]:
    """For each demand on a column: what is wrong, null when the row meets it.

    To Spark NaN is a value, and more than any other; here it is missing, and meets no check.
    """
    reasons = []
    for column in columns:
        value = F.col(column.name)
        nan = F.isnan(value) if column.type in ("double", "float") else F.lit(False)
        if not column.nullable:
            reasons.append(F.when(value.isNull() | nan, F.lit(f"{column.name} is missing")))
        if column.check:
            good = F.coalesce(F.expr(column.check), F.lit(True)) & ~nan
            reasons.append(F.when(~good, F.lit(f"not {column.check}")))
    return reasons


def good_rows(judged: DataFrame) -> DataFrame:
    """The rows that meet the contract."""
    return judged.where(F.size("reasons") == 0).drop("reasons")


def bad_rows(source: Source | FeatureTable, judged: DataFrame) -> DataFrame:
    """The rows that do not, as rows of the quarantine table; of equal ones there is one."""
    columns = [name for name in judged.columns if name not in ("reasons", "_order")]
    row = F.to_json(F.struct(*columns))
    bad = judged.where(F.size("reasons") > 0).select(
        F.lit(source.name).alias("source"),
        row.alias("row"),
        F.concat_ws("; ", "reasons").alias("reason"),
        "available_at",
    )
    return bad.dropDuplicates(list(QUARANTINE.keys))
