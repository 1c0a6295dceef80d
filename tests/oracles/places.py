"""The systems of the oracles: filled and read back through their own drivers, never through dpone."""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import duckdb
import psycopg
import pyarrow as pa
from psycopg import sql

from dpone.connectors.postgres.server import Server

FACTORS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""How many nanoseconds one of a unit has: every time and timestamp is compared as a count of nanoseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(
    r"(?:(\d{4}-\d{2}-\d{2})(?:[T ]|$))?(?:(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?)?(Z|[+-]00(?::00)?)?"
)


class Place(Protocol):
    """One empty database."""

    @property
    def name(self) -> str:
        """The connector's."""

    @property
    def schema(self) -> str:
        """Where its tables are."""

    @property
    def endpoint(self) -> str:
        """Its URL in a manifest."""

    def execute(self, statements: str) -> None:
        """Run statements, separated by semicolons, in the system's own SQL."""

    def types(self, table: str) -> dict[str, str]:
        """The native type of each column; empty when there is no such table."""

    def rows(self, table: str, columns: Sequence[str], order: str = "") -> list[tuple[Any, ...]]:
        """The values of some columns, as the driver gives them; times and timestamps may be counts of nanoseconds."""


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A database of a real server."""

    url: str
    name: str = "postgres"
    schema: str = "public"

    @property
    def endpoint(self) -> str:
        """Its URL in a manifest."""
        return self.url

    def execute(self, statements: str) -> None:
        """Run statements in one transaction, in UTC."""
        with psycopg.connect(self.url, options="-c TimeZone=UTC") as connection:
            connection.execute(statements.encode())

    def types(self, table: str) -> dict[str, str]:
        """What format_type says."""
        query = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        with psycopg.connect(self.url) as connection:
            return dict(connection.execute(query, [table]).fetchall())

    def rows(self, table: str, columns: Sequence[str], order: str = "") -> list[tuple[Any, ...]]:
        """SELECT in UTC, so that the last day of the year 9999 is one for Python too."""
        query = sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
        )
        if order:
            query += sql.SQL(" ORDER BY {}").format(sql.Identifier(order))
        with psycopg.connect(self.url, options="-c TimeZone=UTC") as connection:
            return connection.execute(query).fetchall()


@dataclass(frozen=True, slots=True)
class DuckDBPlace:
    """A DuckDB file."""

    path: Path
    name: str = "duckdb"
    schema: str = "main"

    @property
    def endpoint(self) -> str:
        """Its URL in a manifest."""
        return f"duckdb:///{self.path}"

    def execute(self, statements: str) -> None:
        """Run statements."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(statements)

    def types(self, table: str) -> dict[str, str]:
        """What duckdb_columns says."""
        query = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
        with duckdb.connect(str(self.path)) as connection:
            return dict(connection.execute(query, [table]).fetchall())

    def rows(self, table: str, columns: Sequence[str], order: str = "") -> list[tuple[Any, ...]]:
        """SELECT. Moments through their text: in Arrow, infinity is a number like the others."""
        native = self.types(table)
        moments = [native[name].startswith("TIME") for name in columns]
        names = [f"CAST({_quoted(n)} AS VARCHAR)" if m else _quoted(n) for n, m in zip(columns, moments, strict=True)]
        query = f"SELECT {', '.join(names)} FROM {_quoted(table)}"
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(query + (f" ORDER BY {_quoted(order)}" if order else "")).fetchall()
        return [
            tuple(moment(value) if counted else value for value, counted in zip(row, moments, strict=True))
            for row in found
        ]


@dataclass(frozen=True, slots=True)
class SQLitePlace:
    """An SQLite file."""

    path: Path
    name: str = "sqlite"
    schema: str = ""

    @property
    def endpoint(self) -> str:
        """Its URL in a manifest."""
        return f"sqlite:///{self.path}"

    def execute(self, statements: str) -> None:
        """Run statements."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(statements)

    def types(self, table: str) -> dict[str, str]:
        """What table_info says."""
        with closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT name, type FROM pragma_table_info(?)", [table]).fetchall())

    def rows(self, table: str, columns: Sequence[str], order: str = "") -> list[tuple[Any, ...]]:
        """SELECT."""
        query = f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(table)}"
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query + (f" ORDER BY {_quoted(order)}" if order else "")).fetchall()


@contextmanager
def place(name: str, folder: Path, database: Server) -> Iterator[Place]:
    """A fresh, empty place of a system; the folder exists."""
    if name == "postgres":
        with database.database() as url:
            yield PostgresPlace(url)
    elif name == "duckdb":
        yield DuckDBPlace(folder / "place.duckdb")
    else:
        yield SQLitePlace(folder / "place.sqlite")


def arrow_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """The rows of an Arrow table; times and timestamps as counts of nanoseconds."""
    if not table.num_columns:
        return []
    return list(zip(*(_arrow_values(column) for column in table.columns), strict=True))


def _arrow_values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_time(column.type) or pa.types.is_timestamp(column.type):
        width = pa.int32() if pa.types.is_time32(column.type) else pa.int64()
        factor = FACTORS[column.type.unit]
        return [None if value is None else value * factor for value in column.cast(width).to_pylist()]
    return list(column.to_pylist())


def comparable(value: Any, type_: pa.DataType, *, texts: bool = False) -> Any:  # noqa: C901, PLR0911 - one per family
    """A value brought to a form of its type that compares exactly.

    Floats compare by their bits, moments as nanoseconds. `texts` allows dates and moments to be texts, as SQLite
    stores them. What is not a value of the type stays as it is, with its Python type, and so equals nothing.
    """
    types = pa.types
    if value is None:
        return None
    if types.is_integer(type_) and isinstance(value, int) and not isinstance(value, bool):
        return value
    if types.is_boolean(type_) and value in (0, 1) and isinstance(value, int):
        return bool(value)
    if types.is_floating(type_) and isinstance(value, float | int):
        return struct.pack("<d" if types.is_float64(type_) else "<f", value).hex()
    if types.is_decimal(type_) and isinstance(value, Decimal | str | int):
        return Decimal(value).normalize()
    if isinstance(value, str) and (
        types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)
    ):
        return value
    if isinstance(value, bytes | memoryview) and _is_binary(type_):
        return bytes(value)
    if types.is_date(type_) and isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if types.is_temporal(type_):
        found = _nanoseconds(value, type_, texts=texts)
        if found is not None:
            return found
    return (type(value).__name__, repr(value))


def _is_binary(type_: pa.DataType) -> bool:
    types = pa.types
    plain = types.is_binary(type_) or types.is_large_binary(type_)
    return bool(plain or types.is_binary_view(type_) or types.is_fixed_size_binary(type_))


def _nanoseconds(value: Any, type_: pa.DataType, *, texts: bool) -> Any:
    instant = pa.types.is_timestamp(type_) and type_.tz is not None
    if isinstance(value, int):
        return value
    if isinstance(value, datetime) and (value.tzinfo is not None) == instant:
        since = (value if instant else value.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86_400 * 10**6 + since.seconds * 10**6 + since.microseconds) * 1000
    if isinstance(value, time):
        return ((value.hour * 60 + value.minute) * 60 + value.second) * 10**9 + value.microsecond * 1000
    if not (texts and isinstance(value, str)):
        return None
    match = _MOMENT.fullmatch(value)
    if match is None or (match[6] is not None) != instant:
        return None
    return match[1] if pa.types.is_date(type_) else moment(value)


def moment(text: str | None) -> Any:
    """The nanoseconds of a time, or since 1970 of a date and time without an offset or with none to UTC.

    Any other text, infinity for one, stays as it is.
    """
    match = _MOMENT.fullmatch(text) if text else None
    if match is None:
        return text
    clock = 0
    if match[2]:
        clock = ((int(match[2]) * 60 + int(match[3])) * 60 + int(match[4])) * 10**9 + int(
            (match[5] or "").ljust(9, "0")
        )
    days = (date.fromisoformat(match[1]) - date(1970, 1, 1)).days if match[1] else 0
    return days * 86_400 * 10**9 + clock


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
