"""The PostgreSQL connector against a real server: every value is compared with what the server itself holds."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import dpone
from dpone.arrow.digest import digest, undigestible
from dpone.connectors.postgres import connector
from dpone.connectors.postgres.config import PostgresConfig
from dpone.connectors.postgres.dialect import PostgresDialect
from dpone.connectors.postgres.session import PostgresSession
from dpone.connectors.postgres.sink import PostgresClaim, PostgresSink
from dpone.connectors.postgres.source import PostgresSource
from dpone.errors import (
    AuthError,
    ConfigError,
    ConflictError,
    DataError,
    DponeError,
    PermissionDenied,
    SchemaError,
    SinkUnavailable,
    SourceUnavailable,
    TimedOut,
)
from dpone.sdk import (
    Capability,
    Column,
    Digest,
    LoadSpec,
    NativeType,
    OpenLoad,
    Receipt,
    Results,
    Slice,
    Step,
    Stream,
    StreamKey,
    StreamSchema,
    Table,
    Window,
)
from dpone.sql.sink import stage_table
from dpone.testing.faults import Proxy

UTC = ZoneInfo("UTC")
DIALECT = PostgresDialect()


# -- helpers -------------------------------------------------------------------------------------------------------


def config(url: str, **extra: Any) -> PostgresConfig:
    """The settings for a URL, as the manifest would give them."""
    return PostgresConfig(**PostgresConfig.from_url(url), **extra)


def run(url: str, *statements: str) -> None:
    """Execute statements, each in its own transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def fetch(url: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query, by psycopg itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(sql.encode()).fetchall()


@contextlib.contextmanager
def opened(url: str) -> Iterator[PostgresSource]:
    """A source, closed at the end."""
    source = PostgresSource(config(url))
    try:
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def writing(url: str, **extra: Any) -> Iterator[PostgresSink]:
    """A sink, closed at the end."""
    sink = PostgresSink(config(url, **extra))
    try:
        yield sink
    finally:
        sink.close()


def read(url: str, stream: Stream, window: Window | None = None) -> pa.Table:
    """The whole stream as one table; on the way, the server's digest is compared with Arrow's."""
    with opened(url) as source:
        schema = source.describe(stream)
        reading = source.open(stream, schema, window or Window())
        batches = [batch for piece in reading.slices for batch in reading.read(piece)]
        kept = [column for column in schema.columns if not undigestible(column)]
        names = [column.name for column in kept]
        expected = digest(tuple(kept), [batch.select(names) for batch in batches])
        assert expected == sum((reading.digest(piece) for piece in reading.slices), Digest())
        reading.close()
        return pa.Table.from_batches(batches, pa.schema([(c.name, c.type) for c in schema.columns]))


def spec_of(key: StreamKey, columns: tuple[Column, ...], load_id: str = "0123456789abcdef", **extra: Any) -> LoadSpec:
    """A load of one slice, whose publication is `steps`."""
    load = OpenLoad(load_id, "run", "intent", Window(), (Slice(0),), "")
    return LoadSpec(load, key, columns, "replace", **extra)


def stage(url: str, columns: tuple[Column, ...], batches: list[pa.RecordBatch], target: Table) -> Digest:
    """Stage batches, make the target of them, and return the sink's own digest of what it staged."""
    key = StreamKey("test", "stream", target)
    dialect = DIALECT
    with writing(url) as sink:
        claim = sink.claim(key, run_id="run", holder="test")
        stored = dialect.stored(columns, target.schema)
        names, staged = dialect.names(stored), dialect.table(stage_table(target, "0123456789abcdef"))
        into = dialect.table(target)
        spec = spec_of(
            key,
            columns,
            steps=(
                Step("run", dialect.create_table(target, stored)),
                Step("rows", f"INSERT INTO {into} ({names}) SELECT {names} FROM {staged}", "inserted"),
            ),
        )
        load = claim.begin(spec)
        receipt = load.stage(spec.load.slices[0], batches)
        assert receipt.rows == sum(batch.num_rows for batch in batches)
        found = load.digest(spec.load.slices[0]) if not any(map(undigestible, columns)) else Digest()

        def check(results: Results) -> Receipt:
            assert {"inserted": receipt.rows} == dict(results)
            return Receipt("0123456789abcdef", "run", Window(), {"inserted": receipt.rows}, "now")

        load.commit(check)
        claim.release()
        return found


def moved(pg: str, pg2: str, stream: Stream, target: Table) -> StreamSchema:
    """Move a stream from one database to the other through the connector."""
    with opened(pg) as source:
        schema = source.describe(stream)
        reading = source.open(stream, schema, Window())
        batches = [batch for piece in reading.slices for batch in reading.read(piece)]
        stage(pg2, schema.columns, batches, target)
        reading.close()
    return schema


def texts(url: str, table: str, columns: list[str], order: str = "id") -> list[tuple[Any, ...]]:
    """Every value as the server's own text of it."""
    wanted = ", ".join(f'CASE WHEN num_nulls("{name}") = 0 THEN concat("{name}") END' for name in columns)
    return _texts(url, f"SELECT {wanted} FROM {table} ORDER BY {order}")


def _texts(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC -c lc_monetary=C") as connection:
        return connection.execute(sql.encode()).fetchall()


# -- the types -----------------------------------------------------------------------------------------------------

MICRO = dt.datetime(2020, 2, 29, 23, 59, 59, 999999)

CANONICAL: dict[str, tuple[str, pa.DataType, list[str], list[Any]]] = {
    # column: declaration, Arrow type, SQL literals, the values they must be
    "c_bool": ("boolean", pa.bool_(), ["true", "false"], [True, False]),
    "c_int2": ("smallint", pa.int16(), ["-32768", "32767"], [-32768, 32767]),
    "c_int4": ("integer", pa.int32(), ["-2147483648", "2147483647"], [-(2**31), 2**31 - 1]),
    "c_int8": ("bigint", pa.int64(), ["-9223372036854775808", "9223372036854775807"], [-(2**63), 2**63 - 1]),
    "c_real": ("real", pa.float32(), ["'-0'", "'3.4028235e38'"], [-0.0, 3.4028234663852886e38]),
    "c_double": ("double precision", pa.float64(), ["'5e-324'", "'-Infinity'"], [5e-324, -math.inf]),
    "c_dec": (
        "numeric(10,2)",
        pa.decimal128(10, 2),
        ["1.50", "-99999999.99"],
        [Decimal("1.50"), Decimal("-99999999.99")],
    ),
    "c_dec38": (
        "numeric(38,38)",
        pa.decimal128(38, 38),
        [f"0.{'1' * 38}", "0"],
        [Decimal(f"0.{'1' * 38}"), Decimal("0E-38")],
    ),
    "c_dec0": ("numeric(38)", pa.decimal128(38, 0), ["9" * 38, "-1"], [Decimal("9" * 38), Decimal(-1)]),
    "c_decneg": ("numeric(3,-2)", pa.decimal128(5, 0), ["12300", "-99900"], [Decimal(12300), Decimal(-99900)]),
    "c_decsub": ("numeric(2,5)", pa.decimal128(5, 5), ["0.00012", "0"], [Decimal("0.00012"), Decimal("0.00000")]),
    "c_text": ("text", pa.string(), ["''", "E'\\ufeff,\"\\r\\n\\\\.\\n é😀'"], ["", '\ufeff,"\r\n\\.\n é😀']),
    "c_varchar": ("varchar(5)", pa.string(), ["'NULL'", "' x '"], ["NULL", " x "]),
    "c_char": ("char(5)", pa.string(), ["'ab'", "''"], ["ab   ", "     "]),
    "c_bytea": ("bytea", pa.binary(), ["'\\x00ff'", "''"], [b"\x00\xff", b""]),
    "c_date": ("date", pa.date32(), ["'0001-01-01'", "'9999-12-31'"], [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    "c_time": ("time", pa.time64("us"), ["'00:00'", "'23:59:59.999999'"], [dt.time(), dt.time(23, 59, 59, 999999)]),
    "c_ts": ("timestamp", pa.timestamp("us"), [f"'{MICRO}'", "'0001-01-01'"], [MICRO, dt.datetime(1, 1, 1)]),
    "c_ts3": (
        "timestamp(3)",
        pa.timestamp("us"),
        ["'2020-01-01 00:00:00.123'", "'1582-10-10'"],
        [dt.datetime(2020, 1, 1, 0, 0, 0, 123000), dt.datetime(1582, 10, 10)],
    ),
    "c_tz": (
        "timestamptz",
        pa.timestamp("us", "UTC"),
        ["'2020-01-01 00:00+05:30'", "'2020-06-01 00:00:00.1Z'"],
        [dt.datetime(2019, 12, 31, 18, 30, tzinfo=UTC), dt.datetime(2020, 6, 1, 0, 0, 0, 100000, UTC)],
    ),
    "c_uuid": (
        "uuid",
        pa.string(),
        ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'00000000-0000-0000-0000-000000000000'"],
        ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"],
    ),
    "c_json": ("json", pa.string(), ['\'{"a": 1,  "a":2}\'', "'null'"], ['{"a": 1,  "a":2}', "null"]),
    "c_jsonb": ("jsonb", pa.string(), ["'{\"a\":1.50}'", "'true'"], ['{"a": 1.50}', "true"]),
    "c_domain": ("pos", pa.int32(), ["1", "2147483647"], [1, 2147483647]),
    "c_ints": ("integer[]", pa.list_(pa.int32()), ["'{}'", "'{1,NULL,-3}'"], [[], [1, None, -3]]),
    "c_bools": ("boolean[]", pa.list_(pa.bool_()), ["'{t,NULL}'", "'{f}'"], [[True, None], [False]]),
    "c_texts": (
        "text[]",
        pa.list_(pa.string()),
        ["array['','NULL',null,'q\"x\\y,{}']", "array[E'\\x01\\x0b\\x1f\\\\u001f']"],
        [["", "NULL", None, 'q"x\\y,{}'], ["\x01\x0b\x1f\\u001f"]],
    ),
    "c_floats": (
        "float8[]",
        pa.list_(pa.float64()),
        ["'{0.1,Infinity}'", "'{5e-324,NULL}'"],
        [[0.1, math.inf], [5e-324, None]],
    ),
    "c_decs": (
        "numeric(5,2)[]",
        pa.list_(pa.decimal128(5, 2)),
        ["'{1.50,NULL}'", "'{-999.99}'"],
        [[Decimal("1.50"), None], [Decimal("-999.99")]],
    ),
    "c_dates": ("date[]", pa.list_(pa.date32()), ["'{2020-02-29}'", "'{}'"], [[dt.date(2020, 2, 29)], []]),
    "c_stamps": (
        "timestamptz[]",
        pa.list_(pa.timestamp("us", "UTC")),
        ["'{2020-01-01 00:00+01}'", "'{NULL}'"],
        [[dt.datetime(2019, 12, 31, 23, tzinfo=UTC)], [None]],
    ),
}

AS_TEXT: dict[str, tuple[str, list[str], list[str]]] = {
    # types without an exact Arrow form: declaration, SQL literals, the server's own text
    "w_numeric": ("numeric", ["1.500", f"'{'9' * 40}.{'1' * 40}'"], ["1.500", f"{'9' * 40}.{'1' * 40}"]),
    "w_numeric40": ("numeric(40,2)", ["1", "'NaN'"], ["1.00", "NaN"]),
    "w_interval": ("interval", ["'24 hours'", "'1 day'"], ["24:00:00", "1 day"]),
    "w_timetz": ("timetz", ["'01:02+05:30'", "'24:00Z'"], ["01:02:00+05:30", "24:00:00+00"]),
    "w_inet": ("inet", ["'1.2.3.4'", "'10.0.0.1/8'"], ["1.2.3.4", "10.0.0.1/8"]),
    "w_cidr": ("cidr", ["'10.0.0.0/8'", "'::1'"], ["10.0.0.0/8", "::1/128"]),
    "w_mac": ("macaddr", ["'08002b010203'", "'ff:ff:ff:ff:ff:ff'"], ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"]),
    "w_mood": ("mood", ["'ok'", "'it''s, \"so\"'"], ["ok", 'it\'s, "so"']),
    "w_moods": ("mood[]", ["'{ok,NULL}'", "'{}'"], ["{ok,NULL}", "{}"]),
    "w_range": ("int4range", ["'[1,4]'", "'empty'"], ["[1,5)", "empty"]),
    "w_tsrange": ("tstzrange", ["'[2020-01-01 00:00Z,)'", "'empty'"], ['["2020-01-01 00:00:00+00",)', "empty"]),
    "w_bit": ("bit(3)", ["'101'", "'000'"], ["101", "000"]),
    "w_varbit": ("bit varying", ["'1'", "''"], ["1", ""]),
    "w_xml": ("xml", ["'<a>1</a>'", "'text'"], ["<a>1</a>", "text"]),
    "w_tsvector": ("tsvector", ["'a b:2'", "''"], ["'a' 'b':2", ""]),
    "w_point": ("point", ["'(1.5,-0)'", "'(0.1,1e300)'"], ["(1.5,-0)", "(0.1,1e+300)"]),
    "w_name": ("name", ["'n'", "''"], ["n", ""]),
    "w_char": ('"char"', ["'x'", "''"], ["x", ""]),
    "w_oid": ("oid", ["42", "4294967295"], ["42", "4294967295"]),
    "w_lsn": ("pg_lsn", ["'0/1'", "'FF/FF'"], ["0/1", "FF/FF"]),
    "w_reg": ("regclass", ["'pg_class'", "0"], ["pg_class", "-"]),
    "w_comp": ("comp", ["row(null,'a\"b')::comp", "row(null,null)::comp"], ['(,"a""b")', "(,)"]),
    "w_grid": ("integer[][]", ["'{{1,2},{3,4}}'", "'[0:1]={1,2}'"], ["{{1,2},{3,4}}", "[0:1]={1,2}"]),
    "w_intervals": ("interval[]", ["'{1 day}'", "'{}'"], ['{"1 day"}', "{}"]),
}

SETUP = (
    "CREATE DOMAIN pos AS integer CHECK (value > 0)",
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s, \"so\"')",
    "CREATE TYPE comp AS (a integer, b text)",
)


def make_types(url: str, cases: dict[str, tuple[str, list[str]]]) -> None:
    """Table `every`: id 1 and 2 hold the two values of each type, id 3 only NULL."""
    columns = ", ".join(f"{name} {declared}" for name, (declared, _) in cases.items())
    rows = [", ".join(literals[index] for _, literals in cases.values()) for index in (0, 1)]
    run(url, *SETUP, f"CREATE TABLE every (id integer PRIMARY KEY, {columns})")
    run(url, f"INSERT INTO every VALUES (1, {rows[0]}), (2, {rows[1]})", "INSERT INTO every (id) VALUES (3)")


def exactly(value: Any) -> str:
    """A text that tells apart what == does not: -0.0 from 0.0, and one NaN from no NaN."""
    return repr(value)


def test_canonical_types_are_read_exactly(pg: str) -> None:
    """Each type with an exact Arrow form arrives as that form, value by value, and NULL as NULL."""
    make_types(pg, {name: (declared, literals) for name, (declared, _, literals, _) in CANONICAL.items()})
    table = read(pg, Stream("every")).sort_by("id")
    for name, (_, type_, _, values) in CANONICAL.items():
        column = table.column(name)
        assert type_ == column.type, name
        assert [exactly(value) for value in [*values, None]] == [exactly(v) for v in column.to_pylist()], name
    with opened(pg) as source:
        schema = source.describe(Stream("every"))
    assert {"exact"} == {column.fidelity for column in schema.columns}
    logical = {name: schema.column(name).logical for name in ("c_uuid", "c_json", "c_jsonb")}  # type: ignore[union-attr]
    assert {"c_uuid": "uuid", "c_json": "json", "c_jsonb": "json"} == logical


def test_other_types_are_read_as_their_text(pg: str) -> None:
    """Types without an exact Arrow form arrive as the server's own text, are called widened, and say why."""
    make_types(pg, {name: (declared, literals) for name, (declared, literals, _) in AS_TEXT.items()})
    table = read(pg, Stream("every")).sort_by("id")
    for name, (_, _, values) in AS_TEXT.items():
        assert pa.string() == table.column(name).type, name
        assert [*values, None] == table.column(name).to_pylist(), name
    with opened(pg) as source:
        columns = source.describe(Stream("every", exclude=("id",))).columns
    assert [("widened", True)] * len(columns) == [(column.fidelity, bool(column.note)) for column in columns]
    assert ("sad", "ok", 'it\'s, "so"') == next(column.enum for column in columns if column.name == "w_mood")


def test_canonical_types_are_written_exactly(pg: str, pg2: str) -> None:
    """What was read in canonical form is stored so that the sink's server shows the same text for every value."""
    make_types(pg, {name: (declared, literals) for name, (declared, _, literals, _) in CANONICAL.items()})
    run(pg2, "CREATE SCHEMA raw")
    moved(pg, pg2, Stream("every"), Table("raw", "every"))
    names = list(CANONICAL)
    assert texts(pg, "every", names) == texts(pg2, "raw.every", names)
    assert (
        read(pg, Stream("every")).sort_by("id").to_pylist().__repr__()
        == read(pg2, Stream("raw.every")).sort_by("id").to_pylist().__repr__()
    )


def test_native_route_keeps_every_type_and_value(pg: str, pg2: str) -> None:
    """Between two PostgreSQL databases each column keeps its own type, and each value its own text."""
    cases = {name: (declared, literals) for name, (declared, _, literals, _) in CANONICAL.items()}
    cases |= {name: (declared, literals) for name, (declared, literals, _) in AS_TEXT.items()}
    cases |= {"k_money": ("money", ["'-1234.5'", "'0.01'"]), "k_inf": ("timestamptz", ["'infinity'", "'-infinity'"])}
    cases |= {"k_bc": ("date", ["'0044-03-15 BC'", "'20000-01-01'"]), "k_nan": ("numeric(10,2)", ["'NaN'", "0"])}
    cases |= {"k_24": ("time", ["'24:00'", "'00:00'"])}
    make_types(pg, cases)
    run(pg2, "CREATE SCHEMA raw", SETUP[0], SETUP[2])
    schema = moved(pg, pg2, Stream("every", keep_native=True), Table("raw", "every"))
    assert texts(pg, "every", list(cases)) == texts(pg2, "raw.every", list(cases))
    sql = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum"
    )
    expected = dict(fetch(pg, sql.format("every"))) | {
        "w_mood": "raw.mood",
        "w_moods": "raw.mood[]",
        "w_reg": "text",  # the object numbers of another database mean nothing
    }
    assert expected == dict(fetch(pg2, sql.format("raw.every")))
    assert ["w_reg"] == [column.name for column in schema.columns if not column.kept]
    read(pg, Stream("every", keep_native=True))  # digests of the server and of Arrow agree


@pytest.mark.parametrize(
    ("declared", "literal"),
    [
        ("timestamp", "'infinity'"),
        ("timestamptz", "'-infinity'"),
        ("date", "'infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("timestamp", "'10000-01-01'"),
        ("date", "'10000-01-01'"),
        ("time", "'24:00'"),
        ("numeric(10,2)", "'NaN'"),
        ("integer[]", "'{{41,42},{43,44}}'"),
        ("integer[]", "'[0:1]={41,42}'"),
        ("date[]", "'{infinity}'"),
        ("text[]", "'{{a,b}}'"),
    ],
)
def test_a_value_without_an_arrow_form_stops_the_read(pg: str, declared: str, literal: str) -> None:
    """It is a DataError that names the column and the cast, never the value; as text the value is read."""
    run(pg, f"CREATE TABLE t (id integer, odd {declared})", f"INSERT INTO t VALUES (1, NULL), (2, {literal})")
    with opened(pg) as source:
        stream = Stream("t")
        reading = source.open(stream, source.describe(stream), Window())
        with pytest.raises(DataError, match="column odd") as caught:
            list(reading.read(reading.slices[0]))
    assert "columns: {cast: {odd: text}}" in caught.value.remedy
    for word in ("infinity", "BC", "10000", "24:00", "NaN", "41", "{"):
        assert word not in caught.value.message
    assert caught.value.__cause__ is None
    [[expected]] = _texts(pg, "SELECT concat(odd) FROM t WHERE id = 2")
    assert [None, expected] == read(pg, Stream("t", casts={"odd": "text"})).sort_by("id")["odd"].to_pylist()


@pytest.mark.parametrize(
    ("declared", "literal", "wanted", "expected"),
    [
        ("text", "'12'", "int64", 12),
        ("numeric", "12.00", "int64", 12),
        ("double precision", "'1e15'", "int64", 10**15),
        ("boolean", "true", "int8", 1),
        ("bigint", "255", "uint8", 255),
        ("numeric(20,0)", "18446744073709551615", "uint64", 2**64 - 1),
        ("numeric", "1.500", "decimal(5,1)", Decimal("1.5")),
        ("double precision", "'0.1'", "decimal(38,20)", Decimal("0.1")),
        ("text", "'1.10'", "decimal(5,2)", Decimal("1.10")),
        ("integer", "7", "float64", 7.0),
        ("text", "'0.1'", "float64", 0.1),
        ("boolean", "true", "float64", 1.0),
        ("smallint", "1", "boolean", True),
        ("text", "'yes'", "boolean", True),
        ("boolean", "true", "text", "t"),
        ("inet", "'1.2.3.4'", "text", "1.2.3.4"),
        ("jsonb", "'{\"a\": 1}'", "text", '{"a": 1}'),
        ("text", "'[1, 2]'", "json", "[1, 2]"),
        ("integer[]", "'{1,2}'", "json", "[1,2]"),
        ("text", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("timestamp", "'2020-01-01 10:00'", "timestamptz", dt.datetime(2020, 1, 1, 10, tzinfo=UTC)),
        ("timestamptz", "'2020-01-01 10:00+02'", "timestamp", dt.datetime(2020, 1, 1, 8)),
        ("date", "'2020-01-01'", "timestamp", dt.datetime(2020, 1, 1)),
        ("text", "'2020-01-01'", "date", dt.date(2020, 1, 1)),
        ("text", "'10:11:12.5'", "time", dt.time(10, 11, 12, 500000)),
    ],
)
def test_casts_are_exact(pg: str, declared: str, literal: str, wanted: str, expected: object) -> None:
    """A cast of the stream is applied, with the same digest on the server as in Arrow."""
    run(pg, f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES ({literal}), (NULL)")
    assert [expected, None] == read(pg, Stream("t", casts={"v": wanted}))["v"].to_pylist()


@pytest.mark.parametrize(
    ("declared", "literal", "wanted"),
    [
        ("numeric", "1.5", "int64"),
        ("double precision", "'1.5'", "int32"),
        ("numeric", "1.239", "decimal(10,2)"),
        ("bigint", "4242424242", "int32"),
        ("text", "'4242.42x'", "int64"),
        ("numeric", "'NaN'", "int64"),
    ],
)
def test_casts_never_round_or_cut(pg: str, declared: str, literal: str, wanted: str) -> None:
    """A value that does not fit the cast exactly is a DataError without the value."""
    run(pg, f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES ({literal})")
    with opened(pg) as source:
        stream = Stream("t", casts={"v": wanted})
        reading = source.open(stream, source.describe(stream), Window())
        with pytest.raises(DataError) as caught:
            list(reading.read(reading.slices[0]))
    assert "4242" not in f"{caught.value.message} {caught.value.remedy}"


def test_an_impossible_cast_is_refused_when_described(pg: str) -> None:
    """Before any row is read, with the cast that works."""
    run(pg, "CREATE TABLE t (v interval)")
    with opened(pg) as source, pytest.raises(SchemaError, match="v is a interval") as caught:
        source.describe(Stream("t", casts={"v": "int64"}))
    assert "cast: {v: text}" in caught.value.remedy


# -- text, batches and the wire ------------------------------------------------------------------------------------


def test_a_single_column_of_nulls_and_empty_text(pg: str) -> None:
    """An empty line is a row with NULL, a quoted empty one is '', and a byte order mark at the start stays."""
    run(pg, "CREATE TABLE t (v text)", "INSERT INTO t VALUES (E'\\ufeffx'), (NULL), (''), (NULL), (E'\\\\.')")
    assert ["\ufeffx", None, "", None, "\\."] == read(pg, Stream("t"))["v"].to_pylist()


def test_batches_are_bounded_by_bytes(pg: str) -> None:
    """Wide rows make small batches: 100 rows of 1 MB come in pieces of a few MB."""
    run(
        pg,
        "CREATE TABLE t (id integer, v text)",
        "INSERT INTO t SELECT i, repeat(md5(i::text), 32768) FROM generate_series(1, 100) i",
    )
    with opened(pg) as source:
        reading = source.open(Stream("t"), source.describe(Stream("t")), Window())
        sizes = [(batch.num_rows, batch.nbytes) for batch in reading.read(reading.slices[0])]
    assert 100 == sum(rows for rows, _ in sizes)
    assert max(size for _, size in sizes) < 8_000_000


def test_no_rows_make_no_batches(pg: str) -> None:
    """An empty table has one slice, no batch and the digest of nothing."""
    run(pg, "CREATE TABLE t (v text)")
    assert 0 == read(pg, Stream("t")).num_rows


def test_a_reading_that_is_left_early_leaves_the_session_usable(pg: str) -> None:
    """The COPY is cancelled, and the same snapshot reads on."""
    run(pg, "CREATE TABLE t AS SELECT i AS id, repeat('x', 100) AS v FROM generate_series(1, 300000) i")
    with opened(pg) as source:
        reading = source.open(Stream("t"), source.describe(Stream("t")), Window())
        batches = reading.read(reading.slices[0])
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        with pytest.raises(DponeError):  # PostgreSQL ends the transaction of a cancelled statement
            reading.digest(reading.slices[0])
        reading.close()
        again = source.open(Stream("t"), source.describe(Stream("t")), Window())
        assert 300_000 == again.digest(again.slices[0]).rows


def test_an_error_in_the_middle_is_not_the_end_of_the_data(pg: str) -> None:
    """Rows that the server sent before its error do not pass for the whole."""
    run(
        pg,
        "CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 200000) i",
        "CREATE VIEW v AS SELECT 1 / (id - 150000) AS x, repeat('y', 200) AS y FROM t",
    )
    with opened(pg) as source:
        reading = source.open(Stream("v"), source.describe(Stream("v")), Window())
        with pytest.raises(DataError, match="division by zero"):
            list(reading.read(reading.slices[0]))


def test_a_killed_server_process_is_not_the_end_of_the_data(pg: str) -> None:
    """A connection lost in the middle is SourceUnavailable, retryable."""
    run(pg, "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS v FROM generate_series(1, 200000) i")
    with opened(pg) as source:
        reading = source.open(Stream("t"), source.describe(Stream("t")), Window())
        batches = reading.read(reading.slices[0])
        next(batches)
        run(pg, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dpone'")
        with pytest.raises(SourceUnavailable) as caught:
            list(batches)
    assert caught.value.retryable


def test_a_cut_line_is_not_the_end_of_the_data(pg: str) -> None:
    """A connection closed between two bytes of a row is SourceUnavailable."""
    run(pg, "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS v FROM generate_series(1, 100000) i")
    with cut_after(pg, 5_000_000) as url, opened(url) as source:
        reading = source.open(Stream("t"), source.describe(Stream("t")), Window())
        with pytest.raises(SourceUnavailable):
            list(reading.read(reading.slices[0]))


@contextlib.contextmanager
def cut_after(url: str, limit: int) -> Iterator[str]:
    """A proxy that closes both sides after `limit` bytes from the server."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(min(65536, left))):
                sink.sendall(data)
                left -= len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((parts.hostname or "", parts.port or 0))
                threading.Thread(target=pump, args=(near, far, 1 << 60), daemon=True).start()
                threading.Thread(target=pump, args=(far, near, limit), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"postgres://{parts.username}@127.0.0.1:{listener.getsockname()[1]}{parts.path}"
    finally:
        listener.close()


# -- links that stand still ----------------------------------------------------------------------------------------


def through(url: str, proxy: Proxy, **extra: Any) -> PostgresConfig:
    """The settings for a URL, by way of a proxy."""
    host, port = proxy.address
    return config(url).model_copy(update={"host": host, "port": port, "sslmode": "disable", **extra})


@contextlib.contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy before the server of a URL."""
    parts = urlsplit(url)
    with Proxy((parts.hostname or "", parts.port or 0)) as proxy:
        yield proxy


def big(url: str) -> str:
    """A table of some 50 MB."""
    run(url, "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS v FROM generate_series(1, 100000) i")
    return "SELECT id, v FROM public.t"


BIG = (Column("id", pa.int32()), Column("v", pa.string()))


def batches(seconds: float = 0) -> Iterator[pa.RecordBatch]:
    """Batches for `BIG`, with a pause between them."""
    for _ in range(50):
        yield pa.record_batch([pa.array(range(1000), pa.int32()), pa.array(["x" * 1000] * 1000)], names=["id", "v"])
        time.sleep(seconds)


@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_cancelled_run_leaves_a_link_that_stands_still(pg: str, pg2: str, tmp_path: Path, side: str) -> None:
    """Within a second or two of the word, not when bytes come again; the next run moves everything."""
    big(pg)
    with proxied(pg2 if side == "sink" else pg) as proxy:
        proxy.stall_after(200_000, "up" if side == "sink" else "down")
        ends = {"source": config(pg), "sink": config(pg2)}
        ends[side] = through(pg2 if side == "sink" else pg, proxy)
        told = {name: {"connector": "postgres", **end.model_dump(mode="json")} for name, end in ends.items()}
        manifest = {"version": 1, "pipeline": "p", **told, "streams": {"public.t": {}}}
        stop, results = threading.Event(), list[dpone.RunResult]()
        runner = threading.Thread(
            target=lambda: results.append(dpone.run(manifest, store=tmp_path, stop=stop)), daemon=True
        )
        runner.start()
        time.sleep(2)
        assert runner.is_alive()
        stop.set()
        runner.join(2.5)
        assert not runner.is_alive()
        assert ["cancelled"] == [stream.status for stream in results[0].streams]
        proxy.clear()
        assert dpone.run(manifest, store=tmp_path, wait=10).raise_for_status().ok
    assert [(100_000,)] == fetch(pg2, "SELECT count(*) FROM public.t")


def test_a_read_from_a_link_that_stands_still_ends(pg: str) -> None:
    """SourceUnavailable, retryable, after read_timeout, when the server does not answer a second connection."""
    sql = big(pg)
    with proxied(pg) as proxy:
        session = PostgresSession(through(pg, proxy, read_timeout=1, connect_timeout=1), "source")
        proxy.stall_after(200_000, "down")
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match="no byte moved for 1 seconds") as caught:
            list(session.batches(sql, BIG))
        assert caught.value.retryable
        assert "read_timeout" in caught.value.remedy
        assert time.monotonic() - start < 10
        session.close()


def test_a_write_to_a_link_that_stands_still_ends(pg: str) -> None:
    """SinkUnavailable, also when the server answers a second connection: it waits for the rows."""
    run(pg, "CREATE TABLE s (id integer, v text, _dpone_slice integer)")
    with proxied(pg) as proxy:
        session = PostgresSession(through(pg, proxy, read_timeout=1, connect_timeout=1), "sink")
        proxy.stall_after(200_000, "up")
        with pytest.raises(SinkUnavailable, match="no byte moved for 1 seconds"):
            session.ingest(Table("public", "s"), BIG, batches(), 0)
        session.rollback()
        session.close()
    assert [(0,)] == fetch(pg, "SELECT count(*) FROM public.s")


def test_a_server_that_is_busy_has_all_the_time(pg: str) -> None:
    """Silence in the middle of rows is not a dead link while the server works: in a query, and at a lock."""
    rows = "SELECT i AS id, repeat('x', 500) AS v FROM generate_series(1, {}) i"
    sql = f"{rows.format(1000)} UNION ALL (SELECT 0, pg_sleep(3)::text) UNION ALL {rows.format(10)}"
    session = PostgresSession(config(pg, read_timeout=1), "source")
    assert 1011 == sum(batch.num_rows for batch in session.batches(sql, BIG))
    session.close()
    run(pg, "CREATE TABLE s (id integer PRIMARY KEY, v text, _dpone_slice integer)")
    session = PostgresSession(config(pg, read_timeout=1), "sink")
    with psycopg.connect(pg) as other:
        other.execute("INSERT INTO public.s VALUES (999)")  # the COPY waits to know what becomes of this key
        timer = threading.Timer(3, other.rollback)
        timer.start()
        batch = next(batches())
        many = [batch.set_column(0, "id", pa.array(range(n * 1000, n * 1000 + 1000), pa.int32())) for n in range(30)]
        assert 30_000 == session.ingest(Table("public", "s"), BIG, iter(many), 0)
        timer.join()
    session.close()


def test_a_slow_source_does_not_end_a_write(pg: str) -> None:
    """While dpone itself has nothing to send, the silence of the server means nothing."""
    run(pg, "CREATE TABLE s (id integer, v text, _dpone_slice integer)")
    session = PostgresSession(config(pg, read_timeout=1), "sink")
    few = itertools.islice(batches(1.5), 3)
    assert 3000 == session.ingest(Table("public", "s"), BIG, few, 0)
    session.close()


def test_a_connection_that_is_reset_while_connecting_is_a_sentence(pg: str) -> None:
    """The driver says it in three lines, of which the last says nothing by itself."""
    with proxied(pg) as proxy:
        proxy.cut_after(1, "down", times=None)
        with pytest.raises(SourceUnavailable) as caught:
            PostgresSession(through(pg, proxy), "source")
        host, port = proxy.address
    assert (
        f"connecting to {host}:{port}/{config(pg).database}: the server closed the connection" == caught.value.message
    )
    assert "check that the server runs" in caught.value.remedy


# -- digests and round trips ---------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
FIELDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "b": (pa.bool_(), st.booleans()),
    "i8": (pa.int8(), st.integers(-128, 127)),
    "i64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "u32": (pa.uint32(), st.integers(0, 2**32 - 1)),
    "u64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "f32": (pa.float32(), st.floats(width=32)),
    "f64": (pa.float64(), st.floats()),
    "d": (pa.decimal128(38, 10), st.decimals(-(10**27), 10**27, places=10, allow_nan=False)),
    "d0": (pa.decimal128(5, 5), st.decimals("-0.99999", "0.99999", places=5, allow_nan=False)),
    "t": (pa.string(), TEXT),
    "x": (pa.binary(), st.binary(max_size=8)),
    "day": (pa.date32(), st.dates()),
    "clock": (pa.time64("us"), st.times()),
    "at": (pa.timestamp("us"), st.datetimes()),
    "atz": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "ats": (pa.timestamp("s"), st.datetimes().map(lambda value: value.replace(microsecond=0))),
    "li": (pa.list_(pa.int64()), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=3)),
    "lt": (pa.list_(pa.string()), st.lists(st.none() | TEXT, max_size=3)),
    "lb": (pa.list_(pa.bool_()), st.lists(st.none() | st.booleans(), max_size=3)),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | values for name, (_, values) in FIELDS.items()}), max_size=12)


@pytest.fixture(scope="module")
def module_db(postgres: Any) -> Iterator[str]:
    """One database for all examples of a property test."""
    with postgres.database() as url:
        yield url


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, start=st.integers(0, 3))
def test_any_batch_is_stored_digested_and_read_back(module_db: str, rows: list[dict[str, Any]], start: int) -> None:
    """Random rows, also of a sliced batch: the server's digest is Arrow's, and reading gives the same values."""
    schema = pa.schema([(name, type_) for name, (type_, _) in FIELDS.items()])
    batch = pa.RecordBatch.from_pylist(rows, schema).slice(min(start, len(rows)))
    columns = tuple(Column(name, type_) for name, (type_, _) in FIELDS.items())
    session = PostgresSession(config(module_db), "sink")
    try:
        stored = session.dialect.stored(columns, "public")
        parts = [f"{session.dialect.quote(column.name)} {column.native}" for column in stored]
        session.execute("DROP TABLE IF EXISTS public.any")
        session.execute(f"CREATE TABLE public.any ({', '.join(parts)}, _dpone_slice bigint, {DIALECT.arrival_ddl})")
        assert batch.num_rows == session.ingest(Table("public", "any"), stored, iter([batch]), 7)
        assert digest(columns, [batch]) == session.digest("public.any", stored)
        wanted = ", ".join(f"{DIALECT.read(column)} AS {DIALECT.quote(column.name)}" for column in stored)
        back = [*session.batches(f"SELECT {wanted} FROM public.any ORDER BY _dpone_row", stored)]
        found = [row for piece in back for row in piece.to_pylist()]
        assert [repr(row) for row in batch.to_pylist()] == [repr(row) for row in found]
    finally:
        session.close()


def test_a_digest_of_many_columns(pg: str) -> None:
    """More columns than a function of PostgreSQL takes arguments."""
    run(
        pg,
        f"CREATE TABLE wide ({', '.join(f'c{n} integer' for n in range(1, 1001))})",
        "INSERT INTO wide (c1, c1000) VALUES (1, 2), (3, 4)",
    )
    table = read(pg, Stream("wide"))
    assert [(1, None, 2), (3, None, 4)] == list(
        zip(*(table[n].to_pylist() for n in ("c1", "c2", "c1000")), strict=True)
    )


def test_a_database_in_latin1(postgres: Any) -> None:
    """Text is converted to UTF-8 on the way and in the digest."""
    run(postgres.url(), "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        url = postgres.url("latin")
        run(url, "CREATE TABLE t (v text, l text[])", "INSERT INTO t VALUES (U&'\\00e9', ARRAY[U&'\\00ff'])")
        assert [{"v": "é", "l": ["ÿ"]}] == read(url, Stream("t")).to_pylist()
    finally:
        run(postgres.url(), "DROP DATABASE latin WITH (FORCE)")


def test_nanoseconds_are_declared_lossy_and_cut(pg: str) -> None:
    """PostgreSQL keeps microseconds: the dialect says lossy, and what is stored is the floor."""
    assert "lossy" == DIALECT.native(Column("v", pa.timestamp("ns"))).fidelity
    column = Column("v", pa.timestamp("ns"))
    stage(pg, (column,), [pa.record_batch([pa.array([1999, -1], pa.timestamp("ns"))], ["v"])], Table("public", "n"))
    expected = [(dt.datetime(1969, 12, 31, 23, 59, 59, 999999),), (dt.datetime(1970, 1, 1, 0, 0, 0, 1),)]
    assert expected == fetch(pg, "SELECT v FROM n ORDER BY v")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array(["fine", "secret\0"]), "character NUL"),
        (pa.array([["x", "secret\0"]]), "character NUL"),
        (pa.array([-800_000], pa.date32()), "years 1 to 9999"),
        (pa.array([2**62], pa.timestamp("us")), "years 1 to 9999"),
        (pa.array([2**62], pa.timestamp("s")), "years 1 to 9999"),
    ],
)
def test_a_value_that_cannot_be_stored_names_its_column(pg: str, array: pa.Array, words: str) -> None:
    """It is a DataError with the column and without the value, and nothing is staged."""
    column = Column("odd", array.type)
    with pytest.raises(DataError, match=f"column odd.*{words}") as caught:
        stage(pg, (column,), [pa.record_batch([array], ["odd"])], Table("public", "t"))
    assert "secret" not in caught.value.message


def test_the_server_s_refusal_of_a_value_names_its_column_only(pg: str) -> None:
    """Text that is no JSON is refused by the server, whose message would quote it."""
    columns = (Column("doc: odd", pa.string(), logical="json"),)
    with pytest.raises(DataError, match="column doc: odd") as caught:
        stage(pg, columns, [pa.record_batch([pa.array(["{secret"])], ["doc: odd"])], Table("public", "t"))
    assert "secret" not in f"{caught.value.message}{caught.value.remedy}"
    assert caught.value.__cause__ is None


# -- describing ----------------------------------------------------------------------------------------------------


def test_describe_says_what_is_there(pg: str) -> None:
    """Columns in order, primary key in its own order, nullability, an estimate and the version."""
    run(
        pg,
        "CREATE TABLE t (b text NOT NULL, a integer, gone text, PRIMARY KEY (a, b))",
        "ALTER TABLE t DROP gone",
        "INSERT INTO t SELECT 'x', i FROM generate_series(1, 5000) i",
        "ANALYZE t",
    )
    with opened(pg) as source:
        schema = source.describe(Stream("public.t"))
        assert [("b", False), ("a", False)] == [(column.name, column.nullable) for column in schema.columns]
        assert (("a", "b"), 5000) == (schema.primary_key, schema.estimated_rows)
        assert schema.server_version.partition(".")[0].isdigit()
        assert () == source.describe(Stream("t", exclude=("b",))).primary_key
        assert ["a"] == [column.name for column in source.describe(Stream("t", include=("a",))).columns]


def test_every_kind_of_relation_is_read(pg: str) -> None:
    """Tables, partitioned tables, views, materialized views, inherited and empty tables."""
    run(
        pg,
        "CREATE TABLE base (id integer)", "INSERT INTO base VALUES (1)",
        "CREATE TABLE parted (id integer) PARTITION BY RANGE (id)",
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)", "INSERT INTO parted VALUES (1)",
        "CREATE VIEW seen AS SELECT * FROM base", "CREATE MATERIALIZED VIEW kept AS SELECT * FROM base",
        "CREATE TABLE child () INHERITS (base)", "INSERT INTO child VALUES (2)",
        'CREATE SCHEMA "we.ird"', 'CREATE TABLE "we.ird"."t""%s" (id integer)',
    )  # fmt: skip
    with opened(pg) as source:
        expected = ["public.base", "public.child", "public.kept", "public.parted", "public.seen", '"we.ird"."t""%s"']
        assert expected == source.discover()
        assert 0 == source.describe(Stream(expected[-1])).estimated_rows
    found = [sorted(read(pg, Stream(name))["id"].to_pylist()) for name in expected]
    assert [[1, 2], [2], [1], [1], [1, 2], []] == found


def test_what_is_missing_is_named_with_a_suggestion(pg: str) -> None:
    """A table and a column that do not exist, and names that are none."""
    run(pg, "CREATE TABLE orders (id integer, amount numeric)")
    with opened(pg) as source:
        with pytest.raises(SchemaError, match="order") as caught:
            source.describe(Stream("order"))
        assert "did you mean public.orders?" == caught.value.remedy
        with pytest.raises(SchemaError, match="amont") as caught:
            source.describe(Stream("orders", casts={"amont": "text"}))
        assert "did you mean amount?" == caught.value.remedy
        with pytest.raises(SchemaError):
            source.describe(Stream("a.b.c"))
        with pytest.raises(SchemaError, match="nope"):
            source.describe(Stream("orders", filter="nope = 1"))


def as_role(url: str, role: str) -> str:
    """The same database, as another role."""
    return url.replace("postgres@", f"{role}@", 1)


@pytest.fixture
def reader(pg: str) -> Iterator[str]:
    """A role without any privilege of its own."""
    role = f"reader_{os.getpid()}"
    run(pg, f"CREATE ROLE {role} LOGIN")
    yield role
    run(pg, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_missing_privilege_names_the_grant(pg: str, reader: str) -> None:
    """The remedy is the statement that helps, and after it the read works."""
    run(pg, "CREATE SCHEMA s", "CREATE TABLE s.t (a integer, b integer)", "INSERT INTO s.t VALUES (1, 2)")
    for expected in (f'GRANT USAGE ON SCHEMA "s" TO "{reader}";', f'GRANT SELECT ON "s"."t" TO "{reader}";'):
        with opened(as_role(pg, reader)) as source, pytest.raises(PermissionDenied) as caught:
            source.describe(Stream("s.t"))
        assert expected == caught.value.remedy
        if "USAGE" in expected:
            run(pg, expected)
    run(pg, f"GRANT SELECT (a) ON s.t TO {reader}")
    with opened(as_role(pg, reader)) as source, pytest.raises(PermissionDenied) as caught:
        source.describe(Stream("s.t"))
    assert f'GRANT SELECT ("b") ON "s"."t" TO "{reader}";' == caught.value.remedy
    assert [{"a": 1}] == read(as_role(pg, reader), Stream("s.t", exclude=("b",))).to_pylist()


# -- slices, snapshots and windows ---------------------------------------------------------------------------------


def test_slices_are_exactly_the_table(pg: str) -> None:
    """Page ranges of about slice_rows rows: no row twice, none missing, holes and updates included."""
    run(
        pg,
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 50) AS v FROM generate_series(1, 20000) i",
        "DELETE FROM t WHERE id % 3 = 0",
        "UPDATE t SET v = 'y' WHERE id % 5 = 0",
        "ANALYZE t",
    )
    stream = Stream("t", slice_rows=1500)
    with opened(pg) as source:
        reading = source.open(stream, source.describe(stream), Window())
        assert 5 < len(reading.slices) < 20
        found = [[row for b in reading.read(piece) for row in b["id"].to_pylist()] for piece in reading.slices]
        assert all(found)
        run(pg, "DELETE FROM t WHERE id % 2 = 0", "INSERT INTO t VALUES (-1, 'late')")  # other transactions
        again = [[row for b in reading.read(piece) for row in b["id"].to_pylist()] for piece in reading.slices]
    assert [i for i in range(1, 20001) if i % 3] == sorted(row for piece in found for row in piece)
    assert found == again


def test_a_table_that_was_rewritten_while_opening_is_not_empty(pg: str) -> None:
    """The lock is taken before the snapshot: a rewrite that commits in between does not hide the rows."""
    run(pg, "CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 100) i")
    stream = Stream("t")
    with opened(pg) as source, psycopg.connect(pg) as other:
        schema = source.describe(stream)
        other.execute("ALTER TABLE t ADD COLUMN extra double precision DEFAULT random()")  # rewrites
        opening: list[int] = []

        def open_it() -> None:
            reading = source.open(stream, schema, Window())
            opening.append(sum(batch.num_rows for batch in reading.read(reading.slices[0])))

        thread = threading.Thread(target=open_it)
        thread.start()
        deadline = time.monotonic() + 20
        while not fetch(pg, "SELECT 1 FROM pg_locks WHERE NOT granted") and time.monotonic() < deadline:
            time.sleep(0.02)
        other.commit()
        thread.join()
    assert [100] == opening


def test_a_column_that_changed_since_the_plan_is_a_conflict(pg: str) -> None:
    """The described schema no longer holds: refused, to be planned anew."""
    run(pg, "CREATE TABLE t (id integer)")
    with opened(pg) as source:
        schema = source.describe(Stream("t"))
        run(pg, "ALTER TABLE t ALTER id TYPE bigint")
        with pytest.raises(ConflictError, match="column id"):
            source.open(Stream("t"), schema, Window())


def token(url: str, stream: Stream) -> str:
    """The snapshot token of a reading."""
    with opened(url) as source:
        reading = source.open(stream, source.describe(stream), Window())
        reading.close()
        return reading.snapshot


def test_equal_tokens_mean_equal_rows(pg: str) -> None:
    """The token stays while nothing commits, changes with a commit, and is empty where it would prove nothing."""
    run(pg, "CREATE TABLE t (id integer)", "CREATE VIEW v AS SELECT * FROM t", "CREATE UNLOGGED TABLE u (id integer)")
    before = token(pg, Stream("t"))
    assert (True, before) == (bool(before), token(pg, Stream("t")))
    run(pg, "INSERT INTO t VALUES (1)")
    assert before != token(pg, Stream("t"))
    assert ["", "", ""] == [token(pg, s) for s in (Stream("v"), Stream("u"), Stream("t", filter="id < random()"))]


@pytest.mark.parametrize("lookback", [None, timedelta(0)])
def test_cursor_windows(pg: str, lookback: timedelta | None) -> None:
    """An unchanged source gives an empty window. What is written later is read, whatever its cursor value.

    Without a look at when a row was written, a window is (after, until], and what changed at `after` is read again.
    """
    run(
        pg,
        "CREATE TABLE t (id integer, at timestamptz NOT NULL)",
        "INSERT INTO t SELECT i, '2020-01-01 00:00Z'::timestamptz + i * interval '1 microsecond' "
        "FROM generate_series(1, 5) i",
    )
    stream = Stream("t", cursor="at", lookback=lookback)
    by_writing = lookback is None

    def ids(window: Window) -> tuple[list[int], Window]:
        with opened(pg) as source:
            reading = source.open(stream, source.describe(stream), window)
            batches = [batch for piece in reading.slices for batch in reading.read(piece)]
            return sorted(n for batch in batches for n in batch["id"].to_pylist()), reading.window

    found, first = ids(Window(full=False))
    assert ([1, 2, 3, 4, 5], "2020-01-01 00:00:00.000005+00") == (found, first.until)
    start = Window(full=False, after=first.until, ties=first.ties, since=first.seen)
    assert ([], True) == ((again := ids(start))[0], again[1].empty)
    run(pg, "INSERT INTO t VALUES (6, '2020-01-01 00:00:00.000005Z')")  # a late tie
    assert ([6] if by_writing else [5, 6]) == ids(start)[0]
    run(pg, "INSERT INTO t VALUES (7, '2020-01-02')", "UPDATE t SET id = 60 WHERE id = 6")
    assert ([7, 60] if by_writing else [5, 7, 60]) == ids(start)[0]


@pytest.mark.parametrize(
    ("declared", "words"),
    [("double precision", "no exact order"), ("uuid", "no exact order"), ('text COLLATE "en-x-icu"', "collation")],
)
def test_cursors_without_an_exact_order_are_refused(pg: str, declared: str, words: str) -> None:
    """Floats, types without max(), and text ordered by a language."""
    run(pg, f"CREATE TABLE t (v {declared})")
    with opened(pg) as source, pytest.raises(SchemaError, match=words):
        source.open(Stream("t", cursor="v"), source.describe(Stream("t")), Window(full=False))


@pytest.mark.parametrize(
    ("declared", "literal"),
    [
        ('text COLLATE "C"', "it''s"),
        ("numeric", "1.50"),
        ("numeric(10,2)", "1.50"),
        ("date", "2020-01-01"),
        ("pos", "3"),
    ],
)
def test_cursors_with_an_exact_order(pg: str, declared: str, literal: str) -> None:
    """The bound goes to text and back without change."""
    run(pg, *SETUP, f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES ('{literal}')")
    window = Window(full=False)
    with opened(pg) as source:
        reading = source.open(Stream("t", cursor="v"), source.describe(Stream("t", cursor="v")), window)
        assert literal.replace("''", "'") == reading.window.until
        assert 1 == sum(batch.num_rows for batch in reading.read(reading.slices[0]))


def test_a_cursor_at_infinity_is_refused(pg: str) -> None:
    """Nothing would ever be newer, so later rows would be lost."""
    run(pg, "CREATE TABLE t (v timestamp)", "INSERT INTO t VALUES ('infinity'), ('2020-01-01')")
    stream = Stream("t", cursor="v", keep_native=True)
    with opened(pg) as source, pytest.raises(DataError, match="infinity"):
        source.open(stream, source.describe(stream), Window(full=False))


# -- the sink ------------------------------------------------------------------------------------------------------

KEY = StreamKey("pipe", "orders", Table("public", "orders"))


def test_describe_of_a_target(pg: str) -> None:
    """Native types, the columns a row cannot leave out, the primary key; None when there is no table."""
    run(
        pg,
        *SETUP,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text NOT NULL, "
        "b text NOT NULL DEFAULT '', m mood, ms mood[], n numeric(10,2))",
    )
    with writing(pg) as sink:
        assert sink.describe(Table("public", "none")) is None
        found = sink.describe(KEY.target)
    assert found is not None
    expected = {
        "id": "bigint",
        "a": "text",
        "b": "text",
        "m": '"public"."mood"',
        "ms": '"public"."mood"[]',
        "n": "numeric(10,2)",
    }
    assert (expected, frozenset({"a"})) == (dict(found.columns), found.required)
    column = Column("m", pa.string(), native="mood", kept=True, enum=("sad",))
    assert DIALECT.accepts(found.columns["m"], DIALECT.native(column, "public"))


def test_a_missing_schema_is_refused_or_made(pg: str) -> None:
    """The remedy is the statement or the option; with the option the claim creates it."""
    target = Table("new schema", "t")
    with writing(pg) as sink, pytest.raises(SchemaError, match="new schema") as caught:
        sink.describe(target)
    assert 'CREATE SCHEMA "new schema"; or set the option create_schema: true of the sink' == caught.value.remedy
    with writing(pg, create_schema=True) as sink:
        assert sink.describe(target) is None
        sink.claim(StreamKey("p", "s", target), run_id="r", holder="h").release()
        assert sink.describe(target) is None


def test_a_view_and_a_missing_privilege_are_refused(pg: str, reader: str) -> None:
    """Named, with the GRANT."""
    run(pg, "CREATE VIEW orders AS SELECT 1 AS id", "CREATE SCHEMA s", "CREATE TABLE s.t (id integer)")
    with writing(pg) as sink, pytest.raises(SchemaError, match="not a table"):
        sink.describe(KEY.target)
    with writing(as_role(pg, reader)) as sink:
        with pytest.raises(PermissionDenied) as caught:
            sink.describe(Table("s", "t"))
        assert f'GRANT USAGE, CREATE ON SCHEMA "s" TO "{reader}";' == caught.value.remedy
        run(pg, caught.value.remedy)
        with pytest.raises(PermissionDenied) as caught:
            sink.describe(Table("s", "t"))
        assert f'GRANT SELECT, INSERT, UPDATE, DELETE ON "s"."t" TO "{reader}";' == caught.value.remedy


def test_the_receipt_is_read_without_the_lock(pg: str) -> None:
    """None while there are no tables of dpone, then what the last commit stored; and no staging is left."""
    column = Column("id", pa.int64())
    with writing(pg) as sink:
        assert sink.last_receipt(StreamKey("test", "stream", Table("public", "t"))) is None
    stage(pg, (column,), [pa.record_batch([pa.array([1, 2])], ["id"])], Table("public", "t"))
    with writing(pg) as sink:
        receipt = sink.last_receipt(StreamKey("test", "stream", Table("public", "t")))
        assert receipt is not None
        assert {"inserted": 2} == receipt.rows
        assert digest((column,), [pa.record_batch([pa.array([1, 2])], ["id"])]) == sink.digest(
            Table("public", "t"), (column,)
        )
        keys = ((column,), iter([pa.record_batch([pa.array([1])], ["id"])]))
        rest = sink.digest(Table("public", "t"), (column,), without=keys)
        assert digest((column,), [pa.record_batch([pa.array([2])], ["id"])]) == rest
    assert [] == fetch(pg, "SELECT relname FROM pg_class WHERE relname ~ '^_dpone_(stage|verify)'")


def claim_soon(sink: PostgresSink, holder: str) -> PostgresClaim:
    """Claim as run-2, as soon as the lock is free."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return sink.claim(KEY, run_id="run-2", holder=holder)
        except ConflictError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_second_run_is_refused_with_the_holder_named(pg: str) -> None:
    """The lock is held by one; another is refused with its name until it is free, and other streams are free."""
    other = StreamKey("pipe", "customers", KEY.target)
    with writing(pg) as first, writing(pg) as second:
        claim = first.claim(KEY, run_id="run-1", holder="me@host:1")
        with pytest.raises(ConflictError, match=r"run run-1 \(me@host:1\)") as caught:
            second.claim(KEY, run_id="run-2", holder="you")
        assert ("DP701", True) == (caught.value.code, caught.value.retryable)
        second.claim(other, run_id="run-2", holder="you").release()
        timer = threading.Timer(0.5, claim.release)
        timer.start()
        assert ("run-1",) == claim_soon(second, holder="you").abandoned
        timer.join()


def test_a_holder_that_lost_its_connection_cannot_commit(pg: str) -> None:
    """Its lock is free at once, its load fails as SinkUnavailable, and the next run finds the load open."""
    column = Column("id", pa.int64())
    with writing(pg) as first, writing(pg) as second:
        load = first.claim(KEY, run_id="run-1", holder="zombie").begin(spec_of(KEY, (column,)))
        run(pg, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dpone'")
        pending = claim_soon(second, holder="next").pending
        assert pending is not None
        assert "0123456789abcdef" == pending.load_id
        with pytest.raises(SinkUnavailable):
            load.commit(lambda _: pytest.fail("a zombie must not get as far as its check"))


def test_a_killed_process_frees_its_lock(pg: str) -> None:
    """After kill -9 of the holder the next claim needs no lease to run out."""
    code = (
        "import sys, time\n"
        "from tests.connectors.test_postgres import KEY, PostgresSink, config\n"
        "sink = PostgresSink(config(sys.argv[1]))\n"
        "claim = sink.claim(KEY, run_id='run-1', holder='victim')\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, pg],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", ".", *sys.path])},
    ) as process:
        assert process.stdout is not None
        assert b"held\n" == process.stdout.readline()
        process.kill()
        process.wait()
    with writing(pg) as sink:
        assert ("run-1",) == claim_soon(sink, holder="next").abandoned


def test_two_first_runs_at_once_do_not_collide(pg: str) -> None:
    """Both create dpone's tables, the schema and the same enumerated type; nobody fails."""
    failures: list[BaseException] = []
    column = Column("m", pa.string(), native="public.mood", kept=True, enum=("sad", "ok"))

    def claim(name: str) -> None:
        try:
            with writing(pg, create_schema=True) as sink:
                key = StreamKey("p", name, Table("fresh", name))
                sink.claim(key, run_id="r", holder="h").begin(spec_of(key, (column,), f"{name}23456789abcde"))
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=claim, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures


def test_kept_types_that_the_sink_lacks(pg: str) -> None:
    """An enumerated type is made once and must have the same labels; others are refused by name with the cast."""
    mood = Column("m", pa.string(), native="other.mood", kept=True, enum=("b", "it's"))
    with writing(pg) as sink:
        sink.claim(KEY, run_id="r", holder="h").begin(spec_of(KEY, (mood,))).abort()
        assert [("b",), ("it's",)] == fetch(pg, "SELECT enumlabel FROM pg_enum ORDER BY enumsortorder")
    for column, words in (
        (Column("m", pa.string(), native="other.mood", kept=True, enum=("it's", "b")), "column m: .*other labels"),
        (Column("d", pa.string(), native="other.posint(3)", kept=True), r"column d: the type other.posint\(3\)"),
    ):
        with writing(pg) as sink, pytest.raises(SchemaError, match=words) as caught:
            sink.claim(KEY, run_id="r", holder="h").begin(spec_of(KEY, (column,)))
        assert f"columns: {{cast: {{{column.name}: text}}}}" in caught.value.remedy


def test_a_failed_check_publishes_nothing(pg: str) -> None:
    """The exception of the ledger rolls everything back, and the load stays open for the rerun."""
    column = Column("id", pa.int64())
    with writing(pg) as sink:
        claim = sink.claim(KEY, run_id="r", holder="h")
        spec = spec_of(KEY, (column,), steps=(Step("run", 'CREATE TABLE "public"."orders" (id bigint)'),))
        load = claim.begin(spec)
        load.stage(spec.load.slices[0], [pa.record_batch([pa.array([1])], ["id"])])

        def check(_: Results) -> Receipt:
            raise ArithmeticError

        with pytest.raises(ArithmeticError):
            load.commit(check)
        assert sink.describe(KEY.target) is None
        assert sink.last_receipt(KEY) is None
    with writing(pg) as sink:
        pending = sink.claim(KEY, run_id="r2", holder="h").pending
        assert pending is not None
        assert 1 == pending.progress[0].rows


# -- the dialect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("existing", "wanted", "accepted"),
    [
        ("bigint", "integer", True),
        ("integer", "bigint", False),
        ("numeric", "bigint", True),
        ("numeric(19,0)", "bigint", True),
        ("numeric(20,2)", "bigint", False),
        ("numeric", "numeric(10,2)", True),
        ("numeric(12,4)", "numeric(10,2)", False),
        ("numeric(10,4)", "numeric(10,2)", False),
        ("numeric(10,2)", "numeric", False),
        ("double precision", "real", False),
        ("real", "double precision", False),
        ("text", "character varying(5)", True),
        ("character varying(9)", "character varying(5)", True),
        ("character varying(4)", "character varying(5)", False),
        ("character varying", "text", True),
        ("character varying(9)", "text", False),
        ("text", "character(5)", False),
        ("timestamp without time zone", "timestamp(3) without time zone", True),
        ("timestamp(3) without time zone", "timestamp without time zone", False),
        ("timestamp with time zone", "timestamp without time zone", False),
        ("jsonb", "json", False),
        ("date", "date", True),
    ],
)
def test_existing_columns_are_accepted_only_when_nothing_is_altered(existing: str, wanted: str, accepted: bool) -> None:  # noqa: FBT001
    """A wider type of the same family is, everything else is not."""
    assert accepted == DIALECT.accepts(existing, NativeType(wanted))


@pytest.mark.parametrize(
    ("declared", "left", "right", "same"),
    [
        ("json", "'{\"a\":1}'", "'{\"a\": 1}'", False),
        ("jsonb", "'1.0'", "'1.00'", False),
        ("interval", "'24 hours'", "'1 day'", False),
        ("numeric", "1.0", "1.00", False),
        ("numeric(5,2)", "1.0", "1.00", True),
        ("double precision", "'0'", "'-0'", False),
        ("double precision", "'NaN'", "'NaN'", True),
        ("text", "'a'", "'A'", False),
        ("point", "'(1,2)'", "'(1,2)'", True),
        ("xml", "'<a/>'", "'<a/>'", True),
        ("float8[]", "'{0}'", "'{-0}'", False),
        ("integer[]", "'{1,2}'", "'[0:1]={1,2}'", False),
        ("comp", "NULL", "row(NULL,NULL)::comp", False),
        ("inet", "'1.2.3.4'", "'1.2.3.4/32'", True),
        ("boolean", "NULL", "NULL", True),
        ("boolean", "NULL", "false", False),
    ],
)
def test_the_same_value_is_told_from_an_equal_one(pg: str, declared: str, left: str, right: str, same: bool) -> None:  # noqa: FBT001
    """`same` is true exactly when two values are the same, for types without an equality too."""
    run(pg, *SETUP)
    native = "public.comp" if declared == "comp" else declared
    predicate = DIALECT.same(Column("v", pa.string(), native=native), "l", "r")
    sql = f"SELECT {predicate} FROM (SELECT {left}::{native} AS v) l, (SELECT {right}::{native} AS v) r"
    assert [(same,)] == fetch(pg, sql)


def test_names_are_quoted_or_refused() -> None:
    """A name that PostgreSQL would cut off at 63 bytes is refused."""
    assert '"a""b"' == DIALECT.quote('a"b')
    with pytest.raises(SchemaError, match="64 bytes"):
        DIALECT.quote("é" * 32)


def test_types_without_a_place_are_refused_by_name() -> None:
    """A struct has no type here; the note says what to do."""
    native = DIALECT.native(Column("v", pa.struct([("a", pa.int64())])))
    assert ("refused", True) == (native.fidelity, "cast" in native.note)


# -- configuration and connecting ----------------------------------------------------------------------------------


def test_a_url_is_decoded() -> None:
    """Percent-encoded parts, IPv6, the query; the password is no part of the identity or of repr()."""
    settings_ = PostgresConfig.from_url(
        "postgres://us%40er:p%2Fw%3A@[::1]:5433/d%20b?sslmode=require&connect_timeout=3"
    )
    found = PostgresConfig(**settings_)
    assert ("::1", 5433, "d b", "us@er", "require", 3) == (
        found.host, found.port, found.database, found.user, found.sslmode, found.connect_timeout,
    )  # fmt: skip
    assert found.password is not None
    assert "p/w:" == found.password.get_secret_value()
    assert "::1:5433/d b" == found.identity
    assert "p/w:" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:s3cret@h/d?nope=s3cret",
        "postgres://u:s3cret@h:port/d",
        "postgres://u:s3cret#x@h/d",
        "postgres://u:s3cret@h/",
        "postgres://:s3cret@h/d",
        "postgres://u:s3cret@/d",
        "postgres://u:s3cret@h/d?sslmode=a&sslmode=b",
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    """Neither the message, the remedy nor the cause holds it."""
    with pytest.raises(ConfigError) as caught:
        PostgresConfig.from_url(url)
    assert "s3cret" not in f"{caught.value.message}{caught.value.remedy}{caught.value.__cause__!r}"


def test_unknown_settings_are_refused() -> None:
    """A misspelt setting is an error."""
    with pytest.raises(ValidationError):
        PostgresConfig(host="h", database="d", user="u", passwort="x")  # type: ignore[call-arg]


def test_the_environment_of_libpq_is_not_consulted(pg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGOPTIONS and its kind change nothing that the settings do not say."""
    monkeypatch.setenv("PGOPTIONS", "-c search_path=nowhere -c statement_timeout=1")
    monkeypatch.setenv("PGHOSTADDR", "203.0.113.1")
    monkeypatch.setenv("PGAPPNAME", "someone")
    session = PostgresSession(config(pg), "source")
    wanted = (
        "SELECT current_setting('statement_timeout'), current_setting('application_name'), current_setting('TimeZone')"
    )
    assert [("0", "dpone", "UTC")] == session.rows(wanted)
    session.close()
    session.close()


def test_who_and_what_cannot_be_connected(pg: str) -> None:
    """A role, a database and a port that do not exist: auth, config, unavailable; by name, within seconds."""
    cases: list[tuple[str, type[DponeError]]] = [
        (as_role(pg, "nobody_here"), AuthError),
        (pg.rpartition("/")[0] + "/no_such_db", ConfigError),
        ("postgres://postgres:s3cret@127.0.0.1:1/db", SourceUnavailable),
    ]
    for url, kind in cases:
        with opened(url) as source, pytest.raises(kind) as caught:
            source.discover()
        assert config(url).identity in caught.value.message
        assert "s3cret" not in caught.value.message
    with writing(cases[2][0]) as sink, pytest.raises(SinkUnavailable):
        sink.describe(Table("public", "t"))


def test_a_host_that_does_not_answer_is_given_up_within_ten_seconds() -> None:
    """A server that accepts and stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        url = f"postgres://u@127.0.0.1:{silent.getsockname()[1]}/d?sslmode=disable"
        with opened(url) as source, pytest.raises(SourceUnavailable) as caught:
            source.discover()
        assert time.monotonic() - start < 10
        assert not caught.value.retryable


def test_a_session_that_changes_under_us_is_refused(pg: str) -> None:
    """What a pooler in transaction mode does: the settings and the lock would belong to somebody else."""
    session = PostgresSession(config(pg), "sink")
    session._backend += 1
    with pytest.raises(ConfigError, match="pooler"):
        session.begin()
    session.close()


def test_server_errors_have_their_category(pg: str) -> None:
    """Timeouts, constraints, syntax: each its own error, and never a value."""
    run(pg, "CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (424242)")
    session = PostgresSession(config(pg), "sink")
    session.execute("SET statement_timeout = 50")
    cases: list[tuple[str, type[DponeError]]] = [
        ("SELECT pg_sleep(5)", TimedOut),
        ("INSERT INTO public.t VALUES (424242)", DataError),
        ("SELECT * FROM public.none", SchemaError),
        ("SELECT 'x424242'::integer", DataError),
    ]
    for sql, kind in cases:
        with pytest.raises(kind) as caught:
            session.execute(sql)
        assert "424242" not in f"{caught.value.message}{caught.value.remedy}"
    session.close()


def test_the_connector_imports_no_driver() -> None:
    """`import dpone.connectors.postgres` is cheap, and every capability is declared."""
    code = "import sys, dpone.connectors.postgres; sys.exit('psycopg' in sys.modules or 'pyarrow' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert set(Capability) == set(connector.capabilities)
    assert PostgresConfig is connector.config_model()
