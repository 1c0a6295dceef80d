"""Bad input: everything that is wrong outside of dpone ends in one clear error, and costs nothing.

Each case spoils something, says what `dpone run` must answer, and mends it again. The test holds for all of them: the
documented exit code; exactly one error on stderr, of at most 8 lines, with its category, what is wrong, where, and what
to do; no traceback; no password; within 10 seconds. The target is then what it was, nothing staged is left, and after
mending the same command makes the target equal to the source.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dpone.cli import cli
from tests import services
from tests.services import Postgres, running_postgres

PASSWORD = "s3cret-Pa55"
LIMIT_S = 10.0
HEAD = re.compile(r"^(?:\S+Z )?✗ (\w+) \[(DP\d+)\] ")
MANIFEST_HEAD = re.compile(r"^error\[(DP\d+)\]: ")
SOURCE_ROWS = "SELECT id, note, total FROM orders"


def ask(url: str, *statements: str) -> list[Any]:
    """Run statements in one transaction; the rows of the last one, if it gives rows."""
    with psycopg.connect(url) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@dataclass
class Said:
    """How a command ended, and what it said."""

    exit: int
    stdout: str
    stderr: str
    seconds: float

    def errors(self) -> list[tuple[str, str, list[str]]]:
        """The errors on stderr: category, code, and their lines."""
        found: list[tuple[str, str, list[str]]] = []
        for line in self.stderr.splitlines():
            if head := HEAD.match(line):
                found.append((head[1], head[2], [line]))
            elif head := MANIFEST_HEAD.match(line):
                found.append(("config", head[1], [line]))
            elif found and (line.startswith(" ") or found[-1][2][0].startswith("error[")):
                found[-1][2].append(line)
        return found


@dataclass
class Lab:
    """A source, a sink and a manifest that can be spoiled. Without more, both are databases of one Postgres server."""

    folder: Path
    source: str
    sink: str
    expect: Callable[[], list[Any]] | None = None
    prefix: tuple[str, ...] = ()
    roles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = self.source
        self.into = self.sink
        ask(
            self.source,
            "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2))",
            "INSERT INTO orders SELECT n, 'note ' || n, n / 4.0 FROM generate_series(1, 20) AS n",
        )

    # -- before a run ------------------------------------------------------------------------------------------

    def manifest(
        self, *, source: Any = None, sink: Any = None, stream: str = "public.orders", **settings: Any
    ) -> Path:
        """Write the manifest."""
        path = self.folder / "dpone.yaml"
        document = {"version": 1, "pipeline": "bad", "source": source or self.source, "sink": sink or self.sink}
        path.write_text(json.dumps(document | {"streams": {stream: settings or None}}, indent=1))
        return path

    def loaded(self, **manifest: Any) -> None:
        """A good run, and then a source that has changed: whatever a failing run writes would be seen."""
        self.manifest(**manifest)
        said = self.run()
        assert 0 == said.exit, said.stderr
        self.change()

    def change(self) -> None:
        """Change, add and delete rows at the source."""
        ask(
            self.admin,
            "UPDATE orders SET note = 'changed' WHERE id % 3 = 0",
            "INSERT INTO orders VALUES (100, 'new', 1)",
            "DELETE FROM orders WHERE id = 7",
        )

    def role(self, *grants: str, url: str = "") -> str:
        """The URL of a new role without privileges but these (`{}` is its name)."""
        name = f"r{uuid.uuid4().hex[:12]}"
        self.roles.append(name)
        url = url or self.source
        ask(url, f"CREATE ROLE {name} LOGIN", *(grant.format(name) for grant in grants))
        return url.replace("postgres://postgres@", f"postgres://{name}@")

    def drop_roles(self) -> None:
        """Roles belong to the server, not to a database."""
        for name in self.roles:
            for url in (self.admin, self.into):
                if url.startswith("postgres://"):
                    ask(url, f"REASSIGN OWNED BY {name} TO postgres", f"DROP OWNED BY {name}")
            ask(self.admin, f"DROP ROLE {name}")

    # -- a run -------------------------------------------------------------------------------------------------

    def run(self, *words: str, process: bool = False) -> Said:
        """`dpone run`, or another command, in this process or as one of its own."""
        command = list(words or ("run",))
        started = time.monotonic()
        if process or self.prefix:
            done = subprocess.run(
                [*self.prefix, sys.executable, "-m", "dpone", *command],
                capture_output=True,
                text=True,
                env=environment(),
                cwd=self.folder,
                check=False,
            )
            return Said(done.returncode, done.stdout, done.stderr, time.monotonic() - started)
        result = CliRunner().invoke(cli, command, prog_name="dpone")
        return Said(result.exit_code, result.stdout, result.stderr, time.monotonic() - started)

    # -- after a run -------------------------------------------------------------------------------------------

    def wanted(self) -> list[Any]:
        """The rows that a good run brings to the target."""
        return rows(self.expect() if self.expect else ask(self.admin, SOURCE_ROWS))

    def target(self) -> Any:
        """The rows of the target, or None; the bytes of a file that is no database."""
        path = Path(self.into.partition(":///")[2])
        if self.into.startswith("postgres:"):
            [(there,)] = ask(self.into, "SELECT to_regclass('orders') IS NOT NULL")
            return rows(ask(self.into, SOURCE_ROWS)) if there else None
        if not path.exists():
            return None
        try:
            return rows(local(self.into, SOURCE_ROWS))
        except (duckdb.CatalogException, sqlite3.OperationalError):
            return None
        except (duckdb.Error, sqlite3.DatabaseError):
            return path.read_bytes()

    def debris(self) -> list[str]:
        """Staging tables and lock files in the sink."""
        if self.into.startswith("postgres:"):
            return [name for (name,) in ask(self.into, "SELECT relname FROM pg_class WHERE relname ~ '^_dpone_stage'")]
        path = Path(self.into.partition(":///")[2])
        left = [found.name for found in path.parent.glob(f"{path.name}.dpone*")]
        catalog = "duckdb_tables()" if self.into.startswith("duckdb:") else "sqlite_master"
        column = "table_name" if self.into.startswith("duckdb:") else "name"
        with contextlib.suppress(duckdb.Error, sqlite3.Error):
            left += [str(name) for (name,) in local(self.into, f"SELECT {column} FROM {catalog}") if "stage" in name]
        return left


def local(url: str, query: str) -> list[Any]:
    """Ask a DuckDB or SQLite file, which is not created by that."""
    kind, _, path = url.partition(":///")
    if kind == "duckdb":
        with duckdb.connect(path, read_only=True) as connection:
            return connection.execute(query).fetchall()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def rows(found: list[Any]) -> list[Any]:
    """Rows that compare alike whatever system they came from."""
    return sorted(tuple(None if value is None else str(value) for value in row) for row in found)


def environment() -> dict[str, str]:
    """The environment of a process that runs the dpone of this tree."""
    source = str(Path(sys.modules["dpone"].__file__ or "").parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))}


@dataclass(frozen=True)
class Case:
    """One way to spoil things. `spoil` yields where the failing run has to happen and mends after it."""

    spoil: Callable[[Lab], Iterator[None]]
    category: str
    code: str
    exit: int
    says: tuple[str, ...]
    process: bool = False


CASES: list[Case] = []
Spoil = Callable[[Lab], Iterator[None]]


def case(category: str, code: str, exit_code: int, *says: str, process: bool = False) -> Callable[[Spoil], Spoil]:
    """Register a case: what the error must be, and words that it must say."""

    def register(spoil: Spoil) -> Spoil:
        CASES.append(Case(spoil, category, code, exit_code, says, process))
        return spoil

    return register


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg: str, pg2: str) -> Iterator[Lab]:
    """A fresh one, in its own folder."""
    monkeypatch.chdir(tmp_path)
    made = Lab(tmp_path, pg, pg2)
    yield made
    made.drop_roles()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spoil.__name__)
def test_bad_input(case: Case, lab: Lab) -> None:
    """See the cases."""


# -- connecting ------------------------------------------------------------------------------------------------------
