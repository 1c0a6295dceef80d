"""Types on the way: nothing is lost without being allowed by name, nothing is refused without the way out."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

import dpone
from dpone.api import RunResult
from dpone.arrow.batches import conform
from dpone.arrow.digest import digest
from dpone.arrow.fidelity import LATTICE, manifest_line, of_cast, worst
from dpone.arrow.types import LOGICAL, NATIVE, arrow_schema, parse_type
from dpone.connectors.duckdb.dialect import DuckDBDialect
from dpone.connectors.files.values import canonical as parquet_column
from dpone.connectors.postgres.dialect import PostgresDialect
from dpone.engine.columns import decide_columns
from dpone.errors import DponeError, InternalError, SchemaError
from dpone.manifest.load import ManifestError, StreamConfig
from dpone.sdk import Column, Fidelity, StreamSchema, Table
from dpone.sql.dialect import every
from tests.given import Given, given

__all__ = ["given"]  # the fixture


def manifest(folder: Path, source: Any, sink: Any, stream: str = "t", **settings: Any) -> Path:
    """A manifest of one stream."""
    path = folder / "dpone.yaml"
    document = {"version": 1, "pipeline": "fidelity", "source": source, "sink": sink, "streams": {stream: settings}}
    path.write_text(json.dumps(document))
    return path


def planned(path: Path) -> dict[str, Any]:
    """The plan of the one stream, which must not be refused."""
    [preview] = dpone.plan(path).streams
    assert preview.refusal is None, preview.refusal
    return preview.as_dict()


def refusal(path: Path) -> DponeError:
    """Why the one stream is refused."""
    [preview] = dpone.plan(path).streams
    assert preview.refusal is not None
    return preview.refusal


def succeeded(result: RunResult) -> Any:
    """The record of the one stream, which must have ended well."""
    [stream] = result.streams
    assert stream.failure is None, stream.failure
    return stream


def snippets(text: str) -> list[dict[str, Any]]:
    """The settings in a remedy that are complete, as the manifest would have them; those with placeholders left out."""
    inner = r'(?:"(?:[^"\\]|\\.)*"|[^"{}\[\]])*'
    lines = re.findall(rf"columns: \{{(?:cast: \{{{inner}\}}|(?:exclude|allow_lossy): \[{inner}\])\}}", text)
    found = [yaml.safe_load(line)["columns"] for line in lines]
    return [item for item in found if item not in ({"cast": {"name": "type"}}, {"exclude": ["name"]})]


def run_sql(url: str, *statements: str) -> None:
    """Run statements in one transaction of a PostgreSQL database."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a PostgreSQL database."""
    with psycopg.connect(url) as connection:
        return connection.execute(sql.encode()).fetchall()


# -- the lattice -------------------------------------------------------------------------------------------------------


def test_the_lattice_is_an_order() -> None:
    """The worst of several is the one furthest in the order, whatever their order; of none it is exact."""
    order: tuple[Fidelity, ...] = ("exact", "widened", "lossy", "refused")
    assert order == LATTICE
    for (at, left), (place, right) in itertools.product(enumerate(order), repeat=2):
        assert order[max(at, place)] == worst(left, right)
    assert "exact" == worst()


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        (pa.int32(), "float64", "widened"),
        (pa.int64(), "float64", "lossy"),
        (pa.uint16(), "float32", "widened"),
        (pa.int32(), "float32", "lossy"),
        (pa.float32(), "float64", "widened"),
        (pa.float64(), "float32", "lossy"),
        (pa.decimal128(10, 2), "float64", "lossy"),
        (pa.decimal128(10, 2), "int64", "exact"),
        (pa.timestamp("ns"), "timestamp", "lossy"),
        (pa.timestamp("s"), "timestamp", "widened"),
        (pa.timestamp("us"), "timestamptz", "lossy"),
        (pa.date32(), "timestamp", "widened"),
        (pa.date32(), "timestamptz", "lossy"),
        (pa.timestamp("us"), "date", "lossy"),
        (pa.timestamp("us"), "timestamp", "exact"),
        (pa.float64(), "text", "widened"),
    ],
)
def test_what_a_cast_does(have: pa.DataType, want: str, expected: Fidelity) -> None:
    """Casts into a type with room for every value are widened; those that round or cut are lossy."""
    assert expected == of_cast(have, parse_type(want)[0])


@pytest.mark.parametrize(
    "name", ["at", "a b", "a: b", "no", "1", "naïve", 'with "quotes"', "a, b", "{x}", "#", "it's", "-"]
)
def test_a_line_of_the_manifest_is_yaml(name: str) -> None:
    """Whatever a column is called, the line that a remedy shows says that name."""
    line = manifest_line(cast={name: "text"}, exclude=[name], allow_lossy=[name])
    assert {"columns": {"cast": {name: "text"}, "exclude": [name], "allow_lossy": [name]}} == yaml.safe_load(line)


# -- lossy stops the plan until it is allowed --------------------------------------------------------------------------


@pytest.fixture
def nanoseconds(tmp_path: Path) -> dict[str, Any]:
    """A Parquet file with a column of nanoseconds, as the source of a manifest."""
    folder = tmp_path / "in"
    folder.mkdir()
    at = pa.array([1_700_000_000_123_456_789, -1, None], pa.timestamp("ns"))
    pq.write_table(pa.table({"id": pa.array([1, 2, 3], pa.int32()), "at": at}), folder / "t.parquet")
    return {"connector": "files", "path": str(folder)}


def test_a_loss_is_allowed_by_name(tmp_path: Path, pg: str, nanoseconds: dict[str, Any]) -> None:
    """Refused with the line to write; with that line it runs, says what was lost; the second run changes nothing."""
    found = refusal(manifest(tmp_path, nanoseconds, pg, proof="digest"))
    assert ("schema", "DP406") == (found.category, found.code)
    assert "at: " in found.message
    assert "nanoseconds" in found.message
    assert "columns: {allow_lossy: [at]}" in found.remedy
    [settings] = snippets(found.remedy)

    path = manifest(tmp_path, nanoseconds, pg, proof="digest", columns=settings)
    [_, at] = planned(path)["columns"]
    assert ("lossy", "allow_lossy") == (at["fidelity"], at["allowed_by"])
    stream = succeeded(dpone.run(path))
    [change] = stream.value_changes
    assert "at" == change["column"]
    assert "nanoseconds" in change["reason"]
    assert ("unproven", True) == (stream.proof["verdict"], "column at: " in stream.proof["reason"])
    floor = [datetime(2023, 11, 14, 22, 13, 20, 123456), datetime(1969, 12, 31, 23, 59, 59, 999999), None]
    assert floor == [at for (at,) in query(pg, "SELECT at FROM t ORDER BY id")]

    assert 3 == succeeded(dpone.run(path)).rows["final"]
    assert floor == [at for (at,) in query(pg, "SELECT at FROM t ORDER BY id")]
    path = manifest(tmp_path, nanoseconds, pg, columns=settings, write="merge", primary_key="id")
    assert 3 == succeeded(dpone.run(path)).changes["unchanged"]


def test_a_loss_leaves_the_rest_of_the_proof(tmp_path: Path, pg: str, nanoseconds: dict[str, Any]) -> None:
    """With proof: counts the load is proven as any other; a stream without a loss records none."""
    path = manifest(tmp_path, nanoseconds, pg, columns={"allow_lossy": ["at"]})
    assert "proven" == succeeded(dpone.run(path)).proof["verdict"]
    path = manifest(tmp_path, nanoseconds, pg, columns={"exclude": ["at"]}, target="other")
    assert [] == succeeded(dpone.run(path)).value_changes


@pytest.mark.parametrize(
    ("columns", "code", "words"),
    [
        ({"allow_lossy": ["att"]}, "DP403", "did you mean at?"),
        ({"allow_lossy": ["at", "id"]}, "DP406", "take id out of allow_lossy"),
    ],
)
def test_a_permission_must_mean_something(
    tmp_path: Path, pg: str, nanoseconds: dict[str, Any], columns: dict[str, Any], code: str, words: str
) -> None:
    """Allowing a column that is not there, or one that loses nothing, is refused with its place in the manifest."""
    columns = {"allow_lossy": ["at", *columns["allow_lossy"]]} if code == "DP403" else columns
    found = refusal(manifest(tmp_path, nanoseconds, pg, columns=columns))
    assert ("schema", code) == (found.category, found.code)
    assert words in found.remedy
    assert found.where.startswith(str(tmp_path / "dpone.yaml"))


@pytest.mark.parametrize("other", [{"exclude": ["at"]}, {"include": ["id"]}])
def test_a_permission_of_a_column_that_is_not_moved(tmp_path: Path, other: dict[str, Any]) -> None:
    """It contradicts exclude and include, which the manifest alone shows."""
    path = manifest(tmp_path, "csv://in/*.csv", "duckdb:///x.duckdb", columns={"allow_lossy": ["at"], **other})
    with pytest.raises(ManifestError) as caught:
        dpone.load_manifest(path)
    [problem] = caught.value.problems
    assert ("DP108", True) == (problem.code, "may be altered, but not moved" in problem.message)


def test_a_cast_allows_only_what_it_loses_itself(tmp_path: Path) -> None:
    """The loss of a cast is allowed by its own words; what the sink loses afterwards is not."""
    path = tmp_path / "in.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id, TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS at")
    source, sink = f"duckdb:///{path}", {"connector": "files", "path": str(tmp_path)}
    (tmp_path / "out").mkdir()
    written = manifest(tmp_path, source, sink, "main.t", columns={"cast": {"at": "timestamp"}})
    [_, at] = planned(written)["columns"]
    assert ("lossy", "cast") == (at["fidelity"], at["allowed_by"])
    stream = succeeded(dpone.run(written))
    assert [{"column": "at", "reason": "TIMESTAMP_NS cast to timestamp"}] == stream.value_changes
    intent = planned(written)["intent"]
    named = manifest(tmp_path, source, sink, "main.t", columns={"cast": {"at": "timestamp"}, "allow_lossy": ["at"]})
    assert "allow_lossy" == planned(named)["columns"][1]["allowed_by"]
    assert intent != planned(named)["intent"]

    # The source says that the cast is exact, and PostgreSQL still has no nanoseconds.
    column = Column("at", pa.timestamp("ns"), native="whatever")
    schema, target = StreamSchema((column,)), Table("public", "t")
    config = StreamConfig("t", casts={"at": "timestamp"})
    with pytest.raises(SchemaError) as caught:
        decide_columns(schema, None, target, config, PostgresDialect(), "replace", folds=False)
    assert "columns: {allow_lossy: [at]}" in caught.value.remedy


def test_a_cast_to_a_coarser_type_is_exact_or_stops(tmp_path: Path, pg: str, nanoseconds: dict[str, Any]) -> None:
    """Files cast exactly: in microseconds nothing is left to allow, and a value that does not fit stops the run."""
    path = manifest(tmp_path, nanoseconds, pg, columns={"cast": {"at": "timestamp"}})
    assert "exact" == planned(path)["columns"][1]["fidelity"]
    [stream] = dpone.run(path).streams
    assert stream.failure is not None
    assert ("data", True) == (stream.failure["category"], "column at" in stream.failure["message"])


# -- refused, with the way out -----------------------------------------------------------------------------------------

DUCKDB_CASES = {
    "geometry": ("GEOMETRY", "'POINT (1 2)'::GEOMETRY"),
    "variant": ("VARIANT", "{'a': 1}::VARIANT"),
    "union": ("UNION(n INTEGER, s VARCHAR)", "union_value(s := 'x')"),
    "union list": ("UNION(n INTEGER)[]", "[union_value(n := 1)]"),
    "tuple": ("", "row(1, 'x')"),
    "variant inside": ("STRUCT(v VARIANT)", "{'v': 1::VARIANT}"),
    "geometry inside": ("MAP(VARCHAR, GEOMETRY)", "MAP {'g': 'POINT (1 2)'::GEOMETRY}"),
}


@pytest.mark.parametrize("name", DUCKDB_CASES)
@pytest.mark.parametrize("column", ["v", "odd: {name}, 'x'"])
def test_duckdb_types_without_a_form_are_refused_with_the_way_out(tmp_path: Path, name: str, column: str) -> None:
    """Into Parquet and into DuckDB: the plan names the column and the type, and the line that it shows works."""
    declared, value = DUCKDB_CASES[name]
    quoted = '"' + column + '"'
    with duckdb.connect(str(tmp_path / "in.duckdb")) as connection:
        cast = f"CAST({value} AS {declared})" if declared else value
        connection.execute(f"CREATE TABLE t AS SELECT 1 AS id, {cast} AS {quoted}")
    (tmp_path / "out").mkdir()
    for sink in ({"connector": "files", "path": str(tmp_path / "out")}, f"duckdb:///{tmp_path}/out.duckdb"):
        found = refusal(manifest(tmp_path, f"duckdb:///{tmp_path}/in.duckdb", sink, "main.t"))
        assert ("schema", "DP406") == (found.category, found.code)
        assert f"{column}: {declared}" in found.message
        [settings] = snippets(found.message)
        assert [column] == list(settings["cast"])
        path = manifest(tmp_path, f"duckdb:///{tmp_path}/in.duckdb", sink, "main.t", columns=settings)
        assert "widened" == planned(path)["columns"][1]["fidelity"]
        assert 1 == succeeded(dpone.run(path)).rows["final"]


def test_other_duckdb_types_travel(tmp_path: Path) -> None:
    """Large integers, times with a zone and bit strings are their text; a field called like a type is no such type."""
    with duckdb.connect(str(tmp_path / "in.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT 12345678901234567890123456789012345678901234567890::BIGNUM AS big, "
            "'12:00:00+02'::TIMETZ AS tz, '0101'::BIT AS bits, {'VARIANT': 1} AS s"
        )
    (tmp_path / "out").mkdir()
    path = manifest(
        tmp_path, f"duckdb:///{tmp_path}/in.duckdb", {"connector": "files", "path": str(tmp_path / "out")}, "main.t"
    )
    assert ["widened"] * 4 == [column["fidelity"] for column in planned(path)["columns"]]
    succeeded(dpone.run(path))
    expected = {"big": "12345678901234567890" * 2 + "1234567890", "tz": "12:00:00+02", "bits": "0101"}
    [path] = (tmp_path / "out").rglob("*.parquet")
    [row] = pq.read_table(path).to_pylist()
    assert expected | {"s": '{"VARIANT":1}'} == row


def test_sqlite_columns_without_a_type_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """A column without a declared type whose values disagree."""
    with sqlite3.connect(tmp_path / "in.sqlite") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, `a: b`)")
        connection.execute("INSERT INTO t VALUES (1, 1), (2, 'x')")
    connection.close()
    source, sink = f"sqlite:///{tmp_path}/in.sqlite", f"duckdb:///{tmp_path}/out.duckdb"
    [settings] = snippets(refusal(manifest(tmp_path, source, sink)).message)
    assert {"cast": {"a: b": "text"}} == settings
    assert 2 == succeeded(dpone.run(manifest(tmp_path, source, sink, columns=settings))).rows["final"]


class _Point(pa.ExtensionType):  # type: ignore[misc] # pyarrow has no types
    """A type of a test's own."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "test.point")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: pa.DataType, _serialized: bytes) -> _Point:
        return cls()


def parquet_cases() -> dict[str, pa.Array]:
    """Columns that Parquet files can hold and that have no canonical form."""
    return {
        "extension": pa.ExtensionArray.from_storage(_Point(), pa.array([b"\x01\x02", None])),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
        "duration": pa.array([5, None], pa.duration("us")),
        "map": pa.array([[(1, "a")], None], pa.map_(pa.int32(), pa.string())),
        "binary inside": pa.array([{"b": b"\xff"}, None], pa.struct([("b", pa.binary())])),
    }


@pytest.mark.parametrize("name", parquet_cases())
def test_parquet_types_without_a_form_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    """An extension type can be read as what it is stored as, by saying so; the others can be left out."""
    (tmp_path / "in").mkdir()
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "v v": parquet_cases()[name]})
    pq.write_table(table, tmp_path / "in" / "t.parquet")
    source, sink = {"connector": "files", "path": str(tmp_path / "in")}, f"duckdb:///{tmp_path}/out.duckdb"
    found = refusal(manifest(tmp_path, source, sink))
    assert "v v: " in found.message
    [settings] = snippets(found.message)
    stream = succeeded(dpone.run(manifest(tmp_path, source, sink, proof="digest", columns=settings)))
    assert ("proven", 2) == (stream.proof["verdict"], stream.rows["final"])
    if name == "extension":
        with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
            assert [(b"\x01\x02",), (None,)] == connection.execute('SELECT "v v" FROM t ORDER BY id').fetchall()


@pytest.mark.parametrize(
    "type_",
    [
        pa.run_end_encoded(pa.int32(), pa.int64()),
        pa.dense_union([pa.field("a", pa.int32())]),
        pa.month_day_nano_interval(),
        pa.struct([]),
    ],
    ids=str,
)
def test_arrow_types_without_a_form_are_refused(type_: pa.DataType) -> None:
    """Types that Parquet files cannot hold today are refused all the same, should pyarrow ever read them."""
    column = parquet_column(pa.field("v", type_))
    assert "refused" == column.fidelity
    assert [{"exclude": ["v"]}] == snippets(column.note)


def test_an_extension_without_a_class_is_refused() -> None:
    """A type that is known by its name in the metadata only, as of another program."""
    field = pa.field("shape", pa.binary(), metadata={b"ARROW:extension:name": b"geoarrow.wkb"})
    column = parquet_column(field)
    assert ("refused", True) == (column.fidelity, "geoarrow.wkb" in column.note)
    assert [{"cast": {"shape": "binary"}}] == snippets(column.note)


@pytest.mark.parametrize("kind", ["sqlite", "csv", "jsonl"])
def test_sinks_refuse_with_the_way_out(tmp_path: Path, kind: str) -> None:
    """Lists that a sink has no exact form for: as text they arrive."""
    with duckdb.connect(str(tmp_path / "in.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id, [0.5::DOUBLE] AS floats")
    (tmp_path / "out").mkdir()
    sink: Any = {"connector": "files", "path": str(tmp_path / "out"), "format": kind}
    sink = f"sqlite:///{tmp_path}/out.sqlite" if kind == "sqlite" else sink
    source = f"duckdb:///{tmp_path}/in.duckdb"
    found = refusal(manifest(tmp_path, source, sink, "main.t"))
    [settings] = snippets(found.message)
    assert {"cast": {"floats": "text"}} == settings
    stream = succeeded(dpone.run(manifest(tmp_path, source, sink, "main.t", proof="digest", columns=settings)))
    assert "proven" == stream.proof["verdict"]


def test_a_type_that_duckdb_lacks_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Times in milliseconds, which SQLite declares and DuckDB has not."""
    with sqlite3.connect(tmp_path / "in.sqlite") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at TIME_MS)")
        connection.execute("INSERT INTO t VALUES (1, '12:30:00.5')")
    connection.close()
    source, sink = f"sqlite:///{tmp_path}/in.sqlite", f"duckdb:///{tmp_path}/out.duckdb"
    [settings] = snippets(refusal(manifest(tmp_path, source, sink)).message)
    assert 1 == succeeded(dpone.run(manifest(tmp_path, source, sink, columns=settings))).rows["final"]
    for type_ in (pa.struct([("a", pa.int8())]), pa.list_(pa.struct([("a", pa.int8())])), pa.duration("s")):
        for dialect in (DuckDBDialect(), PostgresDialect()):
            native = dialect.native(Column("v", type_))
            assert "refused" == native.fidelity
            [settings] = snippets(native.note)
            assert ["v"] == list(settings["cast"])


# -- PostgreSQL: types that dpone does not know ------------------------------------------------------------------------

OWN_TYPE = (  # a base type of a user: what its text leaves out, only its functions know
    "CREATE TYPE own",
    "CREATE FUNCTION own_in(cstring) RETURNS own AS 'textin' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE FUNCTION own_out(own) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = text)",
    "CREATE DOMAIN own_domain AS own",
    "CREATE DOMAIN own_list AS own[]",
)
UNKNOWN = ("own", "own[]", "own_domain", "own_domain[]", "own_list", "cube", "isbn13[]")


@pytest.mark.parametrize("declared", UNKNOWN)
def test_unknown_postgres_types_are_refused_until_they_are_cast(tmp_path: Path, pg: str, declared: str) -> None:
    """A base type of a user or an extension, also below domains and arrays, is read as text once it is cast."""
    values = {"cube": "(1, 2)", "isbn13[]": "{978-0-11-000222-4}"}
    value = values.get(declared, "{a,b}" if "[]" in declared or declared == "own_list" else "a")
    run_sql(pg, *OWN_TYPE, "CREATE EXTENSION cube", "CREATE EXTENSION isn")
    run_sql(pg, f"CREATE TABLE t (id int PRIMARY KEY, v {declared})", f"INSERT INTO t VALUES (1, '{value}'), (2, NULL)")
    sink = f"duckdb:///{tmp_path}/out.duckdb"
    found = refusal(manifest(tmp_path, pg, sink, "public.t"))
    assert ("schema", "DP406") == (found.category, found.code)
    assert f"v: public.{declared} is" in found.message
    if declared in ("cube", "isbn13[]"):
        assert f"extension {'cube' if declared == 'cube' else 'isn'}" in found.message
    [settings] = snippets(found.message)
    assert {"cast": {"v": "text"}} == settings

    path = manifest(tmp_path, pg, sink, "public.t", proof="digest", columns=settings)
    stream = succeeded(dpone.run(path))
    assert "proven" == stream.proof["verdict"]
    with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
        assert [(value,), (None,)] == connection.execute("SELECT v FROM t ORDER BY id").fetchall()
    assert 2 == succeeded(dpone.run(path)).changes["unchanged"]


def test_known_postgres_types_are_known_by_the_catalog(tmp_path: Path, pg: str) -> None:
    """Enumerated, composite and range types of a user, under whatever name, and the text types of contrib."""
    run_sql(
        pg,
        "CREATE EXTENSION hstore",
        "CREATE EXTENSION citext",
        "CREATE EXTENSION ltree",
        "CREATE TYPE cube AS ENUM ('a', 'b')",
        "CREATE TYPE isn AS (n int, t text)",
        "CREATE TYPE seg AS RANGE (SUBTYPE = float8)",
        "CREATE DOMAIN email AS citext[]",
        "CREATE TABLE t (e cube, ea cube[], c isn, r seg, h hstore, ci citext, d email, l ltree, reg regclass[])",
        "INSERT INTO t VALUES ('a', '{a}', ROW(1, 'x'), '[1,2)', 'k=>v', 'A', '{B}', 'a.b', '{pg_class}')",
    )
    path = manifest(tmp_path, pg, f"duckdb:///{tmp_path}/out.duckdb", "public.t", proof="digest")
    assert {"widened"} == {column["fidelity"] for column in planned(path)["columns"]}
    assert "proven" == succeeded(dpone.run(path)).proof["verdict"]
    with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
        [row] = connection.execute("SELECT * FROM t").fetchall()
    assert ("a", "{a}", "(1,x)", "[1,2)", '"k"=>"v"', "A", "{B}", "a.b", "{pg_class}") == row


def test_unknown_types_stay_native_between_postgres_databases(tmp_path: Path, pg: str, pg2: str) -> None:
    """The sink that has the type stores it; the one that lacks it is refused with the way out."""
    run_sql(pg, *OWN_TYPE, "CREATE EXTENSION cube", "CREATE TABLE t (id int PRIMARY KEY, o own, c cube, ol own_list)")
    run_sql(pg, "INSERT INTO t VALUES (1, 'a', '(1,2)', '{x}')")
    path = manifest(tmp_path, pg, pg2, "public.t", proof="digest")
    found = refusal(path)
    assert [{"cast": {name: "text"}} for name in ("o", "c", "ol")] == snippets(found.message)
    casts = {name: kind for item in snippets(found.message) for name, kind in item["cast"].items()}
    succeeded(dpone.run(manifest(tmp_path, pg, pg2, "public.t", columns={"cast": casts}, target="as_text")))

    run_sql(pg2, *OWN_TYPE, "CREATE EXTENSION cube")
    path = manifest(tmp_path, pg, pg2, "public.t", proof="digest")
    assert {"exact"} == {column["fidelity"] for column in planned(path)["columns"]}
    assert "proven" == succeeded(dpone.run(path)).proof["verdict"]
    types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
    assert query(pg, types) == query(pg2, types)
    assert query(pg, "SELECT id, o::text, c::text, ol::text FROM t") == query(
        pg2, "SELECT id, o::text, c::text, ol::text FROM t"
    )


def test_a_child_may_hold_what_its_parent_does_not(tmp_path: Path, pg: str) -> None:
    """NOT NULL of a table with children says nothing of their rows: they are moved, not taken for an error."""
    run_sql(
        pg,
        "CREATE TABLE t (id int NOT NULL, v int NOT NULL)",
        "CREATE TABLE child () INHERITS (t)",
        "ALTER TABLE child ALTER COLUMN v DROP NOT NULL",
        "INSERT INTO child VALUES (1, NULL)",
    )
    stream = succeeded(dpone.run(manifest(tmp_path, pg, f"duckdb:///{tmp_path}/out.duckdb", "public.t")))
    assert 1 == stream.rows["final"]


def test_files_of_one_stream_may_differ_in_what_is_required(tmp_path: Path) -> None:
    """A column that is required in the first Parquet file and optional in the second may hold NULL."""
    (tmp_path / "in" / "t").mkdir(parents=True)
    for name, values, nullable in (("a", [1, 2], False), ("b", [3, None], True)):
        schema = pa.schema([pa.field("v", pa.int32(), nullable)])
        pq.write_table(pa.table([pa.array(values, pa.int32())], schema=schema), tmp_path / f"in/t/{name}.parquet")
    source = {"connector": "files", "path": str(tmp_path / "in")}
    assert 4 == succeeded(dpone.run(manifest(tmp_path, source, f"duckdb:///{tmp_path}/out.duckdb"))).rows["final"]


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_the_native_type_travels_with_the_field() -> None:
    """Metadata of each field: the source's type, and the logical one where there is one; schemas compare without it."""
    columns = (Column("a", pa.string(), logical="uuid", native="uuid"), Column("b", pa.int32(), native="integer"))
    schema = arrow_schema((*columns, Column("c", pa.int8())))
    assert {NATIVE: b"uuid", LOGICAL: b"uuid"} == schema.field("a").metadata
    assert {NATIVE: b"integer"} == schema.field("b").metadata
    assert schema.field("c").metadata is None
    assert schema == pa.schema([("a", pa.string()), ("b", pa.int32()), ("c", pa.int8())])


def test_parquet_files_say_what_their_columns_were(tmp_path: Path, pg: str) -> None:
    """A file that dpone wrote names the types of its source, and is read back with its logical types."""
    run_sql(pg, "CREATE TABLE t (u uuid, j jsonb, n numeric(5,-2), m money, x int4range)")
    run_sql(pg, "INSERT INTO t VALUES (gen_random_uuid(), '{\"a\": 1}', 12300, 1.5, '[1,2)')")
    (tmp_path / "out").mkdir()
    sink = {"connector": "files", "path": str(tmp_path / "out")}
    path = manifest(tmp_path, pg, sink, "public.t", proof="digest")
    succeeded(dpone.run(path))
    [file] = (tmp_path / "out").rglob("*.parquet")
    found = {field.name: {**(field.metadata or {})} for field in pq.read_schema(file)}
    assert ["uuid", "jsonb", "numeric(5,-2)", "money", "int4range"] == [found[n][NATIVE].decode() for n in "ujnmx"]
    assert ["uuid", "json", None, None, None] == [
        found[name][LOGICAL].decode() if LOGICAL in found[name] else None for name in "ujnmx"
    ]
    assert 1 == succeeded(dpone.run(path)).changes["unchanged"]

    back = manifest(tmp_path, {"connector": "files", "path": str(file)}, f"duckdb:///{tmp_path}/back.duckdb", "t")
    assert ["uuid", "json", "decimal(7,0)", "text", "text"] == [column["type"] for column in planned(back)["columns"]]


# -- batches are what was described ------------------------------------------------------------------------------------

TEXTS = ["a", None, "ccc", "", None, "zz"] * 5
LISTS = [["a", None], None, [], ["b"]] * 6


def encodings() -> dict[str, tuple[pa.Array, pa.DataType]]:
    """Arrays in each form that Arrow has for a described type."""
    text, lists = pa.string(), pa.list_(pa.string())
    base = pa.array(TEXTS)
    return {
        "dictionary": (base.dictionary_encode(), text),
        "dictionary with a NULL": (
            pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2] * 5), pa.array(["x", None, ""])),
            text,
        ),
        "dictionary of large": (base.cast(pa.large_string()).dictionary_encode(), text),
        "dictionary of decimals": (pa.array([Decimal("1.50"), None] * 9).dictionary_encode(), pa.decimal128(3, 2)),
        "runs": (pc.run_end_encode(base), text),
        "runs of large": (pc.run_end_encode(base.cast(pa.large_string())), text),
        "runs of numbers": (pa.RunEndEncodedArray.from_arrays([3, 10, 20], pa.array([1, None, 3])), pa.int64()),
        "no runs": (pc.run_end_encode(pa.array([], text)), text),
        "large text": (base.cast(pa.large_string()), text),
        "text view": (base.cast(pa.string_view()), text),
        "large binary": (pa.array([b"\0", None, b""] * 7, pa.large_binary()), pa.binary()),
        "binary view": (pa.array([b"\0", None, b"x" * 20] * 7, pa.binary_view()), pa.binary()),
        "large list": (pa.array(LISTS, pa.large_list(pa.large_string())), lists),
        "list view": (pa.array(LISTS, pa.list_view(pa.string_view())), lists),
        "large list view": (pa.array(LISTS, pa.large_list_view(text)), lists),
        "list view out of order": (
            pa.ListViewArray.from_arrays(pa.array([3, 0, 1]), pa.array([1, 2, 0]), pa.array(["p", "q", "r", "s"])),
            lists,
        ),
        "list of views": (pa.array(LISTS, pa.list_(pa.string_view())), lists),
        "list of required": (pa.array([["a"]] * 9, pa.list_(pa.field("element", text, nullable=False))), lists),
    }


@pytest.mark.parametrize("name", encodings())
@pytest.mark.parametrize("offset", [0, 1, 9])
def test_every_encoding_is_unpacked(name: str, offset: int) -> None:
    """The values and NULLs stay, wherever the array begins; the array is valid, and of the described type."""
    array, type_ = encodings()[name]
    array = array.slice(offset)
    batch = pa.RecordBatch.from_arrays([array], names=["v"])
    [found] = conform([batch], (Column("v", type_),))
    found.column(0).validate(full=True)
    assert type_ == found.column(0).type
    assert array.to_pylist() == found.column(0).to_pylist()


@pytest.mark.wide  # it takes some gigabytes of memory
def test_an_encoding_that_grows_beyond_an_array_is_split() -> None:
    """A few bytes that unpack to over 2 GiB of text come out as several batches, with nothing lost."""
    size, rows = 1 << 20, 2_100
    array = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    found = [batch.num_rows for batch in conform([pa.record_batch([array], ["v"])], (Column("v", pa.string()),))]
    assert (rows, True) == (sum(found), len(found) > 1)


LIES: dict[str, tuple[pa.RecordBatch, str]] = {
    "unit": (pa.record_batch([pa.array([1], pa.timestamp("ns"))], ["v"]), "timestamp[ns]"),
    "zone": (pa.record_batch([pa.array([1], pa.timestamp("us", "UTC"))], ["v"]), "tz=UTC"),
    "wider": (pa.record_batch([pa.array([1], pa.int64())], ["v"]), "int64"),
    "text": (pa.record_batch([pa.array(["2024-01-01"])], ["v"]), "string"),
    "dictionary of another type": (pa.record_batch([pa.array(["a"]).dictionary_encode()], ["v"]), "dictionary"),
    "name": (pa.record_batch([pa.array([1], pa.timestamp("us"))], ["w"]), "column v was described and did not come"),
    "more": (
        pa.record_batch([pa.array([1], pa.timestamp("us"))] * 2, ["v", "w"]),
        "column w came and was not described",
    ),
    "twice": (
        pa.record_batch([pa.array([1], pa.timestamp("us"))] * 2, ["v", "v"]),
        "column v came and was not described",
    ),
    "none": (pa.record_batch([], schema=pa.schema([])), "column v was described and did not come"),
}


@pytest.mark.parametrize("name", LIES)
def test_batches_that_are_not_as_described_are_an_error(name: str) -> None:
    """The error names the column, what was described and what came; it is found at the first batch."""
    batch, words = LIES[name]
    with pytest.raises(InternalError) as caught:
        list(conform([batch], (Column("v", pa.timestamp("us")),)))
    assert "DP904" == caught.value.code
    assert "column " in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("described", "came"),
    [
        (pa.decimal128(10, 2), pa.array([Decimal("1.5")], pa.decimal128(9, 2))),
        (pa.decimal128(10, 2), pa.array([Decimal("1.5")], pa.decimal256(10, 2))),
        (pa.binary(), pa.array([b"ab"], pa.binary(2))),
        (pa.list_(pa.int32()), pa.array([[1, 2]], pa.list_(pa.int32(), 2))),
        (pa.list_(pa.int32()), pa.array([[1, 2]], pa.list_(pa.int64()))),
        (pa.int32(), pa.array([None], pa.null())),
        (pa.float64(), pa.array([1.5], pa.float32())),
    ],
    ids=str,
)
def test_other_sizes_are_not_cast(described: pa.DataType, came: pa.Array) -> None:
    """A fixed size, another precision or width is another type, even where every value would fit."""
    with pytest.raises(InternalError, match="column v was described as"):
        list(conform([pa.record_batch([came], ["v"])], (Column("v", described),)))


def test_the_order_of_columns_is_described_too() -> None:
    """Two columns that changed their places are not taken for each other."""
    batch = pa.record_batch([pa.array([1]), pa.array([2])], ["b", "a"])
    with pytest.raises(InternalError, match="column a was described in the place where b came"):
        list(conform([batch], (Column("a", pa.int64()), Column("b", pa.int64()))))


@pytest.mark.parametrize("encode", [pa.Array.dictionary_encode, pc.run_end_encode, lambda array: array])
def test_nulls_where_there_are_none(encode: Callable[[pa.Array], pa.Array]) -> None:
    """NULL in a column that is described as not nullable is an error in any encoding; empty batches pass."""
    column = Column("v", pa.string(), nullable=False)
    good, bad = encode(pa.array(["a", "b"])), encode(pa.array(["a", None]))
    assert 2 == sum(batch.num_rows for batch in conform([pa.record_batch([good], ["v"])], (column,)))
    assert [0] == [batch.num_rows for batch in conform([pa.record_batch([bad.slice(0, 0)], ["v"])], (column,))]
    with pytest.raises(InternalError) as caught:
        list(conform([pa.record_batch([bad], ["v"])], (column,)))
    assert ("DP904", True) == (caught.value.code, "not nullable" in caught.value.message)


def test_a_source_that_lies_commits_nothing(tmp_path: Path, given: dict[str, Given]) -> None:
    """The second batch of a slice is of another unit than described: the run fails by the name of the column."""
    column = Column("at", pa.timestamp("us"), native="moment")
    batches = [pa.record_batch([pa.array([1], pa.timestamp(unit))], ["at"]) for unit in ("us", "ms")]
    given["t"] = Given((column,), (batches,))
    path = manifest(tmp_path, {"connector": "given"}, f"duckdb:///{tmp_path}/out.duckdb")
    result = dpone.run(path)
    [stream] = result.streams
    assert stream.failure is not None
    assert ("internal", "DP904") == (stream.failure["category"], stream.failure["code"])
    assert "column at was described as timestamp" in stream.failure["message"]
    with duckdb.connect(str(tmp_path / "out.duckdb")) as connection:
        assert [] == connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 't'").fetchall()


# -- every sink takes every shape --------------------------------------------------------------------------------------

SINKS = ("postgres", "duckdb", "sqlite", "csv", "jsonl", "parquet")


def endpoint(folder: Path, kind: str, request: pytest.FixtureRequest) -> Any:
    """A sink of this kind."""
    if kind == "postgres":
        return request.getfixturevalue("pg")
    if kind in ("csv", "jsonl", "parquet"):
        (folder / "out").mkdir(exist_ok=True)
        return {"connector": "files", "path": str(folder / "out"), "format": kind}
    return f"{kind}:///{folder}/out.{kind}"


SHAPE = (
    Column("id", pa.int32(), nullable=False),
    Column("yes", pa.bool_()),
    Column("small", pa.int8()),
    Column("big", pa.uint64()),
    Column("number", pa.int64()),
    Column("amount", pa.decimal128(20, 9)),
    Column("score", pa.float64()),
    Column("single", pa.float32()),
    Column("name", pa.string()),
    Column("doc", pa.string(), logical="json"),
    Column("key", pa.string(), logical="uuid"),
    Column("raw", pa.binary()),
    Column("day", pa.date32()),
    Column("clock", pa.time64("us")),
    Column("at", pa.timestamp("us")),
    Column("zoned", pa.timestamp("us", "UTC")),
    Column("numbers", pa.list_(pa.int32())),
    Column("names", pa.list_(pa.string())),
)


def rows(count: int) -> pa.Table:
    """Rows with NULL in every seventh place, in each column at another one."""

    def value(column: int, n: int) -> Any:
        if column and (n + column) % 7 == 0:
            return None
        return [
            n,
            n % 2 == 0,
            n % 100 - 50,
            n * 10**15,
            -n * 10**15,
            Decimal(n) / 1000 - 3,
            n / 7,
            n / 8,
            ["", 'q"uote', "two\nlines", "Żółć", "\\N", " x "][n % 6] + str(n % 5),
            '{"n":' + str(n) + "}",
            f"00000000-0000-0000-0000-{n:012d}",
            bytes([n % 256, 0, 255]),
            date(1999 + n % 40, 1 + n % 12, 1 + n % 28),
            time(n % 24, n % 60, n % 60, n),
            datetime(2024, 1, 1, n % 24, 0, 0, n),
            datetime(2024, 1, 1, n % 24, 0, 0, n, tzinfo=UTC),
            [n, None] if n % 3 else [],
            [f"a{n}", None, '"', ""] if n % 3 else [],
        ][column]

    arrays = [
        pa.array([value(index, n) for n in range(count)], column.type)
        if column.name != "raw"
        else pa.array([value(index, n) for n in range(count)], pa.binary())
        for index, column in enumerate(SHAPE)
    ]
    return pa.table(arrays, names=[column.name for column in SHAPE])


def _sliced(table: pa.Table) -> list[pa.RecordBatch]:
    """Batches cut out of one, at places that are no multiples of 8, so that bits begin inside of a byte."""
    [whole] = table.combine_chunks().to_batches()
    cuts = [3, 4, 21, 64, 101, table.num_rows]
    return [whole.slice(start, end - start) for start, end in itertools.pairwise(cuts)]


def _with_empty(table: pa.Table) -> list[pa.RecordBatch]:
    [whole] = table.combine_chunks().to_batches()
    empty = whole.slice(0, 0)
    return [empty, whole.slice(0, 50), empty, empty, whole.slice(50), whole.slice(table.num_rows)]


def _encoded(table: pa.Table) -> list[pa.RecordBatch]:
    """Text as dictionaries and views, numbers in runs, lists and binary large, and all of it sliced."""
    forms: dict[str, Callable[[pa.Array], pa.Array]] = {
        "number": pc.run_end_encode,
        "amount": pc.dictionary_encode,
        "name": pc.dictionary_encode,
        "doc": lambda array: array.cast(pa.string_view()),
        "key": lambda array: array.cast(pa.large_string()),
        "raw": lambda array: array.cast(pa.binary_view()),
        "day": pc.dictionary_encode,
        "numbers": lambda array: array.cast(pa.large_list(pa.int32())),
        "names": lambda array: pa.array(array.to_pylist(), pa.list_view(pa.string_view())),
    }
    [whole] = table.combine_chunks().to_batches()
    arrays = [forms.get(name, lambda array: array)(whole.column(name)) for name in table.column_names]
    batch = pa.RecordBatch.from_arrays(arrays, names=table.column_names)
    return [batch.slice(start, 37) for start in range(5, batch.num_rows, 37)]


SHAPES: dict[str, Callable[[pa.Table], list[pa.RecordBatch]]] = {
    "sliced": _sliced,
    "empty between": _with_empty,
    "encoded": _encoded,
    "no rows": lambda table: [table.to_batches()[0].slice(0, 0)],
    "no batches": lambda _: [],
}


def fresh(batches: Sequence[pa.RecordBatch], columns: tuple[Column, ...]) -> list[pa.RecordBatch]:
    """The same rows, made anew from Python values: no offset, no encoding."""
    return [
        pa.RecordBatch.from_arrays(
            [pa.array(batch.column(column.name).to_pylist(), column.type) for column in columns],
            names=[column.name for column in columns],
        )
        for batch in batches
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SINKS)
def test_every_sink_takes_every_shape(
    tmp_path: Path, given: dict[str, Given], kind: str, shape: str, request: pytest.FixtureRequest
) -> None:
    """What the sink reads back has the digest of the same rows made anew; the second run changes nothing."""
    batches = SHAPES[shape](rows(140))
    half = len(batches) // 2
    given["t"] = Given(SHAPE, (batches[:half], batches[half:]), ("id",))
    count = sum(batch.num_rows for batch in batches)
    for write in ("replace", "merge") if kind in ("postgres", "duckdb", "sqlite") else ("replace",):
        sink = endpoint(tmp_path, kind, request)
        path = manifest(tmp_path, {"connector": "given"}, sink, write=write, proof="digest", target=f"t_{write}")
        stream = succeeded(dpone.run(path))
        assert "proven" == stream.proof["verdict"]
        assert str(digest(SHAPE, fresh(batches, SHAPE))) == stream.proof["sink"]
        assert (count, count) == (stream.rows["extracted"], stream.rows["final"])
        again = succeeded(dpone.run(path))
        assert (0, 0, 0) == tuple(again.changes[name] for name in ("inserted", "updated", "deleted"))


@pytest.mark.parametrize("kind", SINKS)
def test_a_table_of_a_key_only(
    tmp_path: Path, given: dict[str, Given], kind: str, request: pytest.FixtureRequest
) -> None:
    """There is nothing to update, only to insert."""
    columns = (Column("id", pa.int32(), nullable=False),)
    table = pa.table({"id": pa.array(range(20), pa.int32())})
    given["t"] = Given(columns, (table.slice(3).to_batches(),), ("id",))
    for write in ("replace", "merge") if kind in ("postgres", "duckdb", "sqlite") else ("replace",):
        sink = endpoint(tmp_path, kind, request)
        path = manifest(tmp_path, {"connector": "given"}, sink, write=write, proof="digest", target=f"t_{write}")
        stream = succeeded(dpone.run(path))
        assert ("proven", 17) == (stream.proof["verdict"], stream.changes["inserted"])
        assert 17 == succeeded(dpone.run(path)).changes["unchanged"]


# -- as many columns as there can be -----------------------------------------------------------------------------------


def wide(count: int) -> tuple[Column, ...]:
    """An id and small numbers, which fit into one page of PostgreSQL."""
    return (Column("id", pa.int32(), nullable=False), *(Column(f"c{n}", pa.int16()) for n in range(1, count)))


def wide_rows(columns: tuple[Column, ...], ids: Sequence[int], extra: int = 0) -> pa.RecordBatch:
    """Rows of these columns; the last column is larger by `extra`."""
    arrays = [pa.array(ids, pa.int32())]
    for index, column in enumerate(columns[1:], 1):
        more = extra if index == len(columns) - 1 else 0
        values = [None if (n + index) % 11 == 0 else (n * index) % 30_000 + more for n in ids]
        arrays.append(pa.array(values, column.type))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


@pytest.mark.parametrize(("kind", "most"), [("postgres", 1_600), ("sqlite", 2_000)])
def test_too_many_columns_are_refused(
    tmp_path: Path, given: dict[str, Given], kind: str, most: int, request: pytest.FixtureRequest
) -> None:
    """In the plan, with how many to leave out; left out, the rest is loaded. A target is not grown beyond it either."""
    columns = wide(most)
    given["t"] = Given(columns, ([wide_rows(columns, range(3))],), ("id",))
    sink = endpoint(tmp_path, kind, request)
    found = refusal(manifest(tmp_path, {"connector": "given"}, sink))
    assert ("schema", "DP406") == (found.category, found.code)
    assert f"{most:,} columns, and a load has room for {most - 2:,}" in found.message
    assert "leave 2 of them out: columns: {exclude: [name]}" in found.remedy
    path = manifest(tmp_path, {"connector": "given"}, sink, columns={"exclude": ["c1", "c2"]})
    assert 3 == succeeded(dpone.run(path)).rows["final"]

    if kind == "postgres":
        more = (columns[0], *(Column(f"n{n}", pa.int16()) for n in range(3)))
        given["n"] = Given(more, ([wide_rows(more, range(3))],), ("id",))
        left = [column.name for column in columns if column.name not in ("id", "c1", "c2")]
        settings = {"write": "merge", "target": "t", "columns": {"exclude": left}}
        found = refusal(manifest(tmp_path, {"connector": "given"}, sink, "n", **settings))
        assert "the target would have 1,601 columns" in found.message


WIDEST = [
    ("postgres", 1_598),
    ("sqlite", 1_998),
    ("duckdb", 1_700),
    ("csv", 1_700),
    ("jsonl", 1_700),
    ("parquet", 1_700),
]


@pytest.mark.parametrize(("kind", "count"), WIDEST)
def test_the_widest_table_is_loaded(
    tmp_path: Path, given: dict[str, Given], kind: str, count: int, request: pytest.FixtureRequest
) -> None:
    """Digest, merge, a change in the last column, and a second run, with as many columns as there can be."""
    columns = wide(count)
    sink = endpoint(tmp_path, kind, request)
    merge = kind in ("postgres", "duckdb", "sqlite")
    settings: dict[str, Any] = {"write": "merge" if merge else "replace", "proof": "digest"}
    path = manifest(tmp_path, {"connector": "given"}, sink, **settings)
    given["t"] = Given(columns, ([wide_rows(columns, range(12))],), ("id",))
    stream = succeeded(dpone.run(path))
    assert ("proven", 12) == (stream.proof["verdict"], stream.changes["inserted"])
    assert 12 == succeeded(dpone.run(path)).changes["unchanged"]
    if merge:
        given["t"] = Given(columns, ([wide_rows(columns, range(5, 15), extra=1)],), ("id",))
        changed = succeeded(dpone.run(path))
        assert "proven" == changed.proof["verdict"]
        assert (3, 7) == (changed.changes["inserted"], changed.changes["updated"] + changed.changes["unchanged"])
        assert changed.changes["updated"] >= 6


def test_the_widest_table_between_postgres_databases(tmp_path: Path, pg: str, pg2: str) -> None:
    """1,598 columns that keep their types: read, digested by both servers, merged, and read again with ties."""
    names = ", ".join(f"c{n} smallint" for n in range(1, 1_598))
    run_sql(pg, f"CREATE TABLE t (id int PRIMARY KEY, {names})", "INSERT INTO t (id, c1, c1597) VALUES (1, 2, 3)")
    run_sql(pg, "INSERT INTO t (id) SELECT generate_series(2, 20)")
    for write in ("merge", "append"):
        settings = {"write": write, "proof": "digest", "target": write, "cursor": "id"}
        path = manifest(tmp_path, pg, pg2, "public.t", **settings)
        stream = succeeded(dpone.run(path))
        assert ("proven", 20) == (stream.proof["verdict"], stream.changes["inserted"])
        run_sql(pg, "UPDATE t SET c1597 = coalesce(c1597, 0) + 1 WHERE id = 20")
        again = succeeded(dpone.run(path))
        new = 0 if write == "append" else 1  # an append tells versions of a row by key and cursor
        assert ("proven", new) == (again.proof["verdict"], again.changes["inserted"] + again.changes["updated"])
        assert 1 - new == again.changes["unchanged"]
        assert 0 == succeeded(dpone.run(path)).rows["extracted"]


def test_conditions_are_a_shallow_tree() -> None:
    """Few conditions are one chain, none is true, and many are groups of groups that hold each of them once."""
    assert "1 = 1" == every([])
    assert "a AND b" == every(["a", "b"])
    many = every([f"<{n}>" for n in range(25_000)])
    assert [f"<{n}>" for n in range(25_000)] == re.findall(r"<\d+>", many)
    deepest = max(itertools.accumulate({"(": 1, ")": -1}.get(character, 0) for character in many))
    assert deepest == 2
    assert max(part.count(" AND ") for part in re.split(r"[()]", many)) < 250
