"""Rows that were deleted at the source, found by their keys and staged beside the new ones.

The keys come from the snapshot that the load itself reads, so a key that is new there is never taken for deleted. What
is found is staged as rows that have a key and nothing else, in slices of their own, and becomes visible in the
transaction that publishes the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from dpone import clock
from dpone.arrow.batches import conform
from dpone.arrow.digest import without
from dpone.arrow.types import arrow_schema
from dpone.errors import DataError, InternalError
from dpone.reconcile.parts import Sides, parts_for
from dpone.sdk import Compares, ComparesTarget, Load, Reading, Receipt, Sink, Slice

if TYPE_CHECKING:
    from dpone.engine.plan import StreamPlan

CHECKED_AT = "deletes_checked_at"
"""Where a receipt keeps when the keys were last compared."""


HOLDS = ("gone", "back")
"""What the slices beside those of the window hold."""


def due(plan: StreamPlan, receipt: Receipt | None) -> bool:
    """Whether this load looks for deleted rows: there may be some, and the interval of the manifest is over."""
    if plan.deletes.mode == "ignore" or plan.existing is None:
        return False
    last = receipt.extra.get(CHECKED_AT, "") if receipt is not None else ""
    if plan.deletes.every is None or not last:
        return True
    ago: timedelta = clock.now() - datetime.fromisoformat(last)
    return ago >= plan.deletes.every


def slices(first: int) -> tuple[Slice, ...]:
    """The slices of a load that hold what is gone at the source, and what came back; `first` is the next number."""
    return (
        Slice(first, label="rows that are gone at the source", holds="gone"),
        Slice(first + 1, label="rows that are back at the source", holds="back"),
    )


def find(plan: StreamPlan, reading: Reading, sink: Sink) -> dict[str, list[pa.RecordBatch]]:
    """The keys that are `gone` and those that are `back`, as batches of the stream's columns with NULL in the others.

    Raises DataError when more are gone than the guard of the manifest allows; nothing is staged then.
    """
    if not isinstance(reading, Compares) or not isinstance(sink, ComparesTarget):
        raise InternalError(f"{plan.stream}: one side cannot be compared", remedy="report it")
    key = plan.key_columns
    count = parts_for(plan.schema.estimated_rows)
    sides = Sides(reading.compared(), sink.compared(plan.target, plan.live), key, key, count)
    everything = sink.compared(plan.target, {})
    there, groups = sides.differing()
    gone: list[pa.RecordBatch] = []
    back: list[pa.RecordBatch] = []
    for parts in groups:
        difference = sides.keys(parts)
        gone += difference.gone
        _guard(plan, sum(batch.num_rows for batch in gone), there)
        if plan.write == "merge" and difference.missing:
            held = list(conform(everything.rows(key, key, count, parts), key))
            new = list(without(key, difference.missing, held))
            back += without(key, difference.missing, new)
    return {"gone": [_widened(plan, batch) for batch in gone], "back": [_widened(plan, batch) for batch in back]}


def stage(plan: StreamPlan, pieces: Sequence[Slice], reading: Reading, sink: Sink, load: Load) -> dict[str, int]:
    """Find what is gone and what is back, and stage it; how many rows of each."""
    found = find(plan, reading, sink)  # all of it first: the sink has one session for both
    for piece in pieces:
        load.stage(piece, found[piece.holds])
    return {holds: sum(batch.num_rows for batch in batches) for holds, batches in found.items()}


def _widened(plan: StreamPlan, batch: pa.RecordBatch) -> pa.RecordBatch:
    schema = arrow_schema(plan.schema.columns)
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
        f"{gone:,} or more of the {there:,} rows of {plan.target} are gone from {plan.stream}, and one run may delete "
        f"{limit}",
        remedy="look at the source; if that is meant, raise deletes: {max: ...} (100%: no limit)",
        code="DP417",
    )
