"""DuckDB's SQL and types.

https://duckdb.org/docs/stable/sql/data_types/overview
"""

from __future__ import annotations

import re

import pyarrow as pa

from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import UTC, type_name
from dpone.connectors.duckdb.nested import is_nested, leaves, parts, without_json
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
# What JSON does not tell, inside of a nested value: what these were, or all digits of the numbers in a JSON text.
_OPAQUE = {"VARIANT", "GEOMETRY", "JSON"}
# What the text of a nested value does not tell: what these were, or which member of a union it is. And DuckDB 2.0.0
# crashes when it updates a tuple with a fixed array in it.
_NOT_KEPT = {"VARIANT", "GEOMETRY", "UNION", "TUPLE"}
_FLOATS = {"FLOAT", "DOUBLE"}
# DuckDB takes these for JSON. Looked for outside of strings, and in those with a string like it only.
_NO_JSON = r"(?i)nan|inf|,\s*[\]}]"
_STRINGS = r'(?s)"(?:[^"\\]|\\.)*"'
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
        try:
            return NativeType(_sql_type(column.type))
        except KeyError:
            way_out = manifest_line(cast={column.name: "json" if pa.types.is_nested(column.type) else "text"})
            note = f"DuckDB has no type for {type_name(column.type)}; read it as {way_out}"
            return NativeType("VARCHAR", "refused", note)

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
        name, native = self.quote(column.name), column.native
        if column.kept:
            return name if _kept_as_arrow(native) else _as_text(name, native)
        if column.logical == "json":
            return self._json(name, native)
        wanted = _sql_type(column.type)
        if wanted == "VARCHAR":
            return _as_text(name, native)
        value = name if native == wanted else f"CAST({name} AS {wanted})"
        if native != wanted and (wanted in _INTEGERS or wanted.startswith("DECIMAL")):
            # DuckDB rounds where a value does not fit. What the comparison itself could not hold (20 digits before the
            # point, 18 after it, negative exponents) is refused too: NULL is not true.
            text, wide = f"CAST({name} AS VARCHAR)", "DECIMAL(38, 18)"
            too_fine = f"regexp_matches({text}, '[.][0-9]{{18}}[0-9]*[1-9]|[eE]-')"
            same = f"TRY_CAST({value} AS {wide}) = TRY_CAST({text} AS {wide}) AND NOT {too_fine}"
            return self._stop(f"NOT coalesce({name} IS NULL OR ({same}), false)", "inexact cast of", name, value)
        if native.startswith(("DATE", "TIMESTAMP")) and wanted.startswith(("DATE", "TIMESTAMP")):
            # Arrow has no infinity: it would arrive elsewhere as a date in the year 294247.
            element = native.removesuffix("[]")
            ends = f"'infinity'::{element}, '-infinity'::{element}"
            endless = f"{name} IN ({ends})" if element == native else f"list_has_any({name}, [{ends}])"
            return self._stop(endless, "infinity in", name, value)
        return value

    def _json(self, name: str, native: str) -> str:
        """A value as JSON, which has no NaN, no infinity and no comma at the end. To DuckDB, all three are JSON."""
        text = name if native in ("JSON", "VARCHAR") else f"CAST(to_json({name}) AS VARCHAR)"
        if text != name and _FLOATS.isdisjoint(leaves(native)):
            return text
        found = f"regexp_matches({text}, '{_NO_JSON}')"
        found += f" AND regexp_matches(regexp_replace({text}, '{_STRINGS}', '', 'g'), '{_NO_JSON}')"
        return self._stop(
            f"NOT json_valid({text}) OR {found}" if native == "VARCHAR" else found, "no JSON in", name, text
        )

    def _stop(self, bad: str, what: str, name: str, value: str) -> str:
        """The value, or an error that `errors` knows by its words, with the name of the column."""
        return f"CASE WHEN {bad} THEN error('{what} column ' || {self.literal(name)}) ELSE {value} END"

    def instant(self, column: Column, prefix: str = "") -> str:
        """A cast, since the session's time zone is UTC. One from nanoseconds would round."""
        native, value = column.native, prefix + self.quote(column.name)
        if native in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
            return f"make_timestamptz(epoch_ns({value}) // 1000)"
        known = native == "DATE" or native.startswith("TIMESTAMP")
        return f"CAST({value} AS TIMESTAMP WITH TIME ZONE)" if known else ""

    def unsettle(self, column: Column, into: str, matched: str) -> str:
        """UPDATE does not write what is equal: 0.0 over -0.0, 24 hours over 1 day. Over another value it writes both.

        It writes each field of a structure by itself, but lists and maps as a whole.
        """
        name, native = self.quote(column.name), column.native
        differs = f"NOT ({self.same(column, 't', 's')})"
        if native in _FLOATS:
            return f"UPDATE {into} AS t SET {name} = 1 {matched} AND t.{name} = 0 AND s.{name} = 0 AND {differs}"
        other = self._other(f"s.{name}", native)
        return f"UPDATE {into} AS t SET {name} = {other} {matched} AND {differs}" if other else ""

    def _other(self, new: str, native: str) -> str:
        """A value that differs from `new` in each part that UPDATE may take for the same; nothing if there is none."""
        if native in _FLOATS:
            return f"CASE WHEN {new} = 0 THEN 1 ELSE 0 END"
        if native == "INTERVAL":
            return f"CASE WHEN {new} = INTERVAL 0 DAY THEN INTERVAL 1 DAY ELSE INTERVAL 0 DAY END"
        if native.endswith("]") or not native.startswith("STRUCT("):
            return ""
        values, found = [], False
        for name, part in parts(native):
            other = self._other(f"{new}.{name}", part)
            found = found or bool(other)
            values.append(f"{name} := {other or f'{new}.{name}'}")
        return f"CAST(struct_pack({', '.join(values)}) AS {native})" if found else ""

    def identical(self, expression: str, native: str) -> str:
        """0.0 equals -0.0, so floats compare as text; so do nested types, whose parts may be floats."""
        if native in _FLOATS:  # one of them may meet the other
            return f"CAST(CAST({expression} AS DOUBLE) AS VARCHAR)"
        plain = native in _ARROW or native.startswith("DECIMAL")
        return expression if plain and not is_nested(native) else _as_text(expression, native)


def canonical(name: str, native: str, *, nullable: bool, keep: bool) -> Column:  # noqa: PLR0911 - one a family
    """The column for a DuckDB type. With `keep` the sink is DuckDB too and makes the same type."""
    if keep:
        if _kept_as_arrow(native):
            return Column(name, _arrow(native), nullable, native=native, kept=True)
        known = native in _ARROW or native in _AS_TEXT or native in ("UUID", "JSON") or native.startswith("ENUM(")
        if known or (is_nested(native) and _NOT_KEPT.isdisjoint(leaves(native))):
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
    if native.startswith(("STRUCT(", "MAP(")) and not native.endswith("]") and _OPAQUE.isdisjoint(leaves(native)):
        return Column(name, pa.string(), nullable, "json", native, fidelity="widened", note="nested values as JSON")
    return _refused(name, native)


def checked(column: Column, cast: bool) -> Column:  # noqa: FBT001 - whether the manifest casts it
    """The column, refused where the manifest casts to JSON what JSON does not hold."""
    opaque = (
        cast and column.logical == "json" and is_nested(column.native) and not _OPAQUE.isdisjoint(leaves(column.native))
    )
    return _refused(column.name, column.native) if opaque else column


def travels_as_arrow(native: str) -> bool:
    """Whether a type, and for a list its elements, crosses to Arrow and back unaltered."""
    while native.endswith("[]"):
        native = native[:-2]
    return native in _ARROW or _DECIMAL.fullmatch(native) is not None


def write(column: Column, name: str) -> str:
    """The expression that stores the arriving column `name`. Arrow types that match are stored as they are."""
    native = column.native
    if _kept_as_arrow(native) if column.kept else travels_as_arrow(native) and not column.logical:
        return name
    plain = without_json(native) if is_nested(native) else native
    return f"CAST({name} AS {native})" if plain == native else f"CAST(CAST({name} AS {plain}) AS {native})"


def _kept_as_arrow(native: str) -> bool:
    """The counts that mean infinity stay as they are, but of seconds and milliseconds they are no microseconds."""
    return travels_as_arrow(native) and not native.startswith(("TIMESTAMP_S", "TIMESTAMP_MS"))


def _as_text(expression: str, native: str) -> str:
    """A value as text that reads back as the same value."""
    if native == "VARCHAR":
        return expression
    plain = without_json(native) if is_nested(native) else native
    return f"CAST({expression if plain == native else f'CAST({expression} AS {plain})'} AS VARCHAR)"


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
    """JSON tells what most nested values were, text most of the rest; a union of JSON texts has neither form."""
    types = set(leaves(native)) if is_nested(native) else {"VARIANT"}
    way_out = manifest_line(cast={name: "json" if _OPAQUE.isdisjoint(types) else "text"})
    if "UNION" in types and not _OPAQUE.isdisjoint(types):
        way_out = manifest_line(exclude=[name])
    note = f"{native} has no exact form in Arrow; {'leave it out' if 'exclude' in way_out else 'cast it'}: {way_out}"
    return Column(name, pa.string(), native=native, fidelity="refused", note=note)
