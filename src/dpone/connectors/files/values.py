"""Values and their texts: exact both ways, whole columns at a time.

`parse` turns text into a type and raises ValueError when any value is not exactly representable. `infer` finds a
type whose texts could be written again from the values alone, so that inference never loses anything:

    inferred boolean     true and false, in lower case
    inferred int64       no plus sign, no leading zero, no -0
    inferred fixed       decimal(38,s): every value has the same s digits after the point
    inferred number      decimal(38,9) or decimal(38,18): no value ends in a zero after the point
    inferred float       float64: every value is the shortest text of its double, all as Arrow writes them (5, 1e-7) or
                         all as Python does (5.0, 1e-07)
    inferred date        YYYY-MM-DD
    inferred timestamp   YYYY-MM-DD, T or a blank, HH:MM:SS, at most six digits after the point
    inferred timestamptz the same with Z or an offset; the instant is kept, the offset is not
    text                 everything else: 007, 1.10 beside 1.9, mixed things

A type by inference binds all values, also those after the sample; a declared type takes every text of an exact value.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import LOGICAL, type_name
from dpone.sdk import Column

_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
_ZONE = r"(Z|[+-][0-9]{2}:?[0-9]{2})"
_UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_INTEGER = r"^(0|-?[1-9][0-9]*)$"
_NUMBER = r"^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]*[1-9])$"
_TIMESTAMP = rf"^{_DAY}[T ]{_CLOCK}(\.[0-9]{{1,6}})?$"
_TIMESTAMPTZ = rf"^{_DAY}[T ]{_CLOCK}(\.[0-9]{{1,6}})?{_ZONE}$"
_DECIMAL = r"(?i)^[+-]?([0-9]{1,38}(\.[0-9]{0,38})?|\.[0-9]{1,38})(e[+-]?[0-9]{1,2})?$"
_FLOAT = r"(?i)^[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$"

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31: what ISO 8601 writes in four digits
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_local = threading.local()


def _duckdb() -> Any:
    """One in-memory database per thread; with one thread a query keeps the order of its rows."""
    connection: Any = getattr(_local, "connection", None)
    if connection is None:
        connection = duckdb.connect(":memory:")
        connection.execute("SET threads = 1")
        connection.execute("SET TimeZone = 'UTC'")
        _local.connection = connection
    return connection


def sql(query: str, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Run a DuckDB query over arrays of equal length, the relation `t`. Rows keep their order."""
    connection = _duckdb()
    connection.register("t", pa.table(dict(columns)))
    try:
        return connection.sql(query).to_arrow_table()
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise ValueError("a value is malformed") from error
    finally:
        connection.unregister("t")


def without(batch: pa.RecordBatch, names: Sequence[str], keys: pa.Table) -> pa.RecordBatch:
    """The rows of a batch whose values in `names` are not among the keys; NULL equals nothing."""
    joined = " AND ".join(f"t.k{index} = k.c{index}" for index in range(len(names)))
    columns = {f"k{index}": batch.column(name) for index, name in enumerate(names)}
    at = pa.array(range(batch.num_rows), pa.int64())
    connection = _duckdb()
    connection.register("k", keys.rename_columns([f"c{index}" for index in range(keys.num_columns)]))
    try:
        found = sql(
            f"SELECT t.at_ AS v FROM t WHERE NOT EXISTS (SELECT 1 FROM k WHERE {joined}) ORDER BY 1",
            {**columns, "at_": at},
        )
    finally:
        connection.unregister("k")
    return batch.take(one(found["v"]))


def one(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array of possibly many chunks."""
    if isinstance(array, pa.ChunkedArray):
        return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    return array


def _every(mask: pa.Array) -> bool:
    """Whether no value is false; NULLs count as true."""
    return pc.all(mask, min_count=0).as_py() is not False


def _matches(text: pa.Array, pattern: str) -> bool:
    return _every(pc.match_substring_regex(text, pattern))


def _any(text: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(text, pattern), min_count=0).as_py())


def _require(text: pa.Array, pattern: str) -> None:
    if not _matches(text, pattern):
        raise ValueError("a text is not a value of this type")


# -- text to values --------------------------------------------------------------------------------------------


def parse(text: pa.Array, type_: pa.DataType, logical: str = "") -> pa.Array:  # noqa: C901, PLR0911 - one branch per type
    """The values of these texts, exactly; raises ValueError when one has none."""
    if logical == "uuid":
        _require(text, f"^{_UUID}$")
        return text
    if logical == "json":
        if not _every(one(sql("SELECT json_valid(v) AS v FROM t", {"v": text})["v"])):
            raise ValueError("a text is not JSON")
        return text
    if pa.types.is_string(type_):
        return text
    if pa.types.is_boolean(type_):
        _require(text, "^(true|false)$")
        return pc.equal(text, "true")
    if pa.types.is_integer(type_):
        _require(text, "^[+-]?[0-9]+$")
        return pc.cast(pc.utf8_ltrim(text, "+"), type_)
    if pa.types.is_decimal(type_):
        # More than 38 digits would wrap around without an error, so there is room for them, and then they do not fit.
        _require(text, _DECIMAL)
        return pc.cast(pc.cast(text, pa.decimal256(76, type_.scale)), type_)
    if pa.types.is_floating(type_):
        return _parse_float(text, type_)
    if pa.types.is_date32(type_):
        _require(text, f"^{_DAY}$")
        return pc.cast(text, type_)
    if pa.types.is_time(type_):
        _require(text, rf"^{_CLOCK}(\.[0-9]{{1,9}})?$")
        moment = pc.cast(pc.binary_join_element_wise("1970-01-01T", text, ""), pa.timestamp(type_.unit))
        return pc.cast(moment, type_)
    if pa.types.is_timestamp(type_):
        _require(text, rf"^{_DAY}[T ]{_CLOCK}(\.[0-9]{{1,9}})?{_ZONE if type_.tz else ''}$")
        return pc.cast(text, type_)
    if pa.types.is_binary(type_):
        _require(text, "^([0-9a-fA-F]{2})*$")  # unhex() would pad an odd number of digits
        return one(sql("SELECT unhex(v) AS v FROM t", {"v": text})["v"]).cast(type_)
    raise ValueError(f"no text form of {type_}")


def _parse_float(text: pa.Array, type_: pa.DataType) -> pa.Array:
    _require(text, _FLOAT)
    values = pc.cast(pc.utf8_ltrim(text, "+"), type_)
    infinite = pc.is_inf(values)
    if pc.any(infinite, min_count=0).as_py() and not _matches(text.filter(infinite), "(?i)^[+-]?inf(inity)?$"):
        raise ValueError("a number is out of range")  # a cast of 1e400 alone would make it infinite
    return values


def read_text(text: pa.Array, column: Column) -> pa.Array:
    """The values of a described column from its texts: inferred types hold for every row, or ValueError."""
    pattern = _PATTERNS.get(column.native)
    if pattern is not None:
        _require(text, pattern)
    if column.native == "inferred fixed":
        _require(text, rf"^-?(0|[1-9][0-9]*)\.[0-9]{{{column.type.scale}}}$")
    values = parse(text, column.type, column.logical)
    if column.native == "inferred fixed":
        minus = pc.sum(pc.starts_with(text, "-")).as_py()
        if minus and minus != pc.sum(pc.less(values, pa.scalar(0, values.type))).as_py():
            raise ValueError("a negative zero")
    if column.native == "inferred float" and not _shortest(values, text):
        raise ValueError("a number has more digits than a double keeps")
    return values


def _shortest(values: pa.Array, text: pa.Array) -> bool:
    """Whether all texts are what Arrow (5, 1e-7), or what Python and DuckDB (5.0, 1e-07) write for the doubles."""
    if _every(pc.equal(pc.cast(values, pa.string()), text)):
        return True
    other = one(sql("SELECT v::VARCHAR AS v FROM t", {"v": values})["v"])
    return _every(pc.equal(other, text))


_PATTERNS = {
    "inferred int64": _INTEGER,
    "inferred number": _NUMBER,
    "inferred date": f"^{_DAY}$",
    "inferred timestamp": _TIMESTAMP,
    "inferred timestamptz": _TIMESTAMPTZ,
}


def infer(name: str, text: pa.Array) -> Column:
    """The column of these sampled texts. All-NULL columns are text."""
    text = text.drop_null()
    candidates = _candidates(name, text.slice(0, 100)) if len(text) else []
    for candidate in candidates:
        column = candidate
        if column.native == "inferred float" and not _any(text, "[eE.]"):
            continue
        if column.native in ("inferred fixed", "inferred number"):
            scale = _scale(column.native, text)
            if scale is None:
                continue
            column = Column(name, pa.decimal128(38, scale), native=column.native)
        try:
            read_text(text, column)
        except ValueError:
            continue
        return column
    return Column(name, pa.string(), native="text")


def _candidates(name: str, head: pa.Array) -> list[Column]:
    found = [
        ("boolean", pa.bool_(), "^(true|false)$"),
        ("int64", pa.int64(), _INTEGER),
        ("fixed", pa.decimal128(38, 9), r"^-?(0|[1-9][0-9]*)\.[0-9]+$"),
        ("number", pa.decimal128(38, 9), _NUMBER),
        ("float", pa.float64(), _FLOAT),
        ("date", pa.date32(), f"^{_DAY}$"),
        ("timestamp", pa.timestamp("us"), _TIMESTAMP),
        ("timestamptz", pa.timestamp("us", "UTC"), _TIMESTAMPTZ),
    ]
    return [Column(name, type_, native=f"inferred {kind}") for kind, type_, pattern in found if _matches(head, pattern)]


def _scale(kind: str, text: pa.Array) -> int | None:
    """The scale of a decimal column, None when its texts are no numbers of one form."""
    if not _matches(text, r"^-?[0-9]+(\.[0-9]+)?$"):
        return None
    places = pc.utf8_length(pc.replace_substring_regex(text, r"^[^.]*\.?", ""))
    bounds = pc.min_max(places).as_py()
    if kind == "inferred fixed":
        return bounds["max"] if bounds["min"] == bounds["max"] and 0 < bounds["max"] <= 37 else None  # noqa: PLR2004
    return decimal_scale(bounds["max"])


def decimal_scale(places: int) -> int | None:
    """The scale for numbers of varying length: few steps, so that it seldom moves when the data grows."""
    return next((scale for scale in (9, 18) if places <= scale), None)


# -- values to text --------------------------------------------------------------------------------------------


def to_text(array: pa.Array) -> pa.Array:  # noqa: PLR0911 - one branch per family
    """The exact text of each value, which `parse` reads back. Raises ValueError where ISO 8601 has none."""
    type_ = array.type
    if pa.types.is_string(type_):
        return array
    if pa.types.is_timestamp(type_):
        check_years(array)
        return pc.replace_substring(pc.cast(array, pa.string()), " ", "T")
    if pa.types.is_date32(type_):
        check_years(array)
        return pc.cast(array, pa.string())
    if pa.types.is_decimal(type_):
        # Arrow writes 1E-10; DuckDB writes .5 where there is no integer digit.
        return _over("regexp_replace(v::VARCHAR, '^(-?)\\.', '\\10.')", array)
    if pa.types.is_binary(type_):
        return _over("lower(hex(v))", array)
    if pa.types.is_nested(type_):
        return _over("to_json(v)::VARCHAR", array)
    return pc.cast(array, pa.string())


def _over(expression: str, array: pa.Array) -> pa.Array:
    return one(sql(f"SELECT {expression} AS v FROM t", {"v": array})["v"])


def check_years(array: pa.Array) -> None:
    """Raise ValueError for a date or time outside the years 1 to 9999, which ISO 8601 does not write."""
    scale = 1 if pa.types.is_date(array.type) else 86_400 * _UNITS[array.type.unit]
    numbers = array.view(pa.int32() if pa.types.is_date(array.type) else pa.int64())
    bounds = pc.min_max(numbers).as_py()
    if bounds["min"] is not None and not _FIRST_DAY * scale <= bounds["min"] <= bounds["max"] < (_LAST_DAY + 1) * scale:
        raise ValueError("a year before 1 or after 9999")


# -- Arrow types, as Parquet has them ---------------------------------------------------------------------------


def canonical(field: pa.Field) -> Column:  # noqa: PLR0911 - one answer per family
    """The column that a Parquet (Arrow) field is read as."""
    name, native = field.name, str(field.type)
    logical: Any = (field.metadata or {}).get(LOGICAL, b"").decode()
    type_ = field.type
    if isinstance(type_, pa.BaseExtensionType):
        logical = {"arrow.uuid": "uuid", "arrow.json": "json"}.get(type_.extension_name, "")
        if logical:
            return Column(name, pa.string(), field.nullable, logical, native)
        return _extension(field, type_.extension_name, type_.storage_type)
    if unknown := (field.metadata or {}).get(EXTENSION_NAME, b""):  # one that pyarrow has no class for
        return _extension(field, unknown.decode(), type_)
    plain = _plain(type_)
    if plain is not None:
        known: Any = logical if logical in ("json", "uuid") and pa.types.is_string(plain) else ""
        if _same_kind(plain, type_):
            return Column(name, plain, field.nullable, known, native)
        note = "more than 38 digits: its exact text" if pa.types.is_decimal(type_) else ""
        return Column(name, plain, field.nullable, known, native, fidelity="widened", note=note)
    if _is_list(type_):
        item = _plain(type_.value_type)
        if item is not None and _same_kind(item, type_.value_type):
            return Column(name, pa.list_(item), field.nullable, native=native)
    if _jsonable(type_):
        return Column(name, pa.string(), field.nullable, "json", native, fidelity="widened", note="its JSON text")
    return _refused(name, native)


def _is_list(type_: pa.DataType) -> bool:
    """Not a list view: pyarrow 26 reads one from Parquet as an array that is not valid."""
    types = pa.types
    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def stored(type_: pa.DataType) -> pa.DataType:
    """The type that Parquet stores for a canonical one: it has no seconds, which become milliseconds.

    https://parquet.apache.org/docs/file-format/types/logicaltypes/#timestamp
    """
    if pa.types.is_list(type_):
        return pa.list_(stored(type_.value_type))
    if pa.types.is_timestamp(type_) and type_.unit == "s":
        return pa.timestamp("ms", type_.tz)
    return pa.time32("ms") if type_ == pa.time32("s") else type_


def with_unit(type_: pa.DataType, plain: pa.DataType) -> pa.DataType:
    """The canonical type of a Parquet field with the unit that is stored; `canonical` knows none above microseconds."""
    if _is_list(type_) and pa.types.is_list(plain):
        return pa.list_(with_unit(type_.value_type, plain.value_type))
    if pa.types.is_timestamp(plain):
        return pa.timestamp(type_.unit, plain.tz)
    return type_ if pa.types.is_time(plain) else plain


def _same_kind(item: pa.DataType, type_: pa.DataType) -> bool:
    return not (pa.types.is_string(item) and (pa.types.is_decimal(type_) or pa.types.is_null(type_)))


def _refused(name: str, native: str) -> Column:
    note = f"{native} has no exact form here; leave it out: {manifest_line(exclude=[name])}"
    return Column(name, pa.string(), native=native, fidelity="refused", note=note)


EXTENSION_NAME = b"ARROW:extension:name"
EXTENSION = "extension "  # Column.native begins with it: a type of somebody's own over a type that dpone knows


def _extension(field: pa.Field, named: str, storage: pa.DataType) -> Column:
    """A type that only its authors know is refused; what it is stored as can be read by saying so."""
    native, plain = f"{EXTENSION}{named}", _plain(storage)
    if plain is None:
        return _refused(field.name, native)
    way_out = manifest_line(cast={field.name: type_name(plain)})
    note = f"dpone does not know the {native}; what it is stored as is read by {way_out}"
    return Column(field.name, plain, field.nullable, native=native, fidelity="refused", note=note)


def _plain(type_: pa.DataType) -> pa.DataType | None:  # noqa: C901, PLR0911 - one answer per family
    """The canonical scalar type of a type, text for what only text holds, None for what is no scalar."""
    types = pa.types
    if types.is_dictionary(type_):
        return _plain(type_.value_type)
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_) or types.is_null(type_):
        return pa.string()
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return pa.binary()
    if types.is_fixed_size_binary(type_):
        return pa.binary()
    if types.is_decimal(type_):
        fits = type_.precision <= 38 and 0 <= type_.scale <= type_.precision  # noqa: PLR2004 - the widest decimal
        return pa.decimal128(type_.precision, type_.scale) if fits else pa.string()
    if types.is_float16(type_):
        return pa.float32()
    if types.is_date(type_):
        return pa.date32()
    if types.is_time(type_):
        return pa.time64("ns" if type_.unit == "ns" else "us")
    if types.is_timestamp(type_):
        return pa.timestamp("ns" if type_.unit == "ns" else "us", "UTC" if type_.tz else None)
    if types.is_boolean(type_) or types.is_integer(type_) or types.is_floating(type_):
        return type_
    return None


def _jsonable(type_: pa.DataType) -> bool:
    """Whether DuckDB's to_json keeps every value of a nested type."""
    types = pa.types
    if types.is_struct(type_):
        return type_.num_fields > 0 and all(_jsonable(field.type) for field in type_)
    if types.is_map(type_):
        return types.is_string(type_.key_type) and _jsonable(type_.item_type)
    if _is_list(type_):
        return _jsonable(type_.value_type)
    scalar = types.is_boolean(type_) or types.is_integer(type_) or types.is_date32(type_) or types.is_timestamp(type_)
    return bool(scalar or types.is_string(type_) or types.is_large_string(type_) or types.is_float64(type_))


# -- casts between types, for Parquet --------------------------------------------------------------------------


def castable(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether `cast` keeps every value it lets pass."""
    types = pa.types
    exact = (
        have == want
        or types.is_string(want)
        or types.is_string(have)
        or (types.is_integer(have) and (types.is_integer(want) or types.is_decimal(want) or types.is_floating(want)))
        or (types.is_decimal(have) and (types.is_integer(want) or types.is_decimal(want)))
        or (types.is_timestamp(have) and types.is_timestamp(want) and bool(have.tz) == bool(want.tz))
        or (types.is_time(have) and types.is_time(want))
        or (types.is_floating(have) and types.is_float64(want))
    )
    return bool(exact)


def cast(array: pa.Array, type_: pa.DataType, logical: str = "") -> pa.Array:
    """The values in another type, exactly, or ValueError."""
    if pa.types.is_string(array.type):
        return parse(array, type_, logical)
    # Arrow wants 19 digits for any int64; its text has as many as it needs.
    if pa.types.is_string(type_) or (pa.types.is_integer(array.type) and pa.types.is_decimal(type_)):
        return parse(to_text(array), type_, logical)
    return array if array.type == type_ else pc.cast(array, type_)


_LITERAL_STRING = re.compile(r'"(\\.|[^"\\])*"')


def as_json(array: pa.Array) -> pa.Array:
    """Structs, maps and lists as JSON text. Raises ValueError for NaN and infinities, which JSON does not have."""
    text = one(sql("SELECT to_json(v)::VARCHAR AS v FROM t WHERE true", {"v": array})["v"])
    bare = pc.replace_substring_regex(text, _LITERAL_STRING.pattern, "")
    if pc.any(pc.match_substring_regex(bare, "nan|NaN|inf|Inf"), min_count=0).as_py():
        raise ValueError("a number that JSON does not have")
    return text
