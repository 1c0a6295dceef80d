"""Values: every type of Postgres, its ordinary and its oddest values, through every route.

Postgres to Postgres, a column keeps its type and every value its bytes, whatever the databases at both ends are set
to. Postgres to anything else is executed by `dpone certify types`; here, the remedy that its refusals name.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

import dpone
from dpone.api import RunResult

CONTROLS = "".join(f"\\x{code:02x}" for code in [*range(1, 32), 127])
HOSTILE = [
    "",
    " pad ",
    "NULL",
    "\\N",
    'a"b',
    "it's",
    "c\\d",
    "{x,y}",
    "comma, semi;",
    "a\tb\r\nc\n",
    "\\.",
    "Żółć 東京 😀",
]


@dataclass(frozen=True)
class Type:
    """A column: its type, values that every sink can hold, and odd ones; the server version that brought the type."""

    name: str
    declared: str
    plain: tuple[str, ...]
    odd: tuple[str, ...] = ()
    since: int = 0


def literals(*texts: str) -> tuple[str, ...]:
    """SQL literals."""
    return tuple("'" + text.replace("'", "''") + "'" for text in texts)


TYPES = (
    Type("c_bool", "boolean", literals("t", "f")),
    Type("c_int2", "smallint", literals("-32768", "32767", "0")),
    Type("c_int4", "integer", literals("-2147483648", "2147483647", "0")),
    Type("c_int8", "bigint", literals("-9223372036854775808", "9223372036854775807", "0")),
    Type(
        "c_numeric",
        "numeric",
        literals("9" * 1000 + "." + "9" * 1000, "1." + "0" * 40, "-0.00", "1e-300", "NaN", "1.50", "100"),
    ),
    Type("c_numeric_inf", "numeric", literals("Infinity", "-Infinity"), since=140000),
    Type("c_numeric_10_2", "numeric(10,2)", literals("99999999.99", "-0.01", "0", "12.30"), literals("NaN")),
    Type("c_numeric_38", "numeric(38,0)", literals("9" * 38, "-" + "9" * 38)),
    Type("c_numeric_38_38", "numeric(38,38)", literals("0." + "9" * 38, "-0.1", "0")),
    Type("c_numeric_39", "numeric(39,10)", literals("9" * 29 + ".0123456789")),
    Type("c_numeric_neg", "numeric(5,-2)", literals("1234500", "-99900", "0"), since=150000),
    Type("c_float4", "real", literals("3.4028235e38", "1e-45", "0.1", "Infinity", "-Infinity"), literals("NaN", "-0")),
    Type(
        "c_float8",
        "double precision",
        literals("1.7976931348623157e308", "5e-324", "0.1", "Infinity", "-Infinity", "123456789.12345679"),
        literals("NaN", "-0"),
    ),
    Type("c_money", "money", literals("-92233720368547758.08", "12.34", "0")),
    Type("c_char", "character(6)", literals("", "ab", "   ", "ab  c", "żółć")),
    Type("c_varchar", "character varying(40)", literals(*HOSTILE)),
    Type("c_text", "text", (*literals(*HOSTILE), f"E'{CONTROLS}'", "U&'\\FEFFbom'", "repeat('long ', 5000)")),
    Type("c_name", "name", literals("a name", "")),
    Type("c_internal_char", '"char"', literals("x", "")),
    Type("c_bytea", "bytea", (*literals("", "\\x00ff00", "\\x5c78"), f"'\\x{bytes(range(256)).hex()}'")),
    Type("c_uuid", "uuid", literals("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "00000000-0000-0000-0000-000000000000")),
    Type("c_json", "json", literals('{"a":  1, "a": 2, "n": 1.000e0}', ' [1 , "\\u00e9"]\n', "null", '""')),
    Type("c_jsonb", "jsonb", literals('{"b": 1, "a": [1.000, "é", null]}', "null", '""', "12345678901234567890.10")),
    Type("c_jsonpath", "jsonpath", literals("$.a[*] ? (@ > 1)")),
    Type(
        "c_date",
        "date",
        literals("2024-02-29", "0001-01-01", "9999-12-31", "1969-12-31"),
        literals("infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"),
    ),
    Type("c_time", "time", literals("00:00:00", "23:59:59.999999", "12:30:45.1"), literals("24:00:00")),
    Type("c_time_3", "time(3)", literals("23:59:59.999", "00:00:00")),
    Type("c_timetz", "timetz", literals("24:00:00-15:59", "00:00:00+00", "12:30:45.123456+05:45")),
    Type(
        "c_timestamp",
        "timestamp",
        literals("2024-03-10 02:30:00", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "1969-12-31 23:59:59.5"),
        literals("infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"),
    ),
    Type("c_timestamp_3", "timestamp(3)", literals("2024-03-10 02:30:00.123", "2024-03-10 02:30:00")),
    Type(
        "c_timestamptz",
        "timestamptz",
        literals("2024-03-10 02:30:00 America/New_York", "2024-11-03 01:30:00-04", "0001-01-02 00:00:00+00"),
        literals("infinity", "-infinity", "4713-01-02 00:00:00+00 BC", "294276-12-31 00:00:00+00"),
    ),
    Type(
        "c_interval",
        "interval",
        literals("1 day", "24 hours", "-1 year +2 mons -3 days -04:05:06.789", "178000000 years", "1 mon -1 day", "0"),
    ),
    Type("c_interval_3", "interval day to second(3)", literals("3 days 04:05:06.789")),
    Type(
        "c_int_array",
        "integer[]",
        literals("{}", "{1,NULL,3}", "{NULL}", "{-2147483648}"),
        literals("{{1,2},{3,4}}", "[5:7]={1,2,3}", "[-1:0][2:3]={{1,2},{3,NULL}}", "[0:0]={1}"),
    ),
    Type(
        "c_text_array",
        "text[]",
        (
            *literals("{}", "{NULL}", '{"NULL"}', '{""}', '{"","a\\"b","c\\\\d"," x ","y,z","{q}",NULL,é}'),
            f"ARRAY[E'{CONTROLS}']",
        ),
        literals("{{a,b},{NULL,d}}", "[2:2]={a}"),
    ),
    Type("c_bool_array", "boolean[]", literals("{t,f,NULL}", "{}")),
    Type("c_numeric_array", "numeric(10,2)[]", literals("{1.50,NULL,-0.01}", "{}"), literals("{NaN}")),
    Type("c_uuid_array", "uuid[]", literals("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}", "{}")),
    Type("c_timestamptz_array", "timestamptz[]", literals('{"2024-03-10 02:30:00+00",NULL}'), literals("{infinity}")),
    Type("c_bytea_array", "bytea[]", literals('{"\\\\x00ff",NULL}')),
    Type("c_json_array", "json[]", literals('{"{\\"a\\":  1}",NULL}')),
    Type("c_enum", "mood", literals("sad", 'it\'s; "ok"', "")),
    Type("c_enum_array", "mood[]", literals("{sad,NULL}", "{}")),
    Type("c_domain", "code", literals("abc", "")),
    Type("c_composite", "pair", ("ROW(1, 'a b')::pair", "ROW(NULL, NULL)::pair", "ROW(2, '')::pair")),
    Type("c_int4range", "int4range", literals("[1,5)", "empty", "(,)", "[3,)")),
    Type("c_int8range", "int8range", literals("[-9223372036854775808,5)")),
    Type("c_numrange", "numrange", literals("[1.50,2.500]", "(,0)")),
    Type("c_tsrange", "tsrange", literals("[2024-01-01,2024-02-01 00:00:00.5)", "[-infinity,infinity]")),
    Type("c_tstzrange", "tstzrange", literals("[2024-01-01 00:00:00+05:30,)")),
    Type("c_daterange", "daterange", literals("[2024-01-01,2024-02-01]", "empty")),
    Type("c_int4multirange", "int4multirange", literals("{[1,5),[7,9)}", "{}"), since=140000),
    Type("c_inet", "inet", literals("10.0.0.1/8", "10.0.0.1", "::1", "fe80::1/64")),
    Type("c_cidr", "cidr", literals("10.0.0.0/8", "::/0")),
    Type("c_macaddr", "macaddr", literals("08:00:2b:01:02:03")),
    Type("c_macaddr8", "macaddr8", literals("08:00:2b:01:02:03:04:05")),
    Type("c_bit", "bit(5)", literals("10101", "00000")),
    Type("c_varbit", "bit varying", literals("", "1", "000111")),
    Type("c_point", "point", literals("(0.1,-1e-300)", "(NaN,Infinity)")),
    Type("c_line", "line", literals("{1,-1,0.1}")),
    Type("c_lseg", "lseg", literals("[(0,0),(1,1.5)]")),
    Type("c_box", "box", literals("(1,1),(0,0.1)")),
    Type("c_path", "path", literals("[(0,0),(1,1)]", "((0,0),(1,1))")),
    Type("c_polygon", "polygon", literals("((0,0),(1,1),(0,2))")),
    Type("c_circle", "circle", literals("<(0,0),1.1>")),
    Type("c_tsvector", "tsvector", literals("'a b':1A 'it''s':2 cat", "")),
    Type("c_tsquery", "tsquery", literals("'fat' & ( 'rat' | 'cat':AB )", "")),
    Type("c_lsn", "pg_lsn", literals("FFFFFFFF/FFFFFFFF", "0/0")),
    Type("c_oid", "oid", literals("4294967295", "0")),
    Type("c_xid8", "xid8", literals("18446744073709551615"), since=130000),
    Type("c_snapshot", "txid_snapshot", literals("10:20:10,14,15")),
    Type("c_xml", "xml", literals("<a b='1'>é<!-- x --></a>", "text only")),
)
MADE = (
    "CREATE TYPE mood AS ENUM ('sad', 'it''s; \"ok\"', '')",
    "CREATE DOMAIN code AS text CHECK (VALUE <> 'no')",
    "CREATE TYPE pair AS (n int, t text)",
)
# What a session of either database starts with. None of it may reach a value, or a decision of the plan.
ODD_SETTINGS = {
    "source": {
        "timezone": "Asia/Kathmandu",
        "datestyle": "SQL, DMY",
        "intervalstyle": "sql_standard",
        "extra_float_digits": "-15",
        "bytea_output": "escape",
        "array_nulls": "off",
        "quote_all_identifiers": "on",
        "xmloption": "document",
        "search_path": "pg_catalog",
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
    },
    "sink": {
        "timezone": "America/St_Johns",
        "datestyle": "German",
        "intervalstyle": "iso_8601",
        "extra_float_digits": "0",
        "bytea_output": "escape",
        "array_nulls": "off",
        "quote_all_identifiers": "on",
        "xmloption": "document",
        "standard_conforming_strings": "off",
        "default_transaction_read_only": "on",
        "transform_null_equals": "on",
    },
}
PLAIN_SESSION = (
    "-c TimeZone=UTC -c DateStyle=ISO,YMD -c IntervalStyle=postgres -c extra_float_digits=3 -c bytea_output=hex "
    "-c array_nulls=on -c quote_all_identifiers=off -c xmloption=content -c lc_monetary=C "
    "-c standard_conforming_strings=on -c default_transaction_read_only=off -c search_path=public"
)


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection whose texts of values do not depend on how the database is set."""
    return psycopg.connect(url, options=PLAIN_SESSION)


def run_sql(url: str, *statements: str) -> None:
    """Run statements in one transaction."""
    with connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


def available(url: str) -> list[Type]:
    """The types that this server has."""
    with connect(url) as connection:
        found = [type_ for type_ in TYPES if connection.info.server_version >= type_.since]
        try:
            connection.execute("SELECT '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            found = [type_ for type_ in found if type_.name != "c_xml"]
    return found


def fill(url: str, types: list[Type], *, odd: bool) -> None:
    """A table `t` with a row for each value of the column that has most; shorter columns end in NULL."""
    columns = [(*type_.plain, *(type_.odd if odd else ())) for type_ in types]
    declared = ", ".join(f"{type_.name} {type_.declared}" for type_ in types)
    statements = [f"CREATE TABLE t (id integer PRIMARY KEY, {declared})"]
    for number in range(max(map(len, columns)) + 1):
        row = [
            f"{values[number]}::{type_.declared}" if number < len(values) else "NULL"
            for type_, values in zip(types, columns, strict=True)
        ]
        statements.append(f"INSERT INTO t VALUES ({number}, {', '.join(row)})")
    run_sql(url, *statements)


def texts(url: str, columns: str = "*") -> list[bytes]:
    """The rows of `t` as the server's own text of every value, in the order of `id`."""
    query = f"COPY (SELECT {columns} FROM t ORDER BY id) TO STDOUT"
    with connect(url) as connection, connection.cursor().copy(query) as copy:
        return [bytes(row) for row in copy]


def binaries(url: str, types: list[Type]) -> list[bytes]:
    """The same in the binary form, for the types whose binary form does not hold numbers of this database's catalog."""
    names = ", ".join(type_.name for type_ in types if "mood" not in type_.declared)
    query = f"COPY (SELECT {names} FROM t ORDER BY id) TO STDOUT (FORMAT binary)"
    with connect(url) as connection, connection.cursor().copy(query) as copy:
        return [bytes(row) for row in copy]


def declared(url: str) -> list[tuple[str, str]]:
    """The columns of `t` with their types."""
    query = (
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
    )
    with connect(url) as connection:
        return [(str(name), str(native)) for name, native in connection.execute(query).fetchall()]


def manifest(folder: Path, source: str, sink: Any, **settings: Any) -> Path:
    """A manifest of the one stream, in slices of a few rows."""
    path = folder / "dpone.yaml"
    stream = {"proof": "digest", "slices": {"rows": 5}} | settings
    document = {"version": 1, "pipeline": "values", "source": source, "sink": sink, "streams": {"public.t": stream}}
    path.write_text(json.dumps(document))
    return path


def proven(result: RunResult) -> dict[str, int]:
    """The changes of a run that must have succeeded with a proof."""
    [stream] = result.streams
    assert stream.failure is None
    assert ("proven", "") == (stream.proof["verdict"], stream.proof["reason"])
    return stream.changes | {"read": stream.rows["extracted"] or 0}


# -- Postgres to Postgres ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "odd"])
def settings(request: pytest.FixtureRequest, pg: str, pg2: str) -> str:
    """Both databases as they come, or with every setting changed that could change the text of a value."""
    if request.param == "odd":
        for url, role in ((pg, "source"), (pg2, "sink")):
            name = url.rpartition("/")[2]
            run_sql(
                url, *(f"ALTER DATABASE {name} SET {item} = '{value}'" for item, value in ODD_SETTINGS[role].items())
            )
    return str(request.param)


@pytest.mark.parametrize("write", ["replace", "merge", "append"])
@pytest.mark.usefixtures("settings")
def test_postgres_to_postgres_is_exact(tmp_path: Path, pg: str, pg2: str, write: str) -> None:
    """Same column types, same values, as text and in binary; proven; and the second run changes nothing."""
    types = available(pg)
    assert len(types) >= 45
    run_sql(pg, *MADE)
    run_sql(pg2, *MADE[1:])  # the enumerated type comes by itself
    fill(pg, types, odd=True)
    path = manifest(tmp_path, pg, pg2, write=write, **({"cursor": "id"} if write == "append" else {}))

    count = len(texts(pg))
    assert count == proven(dpone.run(path))["inserted"]
    assert declared(pg) == declared(pg2)
    assert texts(pg) == texts(pg2)
    assert binaries(pg, types) == binaries(pg2, types)

    again = proven(dpone.run(path))
    assert [0, 0, 0] == [again[name] for name in ("inserted", "updated", "deleted")]
    assert (0 if write == "append" else count) == again["unchanged"]

    change = ", ".join(f"{type_.name} = (SELECT {type_.name} FROM t WHERE id = 0)" for type_ in types)
    run_sql(pg, f"INSERT INTO t SELECT 1000, {', '.join(type_.name for type_ in types)} FROM t WHERE id = 1")
    if write != "append":
        run_sql(pg, f"UPDATE t SET {change} WHERE id = 2")
    changed = proven(dpone.run(path))
    if write == "merge":
        assert (1, 1) == (changed["inserted"], changed["updated"])
    assert texts(pg) == texts(pg2)
    assert binaries(pg, types) == binaries(pg2, types)


@pytest.mark.parametrize("type_", [type_ for type_ in TYPES if len(type_.plain) > 1], ids=lambda type_: type_.name)
def test_merge_tells_equal_values_from_the_same(tmp_path: Path, pg: str, pg2: str, type_: Type) -> None:
    """Every value of a type replaced by every other: each row is an update, and then holds what the source holds."""
    if type_ not in available(pg):
        pytest.skip("this server lacks the type")
    run_sql(pg, *MADE)
    run_sql(pg2, *MADE[1:])
    values = (*type_.plain, *type_.odd)
    pairs = [(left, right) for left in values for right in values if left != right]
    run_sql(pg, f"CREATE TABLE t (id integer PRIMARY KEY, v {type_.declared})")
    with connect(pg) as connection:
        for number, (left, _) in enumerate(pairs):
            connection.execute(f"INSERT INTO t VALUES ({number}, {left}::{type_.declared})")
    path = manifest(tmp_path, pg, pg2, write="merge", slices={"rows": 1000})
    proven(dpone.run(path))
    before = texts(pg)
    with connect(pg) as connection:
        for number, (_, right) in enumerate(pairs):
            connection.execute(f"UPDATE t SET v = {right}::{type_.declared} WHERE id = {number}")
    other = sum(left != right for left, right in zip(before, texts(pg), strict=True))
    assert other == proven(dpone.run(path))["updated"]
    assert texts(pg) == texts(pg2)


@pytest.mark.parametrize(("column", "native"), [("c_domain", "code"), ("c_composite", "pair")])
def test_a_type_that_the_sink_lacks_is_refused_in_the_plan(
    tmp_path: Path, pg: str, pg2: str, column: str, native: str
) -> None:
    """Domains, composites and types of extensions must exist in the sink; the plan names the column and the type."""
    run_sql(pg, *MADE)
    fill(pg, [type_ for type_ in TYPES if type_.name == column], odd=True)
    path = manifest(tmp_path, pg, pg2, write="replace")
    [preview] = dpone.plan(path).refusals
    assert preview.refusal is not None
    assert ("schema", "DP406") == (preview.refusal.category, preview.refusal.code)
    assert f"{column}: " in preview.refusal.message
    assert f"public.{native}" in preview.refusal.message
    assert 3 == dpone.run(path).exit_code

    run_sql(pg2, *MADE[1:])
    proven(dpone.run(path))
    assert declared(pg) == declared(pg2)
    assert texts(pg) == texts(pg2)


def test_an_enumerated_type_with_other_labels_is_refused_in_the_plan(tmp_path: Path, pg: str, pg2: str) -> None:
    """The sink's type of that name lacks a label, or has them in another order."""
    run_sql(pg, *MADE)
    run_sql(pg2, "CREATE TYPE mood AS ENUM ('sad')")
    fill(pg, [type_ for type_ in TYPES if type_.name == "c_enum"], odd=True)
    [preview] = dpone.plan(manifest(tmp_path, pg, pg2)).refusals
    assert preview.refusal is not None
    assert "c_enum: " in preview.refusal.message
    assert "other labels" in preview.refusal.message


# -- Postgres to the others --------------------------------------------------------------------------------------------

SINKS = ("duckdb", "sqlite", "parquet")


def endpoint(folder: Path, sink: str) -> Any:
    """A sink of this kind."""
    if sink == "parquet":
        (folder / "out").mkdir(exist_ok=True)
        return {"connector": "files", "path": str(folder / "out"), "format": "parquet"}
    return f"{sink}:///{folder}/out.{sink}"


def read(folder: Path, sink: str) -> dict[str, list[Any]]:
    """The columns of the target, in the order of `id`, read without dpone."""
    if sink == "parquet":
        [path] = (folder / "out").rglob("t*.parquet")
        return dict(pq.read_table(path).sort_by("id").to_pydict())
    if sink == "duckdb":
        with duckdb.connect(str(folder / "out.duckdb"), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return dict(connection.sql("SELECT * FROM t ORDER BY id").to_arrow_table().to_pydict())
    file = sqlite3.connect(folder / "out.sqlite")
    try:
        cursor = file.execute("SELECT * FROM t ORDER BY id")
        names = [column[0] for column in cursor.description]
        return dict(zip(names, map(list, zip(*cursor.fetchall(), strict=True)), strict=True))
    finally:
        file.close()


def expected(url: str, name: str) -> list[str | None]:
    """A column of the source as the server's text."""
    query = f"SELECT CASE WHEN num_nulls({name}) = 0 THEN concat({name}) END FROM t ORDER BY id"
    with connect(url) as connection:
        return [text for (text,) in connection.execute(query).fetchall()]


@pytest.mark.parametrize("sink", SINKS)
def test_every_odd_value_travels_as_text(tmp_path: Path, pg: str, sink: str) -> None:
    """The remedy that the errors name works: cast to text, every value of every type arrives as its text."""
    types = [type_ for type_ in TYPES if type_.odd]
    fill(pg, types, odd=True)
    casts = {type_.name: "text" for type_ in types}
    proven(dpone.run(manifest(tmp_path, pg, endpoint(tmp_path, sink), columns={"cast": casts})))
    target = read(tmp_path, sink)
    for type_ in types:
        assert expected(pg, type_.name) == target[type_.name], type_.name
