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
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dpone.cli import cli
from dpone.connectors.postgres.server import ASKED, PrivateServer
from dpone.errors import ConfigError
from dpone.testing.kit import unavailable

PASSWORD = "s3cret-Pa55"
LIMIT_S = 10.0
REFUSED = 3
HEAD = re.compile(r"^(?:\S+Z )?✗ (\w+) \[(DP\d+)\] ")
MANIFEST_HEAD = re.compile(r"^error\[(DP\d+)\]: ")
ORDERS = (
    "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2))",
    "INSERT INTO orders SELECT n, 'note ' || n, n / 4.0 FROM generate_series(1, 20) AS n",
)
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
    prefix: tuple[str, ...] = ()  # words before the command
    meanwhile: Callable[[], None] | None = None  # what happens while the failing run works
    after: Callable[[], None] | None = None  # what happens right after it
    own: Callable[[], PrivateServer] | None = None
    roles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = self.source
        self.into = self.sink
        ask(self.source, *ORDERS)

    # -- before a run ------------------------------------------------------------------------------------------

    def manifest(self, *, source: Any = None, sink: Any = None, stream: str = "public.orders", **settings: Any) -> Path:
        """Write the manifest."""
        path = self.folder / "dpone.yaml"
        document = {"version": 1, "pipeline": "bad", "source": source or self.source, "sink": sink or self.sink}
        path.write_text(json.dumps(document | {"streams": {stream: settings or None}}, indent=1))
        return path

    def to(self, connector: str) -> str:
        """Write into a file of this connector from now on; its URL."""
        self.sink = self.into = f"{connector}:///{self.folder}/lake.{connector}"
        return self.sink

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
            f"UPDATE orders SET note = 'changed {PASSWORD}' WHERE id % 3 = 0",
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

    def debris(self, *, resumable: bool = False) -> list[str]:
        """Staging tables and lock files in the sink; with `resumable` those of an open load do not count."""
        left = []
        if self.into.startswith("postgres:"):
            find = partial(ask, self.into)
            catalog = "SELECT relname FROM pg_class WHERE relkind = 'r'"
        else:
            path = Path(self.into.partition(":///")[2])
            left += [found.name for found in path.parent.glob(f"{path.name}.dpone*")]
            find = partial(local, self.into)
            catalog = "SELECT table_name FROM duckdb_tables()"
            if self.into.startswith("sqlite:"):
                catalog = "SELECT name FROM sqlite_master"
        with contextlib.suppress(duckdb.Error, sqlite3.Error):
            tables = [str(name) for (name,) in find(catalog)]
            left += [name for name in tables if name.startswith("_dpone_stage")]
            if resumable and "_dpone_loads" in tables:
                loads = find("SELECT load_id FROM _dpone_loads WHERE status = 'open'")
                left = [name for name in left if name not in {f"_dpone_stage_{load[:16]}" for (load,) in loads}]
        return left


def local(url: str, query: str) -> list[Any]:
    """Ask a DuckDB or SQLite file, which is not created by that."""
    kind, _, path = url.partition(":///")
    if kind == "duckdb":
        with duckdb.connect(path, read_only=True) as connection:
            return connection.execute(query).fetchall()
    file = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return file.execute(query).fetchall()
    finally:
        file.close()


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


@pytest.fixture(scope="module")
def own() -> Iterator[PrivateServer]:
    """A server of our own, to be reconfigured and killed."""
    try:
        made = PrivateServer()
    except ConfigError as error:
        unavailable(f"{error.message}: {error.remedy}")
    yield made
    made.close()


@pytest.fixture
def lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg: str, pg2: str, request: pytest.FixtureRequest
) -> Iterator[Lab]:
    """A fresh one, in its own folder."""
    monkeypatch.chdir(tmp_path)
    made = Lab(tmp_path, pg, pg2, own=lambda: request.getfixturevalue("own"))
    yield made
    made.drop_roles()


def check(case: Case, said: Said) -> None:
    """What every answer to bad input is like."""
    assert case.exit == said.exit, said.stderr
    [(category, code, lines)] = said.errors()
    assert (case.category, case.code) == (category, code), said.stderr
    assert len(lines) <= 8
    text = " ".join(line.strip() for line in lines)
    assert [] == [words for words in case.says if words not in text], text
    starts = {line.split()[0] for line in lines if line.strip()}
    assert starts & {"at", "-->"}, f"says not where: {text}"
    assert starts & {"fix:", "="}, f"says not what to do: {text}"
    assert "Traceback" not in said.stderr
    assert PASSWORD not in said.stdout + said.stderr
    assert said.seconds < LIMIT_S


@contextlib.contextmanager
def doing(act: Callable[[], None] | None) -> Iterator[None]:
    """Do something in a thread beside the block; what it raises is raised here."""
    if act is None:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(act)
        yield
        beside.result()


# -- connecting ------------------------------------------------------------------------------------------------------


def locked(lab: Lab) -> tuple[str, str]:
    """A database on a server that asks the role `locked` for a password: its superuser's URL, and that role's."""
    assert lab.own is not None
    server = lab.own()
    url = server.url("locked")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'locked'").fetchall():
            connection.execute("CREATE DATABASE locked")
            connection.execute(f"CREATE ROLE locked LOGIN SUPERUSER PASSWORD '{PASSWORD}' IN ROLE {ASKED}")
    ask(url, "DROP TABLE IF EXISTS orders, _dpone_meta, _dpone_locks, _dpone_loads, _dpone_slices, _dpone_runs")
    return url, url.replace("postgres://postgres@", f"postgres://locked:{PASSWORD}@")


@case("auth", "DP200", 1, "connecting to 127.0.0.1", "password authentication failed", process=True)
def wrong_password_at_the_source(lab: Lab) -> Iterator[None]:
    """The source does not accept the password."""
    lab.admin, lab.source = locked(lab)
    ask(lab.admin, *ORDERS)
    lab.to("duckdb")
    lab.loaded()
    lab.manifest(source=lab.source.replace(PASSWORD, PASSWORD + "x"))
    yield
    lab.manifest()


@case("auth", "DP200", 1, "connecting to 127.0.0.1", "password authentication failed")
def wrong_password_in_the_sink(lab: Lab) -> Iterator[None]:
    """The sink does not accept the password, which comes from the environment."""
    lab.into, lab.sink = locked(lab)
    lab.loaded()
    (lab.folder / ".env").write_text(f"SHOP_PASSWORD={PASSWORD}x\n")
    lab.manifest(sink=lab.sink.replace(PASSWORD, "${env:SHOP_PASSWORD}"))
    yield
    (lab.folder / ".env").write_text(f"SHOP_PASSWORD={PASSWORD}\n")


@case("config", "DP107", 2, "SHOP_PASSWORD is not set", "dpone.yaml:4:")
def a_secret_that_is_not_there(lab: Lab) -> Iterator[None]:
    """The manifest refers to a variable that nobody has set."""
    lab.manifest(source=lab.source.replace("postgres@", "postgres:${env:SHOP_PASSWORD}@"))
    yield
    (lab.folder / ".env").write_text(f"SHOP_PASSWORD={PASSWORD}\n")


@case("source_unavailable", "DP300", 1, "connecting to 127.0.0.1:1/", "refused", process=True)
def a_source_that_refuses(lab: Lab) -> Iterator[None]:
    """Nobody listens at the port of the source."""
    lab.loaded()
    lab.manifest(source=f"postgres://postgres:{PASSWORD}@127.0.0.1:1/shop")
    yield
    lab.manifest()


@case("sink_unavailable", "DP310", 1, "connecting to 127.0.0.1:1/", "refused")
def a_sink_that_refuses(lab: Lab) -> Iterator[None]:
    """Nobody listens at the port of the sink."""
    lab.manifest(sink=f"postgres://postgres:{PASSWORD}@127.0.0.1:1/shop")
    yield
    lab.manifest()


@case("source_unavailable", "DP300", 1, "nowhere.invalid:5432")
def a_name_that_does_not_resolve(lab: Lab) -> Iterator[None]:
    """The host name of the source is unknown."""
    lab.manifest(source=f"postgres://postgres:{PASSWORD}@nowhere.invalid/shop")
    yield
    lab.manifest()


@case("source_unavailable", "DP300", 1, "timeout")
def a_host_that_stays_silent(lab: Lab) -> Iterator[None]:
    """The source takes the connection and never answers; that is not tried three times over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lab.manifest(source=f"postgres://postgres:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/shop?sslmode=disable")
        yield
    lab.manifest()


@case("config", "DP100", 2, 'database "nowhere" does not exist', "check the name of the database")
def a_database_that_is_missing(lab: Lab) -> Iterator[None]:
    """The server has no such database."""
    lab.loaded()
    lab.manifest(source=lab.source.rpartition("/")[0] + "/nowhere")
    yield
    lab.manifest()


# -- tables, columns, privileges -------------------------------------------------------------------------------------


@case("schema", "DP401", 3, "public.orderz does not exist", "did you mean public.orders?", "dpone.yaml:7:3")
def a_table_that_is_missing(lab: Lab) -> Iterator[None]:
    """The source has no such table, but one of a similar name."""
    lab.loaded()
    lab.manifest(stream="public.orderz", target="orders")
    yield
    lab.manifest()


@case("schema", "DP403", 3, "column totl does not exist", "did you mean total?")
def a_column_that_is_missing(lab: Lab) -> Iterator[None]:
    """The cursor is a column that the source does not have."""
    lab.loaded()
    lab.manifest(cursor="totl", write="merge")
    yield
    lab.manifest()


@case("schema", "DP406", 3, "note: is in the target but no longer at the source", "change the target")
def a_column_that_vanished(lab: Lab) -> Iterator[None]:
    """The source lost a column that the target has."""
    lab.loaded()
    ask(lab.admin, "ALTER TABLE orders RENAME note TO remark")
    yield
    ask(lab.admin, "ALTER TABLE orders RENAME remark TO note")


@case("permission", "DP210", 1, "GRANT SELECT ON", '"orders" TO')
def no_select_at_the_source(lab: Lab) -> Iterator[None]:
    """The role may not read the table."""
    lab.loaded()
    lab.source = lab.role()
    lab.manifest()
    yield
    ask(lab.admin, f"GRANT SELECT ON orders TO {lab.roles[0]}")


@case("permission", "DP210", 1, "GRANT USAGE ON SCHEMA")
def no_usage_at_the_source(lab: Lab) -> Iterator[None]:
    """The role may not use the schema of the source."""
    ask(lab.admin, "CREATE SCHEMA shop", "ALTER TABLE orders SET SCHEMA shop", "GRANT SELECT ON shop.orders TO PUBLIC")
    lab.source = lab.role()
    lab.expect = lambda: ask(lab.admin, "SELECT id, note, total FROM shop.orders")
    lab.manifest(stream="shop.orders")
    yield
    ask(lab.admin, f"GRANT USAGE ON SCHEMA shop TO {lab.roles[0]}")


@case("permission", "DP210", 1, "lacks CREATE", "GRANT USAGE, CREATE ON SCHEMA")
def no_create_in_the_sink(lab: Lab) -> Iterator[None]:
    """The role may not create tables in the schema of the sink."""
    ask(lab.into, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    lab.sink = lab.role(url=lab.into)
    lab.manifest()
    yield
    ask(lab.into, f"GRANT USAGE, CREATE ON SCHEMA public TO {lab.roles[0]}")


@case("permission", "DP210", 1, "lacks USAGE and CREATE", "GRANT USAGE, CREATE ON SCHEMA")
def no_usage_in_the_sink(lab: Lab) -> Iterator[None]:
    """The role may not use the schema of the sink at all."""
    ask(lab.into, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    lab.sink = lab.role(url=lab.into)
    lab.manifest()
    yield
    ask(lab.into, f"GRANT USAGE, CREATE ON SCHEMA public TO {lab.roles[0]}")


@case("permission", "DP210", 1, "lacks INSERT", "GRANT SELECT, INSERT, UPDATE, DELETE ON")
def no_insert_into_the_target(lab: Lab) -> Iterator[None]:
    """The target belongs to another role, which grants reading only."""
    ask(lab.into, "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2))")
    ask(lab.into, "INSERT INTO orders VALUES (1, 'theirs', 1)")
    lab.sink = lab.role("GRANT USAGE, CREATE ON SCHEMA public TO {}", "GRANT SELECT ON orders TO {}", url=lab.into)
    lab.manifest()
    yield
    ask(lab.into, f"GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {lab.roles[0]}")


@case("permission", "DP210", 1, "lacks UPDATE, DELETE", "GRANT SELECT, INSERT, UPDATE, DELETE ON")
def no_delete_from_the_target(lab: Lab) -> Iterator[None]:
    """The target belongs to another role, which lets rows be added and none be removed."""
    ask(lab.into, "CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2))")
    ask(lab.into, "INSERT INTO orders VALUES (1, 'theirs', 1)")
    grant = "GRANT SELECT, INSERT ON orders TO {}"
    lab.sink = lab.role("GRANT USAGE, CREATE ON SCHEMA public TO {}", grant, url=lab.into)
    lab.manifest()
    yield
    ask(lab.into, f"GRANT UPDATE, DELETE ON orders TO {lab.roles[0]}")


@case("permission", "DP210", 1, "permission denied for table _dpone_")
def the_state_of_another_role(lab: Lab) -> Iterator[None]:
    """Another role ran first, and dpone's own tables in the sink are closed to this one."""
    lab.loaded()
    grants = ("GRANT USAGE, CREATE ON SCHEMA public TO {}", "GRANT ALL ON orders TO {}")
    lab.sink = lab.role(*grants, url=lab.into)
    lab.manifest()
    yield
    ask(lab.into, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {lab.roles[0]}")


@case("schema", "DP402", 3, "schema raw does not exist", "CREATE SCHEMA")
def a_schema_that_the_sink_lacks(lab: Lab) -> Iterator[None]:
    """The target's schema does not exist in Postgres."""
    lab.manifest(target="raw.orders")
    yield
    lab.manifest(sink={"connector": "postgres", **parts(lab.sink), "create_schema": True}, target="raw.orders")
    ask(lab.into, "ALTER ROLE postgres RESET ALL")
    lab.into += "?options=-csearch_path%3Draw"


def parts(url: str) -> dict[str, Any]:
    """The settings in a URL of these tests."""
    found = re.fullmatch(r"postgres://(\w+)(?::([^@]*))?@([^:]+):(\d+)/(\w+)", url)
    assert found is not None
    user, password, host, port, database = found.groups()
    made = {"user": user, "host": host, "port": int(port), "database": database}
    return made | ({"password": password} if password else {})


@case("schema", "DP402", 3, "schema raw does not exist", "create_schema: true")
def a_schema_that_duckdb_lacks(lab: Lab) -> Iterator[None]:
    """The target's schema does not exist in a DuckDB file."""
    lab.to("duckdb")
    lab.loaded()
    lab.manifest(target="raw.orders")
    yield
    lab.manifest()


# -- the target ------------------------------------------------------------------------------------------------------


@case("schema", "DP403", 3, "orders", "is not a table", "target:")
def a_view_in_the_sink(lab: Lab) -> Iterator[None]:
    """The target is a view of Postgres."""
    ask(lab.into, "CREATE VIEW orders AS SELECT 1 AS id, 'mine'::text AS note, 1::numeric(10,2) AS total")
    lab.manifest()
    yield
    ask(lab.into, "DROP VIEW orders")


@case("schema", "DP403", 3, "orders", "is not a table", "target:")
def a_view_in_duckdb(lab: Lab) -> Iterator[None]:
    """The target is a view of DuckDB."""
    write_local(lab.to("duckdb"), "CREATE VIEW orders AS SELECT 1 AS id, 'mine' AS note, 1::DECIMAL(10,2) AS total")
    lab.manifest()
    yield
    write_local(lab.sink, "DROP VIEW orders")


@case("schema", "DP403", 3, "orders", "is not a table", "target:")
def a_view_in_sqlite(lab: Lab) -> Iterator[None]:
    """The target is a view of SQLite."""
    write_local(lab.to("sqlite"), "CREATE VIEW orders AS SELECT 1 AS id, 'mine' AS note, '1.00' AS total")
    lab.manifest()
    yield
    write_local(lab.sink, "DROP VIEW orders")


@case("schema", "DP406", 3, "id: the target has smallint, the source needs integer")
def a_target_that_is_too_narrow(lab: Lab) -> Iterator[None]:
    """An existing column could not hold every value of the source: refused in the plan, whatever the values are."""
    ask(lab.into, "CREATE TABLE orders (id smallint, note text, total numeric(10,2))")
    lab.manifest()
    yield
    ask(lab.into, "ALTER TABLE orders ALTER id TYPE integer")


@case("schema", "DP406", 3, "total: the target has DECIMAL(6,2), the source needs DECIMAL(10,2)")
def a_decimal_that_is_too_narrow(lab: Lab) -> Iterator[None]:
    """The same in DuckDB."""
    write_local(lab.to("duckdb"), "CREATE TABLE orders (id INTEGER, note VARCHAR, total DECIMAL(6,2))")
    lab.manifest()
    yield
    write_local(lab.sink, "ALTER TABLE orders ALTER total TYPE DECIMAL(10,2)")


@case("data", "DP410", 1, "check violation small (SQLSTATE 23514)", "constraint of the target", process=True)
def a_check_of_the_target(lab: Lab) -> Iterator[None]:
    """A row breaks a constraint of the target in Postgres."""
    lab.loaded()
    ask(lab.into, "ALTER TABLE orders ADD CONSTRAINT small CHECK (id < 50)")
    yield
    ask(lab.into, "ALTER TABLE orders DROP CONSTRAINT small")


@case("data", "DP410", 1, "not null violation", "column note")
def a_null_that_the_target_refuses(lab: Lab) -> Iterator[None]:
    """A column of the target refuses NULL."""
    lab.loaded()
    ask(lab.admin, "UPDATE orders SET note = NULL WHERE id = 9")
    ask(lab.into, "ALTER TABLE orders ALTER note SET NOT NULL")
    yield
    ask(lab.into, "ALTER TABLE orders ALTER note DROP NOT NULL")


@case("data", "DP410", 1, "constraint of the target")
def a_check_of_duckdb(lab: Lab) -> Iterator[None]:
    """A row breaks a constraint of the target in DuckDB."""
    create = "CREATE TABLE orders (id INTEGER CHECK (id < 50), note VARCHAR, total DECIMAL(10,2))"
    write_local(lab.to("duckdb"), create)
    lab.loaded()
    yield
    ask(lab.admin, "DELETE FROM orders WHERE id > 50")


@case("data", "DP410", 1, "CHECK constraint failed", "constraint of the target")
def a_check_of_sqlite(lab: Lab) -> Iterator[None]:
    """A row breaks a constraint of the target in SQLite."""
    create = "CREATE TABLE orders (id INTEGER CHECK (id < 50), note TEXT, total DECIMAL_TEXT(10,2))"
    write_local(lab.to("sqlite"), create)
    lab.loaded()
    yield
    ask(lab.admin, "DELETE FROM orders WHERE id > 50")


def write_local(url: str, statement: str) -> None:
    """Run a statement in a DuckDB or SQLite file."""
    kind, _, path = url.partition(":///")
    if kind == "duckdb":
        with duckdb.connect(path) as connection:
            connection.execute(statement)
        return
    file = sqlite3.connect(path, isolation_level=None)
    file.execute(statement)
    file.close()


# -- values ----------------------------------------------------------------------------------------------------------


@case("data", "DP414", 1, "column total: a value of numeric(10,2) does not fit", "cast: {total: text}")
def nan_in_a_decimal(lab: Lab) -> Iterator[None]:
    """NaN has no place in a decimal of DuckDB."""
    lab.to("duckdb")
    lab.loaded()
    ask(lab.admin, "UPDATE orders SET total = 'NaN' WHERE id = 19")
    yield
    ask(lab.admin, "UPDATE orders SET total = 0 WHERE id = 19")


@case("data", "DP414", 1, "column at: a value of timestamp without time zone does not fit", "cast: {at: text}")
def an_infinite_timestamp(lab: Lab) -> Iterator[None]:
    """Infinity has no place in a timestamp of Arrow."""
    lab.to("duckdb")
    ask(lab.admin, "ALTER TABLE orders ADD at timestamp DEFAULT '2024-01-01'")
    lab.loaded()
    ask(lab.admin, "UPDATE orders SET at = 'infinity' WHERE id = 19")
    yield
    ask(lab.admin, "UPDATE orders SET at = '2024-02-01' WHERE id = 19")


@case("data", "DP413", 1, "2 rows of public.orders have no value in the key code")
def a_key_without_a_value(lab: Lab) -> Iterator[None]:
    """Rows without a key cannot be merged."""
    ask(lab.admin, "ALTER TABLE orders ADD code int", "UPDATE orders SET code = id")
    settings = {"write": "merge", "primary_key": "code"}
    lab.manifest(**settings)
    assert 0 == lab.run().exit
    ask(lab.admin, "UPDATE orders SET code = NULL WHERE id < 3")
    yield
    ask(lab.admin, "UPDATE orders SET code = id")


@case("data", "DP411", 1, "2 rows of public.orders have no value in the cursor", "nulls: load")
def a_cursor_without_a_value(lab: Lab) -> Iterator[None]:
    """Rows without a cursor value are never dropped silently."""
    ask(lab.admin, "ALTER TABLE orders ADD at timestamp", "UPDATE orders SET at = '2024-01-01' WHERE id > 2")
    lab.manifest(write="merge", cursor="at")
    yield
    ask(lab.admin, "UPDATE orders SET at = '2024-01-01'")


@case("schema", "DP400", 3, "syntax error", "check the names, the filter")
def a_filter_that_is_no_sql(lab: Lab) -> Iterator[None]:
    """The filter is not SQL to Postgres."""
    lab.loaded()
    lab.manifest(filter="id >>> 3 AND")
    yield
    lab.manifest()


@case("schema", "DP400", 3, "filter")
def a_filter_that_is_no_sql_to_duckdb(lab: Lab) -> Iterator[None]:
    """The filter is not SQL to DuckDB."""
    lab.source = f"duckdb:///{lab.folder}/shop.duckdb"
    write_local(lab.source, "CREATE TABLE orders AS SELECT 1 AS id, 'a' AS note, 1.00 AS total")
    lab.expect = lambda: local(lab.source, SOURCE_ROWS)
    lab.manifest(stream="main.orders", filter="id >>> 3 AND")
    yield
    lab.manifest(stream="main.orders")


@case("schema", "DP400", 3, "filter")
def a_filter_that_is_no_sql_to_sqlite(lab: Lab) -> Iterator[None]:
    """The filter is not SQL to SQLite."""
    lab.source = f"sqlite:///{lab.folder}/shop.sqlite"
    write_local(lab.source, "CREATE TABLE orders (id INTEGER, note TEXT, total TEXT)")
    write_local(lab.source, "INSERT INTO orders VALUES (1, 'a', '1.00')")
    lab.expect = lambda: local(lab.source, SOURCE_ROWS)
    lab.manifest(stream="orders", filter="id >>> 3 AND")
    yield
    lab.manifest(stream="orders")


# -- nothing there ---------------------------------------------------------------------------------------------------


@case("data", "DP412", 1, "is empty at the source", "would remove 20 rows", "allow_empty: true")
def a_source_that_lost_every_row(lab: Lab) -> Iterator[None]:
    """Replacing a full target by nothing is refused, unless it is asked for."""
    lab.loaded()
    ask(lab.admin, "DELETE FROM orders")
    yield
    lab.manifest(allow_empty=True)


@case("schema", "DP401", 3, "sales.* matches no stream", "dpone.yaml:7:3", "public.orders")
def a_glob_without_a_table(lab: Lab) -> Iterator[None]:
    """A pattern of streams that matches nothing."""
    lab.loaded()
    lab.manifest(stream="sales.*")
    yield
    lab.manifest(stream="public.*")


CSV = "id,note,total\n" + "".join(f"{n},note {n},{n / 4:.2f}\n" for n in range(1, 21))


def csv(lab: Lab, text: str = CSV, path: str = "in/orders.csv") -> Path:
    """A CSV source; what a good run brings are the rows of `CSV`."""
    file = lab.folder / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    lab.source = f"file://{lab.folder}/in"
    lab.expect = lambda: [tuple(line.split(",")) for line in CSV.splitlines()[1:]]
    return file


FILES: dict[str, Any] = {"stream": "orders", "columns": {"cast": {"total": "decimal(10,2)"}}}


@case("schema", "DP401", 3, "no file matches", "check the pattern")
def a_pattern_without_a_file(lab: Lab) -> Iterator[None]:
    """A pattern of files that matches nothing."""
    file = csv(lab)
    lab.source = f"file://{lab.folder}/in/*.csv"
    lab.manifest(**FILES)
    assert 0 == lab.run().exit
    file.unlink()
    yield
    csv(lab)


@case("schema", "DP401", 3, "has no stream orders", "no data files")
def an_empty_folder(lab: Lab) -> Iterator[None]:
    """A folder without files."""
    csv(lab).unlink()
    lab.manifest(**FILES)
    yield
    csv(lab)


@case("schema", "DP400", 3, "orders.csv: the file is empty, it has no header")
def an_empty_file(lab: Lab) -> Iterator[None]:
    """A CSV file of no bytes has no header, so no columns."""
    csv(lab, "")
    lab.manifest(**FILES)
    yield
    csv(lab)


# -- damaged files ---------------------------------------------------------------------------------------------------


@case("data", "DP410", 1, "orders.csv")
def a_ragged_line(lab: Lab) -> Iterator[None]:
    """A line with too many values."""
    csv(lab)
    lab.manifest(**FILES)
    assert 0 == lab.run().exit
    csv(lab, CSV.replace("9,note 9,", "9,no,te 9,"))
    yield
    csv(lab)


@case("data", "DP410", 1, "orders.csv", process=True)
def a_value_of_another_type(lab: Lab) -> Iterator[None]:
    """A text in a column of numbers; the text itself is not shown."""
    csv(lab)
    lab.manifest(stream="orders", columns={"cast": {"id": "int32", "total": "decimal(10,2)"}})
    assert 0 == lab.run().exit
    csv(lab, CSV.replace("9,note", f"{PASSWORD},note", 1))
    yield
    csv(lab)


@case("data", "DP410", 1, "orders", "the file is damaged")
def a_truncated_parquet_file(lab: Lab) -> Iterator[None]:
    """A Parquet file whose end is missing."""
    csv(lab).unlink()
    path = lab.folder / "in" / "orders.parquet"
    table = pa.table({"id": range(1, 21), "note": [f"note {n}" for n in range(1, 21)], "total": ["0.25"] * 20})
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-20])
    lab.manifest(stream="orders")
    yield
    pq.write_table(table, path)
    lab.expect = lambda: list(zip(*table.to_pydict().values(), strict=True))


@case("data", "DP410", 1, "orders", "the file is cut off or damaged")
def a_damaged_gzip_file(lab: Lab) -> Iterator[None]:
    """A compressed file whose end is missing."""
    path = csv(lab).rename(lab.folder / "in" / "orders.csv.gz")
    packed = gzip.compress(CSV.encode())
    path.write_bytes(packed[:-30])
    lab.manifest(**FILES)
    yield
    path.write_bytes(packed)


# -- files that are databases ----------------------------------------------------------------------------------------


@case("state", "DP500", 1, "not a DuckDB database", "check the path")
def a_sink_that_is_no_duckdb(lab: Lab) -> Iterator[None]:
    """The file of the sink is something else, and stays what it is."""
    path = Path(lab.to("duckdb").partition(":///")[2])
    path.write_text("not a database at all " * 1000)
    lab.manifest()
    yield
    path.unlink()


@case("state", "DP500", 1, "file is not a database", "check the path")
def a_sink_that_is_no_sqlite(lab: Lab) -> Iterator[None]:
    """The same for SQLite."""
    path = Path(lab.to("sqlite").partition(":///")[2])
    path.write_text("not a database at all " * 1000)
    lab.manifest()
    yield
    path.unlink()


@case("config", "DP140", 2, "the folder", "deep does not exist", "create the folder")
def a_folder_that_duckdb_lacks(lab: Lab) -> Iterator[None]:
    """The folder of the sink's file is missing."""
    lab.sink = lab.into = f"duckdb:///{lab.folder}/deep/lake.duckdb"
    lab.manifest()
    yield
    (lab.folder / "deep").mkdir()


@case("config", "DP140", 2, "the folder", "deep does not exist", "create the folder")
def a_folder_that_sqlite_lacks(lab: Lab) -> Iterator[None]:
    """The same for SQLite."""
    lab.sink = lab.into = f"sqlite:///{lab.folder}/deep/lake.sqlite"
    lab.manifest()
    yield
    (lab.folder / "deep").mkdir()


@case("source_unavailable", "DP300", 1, "the file does not exist", "check the path")
def a_source_file_that_is_missing(lab: Lab) -> Iterator[None]:
    """The DuckDB file to read from is not there, and is not made."""
    path = lab.folder / "shop.duckdb"
    lab.source = f"duckdb:///{path}"
    lab.manifest(stream="main.orders")
    yield
    write_local(lab.source, "CREATE TABLE orders AS SELECT 1 AS id, 'a' AS note, 1.00 AS total")
    lab.expect = lambda: local(lab.source, SOURCE_ROWS)


def without_rights(lab: Lab, connector: str) -> Iterator[None]:
    """The file of the sink is read-only. Root may write to it all the same, so root gives that up."""
    path = Path(lab.to(connector).partition(":///")[2])
    lab.loaded()
    path.chmod(0o444)
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root needs setpriv to give up its rights")
        lab.prefix = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    yield
    path.chmod(0o644)


@case("permission", "DP210", 1, "permission", "check the permissions of the file and its folder")
def a_read_only_duckdb(lab: Lab) -> Iterator[None]:
    """The DuckDB file may be read only."""
    yield from without_rights(lab, "duckdb")


@case("permission", "DP210", 1, "readonly", "check the permissions of the file and its folder")
def a_read_only_sqlite(lab: Lab) -> Iterator[None]:
    """The SQLite file may be read only."""
    yield from without_rights(lab, "sqlite")


def on_a_small_disk(lab: Lab, sink: str) -> Iterator[None]:
    """The sink is on a disk of 8 MiB, where the first load fits and the next one does not."""
    disk = lab.folder / "disk"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk)
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        lab.sink = lab.into = f"{sink}:///{disk}/lake.{sink}"
        lab.loaded()
        note = "(SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 30) AS m)"
        ask(lab.admin, f"INSERT INTO orders SELECT n, {note}, 1 FROM generate_series(1000, 20000) AS n")
        yield
        ask(lab.admin, "DELETE FROM orders WHERE id >= 1000")
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@case("resource", "DP600", 1, "the disk is full", "free space")
def a_full_disk_under_duckdb(lab: Lab) -> Iterator[None]:
    """The disk of a DuckDB file is too small for the load."""
    yield from on_a_small_disk(lab, "duckdb")


@case("resource", "DP600", 1, "disk is full", "free space")
def a_full_disk_under_sqlite(lab: Lab) -> Iterator[None]:
    """The same for SQLite."""
    yield from on_a_small_disk(lab, "sqlite")


# -- the manifest ----------------------------------------------------------------------------------------------------


def manifest_text(lab: Lab, change: Callable[[str], str]) -> Iterator[None]:
    """A good manifest, changed as a text."""
    lab.loaded()
    path = lab.folder / "dpone.yaml"
    good = path.read_text()
    path.write_text(change(good))
    yield
    path.write_text(good)


@case("config", "DP103", 2, "postgress", "did you mean 'postgres://'", "dpone.yaml:4:12", process=True)
def an_unknown_connector(lab: Lab) -> Iterator[None]:
    """The scheme of a URL that no connector answers to."""
    password = f"postgres:{PASSWORD}@"
    yield from manifest_text(
        lab, lambda text: text.replace("postgres://", "postgress://", 1).replace("postgres@", password, 1)
    )


@case("config", "DP109", 2, "a quoted text does not end", "dpone.yaml:6:2", process=True)
def yaml_that_is_cut_off(lab: Lab) -> Iterator[None]:
    """A manifest that is not YAML."""
    yield from manifest_text(lab, lambda text: text[: text.index("streams")])


@case("config", "DP112", 2, "unfolds into more than 100,000 values", "dpone.yaml:1:13")
def a_yaml_bomb(lab: Lab) -> Iterator[None]:
    """Aliases of aliases, which would fill the memory if they were followed."""
    bomb = "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    )
    yield from manifest_text(lab, lambda _: bomb)


@case("config", "DP112", 2, "YAML tags are refused", "dpone.yaml:3:14")
def an_unsafe_tag(lab: Lab) -> Iterator[None]:
    """A tag that would make a Python object, and run code, in a careless loader."""
    yield from manifest_text(lab, lambda text: text.replace('"bad"', "!!python/object/apply:os.system ['touch owned']"))
    assert not (lab.folder / "owned").exists()


# -- in the middle of a run ------------------------------------------------------------------------------------------

GATE = 4242  # an advisory lock that the source waits for in the middle of its rows


@contextlib.contextmanager
def gated(lab: Lab) -> Iterator[Any]:
    """Read a view that waits at its tenth row while somebody holds the gate; a connection that holds it."""
    ask(
        lab.admin,
        f"CREATE FUNCTION gate(n int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN IF n = 10 THEN "
        f"PERFORM pg_advisory_xact_lock_shared({GATE}); END IF; RETURN true; END'",
        "CREATE VIEW gated AS SELECT id, note, total FROM orders WHERE gate(id)",
    )
    lab.manifest(stream="public.gated", target="orders")
    with psycopg.connect(lab.admin, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", [GATE])
        try:
            yield gate
        except psycopg.errors.AdminShutdown:
            gate.close()


def until_waiting(connection: Any) -> None:
    """Return when the source waits at the gate."""
    deadline = time.monotonic() + LIMIT_S
    query = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted"
    while not connection.execute(query).fetchall():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def on_own_server(lab: Lab) -> tuple[PrivateServer, str]:
    """The server of our own, and the URL of an empty database there."""
    assert lab.own is not None
    server = lab.own()
    return server, server.url(server.create_database())


@case("source_unavailable", "DP300", 1, "127.0.0.1", "check that the server runs")
def a_source_that_dies(lab: Lab) -> Iterator[None]:
    """The server of the source is stopped at once in the middle of its rows, and stays away."""
    lab.loaded()
    server, lab.source = on_own_server(lab)
    lab.admin = lab.source
    ask(lab.source, *ORDERS)
    lab.change()

    def meanwhile() -> None:
        until_waiting(gate)
        server.stop()

    lab.meanwhile, lab.after = meanwhile, server.start
    with gated(lab) as gate:
        yield


@case("sink_unavailable", "DP310", 1, "127.0.0.1", "check that the server runs")
def a_sink_that_dies(lab: Lab) -> Iterator[None]:
    """The server of the sink is stopped at once while rows arrive, and stays away until the run has given up."""
    server, lab.sink = on_own_server(lab)
    lab.into = lab.sink
    lab.loaded()

    def meanwhile() -> None:
        until_waiting(gate)
        server.stop()
        gate.execute("SELECT pg_advisory_unlock(%s)", [GATE])

    lab.meanwhile, lab.after = meanwhile, server.start
    with gated(lab) as gate:
        yield


@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_dropped_connection_is_tried_again(lab: Lab, side: str) -> None:
    """A connection that is cut in the middle of the rows costs a retry, which is said and counted, and nothing else."""
    lab.loaded()

    def cut() -> None:
        until_waiting(gate)
        url = lab.source if side == "source" else lab.sink
        own = f"datname = '{url.rpartition('/')[2]}' AND application_name = 'dpone'"
        ask(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {own}")
        gate.execute("SELECT pg_advisory_unlock(%s)", [GATE])

    with gated(lab) as gate, doing(cut):
        said = lab.run("run", "--json")
    assert 0 == said.exit, said.stderr
    assert "trying again" in said.stderr
    [stream] = json.loads(said.stdout)["streams"]
    assert {f"{side}_unavailable": 1} == stream["retries"]["by_category"]
    assert ("proven", None) == (stream["proof"]["verdict"], stream["failure"])
    assert lab.wanted() == lab.target()
    assert [] == lab.debris()


# -- what is not an error --------------------------------------------------------------------------------------------


def test_an_empty_table_is_not_an_error(lab: Lab) -> None:
    """Nothing to move is a success: the target is made, and is empty."""
    ask(lab.admin, "DELETE FROM orders")
    lab.manifest()
    for _ in range(2):
        said = lab.run()
        assert 0 == said.exit, said.stderr
        assert [] == lab.target()


def test_a_csv_file_with_only_a_header_is_not_an_error(lab: Lab) -> None:
    """The columns are known and there are no rows: the target is made, and is empty."""
    csv(lab, CSV.splitlines()[0] + "\n")
    lab.manifest(**FILES)
    for _ in range(2):
        said = lab.run()
        assert 0 == said.exit, said.stderr
        assert [] == lab.target()


# -- the test of all cases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spoil.__name__)
def test_bad_input(case: Case, lab: Lab) -> None:
    """See the module, and the cases for what each of them spoils."""
    steps = case.spoil(lab)
    next(steps)
    before = lab.target()
    with doing(lab.meanwhile):
        said = lab.run(process=case.process)
    if lab.after is not None:
        lab.after()
    check(case, said)
    recorded = [path.read_text() for path in lab.folder.glob(".dpone/runs/*/*")]
    assert [] == [text for text in recorded if PASSWORD in text]
    assert before == lab.target()
    # What is refused leaves nothing; a load that broke off stays open, for the next run to continue or to drop.
    assert [] == lab.debris(resumable=case.exit == 1)
    if case.exit == REFUSED:
        planned = lab.run("plan")
        assert REFUSED == planned.exit
        assert f"[{case.code}]" in planned.stdout + planned.stderr
    lab.meanwhile = None
    next(steps, None)
    again = lab.run()
    assert 0 == again.exit, again.stderr
    assert lab.wanted() == lab.target()
    assert [] == lab.debris()
    next(steps, None)  # what had to stay until now is put away
