"""Point-in-time look-ups on a laptop: DuckDB's as-of join, in a bounded share of memory.

The features of a row are those of the last row of the same keys with `available_at` <= the row's
time and not older than `max_age`; where there is none, or no value in it, a feature has its
default, which is null unless the table declares one. A key with a null in it finds nothing. Every
row comes out exactly once. On a workspace it is Databricks' client that looks up; one test
compares both with a slow one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..declarations import Column, FeatureTable
from .in_parts import PART

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

MEMORY = os.environ.get("MLOPS_LOOK_UP_MEMORY", "1GB")  # what takes more is spilled
_THREADS = 4  # each wants a share of it that is not spilled


class InFiles(NamedTuple):
    """Rows of Parquet files, which may lack columns."""

    schema: pa.Schema
    files: list[str]


@contextmanager
def looked_up(
    rows: pa.Table | InFiles,
    at: str,
    keys: Sequence[str],
    tables: Iterable[tuple[FeatureTable, pa.Table | InFiles]],
    spill: Path,
) -> Iterator[pa.RecordBatchReader]:
    """The rows with the features of each table as they were known at the time in column `at`.

    They are sorted by that time and by their own `keys`. `spill` is a folder that can be removed
    afterwards.

    Raises:
        MemoryError: what cannot be spilled takes more than MEMORY, such as rows of many kilobytes.
    """
    import duckdb
    import pyarrow as pa

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(spill),
        "threads": min(os.cpu_count() or 1, _THREADS),
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=config) as engine:
        # It takes rows whose number it cannot know for few, and would compare each with each.
        engine.execute("SET TimeZone = 'UTC'; SET asof_loop_join_threshold = 0")
        _name(engine, "asked", rows)
        picked, joined, fields = ["asked.*"], ["asked"], list(rows.schema)
        for number, (table, known) in enumerate(tables):
            name = f"known_{number}"
            _name(engine, name, known)
            same = [f'asked."{key}" = {name}."{key}"' for key in table.keys]
            seen = f'asked."{at}" >= {name}."available_at"'
            joined.append(f"ASOF LEFT JOIN {name} ON {' AND '.join((*same, seen))}")
            picked += [_value(name, at, column, table.max_age) for column in table.features]
            fields += [known.schema.field(column.name) for column in table.features]
        order = ", ".join(f'asked."{name}"' for name in (at, *keys))
        found = engine.sql(f"SELECT {', '.join(picked)} FROM {' '.join(joined)} ORDER BY {order}")
        schema = pa.schema([(field.name, field.type) for field in fields])
        try:
            answers = found.to_arrow_reader(PART).cast(schema)
        except duckdb.OutOfMemoryException:
            raise MemoryError(
                f"Looking features up needs more than {MEMORY}. Fix: set the environment variable "
                "MLOPS_LOOK_UP_MEMORY, such as to 4GB."
            ) from None
        yield answers


def _name(engine: DuckDBPyConnection, name: str, rows: pa.Table | InFiles) -> None:
    """Make the rows known to SQL."""
    if not isinstance(rows, InFiles):
        engine.register(name, rows)
        return
    engine.register(f"no_{name}", rows.schema.empty_table())
    query = f"SELECT * FROM no_{name}"
    if rows.files:
        files = engine.read_parquet(rows.files, union_by_name=True, hive_partitioning=False)
        files.create_view(f"files_{name}")
        query += f" UNION ALL BY NAME SELECT * FROM files_{name}"
    engine.execute(f"CREATE VIEW {name} AS {query}")


def _value(name: str, at: str, column: Column, max_age: timedelta | None) -> str:
    """A feature as SQL."""
    value = f'{name}."{column.name}"'
    if max_age is not None:
        age = f'epoch_us(asked."{at}") - epoch_us({name}."available_at")'
        value = f"CASE WHEN {age} <= {max_age // timedelta(microseconds=1)} THEN {value} END"
    if column.default is not None:
        default = str(column.default).replace("'", "''")
        value = f"coalesce({value}, '{default}')"
    return f'{value} AS "{column.name}"'
