"""The harness of SQLite for the certification kit: see `dpone.testing.Harness`, which this class satisfies."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

Role = Literal["source", "sink"]


class SqliteHarness:
    """A file below a folder."""

    served: ClassVar[Literal["real", "emulated", "fake"]] = "real"
    variants: ClassVar[tuple[str, ...]] = ("",)
    native: ClassVar[Mapping[str, str]] = {
        "id": "INTEGER_32",
        "name": "TEXT",
        "amount": "DECIMAL_TEXT(12,2)",
        "active": "BOOLEAN",
        "day": "DATE",
        "at": "TIMESTAMPTZ",
        "score": "REAL",
    }
    version: str = sqlite3.sqlite_version
    address: tuple[str, int] | None = None

    def __init__(self, folder: Path, variant: str = "") -> None:
        del variant
        self._folder = folder
        self._path = folder / "place.sqlite"

    def close(self) -> None:
        """Remove the files."""
        for path in self._folder.glob("*.sqlite*"):
            path.unlink()

    def endpoint(self, role: Role, *, address: tuple[str, int] | None = None) -> dict[str, Any]:
        """The file."""
        del role, address
        return {"connector": "sqlite", "path": str(self._path)}

    def mistakes(self, role: Role) -> Mapping[str, tuple[dict[str, Any], str]]:
        """A folder that is not there, a file that is no database, a file that may not be written.

        The last one is only there for a sink, because SQLite says of a file that it cannot read what it says of one
        that is not there; and not for root, whom no permission binds.
        """
        missing = self._folder / "missing" / "place.sqlite"
        damaged = self._folder / "damaged.sqlite"
        damaged.write_bytes(b"no database, for it is text. " * 1000)
        found = {
            "folder": (missing, "config" if role == "sink" else "source_unavailable"),
            "damaged": (damaged, "state"),
        }
        kept = self._folder / "kept.sqlite"
        kept.touch(0o444)
        if role == "sink" and not os.access(kept, os.W_OK):
            found["privilege"] = (kept, "permission")
        return {
            name: ({"connector": "sqlite", "path": str(path)}, category) for name, (path, category) in found.items()
        }

    def stream(self, table: str) -> str:
        """The table, in quotes where there is a dot or a quote."""
        return _quoted(table) if re.search('[."]', table) else table

    def setup(self, statements: Sequence[str]) -> None:
        """Run each statement in a transaction of its own."""
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Delete and insert, in one transaction."""
        columns = ", ".join(f"{_quoted(name)} {type_}" for name, type_ in self.native.items())
        marks = ", ".join("?" * len(self.native))
        with self._transaction() as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(table)} ({columns}, PRIMARY KEY (id))")
            connection.execute(f"DELETE FROM {_quoted(table)}")
            connection.executemany(
                f"INSERT INTO {_quoted(table)} VALUES ({marks})", (tuple(map(_stored, row)) for row in rows)
            )

    def create(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]] = (), key: Sequence[str] = ()
    ) -> None:
        """CREATE TABLE, and INSERT of SQL expressions."""
        declared = [f"{_quoted(name)} {type_}" for name, type_ in columns.items()]
        if key:
            declared.append(f"PRIMARY KEY ({', '.join(map(_quoted, key))})")
        with self._transaction() as connection:
            connection.execute(f"CREATE TABLE {_quoted(table)} ({', '.join(declared)})")
            for row in rows:
                connection.execute(f"INSERT INTO {_quoted(table)} VALUES ({', '.join(row)})")

    def rows(self, table: str, columns: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """The values as they are stored, which is text for what SQLite has no type for; booleans as booleans."""
        declared = self.types(table)
        names = list(columns) or list(declared)
        boolean = [declared.get(name, "").upper() in ("BOOLEAN", "BOOL") for name in names]
        # With a prefix, for SQLite takes a quoted name that is no column for a text.
        chosen = ", ".join(f"r.{_quoted(name)}" for name in names) or "*"
        with self._connect() as connection:
            found = connection.execute(f"SELECT {chosen} FROM {_quoted(table)} AS r").fetchall()
        return [tuple(map(_value, row, boolean)) for row in found]

    def texts(self, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
        """The SQL literal of each value, which tells its storage class as well."""
        chosen = ", ".join(f"quote(r.{_quoted(name)})" for name in columns)
        with self._connect() as connection:
            found = connection.execute(f"SELECT {chosen} FROM {_quoted(table)} AS r").fetchall()
        return [tuple(None if text == "NULL" else text for text in row) for row in found]

    def types(self, table: str) -> dict[str, str]:
        """The types as they were declared."""
        with self._connect() as connection:
            found = connection.execute("SELECT name, type FROM pragma_table_info(?)", [table]).fetchall()
        return dict(found)

    def debris(self) -> list[str]:
        """Staging tables and lock files."""
        if not self._path.exists():
            return []
        with self._connect() as connection:
            found = connection.execute(
                "SELECT name FROM sqlite_master WHERE name LIKE '%\\_dpone\\_stage%' ESCAPE '\\'"
            )
            tables = [name for (name,) in found]
        return tables + [path.name for path in self._folder.glob(f"{self._path.name}.dpone*")]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        # A run may be writing: whoever waits for a minute and not for the default five seconds gets his turn.
        with closing(sqlite3.connect(self._path, timeout=5, isolation_level=None)) as connection:
            connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")  # may be anything
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")  # an exception closes the connection instead, which rolls back


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _stored(value: object) -> object:
    """A value of the sample table as the connector's own types store it."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _value(value: Any, boolean: bool) -> Any:  # noqa: FBT001 - one of two parallel lists
    if boolean and value in (0, 1):
        return bool(value)
    return value.hex() if isinstance(value, bytes) else value
