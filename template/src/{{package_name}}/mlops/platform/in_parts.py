"""Rows that are worked on part by part, on all cores, with few parts in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

PART = 50_000  # rows: a cost of each part's own is small, and its columns fit into a core's cache


def parts_of(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables of about PART rows; a batch has at most that, and those of files fewer."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        if rows >= PART:
            yield pa.Table.from_batches(held).combine_chunks()
            held, rows = [], 0
    if rows:
        yield pa.Table.from_batches(held).combine_chunks()


def in_order(
    work: Callable[[pa.Table], pa.RecordBatch], parts: Iterable[pa.Table]
) -> Iterator[pa.RecordBatch]:
    """What comes of each part; as many are begun ahead of the one asked for as keep cores busy."""
    cores = os.cpu_count() or 1
    begun: deque[Future[pa.RecordBatch]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for part in parts:
            begun.append(pool.submit(work, part))
            if len(begun) > 2 * cores:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


@contextmanager
def handed_over(
    schema: pa.Schema, parts: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatchReader]:
    """The parts for a writer that is not Python: what they raise comes out as it was raised."""
    import pyarrow as pa

    raised: list[BaseException] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from parts
        except (Exception, KeyboardInterrupt) as error:
            raised.append(error)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(schema, watched())
    except Exception:
        if raised:
            raise raised[0] from None
        raise
