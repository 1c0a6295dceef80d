"""DuckDB's SQL and types.

https://duckdb.org/docs/stable/sql/data_types/overview
"""

from __future__ import annotations

import re

import pyarrow as pa

from dpone.arrow.types import UTC, type_name
from dpone.sdk import Column, NativeType
from dpone.sql.dialect import Dialect

# Types that DuckDB hands to Arrow, and takes back, without altering a value.
_ARROW: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", UTC),
    "TIMESTAMPTZ_NS": pa.timestamp("ns", UTC),
}
# Types whose text holds every value, and reads back as the same value. HUGEINT has 39 digits and decimals 38;
# Arrow drops the zone of TIME WITH TIME ZONE; BIT and INTERVAL have no Arrow type that DuckDB reads back.
_AS_TEXT = {"HUGEINT", "UHUGEINT", "INTERVAL", "BIT", "TIME WITH TIME ZONE", "BIGNUM"}
_INTEGERS = frozenset(native for native in _ARROW if native.removeprefix("U").endswith(("INT", "INTEGER")))
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_WIDER: dict[str, set[str]] = {
    "TINYINT": {"SMALLINT", "INTEGER", "BIGINT", "HUGEINT"},
    "SMALLINT": {"INTEGER", "BIGINT", "HUGEINT"},
    "INTEGER": {"BIGINT", "HUGEINT"},
    "BIGINT": {"HUGEINT"},
    "UTINYINT": {"USMALLINT", "UINTEGER", "UBIGINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"},
    "USMALLINT": {"UINTEGER", "UBIGINT", "INTEGER", "BIGINT", "HUGEINT"},
    "UINTEGER": {"UBIGINT", "BIGINT", "HUGEINT"},
    "UBIGINT": {"HUGEINT"},
    "FLOAT": {"DOUBLE"},
}


class DuckDBDialect(Dialect):
    """DuckDB. A primary key would be an index held in memory, so dpone's targets have none; merge does not need it."""

    name = "duckdb"
    text = "VARCHAR"
    enforces_keys = False

    def native(self, column: Column, schema: str = "") -> NativeType:  # noqa: ARG002 - types live in no schema
        """The DuckDB type for a canonical type."""
        if column.kept:
            return NativeType(column.native)
        if column.logical:
            return NativeType(column.logical.upper())
        return NativeType(_sql_type(column.type))

    def accepts(self, existing: str, wanted: NativeType) -> bool:
        """Equal types, wider integers and floats, decimals with room on both sides of the point."""
        if existing == wanted.sql or existing in _WIDER.get(wanted.sql, ()):
            return True
        have, want = _DECIMAL.fullmatch(existing), _DECIMAL.fullmatch(wanted.sql)
        if have and want:
            (p1, s1), (p2, s2) = (tuple(map(int, match.groups())) for match in (have, want))
            return s1 >= s2 and p1 - s1 >= p2 - s2
        return False

    def read(self, column: Column) -> str:
        """A cast to the DuckDB type that becomes the column's Arrow type."""
        name = self.quote(column.name)
        if column.kept:
            return name if travels_as_arrow(column.native) else f"CAST({name} AS VARCHAR)"
        if column.logical == "json" and column.native not in ("JSON", "VARCHAR"):
            return f"CAST(to_json({name}) AS VARCHAR)"
        wanted = _sql_type(column.type)
        value = name if column.native == wanted else f"CAST({name} AS {wanted})"
        if column.native != wanted and (wanted in _INTEGERS or wanted.startswith("DECIMAL")):
            # DuckDB rounds where a value does not fit. What the comparison itself could not hold (20 digits before the
            # point, 18 after it, negative exponents) is refused too: NULL is not true.
            text, wide = f"CAST({name} AS VARCHAR)", "DECIMAL(38, 18)"
            too_fine = f"regexp_matches({text}, '[.][0-9]{{18}}[0-9]*[1-9]|[eE]-')"
            same = f"TRY_CAST({value} AS {wide}) = TRY_CAST({text} AS {wide}) AND NOT {too_fine}"
            back = f"{name} IS NULL OR ({same})"
            return f"CASE WHEN {back} THEN {value} ELSE error('inexact cast of column ' || {self.literal(name)}) END"
        if column.native.startswith(("DATE", "TIMESTAMP")) and wanted.startswith(("DATE", "TIMESTAMP")):
            # Arrow has no infinity: it would arrive elsewhere as a date in the year 294247.
            return f"CASE WHEN isinf({name}) THEN error('infinity in column ' || {self.literal(name)}) ELSE {value} END"
        return value

    def identical(self, expression: str, native: str) -> str:
        """0.0 equals -0.0, so floats compare as text; so do nested types, whose parts may be floats."""
        if native in ("FLOAT", "DOUBLE"):  # one of them may meet the other
            return f"CAST(CAST({expression} AS DOUBLE) AS VARCHAR)"
        plain = native in _ARROW
        return expression if plain or native.startswith("DECIMAL") else f"CAST({expression} AS VARCHAR)"


def canonical(name: str, native: str, *, nullable: bool, keep: bool) -> Column:  # noqa: PLR0911 - one a family
    """The column for a DuckDB type. With `keep` the sink is DuckDB too and makes the same type."""
    if keep:
        if travels_as_arrow(native):
            return Column(name, _arrow(native), nullable, native=native, kept=True)
        if native in _AS_TEXT or native in ("UUID", "JSON") or native.startswith("ENUM("):
            return Column(name, pa.string(), nullable, native=native, kept=True)
        return _refused(name, native)
    if native in ("UUID", "JSON"):
        return Column(name, pa.string(), nullable, logical="uuid" if native == "UUID" else "json", native=native)
    if native in _AS_TEXT or native.startswith("ENUM("):
        kind = native if native in _AS_TEXT else "ENUM"
        return Column(name, pa.string(), nullable, native=native, fidelity="widened", note=f"{kind} as its text")
    if travels_as_arrow(native):
        type_ = _arrow(native)
        if pa.types.is_nested(type_) and pa.types.is_nested(type_.value_type):
            return Column(name, pa.string(), nullable, "json", native, fidelity="widened", note=f"{native} as JSON")
        return Column(name, type_, nullable, native=native)
    if native.startswith(("STRUCT(", "MAP(")):
        return Column(name, pa.string(), nullable, "json", native, fidelity="widened", note="nested values as JSON")
    return _refused(name, native)


def travels_as_arrow(native: str) -> bool:
    """Whether a type, and for a list its elements, crosses to Arrow and back unaltered."""
    while native.endswith("[]"):
        native = native[:-2]
    return native in _ARROW or _DECIMAL.fullmatch(native) is not None


def _arrow(native: str) -> pa.DataType:
    if native.endswith("[]"):
        return pa.list_(_arrow(native[:-2]))
    if match := _DECIMAL.fullmatch(native):
        return pa.decimal128(int(match[1]), int(match[2]))
    return _ARROW[native]


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_list(type_):
        return f"{_sql_type(type_.value_type)}[]"
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision},{type_.scale})"
    if pa.types.is_timestamp(type_) and type_.tz:
        return "TIMESTAMPTZ_NS" if type_.unit == "ns" else "TIMESTAMP WITH TIME ZONE"
    for native, candidate in _ARROW.items():
        if candidate == type_:
            return native
    raise KeyError(type_name(type_))


def _refused(name: str, native: str) -> Column:
    note = f"{native} has no exact form outside DuckDB; cast it: columns: {{cast: {{{name}: text}}}}"
    return Column(name, pa.string(), native=native, fidelity="refused", note=note)
