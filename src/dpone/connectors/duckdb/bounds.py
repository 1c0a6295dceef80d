"""The dates and times that DuckDB has no room for. It would store their counts all the same.

What it does then depends on the count: it reads an infinity, an error, or an error after which the whole database
answers nothing until it is opened anew.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import type_name
from dpone.errors import DataError
from dpone.sdk import Column

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400
_LAST_DAY = 2**31 - 2  # one more is infinity
_FIRST_SECOND = -9_223_372_022_400  # -290308-12-22
_LAST_COUNT = 2**63 - 2  # of microseconds; one more is infinity


def check(column: Column, array: pa.Array) -> None:
    """Raise DataError naming the column when a value lies outside of what DuckDB reads back."""
    limits = _limits(_element(column.type))
    if limits is None:
        return
    while pa.types.is_list(array.type):
        array = array.flatten()
    counts = array.view(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    ends = pc.min_max(counts).as_py()
    if ends["min"] is not None and (ends["min"] < limits[0] or ends["max"] > limits[1]):
        raise DataError(
            f"column {column.name}: DuckDB has no room for a value of {type_name(column.type)}",
            remedy=f"{manifest_line(exclude=[column.name])} leaves the column out; where the source can write such a "
            f"value as text, {manifest_line(cast={column.name: 'text'})} keeps it",
            code="DP414",
        )


def _element(type_: pa.DataType) -> pa.DataType:
    return _element(type_.value_type) if pa.types.is_list(type_) else type_


def _limits(type_: pa.DataType) -> tuple[int, int] | None:
    if pa.types.is_date32(type_):
        return -_LAST_DAY, _LAST_DAY
    if pa.types.is_time64(type_):
        return 0, _DAY * _PER_SECOND[type_.unit]
    if not pa.types.is_timestamp(type_):
        return None
    if type_.unit == "ns":
        return -_LAST_COUNT, _LAST_COUNT
    per_second = _PER_SECOND[type_.unit]
    return _FIRST_SECOND * per_second, _LAST_COUNT * per_second // 10**6
