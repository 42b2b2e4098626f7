"""Use a session as the stages do, in a process of its own, so that Java can note its classes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .spark import start_session


def main() -> None:
    """Write, merge, join, look up and collect a small table."""
    with tempfile.TemporaryDirectory() as folder:
        spark = start_session(Path(folder))
        table = f"delta.`{folder}/t`"
        rows = spark.range(1000).selectExpr("id", "id % 7 AS k", "timestamp_seconds(id) AS time")
        rows.write.format("delta").save(f"{folder}/t")
        rows.createOrReplaceTempView("v")
        for _ in range(2):
            spark.sql(
                f"MERGE WITH SCHEMA EVOLUTION INTO {table} t USING v s ON t.id <=> s.id "
                "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            )
        spark.sql(
            "SELECT t.id, last(v.k, true) OVER (PARTITION BY t.k ORDER BY t.time) AS last "
            f"FROM {table} t JOIN v ON t.id = v.id"
        ).toPandas()
        spark.createDataFrame(rows.toPandas()).groupBy("k").count().collect()
        spark.stop()


if __name__ == "__main__":
    main()
