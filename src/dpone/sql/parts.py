"""Tables of a SQL system by parts: rows fall into parts by the hash of their key, the same in every system.

So a source and a sink are compared by one aggregate scan of each, and only the rows of parts that differ are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dpone.arrow.digest import digest_parts, rows_of_parts
from dpone.sdk import Column, Digest

if TYPE_CHECKING:
    import pyarrow as pa

    from dpone.sql.dialect import Session


@runtime_checkable
class Hashing(Protocol):
    """A session whose server computes the hashes of `dpone-digest/1` itself."""

    def digest_parts(
        self, relation: str, columns: Sequence[Column], key: Sequence[Column], count: int
    ) -> dict[int, Digest]:
        """The digests of the parts of a FROM item."""

    def part(self, key: Sequence[Column], count: int) -> str:
        """The expression of the number of the part that a row falls into."""


@dataclass(frozen=True, slots=True)
class SqlParts:
    """The rows of a FROM item, see `dpone.sdk.Comparable`. Columns have the system's own `native`."""

    session: Session
    relation: str

    def digests(self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int) -> Mapping[int, Digest]:
        """By the server where it can, else by reading."""
        if isinstance(self.session, Hashing):
            return self.session.digest_parts(self.relation, columns, key, count)
        return digest_parts(columns, key, count, self._read(columns))

    def rows(
        self, columns: tuple[Column, ...], key: tuple[Column, ...], count: int, wanted: Collection[int]
    ) -> Iterator[pa.RecordBatch]:
        """The rows of some parts."""
        if isinstance(self.session, Hashing):
            parts = ", ".join(map(str, sorted(wanted)))
            return self._read(columns, f" WHERE {self.session.part(key, count)} IN ({parts})")
        return rows_of_parts(key, count, wanted, self._read(columns))

    def _read(self, columns: tuple[Column, ...], where: str = "") -> Iterator[pa.RecordBatch]:
        dialect = self.session.dialect
        read = ", ".join(f"{dialect.read(column)} AS {dialect.quote(column.name)}" for column in columns)
        return self.session.batches(f"SELECT {read} FROM {self.relation}{where}", columns)
