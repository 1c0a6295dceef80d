"""Between the CSV of COPY and Arrow: every value exactly, no Python code per row or per value.

An unquoted empty field is NULL and a quoted one is '' in both directions
(https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.55.9.3). Arrow's reader converts strictly: a text that
is not exactly a value of the column's type stops the read.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import UTC, arrow_schema
from dpone.connectors.postgres.dialect import NO_LIST
from dpone.errors import DataError
from dpone.sdk import Column

CHUNK = 4 << 20
"""Bytes of CSV that become one record batch, or go out in one piece; one row may be longer."""

MARK = b"\xef\xbb\xbf"
"""Begins every chunk: Arrow's reader drops one byte order mark, and must not take it from the first value."""

_DAY = 86_400_000_000  # microseconds
_FIRST, _LAST = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, in days since 1970-01-01


class Parser:
    """Turns CSV of whole rows into a record batch with exactly the described types."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._schema = arrow_schema(tuple(columns))
        # Names are positions: the user's names need not be unique to Arrow's CSV reader, nor quoted.
        types = {f"c{index}": _wire_type(column) for index, column in enumerate(columns)}
        self._duckdb: duckdb.DuckDBPyConnection | None = None
        self._parse = pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
        self._convert = pacsv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        )

    def __call__(self, chunk: memoryview) -> pa.RecordBatch:
        """The rows of a chunk, which begins with `MARK`. Raises DataError naming the column that does not convert."""
        read = pacsv.ReadOptions(
            column_names=[f"c{index}" for index in range(len(self._columns))], block_size=len(chunk) + 1
        )
        try:
            table = pacsv.read_csv(
                pa.BufferReader(chunk), read_options=read, parse_options=self._parse, convert_options=self._convert
            )
        except pa.ArrowInvalid as error:
            match = re.search(r"In CSV column #(\d+)", str(error))
            if match is None:
                raise DataError(
                    "reading rows: the server's CSV cannot be parsed", remedy="report this", code="DP414"
                ) from None
            raise _unreadable(self._columns[int(match[1])]) from None
        arrays = [self._finish(column, table.column(index)) for index, column in enumerate(self._columns)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _finish(self, column: Column, values: pa.ChunkedArray) -> pa.Array:
        if pa.types.is_binary(column.type):
            return _unhex(values.combine_chunks())
        if pa.types.is_list(column.type):
            return self._list(column, values)
        return values.combine_chunks()

    def _list(self, column: Column, values: pa.ChunkedArray) -> pa.Array:
        """JSON arrays as Arrow lists, parsed by DuckDB. Integers and booleans are JSON's own, all else is strings."""
        if pc.any(pc.equal(values, NO_LIST)).as_py():
            raise DataError(
                f"column {column.name}: an array has several dimensions, or does not begin at index 1",
                remedy=f"{manifest_line(cast={column.name: 'text'})} reads the arrays as text",
                code="DP414",
            )
        element = column.type.value_type
        kind = "BIGINT" if pa.types.is_integer(element) else "BOOLEAN" if pa.types.is_boolean(element) else "VARCHAR"
        if self._duckdb is None:
            self._duckdb = duckdb.connect(":memory:", config={"threads": 1})
        self._duckdb.register("arrays", pa.table({"j": values}))
        parsed = self._duckdb.sql(f"SELECT from_json_strict(j, '[\"{kind}\"]') AS v FROM arrays").to_arrow_table()
        lists = parsed.column(0).combine_chunks()
        try:
            return _times(lists, column.type) if pa.types.is_time(element) else lists.cast(column.type)
        except pa.ArrowInvalid:
            raise _unreadable(column) from None


def _times(lists: pa.ListArray, type_: pa.DataType) -> pa.Array:
    """Lists of texts as lists of times: Arrow casts texts to timestamps, and those to times."""
    stamps = pc.binary_join_element_wise("1970-01-01 ", lists.values, "").cast(pa.timestamp(type_.value_type.unit))
    missing = lists.is_null() if lists.null_count else None
    return pa.ListArray.from_arrays(lists.offsets, stamps.cast(type_.value_type), type_, mask=missing)


def _wire_type(column: Column) -> pa.DataType:
    if pa.types.is_list(column.type) or pa.types.is_binary(column.type):
        return pa.string()
    return column.type


def _unreadable(column: Column) -> DataError:
    return DataError(
        f"column {column.name}: a value of {column.native or 'its type'} does not fit {column.type}",
        remedy=f"{manifest_line(cast={column.name: 'text'})} reads it as text; infinity, NaN, BC dates and years "
        "after 9999 have no other form",
        code="DP414",
    )


def _unhex(array: pa.StringArray) -> pa.BinaryArray:
    """Hexadecimal text as bytes: one call over the text of all values, and half of every offset."""
    validity, offsets, data = array.buffers()
    if array.offset or data is None:
        array = pa.concat_arrays([pa.array([], pa.string()), array])
        validity, offsets, data = array.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(array) + 1, [None, offsets])
    size = ends[-1].as_py()
    raw = binascii.unhexlify(memoryview(data)[:size]) if data is not None else b""
    halves = pc.shift_right(ends, pa.scalar(1, pa.int32()))  # an untyped 1 would widen the offsets
    return pa.Array.from_buffers(pa.binary(), len(array), [validity, halves.buffers()[1], pa.py_buffer(raw)])


class Writer:
    """Turns record batches into CSV for COPY, every value quoted and every NULL bare, with the number of the slice."""

    def __init__(self, columns: Sequence[Column], ordinal: int) -> None:
        self._columns = columns
        self._ordinal = pa.scalar(ordinal, pa.int32())
        self._options = pacsv.WriteOptions(include_header=False, quoting_style="all_valid", batch_size=8192)
        self._names = [f"c{index}" for index in range(len(columns) + 1)]

    def __call__(self, batch: pa.RecordBatch) -> Iterator[memoryview]:
        """The rows of a batch as pieces of CSV. Raises DataError naming a column with a value that cannot be stored."""
        rows = max(1, batch.num_rows * CHUNK // max(batch.nbytes, 1))
        for start in range(0, batch.num_rows, rows):
            yield self._text(batch.slice(start, rows))

    def _text(self, batch: pa.RecordBatch) -> memoryview:
        arrays = [_writable(column, batch.column(index)) for index, column in enumerate(self._columns)]
        arrays.append(pa.repeat(self._ordinal, batch.num_rows))
        out = pa.BufferOutputStream()
        pacsv.write_csv(pa.RecordBatch.from_arrays(arrays, names=self._names), out, self._options)
        text = memoryview(out.getvalue())
        if re.search(b"\0", text):
            self._refuse_nul(arrays)
        return text

    def _refuse_nul(self, arrays: Sequence[pa.Array]) -> None:
        for column, array in zip(self._columns, arrays, strict=False):
            holds = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
            if holds and pc.any(pc.match_substring(array, "\0")).as_py():
                # https://www.postgresql.org/docs/current/datatype-character.html
                raise DataError(
                    f"column {column.name}: a text holds the character NUL, which PostgreSQL cannot store",
                    remedy="remove it at the source, or exclude the column",
                    code="DP415",
                )


def _writable(column: Column, array: pa.Array) -> pa.Array:
    """A column in a type whose CSV text PostgreSQL reads back as the same value."""
    type_ = array.type
    if column.kept:
        return array
    if pa.types.is_dictionary(type_) or pa.types.is_string_view(type_):
        return array.cast(pa.string())
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return _hex(array)
    if pa.types.is_list(type_):
        return _array_literal(column, array)
    if pa.types.is_date(type_) or pa.types.is_timestamp(type_) or pa.types.is_time(type_):
        return _moment(column, array)
    return array


def _moment(column: Column, array: pa.Array) -> pa.Array:
    type_ = array.type
    if pa.types.is_time(type_):
        return _clock(column, array.cast(pa.time64("us"), safe=False))  # the plan calls it lossy below a microsecond
    if pa.types.is_date(type_):
        array, low, high = array.cast(pa.date32()), _FIRST, _LAST
        numbers = array.view(pa.int32())
    else:
        if type_.unit == "ns":
            array = pc.floor_temporal(array, unit="microsecond")
        try:
            array = array.cast(pa.timestamp("us", type_.tz))
        except pa.ArrowInvalid:
            raise _out_of_range(column) from None
        low, high = _FIRST * _DAY, (_LAST + 1) * _DAY - 1
        numbers = array.view(pa.int64())
        array = array.cast(pa.timestamp("us", UTC)) if type_.tz else array
    bounds = pc.min_max(numbers)
    if bounds["min"].is_valid and (bounds["min"].as_py() < low or bounds["max"].as_py() > high):
        raise _out_of_range(column)
    return array


def _clock(column: Column, array: pa.Array) -> pa.Array:
    """Times; the text of the latest one, 24:00:00, is not one that Arrow writes."""
    count = array.view(pa.int64())
    bounds = pc.min_max(count).as_py()
    if bounds["min"] is None or 0 <= bounds["min"] <= bounds["max"] < _DAY:
        return array
    if bounds["min"] < 0 or bounds["max"] > _DAY:
        raise DataError(
            f"column {column.name}: a time lies outside of 00:00:00 to 24:00:00",
            remedy=f"{manifest_line(exclude=[column.name])} leaves the column out; correct it at the source",
            code="DP414",
        )
    latest = pc.equal(count, _DAY)
    rest = pc.if_else(latest, pa.scalar(0, pa.int64()), count).view(array.type).cast(pa.string())
    return pc.if_else(latest, "24:00:00", rest)


def _out_of_range(column: Column) -> DataError:
    return DataError(
        f"column {column.name}: a date lies outside the years 1 to 9999, whose text both sides read alike",
        remedy="cast the column to text at the source",
        code="DP414",
    )


def _hex(array: pa.Array) -> pa.Array:
    """Bytes in the hex format (https://www.postgresql.org/docs/current/datatype-binary.html), in one call."""
    large = array.cast(pa.large_binary())
    offset, count = large.offset, len(large)
    validity, offsets, data = large.buffers()
    ends = pa.Array.from_buffers(pa.int64(), offset + count + 1, [None, offsets]).slice(offset)
    first, last = ends[0].as_py(), ends[-1].as_py()
    digits_of = binascii.hexlify(memoryview(data)[first:last]) if data is not None and last > first else b""
    doubled = pc.shift_left(pc.subtract(ends, first), 1)
    digits = pa.Array.from_buffers(pa.large_string(), count, [None, doubled.buffers()[1], pa.py_buffer(digits_of)])
    prefix, nothing, null = (pa.scalar(text, pa.large_string()) for text in ("\\x", "", None))
    prefixed = pc.binary_join_element_wise(prefix, digits, nothing)
    return pc.if_else(array.is_valid(), prefixed, null) if validity else prefixed


def _array_literal(column: Column, array: pa.ListArray) -> pa.Array:
    """Lists as `{"a","b",NULL}`, every element quoted: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO."""
    elements = _writable(Column(column.name, array.type.value_type), array.flatten()).cast(pa.string())
    escaped = pc.replace_substring(pc.replace_substring(elements, "\\", "\\\\"), '"', '\\"')
    quoted = pc.binary_join_element_wise('"', escaped, '"', "").fill_null("NULL")
    sizes = pc.fill_null(pc.list_value_length(array), 0)
    ends = pc.cumulative_sum(pa.concat_arrays([pa.array([0], pa.int32()), sizes.cast(pa.int32())]))
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, quoted), ",")
    literal = pc.binary_join_element_wise("{", joined, "}", "")
    return pc.if_else(array.is_valid(), literal, pa.scalar(None, pa.string()))


__all__ = ["CHUNK", "MARK", "Parser", "Writer"]
