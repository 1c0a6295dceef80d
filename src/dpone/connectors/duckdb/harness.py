"""The harness of DuckDB for the certification kit: see `dpone.testing.Harness`, which this class satisfies."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal

import duckdb
import pyarrow as pa

Role = Literal["source", "sink"]

# Types, and lists of them, whose Python values are exact and never fail; all others are read as text.
_PLAIN = re.compile(
    r"(BOOLEAN|U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB)(\[\d*\])*"
)
_LISTS = re.compile(r"(\[\d*\])*$")
_NESTED = re.compile(r"^(STRUCT|MAP|UNION)\(")
_BEFORE = re.compile(r"^(\d+)(-\d\d-\d\d.*?) \(BC\)(.*)$")


class DuckDBHarness:
    """A file below a folder; its tables are in the schema `main`."""

    served: ClassVar[Literal["real", "emulated", "fake"]] = "real"
    variants: ClassVar[tuple[str, ...]] = ("",)
    native: ClassVar[Mapping[str, str]] = {
        "id": "INTEGER",
        "name": "VARCHAR",
        "amount": "DECIMAL(12,2)",
        "active": "BOOLEAN",
        "day": "DATE",
        "at": "TIMESTAMP WITH TIME ZONE",
        "score": "DOUBLE",
    }
    version: str = duckdb.__version__
    address: tuple[str, int] | None = None

    def __init__(self, folder: Path, variant: str = "") -> None:
        del variant
        self._folder = folder
        self._path = folder / "place.duckdb"

    def close(self) -> None:
        """Remove the files, and the folder that a killed process spilled into."""
        for path in self._folder.glob("*.duckdb*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def endpoint(self, role: Role, *, address: tuple[str, int] | None = None) -> dict[str, Any]:
        """The file."""
        del role, address
        return {"connector": "duckdb", "path": str(self._path)}

    def mistakes(self, role: Role) -> Mapping[str, tuple[dict[str, Any], str]]:
        """A folder that is not there, a file that is no database, a file that may not be opened.

        The last one is not there for root, whom no permission binds.
        """
        missing = self._folder / "missing" / "place.duckdb"
        damaged = self._folder / "damaged.duckdb"
        damaged.write_bytes(b"no database, for it is text. " * 1000)
        found = {
            "folder": (missing, "config" if role == "sink" else "source_unavailable"),
            "damaged": (damaged, "state"),
        }
        kept = self._folder / "kept.duckdb"
        kept.touch(0)
        if not os.access(kept, os.R_OK):
            found["privilege"] = (kept, "permission")
        return {
            name: ({"connector": "duckdb", "path": str(path)}, category) for name, (path, category) in found.items()
        }

    def stream(self, table: str) -> str:
        """`main.table`, in quotes where there is a dot or a quote."""
        return f"main.{_quoted(table)}" if re.search('[."]', table) else f"main.{table}"

    def setup(self, statements: Sequence[str]) -> None:
        """Run each statement in a transaction of its own."""
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Delete and insert, in one transaction."""
        columns = ", ".join(f"{_quoted(name)} {type_}" for name, type_ in self.native.items())
        with self._connect() as connection:
            connection.begin()
            connection.execute(f"CREATE TABLE IF NOT EXISTS main.{_quoted(table)} ({columns}, PRIMARY KEY (id))")
            connection.execute(f"DELETE FROM main.{_quoted(table)}")
            if rows:
                connection.register("made", _arrow(rows))  # row by row is slow in a column store
                connection.execute(f"INSERT INTO main.{_quoted(table)} SELECT * FROM made")
            connection.commit()

    def create(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]] = (), key: Sequence[str] = ()
    ) -> None:
        """CREATE TABLE, and INSERT of SQL expressions."""
        declared = [f"{_quoted(name)} {type_}" for name, type_ in columns.items()]
        if key:
            declared.append(f"PRIMARY KEY ({', '.join(map(_quoted, key))})")
        with self._connect() as connection:
            connection.begin()
            connection.execute(f"CREATE TABLE main.{_quoted(table)} ({', '.join(declared)})")
            for row in rows:
                connection.execute(f"INSERT INTO main.{_quoted(table)} VALUES ({', '.join(row)})")
            connection.commit()

    def rows(self, table: str, columns: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Booleans, numbers and text as Python values; everything else as text, so that no year is too late."""
        types = self.types(table)
        names = list(columns) or list(types)
        chosen = ", ".join(_readable(name, types.get(name, "VARCHAR")) for name in names) or "*"
        with self._connect() as connection:
            found = connection.execute(f"SELECT {chosen} FROM main.{_quoted(table)}").fetchall()
        timely = [types.get(name, "").startswith(("DATE", "TIMESTAMP")) for name in names]
        return [tuple(map(_value, row, timely)) for row in found]

    def texts(self, table: str, columns: Sequence[str]) -> list[tuple[str | None, ...]]:
        """What a cast to VARCHAR gives."""
        chosen = ", ".join(f"CAST({_quoted(name)} AS VARCHAR)" for name in columns)
        with self._connect() as connection:
            return connection.execute(f"SELECT {chosen} FROM main.{_quoted(table)}").fetchall()

    def types(self, table: str) -> dict[str, str]:
        """The types as the catalog writes them."""
        with self._connect() as connection:
            found = connection.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
                "AND schema_name = 'main' AND table_name = ? ORDER BY column_index",
                [table],
            ).fetchall()
        return dict(found)

    def debris(self) -> list[str]:
        """Staging tables and lock files."""
        if not self._path.exists():
            return []
        with self._connect() as connection:
            found = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, '_dpone_stage')"
            ).fetchall()
        return [name for (name,) in found] + [path.name for path in self._folder.glob(f"{self._path.name}.dpone*")]

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(self._path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _arrow(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    types = (
        pa.int32(),
        pa.string(),
        pa.decimal128(12, 2),
        pa.bool_(),
        pa.date32(),
        pa.timestamp("us", "UTC"),
        pa.float64(),
    )
    arrays = [pa.array(values, type_) for values, type_ in zip(zip(*rows, strict=True), types, strict=True)]
    return pa.table(arrays, names=list(DuckDBHarness.native))


# -- values as text --------------------------------------------------------------------------------------------


def _readable(name: str, type_: str) -> str:
    if _PLAIN.fullmatch(type_):
        return _quoted(name)
    if _NESTED.search(type_):
        return f"CAST(to_json({_quoted(name)}) AS VARCHAR)"
    lists = _LISTS.search(type_)
    return f"CAST({_quoted(name)} AS VARCHAR{'[]' * lists[0].count('[') if lists else ''})"


def _value(value: Any, timely: bool) -> Any:  # noqa: FBT001 - one of two parallel lists
    if isinstance(value, list | tuple):
        return json.dumps(_elements(value, timely), ensure_ascii=False, separators=(",", ":"))
    return _scalar(value, timely)


def _elements(value: Any, timely: bool) -> Any:  # noqa: FBT001
    if isinstance(value, list | tuple):
        return [_elements(element, timely) for element in value]
    return _scalar(value, timely)


def _scalar(value: Any, timely: bool) -> Any:  # noqa: FBT001
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return value.hex()
    return _time(value) if timely and isinstance(value, str) else value


def _time(text: str) -> str:
    """A date or a timestamp: the year as a number, where DuckDB writes BC; an instant ends in Z."""
    if match := _BEFORE.match(text):
        year = int(match[1]) - 1  # the year before 0001 is 1 BC, which is 0
        text = f"{'-' if year else ''}{year:04d}{match[2]}{match[3]}"
    return re.sub(r"\+00$", "Z", text)
