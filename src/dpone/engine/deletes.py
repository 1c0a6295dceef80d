"""Rows that were deleted at the source, found by their keys and staged beside the new ones.

The keys come from the snapshot that the load itself reads, so a key that is new there is never taken for deleted. What
is found is staged as rows that have a key and nothing else, in slices of their own, and becomes visible in the
transaction that publishes the load.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from dpone import clock
from dpone.arrow.digest import without
from dpone.arrow.types import arrow_schema
from dpone.errors import DataError, InternalError
from dpone.reconcile.parts import Sides, parts_for
from dpone.sdk import Compares, ComparesTarget, Reading, Receipt, Sink, Slice

if TYPE_CHECKING:
    from dpone.engine.plan import StreamPlan

CHECKED_AT = "deletes_checked_at"
"""Where a receipt keeps when the keys were last compared."""


def due(plan: StreamPlan, receipt: Receipt | None) -> bool:
    """Whether this load looks for deleted rows: there may be some, and the interval of the manifest is over."""
    if plan.deletes.mode == "ignore" or plan.existing is None:
        return False
    last = receipt.extra.get(CHECKED_AT, "") if receipt is not None else ""
    if plan.deletes.every is None or not last:
        return True
    return clock.now() - datetime.fromisoformat(last) >= plan.deletes.every - timedelta(seconds=1)


def slices(first: int) -> tuple[Slice, ...]:
    """The slices of a load that hold what is gone at the source, and what came back; `first` is the next number."""
    return (
        Slice(first, label="rows that are gone at the source", holds="gone"),
        Slice(first + 1, label="rows that are back at the source", holds="back"),
    )


class Found:
    """The keys that are gone, or back, as batches of the stream's columns; read once for both slices.

    Raises DataError before anything is staged beyond the guard of the manifest.
    """

    def __init__(self, plan: StreamPlan, reading: Reading, sink: Sink) -> None:
        if not isinstance(reading, Compares) or not isinstance(sink, ComparesTarget):
            raise InternalError(f"{plan.stream}: one side cannot be compared", remedy="report it")
        key = tuple(column for name in plan.primary_key for column in plan.schema.columns if column.name == name)
        self._plan = plan
        self._all = sink.compared(plan.target, {})
        count = parts_for(plan.schema.estimated_rows)
        self._sides = Sides(reading.compared(), sink.compared(plan.target, plan.live), key, key, count)
        self._back: list[pa.RecordBatch] = []
        self.rows = 0

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """The rows of one of the two slices; those that are gone come first."""
        return self._gone() if piece.holds == "gone" else iter(self._back)

    def _gone(self) -> Iterator[pa.RecordBatch]:
        there, groups = self._sides.differing()
        found: list[pa.RecordBatch] = []
        for parts in groups:
            difference = self._sides.keys(parts)
            found += difference.gone
            self.rows += sum(batch.num_rows for batch in difference.gone)
            if self._plan.deletes.mode == "soft" and difference.missing:
                key, count = self._sides.key, self._sides.parts
                known = list(self._all.rows(key, key, count, parts))
                new = list(without(key, difference.missing, known))
                self._back += [self._widened(batch) for batch in without(key, difference.missing, new)]
            _guard(self._plan, self.rows, there)
        yield from map(self._widened, found)

    def _widened(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with NULL in all columns that are not of the key."""
        schema = arrow_schema(self._plan.schema.columns)
        arrays = [
            batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _guard(plan: StreamPlan, gone: int, there: int) -> None:
    most = plan.deletes.most
    allowed = int(there * most) if isinstance(most, float) else most
    if gone <= allowed:
        return
    limit = f"{most:.0%} of {there:,}" if isinstance(most, float) else f"{most:,}"
    raise DataError(
        f"{gone:,} or more of the {there:,} rows of {plan.target} are no longer in {plan.stream}, and max allows {limit} "
        "to be deleted in one run",
        remedy="look at the source; if that is meant, raise deletes: {max: ...} (100%: no limit)",
        code="DP415",
    )
