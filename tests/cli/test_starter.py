"""init and copy: what they draft, and that it runs."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from dpone.manifest.load import load_manifest
from dpone.starter import endpoint, hide_password
from tests.cli.conftest import Call, document, sql

CSV = 'id,name,at\n1,Ada,2026-01-01\n2,,2026-01-02\n3,"",2026-01-03\n'
ROWS = [(1, "Ada"), (2, None), (3, "")]

pytestmark = pytest.mark.usefixtures("folder")


def test_init_writes_an_example_that_runs(folder: Path, dpone: Call) -> None:
    """`dpone init && dpone run` works in an empty folder, twice, without any server; every row arrives."""
    (folder / "dpone.yaml").unlink()
    result = dpone("init")
    assert (0, "wrote dpone.yaml\nwrote data/orders.csv\nnext: dpone run\n") == (result.exit_code, result.stdout)
    first, second = dpone("run", "--json"), dpone("run", "--json")
    assert (0, 0) == (first.exit_code, second.exit_code), first.stderr + second.stderr
    assert (20, 0) == tuple(document(run)["streams"][0]["rows"]["extracted"] for run in (first, second))
    lines = (folder / "data" / "orders.csv").read_text().splitlines()[1:]
    query = "SELECT concat_ws(',', order_id, customer, amount, status, strftime(updated_at, '%Y-%m-%dT%H:%M:%S'))"
    assert lines == [line for (line,) in sql("warehouse.duckdb", f"{query} FROM orders ORDER BY order_id")]


def test_init_overwrites_nothing(folder: Path, dpone: Call) -> None:
    """Exit code 2 and no file written, unless --yes is given."""
    before = (folder / "dpone.yaml").read_text()
    result = dpone("init")
    assert 2 == result.exit_code
    assert "dpone.yaml exists already" in result.stderr
    assert before == (folder / "dpone.yaml").read_text()
    assert not (folder / "data").exists()
    assert 0 == dpone("init", "--yes").exit_code
    assert before != (folder / "dpone.yaml").read_text()


def test_init_needs_both_ends(dpone: Call) -> None:
    """One of them alone is a usage error."""
    assert 2 == dpone("init", "--source", "shop.duckdb", "--yes").exit_code


def test_init_from_a_live_source(folder: Path, dpone: Call) -> None:
    """Streams with sizes, keys and cursors as comments; a hostile table name stays a name; and it runs."""
    sql("shop.duckdb", 'CREATE TABLE "odd: #name" AS SELECT 1 AS id')
    result = dpone("init", "--source", "shop.duckdb", "--sink", "wh.duckdb", "--yes")
    assert 0 == result.exit_code, result.stderr
    text = (folder / "dpone.yaml").read_text()
    assert "  main.orders:  # about 100 rows, primary key id\n    # cursor: updated_at\n" in text
    assert "  main.countries:  # about 3 rows, no primary key\n    # primary_key: [...]\n" in text
    names = [stream.name for stream in load_manifest("dpone.yaml").streams]
    assert ["main.countries", "main.odd: #name", "main.orders"] == sorted(names)
    assert not (folder / "wh.duckdb").exists()
    assert 0 == dpone("run").exit_code
    assert sql("shop.duckdb", "FROM orders ORDER BY id") == sql("wh.duckdb", "FROM orders ORDER BY id")
    (folder / "dpone.yaml").write_text(text.replace("# cursor: updated_at", "cursor: updated_at"))
    assert "merge on id, incremental" in dpone("check").stdout


def test_copy_a_file(folder: Path, dpone: Call) -> None:
    """A CSV file into DuckDB, the mode with its reason; '' is not NULL."""
    (folder / "people.csv").write_text(CSV)
    result = dpone("copy", "people.csv", "lake.duckdb")
    assert 0 == result.exit_code, result.stderr
    assert ROWS == sql("lake.duckdb", "SELECT id, name FROM people ORDER BY id")
    assert "mode: full, replace (no cursor given" in result.stdout


def test_copy_a_table_with_a_cursor(dpone: Call) -> None:
    """Only what is new moves the second time; the target has the name that was asked for."""
    words = ("copy", "duckdb:///shop.duckdb?table=main.orders", "lake.duckdb?table=o", "--cursor", "updated_at")
    assert "merge (cursor updated_at and a primary key" in dpone(*words).stdout
    sql("shop.duckdb", "INSERT INTO orders VALUES (100, 'new', 1, TIMESTAMP '2026-02-01')")
    assert 1 == document(dpone(*words, "--json"))["streams"][0]["rows"]["extracted"]
    assert sql("shop.duckdb", "FROM orders ORDER BY id") == sql("lake.duckdb", "FROM o ORDER BY id")


def test_copies_from_two_sources_do_not_share_progress(folder: Path, dpone: Call) -> None:
    """Two databases with a table of one name: the second copy starts from its own beginning."""
    words = ("lake.duckdb", "--table", "main.orders", "--cursor", "updated_at", "--json")
    first = document(dpone("copy", "shop.duckdb", *words))
    (folder / "other.duckdb").write_bytes((folder / "shop.duckdb").read_bytes())
    second = document(dpone("copy", "other.duckdb", *words))
    assert first["pipeline"] != second["pipeline"]
    assert 100 == second["streams"][0]["rows"]["extracted"]


def test_copy_asks_which_table(dpone: Call) -> None:
    """Exit code 2 and the names, when there are several."""
    result = dpone("copy", "shop.duckdb", "lake.duckdb")
    assert 2 == result.exit_code
    assert "main.countries, main.orders" in result.stderr


def test_copy_saves_itself(dpone: Call) -> None:
    """The saved manifest continues the copy; an existing file is kept without --yes."""
    words = (
        "copy",
        "shop.duckdb",
        "lake.duckdb",
        "--table",
        "main.orders",
        "--cursor",
        "updated_at",
        "--proof",
        "digest",
    )
    result = dpone(*words, "--save", "orders.yaml")
    assert 0 == result.exit_code, result.stderr
    assert "saved: orders.yaml" in result.stdout
    again = document(dpone("run", "-f", "orders.yaml", "--json"))
    assert (0, 0) == (again["exit_code"], again["streams"][0]["rows"]["extracted"])
    refused = dpone(*words, "--save", "orders.yaml")
    assert 2 == refused.exit_code
    assert "--yes" in refused.stderr


def test_copy_that_fails_saves_nothing(folder: Path, dpone: Call) -> None:
    """And says so."""
    result = dpone("copy", "shop.duckdb", "lake.duckdb", "--table", "main.nix", "--save", "nix.yaml")
    assert 3 == result.exit_code
    assert "nix.yaml was not written" in result.stdout
    assert not (folder / "nix.yaml").exists()


@pytest.mark.parametrize("value", ["--write=mrege", "--proof=all"])
def test_copy_checks_its_options_like_a_manifest(folder: Path, dpone: Call, value: str) -> None:
    """A wrong word is refused before anything is opened."""
    result = dpone("copy", "shop.duckdb", "lake.duckdb", "--table", "main.orders", value)
    assert 2 == result.exit_code
    assert not (folder / "lake.duckdb").exists()


def test_copy_and_init_from_postgres_write_no_password(folder: Path, dpone: Call, pg: str) -> None:
    """The saved manifests hold a reference; with the variable set they run."""
    parts = urlsplit(pg)
    url = pg.replace("postgres@", "postgres:sw0rdfish@")
    assert parts.username == "postgres"
    with psycopg.connect(pg) as connection:
        connection.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO people VALUES (1, 'Ada'), (2, NULL), (3, '')")
    variable = {"DPONE_SOURCE_PASSWORD": "sw0rdfish"}

    copied = dpone("copy", f"{url}?table=public.people", "lake.duckdb", "--save", "people.yaml")
    assert 0 == copied.exit_code, copied.stderr
    assert ROWS == sql("lake.duckdb", "SELECT id, name FROM people ORDER BY id")
    drafted = dpone("init", "--source", url, "--sink", "lake.duckdb", "--yes")
    assert 0 == drafted.exit_code, drafted.stderr

    for name, result in (("people.yaml", copied), ("dpone.yaml", drafted)):
        assert "postgres:${env:DPONE_SOURCE_PASSWORD}@" in (folder / name).read_text()
        assert "set DPONE_SOURCE_PASSWORD" in result.stdout
        assert 2 == dpone("run", "-f", name).exit_code or 3 == dpone("run", "-f", name).exit_code
        assert 0 == dpone("run", "-f", name, env=variable).exit_code
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".duckdb"]
    assert [] == [path for path in written if "sw0rdfish" in path.read_text(errors="replace")]
    assert "sw0rdfish" not in copied.output + drafted.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders.csv", ({"connector": "files", "path": "orders.csv"}, "")),
        ("/data/orders.jsonl.gz", ({"connector": "files", "path": "/data/orders.jsonl.gz"}, "")),
        ("data/*.parquet", ({"connector": "files", "path": "data/*.parquet"}, "")),
        ("lake.duckdb?table=raw.o", ({"connector": "duckdb", "path": "lake.duckdb"}, "raw.o")),
        ("shop.db", ({"connector": "sqlite", "path": "shop.db"}, "")),
        ("postgres://h/db?table=a.b&sslmode=require", ("postgres://h/db?sslmode=require", "a.b")),
        ("sqlite:///shop.db?table=t%20x", ("sqlite:///shop.db", "t x")),
        ("warehouse", ("warehouse", "")),
    ],
)
def test_endpoint(text: str, expected: tuple[object, str]) -> None:
    """Files by their extension, URLs with or without a table, names as they are."""
    assert expected == endpoint(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:pw@h:5432/db", "postgres://u:${env:DPONE_SOURCE_PASSWORD}@h:5432/db"),
        ("postgres://u:p%40w@h/db?sslmode=require", "postgres://u:${env:DPONE_SOURCE_PASSWORD}@h/db?sslmode=require"),
        ("postgres://u:p@w@h/db", "postgres://u:${env:DPONE_SOURCE_PASSWORD}@h/db"),
        ("postgres://u:p/w@h/db", "postgres://u:${env:DPONE_SOURCE_PASSWORD}@h/db"),
        ("postgres://u:p?w#x@h/db", "postgres://u:${env:DPONE_SOURCE_PASSWORD}@h/db"),
        ("x://h/db?password=pw&a=1&api_key=k", "x://h/db?password=${env:DPONE_SOURCE_PASSWORD}&a=1&api_key=${env:DPONE_SOURCE_API_KEY}"),
        ("postgres://u:${env:PW}@h/db", "postgres://u:${env:PW}@h/db"),
        ("postgres://u@h:5432/db", "postgres://u@h:5432/db"),
        ("duckdb:///a:b@c.duckdb", "duckdb:///a:b@c.duckdb"),
        ("${env:SHOP_DB}", "${env:SHOP_DB}"),
    ],
)  # fmt: skip
def test_hide_password(url: str, expected: str) -> None:
    """No part of a password stays, even of one that should have been percent-encoded; references stay."""
    assert expected == hide_password(url, "SOURCE")[0]


def test_init_as_json(folder: Path, dpone: Call) -> None:
    """What was written, and what to do next, as one document."""
    result = dpone("init", "--example", "--file", "new.yaml", "--json")
    assert 0 == result.exit_code, result.stderr
    document = json.loads(result.stdout)
    assert ["written", "notes", "next"] == list(document)
    assert (folder / "new.yaml").exists()
