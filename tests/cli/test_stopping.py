"""SIGTERM and Ctrl-C end a run within ten seconds, whatever it is waiting for, with a record that says cancelled."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

import dpone
from dpone.testing.faults import Proxy
from tests.cli.conftest import environment, start

LIMIT = 10.0

pytestmark = pytest.mark.usefixtures("folder")


def manifest(source: Any, sink: Any, stream: str, **settings: Any) -> None:
    """One stream without a record of the past."""
    document = {"version": 1, "pipeline": "stop", "source": source, "sink": sink, "streams": {stream: settings}}
    Path("dpone.yaml").write_text(json.dumps(document))


def ends(
    ready: Callable[[], bool],
    number: signal.Signals = signal.SIGTERM,
    *,
    record: bool = True,
    process: subprocess.Popen[str] | None = None,
) -> tuple[int, float, dict[str, Any]]:
    """Run, send the signal once it is where it is to be; the exit code, the seconds it took, and the record."""
    process = process or start("run", "--log-format", "json")
    lines: list[str] = []
    assert process.stderr
    reader = threading.Thread(target=lines.extend, args=(process.stderr,))
    reader.start()
    try:
        deadline = time.monotonic() + 30
        while not ready():
            assert process.poll() is None, lines
            assert time.monotonic() < deadline, lines
            time.sleep(0.05)
        time.sleep(0.3)
        sent = time.monotonic()
        process.send_signal(number)
        process.wait(timeout=30)
        took = time.monotonic() - sent
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        reader.join()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
    found = json.loads(max(Path(".dpone/runs").glob("*/run.json")).read_text()) if record else {}
    return process.returncode, took, found


def seen(event: str) -> bool:
    """Whether the newest run has come to this event."""
    return any(f'"{event}"' in path.read_text() for path in Path(".dpone/runs").glob("*/events.ndjson"))


def cancelled(found: tuple[int, float, dict[str, Any]], code: int = 143) -> None:
    """It ended in time, with its exit code and its record."""
    assert code == found[0]
    assert found[1] < LIMIT
    assert ("cancelled", "cancelled") == (found[2]["status"], found[2]["streams"][0]["status"])


def asked(url: str, question: str) -> bool:
    """What a server says of its sessions."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchone() is not None


def working(url: str, word: str) -> Callable[[], bool]:
    """Whether a statement of dpone with this word is at work there."""
    database = url.rpartition("/")[2]
    return lambda: asked(
        url,
        f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'dpone' "
        f"AND state = 'active' AND query ILIKE '%{word}%'",
    )


def gone(url: str) -> bool:
    """Whether no session of dpone is left: nothing holds the stream, the next run can begin."""
    database = url.rpartition("/")[2]
    for _ in range(50):
        if not asked(
            url, f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'dpone'"
        ):
            return True
        time.sleep(0.1)
    return False


def rows(url: str, statement: str) -> None:
    """Run statements there."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.fixture
def table(pg: str) -> str:
    """A server with a table of 1,000 rows."""
    rows(pg, "CREATE TABLE t AS SELECT i AS id, repeat('x', 100) AS note FROM generate_series(1, 1000) AS r(i)")
    return pg


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_while_a_table_is_locked(table: str, number: signal.Signals, code: int) -> None:
    """The source waits for ACCESS EXCLUSIVE to end: the server is asked to give up, and its session is gone."""
    manifest(table, "duckdb:///lake.duckdb", "public.t", write="replace")
    with psycopg.connect(table) as holder:
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        cancelled(ends(working(table, "EXPLAIN"), number), code)
    assert gone(table)
    assert dpone.run("dpone.yaml").ok


def test_while_a_slow_query_looks_for_its_first_row(table: str) -> None:
    """COPY waits, no row is on its way."""
    manifest(table, "duckdb:///lake.duckdb", "public.t", write="replace", filter="id = 1 AND pg_sleep(60) IS NULL")
    cancelled(ends(working(table, "COPY")))
    assert gone(table)


def test_while_the_sink_publishes(table: str, pg2: str) -> None:
    """A slow trigger of the target: the commit is cancelled, the target is as it was, the next run publishes."""
    rows(pg2, "CREATE TABLE t (id int PRIMARY KEY, note text)")
    rows(
        pg2,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    )
    manifest(table, pg2, "public.t", write="merge", primary_key=["id"])
    cancelled(ends(lambda: seen("load.committing")))
    assert gone(pg2)
    assert not asked(pg2, "SELECT 1 FROM t")
    rows(pg2, "DROP TRIGGER slow ON t")
    stream = dpone.run("dpone.yaml").streams[0]
    assert (None, 1) == (stream.failure, stream.slices["resumed"])
    assert asked(pg2, "SELECT 1 FROM t HAVING count(*) = 1000")


@contextlib.contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a server, and the URL through it."""
    found = psycopg.conninfo.conninfo_to_dict(url.replace("postgres://", "postgresql://"))
    with Proxy((str(found["host"]), int(str(found["port"])))) as proxy:
        yield proxy, url.replace(f":{found['port']}/", f":{proxy.address[1]}/")


def silent(proxy: Proxy) -> Callable[[], bool]:
    """Whether bytes came, and then none for a second."""
    last = [0, time.monotonic()]

    def ready() -> bool:
        total = sum(proxy.passed.values())
        if total != last[0]:
            last[:] = [total, time.monotonic()]
        return total > 0 and time.monotonic() - last[1] > 1

    return ready


@pytest.mark.parametrize(
    ("side", "direction", "size"),
    [
        ("source", "down", 700),
        ("source", "up", 1500),
        ("source", "down", 60_000),
        ("sink", "down", 700),
        ("sink", "down", 2500),
        ("sink", "up", 1500),
        ("sink", "up", 60_000),
    ],
)
def test_while_a_server_is_silent(table: str, pg2: str, side: str, direction: Any, size: int) -> None:
    """The network swallows everything from some byte on, of a statement or of the rows; a wish to cancel too."""
    with proxied(table if side == "source" else pg2) as (proxy, through):
        source, sink = (through, pg2) if side == "source" else (table, through)
        manifest(source, sink, "public.t", write="replace")
        proxy.stall_after(size, direction)
        cancelled(ends(silent(proxy)))


@pytest.mark.parametrize("side", ["source", "sink"])
def test_while_nobody_answers_a_connection(table: str, pg2: str, side: str) -> None:
    """connect_timeout may be a minute: it is not waited for."""
    with proxied(table if side == "source" else pg2) as (proxy, through):
        proxy.black_hole()
        deaf = f"{through}?connect_timeout=60"
        manifest(*((deaf, pg2) if side == "source" else (table, deaf)), "public.t")
        cancelled(ends(lambda: proxy.connections > 0))


def test_while_a_glob_is_looked_up_on_a_silent_server(table: str) -> None:
    """Before anything was begun: the exit code says so, and there is nothing to record."""
    with proxied(table) as (proxy, through):
        proxy.stall_after(400, "down")
        manifest(through, "duckdb:///lake.duckdb", "public.*")
        code, took, _ = ends(lambda: proxy.connections > 0, record=False)
        assert (143, True) == (code, took < LIMIT)


def test_while_a_retry_waits(table: str) -> None:
    """A server that is not there: the run is in the ladder's wait."""
    with proxied(table) as (proxy, through):
        proxy.refuse(1000)
        manifest(through, "duckdb:///lake.duckdb", "public.t")
        cancelled(ends(lambda: proxy.refused > 2))


def endless(path: str) -> None:
    """A view that has no end in this life."""
    if path.endswith(".duckdb"):
        with duckdb.connect(path) as connection:
            connection.execute("CREATE VIEW v AS SELECT count(*) AS n FROM range(3000000) a, range(3000000) b")
        return
    with contextlib.closing(sqlite3.connect(path)) as lite:
        lite.execute(
            "CREATE VIEW v AS WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) "
            "SELECT CAST(count(*) AS INTEGER) AS n FROM r"
        )
        lite.commit()


@pytest.mark.parametrize("path", ["endless.duckdb", "endless.sqlite"])
def test_while_an_embedded_database_computes(path: str) -> None:
    """The library is in one call that does not come back; it is interrupted."""
    endless(path)
    stream = "v" if path.endswith("sqlite") else "main.v"
    scheme = path.rpartition(".")[2]
    columns = {"columns": {"cast": {"n": "int64"}}} if scheme == "sqlite" else {}
    manifest(f"{scheme}:///{path}", "duckdb:///lake.duckdb", stream, write="replace", **columns)
    cancelled(ends(lambda: seen("stream.started")))


@pytest.fixture
def locked(folder: Path) -> Iterator[None]:
    """A SQLite target that another program keeps writing to."""
    with contextlib.closing(sqlite3.connect(folder / "lake.sqlite", isolation_level=None)) as holder:
        holder.execute("CREATE TABLE other (a)")
        holder.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.usefixtures("locked")
def test_while_another_program_writes_to_the_file() -> None:
    """SQLite's own wait cannot be ended; dpone's can."""
    manifest("duckdb:///shop.duckdb", "sqlite:///lake.sqlite", "main.countries")
    cancelled(ends(lambda: seen("stream.planned")))


def test_a_second_ctrl_c_ends_it_at_once_with_a_record(table: str) -> None:
    """Whatever the first one waits for: within a second, and the record says cancelled, not running."""
    with proxied(table) as (proxy, through):
        proxy.stall_after(3000, "down")
        manifest(through, "duckdb:///lake.duckdb", "public.t")
        process = start("run", "--log-format", "json")
        while not seen("stream.started"):
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.7)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert time.monotonic() - sent < 1
    assert 130 == process.returncode
    [path] = Path(".dpone/runs").glob("*/run.json")
    assert "cancelled" == json.loads(path.read_text())["status"]


_STUCK = """
import time
from dpone.cli import main
from dpone.connectors.duckdb.source import DuckDBSource
DuckDBSource.describe = lambda self, stream: time.sleep(600)
main()
"""


def test_a_call_that_does_not_come_back_ends_with_the_process() -> None:
    """A library that is stuck and cannot be interrupted: the process ends all the same, and there is a record."""
    manifest("duckdb:///shop.duckdb", "duckdb:///lake.duckdb", "main.countries")
    stuck = subprocess.Popen(
        [sys.executable, "-c", _STUCK, "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    cancelled(ends(lambda: seen("stream.started"), process=stuck))
