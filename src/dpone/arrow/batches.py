"""Record batches as they were described, before anything counts, digests or stores them.

A sink relies on the canonical types. So the forms that Arrow has for one and the same type (dictionary, run-end
encoded, view and large) are unpacked here, which alters no value; whatever else differs from the description is an
error of the connector, found at its first batch and never cast away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.types import arrow_schema, type_name
from dpone.errors import DataError, InternalError
from dpone.sdk import Column


def conform(batches: Iterable[pa.RecordBatch], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """The batches with exactly the schema of these columns, metadata included.

    Raises InternalError DP904 when names or their order differ, when a column is of another type, and when a column
    that was described as not nullable holds NULL.
    """
    schema = arrow_schema(tuple(columns))
    for batch in batches:
        if batch.schema.names != schema.names:
            raise _broken(_names(batch.schema.names, schema.names))
        yield from _conformed(batch, columns, schema)


def _conformed(batch: pa.RecordBatch, columns: Sequence[Column], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    try:
        arrays = [_column(array, column) for array, column in zip(batch.columns, columns, strict=True)]
    except pa.ArrowInvalid as error:
        # Unpacked, the values of a batch may have more bytes than the offsets of one array reach.
        if batch.num_rows <= 1:
            raise DataError(
                "a row has over 2 GiB in one column", remedy="leave the column out: columns: {exclude: [name]}"
            ) from error
        half = batch.num_rows // 2
        yield from _conformed(batch.slice(0, half), columns, schema)
        yield from _conformed(batch.slice(half), columns, schema)
        return
    yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(array: pa.Array, column: Column) -> pa.Array:
    found = array.type
    if found != column.type:
        if _plain(found) != column.type:
            described = type_name(column.type, column.logical)
            raise _broken(f"column {column.name} was described as {described} ({column.type}) and came as {found}")
        array = _unpacked(array, column.type)
    if array.null_count and not column.nullable:
        raise _broken(f"column {column.name} was described as not nullable and came with {array.null_count} NULLs")
    return array


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type of the same values without an encoding; any other type is itself."""
    types = pa.types
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return _plain(type_.value_type)
    if types.is_large_string(type_) or types.is_string_view(type_):
        return pa.string()
    if types.is_large_binary(type_) or types.is_binary_view(type_):
        return pa.binary()
    if types.is_large_list(type_) or types.is_list_view(type_) or types.is_large_list_view(type_):
        return pa.list_(_plain(type_.value_type))
    if types.is_list(type_):
        return pa.list_(_plain(type_.value_type))
    return type_


def _unpacked(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The same values in the wanted type, of which the array's own type is an encoding."""
    types, found = pa.types, array.type
    if types.is_dictionary(found):
        return _unpacked(array.dictionary_decode(), wanted)
    if types.is_run_end_encoded(found):
        return _unpacked(_without_runs(array), wanted)
    if types.is_list_view(found) or types.is_large_list_view(found):
        # Not by a cast: that of pyarrow 26 gives invalid offsets.
        sizes = pc.fill_null(pc.list_value_length(array), 0)
        ends = pc.cumulative_sum(pa.concat_arrays([pa.array([0], sizes.type), sizes])).cast(pa.int32())
        return pa.ListArray.from_arrays(ends, _unpacked(array.flatten(), wanted.value_type), mask=array.is_null())
    return array if found == wanted else array.cast(wanted)


def _without_runs(array: pa.RunEndEncodedArray) -> pa.Array:
    """Each row's value, taken by the number of its run: `run_end_decode` of text does not look at its own overflow."""
    runs = len(array.values)
    numbers = pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1), runs)), 1) if runs else pa.array([], pa.int64())
    numbered = pa.RunEndEncodedArray.from_arrays(array.run_ends, numbers).slice(array.offset, len(array))
    return array.values.take(pc.run_end_decode(numbered))


def _names(found: Sequence[str], described: Sequence[str]) -> str:
    if sorted(found) == sorted(described):
        at = next(index for index, pair in enumerate(zip(found, described, strict=True)) if len(set(pair)) > 1)
        return f"column {described[at]} was described in the place where {found[at]} came"
    missing = [name for name in described if name not in found]
    if missing:
        return f"column {missing[0]} was described and did not come"
    more = [name for name in found if name not in described] or [name for name in found if found.count(name) > 1]
    return f"column {more[0]} came and was not described"


def _broken(what: str) -> InternalError:
    return InternalError(
        f"the source does not keep to its own description: {what}",
        remedy="nothing was committed; report it to the authors of the connector",
        code="DP904",
    )
