"""Finding what differs between a source and a target, without moving what does not.

Both sides digest their rows in parts, one aggregate scan each; equal parts are equal. Of the others the keys are read
and compared, some parts at a time, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from dpone.arrow.batches import conform
from dpone.arrow.digest import digest, undigestible, without
from dpone.sdk import Column, Comparable, Digest, Reading, Slice, Window

_ROWS_PER_PART = 1_000  # so that one row that differs moves about as many keys
_MOST_PARTS = 1 << 16
_AT_ONCE = 500_000  # keys of both sides that are compared in memory


@dataclass(frozen=True, slots=True)
class Difference:
    """The keys of some parts that differ: those that only the target has, and those that only the source has."""

    gone: list[pa.RecordBatch]
    missing: list[pa.RecordBatch]
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sides:
    """A source and the live rows of a target, in canonical columns; `key` are those of the key."""

    source: Comparable
    target: Comparable
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    parts: int

    def differing(self) -> tuple[int, Iterator[tuple[int, ...]]]:
        """The number of rows of the target, and the parts that differ, in groups that fit into memory."""
        left = self.source.digests(self.columns, self.key, self.parts)
        right = self.target.digests(self.columns, self.key, self.parts)
        return sum(digest.rows for digest in right.values()), _groups(left, right)

    def keys(self, parts: tuple[int, ...]) -> Difference:
        """The keys of these parts that are on one side only."""
        left, right = (
            list(conform(side.rows(self.key, self.key, self.parts, parts), self.key))
            for side in (self.source, self.target)
        )
        return Difference(list(without(self.key, right, left)), list(without(self.key, left, right)), parts)


class PartsReading:
    """A reading of the parts in which a target differs from its source: see `dpone.sdk.Reading`.

    Its window is the one of the last load, which stays what it was: a repair moves no checkpoint.
    """

    def __init__(self, reading: Reading, sides: Sides, columns: tuple[Column, ...], window: Window) -> None:
        self._reading = reading
        self._sides = sides
        self._columns = columns
        self.window = window
        self.snapshot = ""
        _, groups = sides.differing()
        self.slices = tuple(
            Slice(number, lower=",".join(map(str, parts)), label=f"{len(parts)} of {sides.parts} parts")
            for number, parts in enumerate(groups)
        )

    def query(self, piece: Slice) -> str:
        """What is read."""
        return f"the rows of {piece.label}"

    def read(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        """All rows that the source has in these parts."""
        parts = [int(part) for part in piece.lower.split(",")]
        return self._sides.source.rows(self._columns, self._sides.key, self._sides.parts, parts)

    def digest(self, piece: Slice) -> Digest:
        """The digest of a slice, by reading it."""
        shown = tuple(column for column in self._columns if not undigestible(column))
        names = [column.name for column in shown]
        return digest(shown, (batch.select(names) for batch in conform(self.read(piece), self._columns)))

    def compared(self) -> Comparable:
        """See `dpone.sdk.Compares`."""
        return self._sides.source

    def close(self) -> None:
        """End the snapshot."""
        self._reading.close()


def parts_for(rows: int | None) -> int:
    """How many parts a table of about so many rows is compared in: a power of two."""
    wanted = max(1, (rows or 0) // _ROWS_PER_PART)
    return min(_MOST_PARTS, 1 << (wanted - 1).bit_length())


def _groups(left: Mapping[int, Digest], right: Mapping[int, Digest]) -> Iterator[tuple[int, ...]]:
    group: list[int] = []
    rows = 0
    for part in sorted({*left, *right}):
        mine, theirs = left.get(part, Digest()), right.get(part, Digest())
        if mine == theirs:
            continue
        if group and rows + mine.rows + theirs.rows > _AT_ONCE:
            yield tuple(group)
            group, rows = [], 0
        group.append(part)
        rows += mine.rows + theirs.rows
    if group:
        yield tuple(group)
