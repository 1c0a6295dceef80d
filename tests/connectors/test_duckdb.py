"""The DuckDB connector: every type, odd names, errors, one file as source and sink."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import duckdb
import pytest

import dpone
from dpone.api import RunResult

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
    ("TIMESTAMP_S", ("'2024-02-29 12:00:00'",)),
    ("TIMESTAMP_MS", ("'2024-02-29 12:00:00.123'",)),
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


def test_infinity_is_refused_where_arrow_has_none(tmp_path: Path) -> None:
    """An infinite timestamp going to another system is an error that names the column, never a finite date."""
    ask(tmp_path / "a.duckdb", "CREATE TABLE t AS SELECT 'infinity'::TIMESTAMP AS ends")
    path = tmp_path / "dpone.yaml"
    document = {"version": 1, "pipeline": "p", "source": f"duckdb:///{tmp_path}/a.duckdb", "streams": {"t": {}}}
    path.write_text(json.dumps(document | {"sink": f"sqlite:///{tmp_path}/b.sqlite"}))
    failure = dpone.run(path).streams[0].failure
    assert failure is not None
    assert "data" == failure["category"]
    assert "ends" in failure["message"]


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
