"""Rows that can only be read, compared part by part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpone.arrow.batches import conform
from dpone.arrow.digest import digest_parts, rows_of_parts
from dpone.sdk import Column, Digest

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ReadParts:
    """See `dpone.sdk.Comparable`. `read` gives the batches of some columns, in any encoding."""

    read: Callable[[tuple[Column, ...]], Iterator[pa.RecordBatch]]

    def digests(self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int) -> Mapping[int, Digest]:
        """One pass over the rows."""
        return digest_parts(columns, key, count, conform(self.read(columns), columns))

    def rows(
        self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int, wanted: Collection[int]
    ) -> Iterator[pa.RecordBatch]:
        """Another pass."""
        return rows_of_parts(key, count, wanted, conform(self.read(columns), columns))
