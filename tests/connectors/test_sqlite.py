"""The SQLite connector: every type both ways, what is refused, snapshots, cursors, locks, and writers that meet."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpone
from dpone.arrow.digest import digest
from dpone.arrow.types import type_name
from dpone.connectors.sqlite import connector
from dpone.connectors.sqlite.config import SqliteConfig
from dpone.connectors.sqlite.dialect import SqliteDialect, affinity, canonical
from dpone.connectors.sqlite.session import SqliteSession
from dpone.connectors.sqlite.sink import SqliteSink
from dpone.connectors.sqlite.source import SqliteSource
from dpone.errors import (
    ConfigError,
    ConflictError,
    DataError,
    DponeError,
    PermissionDenied,
    SchemaError,
    SinkUnavailable,
    SourceUnavailable,
    StateError,
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
    Stream,
    StreamKey,
    Table,
    Window,
)
from dpone.sql.sink import stage_table
from dpone.strategy import STRATEGIES, Publication

UTC = dt.UTC


def run_sql(path: Path, *statements: str | tuple[str, Sequence[Any]]) -> list[Any]:
    """Statements through Python's own sqlite3; the rows of the last one."""
    with closing(sqlite3.connect(path)) as connection, connection:
        found: list[Any] = []
        for statement in statements:
            sql, params = (statement, ()) if isinstance(statement, str) else statement
            found = connection.execute(sql, params).fetchall()
        return found


def source(path: Path) -> SqliteSource:
    """A source for a file."""
    return SqliteSource(SqliteConfig(path=str(path)))


def sink(path: Path) -> SqliteSink:
    """A sink for a file."""
    return SqliteSink(SqliteConfig(path=str(path)))


def read(path: Path, stream: Stream | str = "t", window: Window | None = None) -> pa.Table:
    """All rows of a stream, slice after slice."""
    stream = Stream(stream) if isinstance(stream, str) else stream
    with closing(source(path)) as opened:
        schema = opened.describe(stream)
        assert [] == [column.name for column in schema.columns if column.fidelity == "refused"]
        with closing(opened.open(stream, schema, window or Window())) as reading:
            batches = [batch for piece in reading.slices for batch in reading.read(piece)]
            sums = [reading.digest(piece) for piece in reading.slices]
    assert digest(schema.columns, batches) == sum(sums, Digest())
    fields = [pa.field(column.name, column.type) for column in schema.columns]
    return pa.Table.from_batches(batches, pa.schema(fields))


@dataclass
class Loaded:
    """How a load ended."""

    receipt: Receipt
    results: Results


def load(
    target: SqliteSink,
    columns: tuple[Column, ...],
    batches: Sequence[pa.RecordBatch],
    *,
    name: str = "t",
    write: str = "replace",
    key: tuple[str, ...] = (),
    cursor: str = "",
    load_id: str = "load-1",
    again: tuple[int, ...] = (),
) -> Loaded:
    """Claim, stage one slice per batch, publish with a digest, check the ledger, release."""
    table = Table("main", name)
    stream_key = StreamKey("p", name, table)
    claim = target.claim(stream_key, run_id="run-1", holder="the tests")
    existing = target.describe(table)
    dialect = target.dialect
    stored = dialect.stored(columns, "main")
    publication = Publication(
        dialect=dialect,
        target=table,
        stage=stage_table(table, load_id),
        columns=stored,
        exists=existing is not None,
        primary_key=key,
        cursor=cursor,
        again=again,
        digest=True,
    )
    strategy = STRATEGIES[write]
    pieces = tuple(Slice(number) for number in range(len(batches)))
    spec = LoadSpec(
        load=OpenLoad(load_id, "run-1", "intent", Window(), pieces, ""),
        key=stream_key,
        columns=columns,
        write=write,  # type: ignore[arg-type]
        primary_key=key,
        cursor=cursor,
        proof="digest",
        steps=tuple(strategy.steps(publication)),
    )
    seen: list[Results] = []

    def check(results: Results) -> Receipt:
        balance = strategy.balance(sum(batch.num_rows for batch in batches), results)
        assert [] == [str(equation) for equation in balance.equations if not equation.holds]
        if not again and balance.sink is not None:
            assert digest(columns, batches) == balance.sink
        seen.append(results)
        return Receipt(load_id, "run-1", Window(), {"final": balance.final}, "now")

    try:
        opened = claim.begin(spec)
        for piece, batch in zip(pieces, batches, strict=True):
            assert batch.num_rows == opened.stage(piece, [batch]).rows
            assert digest(columns, [batch]) == opened.digest(piece)
        receipt = opened.commit(check)
        claim.record("run-1", "succeeded", "{}")
    finally:
        claim.release()
    return Loaded(receipt, seen[0])


def columns_of(batch: pa.RecordBatch, **logical: str) -> tuple[Column, ...]:
    """The columns of a batch."""
    return tuple(
        Column(field.name, field.type, logical=logical.get(field.name, ""))  # type: ignore[arg-type]
        for field in batch.schema
    )


def utc(*parts: int) -> dt.datetime:
    """An instant."""
    return dt.datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


# Every canonical type: the values, and a few that are easy to get wrong.
CASES: tuple[tuple[str, pa.DataType, str, list[Any]], ...] = (
    ("boolean", pa.bool_(), "", [True, False]),
    ("int8", pa.int8(), "", [-128, 127]),
    ("int16", pa.int16(), "", [-32768, 32767]),
    ("int32", pa.int32(), "", [-(2**31), 2**31 - 1]),
    ("int64", pa.int64(), "", [-(2**63), 2**63 - 1, 2**53 + 1]),
    ("uint8", pa.uint8(), "", [0, 255]),
    ("uint16", pa.uint16(), "", [65535]),
    ("uint32", pa.uint32(), "", [2**32 - 1]),
    ("uint64", pa.uint64(), "", [0, 2**63 - 1]),
    ("float32", pa.float32(), "", [1.5, float("inf"), 3.4028234663852886e38, 0.10000000149011612]),
    ("float64", pa.float64(), "", [0.1, 1.0, 5e-324, 1.7976931348623157e308, float("-inf"), 2.0**60]),
    ("decimal(10,2)", pa.decimal128(10, 2), "", [Decimal("1.50"), Decimal("-0.01"), Decimal("99999999.99")]),
    ("decimal(38,0)", pa.decimal128(38, 0), "", [Decimal("9" * 38), Decimal(-1)]),
    ("decimal(38,38)", pa.decimal128(38, 38), "", [Decimal("0." + "9" * 38), Decimal("-0." + "0" * 37 + "1")]),
    ("decimal(20,20)", pa.decimal128(20, 20), "", [Decimal("1E-20"), Decimal("0E-20")]),
    ("text", pa.string(), "", ["", "NULL", "a'b\"c`d", "two\nlines", "Żółć 東京 🦆", "nul\0inside", "1.0", " x "]),
    ("json", pa.string(), "json", ['{"b": 1.10, "a": 123456789012345678901234567890}', "1", "null"]),
    ("uuid", pa.string(), "uuid", ["ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000000"]),
    ("binary", pa.binary(), "", [b"", b"\x00\xff", b"text"]),
    ("date", pa.date32(), "", [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1582, 10, 10)]),
    ("time", pa.time64("us"), "", [dt.time(0), dt.time(23, 59, 59, 999999)]),
    ("time[ns]", pa.time64("ns"), "", [86_399_999_999_999, 1]),
    ("time[ms]", pa.time32("ms"), "", [dt.time(23, 59, 59, 999000)]),
    ("time[s]", pa.time32("s"), "", [dt.time(23, 59, 59)]),
    ("timestamp", pa.timestamp("us"), "", [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)]),
    ("timestamp[ns]", pa.timestamp("ns"), "", [-1, 2**63 - 1]),
    ("timestamp[ms]", pa.timestamp("ms"), "", [dt.datetime(1969, 12, 31, 23, 59, 59, 999000)]),
    ("timestamp[s]", pa.timestamp("s"), "", [dt.datetime(2024, 2, 29)]),
    ("timestamptz", pa.timestamp("us", "UTC"), "", [utc(2024, 3, 10, 2, 30), utc(1969, 12, 31, 23, 59, 59, 999999)]),
    ("timestamptz[ns]", pa.timestamp("ns", "UTC"), "", [-1]),
)
IDS = [case[0] for case in CASES]


@pytest.mark.parametrize(("name", "type_", "logical", "values"), CASES, ids=IDS)
def test_every_type_goes_in_and_comes_back(
    tmp_path: Path, name: str, type_: pa.DataType, logical: str, values: list[Any]
) -> None:
    """What dpone writes into SQLite is read back in the same canonical type, value by value, with NULL; sliced too."""
    padded = pa.array([None, *values, None], type_)
    batch = pa.record_batch({"n": pa.array(range(len(padded))), "v": padded})
    pieces = [batch.slice(0, 2), batch.slice(2)]
    columns = (Column("n", pa.int64()), Column("v", type_, logical=logical))  # type: ignore[arg-type]
    with closing(sink(tmp_path / "b.db")) as target:
        assert "exact" == target.dialect.native(columns[1]).fidelity
        load(target, columns, pieces)
        unchanged = load(target, columns, pieces, load_id="load-2")
    assert unchanged.results["inserted"] is None
    with closing(source(tmp_path / "b.db")) as opened:
        found = opened.describe(Stream("t")).columns[1]
    assert (name, logical) == (type_name(found.type, found.logical), found.logical)
    assert type_ == found.type
    back = read(tmp_path / "b.db")
    assert pa.Table.from_batches([batch]).equals(back)


@pytest.mark.parametrize(("name", "type_", "logical", "values"), CASES, ids=IDS)
def test_sqlite_to_sqlite_keeps_the_declared_type_and_the_stored_form(
    tmp_path: Path, name: str, type_: pa.DataType, logical: str, values: list[Any]
) -> None:
    """With native types kept, the target is declared as the source, and holds the same storage class and value."""
    del name
    batch = pa.record_batch({"v": pa.array([*values, None], type_)})
    with closing(sink(tmp_path / "a.db")) as target:
        load(target, (Column("v", type_, logical=logical),), [batch])  # type: ignore[arg-type]
    copy(tmp_path / "a.db", tmp_path / "b.db")
    query = "SELECT v, typeof(v) FROM t ORDER BY rowid"
    declared = "SELECT name, type FROM pragma_table_info('t')"
    assert run_sql(tmp_path / "a.db", query) == run_sql(tmp_path / "b.db", query)
    assert run_sql(tmp_path / "a.db", declared) == run_sql(tmp_path / "b.db", declared)


def copy(origin: Path, destination: Path, name: str = "t") -> None:
    """Read with native types kept, and load."""
    stream = Stream(name, keep_native=True)
    with closing(source(origin)) as opened, closing(sink(destination)) as target:
        schema = opened.describe(stream)
        with closing(opened.open(stream, schema, Window())) as reading:
            batches = [batch for piece in reading.slices for batch in reading.read(piece)]
        load(target, schema.columns, batches, name=name)


FOREIGN = (
    ("VARCHAR(5)", ["longer than five", "1", ""]),
    ("DATETIME", ["2024-01-01 10:00:00", "2024-01-01T10:00", "never", 1700000000]),
    ("DATE", ["2024-01-01", "01.02.2024"]),
    ("BOOL", [0, 1]),
    ("UNSIGNED BIG INT", [2**63 - 1]),
    ("DOUBLE PRECISION", [0.1, 3]),
    ("NVARCHAR(100)", ["x"]),
    ("CLOB", ["x"]),
)


@pytest.mark.parametrize(("native", "values"), FOREIGN, ids=[case[0] for case in FOREIGN])
def test_foreign_declared_types_are_kept(tmp_path: Path, native: str, values: list[Any]) -> None:
    """Between SQLite files, columns that other programs declared keep their type, and each value its stored form."""
    run_sql(tmp_path / "a.db", f"CREATE TABLE t (v {native})", *[("INSERT INTO t VALUES (?)", (v,)) for v in values])
    copy(tmp_path / "a.db", tmp_path / "b.db")
    query = "SELECT v, typeof(v) FROM t ORDER BY rowid"
    assert run_sql(tmp_path / "a.db", query) == run_sql(tmp_path / "b.db", query)
    assert [(native,)] == run_sql(tmp_path / "b.db", "SELECT type FROM pragma_table_info('t')")


DECLARED = (
    ("INT", "int64", [1, None, -(2**63)], [1, None, -(2**63)]),
    ("BIGINT", "int64", ["12"], [12]),
    ("TINYINT(1)", "int64", [1], [1]),
    ("FLOAT", "float64", [1, 0.1], [1.0, 0.1]),
    ("CHARACTER(20)", "text", [5], ["5"]),
    ("BLOB", "binary", [b"a"], [b"a"]),
    ("BOOLEAN", "boolean", [0, 1, None], [False, True, None]),
    (
        "DATETIME",
        "timestamp",
        ["2024-01-01 10:00", "2024-01-01T10:00:00.5"],
        [dt.datetime(2024, 1, 1, 10), dt.datetime(2024, 1, 1, 10, 0, 0, 500000)],
    ),
    ("TIMESTAMP WITH TIME ZONE", "timestamptz", ["2024-01-01 10:00:00+02:00"], [utc(2024, 1, 1, 8)]),
    ("DATE", "date", ["2024-02-29"], [dt.date(2024, 2, 29)]),
    ("TIME", "time", ["10:30", "23:59:59.25"], [dt.time(10, 30), dt.time(23, 59, 59, 250000)]),
    (
        "DECIMAL(10,2)",
        "decimal(10,2)",
        [5, 5.25, 0.1, 1e7, -0.07],
        [Decimal("5.00"), Decimal("5.25"), Decimal("0.10"), Decimal("10000000.00"), Decimal("-0.07")],
    ),
    ("NUMERIC(38)", "decimal(38,0)", [10**18, 1e22], [Decimal(10**18), Decimal(10**22)]),
    ("JSON", "json", ['{"a": 1}', 5], ['{"a": 1}', "5"]),
    ("", "int64", [1, 2], [1, 2]),
    ("", "text", ["1"], ["1"]),
    ("NUMERIC", "float64", [0.5], [0.5]),
    ("ANY", "binary", [b"x"], [b"x"]),
)


@pytest.mark.parametrize(("native", "name", "stored", "expected"), DECLARED, ids=[f"{c[0]}-{c[1]}" for c in DECLARED])
def test_declared_types_of_other_programs(
    tmp_path: Path, native: str, name: str, stored: list[Any], expected: list[Any]
) -> None:
    """A declared type is read as the canonical type it means; without one, the values decide when they agree."""
    run_sql(tmp_path / "a.db", f"CREATE TABLE t (v {native})", *[("INSERT INTO t VALUES (?)", (v,)) for v in stored])
    with closing(source(tmp_path / "a.db")) as opened:
        [column] = opened.describe(Stream("t")).columns
    assert name == type_name(column.type, column.logical)
    assert expected == read(tmp_path / "a.db").column("v").to_pylist()


WRONG = (
    ("INTEGER", 1.5),
    ("INTEGER", "x"),
    ("INTEGER", 1e300),
    ("INTEGER", b"1"),
    ("INTEGER_8", 128),
    ("INTEGER_U32", -1),
    ("REAL", "x"),
    ("REAL_32", 0.1),
    ("REAL_32", 1e300),
    ("TEXT", b"x"),
    ("BLOB", "x"),
    ("BOOLEAN", 2),
    ("BOOLEAN", -1),
    ("BOOLEAN", "true"),
    ("DATE", "2024-02-30"),
    ("DATE", "2024-01-01 00:00:00"),
    ("DATE", 20240101),
    ("DATETIME", "01.02.2024"),
    ("DATETIME", 1700000000),
    ("DATETIME", "2024-01-01 10:00:00Z"),
    ("TIMESTAMP", "2024-01-01 10:00:00.1234567"),
    ("TIMESTAMPTZ", "2024-01-01 10:00:00"),
    ("TIME", "10"),
    ("TIME", "25:00:00"),
    ("DECIMAL(10,2)", 0.001),
    ("DECIMAL(10,2)", 10**8),
    ("DECIMAL(10,2)", "x"),
    ("DECIMAL(10,2)", float("inf")),
    ("DECIMAL_TEXT(38,10)", "9" * 29 + "." + "9" * 10),
    ("DECIMAL_TEXT(38,0)", "9" * 39),
    ("DECIMAL_TEXT(38,0)", "1" + "0" * 80),
    ("DECIMAL_TEXT(10,2)", ""),
    ("DECIMAL_TEXT(38,0)", "1e60"),
)


@pytest.mark.parametrize(("native", "value"), WRONG, ids=[f"{native}-{value!r:.12}" for native, value in WRONG])
def test_a_value_that_does_not_fit_is_an_error_that_names_the_column(
    tmp_path: Path, native: str, value: object
) -> None:
    """A value of another storage class or range is refused with the remedy; never altered, never NULL, never shown."""
    run_sql(tmp_path / "a.db", f"CREATE TABLE t (price {native})", ("INSERT INTO t VALUES (?)", (value,)))
    with pytest.raises(DataError, match="column price") as caught:
        read(tmp_path / "a.db")
    assert "columns: {cast: {price: " in caught.value.remedy
    assert caught.value.__cause__ is None
    if isinstance(value, str) and len(value) > 4:
        assert value not in caught.value.message


def test_text_that_is_not_utf8_is_refused_or_read_as_bytes(tmp_path: Path) -> None:
    """Invalid UTF-8 is never replaced: it is an error without the text, and its bytes can be asked for."""
    run_sql(tmp_path / "a.db", "CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))")
    with pytest.raises(DataError, match="column v holds text that is not UTF-8") as caught:
        read(tmp_path / "a.db")
    assert "41" not in caught.value.message
    assert [b"\xffA"] == read(tmp_path / "a.db", Stream("t", casts={"v": "binary"})).column("v").to_pylist()


def test_undeclared_columns_whose_values_disagree_are_refused_in_the_plan(tmp_path: Path) -> None:
    """Without a declared type and with values of several types, or none, the column is refused with the remedy."""
    run_sql(
        tmp_path / "a.db",
        "CREATE TABLE t (mixed, empty NUMERIC)",
        "INSERT INTO t VALUES (1, NULL), ('x', NULL), (0.5, NULL)",
    )
    with closing(source(tmp_path / "a.db")) as opened:
        found = opened.describe(Stream("t")).columns
        cast = Stream("t", casts={"mixed": "text"}, exclude=("empty",))
        assert ["refused", "refused"] == [column.fidelity for column in found]
        assert all("columns: {cast: {" in column.note for column in found)
        assert ["widened"] == [column.fidelity for column in opened.describe(cast).columns]
    assert ["1", "x", "0.5"] == read(tmp_path / "a.db", cast).column("mixed").to_pylist()


CASTS = (
    ("TEXT", "12", "int64", 12),
    ("TEXT", "0x10", "int64", None),
    ("TEXT", "1.0", "int64", None),
    ("TEXT", "0.1", "float64", 0.1),
    ("TEXT", "1e400", "float64", None),
    ("TEXT", "true", "boolean", True),
    ("TEXT", "yes", "boolean", None),
    ("TEXT", "2024-01-01T00:00:00Z", "timestamptz", utc(2024, 1, 1)),
    ("TEXT", "1.5", "decimal(4,2)", Decimal("1.50")),
    ("INTEGER", 2**53 + 1, "float64", None),
    ("INTEGER", 2**53, "float64", 2.0**53),
    ("INTEGER", 7, "decimal(4,1)", Decimal("7.0")),
    ("INTEGER", 2**63 - 1, "text", "9223372036854775807"),
    ("INTEGER", 300, "int8", None),
    ("REAL", 0.1 + 0.2, "text", "0.30000000000000004"),
    ("REAL", 1e16, "text", "1e+16"),
    ("REAL", 0.1, "decimal(10,2)", Decimal("0.10")),
    ("REAL", 0.1, "float32", None),
    ("REAL", 2.0, "int64", None),
    ("BLOB", b"x", "text", None),
)


@pytest.mark.parametrize(("native", "value", "cast", "expected"), CASTS, ids=[f"{c[0]}-{c[1]!r}-{c[2]}" for c in CASTS])
def test_casts_are_exact_or_refused(tmp_path: Path, native: str, value: object, cast: str, expected: object) -> None:
    """A cast converts a value to the same value in another type, or is an error: nothing is rounded or cut off."""
    run_sql(tmp_path / "a.db", f"CREATE TABLE t (v {native})", ("INSERT INTO t VALUES (?)", (value,)))
    stream = Stream("t", casts={"v": cast})
    if expected is None:
        with pytest.raises(DataError, match="column v"):
            read(tmp_path / "a.db", stream)
    else:
        assert [expected] == read(tmp_path / "a.db", stream).column("v").to_pylist()


NOT_STORED = (
    (pa.float64(), float("nan"), "NaN"),
    (pa.float32(), float("nan"), "NaN"),
    (pa.float64(), -0.0, "-0.0"),
    (pa.uint64(), 2**63, "9223372036854775807"),
    (pa.date32(), -719529, "year 0000"),
    (pa.timestamp("us"), 253402300800 * 10**6, "9999"),
    (pa.timestamp("s", "UTC"), -(10**12), "year 0000"),
)


@pytest.mark.parametrize(("type_", "value", "text"), NOT_STORED, ids=[f"{c[0]}-{c[1]}" for c in NOT_STORED])
def test_what_sqlite_would_alter_is_refused_at_staging(
    tmp_path: Path, type_: pa.DataType, value: object, text: str
) -> None:
    """NaN, which SQLite stores as NULL, and other values without a form of their own are errors naming the column."""
    batch = pa.record_batch({"v": pa.array([value], type_)})
    with closing(sink(tmp_path / "b.db")) as target, pytest.raises(DataError, match="column v") as caught:
        load(target, columns_of(batch), [batch])
    assert text in caught.value.message
    assert [] == run_sql(tmp_path / "b.db", "SELECT name FROM sqlite_master WHERE name = 't'")


def test_lists_become_json_and_are_proven(tmp_path: Path) -> None:
    """Lists are stored as JSON text, widened, with the same digest; lists without a digest are refused."""
    batch = pa.record_batch({"v": pa.array([['a"b', "é", None], [], None])})
    with closing(sink(tmp_path / "b.db")) as target:
        native = target.dialect.native(Column("v", pa.list_(pa.string())))
        assert ("JSON_TEXT", "widened") == (native.sql, native.fidelity)
        load(target, columns_of(batch), [batch])
        assert "refused" == target.dialect.native(Column("v", pa.list_(pa.float64()))).fidelity
        assert "refused" == target.dialect.native(Column("v", pa.struct([("a", pa.int8())]))).fidelity
    assert [('["a\\"b","é",null]',), ("[]",), (None,)] == run_sql(tmp_path / "b.db", "SELECT v FROM t")


@settings(max_examples=150)
@given(st.data())
def test_decimals_survive_as_text(data: st.DataObject) -> None:
    """Any decimal of any precision and scale is written with exactly its digits and parsed to the same value."""
    precision = data.draw(st.integers(1, 38))
    scale = data.draw(st.integers(0, precision))
    limit = 10**precision - 1
    numbers = data.draw(st.lists(st.one_of(st.none(), st.integers(-limit, limit)), min_size=1))
    values = [None if n is None else Decimal((n < 0, tuple(map(int, str(abs(n)))), -scale)) for n in numbers]
    column = Column("v", pa.decimal128(precision, scale), native="DECIMAL_TEXT(1,1)")
    array = pa.array([None, *values], column.type).slice(1)
    from dpone.connectors.sqlite.values import decode, encode

    text = encode(array, column)
    assert [None if value is None else f"{value:f}" for value in values] == text
    assert array.equals(decode(text, column))


@settings(max_examples=200)
@given(st.from_regex(r"[+-]?[0-9]{0,45}(\.[0-9]{0,45})?(e[+-]?[0-9]{1,3})?", fullmatch=True), st.integers(0, 38))
def test_parsing_decimals_never_wraps_around(text: str, scale: int) -> None:
    """Text is parsed to exactly the decimal it denotes, or refused: pyarrow alone wraps around beyond 38 digits."""
    from dpone.connectors.sqlite.values import decode

    column = Column("v", pa.decimal128(38, scale), native="DECIMAL_TEXT(38,0)")
    try:
        [found] = decode([text], column).to_pylist()
    except DataError:
        return
    assert Decimal(text) == found


@settings(max_examples=100)
@given(st.lists(st.binary(min_size=8, max_size=8), min_size=1))
def test_floats_survive_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, bits: list[bytes]) -> None:
    """Every double but NaN and -0.0 comes back with the same bits, also from a cast to text."""
    values = [struct.unpack("d", raw)[0] for raw in bits]
    values = [v for v in values if v == v and struct.pack("d", v) != struct.pack("d", -0.0)]  # noqa: PLR0124
    path = tmp_path_factory.mktemp("floats") / "a.db"
    batch = pa.record_batch({"v": pa.array(values, pa.float64())})
    with closing(sink(path)) as target:
        load(target, columns_of(batch), [batch])
    assert batch.column(0).to_pylist() == read(path).column("v").to_pylist()
    texts = read(path, Stream("t", casts={"v": "text"})).column("v").to_pylist()
    assert values == [float(text) for text in texts]


# -- describe, slices, snapshots -------------------------------------------------------------------------------


def test_describe(tmp_path: Path) -> None:
    """Keys, nullability, generated columns, views and tables without row numbers are described as they are."""
    path = tmp_path / "a.db"
    run_sql(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT, c TEXT AS (a || 'x') STORED, d INT AS (1))",
        "CREATE TABLE w (y TEXT, x TEXT, PRIMARY KEY (x, y)) WITHOUT ROWID",
        "CREATE TABLE k (id TEXT PRIMARY KEY)",
        "CREATE TABLE d (id INTEGER PRIMARY KEY DESC)",
        "CREATE VIEW v AS SELECT id, a || 'y' AS ay, count(*) OVER () AS n FROM t",
        "INSERT INTO t (id, a) VALUES (5, 'p'), (7, 'q')",
    )
    with closing(source(path)) as opened:
        schema = opened.describe(Stream("t"))
        assert (("id",), 3, sqlite3.sqlite_version) == (
            schema.primary_key,
            schema.estimated_rows,
            schema.server_version,
        )
        assert [("id", False), ("a", False), ("b", True), ("c", True), ("d", True)] == [
            (column.name, column.nullable) for column in schema.columns
        ]
        without = opened.describe(Stream("w"))
        assert (("x", "y"), [False, False]) == (without.primary_key, [column.nullable for column in without.columns])
        assert opened.describe(Stream("k")).columns[0].nullable
        assert opened.describe(Stream("d")).columns[0].nullable
        view = opened.describe(Stream("main.v"))
        assert ["int64", "text", "int64"] == [type_name(column.type) for column in view.columns]
        assert ["d", "k", "t", "v", "w"] == opened.discover()
    assert [("p", "px", 1), ("q", "qx", 1)] == [(row["a"], row["c"], row["d"]) for row in read(path).to_pylist()]
    assert [2, 2] == read(path, "v").column("n").to_pylist()


def test_missing_things_are_named_with_a_suggestion(tmp_path: Path) -> None:
    """A missing file, table, column or schema is an error before anything is read; no file is created."""
    path = tmp_path / "a.db"
    with pytest.raises(SourceUnavailable, match="does not exist"):
        source(path)
    assert not path.exists()
    with pytest.raises(ConfigError, match="missing"):
        sink(tmp_path / "missing" / "b.db")
    run_sql(path, "CREATE TABLE orders (id INT)")
    with closing(source(path)) as opened:
        with pytest.raises(SchemaError) as caught:
            opened.describe(Stream("order"))
        assert "did you mean orders?" == caught.value.remedy
        with pytest.raises(SchemaError) as caught:
            opened.describe(Stream("orders", cursor="idd"))
        assert "did you mean id?" == caught.value.remedy
        with pytest.raises(SchemaError, match="one schema"):
            opened.describe(Stream("public.orders"))
    with closing(sink(tmp_path / "b.db")) as target, pytest.raises(SchemaError, match="one schema"):
        target.describe(Table("other", "t"))


def test_a_dropped_column_is_an_error_not_its_name(tmp_path: Path) -> None:
    """A column that vanished after it was described fails: SQLite takes a missing "name" for a string literal."""
    path = tmp_path / "a.db"
    run_sql(path, "CREATE TABLE t (a TEXT, b TEXT)", "INSERT INTO t VALUES ('1', '2')")
    with closing(source(path)) as opened:
        schema = opened.describe(Stream("t"))
        run_sql(path, "ALTER TABLE t RENAME COLUMN b TO c")
        with closing(opened.open(Stream("t"), schema, Window())) as reading, pytest.raises(SchemaError, match="b"):
            list(reading.read(reading.slices[0]))


@pytest.mark.parametrize(
    "numbers",
    [range(1, 101), range(-50, 51), [*range(5), *range(10**15, 10**15 + 95)], [n**9 for n in range(60)], [], [7]],
    ids=["dense", "negative", "gap", "sparse", "empty", "one"],
)
def test_slices_are_exactly_the_table(tmp_path: Path, numbers: Sequence[int]) -> None:
    """Row number ranges cover every row once, in slices of bounded size, however the numbers are spread."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, rowid TEXT, v INT)")
        connection.executemany("INSERT INTO t VALUES (?, 'x', 1)", [(n,) for n in numbers])
    stream = Stream("t", slice_rows=10)
    with closing(source(path)) as opened:
        schema = opened.describe(stream)
        with closing(opened.open(stream, schema, Window())) as reading:
            found = [
                [row for batch in reading.read(piece) for row in batch.column(0).to_pylist()]
                for piece in reading.slices
            ]
            assert "_rowid_" in reading.query(reading.slices[0]) or len(found) == 1
    assert sorted(numbers) == [number for piece in found for number in piece]
    assert max(len(piece) for piece in found) <= 10
    assert len(found) <= len(numbers) // 10 + 12


def test_views_and_tables_without_row_numbers_are_one_slice(tmp_path: Path) -> None:
    """What cannot be cut is read whole."""
    path = tmp_path / "a.db"
    run_sql(
        path,
        "CREATE TABLE w (x INT PRIMARY KEY, rowid INT, oid INT, _rowid_ INT) WITHOUT ROWID",
        "INSERT INTO w SELECT value, 1, 1, 1 FROM json_each('[1,2,3,4,5,6,7,8,9]')",
        "CREATE VIEW v AS SELECT x FROM w",
    )
    for name in ("w", "v"):
        stream = Stream(name, slice_rows=2)
        with closing(source(path)) as opened:
            schema = opened.describe(stream)
            with closing(opened.open(stream, schema, Window())) as reading:
                assert 1 == len(reading.slices)
        assert list(range(1, 10)) == read(path, stream).column("x").to_pylist()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_reading_is_one_snapshot(tmp_path: Path, mode: str) -> None:
    """Rows committed while a reading is open are not in any of its slices, whatever the journal mode."""
    path = tmp_path / "a.db"
    run_sql(path, f"PRAGMA journal_mode={mode}", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    run_sql(path, "INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5,6]')")
    stream = Stream("t", slice_rows=2)
    with closing(source(path)) as opened:
        schema = opened.describe(stream)
        with closing(opened.open(stream, schema, Window())) as reading:
            first = [row for batch in reading.read(reading.slices[0]) for row in batch.column(0).to_pylist()]
            writer = sqlite3.connect(path, timeout=0)
            try:
                writer.execute("UPDATE t SET id = id + 100")
                writer.commit()
                assert "wal" == mode
            except sqlite3.OperationalError:
                assert "delete" == mode  # the writer is the one that waits
            finally:
                writer.close()
            rest = [
                row
                for piece in reading.slices[1:]
                for batch in reading.read(piece)
                for row in batch.column(0).to_pylist()
            ]
    assert [1, 2, 3, 4, 5, 6] == first + rest


def test_wide_rows_come_in_small_batches(tmp_path: Path) -> None:
    """Batches are bounded by bytes: after the first wide rows, fewer are fetched at a time."""
    path = tmp_path / "a.db"
    run_sql(path, "CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB)")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO t VALUES (?, zeroblob(10))", [(n,) for n in range(1000)])
        connection.executemany("INSERT INTO t VALUES (?, zeroblob(30000))", [(n,) for n in range(1000, 4000)])
    with closing(source(path)) as opened:
        schema = opened.describe(Stream("t"))
        with closing(opened.open(Stream("t"), schema, Window())) as reading:
            batches = list(reading.read(reading.slices[0]))
    assert list(range(4000)) == pa.Table.from_batches(batches).column("n").to_pylist()
    sizes = sorted(batch.nbytes for batch in batches)
    assert sizes[-1] <= 1000 * 31_000
    assert sizes[-2] <= 17 * 2**20


# -- cursors ---------------------------------------------------------------------------------------------------

CURSORS = (
    ("INTEGER", [1, 5, 5, 10], 9, 11),
    ("TEXT", ["a", "B", "é", "nul\0b"], "aa", "ñ"),
    ("DATE", ["2024-01-01", "2024-01-02"], "2023-12-31", "2024-01-03"),
    ("DATETIME", ["2024-01-01 10:00:00", "2024-01-01 10:00:00.5"], "2024-01-01 09:00:00", "2024-01-01 10:00:01"),
    ("TIMESTAMPTZ", ["2024-01-01 10:00:00.000000Z"], "2024-01-01 09:00:00.000000Z", "2024-01-02 00:00:00.000000Z"),
)


@pytest.mark.parametrize("keep", [False, True], ids=["canonical", "kept"])
@pytest.mark.parametrize(("native", "values", "below", "above"), CURSORS, ids=[case[0] for case in CURSORS])
def test_cursor_windows(
    tmp_path: Path, native: str, values: list[Any], below: object, above: object, *, keep: bool
) -> None:
    """A window takes what came after the last one and nothing else; an unchanged source has an empty window."""
    path = tmp_path / "a.db"
    insert = "INSERT INTO t VALUES (?, ?)"
    run_sql(path, f"CREATE TABLE t (n INT, at {native})", *[(insert, (n, v)) for n, v in enumerate(values)])
    stream = Stream("t", cursor="at", slice_rows=2, keep_native=keep)

    def window(last: Window | None) -> tuple[Window, list[int]]:
        start = Window(full=False) if last is None else Window(full=False, after=last.until, ties=last.ties)
        with closing(source(path)) as opened:
            schema = opened.describe(stream)
            with closing(opened.open(stream, schema, start)) as reading:
                found = [
                    n
                    for piece in reading.slices
                    for batch in reading.read(piece)
                    for n in batch.column("n").to_pylist()
                ]
                return reading.window, sorted(found)

    first, found = window(None)
    assert list(range(len(values))) == found
    second, found = window(first)
    assert second.empty
    assert [] == found
    run_sql(path, (insert, (100, above)), (insert, (101, below)))
    third, found = window(second)
    assert [100] == found
    run_sql(path, (insert, (102, above)))
    fourth, found = window(third)
    assert fourth.again is not None
    assert [100, 102] == found


@pytest.mark.parametrize(
    ("native", "casts"),
    [
        ("REAL", {}),
        ("TEXT COLLATE NOCASE", {}),
        ("DECIMAL_TEXT(10,2)", {}),
        ("BOOLEAN", {}),
        ("BLOB", {}),
        ("TIME", {}),
        ("TEXT", {"at": "int64"}),
        ("INTEGER", {"at": "timestamp"}),
    ],
)
def test_cursors_without_a_safe_order_are_refused(tmp_path: Path, native: str, casts: dict[str, str]) -> None:
    """Floats, decimals kept as text, collations and casts that change the order cannot be cursors."""
    path = tmp_path / "a.db"
    run_sql(path, f"CREATE TABLE t (at {native})")
    with closing(source(path)) as opened, pytest.raises(SchemaError) as caught:
        opened.describe(Stream("t", cursor="at", casts=casts))
    assert "DP404" == caught.value.code


@pytest.mark.parametrize(
    ("native", "values"),
    [
        ("INTEGER", [1, "x"]),
        ("DATE", ["2024-01-01", 20240102]),
        ("TEXT", ["a", b"b"]),
        ("DATETIME", ["2024-01-01 10:00:00", "2024-01-01T09:00:00"]),
        ("TIMESTAMPTZ", ["2024-01-01 10:00:00Z", "2024-01-01 11:00:00+02:00"]),
    ],
)
def test_cursor_values_that_sort_apart_are_refused(tmp_path: Path, native: str, values: list[Any]) -> None:
    """Mixed storage classes or forms of time would hide new rows behind the cursor, so they are an error at once."""
    path = tmp_path / "a.db"
    run_sql(path, f"CREATE TABLE t (at {native})", *[("INSERT INTO t VALUES (?)", (v,)) for v in values])
    stream = Stream("t", cursor="at")
    with closing(source(path)) as opened:
        schema = opened.describe(stream)
        with pytest.raises(DataError, match="cursor at"):
            opened.open(stream, schema, Window(full=False))


# -- the sink --------------------------------------------------------------------------------------------------


def test_merge(tmp_path: Path) -> None:
    """A merge updates what differs (also in case only), leaves out what is stale or collapsed, inserts the rest."""
    path = tmp_path / "b.db"
    run_sql(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, rowid TEXT COLLATE NOCASE, at TIMESTAMP)",
        "INSERT INTO t VALUES (1, 'same', '2024-01-01 00:00:00.000000'), (2, 'old', '2024-01-01 00:00:00.000000'), "
        "(3, 'newer', '2024-01-09 00:00:00.000000'), (9, 'untouched', NULL)",
    )
    day = dt.datetime(2024, 1, 2)
    made = [
        (1, "same", dt.datetime(2024, 1, 1)),
        (2, "OLD", dt.datetime(2024, 1, 1)),
        (3, "older", day),
        (4, "first", day),
        (4, "last", day),
    ]
    batch = pa.record_batch([pa.array(values) for values in zip(*made, strict=True)], names=["id", "rowid", "at"])
    with closing(sink(path)) as target:
        loaded = load(target, columns_of(batch), [batch], write="merge", key=("id",), cursor="at")
    counts = {name: loaded.results[name] for name in ("inserted", "updated", "unchanged", "stale", "collapsed")}
    assert {"inserted": 1, "updated": 1, "unchanged": 1, "stale": 1, "collapsed": 1} == counts
    assert [(1, "same"), (2, "OLD"), (3, "newer"), (4, "last"), (9, "untouched")] == run_sql(
        path, "SELECT id, rowid FROM t ORDER BY id"
    )


def test_a_merge_makes_the_key_and_the_second_run_changes_nothing(tmp_path: Path) -> None:
    """The target of a merge has its primary key; the same rows again are all unchanged; no debris stays."""
    batch = pa.record_batch({"id": pa.array([1, 2], pa.int32()), "v": pa.array([Decimal("1.50"), None])})
    columns = columns_of(batch)
    with closing(sink(tmp_path / "b.db")) as target:
        load(target, columns, [batch], write="merge", key=("id",))
        again = load(target, columns, [batch], write="merge", key=("id",), load_id="load-2")
        described = target.describe(Table("main", "T"))
    assert [2, 0, 0] == [again.results[name] for name in ("unchanged", "inserted", "updated")]
    assert described is not None
    assert ["id"] == list(described.required)
    assert {"id": "INTEGER_32", "v": "DECIMAL_TEXT(3,2)"} == dict(described.columns)
    assert [] == run_sql(tmp_path / "b.db", "SELECT name FROM sqlite_master WHERE name LIKE '%stage%'")
    assert ["b.db"] == [path.name for path in tmp_path.iterdir()]


def test_append_with_ties(tmp_path: Path) -> None:
    """Rows at the checkpoint that the target already holds are left out, as often as it holds them."""
    first = pa.record_batch({"at": pa.array([1, 2, 2]), "v": pa.array(["a", "b", "b"])})
    second = pa.record_batch({"at": pa.array([2, 2, 2, 3]), "v": pa.array(["b", "b", "B", None])})
    with closing(sink(tmp_path / "b.db")) as target:
        load(target, columns_of(first), [first], write="append", cursor="at")
        loaded = load(target, columns_of(second), [second], write="append", cursor="at", load_id="load-2", again=(0,))
    assert [2, 2] == [loaded.results[name] for name in ("unchanged", "inserted")]
    assert [(1, "a"), (2, "b"), (2, "b"), (2, "B"), (3, None)] == run_sql(tmp_path / "b.db", "SELECT * FROM t")


def test_a_null_key_is_refused_not_numbered(tmp_path: Path) -> None:
    """SQLite gives a NULL in an INTEGER PRIMARY KEY a number; dpone refuses it, for new and existing targets."""
    batch = pa.record_batch({"id": pa.array([1, None])})
    run_sql(tmp_path / "b.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    with closing(sink(tmp_path / "b.db")) as target, pytest.raises(DataError, match="column id"):
        load(target, columns_of(batch), [batch])
    with closing(sink(tmp_path / "c.db")) as target, pytest.raises(DataError, match="column id"):
        load(target, columns_of(batch), [batch], write="merge", key=("id",))


def test_a_decimal_cursor_is_refused_by_the_sink(tmp_path: Path) -> None:
    """Decimals are text in SQLite, so "9" would be later than "10": such a cursor is refused before staging."""
    batch = pa.record_batch({"id": pa.array([1]), "at": pa.array([Decimal("1.5")])})
    with closing(sink(tmp_path / "b.db")) as target, pytest.raises(SchemaError, match="cursor at") as caught:
        load(target, columns_of(batch), [batch], write="merge", key=("id",), cursor="at")
    assert "DP404" == caught.value.code


def test_describe_target(tmp_path: Path) -> None:
    """A missing file or table is no target; a view is refused; required columns refuse NULL and have no default."""
    path = tmp_path / "b.db"
    with closing(sink(path)) as target:
        key = StreamKey("p", "t", Table("main", "t"))
        assert target.describe(Table("main", "t")) is None
        assert target.last_receipt(key) is None
        assert not path.exists()
        run_sql(
            path,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT NOT NULL, b INT NOT NULL DEFAULT 1, c DECIMAL(5, 2))",
            "CREATE VIEW v AS SELECT 1",
        )
        assert target.last_receipt(key) is None
        found = target.describe(Table("main", "t"))
        assert found is not None
        assert {"id": "INTEGER", "a": "INT", "b": "INT", "c": "DECIMAL(5, 2)"} == dict(found.columns)
        assert ["a"] == list(found.required)
        with pytest.raises(SchemaError, match="not a table"):
            target.describe(Table("main", "v"))


ACCEPTS = (
    ("INT", "INTEGER", True),
    ("bigint", "INTEGER_32", True),
    ("INTEGER", "INTEGER_U64", True),
    ("INTEGER_32", "INTEGER", False),
    ("INTEGER_U8", "INTEGER_8", False),
    ("INTEGER_16", "INTEGER_U8", True),
    ("REAL", "REAL_32", True),
    ("REAL_32", "REAL", False),
    ("DOUBLE", "REAL", True),
    ("DOUBLE", "INTEGER", False),
    ("VARCHAR(3)", "TEXT", True),
    ("TEXT", "UUID_TEXT", True),
    ("TEXT", "DECIMAL_TEXT(5,2)", True),
    ("UUID_TEXT", "TEXT", False),
    ("DECIMAL_TEXT(10, 2)", "DECIMAL_TEXT(5,2)", True),
    ("DECIMAL_TEXT(10,3)", "DECIMAL_TEXT(5,2)", False),
    ("DECIMAL(10,2)", "DECIMAL_TEXT(10,2)", False),
    ("NUMERIC", "INTEGER", False),
    ("DATETIME", "TIMESTAMP", True),
    ("TIMESTAMP_NS", "TIMESTAMP", False),
    ("TEXT", "TIMESTAMP", False),
    ("JSON", "JSON_TEXT", False),
    ("BLOB", "TEXT", False),
    ("", "TEXT", True),
    ("", "REAL", True),
)


@pytest.mark.parametrize(("existing", "wanted", "expected"), ACCEPTS)
def test_existing_columns_are_accepted_when_they_hold_every_value(
    existing: str, wanted: str, *, expected: bool
) -> None:
    """Wider integers and texts are accepted; an affinity that would convert the values is not."""
    assert expected == SqliteDialect().accepts(existing, NativeType(wanted))


def test_own_types_have_the_affinity_that_leaves_them_alone() -> None:
    """Every type that dpone declares reads back as itself; SQLite agrees with the affinity computed here."""
    dialect = SqliteDialect()
    with closing(sqlite3.connect(":memory:")) as connection:
        for _, type_, logical, _ in CASES:
            native = dialect.native(Column("v", type_, logical=logical)).sql  # type: ignore[arg-type]
            found = canonical(native)
            assert found is not None
            assert (type_, logical) == (found.type, found.logical)
        for native in (
            "INTEGER_U8",
            "REAL_32",
            "DECIMAL_TEXT(1,1)",
            "UUID_TEXT",
            "BLOB",
            "",
            "TIMESTAMPTZ_MS",
            "TIME",
            "CHARINT",
            "FLOATING POINT",
            "DECIMAL(1,1)",
            "DOUBLE",
            "NVARCHAR",
            "STRING",
            "XBLOB",
        ):
            connection.execute("DROP TABLE IF EXISTS t")
            connection.execute(f"CREATE TABLE t (v {native})")
            connection.execute("INSERT INTO t VALUES ('1')")
            connection.execute("INSERT INTO t VALUES (1)")
            classes = tuple(row[0] for row in connection.execute("SELECT typeof(v) FROM t"))
            expected = {
                ("integer", "integer"): {"INTEGER", "NUMERIC"},
                ("text", "text"): {"TEXT"},
                ("text", "integer"): {"BLOB"},
                ("real", "real"): {"REAL"},
            }
            assert affinity(native) in expected[classes]


# -- locks, writers that meet, errors --------------------------------------------------------------------------


def test_one_claim_a_stream(tmp_path: Path) -> None:
    """A second claim of a stream is refused naming the holder; another stream of the same file is free."""
    key = StreamKey("p", "t", Table("main", "t"))
    with closing(sink(tmp_path / "b.db")) as one, closing(sink(tmp_path / "b.db")) as two:
        claim = one.claim(key, run_id="run-1", holder="host-a")
        with pytest.raises(ConflictError, match="run run-1 of host-a") as caught:
            two.claim(key, run_id="run-2", holder="host-b")
        assert "DP701" == caught.value.code
        two.claim(replace(key, stream="u"), run_id="run-2", holder="host-b").release()
        claim.release()
        two.claim(key, run_id="run-2", holder="host-b").release()
    assert ["b.db"] == [path.name for path in tmp_path.iterdir()]


def test_two_streams_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    """Slices of two streams of one run wait for each other, however long one takes to read; none fails."""
    rows = 400
    failures: list[BaseException] = []

    def slow(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for number in range(4):
            time.sleep(0.05)
            yield batch.slice(number * 100, 100)

    def work(name: str) -> None:
        batch = pa.record_batch({"n": pa.array(range(rows)), "v": pa.array([name] * rows)})
        table = Table("main", name)
        key = StreamKey("p", name, table)
        columns = columns_of(batch)
        try:
            with closing(sink(tmp_path / "b.db")) as target:
                claim = target.claim(key, run_id="run", holder="h")
                dialect = target.dialect
                publication = Publication(
                    dialect, table, stage_table(table, f"load{name}"), dialect.stored(columns, "main"), exists=False
                )
                spec = LoadSpec(
                    OpenLoad(f"load{name}", "run", "", Window(), (Slice(0),), ""),
                    key,
                    columns,
                    "replace",
                    steps=tuple(STRATEGIES["replace"].steps(publication)),
                )
                opened = claim.begin(spec)
                for ordinal in range(3):
                    opened.stage(Slice(ordinal), slow(batch))
                opened.commit(lambda _: Receipt(f"load{name}", "run", Window(), {}, ""))
                claim.release()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    for name in ("a", "b", "c"):
        assert [(3 * rows,)] == run_sql(tmp_path / "b.db", f"SELECT count(*) FROM {name} WHERE v = '{name}'")


_WRITE_AND_DIE = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO held VALUES (1)")
print("held", flush=True)
import time; time.sleep(float(sys.argv[2]))
os._exit(9)
"""


def test_another_process_is_waited_for(tmp_path: Path) -> None:
    """A writer of another program delays a load, and one that dies leaves nothing behind."""
    path = tmp_path / "b.db"
    run_sql(path, "CREATE TABLE held (n INT)")
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE_AND_DIE, str(path), "0.7"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "held\n" == process.stdout.readline()
    batch = pa.record_batch({"v": pa.array([1])})
    with closing(sink(path)) as target:
        load(target, columns_of(batch), [batch])
    process.communicate()
    assert [(1,)] == run_sql(path, "SELECT v FROM t")
    assert [] == run_sql(path, "SELECT * FROM held")


def test_a_busy_file_is_a_retryable_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that does not end in time is reported as a conflict that may be tried again."""
    monkeypatch.setattr("dpone.connectors.sqlite.session.BUSY_SECONDS", 0.2)
    path = tmp_path / "b.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        closing(SqliteSession(str(path), "sink")) as one,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConflictError, match="locked") as caught:
            one.begin()
        assert caught.value.retryable
        other.execute("ROLLBACK")
        one.begin()
        one.rollback()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_one_file_is_source_and_sink(tmp_path: Path, mode: str) -> None:
    """A file with a write-ahead log can be source and sink at once; without one it is refused, not waited for."""
    path = tmp_path / "a.db"
    run_sql(path, f"PRAGMA journal_mode={mode}", "CREATE TABLE t (n INTEGER)", "INSERT INTO t VALUES (1), (2)")
    with closing(source(path)) as opened, closing(sink(path)) as target:
        schema = opened.describe(Stream("t"))
        with closing(opened.open(Stream("t"), schema, Window())) as reading:
            batches = list(reading.read(reading.slices[0]))
            if mode == "delete":
                with pytest.raises(ConflictError) as caught:
                    load(target, schema.columns, batches, name="u")
                assert "PRAGMA journal_mode=WAL" in caught.value.remedy
            else:
                load(target, schema.columns, batches, name="u")
                assert [(1,), (2,)] == run_sql(path, "SELECT * FROM u")


def test_staging_survives_the_connection(tmp_path: Path) -> None:
    """A new connection finds the open load with its durable slices; a restaged slice replaces the old one."""
    path = tmp_path / "b.db"
    batch = pa.record_batch({"v": pa.array([1, 2])})
    columns = columns_of(batch)
    table = Table("main", "t")
    key = StreamKey("p", "t", table)
    publication = Publication(
        SqliteDialect(), table, stage_table(table, "L"), SqliteDialect().stored(columns, "main"), exists=False
    )
    spec = LoadSpec(
        OpenLoad("L", "r", "i", Window(), (Slice(0), Slice(1)), ""),
        key,
        columns,
        "replace",
        steps=tuple(STRATEGIES["replace"].steps(publication)),
    )
    with closing(sink(path)) as target:
        target.claim(key, run_id="r", holder="h").begin(spec).stage(Slice(0), [batch])
    with closing(sink(path)) as target:
        claim = target.claim(key, run_id="r2", holder="h")
        assert claim.pending is not None
        assert {0: 2} == {ordinal: done.rows for ordinal, done in claim.pending.progress.items()}
        opened = claim.begin(replace(spec, load=claim.pending))
        opened.stage(Slice(0), [batch])
        opened.stage(Slice(1), [batch])
        opened.commit(lambda _: Receipt("L", "r2", Window(), {}, ""))
        assert ("r",) == claim.abandoned
        claim.release()
        assert "L" == getattr(target.last_receipt(key), "load_id", None)
    assert [(4, 6)] == run_sql(path, "SELECT count(*), sum(v) FROM t")


def test_digest_without_keys(tmp_path: Path) -> None:
    """`dpone verify` digests a target without given keys, and leaves nothing behind."""
    batch = pa.record_batch({"id": pa.array([1, 2, 3]), "v": pa.array(["a", "b", None])})
    columns = columns_of(batch)
    with closing(sink(tmp_path / "b.db")) as target:
        load(target, columns, [batch])
        keys = pa.record_batch({"id": pa.array([2])})
        found = target.digest(Table("main", "t"), columns, without=((columns[0],), iter([keys])))
        assert digest(columns, [batch.take(pa.array([0, 2]))]) == found
        assert digest(columns, [batch]) == target.digest(Table("main", "t"), columns)
    assert [] == run_sql(tmp_path / "b.db", "SELECT name FROM sqlite_master WHERE name LIKE '%verify%'")


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"this is no database, but it is long enough to be looked at" * 100)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("prepare", "kind"),
    [(_not_a_database, StateError), (_folder, SinkUnavailable)],
)
def test_files_that_cannot_be_written(tmp_path: Path, prepare: Callable[[Path], None], kind: type[DponeError]) -> None:
    """Damaged, protected and impossible files have their own categories, and the message names the file."""
    path = tmp_path / "b.db"
    prepare(path)
    with pytest.raises(kind, match=r"b\.db"), closing(sink(path)) as target:
        target.claim(StreamKey("p", "t", Table("main", "t")), run_id="r", holder="h")


def test_a_source_never_writes(tmp_path: Path) -> None:
    """The connection of a source is read-only: SQLite itself refuses a write."""
    run_sql(tmp_path / "a.db", "CREATE TABLE t (v INT)")
    with closing(SqliteSession(str(tmp_path / "a.db"), "source")) as session, pytest.raises(PermissionDenied):
        session.execute("INSERT INTO t VALUES (1)")


def test_constraints_of_the_target_are_data_errors(tmp_path: Path) -> None:
    """A row that a constraint refuses rolls the publication back and names the constraint, not the value."""
    path = tmp_path / "b.db"
    run_sql(path, "CREATE TABLE t (v INTEGER UNIQUE)", "INSERT INTO t VALUES (7)")
    batch = pa.record_batch({"v": pa.array([41, 41])})
    with closing(sink(path)) as target, pytest.raises(DataError, match="UNIQUE") as caught:
        load(target, columns_of(batch), [batch])
    assert "41" not in caught.value.message
    assert [(7,)] == run_sql(path, "SELECT v FROM t")


def test_a_wrong_filter_is_a_schema_error(tmp_path: Path) -> None:
    """The filter is SQLite's SQL; one that it cannot parse is reported as such."""
    run_sql(tmp_path / "a.db", "CREATE TABLE t (v INT)", "INSERT INTO t VALUES (1), (2)")
    assert [2] == read(tmp_path / "a.db", Stream("t", filter="v > 1 OR v < 0")).column("v").to_pylist()
    with pytest.raises(SchemaError, match="nope"):
        read(tmp_path / "a.db", Stream("t", filter="nope = 1"))


def test_odd_names(tmp_path: Path) -> None:
    """Reserved words, quotes of every kind, dots, spaces and other scripts are names like others."""
    names = ["select", 'q"q', "b`b", "two words", "d.d", "[x]", "ключ"]
    quoted = ", ".join("[" + name + "] TEXT" if "]" not in name else f'"{name}" TEXT' for name in names)
    run_sql(
        tmp_path / "a.db",
        f'CREATE TABLE "odd.na""me`" ({quoted})',
        ('INSERT INTO "odd.na""me`" VALUES (?,?,?,?,?,?,?)', names),
    )
    with closing(source(tmp_path / "a.db")) as opened:
        [name] = opened.discover()
    assert '"odd.na""me`"' == name
    table = read(tmp_path / "a.db", name)
    assert [dict(zip(names, names, strict=True))] == table.to_pylist()
    with closing(sink(tmp_path / "b.db")) as target:
        batch = table.combine_chunks().to_batches()[0]
        load(target, columns_of(batch), [batch], name='odd.na"me`', write="merge", key=("d.d",))
    assert [tuple(names)] == run_sql(tmp_path / "b.db", 'SELECT * FROM "odd.na""me`"')


def test_config() -> None:
    """URLs have three slashes; hosts, settings and memory databases are refused."""
    assert {"path": "rel.db"} == SqliteConfig.from_url("sqlite:///rel.db")
    assert {"path": "/abs/a b.db"} == SqliteConfig.from_url("sqlite:////abs/a%20b.db")
    assert "/x" == SqliteConfig(path="/x").identity
    for url in ("sqlite://host/x", "sqlite:///", "sqlite:///x.db?mode=ro"):
        with pytest.raises(ConfigError):
            SqliteConfig.from_url(url)
    for path in (":memory:", "file:x.db", ""):
        with pytest.raises(ValueError, match="path"):
            SqliteConfig(path=path)
    with pytest.raises(ValueError, match="Extra"):
        SqliteConfig.model_validate({"path": "x", "mode": "ro"})


def test_the_connector_is_described_without_its_driver() -> None:
    """Every capability is declared, and importing the connector imports neither sqlite3 nor pyarrow."""
    assert set(Capability) == set(connector.capabilities)
    assert SqliteConfig is connector.config_model()
    code = "import sys, dpone.connectors.sqlite as s; print([m for m in ('sqlite3', 'pyarrow') if m in sys.modules])"
    # Coverage would import sqlite3 for its own data.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment = inherited | {"PYTHONPATH": str(Path(dpone.__path__[0]).parent)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "[]\n" == found.stdout


def test_an_old_sqlite_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite before 3.33 has no UPDATE FROM."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    with pytest.raises(ConfigError, match=r"3\.33\.0"):
        SqliteSession(str(tmp_path / "b.db"), "sink")
