"""The content digest `dpone-digest/1`: what two tables with the same rows agree on, in any order.

A row is encoded as the concatenation of its values in column order, each as a netstring without the comma,
`<length in bytes>:<text>`, and NULL as `-`. No two different rows share an encoding. The hash of a row is the first
eight bytes, big-endian, of the MD5 of that text in UTF-8; the digest is the count and the sum of the hashes modulo
2**64. MD5 is used as a checksum that every database computes, not against an adversary.

The text of a value depends on its canonical type only:

    boolean         true | false
    integers        decimal digits
    decimals        digits without trailing zeros after the point, no exponent; 1.50 is 1.5, 0.00 is 0
    floats          the 64 bits of the IEEE double as a signed integer; one NaN, 7ff8000000000000
    text json uuid  the text itself
    binary          lower-case hexadecimal
    date            days since 1970-01-01
    time            microseconds since midnight (nanoseconds where the type is finer)
    timestamp       microseconds since 1970-01-01, in UTC when it has a zone (nanoseconds where the type is finer)
    lists           JSON without spaces, of integers, booleans and text only

Postgres computes the same in SQL; everything else reads the rows back as Arrow and comes here. The encoding and
the hash run in DuckDB over the Arrow buffers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dpone import stopping
from dpone.sdk import Column, Digest

ALGORITHM = "dpone-digest/1"
_NAN_BITS = 0x7FF8000000000000
_MIN_ROWS = 32_768  # smaller batches are gathered first: a DuckDB query has a fixed cost of a few milliseconds
_MAX_BYTES = 8 << 20  # but not more than this of them


class Digester:
    """Adds up the digest of record batches. `wrap` passes batches through and digests them on the way."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._query = _query(columns)
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._total = Digest()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in one batch."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= _MIN_ROWS or self._bytes >= _MAX_BYTES:
            self._flush()

    def wrap(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, digested."""
        for batch in batches:
            self.add(batch)
            yield batch

    @property
    def total(self) -> Digest:
        """The digest of everything added so far."""
        self._flush()
        return self._total

    def _flush(self) -> None:
        if not self._rows:
            self._waiting, self._bytes = [], 0
            return
        table = pa.Table.from_batches([_encodable(batch) for batch in self._waiting])
        self._waiting, self._rows, self._bytes = [], 0, 0
        connection = _connection()
        connection.register("rows_to_digest", table)
        try:
            [(count, total)] = connection.execute(self._query).fetchall()
        finally:
            connection.unregister("rows_to_digest")
        self._total += Digest(int(count), int(total or 0) % 2**64)


def digest(columns: tuple[Column, ...], batches: Iterable[pa.RecordBatch]) -> Digest:
    """The digest of all rows of these batches, whose columns are `columns` in order."""
    digester = Digester(columns)
    stop = stopping.current()
    for batch in batches:
        stop.check("computing a digest")
        digester.add(batch)
    return digester.total


def undigestible(column: Column) -> str:
    """Why a digest cannot compare a column between source and sink, or an empty string."""
    if column.altered:
        return f"column {column.name}: {column.altered}"
    type_ = column.type
    if pa.types.is_nested(type_):
        value = getattr(type_, "value_type", None)
        plain = value is not None and (
            pa.types.is_integer(value) or pa.types.is_boolean(value) or pa.types.is_string(value)
        )
        return "" if plain else f"column {column.name}: a digest of {type_} is not defined"
    return ""


_local = threading.local()


def _connection() -> duckdb.DuckDBPyConnection:
    connection: Any = getattr(_local, "connection", None)
    if connection is None:
        connection = duckdb.connect(":memory:")
        connection.execute("SET threads = 1")
        # It compares every expression with every other one: half a minute for 1,600 columns, and nothing to gain here.
        connection.execute("SET disabled_optimizers = 'common_subexpressions'")
        _local.connection = connection
    return connection  # type: ignore[no-any-return]


def _query(columns: tuple[Column, ...]) -> str:
    """Columns are named c0, c1, ... by `_encodable`, so no name of the user reaches the SQL."""
    # Each text is computed once in the subquery; see `_connection` on why that is not left to DuckDB.
    texts = ", ".join(f"{_text(f'c{index}', column)} AS t{index}" for index, column in enumerate(columns)) or "1"
    parts = [f"coalesce(strlen(t{index}) || ':' || t{index}, '-')" for index in range(len(columns))]
    row = "concat(" + ", ".join(parts or ["''"]) + ")"
    relation = f"(SELECT {texts} FROM rows_to_digest) AS r"
    return f"SELECT count(*), sum(('0x' || md5({row})[1:16])::UBIGINT::HUGEINT) FROM {relation}"


def _text(name: str, column: Column) -> str:
    type_ = column.type
    if pa.types.is_decimal(type_):
        return _decimal(name, type_)
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return f"lower(hex({name}))"
    if pa.types.is_nested(type_):
        return f"to_json({name})::VARCHAR"
    return f"{name}::VARCHAR"


def _decimal(name: str, type_: pa.DataType) -> str:
    if type_.scale == 0:
        return f"{name}::VARCHAR"
    text = f"rtrim(rtrim({name}::VARCHAR, '0'), '.')"
    if type_.precision > type_.scale:
        return text
    # DuckDB writes a decimal without integer digits as ".5"; everyone else writes "0.5".
    return f"CASE WHEN {name} = 0 THEN '0' ELSE regexp_replace({text}, '^(-?)\\.', '\\10.') END"


def _encodable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Floats, dates and times as the integers that the encoding is made of; columns renamed by position."""
    arrays = [_integers(array) for array in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, names=[f"c{index}" for index in range(len(arrays))])


def _integers(array: pa.Array) -> pa.Array:
    type_ = array.type
    if pa.types.is_floating(type_):
        doubles = array.cast(pa.float64())
        nan = pc.fill_null(pc.is_nan(doubles), False)  # noqa: FBT003 - pyarrow's own signature
        return pc.if_else(nan, pa.scalar(_NAN_BITS, pa.int64()), doubles.view(pa.int64()))
    if pa.types.is_date32(type_):
        return array.view(pa.int32())
    if pa.types.is_timestamp(type_) or pa.types.is_time(type_):
        if type_.unit in ("s", "ms"):
            fine = pa.timestamp("us", type_.tz) if pa.types.is_timestamp(type_) else pa.time64("us")
            array = array.cast(fine)
        return array.view(pa.int64())
    if pa.types.is_dictionary(type_):
        return array.cast(type_.value_type)
    return array
