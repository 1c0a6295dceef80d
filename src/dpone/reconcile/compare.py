"""Recomputes both sides of a stream: the source under a fresh snapshot, the sink as it stands.

An incremental stream is compared up to its checkpoint: source rows past it are `pending`, not differences, and the
target's versions of those rows are left out by key, because the source no longer holds what they were loaded from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dpone.arrow.digest import ALGORITHM, undigestible
from dpone.errors import ConfigError, ConflictError
from dpone.sdk import Column, Digest, Receipt, Sink, Source, Stream, StreamSchema, Table, Window

if TYPE_CHECKING:
    import pyarrow as pa

_TRIES = 3  # rows that move at the source between two reads look like differences, once


@runtime_checkable
class Verifiable(Protocol):
    """A sink that can digest a target."""

    def digest(
        self,
        target: Table,
        columns: tuple[Column, ...],
        *,
        without: tuple[tuple[Column, ...], Iterator[pa.RecordBatch]] | None = None,
        live: Mapping[str, bool | None] | None = None,
    ) -> Digest:
        """The digest of a target in these canonical columns, without the rows whose keys are given.

        Only the rows that have the values of `live` in its columns count; the others are not what the source holds.
        """


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found. `pending` are source rows past the checkpoint, waiting for the next run."""

    stream: str
    target: str
    scope: str
    source: Digest
    sink: Digest
    pending: int = 0
    skipped: str = ""
    algorithm: str = ALGORITHM

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same rows."""
        return self.source == self.sink

    @property
    def verdict(self) -> str:
        """proven, different, or unproven when columns had to be left out."""
        return "different" if not self.equal else "unproven" if self.skipped else "proven"


def compare(
    source: Source,
    sink: Sink,
    stream: Stream,
    schema: StreamSchema,
    target: Table,
    receipt: Receipt | None,
    live: Mapping[str, bool | None] | None = None,
) -> Comparison:
    """Compare one stream with the `live` rows of its target. Raises ConfigError when the sink cannot be read back."""
    if not isinstance(sink, Verifiable):
        raise ConfigError("this sink cannot be read back", remedy="use proof: counts", code="DP130")
    found = _compare(source, sink, stream, schema, target, receipt, live)
    for _ in range(_TRIES - 1):
        if found.equal:
            break
        found = _compare(source, sink, stream, schema, target, receipt, live)
    return found


def _compare(
    source: Source,
    sink: Verifiable,
    stream: Stream,
    schema: StreamSchema,
    target: Table,
    receipt: Receipt | None,
    live: Mapping[str, bool | None] | None,
) -> Comparison:
    columns = tuple(column for column in schema.columns if not undigestible(column))
    skipped = "; ".join(filter(None, (undigestible(column) for column in schema.columns)))
    shown = replace(schema, columns=columns)
    window = receipt.window if receipt is not None else Window(full=not stream.cursor)
    incremental = not window.full and (window.until is not None or bool(window.seen))
    if receipt is not None and window.seen and receipt.extra.get("instance", "") != schema.instance:
        raise ConflictError(
            f"the server of {stream.name} is another one than at its last load, or was restored",
            remedy="run once, then compare",
            code="DP703",
        )
    if not incremental:
        reading = source.open(replace(stream, cursor=""), shown, Window(full=True))
    else:
        reading = source.open(stream, shown, replace(window, after=None, again=None, since="", ties="", null_rows=0))
    try:
        left = sum((reading.digest(piece) for piece in reading.slices), Digest())
    finally:
        reading.close()
    pending, without = 0, None
    if incremental and stream.primary_key:
        keys = tuple(column for column in schema.columns if column.name in stream.primary_key)
        # A source may need the cursor's own column to know how to compare it.
        needed = tuple(c for c in schema.columns if c.name in (*stream.primary_key, stream.cursor))
        rest = Window(full=False, after=window.until, since=window.seen, fixed=True)
        later = source.open(stream, replace(schema, columns=needed), rest)
        try:
            if not later.window.empty:
                pending = sum(later.digest(piece).rows for piece in later.slices)  # rows without a cursor value too
            names = [column.name for column in keys]
            batches = (batch.select(names) for piece in later.slices for batch in later.read(piece))
            without = (keys, batches) if pending else None
            right = sink.digest(target, columns, without=without, live=live)
        finally:
            later.close()
    else:
        right = sink.digest(target, columns, live=live)
    scope = "table" if window.full else "window"
    return Comparison(stream.name, str(target), scope, left, right, pending, skipped)
