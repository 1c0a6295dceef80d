"""A disposable PostgreSQL server for the harness: started when it is first asked for, gone when the process ends.

However the process ends: a watcher that lives in a process of its own stops the server and removes its files.
DPONE_TEST_POSTGRES_URL, the URL of a superuser, names a running server to use instead.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg import sql

from dpone.errors import ConfigError

# No test may pass only because everybody happens to live in UTC.
TIME_ZONE = "Asia/Kolkata"

ASKED = "dpone_asked"
"""Members of this role must give their password on a private server; everybody else is let in."""

# fsync and full_page_writes only matter when the machine itself dies. synchronous_commit stays on: without it logical
# decoding, which reads flushed WAL only, seems to miss changes.
# https://www.postgresql.org/docs/current/runtime-config-wal.html
_CONF = """
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

_HBA = f"""
local all all trust
host all +{ASKED} all scram-sha-256
host all all all trust
"""

# Lives as long as the pipe from the process: `cat` ends at the end of its input, which comes with a SIGKILL too.
_WATCHER = """
cat >/dev/null
"$1/pg_ctl" stop --pgdata "$2/data" --mode immediate >/dev/null 2>&1
rm -rf "$2"
"""


class Server:
    """A running server and a superuser on it."""

    def __init__(self, host: str, port: int, user: str, password: str = "") -> None:
        self.host = host
        self.port = port
        self.user = user
        self.password = password

    def url(self, dbname: str = "postgres") -> str:
        """A connection URL of one of its databases."""
        login = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        return f"postgres://{login}@{self.host}:{self.port}/{dbname}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, empty database, dropped afterwards with all that still hangs on it."""
        name = self.create_database()
        try:
            yield self.url(name)
        finally:
            self.drop_database(name)

    def create_database(self) -> str:
        """The name of a fresh, empty database whose sessions are not in UTC."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("alter database {} set timezone to {}").format(sql.Identifier(name), TIME_ZONE))
        return name

    def drop_database(self, name: str) -> None:
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


class PrivateServer(Server):
    """A server of this process. Raises ConfigError when PostgreSQL is not installed, or root has nobody to run it as.

    `owner` is the user and the group that it runs as, where that is not our own.
    """

    def __init__(self) -> None:
        self._binaries = _binaries()
        self._as_owner = _owner()
        self.owner: tuple[int, int] | None = (
            (self._as_owner["user"], self._as_owner["group"]) if self._as_owner else None
        )
        self.home = self._directory()
        self._pid = os.getpid()
        self._watcher = subprocess.Popen(  # noqa: S603 - a script of our own, paths of our own
            ["/bin/sh", "-c", _WATCHER, "watcher", self._binaries, self.home],
            stdin=subprocess.PIPE,  # closed by `close`, or by the end of this process
            cwd="/",
            start_new_session=True,  # Ctrl-C in the terminal must not reach it before the server is stopped
            **self._as_owner,
        )
        atexit.register(self.close)
        settings = ("--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")
        self._run("initdb", "--pgdata", self.home / "data", *settings)
        with (self.home / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"{_CONF}unix_socket_directories = '{self.home}'\n")
        (self.home / "data" / "pg_hba.conf").write_text(_HBA)
        super().__init__("127.0.0.1", self._start_somewhere(), "postgres")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(ASKED)))

    def stop(self) -> None:
        """Stop as a crash would: no session is asked, nothing is written any more."""
        self._run("pg_ctl", "stop", "--pgdata", self.home / "data", "--mode", "immediate")

    def start(self) -> None:
        """Start again, at the same address."""
        self._start(self.port)

    def close(self) -> None:
        """Take the server and its files away. Safe to call twice; a child of this process leaves them alone."""
        if os.getpid() == self._pid:
            self._watcher.communicate()
            atexit.unregister(self.close)

    def _directory(self) -> Path:
        """A directory, in memory where possible."""
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - mkdtemp makes a private name in it
        home = Path(tempfile.mkdtemp(prefix="dpone-test-", dir=base))
        if self.owner is not None:
            os.chown(home, *self.owner)
        return home

    def _start_somewhere(self, attempts: int = 3) -> int:
        """Start on a free port and return it. Another process may take the port in between: then once more."""
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            try:
                self._start(port)
            except RuntimeError as error:
                attempts -= 1
                if not attempts:
                    log = self.home / "log"
                    error.add_note(log.read_text() if log.exists() else "the server wrote no log")
                    raise
            else:
                return port

    def _start(self, port: int) -> None:
        files = ("--pgdata", self.home / "data", "--log", self.home / "log")
        self._run("pg_ctl", "start", "--wait", "--timeout", "60", *files, "--options", f"-p {port}")

    def _run(self, program: str, *arguments: str | Path) -> None:
        """Run a program as the owner, in a fixed environment, and raise what it said when it does not succeed."""
        # To a file and not through a pipe: the server that pg_ctl leaves behind would hold the pipe open.
        with tempfile.TemporaryFile("w+") as output:
            code = subprocess.call(  # noqa: S603 - a program of PostgreSQL, arguments of our own
                [self._binaries / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                **self._as_owner,
            )
            if code:
                output.seek(0)
                message = f"{program} ended with {code}: {output.read()}"
                raise RuntimeError(message)


@functools.cache
def server() -> Server:
    """The server of this process: the one that DPONE_TEST_POSTGRES_URL names, else a private one, made once."""
    if url := os.environ.get("DPONE_TEST_POSTGRES_URL"):
        parts = urlsplit(url)
        return Server(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
        )
    return PrivateServer()


def _binaries() -> Path:
    """The folder of initdb and pg_ctl: on the PATH, else the newest that Debian's packages put beside it."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = shutil.which("initdb") or next(reversed(debian), None)
    if found is None:
        raise ConfigError(
            "PostgreSQL is not installed here",
            remedy="apt-get install postgresql, or set DPONE_TEST_POSTGRES_URL to a superuser's URL",
            code="DP110",
        )
    return Path(found).resolve().parent


def _owner() -> dict[str, Any]:
    """How to run a program as somebody whom initdb accepts: it refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise ConfigError(
            "root cannot run a PostgreSQL server, and there is no user postgres",
            remedy="useradd postgres, or set DPONE_TEST_POSTGRES_URL to a superuser's URL",
            code="DP110",
        ) from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
