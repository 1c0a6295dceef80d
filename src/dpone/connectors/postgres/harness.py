"""The harness of PostgreSQL for the certification kit: see `dpone.testing.Harness`, which this class satisfies."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.types import TypeInfo

from dpone.connectors.postgres.server import ASKED, PrivateServer, Server, server
from dpone.errors import ConfigError

Role = Literal["source", "sink"]

_PASSWORD = "right"  # noqa: S105 - of a role that lives as long as its database
# What decides how a value is written as text.
_SETTINGS = {
    "search_path": "",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "lc_monetary": "C",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}
_PLAIN = ("bool", "int2", "int4", "int8", "oid", "float8")  # types whose Python values are exact and never fail


class PostgresHarness:
    """A database of its own on the server of this process; its tables are in the schema `public`."""

    served: ClassVar[Literal["real", "emulated", "fake"]] = "real"
    variants: ClassVar[tuple[str, ...]] = ("",)
    native: ClassVar[Mapping[str, str]] = {
        "id": "integer",
        "name": "text",
        "amount": "numeric(12,2)",
        "active": "boolean",
        "day": "date",
        "at": "timestamp with time zone",
        "score": "double precision",
    }

    def __init__(self, folder: Path, variant: str = "") -> None:
        del folder, variant
        self._server: Server = server()
        self.address: tuple[str, int] | None = (self._server.host, self._server.port)
        self._database = self._server.create_database()
        self._stranger = f"{self._database}_stranger"
        self._held: list[socket.socket] = []
        self._closed = False
        with self._connect() as connection:
            self.version: str = connection.info.parameter_status("server_version") or ""

    def close(self) -> None:
        """Drop the database, then the role. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for held in self._held:
            held.close()
        self._server.drop_database(self._database)
        with psycopg.connect(self._server.url()) as connection:
            connection.execute(f"DROP ROLE IF EXISTS {self._stranger}".encode())

    def endpoint(self, role: Role, *, address: tuple[str, int] | None = None) -> dict[str, Any]:
        """The database, as its superuser."""
        del role
        host, port = address or (self._server.host, self._server.port)
        settings = {"connector": "postgres", "host": host, "port": port, "database": self._database}
        password = {"password": self._server.password} if self._server.password else {}
        return {**settings, "user": self._server.user, **password}

    def mistakes(self, role: Role) -> Mapping[str, tuple[dict[str, Any], str]]:
        """A port where nobody listens, a database that is not there, a role that may do nothing, its wrong password.

        A server that asks nobody for a password, which one of DPONE_TEST_POSTGRES_URL may be, has no wrong one.
        """
        right = self.endpoint(role)
        self._create_stranger()
        stranger = {**right, "user": self._stranger, "password": _PASSWORD}
        wrong = {**stranger, "password": "wrong"}
        found = {
            "host": ({**right, "host": "127.0.0.1", "port": self._closed_port()}, f"{role}_unavailable"),
            "database": ({**right, "database": f"{self._database}_not"}, "config"),
            "privilege": (stranger, "permission"),
        }
        return {**found, "password": (wrong, "auth")} if self._refuses(wrong) else found

    def stream(self, table: str) -> str:
        """`public.table`, in quotes where there is a dot or a quote."""
        return f"public.{_quoted(table)}" if re.search('[."]', table) else f"public.{table}"

    def setup(self, statements: Sequence[str]) -> None:
        """Run each statement in a transaction of its own; names without a schema are in `public`."""
        with self._connect(autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Delete and copy, in one transaction."""
        columns = ", ".join(f"{_quoted(name)} {type_}" for name, type_ in self.native.items())
        with self._connect() as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_qualified(table)} ({columns}, PRIMARY KEY (id))".encode())
            connection.execute(f"DELETE FROM {_qualified(table)}".encode())
            _copy(connection, table, rows)

    def create(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]] = (), key: Sequence[str] = ()
    ) -> None:
        """CREATE TABLE, and INSERT of SQL expressions."""
        declared = [f"{_quoted(name)} {type_}" for name, type_ in columns.items()]
        if key:
            declared.append(f"PRIMARY KEY ({', '.join(map(_quoted, key))})")
        with self._connect() as connection:
            connection.execute(f"CREATE TABLE {_qualified(table)} ({', '.join(declared)})".encode())
            if rows:
                tuples = ", ".join(f"({', '.join(row)})" for row in rows)
                connection.execute(f"INSERT INTO {_qualified(table)} VALUES {tuples}".encode())

    def rows(self, table: str, columns: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Booleans, integers and doubles as Python values; everything else as text, so that no year is too late."""
        with self._connect(_SETTINGS) as connection:
            _read_as_text(connection, table)
            found = connection.execute(_select(table, columns).encode()).fetchall()
        return [tuple(_json(value) if isinstance(value, list) else value for value in row) for row in found]

    def texts(self, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
        """What the output function of each type gives, under fixed settings."""
        with self._connect(_SETTINGS) as connection:
            result = connection.execute(_select(table, columns).encode()).pgresult
            assert result is not None  # noqa: S101 - a SELECT has one
            places = range(len(columns))
            found = [[result.get_value(row, column) for column in places] for row in range(result.ntuples)]
        return [tuple(None if value is None else value.decode() for value in row) for row in found]

    def types(self, table: str) -> dict[str, str]:
        """The types as `format_type` writes them, types that are not built in with their schema."""
        with self._connect(_SETTINGS) as connection:
            found = connection.execute(
                "SELECT attname, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                [_qualified(table)],
            ).fetchall()
        return dict(found)

    def debris(self) -> list[str]:
        """Staging tables."""
        with self._connect() as connection:
            found = connection.execute(
                r"SELECT relname FROM pg_catalog.pg_class WHERE relname LIKE '\_dpone\_stage%' AND relkind <> 'i'"
            ).fetchall()
        return [name for (name,) in found]

    @contextmanager
    def late(self, table: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[None]:
        """Insert in a transaction that commits at the end of the block."""
        with self._connect() as connection:
            _copy(connection, table, rows)
            yield

    def restart(self) -> None:
        """Stop the server at once and start it again. Every harness of this process shares it."""
        private = self._private("be restarted")
        private.stop()
        private.start()

    @contextmanager
    def confine(self, folder: Path) -> Iterator[None]:
        """A tablespace in the folder, which the server's user must be able to reach; emptied when the block ends."""
        private = self._private("store tables in a folder of ours")
        space = f"{self._database}_space"
        place = folder / space
        place.mkdir()
        if private.owner is not None:
            os.chown(place, *private.owner)
        path = str(place.resolve()).replace("'", "''")
        self.setup(
            [
                f"CREATE TABLESPACE {space} LOCATION '{path}'",
                f"ALTER DATABASE {self._database} SET default_tablespace = {space}",
            ]
        )
        try:
            yield
        finally:
            self.setup([f"ALTER DATABASE {self._database} RESET default_tablespace"])
            self.setup(
                [
                    f"ALTER TABLE ALL IN TABLESPACE {space} SET TABLESPACE pg_default",
                    f"ALTER INDEX ALL IN TABLESPACE {space} SET TABLESPACE pg_default",
                    f"DROP TABLESPACE {space}",
                ]
            )
            place.rmdir()

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _connect(
        self, settings: Mapping[str, str] | None = None, *, autocommit: bool = False
    ) -> psycopg.Connection[tuple[Any, ...]]:
        connection = psycopg.connect(self._server.url(self._database), autocommit=autocommit)
        if settings:
            calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
            connection.execute(f"SELECT {calls}".encode())
        return connection

    def _create_stranger(self) -> None:
        """A role that can connect and may do nothing; on a private server it must give its password."""
        group = f" IN ROLE {ASKED}" if isinstance(self._server, PrivateServer) else ""
        with self._connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [self._stranger]).fetchone():
                connection.execute(f"CREATE ROLE {self._stranger} LOGIN PASSWORD '{_PASSWORD}'{group}".encode())
                # Until PostgreSQL 14 everybody may create tables there.
                connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    def _closed_port(self) -> int:
        """A port where nobody listens, held until the harness is closed."""
        self._held.append(socket.socket())
        self._held[-1].bind(("127.0.0.1", 0))
        return int(self._held[-1].getsockname()[1])

    def _refuses(self, settings: Mapping[str, Any]) -> bool:
        login = {name: settings[name] for name in ("host", "port", "user", "password")}
        try:
            psycopg.connect(**login, dbname=self._database).close()
        except psycopg.OperationalError:
            return True
        return False

    def _private(self, act: str) -> PrivateServer:
        if not isinstance(self._server, PrivateServer):
            raise ConfigError(
                f"the server of DPONE_TEST_POSTGRES_URL is not ours: it cannot {act}",
                remedy="unset DPONE_TEST_POSTGRES_URL; a private server is then started",
                code="DP110",
            )
        return self._server


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _qualified(table: str) -> str:
    return f"public.{_quoted(table)}"


def _select(table: str, columns: Sequence[str]) -> str:
    return f"SELECT {', '.join(map(_quoted, columns)) or '*'} FROM {_qualified(table)}"


def _copy(connection: psycopg.Connection[Any], table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with connection.cursor().copy(f"COPY {_qualified(table)} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)


# -- values as text --------------------------------------------------------------------------------------------


class _Text(Loader):
    """The text that the server wrote."""

    def load(self, data: Buffer) -> Any:
        return bytes(data).decode()


class _Time(_Text):
    """A date or a timestamp: the year as a number, where the server writes BC; an instant ends in Z."""

    def load(self, data: Buffer) -> str:
        text = bytes(data).decode()
        text, before, _ = text.partition(" BC")
        text = re.sub(r"\+00$", "Z", text)
        if before:
            year, _, rest = text.partition("-")
            before_zero = int(year) - 1  # the year before 0001 is 1 BC, which is 0
            text = f"{'-' if before_zero else ''}{before_zero:04d}-{rest}"
        return text


class _Bytes(_Text):
    """Hexadecimal, without the server's mark."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode().removeprefix("\\x")


def _read_as_text(connection: psycopg.Connection[Any], table: str) -> None:
    """Let the values of all types but a few be read as text, also in arrays; of arrays of the table's own types too."""
    adapters = connection.adapters
    for info in list(adapters.types):
        if info.name not in _PLAIN:
            adapters.register_loader(info.oid, _Text)
    for name, loader in {"date": _Time, "timestamp": _Time, "timestamptz": _Time, "bytea": _Bytes}.items():
        adapters.register_loader(name, loader)
    arrays = connection.execute(
        "SELECT e.typname, e.oid, a.oid, a.typdelim FROM pg_catalog.pg_attribute "
        "JOIN pg_catalog.pg_type t ON t.oid = atttypid "
        "JOIN pg_catalog.pg_type a ON a.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END "
        "JOIN pg_catalog.pg_type e ON e.typarray = a.oid WHERE attrelid = %s::regclass AND a.oid >= 16384",
        [_qualified(table)],
    ).fetchall()
    for name, oid, array_oid, delimiter in arrays:
        TypeInfo(name, oid, array_oid, delimiter=delimiter).register(connection)


def _json(value: list[Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
