"""The SQL of PostgreSQL: its types, how their values are read, and how they are digested.

Types are the strings of `format_type()` under an empty search_path: `numeric(10,2)`, `timestamp(3) without time
zone`, `public.mood`. Every rule on a type looks at that string, so source and sink agree on it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from dpone.arrow.digest import undigestible
from dpone.arrow.fidelity import manifest_line
from dpone.arrow.types import UTC, type_name
from dpone.errors import ConfigError
from dpone.sdk import Column, Fidelity, NativeType, Table
from dpone.sql.dialect import Dialect

_INTEGERS = {"smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64()}
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_FLOATS = {"real": pa.float32(), "double precision": pa.float64()}
_TEXTS = ("text", "character varying", "character")
_TIMES: dict[str, pa.DataType] = {
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", UTC),
}
_PLAIN: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    **_INTEGERS,
    **_FLOATS,
    **dict.fromkeys(_TEXTS, pa.string()),
    "bytea": pa.binary(),
    **_TIMES,
}
_LOGICAL: dict[str, Literal["json", "uuid"]] = {"uuid": "uuid", "json": "json", "jsonb": "json"}
# Where `::text` is exactly the output function. It is not for boolean (t/true), character (loses its padding) and
# inet (gains a mask), see https://www.postgresql.org/docs/current/functions-net.html; concat() always is:
# https://www.postgresql.org/docs/current/functions-string.html
_TEXT_IS_OUTPUT = frozenset(
    {*_INTEGERS, *_FLOATS, *_TIMES, *_LOGICAL, "numeric", "text", "character varying", "bytea", "interval"}
)
# Text output that another database cannot read back, or reads as another object: names of this one's catalog, and
# types without an input function (https://www.postgresql.org/docs/current/datatype-oid.html).
_UNPORTABLE = re.compile(r"(pg_catalog\.)?(reg\w+|pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|aclitem|cid)")

# What a type is made of in the end, by its name in pg_type: those that Arrow has a type for, and those whose text
# output is known to hold the whole value. A type that is in neither (of an extension, or made with CREATE TYPE and its
# own functions) may write a text that is not all of its value: https://www.postgresql.org/docs/current/sql-createtype.html
_BUILT_IN = re.compile(
    r"bool|int[248]|float[48]|numeric|money|text|varchar|bpchar|char|name|bytea|bit|varbit|uuid|jsonb?|jsonpath|xml|"
    r"date|timetz|time|timestamptz|timestamp|interval|inet|cidr|macaddr8?|tsvector|tsquery|"
    r"point|line|lseg|box|path|polygon|circle|oid|reg\w+|xid8?|[ct]id|pg_lsn|pg_snapshot|txid_snapshot|refcursor|"
    r"aclitem|pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list"
)
_OF_EXTENSIONS = frozenset(
    {("citext", "citext"), ("hstore", "hstore"), *(("ltree", name) for name in ("ltree", "lquery", "ltxtquery"))}
)
_MADE_OF_KNOWN = "ecrm"  # pg_type.typtype: enumerated, composite, range, multirange; their text is that of their parts

NO_LIST = "!"  # what `read` selects for an array that an Arrow list cannot hold; no JSON text is equal to it
_EPOCH = 946_684_800_000_000  # PostgreSQL counts microseconds from 2000-01-01, the digest from 1970-01-01
_NAN = 0x7FF8000000000000
_ARGUMENTS = 100  # a function takes no more: https://www.postgresql.org/docs/current/runtime-config-preset.html


@dataclass(frozen=True, slots=True)
class Canonical:
    """What a type of PostgreSQL is in Arrow, and what that does to its values."""

    type: pa.DataType
    logical: Literal["", "json", "uuid"] = ""
    fidelity: Fidelity = "exact"
    note: str = ""


def family(native: str) -> str:
    """A type without its modifier: `numeric(10,2)` is `numeric`, `time(3) without time zone` loses its `(3)`."""
    return re.sub(r"\([^()\"]*\)", "", native).strip()


def modifier(native: str) -> tuple[int, ...]:
    """The numbers in the modifier: `numeric(10,2)` has `(10, 2)`; without one, nothing."""
    match = re.search(r"\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?\)", native)
    return tuple(int(number) for number in match.groups() if number is not None) if match else ()


def canonical(native: str) -> Canonical:
    """The Arrow form of a type. Whatever Arrow has no exact type for travels as PostgreSQL's own text of it.

    That the text holds the whole value is for `known` to say.
    """
    name = family(native)
    if name in _PLAIN:
        return Canonical(_PLAIN[name])
    if name in _LOGICAL:
        return Canonical(pa.string(), _LOGICAL[name])
    if name == "numeric" and (decimal := _decimal(native)):
        return Canonical(decimal)
    if name == "numeric":
        return Canonical(pa.string(), "", "widened", f"{native} may have more than 38 digits: read as text")
    if name.endswith("[]") and (element := _element(native)):
        return Canonical(pa.list_(element.type), "", element.fidelity, element.note)
    return Canonical(pa.string(), "", "widened", f"{native} has no Arrow type: read as text")


def known(kind: str, schema: str, name: str, extension: str) -> bool:
    """Whether the text output of a type holds its whole value, by what the catalog says of it.

    `kind` is `pg_type.typtype` of what is left of the type below its domains and arrays; `schema` and `name` are of it
    too, and `extension` is the one that it belongs to, or empty.
    """
    built_in = schema == "pg_catalog" and _BUILT_IN.fullmatch(name) is not None
    return kind in _MADE_OF_KNOWN or built_in or (extension, name) in _OF_EXTENSIONS


def portable(native: str) -> bool:
    """Whether another PostgreSQL reads the text output of this type as the same value."""
    return not _UNPORTABLE.fullmatch(family(native).removesuffix("[]"))


def output(expression: str, native: str) -> str:
    """The text that the type's output function gives, which is what COPY sends; NULL stays NULL."""
    if family(native) in _TEXT_IS_OUTPUT:
        return f"{expression}::text"
    # num_nulls: a row of NULLs is itself not NULL, though IS NULL says so
    # (https://www.postgresql.org/docs/current/functions-comparison.html).
    return f"CASE WHEN num_nulls({expression}) = 0 THEN concat({expression}) END"


def lock_number(text: str) -> int:
    """The key of an advisory lock is a signed 64-bit number; this is the start of a SHA-256."""
    return int.from_bytes(hashlib.sha256(f"dpone {text}".encode()).digest()[:8], "big", signed=True)


class PostgresDialect(Dialect):
    """See `Dialect`. One instance serves source and sink."""

    name = "PostgreSQL"
    text = "text"
    bigint = "bigint"
    # https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
    identifier_bytes = 63
    most_columns = 1600  # https://www.postgresql.org/docs/current/limits.html
    arrival = "_dpone_row"
    arrival_ddl = "_dpone_row bigint GENERATED ALWAYS AS IDENTITY"
    placeholder = "%s"
    for_update = " FOR UPDATE"
    server_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"  # of the statement, not of the transaction
    # CREATE ... IF NOT EXISTS does not keep two sessions from colliding
    one_at_a_time = f"SELECT pg_advisory_xact_lock({lock_number('tables')})"

    def own_tables(self, schema: str) -> str:
        """See `Dialect.own_tables`; the catalog answers sooner than the views of the standard."""
        return (
            "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            f"WHERE n.nspname = {self.literal(schema)} AND c.relkind IN ('r', 'p') AND left(c.relname, 7) = '_dpone_'"
        )

    def hold(self, table: Table) -> str:
        """Writers wait, readers do not.

        https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
        """
        return f"LOCK TABLE {self.table(table)} IN SHARE ROW EXCLUSIVE MODE"

    def ordered(self, expression: str, native: str) -> str:
        """Text by its bytes, as every source orders a text cursor."""
        return f'{expression} COLLATE pg_catalog."C"' if family(native) in _TEXTS else expression

    def native(self, column: Column, schema: str = "") -> NativeType:
        """The type a column is stored as. An enumerated type that is kept lives in the target's schema."""
        if not column.kept:
            found = _native(column.type, column.logical)
            way_out = f"; read it as {manifest_line(cast={column.name: 'json'})}" if found.fidelity == "refused" else ""
            return replace(found, note=found.note + way_out)
        if column.enum and schema:
            mark = "[]" if column.native.endswith("[]") else ""
            return NativeType(f"{self.quote(schema)}.{self.quote(type_parts(column.native)[1])}{mark}")
        return NativeType(column.native)

    def instant(self, column: Column, prefix: str = "") -> str:
        """A timestamp AT TIME ZONE is the instant that a clock in that zone shows it at, whatever the session's zone.

        https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-ZONECONVERT
        """
        name, value = family(column.native), prefix + self.quote(column.name)
        if name == "date":
            value, name = f"{value}::timestamp without time zone", "timestamp without time zone"
        if name == "timestamp without time zone":
            return f"({value} AT TIME ZONE 'UTC')"
        return value if name == "timestamp with time zone" else ""

    def accepts(self, existing: str, wanted: NativeType) -> bool:
        """Whether a column of type `existing` takes every value of the wanted type, and gives back the same text.

        So a decimal keeps its scale (1.5 in numeric(12,4) reads as 1.5000), and a real is not put into a double.
        """
        have, want = family(existing), family(wanted.sql)
        if existing == wanted.sql:
            return True
        if want in _INTEGERS:
            return _holds_integer(existing, want)
        if want == "numeric" and have == "numeric":
            return _holds_numeric(modifier(existing), modifier(wanted.sql))
        if want in ("character varying", "text"):
            room, need = modifier(existing), modifier(wanted.sql)
            return have in ("character varying", "text") and (not room or (bool(need) and room[0] >= need[0]))
        if want in _TIMES and have == want:
            room, need = modifier(existing), modifier(wanted.sql)
            return not room or (bool(need) and room[0] >= need[0])
        return False

    def read(self, column: Column) -> str:
        """What COPY selects for a column: its text output is then the text that `PostgresSession` parses."""
        name = self.quote(column.name)
        if column.kept:
            return name
        value = _value(name, column)
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return f"encode({value}, 'hex')"
        if pa.types.is_list(column.type):
            plain = pa.types.is_boolean(column.type.value_type) or pa.types.is_integer(column.type.value_type)
            elements = value if plain else f"({value})::text[]"
            # Arrow lists have one dimension and begin at 1; others must not be flattened or shifted silently.
            return (
                f"CASE WHEN array_ndims({value}) > 1 OR array_lower({value}, 1) <> 1 THEN '{NO_LIST}' "
                f"ELSE to_json({elements})::text END"
            )
        return value

    def identical(self, expression: str, native: str) -> str:
        """Equality as values: text by its bytes, floats by their bits, other types by their text unless `=` is exact.

        `=` calls equal what is not the same value for json, interval (1 day, 24 hours), numeric without scale
        (1.0, 1.00), citext and others: https://www.postgresql.org/docs/current/datatype-datetime.html
        """
        name = family(native)
        if name in _FLOATS:
            return f"float8send({expression}::double precision)"
        if name in _TEXTS:
            return f'{expression} COLLATE pg_catalog."C"'
        exact = name in _INTEGERS or name in _TIMES or name in ("boolean", "bytea", "uuid")
        if exact or (name == "numeric" and modifier(native)):
            return expression
        return f'{output(expression, native)} COLLATE pg_catalog."C"'


def digest_query(dialect: Dialect, relation: str, columns: Sequence[Column], *, utf8: bool = True) -> str:
    """The query of `dpone-digest/1` over a FROM item: rows, and the sum of signed 64-bit hashes.

    `utf8` says that the database stores text as UTF-8; otherwise it is converted before it is hashed.
    Raises ConfigError for a column without a canonical encoding.
    """
    texts = _texts(dialect, columns)
    # OFFSET 0 keeps the texts from being computed twice, once for the length and once for the value.
    inner = f"(SELECT {', '.join(texts)} FROM {relation} OFFSET 0) AS e"
    return f"SELECT count(*), sum({_hash([f't{n}' for n in range(len(columns))], utf8=utf8)}) FROM {inner}"


def parts_query(
    dialect: Dialect, relation: str, columns: Sequence[Column], key: Sequence[Column], count: int, *, utf8: bool = True
) -> str:
    """The query of the digests of all parts (see `dpone.arrow.digest.digest_parts`): part, rows, sum of the hashes."""
    names = [column.name for column in columns]
    inner = f"(SELECT {', '.join(_texts(dialect, columns))} FROM {relation} OFFSET 0) AS e"
    part = _part(_hash([f"t{names.index(column.name)}" for column in key], utf8=utf8), count)
    row = _hash([f"t{n}" for n in range(len(columns))], utf8=utf8)
    hashes = f"(SELECT {part} AS part, {row} AS hash FROM {inner} OFFSET 0) AS h"
    return f"SELECT part, count(*), sum(hash) FROM {hashes} GROUP BY part"


def part_expression(dialect: Dialect, key: Sequence[Column], count: int, *, utf8: bool = True) -> str:
    """The number of the part that a row falls into."""
    return _part(_hash([_encoding(dialect.quote(column.name), column) for column in key], utf8=utf8), count)


def _texts(dialect: Dialect, columns: Sequence[Column]) -> list[str]:
    bad = next((why for why in map(undigestible, columns) if why), "")
    if bad:
        raise ConfigError(bad, remedy="set proof: counts, exclude the column or cast it to text", code="DP141")
    return [f"{_encoding(dialect.quote(column.name), column)} AS t{index}" for index, column in enumerate(columns)]


def _hash(texts: Sequence[str], *, utf8: bool) -> str:
    """The signed hash of a row from the texts of its values."""
    sizes = (f"octet_length({text})" if utf8 else f"octet_length(convert_to({text}, 'UTF8'))" for text in texts)
    row = _concat([f"coalesce({size}::text || ':' || {text}, '-')" for size, text in zip(sizes, texts, strict=True)])
    row = row if utf8 else f"convert_to({row}, 'UTF8')"
    return f"('x' || left(md5({row}), 16))::bit(64)::bigint"


def _part(hashed: str, count: int) -> str:
    """The remainder of the hash as an unsigned number, for a count that is a power of two."""
    return f"({hashed} & {count - 1})"


def _encoding(name: str, column: Column) -> str:  # noqa: PLR0911 - one answer per family
    """The text of one value in `dpone.arrow.digest`'s encoding."""
    if column.kept:
        return output(name, column.native)
    value, type_ = _value(name, column), column.type
    if pa.types.is_decimal(type_):
        return _trimmed(value)
    if pa.types.is_floating(type_):
        # PostgreSQL keeps the bits of any NaN it is sent; the digest knows one NaN.
        bits = f"float8send({value}::double precision)"
        return f"CASE WHEN {value} = 'NaN' THEN {_NAN} ELSE {_bigint(bits)} END::text"
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return f"encode({value}, 'hex')"
    if pa.types.is_date(type_):
        return f"({value} - date '1970-01-01')::text"
    if pa.types.is_time(type_):
        return _fine(_bigint(f"time_send({value})"), type_)
    if pa.types.is_timestamp(type_):
        send = "timestamptz_send" if type_.tz else "timestamp_send"
        return _fine(f"({_bigint(f'{send}({value})')} + {_EPOCH})", type_)
    if pa.types.is_list(type_):
        return _json_list(value) if pa.types.is_string(type_.value_type) else f"to_json({value})::text"
    if value == name:
        return output(name, column.native) if pa.types.is_string(type_) else f"{name}::text"
    return f"({value})::text"


def type_parts(native: str) -> tuple[str, str]:
    """Schema and name of a type as format_type gives it, unquoted; the schema is empty for a system type."""
    text = native.removesuffix("[]")
    parts = re.findall(r'"((?:[^"]|"")*)"|([^."(]+)', text)
    names = [(quoted.replace('""', '"') if quoted else plain) for quoted, plain in parts[:2]]
    return (names[0], names[1]) if len(names) == 2 and "." in text else ("", names[0])  # noqa: PLR2004 - schema, name


def _decimal(native: str) -> pa.DataType | None:
    numbers = modifier(native)
    if not numbers:
        return None
    precision, scale = numbers[0], numbers[1] if len(numbers) > 1 else 0
    # Since PostgreSQL 15 the scale may be negative, or greater than the precision:
    # https://www.postgresql.org/docs/current/datatype-numeric.html#DATATYPE-NUMERIC-DECIMAL
    if scale < 0:
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return pa.decimal128(precision, scale) if precision <= 38 else None  # noqa: PLR2004 - dpone's limit


def _element(native: str) -> Canonical | None:
    """The elements that an Arrow list holds exactly; other arrays travel as the text of the array."""
    inner = native.removesuffix("[]")
    name = family(inner)
    if name in ("boolean", "text", "character varying", *_INTEGERS, *_FLOATS, *_TIMES):
        return Canonical(_PLAIN[name])
    if name == "uuid":
        return Canonical(pa.string(), "", "widened", f"{native} is read as a list of text")
    decimal = _decimal(inner) if name == "numeric" else None
    return Canonical(decimal) if decimal else None


def _native(type_: pa.DataType, logical: str) -> NativeType:  # noqa: PLR0911 - one answer per family
    if logical:
        # json, not jsonb: jsonb drops duplicate keys, the order of keys and the spelling of numbers
        # (https://www.postgresql.org/docs/current/datatype-json.html).
        return NativeType(logical)
    if type_ in _NATIVE:
        return _NATIVE[type_]
    if pa.types.is_decimal(type_):
        return NativeType(f"numeric({type_.precision},{type_.scale})")
    if pa.types.is_timestamp(type_) or pa.types.is_time(type_):
        zone = "with" if pa.types.is_timestamp(type_) and type_.tz else "without"
        sql = f"{'timestamp' if pa.types.is_timestamp(type_) else 'time'} {zone} time zone"
        if type_.unit == "ns":
            return NativeType(sql, "lossy", "PostgreSQL keeps microseconds: nanoseconds are cut off")
        return NativeType(sql)
    if pa.types.is_list(type_) and not pa.types.is_nested(type_.value_type):
        element = _native(type_.value_type, "")
        return NativeType(f"{element.sql}[]", element.fidelity, element.note)
    return NativeType("text", "refused", f"{type_name(type_)} has no type in PostgreSQL")


_NATIVE: dict[pa.DataType, NativeType] = {
    pa.bool_(): NativeType("boolean"),
    pa.int8(): NativeType("smallint"),
    pa.int16(): NativeType("smallint"),
    pa.int32(): NativeType("integer"),
    pa.int64(): NativeType("bigint"),
    pa.uint8(): NativeType("smallint"),
    pa.uint16(): NativeType("integer"),
    pa.uint32(): NativeType("bigint"),
    pa.uint64(): NativeType("numeric(20,0)", "widened", "PostgreSQL has no unsigned 64-bit integer"),
    pa.float32(): NativeType("real"),
    pa.float64(): NativeType("double precision"),
    pa.string(): NativeType("text"),
    pa.large_string(): NativeType("text"),
    pa.binary(): NativeType("bytea"),
    pa.large_binary(): NativeType("bytea"),
    pa.date32(): NativeType("date"),
}

_CASTS: dict[str, tuple[str, ...]] = {
    "boolean": ("boolean", *_INTEGERS, *_TEXTS),
    "date": (*_TIMES, *_TEXTS),
    "time": ("time without time zone", "timestamp without time zone", *_TEXTS),
    "timestamp": ("timestamp without time zone", "timestamp with time zone", "date", *_TEXTS),
    "timestamptz": ("timestamp without time zone", "timestamp with time zone", "date", *_TEXTS),
    "binary": ("bytea",),
    "uuid": ("uuid", *_TEXTS),
}
_CAST_SQL = {
    "boolean": "boolean",
    "date": "date",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "binary": "bytea",
    "uuid": "uuid",
}


def castable(native: str, type_: pa.DataType, logical: str) -> bool:
    """Whether a type can be read as another one.

    A cast to an integer or a decimal never rounds: a value that does not fit is a DataError when it is read.
    """
    wanted, name = type_name(type_, logical), family(native)
    known = canonical(native)
    if (known.type, known.logical) == (type_, logical):
        return True
    if wanted in _CASTS:
        return name in _CASTS[wanted]
    if pa.types.is_integer(type_) or pa.types.is_decimal(type_) or pa.types.is_floating(type_):
        return name in (*_INTEGERS, *_FLOATS, "numeric", "boolean", *_TEXTS)
    return True  # text and json can be made of anything


def _value(name: str, column: Column) -> str:  # noqa: PLR0911 - one answer per family
    """The SQL value of a column that is not kept, in its canonical type; with casts where the stored type differs."""
    type_, have = column.type, family(column.native)
    if canonical(column.native).type == type_ and canonical(column.native).logical == column.logical:
        return name
    if pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        return _number(name, have)
    if pa.types.is_floating(type_):
        sql = "real" if type_ == pa.float32() else "double precision"
        source = f"{name}::integer" if have == "boolean" else output(name, column.native) if have in _TEXTS else name
        return f"({source})::{sql}"
    if column.logical == "json":
        return f"{name}::json" if have in (*_TEXTS, "json", "jsonb") else f"to_json({name})"
    if pa.types.is_string(type_) and not column.logical:
        return name  # text output is what every type has
    wanted = type_name(type_, column.logical).partition("[")[0]
    sql = _CAST_SQL.get(wanted, "")
    if not sql or have == sql:
        return name
    if wanted == "boolean" and have in _INTEGERS:
        return f"({name} <> 0)"  # only integer has a cast to boolean
    return f"({name})::{sql}"


def _number(name: str, have: str) -> str:
    """Digits without superfluous zeros, so that 12.00 is read as the integer 12 and 12.50 is refused."""
    if have in _INTEGERS:
        return name
    if have == "boolean":
        return f"({name}::integer)"
    # Floats go by their text: the cast to numeric keeps 15 digits only
    # (https://www.postgresql.org/docs/current/datatype-numeric.html#DATATYPE-FLOAT).
    value = name if have == "numeric" else f"({name}::text)::numeric"
    return f"({_trimmed(value)})::numeric"


def _trimmed(value: str) -> str:
    """A numeric as text without trailing zeros after the point. trim_scale() exists from PostgreSQL 13 on."""
    return f"CASE WHEN scale({value}) > 0 THEN rtrim(rtrim({value}::text, '0'), '.') ELSE {value}::text END"


def _bigint(send: str) -> str:
    """The eight bytes that a binary output function gives, as a signed integer."""
    return f"('x' || encode({send}, 'hex'))::bit(64)::bigint"


def _fine(micros: str, type_: pa.DataType) -> str:
    return f"({micros}::numeric * 1000)::text" if type_.unit == "ns" else f"({micros})::text"


def _json_list(value: str) -> str:
    """to_json writes control characters with lower-case digits, the digest's encoding with upper-case ones."""
    text = f"replace(to_json({value})::text, '\\\\', chr(1))"  # chr(1) itself is never there unescaped
    for code in ("b", "e", "f"):
        text = f"replace({text}, '\\u000{code}', '\\u000{code.upper()}')"
    for code in ("a", "b", "c", "d", "e", "f"):
        text = f"replace({text}, '\\u001{code}', '\\u001{code.upper()}')"
    return f"replace({text}, chr(1), '\\\\')"


def _concat(parts: list[str]) -> str:
    while len(parts) > 1:
        groups = [parts[start : start + _ARGUMENTS] for start in range(0, len(parts), _ARGUMENTS)]
        parts = [f"concat({', '.join(group)})" for group in groups]
    return parts[0] if parts else "''"


def _holds_integer(existing: str, wanted: str) -> bool:
    have = family(existing)
    if have in _INTEGERS:
        return _DIGITS[have] >= _DIGITS[wanted]
    return have == "numeric" and _holds_numeric(modifier(existing), (_DIGITS[wanted], 0))


def _holds_numeric(room: tuple[int, ...], need: tuple[int, ...]) -> bool:
    if not room:
        return True
    if not need:
        return False
    (have, have_scale), (want, want_scale) = ((*numbers, 0)[:2] for numbers in (room, need))
    return have_scale == want_scale and have >= want


__all__ = [
    "NO_LIST",
    "PostgresDialect",
    "canonical",
    "castable",
    "digest_query",
    "family",
    "known",
    "lock_number",
    "part_expression",
    "parts_query",
    "portable",
    "type_parts",
]
