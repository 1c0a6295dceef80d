"""The server that the harness of PostgreSQL, and every test that needs one, stands on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from dpone.connectors.postgres.server import Server


def test_each_database_is_fresh_and_has_an_odd_time_zone(pg: str, pg2: str) -> None:
    """`pg` and `pg2` are two empty databases whose sessions are not in UTC."""
    assert pg != pg2
    for url in (pg, pg2):
        with psycopg.connect(url) as connection:
            tables = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
            assert (0,) == tables
            assert ("Asia/Kolkata",) == connection.execute("show timezone").fetchone()


def test_a_database_is_dropped_with_all_that_hangs_on_it(postgres: Server) -> None:
    """An open session, a prepared transaction and a replication slot do not keep a test's database alive."""
    with postgres.database() as url:
        left_open = psycopg.connect(url)
        left_open.execute("select 1")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("select pg_create_logical_replication_slot('held', 'test_decoding')")
            connection.execute("begin")
            connection.execute("create table held (x int)")
            connection.execute("prepare transaction 'held'")
    left_open.close()
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres.url()) as connection:
        found = connection.execute("select count(*) from pg_database where datname = %s", [name]).fetchone()
        assert (0,) == found


def test_a_killed_test_process_leaves_no_server_behind() -> None:
    """SIGKILL of the process that started a server ends the server and removes its directory."""
    program = (
        "from dpone.connectors.postgres.server import server\n"
        "found = server()\n"
        "print(found.port, found.home, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "DPONE_TEST_POSTGRES_URL"},
    ) as process:
        assert process.stdout is not None
        port, home = process.stdout.readline().split()
        assert (True, True) == (Path(home).exists(), _answers(int(port)))
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (Path(home).exists() or _answers(int(port))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (False, False) == (Path(home).exists(), _answers(int(port)))


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
