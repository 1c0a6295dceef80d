"""A source as it looks after a transform: everything that reads or digests it sees the transformed rows.

The proof of a load is over the values after transforms, so a digest of the source is computed by reading through the
transform; the source's own server cannot do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from dpone.arrow.batches import conform
from dpone.arrow.digest import Digester, undigestible
from dpone.arrow.parts import ReadParts
from dpone.errors import InternalError
from dpone.sdk import Column, Compares, Digest, Reading, Slice, Source, Stream, StreamSchema, Window
from dpone.transform.compiled import Transform


@dataclass(slots=True)
class Passed:
    """The rows of one slice: read from the source, and left out by the transform."""

    read: int = 0
    filtered: int = 0


class TransformedSource:
    """See `dpone.sdk.Source`. Streams and schemas have the names after the transform."""

    def __init__(self, source: Source, transform: Transform) -> None:
        self._source = source
        self._transform = transform

    def describe(self, stream: Stream) -> StreamSchema:
        """The columns after the transform."""
        found = self._source.describe(self._stream(stream))
        return replace(found, columns=self._transform.columns, primary_key=stream.primary_key)

    def open(self, stream: Stream, schema: StreamSchema, window: Window) -> TransformedReading:
        """See `Source.open`; the schema's columns are some of those after the transform."""
        read = replace(schema, columns=self._transform.read)
        return TransformedReading(
            self._source.open(self._stream(stream), read, window), self._transform, schema.columns
        )

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _stream(self, stream: Stream) -> Stream:
        back = self._transform.back
        return replace(
            stream,
            primary_key=tuple(map(back, stream.primary_key)),
            cursor=back(stream.cursor) if stream.cursor else "",
        )


class TransformedReading:
    """See `dpone.sdk.Reading`. `passed` counts the rows of each slice in its last reading."""

    def __init__(self, reading: Reading, transform: Transform, columns: tuple[Column, ...]) -> None:
        self._reading = reading
        self._transform = transform
        self._columns = columns
        self.window = reading.window
        self.slices = reading.slices
        self.snapshot = reading.snapshot
        self.passed: dict[int, Passed] = {}

    def query(self, piece: Slice) -> str:
        """What the source is asked."""
        return self._reading.query(piece)

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """The rows of a slice, transformed. One without a row left passes too: a run is cancelled between batches."""
        passed = self.passed[piece.ordinal] = Passed()
        names = [column.name for column in self._columns]
        whole = self._columns == self._transform.columns
        for batch in conform(self._reading.read(piece), self._transform.read):
            found, left_out = self._transform.apply(batch)
            passed.read += batch.num_rows
            passed.filtered += left_out
            yield found if whole else found.select(names)

    def digest(self, piece: Slice) -> Digest:
        """The digest of a slice, by reading it through the transform."""
        kept = [index for index, column in enumerate(self._columns) if not undigestible(column)]
        digester = Digester(tuple(self._columns[index] for index in kept))
        for batch in self.read(piece):
            digester.add(batch.select(kept))
        return digester.total

    def compared(self) -> ReadParts:
        """See `dpone.sdk.Compares`: every row has to pass the transform, so all of them are read."""
        if not isinstance(self._reading, Compares):
            raise InternalError("the source cannot be compared", remedy="report it")
        rows, read = self._reading.compared(), self._transform.read

        def transformed(columns: tuple[Column, ...]) -> Iterator[pa.RecordBatch]:
            names = [column.name for column in columns]
            for batch in conform(rows.rows(read, read[:1], 1, (0,)), read):  # one part holds everything
                yield self._transform.apply(batch)[0].select(names)

        return ReadParts(transformed)

    def close(self) -> None:
        """End the snapshot."""
        self._reading.close()
