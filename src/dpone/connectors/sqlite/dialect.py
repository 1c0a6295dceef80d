"""SQLite's SQL and types.

SQLite gives types to values, not to columns: a column only has a declared type, whose words choose an affinity
(https://www.sqlite.org/datatype3.html#determination_of_column_affinity). dpone reads a column in the type that was
declared, and refuses a value of another storage class. For its own tables it declares types whose affinity leaves
the stored form alone, and which name the canonical type exactly:

    boolean               BOOLEAN                       0 or 1
    int8 .. uint64        INTEGER_8 .. INTEGER_U64      integer; int64 is INTEGER. uint64 above 2**63-1 is refused
    float32, float64      REAL_32, REAL                 real; NaN and -0.0 are refused, SQLite would alter them
    decimal(p,s)          DECIMAL_TEXT(p,s)             text with exactly s digits after the point
    text, json, uuid      TEXT, JSON_TEXT, UUID_TEXT    text
    binary                BLOB                          blob
    date                  DATE                          text YYYY-MM-DD
    time                  TIME (TIME_NS, _MS, _S)       text HH:MM:SS.ffffff
    timestamp             TIMESTAMP (likewise)          text YYYY-MM-DD HH:MM:SS.ffffff
    timestamptz           TIMESTAMPTZ (likewise)        text, in UTC, ending in Z
    lists                 JSON_TEXT                     widened: a JSON array
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from dpone.arrow.digest import undigestible
from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import UTC, type_name
from dpone.sdk import Column, NativeType
from dpone.sql.dialect import Dialect

Affinity = Literal["INTEGER", "TEXT", "BLOB", "REAL", "NUMERIC"]
Logical = Literal["", "json", "uuid"]


@dataclass(frozen=True, slots=True)
class Canonical:
    """What a declared type is read as."""

    type: pa.DataType
    logical: Logical = ""
    note: str = ""


def _own_types() -> dict[str, Canonical]:
    types = {
        "BOOLEAN": Canonical(pa.bool_()),
        "INTEGER": Canonical(pa.int64()),
        "REAL": Canonical(pa.float64()),
        "REAL_32": Canonical(pa.float32()),
        "TEXT": Canonical(pa.string()),
        "JSON_TEXT": Canonical(pa.string(), "json"),
        "UUID_TEXT": Canonical(pa.string(), "uuid"),
        "BLOB": Canonical(pa.binary()),
        "DATE": Canonical(pa.date32()),
    }
    for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        sign = "U" if pa.types.is_unsigned_integer(type_) else ""
        types[f"INTEGER_{sign}{type_.bit_width}"] = Canonical(type_)
    for suffix, unit in (("", "us"), ("_NS", "ns"), ("_MS", "ms"), ("_S", "s")):
        types[f"TIME{suffix}"] = Canonical(pa.time32(unit) if unit in ("ms", "s") else pa.time64(unit))
        types[f"TIMESTAMP{suffix}"] = Canonical(pa.timestamp(unit))
        types[f"TIMESTAMPTZ{suffix}"] = Canonical(pa.timestamp(unit, UTC))
    return types


_OWN = _own_types()
_DECLARE = {(found.type, found.logical): native for native, found in _OWN.items()}
# Declared by other programs. Only names whose affinity does not say it all.
_FOREIGN = {
    "BOOL": Canonical(pa.bool_()),
    "DATETIME": Canonical(pa.timestamp("us")),
    "TIMESTAMP WITHOUT TIME ZONE": Canonical(pa.timestamp("us")),
    "TIMESTAMP WITH TIME ZONE": Canonical(pa.timestamp("us", UTC)),
    "JSON": Canonical(pa.string(), "json"),
}
_BY_AFFINITY = {
    "INTEGER": Canonical(pa.int64()),
    "TEXT": Canonical(pa.string()),
    "REAL": Canonical(pa.float64()),
}
_PARTS = re.compile(r"\s*([^()]*?)\s*(?:\(([^()]*)\)\s*)?", re.DOTALL)
_PRECISION = re.compile(r"(\d+)\s*(?:,\s*(\d+)\s*)?")
_DECIMALS = {"DECIMAL", "NUMERIC", "DECIMAL_TEXT"}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]*(\( ?\d+( ?, ?\d+)? ?\))?|")
MAX_PRECISION = 38
_FRACTIONS = {"s": ".000000", "ms": "000", "us": "", "ns": ""}  # what completes a timestamp to microseconds


class SqliteDialect(Dialect):
    """SQLite from 3.33, which brought UPDATE FROM (https://www.sqlite.org/lang_update.html#upfrom)."""

    name = "sqlite"
    text = "TEXT"
    bigint = "INTEGER"
    most_columns = 2000  # as it is built by default: https://www.sqlite.org/limits.html#max_column
    # A name of its own for the rowid: a column of the stream may be called rowid.
    arrival = "_dpone_row"
    arrival_ddl = "_dpone_row INTEGER PRIMARY KEY"
    same_values = "({a} IS {b})"

    def quote(self, name: str) -> str:
        """A quoted identifier, in backticks.

        In double quotes, the name of a column that does not exist is a string literal, without an error:
        https://www.sqlite.org/quirks.html#double_quoted_string_literals_are_accepted
        """
        super().quote(name)
        return "`" + name.replace("`", "``") + "`"

    def own_tables(self, schema: str) -> str:
        """See `Dialect.own_tables`, and https://www.sqlite.org/pragma.html#pragfunc for the function."""
        del schema
        return (
            "SELECT m.name, c.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c "
            "WHERE m.type = 'table' AND substr(m.name, 1, 7) = '_dpone_'"
        )

    def value(self, text: str, native: str) -> str:
        """The literal alone: the affinity of the column that it is compared with gives it the right form."""
        del native
        return text

    def literal(self, text: str) -> str:
        """A string literal. SQL text ends at a NUL, so a string that has one is written as its bytes."""
        if "\0" in text:
            return f"CAST(x'{text.encode().hex()}' AS TEXT)"
        return super().literal(text)

    def native(self, column: Column, schema: str = "") -> NativeType:  # noqa: ARG002 - SQLite has one schema
        """The declared type for a canonical type."""
        if column.kept:
            return NativeType(column.native)
        type_ = column.type
        if pa.types.is_decimal(type_) and 0 <= type_.scale <= type_.precision <= MAX_PRECISION:
            return NativeType(f"DECIMAL_TEXT({type_.precision},{type_.scale})")
        if pa.types.is_nested(type_) and not undigestible(column):
            return NativeType("JSON_TEXT", "widened", "SQLite has no arrays: a JSON array as text")
        declared = _DECLARE.get((type_, column.logical))
        if declared is not None:
            return NativeType(declared)
        way_out = manifest_line(cast={column.name: "text"})
        return NativeType("", "refused", f"SQLite has no form for {type_name(type_)}; read it as text: {way_out}")

    def accepts(self, existing: str, wanted: NativeType) -> bool:  # noqa: PLR0911 - one answer per rule
        """Whether values of the wanted type stay as they are, and read back, in a column declared `existing`."""
        if _normal(existing) == _normal(wanted.sql):
            return True
        have, want = canonical(existing), canonical(wanted.sql)
        if have is None or want is None:
            return not existing.strip() and want is not None  # an untyped column leaves every value alone
        if affinity(existing) != affinity(wanted.sql):
            return False
        if (have.type, have.logical) == (want.type, want.logical):
            return True
        if have.type == pa.string() and not have.logical:
            return True  # affinity TEXT: the text of uuid, json and decimals
        if pa.types.is_integer(have.type) and pa.types.is_integer(want.type):
            return _fits(want.type, have.type)
        if pa.types.is_decimal(have.type) and pa.types.is_decimal(want.type):
            return bool(have.type.scale == want.type.scale and have.type.precision >= want.type.precision)
        return bool(have.type == pa.float64() and want.type == pa.float32())

    def read(self, column: Column) -> str:
        """The value, when its storage class fits the column's type; `dpone_refuse` raises DataError when not."""
        name = self.quote(column.name)
        refused = f"dpone_refuse({self.literal(column.name)}, typeof({name}))"
        allowed = _storage(column)
        if allowed is None:
            real = f"dpone_repr({name})"
            if column.logical == "json":  # JSON has no infinity; NaN is stored as NULL
                infinite = f"dpone_refuse({self.literal(column.name)}, 'infinite real')"
                real = f"CASE WHEN abs({name}) < 9e999 THEN {real} ELSE {infinite} END"
            return (
                f"CASE typeof({name}) WHEN 'text' THEN {name} WHEN 'integer' THEN CAST({name} AS TEXT) "
                f"WHEN 'real' THEN {real} WHEN 'null' THEN NULL ELSE {refused} END"
            )
        if allowed == "kept":
            return (
                f"CASE typeof({name}) WHEN 'text' THEN {name} WHEN 'integer' THEN CAST({name} AS TEXT) "
                f"WHEN 'null' THEN NULL ELSE {refused} END"
            )
        classes = ", ".join(f"'{found}'" for found in ("null", *allowed))
        value = f"CAST({name} AS BLOB)" if column.type == pa.binary() and allowed == ("text",) else name
        return f"CASE WHEN typeof({name}) IN ({classes}) THEN {value} ELSE {refused} END"

    def instant(self, column: Column, prefix: str = "") -> str:
        """Times are text of one width per type, so their text is completed or cut."""
        if not (pa.types.is_timestamp(column.type) or pa.types.is_date32(column.type)):
            return ""  # a kept column, of another program, may have any text
        value = prefix + self.quote(column.name)
        if pa.types.is_date32(column.type):
            return f"({value} || ' 00:00:00.000000Z')"
        return f"(substr(rtrim({value}, 'Z') || '{_FRACTIONS[column.type.unit]}', 1, 26) || 'Z')"

    def moment(self, text: str) -> str:
        """The text that is stored."""
        return self.literal(text.replace("T", " ").replace("+00:00", "Z"))

    def next_moment(self, expression: str) -> str:
        """The last six digits before the Z, counted up; where they are all 9, the next second."""
        carried = f"strftime('%Y-%m-%d %H:%M:%S', substr({expression}, 1, 19), '+1 second') || '.000000Z'"
        counted = f"substr({expression}, 1, 20) || printf('%06d', substr({expression}, 21, 6) + 1) || 'Z'"
        return f"(CASE substr({expression}, 21, 6) WHEN '999999' THEN {carried} ELSE {counted} END)"

    def identical(self, expression: str, native: str) -> str:
        """A column may have been declared with a collation under which 'a' equals 'A'."""
        return f"{expression} COLLATE BINARY" if affinity(native) != "INTEGER" else expression


def affinity(native: str) -> Affinity:
    """The affinity of a declared type, by SQLite's five rules in their order."""
    words = native.upper()
    if "INT" in words:
        return "INTEGER"
    if any(word in words for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in words or not words.strip():
        return "BLOB"
    return "REAL" if any(word in words for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def canonical(native: str) -> Canonical | None:
    """What a declared type is read as; None when it does not say, so that only the values do."""
    match = _PARTS.fullmatch(native)
    base, arguments = (match[1].upper(), match[2] or "") if match else (native.upper(), "")
    base = " ".join(base.split())
    if base in _DECIMALS:
        return _decimal(base, arguments)
    if found := _OWN.get(base) or _FOREIGN.get(base):
        return found
    return _BY_AFFINITY.get(affinity(native)) or (_OWN["BLOB"] if "BLOB" in base else None)


def by_storage(storage: str) -> Canonical:
    """What values of one storage class are read as."""
    return _OWN[storage.upper()]


def can_be_kept(native: str) -> bool:
    """Whether a column of this declared type, made anew, stores what was read from it unaltered."""
    found = canonical(native)
    if found is None or not _PLAIN.fullmatch(native):
        return False
    return affinity(native) != "NUMERIC" or pa.types.is_temporal(found.type) or pa.types.is_boolean(found.type)


def travels_as_text(column: Column) -> bool:
    """Whether values of another type are selected as text, and parsed from it."""
    if pa.types.is_binary(column.type):
        return False
    storage = _storage(column)
    return storage is None or storage == ("text",)


def _storage(column: Column) -> tuple[str, ...] | Literal["kept"] | None:  # noqa: PLR0911 - one answer per rule
    """The storage classes that a column's type can be read from; None: the exact text of any but a blob."""
    type_, declared = column.type, affinity(column.native)
    if pa.types.is_decimal(type_):
        return None
    if pa.types.is_string(type_):
        if column.kept and declared == "NUMERIC":
            return "kept"
        return ("text",) if declared == "TEXT" else None
    if declared == "TEXT" or pa.types.is_temporal(type_):
        return ("text",)
    if pa.types.is_binary(type_):
        return ("blob",)
    if pa.types.is_floating(type_):
        return ("real",) if declared == "REAL" else ("real", "integer")
    return ("integer",)


def _decimal(base: str, arguments: str) -> Canonical | None:
    match = _PRECISION.fullmatch(arguments.strip())
    if match is None:
        return None
    precision, scale = int(match[1]), int(match[2] or 0)
    if not 1 <= precision <= MAX_PRECISION or scale > precision:
        return None
    note = "" if base == "DECIMAL_TEXT" else "SQLite stores it as a float: read as the shortest decimal that denotes it"
    return Canonical(pa.decimal128(precision, scale), note=note)


def _fits(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether one integer type holds every value of another that SQLite stores."""
    if pa.types.is_unsigned_integer(wide):
        return bool(pa.types.is_unsigned_integer(narrow) and narrow.bit_width <= wide.bit_width)
    if pa.types.is_unsigned_integer(narrow):
        return bool(narrow.bit_width < wide.bit_width or wide.bit_width == 64)  # noqa: PLR2004 - stored below 2**63
    return bool(narrow.bit_width <= wide.bit_width)


def _normal(native: str) -> str:
    return re.sub(r"\s+", "", native).upper()
