"""The systems of the route tests: each can make a table, change it, and read a target back without dpone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

Row = tuple[Any, ...]
COLUMNS = ("id", "name", "amount", "active", "day", "at", "score")


def rows(numbers: Iterable[int], version: int = 0, minute: int | None = None) -> list[Row]:
    """Rows with every awkward value: NULL, '', quotes, newlines, other scripts, negative and tiny numbers, ties."""
    names = [None, "", "plain", 'with "quotes"', "two\nlines", "comma, semi;", "Żółć 東京", "NULL", "\\N", " blank "]
    made = []
    for n in numbers:
        at = datetime(2024, 3, 10, 1, (n // 3) % 60 if minute is None else minute, 0, (n // 3), tzinfo=UTC)
        made.append(
            (
                n,
                names[(n + version) % len(names)],
                None if n % 11 == 0 else Decimal(n * 100 + version * 7 + 1) / 100 * (-1 if n % 2 else 1),
                None if n % 13 == 0 else n % 2 == 0,
                None if n % 17 == 0 else date(1999 + n % 40, 1 + n % 12, 1 + n % 28),
                at,
                None if n % 19 == 0 else (n + version) / 7,
            )
        )
    return made


def normal(row: Sequence[Any]) -> Row:
    """A row as read from any system, as the values that went in."""
    number, name, amount, active, day, at, score = row
    return (
        int(number),
        name,
        None if amount is None else Decimal(str(amount)),
        None if active is None else str(active).lower() in ("true", "1"),
        None if day is None else date.fromisoformat(str(day)[:10]),
        None if at is None else _instant(at),
        None if score is None else float(score),
    )


def _instant(value: object) -> datetime:
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


class System(Protocol):
    """One system, as source or as sink."""

    endpoint: Any
    stream: str

    def write(self, made: list[Row]) -> None:
        """Make the table `t` hold these rows and nothing else."""

    def read(self, table: str = "t") -> list[Row]:
        """The rows of a target, sorted."""

    def debris(self) -> list[str]:
        """Staging left behind."""


@dataclass
class PostgresSystem:
    """A Postgres database."""

    url: str

    def __post_init__(self) -> None:
        self.endpoint: Any = self.url
        self.stream = "public.t"

    def write(self, made: list[Row]) -> None:
        """Delete and insert, in one transaction."""
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, name text, amount numeric(12,2), active boolean, "
                "day date, at timestamptz, score double precision)"
            )
            connection.execute("DELETE FROM t")
            connection.cursor().executemany("INSERT INTO t VALUES (%s,%s,%s,%s,%s,%s,%s)", made)

    def read(self, table: str = "t") -> list[Row]:
        """SELECT."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM {table}").fetchall()
        return sorted(map(normal, found))

    def debris(self) -> list[str]:
        """Staging tables."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE '\\_dpone\\_stage%'").fetchall()
        return [row[0] for row in found]


@dataclass
class DuckDBSystem:
    """A DuckDB file."""

    path: Path

    def __post_init__(self) -> None:
        self.endpoint: Any = f"duckdb:///{self.path}"
        self.stream = "main.t"

    def write(self, made: list[Row]) -> None:
        """Delete and insert, in one transaction."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name VARCHAR, amount DECIMAL(12,2), "
                'active BOOLEAN, day DATE, "at" TIMESTAMPTZ, score DOUBLE)'
            )
            connection.execute("DELETE FROM t")
            if made:
                connection.register("made", _table(made))  # row by row is slow in a column store
                connection.execute("INSERT INTO t SELECT * FROM made")

    def read(self, table: str = "t") -> list[Row]:
        """SELECT."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            # As text, because DuckDB needs a further package to give instants to Python.
            names = ", ".join(f'CAST("{name}" AS VARCHAR)' for name in COLUMNS)
            found = connection.execute(f"SELECT {names} FROM {table}").fetchall()
        return sorted(map(normal, found))

    def debris(self) -> list[str]:
        """Staging tables and lock files."""
        with duckdb.connect(str(self.path)) as connection:
            found = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%_dpone_stage%'"
            ).fetchall()
        return [row[0] for row in found] + [path.name for path in self.path.parent.glob(f"{self.path.name}.dpone*")]


@dataclass
class SQLiteSystem:
    """An SQLite file."""

    path: Path

    def __post_init__(self) -> None:
        self.endpoint: Any = f"sqlite:///{self.path}"
        self.stream = "t"

    def write(self, made: list[Row]) -> None:
        """Delete and insert, in one transaction."""
        with sqlite3.connect(self.path) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT, amount TEXT, active BOOLEAN, "
                "day TEXT, at TEXT, score REAL)"
            )
            connection.execute("DELETE FROM t")
            connection.executemany("INSERT INTO t VALUES (?,?,?,?,?,?,?)", [tuple(map(_sqlite, row)) for row in made])
        connection.close()

    def read(self, table: str = "t") -> list[Row]:
        """SELECT."""
        connection = sqlite3.connect(self.path)
        try:
            found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM {table}").fetchall()
        finally:
            connection.close()
        return sorted(map(normal, found))

    def debris(self) -> list[str]:
        """Staging tables and lock files."""
        connection = sqlite3.connect(self.path)
        try:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%_dpone_stage%'").fetchall()
        finally:
            connection.close()
        return [row[0] for row in found] + [path.name for path in self.path.parent.glob(f"{self.path.name}.dpone*")]


def _sqlite(value: object) -> object:
    if isinstance(value, Decimal | date | datetime):
        return _text(value)
    return value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value)


@dataclass
class FilesSystem:
    """A folder of files of one format."""

    folder: Path
    format: str

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.endpoint: Any = {"connector": "files", "path": str(self.folder), "format": self.format}
        self.stream = "t"
        if self.format != "parquet":
            types = {"id": "int32", "name": "text", "amount": "decimal(12,2)", "active": "boolean"}
            self.endpoint["types"] = types | {"day": "date", "at": "timestamptz", "score": "float64"}

    def write(self, made: list[Row]) -> None:
        """Write one file, under another name first."""
        temporary = self.folder / f".t.{self.format}"
        _WRITERS[self.format](temporary, made)
        temporary.replace(self.folder / f"t.{self.format}")

    def read(self, table: str = "t") -> list[Row]:
        """Read every file of the target."""
        parts = sorted((self.folder / table).glob(f"*.{self.format}")) or [self.folder / f"{table}.{self.format}"]
        return sorted(normal(row) for part in parts for row in _READERS[self.format](part))

    def debris(self) -> list[str]:
        """Staged files and lock files."""
        return [
            path.name
            for path in self.folder.rglob("*")
            if path.suffix in (".tmp", ".lock") or "stage" in path.name or "slice" in path.name
        ]


def _write_csv(path: Path, made: list[Row]) -> None:
    def cell(value: object) -> str:
        return "" if value is None else '"' + _text(value).replace('"', '""') + '"'

    def plain(value: object) -> str:
        return "" if value is None else _text(value)

    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        for row in made:
            cells = [cell(value) if isinstance(value, str) else plain(value) for value in row]
            file.write(",".join(cells) + "\n")


def _read_csv(path: Path) -> list[Row]:
    options = pyarrow.csv.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        column_types=dict.fromkeys(COLUMNS, pa.string()),
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(path, parse_options=parse, convert_options=options)
    return [tuple(row[name] for name in COLUMNS) for row in table.to_pylist()]


def _write_jsonl(path: Path, made: list[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in made:
            cells = []
            for name, value in zip(COLUMNS, row, strict=True):
                text = _text(value) if isinstance(value, Decimal) else json.dumps(value, default=_text)
                cells.append(f"{json.dumps(name)}: {text}")
            file.write("{" + ", ".join(cells) + "}\n")


def _read_jsonl(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line, parse_float=str) for line in lines]
    return [tuple(row.get(name) for name in COLUMNS) for row in found]


def _table(made: list[Row]) -> pa.Table:
    schema = pa.schema(
        [
            ("id", pa.int32()),
            ("name", pa.string()),
            ("amount", pa.decimal128(12, 2)),
            ("active", pa.bool_()),
            ("day", pa.date32()),
            ("at", pa.timestamp("us", "UTC")),
            ("score", pa.float64()),
        ]
    )
    columns = list(zip(*made, strict=True)) if made else [()] * len(COLUMNS)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def _write_parquet(path: Path, made: list[Row]) -> None:
    pq.write_table(_table(made), path, row_group_size=50)


def _read_parquet(path: Path) -> list[Row]:
    return [tuple(row[name] for name in COLUMNS) for row in pq.read_table(path).to_pylist()]


_WRITERS: dict[str, Callable[[Path, list[Row]], None]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
_READERS: dict[str, Callable[[Path], list[Row]]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}
