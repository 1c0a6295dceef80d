"""The DuckDB connector: every type, odd names, errors, one file as source and sink."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dpone
from dpone.api import RunResult
from dpone.connectors.duckdb import nested
from dpone.connectors.duckdb.config import DuckDBConfig
from dpone.connectors.duckdb.errors import translate
from dpone.connectors.duckdb.session import DuckDBSession
from dpone.errors import DataError
from dpone.sdk import Column, Table

# (type, literals): every value must survive DuckDB to DuckDB unchanged, in a column of the same type.
CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("BOOLEAN", ("true", "false")),
    ("TINYINT", ("-128", "127")),
    ("SMALLINT", ("-32768", "32767")),
    ("INTEGER", ("-2147483648", "2147483647")),
    ("BIGINT", ("-9223372036854775808", "9223372036854775807")),
    ("HUGEINT", ("170141183460469231731687303715884105727", "-170141183460469231731687303715884105728")),
    ("UTINYINT", ("255",)),
    ("USMALLINT", ("65535",)),
    ("UINTEGER", ("4294967295",)),
    ("UBIGINT", ("18446744073709551615",)),
    ("UHUGEINT", ("340282366920938463463374607431768211455",)),
    ("FLOAT", ("1.17549435e-38", "'nan'", "'inf'", "'-inf'", "0.1")),
    ("DOUBLE", ("5e-324", "1.7976931348623157e308", "'nan'", "'-inf'", "-0.0", "0.1")),
    ("DECIMAL(4,2)", ("99.99", "-0.01", "0")),
    ("DECIMAL(3,3)", ("0.999", "-0.001")),
    ("DECIMAL(38,10)", ("1234567890123456789012345678.0123456789",)),
    ("DECIMAL(38,38)", ("0.00000000000000000000000000000000000001",)),
    ("VARCHAR", ("''", "'NULL'", "'a''b\"c'", "E'two\\nlines'", "'Żółć 東京 🦆'", "'a' || chr(0) || 'b'")),
    ("BLOB", ("''", "'\\x00\\xFF'::BLOB")),
    ("DATE", ("'0001-01-01'", "'9999-12-31'", "'infinity'", "'-infinity'", "'5000-01-01 (BC)'")),
    ("TIME", ("'00:00:00'", "'23:59:59.999999'")),
    ("TIME_NS", ("'23:59:59.123456789'",)),
    ("TIMETZ", ("'23:59:59.999999+15:59'", "'00:00:00-08'")),
    ("TIMESTAMP", ("'1969-12-31 23:59:59.999999'", "'infinity'", "'290000-01-01'")),
    ("TIMESTAMP_S", ("'2024-02-29 12:00:00'", "'infinity'", "'-infinity'")),
    ("TIMESTAMP_MS", ("'2024-02-29 12:00:00.123'", "'infinity'")),
    ("TIMESTAMP_S[]", ("['infinity', NULL, '290309-12-22 (BC) 00:00:00']",)),
    ("TIMESTAMP_NS", ("'2024-02-29 12:00:00.123456789'",)),
    ("TIMESTAMPTZ", ("'2024-03-10 02:30:00+05:30'", "'-infinity'")),
    ("TIMESTAMPTZ_NS", ("'2024-03-10 02:30:00.123456789+05:30'",)),
    ("INTERVAL", ("'1 year 2 months 3 days 04:05:06.789'", "'-1 month'")),
    ("UUID", ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'")),
    ("JSON", ('\'{"b": 1.10, "a": 123456789012345678901234567890}\'', "'null'", "'[]'")),
    ("BIT", ("'0'", "'0101010101010101010101'")),
    ("ENUM('x', 'y''z')", ("'x'", "'y''z'")),
    ("INTEGER[]", ("[]", "[1, NULL, 3]")),
    ("VARCHAR[]", ("['', NULL, 'a,b', '\"']",)),
    ("DECIMAL(6,2)[]", ("[1.10, 2.00]",)),
    ("INTEGER[][]", ("[[1], [], NULL]",)),
    ("INTEGER[3]", ("[1, NULL, 3]",)),
    ("UUID[]", ("['ffffffff-ffff-ffff-ffff-ffffffffffff', NULL]",)),
    ("JSON[]", ("['[1 , 2]', NULL, 'null', '\"NULL\"', '1.0e0']::JSON[]", "[]")),
    ("MAP(VARCHAR, STRUCT(j JSON[], b BLOB))", ("MAP{'a=b, {': {'j': ['{\"a\":  1}'], 'b': '\\x00,'::BLOB}}", "MAP{}")),
    (
        'STRUCT("a ""b" VARCHAR, d DOUBLE[2], "JSON" JSON, w TIMESTAMP, v INTERVAL)',
        ("{'a \"b': 'NULL', 'd': ['nan'::DOUBLE, '-0.0'], 'JSON': '1.10', 'w': 'infinity', 'v': '24 hours'}",),
    ),
)


def run(folder: Path, stream: str = "t", **settings: Any) -> RunResult:
    """One stream from a.duckdb to b.duckdb."""
    document = {
        "version": 1,
        "pipeline": "p",
        "source": f"duckdb:///{folder}/a.duckdb",
        "sink": f"duckdb:///{folder}/{settings.pop('sink', 'b')}.duckdb",
        "streams": {stream: settings},
    }
    path = folder / "dpone.yaml"
    path.write_text(json.dumps(document))
    return dpone.run(path)


def ask(path: Path, sql: str) -> list[Any]:
    """A query against a file, in UTC."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize(("native", "literals"), CASES, ids=[case[0] for case in CASES])
def test_types_survive(tmp_path: Path, native: str, literals: tuple[str, ...]) -> None:
    """DuckDB to DuckDB keeps the column's type and every value, with NULL, and the digest proves it."""
    source = tmp_path / "a.duckdb"
    ask(source, f"CREATE TABLE t (n INTEGER, v {native})")
    for number, literal in enumerate(literals):
        ask(source, f"INSERT INTO t VALUES ({number}, {literal})")
    ask(source, "INSERT INTO t VALUES (99, NULL)")
    result = run(tmp_path, proof="digest")
    assert result.streams[0].failure is None
    query = "SELECT n, CAST(v AS VARCHAR), typeof(v) FROM t ORDER BY n"
    assert ask(source, query) == ask(tmp_path / "b.duckdb", query)
    not_covered = native in ("INTEGER[][]", "DECIMAL(6,2)[]")
    assert ("unproven" if not_covered else "proven") == result.streams[0].proof["verdict"]
    assert run(tmp_path, proof="digest").streams[0].failure is None
    assert ask(source, query) == ask(tmp_path / "b.duckdb", query)


def moved(folder: Path, source: str, sink: str, stream: str = "t", **settings: Any) -> RunResult:
    """One stream between two of the files of a folder."""
    document = {"version": 1, "pipeline": "p", "source": source, "sink": sink, "streams": {stream: settings}}
    return dpone.run(document, store=folder / "records")


@pytest.mark.parametrize(
    ("native", "literal"),
    [
        ("TIMESTAMP", "'infinity'"),
        ("TIMESTAMPTZ_NS", "'-infinity'"),
        ("DATE[]", "[NULL, '-infinity'::DATE]"),
        ("TIMESTAMPTZ[]", "['infinity'::TIMESTAMPTZ]"),
        ("DOUBLE[][]", "[['nan'::DOUBLE]]"),
        ("STRUCT(a STRUCT(b FLOAT))", "{'a': {'b': '-inf'::FLOAT}}"),
        ("MAP(VARCHAR, DOUBLE)", "MAP{'NaN': 'inf'::DOUBLE}"),
        ("JSON", "'{\"a\": NaN}'"),
        ("JSON", "'[\"x,]\", ]'"),
    ],
)
@pytest.mark.parametrize("proof", ["digest", "counts"])
def test_what_others_do_not_have_stops_by_name(tmp_path: Path, native: str, literal: str, proof: str) -> None:
    """Infinity that Arrow lacks and what is no JSON stop the run, and the line of the remedy moves them as text."""
    (tmp_path / "b").mkdir()
    ask(tmp_path / "a.duckdb", f'CREATE TABLE t ("the ""end" {native})')
    ask(tmp_path / "a.duckdb", f"INSERT INTO t VALUES ({literal})")
    ends = f"duckdb:///{tmp_path}/a.duckdb", f"files:///{tmp_path}/b"
    failure = moved(tmp_path, *ends, proof=proof).streams[0].failure or {}
    assert ("data", "DP414") == (failure["category"], failure["code"])
    assert 'column "the ""end"' in failure["message"]
    assert r'columns: {cast: {"the \"end": text}}' in failure["remedy"]
    assert moved(tmp_path, *ends, proof=proof, columns={"cast": {'the "end': "text"}}).ok


@pytest.mark.parametrize(
    ("native", "line"),
    [
        ("STRUCT(v JSON)", {"cast": {"v": "text"}}),
        ("JSON[][]", {"cast": {"v": "text"}}),
        ("MAP(VARCHAR, STRUCT(v VARIANT))", {"cast": {"v": "text"}}),
        ("UUID[]", {"cast": {"v": "json"}}),
        ("INTEGER[3]", {"cast": {"v": "json"}}),
        ("UNION(a INTEGER, b VARCHAR)", {"cast": {"v": "json"}}),
        ("UNION(a INTEGER, b JSON)", {"exclude": ["v"]}),
    ],
)
def test_a_refused_type_names_the_line_that_works(tmp_path: Path, native: str, line: dict[str, Any]) -> None:
    """What JSON does not hold exactly is refused, as is a cast to JSON of it; the plan names what to write instead."""
    ask(tmp_path / "a.duckdb", f"CREATE TABLE t (id INTEGER, v {native})")
    ask(tmp_path / "a.duckdb", "INSERT INTO t VALUES (1, NULL)")
    ends = f"duckdb:///{tmp_path}/a.duckdb", f"sqlite:///{tmp_path}/b.sqlite"
    tries = [{}] if line.get("cast") == {"v": "json"} else [{}, {"cast": {"v": "json"}}]
    for columns in tries:
        failure = moved(tmp_path, *ends, columns=columns).streams[0].failure or {}
        assert "DP406" == failure["code"]
        assert f"columns: {json.dumps(line).replace(chr(34), '')}" in failure["message"]
    assert moved(tmp_path, *ends, columns=line).ok


def test_the_text_of_json_within_json_is_kept(tmp_path: Path) -> None:
    """A structure of JSON that is cast to text as the plan says keeps each digit, and tells NULL from null."""
    ask(tmp_path / "a.duckdb", "CREATE TABLE t AS SELECT {'v': ['12345678901234567890.1230'::JSON, 'null', NULL]} AS v")
    ends = f"duckdb:///{tmp_path}/a.duckdb", f"duckdb:///{tmp_path}/b.duckdb"
    assert moved(tmp_path, *ends, columns={"cast": {"v": "text"}}).ok
    assert [("{'v': [12345678901234567890.1230, 'null', NULL]}",)] == ask(tmp_path / "b.duckdb", "SELECT v FROM t")


@pytest.mark.parametrize(
    ("type_", "last", "first"),
    [
        (pa.date32(), 2**31 - 2, 2 - 2**31),
        (pa.time64("us"), 86_400_000_000, 0),
        (pa.timestamp("s"), 9_223_372_036_854, -9_223_372_022_400),
        (pa.timestamp("ms"), 9_223_372_036_854_775, -9_223_372_022_400_000),
        (pa.timestamp("us"), 2**63 - 2, -9_223_372_022_400_000_000),
        (pa.timestamp("us", "UTC"), 2**63 - 2, -9_223_372_022_400_000_000),
        (pa.timestamp("ns"), 2**63 - 2, 2 - 2**63),
        (pa.timestamp("ns", "UTC"), 2**63 - 2, 2 - 2**63),
    ],
    ids=str,
)
def test_what_duckdb_cannot_read_back_is_not_stored(tmp_path: Path, type_: pa.DataType, last: int, first: int) -> None:
    """The greatest and the least value are stored, in lists too; one beyond stops the run by the name of its column."""
    session = DuckDBSession(DuckDBConfig(path=str(tmp_path / "b.duckdb")), read_only=False)
    counts = pa.int32() if pa.types.is_date32(type_) else pa.int64()
    for name, kind in (("plain", type_), ("inside", pa.list_(type_))):
        columns = session.dialect.stored([Column(name, kind)], "main")
        session.execute(f"CREATE TABLE {name} ({name} {columns[0].native}, _dpone_slice BIGINT)")

        def store(*values: int | None, columns: tuple[Column, ...] = columns) -> int:
            array = pa.array(values, counts).cast(type_)
            if pa.types.is_list(columns[0].type):
                array = pa.ListArray.from_arrays([0, 0, *range(1, len(values)), len(values)], array).slice(1)
            batch = pa.RecordBatch.from_arrays([array], [columns[0].name])
            return session.ingest(Table("main", columns[0].name), columns, iter([batch]), 0)

        assert 3 == store(first, None, last)
        assert 3 == len(session.rows(f"SELECT CAST({name} AS VARCHAR) FROM {name}"))
        for value in (last + 1, first - 1):
            with pytest.raises(DataError, match=f"column {name}: DuckDB has no room") as stopped:
                store(0, value)
            assert f"columns: {{cast: {{{name}: text}}}}" in stopped.value.remedy
        assert [(3,)] == session.rows(f"SELECT count(*) FROM {name}")
    session.close()


def test_a_date_out_of_range_leaves_the_target_alone(tmp_path: Path) -> None:
    """A date from a Parquet file that means infinity to DuckDB ends the run; the line of the remedy moves the rest."""
    pq.write_table(
        pa.table({"id": [1, 2], "day": pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())}), tmp_path / "t.parquet"
    )
    ends = f"files:///{tmp_path}", f"duckdb:///{tmp_path}/b.duckdb"
    failure = moved(tmp_path, *ends, "t.parquet").streams[0].failure or {}
    assert ("data", "DP414") == (failure["category"], failure["code"])
    assert "columns: {exclude: [day]}" in failure["remedy"]
    assert [(0,)] == ask(tmp_path / "b.duckdb", "SELECT count(*) FROM duckdb_tables() WHERE table_name = 't'")
    assert moved(tmp_path, *ends, "t.parquet", columns={"exclude": ["day"]}).ok


# Pairs that DuckDB calls equal, or whose parts it does.
TWINS = (
    ("DOUBLE", "0", "'-0.0'"),
    ("FLOAT[]", "[0]", "['-0.0'::FLOAT]"),
    ("DOUBLE[1]", "[0]", "['-0.0'::DOUBLE]"),
    ("INTERVAL", "'1 day'", "'24 hours'"),
    ("INTERVAL", "'0 days'", "'1 month -30 days'"),
    ("INTERVAL[]", "['1 day'::INTERVAL]", "['24 hours'::INTERVAL]"),
    ("STRUCT(a DOUBLE)", "{'a': 0}", "{'a': '-0.0'::DOUBLE}"),
    ("STRUCT(a DOUBLE)", "{'a': NULL}", "NULL"),
    (
        'STRUCT("a b" STRUCT(c FLOAT, d INTERVAL), e VARCHAR)',
        "{'a b': {'c': 0, 'd': '1 month'}, 'e': 'x'}",
        "{'a b': {'c': '-0.0'::FLOAT, 'd': '30 days'}, 'e': 'y'}",
    ),
    ("STRUCT(a STRUCT(b FLOAT)[])", "{'a': [{'b': 0}]}", "{'a': [{'b': '-0.0'::FLOAT}]}"),
    ("MAP(VARCHAR, DOUBLE)", "MAP{'a': 0}", "MAP{'a': '-0.0'::DOUBLE}"),
)


@pytest.mark.parametrize(("native", "one", "other"), TWINS)
def test_a_merge_writes_what_is_equal_and_not_the_same(tmp_path: Path, native: str, one: str, other: str) -> None:
    """A row whose value becomes one that DuckDB calls equal is updated, once, and holds the new value."""
    source, query = tmp_path / "a.duckdb", "SELECT id, CAST(v AS VARCHAR) FROM t ORDER BY id"
    ask(source, f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {native})")
    ask(source, f"INSERT INTO t VALUES (1, {one}), (2, {other}), (3, NULL), (4, {one})")
    assert run(tmp_path, write="merge").ok
    ask(source, "UPDATE t SET id = id + 10")
    ask(source, f"INSERT INTO t VALUES (1, {other}), (2, {one}), (3, {one}), (4, {one})")
    ask(source, "DELETE FROM t WHERE id > 10")
    for updated in (3, 0):
        result = run(tmp_path, write="merge")
        assert ("", updated) == (result.streams[0].failure or "", result.streams[0].changes["updated"])
        assert ask(source, query) == ask(tmp_path / "b.duckdb", query)


def test_many_small_streams_into_one_file(tmp_path: Path) -> None:
    """Streams that open and close the file at the same moments do not get into each other's way."""
    names = [f"t{number}" for number in range(40)]
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        for name in names:
            connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY)")
            connection.execute(f"INSERT INTO {name} VALUES (1)")
    connection.close()
    document = {
        "version": 1,
        "pipeline": "p",
        "source": f"sqlite:///{tmp_path}/a.sqlite",
        "sink": f"duckdb:///{tmp_path}/b.duckdb",
        "streams": {name: {} for name in names},
    }
    for _ in range(3):
        result = dpone.run(document, store=tmp_path / "records", threads=4)
        assert [] == [stream.failure for stream in result.streams if stream.failure]


def test_opening_and_closing_at_once(tmp_path: Path) -> None:
    """A file is opened while its last connection closes, and is free when a reading was left in the middle."""
    config = DuckDBConfig(path=str(tmp_path / "a.duckdb"))
    ask(tmp_path / "a.duckdb", "CREATE TABLE t AS SELECT range AS n FROM range(200000)")
    left: list[object] = []

    def open_and_close(_: int) -> None:
        session = DuckDBSession(config, read_only=False)
        batches = session.batches("SELECT n FROM t", [Column("n", pa.int64())])
        next(batches)
        left.append(batches)
        session.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_and_close, range(200)))
    command = [sys.executable, "-c", f"import duckdb; duckdb.connect({config.path!r})"]
    assert 0 == subprocess.run(command, check=False).returncode


def test_the_names_of_nested_types() -> None:
    """Quotes, commas and brackets in the names of fields and enums are no structure."""
    native = "STRUCT(\"a, (b\"\" JSON\" ENUM('x, (', 'it''s JSON'), \"JSON\" MAP(JSON, DECIMAL(4,2)[])[3], JSON JSON)"
    assert [
        ('"a, (b"" JSON"', "ENUM('x, (', 'it''s JSON')"),
        ('"JSON"', "MAP(JSON, DECIMAL(4,2)[])[3]"),
        ('"JSON"', "JSON"),
    ] == nested.parts(native)
    assert ["ENUM", "JSON", "DECIMAL", "JSON"] == list(nested.leaves(native))
    assert native.replace("MAP(JSON", "MAP(VARCHAR").replace("JSON JSON)", "JSON VARCHAR)") == nested.without_json(
        native
    )
    assert ["UNION", "INTEGER", "TUPLE", "VARIANT"] == list(nested.leaves("UNION(a INTEGER, b TUPLE(VARIANT)[])"))


def test_odd_names(tmp_path: Path) -> None:
    """Reserved words, quotes, spaces, dots and other scripts work as table and column names."""
    source = tmp_path / "a.duckdb"
    ask(source, 'CREATE TABLE "odd.na""me" ("select" INTEGER, "two words" VARCHAR, "q""q" VARCHAR, "ключ" INTEGER)')
    ask(source, "INSERT INTO \"odd.na\"\"me\" VALUES (1, 'a', 'b', 2)")
    result = run(tmp_path, '"odd.na""me"', primary_key=["select"], write="merge", proof="digest")
    assert result.streams[0].failure is None
    assert [(1, "a", "b", 2)] == ask(tmp_path / "b.duckdb", 'SELECT * FROM "odd.na""me"')


def test_one_file_is_source_and_sink(tmp_path: Path) -> None:
    """A route from a DuckDB file to itself works: source and sink share the open file."""
    ask(tmp_path / "a.duckdb", "CREATE TABLE t AS SELECT range AS n FROM range(1000)")
    result = run(tmp_path, sink="a", target="copy", proof="digest")
    assert result.streams[0].failure is None
    assert [(1000, 499500)] == ask(tmp_path / "a.duckdb", "SELECT count(*), sum(n) FROM copy")


def test_replace_keeps_what_hangs_on_the_table(tmp_path: Path) -> None:
    """A primary key, an index and a view of an existing target are there after a replace, and still work."""
    source, sink = tmp_path / "a.duckdb", tmp_path / "b.duckdb"
    ask(source, "CREATE TABLE t AS SELECT range::INTEGER AS id, 'new' AS v FROM range(10)")
    ask(sink, "CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR)")
    ask(sink, "CREATE INDEX by_v ON t (v)")
    ask(sink, "CREATE VIEW seen AS SELECT count(*) AS n FROM t WHERE v = 'new'")
    ask(sink, "INSERT INTO t SELECT range, 'old' FROM range(5)")
    assert run(tmp_path, write="replace").ok
    assert [(10,)] == ask(sink, "SELECT n FROM seen")
    assert [("by_v",)] == ask(sink, "SELECT index_name FROM duckdb_indexes()")
    with pytest.raises(duckdb.ConstraintException):
        ask(sink, "INSERT INTO t VALUES (1, 'twice')")


def test_missing_things_are_named(tmp_path: Path) -> None:
    """A missing file, table, column or target schema is one error that names it and suggests what exists."""
    result = run(tmp_path)
    assert "does not exist" in (result.streams[0].failure or {})["message"]
    ask(tmp_path / "a.duckdb", "CREATE TABLE orders (id INTEGER, updated_at TIMESTAMP)")
    found = run(tmp_path, "order").streams[0].failure or {}
    assert ("DP401", "did you mean main.orders?") == (found["code"], found["remedy"])
    found = run(tmp_path, "orders", cursor="update_at").streams[0].failure or {}
    assert ("DP403", "did you mean updated_at?") == (found["code"], found["remedy"])
    found = run(tmp_path, "orders", target="raw.orders").streams[0].failure or {}
    assert "DP402" == found["code"]
    assert "create_schema" in found["remedy"]


def test_a_file_held_by_another_process_names_it(tmp_path: Path) -> None:
    """While another process has the sink open, a run is refused as a conflict that names the process."""
    ask(tmp_path / "a.duckdb", "CREATE TABLE t (n INTEGER)")
    script = f"""
        import duckdb
        connection = duckdb.connect({str(tmp_path / "b.duckdb")!r})
        connection.execute("CREATE TABLE x (n INTEGER)")
        print("open", flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert "open\n" == other.stdout.readline()
        result = run(tmp_path)
        other.communicate("\n")
    failure = result.streams[0].failure or {}
    assert ("conflict", "DP701") == (failure["category"], failure["code"])
    assert str(other.pid) in failure["message"]
    assert 75 == result.exit_code
    assert run(tmp_path).ok


@pytest.mark.parametrize(
    ("native", "literal", "wanted", "exact"),
    [
        ("DECIMAL(6,2)", "12.00", "int64", True),
        ("DECIMAL(6,2)", "12.50", "int64", False),
        ("VARCHAR", "'007'", "int32", True),
        ("VARCHAR", "'1.6'", "int32", False),
        ("DOUBLE", "0.25", "decimal(4,2)", True),
        ("DOUBLE", "2.5", "decimal(5,0)", False),
        ("DOUBLE", "1e-30", "decimal(38,9)", False),
        ("DOUBLE", "1.23456789e25", "decimal(38,0)", False),
        ("VARCHAR", "'0.1234567890123456789012345'", "decimal(38,20)", False),
        ("VARCHAR", "'12345678901234567890123.5'", "decimal(38,0)", False),
        ("INTEGER", "NULL", "int64", True),
    ],
)
def test_a_cast_never_rounds(tmp_path: Path, native: str, literal: str, wanted: str, exact: bool) -> None:  # noqa: FBT001
    """A value that does not fit the type of a cast stops the run by the column's name; DuckDB alone would round it."""
    ask(tmp_path / "a.duckdb", f"CREATE TABLE t (v {native})")
    ask(tmp_path / "a.duckdb", f"INSERT INTO t VALUES ({literal})")
    failure = run(tmp_path, columns={"cast": {"v": wanted}}, proof="digest").streams[0].failure
    assert exact == (failure is None), failure
    if failure is not None:
        assert ("data", True) == (failure["category"], '"v"' in failure["message"] or "'v'" in failure["message"])


def test_half_a_key_is_no_key(tmp_path: Path) -> None:
    """With a column of a composite key left out, the rest of it does not become the merge key."""
    source = tmp_path / "a.duckdb"
    ask(
        source,
        "CREATE TABLE t (o INTEGER, line INTEGER, at TIMESTAMP, PRIMARY KEY (o, line))".replace(" at ", ' "at" '),
    )
    ask(source, "INSERT INTO t SELECT n // 3, n % 3, TIMESTAMP '2024-01-01' FROM range(9) AS r(n)")
    result = run(tmp_path, columns={"exclude": ["line"]}, cursor="at", proof="digest")
    assert ("append", 9) == (result.streams[0].sink["write_mode"], result.streams[0].changes["inserted"])


def test_a_checkpoint_without_memory_is_a_lack_of_resources() -> None:
    """DuckDB calls it fatal; the remedy is the memory limit, not a report of a bug."""
    said = "FATAL Error: Transaction COMMIT succeeded, but the autocheckpoint failed: reduce the memory limit"
    error = translate("duckdb x", duckdb.FatalException(said))
    assert ("resource", True) == (error.category, "memory_limit" in error.remedy)
