"""The harnesses of the four connectors do what `dpone.testing.Harness` says."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

import dpone
from dpone.connectors.files.harness import FilesHarness
from dpone.connectors.postgres.harness import PostgresHarness
from dpone.connectors.postgres.server import PrivateServer, Server, server
from dpone.errors import ConfigError
from dpone.sdk import load_object
from dpone.sdk.registry import connector_for
from dpone.testing.harness import (
    SAMPLE,
    Confinable,
    Harness,
    KeepsState,
    Restartable,
    Role,
    Transactional,
    sample_rows,
)
from dpone.testing.kit import values
from dpone.testing.memory.harness import MemoryHarness

KINDS = (
    ("postgres", ""),
    ("duckdb", ""),
    ("sqlite", ""),
    ("files", "parquet"),
    ("files", "csv"),
    ("files", "jsonl"),
)
NEGATIVE = [(-row[0], *row[1:]) for row in sample_rows(range(60))]
SERVERS = ("postgres",)
Make = Callable[[], Any]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(filter(None, kind)))
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A connector and a variant."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def make(kind: tuple[str, str], tmp_path: Path) -> Iterator[Make]:
    """Makes places of one kind, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        count = iter(range(10))

        def build() -> Harness:
            folder = tmp_path / f"place{next(count)}"
            folder.mkdir()
            made: Harness = load_object(connector_for(kind[0]).harness)(folder, kind[1])
            stack.callback(made.close)
            return made

        yield build


def manifest(source: dict[str, Any], stream: str, sink: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A manifest of one stream."""
    document = {"version": 1, "pipeline": "harness", "source": source, "sink": sink}
    return {**document, "streams": {stream: {"target": "t", "write": "replace"} | settings}}


def test_they_are_what_the_kit_asks_for(make: Make, kind: tuple[str, str]) -> None:
    """Each is a Harness; servers can be restarted and confined, and their transactions run side by side."""
    place = make()
    assert isinstance(place, Harness)
    server = kind[0] in SERVERS
    assert [server] * 3 == [isinstance(place, extra) for extra in (Transactional, Restartable, Confinable)]
    assert (kind[0] == "files") == isinstance(place, KeepsState)
    assert server == (place.address is not None)
    assert kind[1] in place.variants
    assert list(SAMPLE) == list(place.native)
    assert place.version[0].isdigit()


def test_sample_rows_come_back_exactly(make: Make) -> None:
    """What was put is what is read, twice over; no row is none."""
    place = make()
    for rows in (NEGATIVE, sample_rows(range(40), version=3), []):
        place.put("t", rows)
        assert values(rows) == values(place.rows("t", list(SAMPLE)))
        assert values(rows) == values(place.rows("t"))
    assert list(SAMPLE) == list(place.types("t")) or place.variants != ("",)
    assert [] == place.debris()


def test_columns_are_read_by_name(make: Make) -> None:
    """Two columns in another order; a column that is not there is an error, and so is a table."""
    place = make()
    place.put("t", sample_rows(range(1, 4)))
    found = [(str(number), name) for name, number in place.rows("t", ["name", "id"])]
    assert [("1", ""), ("2", "plain"), ("3", 'with "quotes"')] == sorted(found)
    with pytest.raises(Exception, match="absent"):
        place.rows("absent")


def test_put_is_quick(make: Make) -> None:
    """5,000 rows in well under a second, and a place in no time."""
    rows = sample_rows(range(5000))
    make()
    started = time.monotonic()
    place = make()
    made = time.monotonic()
    place.put("t", rows)
    assert (made - started, time.monotonic() - made) < (0.5, 1.5)
    assert 5000 == len(place.rows("t"))


def test_two_places_do_not_see_each_other(make: Make) -> None:
    """A table of one is not in the other."""
    one, other = make(), make()
    one.put("t", sample_rows(range(3)))
    other.put("t", sample_rows(range(7)))
    assert (3, 7) == (len(one.rows("t")), len(other.rows("t")))
    assert one.endpoint("source") != other.endpoint("source")


@pytest.mark.parametrize("table", ["order", "two words", 'a"b', "a.b", "Ürläu 東京"])
def test_tables_are_listed_as_the_harness_says(make: Make, table: str) -> None:
    """`stream` is the name that the source lists, and reads."""
    place, memory = make(), MemoryHarness(Path())
    place.create(table, {"id": place.native["id"]}, [["1"]], key=["id"])
    document = manifest(place.endpoint("source"), place.stream(table), memory.endpoint("sink"), proof="counts")
    with contextlib.closing(memory):
        assert [place.stream(table)] == dpone.discover(document)
        [stream] = dpone.run(document).streams
        assert stream.failure is None
        assert [(1,)] == memory.rows("t")


def test_a_route_through_it(make: Make, tmp_path: Path) -> None:
    """From one place to another through dpone, proven; nothing is left, not even while it is looked at."""
    source, sink = make(), make()
    rows = sample_rows(range(1, 200))
    source.put("t", rows)
    document = manifest(source.endpoint("source"), source.stream("t"), sink.endpoint("sink"), proof="digest")
    seen: list[list[str]] = []

    def look(event: Any) -> None:
        if event.name == "slice.staged":
            seen.append(sink.debris())

    document["streams"][source.stream("t")]["slices"] = {"rows": 50}
    [stream] = dpone.run(document, store=tmp_path / "store", on_event=look).streams
    assert (None, "proven") == (stream.failure, stream.proof["verdict"])
    assert values(rows) == values(sink.rows("t", list(SAMPLE)))
    assert all(seen)
    assert seen
    assert [] == sink.debris()


def test_an_appended_target_is_read_whole(make: Make, tmp_path: Path) -> None:
    """Two loads that append make one table."""
    source, sink = make(), make()
    document = manifest(source.endpoint("source"), source.stream("t"), sink.endpoint("sink"))
    cursor = {"column": "at", "lookback": "0s"}
    for count in (30, 70):
        source.put("t", sample_rows(range(1, count)))
        document["source"] = source.endpoint("source")
        document["streams"] = {source.stream("t"): {"target": "t", "write": "append", "cursor": cursor}}
        assert dpone.run(document, store=tmp_path / "store").ok
    assert values(sample_rows(range(1, 70))) == values(sink.rows("t", list(SAMPLE)))


def test_mistakes_end_in_their_category(make: Make, kind: tuple[str, str], tmp_path: Path) -> None:
    """Each mistake is one error of the category that the harness says, on both sides."""
    roles: tuple[Role, ...] = ("source", "sink")
    expected = {"host", "database", "password", "privilege"} if kind[0] in SERVERS else {"folder"}
    for role in roles:
        place, memory = make(), MemoryHarness(tmp_path)
        (place if role == "source" else memory).put("t", sample_rows(range(5)))
        mistakes = place.mistakes(role)
        assert expected <= set(mistakes) <= {*expected, "damaged", "privilege"}
        for name, (settings, category) in mistakes.items():
            ends = (settings, memory.endpoint("sink")) if role == "source" else (memory.endpoint("source"), settings)
            stream = place.stream("t") if role == "source" else "t"
            [record] = dpone.run(manifest(ends[0], stream, ends[1]), store=tmp_path / "store").streams
            assert record.failure is not None, (role, name)
            assert category == record.failure["category"], (role, name, record.failure)
        memory.close()


def test_close_leaves_nothing(make: Make, kind: tuple[str, str], tmp_path: Path) -> None:
    """Files, databases and roles are gone; closing again does nothing."""
    place = make()
    place.put("t", sample_rows(range(5)))
    for role in ("source", "sink"):
        place.mistakes(role)
    end = place.endpoint("source")
    place.close()
    place.close()
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]
    if kind[0] == "postgres":
        with psycopg.connect(server().url()) as connection:
            names = "SELECT datname AS name FROM pg_database UNION SELECT rolname FROM pg_roles"
            left = connection.execute(f"SELECT name FROM ({names}) x WHERE starts_with(name, %s)", [end["database"]])
            assert [] == left.fetchall()


# -- native types ------------------------------------------------------------------------------------------------

NATIVE: dict[str, list[tuple[str, ...]]] = {  # type, literal, value, and the text of a database if it is another
    "postgres": [
        ("smallint", "-7", "-7"),
        ("real", "0.1", "0.1"),
        ("numeric(30,10)", "1e15", "1000000000000000.0000000000"),
        ("date", "'0044-03-15 BC'", "-0043-03-15", "0044-03-15 BC"),
        ("date", "'0001-12-31 BC'", "0000-12-31", "0001-12-31 BC"),
        ("date", "'5874897-12-31'", "5874897-12-31"),
        (
            "timestamp(3) with time zone",
            "'99999-01-01 00:00:00.5+05:30'",
            "99998-12-31 18:30:00.5Z",
            "99998-12-31 18:30:00.5+00",
        ),
        ("timestamp with time zone", "'0002-01-01 00:00 UTC BC'", "-0001-01-01 00:00:00Z", "0002-01-01 00:00:00+00 BC"),
        ("bytea", "'\\x00ff'", "00ff", "\\x00ff"),
        ("money", "12.5", "$12.50"),
        ("interval", "'1 day 2 hours'", "1 day 02:00:00"),
        ("character(3)", "'a'", "a  "),
        ("inet", "'10.0.0.1'", "10.0.0.1"),
        ("jsonb", "'{\"a\": 1.0}'", '{"a": 1.0}'),
        ("int4range", "'[1,5)'", "[1,5)"),
        ("bytea[]", "ARRAY['\\xff'::bytea, NULL]", '["ff",null]', '{"\\\\xff",NULL}'),
        ("date[]", "ARRAY['0044-03-15 BC'::date]", '["-0043-03-15"]', '{"0044-03-15 BC"}'),
        ("public.mood", "'ok'", "ok"),
        ("public.mood[]", "'{sad,NULL}'", '["sad",null]', "{sad,NULL}"),
    ],
    "duckdb": [
        ("TINYINT", "-7", "-7"),
        ("HUGEINT", "170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        (
            "DECIMAL(38,38)",
            "0.1",
            "0.10000000000000000000000000000000000000",
            ".10000000000000000000000000000000000000",
        ),
        ("DATE", "DATE '0044-03-15 (BC)'", "-0043-03-15", "0044-03-15 (BC)"),
        ("TIMESTAMP", "TIMESTAMP '290307-01-01 00:00:00'", "290307-01-01 00:00:00"),
        ("TIMESTAMP_NS", "TIMESTAMP_NS '2024-01-01 00:00:00.123456789'", "2024-01-01 00:00:00.123456789"),
        (
            "TIMESTAMP WITH TIME ZONE",
            "TIMESTAMPTZ '2024-01-01 05:30:00+05:30'",
            "2024-01-01 00:00:00Z",
            "2024-01-01 00:00:00+00",
        ),
        ("BLOB", "'\\x00\\xFF'::BLOB", "00ff", "\\x00\\xFF"),
        ("VARCHAR[]", "['a', NULL, 'NULL']", '["a",null,"NULL"]', "[a, NULL, 'NULL']"),
        ("DECIMAL(10,2)[]", "[1.5]", '["1.50"]', "[1.50]"),
        ("DATE[]", "[DATE '0044-03-15 (BC)']", '["-0043-03-15"]', "['0044-03-15 (BC)']"),
        ("STRUCT(a INTEGER)", "{'a': 1}", '{"a":1}', "{'a': 1}"),
        ("ENUM('sad', 'ok')", "'ok'", "ok"),
    ],
    "sqlite": [
        ("INTEGER", "-7", "-7"),
        ("BOOLEAN", "1", "True", "1"),
        ("REAL", "0.1", "0.1"),
        ("TEXT", "'it''s'", "it's", "'it''s'"),
        ("BLOB", "x'00ff'", "00ff", "X'00FF'"),
        ("VARCHAR(10)", "CAST(x'ff' AS TEXT)", "\udcff", "'\udcff'"),
    ],
    "parquet": [
        ("boolean", "true", "True"),
        ("uint64", "18446744073709551615", "18446744073709551615"),
        ("float16", "1.5", "1.5"),
        ("decimal(38,38)", "0.1", "0.10000000000000000000000000000000000000"),
        (
            "decimal256(50,3)",
            "99999999999999999999999999999999999999999999999.999",
            "99999999999999999999999999999999999999999999999.999",
        ),
        ("date", "-5877641-06-23", "-5877641-06-23"),
        ("date", "5881580-07-11", "5881580-07-11"),
        ("date64", "2024-02-29", "2024-02-29"),
        ("time[ns]", "23:59:59.000000001", "23:59:59.000000001"),
        ("time[s]", "23:59:59", "23:59:59"),
        ("timestamp", "-290308-12-21 19:59:05.224193", "-290308-12-21 19:59:05.224193"),
        ("timestamptz[ns]", "1677-09-21 05:57:43.145224193+05:45", "1677-09-21 00:12:43.145224193Z"),
        ("large_string", "x", "x"),
        ("string_view", "x", "x"),
        ("dictionary<text>", "x", "x"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("json", '{"a":  1}', '{"a":  1}'),
        ("binary", "00ff", "00ff"),
        ("binary_view", "00ff", "00ff"),
        ("fixed_size_binary(2)", "00ff", "00ff"),
        ("list<decimal(10,2)>", "[1.5, null]", '["1.50",null]'),
        ("list<timestamptz>", '["10000-01-01 00:00:00Z"]', '["10000-01-01 00:00:00Z"]'),
        ("large_list<list<binary>>", '[["00ff"], null, []]', '[["00ff"],null,[]]'),
        ("struct", '{"n":1,"s":"a"}', '{"n":1,"s":"a"}'),
        ("map", '{"a":1}', '{"a":1}'),
    ],
    "csv": [
        ("text", '"with ""quotes"", and\na line"', 'with "quotes", and\na line'),
        ("text", '""', ""),
        ("text", "007", "007"),
    ],
    "jsonl": [
        ("text", '"a\\u0000b"', "a\x00b"),
        ("text", "1.50", "1.50"),
        ("text", "true", "True"),
        ("text", '{"a": [1.50, "x", {}, []]}', '{"a":[1.50,"x",{},[]]}'),
    ],
}
RENAMED = {"date64": "date", "time[s]": "time[ms]"}  # by Parquet
NULLS = {"csv": "", "jsonl": "null"}
SETUP = {"postgres": ["CREATE TYPE mood AS ENUM ('sad', 'ok')"]}


def test_native_types(make: Make, kind: tuple[str, str]) -> None:
    """A table of native types holds what the literals say; it is read as canonical text, and as the system's own."""
    place, name = make(), kind[1] or kind[0]
    place.setup(SETUP.get(name, []))
    cases = NATIVE[name]
    columns = {f"c{n}": type_ for n, (type_, *_) in enumerate(cases)}
    null = NULLS.get(name, "NULL")
    place.create(
        "native",
        {"id": place.native["id"], **columns},
        [["1", *(case[1] for case in cases)], ["2", *[null] * len(cases)]],
        key=["id"],
    )
    found = sorted(place.rows("native", ["id", *columns]), key=lambda row: int(row[0]))
    assert [case[2] for case in cases] == list(map(str, found[0][1:]))
    assert [None] * len(cases) == list(found[1][1:])
    texts = sorted(place.texts("native", list(columns)), key=lambda row: row[0] is None)
    expected = [repr(held) for held in found[0][1:]] if kind[0] == "files" else [case[-1] for case in cases]
    assert expected == list(texts[0])
    assert (None,) * len(cases) == texts[1]
    types = dict.fromkeys(columns, "text") if name in NULLS else {c: RENAMED.get(t, t) for c, t in columns.items()}
    assert types == {column: type_ for column, type_ in place.types("native").items() if column != "id"}


def test_int96_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Arrow writes all timestamps of a file as INT96 or none, so a file with both is refused."""
    place = FilesHarness(tmp_path, "parquet")
    place.create("old", {"id": "int32", "x": "int96"}, [["1", "1969-12-31 23:59:59.999999"], ["2", "NULL"]])
    assert [(1, "1969-12-31 23:59:59.999999"), (2, None)] == place.rows("old")
    assert "INT96" == pq.ParquetFile(tmp_path / "files" / "old.parquet").schema.column(1).physical_type
    with pytest.raises(ValueError, match="INT96"):
        place.create("both", {"x": "int96", "y": "timestamptz[ms]"})


def test_setup_is_of_one_place(make: Make, kind: tuple[str, str]) -> None:
    """Statements are run, each on its own; files have none."""
    place = make()
    if kind[0] == "files":
        with pytest.raises(ConfigError):
            place.setup(["SELECT 1"])
        return
    place.setup(["CREATE TABLE made (x INTEGER)", "INSERT INTO made VALUES (7)"])
    assert [(7,)] == place.rows("made")


# -- what only some of them do -----------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresHarness]:
    """A database on a server of our own."""
    with contextlib.closing(PostgresHarness(tmp_path)) as made:
        if not isinstance(server(), PrivateServer):
            pytest.skip("the server of DPONE_TEST_POSTGRES_URL is not ours")
        yield made


def test_late_rows_come_at_the_end_of_the_block(database: PostgresHarness) -> None:
    """Until then nobody sees them; when the block fails, they never come."""
    rows = sample_rows(range(1, 6))
    database.put("t", rows)
    with database.late("t", sample_rows(range(100, 103))):
        assert 5 == len(database.rows("t"))
    assert 8 == len(database.rows("t"))
    with pytest.raises(RuntimeError), database.late("t", sample_rows(range(200, 203))):
        raise RuntimeError
    assert 8 == len(database.rows("t"))


def test_a_restart_ends_every_session(database: PostgresHarness) -> None:
    """Sessions are gone, what was committed is there, at the same address."""
    database.put("t", sample_rows(range(5)))
    end = database.endpoint("source")
    login = {"host": end["host"], "port": end["port"], "user": end["user"], "dbname": end["database"]}
    with contextlib.closing(psycopg.connect(**login, autocommit=True)) as connection:
        connection.execute("SELECT 1")
        address = database.address
        database.restart()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert address == database.address
    assert 5 == len(database.rows("t"))


def test_confined_tables_are_stored_in_the_folder(database: PostgresHarness) -> None:
    """Only inside the block; what was stored there is kept, and the folder is empty again."""
    big = [(n, "x" * 1000, None, None, None, None, None) for n in range(1000)]

    def stored() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    with tempfile.TemporaryDirectory(prefix="dpone-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for the server's user
        with database.confine(folder):
            database.put("inside", big)
            assert stored() > 1_000_000
        assert [] == list(folder.iterdir())
        assert 1000 == len(database.rows("inside"))
        database.put("outside", big)
        assert 0 == stored()


def test_a_server_of_others_is_not_restarted(
    database: PostgresHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restart and confinement are refused, and say why; everything else works."""
    host, port = database.address or ("", 0)
    monkeypatch.setattr("dpone.connectors.postgres.harness.server", lambda: Server(host, port, "postgres"))
    with contextlib.closing(PostgresHarness(tmp_path)) as theirs:
        theirs.put("t", sample_rows(range(5)))
        assert {"host", "database", "privilege"} == set(theirs.mistakes("source"))  # it lets every password in
        with pytest.raises(ConfigError, match="DPONE_TEST_POSTGRES_URL"):
            theirs.restart()
        with pytest.raises(ConfigError, match="DPONE_TEST_POSTGRES_URL"), theirs.confine(tmp_path):
            pass


@pytest.mark.parametrize("how", ["garbage", "truncated", "newer"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] == "files"], indirect=True)
def test_damaged_state_is_refused(make: Make, tmp_path: Path, how: str) -> None:
    """The receipts of files are damaged as asked, which the next run notices."""
    source, sink = make(), make()
    source.put("t", sample_rows(range(5)))
    document = manifest(source.endpoint("source"), "t", sink.endpoint("sink"))
    assert dpone.run(document, store=tmp_path / "store").ok
    sink.damage(how)
    [stream] = dpone.run(document, store=tmp_path / "store").streams
    assert stream.failure is not None
    assert ("state", "DP501" if how == "newer" else "DP502") == (stream.failure["category"], stream.failure["code"])
