"""Arrow columns from the values that SQLite returns, and back. Everything is vectorised and exact, or a DataError.

pyarrow is strict in most conversions, and not in these, which are checked here: `pa.array([1.5], pa.int64())` cuts
off, text of more than 38 digits wraps around in a decimal128, float32 rounds, and integers are parsed from "0x10".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import UTC, type_name
from dpone.connectors.sqlite.dialect import MAX_PRECISION, travels_as_text
from dpone.connectors.sqlite.errors import CAST
from dpone.errors import DataError
from dpone.sdk import Column

_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}
_FIRST_DAY, _LAST_DAY = -719_528, 2_932_896  # 0000-01-01 and 9999-12-31, in days since 1970-01-01
_WIDE = pa.decimal256(76, 0).precision
_TOO_LARGE = pa.scalar(2**63, pa.uint64())
_INTEGER = r"^-?[0-9]{1,20}$"
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_DECIMAL = r"^[+-]?[0-9]{0,38}(\.[0-9]{0,38}(e[+-]?[0-9]{1,2})?|e[+-]?[0-9]{1,2})?$"
_TIME = r"^[0-9]{2}:[0-9]{2}"


def decode(values: Sequence[Any], column: Column) -> pa.Array:
    """One column of a result, selected by `SqliteDialect.read`.

    Raises DataError naming the column when a value is not one of the column's type.
    """
    type_ = column.type
    text = travels_as_text(column)
    try:
        if pa.types.is_string(type_):
            return pa.array(values, pa.string())
        if text:
            return _parse(pa.array(values, pa.string()), type_)
        if pa.types.is_boolean(type_):
            return _checked(pa.array(values, pa.uint8()), lambda found: pc.less_equal(found, 1)).cast(type_)
        if pa.types.is_float32(type_):
            return _single(pa.array(values, pa.float64()))
        return pa.array(values, type_)
    except (pa.ArrowException, OverflowError):
        # Not chained: Arrow's messages quote the value.
        form = "its text" if text else "a value"
        raise DataError(
            f"reading column {column.name} ({column.native or 'untyped'}): {form} is not a "
            f"{type_name(type_, column.logical)}",
            remedy=CAST.replace("COLUMN", column.name),
            where=column.name,
        ) from None


def encode(array: pa.Array, column: Column) -> list[Any]:
    """The values that SQLite stores for one column. Raises DataError naming the column for what it would alter."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        array, type_ = array.cast(type_.value_type), type_.value_type
    if pa.types.is_boolean(type_):
        array = array.cast(pa.int8())
    elif pa.types.is_uint64(type_):
        _allow(array, column, "integers above 9223372036854775807", lambda found: pc.less(found, _TOO_LARGE))
    elif pa.types.is_floating(type_):
        array = array.cast(pa.float64())
        # https://www.sqlite.org/floatingpoint.html: NaN is stored as NULL, and -0.0 as 0.0.
        _allow(array, column, "NaN", lambda found: pc.invert(pc.is_nan(found)))
        _allow(array, column, "the float -0.0", lambda found: pc.not_equal(found.view(pa.int64()), -(2**63)))
    elif pa.types.is_decimal(type_):
        array = _digits(array)
    elif pa.types.is_temporal(type_):
        array = _iso(array, column)
    elif pa.types.is_nested(type_):
        array = _json(array)
    found: list[Any] = array.to_pylist()
    return found


def _parse(text: pa.Array, type_: pa.DataType) -> pa.Array:
    """Text as a value; raises ArrowInvalid when it is not one."""
    if pa.types.is_decimal(type_):
        # More than 38 digits would wrap around without an error, so there is room for them, and then they do not fit.
        text = _checked(text, lambda found: pc.match_substring_regex(pc.utf8_lower(found), _DECIMAL))
        return text.cast(pa.decimal256(_WIDE, type_.scale)).cast(type_)
    if pa.types.is_integer(type_):
        return _checked(text, lambda found: pc.match_substring_regex(found, _INTEGER)).cast(type_)
    if pa.types.is_floating(type_):
        doubles = _checked(text, lambda found: pc.match_substring_regex(found, _FLOAT)).cast(pa.float64())
        doubles = _checked(doubles, pc.is_finite)  # 1e400 would become infinite
        return _single(doubles) if pa.types.is_float32(type_) else doubles
    if pa.types.is_time(type_):
        text = _checked(text, lambda found: pc.match_substring_regex(found, _TIME))
        stamps = pc.binary_join_element_wise(pa.scalar("1970-01-01"), text, " ").cast(pa.timestamp(type_.unit))
        return stamps.cast(type_)
    return text.cast(type_)


def _single(doubles: pa.Array) -> pa.Array:
    """Doubles that are floats of 32 bits."""
    singles = doubles.cast(pa.float32())
    same = pc.or_(pc.equal(singles.cast(pa.float64()), doubles), pc.is_nan(doubles))
    _checked(doubles, lambda _: same)
    return singles


def _checked(array: pa.Array, test: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """The array, when every value that is not NULL passes."""
    if not _holds(array, test):
        message = "a value does not fit"
        raise pa.ArrowInvalid(message)
    return array


def _allow(array: pa.Array, column: Column, what: str, test: Callable[[pa.Array], pa.Array]) -> None:
    if not _holds(array, test):
        raise DataError(
            f"writing column {column.name}: SQLite cannot hold {what}",
            remedy=f"cast it at the source, {manifest_line(cast={column.name: 'text'})}, or filter the rows out",
            where=column.name,
        )


def _holds(array: pa.Array, test: Callable[[pa.Array], pa.Array]) -> bool:
    return bool(pc.all(test(array), skip_nulls=True, min_count=0).as_py())


def _digits(array: pa.Array) -> pa.Array:
    """Decimals as text with exactly their scale: Arrow itself writes small ones with an exponent."""
    type_ = array.type
    whole = pa.decimal128(MAX_PRECISION, 0)
    unscaled = pa.Array.from_buffers(whole, len(array), array.buffers(), offset=array.offset).cast(pa.string())
    if type_.scale == 0:
        return unscaled
    negative = pc.starts_with(unscaled, "-")
    digits = pc.utf8_lpad(pc.utf8_ltrim(unscaled, "-"), type_.scale + 1, "0")
    head, tail = pc.utf8_slice_codeunits(digits, 0, -type_.scale), pc.utf8_slice_codeunits(digits, -type_.scale)
    text = pc.binary_join_element_wise(head, tail, ".")
    return pc.if_else(negative, pc.binary_join_element_wise(pa.scalar("-"), text, ""), text)


def _iso(array: pa.Array, column: Column) -> pa.Array:
    """Dates and times as ISO 8601 text of one width per type, so that the order of the text is the order of time."""
    type_ = array.type
    if pa.types.is_timestamp(type_) and type_.tz not in (None, UTC):
        array = array.cast(pa.timestamp(type_.unit, UTC))
    unit = _DAY.get(type_.unit) if pa.types.is_timestamp(type_) else 1 if pa.types.is_date32(type_) else None
    if unit:
        first, last = _FIRST_DAY * unit, (_LAST_DAY + 1) * unit
        count = array.view(pa.int32() if pa.types.is_date32(type_) else pa.int64())
        what = "dates before the year 0000 or after 9999"
        _allow(count, column, what, lambda found: pc.and_(pc.greater_equal(found, first), pc.less(found, last)))
    return array.cast(pa.string())


def _json(array: pa.Array) -> pa.Array:
    """Lists as the JSON that the digest is made of: without spaces, text in UTF-8."""
    table = pa.table({"v": array})
    with duckdb.connect(":memory:") as connection:
        connection.register("lists", table)
        found: pa.Table = connection.sql("SELECT to_json(v)::VARCHAR AS v FROM lists").to_arrow_table()
    return found.column("v").combine_chunks()
