"""Reading from tables in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.digest import digest, undigestible
from dpone.arrow.parts import ReadParts
from dpone.arrow.types import arrow_schema
from dpone.errors import DataError, SchemaError
from dpone.sdk import Digest, Slice, Stream, StreamSchema, Window
from dpone.sql.source import BEHIND, choose_columns
from dpone.testing.memory.place import Held, MemoryConfig, Place, Script, place


class MemorySource:
    """The tables of one place."""

    def __init__(self, config: MemoryConfig) -> None:
        self._place = place(config.place)

    def describe(self, stream: Stream) -> StreamSchema:
        """The columns as they were put."""
        held = self._find(stream.name)
        columns = choose_columns(stream, held.columns)
        rows = sum(batch.num_rows for batch in held.batches)
        schema: StreamSchema = self._place.script("describe", StreamSchema(columns, held.primary_key, rows, "1"))
        return schema

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> MemoryReading:
        """Tables are never changed in place, so holding one is a snapshot."""
        with self._place.guard:
            held, version = self._find(stream.name), self._place.version
        return MemoryReading(self._place, held, stream, schema, window, f"{id(self._place)}/{version}")

    def discover(self) -> Sequence[str]:
        """The names of the tables."""
        return sorted(self._place.tables)

    def close(self) -> None:
        """Nothing to release."""

    def _find(self, name: str) -> Held:
        held = self._place.tables.get(name)
        if held is None:
            close = get_close_matches(name, self._place.tables, n=1)
            raise SchemaError(
                f"{name} does not exist in memory",
                remedy=f"did you mean {close[0]}?" if close else "put a table there",
                code="DP401",
            )
        return held


class MemoryReading:
    """One table as it was when it was opened."""

    def __init__(
        self, home: Place, held: Held, stream: Stream, schema: StreamSchema, window: Window, snapshot: str
    ) -> None:
        self._script: Script = home.script
        self._held = held
        self._stream = stream
        self._schema = schema
        self._all = held.table
        self.snapshot = snapshot
        self.window: Window = self._script("open", self._fix(window))
        rows = sum(batch.num_rows for batch in held.batches)
        later = bool(stream.cursor) and window.after is not None
        borders = [] if later else range(stream.slice_rows, rows, stream.slice_rows)
        edges = [0, *borders, rows]
        self.slices = tuple(
            Slice(index, str(first), str(last), f"rows [{first}, {last})")
            for index, (first, last) in enumerate(pairwise(edges))
        )
        if stream.apart and self.window.again is not None:
            self.slices += (Slice(len(self.slices), "0", str(rows), "rows again", holds="again"),)

    def query(self, piece: Slice) -> str:
        """What is read."""
        return f"{self._stream.name} {piece.label}"

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """The rows of a slice. Whole batches pass as they were put; of others, the rows of the window."""
        names = [column.name for column in self._schema.columns]
        for batch in self._batches(piece):
            yield self._script("read", batch.select(names))

    def digest(self, piece: Slice) -> Digest:
        """The digest of a slice."""
        columns = tuple(column for column in self._schema.columns if not undigestible(column))
        schema = arrow_schema(columns)
        batches = (batch.select(schema.names).cast(schema) for batch in self._batches(piece))
        found: Digest = self._script("source_digest", digest(columns, batches))
        return found

    def compared(self) -> ReadParts:
        """See `dpone.sdk.Compares`."""
        batches = self._held.batches
        return ReadParts(lambda columns: (batch.select([column.name for column in columns]) for batch in batches))

    def close(self) -> None:
        """Nothing to release."""

    def _batches(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        first, last, at = int(piece.lower), int(piece.upper), 0
        for batch in self._held.batches:
            low, high = max(first - at, 0), min(last - at, batch.num_rows)
            at += batch.num_rows
            if low >= high and batch.num_rows:
                continue
            part = batch if (low, high) == (0, batch.num_rows) else batch.slice(low, high - low)
            if self.window.full:
                yield part
                continue
            inside = self._inside(part, piece)
            whole = pc.all(inside).as_py()
            yield part if whole else part.cast(self._all.schema).filter(inside)  # some forms cannot be filtered

    def _inside(self, rows: pa.RecordBatch, piece: Slice) -> Any:
        """Which rows the window holds."""
        window = self.window
        column = rows.column(self._stream.cursor)
        cursor = column.cast(self._all.schema.field(self._stream.cursor).type)
        top = window.after if piece.again else window.until
        mask = pc.is_valid(pc.cast(cursor, pa.string()))
        if top is not None:
            mask = pc.and_(mask, pc.less_equal(cursor, self._value(top)))
        if window.again is not None and (piece.again or not self._stream.apart):
            mask = pc.and_(mask, pc.greater_equal(cursor, self._value(window.again)))
        elif window.after is not None:
            mask = pc.and_(mask, pc.greater(cursor, self._value(window.after)))
        elif top is None:
            mask = pc.and_(mask, pa.scalar(value=False))  # no row has a cursor value
        mask = pc.fill_null(mask, fill_value=False)
        return pc.or_(mask, pc.is_null(cursor)) if window.null_rows else mask

    def _value(self, text: str) -> pa.Scalar:
        type_ = self._all.schema.field(self._stream.cursor).type
        plain = pa.int64() if pa.types.is_temporal(type_) and not pa.types.is_date32(type_) else type_
        if pa.types.is_date32(type_):
            return pa.scalar(int(text), pa.int32()).cast(type_)
        return pa.array([text]).cast(plain).cast(type_)[0]

    def _text(self, value: pa.Scalar) -> str:
        type_ = value.type
        if pa.types.is_date32(type_):
            value = value.cast(pa.int32())
        elif pa.types.is_temporal(type_):
            value = value.cast(pa.int64())
        return str(value.cast(pa.string()).as_py())

    def _fix(self, window: Window) -> Window:
        if window.fixed:
            return window
        if not self._stream.cursor:
            return replace(window, full=True, fixed=True)
        cursor = self._all.column(self._stream.cursor)
        if cursor.null_count and self._stream.null_cursor == "refuse":
            raise DataError(
                f"{cursor.null_count} rows of {self._stream.name} have no value in the cursor {self._stream.cursor}",
                remedy="set cursor: {column: ..., nulls: load} to load them in every run",
                code="DP411",
            )
        window = replace(window, full=False, null_rows=cursor.null_count, until_rule="max", fixed=True)
        greatest = pc.max(cursor) if len(cursor) > cursor.null_count else None
        until = None if greatest is None else self._text(greatest)
        if window.after is not None and (greatest is None or pc.less(greatest, self._value(window.after)).as_py()):
            window, until = replace(window, until_rule=BEHIND), window.after
        if self._stream.lookback and window.after is not None:
            step = pa.scalar(self._stream.lookback)
            low = pc.subtract(self._value(window.after), step).cast(self._all.schema.field(self._stream.cursor).type)
            return replace(window, until=until, again=self._text(low), ties="")
        before = window.ties
        changed = window.after is not None and bool(before) and before != self._ties(window.after)
        ties = before if until == window.after and not changed else self._ties(until) if until is not None else ""
        return replace(window, until=until, again=window.after if changed else None, ties=ties)

    def _ties(self, value: str) -> str:
        columns = tuple(column for column in self._schema.columns if not undigestible(column))
        at = self._all.filter(pc.equal(self._all.column(self._stream.cursor), self._value(value)))
        return str(digest(columns, at.select([column.name for column in columns]).to_batches()))
