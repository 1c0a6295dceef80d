"""Disposable servers for tests: started when a test first asks, gone when the test process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

# No test may pass only because everybody happens to live in UTC. conftest.py sets yet another zone for the process.
SERVER_TIME_ZONE = "Asia/Kolkata"

# fsync and full_page_writes only matter when the machine itself dies. synchronous_commit stays on: without it logical
# decoding, which reads flushed WAL only, seems to miss changes.
# https://www.postgresql.org/docs/current/runtime-config-wal.html
POSTGRES_CONF = """
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
wal_level = logical
max_wal_senders = 8
max_replication_slots = 8
max_prepared_transactions = 8
max_connections = 100
shared_buffers = 32MB
"""

# Lives as long as the pipe from the test process: `cat` ends at the end of its input, which comes with a SIGKILL too.
WATCHER = """
cat >/dev/null
"$1/pg_ctl" stop --pgdata "$2/data" --mode immediate >/dev/null 2>&1
rm -rf "$2"
"""


def unavailable(service: str, remedy: str) -> NoReturn:
    """Skip the test; fail it instead where DPONE_TEST_REQUIRE_SERVICES=1, so that CI never looks green untested."""
    message = f"{service} is not available: {remedy}"
    if os.environ.get("DPONE_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(message)
    pytest.skip(message)


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server and a superuser on it."""

    host: str
    port: int
    user: str
    password: str = ""

    def url(self, dbname: str = "postgres") -> str:
        """A connection URL of one of its databases."""
        login = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        return f"postgres://{login}@{self.host}:{self.port}/{dbname}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, empty database, dropped afterwards with all that still hangs on it."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("alter database {} set timezone to {}").format(sql.Identifier(name), SERVER_TIME_ZONE)
            )
        try:
            yield self.url(name)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Drop a database; prepared transactions and replication slots would refuse it even with FORCE.

        https://www.postgresql.org/docs/current/sql-dropdatabase.html
        """
        with psycopg.connect(self.url(name), autocommit=True) as inside:
            for (gid,) in inside.execute("select gid from pg_prepared_xacts where database = %s", [name]).fetchall():
                inside.execute(sql.SQL("rollback prepared {}").format(gid))
        with psycopg.connect(self.url(), autocommit=True) as outside:
            outside.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where database = %s and active_pid is not null",
                [name],
            )
            outside.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s", [name]
            )
            outside.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """The server named by DPONE_TEST_POSTGRES_URL (a superuser's URL), else a private one."""
    if url := os.environ.get("DPONE_TEST_POSTGRES_URL"):
        parts = urlsplit(url)
        yield Postgres(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
        )
        return
    binaries = _postgres_binaries()
    as_owner = _owner()
    with _watched_directory(binaries, as_owner) as home:
        settings = ("--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")
        _run(as_owner, binaries / "initdb", "--pgdata", home / "data", *settings)
        with (home / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"{POSTGRES_CONF}unix_socket_directories = '{home}'\n")
        yield Postgres(host="127.0.0.1", port=_start(binaries, home, as_owner), user="postgres")


def _postgres_binaries() -> Path:
    """The folder of initdb and pg_ctl: on the PATH, else the newest that Debian's packages put beside it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = shutil.which("initdb") or next(reversed(debian), None)
    if found is None:
        unavailable("PostgreSQL", "install the package postgresql, or set DPONE_TEST_POSTGRES_URL")
    return Path(found).resolve().parent


def _owner() -> dict[str, Any]:
    """How to run a program as somebody whom initdb accepts: it refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        unavailable("PostgreSQL", "root cannot run a server and there is no user postgres; set DPONE_TEST_POSTGRES_URL")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def _watched_directory(binaries: Path, as_owner: dict[str, Any]) -> Iterator[Path]:
    """A directory, in memory where possible, that a watcher removes together with the server in it."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - mkdtemp makes a private name in it
    home = Path(tempfile.mkdtemp(prefix="dpone-test-", dir=base))
    if as_owner:
        os.chown(home, as_owner["user"], as_owner["group"])
    with subprocess.Popen(
        ["/bin/sh", "-c", WATCHER, "watcher", binaries, home],
        stdin=subprocess.PIPE,  # closed by the end of this block, or of this process
        cwd="/",
        start_new_session=True,  # Ctrl-C in the terminal must not reach it before the server is stopped
        **as_owner,
    ):
        yield home


def _start(binaries: Path, home: Path, as_owner: dict[str, Any], attempts: int = 3) -> int:
    """Start the server on a free port and return it. Another process may take the port in between: then once more."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        try:
            files = ("--pgdata", home / "data", "--log", home / "log")
            _run(as_owner, binaries / "pg_ctl", "start", "--wait", "--timeout", "60", *files, "--options", f"-p {port}")
        except RuntimeError as error:
            attempts -= 1
            if not attempts:
                log = home / "log"
                error.add_note(log.read_text() if log.exists() else "the server wrote no log")
                raise
        else:
            return port


def _run(as_owner: dict[str, Any], *command: str | Path) -> None:
    """Run a program as the owner, in a fixed environment, and raise what it said when it does not succeed."""
    # To a file and not through a pipe: the server that pg_ctl leaves behind would hold the pipe open.
    with tempfile.TemporaryFile("w+") as output:
        code = subprocess.call(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            **as_owner,
        )
        if code:
            output.seek(0)
            message = f"{command[0]} ended with {code}: {output.read()}"
            raise RuntimeError(message)
